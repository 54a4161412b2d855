"""The same coverage with less detail, for pictures in which a pixel holds many extents.

A range is divided into cells. In each cell, intervals of the same value are put together, so that a
cell keeps how many bytes of each value lie in it, but no longer where. As a pixel is at least as
large as a cell, that makes no difference but at the borders of pixels. The result is a coverage
again, for the same raster.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heatmap.layers.coverage import Coverage

FINEST_CELL = 8 << 10
"""Where a pixel holds less than this, it is drawn from the extents themselves."""

_WORTH_KEEPING = 0.5
"""A level is kept if it has at most this part of the intervals of the one before."""


class Pyramid:
    """Levels of ever less detail of one range.

    Args:
        coverage: The range with all detail.
        finest: Size of the smallest cells, in bytes; they double from level to level.

    Attributes:
        nbytes: Bytes of memory that its levels take, without the coverage it was made from.
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
    """Return a coverage in which, intervals of a cell that have the same value are one."""
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
        coverage: What is to be simplified.
        cell: Bytes of the cells that it is made of.
        most: How many intervals.
    """
    while len(coverage) > most and cell < coverage.start[-1] + coverage.length[-1]:
        cell *= 2
        coverage = simplified(coverage, cell)
    if len(coverage) <= most:
        return coverage
    kept = np.sort(np.argsort(coverage.length)[-most:])
    return Coverage(coverage.start[kept], coverage.length[kept], coverage.value[kept])


def merged(coverage: Coverage) -> Coverage:
    """Return a coverage in which adjacent intervals of the same value are one."""
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
