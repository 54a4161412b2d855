"""Entries of directories, extended attributes and names of inodes, as rows: one for each name.

Nearly all items hold one name. Where the hashes of names are the same, or where an inode has
several names in a directory, an item holds more, one after another. All first names are taken at
once, then the second ones of the items that have two, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.items.directory import DirItem
from btrfs.ondisk.items.inode import InodeExtref, InodeRef

__all__ = [
    "EntryRows",
    "LinkRows",
    "entry_rows",
    "entry_rows_and_rests",
    "link_rows",
    "link_rows_and_rests",
]

_ENTRY, _REF, _EXTREF = DirItem.dtype, InodeRef.dtype, InodeExtref.dtype

_ENTRY_TYPES = (constants.DIR_ITEM_KEY, constants.DIR_INDEX_KEY, constants.XATTR_ITEM_KEY)


@dataclass(frozen=True, slots=True)
class EntryRows:
    """Entries of directories, and extended attributes. An entry per name.

    Attributes:
        index: Index of the item in the batch, intp.
        objectid: First part of the key of what it leads to, uint64: inode number or number of the
            subvolume.
        location_type: Second part of it, uint8: INODE_ITEM_KEY or ROOT_ITEM_KEY.
        location_offset: Third part of it, uint64.
        transid: Generation that it was made in, uint64.
        data_len: Bytes of data after the name, int64.
        name_len: Bytes in the name, int64.
        file_type: FT_REG_FILE and the like, uint8.
        name_at: Where in the buffer of the batch the name begins, int64.
    """

    index: NDArray[np.intp]
    objectid: NDArray[np.uint64]
    location_type: NDArray[np.uint8]
    location_offset: NDArray[np.uint64]
    transid: NDArray[np.uint64]
    data_len: NDArray[np.int64]
    name_len: NDArray[np.int64]
    file_type: NDArray[np.uint8]
    name_at: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LinkRows:
    """Names of inodes in directories. An entry per name.

    Attributes:
        index: Index of the item in the batch, intp.
        parent: Inode number of the directory, uint64.
        dir_index: Index of the name in the directory, uint64.
        name_at: Where in the buffer of the batch the name begins, int64.
        name_len: Bytes in the name, int64.
    """

    index: NDArray[np.intp]
    parent: NDArray[np.uint64]
    dir_index: NDArray[np.uint64]
    name_at: NDArray[np.int64]
    name_len: NDArray[np.int64]


_Rows = TypeVar("_Rows", EntryRows, LinkRows)


def entry_rows(batch: ItemBatch) -> EntryRows:
    """Return what the DIR_ITEM, DIR_INDEX and XATTR_ITEM among some items hold.

    First come the first entries of all items, then the second ones of those that have two, and so
    on. What does not fit into its item is left out.
    """
    return entry_rows_and_rests(batch)[0]


def link_rows(batch: ItemBatch) -> LinkRows:
    """Return what the INODE_REF and INODE_EXTREF among some items hold.

    Of each type, first come the first names of all items, then the second ones, and so on. What
    does not fit into its item is left out.
    """
    return link_rows_and_rests(batch)[0]


def entry_rows_and_rests(batch: ItemBatch) -> tuple[EntryRows, NDArray[np.intp]]:
    """Return the entries, and the indexes of items that are not made of whole entries."""
    is_entry = np.logical_or.reduce([batch.type == key_type for key_type in _ENTRY_TYPES])
    parts, rests = [_no_entries()], [np.empty(0, np.intp)]
    for index, structs, begin in _structs(
        batch, np.flatnonzero(is_entry), _ENTRY, _sizes_of_entries, rests
    ):
        location = structs["location"]
        parts.append(
            EntryRows(
                index,
                location["objectid"].copy(),
                location["type"].copy(),
                location["offset"].copy(),
                structs["transid"].copy(),
                structs["data_len"].astype(np.int64),
                structs["name_len"].astype(np.int64),
                structs["type"].copy(),
                begin,
            )
        )
    return _joined(parts), np.concatenate(rests)


def link_rows_and_rests(batch: ItemBatch) -> tuple[LinkRows, NDArray[np.intp]]:
    """Return the names of inodes, and the indexes of items that are not made of whole names."""
    parts, rests = [_no_links()], [np.empty(0, np.intp)]
    for key_type, dtype in (
        (constants.INODE_REF_KEY, _REF),
        (constants.INODE_EXTREF_KEY, _EXTREF),
    ):
        chosen = np.flatnonzero(batch.type == key_type)
        for index, structs, begin in _structs(batch, chosen, dtype, _sizes_of_links, rests):
            if key_type == constants.INODE_REF_KEY:
                parent = batch.offset[index]
            else:
                parent = structs["parent_objectid"].copy()
            length = structs["name_len"].astype(np.int64)
            parts.append(LinkRows(index, parent, structs["index"].copy(), begin, length))
    return _joined(parts), np.concatenate(rests)


def _structs(
    batch: ItemBatch,
    rows: NDArray[np.intp],
    dtype: np.dtype[Any],
    sizes: Callable[[NDArray[np.void]], NDArray[np.int64]],
    rests: list[NDArray[np.intp]],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.void], NDArray[np.int64]]]:
    """Yield the first structs in items, then the second ones, and so on.

    Args:
        batch: Items.
        rows: Indexes of those that hold the structs.
        dtype: Type of the fixed part of the struct.
        sizes: Returns how many bytes follow each fixed part.
        rests: Gets the indexes of items that end within a struct, or hold none.

    Yields:
        Indexes of items, fixed parts, and where in the buffer that ends.
    """
    at = batch.body[rows]
    end = at + batch.size[rows]
    while len(rows):
        begin = at + dtype.itemsize
        is_whole = begin <= end
        if not is_whole.all():
            rests.append(rows[~is_whole])
            rows, begin, end = rows[is_whole], begin[is_whole], end[is_whole]
        structs = take(batch.buffer, dtype, begin - dtype.itemsize)
        at = begin + sizes(structs)
        is_whole = at <= end
        if not is_whole.all():
            rests.append(rows[~is_whole])
            rows, begin, end = rows[is_whole], begin[is_whole], end[is_whole]
            structs, at = structs[is_whole], at[is_whole]
        yield rows, structs, begin
        goes_on = at < end
        rows, at, end = rows[goes_on], at[goes_on], end[goes_on]


def _sizes_of_entries(structs: NDArray[np.void]) -> NDArray[np.int64]:
    return np.asarray(structs["name_len"].astype(np.int64) + structs["data_len"])


def _sizes_of_links(structs: NDArray[np.void]) -> NDArray[np.int64]:
    return np.asarray(structs["name_len"].astype(np.int64))


def _joined(parts: list[_Rows]) -> _Rows:
    """Return rows one after another."""
    # Nearly always there are some besides the empty ones, and no others.
    if len(parts) == 2:
        return parts[1]
    cls = type(parts[0])
    columns = [
        np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)
    ]
    return cls(*columns)


def _no_entries() -> EntryRows:
    u64, s64, u8 = np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.uint8)
    return EntryRows(np.empty(0, np.intp), u64, u8, u64, u64, s64, s64, u8, s64)


def _no_links() -> LinkRows:
    u64, s64 = np.empty(0, np.uint64), np.empty(0, np.int64)
    return LinkRows(np.empty(0, np.intp), u64, u64, s64, s64)
