"""Directories, files and subvolumes as objects to walk through, made as they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ownership.owners import Kind
from btrfs.ownership.places import Places
from btrfs.ownership.subvolume_files import SubvolumeFiles

__all__ = ["Directories", "Entry"]


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

    def subvolume(self, tree: int) -> SubvolumeFiles:
        """Return the directories and files of one subvolume."""
        if tree not in self._subvolumes:
            self._subvolumes[tree] = SubvolumeFiles(self.places, tree)
        return self._subvolumes[tree]

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

    def entry_of_inode(self, tree: int, inum: int) -> Entry | None:
        """Return the directory or file that has an inode number; None if none has."""
        if tree not in self.places.contained.paths:
            return None
        names = self.subvolume(tree).names
        nodes = np.flatnonzero(names.inum == inum)
        return Entry(tree, int(nodes[0]), self) if len(nodes) else None

    def entry(self, path: bytes) -> Entry | None:
        """Return what has a path from the top level; None if nothing has."""
        found: Entry | None = Entry(constants.FS_TREE_OBJECTID, 0, self)
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
        return self._sum("represented")

    @property
    def exclusive(self) -> int:
        """Bytes that nothing else uses: what deleting it frees."""
        return self._sum("exclusive")

    @property
    def unreachable(self) -> int:
        """Of the bytes that are shown here, those that no file reaches any more."""
        return self._sum("unreachable")

    @property
    def referenced(self) -> int:
        """Bytes of all extents that are used here; each counts once."""
        if self.node == 0:
            return self.directories.places.totals(self.tree).referenced
        return self._files.referenced(self.node)

    @property
    def breaks(self) -> int:
        """How often the next piece of a file does not follow on disk; without subvolumes inside."""
        return int(self._files.sizes.breaks[self.node])

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

    def _sum(self, name: str) -> int:
        if self.node == 0:
            # Known without its directories.
            return int(getattr(self.directories.places.totals(self.tree), name))
        return int(getattr(self._files.sizes, name)[self.node])
