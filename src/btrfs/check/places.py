"""Places: the chunks, and what lies between them, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.constants import ULLONG_MAX

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.source.disk.source import DiskSource

__all__ = ["Places", "is_lost"]


class Places:
    """All virtual addresses, divided into chunks and what lies between them.

    Args:
        fs: The filesystem.

    Attributes:
        start: Where each place begins, in order, uint64; the first at 0.
        end: Where it ends, which is where the next begins, uint64; the last at the highest number.
        is_chunk: Whether it is a chunk.
        flags: Type and profile of the chunk, 0 of what is none, uint64.
    """

    def __init__(self, fs: FileSystem) -> None:
        rows: list[tuple[int, bool, int]] = []
        end = 0
        for chunk in fs.chunks():
            # Chunks that overlap are reported where the filesystem is opened.
            if chunk.vaddr < end:
                continue
            if chunk.vaddr > end:
                rows.append((end, False, 0))
            rows.append((chunk.vaddr, True, chunk.type))
            end = chunk.vaddr + chunk.length
        rows.append((end, False, 0))
        self.start = np.array([row[0] for row in rows], np.uint64)
        self.end = np.append(self.start[1:], np.uint64(ULLONG_MAX))
        self.is_chunk = np.array([row[1] for row in rows], np.bool_)
        self.flags = np.array([row[2] for row in rows], np.uint64)

    def __len__(self) -> int:
        return len(self.start)

    def of(self, vaddr: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the index of the place that each address is in."""
        return np.asarray(np.searchsorted(self.start, vaddr, "right") - 1)

    def starting_at(self, vaddr: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the index of the chunk that begins at each address, -1 if none does."""
        place = self.of(vaddr)
        is_start = (self.start[place] == vaddr) & self.is_chunk[place]
        return np.where(is_start, place, -1)

    def lost(self, source: DiskSource, tree: int) -> NDArray[np.bool_]:
        """Return the places for which items of a tree could not be read.

        Args:
            source: Source of the filesystem.
            tree: Number of a tree whose keys begin with an address.
        """
        found = np.zeros(len(self), np.bool_)
        for lost in source.log.lost:
            if lost.tree == tree:
                limits: Any = np.array([lost.min_key.objectid, lost.max_key.objectid], np.uint64)
                first, last = self.of(limits).tolist()
                found[first : last + 1] = True
        return found


def is_lost(source: DiskSource, tree: int, start: int, end: int) -> bool:
    """Return whether items of a tree could not be read, under keys that begin with an address."""
    return any(
        lost.tree == tree and lost.min_key.objectid < end and lost.max_key.objectid >= start
        for lost in source.log.lost
    )
