"""Sizes of directories and files, beside a plain count over all trees and real deletions."""

from __future__ import annotations

import os
import random
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from btrfs import FileSystem, ioctl
from btrfs.ctree import FileExtentItem, InodeExtrefList, InodeRefList, RootBackref
from btrfs.errors import BtrfsError, PathNotFoundError
from btrfs.ownership import Ownership, scan
from btrfs.ownership.containment import Representation
from btrfs.ownership.directories import Entry
from tests import support
from tests.lab.populate import PAGE, write_files
from tests.lab.sharing import clone_whole, share_space


@dataclass
class Plain:
    """What a plain walk over all trees says: which paths use which pieces of which extents.

    Attributes:
        names: The paths of each inode of each subvolume.
        uses: The pieces of extents that each inode uses: address, offset, length.
        sizes: Bytes on disk, and when decompressed, of each extent.
    """

    names: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    uses: dict[tuple[int, int], set[tuple[int, int, int]]] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def below(self, path: bytes) -> Iterator[tuple[int, int]]:
        """Yield the inodes that are deleted with a path: all their names are below it."""
        for inode, names in self.names.items():
            if all(is_below(name, path) for name in names):
                yield inode

    def extents(self, inodes: set[tuple[int, int]]) -> set[int]:
        """Return the extents that some inodes use."""
        return {vaddr for inode in inodes for vaddr, _, _ in self.uses.get(inode, ())}

    def exclusive(self, path: bytes) -> int:
        """Return the bytes of extents that nothing uses but what is deleted with a path."""
        deleted = set(self.below(path))
        kept = self.extents(self.names.keys() - deleted)
        return sum(self.sizes[vaddr][0] for vaddr in self.extents(deleted) - kept)

    def referenced(self, path: bytes) -> int:
        """Return the bytes of extents that are used below a path."""
        inodes = {
            inode
            for inode, names in self.names.items()
            if any(is_below(name, path) for name in names)
        }
        return sum(self.sizes[vaddr][0] for vaddr in self.extents(inodes))

    def unreachable(self) -> dict[int, int]:
        """Return the bytes of each extent that no file reaches, when it is decompressed."""
        reached: dict[int, set[int]] = defaultdict(set)
        for pieces in self.uses.values():
            for vaddr, offset, length in pieces:
                reached[vaddr].update(range(offset, offset + length, 512))
        return {vaddr: size - 512 * len(reached[vaddr]) for vaddr, (_, size) in self.sizes.items()}


def is_below(name: bytes, path: bytes) -> bool:
    return not path or name == path or name.startswith(path + b"/")


def plain(fs: FileSystem) -> Plain:
    """Read all subvolumes item by item."""
    found = Plain()
    roots = {root.objectid for root in fs.subvolumes()} | {5}
    backrefs = {item.tree: item for item in fs.search(1) if isinstance(item, RootBackref)}
    refs: dict[tuple[int, int], list[tuple[int, bytes]]] = defaultdict(list)
    for tree in roots:
        for item in fs.search(tree):
            if isinstance(item, InodeRefList):
                refs[tree, item.objectid] += [(item.parent_objectid, ref.name) for ref in item]
            elif isinstance(item, InodeExtrefList):
                refs[tree, item.objectid] += [(ref.parent_objectid, ref.name) for ref in item]
            elif isinstance(item, FileExtentItem) and item.type != 0 and item.disk_bytenr:
                found.sizes[item.disk_bytenr] = (item.disk_num_bytes, item.ram_bytes)
                piece = (item.disk_bytenr, item.offset, item.num_bytes)
                found.uses.setdefault((tree, item.objectid), set()).add(piece)

    def paths(tree: int, inum: int) -> list[bytes]:
        if inum == 256:
            if tree == 5:
                return [b""]
            ref = backrefs[tree]
            return [joined(paths(ref.parent_tree, ref.dirid)[0], ref.name)]
        return [joined(paths(tree, above)[0], name) for above, name in refs[tree, inum]]

    found.names = {inode: paths(*inode) for inode in refs if inode[1] != 256}
    return found


def joined(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with support.filesystem(tmp_path_factory.mktemp("paths")) as fs:
        share_space(fs.mountpoint)
        return fs.images[0]


@pytest.fixture(scope="module")
def expected(image: Path) -> Plain:
    with FileSystem(image) as fs:
        return plain(fs)


@pytest.fixture
def owned(image: Path) -> Iterator[Ownership]:
    with FileSystem(image) as fs:
        yield scan(fs)


def all_entries(entry: Entry) -> Iterator[Entry]:
    yield entry
    for child in entry.children():
        yield from all_entries(child)


def test_names(owned: Ownership, expected: Plain) -> None:
    found = sorted(entry.path for entry in all_entries(owned.entry()))
    names = {name for names in expected.names.values() for name in names}
    tops = {one.path or b"" for one in owned.subvolumes()}
    assert found == sorted(names | tops)


def test_sizes_of_all_directories(owned: Ownership, expected: Plain) -> None:
    entries = [entry for entry in all_entries(owned.entry()) if any(entry.children())]
    assert len(entries) > 30
    for entry in entries:
        assert entry.exclusive == expected.exclusive(entry.path), entry
        assert entry.referenced == expected.referenced(entry.path), entry


def test_sizes_of_some_files(owned: Ownership, expected: Plain) -> None:
    entries = [entry for entry in all_entries(owned.entry()) if not any(entry.children())]
    for entry in entries[::40]:
        assert entry.exclusive == expected.exclusive(entry.path), entry
        assert entry.referenced == expected.referenced(entry.path), entry


def test_all_is_shown_once(owned: Ownership, expected: Plain) -> None:
    top = owned.entry()
    assert top.represented == sum(size for size, _ in expected.sizes.values())
    shown = {
        entry.path: entry.represented - sum(child.represented for child in entry.children())
        for entry in all_entries(top)
    }
    assert sum(shown.values()) == top.represented
    assert all(size >= 0 for size in shown.values())
    # What is shown somewhere is used there, and read-only snapshots show only what they alone have.
    used = {
        name: expected.extents({inode}) for inode, names in expected.names.items() for name in names
    }
    for path, size in shown.items():
        assert size <= sum(expected.sizes[vaddr][0] for vaddr in used.get(path, ()))
    # The newest of those that can be written to stands for the others.
    newest = owned.entry(b"snapshot of a snapshot")
    assert newest.represented == newest.referenced > 0.3 * top.represented


def test_unreachable(owned: Ownership, expected: Plain) -> None:
    extents = owned.tables.extents
    by_vaddr = dict(zip(extents.vaddr.tolist(), extents.unreachable.tolist(), strict=True))
    for vaddr, part in expected.unreachable().items():
        on_disk, whole = expected.sizes[vaddr]
        assert by_vaddr[vaddr] == on_disk * part // whole
    assert owned.entry().unreachable == sum(by_vaddr.values()) > 0


def test_prefer_and_ignore(owned: Ownership) -> None:
    normal = owned.directories()
    rule = Representation(prefer=("/snapshot?",), ignore=("/home",))
    preferred = owned.directories(rule)
    for name, is_more in ((b"home", False), (b"snapshot3", True)):
        before, after = normal.entry(name), preferred.entry(name)
        assert before is not None
        assert after is not None
        assert (after.represented > before.represented) is is_more
    top, other = normal.entry(b""), preferred.entry(b"")
    assert top is not None
    assert other is not None
    assert top.represented == other.represented
    of_links = []
    for ignore in ((), ("/home/files",)):
        rule = Representation(prefer=("/home",), ignore=ignore)
        links = owned.directories(rule).entry(b"home/links")
        assert links is not None
        of_links.append(links.represented)
    assert of_links[0] < of_links[1]


@pytest.mark.parametrize(
    "paths",
    [
        ["home/files"],
        ["home/files", "home/links", "home/more links"],
        ["home/large", "home/part of large", "writable/large"],
        ["home/compressed/zstd", "writable/compressed clone"],
        ["home/links", "snapshot0", "snapshot1", "snapshot2", "snapshot3"],
        ["writable", "snapshot of a snapshot", "in the top level"],
    ],
)
def test_real_deletions(image: Path, tmp_path: Path, paths: list[str]) -> None:
    copy = tmp_path / "copy.img"
    support.run("cp", "--sparse=always", image, copy)
    with FileSystem(copy) as fs:
        promised = scan(fs).freed_by_paths(paths)
    with support.mounted_images([copy], tmp_path / "mnt", "commit=1") as made:
        before = data_used(made.mountpoint)
        for path in paths:
            delete(made.mountpoint / path)
        support.run("btrfs", "subvolume", "sync", made.mountpoint)
        support.run("btrfs", "filesystem", "sync", made.mountpoint)
        assert promised == before - data_used(made.mountpoint)


def delete(path: Path) -> None:
    if path.stat().st_ino == 256:
        support.run("btrfs", "subvolume", "delete", path)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def data_used(root: Path) -> int:
    with FileSystem(root) as fs:
        return sum(space.used_bytes for space in fs.space_info() if space.flags & 1)


def test_as_btrfs_filesystem_du_where_extents_are_used_as_a_whole(tmp_path: Path) -> None:
    """It counts pieces, and what only one file uses; of whole extents, that is the same."""
    with support.filesystem(tmp_path) as fs:
        write_files(fs.mountpoint / "files", random.Random(1), 60)
        support.run("btrfs", "subvolume", "create", fs.mountpoint / "sub")
        (fs.mountpoint / "sub" / "own").write_bytes(os.urandom(9 * PAGE))
        clone_whole(fs.mountpoint / "sub" / "own", fs.mountpoint / "clone")
        (fs.mountpoint / "sub" / "other").write_bytes(os.urandom(5 * PAGE))
        fs.sync()
        with FileSystem(fs.mountpoint, source="devices") as opened:
            owned = scan(opened)
        listed = fs.btrfs("filesystem", "du", "--raw", fs.mountpoint)
    compared = 0
    for line in listed.splitlines()[1:]:
        total, exclusive, _, name = line.split(None, 3)
        entry = owned.entry(name.removeprefix(str(fs.mountpoint)))
        if entry.is_directory:
            continue
        # Inline files count there, and have no extents.
        if int(total) >= PAGE:
            assert entry.referenced == int(total)
            assert entry.exclusive == int(exclusive)
            compared += 1
    assert compared > 10


def test_shared_with(owned: Ownership) -> None:
    ids = {one.path: one.id for one in owned.subvolumes()}
    shared = owned.entry(b"home/compressed").shared_with()
    assert set(shared) >= {ids[b"snapshot3"], ids[b"snapshot0"]}
    assert all(0 < size <= owned.entry(b"home/compressed").referenced for size in shared.values())
    assert owned.entry(b"").shared_with() == {}


def test_breaks_are_those_of_fiemap(image: Path, tmp_path: Path) -> None:
    with FileSystem(image) as fs:
        owned = scan(fs)
        files = owned.files("breaks", 10_000)
    assert {file.path for file in files} >= {b"home/large", b"ends", b"home/compressed/zstd"}
    assert not any(file.read_only for file in files)
    compressed = 0
    with support.mounted_images([image], tmp_path / "mnt", "ro") as made:
        breaks = {file.path: file.breaks for file in files}
        for entry in all_entries(owned.entry()):
            path = made.mountpoint / os.fsdecode(entry.path)
            if path.is_symlink() or not path.is_file() or is_read_only(entry):
                continue
            with path.open("rb") as file:
                mapped = list(ioctl.fiemap(file.fileno()))
            if any(extent.flags & ENCODED for extent in mapped):
                # FIEMAP does not tell how long compressed extents are on disk.
                compressed += 1
                assert entry.breaks < len(mapped)
                continue
            regular = [extent for extent in mapped if not extent.flags & INLINE]
            expected = sum(a.vaddr + a.length != b.vaddr for a, b in pairwise(regular))
            assert entry.breaks == expected, entry
            if path.stat().st_nlink == 1:
                assert breaks.get(entry.path, 0) == expected, entry
    assert compressed > 5


ENCODED = 1 << 3
INLINE = 1 << 9


def is_read_only(entry: Entry) -> bool:
    return entry.directories.places.is_read_only(entry.tree)


def test_pieces_are_file_extent_items(owned: Ownership, expected: Plain) -> None:
    for file in owned.files("referenced", 10_000):
        if file.path is not None:
            pieces = expected.uses[file.tree, file.inum]
            # What is used twice in a file is in the set once.
            assert file.pieces >= len(pieces)
            assert file.piece_bytes >= sum(length for _, _, length in pieces)
            assert file.average_piece == file.piece_bytes // file.pieces


def test_no_such_path(owned: Ownership) -> None:
    for path in ("nothing", b"home/files/nothing", "in the top level/below a file"):
        with pytest.raises(PathNotFoundError, match="no such path"):
            owned.entry(path)


def test_without_names(image: Path) -> None:
    with FileSystem(image) as fs, pytest.raises(BtrfsError, match="names of files were not read"):
        scan(fs, names=False).entry()
