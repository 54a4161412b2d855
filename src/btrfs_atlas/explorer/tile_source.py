"""What tiles are drawn from: extents and their summaries, kept in memory and read by a worker.

Three parts work together, each of which knows nothing of the others: a cache keeps what was read
and made (:mod:`.model.extent_cache`), a worker's thread reads and makes what is wanted
(:mod:`.model.worker`), and pure functions say what lies on a tile (:mod:`.render.coverage`). A
request to the worker is data: which block group, which columns, and which summary.

The lowest zooms are drawn from levels of a whole line, made from the coarsest level of each part.
That is kept when the extents had to make room for others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from btrfs.errors import BtrfsError
from btrfs_atlas.explorer.model.extent_cache import ExtentCache
from btrfs_atlas.explorer.model.lines import Line
from btrfs_atlas.explorer.model.worker import Worker
from btrfs_atlas.explorer.render.coverage import (
    ByteCounts,
    PartDetail,
    PartSummary,
    byte_counts,
    cell_of,
    is_enough,
    parts_on,
    summary_of,
    tile_coverage,
)
from btrfs_atlas.explorer.render.pyramid import FINEST_CELL, Pyramid
from btrfs_atlas.explorer.render.tiles import Square
from heatmap.colours import UNREAD_VALUE, UNREADABLE_VALUE, ExtentColouring
from heatmap.extents.table import (
    GENERATION,
    OWNER,
    REFERENCES,
    TYPE,
    Column,
    Extents,
    TooManyExtentsError,
    read_extents,
)
from heatmap.extents.trees import Trees
from heatmap.layers.coverage import NOTHING, Coverage, joined, uniform
from heatmap.layers.lines import Part

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, FileSystem

_logger = logging.getLogger(__name__)

COLUMNS = (GENERATION, REFERENCES, OWNER, TYPE)
"""What is always read of extents, as details of an extent need it."""

_COARSE_PART = 16
"""The coarsest levels of a colouring take about this part of the memory, at most."""

_FINEST_COARSE_CELL = 1 << 20

_BYTES_PER_CELL = 36
"""About what a cell takes in a level."""

_FILLED_AT_MOST = 0.75
"""A tile that would take more of the memory than this is drawn with less detail."""

_SURVEY_SECONDS = 1.0
"""What is still to be read of a whole line is not looked for more often."""

_FEW_REQUESTS = 4
"""While more requests than these come first, drawing does not wait: it would take long."""

_REMAKE_SECONDS = 1.0
"""While block groups are read one after the other, levels of a line are not made more often."""


class Request(NamedTuple):
    """What is to be read, and made of it.

    Attributes:
        group: Virtual address of a block group, whose extents are to be in memory.
        columns: What has to be known of them.
        summary: The part of a line of which a summary is to be made, and in which colouring; None
            if the extents are all that is wanted.
    """

    group: int
    columns: tuple[Column, ...]
    summary: SummaryKey | None = None


class SummaryKey(NamedTuple):
    """Which part of a line, in which colouring.

    Attributes:
        line: Name of the line.
        group: Virtual address of the block group that the part belongs to.
        stripe: Index of its stripe; None if it is the whole block group.
        colouring: Name of a colouring of extents.
    """

    line: str
    group: int
    stripe: int | None
    colouring: str


class WholeLine(NamedTuple):
    """Levels of a whole line in a colouring.

    Attributes:
        line: The line.
        coverage: With the smallest cells.
        pyramid: With larger ones.
        complete: Whether all of its parts were known.
        version: Of the coarsest levels that it was made from.
        made: When, as `time.monotonic()` tells it.
    """

    line: Line
    coverage: Coverage
    pyramid: Pyramid
    complete: bool
    version: int
    made: float


class TileSource:
    """Knows what lies on tiles, and has read what is not known yet.

    Args:
        open_filesystem: Opens the filesystem for the worker.
        trees: Gives the trees that own extents their indexes.
        memory: Bytes that may be used in all.
        length: Bytes of all block groups.
        loaded: Called, by the worker's thread, when something has been read, at most a few times a
            second.

    Attributes:
        cache: Extents and levels of their summaries.
    """

    def __init__(
        self,
        open_filesystem: Callable[[], FileSystem],
        trees: Trees,
        memory: int,
        length: int,
        loaded: Callable[[], None],
    ) -> None:
        self.cache = ExtentCache(memory)
        self._open = open_filesystem
        self._fs: FileSystem | None = None
        self._trees = trees
        self._coarse_cell = _FINEST_COARSE_CELL
        while length // self._coarse_cell * _BYTES_PER_CELL * _COARSE_PART > memory:
            self._coarse_cell *= 2
        self._lock = threading.Lock()
        self._groups: Mapping[int, BlockGroupItem] = {}
        self._lines: Mapping[str, Line] = {}
        self._colourings: Mapping[str, ExtentColouring] = {}
        self._changes = 0  # of what the filesystem has, or colours mean
        self._failed: dict[int, BtrfsError | OSError] = {}
        self._coarse: dict[SummaryKey, Coverage] = {}
        self._coarse_version = 0  # grows with each change of the coarsest levels
        self._counts: dict[tuple[str, int, str], ByteCounts] = {}
        self._sizes: dict[SummaryKey, int] = {}
        self._surveyed: dict[tuple[str, str], float] = {}
        self._wholes: dict[tuple[str, str], WholeLine] = {}
        self._worker: Worker[Request] = Worker(self._handle, loaded)

    def close(self) -> None:
        """Stop reading."""
        self._worker.close()
        if self._fs is not None:
            self._fs.close()

    # What changes.

    def show(
        self,
        groups: Mapping[int, BlockGroupItem],
        lines: Mapping[str, Line],
        changed: Iterable[int],
    ) -> None:
        """Show a filesystem as it is now.

        Args:
            groups: The block groups.
            lines: The lines by their names.
            changed: The block groups that changed since the last call; they are read again.
        """
        gone = frozenset(changed)
        with self._lock:
            self._changes += 1
            self._groups, self._lines = dict(groups), dict(lines)
            for vaddr in gone:
                self._failed.pop(vaddr, None)
            self._forget(lambda key: key.group in gone)
        self.cache.drop_if(lambda key: key[0] in gone)

    def colour(self, colourings: Iterable[ExtentColouring], changed: Iterable[str] = ()) -> None:
        """Use these colourings.

        Args:
            colourings: The colourings of extents.
            changed: Names of those whose values mean something else from now on.
        """
        gone = frozenset(changed)
        with self._lock:
            self._changes += 1
            self._colourings = {colouring.name: colouring for colouring in colourings}
            self._forget(lambda key: key.colouring in gone)
        self.cache.drop_if(lambda key: key[-1] in gone)

    def _forget(self, is_unwanted: Callable[[SummaryKey], bool]) -> None:
        """Forget summaries; lines and wholes are made anew in any case. The lock is held."""
        self._coarse_version += 1
        self._wholes.clear()
        self._surveyed.clear()
        self._coarse = {key: one for key, one in self._coarse.items() if not is_unwanted(key)}
        self._sizes = {key: one for key, one in self._sizes.items() if not is_unwanted(key)}
        self._counts = {
            key: one
            for key, one in self._counts.items()
            if not is_unwanted(SummaryKey(key[0], key[1], None, key[2]))
        }

    # What is known.

    def extents(self, group: int, columns: Sequence[Column] = COLUMNS) -> Extents | None:
        """Return the extents of a block group if they are in memory with these columns."""
        found: Extents | None = self.cache.get((group, _EXTENTS))
        return found if found is not None and found.has(columns) else None

    def wait_for_extents(
        self, group: int, columns: Sequence[Column], deadline: float
    ) -> Extents | None:
        """Return the extents of a block group, read now if need be, before a deadline."""
        found = self.extents(group, columns)
        if found is None:
            self._want([Request(group, _with_common(columns))], deadline, wait=True)
            found = self.extents(group, columns)
        return found

    def failure(self, group: int) -> BtrfsError | OSError | None:
        """Return why the extents of a block group cannot be read, if they cannot."""
        return self._failed.get(group)

    def byte_counts(self, line: Line, group: int, colouring: str) -> ByteCounts | None:
        """Return the bytes of a block group by the values of a colouring, if it was read."""
        return self._counts.get((line.name, group, colouring))

    def coverage(
        self, square: Square, colouring: ExtentColouring, deadline: float
    ) -> tuple[Coverage, bool]:
        """Return what lies on a tile, as far as it is known at a deadline of `time.monotonic()`.

        Returns:
            The coverage, and whether all of it was known. What can never be known, as it does not
            fit into memory or cannot be read, counts as known.
        """
        cell = cell_of(square)
        if cell >= self._coarse_cell:
            return self._coarse_coverage(square, colouring, cell, deadline)
        parts = list(parts_on(square))
        known = self._details(square.line, parts, colouring)
        missing = [part for part, detail in known.items() if not is_enough(detail, cell)]
        fits = not missing or self._fits(square.line, parts, colouring)
        if missing and fits:
            is_deep = cell < FINEST_CELL
            self._want(
                [_request(square.line, part, colouring, is_deep=is_deep) for part in missing],
                deadline,
            )
            known = self._details(square.line, parts, colouring)
        found = tile_coverage(square, colouring, known)
        is_final = all(not fits or part.vaddr in self._failed for part in found.coarse)
        return found.coverage, is_final

    def survey(self, line: Line, colouring: ExtentColouring, deadline: float = 0.0) -> bool:
        """Have the whole of a line read, when nothing else is to be done.

        Args:
            line: The line.
            colouring: For which colouring.
            deadline: Until when to wait for that, as `time.monotonic()` tells it.

        Returns:
            Whether anything was left to read.
        """
        missing = [part for part in line.parts if not self._is_summarised(line, part, colouring)]
        now, key = time.monotonic(), (line.name, colouring.name)
        # There can be many thousands of them, and as many tiles that ask.
        if missing and now - self._surveyed.get(key, 0.0) > _SURVEY_SECONDS:
            self._surveyed[key] = now
            requests = [_request(line, part, colouring, is_deep=False) for part in missing]
            self._want(requests, deadline, urgent=False)
        return bool(missing)

    def _details(
        self, line: Line, parts: Iterable[Part], colouring: ExtentColouring
    ) -> dict[Part, PartDetail]:
        """Return what is known of parts of a line."""
        columns = colouring.colours.columns
        details = {}
        for part in parts:
            extents = self.extents(part.vaddr, columns)
            levels = self.cache.get(_levels_key(_summary_key(line, part, colouring)))
            fallback = self._fallback(line, part, colouring) if extents is None else NOTHING
            details[part] = PartDetail(extents, levels, fallback)
        return details

    def _fallback(self, line: Line, part: Part, colouring: ExtentColouring) -> Coverage:
        """Return what is shown of a part whose extents are not in memory."""
        coarse = self._coarse.get(_summary_key(line, part, colouring))
        if coarse is not None:
            return coarse
        failure = self.failure(part.vaddr)
        is_unreadable = failure is not None and not isinstance(failure, TooManyExtentsError)
        return uniform(part.length, UNREADABLE_VALUE if is_unreadable else UNREAD_VALUE)

    def _is_summarised(self, line: Line, part: Part, colouring: ExtentColouring) -> bool:
        return (
            _summary_key(line, part, colouring) in self._coarse
            or self.failure(part.vaddr) is not None
        )

    def _fits(self, line: Line, parts: Iterable[Part], colouring: ExtentColouring) -> bool:
        """Return whether what is needed for parts fits into memory all at once, as far as known."""
        needed = sum(self._sizes.get(_summary_key(line, part, colouring), 0) for part in parts)
        return needed <= self.cache.limit * _FILLED_AT_MOST

    # The lowest zooms.

    def _coarse_coverage(
        self, square: Square, colouring: ExtentColouring, cell: int, deadline: float
    ) -> tuple[Coverage, bool]:
        """Return what lies on a tile, from levels of the whole line."""
        line, key = square.line, (square.line.name, colouring.name)
        whole = self._wholes.get(key)
        if whole is None or not (self._is_current(whole, line) and whole.complete):
            missing = self.survey(line, colouring, deadline)
            with self._lock:
                whole = self._wholes.get(key)
                if whole is None or self._is_outdated(whole, line, missing=missing):
                    whole = self._wholes[key] = self._whole(line, colouring)
        level = whole.pyramid.at(cell) or whole.coverage
        return level.overlapping(np.array(square.ranges())), whole.complete

    def _is_current(self, whole: WholeLine, line: Line) -> bool:
        return whole.line is line and whole.version == self._coarse_version

    def _is_outdated(self, whole: WholeLine, line: Line, *, missing: bool) -> bool:
        """Return whether levels of a line are to be made anew."""
        if self._is_current(whole, line):
            return False
        is_recent = time.monotonic() - whole.made < _REMAKE_SECONDS
        return whole.line is not line or not (missing and is_recent)

    def _whole(self, line: Line, colouring: ExtentColouring) -> WholeLine:
        """Make the levels of a whole line, of what is known now."""
        complete = all(self._is_summarised(line, part, colouring) for part in line.parts)
        coverage = joined(
            self._fallback(line, part, colouring).moved(part.start) for part in line.parts
        )
        pyramid = Pyramid(coverage, self._coarse_cell)
        return WholeLine(line, coverage, pyramid, complete, self._coarse_version, time.monotonic())

    # The worker.

    def _want(
        self,
        requests: Iterable[Request],
        deadline: float,
        *,
        urgent: bool = True,
        wait: bool = False,
    ) -> None:
        """Have requests worked on, and wait for that if it is likely to be soon, or in any case."""
        wanted = [request for request in requests if request.group not in self._failed]
        if not wait:
            self._worker.want(wanted, urgent=urgent)
        waiting = self._worker.urgent if urgent else self._worker.backlog
        if wait or waiting <= _FEW_REQUESTS:
            self._worker.want(wanted, deadline, urgent=urgent)

    def _handle(self, request: Request) -> bool:
        """Read and make what is wanted; return whether that is not to be repeated."""
        try:
            return self._read(request)
        except (BtrfsError, OSError) as error:
            self._failed[request.group] = error
        except Exception as error:
            _logger.exception("a fault while block group %d was read", request.group)
            self._failed[request.group] = BtrfsError(f"block group {request.group}: {error!r}")
        return True

    def _read(self, request: Request) -> bool:
        if request.group in self._failed:
            return True
        with self._lock:
            changes, group = self._changes, self._groups.get(request.group)
        if group is None:
            raise BtrfsError(f"the block group at {request.group} could not be read")
        extents = self.extents(request.group, request.columns)
        if extents is None:
            self._fs = self._fs or self._open()
            extents = read_extents(
                self._fs,
                group.vaddr,
                group.length,
                request.columns,
                self._trees,
                self.cache.limit // 2,
            )
        made = None if request.summary is None else self._summarise(request.summary, extents)
        with self._lock:
            # What changed meanwhile may have been read before.
            if changes != self._changes:
                return False
            self.cache.put((request.group, _EXTENTS), extents)
            if request.summary is not None and made is not None:
                self._keep(request.summary, extents, made)
        return True

    def _summarise(
        self, key: SummaryKey, extents: Extents
    ) -> tuple[PartSummary, ByteCounts] | None:
        """Return the summary that is wanted; None if there is no such part any more."""
        line, colouring = self._lines.get(key.line), self._colourings.get(key.colouring)
        if line is None or colouring is None:
            return None
        for part in line.parts_of(key.group):
            if part.stripe == key.stripe:
                return (
                    summary_of(line, part, extents, colouring, self._coarse_cell),
                    byte_counts(line, key.group, extents, colouring),
                )
        return None

    def _keep(
        self, key: SummaryKey, extents: Extents, made: tuple[PartSummary, ByteCounts]
    ) -> None:
        """Keep a summary. The lock is held."""
        summary, counts = made
        self.cache.put(_levels_key(key), summary.pyramid)
        self._coarse[key] = summary.coarsest
        self._sizes[key] = extents.nbytes + summary.pyramid.nbytes
        self._counts[key.line, key.group, key.colouring] = counts
        self._coarse_version += 1


_EXTENTS = "extents"


def _summary_key(line: Line, part: Part, colouring: ExtentColouring) -> SummaryKey:
    return SummaryKey(line.name, part.vaddr, part.stripe, colouring.name)


def _levels_key(key: SummaryKey) -> tuple[int, str, int | None, str]:
    """Return what the levels of a summary are kept under in the cache."""
    return key.group, key.line, key.stripe, key.colouring


def _with_common(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return columns, and those that are always read."""
    return tuple(dict.fromkeys([*COLUMNS, *columns]))


def _request(line: Line, part: Part, colouring: ExtentColouring, *, is_deep: bool) -> Request:
    """Return what is to be read for a part: extents alone where a tile shows each of them."""
    key = None if is_deep else _summary_key(line, part, colouring)
    return Request(part.vaddr, _with_common(colouring.colours.columns), key)
