"""The devices and image files that a filesystem lies on."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

from btrfs.errors import CorruptError, NotBtrfsError
from btrfs.ondisk.constants import SUPER_INFO_SIZE, SUPER_MAGIC, SUPER_MAGIC_OFFSET, SUPER_MIRRORS
from btrfs.source.descriptor import Descriptor
from btrfs.source.disk.superblock import Superblock, parse_superblock

__all__ = [
    "Device",
    "Superblocks",
    "find_members",
    "has_superblock",
    "open_device",
    "read_superblocks",
]


class Device:
    """A block device or an image file with a superblock.

    Attributes:
        path: Where it was opened.
        superblock: Its superblock: the valid copy of the highest generation, if none was chosen.
        damaged: What is wrong with the other copies of the superblock.
        size: Bytes that can be read.
    """

    def __init__(
        self, path: str, descriptor: Descriptor, superblocks: Superblocks, size: int
    ) -> None:
        self.path = path
        self.superblock = superblocks.chosen
        self.damaged = superblocks.damaged
        self.size = size
        self._descriptor = descriptor

    @property
    def devid(self) -> int:
        """Number of the device in its filesystem."""
        return self.superblock.dev_item.devid

    @property
    def missing_bytes(self) -> int:
        """How much smaller the device is than its superblock says."""
        return max(0, self.superblock.dev_item.total_bytes - self.size)

    def read(self, paddr: int, length: int) -> bytes:
        """Return bytes of the device.

        Raises:
            CorruptError: The device ends before them.
            OSError: They cannot be read.
        """
        data = self.read_up_to(paddr, length)
        if len(data) != length:
            raise CorruptError(
                "device",
                expected=f"{length} bytes",
                found=f"its end at {self.size}",
                device=self.path,
                paddr=paddr,
                hint="the image seems to be cut off",
            )
        return data

    def read_up_to(self, paddr: int, length: int) -> bytes:
        """Return bytes of the device, fewer at its end.

        Raises:
            OSError: They cannot be read.
        """
        # An address can be larger than the system call takes.
        return os.pread(self._descriptor.fd, length, paddr) if paddr < self.size else b""

    def read_into(self, buffer: memoryview, paddr: int) -> int:
        """Fill a buffer with bytes of the device; return how many there were.

        Raises:
            OSError: They cannot be read.
        """
        return os.preadv(self._descriptor.fd, [buffer], paddr)

    def close(self) -> None:
        """Close the file."""
        self._descriptor.close()


def open_device(path: str, copy: int | None = None) -> Device:
    """Open a block device or an image file.

    Args:
        path: Where it is.
        copy: Which copy of the superblock to take, 0 to 2, if not the newest.

    Raises:
        NotBtrfsError: There is no superblock on it, or not that copy.
        CorruptError: There is, but none that is valid.
    """
    descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    try:
        mode = os.fstat(descriptor.fd).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise NotBtrfsError(
                f"{path} is neither a block device nor an image file",
                hint="write what comes out of a pipe into a file first",
            )
        size = os.lseek(descriptor.fd, 0, os.SEEK_END)
        superblocks = read_superblocks(partial(os.pread, descriptor.fd), path, copy)
    except BaseException:
        descriptor.close()
        raise
    return Device(path, descriptor, superblocks, size)


def has_superblock(path: str) -> bool:
    """Return whether a file has a superblock, be it valid or not."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return any(
            _bytes_at(fd, paddr + SUPER_MAGIC_OFFSET, len(SUPER_MAGIC)) == SUPER_MAGIC
            for paddr in SUPER_MIRRORS
        )
    finally:
        os.close(fd)


def _bytes_at(fd: int, paddr: int, length: int) -> bytes:
    """Return bytes of a file; none if they cannot be read, as of a pipe or from a bad sector."""
    try:
        return os.pread(fd, length, paddr)
    except OSError:
        return b""


def find_members(is_wanted: Callable[[Superblock], bool], near: Iterable[str]) -> Iterator[Device]:
    """Yield members of a filesystem that are not known yet, opened.

    The folders of the given image files are searched, and the block devices of the machine. There
    can be several of one number: copies, of which some are out of date.

    Args:
        is_wanted: Returns whether a device is one, given its superblock.
        near: Paths of members that are known.
    """
    for path in _candidates(near):
        try:
            device = open_device(path)
        except (OSError, CorruptError, NotBtrfsError):
            continue
        if is_wanted(device.superblock):
            yield device
        else:
            device.close()


class Superblocks(NamedTuple):
    """The copies of a superblock on a device, sorted into good and bad.

    Attributes:
        chosen: The one to go by.
        damaged: What is wrong with others.
    """

    chosen: Superblock
    damaged: list[CorruptError]


def read_superblocks(
    read: Callable[[int, int], bytes], path: str, copy: int | None = None
) -> Superblocks:
    """Return the valid superblock of the highest generation, or the one that is wanted.

    Args:
        read: Returns so many bytes of the device from an address on, fewer at its end.
        path: Where the device is, for errors.
        copy: Which copy is wanted, 0 to 2, if not the newest.

    Raises:
        NotBtrfsError: There is no superblock.
        CorruptError: There is none that is valid.
    """
    found: list[Superblock] = []
    errors: list[CorruptError] = []
    for paddr in SUPER_MIRRORS if copy is None else [SUPER_MIRRORS[copy]]:
        try:
            superblock = parse_superblock(read(SUPER_INFO_SIZE, paddr), path, paddr)
        except CorruptError as error:
            errors.append(error)
        except OSError as error:
            errors.append(CorruptError(f"superblock, {error.strerror}", device=path, paddr=paddr))
        else:
            if superblock is not None:
                found.append(superblock)
    if found:
        # A copy of another UUID may be left from a filesystem that was here before.
        same = [superblock for superblock in found if superblock.fsid == found[0].fsid]
        return Superblocks(max(same, key=lambda superblock: superblock.generation), errors)
    if errors:
        if copy is None:
            errors[0].hint = errors[0].hint or (
                "no other copy of it is valid either; give the other devices of the filesystem, if"
                " there are any"
            )
        raise errors[0]
    if copy is not None:
        raise NotBtrfsError(
            f"{path} has no copy {copy} of the superblock at {SUPER_MIRRORS[copy]}",
            hint="leave out --super to read it by any copy that is valid",
        )
    raise NotBtrfsError(
        f"{path} holds no btrfs filesystem",
        hint="give a mount point, a block device, an image or a btrfs-image dump",
    )


def _candidates(near: Iterable[str]) -> Iterator[str]:
    """Yield paths where members of a filesystem may be."""
    near = list(near)
    given = {os.path.realpath(path) for path in near}
    folders = {os.path.dirname(path) for path in given if stat.S_ISREG(os.stat(path).st_mode)}
    files = [os.path.join(folder, name) for folder in sorted(folders) for name in _names(folder)]
    devices = [f"/dev/{name.replace('!', '/')}" for name in _names("/sys/class/block")]
    for path in (*filter(os.path.isfile, files), *filter(os.path.exists, devices)):
        if os.path.realpath(path) not in given:
            yield path


def _names(folder: str) -> list[str]:
    """Return the names in a folder; none if it may not be listed."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
