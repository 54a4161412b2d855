"""Sets of roots, each kept once and known by a number.

A block that snapshots share is reached from several roots, and so is an extent. There are millions
of these, but few different sets of roots. So a set is made once, as a bit mask, and arrays hold its
number. Unions are worked out for each different combination of sets, not for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["EMPTY", "RootSets", "SetIds", "first_bit", "mask_of"]

SetIds = NDArray[np.uint32]

EMPTY = 0
"""Number of the set without any root."""

_SETS_AT_A_TIME = 4096

_IDS_AT_A_TIME = 1 << 16


class RootSets:
    """All sets of roots that have come up.

    Attributes:
        masks: Each set as a bit mask, by its number: bit 0 is the first root.
    """

    def __init__(self) -> None:
        self.masks: list[int] = [0]
        self._ids: dict[int, int] = {0: EMPTY}
        self._packed = _packed(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    def id_of(self, mask: int) -> int:
        """Return the number of a set."""
        number = self._ids.get(mask)
        if number is None:
            number = self._ids[mask] = len(self.masks)
            self.masks.append(mask)
        return number

    def unions(self, ids: SetIds, first: NDArray[np.int64]) -> SetIds:
        """Return the union of the sets in each of many groups.

        Args:
            ids: Numbers of sets, group by group.
            first: Index of the first entry of each group; none is empty.
        """
        if not len(first):
            return np.empty(0, np.uint32)
        unions = np.minimum.reduceat(ids, first)
        mixed = np.flatnonzero(unions != np.maximum.reduceat(ids, first))
        if len(mixed):
            unions[mixed] = self._mixed(ids, first, mixed)
        return unions

    def _mixed(self, ids: SetIds, first: NDArray[np.int64], groups: NDArray[np.intp]) -> SetIds:
        """Return the union of the sets in each of some groups.

        Groups of the same sets have the same sums of random numbers, one for each set. Two sums of
        64 bits are as good as comparing the groups themselves.
        """
        random = np.random.default_rng(len(self.masks))
        one, other = (
            np.add.reduceat(numbers[ids], first)[groups]
            for numbers in random.integers(0, 1 << 64, (2, len(self.masks)), np.uint64)
        )
        order = np.lexsort((one, other))
        is_new = np.ones(len(order), np.bool_)
        is_new[1:] = (np.diff(one[order]) != 0) | (np.diff(other[order]) != 0)
        sample = order[is_new]
        which = np.empty(len(order), np.intp)
        which[order] = np.cumsum(is_new) - 1
        begin = first[groups[sample]]
        count = np.append(first, len(ids))[groups[sample] + 1] - begin
        return self._united(ids, begin, count)[which]

    def _united(self, ids: SetIds, begin: NDArray[np.int64], count: NDArray[np.int64]) -> SetIds:
        """Return the union of the sets in each of some runs.

        Args:
            ids: Numbers of sets.
            begin: Where each run begins.
            count: How many entries it has, at least one.
        """
        words = self._words
        # Some runs at a time, as all their sets together may be large.
        parts = np.searchsorted(
            np.cumsum(count), np.arange(0, count.sum(), _IDS_AT_A_TIME), "right"
        )
        unions: list[int] = []
        for one, other in pairwise(np.unique([0, *parts.tolist(), len(begin)]).tolist()):
            lengths = count[one:other]
            first = np.cumsum(lengths) - lengths
            index = np.repeat(begin[one:other] - first, lengths) + np.arange(lengths.sum())
            rows = np.bitwise_or.reduceat(words[ids[index]], first, axis=0)
            unions += [self.id_of(int.from_bytes(row.tobytes(), "little")) for row in rows]
        return np.array(unions, np.uint32)

    def replaced(self, change: Callable[[int], int]) -> SetIds:
        """Return for each set the number of the one that it becomes by a change of its mask."""
        return np.array([self.id_of(change(mask)) for mask in self.masks.copy()], np.uint32)

    def members(self, roots: int) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
        """Yield which roots are in which sets, some thousands of sets at a time.

        Args:
            roots: How many roots to tell of, from the first.

        Yields:
            The numbers of the sets, and a table with a row per set and a column per root.
        """
        for begin in range(0, len(self.masks), _SETS_AT_A_TIME):
            some = slice(begin, min(begin + _SETS_AT_A_TIME, len(self.masks)))
            bits = np.ascontiguousarray(self._words[some]).view(np.uint8)
            table = np.unpackbits(bits, axis=1, bitorder="little")[:, :roots].view(np.bool_)
            if table.shape[1] < roots:
                table = np.pad(table, ((0, 0), (0, roots - table.shape[1])))
            yield some, table

    def first_and_last(self, bits: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each set the first and the last of some roots that are in it.

        Args:
            bits: The bit of each root, in the order that counts; each at most once.

        Returns:
            Indexes in `bits`. Of a set with none of the roots, the first is beyond the last root,
            and the last is -1.
        """
        first = np.full(len(self), len(bits), np.int64)
        last = np.full(len(self), -1, np.int64)
        if not bits:
            return first, last
        for some, members in self.members(max(bits) + 1):
            ordered = members[:, bits]
            has_any = ordered.any(axis=1)
            first[some] = np.where(has_any, ordered.argmax(axis=1), len(bits))
            last[some] = np.where(has_any, len(bits) - 1 - ordered[:, ::-1].argmax(axis=1), -1)
        return first, last

    def within(self, roots: int) -> NDArray[np.bool_]:
        """Return which sets have some roots, and none but those of a bit mask."""
        outside = ((self._words & ~self._as_words(roots)) != 0).any(axis=1)
        return np.asarray(~outside & (np.arange(len(self.masks)) != EMPTY))

    def meeting(self, roots: int) -> NDArray[np.bool_]:
        """Return which sets have any root of a bit mask."""
        return np.asarray(((self._words & self._as_words(roots)) != 0).any(axis=1))

    @property
    def _words(self) -> NDArray[np.uint64]:
        """The sets as rows of 64 bits each."""
        if len(self._packed) != len(self.masks):
            self._packed = _packed(self.masks)
        return self._packed

    def _as_words(self, roots: int) -> NDArray[np.uint64]:
        """Return a bit mask as a row of that table; roots that are in no set are left out."""
        width = self._words.shape[1]
        return np.asarray(_packed([roots & ((1 << 64 * width) - 1)], width)[0])


def first_bit(mask: int) -> int:
    """Return the number of the lowest bit that is set in a bit mask, which is not empty."""
    return (mask & -mask).bit_length() - 1


def mask_of(bits: Iterable[int]) -> int:
    """Return the bit mask that has these bits set."""
    mask = 0
    for bit in bits:
        mask |= 1 << bit
    return mask


def _packed(masks: Sequence[int], width: int | None = None) -> NDArray[np.uint64]:
    """Return bit masks as rows of 64 bits each, little-endian, as many as the largest needs."""
    width = width or max(1, -(-max(mask.bit_length() for mask in masks) // 64))
    data = b"".join(mask.to_bytes(8 * width, "little") for mask in masks)
    return np.frombuffer(data, "<u8").reshape(len(masks), width)
