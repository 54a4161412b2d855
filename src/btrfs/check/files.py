"""Which files a piece of data belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from btrfs.errors import BtrfsError
from btrfs.ondisk.columns import Columns
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.extent import ExtentItem
from btrfs.ondisk.key import Key
from btrfs.ownership.paths import Paths

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["FileFinder"]

_MAX_EXTENT = 128 << 20
"""No extent of data is longer (BTRFS_MAX_EXTENT_SIZE)."""

_MAX_NAMES = 3


class FileFinder:
    """Finds the files that use what is at an address.

    Args:
        fs: The filesystem.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._paths = Paths(fs)
        self._known: tuple[int, int, str] = (0, 0, "")

    def at(self, vaddr: int) -> str:
        """Return the names of some files that use a byte of data; empty if none can be found.

        Args:
            vaddr: Virtual address of the byte.
        """
        start, end, names = self._known
        if not start <= vaddr < end:
            try:
                start, end = self._extent_at(vaddr)
                names = self._names(start) if end else ""
            except (BtrfsError, OSError):
                # What leads to the names is damaged, too.
                names = ""
            self._known = (start, end, names)
        return names

    def _extent_at(self, vaddr: int) -> tuple[int, int]:
        """Return where the extent begins and ends that holds an address; twice 0 if none does."""
        first = Key(max(0, vaddr - _MAX_EXTENT), 0, 0)
        last = Key(vaddr, 255, ULLONG_MAX)
        parts: list[Columns] = list(self._fs.columns(ExtentItem, first, last))
        if not parts:
            return 0, 0
        start, length = int(parts[-1]["vaddr"][-1]), int(parts[-1]["length"][-1])
        return (start, start + length) if vaddr < start + length else (0, 0)

    def _names(self, start: int) -> str:
        """Return the names of files that have a piece of an extent."""
        names = []
        shared = 0
        for extent in self._fs.extents(start, start, load_data_refs=True):
            for ref in getattr(extent, "extent_data_refs", []):
                names += [self._name(ref.root, path) for path in self._of(ref.root, ref.objectid)]
            shared += len(getattr(extent, "shared_data_refs", []))
        shown = list(np.unique(names))[:_MAX_NAMES]
        if len(names) > len(shown) or shared:
            shown.append("others")
        return " and ".join(shown)

    def _of(self, tree: int, inum: int) -> list[bytes]:
        return list(self._paths.of_inode(tree, inum)) or [b"a deleted file"]

    def _name(self, tree: int, path: bytes) -> str:
        subvolume = self._paths.of_subvolume(tree)
        whole = path if not subvolume else subvolume + b"/" + path
        return whole.decode(errors="backslashreplace")
