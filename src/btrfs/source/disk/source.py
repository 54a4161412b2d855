"""An unmounted filesystem as a source: the answers that a kernel would give, read from trees."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast
from uuid import UUID

from btrfs.errors import (
    BtrfsError,
    CorruptError,
    NotMountedError,
    TreeNotFoundError,
)
from btrfs.info import (
    DEV_STATS_COUNTERS,
    FS_INFO_FLAGS,
    DevInfo,
    DevStats,
    FeatureFlags,
    FsInfo,
    SpaceInfo,
)
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX, ULLONG_MAX
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import ItemData, SearchHeader
from btrfs.ondisk.items.device import DevItem
from btrfs.ondisk.items.directory import DirItemList
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import Key
from btrfs.source import lookup
from btrfs.source.base import ReadOptions
from btrfs.source.damage import DamageLog, LostKeys
from btrfs.source.disk.node import BlockFormat, Leaf, Node, Pointer, root_pointer
from btrfs.source.disk.store import UNREADABLE, BlockStore, UnreadableHandler
from btrfs.source.disk.superblock import Superblock, is_usable
from btrfs.source.disk.tree import TreeReader

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["DiskSource"]


class DiskSource:
    """A filesystem whose blocks are in a store. See :class:`btrfs.source.blocks.BlockSource`.

    Args:
        path: What was opened, or the first of several files.
        superblock: What the trees are found from.
        store: The blocks; they are closed with the source.
        log: Remembers what is wrong.
        options: How to read it.
        seeds: UUIDs in the headers of blocks that belong to seed filesystems of it.

    Attributes:
        superblock: As given.
        on_error: What to do about what cannot be read.
        is_earlier_state: Whether the superblock leads to another root tree than the current one.
        devices: The devices by their numbers, as many of them as there are; none for a dump.
        trees: Reads the trees, given their roots.
    """

    mounted = False

    def __init__(
        self,
        path: str,
        superblock: Superblock,
        store: BlockStore,
        log: DamageLog,
        options: ReadOptions,
        seeds: Collection[UUID] = (),
    ) -> None:
        self.path = path
        self.superblock = superblock
        self.log = log
        self.on_error = options.on_error
        self.is_earlier_state = options.backup_root is not None
        self.devices = store.devices
        block_format = BlockFormat(
            superblock.nodesize,
            superblock.checksum,
            superblock.header_fsid.bytes,
            frozenset(seed.bytes for seed in seeds),
        )
        self.trees = TreeReader(store, block_format, log)
        # The hint that says what can be read in place of the root tree; None before it is needed.
        self._offer: str | None = None
        self._roots: dict[int, Pointer] = {
            constants.CHUNK_TREE_OBJECTID: Pointer(
                superblock.chunk_root,
                superblock.chunk_root_generation,
                superblock.chunk_root_level,
            ),
        }
        if superblock.log_root:
            # It is written while the transaction after the last commit runs.
            self._roots[constants.TREE_LOG_OBJECTID] = Pointer(
                superblock.log_root, superblock.generation + 1, superblock.log_root_level
            )

    @property
    def fd(self) -> int:
        raise NotMountedError(
            f"{self.path} is not mounted, so there is no file descriptor to call the kernel with",
            hint="mount it, or use what needs no ioctl: search() and the look-ups",
        )

    def search(
        self,
        tree: int,
        min_key: Key,
        max_key: Key,
        min_transid: int = 0,
        max_transid: int = ULLONG_MAX,
        nr_items: int | None = None,
    ) -> Iterator[tuple[SearchHeader, Bytes]]:
        tree = self._resolved(tree)
        root = self._root_or_skip(tree)
        if root is None:
            return
        left = ULLONG_MAX if nr_items is None else nr_items
        for item in self.trees.items(
            root, min_key.key, max_key.key, self._unreadable_handler(tree)
        ):
            if left <= 0:
                return
            if min_transid <= item[0].transid <= max_transid:
                left -= 1
                yield item

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        tree = self._resolved(tree)
        root = self._root_or_skip(tree)
        if root is not None:
            yield from self.trees.batches(
                root, min_key.key, max_key.key, self._unreadable_handler(tree)
            )

    def search_root(
        self, root: RootItem, min_key: Key, max_key: Key
    ) -> Iterator[tuple[SearchHeader, Bytes]]:
        on_unreadable = self._unreadable_handler(root.objectid)
        try:
            pointer = root_pointer(root)
        except CorruptError as error:
            on_unreadable(0, KEY_MAX, error)
            return
        yield from self.trees.items(pointer, min_key.key, max_key.key, on_unreadable)

    def skip_or_raise(self, tree: int, min_key: int, max_key: int, error: BtrfsError, /) -> None:
        if self.on_error == "raise":
            raise error
        self.log.add_lost(LostKeys(tree, _key(min_key), _key(max_key), str(error)))

    def _unreadable_handler(self, tree: int) -> UnreadableHandler:
        return partial(self.skip_or_raise, tree)

    def read_block(self, pointer: Pointer) -> Leaf | Node:
        return self.trees.read(pointer)

    def blocks(
        self,
        root: Pointer,
        level: int,
        min_key: int,
        max_key: int,
        on_unreadable: UnreadableHandler,
    ) -> Iterator[Pointer]:
        return self.trees.blocks(root, level, min_key, max_key, on_unreadable)

    def blocks_from(self, root: RootItem, key: Key) -> float:
        return self.trees.blocks_from(root_pointer(root), key.key)

    def fs_info(self) -> FsInfo:
        superblock = self.superblock
        return FsInfo(
            max_id=max(self._devids(), default=0),
            num_devices=superblock.num_devices,
            fsid=superblock.fsid,
            nodesize=superblock.nodesize,
            sectorsize=superblock.sectorsize,
            clone_alignment=superblock.sectorsize,
            csum_type=superblock.csum_type,
            csum_size=superblock.checksum.size,
            flags=FS_INFO_FLAGS,
            generation=superblock.generation,
            metadata_uuid=superblock.header_fsid,
        )

    def dev_info(self, devid: int) -> DevInfo:
        for item in self.device_items(devid, devid):
            device = self.devices.get(devid)
            return DevInfo(
                devid=devid,
                uuid=item.uuid,
                bytes_used=item.bytes_used,
                total_bytes=item.total_bytes,
                fsid=item.fsid,
                path="" if device is None else device.path,
            )
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def dev_stats(self, devid: int, reset: bool = False) -> DevStats:
        if reset:
            raise NotMountedError(
                "the counters of a device can only be reset by the kernel",
                hint="mount the filesystem",
            )
        self.dev_info(devid)
        key = Key(constants.DEV_STATS_OBJECTID, constants.PERSISTENT_ITEM_KEY, devid)
        item = self._item(constants.DEV_TREE_OBJECTID, key)
        return DevStats(
            devid=devid,
            nr_items=len(DEV_STATS_COUNTERS),
            flags=0,
            **{name: getattr(item, name, 0) for name in DEV_STATS_COUNTERS},
        )

    def space_info(self) -> list[SpaceInfo]:
        totals: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for block_group in lookup.block_groups(self, 0, ULLONG_MAX):
            totals[block_group.flags][0] += block_group.length
            totals[block_group.flags][1] += block_group.used
        spaces = [
            SpaceInfo(flags=flags, total_bytes=total, used_bytes=used)
            for flags, (total, used) in sorted(totals.items(), key=lambda item: _order(item[0]))
        ]
        reserve = SpaceInfo(
            flags=constants.SPACE_INFO_GLOBAL_RSV,
            total_bytes=self._global_reserve_size(),
            used_bytes=0,
        )
        return [*spaces, reserve]

    def features(self) -> FeatureFlags:
        superblock = self.superblock
        return FeatureFlags(
            superblock.compat_flags, superblock.compat_ro_flags, superblock.incompat_flags
        )

    def label(self) -> str:
        return self.superblock.label

    def sync(self) -> None:
        raise NotMountedError(
            "only a mounted filesystem can be synced", hint="mount the filesystem"
        )

    def is_stale(self) -> bool:
        return self.trees.store.is_stale()

    def refresh(self) -> bool:
        return False

    def close(self) -> None:
        self.trees.store.close()

    def _resolved(self, tree: int) -> int:
        """Return the number of a tree that is asked for; 0 stands for the default subvolume."""
        if tree:
            return tree
        try:
            return self._default_subvolume()
        except UNREADABLE:
            return constants.FS_TREE_OBJECTID

    def _root_or_skip(self, tree: int) -> Pointer | None:
        """Return where the root of a tree is; None if that cannot be read and is to be skipped.

        Raises:
            TreeNotFoundError: There is no such tree.
        """
        try:
            return self.root(tree)
        except UNREADABLE as error:
            self.skip_or_raise(tree, 0, KEY_MAX, error)
            return None

    def root(self, tree: int) -> Pointer:
        if tree not in self._roots:
            if tree == constants.ROOT_TREE_OBJECTID:
                self._roots[tree] = self._root_of_root_tree()
            else:
                self._roots[tree] = self._root_in_root_tree(tree)
        return self._roots[tree]

    def _root_of_root_tree(self) -> Pointer:
        superblock = self.superblock
        pointer = Pointer(superblock.root, superblock.generation, superblock.root_level)
        try:
            self.trees.read(pointer)
        except CorruptError as error:
            if self._offer is None:
                self._offer = self._offer_of_backups()
            error.hint = self._offer or error.hint
            raise
        return pointer

    def _offer_of_backups(self) -> str:
        """Return a text that names the newest backup of the root tree that can be read, or none."""
        usable = []
        reader = TreeReader(self.trees.store, self.trees.block_format, DamageLog())
        for number, backup in enumerate(self.superblock.backups):
            pointer = Pointer(backup.tree_root, backup.tree_root_gen, backup.tree_root_level)
            try:
                if is_usable(backup):
                    reader.read(pointer)
                    usable.append((backup.tree_root_gen, number))
            except UNREADABLE:
                continue
        if not usable:
            return ""
        generation, number = max(usable)
        offer = f"--backup-root {number} reads the filesystem as it was at generation {generation}"
        if self.on_error == "skip":
            self.log.note(f"the root tree cannot be read, but {offer}")
        return offer

    def _root_in_root_tree(self, tree: int) -> Pointer:
        item = self._root_item(tree)
        # The kernel does not let deleted subvolumes be searched either.
        if item is not None and item.refs:
            return root_pointer(item)
        first = Key(tree, constants.ROOT_ITEM_KEY, 0)
        last = Key(tree, constants.ROOT_ITEM_KEY, ULLONG_MAX)
        for lost in self.log.lost:
            if lost.overlaps(constants.ROOT_TREE_OBJECTID, first, last):
                raise CorruptError(f"the place of tree {tree} is not known: {lost.reason}")
        raise TreeNotFoundError(f"there is no tree {tree} in this filesystem")

    def _root_item(self, tree: int) -> RootItem | None:
        min_key = Key(tree, constants.ROOT_ITEM_KEY, 0)
        max_key = Key(tree, constants.ROOT_ITEM_KEY, ULLONG_MAX)
        roots = list(lookup.items(self, constants.ROOT_TREE_OBJECTID, min_key, max_key))
        return cast("RootItem", roots[-1]) if roots else None

    def _default_subvolume(self) -> int:
        """Return the subvolume that is mounted if none is named."""
        from btrfs.ondisk.hashes import name_hash

        key = Key(self.superblock.root_dir_objectid, constants.DIR_ITEM_KEY, name_hash(b"default"))
        entries = cast("DirItemList | None", self._item(constants.ROOT_TREE_OBJECTID, key))
        for entry in entries or []:
            if entry.name == b"default":
                return entry.location.objectid
        return constants.FS_TREE_OBJECTID

    def _item(self, tree: int, key: Key) -> ItemData | None:
        for item in lookup.items(self, tree, key, key):
            return item
        return None

    def device_items(self, min_devid: int = 1, max_devid: int = ULLONG_MAX) -> list[DevItem]:
        """Return the devices that the chunk tree lists, between two numbers if not all."""
        objectid, key_type = constants.DEV_ITEMS_OBJECTID, constants.DEV_ITEM_KEY
        min_key = Key(objectid, key_type, min_devid)
        max_key = Key(objectid, key_type, max_devid)
        found = lookup.items(self, constants.CHUNK_TREE_OBJECTID, min_key, max_key)
        return cast("list[DevItem]", list(found))

    def _devids(self) -> Iterable[int]:
        """Return the numbers of all devices; where the chunk tree is damaged, as far as known."""
        try:
            return {device.devid for device in self.device_items()} or self.devices.keys()
        except UNREADABLE:
            return self.devices.keys()

    def _global_reserve_size(self) -> int:
        """Return how many bytes the kernel keeps back for its own transactions after a mount.

        See btrfs_update_global_block_rsv in fs/btrfs/block-rsv.c.
        """
        features = self.features()
        trees = [
            constants.EXTENT_TREE_OBJECTID,
            constants.CSUM_TREE_OBJECTID,
            constants.FREE_SPACE_TREE_OBJECTID,
        ]
        if features.compat_ro_flags & constants.FEATURE_COMPAT_RO_BLOCK_GROUP_TREE:
            trees.append(constants.BLOCK_GROUP_TREE_OBJECTID)
        if features.incompat_flags & constants.FEATURE_INCOMPAT_RAID_STRIPE_TREE:
            trees.append(constants.RAID_STRIPE_TREE_OBJECTID)
        roots = [root for tree in trees if (root := self._root_item(tree)) is not None]
        used = sum(root.bytes_used for root in roots)
        # For each item that may be changed, a path from root to leaf, and all blocks of it split.
        per_item = self.superblock.nodesize * constants.MAX_LEVEL * 2
        items = len(roots) + 1 + _UNLINK_METADATA_UNITS
        delayed_refs = _UNLINK_METADATA_UNITS
        if features.compat_ro_flags & constants.FEATURE_COMPAT_RO_FREE_SPACE_TREE:
            delayed_refs *= 2
        least = per_item * (items + delayed_refs)
        return min(max(used, least), _MAX_GLOBAL_RESERVE)


def _key(number: int) -> Key:
    return Key(0, 0, 0) + number


# BTRFS_UNLINK_METADATA_UNITS and the limit in fs/btrfs/block-rsv.c.
_UNLINK_METADATA_UNITS = 6
_MAX_GLOBAL_RESERVE = 512 << 20

# The order in which the kernel lists spaces: by type, then by profile (enum btrfs_raid_types).
_TYPES = (
    constants.BLOCK_GROUP_DATA,
    constants.BLOCK_GROUP_SYSTEM,
    constants.BLOCK_GROUP_METADATA,
    constants.BLOCK_GROUP_DATA | constants.BLOCK_GROUP_METADATA,
)


def _order(flags: int) -> tuple[int, int]:
    block_type = flags & constants.BLOCK_GROUP_TYPE_MASK
    return _TYPES.index(block_type) if block_type in _TYPES else len(_TYPES), flags
