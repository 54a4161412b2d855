"""Block devices that are read past the page cache.

While a filesystem is mounted, it writes past the page cache of its devices, which goes on showing
what was read there before. O_DIRECT reads what is on the device. It takes buffers and addresses
that are aligned; those of superblocks and tree blocks are, and others are rounded.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Sequence

from btrfs.errors import CorruptError
from btrfs.ondisk.constants import SUPER_INFO_SIZE, SUPER_MIRRORS
from btrfs.source.descriptor import Descriptor
from btrfs.source.disk.devices import Device, Superblocks, read_superblocks
from btrfs.source.disk.superblock import parse_superblock

__all__ = ["ALIGNMENT", "LiveDevice"]

ALIGNMENT = 4096
"""Addresses, lengths and buffers are multiples of it. The sectors of no device that btrfs lies on
are larger than its own, which are of 4096 bytes at least."""

_TRIES = 5
_SECONDS_BETWEEN = 0.01


class LiveDevice(Device):
    """A block device of a mounted filesystem.

    Args:
        path: Where it is.

    Raises:
        NotBtrfsError: There is no superblock on it.
        CorruptError: There is, but none that is valid.
        OSError: It cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor, self._is_direct = _open(path)
        try:
            self.reread()
        except BaseException:
            self._descriptor.close()
            raise

    def reread(self) -> None:
        """Read superblock and size again.

        Raises:
            NotBtrfsError: There is no superblock any more.
            CorruptError: There is, but none that is valid.
        """
        self.size = os.lseek(self._descriptor.fd, 0, os.SEEK_END)
        self.superblock, self.damaged = self._superblocks()

    def _superblocks(self) -> Superblocks:
        for _ in range(_TRIES):
            found = read_superblocks(self._read, self.path)
            if not found.damaged:
                break
            # One that is being written at this moment may be half old and half new.
            time.sleep(_SECONDS_BETWEEN)
        return found

    def generation(self) -> int:
        """Return the generation of the superblock that is on the device now, 0 if there is none.

        Any copy will do: all of them are written before a block is overwritten.
        """
        for paddr in SUPER_MIRRORS:
            try:
                superblock = parse_superblock(self._read(SUPER_INFO_SIZE, paddr), self.path, paddr)
            except (CorruptError, OSError):
                continue
            if superblock is not None:
                return superblock.generation
        return 0

    def read_up_to(self, paddr: int, length: int) -> bytes:
        return self._read(length, paddr) if paddr < self.size else b""

    def read_into(self, buffer: memoryview, paddr: int) -> int:
        return self.read_scattered([buffer], paddr)

    def read_scattered(self, buffers: Sequence[memoryview], paddr: int) -> int:
        """Fill buffers one after another with bytes of the device; return how many there were.

        Args:
            buffers: They begin and end at multiples of ALIGNMENT.
            paddr: Such a multiple.

        Raises:
            OSError: They cannot be read.
        """
        if not self._is_direct:
            length = sum(map(len, buffers))
            os.posix_fadvise(self._descriptor.fd, paddr, length, os.POSIX_FADV_DONTNEED)
        return os.preadv(self._descriptor.fd, buffers, paddr)

    def _read(self, length: int, paddr: int) -> bytes:
        before = paddr % ALIGNMENT
        with mmap.mmap(-1, -(-(before + length) // ALIGNMENT) * ALIGNMENT) as buffer:
            with memoryview(buffer) as view:
                count = self.read_scattered([view], paddr - before)
            return buffer[before : min(before + length, count)]


def _open(path: str) -> tuple[Descriptor, bool]:
    """Open a device; return whether it is read past the page cache, too."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return Descriptor(os.open(path, flags | os.O_DIRECT)), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    # Something that cannot do it: the cache must forget what is read, each time.
    return Descriptor(os.open(path, flags)), False
