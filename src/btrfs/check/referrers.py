"""What refers to extents: file extent items in leaves, pointers in nodes, and root items.

Each of them must have a back reference in the extent tree. What it looks like depends on the block
that refers: if its own extent has the flag FULL_BACKREF, the back reference names that block; if
not, it names the tree that the block was written for, and with data, inode and place in the file.
So no row here depends on how many snapshots share a block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.pairing import Hash, Numbers
from btrfs.check.pieces import Pieces
from btrfs.ondisk import constants
from btrfs.ownership.owners import Kind, Owner

if TYPE_CHECKING:
    from btrfs.source.disk.bulk import Children
    from btrfs.source.disk.pointers import BlockPointers

__all__ = [
    "Difference",
    "FullBackrefs",
    "Referrers",
    "block_referrers",
    "data_referrers",
    "differences",
    "referrer_hashes",
    "root_referrers",
]


class Referrers(NamedTuple):
    """What refers to extents, or back references of extents. An entry per row.

    Attributes:
        extent: Virtual address of the extent, uint64.
        length: Its bytes, uint64.
        kind: Type of the back reference: TREE_BLOCK_REF_KEY ..., uint8.
        origin: Number of the tree, or address of the block that refers, uint64.
        objectid: Inode number, 0 if there is none, uint64.
        offset: Where in the file the extent would begin, 0 if there is no file, uint64.
        uses: For how many it stands, uint64.
    """

    extent: NDArray[np.uint64]
    length: NDArray[np.uint64]
    kind: NDArray[np.uint8]
    origin: NDArray[np.uint64]
    objectid: NDArray[np.uint64]
    offset: NDArray[np.uint64]
    uses: NDArray[np.uint64]

    def select(self, chosen: Any) -> Referrers:
        """Return the rows that a mask or an array of indexes chooses."""
        return Referrers(*(column[chosen] for column in self))

    @classmethod
    def concatenated(cls, parts: Sequence[Referrers]) -> Referrers:
        """Return the rows of several tables one after another."""
        empty = [np.empty(0, np.uint8 if name == "kind" else np.uint64) for name in cls._fields]
        return cls(*map(np.concatenate, zip(empty, *parts, strict=True)))


def referrer_hashes(hashes: Hash, rows: Referrers) -> Numbers:
    """Return the hash of each row, as often as it counts."""
    columns = (rows.extent, rows.length, rows.kind, rows.origin, rows.objectid, rows.offset)
    return np.asarray(hashes(*columns) * rows.uses)


class FullBackrefs:
    """Which tree blocks have the flag FULL_BACKREF.

    Args:
        vaddr: Virtual addresses of these blocks, in order.
    """

    def __init__(self, vaddr: NDArray[np.uint64]) -> None:
        self._vaddr = vaddr

    def of(self, vaddr: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which of some blocks have it."""
        if not len(self._vaddr):
            return np.zeros(len(vaddr), np.bool_)
        index = np.searchsorted(self._vaddr, vaddr) % len(self._vaddr)
        return np.asarray(self._vaddr[index] == vaddr)


def data_referrers(
    pieces: Pieces, block: NDArray[np.intp], headers: NDArray[np.void], flags: FullBackrefs
) -> Referrers:
    """Return what file extent items refer to.

    Args:
        pieces: The pieces of files in some leaves.
        block: Of each item in these, the index of its leaf.
        headers: Headers of the leaves (struct btrfs_header).
        flags: Which blocks have the flag FULL_BACKREF.
    """
    pieces = pieces.select(pieces.vaddr != 0)
    leaf = block[pieces.item]
    is_full = flags.of(headers["bytenr"])[leaf]
    zero = np.zeros(len(leaf), np.uint64)
    return Referrers(
        pieces.vaddr,
        pieces.disk_num_bytes,
        np.where(is_full, constants.SHARED_DATA_REF_KEY, constants.EXTENT_DATA_REF_KEY).astype(
            np.uint8
        ),
        np.where(is_full, headers["bytenr"][leaf], headers["owner"][leaf]),
        np.where(is_full, zero, pieces.inum),
        # What comes before the piece in the extent may come before the file: as the kernel counts.
        np.where(is_full, zero, pieces.position - pieces.offset),
        np.ones(len(leaf), np.uint64),
    )


def block_referrers(
    nodes: BlockPointers, found: Children, flags: FullBackrefs, nodesize: int
) -> Referrers:
    """Return what the pointers in nodes refer to.

    Args:
        nodes: Pointers to the nodes.
        found: The blocks below them.
        flags: Which blocks have the flag FULL_BACKREF.
        nodesize: Bytes of a tree block.
    """
    index = np.full(len(nodes), -1)
    index[found.read] = np.arange(len(found.read))
    node = index[found.block]
    is_full = flags.of(found.headers["bytenr"])[node]
    origin = np.where(is_full, found.headers["bytenr"][node], found.headers["owner"][node])
    return _of_blocks(found.pointers.vaddr.astype(np.uint64), is_full, origin, nodesize)


def root_referrers(owners: Sequence[Owner], nodesize: int) -> Referrers:
    """Return what root items refer to. The root of a tree of a balance refers to itself."""
    vaddr = np.array([owner.pointer.vaddr for owner in owners], np.uint64)
    tree = np.array([owner.tree for owner in owners], np.uint64)
    is_full = np.array([owner.kind is Kind.RELOCATION for owner in owners], np.bool_)
    return _of_blocks(vaddr, is_full, np.where(is_full, vaddr, tree), nodesize)


def _of_blocks(
    vaddr: NDArray[np.uint64],
    is_full: NDArray[np.bool_],
    origin: NDArray[np.uint64],
    nodesize: int,
) -> Referrers:
    zero = np.zeros(len(vaddr), np.uint64)
    return Referrers(
        vaddr,
        np.full(len(vaddr), nodesize, np.uint64),
        np.where(is_full, constants.SHARED_BLOCK_REF_KEY, constants.TREE_BLOCK_REF_KEY).astype(
            np.uint8
        ),
        origin,
        zero,
        zero,
        np.ones(len(vaddr), np.uint64),
    )


# Row by row.


class Difference(NamedTuple):
    """A row that is not on both sides as often.

    Attributes:
        extent: Virtual address of the extent.
        length: Its bytes.
        kind: Type of the back reference.
        origin: Number of the tree, or address of the block that refers.
        objectid: Inode number.
        offset: Where in the file the extent would begin.
        expected: How many refer to it.
        found: How many its back references count.
    """

    extent: int
    length: int
    kind: int
    origin: int
    objectid: int
    offset: int
    expected: int
    found: int


def differences(expected: Referrers, found: Referrers) -> Iterator[Difference]:
    """Yield the rows that two sides do not have as often, in the order of the extents."""
    rows = Referrers.concatenated([expected, found])
    is_found = np.arange(len(rows.extent)) >= len(expected.extent)
    order = np.lexsort(
        (rows.offset, rows.objectid, rows.origin, rows.kind, rows.length, rows.extent)
    )
    rows, is_found = rows.select(order), is_found[order]
    differs = np.ones(len(order), np.bool_)
    if len(order):
        differs[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in rows[:-1]])
    first = np.flatnonzero(differs)
    if not len(first):
        return
    counts = [
        np.add.reduceat(np.where(side, rows.uses, np.uint64(0)), first)
        for side in (~is_found, is_found)
    ]
    for group in np.flatnonzero(counts[0] != counts[1]).tolist():
        row: list[Any] = [int(column[first[group]]) for column in rows[:-1]]
        row += [int(counts[0][group]), int(counts[1][group])]
        yield Difference(*row)
