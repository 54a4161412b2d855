"""Bytes by set of roots, from which all questions about deleting subvolumes are answered.

What nothing but some subvolumes uses is the sum over the sets within these. There are few sets, so
a sum takes next to no time, however large the filesystem is. Bytes are kept apart by how they are
stored, too, so that sums can be told with redundancy: two copies count twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.items.chunk import Chunk
from btrfs.ondisk.profiles import chunk_to_dev_extent_length

__all__ = ["ChunkClasses", "SizesBySet", "Space", "sum_by"]


class Space(NamedTuple):
    """Bytes, apart by what they hold.

    Attributes:
        data: Bytes of extents of data.
        metadata: Bytes of tree blocks.
    """

    data: int
    metadata: int

    @property
    def total(self) -> int:
        """Bytes of both."""
        return self.data + self.metadata

    def without(self, other: Space) -> Space:
        """Return the bytes that are left without some of them."""
        return Space(self.data - other.data, self.metadata - other.metadata)


class ChunkClasses:
    """The chunks of a filesystem, sorted into classes that take as much room on devices.

    Args:
        chunks: All chunks.

    Attributes:
        factors: Of each class, the bytes on devices for a byte of data.
    """

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        found = sorted(chunks, key=lambda chunk: chunk.vaddr)
        self._begin = np.array([chunk.vaddr for chunk in found], np.uint64)
        factors = [_factor(chunk) for chunk in found] or [1.0]
        self.factors, self._class_of_chunk = np.unique(factors, return_inverse=True)

    def of(self, vaddr: NDArray[Any]) -> NDArray[np.intp]:
        """Return the class of the chunk that holds each of some addresses."""
        index = np.searchsorted(self._begin, vaddr.astype(np.uint64), "right") - 1
        return np.asarray(self._class_of_chunk[np.maximum(index, 0)])


def _factor(chunk: Chunk) -> float:
    """Return the bytes on devices for a byte of a chunk."""
    return chunk.num_stripes * chunk_to_dev_extent_length(chunk) / chunk.length


@dataclass(frozen=True, slots=True)
class SizesBySet:
    """Bytes that each set of roots uses: an entry per set, a column per class of chunks.

    Attributes:
        data: Bytes of extents, int64.
        metadata: Bytes of tree blocks, int64.
        factors: Of each class of chunks, the bytes on devices for a byte.
    """

    data: NDArray[np.int64]
    metadata: NDArray[np.int64]
    factors: NDArray[np.float64]

    def of(self, chosen: NDArray[np.bool_], *, physical: bool = False) -> Space:
        """Return the bytes of some sets together.

        Args:
            chosen: For each set, whether it counts.
            physical: Count the bytes on devices, with redundancy.
        """
        return Space(
            *(self._sum(table[chosen], physical=physical) for table in (self.data, self.metadata))
        )

    def _sum(self, table: NDArray[np.int64], *, physical: bool) -> int:
        by_class = table.sum(axis=0)
        return round(float(by_class @ self.factors)) if physical else int(by_class.sum())


def sum_by(
    ids: NDArray[Any], values: NDArray[Any], classes: NDArray[np.intp], shape: Sequence[int]
) -> NDArray[np.int64]:
    """Return the sums of values by a number and a class.

    They are exact below 2**53, 8 PiB.

    Args:
        ids: Number of each value.
        values: The values, not negative.
        classes: Class of each value.
        shape: How many numbers and classes there are.
    """
    size = shape[0] * shape[1]
    sums = np.bincount(ids.astype(np.intp) * shape[1] + classes, values, size)
    return np.asarray(sums.astype(np.int64).reshape(shape))
