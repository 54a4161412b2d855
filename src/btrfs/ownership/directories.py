"""Directories, files and subvolumes as objects to walk through, made as they are asked for."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ownership.owners import Kind
from btrfs.ownership.places import Places
from btrfs.ownership.subvolume_files import SubvolumeFiles

__all__ = ["Directories", "Entry", "Sort"]

Sort = Literal["represented", "exclusive", "referenced", "unreachable", "breaks"]
"""What directories and files can be sorted by: a size, or how fragmented they are."""

_MOST_SUBVOLUMES = 8
"""The files of so many subvolumes are kept in memory: each takes some hundred bytes per file."""


class Directories:
    """The directories of all subvolumes.

    Args:
        places: Where the extents of each set of roots are at home, and where they are shown.

    Attributes:
        places: As given.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self._subvolumes: dict[int, SubvolumeFiles] = {}
        self._breaks: dict[int, int] = {}
        self._with_inside: dict[int, NDArray[np.int64]] = {}

    def subvolume(self, tree: int) -> SubvolumeFiles:
        """Return the directories and files of one subvolume."""
        files = self._subvolumes.pop(tree, None)
        if files is None:
            files = SubvolumeFiles(self.places, tree)
        # The one that was asked for last comes last.
        self._subvolumes[tree] = files
        if len(self._subvolumes) > _MOST_SUBVOLUMES:
            del self._subvolumes[next(iter(self._subvolumes))]
        return files

    def values(self, tree: int, sort: Sort) -> NDArray[np.int64]:
        """Return a size, or the breaks, of each node of a subvolume, with all that is below it."""
        files = self.subvolume(tree)
        if sort != "breaks" or not files.names.mounts:
            found: NDArray[np.int64] = getattr(files.sizes, sort)
            return found
        if tree not in self._with_inside:
            inside = np.zeros(len(files.names), np.int64)
            for node, mount in files.names.mounts.items():
                inside[node] = self.breaks(mount.tree)
            self._with_inside[tree] = files.sizes.breaks + files.names.sums_below(inside)
        return self._with_inside[tree]

    def breaks(self, tree: int) -> int:
        """Return how often the next piece of a file does not follow on disk, in a whole subvolume.

        Those in subvolumes inside count, too; but where files can only be read there are none.
        """
        total = 0
        for one in self.places.contained.within(tree):
            if one not in self._breaks:
                self._breaks[one] = SubvolumeFiles(self.places, one).breaks
            total += self._breaks[one]
        return total

    def freed_by(self, entries: Iterable[Entry]) -> int:
        """Return the bytes of data that deleting some directories, files and subvolumes frees.

        A file that has other names stays, and so does an extent that anything else uses.
        """
        whole: set[int] = set()
        deleted: dict[int, NDArray[np.bool_]] = {}
        for entry in entries:
            files = self.subvolume(entry.tree)
            if entry.is_subvolume:
                whole.update(self.places.contained.within(entry.tree))
                continue
            whole.update(files.subvolumes_below(entry.node))
            nodes = deleted.setdefault(entry.tree, np.zeros(len(files.names), np.bool_))
            nodes[entry.node : files.names.end[entry.node]] = True
        sets, extents = self.places.scan.sets, self.places.scan.extents
        already = self.places.mask(
            owner.tree for owner in self.places.scan.owners if owner.kind is Kind.DELETED
        )
        within = sets.within(self.places.mask({*whole, *deleted}) | already)
        is_freed = (within & ~sets.within(already))[extents.set_id]
        for tree in deleted.keys() - whole:
            is_freed[self.subvolume(tree).kept(deleted[tree])] = False
        return int(extents.num_bytes[is_freed].sum(dtype=np.int64))

    def unnamed(self) -> int:
        """Return the bytes that are shown in files without a name, of all subvolumes.

        These are deleted, but were open when it was read. Where names are lost, their files count.
        """
        scanned = self.places.scan
        trees = {tree for tree in self.places.contained.paths if self.places.shown(tree)}
        if not scanned.incomplete:
            leaf = scanned.inodes.leaf[scanned.inodes.nlink == 0]
            mask = 0
            for number in np.unique(scanned.leaf_sets[leaf]).tolist():
                mask |= scanned.sets.masks[number]
            trees &= {one.tree for bit, one in enumerate(scanned.owners) if mask >> bit & 1}
        return sum(self.subvolume_top(tree).unnamed for tree in sorted(trees))

    def entry_of_inode(self, tree: int, inum: int) -> Entry | None:
        """Return the directory or file that has an inode number; None if none has."""
        if tree not in self.places.contained.paths:
            return None
        names = self.subvolume(tree).names
        nodes = np.flatnonzero(names.inum == inum)
        return Entry(tree, int(nodes[0]), self) if len(nodes) else None

    @property
    def top(self) -> Entry:
        """The top level of the filesystem."""
        return self.subvolume_top(constants.FS_TREE_OBJECTID)

    def subvolume_top(self, tree: int) -> Entry:
        """Return the top directory of a subvolume."""
        return Entry(tree, 0, self)

    def entry(self, path: bytes) -> Entry | None:
        """Return what has a path from the top level; None if nothing has."""
        found: Entry | None = self.top
        for name in filter(None, path.split(b"/")):
            found = found.child(name) if found is not None else None
        return found


@dataclass(frozen=True, slots=True)
class Entry:
    """A directory, a file or a subvolume.

    Sizes are bytes of data on disk, before redundancy, of all that is below it, subvolumes
    included. Content that is inline in metadata does not count.

    Attributes:
        tree: Number of the subvolume that it is in.
        node: Its node there, see :class:`btrfs.ownership.path_tree.PathTree`; 0 is the top.
        directories: The directories of all subvolumes.
    """

    tree: int
    node: int
    directories: Directories

    def __repr__(self) -> str:
        return f"<Entry {self.path!r}>"

    @property
    def name(self) -> bytes:
        """Its name; empty for the top level."""
        return self.path.rpartition(b"/")[2]

    @property
    def path(self) -> bytes:
        """Its path from the top level, without a leading slash."""
        above = self.directories.places.contained.paths[self.tree]
        inside = self._files.names.path(self.node) if self.node else b""
        return b"/".join(filter(None, (above, inside)))

    @property
    def is_subvolume(self) -> bool:
        """Whether it is the top of a subvolume."""
        return self.node == 0

    @property
    def represented(self) -> int:
        """Bytes of the extents that are shown here: each extent is shown in one place only."""
        return self._value("represented")

    @property
    def exclusive(self) -> int:
        """Bytes that nothing else uses: what deleting it frees."""
        return self._value("exclusive")

    @property
    def unreachable(self) -> int:
        """Of the bytes that are shown here, those that no file reaches any more."""
        return self._value("unreachable")

    @property
    def referenced(self) -> int:
        """Bytes of all extents that are used here; each counts once."""
        return self._value("referenced")

    @property
    def breaks(self) -> int:
        """How often the next piece of a file does not follow on disk.

        Those in subvolumes that can only be read do not count: nothing can be done about them.
        """
        return self._value("breaks")

    @property
    def unnamed(self) -> int:
        """Bytes that are shown here in files without a name: deleted, but open when it was read.

        Only the top of a subvolume has any.
        """
        return int(self._files.files.represented[-1]) if self.node == 0 else 0

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory, or a subvolume."""
        if self.node == 0:
            return True
        names = self._files.names
        index = names.index_of(names.inum[self.node : self.node + 1])
        return stat.S_ISDIR(int(self._files.inodes.mode[index[0]]))

    def largest(self, sort: Sort, limit: int | None = None, least: int = 0) -> list[Entry]:
        """Return what is directly in it and largest, the largest first.

        Args:
            sort: By what to compare.
            limit: Return so many at most.
            least: Leave out what has less.
        """
        nodes = self._files.names.children(self.node)
        values = self.directories.values(self.tree, sort)[nodes]
        chosen = np.flatnonzero(values >= least)
        chosen = chosen[np.argsort(-values[chosen], kind="stable")][:limit]
        return [self._entry(node) for node in nodes[chosen].tolist()]

    def count(self) -> int:
        """Return how many directories, files and subvolumes are directly in it."""
        return len(self._files.names.children(self.node))

    def children(self) -> Iterator[Entry]:
        """Yield what is directly in it; nothing if it is a file."""
        names = self._files.names
        for node in names.children(self.node).tolist():
            yield self._entry(node)

    def child(self, name: bytes) -> Entry | None:
        """Return what has a name in it; None if nothing has."""
        node = self._files.names.child(self.node, name)
        return None if node is None else self._entry(node)

    def shared_with(self) -> dict[int, int]:
        """Return which other subvolumes use how many bytes of the extents that are used here."""
        scanned = self.directories.places.scan
        inside = self._files.subvolumes_below(self.node)
        extent = self._files.extents_below(self.node)
        ids = scanned.extents.set_id[extent].astype(np.intp)
        sums = np.bincount(ids, scanned.extents.num_bytes[extent], len(scanned.sets))
        found: dict[int, int] = {}
        for number in np.flatnonzero(sums).tolist():
            mask = scanned.sets.masks[number]
            for bit, owner in enumerate(scanned.owners):
                if mask >> bit & 1 and owner.tree not in (self.tree, *inside):
                    found[owner.tree] = found.get(owner.tree, 0) + int(sums[number])
        return found

    @property
    def _files(self) -> SubvolumeFiles:
        return self.directories.subvolume(self.tree)

    def _entry(self, node: int) -> Entry:
        mount = self._files.names.mounts.get(node)
        if mount is not None:
            return Entry(mount.tree, 0, self.directories)
        return Entry(self.tree, node, self.directories)

    def _value(self, name: Sort) -> int:
        if self.node == 0:
            # Known without its directories.
            if name == "breaks":
                return self.directories.breaks(self.tree)
            return int(getattr(self.directories.places.totals(self.tree), name))
        return int(self.directories.values(self.tree, name)[self.node])
