"""Items: whether each can be what its key says, and belongs in its tree.

The rules are those of the kernel's tree checker (fs/btrfs/tree-checker.c), and of the code that
reads the items. They concern one item, or two neighbours in a leaf. A module has the rules of one
family of items, as in :mod:`btrfs.ondisk.items`; each rule is applied to the items of many leaves
at once. Nothing is remembered from one call to the next: leaves may come in any order, and in
several threads. What joins several items of extents, free space, or checksums is left to
:mod:`btrfs.check.by_address`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrfs.check.items import (
    checksums,
    chunks,
    directories,
    extents,
    file_extents,
    free_space,
    inodes,
    leaf_layout,
    quota,
    roots,
    status,
    uuid_tree,
    verity,
)
from btrfs.check.items.base import ItemFormat, Items, Problem
from btrfs.check.items.key_types import FILE_TYPES, allowed_types
from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch

__all__ = ["ItemFormat", "ItemRules", "Problem"]

_KEY_TYPES = 256

_RULES: dict[int, Callable[[Items], None]] = {
    constants.UNTYPED_KEY: free_space.check_headers,
    constants.INODE_ITEM_KEY: inodes.check_inodes,
    constants.INODE_REF_KEY: inodes.check_refs,
    constants.INODE_EXTREF_KEY: inodes.check_extrefs,
    constants.XATTR_ITEM_KEY: directories.check_entries,
    constants.VERITY_DESC_ITEM_KEY: verity.check_descriptors,
    constants.VERITY_MERKLE_ITEM_KEY: verity.check_merkle,
    constants.ORPHAN_ITEM_KEY: inodes.check_orphans,
    constants.DIR_LOG_ITEM_KEY: directories.check_dir_logs,
    constants.DIR_LOG_INDEX_KEY: directories.check_dir_logs,
    constants.DIR_ITEM_KEY: directories.check_entries,
    constants.DIR_INDEX_KEY: directories.check_entries,
    constants.EXTENT_DATA_KEY: file_extents.check_file_extents,
    constants.EXTENT_CSUM_KEY: checksums.check_checksums,
    constants.EXTENT_ITEM_KEY: extents.check_extents,
    constants.METADATA_ITEM_KEY: extents.check_extents,
    constants.TREE_BLOCK_REF_KEY: extents.check_block_refs,
    constants.SHARED_BLOCK_REF_KEY: extents.check_block_refs,
    constants.EXTENT_DATA_REF_KEY: extents.check_data_refs,
    constants.SHARED_DATA_REF_KEY: extents.check_shared_data_refs,
    constants.BLOCK_GROUP_ITEM_KEY: chunks.check_block_groups,
    constants.ROOT_ITEM_KEY: roots.check_roots,
    constants.ROOT_REF_KEY: roots.check_root_refs,
    constants.ROOT_BACKREF_KEY: roots.check_root_refs,
    constants.FREE_SPACE_INFO_KEY: free_space.check_infos,
    constants.FREE_SPACE_EXTENT_KEY: free_space.check_extents,
    constants.FREE_SPACE_BITMAP_KEY: free_space.check_bitmaps,
    constants.DEV_EXTENT_KEY: chunks.check_device_extents,
    constants.DEV_ITEM_KEY: chunks.check_devices,
    constants.CHUNK_ITEM_KEY: chunks.check_chunks,
    constants.RAID_STRIPE_KEY: chunks.check_stripes,
    constants.QGROUP_STATUS_KEY: quota.check_status,
    constants.QGROUP_INFO_KEY: quota.check_infos,
    constants.QGROUP_LIMIT_KEY: quota.check_limits,
    constants.QGROUP_RELATION_KEY: quota.check_relations,
    constants.TEMPORARY_ITEM_KEY: status.check_temporary,
    constants.PERSISTENT_ITEM_KEY: status.check_persistent,
    constants.DEV_REPLACE_KEY: status.check_replace,
    constants.UUID_KEY_SUBVOL: uuid_tree.check_uuids,
    constants.UUID_KEY_RECEIVED_SUBVOL: uuid_tree.check_uuids,
}


class ItemRules:
    """The rules for the items of a filesystem.

    Args:
        fs: What its superblock says.
    """

    def __init__(self, fs: ItemFormat) -> None:
        self._fs = fs

    def check(self, batch: ItemBatch, leaf: NDArray[Any], tree: int) -> list[Problem]:
        """Return what is wrong with items.

        Args:
            batch: All items of some leaves, leaf by leaf. The trees that the leaves are in may be
                different ones of the same kind.
            leaf: Number of the leaf of each item.
            tree: Number of the tree; or of one of the trees, TREE_LOG for log trees.
        """
        items = self.items(batch, leaf, tree)
        leaf_layout.check_bodies(items)
        allowed = allowed_types(tree)
        if allowed is FILE_TYPES:
            leaf_layout.check_inode_order(items)
        for key_type, chosen in _by_type(items):
            if key_type not in allowed:
                chosen.wrong(np.ones(len(chosen), np.bool_), "", kind="key-type")
            elif key_type in _RULES:
                _RULES[key_type](chosen)
        return items.problems

    def items(self, batch: ItemBatch, leaf: NDArray[Any], tree: int) -> Items:
        """Return items as rules take them, with an empty list of problems; see check()."""
        # What is in the log trees belongs to the transaction after the last commit.
        is_log = tree == constants.TREE_LOG_OBJECTID
        return Items(batch, leaf, self._fs, tree, self._fs.generation + is_log, [])


def _by_type(items: Items) -> Iterator[tuple[int, Items]]:
    """Yield each type of key that items have, with the items of that type in their order."""
    # Sorted once, the items of a type are a slice.
    ordered = items.select(np.argsort(items.batch.type, kind="stable"))
    ends = np.bincount(ordered.batch.type, minlength=_KEY_TYPES).cumsum()
    begin = 0
    for key_type, end in enumerate(ends.tolist()):
        if begin < end:
            yield key_type, ordered.select(slice(begin, end))
        begin = end
