"""File descriptors that are closed exactly once, whatever scripts do with their numbers.

A file descriptor is a number, and the kernel gives the number of a closed file to the next one that
is opened. So closing a number that something else has closed already can close a file that is in
use elsewhere. Scripts do close numbers behind our back: ``os.close(fs.fd); del fs``.

Two rules follow. All reading goes through a :class:`Descriptor`, whose number is never handed out,
and which closes it only while it still leads to the same file. What scripts get is a
:class:`SharedNumber`, a duplicate of it that they may close. It is ours to close only as long as it
is a duplicate. That can be proved: duplicates share one open file of the kernel, and with it the
status flags, so a flag that is switched at our own number switches at the other one, too. A test of
device and inode would not do, as a script may have opened the same path again.
"""

from __future__ import annotations

import fcntl
import os
import weakref

from btrfs.errors import BtrfsError

__all__ = ["Descriptor", "SharedNumber"]


class Descriptor:
    """An open file descriptor, closed at the latest when this object is gone.

    Args:
        fd: The descriptor, which belongs to this object from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._close = weakref.finalize(self, _close_if_same, fd, _identity(fd))

    @property
    def fd(self) -> int:
        """The descriptor.

        Raises:
            BtrfsError: It is closed.
        """
        if not self._close.alive:
            raise BtrfsError("the filesystem is closed", hint="open it again")
        return self._fd

    def close(self) -> None:
        """Close it, unless it is closed already."""
        self._close()


class SharedNumber:
    """A duplicate of a descriptor for scripts, made when its number is first asked for.

    Args:
        descriptor: What it is a duplicate of.
    """

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._close: weakref.finalize[[int, Descriptor], SharedNumber] | None = None
        self._fd = -1

    @property
    def fd(self) -> int:
        """The number, the same each time, even if it was closed by a script.

        Raises:
            BtrfsError: The descriptor is closed.
        """
        own = self._descriptor.fd
        if self._close is None:
            self._fd = fcntl.fcntl(own, fcntl.F_DUPFD_CLOEXEC, 0)
            # The finalizer keeps the descriptor open until the duplicate is closed.
            self._close = weakref.finalize(self, _close_duplicate, self._fd, self._descriptor)
        return self._fd

    def close(self) -> None:
        """Close the number if it is still a duplicate. The descriptor must still be open."""
        if self._close is not None:
            self._close()


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _close_if_same(fd: int, identity: tuple[int, int]) -> None:
    """Close a number unless it is closed or leads to another file."""
    try:
        if _identity(fd) == identity:
            os.close(fd)
    except OSError:
        # Closed behind our back, as os.closerange() does.
        pass


def _close_duplicate(fd: int, descriptor: Descriptor) -> None:
    try:
        if _are_duplicates(fd, descriptor.fd):
            os.close(fd)
    except (OSError, BtrfsError):
        # One of them is closed, so that nothing can be said about the other.
        pass


def _are_duplicates(fd: int, other: int) -> bool:
    """Return whether two numbers share one open file of the kernel.

    O_NONBLOCK means nothing for folders and plain files, so it may be switched for a moment.

    Raises:
        OSError: One of them is closed.
    """
    before = fcntl.fcntl(fd, fcntl.F_GETFL)
    flags = fcntl.fcntl(other, fcntl.F_GETFL)
    fcntl.fcntl(other, fcntl.F_SETFL, flags ^ os.O_NONBLOCK)
    try:
        return fcntl.fcntl(fd, fcntl.F_GETFL) == before ^ os.O_NONBLOCK
    finally:
        fcntl.fcntl(other, fcntl.F_SETFL, flags)
