"""Coverage: which values lie where in a range of bytes, and how extents cover a part of a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatmap.colours import PARITY_VALUE
from heatmap.intervals import Intervals

if TYPE_CHECKING:
    from heatmap.extents.table import Extents
    from heatmap.layers.lines import AddressLine, Part

__all__ = [
    "NOTHING",
    "Coverage",
    "Ranges",
    "Slices",
    "Values",
    "covered_by_extents",
    "extents_near",
    "joined",
    "overlapping",
    "uniform",
]

Addresses = NDArray[np.int64]

Ranges = NDArray[np.int64]
"""Array (ranges, 2): start and end. Both ascend; so ranges may overlap."""

Values = Callable[["Extents"], NDArray[np.uint16]]
"""Returns the value of each extent."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What lies in a range of bytes; arrays, an entry per interval, ascending, none overlapping.

    Attributes:
        start: Where it begins, in bytes, int64.
        length: Bytes, int64.
        value: An index into the colours of a palette, uint16.
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

    @property
    def intervals(self) -> Intervals:
        """The same for the raster."""
        return Intervals(self.start, self.length, self.value)

    def overlapping(self, ranges: Ranges) -> Coverage:
        """Return the intervals that overlap ranges of bytes, each once."""
        chosen = overlapping(self.start, self.length, ranges).indexes()
        return Coverage(self.start[chosen], self.length[chosen], self.value[chosen])

    def moved(self, distance: int) -> Coverage:
        """Return the same intervals so many bytes further on."""
        return Coverage(self.start + distance, self.length, self.value)


class Slices(NamedTuple):
    """Slices of arrays, ascending, none overlapping.

    Attributes:
        begin: The first index of each.
        end: The one after its last.
    """

    begin: NDArray[np.intp]
    end: NDArray[np.intp]

    @property
    def size(self) -> int:
        """How many indexes there are in all of them."""
        return int((self.end - self.begin).sum())

    def indexes(self) -> slice | NDArray[np.intp]:
        """Return all of them, as an index of arrays."""
        if self.begin.size == 1:
            return slice(int(self.begin[0]), int(self.end[0]))
        count = self.end - self.begin
        before = np.cumsum(count) - count
        return np.repeat(self.begin - before, count) + np.arange(self.size)


def overlapping(start: Addresses, length: Addresses, ranges: Ranges) -> Slices:
    """Return which intervals overlap ranges of bytes; each is in the slice of the first of them.

    Args:
        start: Where the intervals begin, ascending, none overlapping.
        length: Bytes.
        ranges: The ranges.
    """
    first, last = ranges.T
    begin, end = np.searchsorted(start, first, "right"), np.searchsorted(start, last)
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


def uniform(length: int, value: int) -> Coverage:
    """Return a range of so many bytes that has the same value everywhere."""
    return Coverage(
        np.zeros(1, np.int64), np.array([length], np.int64), np.array([value], np.uint16)
    )


def extents_near(line: AddressLine, part: Part, ranges: Ranges, extents: Extents) -> Slices:
    """Return which extents of a block group can lie in ranges of a part of a line.

    Args:
        line: The line.
        part: The part.
        ranges: Ranges of bytes, counted from the beginning of the part.
        extents: The extents of its block group.
    """
    within = line.group_ranges(part, ranges) + part.vaddr
    return overlapping(extents.vaddr, extents.length, within)


def covered_by_extents(
    line: AddressLine, part: Part, ranges: Ranges, extents: Extents, values: Values
) -> Coverage:
    """Return what extents cover of ranges of a part, counted from the beginning of the part.

    It can be more than that: the rest of the same extents in the part. Parity of them has the value
    PARITY_VALUE.
    """
    near = extents.rows(extents_near(line, part, ranges, extents).indexes())
    held = line.in_part(part, near.vaddr - part.vaddr, near.length)
    inside = held.start < part.length
    start, which = held.start[inside], held.which[inside]
    # The index of parity is PARITY, -1: the last value.
    value = np.append(values(near), np.uint16(PARITY_VALUE))
    return Coverage(start, np.minimum(held.length[inside], part.length - start), value[which])


NOTHING = Coverage(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.uint16))
"""A coverage without any intervals."""
