"""Subvolumes: how their trees hang together in the root tree, and by the names in directories.

A subvolume is a tree with a root item. Where it is stands in four places, which must agree: in the
root tree under the subvolume that it is in (ROOT_REF) and under its own number (ROOT_BACKREF), and
in the directory that it is in by index (DIR_INDEX) and by the hash of its name (DIR_ITEM). A path
leads from the top level to every subvolume that is not deleted. One that is deleted is in no
directory any more, and an orphan item in the root tree tells the kernel to remove its tree.

A snapshot keeps the entries of the subvolumes that were in its original, and there is no ROOT_REF
for these: they are shown as empty directories. :func:`check_entries` knows them.

The rules are those of fs/btrfs/root-tree.c and fs/btrfs/ioctl.c. What nothing in the kernel relies
on is not checked: a tree of a balance may be of a subvolume that is gone already, and an orphan
item may stay behind when the subvolume is gone.
"""

from __future__ import annotations

import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from btrfs.errors import BtrfsError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.hashes import name_hash
from btrfs.ondisk.items.directory import DirIndex, DirItem, DirItemList
from btrfs.ondisk.items.inode import InodeItem, InodeRefList
from btrfs.ondisk.items.root import RootBackref, RootItem, RootRef
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import counted, embedded_text_for_str
from btrfs.ownership.owners import is_subvolume
from btrfs.ownership.paths import Paths

if TYPE_CHECKING:
    from btrfs.check.report import Checked
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.base import ItemData
    from btrfs.source.disk.source import DiskSource

__all__ = [
    "SubvolumeEntry",
    "Subvolumes",
    "check_entries",
    "check_subvolumes",
    "may_be_snapshot",
    "read_subvolumes",
]

_TREE = constants.ROOT_TREE_OBJECTID
_TOP_LEVEL = constants.FS_TREE_OBJECTID
_TOP = constants.FIRST_FREE_OBJECTID
"""Inode number of the top directory of a subvolume."""

_WITHOUT_PLACE = {_TOP_LEVEL, constants.DATA_RELOC_TREE_OBJECTID}
"""Trees of files that are in no directory."""

_TRANSIDS = ("last_snapshot", "ctransid", "otransid", "rtransid")


class SubvolumeEntry(NamedTuple):
    """An entry of a directory that points to a subvolume.

    Attributes:
        tree: Number of the subvolume that the directory is in.
        dirid: Inode number of the directory.
        sequence: Index of the name in it, the offset of its DIR_INDEX key.
        name: The name.
        child: Number of the subvolume that it points to.
    """

    tree: int
    dirid: int
    sequence: int
    name: bytes
    child: int


_Pair = tuple[int, int]
"""Number of a subvolume, and of one that is in it."""


@dataclass(slots=True)
class Subvolumes:
    """What the root tree says about subvolumes.

    Attributes:
        items: Root items of all trees of files by their numbers.
        refs: Where subvolumes are, as the subvolumes say that they are in.
        backrefs: The same, as the subvolumes themselves say.
        orphans: Numbers that have orphan items.
        default: The entries that say which subvolume is mounted if none is named.
        repeated: Keys of root items of trees that have another one, with a higher key.
        is_complete: Whether all of the root tree could be read.
    """

    items: dict[int, RootItem] = field(default_factory=dict)
    refs: dict[_Pair, RootRef] = field(default_factory=dict)
    backrefs: dict[_Pair, RootBackref] = field(default_factory=dict)
    orphans: set[int] = field(default_factory=set)
    default: list[DirItem] = field(default_factory=list)
    repeated: list[Key] = field(default_factory=list)
    is_complete: bool = True

    def is_live(self, tree: int) -> bool:
        """Return whether there is a subvolume of this number that is not deleted."""
        item = self.items.get(tree)
        return item is not None and item.refs > 0

    def place(self, pair: _Pair) -> RootRef | RootBackref:
        """Return where the one of two subvolumes is in the other."""
        return self.refs.get(pair) or self.backrefs[pair]

    def add(self, item: ItemData) -> None:
        """Add an item of the root tree."""
        if isinstance(item, RootItem):
            if is_subvolume(item.objectid) or item.objectid in _WITHOUT_PLACE:
                if item.objectid in self.items:
                    self.repeated.append(self.items[item.objectid].key)
                self.items[item.objectid] = item
        elif isinstance(item, RootRef):
            self.refs[item.parent_tree, item.tree] = item
        elif isinstance(item, RootBackref):
            self.backrefs[item.parent_tree, item.tree] = item
        elif isinstance(item, DirItemList):
            if item.objectid == constants.ROOT_TREE_DIR_OBJECTID:
                self.default += [entry for entry in item if entry.name == b"default"]
        elif item.key.type == constants.ORPHAN_ITEM_KEY:
            self.orphans.add(item.key.offset)


def read_subvolumes(fs: FileSystem, source: DiskSource) -> Subvolumes:
    """Read what the root tree says about subvolumes."""
    found = Subvolumes()
    for item in fs.search(_TREE):
        found.add(item)
    found.is_complete = not any(lost.tree == _TREE for lost in source.log.lost)
    return found


def check_subvolumes(
    fs: FileSystem, source: DiskSource, found: Subvolumes, checked: Checked
) -> None:
    """Check how subvolumes hang together.

    Args:
        fs: The filesystem.
        source: Its source.
        found: What the root tree says about them.
        checked: Where the findings go.
    """
    check = _Check(fs, source, found, checked)
    if found.is_complete:
        check.all()
    if not found.is_complete or any(lost.tree in found.items for lost in source.log.lost):
        checked.skipped = "not checked where not all can be read"
    count = sum(is_subvolume(tree) for tree in found.items)
    deleted = sum(not item.refs for item in found.items.values())
    checked.counts = {"subvolumes": count, "deleted": deleted, "references": len(found.refs)}
    checked.summary = counted(count, "subvolume")
    if deleted:
        checked.summary += f", {deleted} of them deleted"


def check_entries(
    fs: FileSystem,
    source: DiskSource,
    found: Subvolumes,
    entries: Iterable[SubvolumeEntry],
    checked: Checked,
) -> None:
    """Check that there is a ROOT_REF for each entry of a directory that points to a subvolume.

    The other direction, an entry for each ROOT_REF, is part of :func:`check_subvolumes`.

    Args:
        fs: The filesystem.
        source: Its source.
        found: What the root tree says about subvolumes.
        entries: The entries.
        checked: Where the findings go.
    """
    if not found.is_complete:
        return
    check = _Check(fs, source, found, checked)
    for entry in entries:
        check.entry_of_directory(entry)


class _Check:
    """Checks subvolumes. See check_subvolumes()."""

    def __init__(
        self, fs: FileSystem, source: DiskSource, found: Subvolumes, checked: Checked
    ) -> None:
        self._fs = fs
        self._source = source
        self._found = found
        self._checked = checked
        self._paths = Paths(fs)

    def all(self) -> None:
        """Check everything but the entries that no ROOT_REF leads to."""
        found = self._found
        for key in found.repeated:
            self._add("subvolume-repeated", key.objectid, "", key=key)
        for tree, item in sorted(found.items.items()):
            self._state(tree, item)
            self._generations(tree, item)
            if item.refs:
                self._top(tree)
        for pair in sorted(found.refs.keys() | found.backrefs.keys()):
            self._reference(pair)
            if found.is_live(pair[0]):
                self._entries(pair, found.place(pair))
        self._places()
        self._default()

    def _add(self, kind: str, subvolume: int, where: str, **place: Any) -> None:
        """Add a finding about a subvolume."""
        if place.get("key") is not None:
            place["key"] = str(place["key"])
        place.setdefault("tree", _TREE)
        self._checked.add(
            kind, f"subvolume {subvolume}{where}", path=self._path(subvolume), **place
        )

    def _path(self, tree: int) -> str | None:
        try:
            path = self._paths.of_subvolume(tree)
        except (BtrfsError, OSError):
            # What leads to it is damaged, as is reported.
            return None
        return path.decode(errors="backslashreplace") if path else None

    # One subvolume.

    def _state(self, tree: int, item: RootItem) -> None:
        """Check whether it can be what its root item says: in use, or deleted."""
        if item.refs > 1 or (tree in _WITHOUT_PLACE and not item.refs):
            expected = "1" if tree in _WITHOUT_PLACE else "1, or 0 if it is deleted"
            self._add(
                "subvolume-refs", tree, ", refs", key=item.key, found=item.refs, expected=expected
            )
        elif not item.refs and tree not in self._found.orphans:
            orphan = Key(constants.ORPHAN_OBJECTID, constants.ORPHAN_ITEM_KEY, tree)
            self._add("subvolume-forgotten", tree, "", found="deleted", expected=orphan)

    def _generations(self, tree: int, item: RootItem) -> None:
        """Check that nothing was done in a transaction that has not been yet."""
        last = self._source.superblock.generation
        values = {"offset of the key": item.key.offset} | {
            name: getattr(item, name) for name in _TRANSIDS if _is_valid(item)
        }
        for name, value in values.items():
            if value > last:
                self._add(
                    "subvolume-generation",
                    tree,
                    f", {name}",
                    key=item.key,
                    found=value,
                    expected=f"{last} at most",
                )

    def _top(self, tree: int) -> None:
        """Check the top directory of a tree of files."""
        is_directory = self._is_directory(tree, _TOP)
        key = Key(_TOP, constants.INODE_REF_KEY, _TOP)
        is_named = any(
            ref.name == b".."
            for refs in self._items(tree, key)
            if isinstance(refs, InodeRefList)
            for ref in refs
        )
        if not is_directory:
            key = Key(_TOP, constants.INODE_ITEM_KEY, 0)
            self._add_missing("subvolume-top", tree, key, "the inode of a directory")
        elif not is_named:
            self._add_missing("subvolume-top", tree, key, "a name ..")

    def _add_missing(self, kind: str, tree: int, key: Key, expected: str) -> None:
        if not self._is_lost(tree, key):
            self._add(kind, tree, "", tree=tree, key=key, found="none", expected=expected)

    # Where it is.

    def _reference(self, pair: _Pair) -> None:
        """Compare both items that say where a subvolume is, and the root items that they name."""
        ref, backref = self._found.refs.get(pair), self._found.backrefs.get(pair)
        parent, child = pair
        where = f" in subvolume {parent}"
        if ref is None or backref is None:
            missing = (
                Key(parent, constants.ROOT_REF_KEY, child)
                if ref is None
                else Key(child, constants.ROOT_BACKREF_KEY, parent)
            )
            self._add("subvolume-reference-alone", child, where, expected=missing, found="none")
        elif _described(ref) != _described(backref):
            self._add(
                "subvolume-reference-differs",
                child,
                where,
                key=backref.key,
                found=_described(backref),
                expected=_described(ref),
            )
        for tree in pair:
            if tree not in self._found.items:
                key = self._found.place(pair).key
                self._add("subvolume-missing", tree, "", key=key, found="no root item")

    def _places(self) -> None:
        """Check that there is one path to each subvolume, and none to those that are deleted."""
        parents: dict[int, list[int]] = defaultdict(list)
        children: dict[int, list[int]] = defaultdict(list)
        for parent, child in sorted(self._found.refs.keys() | self._found.backrefs.keys()):
            parents[child].append(parent)
            children[parent].append(child)
        reached = self._reached(children)
        for tree, item in sorted(self._found.items.items()):
            self._places_of(tree, item, parents[tree], is_reached=tree in reached)

    def _reached(self, children: dict[int, list[int]]) -> set[int]:
        """Return all that is below the top level, but for what is below what is deleted."""
        reached, left = {_TOP_LEVEL}, [_TOP_LEVEL]
        while left:
            new = {tree for tree in children[left.pop()] if self._found.is_live(tree)} - reached
            reached |= new
            left += new
        return reached

    def _places_of(
        self, tree: int, item: RootItem, parents: list[int], *, is_reached: bool
    ) -> None:
        listed = " and ".join(f"subvolume {parent}" for parent in parents)
        if not item.refs and parents and tree not in _WITHOUT_PLACE:
            self._add("subvolume-deleted", tree, "", found=f"deleted, but in {listed}")
        elif tree in _WITHOUT_PLACE and parents:
            self._add(
                "subvolume-places", tree, "", found=f"in {listed}", expected="in no directory"
            )
        elif len(parents) > 1:
            self._add("subvolume-places", tree, "", found=f"in {listed}", expected="in one of them")
        elif item.refs and not is_reached and tree not in _WITHOUT_PLACE:
            found = f"in {listed}, which cannot be reached" if parents else "in no directory"
            self._add("subvolume-unreachable", tree, "", key=item.key, found=found)

    # Names in directories.

    def _entries(self, pair: _Pair, place: RootRef | RootBackref) -> None:
        """Check the directory that a subvolume is in, and both entries for it."""
        parent, child = pair
        where = f", directory {place.dirid} of subvolume {parent}"
        if not self._is_directory(parent, place.dirid):
            key = Key(place.dirid, constants.INODE_ITEM_KEY, 0)
            if not self._is_lost(parent, key):
                self._add("subvolume-directory", child, where, tree=parent, key=key)
            return
        for key in (
            Key(place.dirid, constants.DIR_INDEX_KEY, place.sequence),
            Key(place.dirid, constants.DIR_ITEM_KEY, name_hash(place.name)),
        ):
            entry = next(self._named(parent, key, place.name), None)
            if entry is None:
                if not self._is_lost(parent, key):
                    self._add(
                        "subvolume-entry-missing",
                        child,
                        where,
                        tree=parent,
                        key=key,
                        expected=f"an entry {embedded_text_for_str(place.name)}",
                    )
                continue
            found = (entry.location.objectid, entry.location.type, entry.type)
            # The kernel stores any offset in the location, and looks at none.
            if found != (child, constants.ROOT_ITEM_KEY, constants.FT_DIR):
                self._add(
                    "subvolume-entry-differs",
                    child,
                    where,
                    tree=parent,
                    key=key,
                    found=f"{entry.type_str} {entry.location}",
                    expected=f"DIR {Key(child, constants.ROOT_ITEM_KEY, ULLONG_MAX)}",
                )

    def _named(self, tree: int, key: Key, name: bytes) -> Iterator[DirItem | DirIndex]:
        """Yield the entries of a name under a key."""
        for item in self._items(tree, key):
            if isinstance(item, DirIndex):
                entries: list[Any] = [item]
            else:
                entries = list(item) if isinstance(item, DirItemList) else []
            yield from (entry for entry in entries if entry.name == name)

    def entry_of_directory(self, entry: SubvolumeEntry) -> None:
        """Check that an entry belongs to a ROOT_REF, but for those that a snapshot keeps."""
        item = self._found.items.get(entry.tree)
        if item is None or not item.refs or may_be_snapshot(item):
            return
        pair = entry.tree, entry.child
        # Where the two do not agree, that is what is reported.
        places = (self._found.refs.get(pair), self._found.backrefs.get(pair))
        if not any(place is not None and _leads_to(place, entry) for place in places):
            self._add(
                "subvolume-entry-alone",
                entry.child,
                f", directory {entry.dirid} of subvolume {entry.tree}",
                tree=entry.tree,
                key=Key(entry.dirid, constants.DIR_INDEX_KEY, entry.sequence),
                found=f"an entry {embedded_text_for_str(entry.name)}",
            )

    # All of them.

    def _default(self) -> None:
        """Check which subvolume is mounted if none is named."""
        entry = next(iter(self._found.default), None)
        if entry is None:
            self._checked.add("subvolume-default", "no default subvolume", tree=_TREE)
        elif not self._found.is_live(entry.location.objectid):
            self._add("subvolume-default", entry.location.objectid, "", found="no such subvolume")

    # Looking.

    def _is_directory(self, tree: int, inum: int) -> bool:
        items = self._items(tree, Key(inum, constants.INODE_ITEM_KEY, 0))
        return any(isinstance(item, InodeItem) and stat.S_ISDIR(item.mode) for item in items)

    def _items(self, tree: int, key: Key) -> list[ItemData]:
        """Return the item of a key, if there is one that can be read."""
        return list(self._fs.search(tree, key, key))

    def _is_lost(self, tree: int, key: Key) -> bool:
        """Return whether an item may be there that could not be read."""
        return any(lost.overlaps(tree, key, key) for lost in self._source.log.lost)


def _leads_to(place: RootRef | RootBackref, entry: SubvolumeEntry) -> bool:
    """Return whether a reference is to this entry of a directory."""
    found = (place.dirid, place.sequence, place.name)
    return found == (entry.dirid, entry.sequence, entry.name)


def _described(place: RootRef | RootBackref) -> str:
    """Return where a subvolume is, as text."""
    name = embedded_text_for_str(place.name)
    return f"{name} in directory {place.dirid} at index {place.sequence}"


def _is_valid(item: RootItem) -> bool:
    """Return whether what Linux 3.6 added to root items is valid."""
    return item.generation_v2 == item.generation


def may_be_snapshot(item: RootItem) -> bool:
    """Return whether a subvolume is a snapshot, or nothing says that it is none."""
    return bool(item.key.offset or item.parent_uuid.int or not item.uuid.int or not _is_valid(item))
