"""Neighbours in a leaf: bodies follow one another, and so do the items of an inode."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items
from btrfs.ondisk import constants

__all__ = ["check_bodies", "check_inode_order"]

_NEED_INODE = np.zeros(256, np.bool_)
_NEED_INODE[
    [
        constants.INODE_REF_KEY,
        constants.INODE_EXTREF_KEY,
        constants.XATTR_ITEM_KEY,
        constants.DIR_ITEM_KEY,
        constants.DIR_INDEX_KEY,
        constants.EXTENT_DATA_KEY,
    ]
] = True
"""Types of keys that come after the INODE_ITEM of their inode."""


def check_bodies(items: Items) -> None:
    """Check that the bodies of whole leaves lie one before the other, from the end of the leaf."""
    batch = items.batch
    if not len(batch):
        return
    end = batch.body + batch.size
    is_first = np.ones(len(items), np.bool_)
    is_first[1:] = items.leaf[1:] != items.leaf[:-1]
    expected = np.concatenate([end[:1], batch.body[:-1]])
    # Where a leaf ends in the buffer: leaves follow one another in it.
    last = end[is_first] - 1
    expected[is_first] = last - last % items.fs.nodesize + items.fs.nodesize
    items.wrong(
        end != expected,
        "its body does not end where the one before begins",
        expected=expected % items.fs.nodesize,
        found=end % items.fs.nodesize,
    )


def check_inode_order(items: Items) -> None:
    """Check that an inode does not begin, within a leaf, with anything but its INODE_ITEM."""
    begins = np.flatnonzero(items.objectid[1:] != items.objectid[:-1]) + 1
    begins = begins[_NEED_INODE[items.batch.type[begins]]]
    begins = begins[items.leaf[begins] == items.leaf[begins - 1]]
    wrong = np.zeros(len(items), np.bool_)
    wrong[begins] = True
    items.wrong(wrong, "there is no inode item before it")
