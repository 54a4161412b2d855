"""How much more can be written to a filesystem, and how much it can hold.

:func:`estimate` lets :mod:`btrfs.space.allocator` do what the kernel would do if data were written
until there is no more space: once going on from how things are, and once on the same devices after
a new mkfs.btrfs.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from btrfs.info import FsInfo
from btrfs.ondisk import constants
from btrfs.ondisk.constants import BLOCK_GROUP_METADATA
from btrfs.ondisk.items.base import ItemData
from btrfs.ondisk.items.device import DevExtent
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import Key
from btrfs.space import mkfs
from btrfs.space.counters import Counters, SpaceLookups
from btrfs.space.devices import DEVICE_RANGE_RESERVED, DeviceSpace, device_spaces, holes_between
from btrfs.space.filling import Filling, MetadataNeed, fill, metadata_per_data
from btrfs.space.profile_rules import usable_for

__all__ = ["DetailedLookups", "Details", "Estimates", "Targets", "details_of", "estimate"]

_CRC32C_SIZE = 4

# What mkfs.btrfs chooses.
_DEFAULT_NODESIZE = 16384

# Bytes of data for one byte of metadata, where nothing is known about files: what
# btrfs-space-calculator says that it counts on.
_PLANNED_RATIO = 200

# What the global reserve grows with (btrfs_update_global_block_rsv()).
_RESERVED_TREES = (
    constants.EXTENT_TREE_OBJECTID,
    constants.CSUM_TREE_OBJECTID,
    constants.FREE_SPACE_TREE_OBJECTID,
    constants.BLOCK_GROUP_TREE_OBJECTID,
    constants.RAID_STRIPE_TREE_OBJECTID,
)


@runtime_checkable
class DetailedLookups(SpaceLookups, Protocol):
    """Look-ups that make estimates exact: those of a FileSystem.

    Attributes:
        nodesize: Bytes of a tree block.
        sectorsize: Bytes of the smallest extent of data.
    """

    nodesize: int
    sectorsize: int

    def fs_info(self) -> FsInfo:
        """Return what describes the filesystem as a whole."""

    def dev_extents(self) -> Iterable[DevExtent]:
        """Return the allocated ranges of devices."""

    def search(self, tree: int, min_key: Key, max_key: Key) -> Iterable[ItemData]:
        """Return the items of a tree whose keys lie between two keys."""


@dataclass(frozen=True, slots=True)
class Details:
    """What estimates depend on besides counters.

    The defaults are for a filesystem that is only planned.

    Attributes:
        nodesize: Bytes of a tree block.
        metadata_per_data: How many bytes of metadata come with one byte of data.
        reserved_trees: Bytes of the trees that the global reserve grows with.
        dev_extents: The allocated ranges of devices; if they are not known, None: then what is
            allocated is taken to lie at the beginning of each device.
        seeds: Numbers of the devices of seeds, which get no chunks.
    """

    nodesize: int = _DEFAULT_NODESIZE
    metadata_per_data: float = 1 / _PLANNED_RATIO
    reserved_trees: int = 0
    dev_extents: tuple[DevExtent, ...] | None = None
    seeds: frozenset[int] = frozenset()


def details_of(fs: SpaceLookups) -> Details:
    """Return the details of a filesystem, the defaults where it has no look-ups for them."""
    if not isinstance(fs, DetailedLookups):
        return Details()
    info = fs.fs_info()
    # Kernels before 5.11 do not say the size of checksums.
    csum_size = info.csum_size or _CRC32C_SIZE
    own = {info.fsid, info.metadata_uuid}
    return Details(
        fs.nodesize,
        metadata_per_data(csum_size, fs.sectorsize),
        _bytes_of_reserved_trees(fs),
        tuple(fs.dev_extents()),
        frozenset(
            device.devid for device in fs.devices() if getattr(device, "fsid", info.fsid) not in own
        ),
    )


@dataclass(frozen=True, slots=True)
class Targets:
    """Type and profile of chunks to come.

    Attributes:
        data: Those for data, be they mixed or not.
        metadata: Those for metadata.
        system: Those of the system.
    """

    data: int
    metadata: int
    system: int


@dataclass(frozen=True, slots=True)
class Estimates:
    """What can be allocated and written.

    Attributes:
        per_data: Bytes of metadata for each byte of data.
        full: The devices filled after a new mkfs.btrfs.
        now: The devices filled from how things are.
        free_metadata: Bytes for metadata, in block groups that exist and in those to come.
    """

    per_data: float
    full: Filling
    now: Filling
    free_metadata: int


def estimate(
    counters: Counters, details: Details, targets: Targets, data_metadata_ratio: int | None
) -> Estimates:
    """Estimate what can be allocated and written.

    Args:
        counters: What is allocated and used.
        details: What else the estimates depend on.
        targets: Type and profile of chunks to come.
        data_metadata_ratio: How many bytes of data come with one byte of metadata, instead of what
            the details say.
    """
    per_data = 1 / data_metadata_ratio if data_metadata_ratio else details.metadata_per_data
    need = _metadata_need(counters, details, targets, per_data)
    full = mkfs.capacity(
        {usage.devid: usage.total for usage in counters.devices.values()},
        targets.data,
        targets.metadata,
        system_flags=targets.system,
        metadata_per_data=per_data,
        nodesize=details.nodesize,
    )
    spaces = _device_spaces(counters, details)
    now = fill(
        [space for space in spaces if space.devid not in details.seeds],
        targets.data,
        targets.metadata,
        free_data=_free_for(targets.data, counters),
        need=need,
        nodesize=details.nodesize,
    )
    filled = {space.devid: space for space in (*spaces, *now.devices)}
    now = replace(now, devices=[filled[space.devid] for space in spaces])
    return Estimates(per_data, full, now, need.total - need.used + now.metadata)


def _metadata_need(
    counters: Counters, details: Details, targets: Targets, per_data: float
) -> MetadataNeed:
    """Return what metadata exists, and what data to come needs of it."""
    usage = counters.virtual_by_type.get(BLOCK_GROUP_METADATA)
    used = usage.used if usage else 0
    return MetadataNeed(
        per_data,
        used + _free_for(targets.metadata, counters),
        used,
        counters.global_reserve,
        details.reserved_trees,
    )


def _free_for(target: int, counters: Counters) -> int:
    """Return the free bytes in block groups that the kernel also writes to for a target."""
    return sum(
        space.total - space.used
        for space in counters.virtual.values()
        if usable_for(space.flags, target)
    )


def _device_spaces(counters: Counters, details: Details) -> list[DeviceSpace]:
    """Return the holes on each device."""
    usages = counters.devices.values()
    if details.dev_extents is not None:
        devices = ((usage.devid, usage.total, usage.unallocated) for usage in usages)
        return device_spaces(devices, details.dev_extents)
    return [
        DeviceSpace(
            usage.devid,
            usage.total,
            usage.unallocated,
            holes_between(usage.total, [(DEVICE_RANGE_RESERVED, usage.allocated)]),
        )
        for usage in usages
    ]


def _bytes_of_reserved_trees(fs: DetailedLookups) -> int:
    return sum(
        item.bytes_used
        for tree in _RESERVED_TREES
        for item in fs.search(
            constants.ROOT_TREE_OBJECTID,
            Key(tree, constants.ROOT_ITEM_KEY, 0),
            Key(tree, constants.ROOT_ITEM_KEY, constants.ULLONG_MAX),
        )
        if isinstance(item, RootItem)
    )
