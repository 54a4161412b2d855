"""An opened filesystem as a map: what the explorer shows, as pictures and numbers."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import btrfs
from btrfs.ctree import BlockGroupItem, Chunk, FileSystem
from btrfs.errors import BtrfsError
from btrfs.ondisk import constants
from btrfs.ondisk.profiles import PROFILES
from btrfs.ownership.paths import Paths
from btrfs_atlas.explorer.model import lines
from btrfs_atlas.explorer.model.extent_cache import (
    Extents,
    Job,
    Store,
    TooManyExtentsError,
    Trees,
    extents_key,
)
from btrfs_atlas.explorer.model.lines import Line
from btrfs_atlas.explorer.model.printable import printable
from btrfs_atlas.explorer.model.snapshot import World, changed_groups, last_generation, look
from btrfs_atlas.explorer.render import tiles
from btrfs_atlas.explorer.render.colourings import (
    FIRST,
    UNREAD,
    UNREADABLE_VALUE,
    ByExtent,
    ByGroup,
    Colourings,
)
from btrfs_atlas.explorer.render.coverage import Ground, Shown
from btrfs_atlas.explorer.render.pyramid import Coverage
from btrfs_atlas.explorer.render.tiles import Place, Square, Tile
from heatmap import layers
from heatmap.extents import references, types
from heatmap.intervals import Intervals
from heatmap.palette import BLACK, LegendEntry, Palette, followed, legend_entries

Addresses = NDArray[np.int64]

TILE_SECONDS = 0.3
"""How long a tile waits for what it needs, before it is drawn without that."""

_UNREAD_NOTE = "what was not read yet: block groups, the brighter, the fuller"

LOAD_SECONDS = 20.0
"""How long a block group may take to be read, before somebody who waits is told that it is not."""


class Legend(NamedTuple):
    """What the colours of the map mean, and how much there is of each.

    Attributes:
        note: what there is to know about them.
        is_scale: the entries are the steps of a scale, the lowest first.
        entries: the colours.
        read: the part of the block groups that these numbers are about, 0 to 1.
    """

    note: str
    is_scale: bool
    entries: list[LegendEntry]
    read: float


class Changes(NamedTuple):
    """What is new on the map.

    Attributes:
        generation: that of the filesystem now.
        groups: virtual addresses of the block groups that changed, ascending; some may be gone.
    """

    generation: int
    groups: list[int]


class Atlas:
    """A filesystem as a map. All methods can be called from several threads.

    Args:
        targets: what to open; see `btrfs.FileSystem`.
        memory: bytes that may be used for extents.
        options: how to read it; arguments of FileSystem.

    Attributes:
        fs: the filesystem, to be asked while `lock` is held.
        lock: see there.
        trees: numbers the trees that own extents.

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
            self._world = look(self.fs)
            self.trees = Trees(_known_trees(self.fs))
        except BaseException:
            self.fs.close()
            raise
        self._listeners: list[Callable[[], None]] = []
        self._colourings = Colourings(self.trees, self.generation)
        self._store = Store(open_filesystem, self.trees, memory, self._tell)
        self._store.show(self.groups, ())
        length = sum(group.length for group in self.groups.values())
        self._ground = Ground(self._store, memory, length)
        self._by_group: dict[tuple[int, str, str], Intervals] = {}
        self._names: dict[int, str] = {}

    def __enter__(self) -> Atlas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading, and close the filesystem."""
        self._store.close()
        with self.lock:
            self.fs.close()

    # What is known from the beginning.

    @property
    def generation(self) -> int:
        """The generation that is shown."""
        return self._world.generation

    @property
    def groups(self) -> dict[int, BlockGroupItem]:
        """The block groups, by virtual address, ascending."""
        return self._world.groups

    @property
    def chunks(self) -> dict[int, Chunk]:
        """The chunks, by virtual address, ascending."""
        return self._world.chunks

    @property
    def lines(self) -> dict[str, Line]:
        """The address lines, by their names."""
        return self._world.lines

    @property
    def device_paths(self) -> dict[int, str]:
        """Paths of the devices by devid; see `World.device_paths`."""
        return self._world.device_paths

    # Pictures.

    def tile(self, place: Place, colour: str, deadline: float | None = None) -> Tile:
        """Return a tile; it waits a moment for what has to be read, and is drawn without the rest.

        Args:
            place: which tile.
            colour: name of a colouring.
            deadline: until when to wait, as `time.monotonic()` tells it; TILE_SECONDS if not given.

        Raises:
            ValueError: There is no such tile, or colouring.
        """
        world = self._world
        square = _square(world, place)
        colouring = self._colourings.colouring(colour, square.bytes_per_pixel)
        if isinstance(colouring, ByExtent):
            if deadline is None:
                deadline = time.monotonic() + TILE_SECONDS
            sheet = self._ground.sheet(square, Shown(colour, colouring), deadline)
            drawn = self._extent_intervals(world, square, Shown(colour, colouring), sheet.coverage)
            return Tile(tiles.draw(square, *drawn), sheet.complete)
        shown = self._group_intervals(world, square.line.name, colour, colouring)
        groups = _within(shown, square.ranges())
        return Tile(tiles.draw(square, groups, colouring.palette), complete=True)

    def sketch(self, space: str, curve: str, zoom: int) -> bytes:
        """Return the whole map at a low zoom, block groups by type, as PNG.

        It is what tiles coloured by type show as long as no extents have been read.

        Raises:
            ValueError: There is no such space, curve or zoom.
        """
        world = self._world
        line = _square(world, (space, curve, zoom, 0, 0)).line
        by_type = self._colourings.colouring("type", math.inf)
        assert isinstance(by_type, ByGroup)
        shown = self._group_intervals(world, space, "type", by_type)
        return tiles.draw_whole(line, curve, zoom, shown, by_type.palette)

    def borders(self, place: Place) -> bytes:
        """Return the borders of devices and of large block groups on a tile, as PNG.

        Raises:
            ValueError: There is no such tile.
        """
        return tiles.borders(_square(self._world, place))

    def found(self, place: Place, start: Addresses, length: Addresses) -> bytes:
        """Return marks on what was found, as PNG.

        Args:
            place: which tile.
            start: where it lies on the line, ascending, in bytes; no range reaches into the next.
            length: bytes.

        Raises:
            ValueError: There is no such tile.
        """
        return tiles.marks(_square(self._world, place), start, length, "found")

    def changed(self, place: Place, groups: Iterable[int]) -> bytes:
        """Return marks on block groups, given by their virtual addresses, as PNG.

        Args:
            place: which tile.
            groups: the block groups; those that are gone are left out.

        Raises:
            ValueError: There is no such tile.
        """
        square = _square(self._world, place)
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
        world = self._world
        square = _square(world, (space, "hilbert", zoom, 0, 0))
        colouring = self._colourings.colouring(colour, square.bytes_per_pixel)
        if isinstance(colouring, ByExtent):
            return self._legend_of_extents(world, square.line, Shown(colour, colouring))
        shown = self._group_intervals(world, space, colour, colouring)
        used = shown.length if shown.used is None else shown.length * shown.used
        count = len(colouring.palette)
        entries = legend_entries(
            colouring.palette,
            np.bincount(shown.value, weights=shown.length, minlength=count).astype(np.float64),
            np.bincount(shown.value, weights=used, minlength=count).astype(np.float64),
            square.line.total_bytes,
            "not allocated",
        )
        return Legend(colouring.note, colouring.is_scale, entries, 1.0)

    def read_ahead(self, space: str, colour: str, zoom: int) -> None:
        """Have read what the tiles of a zoom need, before anybody asks for them.

        Raises:
            ValueError: There is no such space, zoom or colouring.
        """
        square = _square(self._world, (space, "hilbert", zoom, 0, 0))
        colouring = self._colourings.colouring(colour, square.bytes_per_pixel)
        if isinstance(colouring, ByExtent):
            self._ground.survey(square.line, Shown(colour, colouring))

    def extents(self, group: int) -> Extents | None:
        """Return the extents of a block group, read now if need be.

        None if they cannot be read, or are too many for the memory.
        """
        if group not in self.groups:
            return None
        if (found := self._store.extents(group)) is None:
            job = Job(group, extents_key(group), lambda extents: extents)
            self._store.want([job], time.monotonic() + LOAD_SECONDS)
            found = self._store.extents(group)
        return found

    def is_unreadable(self, group: int) -> bool:
        """Return whether a block group, or its extents, could not be read."""
        failure = self._store.failure(group)
        is_failure = failure is not None and not isinstance(failure, TooManyExtentsError)
        return is_failure or group not in self.groups

    def loaded_extents(self, group: int) -> Extents | None:
        """Return the extents of a block group, if they are in memory."""
        return self._store.extents(group)

    def tree_name(self, tree: int) -> str:
        """Return what to call a tree, or `references.SEVERAL` or `references.UNKNOWN`."""
        name = self._names.get(tree)
        if name is None:
            with self.lock:
                name = self._names[tree] = _tree_name(self.fs, tree)
        return name

    # What changes.

    def refresh(self) -> Changes | None:
        """Look whether anything changed, and show it from now on; None if nothing did."""
        with self.lock:
            before = self._world
            if last_generation(self.fs) == before.generation:
                return None
            now = look(self.fs)
            groups = changed_groups(self.fs, before, now)
            self._store.show(now.groups, groups)
            self._ground.forget(groups)
            self._names = {}
            if now.generation > self._colourings.newest:
                self._colourings = Colourings(self.trees, now.generation)
                self._ground.forget_colour("age")
            self._world = now
        return Changes(now.generation, groups)

    def on_loaded(self, listener: Callable[[], None]) -> None:
        """Have a function called, by another thread, whenever more extents have been read."""
        self._listeners.append(listener)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _group_intervals(
        self, world: World, space: str, colour: str, colouring: ByGroup
    ) -> Intervals:
        """Return what lies on a line, block groups in one colouring."""
        key = world.generation, space, colour
        found = self._by_group.get(key)
        if found is not None:
            return found
        shown = layers.block_group_intervals(world.shown[space])
        unknown = len(colouring.palette) - 1
        values = [
            unknown if group is None else colouring.value(group)
            for _, _, group, _ in world.shown[space]
        ]
        found = Intervals(
            shown.start,
            shown.length,
            np.array(values, dtype=np.int64),
            shown.used if colouring.shows_used else None,
        )
        current = {key: one for key, one in self._by_group.items() if key[0] == world.generation}
        self._by_group = {**current, key: found}
        return found

    def _extent_intervals(
        self, world: World, square: Square, shown: Shown, coverage: Coverage
    ) -> tuple[Intervals, Palette]:
        """Return what lies on a tile, extents as far as they are known, and its colours."""
        colours = shown.colouring.palette()
        found = tiles.intervals(coverage)
        unread = np.flatnonzero(coverage.value == UNREAD)
        by_group = shown.colouring.unread
        if by_group is None or not unread.size:
            return found, colours
        groups = self._group_intervals(world, square.line.name, shown.name, by_group)
        at = np.searchsorted(groups.start, coverage.start[unread], "right") - 1
        value, used = coverage.value.astype(np.int64), np.ones(len(found))
        known = groups.value[at] != by_group.palette.hatched
        value[unread] = np.where(known, len(colours) + groups.value[at], UNREADABLE_VALUE)
        if groups.used is not None:
            used[unread] = groups.used[at]
        drawn = Intervals(found.start, found.length, value, used)
        return drawn, followed(colours, by_group.palette)

    def _legend_of_extents(self, world: World, line: Line, shown: Shown) -> Legend:
        self._ground.survey(line, shown)
        palette = shown.colouring.palette()
        lengths = np.zeros(len(palette))
        lengths[UNREADABLE_VALUE] = sum(
            part.length for part in line.parts if self.is_unreadable(part.vaddr)
        )
        read = 0
        for vaddr, group in world.groups.items():
            sums = self._ground.sums(line, vaddr, shown.name)
            if sums is None:
                # What cannot be read, or is too much for the memory, will not be read later either.
                read += self._store.failure(vaddr) is not None
                continue
            read += 1
            known = sums[: lengths.size] * (1 if line.name == lines.VIRTUAL else _copies(group))
            lengths[: known.size] += known
        named = Palette(self._named(shown.name, palette), palette.colours, palette.hatched)
        allocated = sum(part.length for part in line.parts)
        free = "free" if read == len(world.groups) else "free, or not read yet"
        *entries, rest = legend_entries(named, lengths, lengths, allocated, free)
        if shown.name == "owner":
            entries.sort(key=attrgetter("length"), reverse=True)
        is_partly_read = shown.colouring.unread is not None and read < len(world.groups)
        unallocated = LegendEntry("not allocated", BLACK, line.total_bytes - allocated, 0)
        return Legend(
            _UNREAD_NOTE if is_partly_read else shown.colouring.note,
            shown.colouring.is_scale,
            [*entries, rest, *([unallocated] if unallocated.length else [])],
            read / max(1, len(world.groups)),
        )

    def _named(self, colour: str, palette: Palette) -> tuple[str, ...]:
        if colour != "owner":
            return palette.names
        return (
            *palette.names[:FIRST],
            *(self.tree_name(int(number)) for number in palette.names[FIRST:]),
        )


def _square(world: World, place: Place) -> Square:
    space, curve, zoom, row, column = place
    if space not in world.lines:
        raise ValueError(f"unknown space {space!r} (there are {', '.join(world.lines)})")
    square = Square(world.lines[space], curve, zoom, row, column)
    square.check()
    return square


def _within(shown: Intervals, ranges: Iterable[tuple[int, int]]) -> Intervals:
    """Return the intervals that can touch ranges of the line; none reaches over the next one."""
    indexes = [
        np.arange(
            max(0, int(np.searchsorted(shown.start, first, "right")) - 1),
            int(np.searchsorted(shown.start, behind)),
        )
        for first, behind in ranges
    ]
    chosen = np.unique(np.concatenate(indexes))
    used = None if shown.used is None else shown.used[chosen]
    return Intervals(shown.start[chosen], shown.length[chosen], shown.value[chosen], used)


def _copies(group: BlockGroupItem) -> int:
    profile = PROFILES.get(group.flags & constants.BLOCK_GROUP_PROFILE_MASK)
    return 1 if profile is None else profile.ncopies


def _known_trees(fs: FileSystem) -> Iterator[int]:
    """Yield the trees that there are from the beginning, so that each always has its colour."""
    yield from (references.SEVERAL, references.UNKNOWN)
    yield constants.FS_TREE_OBJECTID
    yield from (root.objectid for root in fs.subvolumes())


def _tree_name(fs: FileSystem, tree: int) -> str:
    if tree == references.SEVERAL:
        return "several subvolumes"
    if tree == references.UNKNOWN:
        return "not known"
    name = types.tree_name(tree)
    if name is not None:
        return name
    try:
        path = Paths(fs).of_subvolume(tree)
    except (BtrfsError, OSError):
        path = None
    return f"subvolume {tree}" if path is None else f"/{printable(path)} ({tree})"
