"""The state of a filesystem in a few numbers: its space, and its devices.

    with btrfs.FileSystem('/mnt/data') as fs:
        print(overview.space(fs).data.writable)
        for device in overview.devices(fs):
            print(device.path, device.errors)

:class:`btrfs.space.usage.FsUsage` has all numbers; these are what a person with a full filesystem
asks for, with what stands in the way of writing more.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from btrfs.ondisk import constants
from btrfs.ondisk.constants import BLOCK_GROUP_DATA, BLOCK_GROUP_METADATA, BLOCK_GROUP_TYPE_MASK
from btrfs.ondisk.text import space_profile_description
from btrfs.source.mounts import is_read_only
from btrfs.space.advice import (
    AdviceLookups,
    DataShortage,
    MetadataShortage,
    data_shortage,
    global_reserve,
    metadata_shortage,
)
from btrfs.space.counters import MIXED
from btrfs.space.usage import FsUsage

if TYPE_CHECKING:
    from btrfs.info import DevInfo, DevStats
    from btrfs.ondisk.items.device import DevItem
    from btrfs.source.damage import LostKeys

__all__ = [
    "DeviceLookups",
    "DeviceState",
    "OverviewLookups",
    "SpaceOfType",
    "SpaceState",
    "devices",
    "space",
]

_TREES = {
    constants.ROOT_TREE_OBJECTID,
    constants.EXTENT_TREE_OBJECTID,
    constants.CHUNK_TREE_OBJECTID,
    constants.DEV_TREE_OBJECTID,
    constants.BLOCK_GROUP_TREE_OBJECTID,
}
"""What the space of a filesystem is read from."""


class OverviewLookups(AdviceLookups, Protocol):
    """The look-ups of a FileSystem that its space needs.

    Attributes:
        mounted: Whether the running kernel answers.
    """

    mounted: bool

    @property
    def fd(self) -> int:
        """File descriptor of a mounted filesystem."""

    @property
    def lost(self) -> list[LostKeys]:
        """Ranges of keys that were left out so far."""


class DeviceLookups(Protocol):
    """The look-ups of a FileSystem that its devices need."""

    @property
    def lost(self) -> list[LostKeys]:
        """Ranges of keys that were left out so far."""

    def devices(self) -> Iterable[DevItem]:
        """Return the devices."""

    def dev_info(self, devid: int) -> DevInfo:
        """Return what describes a device."""

    def dev_stats(self, devid: int) -> DevStats:
        """Return the counters of errors of a device."""


@dataclass(frozen=True, slots=True)
class SpaceOfType:
    """The space for data, for metadata, or for both where they share their block groups.

    Attributes:
        total: Bytes in block groups, before redundancy.
        used: Bytes of them that extents use.
        writable: Estimate of the bytes that can still be written, in block groups that exist and
            in those to come, without what the kernel keeps for itself. None if that is not known,
            because part of the trees could not be read.
        profiles: Profiles of the block groups, as btrfs-progs writes them: 'RAID1'.
    """

    total: int
    used: int
    writable: int | None
    profiles: list[str]


@dataclass(frozen=True, slots=True)
class SpaceState:
    """The space of a filesystem, and what stands in the way of writing more.

    Attributes:
        size: Bytes of all devices.
        allocated: Bytes of them in block groups, all copies and parity.
        used: Bytes in extents of any type, before redundancy.
        data: The space for data; None if it shares its block groups with metadata.
        metadata: The space for metadata; None if it shares its block groups with data.
        mixed: The space for both, if they do.
        complete: Whether all of the trees that this is from could be read. If not, bytes are too
            low, and there are no estimates and no warnings.
        read_only: Whether it is mounted and the kernel refuses to write to it.
        metadata_shortage: Metadata is about to have nowhere to grow.
        data_shortage: It is about to be full of data.
    """

    size: int
    allocated: int
    used: int
    data: SpaceOfType | None
    metadata: SpaceOfType | None
    mixed: SpaceOfType | None
    complete: bool
    read_only: bool
    metadata_shortage: MetadataShortage | None
    data_shortage: DataShortage | None

    @property
    def unallocated(self) -> int:
        """Bytes of all devices that are in no block group."""
        return self.size - self.allocated


def space(fs: OverviewLookups) -> SpaceState:
    """Return the state of the space of a filesystem.

    Raises:
        OSError: EPERM without root rights on a mounted filesystem.
        CorruptError: A tree that is needed is damaged.
    """
    usage = FsUsage(fs)
    # Also reads what FsUsage does not.
    shortage_of_metadata = metadata_shortage(fs, usage)
    complete = not any(lost.tree in _TREES for lost in fs.lost)
    is_mixed = fs.mixed_groups()
    data = metadata = mixed = None
    if is_mixed:
        mixed = _of_type(usage, MIXED, usage.free_mixed if complete else None)
    else:
        data = _of_type(usage, BLOCK_GROUP_DATA, usage.free_data if complete else None)
        free = max(0, usage.free_metadata - global_reserve(fs))
        metadata = _of_type(usage, BLOCK_GROUP_METADATA, free if complete else None)
    return SpaceState(
        size=usage.total,
        allocated=usage.allocated,
        used=usage.virtual_used,
        data=data,
        metadata=metadata,
        mixed=mixed,
        complete=complete,
        read_only=fs.mounted and is_read_only(fs.fd),
        metadata_shortage=shortage_of_metadata if complete else None,
        data_shortage=data_shortage(fs, usage) if complete else None,
    )


def _of_type(usage: FsUsage, type_: int, writable: int | None) -> SpaceOfType:
    spaces = [
        space
        for space in usage.virtual_space_usage.values()
        if space.flags & BLOCK_GROUP_TYPE_MASK == type_
    ]
    return SpaceOfType(
        total=sum(space.total for space in spaces),
        used=sum(space.used for space in spaces),
        writable=writable,
        profiles=[space_profile_description(space.flags) for space in spaces],
    )


@dataclass(frozen=True, slots=True)
class DeviceState:
    """A device of a filesystem.

    Attributes:
        devid: Its number.
        path: Where it is; None if it is missing, and in a dump.
        missing: Whether it is neither there nor named. In a dump, no device is.
        size: Bytes that the filesystem may use.
        allocated: Bytes of them in block groups.
        errors: Counters of errors that are not zero, by name; None if they are not known.
    """

    devid: int
    path: str | None
    missing: bool
    size: int
    allocated: int
    errors: dict[str, int] | None

    @property
    def unallocated(self) -> int:
        """Bytes of it that are in no block group."""
        return self.size - self.allocated


def devices(fs: DeviceLookups) -> list[DeviceState]:
    """Return the state of each device, in the order of their numbers.

    Raises:
        OSError: EPERM without root rights on a mounted filesystem.
        CorruptError: A tree that is needed is damaged.
    """
    items = list(fs.devices())
    paths = {item.devid: fs.dev_info(item.devid).path or None for item in items}
    # Of a filesystem on devices, one at least is there.
    is_dump = not any(paths.values())
    errors = {item.devid: _errors(fs, item.devid) for item in items}
    is_lost = any(lost.tree == constants.DEV_TREE_OBJECTID for lost in fs.lost)
    return [
        DeviceState(
            devid=item.devid,
            path=paths[item.devid],
            missing=not is_dump and paths[item.devid] is None,
            size=item.total_bytes,
            allocated=item.bytes_used,
            errors=None if is_lost else errors[item.devid],
        )
        for item in items
    ]


def _errors(fs: DeviceLookups, devid: int) -> dict[str, int] | None:
    try:
        stats = fs.dev_stats(devid)
    except OSError as error:
        # The kernel has none of a device that was missing when the filesystem was mounted.
        if error.errno == errno.ENODEV:
            return None
        raise
    return {name: count for name, count in stats.counters.items() if count}
