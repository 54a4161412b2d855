"""Which files a piece of data belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from btrfs.check.file_paths import FilePaths
from btrfs.errors import BtrfsError
from btrfs.ownership.backref_walk import BackrefWalk, FileRef
from btrfs.ownership.extent_refs import extent_at

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["FileFinder", "FilesAt"]

_MAX_NAMES = 3
_MAX_PLACES = 100
"""Places in files that are looked at for one piece of data."""


class FilesAt(NamedTuple):
    """The files that have to do with a piece of data.

    Attributes:
        readers: Names of files that the piece is part of: their content is concerned.
        keepers: Names of files that use other parts of the same extent: it cannot be freed while
            they do, but their content is whole.
    """

    readers: list[str]
    keepers: list[str]

    def __str__(self) -> str:
        parts = []
        if self.readers:
            parts.append(f"in {_listed(self.readers)}")
        if self.keepers:
            verb = "keeps" if len(self.keepers) == 1 else "keep"
            whole = "its own content is" if len(self.keepers) == 1 else "their own contents are"
            names = _listed(self.keepers)
            parts.append(f"{names} {verb} the extent that it is in, but {whole} whole")
        return "; ".join(parts) if parts else "no file is known to use it"


def _listed(names: list[str]) -> str:
    shown = names[:_MAX_NAMES]
    if len(names) > len(shown):
        shown = [*shown, f"{len(names) - len(shown)} more"]
    return ", ".join(shown[:-1]) + (" and " if shown[1:] else "") + shown[-1]


class FileFinder:
    """Finds the files that use what is at an address.

    Args:
        fs: The filesystem.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._paths = FilePaths(fs)

    def at(self, vaddr: int, length: int) -> FilesAt:
        """Return the files that use some bytes of data, or others of the same extent.

        Args:
            vaddr: Virtual address of the first byte.
            length: How many bytes.
        """
        with self._fs.block_source().log.unchanged():
            return self._at(vaddr, vaddr + length)

    def _at(self, vaddr: int, end: int) -> FilesAt:
        readers: dict[str, None] = {}
        keepers: dict[str, None] = {}
        try:
            while vaddr < end:
                extent = extent_at(self._fs, vaddr)
                part = min(end, extent.vaddr + extent.length) - vaddr
                walk = BackrefWalk(self._fs)
                offset = vaddr - extent.vaddr
                read, _ = walk.files(extent, offset, _MAX_PLACES, part)
                kept, _ = walk.files(extent, None, _MAX_PLACES)
                readers.update(dict.fromkeys(self._names(read)))
                keepers.update(dict.fromkeys(self._names(kept)))
                vaddr += part
        except (BtrfsError, OSError, IndexError):
            # What leads to the names is damaged, too; or the rest is in no extent.
            pass
        return FilesAt(list(readers), [name for name in keepers if name not in readers])

    def _names(self, places: Iterable[FileRef]) -> list[str]:
        names: list[str] = []
        for tree, inum in dict.fromkeys((place.tree, place.inum) for place in places):
            names += self._paths.all_of_inode(tree, inum) or ["a deleted file"]
        return names
