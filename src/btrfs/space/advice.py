"""What a filesystem may run into, and what to do about it before that.

    with btrfs.FileSystem('/mnt/data') as fs:
        shortage = advice.metadata_shortage(fs)
        if shortage:
            print(shortage.free, [group.vaddr for group in shortage.balance])

Every change of a btrfs, a deletion too, first writes new tree blocks. When those find no place any
more, the kernel gives up and makes the filesystem read-only. A filesystem comes there while data
block groups still have much free space, if these take all of the devices: no block group of
metadata can be made then. To move what is in the least used ones to others gives their space back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from btrfs.ondisk.constants import BLOCK_GROUP_DATA, BLOCK_GROUP_METADATA, SPACE_INFO_GLOBAL_RSV
from btrfs.space.allocator import Allocator
from btrfs.space.devices import DeviceSpace, device_spaces
from btrfs.space.estimates import DetailedLookups
from btrfs.space.profile_rules import target_of, usable_for
from btrfs.space.usage import FsUsage

if TYPE_CHECKING:
    from btrfs.ondisk.items.chunk import BlockGroupItem
    from btrfs.ondisk.items.device import DevExtent

__all__ = [
    "AdviceLookups",
    "DataShortage",
    "MetadataShortage",
    "data_shortage",
    "global_reserve",
    "metadata_shortage",
]

_PARTS = 100
"""There should be place for metadata of one part in so many of the filesystem, but"""
_LEAST_PLACE = 16 << 20
"""no less than this, as even small changes are refused then, and need be"""
_MOST_PLACE = 256 << 20
"""no more than this: a day of work with snapshots, or a large deletion, writes as much."""

_MOST_DATA = 10 << 30
"""With so much free for data, no filesystem is full."""

_MOST_GROUPS = 32
"""With so many block groups to be moved, it is no quick help any more."""


class AdviceLookups(DetailedLookups, Protocol):
    """The look-ups of a FileSystem that are needed here."""

    def block_groups(self) -> Iterable[BlockGroupItem]:
        """Return the block groups."""


@dataclass(frozen=True, slots=True)
class MetadataShortage:
    """Metadata is about to have nowhere to grow.

    Attributes:
        free: Bytes that tree blocks can still take in the block groups that there are, without the
            global reserve.
        growth: Bytes of the block groups for metadata that can still be made.
        target_profile: Type and profile that these get.
        blocked_data: Bytes of space for data that cannot be written to for lack of metadata.
        balance: Data block groups, the least used first, that are to be moved into the free space
            of others; none if there is no place for what is in them, or it would not help.
        growth_after: As growth, when these are moved.
    """

    free: int
    growth: int
    target_profile: int
    blocked_data: int
    balance: list[BlockGroupItem]
    growth_after: int


@dataclass(frozen=True, slots=True)
class DataShortage:
    """Next to no data can be written any more, though metadata would have a place.

    Attributes:
        free: Bytes of data that can still be written.
        reclaimable: Bytes on devices that cannot be allocated as things are, because the other
            devices that the profile needs are full, but could be after a balance.
    """

    free: int
    reclaimable: int


def data_shortage(fs: AdviceLookups, usage: FsUsage | None = None) -> DataShortage | None:
    """Find out whether the filesystem is about to be full of data.

    Args:
        fs: The filesystem, mounted or not.
        usage: What fs.usage() returned, if that was called already.

    Returns:
        None if there is space, or if it is metadata that keeps data from being written to it.
    """
    if usage is None:
        usage = FsUsage(fs)
    free = usage.free_mixed if fs.mixed_groups() else _space_for_data(usage)
    if free >= min(max(usage.total // _PARTS, _LEAST_PLACE), _MOST_DATA):
        return None
    return DataShortage(free, usage.unallocatable_reclaimable)


def metadata_shortage(fs: AdviceLookups, usage: FsUsage | None = None) -> MetadataShortage | None:
    """Find out whether metadata is about to have nowhere to grow.

    That is so if there is too little unallocated space for another block group of full size, on as
    many devices as it needs, and next to nothing is left of that and in those that there are, or
    what is left will not do for the data that there is space for.

    Args:
        fs: The filesystem, mounted or not.
        usage: What fs.usage() returned, if that was called already.

    Returns:
        None if all is well, or if data and metadata share their block groups.
    """
    if usage is None:
        usage = FsUsage(fs)
    if fs.mixed_groups() or BLOCK_GROUP_METADATA not in usage.virtual_block_group_type_usage:
        return None
    flags = _target(usage, BLOCK_GROUP_METADATA)
    devices = _Devices(fs, usage)
    growth = devices.growth(flags)
    if growth >= devices.chunk_size(flags):
        return None
    free = max(
        0, usage.virtual_block_group_type_usage[BLOCK_GROUP_METADATA].unused - global_reserve(fs)
    )
    blocked = max(0, _space_for_data(usage) - usage.free_data)
    part = usage.total // _PARTS
    place = min(max(part, _LEAST_PLACE), _MOST_PLACE)
    if free + growth >= place and blocked <= part:
        return None
    balance, growth_after = _to_balance(fs, devices, flags, _target(usage, BLOCK_GROUP_DATA))
    if free + growth_after < place:
        balance, growth_after = [], growth
    return MetadataShortage(free, growth, flags, blocked, balance, growth_after)


def global_reserve(fs: AdviceLookups) -> int:
    """Return the bytes in metadata block groups that the kernel keeps for its own transactions."""
    return sum(
        space.total_bytes for space in fs.space_info() if space.flags == SPACE_INFO_GLOBAL_RSV
    )


class _Devices:
    """The space on devices, as it is and as it would be without some chunks."""

    def __init__(self, fs: AdviceLookups, usage: FsUsage) -> None:
        self._nodesize = fs.nodesize
        self._devices = [
            (device.devid, device.total, device.unallocated) for device in usage.dev_usage.values()
        ]
        self._extents = list(fs.dev_extents())

    def chunk_size(self, flags: int) -> int:
        """Return the bytes of a chunk of full size."""
        return Allocator(self._spaces(set()), self._nodesize).chunk_size(flags)

    def growth(self, flags: int, without: frozenset[int] = frozenset()) -> int:
        """Return the bytes of all chunks that can be made.

        Args:
            flags: Type and profile of the chunks.
            without: Virtual addresses of chunks that are removed before.
        """
        kernel = Allocator(self._spaces(without), self._nodesize)
        total = 0
        while made := kernel.allocate(flags, most=1 << 63):
            total += made.total
        return total

    def _spaces(self, without: frozenset[int] | set[int]) -> list[DeviceSpace]:
        freed: dict[int, int] = {}
        kept: list[DevExtent] = []
        for extent in self._extents:
            if extent.chunk_offset in without:
                freed[extent.devid] = freed.get(extent.devid, 0) + extent.length
            else:
                kept.append(extent)
        devices = (
            (devid, total, left + freed.get(devid, 0)) for devid, total, left in self._devices
        )
        return device_spaces(devices, kept)


def _target(usage: FsUsage, block_group_type: int) -> int:
    """Return type and profile of the chunks that the kernel will make."""
    return target_of(block_group_type, usage.raw_space_usage, len(usage.dev_usage))


def _space_for_data(usage: FsUsage) -> int:
    """Return the bytes that are free in data block groups, and in those that will be made."""
    target = _target(usage, BLOCK_GROUP_DATA)
    free = sum(
        space.total - space.used
        for space in usage.virtual_space_usage.values()
        if usable_for(space.flags, target)
    )
    return free + usage.estimated_allocatable_virtual_data


def _to_balance(
    fs: AdviceLookups, devices: _Devices, flags: int, data_target: int
) -> tuple[list[BlockGroupItem], int]:
    """Choose data block groups whose space, given back, lets metadata grow.

    Args:
        fs: The filesystem.
        devices: Its devices.
        flags: Type and profile of metadata chunks to come.
        data_target: The same of data.

    Returns:
        The fewest of the least used ones that give enough for a chunk of full size, or else the
        most that they can give; and the bytes that metadata can grow by then.
    """
    groups = [group for group in fs.block_groups() if group.flags & BLOCK_GROUP_DATA]
    groups.sort(key=lambda group: (group.used / group.length, group.vaddr))
    places = sum(
        group.length - group.used for group in groups if usable_for(group.flags, data_target)
    )
    best: list[BlockGroupItem] = []
    growth = devices.growth(flags)
    for count, group in enumerate(groups[:_MOST_GROUPS], 1):
        # What is in it needs a place, and its own free space is none.
        if usable_for(group.flags, data_target):
            places -= group.length - group.used
        places -= group.used
        if places < 0:
            break
        chosen = groups[:count]
        after = devices.growth(flags, frozenset(group.vaddr for group in chosen))
        if after > growth:
            best, growth = chosen, after
        if growth >= devices.chunk_size(flags):
            break
    return best, growth
