"""Sets of roots, each kept once and known by a number.

A block that snapshots share is reached from several roots, and so is an extent. There are millions
of these, but few different sets of roots. So a set is made once, as a bit mask, and arrays hold its
number. Unions are worked out for each different pair of numbers, not for each block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["EMPTY", "RootSets", "SetIds", "mask_of"]

SetIds = NDArray[np.uint32]

EMPTY = 0
"""Number of the set without any root."""

_SETS_AT_A_TIME = 4096


class RootSets:
    """All sets of roots that have come up.

    Attributes:
        masks: Each set as a bit mask, by its number: bit 0 is the first root.
    """

    def __init__(self) -> None:
        self.masks: list[int] = [0]
        self._ids: dict[int, int] = {0: EMPTY}
        self._unions: dict[int, int] = {}

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
            unions[mixed] = self._fold(*_of_groups(ids, first, mixed), len(mixed))
        return unions

    def _fold(self, group: NDArray[np.int64], ids: SetIds, count: int) -> SetIds:
        """Return the union of the sets of each group.

        Args:
            group: Number of the group that each entry belongs to, ascending from 0.
            ids: The entries.
            count: How many groups there are.
        """
        while True:
            # np.unique() would hash them, which takes several times as long as to sort.
            pairs = np.sort(group.astype(np.uint64) << np.uint64(32) | ids)
            pairs = pairs[np.diff(pairs, prepend=~pairs[0]) != 0]
            group = (pairs >> np.uint64(32)).astype(np.int64)
            ids = pairs.astype(np.uint32)
            if len(group) == count:
                return ids
            # In each group the entries 0 and 1 become one, 2 and 3, and so on.
            first = np.flatnonzero(np.diff(group, prepend=-1))
            index = np.arange(len(group)) - np.repeat(first, np.diff(first, append=len(group)))
            is_left = index % 2 == 0
            has_right = is_left & np.append(group[1:] == group[:-1], [False])
            left = np.flatnonzero(has_right)
            ids[left] = self._pairwise(ids[left], ids[left + 1])
            group, ids = group[is_left], ids[is_left]

    def _pairwise(self, left: SetIds, right: SetIds) -> SetIds:
        """Return the union of each pair of sets."""
        pairs = left.astype(np.uint64) << np.uint64(32) | right
        different, inverse = np.unique(pairs, return_inverse=True)
        made = np.array([self._union(pair) for pair in different.tolist()], np.uint32)
        return made[inverse]

    def _union(self, pair: int) -> int:
        """Return the union of two sets, given their numbers in one."""
        number = self._unions.get(pair)
        if number is None:
            mask = self.masks[pair >> 32] | self.masks[pair & 0xFFFFFFFF]
            number = self._unions[pair] = self.id_of(mask)
        return number

    def replaced(self, change: Callable[[int], int]) -> SetIds:
        """Return for each set the number of the one that it becomes by a change of its mask."""
        return np.array([self.id_of(change(mask)) for mask in self.masks.copy()], np.uint32)

    def where(self, condition: Callable[[int], bool]) -> NDArray[np.bool_]:
        """Return for each set whether a condition of its mask holds."""
        return np.array([condition(mask) for mask in self.masks], np.bool_)

    def members(self, roots: int) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
        """Yield which roots are in which sets, some thousands of sets at a time.

        Args:
            roots: How many roots there are.

        Yields:
            The numbers of the sets, and a table with a row per set and a column per root.
        """
        size = -(-roots // 8)
        for begin in range(0, len(self.masks), _SETS_AT_A_TIME):
            masks = self.masks[begin : begin + _SETS_AT_A_TIME]
            packed = b"".join(mask.to_bytes(size, "little") for mask in masks)
            bits = np.frombuffer(packed, np.uint8).reshape(len(masks), size)
            table = np.unpackbits(bits, axis=1, count=roots, bitorder="little").view(np.bool_)
            yield slice(begin, begin + len(masks)), table

    def within(self, roots: int) -> NDArray[np.bool_]:
        """Return which sets have some roots, and none but those of a bit mask."""
        return self.where(lambda mask: mask != 0 and not mask & ~roots)

    def meeting(self, roots: int) -> NDArray[np.bool_]:
        """Return which sets have any root of a bit mask."""
        return self.where(lambda mask: bool(mask & roots))


def mask_of(bits: Iterable[int]) -> int:
    """Return the bit mask that has these bits set."""
    mask = 0
    for bit in bits:
        mask |= 1 << bit
    return mask


def _of_groups(
    ids: SetIds, first: NDArray[np.int64], groups: NDArray[np.intp]
) -> tuple[NDArray[np.int64], SetIds]:
    """Return the entries of some groups, and for each the index of its group among these."""
    lengths = np.diff(first, append=len(ids))[groups]
    group = np.repeat(np.arange(len(groups)), lengths)
    within = np.arange(len(group)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return group, ids[first[groups][group] + within]
