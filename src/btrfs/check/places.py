"""Places: the chunks, and what lies between them, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.source.disk.source import DiskSource

__all__ = ["Chunks", "Places", "Stripes", "is_lost"]


class Chunks(NamedTuple):
    """Chunks in the order of their addresses; an entry per chunk in each array.

    Attributes:
        vaddr: Virtual addresses, uint64.
        length: Bytes, uint64.
        flags: Types and profiles, uint64.
        num_stripes: How many device extents they are made of.
    """

    vaddr: NDArray[np.uint64]
    length: NDArray[np.uint64]
    flags: NDArray[np.uint64]
    num_stripes: NDArray[np.int64]


class Stripes(NamedTuple):
    """Stripes of chunks, chunk by chunk; an entry per stripe in each array.

    Attributes:
        devid: Numbers of the devices, uint64.
        paddr: Addresses on the devices in bytes, uint64.
        chunk: Indexes of the chunks.
    """

    devid: NDArray[np.uint64]
    paddr: NDArray[np.uint64]
    chunk: NDArray[np.intp]


class Places:
    """All virtual addresses, divided into chunks and what lies between them.

    Args:
        fs: The filesystem.

    Attributes:
        chunks: All chunks.
        stripes: What they are made of.
        start: Where each place begins, in order, uint64; the first at 0.
        end: Where it ends, which is where the next begins, uint64; the last at the highest number.
        is_chunk: Whether it is a chunk.
        flags: Type and profile of the chunk, 0 of what is none, uint64.
    """

    def __init__(self, fs: FileSystem) -> None:
        self.chunks, self.stripes = _chunks(fs)
        rows: list[tuple[int, bool, int]] = []
        end = 0
        columns = (column.tolist() for column in self.chunks[:3])
        for vaddr, length, flags in zip(*columns, strict=True):
            # Chunks that overlap are reported where the filesystem is opened.
            if vaddr < end:
                continue
            if vaddr > end:
                rows.append((end, False, 0))
            rows.append((vaddr, True, flags))
            end = vaddr + length
        rows.append((end, False, 0))
        self.start = np.array([row[0] for row in rows], np.uint64)
        self.end = np.append(self.start[1:], np.uint64(ULLONG_MAX))
        self.is_chunk = np.array([row[1] for row in rows], np.bool_)
        self.flags = np.array([row[2] for row in rows], np.uint64)

    def __len__(self) -> int:
        return len(self.start)

    @property
    def has_blocks(self) -> NDArray[np.bool_]:
        """Which are chunks that tree blocks can lie in."""
        for_blocks = np.uint64(constants.BLOCK_GROUP_METADATA | constants.BLOCK_GROUP_SYSTEM)
        return np.asarray(self.flags & for_blocks != 0)

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


def _chunks(fs: FileSystem) -> tuple[Chunks, Stripes]:
    """Return all chunks, and their stripes. Each becomes an object once, as it must be checked."""
    rows: list[tuple[int, int, int, int]] = []
    stripes: list[tuple[int, int]] = []
    for chunk in fs.chunks():
        rows.append((chunk.vaddr, chunk.length, chunk.type, chunk.num_stripes))
        stripes += [(stripe.devid, stripe.offset) for stripe in chunk.stripes]
    table = np.array(rows, np.uint64).reshape(-1, 4).T
    num_stripes = table[3].astype(np.int64)
    devid, paddr = np.array(stripes, np.uint64).reshape(-1, 2).T
    chunk_of = np.repeat(np.arange(len(rows)), num_stripes)
    return Chunks(table[0], table[1], table[2], num_stripes), Stripes(devid, paddr, chunk_of)
