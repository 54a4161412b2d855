"""Which btrfs filesystems are mounted where."""

from __future__ import annotations

import os
import re
from typing import NamedTuple
from uuid import UUID

from btrfs import ioctl

__all__ = ["Mount", "mount_of_device", "mounted_filesystems"]


class Mount(NamedTuple):
    """A mounted btrfs.

    Attributes:
        path: Folder that it is mounted on.
        fsid: UUID of the filesystem.
    """

    path: str
    fsid: UUID


def mounted_filesystems() -> list[Mount]:
    """Return one mount per filesystem, the first that can be opened."""
    mounts: dict[UUID, Mount] = {}
    for path in _btrfs_mount_points():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fsid = ioctl.fs_info(fd).fsid
        except OSError:
            # Something that is no btrfs is mounted over it.
            continue
        finally:
            os.close(fd)
        mounts.setdefault(fsid, Mount(path, fsid))
    return list(mounts.values())


def mount_of_device(device: str) -> str | None:
    """Return where the filesystem that a block device is a member of is mounted, or None.

    It is the device that is compared, not only the UUID in its superblock: a copy of a mounted
    filesystem on another device is not mounted.
    """
    wanted = os.stat(device).st_rdev
    for mount in mounted_filesystems():
        if wanted in _device_numbers(mount.path):
            return mount.path
    return None


def _btrfs_mount_points() -> list[str]:
    points = []
    with open("/proc/self/mountinfo", "rb") as mountinfo:
        for line in mountinfo:
            # Optional fields, how many differs, end with a lone dash (proc(5)).
            mount, _, filesystem = line.partition(b" - ")
            if filesystem.startswith(b"btrfs "):
                points.append(os.fsdecode(_unescaped(mount.split(b" ")[4])))
    return points


def _unescaped(path: bytes) -> bytes:
    """Undo the octal escapes that mountinfo has for blanks and the like."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path)


def _device_numbers(path: str) -> set[int]:
    """Return the numbers of the devices that a mounted filesystem has."""
    numbers = set()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        left = ioctl.fs_info(fd).num_devices
        devid = 0
        max_id = ioctl.fs_info(fd).max_id
        while left and devid <= max_id:
            try:
                numbers.add(os.stat(ioctl.dev_info(fd, devid).path).st_rdev)
                left -= 1
            except OSError:
                # No device of this number, or one that is missing.
                pass
            devid += 1
    finally:
        os.close(fd)
    return numbers
