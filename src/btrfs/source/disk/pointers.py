"""Pointers to many tree blocks of one level as arrays, with what must be true of each block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.key import Key
from btrfs.source.disk.node import Pointer

__all__ = ["BlockPointers", "Keys"]

_OFFSET_MASK = (1 << 64) - 1
_TYPE_MASK = 0xFF


class Keys(NamedTuple):
    """Keys as arrays, an entry per key.

    Attributes:
        objectid: First part, uint64.
        type: Second part, uint8.
        offset: Third part, uint64.
    """

    objectid: NDArray[np.uint64]
    type: NDArray[np.uint8]
    offset: NDArray[np.uint64]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Self:
        """Return keys that are given as numbers of 136 bits."""
        return cls(
            np.array([number >> 72 for number in numbers], np.uint64),
            np.array([number >> 64 & _TYPE_MASK for number in numbers], np.uint8),
            np.array([number & _OFFSET_MASK for number in numbers], np.uint64),
        )

    @classmethod
    def concatenated(cls, parts: Sequence[Keys]) -> Self:
        """Return the keys of several arrays one after another."""
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def select(self, chosen: NDArray[Any] | slice) -> Self:
        """Return the keys that a mask, an array of indexes or a slice chooses."""
        return type(self)(self.objectid[chosen], self.type[chosen], self.offset[chosen])

    def number(self, index: int) -> int:
        """Return one key as a number."""
        parts = (self.objectid[index], self.type[index], self.offset[index])
        return Key(*map(int, parts)).key

    def are_below(self, others: Keys) -> NDArray[np.bool_]:
        """Return for each key whether it is lower than the one at the same index of others."""
        same = self.objectid == others.objectid
        below_in_object = (self.type < others.type) | (
            (self.type == others.type) & (self.offset < others.offset)
        )
        return np.asarray((self.objectid < others.objectid) | (same & below_in_object))

    def equal(self, others: Keys) -> NDArray[np.bool_]:
        """Return for each key whether it is that at the same index of others."""
        return np.asarray(
            (self.objectid == others.objectid)
            & (self.type == others.type)
            & (self.offset == others.offset)
        )

    def before(self) -> Self:
        """Return the keys that come directly before these, none of which is the lowest of all."""
        no_offset = self.offset == 0
        no_type = no_offset & (self.type == 0)
        return type(self)(
            self.objectid - no_type.astype(np.uint64),
            self.type - no_offset.astype(np.uint8),
            self.offset - np.uint64(1),
        )


@dataclass(frozen=True, slots=True)
class BlockPointers:
    """Pointers to blocks of one level: :class:`btrfs.source.disk.node.Pointer` as arrays.

    Attributes:
        level: Level that the blocks must be of, 0 for leaves.
        vaddr: Virtual addresses, int64.
        generation: Generations that they must be of, uint64.
        is_root: Which are roots of trees. A root may have any first key, or no item at all.
        first: Their first keys.
        last: The highest keys that they may hold.
    """

    level: int
    vaddr: NDArray[np.int64]
    generation: NDArray[np.uint64]
    is_root: NDArray[np.bool_]
    first: Keys
    last: Keys

    def __len__(self) -> int:
        return len(self.vaddr)

    @classmethod
    def of(cls, level: int, pointers: Sequence[Pointer]) -> Self:
        """Return pointers to blocks of a level as arrays."""
        return cls(
            level,
            np.array([pointer.vaddr for pointer in pointers], np.int64),
            np.array([pointer.generation for pointer in pointers], np.uint64),
            np.array([pointer.min_key is None for pointer in pointers], np.bool_),
            Keys.of([pointer.min_key or 0 for pointer in pointers]),
            Keys.of([pointer.max_key for pointer in pointers]),
        )

    @classmethod
    def concatenated(cls, level: int, parts: Sequence[BlockPointers]) -> Self:
        """Return the pointers of several arrays one after another."""
        if not parts:
            return cls.of(level, [])
        return cls(
            level,
            np.concatenate([part.vaddr for part in parts]),
            np.concatenate([part.generation for part in parts]),
            np.concatenate([part.is_root for part in parts]),
            Keys.concatenated([part.first for part in parts]),
            Keys.concatenated([part.last for part in parts]),
        )

    def select(self, chosen: NDArray[Any] | slice) -> Self:
        """Return the pointers that a mask, an array of indexes or a slice chooses."""
        return type(self)(
            self.level,
            self.vaddr[chosen],
            self.generation[chosen],
            self.is_root[chosen],
            self.first.select(chosen),
            self.last.select(chosen),
        )

    def pointer(self, index: int) -> Pointer:
        """Return one of them."""
        return Pointer(
            int(self.vaddr[index]),
            int(self.generation[index]),
            self.level,
            None if self.is_root[index] else self.first.number(index),
            self.last.number(index),
        )
