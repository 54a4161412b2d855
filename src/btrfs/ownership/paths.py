"""Paths: from a path to the inode that it leads to, and from inodes and subvolumes to their paths.

Everything is read from the trees, so it works on filesystems that are not mounted, and in
subvolumes that no mount shows. Paths are bytes without a leading slash, since that is what the
filesystem knows; the top of a subvolume is ``b""``.

    with btrfs.FileSystem('disk.img') as fs:
        place = btrfs.ownership.paths.lookup(fs, 'home/fred/notes')
        print(place.tree, place.inum)
        print(btrfs.ownership.paths.Paths(fs).of_subvolume(place.tree))
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from btrfs.errors import CorruptError, PathNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.hashes import name_hash
from btrfs.ondisk.items.directory import DirItem, DirItemList
from btrfs.ondisk.items.inode import InodeExtrefList, InodeRefList
from btrfs.ondisk.items.root import RootBackref
from btrfs.ondisk.key import Key

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["Paths", "Place", "lookup"]

_TOP = constants.FIRST_FREE_OBJECTID
"""Inode number of the top directory of a subvolume."""


class Place(NamedTuple):
    """Where a path leads to.

    Attributes:
        tree: Number of the subvolume.
        inum: Inode number in it.
    """

    tree: int
    inum: int


def lookup(fs: FileSystem, path: str | bytes, tree: int = constants.FS_TREE_OBJECTID) -> Place:
    """Return where a path inside the filesystem leads to.

    Subvolumes on the way are entered, symbolic links are not followed. A ``..`` takes away the name
    before it, whatever that leads to, and never leads out of the subvolume that the path begins in.

    Args:
        fs: The filesystem.
        path: The path; a leading slash makes no difference.
        tree: Number of the subvolume that the path begins in; the top level if not given.

    Raises:
        PathNotFoundError: There is no such path; the hint says how far it goes.
        OSError: ENOENT if there is no such subvolume.
    """
    place = Place(tree, _TOP)
    passed: list[bytes] = []
    for name in os.path.normpath(b"/" + os.fsencode(path)).split(b"/"):
        if not name:
            continue
        entry = _entry(fs, place, name)
        if entry is None:
            raise _not_found(path, name, passed)
        place = _target(fs, place, entry)
        passed.append(name)
    return place


def _entry(fs: FileSystem, place: Place, name: bytes) -> DirItem | None:
    """Return the entry of a directory that has this name."""
    key = Key(place.inum, constants.DIR_ITEM_KEY, name_hash(name))
    for entries in fs.search(place.tree, key, key):
        if isinstance(entries, DirItemList):
            return next((entry for entry in entries if entry.name == name), None)
    return None


def _target(fs: FileSystem, place: Place, entry: DirItem) -> Place:
    """Return what an entry of the directory at a place leads to."""
    if entry.location.type != constants.ROOT_ITEM_KEY:
        return Place(place.tree, entry.location.objectid)
    subvolume = entry.location.objectid
    key = Key(place.tree, constants.ROOT_REF_KEY, subvolume)
    for _ in fs.search(constants.ROOT_TREE_OBJECTID, key, key):
        return Place(subvolume, _TOP)
    # A snapshot has the entries of the subvolumes in its original, but not these themselves. The
    # kernel shows an empty directory there (fixup_tree_root_location() in fs/btrfs/inode.c).
    raise PathNotFoundError(
        f"{_printable(entry.name)}: an empty directory in place of subvolume {subvolume}",
        hint="this snapshot was made of a subvolume that contains another; look for it there",
    )


def _not_found(path: str | bytes, name: bytes, passed: list[bytes]) -> PathNotFoundError:
    where = f"in {_printable(b'/'.join(passed))}" if passed else "at the top"
    return PathNotFoundError(
        f"{_printable(os.fsencode(path))}: no such path in the filesystem",
        hint=f"there is no {_printable(name)} {where}; symbolic links are not followed",
    )


def _printable(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


class Paths:
    """Finds the paths of inodes and subvolumes, and remembers the directories it has come across.

    Args:
        fs: The filesystem, which must stay open.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        # What is one step above, not whole paths: where directories lie deep inside one another,
        # as they can without any damage, these would take memory by the square of the depth.
        self._above: dict[Place, tuple[int, bytes]] = {}
        self._backrefs: dict[int, RootBackref | None] = {}

    def of_inode(self, tree: int, inum: int) -> Iterator[bytes]:
        """Yield the paths of an inode from the top of its subvolume, one per hard link.

        There are none if it was deleted and is only still open.

        Args:
            tree: Number of the subvolume.
            inum: Inode number.

        Raises:
            CorruptError: The directories contain each other, or one of them has no name.
            OSError: ENOENT if there is no such subvolume.
        """
        if inum == _TOP:
            yield b""
            return
        for directory, name in self._names(tree, inum):
            yield _joined(self._of_directory(Place(tree, directory)), name)

    def of_subvolume(self, tree: int) -> bytes | None:
        """Return the path of a subvolume from the top level; None if it has none any more.

        Raises:
            CorruptError: The subvolumes or directories contain each other.
        """
        chain: list[RootBackref] = []
        seen = {tree}
        below = tree
        while below != constants.FS_TREE_OBJECTID:
            if below not in self._backrefs:
                self._backrefs[below] = self.backref(below)
            backref = self._backrefs[below]
            if backref is None:
                return None
            chain.append(backref)
            below = backref.parent_tree
            if below in seen:
                raise CorruptError(f"subvolume {tree}", expected="a path", found="a circle")
            seen.add(below)
        parts: list[bytes] = []
        for backref in reversed(chain):
            directory = Place(backref.parent_tree, backref.dirid)
            parts += [self._of_directory(directory), backref.name]
        return b"/".join(filter(None, parts))

    def backref(self, tree: int) -> RootBackref | None:
        """Return where a subvolume is; None if it has no name any more."""
        first = Key(tree, constants.ROOT_BACKREF_KEY, 0)
        last = Key(tree, constants.ROOT_BACKREF_KEY, constants.ULLONG_MAX)
        for item in self._fs.search(constants.ROOT_TREE_OBJECTID, first, last):
            if isinstance(item, RootBackref):
                return item
        return None

    def _of_directory(self, place: Place) -> bytes:
        """Return the path of a directory from the top of its subvolume."""
        names: list[bytes] = []
        seen = {place}
        above = place
        while above.inum != _TOP:
            inum, name = self._one_above(above)
            names.append(name)
            above = Place(place.tree, inum)
            if above in seen:
                raise CorruptError(
                    f"directory {place.inum} of tree {place.tree}",
                    expected="a path",
                    found="a circle",
                )
            seen.add(above)
        return b"/".join(filter(None, reversed(names)))

    def _one_above(self, place: Place) -> tuple[int, bytes]:
        """Return the inode number of the directory that a directory is in, and its name there."""
        if place not in self._above:
            found = next(self._names(place.tree, place.inum), None)
            if found is None:
                raise CorruptError(
                    f"directory {place.inum} of tree {place.tree}", expected="a name", found="none"
                )
            self._above[place] = found
        return self._above[place]

    def _names(self, tree: int, inum: int) -> Iterator[tuple[int, bytes]]:
        """Yield inode number of the directory and name, for each name of an inode."""
        first = Key(inum, constants.INODE_REF_KEY, 0)
        last = Key(inum, constants.INODE_EXTREF_KEY, constants.ULLONG_MAX)
        for refs in self._fs.search(tree, first, last):
            if isinstance(refs, InodeRefList):
                for ref in refs:
                    yield refs.parent_objectid, ref.name
            elif isinstance(refs, InodeExtrefList):
                for extref in refs:
                    yield extref.parent_objectid, extref.name


def _joined(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path and name else path or name
