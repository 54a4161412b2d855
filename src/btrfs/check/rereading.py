"""Leaves that are read a second time, where a comparison needs every row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.source.disk.bulk import BATCH_BYTES, BulkReader, Leaves

if TYPE_CHECKING:
    from btrfs.check.tree_walk import TreeWalk
    from btrfs.errors import BtrfsError
    from btrfs.source.disk.source import DiskSource

__all__ = ["reread"]


def reread(
    source: DiskSource, walk: TreeWalk, roots: int
) -> Iterator[tuple[Leaves, NDArray[np.uint32], NDArray[np.uint32]]]:
    """Yield the leaves of some trees, some at a time, each once.

    Args:
        source: Source of the blocks.
        walk: The trees, which have been read.
        roots: Bit mask of the trees that are wanted.

    Yields:
        Leaves; the number of the leaf of each item; and the numbers of all leaves asked for.
    """
    pointers = walk.graph.leaves()
    wanted = np.flatnonzero(walk.sets.meeting(roots)[walk.leaf_sets])
    trees = source.trees
    reader = BulkReader(trees.store, trees.block_format, source.log, _known)
    at_a_time = max(1, BATCH_BYTES // trees.block_format.nodesize)
    for begin in range(0, len(wanted), at_a_time):
        some = wanted[begin : begin + at_a_time]
        found = reader.leaves(pointers.select(some))
        numbers = some.astype(np.uint32)
        yield found, numbers[found.block], numbers


def _known(_min_key: int, _max_key: int, _error: BtrfsError) -> None:
    """Say nothing of what cannot be read: the first reading has."""
