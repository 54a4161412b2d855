"""An unmounted filesystem as a source: answers that a kernel would give, from the trees."""

from __future__ import annotations

import errno
import os
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

from btrfs import constants, ioctl
from btrfs.constants import ULLONG_MAX
from btrfs.errors import BtrfsError, CorruptError, NotMountedError, TreeNotFoundError
from btrfs.items.base import ItemData, SearchHeader
from btrfs.items.chunk import Chunk
from btrfs.items.device import DevItem
from btrfs.items.directory import DirItemList
from btrfs.items.root import RootItem
from btrfs.key import DiskKey, Key
from btrfs.layout import Bytes
from btrfs.source import lookup
from btrfs.source.disk.chunk_map import ChunkMap, check_chunk
from btrfs.source.disk.devices import Device, find_members, has_superblock, open_device
from btrfs.source.disk.node import BlockFormat, Pointer
from btrfs.source.disk.store import BlockStore
from btrfs.source.disk.superblock import Superblock, require_supported
from btrfs.source.disk.tree import TreeReader
from btrfs.source.disk.volume import Volume, require_devices
from btrfs.source.metadump import Metadump, is_metadump

if TYPE_CHECKING:
    from btrfs.columns import ItemBatch

__all__ = ["DiskSource", "holds_btrfs", "open_unmounted"]


def holds_btrfs(path: str) -> bool:
    """Return whether a file has a superblock, or is a dump made by btrfs-image."""
    return is_metadump(path) or has_superblock(path)


def open_unmounted(paths: list[str]) -> DiskSource:
    """Open a filesystem that is not mounted.

    Args:
        paths: Its devices or images of them, some or all; or one dump made by btrfs-image.

    Raises:
        NotBtrfsError: There is no btrfs in a file.
        CorruptError: There is, but it cannot be read.
        MissingDeviceError: A device was neither given nor found.
        UnsupportedFeatureError: The format is not supported.
    """
    dumps = [path for path in paths if is_metadump(path)]
    if not dumps:
        return _open_devices(paths)
    if len(paths) > 1:
        raise BtrfsError(
            f"{dumps[0]} is a dump made by btrfs-image",
            hint="give a dump alone: it holds the metadata of all devices",
        )
    dump = Metadump(dumps[0])
    try:
        require_supported(dump.superblock)
        source = DiskSource(dump.path, dump.superblock, dump, close=dump.close)
        # Nothing in a dump is found by them, but what is asked of them later must be right.
        ChunkMap(_checked_chunks(source, dump.superblock))
        return source
    except BaseException:
        dump.close()
        raise


def _open_devices(paths: list[str]) -> DiskSource:
    devices: dict[int, Device] = {}

    def close() -> None:
        for device in devices.values():
            device.close()

    try:
        for path in paths:
            _add_device(devices, open_device(path))
        superblock = _newest(devices)
        require_supported(superblock)
        if len(devices) < superblock.num_devices:
            for device in find_members(superblock.fsid, paths, set(devices)):
                _add_device(devices, device)
            superblock = _newest(devices)
        for device in devices.values():
            device.require_whole()
        system_chunks = ChunkMap(_system_chunks(superblock))
        require_devices(devices, system_chunks, superblock.num_devices)
        # The superblock maps just enough to read the tree that has all the chunks.
        chunk_source = DiskSource(paths[0], superblock, Volume(devices, system_chunks), close=close)
        chunk_map = ChunkMap(_checked_chunks(chunk_source, superblock))
        require_devices(devices, chunk_map, superblock.num_devices)
        _require_uuids(devices, chunk_source.device_items())
        volume = Volume(devices, chunk_map)
        return DiskSource(paths[0], superblock, volume, close=close, devices=devices)
    except BaseException:
        close()
        raise


def _add_device(devices: dict[int, Device], device: Device) -> None:
    """Add a device. Of two of the same number, the one that was written to last stays open."""
    for other in devices.values():
        if other.superblock.fsid != device.superblock.fsid:
            device.close()
            raise BtrfsError(
                f"{other.path} and {device.path} belong to different filesystems",
                hint=f"their UUIDs are {other.superblock.fsid} and {device.superblock.fsid}",
            )
    other = devices.setdefault(device.devid, device)
    if device.superblock.generation > other.superblock.generation:
        devices[device.devid], device = device, other
    if device is not devices[device.devid]:
        device.close()


def _require_uuids(devices: dict[int, Device], items: list[DevItem]) -> None:
    """Check that each device is the one that the chunk tree means by its number."""
    for item in items:
        device = devices.get(item.devid)
        if device is not None and device.superblock.dev_item.uuid != item.uuid:
            raise CorruptError(
                f"device {item.devid}",
                expected=f"UUID {item.uuid}",
                found=device.superblock.dev_item.uuid,
                device=device.path,
                hint="it was a member once; give the one that has its place now",
            )


def _newest(devices: dict[int, Device]) -> Superblock:
    superblocks = [device.superblock for device in devices.values()]
    return max(superblocks, key=lambda superblock: superblock.generation)


def _system_chunks(superblock: Superblock) -> Iterator[Chunk]:
    """Yield the chunks in the superblock's array: keys and chunk items in turn.

    Raises:
        CorruptError: It is not such an array.
    """
    data = superblock.sys_chunk_array[: superblock.sys_chunk_array_size]
    pos = 0
    while pos < len(data):
        try:
            key = DiskKey(data, pos)
        except struct.error:
            raise CorruptError(
                "sys_chunk_array", expected="a key", found=f"{len(data) - pos} bytes"
            ) from None
        pos += DiskKey.struct_size
        if key.type != constants.CHUNK_ITEM_KEY:
            raise CorruptError("sys_chunk_array", expected="a chunk", found=key)
        header = SearchHeader(
            superblock.chunk_root_generation, key.objectid, key.offset, key.type, len(data) - pos
        )
        chunk = Chunk(header, data[pos:])
        check_chunk(chunk, superblock.sectorsize)
        yield chunk
        pos += Chunk.struct_size + len(chunk.stripes) * chunk.stripes[0].struct_size


def _checked_chunks(source: DiskSource, superblock: Superblock) -> Iterator[Chunk]:
    for chunk in lookup.chunks(source, 0, ULLONG_MAX):
        check_chunk(chunk, superblock.sectorsize)
        yield chunk


class DiskSource:
    """A filesystem whose blocks are in a store. See :class:`btrfs.source.base.Source`.

    Args:
        path: What was opened, or the first of several files.
        superblock: What the trees are found from.
        store: The blocks.
        close: Closes the files.
        devices: The devices by their numbers; none for a dump.
    """

    mounted = False

    def __init__(
        self,
        path: str,
        superblock: Superblock,
        store: BlockStore,
        *,
        close: Callable[[], None],
        devices: dict[int, Device] | None = None,
    ) -> None:
        self.path = path
        self.superblock = superblock
        self.close = close
        self._devices = devices or {}
        block_format = BlockFormat(
            superblock.nodesize, superblock.checksum, superblock.header_fsid.bytes
        )
        self._trees = TreeReader(store, block_format)
        self._roots: dict[int, Pointer] = {
            constants.ROOT_TREE_OBJECTID: Pointer(
                superblock.root, superblock.generation, superblock.root_level
            ),
            constants.CHUNK_TREE_OBJECTID: Pointer(
                superblock.chunk_root,
                superblock.chunk_root_generation,
                superblock.chunk_root_level,
            ),
        }

    def search(
        self,
        tree: int,
        min_key: Key,
        max_key: Key,
        min_transid: int = 0,
        max_transid: int = ULLONG_MAX,
        nr_items: int | None = None,
    ) -> Iterator[tuple[SearchHeader, Bytes]]:
        left = ULLONG_MAX if nr_items is None else nr_items
        for item in self._trees.items(self._root(tree), min_key.key, max_key.key):
            if left <= 0:
                return
            if min_transid <= item[0].transid <= max_transid:
                left -= 1
                yield item

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        return self._trees.batches(self._root(tree), min_key.key, max_key.key)

    def blocks_from(self, root: RootItem, key: Key) -> float:
        """Return about how many blocks of a tree there are from a key on.

        Args:
            root: Root of the tree, which may be one that is being removed, up to that key.
            key: The key.

        Raises:
            CorruptError: A tree block is damaged.
        """
        return self._trees.blocks_from(_pointer(root), key.key)

    def fs_info(self) -> ioctl.FsInfo:
        superblock = self.superblock
        devids = [device.devid for device in self.device_items()]
        if not devids:
            raise CorruptError("chunk tree", expected="items of devices", found="none")
        return ioctl.FsInfo._from_values(
            max_id=max(devids),
            num_devices=superblock.num_devices,
            fsid=superblock.fsid,
            nodesize=superblock.nodesize,
            sectorsize=superblock.sectorsize,
            clone_alignment=superblock.sectorsize,
            csum_type=superblock.csum_type,
            csum_size=superblock.checksum.size,
            flags=ioctl.FS_INFO_FLAGS,
            generation=superblock.generation,
            metadata_uuid=superblock.header_fsid,
        )

    def dev_info(self, devid: int) -> ioctl.DevInfo:
        for item in self.device_items(devid, devid):
            device = self._devices.get(devid)
            return ioctl.DevInfo._from_values(
                devid=devid,
                uuid=item.uuid,
                bytes_used=item.bytes_used,
                total_bytes=item.total_bytes,
                fsid=item.fsid,
                path="" if device is None else device.path,
            )
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    def dev_stats(self, devid: int, reset: bool = False) -> ioctl.DevStats:
        if reset:
            raise NotMountedError(
                "the counters of a device can only be reset by the kernel",
                hint="mount the filesystem",
            )
        self.dev_info(devid)
        stats = ioctl.DevStats._from_values(
            devid=devid, nr_items=len(ioctl.DEV_STATS_COUNTERS), flags=0
        )
        key = Key(constants.DEV_STATS_OBJECTID, constants.PERSISTENT_ITEM_KEY, devid)
        item = self._item(constants.DEV_TREE_OBJECTID, key)
        for name in ioctl.DEV_STATS_COUNTERS:
            setattr(stats, name, 0 if item is None else getattr(item, name))
        return stats

    def space_info(self) -> list[ioctl.SpaceInfo]:
        totals: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for block_group in lookup.block_groups(self, 0, ULLONG_MAX):
            totals[block_group.flags][0] += block_group.length
            totals[block_group.flags][1] += block_group.used
        spaces = [
            ioctl.SpaceInfo._from_values(flags=flags, total_bytes=total, used_bytes=used)
            for flags, (total, used) in sorted(totals.items(), key=lambda item: _order(item[0]))
        ]
        reserve = ioctl.SpaceInfo._from_values(
            flags=constants.SPACE_INFO_GLOBAL_RSV,
            total_bytes=self._global_reserve_size(),
            used_bytes=0,
        )
        return [*spaces, reserve]

    def features(self) -> ioctl.FeatureFlags:
        superblock = self.superblock
        return ioctl.FeatureFlags(
            superblock.compat_flags, superblock.compat_ro_flags, superblock.incompat_flags
        )

    def label(self) -> str:
        return self.superblock.label

    def sync(self) -> None:
        raise NotMountedError(
            "only a mounted filesystem can be synced", hint="mount the filesystem"
        )

    def _root(self, tree: int) -> Pointer:
        """Return where the root of a tree is.

        Raises:
            TreeNotFoundError: There is no such tree.
        """
        if tree == 0:
            tree = self._default_subvolume()
        if tree not in self._roots:
            root = self._root_item(tree)
            # The kernel does not let deleted subvolumes be searched either.
            if root is None or root.refs == 0:
                raise TreeNotFoundError(f"there is no tree {tree} in this filesystem")
            self._roots[tree] = _pointer(root)
        return self._roots[tree]

    def _root_item(self, tree: int) -> RootItem | None:
        min_key = Key(tree, constants.ROOT_ITEM_KEY, 0)
        max_key = Key(tree, constants.ROOT_ITEM_KEY, ULLONG_MAX)
        roots = list(lookup.items(self, constants.ROOT_TREE_OBJECTID, min_key, max_key))
        return cast("RootItem", roots[-1]) if roots else None

    def _default_subvolume(self) -> int:
        """Return the subvolume that is mounted if none is named."""
        from btrfs.crc32c import name_hash

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

    def _global_reserve_size(self) -> int:
        """Return how many bytes the kernel keeps back for its own transactions.

        After a mount, that is (btrfs_update_global_block_rsv in fs/btrfs/block-rsv.c).
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


def _pointer(root: RootItem) -> Pointer:
    """Return where the root of a tree is.

    Raises:
        CorruptError: It cannot be there.
    """
    if root.level >= constants.MAX_LEVEL or root.bytenr >= constants.MAX_ADDRESS:
        raise CorruptError(
            f"item {root.key}",
            expected="a root block at an address below 2**63, of a level below 8",
            found=f"address {root.bytenr}, level {root.level}",
        )
    return Pointer(root.bytenr, root.generation, root.level)


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
