"""Inodes: what is known of a file, its names, and what is deleted but not yet gone."""

from __future__ import annotations

import stat

import numpy as np

from btrfs.check.items.base import Items, is_wrong_inum
from btrfs.check.items.entries import link_rows_and_rests
from btrfs.ondisk import constants
from btrfs.ondisk.items.inode import InodeItem
from btrfs.ondisk.name_hashes import extref_hashes

__all__ = ["check_extrefs", "check_inodes", "check_orphans", "check_refs"]

MAX_NAME = 255

_INODE = InodeItem.dtype

_FORMAT_BITS = 0o170000
_MODE_BITS = np.uint32(0o177777)

_IS_FORMAT = np.zeros(16, np.bool_)
_IS_FORMAT[
    [
        mode >> 12
        for mode in (
            stat.S_IFREG,
            stat.S_IFDIR,
            stat.S_IFLNK,
            stat.S_IFCHR,
            stat.S_IFBLK,
            stat.S_IFIFO,
            stat.S_IFSOCK,
        )
    ]
] = True
"""Whether there is a type of file for the upper bits of a mode."""

# Flags that only a kernel that knows them may ignore when it does not write: verity alone.
_RO_FLAG_VERITY = 1 << 32
_FLAGS = _RO_FLAG_VERITY | sum(constants.INODE_FLAG_NAMES)


def check_inodes(items: Items) -> None:
    """Check the INODE_ITEM of files."""
    items = items.sized(InodeItem.struct_size)
    items.wrong(is_wrong_inum(items.objectid), "its key is not that of an inode")
    items.wrong(items.offset != 0, "the offset of its key is not 0")
    generation, transid, size, nlink, mode, flags = items.fields(
        _INODE, "generation", "transid", "size", "nlink", "mode", "flags"
    )
    items.not_future(generation, "generation")
    items.not_future(transid, "transid")
    items.wrong(
        ~_IS_FORMAT[mode >> np.uint32(12) & np.uint32(15)], "its mode is of no type of file"
    )
    items.wrong(mode > _MODE_BITS, "its mode has bits that are not known", found=mode)
    is_directory = mode & np.uint32(_FORMAT_BITS) == stat.S_IFDIR
    items.wrong(
        is_directory & (nlink > 1), "a directory of more than one name", expected=1, found=nlink
    )
    items.known_bits(flags, _FLAGS, "flags")
    items.wrong(size >= np.uint64(constants.MAX_ADDRESS), "its size is too large", found=size)


def check_refs(items: Items) -> None:
    """Check the INODE_REF of files: names of inodes in a directory."""
    items.wrong(is_wrong_inum(items.offset), "the offset of its key is not that of a directory")
    _check_links(items)


def check_extrefs(items: Items) -> None:
    """Check the INODE_EXTREF of files: names of inodes by their hash."""
    _check_links(items)


def _check_links(items: Items) -> None:
    batch = items.batch
    rows, rests = link_rows_and_rests(batch)
    is_rest = np.zeros(len(batch), np.bool_)
    is_rest[rests] = True
    items.wrong(is_rest, "it is not made of whole names")
    # The root tree has a name of the top subvolume.
    wrong = is_wrong_inum(items.objectid)
    if items.tree == constants.ROOT_TREE_OBJECTID:
        wrong &= items.objectid != constants.FS_TREE_OBJECTID
    items.wrong(wrong, "its key is not that of an inode")
    items.wrong(
        (rows.name_len == 0) | (rows.name_len > MAX_NAME),
        "the length of its name is wrong",
        expected=f"1 to {MAX_NAME}",
        found=rows.name_len,
        rows=rows.index,
    )
    if not len(batch) or batch.type[0] != constants.INODE_EXTREF_KEY:
        return
    items.wrong(is_wrong_inum(rows.parent), "its name is not in a directory", rows=rows.index)
    hashes = extref_hashes(rows.parent, batch.buffer, rows.name_at, rows.name_len)
    items.wrong(
        hashes != items.offset[rows.index],
        "it is not stored under the hash of its name",
        expected=hashes,
        found=items.offset[rows.index],
        rows=rows.index,
    )


def check_orphans(items: Items) -> None:
    """Check the ORPHAN_ITEM of subvolumes and files."""
    items = items.sized(0)
    items.wrong(
        items.objectid != np.uint64(constants.ORPHAN_OBJECTID), "its key is not that of an orphan"
    )
