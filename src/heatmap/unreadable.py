"""What could not be read, as ranges of addresses to be hatched.

A filesystem that leaves out what it cannot read tells between which keys something may have been.
What may have begun there reaches up to the next thing that is known, at most.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

from btrfs.ondisk import constants
from btrfs.ondisk.key import Key

if TYPE_CHECKING:
    from btrfs.ctree import DevItem, FileSystem

Range = tuple[int, int]
"""Start and end."""

DESCRIPTION = "could not be read"


def on_device(fs: FileSystem, device: DevItem, known: Sequence[int]) -> list[Range]:
    """Return the parts of a device of which it is not known what is allocated there.

    Args:
        fs: The filesystem.
        device: The device.
        known: Where the device extents begin that are known, ascending.
    """
    first = Key(device.devid, constants.DEV_EXTENT_KEY, 0)
    last = Key(device.devid, constants.DEV_EXTENT_KEY, constants.ULLONG_MAX)
    starts = [
        (
            lost.min_key.offset if lost.min_key > first else 0,
            lost.max_key.offset + 1 if lost.max_key < last else device.total_bytes,
        )
        for lost in fs.lost
        if lost.overlaps(constants.DEV_TREE_OBJECTID, first, last)
    ]
    return up_to_known(starts, known, device.total_bytes)


def extent_starts(fs: FileSystem, within: Range) -> list[Range]:
    """Return the parts of a range of virtual addresses where unknown extents may begin."""
    start, end = within
    found = []
    for lost in fs.lost:
        if lost.tree == constants.EXTENT_TREE_OBJECTID:
            # After the item of an extent only its references follow.
            is_after = lost.min_key.type > constants.METADATA_ITEM_KEY
            is_before = lost.max_key.type < constants.EXTENT_ITEM_KEY
            first = max(start, lost.min_key.objectid + is_after)
            stop = min(end, lost.max_key.objectid + (not is_before))
            if first < stop:
                found.append((first, stop))
    return sorted(found)


def up_to_known(starts: Sequence[Range], known: Sequence[int], end: int) -> list[Range]:
    """Return where unknown things may be, given where they may begin.

    Args:
        starts: Ranges that they may begin in.
        known: Where known things begin, ascending.
        end: Where all ends.
    """
    reach = []
    for first, stop in starts:
        # Where the last of them may begin, what is known may begin as well: then it is that.
        following = bisect_left(known, stop - 1)
        reach.append((first, known[following] if following < len(known) else end))
    return sorted((first, stop) for first, stop in reach if first < stop)


def is_block_group_lost(fs: FileSystem, vaddr: int) -> bool:
    """Return whether there may be a block group at an address all the same."""
    if not fs.lost:
        return False
    tree = constants.EXTENT_TREE_OBJECTID
    if fs.features().compat_ro_flags & constants.FEATURE_COMPAT_RO_BLOCK_GROUP_TREE:
        tree = constants.BLOCK_GROUP_TREE_OBJECTID
    first = Key(vaddr, constants.BLOCK_GROUP_ITEM_KEY, 0)
    last = Key(vaddr, constants.BLOCK_GROUP_ITEM_KEY, constants.ULLONG_MAX)
    return any(lost.overlaps(tree, first, last) for lost in fs.lost)


def is_chunk_tree_damaged(fs: FileSystem) -> bool:
    """Return whether there may be chunks that are not known."""
    return any(lost.tree == constants.CHUNK_TREE_OBJECTID for lost in fs.lost)
