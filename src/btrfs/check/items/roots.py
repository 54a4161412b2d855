"""Roots: where trees are, and how subvolumes hang together."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items, is_subvolume_number, is_wrong_inum
from btrfs.check.items.inodes import MAX_NAME
from btrfs.ondisk import constants
from btrfs.ondisk.items.root import RootItem, RootRef
from btrfs.ondisk.name_hashes import names_with

__all__ = ["check_root_refs", "check_roots"]

# The kernel marks a subvolume that is deleted; without UUIDs, root items are of an older kernel.
_SUBVOL_DEAD = 1 << 48
_FLAGS = constants.ROOT_SUBVOL_RDONLY | _SUBVOL_DEAD
_OLD_SIZE = RootItem.layout.shortest
# Room for 8 u64 follows the last field.
_SIZE = RootItem.struct_size + 64

_NUL_AND_SLASH = (0, ord("/"))


def check_roots(items: Items) -> None:
    """Check the ROOT_ITEM of the root tree and of the tree of log trees."""
    objectid, offset = items.objectid, items.offset
    items.wrong(objectid == 0, "its key is not that of a tree")
    is_reloc = objectid == np.uint64(constants.TREE_RELOC_OBJECTID)
    items.wrong(is_reloc & (offset == 0), "a tree of a balance that is of no other tree")
    items = items.sized(_OLD_SIZE, _SIZE)
    items.not_future(items.field(RootItem, "generation"), "generation")
    items.not_future(items.field(RootItem, "last_snapshot"), "last_snapshot")
    items.aligned(items.field(RootItem, "bytenr"), "bytenr")
    for name in ("level", "drop_level"):
        level = items.field(RootItem, name)
        items.wrong(
            level >= constants.MAX_LEVEL,
            f"its {name} is too high",
            expected=f"below {constants.MAX_LEVEL}",
            found=level,
        )
    # A tree that is being removed, or replaced by a balance, has got to a node, never to a leaf.
    begun = items.field(RootItem, "drop_progress.objectid") != 0
    items.wrong(begun & (items.field(RootItem, "drop_level") == 0), "its drop_level is 0")
    items.known_bits(items.field(RootItem, "flags"), _FLAGS, "flags")
    refs = items.field(RootItem, "refs")
    items.wrong(refs > 1, "its refs are wrong", expected="0 or 1", found=refs)
    _check_directory(items)
    # Of a kernel of before Linux 3.6, all that follows is not valid.
    new = items.select(items.batch.size == _SIZE)
    new.not_future(new.field(RootItem, "generation_v2"), "generation_v2")


def _check_directory(items: Items) -> None:
    """Check the number of the top directory, which trees without files need not have."""
    dirid = items.field(RootItem, "root_dirid")
    top = constants.FIRST_FREE_OBJECTID
    has_files = is_subvolume_number(items.objectid)
    why = "its root_dirid is wrong"
    items.wrong(has_files & (dirid != top), why, expected=top, found=dirid)
    items.wrong(
        ~has_files & (dirid != 0) & (dirid != top), why, expected=f"0 or {top}", found=dirid
    )


def check_root_refs(items: Items) -> None:
    """Check the ROOT_REF or ROOT_BACKREF of subvolumes."""
    items.wrong(
        ~(is_subvolume_number(items.objectid) & is_subvolume_number(items.offset)),
        "its key is not that of two subvolumes",
    )
    items = items.at_least(RootRef.struct_size)
    length = items.field(RootRef, "name_len").astype(np.int64)
    whole = items.batch.size == length + RootRef.struct_size
    items.wrong(
        ~whole,
        "its size is wrong",
        expected=length + RootRef.struct_size,
        found=items.batch.size,
    )
    items, length = items.select(whole), length[whole]
    items.wrong(
        (length == 0) | (length > MAX_NAME),
        "the length of its name is wrong",
        expected=f"1 to {MAX_NAME}",
        found=length,
    )
    dirid = items.field(RootRef, "dirid")
    items.wrong(is_wrong_inum(dirid), "it is not in a directory", found=dirid)
    batch = items.batch
    items.wrong(
        names_with(batch.buffer, batch.body + RootRef.struct_size, length, _NUL_AND_SLASH),
        "its name cannot be that of a file",
    )
