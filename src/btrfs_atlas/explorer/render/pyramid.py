"""The same coverage with less detail, for pictures in which a pixel holds many extents.

A range is divided into cells. In each cell, what is shown alike is put together, so that a cell
keeps how much of everything there is in it, to the byte, but no longer where. As a pixel is at
least as large as a cell, that makes no difference but at the borders of pixels. What comes out is
intervals again, for the same engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FINEST_CELL = 8 << 10
"""Where a pixel holds less than this, it is drawn from the extents themselves."""

Addresses = NDArray[np.int64]

Ranges = NDArray[np.int64]
"""Array (ranges, 2): first byte, and the one behind. Both ascend; so ranges may overlap."""

_WORTH_KEEPING = 0.5
"""A level is kept if it has at most this part of the intervals of the one before."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What lies in a range; arrays, an entry per interval, ascending, none overlapping.

    Attributes:
        start: where it begins, in bytes, int64.
        length: bytes, int64.
        value: what is shown, as an index into the colours of a palette, uint16.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    value: NDArray[np.uint16]

    def __len__(self) -> int:
        return self.start.size

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return self.start.nbytes + self.length.nbytes + self.value.nbytes

    def touching(self, ranges: Ranges) -> Coverage:
        """Return the intervals that touch ranges of bytes, each once."""
        chosen = touching(self.start, self.length, ranges).indexes()
        return Coverage(self.start[chosen], self.length[chosen], self.value[chosen])

    def moved(self, distance: int) -> Coverage:
        """Return the same intervals so many bytes further on."""
        return Coverage(self.start + distance, self.length, self.value)


class Slices(NamedTuple):
    """Slices of arrays, ascending, none overlapping.

    Attributes:
        begin: the first index of each.
        end: the one behind its last.
    """

    begin: NDArray[np.intp]
    end: NDArray[np.intp]

    @property
    def size(self) -> int:
        """How many indexes there are in all of them."""
        return int((self.end - self.begin).sum())

    def indexes(self) -> slice | NDArray[np.intp]:
        """Return what to index arrays with, to get all of them."""
        if self.begin.size == 1:
            return slice(int(self.begin[0]), int(self.end[0]))
        count = self.end - self.begin
        before = np.cumsum(count) - count
        return np.repeat(self.begin - before, count) + np.arange(self.size)


def touching(start: Addresses, length: Addresses, ranges: Ranges) -> Slices:
    """Return which intervals touch ranges of bytes; each is in the slice of the first of them.

    Args:
        start: where the intervals begin, ascending, none overlapping.
        length: bytes.
        ranges: the ranges.
    """
    first, behind = ranges.T
    begin, end = np.searchsorted(start, first, "right"), np.searchsorted(start, behind)
    if start.size:
        before = np.maximum(begin - 1, 0)
        begin = np.where(start[before] + length[before] > first, before, begin)
    begin[1:] = np.maximum(begin[1:], end[:-1])
    return Slices(begin, np.maximum(begin, end))


def joined(parts: Iterable[Coverage]) -> Coverage:
    """Return coverages that follow one another as one."""
    chosen = [NOTHING, *parts]
    return Coverage(
        np.concatenate([part.start for part in chosen]),
        np.concatenate([part.length for part in chosen]),
        np.concatenate([part.value for part in chosen]),
    )


def whole(length: int, value: int) -> Coverage:
    """Return a range that is covered by the same value from its beginning to its end."""
    return Coverage(
        np.zeros(1, np.int64), np.array([length], np.int64), np.array([value], np.uint16)
    )


class Pyramid:
    """Levels of ever less detail of one range.

    Args:
        coverage: the range with all detail.
        finest: size of the smallest cells, in bytes; they double from level to level.

    Attributes:
        nbytes: bytes of memory that its levels take, without the coverage it was made from.
    """

    def __init__(self, coverage: Coverage, finest: int = FINEST_CELL) -> None:
        self._levels: list[tuple[int, Coverage]] = []
        before = coverage
        self._keep(1, merged(coverage), before)
        end = int(coverage.start[-1] + coverage.length[-1]) if len(coverage) else 0
        cell = finest
        while len(before) > 1 and cell < 2 * end:
            before = self._levels[-1][1] if self._levels else coverage
            # A level has hardly less than an interval for each cell.
            if np.count_nonzero(np.diff(before.start // cell)) < len(before) * _WORTH_KEEPING:
                self._keep(cell, simplified(before, cell), before)
            cell *= 2
        self.nbytes = sum(level.nbytes for _, level in self._levels)

    def _keep(self, cell: int, level: Coverage, before: Coverage) -> None:
        if len(level) <= len(before) * _WORTH_KEEPING:
            self._levels.append((cell, level))

    def at(self, cell: int) -> Coverage | None:
        """Return the level with the largest cells that are not larger than this.

        None if the coverage that the pyramid was made from is to be used.
        """
        chosen = None
        for size, level in self._levels:
            if size > cell:
                break
            chosen = level
        return chosen


def simplified(coverage: Coverage, cell: int) -> Coverage:
    """Return a coverage in which, in each cell of so many bytes, what is alike is together."""
    if not len(coverage):
        return coverage
    start, stop = coverage.start, coverage.start + coverage.length
    first, last = start // cell, (stop - 1) // cell
    # What an interval covers of the cell it begins in, and of the one it ends in.
    several = last > first
    in_first = np.where(several, (first + 1) * cell - start, coverage.length)
    in_last = np.where(several, stop - last * cell, 0)
    values = int(coverage.value.max()) + 1
    key = np.stack([first, last], axis=1).ravel() * values + np.repeat(coverage.value, 2)
    size = np.stack([in_first, in_last], axis=1).ravel()
    key, size = key[size > 0], size[size > 0]
    order = np.argsort(key, kind="stable")  # which merges what is nearly sorted already
    key, size = key[order], size[order]
    group = np.flatnonzero(np.diff(key, prepend=-1))
    size = np.add.reduceat(size, group)
    cells, value = np.divmod(key[group], values)
    begin = cells * cell + _sum_before(size, cells)

    inner = last - first > 1
    pieces = Coverage(
        np.concatenate([begin, (first[inner] + 1) * cell]),
        np.concatenate([size, (last - first - 1)[inner] * cell]),
        np.concatenate([value.astype(np.uint16), coverage.value[inner]]),
    )
    order = np.argsort(pieces.start, kind="stable")
    return merged(Coverage(pieces.start[order], pieces.length[order], pieces.value[order]))


def limited(coverage: Coverage, cell: int, most: int) -> Coverage:
    """Return a coverage with at most so many intervals.

    Cells are made larger, until there is one for all; then the longest intervals are kept.

    Args:
        coverage: what is to be simplified.
        cell: bytes of the cells that it is made of.
        most: how many intervals.
    """
    while len(coverage) > most and cell < coverage.start[-1] + coverage.length[-1]:
        cell *= 2
        coverage = simplified(coverage, cell)
    if len(coverage) <= most:
        return coverage
    kept = np.sort(np.argsort(coverage.length)[-most:])
    return Coverage(coverage.start[kept], coverage.length[kept], coverage.value[kept])


def merged(coverage: Coverage) -> Coverage:
    """Return a coverage in which neighbours that touch and are alike are one interval."""
    if not len(coverage):
        return coverage
    stop = coverage.start + coverage.length
    goes_on = (coverage.start[1:] == stop[:-1]) & (coverage.value[1:] == coverage.value[:-1])
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    return Coverage(
        coverage.start[first], np.add.reduceat(coverage.length, first), coverage.value[first]
    )


def _sum_before(size: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each size the sum of those before it in the same cell."""
    before = np.cumsum(size) - size
    is_first = np.diff(cells, prepend=-1) > 0
    return before - np.repeat(before[is_first], np.diff(np.flatnonzero([*is_first, True])))


NOTHING = Coverage(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint16))
"""A coverage of nothing at all."""
