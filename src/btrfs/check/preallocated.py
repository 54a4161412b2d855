"""Pieces of files that are only preallocated, but have checksums: was something written to them?

A preallocated piece reads as zeros. When it is written to, it becomes a piece with data, and gets
checksums, in one transaction. So a piece with checksums that is still told to be preallocated hides
what was written. Only if another piece with data lies on the same bytes, which have their checksums
from it, nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.pieces import pieces_of_files
from btrfs.check.rereading import reread
from btrfs.ondisk import constants

if TYPE_CHECKING:
    from btrfs.check.inodes import ChecksumRuns
    from btrfs.check.small_rows import SmallRows
    from btrfs.check.tree_walk import TreeWalk
    from btrfs.source.disk.source import DiskSource

__all__ = ["HiddenData", "hidden_data"]

Numbers = NDArray[np.uint64]


class HiddenData(NamedTuple):
    """Data in a piece of a file that is told to be only preallocated.

    Attributes:
        leaf: Number of the leaf with the piece.
        inum: Inode number of the file.
        vaddr: Virtual address where the piece begins.
        found: How many of its bytes have checksums that no other piece stands for.
    """

    leaf: int
    inum: int
    vaddr: int
    found: int


def hidden_data(
    source: DiskSource, walk: TreeWalk, rows: SmallRows, runs: ChecksumRuns
) -> Iterator[HiddenData]:
    """Yield preallocated pieces whose checksums no other piece stands for.

    Args:
        source: Source of the blocks.
        walk: The trees, which have been read.
        rows: The preallocated pieces that have checksums: inode, begin and end of each.
        runs: Which addresses have checksums.
    """
    if not len(rows.leaf):
        return
    asked_start, asked_end = merged(rows.two, rows.three)
    parts = [(np.empty(0, np.uint64), np.empty(0, np.uint64))]
    for leaves, _, _ in reread(source, walk, walk.with_leaves):
        pieces = pieces_of_files(leaves.batch)
        written = pieces.select(pieces.kind == constants.FILE_EXTENT_REG)
        start, end = written.on_disk()
        index = np.searchsorted(asked_end, start, "right")
        near = asked_start[np.minimum(index, len(asked_start) - 1)]
        chosen = (written.vaddr != 0) & (start < end) & (index < len(asked_end)) & (near < end)
        parts.append((start[chosen], end[chosen]))
    start, end = merged(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    for leaf, inum, first, last in zip(*(column.tolist() for column in rows), strict=True):
        low, high = np.uint64(first), np.uint64(last)
        total = runs.bytes_within(np.array([low]), np.array([high]))
        covered = runs.bytes_within(np.clip(start, low, high), np.clip(end, low, high))
        hidden = int(total.sum()) - int(covered.sum())
        if hidden:
            yield HiddenData(leaf, inum, first, hidden)


def merged(start: Numbers, end: Numbers) -> tuple[Numbers, Numbers]:
    """Return ranges in order, with those made one that meet or overlap."""
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    begins = np.ones(len(start), np.bool_)
    begins[1:] = start[1:] > end[:-1]
    first = np.flatnonzero(begins)
    return start[first], end[np.append(first[1:], len(start)) - 1] if len(first) else end
