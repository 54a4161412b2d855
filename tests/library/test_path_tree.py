"""The arrays of names and sizes of directories beside plain walks, on made-up filesystems.

The bytes of extent N are 1 << N, so that a sum tells which extents are in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings, strategies as st

from btrfs.ownership.containment import Containment, Representation
from btrfs.ownership.directories import Directories, Entry
from btrfs.ownership.extents import data_extents, reference_table
from btrfs.ownership.largest import largest_entries, largest_files
from btrfs.ownership.names import InodeRows, LinkRows
from btrfs.ownership.owners import Kind, Owner
from btrfs.ownership.path_tree import Mount, path_tree
from btrfs.ownership.places import Places
from btrfs.ownership.root_sets import RootSets
from btrfs.source.disk.node import Pointer

TOP = 256
DELETED = 300
PIECE = 512
Path = tuple[str, ...]


class Inode(NamedTuple):
    """An inode in a leaf: names as pairs of parent and name, and pieces: extent, part, position."""

    leaf: int
    is_directory: bool
    names: list[tuple[int, str]]
    pieces: list[tuple[int, int, int]]


@dataclass
class Made:
    """A filesystem.

    Attributes:
        leaves: The trees that reach each leaf.
        inodes: By inode number; each is in one leaf, so all trees that reach it have it.
        mounts: By the number of a subvolume: the one that it is in, its directory, its name.
        read_only: The subvolumes that can only be read.
    """

    leaves: list[set[int]]
    inodes: dict[int, Inode]
    mounts: dict[int, tuple[int, int, str]]
    read_only: set[int] = field(default_factory=set)

    def paths(self, tree: int, inum: int) -> list[Path]:
        """Return all paths of an inode from the top level."""
        if inum == TOP:
            return [self.top(tree)]
        return [(*self.folder(tree, parent), name) for parent, name in self.inodes[inum].names]

    def folder(self, tree: int, inum: int) -> Path:
        """Return the path of a directory; what is in none that is there, is in the top one."""
        inode = self.inodes.get(inum)
        if inode is None or tree not in self.leaves[inode.leaf] or not inode.names:
            return self.top(tree)
        return self.paths(tree, inum)[0]

    def top(self, tree: int) -> Path:
        """Return the path of a subvolume."""
        if tree not in self.mounts:
            return ()
        parent, dirid, name = self.mounts[tree]
        return (*self.folder(parent, dirid), name)

    def uses(self) -> Iterator[tuple[int, int, set[int]]]:
        """Yield trees, the inodes in each, and the extents that these use."""
        for inum, inode in self.inodes.items():
            for tree in sorted(self.leaves[inode.leaf]):
                yield tree, inum, {extent for extent, _, _ in inode.pieces}


@st.composite
def filesystems(draw: st.DrawFn) -> Made:
    subvolumes = [5, *range(TOP, TOP + draw(st.integers(0, 4)))]
    some = st.sets(st.sampled_from(subvolumes), min_size=min(2, len(subvolumes)))
    leaves = draw(st.lists(some | st.sets(st.sampled_from([5, DELETED])), min_size=2, max_size=5))
    made = Made(leaves, {}, {}, draw(st.sets(st.sampled_from(subvolumes))))
    folders = [TOP]
    for inum in range(TOP + 1, TOP + draw(st.integers(1, 14))):
        is_directory = draw(st.booleans())
        count = 1 if is_directory else draw(st.integers(0, 3))
        names = [
            (draw(st.sampled_from(folders)), "n" * draw(st.integers(0, 3)) + f"{inum}.{link}")
            for link in range(count)
        ]
        pieces = [] if is_directory else draw(_pieces())
        leaf = draw(st.integers(0, len(leaves) - 1))
        made.inodes[inum] = Inode(leaf, is_directory, names, pieces)
        if is_directory:
            folders.append(inum)
    for number, tree in enumerate(subvolumes[1:], 1):
        # Each is in one that comes before it.
        parent = draw(st.sampled_from(subvolumes[:number]))
        made.mounts[tree] = (parent, draw(st.sampled_from(folders)), f"subvolume{tree}")
    return made


def _pieces() -> st.SearchStrategy[list[tuple[int, int, int]]]:
    extents, parts = st.integers(0, 9), st.integers(0, 1)
    return st.lists(st.tuples(extents, parts, st.integers(0, 9)), min_size=1, max_size=4)


def directories_of(made: Made, rule: Representation | None = None) -> Directories:
    """Return the directories of a made-up filesystem."""
    trees = [5, *made.mounts, DELETED]
    owners = [_owner(tree, read_only=tree in made.read_only) for tree in trees]
    sets = RootSets()
    leaf_sets = np.array(
        [sets.id_of(sum(1 << trees.index(tree) for tree in leaf)) for leaf in made.leaves],
        np.uint32,
    )
    table = reference_table()
    rows = [
        (extent << 20, 1 << extent, 2 * PIECE, part * PIECE, PIECE, 0, inum, at * PIECE, inode.leaf)
        for inum, inode in made.inodes.items()
        for extent, part, at in inode.pieces
    ]
    dtypes = ("<u8", "<u4", "<u4", "<u4", "<u4", "u1", "<u8", "<u8", "<u4")
    columns = list(zip(*rows, strict=True)) or [()] * len(dtypes)
    table.append([np.array(c, dtype) for c, dtype in zip(columns, dtypes, strict=True)])
    extents, references = data_extents(table, leaf_sets, sets)
    data = np.bincount(extents.set_id.astype(np.intp), extents.num_bytes, len(sets))
    links = [
        (inum, parent, inode.leaf, name.encode())
        for inum, inode in made.inodes.items()
        for parent, name in inode.names
    ]
    text = b"".join(name for *_, name in links)
    lengths = np.array([len(name) for *_, name in links], np.int64)
    scanned: Any = SimpleNamespace(
        owners=owners,
        sets=sets,
        leaf_sets=leaf_sets,
        extents=extents,
        references=references,
        links=LinkRows(
            np.array([row[0] for row in links], np.uint64),
            np.array([row[1] for row in links], np.uint64),
            np.array([row[2] for row in links], np.uint32),
            np.cumsum(lengths) - lengths,
            lengths.astype(np.uint16),
        ),
        inodes=_inode_rows(made),
        names=np.frombuffer(text, np.uint8),
        sizes=SimpleNamespace(data=data.astype(np.int64)[:, np.newaxis]),
        incomplete=0,
    )
    mounts: dict[int, list[Mount]] = {}
    for tree, (parent, dirid, name) in made.mounts.items():
        mounts.setdefault(parent, []).append(Mount(tree, dirid, name.encode()))
    paths = {tree: "/".join(made.top(tree)).encode() for tree in (5, *made.mounts)}
    parents = {tree: parent for tree, (parent, _, _) in made.mounts.items()}
    contained = Containment(paths, parents, mounts)
    return Directories(Places(scanned, contained, rule or Representation()))


def _owner(tree: int, *, read_only: bool) -> Owner:
    item: Any = SimpleNamespace(flags=int(read_only), otime=SimpleNamespace(sec=tree, nsec=0))
    kind = Kind.DELETED if tree == DELETED else Kind.SUBVOLUME
    return Owner(tree, kind, Pointer(0, 0, 0), item=item)


def _inode_rows(made: Made) -> InodeRows:
    rows = [
        (inum, 1, 0o40755 if inode.is_directory else 0o100644, len(inode.names), inode.leaf)
        for inum, inode in made.inodes.items()
    ]
    dtypes = ("<u8", "<u8", "<u4", "<u4", "<u4")
    columns = list(zip(*rows, strict=True)) or [()] * len(dtypes)
    return InodeRows(*(np.array(c, dtype) for c, dtype in zip(columns, dtypes, strict=True)))


def all_entries(entry: Entry) -> Iterator[Entry]:
    yield entry
    for child in entry.children():
        yield from all_entries(child)


def extents_of(total: int) -> set[int]:
    """Return the extents that are in a sum."""
    return {extent for extent in range(total.bit_length()) if total >> extent & 1}


def is_below(path: Path, folder: Path) -> bool:
    return path[: len(folder)] == folder


@settings(deadline=None, max_examples=300)
@given(filesystems())
def test_sizes_of_directories(made: Made) -> None:
    directories = directories_of(made)
    found = {tuple(entry.path.decode().split("/")): entry for entry in all_entries(directories.top)}
    found[()] = found.pop(("",))
    expected = {()} | {made.top(tree) for tree in made.mounts}
    for inum, inode in made.inodes.items():
        for tree in made.leaves[inode.leaf] - {DELETED}:
            expected.update(made.paths(tree, inum))
    assert found.keys() == expected
    for folder, entry in found.items():
        inside: set[int] = set()
        outside: set[int] = set()
        for tree, inum, extents in made.uses():
            # A file without a name is in the top directory of its subvolume, and in no other.
            paths = made.paths(tree, inum) or [made.top(tree)]
            if tree == DELETED:
                paths = []
            if any(is_below(path, folder) for path in paths):
                inside |= extents
            if not paths or not all(is_below(path, folder) for path in paths):
                outside |= extents
        assert extents_of(entry.referenced) == inside, folder
        assert extents_of(entry.exclusive) == inside - outside, folder


@settings(deadline=None)
@given(filesystems())
def test_each_extent_is_shown_once_where_the_path_is_shortest(made: Made) -> None:
    directories = directories_of(made)
    places = directories.places
    shown: dict[int, tuple[int, int]] = {}
    for tree in (5, *made.mounts):
        files = directories.subvolume(tree)
        for inum, total in zip(
            [*files.names.inodes.tolist(), 0], files.files.represented.tolist(), strict=True
        ):
            for extent in extents_of(total):
                assert extent not in shown
                shown[extent] = (tree, inum)
    lengths: dict[int, dict[tuple[int, int], int]] = {}
    for tree, inum, extents in made.uses():
        if tree != DELETED:
            above = len("/".join(made.top(tree)))
            paths = ["/".join(path)[above:].lstrip("/") for path in made.paths(tree, inum)]
            for extent in extents:
                place = (tree, inum if paths else 0)
                lengths.setdefault(extent, {})[place] = min(map(len, paths), default=1 << 30)
    assert shown.keys() == lengths.keys()
    assert extents_of(directories.top.represented) == shown.keys()
    for extent, uses in lengths.items():
        in_tree = {place: length for place, length in uses.items() if place[0] == shown[extent][0]}
        assert in_tree[shown[extent]] == min(in_tree.values())
        trees = {tree for tree, _ in uses}
        # What can be written to comes first, then what is newest.
        assert shown[extent][0] == min(trees, key=lambda tree: (tree in made.read_only, -tree))
    deleted = {extent for tree, _, extents in made.uses() for extent in extents if tree == DELETED}
    assert extents_of(places.elsewhere().deleted) == deleted - shown.keys()
    unnamed = {extent for extent, (_, inum) in shown.items() if inum == 0}
    assert extents_of(directories.unnamed()) == unnamed
    for entry in all_entries(directories.top):
        below = sum(child.represented for child in entry.children()) + entry.unnamed
        assert below == entry.represented or not entry.is_directory


@settings(deadline=None)
@given(filesystems())
def test_breaks(made: Made) -> None:
    directories = directories_of(made)
    for tree in (5, *made.mounts):
        files = directories.subvolume(tree)
        for inum, inode in made.inodes.items():
            if tree not in made.leaves[inode.leaf] or not inode.names:
                continue
            index = int(files.names.index_of(np.array([inum], np.uint64))[0])
            in_order = sorted(enumerate(inode.pieces), key=lambda piece: (piece[1][2], piece[0]))
            begins = [(extent << 20) + part * PIECE for _, (extent, part, _) in in_order]
            if len({position for _, (_, _, position) in in_order}) < len(in_order):
                # Two pieces at one position, which no file has: in which order is open.
                continue
            breaks = sum(b != a + PIECE for a, b in pairwise(begins))
            assert files.files.pieces[index] == len(inode.pieces)
            assert files.files.breaks[index] == (0 if tree in made.read_only else breaks)
    top = directories.top
    assert top.breaks == sum(directories.subvolume(tree).breaks for tree in (5, *made.mounts))


@settings(deadline=None)
@given(
    filesystems(),
    st.sampled_from(["represented", "exclusive", "referenced", "unreachable", "breaks"]),
    st.integers(0, 6),
    st.integers(0, 4),
)
def test_the_largest_come_first(made: Made, sort: Any, limit: int, depth: int) -> None:
    directories = directories_of(made)
    branch = largest_entries(directories.top, sort, depth=depth, limit=limit)
    values = [getattr(child.entry, sort) for child in branch.children]
    assert values == sorted(values, reverse=True)
    others = [getattr(child, sort) for child in directories.top.children()]
    assert values == sorted(others, reverse=True)[: len(values)]
    files = largest_files(directories.top, sort, limit)
    assert len(files) <= limit
    every = sorted(
        (
            value
            for tree in (5, *made.mounts)
            for value in getattr(directories.subvolume(tree).files, sort).tolist()
            if value and (sort != "referenced" or directories.places.totals(tree).referenced)
        ),
        reverse=True,
    )
    assert [getattr(file, sort) for file in files] == every[:limit]
    for file in files:
        if file.path is not None:
            inode = made.inodes[file.inum]
            assert tuple(file.path.decode().split("/")) in made.paths(file.tree, file.inum)
            assert inode.pieces or sort != "referenced"


def test_numbers_of_any_size() -> None:
    """Damaged items have any numbers, and floats cannot tell large ones apart."""
    large = 1 << 53
    links = LinkRows(
        np.array([large, large + 1, 1 << 63], np.uint64),
        np.array([TOP, large, (1 << 64) - 1], np.uint64),
        np.zeros(3, np.uint32),
        np.arange(3),
        np.ones(3, np.uint16),
    )
    mount = Mount(TOP, large + 1, b"mount")
    tree = path_tree(5, links, np.frombuffer(b"abc", np.uint8), [mount])
    paths = {tree.path(node) for node in range(len(tree))}
    assert paths == {b"", b"a", b"a/b", b"a/b/mount", b"c"}
