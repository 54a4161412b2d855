"""The paths of files, for findings: whatever else is damaged, looking for one does not fail."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btrfs.errors import BtrfsError
from btrfs.ownership.paths import Paths

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["FilePaths"]


class FilePaths:
    """Finds the paths of inodes from the top of the filesystem.

    Args:
        fs: The filesystem.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._paths = Paths(fs)
        self._log = fs.block_source().log

    def of_inode(self, tree: int, inum: int) -> str | None:
        """Return one path of an inode; None if it has none, or what leads to it is damaged.

        Args:
            tree: Number of the subvolume.
            inum: Inode number.
        """
        return next(iter(self.all_of_inode(tree, inum)), None)

    def all_of_inode(self, tree: int, inum: int) -> list[str]:
        """Return the paths of an inode, one for each name that can be found."""
        with self._log.unchanged():
            return self._all_of_inode(tree, inum)

    def _all_of_inode(self, tree: int, inum: int) -> list[str]:
        try:
            subvolume = self._paths.of_subvolume(tree)
            paths = list(self._paths.of_inode(tree, inum))
        except (BtrfsError, OSError):
            return []
        if subvolume is None:
            return []
        return [_joined(subvolume, path) for path in paths]


def _joined(subvolume: bytes, path: bytes) -> str:
    return "/" + b"/".join(filter(None, (subvolume, path))).decode(errors="backslashreplace")
