"""How much of a filesystem is allocated and used, and how much more can be written.

    with btrfs.FileSystem('/') as fs:
        usage = fs.usage()
        print(usage.free_data_str)

Space is counted twice. *Raw* sizes are bytes on devices: each copy counts, and so does parity.
*Virtual* sizes are bytes of the address space that block groups make up, which is what files and
metadata see.

:class:`FsUsage` counts both, by type and profile of block group, by type alone, and by device. The
counters come from the trees. What is called an estimate comes from :mod:`btrfs.space.allocator`,
which does what the kernel would do if data were written until there is no more space.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from btrfs import utils
from btrfs.errors import CorruptError
from btrfs.ondisk import constants, profiles
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK,
    SPACE_INFO_GLOBAL_RSV,
)
from btrfs.ondisk.struct import Struct, as_flags, as_size, as_text, u64
from btrfs.space import allocator, mkfs
from btrfs.space.allocator import DeviceSpace, Filling, MetadataNeed

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ioctl import SpaceInfo
    from btrfs.ondisk.items.chunk import Chunk
    from btrfs.ondisk.items.device import DevItem

__all__ = [
    "BlockGroupTypeUsage",
    "DevSpaceUsage",
    "DevUsage",
    "FsUsage",
    "RawSpaceUsage",
    "VirtualBlockGroupTypeUsage",
    "VirtualSpaceUsage",
]

_MIXED = BLOCK_GROUP_DATA | BLOCK_GROUP_METADATA


class RawSpaceUsage(Struct):
    """Bytes on all devices, of the block groups of one type and profile.

    Args:
        space: An entry of FileSystem.space_info().

    Attributes:
        flags: Type and profile.
        allocated: Bytes in device extents.
        used: Bytes of them that extents use, all copies, without parity.
        parity: Bytes of them that are for parity.
    """

    _public_module = "btrfs.fs_usage"

    flags: u64 = as_flags(constants.BLOCK_GROUP_FLAG_NAMES)
    allocated: u64 = as_size()
    used: u64 = as_size()
    parity: u64 = as_size()

    def __init__(self, space: "SpaceInfo") -> None:
        ncopies = profiles.block_group_profile_ncopies(space.flags)
        self.flags = space.flags
        # Without parity: that depends on the number of stripes, which only chunks tell.
        self.allocated = space.total_bytes * ncopies
        self.used = space.used_bytes * ncopies
        self.parity = 0


class DevSpaceUsage(Struct):
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

    _public_module = "btrfs.fs_usage"

    flags: u64 = as_flags(constants.BLOCK_GROUP_FLAG_NAMES)
    devid: u64
    allocated: u64 = as_size()
    parity: u64 = as_size()

    def __init__(self, devid: int, flags: int) -> None:
        self.flags = flags
        self.devid = devid
        self.allocated = 0
        self.parity = 0


class DevUsage(Struct):
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

    _public_module = "btrfs.fs_usage"

    devid: u64
    total: u64 = as_size()
    allocated: u64 = as_size()
    unallocated: u64 = as_size()
    dev_space_usage: dict[int, DevSpaceUsage]
    unallocatable_soft: u64 = as_size()
    unallocatable_hard: u64 = as_size()
    unallocatable_reclaimable: u64 = as_size()

    def __init__(self, device: "DevItem") -> None:
        self.devid = device.devid
        self.total = device.total_bytes
        self.allocated = device.bytes_used
        self.unallocated = self.total - self.allocated
        self.dev_space_usage = {}

    def _printed(self) -> Iterator[tuple[str, Any, str]]:
        return _with_words_for_keys(super()._printed(), ("dev_space_usage",))


class BlockGroupTypeUsage(Struct):
    """Bytes on all devices, of the block groups of one type, whatever their profile.

    Args:
        block_group_type: The type.

    Attributes:
        type: The type.
        allocated: Bytes in device extents.
        used: Bytes of them that extents use, all copies, without parity.
        parity: Bytes of them that are for parity.
    """

    _public_module = "btrfs.fs_usage"

    type: u64 = as_flags(constants.BLOCK_GROUP_TYPE_NAMES)
    allocated: u64 = as_size()
    used: u64 = as_size()
    parity: u64 = as_size()

    def __init__(self, block_group_type: int) -> None:
        self.type = block_group_type
        self.allocated = 0
        self.used = 0
        self.parity = 0


class VirtualSpaceUsage(Struct):
    """Bytes of virtual address space, of the block groups of one type and profile.

    Args:
        space: An entry of FileSystem.space_info().

    Attributes:
        flags: Type and profile.
        total: Bytes in block groups.
        used: Bytes of them that extents use.
    """

    _public_module = "btrfs.fs_usage"

    flags: u64 = as_flags(constants.BLOCK_GROUP_FLAG_NAMES)
    total: u64 = as_size()
    used: u64 = as_size()

    def __init__(self, space: "SpaceInfo") -> None:
        self.flags = space.flags
        self.total = space.total_bytes
        self.used = space.used_bytes


class VirtualBlockGroupTypeUsage(Struct):
    """Bytes of virtual address space, of the block groups of one type, whatever their profile.

    Args:
        block_group_type: The type.

    Attributes:
        type: The type.
        total: Bytes in block groups.
        used: Bytes of them that extents use.
        unused: Bytes of them that are free. Set by FsUsage.
    """

    _public_module = "btrfs.fs_usage"

    type: u64 = as_flags(constants.BLOCK_GROUP_TYPE_NAMES)
    total: u64 = as_size()
    used: u64 = as_size()
    unused: u64 = as_size()

    def __init__(self, block_group_type: int) -> None:
        self.type = block_group_type
        self.total = 0
        self.used = 0
        self.unused = 0


class FsUsage(
    Struct,
    line=(
        "fs usage total {total_str} allocated {allocated_str} "
        "virtual_total {virtual_total_str} virtual_used {virtual_used_str}"
    ),
):
    """What is allocated and used in a filesystem, and what can be.

    Of the attributes whose names end in metadata, data and mixed, a filesystem has either the
    first two or the last.

    Args:
        fs: The filesystem.
        data_metadata_ratio: For the estimates, how many bytes of data come with one byte of
            metadata. If not given, it is what large files need for their checksums.
        target_profile_metadata: Profile of metadata chunks to come, with or without the type.
            This and those below are the profiles of the newest chunks if not given.
        target_profile_data: Profile of data chunks to come.
        target_profile_mixed: Profile of mixed chunks to come.

    Attributes:
        raw_space_usage: RawSpaceUsage by type and profile.
        dev_usage: DevUsage by devid.
        total: Bytes of all devices.
        allocated: Bytes in device extents.
        parity: Bytes of them that are for parity.
        target_profile_system: Type and profile of system chunks to come.
        target_profile_metadata: The same for metadata.
        target_profile_data: The same for data.
        target_profile_mixed: The same for mixed chunks.
        block_group_type_usage: BlockGroupTypeUsage by type.
        virtual_space_usage: VirtualSpaceUsage by type and profile.
        virtual_block_group_type_usage: VirtualBlockGroupTypeUsage by type.
        virtual_total: Bytes of virtual address space in block groups.
        virtual_used: Bytes of them that extents use.
        default_data_metadata_ratio: How many bytes of data come with one byte of metadata.
        estimated_full_allocatable_virtual_metadata: Estimate of the bytes in metadata block groups
            if the filesystem were made anew and filled.
        estimated_full_allocatable_virtual_data: The same of data.
        estimated_full_allocatable_virtual_mixed: The same of mixed block groups.
        unallocatable_hard: Estimate of raw bytes that could not be allocated even then.
        estimated_allocatable_virtual_metadata: Estimate of the bytes in metadata block groups
            that will be made until there is no space for data any more.
        estimated_allocatable_virtual_data: The same of data.
        estimated_allocatable_virtual_mixed: The same of mixed block groups.
        unallocatable_soft: Estimate of raw bytes that will still be unallocated then.
        unallocatable_reclaimable: What of them could be got by a balance.
        allocatable: Estimate of raw bytes that are or can be allocated.
        allocatable_left: Those of them that are not yet.
        free_metadata: Estimate of bytes for metadata, in block groups that there are and will be.
        free_data: Estimate of bytes of data that can be written to one large file.
        free_mixed: The same where data shares the block groups with metadata.

    Raises:
        ValueError: The ratio is not above zero.
        CorruptError: A chunk or a block group is not as it must be, or there are no devices.
    """

    _public_module = "btrfs.fs_usage"

    raw_space_usage: dict[int, RawSpaceUsage]
    dev_usage: dict[int, DevUsage]
    total: u64 = as_size()
    allocated: u64 = as_size()
    parity: u64 = as_size()
    target_profile_system: u64 = as_text(utils.space_profile_description)
    target_profile_metadata: u64 = as_text(utils.space_profile_description)
    target_profile_data: u64 = as_text(utils.space_profile_description)
    target_profile_mixed: u64 = as_text(utils.space_profile_description)
    block_group_type_usage: dict[int, BlockGroupTypeUsage]
    virtual_space_usage: dict[int, VirtualSpaceUsage]
    virtual_block_group_type_usage: dict[int, VirtualBlockGroupTypeUsage]
    virtual_total: u64 = as_size()
    virtual_used: u64 = as_size()
    default_data_metadata_ratio: u64
    estimated_full_allocatable_virtual_metadata: u64 = as_size()
    estimated_full_allocatable_virtual_data: u64 = as_size()
    estimated_full_allocatable_virtual_mixed: u64 = as_size()
    unallocatable_hard: u64 = as_size()
    estimated_allocatable_virtual_metadata: u64 = as_size()
    estimated_allocatable_virtual_data: u64 = as_size()
    estimated_allocatable_virtual_mixed: u64 = as_size()
    unallocatable_soft: u64 = as_size()
    unallocatable_reclaimable: u64 = as_size()
    allocatable: u64 = as_size()
    allocatable_left: u64 = as_size()
    free_metadata: u64 = as_size()
    free_data: u64 = as_size()
    free_mixed: u64 = as_size()

    def __init__(
        self,
        fs: "FileSystem",
        data_metadata_ratio: int | None = None,
        target_profile_metadata: int | None = None,
        target_profile_data: int | None = None,
        target_profile_mixed: int | None = None,
    ) -> None:
        if data_metadata_ratio is not None and data_metadata_ratio <= 0:
            raise ValueError(f"data_metadata_ratio is {data_metadata_ratio}, but must be above 0")
        mixed = fs.mixed_groups()
        spaces = fs.space_info()
        for space in spaces:
            _require_known(f"block groups of flags 0x{space.flags:x}", space.flags)
        self._count(fs, [space for space in spaces if space.flags != SPACE_INFO_GLOBAL_RSV])
        asked_for = {
            BLOCK_GROUP_METADATA: target_profile_metadata,
            BLOCK_GROUP_DATA: target_profile_data,
            _MIXED: target_profile_mixed,
        }
        types = [_MIXED] if mixed else [BLOCK_GROUP_METADATA, BLOCK_GROUP_DATA]
        for type_ in types:
            profile = asked_for[type_]
            if profile is not None:
                self._set(type_, "target_profile", type_ | profile & BLOCK_GROUP_PROFILE_MASK)
        reserve = sum(s.total_bytes for s in spaces if s.flags == SPACE_INFO_GLOBAL_RSV)
        targets = {
            type_: self._target(type_, asked_for=type_ in types and profile is not None)
            for type_, profile in asked_for.items()
        }
        self._estimate(fs, targets, data_metadata_ratio, reserve)

    @property
    def unalloctable_soft_str(self) -> str:
        """The attribute unallocatable_soft in its printed form, by the name python-btrfs has."""
        return utils.pretty_size(self.unallocatable_soft)

    def _printed(self) -> Iterator[tuple[str, Any, str]]:
        return _with_words_for_keys(
            super()._printed(),
            (
                "raw_space_usage",
                "block_group_type_usage",
                "virtual_space_usage",
                "virtual_block_group_type_usage",
            ),
        )

    def _set(self, block_group_type: int, name: str, value: int) -> None:
        """Set the attribute of this name that is about a type: data, metadata, mixed, system."""
        setattr(self, f"{name}_{_TYPE_WORDS[block_group_type]}", value)

    # The counters.

    def _count(self, fs: "FileSystem", spaces: "list[SpaceInfo]") -> None:
        """Set all that is not an estimate."""
        self.raw_space_usage = {space.flags: RawSpaceUsage(space) for space in spaces}
        self.dev_usage = {device.devid: DevUsage(device) for device in fs.devices()}
        if not self.dev_usage:
            raise CorruptError("chunk tree", expected="items of devices", found="none")
        for chunk in fs.chunks():
            self._count_chunk(chunk)
        self.total = sum(device.total for device in self.dev_usage.values())
        self.allocated = sum(device.allocated for device in self.dev_usage.values())
        self.parity = sum(space.parity for space in self.raw_space_usage.values())
        self._count_types()
        self._count_virtual(spaces)

    def _count_chunk(self, chunk: "Chunk") -> None:
        """Add the device extents of a chunk, and take it for the newest of its type."""
        self._set(chunk.type & BLOCK_GROUP_TYPE_MASK, "target_profile", chunk.type)
        parity = profiles.chunk_to_raw_parity_bytes(chunk)
        length = profiles.chunk_to_dev_extent_length(chunk)
        # It may be younger than the answer about spaces.
        if chunk.type in self.raw_space_usage:
            self.raw_space_usage[chunk.type].allocated += parity
            self.raw_space_usage[chunk.type].parity += parity
        for stripe in chunk.stripes:
            if stripe.devid not in self.dev_usage:
                continue
            by_flags = self.dev_usage[stripe.devid].dev_space_usage
            space = by_flags.setdefault(chunk.type, DevSpaceUsage(stripe.devid, chunk.type))
            space.allocated += length
            space.parity += parity // chunk.num_stripes

    def _count_types(self) -> None:
        """Add up what is raw by type."""
        self.block_group_type_usage = {}
        for space in self.raw_space_usage.values():
            type_ = space.flags & BLOCK_GROUP_TYPE_MASK
            usage = self.block_group_type_usage.setdefault(type_, BlockGroupTypeUsage(type_))
            usage.allocated += space.allocated
            usage.used += space.used
            usage.parity += space.parity

    def _count_virtual(self, spaces: "list[SpaceInfo]") -> None:
        """Add up what is virtual."""
        self.virtual_space_usage = {space.flags: VirtualSpaceUsage(space) for space in spaces}
        self.virtual_block_group_type_usage = {}
        for space in self.virtual_space_usage.values():
            type_ = space.flags & BLOCK_GROUP_TYPE_MASK
            by_type = self.virtual_block_group_type_usage
            usage = by_type.setdefault(type_, VirtualBlockGroupTypeUsage(type_))
            usage.total += space.total
            usage.used += space.used
            usage.unused = usage.total - usage.used
        self.virtual_total = sum(space.total for space in self.virtual_space_usage.values())
        self.virtual_used = sum(space.used for space in self.virtual_space_usage.values())

    # The estimates.

    def _target(self, block_group_type: int, *, asked_for: bool) -> int:
        """Return the type and profile that estimates count on for new chunks.

        That of the newest chunk is not what the kernel goes by.
        """
        if asked_for:
            asked: int = getattr(self, f"target_profile_{_TYPE_WORDS[block_group_type]}")
            return asked
        return allocator.target_of(block_group_type, self.raw_space_usage, len(self.dev_usage))

    def _estimate(
        self,
        fs: "FileSystem",
        targets: dict[int, int],
        data_metadata_ratio: int | None,
        reserve: int,
    ) -> None:
        """Set all estimates.

        Args:
            fs: The filesystem.
            targets: Type and profile of new chunks, by type.
            data_metadata_ratio: As FsUsage has it.
            reserve: Bytes of the global reserve.
        """
        mixed = fs.mixed_groups()
        data_type = _MIXED if mixed else BLOCK_GROUP_DATA
        data_flags, metadata_flags = targets[data_type], targets[BLOCK_GROUP_METADATA]
        need = self._metadata_need(fs, metadata_flags, data_metadata_ratio, reserve)
        self.default_data_metadata_ratio = round(1 / need.per_data)
        full = mkfs.capacity(
            {usage.devid: usage.total for usage in self.dev_usage.values()},
            data_flags,
            metadata_flags,
            system_flags=getattr(self, "target_profile_system", BLOCK_GROUP_SYSTEM),
            metadata_per_data=need.per_data,
            nodesize=fs.nodesize,
        )
        now = allocator.fill(
            self._device_spaces(fs),
            data_flags,
            metadata_flags,
            free_data=self._free_for(data_flags),
            need=need,
            nodesize=fs.nodesize,
        )
        self._set_unallocatable(full, now)
        self._set(data_type, "estimated_full_allocatable_virtual", full.data)
        self._set(data_type, "estimated_allocatable_virtual", now.data)
        self._set(data_type, "free", now.writable)
        if not mixed:
            unused = need.total - need.used
            self.estimated_full_allocatable_virtual_metadata = full.metadata
            self.estimated_allocatable_virtual_metadata = now.metadata
            self.free_metadata = unused + now.metadata

    def _metadata_need(
        self, fs: "FileSystem", target: int, data_metadata_ratio: int | None, reserve: int
    ) -> MetadataNeed:
        """Return what metadata there is, and what data to come needs of it."""
        if data_metadata_ratio is None:
            csum_size = fs.fs_info().csum_size or _CRC32C_SIZE
            per_data = allocator.metadata_per_data(csum_size, fs.sectorsize)
        else:
            per_data = 1 / data_metadata_ratio
        usage = self.virtual_block_group_type_usage.get(BLOCK_GROUP_METADATA)
        used = usage.used if usage else 0
        return MetadataNeed(
            per_data,
            used + self._free_for(target),
            used,
            reserve,
            _bytes_of_reserved_trees(fs),
        )

    def _device_spaces(self, fs: "FileSystem") -> list[DeviceSpace]:
        """Return the holes on each device."""
        devices = (
            (usage.devid, usage.total, usage.unallocated) for usage in self.dev_usage.values()
        )
        return allocator.device_spaces(devices, fs.dev_extents())

    def _free_for(self, target: int) -> int:
        """Return the bytes that are free in block groups that what is to come may be written to."""
        return sum(
            space.total - space.used
            for space in self.virtual_space_usage.values()
            if allocator.usable_for(space.flags, target)
        )

    def _set_unallocatable(self, full: Filling, now: Filling) -> None:
        """Set what devices will never give.

        Args:
            full: The devices filled from nothing.
            now: The devices filled from where they are.
        """
        for hard, soft in zip(full.devices, now.devices, strict=True):
            usage = self.dev_usage[hard.devid]
            usage.unallocatable_hard = hard.unallocated
            usage.unallocatable_soft = soft.unallocated
            usage.unallocatable_reclaimable = max(0, soft.unallocated - hard.unallocated)
        devices = self.dev_usage.values()
        self.unallocatable_hard = sum(device.unallocatable_hard for device in devices)
        self.unallocatable_soft = sum(device.unallocatable_soft for device in devices)
        self.unallocatable_reclaimable = max(0, self.unallocatable_soft - self.unallocatable_hard)
        self.allocatable = self.total - self.unallocatable_soft
        self.allocatable_left = self.allocatable - self.allocated


def _require_known(what: str, flags: int) -> None:
    """Check that flags are a type and a profile of block groups, or mean the global reserve.

    Raises:
        CorruptError: They are not.
    """
    known_type = flags & BLOCK_GROUP_TYPE_MASK in _TYPE_WORDS or flags == SPACE_INFO_GLOBAL_RSV
    if not known_type or flags & BLOCK_GROUP_PROFILE_MASK not in profiles.PROFILES:
        raise CorruptError(
            what,
            expected="a type and at most one profile",
            found=utils.block_group_flags_str(flags),
        )


_CRC32C_SIZE = 4

_TYPE_WORDS = {
    BLOCK_GROUP_SYSTEM: "system",
    BLOCK_GROUP_METADATA: "metadata",
    BLOCK_GROUP_DATA: "data",
    _MIXED: "mixed",
}

# What the global reserve is there for (btrfs_update_global_block_rsv()).
_RESERVED_TREES = (
    constants.EXTENT_TREE_OBJECTID,
    constants.CSUM_TREE_OBJECTID,
    constants.FREE_SPACE_TREE_OBJECTID,
    constants.BLOCK_GROUP_TREE_OBJECTID,
    constants.RAID_STRIPE_TREE_OBJECTID,
)


def _bytes_of_reserved_trees(fs: "FileSystem") -> int:
    """Return the bytes of the trees that the global reserve grows with."""
    from btrfs.ondisk.items.root import RootItem
    from btrfs.ondisk.key import Key

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


def _with_words_for_keys(
    printed: Iterator[tuple[str, Any, str]], names: tuple[str, ...]
) -> Iterator[tuple[str, Any, str]]:
    """Yield what is printed, with type and profile in words as the keys of some dictionaries."""
    for name, value, remark in printed:
        if name in names:
            words = {utils.block_group_flags_str(flags): usage for flags, usage in value.items()}
            yield name, words, remark
        else:
            yield name, value, remark
