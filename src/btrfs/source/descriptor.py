"""File descriptors that are closed once, at the latest when nobody has them any more."""

from __future__ import annotations

import os
import weakref

from btrfs.errors import BtrfsError

__all__ = ["Descriptor"]


class Descriptor:
    """An open file descriptor.

    Scripts often drop a filesystem without closing it, and others close it twice: the number may
    belong to another file by then.

    Args:
        fd: The descriptor, which belongs to this object from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._close = weakref.finalize(self, os.close, fd)

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
