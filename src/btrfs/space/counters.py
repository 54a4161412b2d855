"""How much of a filesystem is allocated and used, counted from its trees.

:func:`count` adds up what the kernel knows about spaces, devices and chunks: by type and profile of
block group, by type alone, and by device. It takes any object that has four look-ups, be it a
filesystem or a description of one that is planned.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from btrfs.errors import CorruptError
from btrfs.ondisk import profiles
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_FLAG_NAMES,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK,
    BLOCK_GROUP_TYPE_NAMES,
    SPACE_INFO_GLOBAL_RSV,
)
from btrfs.ondisk.printing import Printable, as_flags, as_size
from btrfs.ondisk.text import block_group_flags_str

__all__ = [
    "MIXED",
    "BlockGroupTypeUsage",
    "Counters",
    "DevSpaceUsage",
    "DevUsage",
    "RawSpaceUsage",
    "SpaceLookups",
    "VirtualBlockGroupTypeUsage",
    "VirtualSpaceUsage",
    "count",
    "with_flags_as_text",
]

MIXED = BLOCK_GROUP_DATA | BLOCK_GROUP_METADATA
"""The type of block groups that hold data and metadata."""

_TYPES = (BLOCK_GROUP_SYSTEM, BLOCK_GROUP_METADATA, BLOCK_GROUP_DATA, MIXED)


# What is needed of a filesystem.


class SpaceSize(Protocol):
    """What is needed of an entry of FileSystem.space_info()."""

    @property
    def flags(self) -> int: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...


class DeviceSize(Protocol):
    """What is needed of an entry of FileSystem.devices()."""

    @property
    def devid(self) -> int: ...
    @property
    def total_bytes(self) -> int: ...
    @property
    def bytes_used(self) -> int: ...


class StripeOfDevice(Protocol):
    """What is needed of a stripe of a chunk."""

    @property
    def devid(self) -> int: ...


class ChunkSize(Protocol):
    """What is needed of an entry of FileSystem.chunks()."""

    @property
    def type(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def num_stripes(self) -> int: ...
    @property
    def stripes(self) -> Iterable[StripeOfDevice]: ...


class SpaceLookups(Protocol):
    """The four look-ups of a filesystem that are needed to count its space."""

    def mixed_groups(self) -> bool:
        """Return whether data and metadata share block groups."""

    def space_info(self) -> Iterable[SpaceSize]:
        """Return the sizes of all block groups, one entry per type and profile."""

    def devices(self) -> Iterable[DeviceSize]:
        """Return the devices."""

    def chunks(self) -> Iterable[ChunkSize]:
        """Return the chunks in the order of their virtual addresses."""


# What is counted.


@dataclass(init=False)
class RawSpaceUsage(Printable, module="btrfs.fs_usage"):
    """Bytes on all devices, of the block groups of one type and profile.

    Args:
        space: An entry of FileSystem.space_info().

    Attributes:
        flags: Type and profile.
        allocated: Bytes in device extents.
        used: Bytes of them that extents use, all copies, without parity.
        parity: Bytes of them that are for parity.
    """

    flags: int
    flags_str = as_flags(BLOCK_GROUP_FLAG_NAMES)
    allocated: int
    allocated_str = as_size()
    used: int
    used_str = as_size()
    parity: int
    parity_str = as_size()

    def __init__(self, space: SpaceSize) -> None:
        ncopies = profiles.block_group_profile_ncopies(space.flags)
        self.flags = space.flags
        # Without parity: that depends on the number of stripes, which only chunks tell.
        self.allocated = space.total_bytes * ncopies
        self.used = space.used_bytes * ncopies
        self.parity = 0


@dataclass(init=False)
class DevSpaceUsage(Printable, module="btrfs.fs_usage"):
    """Bytes on one device, of the block groups of one type and profile.

    Args:
        devid: Number of the device.
        flags: Type and profile.

    Attributes:
        flags: Type and profile.
        devid: Number of the device.
        allocated: Bytes in device extents.
        parity: Bytes of them that are for parity, on the average.
    """

    flags: int
    flags_str = as_flags(BLOCK_GROUP_FLAG_NAMES)
    devid: int
    allocated: int
    allocated_str = as_size()
    parity: int
    parity_str = as_size()

    def __init__(self, devid: int, flags: int) -> None:
        self.flags = flags
        self.devid = devid
        self.allocated = 0
        self.parity = 0


@dataclass(init=False, repr=False, eq=False)
class DevUsage(Printable, module="btrfs.fs_usage"):
    """Bytes on one device.

    Args:
        device: The device. What it has of each type and profile is added by FsUsage.

    Attributes:
        devid: Number of the device.
        total: Bytes that the filesystem may use.
        allocated: Bytes in device extents.
        unallocated: Bytes that are not.
        dev_space_usage: DevSpaceUsage by type and profile.
        unallocatable_soft: Estimate of bytes that will never be allocated as things are now.
        unallocatable_hard: Estimate of bytes that could not be allocated on the same devices
            even if all block groups were balanced: the first MiB, which is reserved, and what
            the profile cannot use because the other devices are too small or too few.
        unallocatable_reclaimable: What of the first could be got by a balance.
    """

    devid: int
    total: int
    total_str = as_size()
    allocated: int
    allocated_str = as_size()
    unallocated: int
    unallocated_str = as_size()
    dev_space_usage: dict[int, DevSpaceUsage]
    unallocatable_soft: int
    unallocatable_soft_str = as_size()
    unallocatable_hard: int
    unallocatable_hard_str = as_size()
    unallocatable_reclaimable: int
    unallocatable_reclaimable_str = as_size()

    def __init__(self, device: DeviceSize) -> None:
        self.devid = device.devid
        self.total = device.total_bytes
        self.allocated = device.bytes_used
        self.unallocated = self.total - self.allocated
        self.dev_space_usage = {}

    def __repr__(self) -> str:
        return f"<DevUsage devid={self.devid} total={self.total} allocated={self.allocated}>"

    def pretty_attributes(self) -> Iterator[tuple[str, Any]]:
        """Yield what Printable yields, with flags as text for the keys of dev_space_usage."""
        return with_flags_as_text(super().pretty_attributes(), ("dev_space_usage",))


@dataclass(init=False)
class BlockGroupTypeUsage(Printable, module="btrfs.fs_usage"):
    """Bytes on all devices, of the block groups of one type, whatever their profile.

    Args:
        block_group_type: The type.

    Attributes:
        type: The type.
        allocated: Bytes in device extents.
        used: Bytes of them that extents use, all copies, without parity.
        parity: Bytes of them that are for parity.
    """

    type: int
    type_str = as_flags(BLOCK_GROUP_TYPE_NAMES)
    allocated: int
    allocated_str = as_size()
    used: int
    used_str = as_size()
    parity: int
    parity_str = as_size()

    def __init__(self, block_group_type: int) -> None:
        self.type = block_group_type
        self.allocated = 0
        self.used = 0
        self.parity = 0


@dataclass(init=False)
class VirtualSpaceUsage(Printable, module="btrfs.fs_usage"):
    """Bytes of virtual address space, of the block groups of one type and profile.

    Args:
        space: An entry of FileSystem.space_info().

    Attributes:
        flags: Type and profile.
        total: Bytes in block groups.
        used: Bytes of them that extents use.
    """

    flags: int
    flags_str = as_flags(BLOCK_GROUP_FLAG_NAMES)
    total: int
    total_str = as_size()
    used: int
    used_str = as_size()

    def __init__(self, space: SpaceSize) -> None:
        self.flags = space.flags
        self.total = space.total_bytes
        self.used = space.used_bytes


@dataclass(init=False)
class VirtualBlockGroupTypeUsage(Printable, module="btrfs.fs_usage"):
    """Bytes of virtual address space, of the block groups of one type, whatever their profile.

    Args:
        block_group_type: The type.

    Attributes:
        type: The type.
        total: Bytes in block groups.
        used: Bytes of them that extents use.
        unused: Bytes of them that are free. Set by FsUsage.
    """

    type: int
    type_str = as_flags(BLOCK_GROUP_TYPE_NAMES)
    total: int
    total_str = as_size()
    used: int
    used_str = as_size()
    unused: int
    unused_str = as_size()

    def __init__(self, block_group_type: int) -> None:
        self.type = block_group_type
        self.total = 0
        self.used = 0
        self.unused = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """All that is counted.

    Attributes:
        raw: RawSpaceUsage by type and profile.
        devices: DevUsage by devid.
        raw_by_type: BlockGroupTypeUsage by type.
        virtual: VirtualSpaceUsage by type and profile.
        virtual_by_type: VirtualBlockGroupTypeUsage by type.
        newest_profiles: Type and profile of the newest chunk, by type.
        global_reserve: Bytes that the kernel keeps back for its own transactions.
    """

    raw: dict[int, RawSpaceUsage]
    devices: dict[int, DevUsage]
    raw_by_type: dict[int, BlockGroupTypeUsage]
    virtual: dict[int, VirtualSpaceUsage]
    virtual_by_type: dict[int, VirtualBlockGroupTypeUsage]
    newest_profiles: dict[int, int]
    global_reserve: int


def count(fs: SpaceLookups) -> Counters:
    """Count what is allocated and used.

    Raises:
        CorruptError: A space has an unknown type or profile, or there are no devices.
    """
    spaces = list(fs.space_info())
    for space in spaces:
        _require_known(space.flags)
    reserve = [space for space in spaces if space.flags == SPACE_INFO_GLOBAL_RSV]
    spaces = [space for space in spaces if space.flags != SPACE_INFO_GLOBAL_RSV]
    raw = {space.flags: RawSpaceUsage(space) for space in spaces}
    devices = {device.devid: DevUsage(device) for device in fs.devices()}
    if not devices:
        raise CorruptError("chunk tree", expected="items of devices", found="none")
    newest_profiles: dict[int, int] = {}
    for chunk in fs.chunks():
        newest_profiles[chunk.type & BLOCK_GROUP_TYPE_MASK] = chunk.type
        _add_chunk(chunk, raw, devices)
    virtual = {space.flags: VirtualSpaceUsage(space) for space in spaces}
    return Counters(
        raw,
        devices,
        _raw_by_type(raw.values()),
        virtual,
        _virtual_by_type(virtual.values()),
        newest_profiles,
        sum(space.total_bytes for space in reserve),
    )


def _require_known(flags: int) -> None:
    """Check that flags are a type and a profile of block groups, or mean the global reserve.

    Raises:
        CorruptError: They are not.
    """
    known_type = flags & BLOCK_GROUP_TYPE_MASK in _TYPES or flags == SPACE_INFO_GLOBAL_RSV
    if not known_type or flags & BLOCK_GROUP_PROFILE_MASK not in profiles.PROFILES:
        raise CorruptError(
            f"block groups of flags 0x{flags:x}",
            expected="a type and at most one profile",
            found=block_group_flags_str(flags),
        )


def _add_chunk(
    chunk: ChunkSize, raw: dict[int, RawSpaceUsage], devices: dict[int, DevUsage]
) -> None:
    """Add the device extents of a chunk, and its parity, to what is raw and to the devices."""
    length = profiles.chunk_length_to_dev_extent_length(chunk.type, chunk.num_stripes, chunk.length)
    parity = length * profiles.profile_of(chunk.type).nparity
    # The chunk may be younger than the answer about spaces.
    if chunk.type in raw:
        raw[chunk.type].allocated += parity
        raw[chunk.type].parity += parity
    for stripe in chunk.stripes:
        if stripe.devid not in devices:
            continue
        by_flags = devices[stripe.devid].dev_space_usage
        space = by_flags.setdefault(chunk.type, DevSpaceUsage(stripe.devid, chunk.type))
        space.allocated += length
        space.parity += parity // chunk.num_stripes


def _raw_by_type(spaces: Iterable[RawSpaceUsage]) -> dict[int, BlockGroupTypeUsage]:
    usages: dict[int, BlockGroupTypeUsage] = {}
    for space in spaces:
        type_ = space.flags & BLOCK_GROUP_TYPE_MASK
        usage = usages.setdefault(type_, BlockGroupTypeUsage(type_))
        usage.allocated += space.allocated
        usage.used += space.used
        usage.parity += space.parity
    return usages


def _virtual_by_type(
    spaces: Iterable[VirtualSpaceUsage],
) -> dict[int, VirtualBlockGroupTypeUsage]:
    usages: dict[int, VirtualBlockGroupTypeUsage] = {}
    for space in spaces:
        type_ = space.flags & BLOCK_GROUP_TYPE_MASK
        usage = usages.setdefault(type_, VirtualBlockGroupTypeUsage(type_))
        usage.total += space.total
        usage.used += space.used
        usage.unused = usage.total - usage.used
    return usages


def with_flags_as_text(
    attributes: Iterable[tuple[str, Any]], names: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """Yield attributes to print, with type and profile as text for the keys of some mappings.

    Args:
        attributes: Names and values, as Printable.pretty_attributes() yields them.
        names: The names of attributes that are mappings by type and profile.
    """
    for name, value in attributes:
        if name in names:
            yield name, {block_group_flags_str(flags): usage for flags, usage in value.items()}
        else:
            yield name, value
