"""Runs of equal values in a long array: what of it is a repetition of something before it.

The array has a checksum for each sector of data, in the order of addresses. It falls into pieces,
as not all of the address space holds data. A window is a fixed number of values one after another
in a piece; a value repeats another if a window that it is in is equal to an earlier one. The answer
is an array of distances: how far before each value the first one lies that it repeats.

All of that are pure functions of arrays. Their time grows with the length of the array, whatever it
holds: windows are sorted, and never compared in pairs. Their memory is some bytes per value, and
more for those that may be repetitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Runs",
    "Values",
    "add_windows",
    "index_type",
    "ranges",
    "repeat_distances",
    "repeat_runs",
    "resolve",
    "spare_extents",
]

Values = NDArray[np.uint32] | NDArray[np.uint64]
Indexes = NDArray[np.signedinteger[Any]]
Progress = Callable[[float], None]
"""Is called with the part that is done, from 0 to 1."""

_BLOCK = 1 << 20
"""So many windows are worked on at a time."""

_PART_BITS = 24
"""About 2 to this power windows are sorted at a time."""

_SLOTS = 1 << 24
"""Entries of the table that says which values may occur more than once."""

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio: odd, and without a pattern in its bits."""


class Runs(NamedTuple):
    """Values one after another that repeat values one after another. An entry per run.

    Attributes:
        start: Index of the first value, ascending.
        source: Index of the first value that it repeats.
        length: Number of values.
    """

    start: NDArray[np.int64]
    source: NDArray[np.int64]
    length: NDArray[np.int64]


def index_type(count: int) -> type[np.int32 | np.int64]:
    """Return the smallest type that holds all indexes of an array of so many values."""
    return np.int32 if count <= np.iinfo(np.int32).max else np.int64


def repeat_distances(
    values: Values, begins: NDArray[np.int64], window: int, progress: Progress = lambda _: None
) -> Indexes:
    """Return for each value how far before it the value lies that it repeats, 0 for none.

    Where a value is in several windows that repeat others, the farthest counts. What it repeats may
    be a repetition itself, see :func:`resolve`.

    Args:
        values: The values.
        begins: Indexes of the first values of the pieces, ascending; the first is 0.
        window: Number of values in a window.
        progress: Is called now and then; what it raises ends the work.
    """
    distances = np.zeros(len(values), index_type(len(values)))
    if len(values) >= window:
        starts = np.flatnonzero(_candidates(values, begins, window)).astype(distances.dtype)
        progress(0.5)
        _add_distances(distances, values, starts, window, progress)
    progress(1.0)
    return distances


def add_windows(distances: Indexes, values: Values, starts: NDArray[np.int64], window: int) -> None:
    """Note also the distances between some windows of another size.

    Args:
        distances: What is known so far; it is changed.
        values: The values.
        starts: Indexes at which the windows begin, ascending.
        window: Number of values in each of them.
    """
    _add_distances(distances, values, starts.astype(distances.dtype), window, lambda _: None)


def _candidates(values: Values, begins: NDArray[np.int64], window: int) -> NDArray[np.bool_]:
    """Return for each index whether a window begins there that may be equal to another one.

    All values of such a window occur more than once. In most filesystems hardly any do, and then
    this saves nearly all of the work.
    """
    is_repeated = _may_be_repeated(values)
    count = len(values) - window + 1
    possible = is_repeated[:count].copy()
    for step in range(1, window):
        possible &= is_repeated[step : step + count]
        # What begins so shortly before the end of a piece does not end in it.
        ends = begins - step
        possible[ends[(ends >= 0) & (ends < count)]] = False
    return possible


def _may_be_repeated(values: Values) -> NDArray[np.bool_]:
    """Return which values may occur more than once; some of the others, too."""
    ordered = np.sort(values)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    del ordered
    mask = values.dtype.type(_SLOTS - 1)
    table = np.zeros(_SLOTS, np.bool_)
    table[repeated & mask] = True
    result = np.empty(len(values), np.bool_)
    for block in _blocks(len(values)):
        result[block] = table[values[block] & mask]
    return result


def _blocks(count: int) -> Iterator[slice]:
    for begin in range(0, count, _BLOCK):
        yield slice(begin, min(begin + _BLOCK, count))


def _add_distances(
    distances: Indexes, values: Values, starts: Indexes, window: int, progress: Progress
) -> None:
    """Find equal ones among windows, and note how far their values are apart."""
    hashes = _hashes(values, starts, window)
    first = starts.copy()
    bits = max(0, len(starts).bit_length() - _PART_BITS)
    for part in range(1 << bits):
        # Equal windows have equal hashes, so that each part can be sorted by itself.
        chosen: Any = slice(None)
        if bits:
            chosen = np.flatnonzero(hashes >> np.uint64(64 - bits) == part)
        first[chosen] = _first_equal(starts[chosen], hashes[chosen])
        progress(0.5 + 0.4 * (part + 1) / (1 << bits))
    del hashes
    is_later = first < starts
    later, first = starts[is_later], first[is_later]
    # Where the next window begins one value further and is as far from its like, all values of this
    # window but the first one are in the next one, too. So values are noted once, and not as often
    # as there are windows.
    lengths = np.full(len(later), window, np.int64)
    is_next = later[1:] == later[:-1] + 1
    lengths[:-1][is_next & (first[1:] - later[1:] <= first[:-1] - later[:-1])] = 1
    for block in _blocks(len(later)):
        _note(distances, values, later[block], first[block], lengths[block])


def _hashes(values: Values, starts: Indexes, window: int) -> NDArray[np.uint64]:
    """Return a hash of each window: a polynomial whose coefficients are its values."""
    hashes = np.zeros(len(starts), np.uint64)
    for block in _blocks(len(starts)):
        part, begins = hashes[block], starts[block]
        for step in range(window):
            part *= _MULTIPLIER
            part += values[begins + step]
            # The lower bits of a sum of products only depend on lower bits.
            part ^= part >> np.uint64(29)
    return hashes


def _first_equal(starts: Indexes, hashes: NDArray[np.uint64]) -> Indexes:
    """Return for each window where the first one begins that has the same hash."""
    if not len(starts):
        return starts
    order = np.argsort(hashes)
    ordered = hashes[order]
    is_new = np.ones(len(order), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=is_new[1:])
    begin = np.flatnonzero(is_new)
    least = np.minimum.reduceat(starts[order], begin)
    first = np.empty_like(starts)
    first[order] = np.repeat(least, np.diff(begin, append=len(order)))
    return first


def _note(
    distances: Indexes, values: Values, later: Indexes, first: Indexes, lengths: NDArray[np.int64]
) -> None:
    """Note for values that they repeat others, if they are equal.

    That windows have the same hash by chance hardly ever happens. Then some of their values may be
    equal all the same, and these count.
    """
    places = np.repeat(later, lengths) + ranges(lengths)
    distance = np.repeat(later - first, lengths)
    is_equal = values[places] == values[places - distance]
    np.maximum.at(distances, places[is_equal], distance[is_equal])


def resolve(distances: Indexes) -> None:
    """Make distances lead to values that are no repetitions themselves; changes the array."""
    repeated = np.flatnonzero(distances).astype(distances.dtype)
    while True:
        further = distances[repeated - distances[repeated]]
        if not further.any():
            return
        distances[repeated] += further


# Runs for a person to look at.


def repeat_runs(values: Values, begins: NDArray[np.int64], distances: Indexes, window: int) -> Runs:
    """Return the repetitions as runs in which the distance is the same.

    A stretch of one and the same value, such as the checksum of zeros, repeats the first such
    stretch anywhere, each value at another distance. If what surrounds it repeats something in
    which there is such a stretch, too, it becomes part of that run; else it is in none.

    Args:
        values: The values.
        begins: Indexes of the first values of the pieces, ascending.
        distances: The distances; those within such stretches are changed.
        window: A stretch has at least so many values.
    """
    is_begin = np.zeros(len(values) + 1, np.bool_)
    is_begin[begins] = True
    is_begin[-1] = True
    _join_flat(values, is_begin, distances, window)
    repeated = np.flatnonzero(distances)
    distance = distances[repeated]
    goes_on = np.zeros(len(repeated) + 1, np.bool_)
    goes_on[1:-1] = (np.diff(repeated) == 1) & (distance[1:] == distance[:-1])
    goes_on[:-1] &= ~(is_begin[repeated] | is_begin[repeated - distance])
    edges = np.flatnonzero(~goes_on)
    first = edges[:-1]
    start = repeated[first]
    return Runs(start, start - distance[first], np.diff(edges))


def _join_flat(
    values: Values, is_begin: NDArray[np.bool_], distances: Indexes, window: int
) -> None:
    """Give stretches of one value the distance of their surroundings, or none."""
    first, last = _flat(values, is_begin, window)
    if not len(first):
        return
    joined = np.zeros(len(first), distances.dtype)
    before, after = np.maximum(first - 1, 0), np.minimum(last + 1, len(values) - 1)
    for neighbour, is_inside in ((before, ~is_begin[first]), (after, ~is_begin[last + 1])):
        distance = np.where(is_inside, distances[neighbour], 0)
        source_first, source_last = first - distance, last - distance
        # The stretch before it that would have to hold it all.
        holder = np.maximum(np.searchsorted(first, source_first, side="right") - 1, 0)
        fits = (first[holder] <= source_first) & (source_last <= last[holder])
        fits &= values[first[holder]] == values[first]
        joined = np.where((joined == 0) & fits, distance, joined)
    # The distances of neighbours have been read by now, which may be in such a stretch themselves.
    lengths = last - first + 1
    places = np.repeat(first, lengths) + ranges(lengths)
    distances[places] = np.repeat(joined, lengths)


def _flat(
    values: Values, is_begin: NDArray[np.bool_], window: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and last indexes of stretches of one value, of a window at least."""
    is_same = np.zeros(len(values) + 1, np.bool_)
    is_same[1:-1] = (values[1:] == values[:-1]) & ~is_begin[1:-1]
    # Edges of the stretches in which each value is like the one before it.
    edges = np.flatnonzero(np.diff(is_same))
    first, last = edges[::2], edges[1::2]
    is_long = last - first + 1 >= window
    return first[is_long], last[is_long]


def ranges(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the numbers from 0 up to each length, one range after the other."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


# What repetitions give back.


def spare_extents(
    distances: Indexes,
    first: NDArray[np.int64],
    counts: NDArray[np.int64],
    is_needed: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Return which extents hold nothing that the others do not hold, too.

    Values that lead to the same one are a class. Of each class one has to stay. At first, extents
    stay of which a value is in no class, and of each class the longest extent, if none of these has
    it: as few of them hold much. Then those that stay for nothing but what others hold by now are
    spare after all.

    Args:
        distances: Distances that lead to values which are no repetitions.
        first: Index of the first value of each extent, ascending; extents do not overlap.
        counts: Number of values in each.
        is_needed: Extents that stay for another reason.
    """
    extents, class_of, classes = _classes(distances, first, counts)
    # The last entry stands for all that is outside of extents.
    is_needed = np.append(is_needed, True)
    is_needed |= np.bincount(extents, minlength=len(first) + 1) != np.append(counts, 0)
    longest = np.append(-counts, 0)
    order, rank = _ranked(longest, ~is_needed)
    least = _least(rank[extents], class_of, classes)
    stays = is_needed.copy()
    stays[order[least]] = True
    staying = stays[extents]
    most = -_least(-rank[extents[staying]], class_of[staying], classes)
    is_needed[order[least[least == most]]] = True
    order, rank = _ranked(longest, ~is_needed, ~stays)
    stays = is_needed
    stays[order[_least(rank[extents], class_of, classes)]] = True
    return np.asarray(~stays[:-1])


def _classes(
    distances: Indexes, first: NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[Indexes, Indexes, int]:
    """Return extent and class of each value that is in a class, and the number of classes."""
    small = distances.dtype.type
    members = np.flatnonzero(distances).astype(small)
    sources = members - distances[members]
    is_source = np.zeros(len(distances), np.bool_)
    is_source[sources] = True
    class_of = (np.cumsum(is_source, dtype=small) - 1)[sources]
    sources = np.flatnonzero(is_source).astype(small)
    # Extents and what is between them, in turn.
    lengths = np.empty(2 * len(first) + 1, np.int64)
    lengths[1::2] = counts
    lengths[0::2] = np.diff(first, prepend=0, append=len(distances))
    lengths[2::2] -= counts
    number = np.full(len(lengths), len(first), small)
    number[1::2] = np.arange(len(first))
    extent = np.repeat(number, lengths)
    return (
        np.concatenate((extent[sources], extent[members])),
        np.concatenate((np.arange(len(sources), dtype=small), class_of)),
        len(sources),
    )


def _ranked(*keys: NDArray[Any]) -> tuple[NDArray[np.int64], Indexes]:
    """Return the order by some keys, the last one first, and the place of each entry in it."""
    order = np.lexsort(keys)
    rank = np.empty(len(order), index_type(len(order)))
    rank[order] = np.arange(len(order))
    return order, rank


def _least(numbers: Indexes, class_of: Indexes, classes: int) -> Indexes:
    """Return the least number of each class."""
    least = np.full(classes, np.iinfo(numbers.dtype).max, numbers.dtype)
    np.minimum.at(least, class_of, numbers)
    return least
