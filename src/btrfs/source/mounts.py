"""Which btrfs filesystems are mounted where.

The ioctls are imported where they are called: an image is opened without any.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from glob import glob
from typing import NamedTuple
from uuid import UUID

__all__ = [
    "Mount",
    "forget_cached",
    "is_mount_point",
    "is_read_only",
    "mount_of_device",
    "mounted_filesystems",
    "writable_mount_of",
]


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
    from btrfs import ioctl

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


def writable_mount_of(path: str) -> str | None:
    """Return where a device or an image file is mounted for writing; None if nowhere.

    An image file is mounted if a loop device of it is.
    """
    mount = _mount_of_member(path)
    if mount is None:
        return None
    try:
        fd = os.open(mount, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return mount
    try:
        return None if is_read_only(fd) else mount
    finally:
        os.close(fd)


def _mount_of_member(path: str) -> str | None:
    if stat.S_ISBLK(os.stat(path).st_mode):
        return mount_of_device(path)
    image = os.path.realpath(path)
    for backing in glob("/sys/block/loop*/loop/backing_file"):
        # A loop device may go at any moment.
        with suppress(OSError), open(backing, encoding="utf-8", errors="surrogateescape") as file:
            if file.read().rstrip("\n") == image:
                return mount_of_device(f"/dev/{backing.split('/')[3]}")
    return None


def is_mount_point(path: str) -> bool:
    """Return whether a btrfs is mounted at a path. The top of a subvolume need not be one."""
    return os.path.realpath(path) in _btrfs_mount_points()


def is_read_only(fd: int) -> bool:
    """Return whether the filesystem of an open file cannot be written to, wherever it is mounted.

    It does not depend on the one mount that the file was opened in: that can be read-only while
    another one of the same filesystem is not.
    """
    with open(f"/proc/self/fdinfo/{fd}", "rb") as fdinfo:
        mount_id = next(line.split()[1] for line in fdinfo if line.startswith(b"mnt_id:"))
    for mount, filesystem in _mountinfo():
        if mount[0] == mount_id:
            return b"ro" in filesystem[2].split(b",")
    # Unmounted since, though a file on it is open still.
    return False


def _btrfs_mount_points() -> list[str]:
    return [
        os.fsdecode(_unescaped(mount[4]))
        for mount, filesystem in _mountinfo()
        if filesystem[0] == b"btrfs"
    ]


def _mountinfo() -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Yield the fields of each mount: about the mount, and about the filesystem (proc(5))."""
    with open("/proc/self/mountinfo", "rb") as mountinfo:
        for line in mountinfo:
            # Optional fields, how many differs, end with a lone dash.
            mount, _, filesystem = line.rstrip(b"\n").partition(b" - ")
            yield mount.split(b" "), filesystem.split(b" ")


def _unescaped(path: bytes) -> bytes:
    """Undo the octal escapes that mountinfo has for blanks and the like."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path)


def _device_numbers(path: str) -> set[int]:
    """Return the numbers of the devices that a mounted filesystem has."""
    from btrfs.source.kernel import KernelSource

    numbers = set()
    with closing(KernelSource(path)) as kernel:
        for device in kernel.device_infos():
            # A missing one has no path.
            with suppress(OSError):
                numbers.add(os.stat(device.path).st_rdev)
    return numbers


def forget_cached(device: str) -> None:
    """Let a device be read anew: a mounted filesystem writes past the cache of its devices."""
    with suppress(OSError):
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
