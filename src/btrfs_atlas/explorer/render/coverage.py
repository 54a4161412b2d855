"""What of the extents lies on a tile, in as much detail as its pixels can show.

Few extents are drawn as they are. Where there are more, a tile is drawn from a level with less
detail, of which each part of a line has its own; see `levels`. The lowest zooms are drawn from
levels of the whole line, made from the coarsest level of each part, which is kept when its extents
had to make room for others.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs_atlas.explorer.model.extent_cache import (
    Extents,
    Job,
    Store,
    TooManyExtentsError,
    extents_key,
)
from btrfs_atlas.explorer.model.lines import Line, Part
from btrfs_atlas.explorer.render.colourings import PARITY, UNREAD, UNREADABLE_VALUE, ByExtent
from btrfs_atlas.explorer.render.pyramid import (
    FINEST_CELL,
    Coverage,
    Pyramid,
    Ranges,
    Slices,
    joined,
    limited,
    touching,
    whole,
)
from btrfs_atlas.explorer.render.tiles import Square

Bytes = NDArray[np.float64]

EXACT_EXTENTS = 50_000
"""Up to so many extents are drawn as they are."""

_COARSE_PART = 16
"""The coarsest levels of a colouring take about this part of the memory, at most."""

_FINEST_COARSE_CELL = 1 << 20

_BYTES_PER_CELL = 36
"""About what a cell takes in a level."""

_FEWEST_CELLS = 64
"""So many intervals of a part are kept in its coarsest level, if there are as many."""

_FILLED_AT_MOST = 0.75
"""A tile that would take more of the memory than this is drawn with less detail."""

_SURVEY_SECONDS = 1.0
"""What is still to be read of a whole line is not looked for more often."""

_FEW_JOBS = 4
"""While more jobs than these are to be done first, nobody waits: it would take long."""

_REMAKE_SECONDS = 1.0
"""While block groups are read one after the other, levels of a line are not made more often."""


class Shown(NamedTuple):
    """What is shown of the extents.

    Attributes:
        name: name of a colouring, one of `colourings.NAMES`.
        colouring: how it is at the tile's zoom.
    """

    name: str
    colouring: ByExtent


class Sheet(NamedTuple):
    """What lies on a tile.

    Attributes:
        coverage: ascending; there can be more than what touches the tile.
        complete: whether all of it was known.
    """

    coverage: Coverage
    complete: bool


class Ground:
    """Finds what lies on tiles.

    Args:
        store: what is known of the extents.
        memory: bytes that may be used in all.
        length: bytes of all block groups.
    """

    def __init__(self, store: Store, memory: int, length: int) -> None:
        self._store = store
        self._coarse_cell = _FINEST_COARSE_CELL
        while length // self._coarse_cell * _BYTES_PER_CELL * _COARSE_PART > memory:
            self._coarse_cell *= 2
        self._coarse: dict[tuple[int, int | None, str], Coverage] = {}
        self._sums: dict[tuple[str, int, str], Bytes] = {}
        self._sizes: dict[tuple[int, int | None, str], int] = {}
        self._surveyed: dict[tuple[str, str], float] = {}
        self._wholes: dict[tuple[str, str], _Whole] = {}
        self._lock = threading.Lock()
        self._version = 0  # grows with each change of the coarsest levels

    def forget(self, groups: Iterable[int]) -> None:
        """Forget what was known of block groups, as they changed; lines may have changed, too."""
        gone = frozenset(groups)
        with self._lock:
            self._version += 1
            self._wholes.clear()
            self._surveyed.clear()
            self._coarse = {key: one for key, one in self._coarse.items() if key[0] not in gone}
            self._sums = {key: one for key, one in self._sums.items() if key[1] not in gone}
            self._sizes = {key: one for key, one in self._sizes.items() if key[0] not in gone}

    def forget_colour(self, name: str) -> None:
        """Forget what was known of a colouring: its values mean something else now."""
        with self._lock:
            self._version += 1
            self._wholes.clear()
            self._surveyed.clear()
            self._coarse = {key: one for key, one in self._coarse.items() if key[-1] != name}
            self._sums = {key: one for key, one in self._sums.items() if key[-1] != name}
        self._store.memory.drop_if(lambda key: key[-1] == name)

    def sums(self, line: Line, group: int, colour: str) -> Bytes | None:
        """Return the bytes of a block group by the values of a colouring, if it was read.

        Of data, they are virtual addresses; of parity, bytes on the line.
        """
        return self._sums.get((line.name, group, colour))

    def sheet(self, square: Square, shown: Shown, deadline: float) -> Sheet:
        """Return what lies on a tile, as far as it is known at a deadline of `time.monotonic()`."""
        # The largest power of two that is not larger than a pixel.
        cell = 1 << max(0, int(square.bytes_per_pixel).bit_length() - 1)
        if cell >= self._coarse_cell:
            return self._coarse_sheet(square, shown, cell, deadline)
        touched = _touched(square)
        missing = [part for part in touched if not self._is_known(part, shown, cell)]
        fits = self._fits(touched, shown)
        if missing and fits:
            jobs = [self._job(square.line, part, shown, cell) for part in missing]
            self._want(jobs, deadline)
        exactly = cell < FINEST_CELL or self._are_few(square.line, touched, shown)
        complete = True
        coverage = []
        for part, ranges in touched.items():
            found = None if exactly else self._level(part, shown, cell)
            if found is not None:
                found = found.touching(ranges)
            elif (extents := self._extents(part, shown)) is not None:
                found = _covered(square.line, part, ranges, extents, shown)
            else:
                found = self._at_hand(part, shown)
                complete &= not fits or self._store.failure(part.vaddr) is not None
            coverage.append(found.moved(part.start))
        return Sheet(joined(coverage), complete)

    def survey(self, line: Line, shown: Shown, deadline: float = 0.0) -> bool:
        """Have the whole of a line read, when nothing else is to be done.

        Args:
            line: the line.
            shown: for which colouring.
            deadline: until when to wait for that, as `time.monotonic()` tells it.

        Returns:
            Whether there was anything left to read.
        """
        missing = [part for part in line.parts if not self._is_coarsely_known(part, shown)]
        now, key = time.monotonic(), (line.name, shown.name)
        # There can be many thousands of them, and as many tiles that ask.
        if missing and now - self._surveyed.get(key, 0.0) > _SURVEY_SECONDS:
            self._surveyed[key] = now
            jobs = [self._job(line, part, shown, self._coarse_cell) for part in missing]
            self._want(jobs, deadline, urgent=False)
        return bool(missing)

    def _want(self, jobs: list[Job], deadline: float, *, urgent: bool = True) -> None:
        """Have jobs done, and wait for that if it is likely to be soon."""
        self._store.want(jobs, urgent=urgent)
        if (self._store.urgent if urgent else self._store.backlog) <= _FEW_JOBS:
            self._store.want(jobs, deadline, urgent=urgent)

    def _coarse_sheet(self, square: Square, shown: Shown, cell: int, deadline: float) -> Sheet:
        """Return what lies on a tile, from levels of the whole line."""
        line, key = square.line, (square.line.name, shown.name)
        whole = self._wholes.get(key)
        is_current = whole is not None and whole.line is line and whole.version == self._version
        if whole is None or not (is_current and whole.complete):
            missing = self.survey(line, shown, deadline)
            with self._lock:
                whole = self._wholes.get(key)
                if (
                    whole is None
                    or whole.line is not line
                    or (
                        whole.version != self._version
                        and not (missing and time.monotonic() - whole.made < _REMAKE_SECONDS)
                    )
                ):
                    whole = self._wholes[key] = self._whole(line, shown)
        level = whole.pyramid.at(cell) or whole.coverage
        return Sheet(level.touching(np.array(square.ranges())), whole.complete)

    def _whole(self, line: Line, shown: Shown) -> _Whole:
        """Make the levels of a whole line, of what is known now."""
        complete = all(self._is_coarsely_known(part, shown) for part in line.parts)
        coverage = joined(self._at_hand(part, shown).moved(part.start) for part in line.parts)
        pyramid = Pyramid(coverage, self._coarse_cell)
        return _Whole(line, coverage, pyramid, complete, self._version, time.monotonic())

    def _is_coarsely_known(self, part: Part, shown: Shown) -> bool:
        return _key(part, shown) in self._coarse or self._store.failure(part.vaddr) is not None

    def _is_known(self, part: Part, shown: Shown, cell: int) -> bool:
        """Return whether it is in memory what is needed to draw a part."""
        if cell >= FINEST_CELL:
            pyramid = self._store.memory.get(_key(part, shown))
            if pyramid is None or pyramid.at(cell) is not None:
                return pyramid is not None
        return self._extents(part, shown) is not None

    def _extents(self, part: Part, shown: Shown) -> Extents | None:
        return self._store.extents(part.vaddr, compressed=shown.colouring.compressed)

    def _level(self, part: Part, shown: Shown, cell: int) -> Coverage | None:
        pyramid: Pyramid | None = self._store.memory.get(_key(part, shown))
        return None if pyramid is None else pyramid.at(cell)

    def _are_few(self, line: Line, touched: dict[Part, Ranges], shown: Shown) -> bool:
        """Return whether the extents are known, and few enough to be drawn as they are."""
        count = 0
        for part, ranges in touched.items():
            extents = self._extents(part, shown)
            if extents is None:
                return False
            count += _near(line, part, ranges, extents).size
            if count > EXACT_EXTENTS:
                return False
        return True

    def _fits(self, parts: Iterable[Part], shown: Shown) -> bool:
        """Return whether what is needed for parts fits into memory all at once, as far as known."""
        needed = sum(self._sizes.get(_key(part, shown), 0) for part in parts)
        return needed <= self._store.memory.limit * _FILLED_AT_MOST

    def _at_hand(self, part: Part, shown: Shown) -> Coverage:
        """Return what is shown of a part whose extents are not in memory."""
        coarse = self._coarse.get(_key(part, shown))
        if coarse is not None:
            return coarse
        failure = self._store.failure(part.vaddr)
        is_unreadable = failure is not None and not isinstance(failure, TooManyExtentsError)
        return whole(part.length, UNREADABLE_VALUE if is_unreadable else UNREAD)

    def _job(self, line: Line, part: Part, shown: Shown, cell: int) -> Job:
        """Return what there is to do for a part of a line."""

        def make(extents: Extents) -> Extents | Pyramid:
            self._add_sums(line, part.vaddr, extents, shown)
            if cell < FINEST_CELL:
                return extents
            coverage = _covered(line, part, np.array([[0, part.length]]), extents, shown)
            pyramid = Pyramid(coverage)
            coarse = pyramid.at(self._coarse_cell)
            coarse = coverage if coarse is None else coarse
            most = max(_FEWEST_CELLS, 2 * part.length // self._coarse_cell)
            coarse = limited(coarse, self._coarse_cell, most)
            with self._lock:
                self._coarse[_key(part, shown)] = coarse
                self._sizes[_key(part, shown)] = extents.nbytes + pyramid.nbytes
                self._version += 1
            return pyramid

        is_deep = cell < FINEST_CELL
        key = extents_key(part.vaddr) if is_deep else _key(part, shown)
        return Job(part.vaddr, key, make, shown.colouring.compressed)

    def _add_sums(self, line: Line, group: int, extents: Extents, shown: Shown) -> None:
        value = shown.colouring.values(extents)
        sums = np.bincount(value, weights=extents.length, minlength=PARITY + 1)
        sums[PARITY] = line.parity_length(group, extents.vaddr - group, extents.length)
        self._sums[line.name, group, shown.name] = sums.astype(np.float64)


class _Whole(NamedTuple):
    """Levels of a whole line.

    Attributes:
        line: the line.
        coverage: with the smallest cells.
        pyramid: with larger ones.
        complete: whether all of its parts were known.
        version: of the coarsest levels that it was made from.
        made: when.
    """

    line: Line
    coverage: Coverage
    pyramid: Pyramid
    complete: bool
    version: int
    made: float


def _key(part: Part, shown: Shown) -> tuple[int, int | None, str]:
    return part.vaddr, part.stripe, shown.name


def _touched(square: Square) -> dict[Part, Ranges]:
    """Return the parts of a line that lie on a tile, and which of their bytes do.

    These are counted from the beginning of the part.
    """
    touched: dict[Part, list[tuple[int, int]]] = {}
    for first, behind in square.ranges():
        for part in square.line.parts_between(first, behind):
            bounds = max(0, first - part.start), min(part.length, behind - part.start)
            touched.setdefault(part, []).append(bounds)
    return {part: np.array(ranges) for part, ranges in touched.items()}


def _near(line: Line, part: Part, ranges: Ranges, extents: Extents) -> Slices:
    """Return which extents of a block group can lie in ranges of a part of a line."""
    within = line.group_ranges(part, ranges) + part.vaddr
    return touching(extents.vaddr, extents.length, within)


def _covered(line: Line, part: Part, ranges: Ranges, extents: Extents, shown: Shown) -> Coverage:
    """Return what extents cover of ranges of a part, counted from the part's beginning.

    It can be more than that: what else is held of the same extents.
    """
    near = _near(line, part, ranges, extents).indexes()
    held = line.held(part, extents.vaddr[near] - part.vaddr, extents.length[near])
    inside = held.start < part.length
    start, which = held.start[inside], held.which[inside]
    value = np.append(shown.colouring.values(extents[near]), np.uint16(PARITY))
    return Coverage(start, np.minimum(held.length[inside], part.length - start), value[which])
