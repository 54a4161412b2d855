"""Directories and extended attributes: entries, and what of their directory a log tree holds."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items, is_subvolume_number, is_wrong_inum
from btrfs.check.items.entries import EntryRows, entry_rows_and_rests
from btrfs.check.items.inodes import MAX_NAME
from btrfs.ondisk import constants
from btrfs.ondisk.items.directory import DirLogItem
from btrfs.ondisk.name_hashes import name_hashes, names_with

__all__ = ["check_dir_logs", "check_entries", "check_names"]

_NUL_AND_SLASH = (0, ord("/"))


def check_entries(items: Items) -> None:
    """Check the DIR_ITEM, DIR_INDEX or XATTR_ITEM of files.

    The transid of an entry can be anything: mkfs.btrfs and btrfs-convert leave it as it happens to
    be in memory.
    """
    batch = items.batch
    if not len(batch):
        return
    key_type = int(batch.type[0])
    rows, rests = entry_rows_and_rests(batch)
    is_rest = np.zeros(len(batch), np.bool_)
    is_rest[rests] = True
    items.wrong(is_rest, "it is not made of whole entries")
    items.wrong(is_wrong_inum(items.objectid), "its key is not that of an inode")
    items.wrong(
        (rows.name_len == 0) | (rows.name_len > MAX_NAME),
        "the length of its name is wrong",
        expected=f"1 to {MAX_NAME}",
        found=rows.name_len,
        rows=rows.index,
    )
    if key_type == constants.XATTR_ITEM_KEY:
        _check_attributes(items, rows)
    else:
        _check_locations(items, rows)
    if key_type == constants.DIR_INDEX_KEY:
        _check_indexes(items, rows)
    else:
        _check_hashes(items, rows)


def _check_attributes(items: Items, rows: EntryRows) -> None:
    items.wrong(
        rows.file_type != constants.FT_XATTR,
        "its type is not that of an attribute",
        expected=constants.FT_XATTR,
        found=rows.file_type,
        rows=rows.index,
    )
    leads_to = rows.objectid | rows.location_offset | rows.location_type
    items.wrong(leads_to != 0, "an attribute that leads to something", rows=rows.index)


def _check_locations(items: Items, rows: EntryRows) -> None:
    """Check what entries of directories lead to."""
    items.wrong(
        (rows.file_type == constants.FT_UNKNOWN) | (rows.file_type >= constants.FT_XATTR),
        "its type is not that of a file",
        found=rows.file_type,
        rows=rows.index,
    )
    items.wrong(
        rows.data_len != 0,
        "an entry with data",
        expected=0,
        found=rows.data_len,
        rows=rows.index,
    )
    to_inode = rows.location_type == constants.INODE_ITEM_KEY
    wrong = to_inode & (is_wrong_inum(rows.objectid) | (rows.location_offset != 0))
    if not to_inode.all():
        # The offset of the key of a subvolume is not known here; all of its bits are set.
        to_tree = rows.location_type == constants.ROOT_ITEM_KEY
        items.wrong(
            ~to_inode & ~to_tree,
            "it leads to something else than a file or a subvolume",
            expected=f"a key of type {constants.INODE_ITEM_KEY} or {constants.ROOT_ITEM_KEY}",
            found=rows.location_type,
            rows=rows.index,
        )
        wrong |= to_tree & ~is_subvolume_number(rows.objectid)
    items.wrong(
        wrong,
        "it leads to what cannot be a file or a subvolume",
        found=rows.objectid,
        rows=rows.index,
    )


def _check_indexes(items: Items, rows: EntryRows) -> None:
    """Check that each index stands for one entry; and their names, which DIR_ITEM has, too."""
    if len(rows.index) > len(items):
        second = np.zeros(len(rows.index), np.bool_)
        second[np.unique(rows.index, return_index=True)[1]] = True
        items.wrong(~second, "more than one entry of one index", rows=rows.index)
    check_names(items, rows)


def check_names(items: Items, rows: EntryRows) -> None:
    """Check that names can be those of files."""
    buffer, begin, length = items.batch.buffer, rows.name_at, rows.name_len
    wrong = names_with(buffer, begin, length, _NUL_AND_SLASH)
    short = np.flatnonzero((length == 1) | (length == 2))
    if len(short):
        # '.' and '..'
        dots = buffer[begin[short]] == ord(".")
        dots &= buffer[begin[short] + length[short] - 1] == ord(".")
        wrong[short] |= dots
    items.wrong(wrong, "its name cannot be that of a file", rows=rows.index)


def _check_hashes(items: Items, rows: EntryRows) -> None:
    hashes = name_hashes(items.batch.buffer, rows.name_at, rows.name_len)
    stored = items.offset[rows.index]
    items.wrong(
        hashes != stored,
        "it is not stored under the hash of its name",
        expected=hashes,
        found=stored,
        rows=rows.index,
    )


def check_dir_logs(items: Items) -> None:
    """Check the DIR_LOG_ITEM or DIR_LOG_INDEX of log trees: ranges that are complete."""
    items = items.sized(DirLogItem.struct_size)
    items.wrong(is_wrong_inum(items.objectid), "its key is not that of an inode")
    end = items.field(DirLogItem, "end")
    items.wrong(end < items.offset, "its range ends before it begins", found=end)
