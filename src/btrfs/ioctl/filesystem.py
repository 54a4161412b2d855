"""The filesystem as a whole: what it is, what it has, and how full it is."""

import fcntl
import os
import struct
from typing import Annotated, NamedTuple

from btrfs.ioctl.numbers import NONE, READ, WRITE, ioc
from btrfs.ioctl.volume_args import name_field
from btrfs.ondisk.constants import (
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_TYPE_MASK,
    FEATURE_COMPAT_RO_NAMES,
    FEATURE_INCOMPAT_NAMES,
    SPACE_INFO_GLOBAL_RSV,
)
from btrfs.ondisk.struct import (
    Bytes,
    Stored,
    Struct,
    as_flags,
    as_size,
    as_text,
    hidden,
    u16,
    u32,
    u64,
    uuid16,
)
from btrfs.ondisk.text import (
    space_flags_description,
    space_profile_description,
    space_type_description,
)

__all__ = [
    "DEV_STATS_COUNTERS",
    "FS_INFO_FLAGS",
    "IOC_DEV_INFO",
    "IOC_FS_INFO",
    "IOC_GET_DEV_STATS",
    "IOC_GET_FEATURES",
    "IOC_GET_FSLABEL",
    "IOC_SET_FSLABEL",
    "IOC_SPACE_INFO",
    "IOC_SYNC",
    "DevInfo",
    "DevStats",
    "FeatureFlags",
    "FsInfo",
    "SpaceArgs",
    "SpaceInfo",
    "dev_info",
    "dev_stats",
    "fs_info",
    "get_features",
    "get_label",
    "set_label",
    "space_info",
    "sync",
]


class FsInfo(
    Struct,
    line=(
        "max_id {max_id} num_devices {num_devices} fsid {fsid} nodesize {nodesize} "
        "sectorsize {sectorsize} clone_alignment {clone_alignment}"
    ),
    print_last=("fsid",),
):
    """The filesystem as a whole (struct btrfs_ioctl_fs_info_args).

    Attributes:
        max_id: Highest number of a device.
        num_devices: How many devices it has.
        fsid: Its UUID.
        nodesize: Bytes of a tree block.
        sectorsize: Bytes of the smallest extent of data.
        clone_alignment: Bytes that cloned ranges must be aligned to.
        csum_type: 0 crc32c, 1 xxhash64, 2 sha256, 3 blake2b.
        csum_size: Bytes of a checksum.
        flags: Which of the attributes around this one the kernel knew.
        generation: Number of the last transaction.
        metadata_uuid: UUID in the headers of tree blocks; the fsid unless that was changed.
    """

    _public_module = "btrfs.ioctl"

    max_id: u64
    num_devices: u64
    fsid: uuid16
    nodesize: u32 = as_size()
    sectorsize: u32 = as_size()
    clone_alignment: u32 = as_size()
    csum_type: u16 = hidden()
    csum_size: u16 = hidden()
    flags: u64 = hidden()
    generation: u64 = hidden()
    metadata_uuid: uuid16 = hidden()
    reserved: Annotated[bytes, Stored("944s", "V944")] = hidden()

    def __init__(self, buf: Bytes) -> None:
        self._decode(buf, 0)


class DevInfo(
    Struct,
    line=(
        "devid {devid} uuid {uuid} bytes_used {bytes_used} total_bytes {total_bytes} path {path}"
    ),
    print_last=("uuid",),
):
    """A device of the filesystem (struct btrfs_ioctl_dev_info_args).

    Attributes:
        devid: Number of the device.
        uuid: UUID of the device.
        bytes_used: Bytes allocated to chunks.
        total_bytes: Bytes of the device that the filesystem may use.
        path: Where the device is; empty if it is missing or there is none.
    """

    _public_module = "btrfs.ioctl"

    devid: u64
    uuid: uuid16
    bytes_used: u64 = as_size()
    total_bytes: u64 = as_size()
    fsid: uuid16 = hidden()
    unused: Annotated[bytes, Stored("3016s", "V3016")] = hidden()
    path_bytes: Annotated[bytes, Stored("1024s", "V1024")] = hidden()
    path: str

    def __init__(self, buf: Bytes) -> None:
        self._decode(buf, 0)
        self.path = os.fsdecode(self.path_bytes.split(b"\0", 1)[0])


class DevStats(
    Struct,
    line=(
        "devid {devid} write_errs {write_errs} read_errs {read_errs} flush_errs {flush_errs} "
        "corruption_errs {corruption_errs} generation_errs {generation_errs}"
    ),
):
    """Counters of errors of a device (struct btrfs_ioctl_get_dev_stats).

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

    _public_module = "btrfs.ioctl"

    devid: u64
    nr_items: u64
    flags: u64
    write_errs: u64
    read_errs: u64
    flush_errs: u64
    corruption_errs: u64
    generation_errs: u64
    unused: Annotated[bytes, Stored("968s", "V968")] = hidden()

    def __init__(self, buf: Bytes) -> None:
        self._decode(buf, 0)

    @property
    def counters(self) -> dict[str, int]:
        """The five counters by name."""
        return {name: getattr(self, name) for name in DEV_STATS_COUNTERS}


DEV_STATS_COUNTERS = (
    "write_errs",
    "read_errs",
    "flush_errs",
    "corruption_errs",
    "generation_errs",
)


class SpaceInfo(Struct, line="{flags_str}: total={total_bytes_str}, used={used_bytes_str}"):
    """The block groups of one type and profile together (struct btrfs_ioctl_space_info).

    Attributes:
        flags: Type and profile; SPACE_INFO_GLOBAL_RSV for the global reserve.
        total_bytes: Bytes of virtual address space in the block groups.
        used_bytes: Bytes of it that extents use.
    """

    _public_module = "btrfs.ioctl"

    flags: u64 = as_text(space_flags_description)
    total_bytes: u64 = as_size()
    used_bytes: u64 = as_size()

    def __init__(self, buf: Bytes, pos: int) -> None:
        self._decode(buf, pos)

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


class FeatureFlags(Struct):
    """Features that the filesystem uses (struct btrfs_ioctl_feature_flags).

    Attributes:
        compat_flags: Those that any kernel may ignore.
        compat_ro_flags: Those that a kernel must know to write.
        incompat_flags: Those that a kernel must know to read.
    """

    _public_module = "btrfs.ioctl"

    compat_flags: u64 = as_flags({})
    compat_ro_flags: u64 = as_flags(FEATURE_COMPAT_RO_NAMES)
    incompat_flags: u64 = as_flags(FEATURE_INCOMPAT_NAMES)

    def __init__(self, compat_flags: int, compat_ro_flags: int, incompat_flags: int) -> None:
        self.compat_flags = compat_flags
        self.compat_ro_flags = compat_ro_flags
        self.incompat_flags = incompat_flags


class SpaceArgs(NamedTuple):
    """Head of what the space info ioctl returns (struct btrfs_ioctl_space_args).

    Attributes:
        space_slots: How many entries there was room for.
        total_spaces: How many there are.
    """

    space_slots: int
    total_spaces: int


_LABEL_SIZE = 256

IOC_SYNC = ioc(NONE, 8, 0)
IOC_SPACE_INFO = ioc(READ | WRITE, 20, 16)
IOC_DEV_INFO = ioc(READ | WRITE, 30, DevInfo.struct_size)
IOC_FS_INFO = ioc(READ, 31, FsInfo.struct_size)
IOC_GET_FSLABEL = ioc(READ, 49, _LABEL_SIZE)
IOC_SET_FSLABEL = ioc(WRITE, 50, _LABEL_SIZE)
IOC_GET_DEV_STATS = ioc(READ | WRITE, 52, DevStats.struct_size)
IOC_GET_FEATURES = ioc(READ, 57, FeatureFlags.struct_size)

# BTRFS_FS_INFO_FLAG_CSUM_INFO, _GENERATION and _METADATA_UUID
FS_INFO_FLAGS = 0b111
_FS_INFO_FLAGS_OFFSET = 48
_DEV_STATS_RESET = 1 << 0


def fs_info(fd: int) -> FsInfo:
    """Return what there is to know of the filesystem as a whole. Needs no privilege."""
    args = bytearray(FsInfo.struct_size)
    # flags is an input too: which of the fields added later the caller asks for.
    struct.pack_into("<Q", args, _FS_INFO_FLAGS_OFFSET, FS_INFO_FLAGS)
    fcntl.ioctl(fd, IOC_FS_INFO, args)
    return FsInfo(args)


def dev_info(fd: int, devid: int) -> DevInfo:
    """Return what there is to know of a device. Needs no privilege.

    Raises:
        OSError: ENODEV if there is no device of that number.
    """
    args = bytearray(DevInfo.struct_size)
    struct.pack_into("<Q", args, 0, devid)
    fcntl.ioctl(fd, IOC_DEV_INFO, args)
    return DevInfo(args)


def dev_stats(fd: int, devid: int, reset: bool = False) -> DevStats:
    """Return the counters of errors of a device.

    Args:
        fd: File descriptor.
        devid: Number of the device.
        reset: Set the counters to zero after reading them; needs CAP_SYS_ADMIN.

    Raises:
        OSError: ENODEV if there is no device of that number.
    """
    args = bytearray(DevStats.struct_size)
    struct.pack_into(
        "<QQQ", args, 0, devid, len(DEV_STATS_COUNTERS), _DEV_STATS_RESET if reset else 0
    )
    fcntl.ioctl(fd, IOC_GET_DEV_STATS, args)
    return DevStats(args)


def space_info(fd: int) -> list[SpaceInfo]:
    """Return the sizes of all block groups, one entry per type and profile. Needs no privilege."""
    slots = 0
    while True:
        args = bytearray(16 + slots * SpaceInfo.struct_size)
        struct.pack_into("<QQ", args, 0, slots, 0)
        fcntl.ioctl(fd, IOC_SPACE_INFO, args)
        space_args = SpaceArgs(*struct.unpack_from("<QQ", args))
        # With no slots the kernel tells how many it takes; there may be more by the second call.
        if space_args.total_spaces <= slots:
            break
        slots = space_args.total_spaces
    return [
        SpaceInfo(args, 16 + index * SpaceInfo.struct_size)
        for index in range(space_args.total_spaces)
    ]


def get_features(fd: int) -> FeatureFlags:
    """Return the features that the filesystem uses. Needs no privilege."""
    args = bytearray(FeatureFlags.struct_size)
    fcntl.ioctl(fd, IOC_GET_FEATURES, args)
    return FeatureFlags(*struct.unpack("<QQQ", args))


def get_label(fd: int) -> str:
    """Return the label of the filesystem, empty if it has none. Needs no privilege."""
    args = bytearray(_LABEL_SIZE)
    fcntl.ioctl(fd, IOC_GET_FSLABEL, args)
    return args.split(b"\0", 1)[0].decode(errors="surrogateescape")


def set_label(fd: int, label: str) -> None:
    """Give the filesystem a label, or take it away with an empty one. Needs CAP_SYS_ADMIN.

    Raises:
        ValueError: It is longer than 255 bytes, or has a NUL in it.
    """
    args = name_field(label.encode(errors="surrogateescape"), _LABEL_SIZE - 1)
    fcntl.ioctl(fd, IOC_SET_FSLABEL, args.ljust(_LABEL_SIZE, b"\0"))


def sync(fd: int) -> None:
    """Commit the running transaction, so that all changes up to now are on disk."""
    fcntl.ioctl(fd, IOC_SYNC)
