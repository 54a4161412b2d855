"""How much of a filesystem is allocated and used, and how much more can be written.

    with btrfs.FileSystem('/') as fs:
        usage = fs.usage()
        print(usage.free_data_str)

Space is counted twice. *Raw* sizes are bytes on devices: each copy counts, and so does parity.
*Virtual* sizes are bytes of the address space that block groups make up, which is what files and
metadata see.

:class:`FsUsage` puts together what :mod:`btrfs.space.counters` counts and what
:mod:`btrfs.space.estimates` says about the future.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_SYSTEM,
)
from btrfs.ondisk.printing import Printable, as_size, printed
from btrfs.ondisk.text import pretty_size, space_profile_description
from btrfs.space.counters import (
    MIXED,
    BlockGroupTypeUsage as BlockGroupTypeUsage,
    Counters,
    DevSpaceUsage as DevSpaceUsage,
    DevUsage as DevUsage,
    RawSpaceUsage as RawSpaceUsage,
    SpaceLookups as SpaceLookups,
    VirtualBlockGroupTypeUsage as VirtualBlockGroupTypeUsage,
    VirtualSpaceUsage as VirtualSpaceUsage,
    count,
    with_flags_as_text,
)
from btrfs.space.estimates import Estimates, Targets, details_of, estimate
from btrfs.space.profile_rules import target_of

__all__ = [
    "BlockGroupTypeUsage",
    "DevSpaceUsage",
    "DevUsage",
    "FsUsage",
    "RawSpaceUsage",
    "VirtualBlockGroupTypeUsage",
    "VirtualSpaceUsage",
]


@dataclass(init=False, repr=False, eq=False)
class FsUsage(
    Printable,
    line=(
        "fs usage total {total_str} allocated {allocated_str} "
        "virtual_total {virtual_total_str} virtual_used {virtual_used_str}"
    ),
    module="btrfs.fs_usage",
):
    """What is allocated and used in a filesystem, and what can be.

    Of the attributes whose names end in metadata, data and mixed, a filesystem has either the
    first two or the last.

    Args:
        fs: The filesystem, or any object that has the four look-ups of SpaceLookups, such as a
            description of a filesystem that is planned.
        data_metadata_ratio: For the estimates, how many bytes of data come with one byte of
            metadata. If not given, it is what large files need for their checksums, and 200 for a
            filesystem that is only planned.
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
        estimated_full_allocatable_virtual_data: The same for data.
        estimated_full_allocatable_virtual_mixed: The same for mixed block groups.
        unallocatable_hard: Estimate of raw bytes that could not be allocated even then.
        estimated_allocatable_virtual_metadata: Estimate of the bytes in metadata block groups
            that will be made until there is no space for data any more.
        estimated_allocatable_virtual_data: The same for data.
        estimated_allocatable_virtual_mixed: The same for mixed block groups.
        unallocatable_soft: Estimate of raw bytes that will still be unallocated then.
        unallocatable_reclaimable: What of them could be got by a balance.
        allocatable: Estimate of raw bytes that are or can be allocated.
        allocatable_left: Those of them that are not yet.
        free_metadata: Estimate of bytes for metadata, in block groups that exist or will be made.
        free_data: Estimate of bytes of data that can be written to one large file.
        free_mixed: The same where data shares the block groups with metadata.

    Raises:
        ValueError: The ratio is not above zero.
        CorruptError: A chunk or a block group is not as it must be, or there are no devices.
    """

    raw_space_usage: dict[int, RawSpaceUsage]
    dev_usage: dict[int, DevUsage]
    total: int
    total_str = as_size()
    allocated: int
    allocated_str = as_size()
    parity: int
    parity_str = as_size()
    target_profile_system: int
    target_profile_system_str = printed(space_profile_description)
    target_profile_metadata: int
    target_profile_metadata_str = printed(space_profile_description)
    target_profile_data: int
    target_profile_data_str = printed(space_profile_description)
    target_profile_mixed: int
    target_profile_mixed_str = printed(space_profile_description)
    block_group_type_usage: dict[int, BlockGroupTypeUsage]
    virtual_space_usage: dict[int, VirtualSpaceUsage]
    virtual_block_group_type_usage: dict[int, VirtualBlockGroupTypeUsage]
    virtual_total: int
    virtual_total_str = as_size()
    virtual_used: int
    virtual_used_str = as_size()
    default_data_metadata_ratio: int
    estimated_full_allocatable_virtual_metadata: int
    estimated_full_allocatable_virtual_metadata_str = as_size()
    estimated_full_allocatable_virtual_data: int
    estimated_full_allocatable_virtual_data_str = as_size()
    estimated_full_allocatable_virtual_mixed: int
    estimated_full_allocatable_virtual_mixed_str = as_size()
    unallocatable_hard: int
    unallocatable_hard_str = as_size()
    estimated_allocatable_virtual_metadata: int
    estimated_allocatable_virtual_metadata_str = as_size()
    estimated_allocatable_virtual_data: int
    estimated_allocatable_virtual_data_str = as_size()
    estimated_allocatable_virtual_mixed: int
    estimated_allocatable_virtual_mixed_str = as_size()
    unallocatable_soft: int
    unallocatable_soft_str = as_size()
    unallocatable_reclaimable: int
    unallocatable_reclaimable_str = as_size()
    allocatable: int
    allocatable_str = as_size()
    allocatable_left: int
    allocatable_left_str = as_size()
    free_metadata: int
    free_metadata_str = as_size()
    free_data: int
    free_data_str = as_size()
    free_mixed: int
    free_mixed_str = as_size()

    def __init__(
        self,
        fs: SpaceLookups,
        data_metadata_ratio: int | None = None,
        target_profile_metadata: int | None = None,
        target_profile_data: int | None = None,
        target_profile_mixed: int | None = None,
    ) -> None:
        if data_metadata_ratio is not None and data_metadata_ratio <= 0:
            raise ValueError(f"data_metadata_ratio is {data_metadata_ratio}, but must be above 0")
        mixed = fs.mixed_groups()
        asked_for = {
            type_: type_ | profile & BLOCK_GROUP_PROFILE_MASK
            for type_, profile in (
                (BLOCK_GROUP_METADATA, None if mixed else target_profile_metadata),
                (BLOCK_GROUP_DATA, None if mixed else target_profile_data),
                (MIXED, target_profile_mixed if mixed else None),
            )
            if profile is not None
        }
        counters = count(fs)
        self._set_counters(counters)
        for type_, flags in {**counters.newest_profiles, **asked_for}.items():
            setattr(self, f"target_profile_{_TYPE_NAMES[type_]}", flags)
        details = details_of(fs)
        writable = len(counters.devices.keys() - details.seeds)
        targets = _targets(counters, writable, asked_for, mixed=mixed)
        estimates = estimate(counters, details, targets, data_metadata_ratio)
        self._set_estimates(estimates, mixed=mixed)

    def __repr__(self) -> str:
        return f"<FsUsage total={self.total} allocated={self.allocated}>"

    @property
    def unalloctable_soft_str(self) -> str:
        """The attribute unallocatable_soft in its printed form, by the name python-btrfs has."""
        return pretty_size(self.unallocatable_soft)

    def pretty_attributes(self) -> Iterator[tuple[str, Any]]:
        """Yield what Printable yields, with flags as text for the keys of mappings by flags."""
        return with_flags_as_text(
            super().pretty_attributes(),
            (
                "raw_space_usage",
                "block_group_type_usage",
                "virtual_space_usage",
                "virtual_block_group_type_usage",
            ),
        )

    def _set_counters(self, counters: Counters) -> None:
        """Set all that is not an estimate."""
        self.raw_space_usage = counters.raw
        self.dev_usage = counters.devices
        self.total = sum(device.total for device in counters.devices.values())
        self.allocated = sum(device.allocated for device in counters.devices.values())
        self.parity = sum(space.parity for space in counters.raw.values())
        self.block_group_type_usage = counters.raw_by_type
        self.virtual_space_usage = counters.virtual
        self.virtual_block_group_type_usage = counters.virtual_by_type
        self.virtual_total = sum(space.total for space in counters.virtual.values())
        self.virtual_used = sum(space.used for space in counters.virtual.values())

    def _set_estimates(self, estimates: Estimates, *, mixed: bool) -> None:
        full, now = estimates.full, estimates.now
        self.default_data_metadata_ratio = round(1 / estimates.per_data)
        if mixed:
            self.estimated_full_allocatable_virtual_mixed = full.data
            self.estimated_allocatable_virtual_mixed = now.data
            self.free_mixed = now.writable
        else:
            self.estimated_full_allocatable_virtual_metadata = full.metadata
            self.estimated_full_allocatable_virtual_data = full.data
            self.estimated_allocatable_virtual_metadata = now.metadata
            self.estimated_allocatable_virtual_data = now.data
            self.free_metadata = estimates.free_metadata
            self.free_data = now.writable
        self._set_unallocatable(estimates)

    def _set_unallocatable(self, estimates: Estimates) -> None:
        """Set which bytes of the devices will never be allocated."""
        for hard, soft in zip(estimates.full.devices, estimates.now.devices, strict=True):
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


def _targets(
    counters: Counters, writable: int, asked_for: dict[int, int], *, mixed: bool
) -> Targets:
    """Return the type and profile that estimates count on for new chunks.

    The profile of the newest chunk is not what the kernel goes by, but how many devices there are
    that can be written to.
    """

    def target(type_: int) -> int:
        return asked_for.get(type_) or target_of(type_, counters.raw, writable)

    return Targets(
        data=target(MIXED if mixed else BLOCK_GROUP_DATA),
        metadata=target(BLOCK_GROUP_METADATA),
        system=counters.newest_profiles.get(BLOCK_GROUP_SYSTEM, BLOCK_GROUP_SYSTEM),
    )


_TYPE_NAMES = {
    BLOCK_GROUP_SYSTEM: "system",
    BLOCK_GROUP_METADATA: "metadata",
    BLOCK_GROUP_DATA: "data",
    MIXED: "mixed",
}
