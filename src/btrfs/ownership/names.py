"""What leaves say of inodes, as columns: their names, and what they are.

Names are kept as bytes in one array. A row stands for the same name in all subvolumes that reach
its leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.items.inode import InodeExtref, InodeItem, InodeRef
from btrfs.ownership.tables import TableBuilder

__all__ = ["InodeRows", "LinkRows", "NameCollector", "NameParts", "name_parts", "pieces_of"]

# What comes before the name in struct btrfs_inode_ref and struct btrfs_inode_extref.
_REF_SIZE = InodeRef.struct_size
_EXTREF_SIZE = InodeExtref.struct_size

assert InodeItem.dtype.fields is not None
_INODE_FIELDS = [InodeItem.dtype.fields[name][:2] for name in ("size", "mode", "nlink")]

_LINK_DTYPES = ("<u8", "<u8", "<u4", "<u2")
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


class NameParts(NamedTuple):
    """The names and inodes of some leaves.

    Attributes:
        links: Columns of LinkRows but for name_at: names follow one another.
        inodes: Columns of InodeRows.
        names: The bytes of the names, one after another, uint8.
        bad: Indexes of items that are too short; what follows in them is left out.
    """

    links: list[NDArray[Any]]
    inodes: list[NDArray[Any]]
    names: NDArray[np.uint8]
    bad: NDArray[np.intp]


def name_parts(batch: ItemBatch, leaf: NDArray[np.uint32]) -> NameParts:
    """Return the names and the inodes that items of leaves describe.

    Args:
        batch: The items.
        leaf: Number of the leaf of each.
    """
    inode = np.flatnonzero(batch.type == constants.INODE_ITEM_KEY)
    is_short = batch.size[inode] < InodeItem.struct_size
    bad, inode = [inode[is_short]], inode[~is_short]
    body = batch.body[inode]
    fields = [take(batch.buffer, dtype, body + at) for dtype, at in _INODE_FIELDS]
    links = list(_links(batch, leaf, constants.INODE_REF_KEY, _REF_SIZE, bad))
    links += _links(batch, leaf, constants.INODE_EXTREF_KEY, _EXTREF_SIZE, bad)
    names = [pieces_of(batch.buffer, begin, columns[-1]) for columns, begin in links]
    return NameParts(
        [np.concatenate(columns) for columns in zip(*(each for each, _ in links), strict=True)],
        [batch.objectid[inode], *fields, leaf[inode]],
        np.concatenate(names),
        np.concatenate(bad),
    )


class NameCollector:
    """Collects the names and inodes of leaves.

    Args:
        memory: Bytes of memory that they may take; what is beyond goes to files.
    """

    def __init__(self, memory: int) -> None:
        self._links = TableBuilder(_LINK_DTYPES, memory // 4)
        self._inodes = TableBuilder(_INODE_DTYPES, memory // 4)
        self._names = TableBuilder(["u1"], memory // 4)

    def add(self, parts: NameParts) -> None:
        """Add the names and inodes of some leaves."""
        self._links.append(parts.links)
        self._inodes.append(parts.inodes)
        self._names.append([parts.names])

    def finish(self) -> tuple[LinkRows, InodeRows, NDArray[np.uint8]]:
        """Return names of inodes, inodes, and the bytes of the names."""
        (names,) = self._names.finish()
        inum, parent, leaf, name_len = self._links.finish()
        name_at = np.cumsum(name_len, dtype=np.int64) - name_len
        links = LinkRows(inum, parent, leaf, name_at, name_len)
        return links, InodeRows(*self._inodes.finish()), names


def _links(
    batch: ItemBatch,
    leaf: NDArray[np.uint32],
    key_type: int,
    header_size: int,
    bad: list[NDArray[np.intp]],
) -> Iterator[tuple[list[NDArray[Any]], NDArray[np.int64]]]:
    """Yield the first names in items of one type, then the second ones, and so on.

    Args:
        batch: Items.
        leaf: Number of the leaf of each.
        key_type: Type of those that hold names: INODE_REF_KEY or INODE_EXTREF_KEY.
        header_size: Bytes before each name.
        bad: Gets the indexes of items that are too short.

    Yields:
        Columns of LinkRows but for name_at, and where in the buffer the names begin.
    """
    rows = np.flatnonzero(batch.type == key_type)
    at = batch.body[rows]
    end = at + batch.size[rows]
    bad.append(rows[at == end])
    while True:
        begin = at + header_size
        whole = begin <= end
        bad.append(rows[~whole & (at < end)])
        rows, begin, end = rows[whole], begin[whole], end[whole]
        # The last field of the header is the length of the name.
        length = take(batch.buffer, "<u2", begin - 2)
        whole = begin + length <= end
        bad.append(rows[~whole])
        rows, begin, end, length = rows[whole], begin[whole], end[whole], length[whole]
        if key_type == constants.INODE_REF_KEY:
            parent = batch.offset[rows]
        else:
            parent = take(batch.buffer, "<u8", begin - header_size)
        yield [batch.objectid[rows], parent, leaf[rows], length], begin
        if not len(rows):
            return
        at = begin + length


def pieces_of(
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
