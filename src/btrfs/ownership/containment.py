"""Which subvolume is inside which, and in which of them an extent is shown that several share."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX
from btrfs.ownership.owners import Kind, Owner
from btrfs.ownership.path_tree import Mount
from btrfs.ownership.paths import Paths

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ownership.root_sets import RootSets

__all__ = ["Containment", "Representation", "containment", "representatives"]

_TOP = constants.FS_TREE_OBJECTID


@dataclass(frozen=True, slots=True)
class Representation:
    """In which place an extent is shown that is used in several.

    What matches `prefer` comes first, what matches `ignore` last. Between others, a writable
    subvolume comes before one that is read-only, then the newest, then the one with the shortest
    path; within a subvolume, the file with the shortest path.

    Attributes:
        prefer: Patterns of paths, as in a shell, from the top level. Each step of the path has its
            own pattern, and what is below a directory that matches does, too.
        ignore: The same.
    """

    prefer: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def rank(self, path: bytes) -> int:
        """Return 0 for a path that is preferred, 2 for one that is ignored, 1 for others."""
        if any(matches(pattern, path) for pattern in self.ignore):
            return 2
        return 0 if any(matches(pattern, path) for pattern in self.prefer) else 1


def matches(pattern: str, path: bytes) -> bool:
    """Return whether a path, or a directory on the way to it, matches a pattern."""
    steps = [step for step in pattern.split("/") if step]
    names = [os.fsdecode(name) for name in path.split(b"/") if name]
    return len(names) >= len(steps) and all(map(fnmatchcase, names, steps))


@dataclass(frozen=True, slots=True)
class Containment:
    """The subvolumes that are not deleted, inside each other.

    Attributes:
        paths: Their paths from the top level, by their numbers.
        parents: The subvolume that each is in; the top level is in none.
        mounts: Where in each subvolume others are.
    """

    paths: dict[int, bytes]
    parents: dict[int, int]
    mounts: dict[int, list[Mount]]

    def within(self, tree: int) -> list[int]:
        """Return the numbers of a subvolume and of all that are in it, at any depth."""
        found = [tree]
        for one in found:
            found += (mount.tree for mount in self.mounts.get(one, ()))
        return found

    @property
    def preorder(self) -> list[int]:
        """The numbers of all subvolumes from the top level, each before those that are in it."""
        found, left = [], [_TOP]
        while left:
            tree = left.pop()
            found.append(tree)
            left += (mount.tree for mount in self.mounts.get(tree, ()))
        return found


def containment(fs: FileSystem, owners: Sequence[Owner]) -> Containment:
    """Return how the subvolumes of a filesystem are inside each other.

    Args:
        fs: The filesystem.
        owners: Its trees.
    """
    paths = Paths(fs)
    found = Containment({_TOP: b""}, {}, {})
    for owner in owners:
        if owner.kind is not Kind.SUBVOLUME or owner.tree == _TOP:
            continue
        backref = paths.backref(owner.tree)
        if backref is None:
            continue
        try:
            path = paths.of_subvolume(owner.tree)
        except CorruptError as error:
            fs.source.skip_or_raise(backref.parent_tree, 0, KEY_MAX, error)
            continue
        if path is None:
            continue
        found.paths[owner.tree] = path
        found.parents[owner.tree] = backref.parent_tree
        mount = Mount(owner.tree, backref.dirid, backref.name)
        found.mounts.setdefault(backref.parent_tree, []).append(mount)
    return found


def representatives(
    owners: Sequence[Owner], contained: Containment, sets: RootSets, rule: Representation
) -> NDArray[np.int64]:
    """Return for each set of roots the tree whose files stand for all, 0 for the empty set.

    Args:
        owners: The trees.
        contained: How the subvolumes are inside each other.
        sets: The sets of roots.
        rule: What decides between several.
    """
    by_rank = sorted(range(len(owners)), key=lambda bit: _rank(owners[bit], contained, rule))
    trees = np.array([owners[bit].tree for bit in by_rank], np.uint64).astype(np.int64)
    chosen = np.zeros(len(sets), np.int64)
    for some, members in sets.members(len(owners)):
        ranked = members[:, by_rank]
        chosen[some] = np.where(ranked.any(axis=1), trees[ranked.argmax(axis=1)], 0)
    return chosen


def _rank(
    owner: Owner, contained: Containment, rule: Representation
) -> tuple[bool, int, bool, tuple[int, int], int, int]:
    """Return what sorts trees: what stands for the others comes first."""
    path = contained.paths.get(owner.tree)
    if path is None or owner.item is None:
        return (True, 0, False, (0, 0), 0, owner.tree)
    return (
        False,
        rule.rank(path),
        bool(owner.item.flags & constants.ROOT_SUBVOL_RDONLY),
        (-owner.item.otime.sec, -owner.item.otime.nsec),
        len(path),
        owner.tree,
    )
