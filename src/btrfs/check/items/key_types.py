"""Types of keys: which belong in which trees."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from btrfs.ondisk import constants

__all__ = ["FILE_TYPES", "allowed_types"]

FILE_TYPES = frozenset(
    {
        # Headers of the inode cache of old kernels.
        constants.UNTYPED_KEY,
        constants.INODE_ITEM_KEY,
        constants.INODE_REF_KEY,
        constants.INODE_EXTREF_KEY,
        constants.XATTR_ITEM_KEY,
        constants.VERITY_DESC_ITEM_KEY,
        constants.VERITY_MERKLE_ITEM_KEY,
        constants.ORPHAN_ITEM_KEY,
        constants.DIR_ITEM_KEY,
        constants.DIR_INDEX_KEY,
        constants.EXTENT_DATA_KEY,
    }
)
"""Those of the trees of subvolumes."""

_TYPES_BY_TREE = {
    constants.ROOT_TREE_OBJECTID: FILE_TYPES
    | {
        constants.ROOT_ITEM_KEY,
        constants.ROOT_REF_KEY,
        constants.ROOT_BACKREF_KEY,
        constants.TEMPORARY_ITEM_KEY,
    },
    constants.EXTENT_TREE_OBJECTID: {
        constants.EXTENT_ITEM_KEY,
        constants.METADATA_ITEM_KEY,
        constants.TREE_BLOCK_REF_KEY,
        constants.EXTENT_DATA_REF_KEY,
        constants.SHARED_BLOCK_REF_KEY,
        constants.SHARED_DATA_REF_KEY,
        constants.BLOCK_GROUP_ITEM_KEY,
    },
    constants.CHUNK_TREE_OBJECTID: {constants.DEV_ITEM_KEY, constants.CHUNK_ITEM_KEY},
    constants.DEV_TREE_OBJECTID: {
        constants.DEV_EXTENT_KEY,
        constants.PERSISTENT_ITEM_KEY,
        constants.DEV_REPLACE_KEY,
    },
    constants.CSUM_TREE_OBJECTID: {constants.EXTENT_CSUM_KEY},
    constants.QUOTA_TREE_OBJECTID: {
        constants.QGROUP_STATUS_KEY,
        constants.QGROUP_INFO_KEY,
        constants.QGROUP_LIMIT_KEY,
        constants.QGROUP_RELATION_KEY,
    },
    constants.UUID_TREE_OBJECTID: {
        constants.UUID_KEY_SUBVOL,
        constants.UUID_KEY_RECEIVED_SUBVOL,
    },
    constants.FREE_SPACE_TREE_OBJECTID: {
        constants.FREE_SPACE_INFO_KEY,
        constants.FREE_SPACE_EXTENT_KEY,
        constants.FREE_SPACE_BITMAP_KEY,
    },
    constants.BLOCK_GROUP_TREE_OBJECTID: {constants.BLOCK_GROUP_ITEM_KEY},
    constants.RAID_STRIPE_TREE_OBJECTID: {constants.RAID_STRIPE_KEY},
    constants.TREE_LOG_OBJECTID: FILE_TYPES
    | {
        constants.ROOT_ITEM_KEY,
        constants.DIR_LOG_ITEM_KEY,
        constants.DIR_LOG_INDEX_KEY,
        constants.EXTENT_CSUM_KEY,
    },
}


def allowed_types(tree: int) -> AbstractSet[int]:
    """Return the types of keys that a tree may hold.

    Args:
        tree: Its number; TREE_LOG for a log tree. Any other tree is one of files.
    """
    return _TYPES_BY_TREE.get(tree, FILE_TYPES)
