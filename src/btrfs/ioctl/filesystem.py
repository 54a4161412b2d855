"""The filesystem as a whole: what it is, what it has, and how full it is.

The results are those of :mod:`btrfs.info`, made from the structs that the kernel fills.
"""

import fcntl
import os
import struct
from typing import NamedTuple
from uuid import UUID

from btrfs import info
from btrfs.info import (
    DEV_STATS_COUNTERS as DEV_STATS_COUNTERS,
    FS_INFO_FLAGS as FS_INFO_FLAGS,
    FeatureFlags as FeatureFlags,
)
from btrfs.ioctl.numbers import NONE, READ, WRITE, ioc
from btrfs.ioctl.volume_args import name_field
from btrfs.ondisk.fields import Bytes

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


_LABEL_SIZE = 256
_DEV_STATS_RESET = 1 << 0

# struct btrfs_ioctl_fs_info_args: max_id, num_devices, fsid, nodesize, sectorsize, clone_alignment,
# csum_type, csum_size, flags, generation, metadata_uuid, reserved.
_FS_INFO_ARGS = struct.Struct("<QQ16sIIIHHQQ16s944x")
_FS_INFO_FLAGS_OFFSET = 48
# struct btrfs_ioctl_dev_info_args: devid, uuid, bytes_used, total_bytes, fsid, unused, path.
_DEV_INFO_ARGS = struct.Struct("<Q16sQQ16s3016x1024s")
# struct btrfs_ioctl_get_dev_stats: devid, nr_items, flags, five counters, unused.
_GET_DEV_STATS = struct.Struct("<QQQ5Q968x")
# struct btrfs_ioctl_space_info: flags, total_bytes, used_bytes.
_SPACE_INFO = struct.Struct("<QQQ")
# struct btrfs_ioctl_space_args: space_slots, total_spaces, and then the entries.
_SPACE_ARGS = struct.Struct("<QQ")
# struct btrfs_ioctl_feature_flags: compat_flags, compat_ro_flags, incompat_flags.
_FEATURE_FLAGS = struct.Struct("<QQQ")

IOC_SYNC = ioc(NONE, 8, 0)
IOC_SPACE_INFO = ioc(READ | WRITE, 20, _SPACE_ARGS.size)
IOC_DEV_INFO = ioc(READ | WRITE, 30, _DEV_INFO_ARGS.size)
IOC_FS_INFO = ioc(READ, 31, _FS_INFO_ARGS.size)
IOC_GET_FSLABEL = ioc(READ, 49, _LABEL_SIZE)
IOC_SET_FSLABEL = ioc(WRITE, 50, _LABEL_SIZE)
IOC_GET_DEV_STATS = ioc(READ | WRITE, 52, _GET_DEV_STATS.size)
IOC_GET_FEATURES = ioc(READ, 57, _FEATURE_FLAGS.size)


# The results, made from what the kernel has written.


class FsInfo(info.FsInfo):
    """The filesystem as a whole (struct btrfs_ioctl_fs_info_args).

    Args:
        buf: The struct.
    """

    def __init__(self, buf: Bytes) -> None:
        values = _FS_INFO_ARGS.unpack_from(buf)
        max_id, num_devices, fsid, nodesize, sectorsize, clone_alignment = values[:6]
        csum_type, csum_size, flags, generation, metadata_uuid = values[6:]
        super().__init__(
            max_id=max_id,
            num_devices=num_devices,
            nodesize=nodesize,
            sectorsize=sectorsize,
            clone_alignment=clone_alignment,
            fsid=UUID(bytes=fsid),
            csum_type=csum_type,
            csum_size=csum_size,
            flags=flags,
            generation=generation,
            metadata_uuid=UUID(bytes=metadata_uuid),
        )


class DevInfo(info.DevInfo):
    """A device of the filesystem (struct btrfs_ioctl_dev_info_args).

    Args:
        buf: The struct.
    """

    def __init__(self, buf: Bytes) -> None:
        devid, uuid, bytes_used, total_bytes, fsid, path = _DEV_INFO_ARGS.unpack_from(buf)
        super().__init__(
            devid=devid,
            bytes_used=bytes_used,
            total_bytes=total_bytes,
            path=os.fsdecode(path.split(b"\0", 1)[0]),
            uuid=UUID(bytes=uuid),
            fsid=UUID(bytes=fsid),
        )


class DevStats(info.DevStats):
    """Counters of errors of a device (struct btrfs_ioctl_get_dev_stats).

    Args:
        buf: The struct.
    """

    def __init__(self, buf: Bytes) -> None:
        super().__init__(*_GET_DEV_STATS.unpack_from(buf))


class SpaceInfo(info.SpaceInfo):
    """The block groups of one type and profile together (struct btrfs_ioctl_space_info).

    Args:
        buf: A buffer with the struct in it.
        pos: Where in the buffer it begins.
    """

    def __init__(self, buf: Bytes, pos: int) -> None:
        super().__init__(*_SPACE_INFO.unpack_from(buf, pos))


class SpaceArgs(NamedTuple):
    """Head of what the space info ioctl returns (struct btrfs_ioctl_space_args).

    Attributes:
        space_slots: How many entries there was room for.
        total_spaces: How many there are.
    """

    space_slots: int
    total_spaces: int


def fs_info(fd: int) -> FsInfo:
    """Return what describes the filesystem as a whole. Needs no privilege."""
    args = bytearray(_FS_INFO_ARGS.size)
    # flags is an input too: which of the fields added later the caller asks for.
    struct.pack_into("<Q", args, _FS_INFO_FLAGS_OFFSET, FS_INFO_FLAGS)
    fcntl.ioctl(fd, IOC_FS_INFO, args)
    return FsInfo(args)


def dev_info(fd: int, devid: int) -> DevInfo:
    """Return what describes a device. Needs no privilege.

    Raises:
        OSError: ENODEV if there is no device of that number.
    """
    args = bytearray(_DEV_INFO_ARGS.size)
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
    args = bytearray(_GET_DEV_STATS.size)
    struct.pack_into(
        "<QQQ", args, 0, devid, len(DEV_STATS_COUNTERS), _DEV_STATS_RESET if reset else 0
    )
    fcntl.ioctl(fd, IOC_GET_DEV_STATS, args)
    return DevStats(args)


def space_info(fd: int) -> list[SpaceInfo]:
    """Return the sizes of all block groups, one entry per type and profile. Needs no privilege."""
    slots = 0
    while True:
        args = bytearray(_SPACE_ARGS.size + slots * _SPACE_INFO.size)
        _SPACE_ARGS.pack_into(args, 0, slots, 0)
        fcntl.ioctl(fd, IOC_SPACE_INFO, args)
        space_args = SpaceArgs(*_SPACE_ARGS.unpack_from(args))
        # With no slots the kernel says how many it takes; there may be more by the second call.
        if space_args.total_spaces <= slots:
            break
        slots = space_args.total_spaces
    return [
        SpaceInfo(args, _SPACE_ARGS.size + index * _SPACE_INFO.size)
        for index in range(space_args.total_spaces)
    ]


def get_features(fd: int) -> FeatureFlags:
    """Return the features that the filesystem uses. Needs no privilege."""
    args = bytearray(_FEATURE_FLAGS.size)
    fcntl.ioctl(fd, IOC_GET_FEATURES, args)
    return FeatureFlags(*_FEATURE_FLAGS.unpack(args))


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
