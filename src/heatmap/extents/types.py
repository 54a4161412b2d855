"""Which tree owns a block, as the extent tree tells it.

A block of metadata is known by its extent item, which has the first references to it inline: the
number of the tree that owns it, or the address of a parent that shares it. See struct
btrfs_extent_item in the kernel's btrfs_tree.h. What is on disk is looked at only as far as an item
reaches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from heatmap.palette import UNREADABLE, UNREADABLE_COLOUR, palette

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ondisk.columns import ItemBatch

Values = NDArray[np.uint8]
Addresses = NDArray[np.uint64]

EXTENTS = palette(
    {
        "data": 0xFFFFFF,
        "root tree": 0xCA535C,
        "extent tree": 0x9D549C,
        "chunk tree": 0x81883C,
        "device tree": 0x6A5A7F,
        "subvolumes": 0xAACCEB,
        "checksum tree": 0x6EA634,
        "quota tree": 0xDE5D94,
        "UUID tree": 0x6F5E55,
        "free space tree": 0xDBC9EA,
        "data relocation tree": 0x75777B,
        "other trees": 0xFFFFFF,
        UNREADABLE: UNREADABLE_COLOUR,
    },
    hatched=UNREADABLE,
)
"""Data, and tree blocks by the tree that owns them."""


def extent_values(fs: FileSystem, batch: ItemBatch) -> Values:
    """Return for each extent what it is shown as: data, or the owner of the tree block."""
    value = np.full(len(batch), _DATA, dtype=np.uint8)
    skinny = batch.type == constants.METADATA_ITEM_KEY
    readable = batch.size >= _EXTENT_ITEM_SIZE
    value[skinny & ~readable] = _OTHER
    tree_block = readable.copy()
    tree_block[readable] &= (
        batch.select(readable).gather("<u8", _FLAGS_AT) & constants.EXTENT_FLAG_TREE_BLOCK
    ) != 0
    if tree_block.any():
        value[tree_block] = _owners(fs, batch.select(tree_block))
    return value


def tree_name(tree: int) -> str | None:
    """Return what a legend calls a tree; None if it is a subvolume, or has no name of its own."""
    value = int(_owner_values(np.array([tree], np.uint64))[0])
    return None if value in (_SUBVOLUMES, _OTHER) else EXTENTS.names[value]


def _owners(fs: FileSystem, blocks: ItemBatch) -> Values:
    """Return the owners of tree blocks."""
    refs_at = np.where(
        blocks.type == constants.METADATA_ITEM_KEY,
        _EXTENT_ITEM_SIZE,
        _EXTENT_ITEM_SIZE + _TREE_BLOCK_INFO_SIZE,
    )
    value = np.full(len(blocks), _OTHER, dtype=np.uint8)
    inline = blocks.size >= refs_at + _INLINE_REF_SIZE
    referring = blocks.select(inline)
    kind = referring.gather("u1", refs_at[inline])
    owner = _owner_values(referring.gather("<u8", refs_at[inline] + 1))
    owner[kind == constants.SHARED_BLOCK_REF_KEY] = _SUBVOLUMES
    value[inline] = owner
    shared = blocks.gather("<u8", _REFS_AT) > 1
    value[shared] = _SUBVOLUMES
    # Once references did not fit into the item, they have items of their own: rare.
    for i in np.flatnonzero(~inline & ~shared):
        value[i] = _separate_owner(fs, int(blocks.objectid[i]))
    return value


def _owner_values(root: Addresses) -> Values:
    """Return what blocks of these trees are shown as."""
    value = _TREE_VALUES[np.minimum(root, _TREE_VALUES.size - 1).astype(np.intp)]
    value[root == constants.DATA_RELOC_TREE_OBJECTID] = _DATA_RELOC
    value[(root >= constants.FIRST_FREE_OBJECTID) & (root <= constants.LAST_FREE_OBJECTID)] = (
        _SUBVOLUMES
    )
    return value


def _separate_owner(fs: FileSystem, vaddr: int) -> int:
    """Return the owner of the tree block at vaddr by the items of its references."""
    first = Key(vaddr, constants.TREE_BLOCK_REF_KEY, 0)
    last = Key(vaddr, constants.SHARED_BLOCK_REF_KEY, constants.ULLONG_MAX)
    for batch in fs.batches(constants.EXTENT_TREE_OBJECTID, first, last):
        if (batch.type == constants.SHARED_BLOCK_REF_KEY).any():
            return _SUBVOLUMES
        roots = batch.offset[batch.type == constants.TREE_BLOCK_REF_KEY]
        if roots.size:
            return int(_owner_values(roots)[0])
    return _OTHER


# struct btrfs_extent_item, and what can follow it in an item of a tree block.
_REFS_AT = 0
_FLAGS_AT = 16
_EXTENT_ITEM_SIZE = 24
_TREE_BLOCK_INFO_SIZE = 18
_INLINE_REF_SIZE = 9

_DATA, _SUBVOLUMES, _DATA_RELOC, _OTHER = (
    EXTENTS.names.index(name)
    for name in ("data", "subvolumes", "data relocation tree", "other trees")
)


def _tree_values() -> Values:
    """Return the values of EXTENTS, indexed by the number of a tree; the last one is all others."""
    trees = {
        constants.ROOT_TREE_OBJECTID: "root tree",
        constants.EXTENT_TREE_OBJECTID: "extent tree",
        constants.CHUNK_TREE_OBJECTID: "chunk tree",
        constants.DEV_TREE_OBJECTID: "device tree",
        constants.FS_TREE_OBJECTID: "subvolumes",
        constants.CSUM_TREE_OBJECTID: "checksum tree",
        constants.QUOTA_TREE_OBJECTID: "quota tree",
        constants.UUID_TREE_OBJECTID: "UUID tree",
        constants.FREE_SPACE_TREE_OBJECTID: "free space tree",
    }
    values = np.full(max(trees) + 2, _OTHER, dtype=np.uint8)
    for tree, name in trees.items():
        values[tree] = EXTENTS.names.index(name)
    return values


_TREE_VALUES = _tree_values()
