"""Free space: the items of the free space tree, and the headers of the cache of before."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items, is_wrong_inum
from btrfs.ondisk import constants
from btrfs.ondisk.items.free_space import FreeSpaceHeader, FreeSpaceInfo

__all__ = ["check_bitmaps", "check_extents", "check_headers", "check_infos"]

_BITS = 8
_BITMAP_BYTES = 256
"""Bytes of a bitmap: the most, and of all but the last one of a block group."""

_FLAGS = sum(constants.FREE_SPACE_INFO_FLAG_NAMES)


def check_infos(items: Items) -> None:
    """Check the FREE_SPACE_INFO of the free space tree: one for each block group."""
    _check_ranges(items)
    items = items.sized(FreeSpaceInfo.struct_size)
    items.known_bits(items.field(FreeSpaceInfo, "flags"), _FLAGS, "flags")


def check_extents(items: Items) -> None:
    """Check the FREE_SPACE_EXTENT of the free space tree: free ranges."""
    _check_ranges(items)
    items.sized(0)


def check_bitmaps(items: Items) -> None:
    """Check the FREE_SPACE_BITMAP of the free space tree: a bit for each sector."""
    _check_ranges(items)
    items.wrong(
        items.offset > np.uint64(_BITMAP_BYTES * _BITS * items.fs.sectorsize),
        "a bitmap for more bytes than one can be for",
        found=items.offset,
    )
    sectors = items.offset // np.uint64(items.fs.sectorsize)
    expected = (sectors + np.uint64(_BITS - 1)) // np.uint64(_BITS)
    items.wrong(
        items.batch.size != expected,
        "its size is wrong",
        expected=expected,
        found=items.batch.size,
    )
    _check_last_bits(items.select((items.batch.size == expected) & (expected > 0)))


def _check_last_bits(items: Items) -> None:
    """Check that bits behind the last sector are not set."""
    if not len(items):
        return
    used = items.offset // np.uint64(items.fs.sectorsize) % np.uint64(_BITS)
    last = items.batch.buffer[items.batch.body + items.batch.size - 1]
    beyond = (used > 0) & (last >> used.astype(np.uint8) != 0)
    items.wrong(beyond, "it has bits for more bytes than it is for")


def _check_ranges(items: Items) -> None:
    items.aligned(items.objectid, "address")
    items.aligned(items.offset, "length")
    items.wrong(items.offset == 0, "a range without bytes")
    items.wrong(items.objectid + items.offset < items.objectid, "it is for more than all addresses")


def check_headers(items: Items) -> None:
    """Check items of no type: headers of free space caches, of the root tree and of subvolumes."""
    items.wrong(
        items.objectid != np.uint64(constants.FREE_SPACE_OBJECTID),
        "its key is not that of free space",
    )
    items = items.sized(FreeSpaceHeader.struct_size)
    items.wrong(
        (items.field(FreeSpaceHeader, "location.type") != constants.INODE_ITEM_KEY)
        | (items.field(FreeSpaceHeader, "location.offset") != 0)
        | is_wrong_inum(items.field(FreeSpaceHeader, "location.objectid")),
        "it does not lead to a file",
    )
    items.not_future(items.field(FreeSpaceHeader, "generation"), "generation")
