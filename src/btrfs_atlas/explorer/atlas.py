"""An opened filesystem as a map: what the explorer shows, as pictures and numbers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import btrfs
from btrfs.ctree import BlockGroupItem, Chunk, FileSystem
from btrfs_atlas.explorer import legends
from btrfs_atlas.explorer.legends import Legend
from btrfs_atlas.explorer.model.lines import Line
from btrfs_atlas.explorer.model.snapshot import (
    Snapshot,
    changed_groups,
    last_generation,
    take_snapshot,
)
from btrfs_atlas.explorer.render import tiles
from btrfs_atlas.explorer.render.coverage import with_unread_groups
from btrfs_atlas.explorer.render.tiles import Square, Tile, TileKey
from btrfs_atlas.explorer.tile_source import COLUMNS, TileSource
from heatmap.colouring import Cost
from heatmap.colourings import colouring, colourings
from heatmap.colours import (
    ActiveColouring,
    ColourContext,
    ExtentColouring,
    GroupColouring,
    GroupColours,
)
from heatmap.extents.table import Column, Extents, TooManyExtentsError
from heatmap.extents.trees import Trees, known_trees, tree_name
from heatmap.intervals import Intervals
from heatmap.layers.block_groups import intervals_of_groups

Addresses = NDArray[np.int64]

TILE_SECONDS = 0.3
"""How long a tile waits for what it needs, before it is drawn without that."""

LOAD_SECONDS = 20.0
"""How long to wait for the extents of a block group that are asked for."""

_GENERATIONS_AHEAD = 64
"""The scale of ages has room for one more generation per so many: all colours change with it."""


class Changes(NamedTuple):
    """What is new on the map.

    Attributes:
        generation: That of the filesystem now.
        groups: Virtual addresses of the block groups that changed, ascending; some may be gone.
    """

    generation: int
    groups: list[int]


class Atlas:
    """A filesystem as a map. All methods can be called from several threads.

    Args:
        targets: What to open; see `btrfs.FileSystem`.
        memory: Bytes that may be used for extents.
        options: How to read it; arguments of FileSystem.

    Attributes:
        fs: The filesystem, to be asked while `lock` is held.
        lock: See there.
        trees: Numbers the trees that own extents.

    Raises:
        HeatmapError: There is nothing that could be shown.
        BtrfsError, OSError: It cannot be opened.
    """

    def __init__(self, targets: Sequence[str], *, memory: int = 1 << 30, **options: Any) -> None:
        target = targets[0] if len(targets) == 1 else list(targets)
        open_filesystem = partial(btrfs.FileSystem, target, on_error="skip", **options)
        self.lock = threading.RLock()
        self.fs: FileSystem = open_filesystem()
        try:
            self._snapshot = take_snapshot(self.fs)
            self.trees = Trees(known_trees(self.fs))
        except BaseException:
            self.fs.close()
            raise
        self._listeners: list[Callable[[], None]] = []
        self._names: dict[int, str] = {}
        self._by_group: dict[tuple[int, str, str], Intervals] = {}
        self._context = self._new_context()
        length = sum(group.length for group in self.groups.values())
        self._source = TileSource(open_filesystem, self.trees, memory, length, self._notify)
        self._source.show(self.groups, self.lines, ())
        self._source.colour(self._extent_colourings())

    def __enter__(self) -> Atlas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading, and close the filesystem."""
        self._source.close()
        with self.lock:
            self.fs.close()

    # What is known from the beginning.

    @property
    def generation(self) -> int:
        """The generation that is shown."""
        return self._snapshot.generation

    @property
    def groups(self) -> dict[int, BlockGroupItem]:
        """The block groups, by virtual address, ascending."""
        return self._snapshot.groups

    @property
    def chunks(self) -> dict[int, Chunk]:
        """The chunks, by virtual address, ascending."""
        return self._snapshot.chunks

    @property
    def lines(self) -> dict[str, Line]:
        """The address lines, by their names."""
        return self._snapshot.lines

    @property
    def device_paths(self) -> dict[int, str]:
        """Paths of the devices by devid; see `Snapshot.device_paths`."""
        return self._snapshot.device_paths

    # Pictures.

    def tile(self, key: TileKey, colour: str, deadline: float | None = None) -> Tile:
        """Return a tile; it waits a moment for what has to be read, and is drawn without the rest.

        Args:
            key: Which tile.
            colour: Name of a colouring.
            deadline: Until when to wait, as `time.monotonic()` tells it; TILE_SECONDS if not given.

        Raises:
            ValueError: There is no such tile, or colouring.
        """
        snapshot = self._snapshot
        square = _square(snapshot, key)
        active = self._active(colour, square)
        if isinstance(active, GroupColouring):
            intervals = self._group_intervals(snapshot, square.line.name, colour, active.colours)
            near = _overlapping(intervals, square.ranges())
            return Tile(tiles.draw(square, near, active.colours.palette), complete=True)
        if deadline is None:
            deadline = time.monotonic() + TILE_SECONDS
        coverage, complete = self._source.coverage(square, active, deadline)
        by_group = active.colours.unread
        groups: Intervals | None = None
        if by_group is not None:
            groups = self._group_intervals(snapshot, square.line.name, colour, by_group)
        return Tile(tiles.draw(square, *with_unread_groups(coverage, active, groups)), complete)

    def sketch(self, space: str, curve: str, zoom: int) -> bytes:
        """Return the whole map at a low zoom, block groups by type, as PNG.

        It is what tiles coloured by type show as long as no extents have been read.

        Raises:
            ValueError: There is no such space, curve or zoom.
        """
        snapshot = self._snapshot
        line = _square(snapshot, (space, curve, zoom, 0, 0)).line
        by_type = colouring("type").at(math.inf)
        assert isinstance(by_type, GroupColours)
        intervals = self._group_intervals(snapshot, space, "type", by_type)
        return tiles.draw_whole(line, curve, zoom, intervals, by_type.palette)

    def borders(self, key: TileKey) -> bytes:
        """Return the borders of devices and of large block groups on a tile, as PNG.

        Raises:
            ValueError: There is no such tile.
        """
        return tiles.borders(_square(self._snapshot, key))

    def found(self, key: TileKey, start: Addresses, length: Addresses) -> bytes:
        """Return marks on what was found, as PNG.

        Args:
            key: Which tile.
            start: Where it lies on the line, ascending, in bytes; no range reaches into the next.
            length: Bytes.

        Raises:
            ValueError: There is no such tile.
        """
        return tiles.marks(_square(self._snapshot, key), start, length, "found")

    def changed(self, key: TileKey, groups: Iterable[int]) -> bytes:
        """Return marks on block groups, given by their virtual addresses, as PNG.

        Args:
            key: Which tile.
            groups: The block groups; those that are gone are left out.

        Raises:
            ValueError: There is no such tile.
        """
        square = _square(self._snapshot, key)
        parts = sorted(
            (part.start, part.length) for group in groups for part in square.line.parts_of(group)
        )
        ranges = np.array(parts, dtype=np.int64).reshape(-1, 2)
        return tiles.marks(square, ranges[:, 0], ranges[:, 1], "changed")

    # Numbers.

    def legend(self, space: str, colour: str, zoom: int) -> Legend:
        """Return what the colours mean on tiles of a zoom, and how much there is of each.

        If that takes extents that were not read yet, they will be: ask again later.

        Raises:
            ValueError: There is no such space, zoom or colouring.
        """
        snapshot = self._snapshot
        square = _square(snapshot, (space, "hilbert", zoom, 0, 0))
        line, active = square.line, self._active(colour, square)
        if isinstance(active, GroupColouring):
            intervals = self._group_intervals(snapshot, space, colour, active.colours)
            return legends.of_groups(active, intervals, line.total_bytes)
        self._source.survey(line, active)
        counts = {
            vaddr: self._source.byte_counts(line, vaddr, active.name) for vaddr in snapshot.groups
        }
        # What cannot be read, or is too much for the memory, will not be read later either.
        failed = {vaddr for vaddr in counts if self._source.failure(vaddr) is not None}
        unreadable = sum(part.length for part in line.parts if self.is_unreadable(part.vaddr))
        return legends.of_extents(active, line, snapshot.groups, counts, failed, unreadable)

    def read_ahead(self, space: str, colour: str, zoom: int) -> None:
        """Have read what the tiles of a zoom need, before they are asked for.

        Raises:
            ValueError: There is no such space, zoom or colouring.
        """
        square = _square(self._snapshot, (space, "hilbert", zoom, 0, 0))
        active = self._active(colour, square)
        if isinstance(active, ExtentColouring):
            self._source.survey(square.line, active)

    def extents(self, group: int) -> Extents | None:
        """Return the extents of a block group, read now if need be.

        Returns:
            A table with all columns of colourings that read the extent tree alone; None if it
            cannot be read, or is too large for the memory.
        """
        if group not in self.groups:
            return None
        deadline = time.monotonic() + LOAD_SECONDS
        return self._source.wait_for_extents(group, _detail_columns(), deadline)

    def is_unreadable(self, group: int) -> bool:
        """Return whether a block group, or its extents, could not be read."""
        failure = self._source.failure(group)
        is_failure = failure is not None and not isinstance(failure, TooManyExtentsError)
        return is_failure or group not in self.groups

    def loaded_extents(self, group: int) -> Extents | None:
        """Return the extents of a block group, if they are in memory."""
        return self._source.extents(group, COLUMNS)

    def colours_of(self, extents: Extents, index: int) -> list[tuple[str, str]]:
        """Return what colourings say of an extent that its numbers do not say already.

        Returns:
            Title of the colouring, and what a legend calls the colour, for each colouring whose
            columns are known.
        """
        told = []
        row = extents.rows(slice(index, index + 1))
        for active in self._extent_colourings():
            if colouring(active.name).in_details and extents.has(active.colours.columns):
                value = int(active.values(row)[0])
                told.append((active.title, active.named_palette.names[value]))
        return told

    def tree_name(self, tree: int) -> str:
        """Return what to call a tree, or `references.SEVERAL` or `references.UNKNOWN`."""
        name = self._names.get(tree)
        if name is None:
            with self.lock:
                name = self._names[tree] = tree_name(self.fs, tree)
        return name

    # What changes.

    def refresh(self) -> Changes | None:
        """Look whether anything changed, and show it from now on; None if nothing did."""
        with self.lock:
            before = self._snapshot
            self.fs.refresh()
            if last_generation(self.fs) == before.generation:
                return None
            now = take_snapshot(self.fs)
            groups = changed_groups(self.fs, before, now)
            self._source.show(now.groups, now.lines, groups)
            self._names = {}
            self._snapshot = now
            if now.generation > self._context.generation:
                self._context = self._new_context()
                active = self._extent_colourings()
                changed = [one.name for one in active if one.colours.by_generation]
                self._source.colour(active, changed)
        return Changes(now.generation, groups)

    def on_loaded(self, listener: Callable[[], None]) -> None:
        """Have a function called, by another thread, whenever more extents have been read."""
        self._listeners.append(listener)

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    # Colours.

    def _new_context(self) -> ColourContext:
        """Return what colours depend on, with some room for newer generations."""
        newest = self.generation + self.generation // _GENERATIONS_AHEAD + 1
        return ColourContext(newest, self.trees, self.tree_name)

    def _active(self, colour: str, square: Square) -> ActiveColouring:
        return colouring(colour).active(square.bytes_per_pixel, self._context)

    def _extent_colourings(self) -> list[ExtentColouring]:
        """Return the colourings of extents, as they are where pixels are small."""
        active = [one.active(0, self._context) for one in colourings()]
        return [one for one in active if isinstance(one, ExtentColouring)]

    def _group_intervals(
        self, snapshot: Snapshot, space: str, colour: str, colours: GroupColours
    ) -> Intervals:
        """Return what lies on a line, block groups in one colouring."""
        key = snapshot.generation, space, colour
        found = self._by_group.get(key)
        if found is None:
            found = intervals_of_groups(snapshot.entries[space], colours)
            current = {k: one for k, one in self._by_group.items() if k[0] == snapshot.generation}
            self._by_group = {**current, key: found}
        return found


def _square(snapshot: Snapshot, key: TileKey) -> Square:
    space, curve, zoom, row, column = key
    if space not in snapshot.lines:
        raise ValueError(f"unknown space {space!r} (there are {', '.join(snapshot.lines)})")
    square = Square(snapshot.lines[space], curve, zoom, row, column)
    square.check()
    return square


def _overlapping(intervals: Intervals, ranges: Iterable[tuple[int, int]]) -> Intervals:
    """Return the intervals that can overlap ranges of the line; none reaches over the next one."""
    indexes = [
        np.arange(
            max(0, int(np.searchsorted(intervals.start, start, "right")) - 1),
            int(np.searchsorted(intervals.start, end)),
        )
        for start, end in ranges
    ]
    chosen = np.unique(np.concatenate(indexes))
    used = None if intervals.used is None else intervals.used[chosen]
    return Intervals(
        intervals.start[chosen], intervals.length[chosen], intervals.value[chosen], used
    )


def _detail_columns() -> tuple[Column, ...]:
    """Return the columns that details of an extent are told from."""
    columns = [
        column
        for one in colourings()
        if one.extents is not None and one.cost is not Cost.FILES
        for column in one.extents.columns
    ]
    return tuple(dict.fromkeys([*COLUMNS, *columns]))
