"""The directories and files of a subvolume, as arrays in preorder.

Every name is a node, and the top directory is node 0. Nodes are numbered in preorder: a directory
is followed by all that is below it, so that a subtree is a range, and a sum over it is the
difference of two running sums. A file of several names has a node for each.

A subvolume inside is a node, too, without anything below it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.constants import FIRST_FREE_OBJECTID
from btrfs.ownership.names import LinkRows

__all__ = ["Mount", "PathTree", "path_tree"]

_NO_INODE = 0


@dataclass(frozen=True, slots=True)
class Mount:
    """Where in a subvolume another one is.

    Attributes:
        tree: Number of the subvolume that is inside.
        dirid: Inode number of the directory that it is in.
        name: Its name there.
    """

    tree: int
    dirid: int
    name: bytes


@dataclass(frozen=True)
class PathTree:
    """The names of a subvolume in preorder. Arrays have an entry per node.

    Attributes:
        tree: Number of the subvolume.
        inum: Inode number, uint64; 0 for a subvolume inside.
        parent: Node of the directory, int64; of the top directory, -1.
        end: The node after the last one below it, int64.
        path_len: Bytes of the path from the top of the subvolume, int64.
        mounts: The subvolumes inside, by their nodes.
    """

    tree: int
    inum: NDArray[np.uint64]
    parent: NDArray[np.int64]
    end: NDArray[np.int64]
    path_len: NDArray[np.int64]
    mounts: dict[int, Mount]
    _names: NDArray[np.uint8]
    _name_at: NDArray[np.int64]
    _name_len: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.inum)

    def name(self, node: int) -> bytes:
        """Return the name of a node; it is empty for the top directory."""
        mount = self.mounts.get(node)
        if mount is not None:
            return mount.name
        at = int(self._name_at[node])
        return self._names[at : at + int(self._name_len[node])].tobytes()

    def names(self, begin: int, end: int) -> list[bytes]:
        """Return the names of a range of nodes; much faster than one by one."""
        at = self._name_at[begin:end].tolist()
        lengths = self._name_len[begin:end].tolist()
        found = [self._names[a : a + n].tobytes() for a, n in zip(at, lengths, strict=True)]
        for node, mount in self.mounts.items():
            if begin <= node < end:
                found[node - begin] = mount.name
        return found

    def path(self, node: int) -> bytes:
        """Return the path of a node from the top of the subvolume."""
        names = []
        while node > 0:
            names.append(self.name(node))
            node = int(self.parent[node])
        return b"/".join(reversed(names))

    def children(self, node: int) -> NDArray[np.int64]:
        """Return the nodes directly below a node."""
        below = slice(node + 1, int(self.end[node]))
        return np.flatnonzero(self.parent[below] == node) + node + 1

    def child(self, node: int, name: bytes) -> int | None:
        """Return the node of a name in a directory; None if there is none."""
        children = self.children(node).tolist()
        return next((one for one in children if self.name(one) == name), None)

    def matching(self, pattern: str, above: bytes = b"") -> list[int]:
        """Return the nodes whose paths match a pattern.

        Args:
            pattern: A pattern for each step of a path, from the top level of the filesystem.
            above: Path of the subvolume there.
        """
        steps = [step for step in pattern.split("/") if step]
        for name in filter(None, above.split(b"/")):
            if not steps or not fnmatchcase(os.fsdecode(name), steps.pop(0)):
                return []
        found = [0]
        for step in steps:
            found = [
                child
                for node in found
                for child in self.children(node).tolist()
                if fnmatchcase(os.fsdecode(self.name(child)), step)
            ]
        return found

    @cached_property
    def inodes(self) -> NDArray[np.uint64]:
        """The inode numbers that have a name, each once, ascending."""
        return np.unique(self.inum)

    @cached_property
    def nodes_by_inode(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All nodes, those of an inode together; and where in them those of each inode begin."""
        order = np.argsort(self.inum, kind="stable")
        return order, np.searchsorted(self.inum[order], self.inodes)

    @cached_property
    def first_and_last(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last node of each inode."""
        order, first = self.nodes_by_inode
        return order[first], order[np.append(first[1:], len(order)) - 1]

    def first_by(self, rank: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return of each inode the node of the lowest rank, of these the first.

        Args:
            rank: Of each node.
        """
        order, first = self.nodes_by_inode
        by_rank = np.lexsort((order, rank[order], self.inum[order]))
        return order[by_rank][first]

    def index_of(self, inum: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the index of inode numbers in `inodes`, or -1 for one without a name."""
        index = np.searchsorted(self.inodes, inum)
        index[index == len(self.inodes)] = 0
        return np.where(self.inodes[index] == inum, index, -1)

    def common_ancestor(
        self, first: NDArray[np.int64], last: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the lowest nodes that have both of two nodes below them, or are these.

        Args:
            first: Nodes.
            last: For each another one that is not before it.
        """
        found = first.copy()
        left = np.flatnonzero(self.end[found] <= last)
        while len(left):
            found[left] = self.parent[found[left]]
            left = left[self.end[found[left]] <= last[left]]
        return found

    def sums_below(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return for each node the sum of values over it and all below it."""
        running = np.zeros(len(self) + 1, np.int64)
        np.cumsum(values, out=running[1:])
        return running[self.end] - running[:-1]


def path_tree(
    tree: int, links: LinkRows, names: NDArray[np.uint8], mounts: Sequence[Mount]
) -> PathTree:
    """Return the names of a subvolume in preorder.

    What is in no directory that leads to the top, as only damage makes it, is put there.

    Args:
        tree: Number of the subvolume.
        links: The names of its inodes.
        names: The bytes of all names.
        mounts: The subvolumes inside.
    """
    top = np.array([FIRST_FREE_OBJECTID], np.uint64)
    none = np.full(1 + len(mounts), _NO_INODE, np.uint64)
    folders = np.array([mount.dirid for mount in mounts], np.uint64)
    inum = np.concatenate([top, links.inum, none[1:]])
    above = np.concatenate([none[:1], links.parent, folders])
    mount_lens = [len(mount.name) for mount in mounts]
    name_len = np.concatenate([[0], links.name_len, mount_lens]).astype(np.int64)
    name_at = np.concatenate([[0], links.name_at, np.zeros(len(mounts))]).astype(np.int64)
    parent = _parents(inum, above)
    levels = _levels(parent)
    order, size = _preorder(parent, levels)
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    parent = np.where(parent < 0, -1, position[parent])[order]
    path_len = np.zeros(len(order), np.int64)
    for level in levels[1:]:
        nodes = position[level]
        above_len = path_len[parent[nodes]]
        path_len[nodes] = above_len + (above_len > 0) + name_len[level]
    first_mount = len(inum) - len(mounts)
    return PathTree(
        tree,
        inum[order],
        parent,
        np.arange(len(order)) + size[order],
        path_len,
        {int(position[first_mount + index]): mount for index, mount in enumerate(mounts)},
        names,
        name_at[order],
        name_len[order],
    )


def _parents(inum: NDArray[np.uint64], above: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return for each name the index of that of its directory; -1 for the top directory."""
    order = np.argsort(inum, kind="stable")
    found = np.searchsorted(inum[order], above)
    found[found == len(inum)] = 0
    index = order[found]
    parent = np.where(inum[index] == above, index, 0)
    parent[0] = -1
    return parent


def _levels(parent: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the names of each depth, those of a directory together; changes parents in circles."""
    by_parent = np.argsort(parent, kind="stable")
    begins = np.searchsorted(parent[by_parent], np.arange(len(parent) + 1))
    levels = [np.zeros(1, np.int64)]
    seen = np.zeros(len(parent), np.bool_)
    seen[0] = True
    while True:
        above = levels[-1]
        count = begins[above + 1] - begins[above]
        first = np.repeat(begins[above] - (np.cumsum(count) - count), count)
        below = by_parent[first + np.arange(len(first))]
        if not len(below):
            break
        seen[below] = True
        levels.append(below)
    in_circles = np.flatnonzero(~seen)
    if len(in_circles):
        # All of them go to the top: which of the names of a circle is wrong is not known.
        parent[in_circles] = 0
        return _levels(parent)
    return levels


def _preorder(
    parent: NDArray[np.int64], levels: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the names in preorder, and for each name how many are in its subtree."""
    size = np.ones(len(parent), np.int64)
    for level in reversed(levels[1:]):
        np.add.at(size, parent[level], size[level])
    position = np.zeros(len(parent), np.int64)
    for level in levels[1:]:
        running = np.cumsum(size[level]) - size[level]
        is_first = np.diff(parent[level], prepend=-1) != 0
        first = np.flatnonzero(is_first)
        group = np.cumsum(is_first) - 1
        position[level] = position[parent[level]] + 1 + running - running[first][group]
    order = np.empty(len(parent), np.int64)
    order[position] = np.arange(len(parent))
    return order, size
