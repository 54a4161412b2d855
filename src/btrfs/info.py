"""What a filesystem says about itself as a whole: plain results that every source can give.

The kernel answers by ioctls (:mod:`btrfs.ioctl.filesystem`), a filesystem that is not mounted from
its superblock and its trees (:mod:`btrfs.source.disk.source`).
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from btrfs.ondisk.constants import (
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_TYPE_MASK,
    FEATURE_COMPAT_RO_NAMES,
    FEATURE_INCOMPAT_NAMES,
    SPACE_INFO_GLOBAL_RSV,
)
from btrfs.ondisk.printing import Printable, as_flags, as_size, printed
from btrfs.ondisk.text import (
    space_flags_description,
    space_profile_description,
    space_type_description,
)

__all__ = [
    "DEV_STATS_COUNTERS",
    "FS_INFO_FLAGS",
    "DevInfo",
    "DevStats",
    "FeatureFlags",
    "FsInfo",
    "SpaceInfo",
]

# BTRFS_FS_INFO_FLAG_CSUM_INFO, _GENERATION and _METADATA_UUID
FS_INFO_FLAGS = 0b111

DEV_STATS_COUNTERS = (
    "write_errs",
    "read_errs",
    "flush_errs",
    "corruption_errs",
    "generation_errs",
)
"""The names of the counters of errors, in the order in which they are stored."""


@dataclass
class FsInfo(
    Printable,
    line=(
        "max_id {max_id} num_devices {num_devices} fsid {fsid} nodesize {nodesize} "
        "sectorsize {sectorsize} clone_alignment {clone_alignment}"
    ),
    module="btrfs.ioctl",
    hidden=("csum_type", "csum_size", "flags", "generation", "metadata_uuid"),
):
    """The filesystem as a whole.

    Attributes:
        max_id: Highest number of a device.
        num_devices: How many devices it has.
        nodesize: Bytes of a tree block.
        sectorsize: Bytes of the smallest extent of data.
        clone_alignment: Bytes that cloned ranges must be aligned to.
        fsid: Its UUID.
        csum_type: 0 crc32c, 1 xxhash64, 2 sha256, 3 blake2b.
        csum_size: Bytes of a checksum.
        flags: Which of the attributes around this one are known: all of them if FS_INFO_FLAGS.
        generation: Number of the last transaction.
        metadata_uuid: UUID in the headers of tree blocks; the fsid unless that was changed.
    """

    max_id: int
    num_devices: int
    nodesize: int
    nodesize_str = as_size()
    sectorsize: int
    sectorsize_str = as_size()
    clone_alignment: int
    clone_alignment_str = as_size()
    fsid: UUID
    csum_type: int
    csum_size: int
    flags: int
    generation: int
    metadata_uuid: UUID


@dataclass
class DevInfo(
    Printable,
    line=(
        "devid {devid} uuid {uuid} bytes_used {bytes_used} total_bytes {total_bytes} path {path}"
    ),
    module="btrfs.ioctl",
    hidden=("fsid",),
):
    """A device of the filesystem.

    Attributes:
        devid: Number of the device.
        bytes_used: Bytes allocated to chunks.
        total_bytes: Bytes of the device that the filesystem may use.
        path: Where the device is; empty if it is missing.
        uuid: UUID of the device.
        fsid: UUID of the filesystem that it belongs to.
    """

    devid: int
    bytes_used: int
    bytes_used_str = as_size()
    total_bytes: int
    total_bytes_str = as_size()
    path: str
    uuid: UUID
    fsid: UUID


@dataclass
class DevStats(
    Printable,
    line=(
        "devid {devid} write_errs {write_errs} read_errs {read_errs} flush_errs {flush_errs} "
        "corruption_errs {corruption_errs} generation_errs {generation_errs}"
    ),
    module="btrfs.ioctl",
):
    """Counters of errors of a device.

    Attributes:
        devid: Number of the device.
        nr_items: How many counters there are.
        flags: DEV_STATS_RESET, if they were set to zero.
        write_errs: Failed writes.
        read_errs: Failed reads.
        flush_errs: Failed flushes.
        corruption_errs: Blocks whose checksum or content was wrong.
        generation_errs: Tree blocks that were of another generation than they should be.
    """

    devid: int
    nr_items: int
    flags: int
    write_errs: int
    read_errs: int
    flush_errs: int
    corruption_errs: int
    generation_errs: int

    @property
    def counters(self) -> dict[str, int]:
        """The five counters by name."""
        return {name: getattr(self, name) for name in DEV_STATS_COUNTERS}


@dataclass
class SpaceInfo(
    Printable,
    line="{flags_str}: total={total_bytes_str}, used={used_bytes_str}",
    module="btrfs.ioctl",
):
    """The block groups of one type and profile together.

    Attributes:
        flags: Type and profile; SPACE_INFO_GLOBAL_RSV for the global reserve.
        total_bytes: Bytes of virtual address space in the block groups.
        used_bytes: Bytes of it that extents use.
    """

    flags: int
    flags_str = printed(space_flags_description)
    total_bytes: int
    total_bytes_str = as_size()
    used_bytes: int
    used_bytes_str = as_size()

    @property
    def type(self) -> int:
        """The type without the profile."""
        return self.flags & (BLOCK_GROUP_TYPE_MASK | SPACE_INFO_GLOBAL_RSV)

    @property
    def type_str(self) -> str:
        """The type as btrfs-progs writes it: 'Data'."""
        return space_type_description(self.flags)

    @property
    def profile(self) -> int:
        """The profile without the type."""
        return self.flags & BLOCK_GROUP_PROFILE_MASK

    @property
    def profile_str(self) -> str:
        """The profile as btrfs-progs writes it: 'RAID1', or 'single'."""
        return space_profile_description(self.flags)


@dataclass
class FeatureFlags(Printable, module="btrfs.ioctl"):
    """Features that the filesystem uses.

    Attributes:
        compat_flags: Those that any kernel may ignore.
        compat_ro_flags: Those that a kernel must know to write.
        incompat_flags: Those that a kernel must know to read.
    """

    compat_flags: int
    compat_flags_str = as_flags({})
    compat_ro_flags: int
    compat_ro_flags_str = as_flags(FEATURE_COMPAT_RO_NAMES)
    incompat_flags: int
    incompat_flags_str = as_flags(FEATURE_INCOMPAT_NAMES)
