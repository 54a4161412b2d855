"""What leaves say of inodes, as columns: their names, and what they are.

Names are kept as bytes in one array. A row stands for the same name in all subvolumes that reach
its leaf.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.items.inode import InodeExtref, InodeItem, InodeRef
from btrfs.ownership.tables import TableBuilder

__all__ = ["InodeRows", "LinkRows", "NameCollector"]

# What comes before the name in struct btrfs_inode_ref and struct btrfs_inode_extref.
_REF_SIZE = InodeRef.struct_size
_EXTREF_SIZE = InodeExtref.struct_size

_LINK_DTYPES = ("<u8", "<u8", "<u4", "<i8", "<u2")
_INODE_DTYPES = ("<u8", "<u8", "<u4", "<u4", "<u4")


class LinkRows(NamedTuple):
    """Names of inodes in directories. An entry per name.

    Attributes:
        inum: Inode number, uint64.
        parent: Inode number of the directory, uint64.
        leaf: Number of the leaf, uint32.
        name_at: Where in the array of names it begins, int64.
        name_len: Bytes in the name, uint16.
    """

    inum: NDArray[np.uint64]
    parent: NDArray[np.uint64]
    leaf: NDArray[np.uint32]
    name_at: NDArray[np.int64]
    name_len: NDArray[np.uint16]


class InodeRows(NamedTuple):
    """Inodes. An entry per inode item.

    Attributes:
        inum: Inode number, uint64.
        size: Bytes of the file, uint64.
        mode: Type and permissions, as in stat(2), uint32.
        nlink: How many names it has, uint32.
        leaf: Number of the leaf, uint32.
    """

    inum: NDArray[np.uint64]
    size: NDArray[np.uint64]
    mode: NDArray[np.uint32]
    nlink: NDArray[np.uint32]
    leaf: NDArray[np.uint32]


class NameCollector:
    """Takes names and inodes from leaves.

    Args:
        memory: Bytes of memory that they may take; what is beyond goes to files.
    """

    def __init__(self, memory: int) -> None:
        self._links = TableBuilder(_LINK_DTYPES, memory // 4)
        self._inodes = TableBuilder(_INODE_DTYPES, memory // 4)
        self._names = TableBuilder(["u1"], memory // 4)

    def add(self, batch: ItemBatch, leaf: NDArray[np.uint32]) -> None:
        """Add what the items of some leaves have.

        Args:
            batch: All items of the leaves.
            leaf: Number of the leaf of each.
        """
        chosen = (batch.type == constants.INODE_ITEM_KEY) & (batch.size >= InodeItem.struct_size)
        inodes = batch.select(chosen)
        structs = take(inodes.buffer, InodeItem.dtype, inodes.body)
        columns = [np.ascontiguousarray(structs[name]) for name in ("size", "mode", "nlink")]
        self._inodes.append([inodes.objectid, *columns, leaf[chosen]])
        chosen = batch.type == constants.INODE_REF_KEY
        refs = batch.select(chosen)
        self._add_links(refs, leaf[chosen], refs.offset, _REF_SIZE)
        chosen = batch.type == constants.INODE_EXTREF_KEY
        if chosen.any():
            self._add_links(batch.select(chosen), leaf[chosen], None, _EXTREF_SIZE)

    def finish(self) -> tuple[LinkRows, InodeRows, NDArray[np.uint8]]:
        """Return names of inodes, inodes, and the bytes of the names."""
        (names,) = self._names.finish()
        return LinkRows(*self._links.finish()), InodeRows(*self._inodes.finish()), names

    def _add_links(
        self,
        batch: ItemBatch,
        leaf: NDArray[np.uint32],
        parent: NDArray[np.uint64] | None,
        header_size: int,
    ) -> None:
        """Add the names in items that have one or more.

        Args:
            batch: The items.
            leaf: Number of the leaf of each.
            parent: Inode number of the directory of each, if all its names are in the same.
            header_size: Bytes before each name.
        """
        at = batch.body
        end = batch.body + batch.size
        rows = np.arange(len(batch))
        while len(rows):
            # The last field of the header is the length of the name.
            whole = at[rows] + header_size <= end[rows]
            rows = rows[whole]
            begin = at[rows] + header_size
            length = take(batch.buffer, "<u2", begin - 2)
            whole = begin + length <= end[rows]
            rows, begin, length = rows[whole], begin[whole], length[whole]
            parents = take(batch.buffer, "<u8", at[rows]) if parent is None else parent[rows]
            name_at = self._names.rows + np.cumsum(length, dtype=np.int64) - length
            self._links.append([batch.objectid[rows], parents, leaf[rows], name_at, length])
            self._names.append([_pieces(batch.buffer, begin, length)])
            at = at.copy()
            at[rows] = begin + length


def _pieces(
    buffer: NDArray[np.uint8], begin: NDArray[np.int64], length: NDArray[Any]
) -> NDArray[np.uint8]:
    """Return pieces of a buffer one after another."""
    total = int(length.sum())
    # From one byte to the next it is one step, but at the beginning of a piece.
    steps = np.ones(total, np.int64)
    has_bytes = length > 0
    begin, length = begin[has_bytes], length[has_bytes].astype(np.int64)
    if not total:
        return np.empty(0, np.uint8)
    first = np.cumsum(length) - length
    steps[first] = begin - np.concatenate([[0], begin[:-1] + length[:-1] - 1])
    return buffer[np.cumsum(steps)]
