"""The trees that own extents: small indexes for their numbers, and their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError
from btrfs.ondisk import constants
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.text import printable
from heatmap.extents import types
from heatmap.extents.references import SEVERAL, UNKNOWN

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem

__all__ = ["Trees", "all_trees", "known_trees", "tree_name"]


class Trees:
    """Numbers of trees as small indexes, in the order in which they are met.

    Args:
        numbers: Trees that have an index from the beginning, `references.UNKNOWN` among them.
        fixed: Trees that are met later get no index of their own, but that of UNKNOWN.

    Attributes:
        numbers: The trees by their indexes: numbers of trees, `references.SEVERAL` and UNKNOWN.
    """

    def __init__(self, numbers: Iterable[int], *, fixed: bool = False) -> None:
        self.numbers = list(dict.fromkeys(numbers))
        self._fixed = fixed
        self._index = {number: index for index, number in enumerate(self.numbers)}

    def indexes(self, numbers: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the indexes of these trees."""
        distinct, inverse = np.unique(numbers, return_inverse=True)
        known = np.array([self._index_of(number) for number in distinct.tolist()], dtype=np.int32)
        return known[inverse]

    def _index_of(self, number: int) -> int:
        if number in self._index:
            return self._index[number]
        if self._fixed:
            return self._index[UNKNOWN]
        self._index[number] = len(self.numbers)
        self.numbers.append(number)
        return self._index[number]


def known_trees(fs: FileSystem) -> Iterator[int]:
    """Yield SEVERAL, UNKNOWN and the subvolumes, so that each always has the same colour."""
    yield from (SEVERAL, UNKNOWN, constants.FS_TREE_OBJECTID)
    yield from (root.objectid for root in fs.subvolumes())


def all_trees(fs: FileSystem) -> Iterator[int]:
    """Yield what :func:`known_trees` does, and then all other trees of a filesystem."""
    yield from known_trees(fs)
    yield from (
        constants.ROOT_TREE_OBJECTID,
        constants.CHUNK_TREE_OBJECTID,
        constants.TREE_LOG_OBJECTID,
        constants.TREE_RELOC_OBJECTID,
    )
    for item in fs.search(constants.ROOT_TREE_OBJECTID):
        if isinstance(item, RootItem):
            yield item.objectid


def tree_name(fs: FileSystem, tree: int) -> str:
    """Return what a legend calls a tree, or SEVERAL, or UNKNOWN: of a subvolume, its path."""
    if tree == SEVERAL:
        return "several subvolumes"
    if tree == UNKNOWN:
        return "not known"
    name = types.tree_name(tree)
    if name is not None:
        return name
    from btrfs.ownership.paths import Paths

    try:
        path = Paths(fs).of_subvolume(tree)
    except (BtrfsError, OSError):
        path = None
    return f"subvolume {tree}" if path is None else f"/{printable(path)} ({tree})"
