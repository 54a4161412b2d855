"""What compression saves, told as compsize does: bytes on disk, uncompressed and referenced.

An extent counts once on disk, however many files use it, and as a whole, also where only a part of
it is in use. Every piece of a file that lies in it counts as a reference, as often as
:mod:`btrfs.ownership.row_weights` says. What is inline in a leaf counts on disk as often as it is
referenced.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ownership.references import PREALLOCATED
from btrfs.ownership.row_weights import RowWeights, places

if TYPE_CHECKING:
    from btrfs.ownership.directories import Entry
    from btrfs.ownership.scanning import Scan

__all__ = ["Amounts", "Compression", "compression_of"]


class Amounts(NamedTuple):
    """Bytes of data, counted in three ways.

    Attributes:
        on_disk: Bytes on disk, before redundancy.
        uncompressed: Bytes of the same extents when they are decompressed.
        referenced: Bytes that files have of these, each for itself; holes do not count.
    """

    on_disk: int = 0
    uncompressed: int = 0
    referenced: int = 0

    def plus(self, other: Amounts) -> Amounts:
        """Return the sum of both."""
        return Amounts(*map(sum, zip(self, other, strict=True)))


@dataclass(frozen=True, slots=True)
class Compression:
    """How well some files are compressed.

    Types are 'none', 'zlib', 'lzo' and 'zstd'; those that do not occur are left out.

    Attributes:
        files: How many files there are; one with several names counts for each of them.
        extents: How many extents they use.
        references: How many pieces they have in these.
        inline: How many pieces they have that are inline in metadata.
        in_extents: Bytes of extents that are written, by type.
        preallocated: Bytes of extents that are reserved. An extent that is written in parts counts
            on disk as what its first piece is, in the file of the lowest inode number that has any.
        in_leaves: Bytes that are inline in metadata, by type.
    """

    files: int
    extents: int
    references: int
    inline: int
    in_extents: dict[str, Amounts]
    preallocated: Amounts
    in_leaves: dict[str, Amounts]

    @property
    def by_type(self) -> dict[str, Amounts]:
        """Bytes in extents and inline ones, by type."""
        types = [name for name in _TYPES if name in self.in_extents or name in self.in_leaves]
        nothing = Amounts()
        return {
            name: self.in_extents.get(name, nothing).plus(self.in_leaves.get(name, nothing))
            for name in types
        }

    @property
    def total(self) -> Amounts:
        """Bytes of all types, and preallocated ones."""
        total = self.preallocated
        for amounts in self.by_type.values():
            total = total.plus(amounts)
        return total


_TYPES = tuple(constants.COMPRESS_TYPE_NAMES.values())

_KINDS = 256
"""So many kinds of pieces are told apart: the column 'kind' has a byte."""

_EXTENTS_AT_A_TIME = 1 << 18


def compression_of(scanned: Scan, entries: Iterable[Entry]) -> Compression:
    """Return how well the files below some directories, or some files, are compressed.

    Args:
        scanned: What was read, with names.
        entries: The directories, files and subvolumes. What is below two of them counts twice,
            except on disk.
    """
    weights = RowWeights(scanned, places(entries))
    counted = np.zeros((3, _KINDS), np.int64)
    extents = references = 0
    for begin in range(0, len(scanned.extents), _EXTENTS_AT_A_TIME):
        end = min(begin + _EXTENTS_AT_A_TIME, len(scanned.extents))
        used, pieces = _count_extents(scanned, weights, slice(begin, end), counted)
        extents += used
        references += pieces
    leaf, inum = scanned.inline.leaf, scanned.inline.inum
    weight = weights.of(leaf, inum)
    inline = (scanned.inline.num_bytes, scanned.inline.ram_bytes, scanned.inline.ram_bytes)
    in_leaves = np.stack([_sums(scanned.inline.kind, column * weight) for column in inline])
    return Compression(
        files=weights.files,
        extents=extents,
        references=references,
        inline=int(weight.sum()),
        in_extents=_by_type(counted),
        preallocated=Amounts(*counted[:, PREALLOCATED:].sum(axis=1).tolist()),
        in_leaves=_by_type(in_leaves),
    )


def _count_extents(
    scanned: Scan, weights: RowWeights, some: slice, counted: NDArray[np.int64]
) -> tuple[int, int]:
    """Count the bytes of some extents.

    Args:
        scanned: What was read.
        weights: How often rows count.
        some: Which extents.
        counted: What is added to: a column per kind, with the bytes of Amounts.

    Returns:
        How many of the extents are used, and how many pieces files have in them.
    """
    extents, references = scanned.extents, scanned.references
    begin = int(extents.first[some.start])
    end = int(extents.first[some.stop]) if some.stop < len(extents) else len(references)
    rows = slice(begin, end)
    weight = weights.of(references.leaf[rows], references.inum[rows])
    counted[2] += _sums(references.kind[rows], references.num_bytes[rows] * weight)
    row = begin + np.flatnonzero(weight)
    if not len(row):
        return 0, 0
    first = _first_of_runs(references.extent[row])
    extent, kind = references.extent[row[first]], references.kind[row]
    kinds = np.minimum.reduceat(kind, first)
    # Pieces differ only where an extent was reserved, and written later in parts.
    is_mixed = kinds != np.maximum.reduceat(kind, first)
    if is_mixed.any():
        of_mixed = row[np.repeat(is_mixed, np.diff(first, append=len(row)))]
        kinds[is_mixed] = references.kind[weights.first_met(of_mixed)]
    counted[0] += _sums(kinds, extents.num_bytes[extent])
    counted[1] += _sums(kinds, extents.ram_bytes[extent])
    return len(extent), int(weight.sum())


def _by_type(counted: NDArray[np.int64]) -> dict[str, Amounts]:
    """Return what was counted by the names of the types, without those of which there is nothing.

    Args:
        counted: A column per kind, with the bytes of Amounts.
    """
    return {
        name: Amounts(*counted[:, number].tolist())
        for number, name in constants.COMPRESS_TYPE_NAMES.items()
        if counted[:, number].any()
    }


def _sums(kind: NDArray[np.uint8], values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the sums of values by kind; exact below 2**53."""
    sums: NDArray[np.int64] = np.bincount(kind, values, _KINDS).astype(np.int64)
    return sums


def _first_of_runs(values: NDArray[Any]) -> NDArray[np.intp]:
    """Return where each run of equal values begins."""
    return np.flatnonzero(np.diff(values, prepend=~values[:1]) != 0)
