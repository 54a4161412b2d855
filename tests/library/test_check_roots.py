"""Lies about subvolumes are found, and nothing is found where subvolumes are only unusual.

The last column of CASES says whether `btrfs check` of btrfs-progs 6.2 reports an error, of whatever
kind. It does not see all of these lies.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from btrfs import FileSystem
from btrfs.check import Checked
from btrfs.check.kinds import KINDS
from btrfs.check.roots import SubvolumeEntry, check_entries, read_subvolumes
from btrfs.ondisk.constants import (
    DATA_RELOC_TREE_OBJECTID,
    DIR_INDEX_KEY,
    DIR_ITEM_KEY,
    FS_TREE_OBJECTID,
    INODE_ITEM_KEY,
    INODE_REF_KEY,
    ORPHAN_ITEM_KEY,
    ORPHAN_OBJECTID,
    ROOT_BACKREF_KEY,
    ROOT_ITEM_KEY,
    ROOT_REF_KEY,
    ROOT_TREE_OBJECTID,
    UUID_KEY_RECEIVED_SUBVOL,
    UUID_KEY_SUBVOL,
    UUID_TREE_OBJECTID,
)
from btrfs.ondisk.hashes import name_hash
from tests import support
from tests.lab.damage import Anatomy, copy_image, noise
from tests.lab.lies import ItemKey, Liar
from tests.library.findings import line_of, messages
from tests.support import removal

ROOT, TOP, UUIDS = ROOT_TREE_OBJECTID, FS_TREE_OBJECTID, UUID_TREE_OBJECTID

A, NESTED, MOVED, SNAPSHOT, READONLY, RECEIVED, DELETED = range(256, 263)
"""Numbers of the subvolumes: see make_subvolumes()."""

DIRECTORY = 257
"""Inode number of the directory in the subvolume a."""

REFS_AT, GENERATION_V2_AT, OTRANSID_AT, UUID_AT = 216, 239, 303, 247
"""Where fields are in a root item."""

DIRID_AT = 0
LOCATION_TYPE_AT = 8
"""Where fields are in a ROOT_REF and in an entry of a directory."""


def make_subvolumes(root: Path) -> None:
    """Make subvolumes that are nested, renamed, snapshots, received; the last one is to go."""
    run = support.run
    for name in ("a", "a/nested", "b"):
        run("btrfs", "subvolume", "create", root / name)
    (root / "a" / "directory").mkdir()
    (root / "a" / "file").write_bytes(os.urandom(100_000))
    # They keep an entry for a/nested, which is not in them.
    run("btrfs", "subvolume", "snapshot", root / "a", root / "snapshot")
    run("btrfs", "subvolume", "snapshot", "-r", root / "a", root / "readonly")
    (root / "b").rename(root / "a" / "directory" / "moved")
    support.send_and_receive(root)
    run("btrfs", "subvolume", "create", root / "deleted")
    (root / "deleted" / "file").touch()
    run("btrfs", "subvolume", "set-default", root / "snapshot")
    run("btrfs", "filesystem", "sync", root)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image with such subvolumes, one of them deleted, but not yet removed."""
    folder = tmp_path_factory.mktemp("roots")
    with support.filesystem(folder, size="256M") as fs:
        make_subvolumes(fs.mountpoint)
        with (fs.mountpoint / "deleted" / "file").open("rb"):
            support.run("btrfs", "subvolume", "delete", fs.mountpoint / "deleted")
            fs.sync()
            (image,) = fs.copy_images(folder / "copy")
    return image


@pytest.fixture
def image(sound: Path, tmp_path: Path) -> Path:
    copy_image(sound, tmp_path / "copy.img")
    return tmp_path / "copy.img"


checked = partial(line_of, name="subvolumes")


def test_nothing_is_wrong(sound: Path) -> None:
    found = checked(sound)
    assert messages(found) == []
    assert found.skipped is None
    assert found.summary == "8 subvolumes, 1 of them deleted"


def test_nothing_is_wrong_when_it_is_unmounted(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="512M") as fs:
        support.populate(fs.mountpoint)
        folder = fs.mountpoint / "more"
        folder.mkdir()
        make_subvolumes(folder)
        support.run("btrfs", "subvolume", "delete", "-c", folder / "deleted")
        support.run("btrfs", "subvolume", "sync", fs.mountpoint)
        fs.unmount()
        assert messages(checked(fs.images)) == []


def test_half_removed_subvolume(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path / "a", size="2G", metadata="single", nodesize=removal.NODESIZE
    ) as fs:
        removed = removal.interrupt(fs, tmp_path / "b")
    found = checked(removed.images)
    assert messages(found) == []
    assert found.counts["deleted"] == 2


@pytest.mark.parametrize("tree", [ROOT, TOP, A, NESTED, DATA_RELOC_TREE_OBJECTID, UUIDS])
def test_nothing_follows_from_what_cannot_be_read(image: Path, tree: int) -> None:
    anatomy = Anatomy([image])
    with image.open("r+b") as file:
        for place in anatomy.copies(anatomy.leaves(tree)[0]):
            os.pwrite(file.fileno(), noise(64), place.paddr + 2000)
    found = checked(image)
    assert messages(found) == []
    assert found.skipped == "not checked where not all can be read"


# Lies.


def ref(parent: int, child: int) -> ItemKey:
    return ItemKey(parent, ROOT_REF_KEY, child)


def backref(parent: int, child: int) -> ItemKey:
    return ItemKey(child, ROOT_BACKREF_KEY, parent)


def root_item(liar: Liar, tree: int) -> ItemKey:
    (key,) = liar.keys(ROOT, ROOT_ITEM_KEY, tree)
    return key


def index_of(liar: Liar, parent: int, child: int) -> ItemKey:
    """Return the key of the DIR_INDEX of a subvolume."""
    dirid, sequence = struct.unpack_from("<QQ", liar.body(ROOT, ref(parent, child)))
    return ItemKey(dirid, DIR_INDEX_KEY, sequence)


def hashed(dirid: int, name: bytes) -> ItemKey:
    return ItemKey(dirid, DIR_ITEM_KEY, name_hash(name))


def set_root(liar: Liar, tree: int, code: str, at: int, value: object) -> None:
    liar.put(ROOT, root_item(liar, tree), code, at, value)


def forget(liar: Liar, tree: int) -> None:
    """Remove the root item of a subvolume."""
    liar.remove(ROOT, root_item(liar, tree))


def remove_refs(liar: Liar, parent: int, child: int) -> None:
    liar.remove(ROOT, ref(parent, child), backref(parent, child))


def move(liar: Liar, pair: tuple[int, int], new: tuple[int, int]) -> None:
    """Let another subvolume say that a subvolume is in it."""
    liar.rekey(ROOT, ref(*pair), ref(*new))
    liar.rekey(ROOT, backref(*pair), backref(*new))


def add_place(liar: Liar, pair: tuple[int, int], like: tuple[int, int]) -> None:
    """Insert a reference and a back reference like those of others."""
    for make in (ref, backref):
        liar.insert(ROOT, make(*pair), liar.body(ROOT, make(*like)))


def make_circle(liar: Liar) -> None:
    """Put a subvolume into the one that is in it."""
    liar.rekey(ROOT, ref(TOP, A), ref(NESTED, A))
    liar.rekey(ROOT, backref(TOP, A), backref(NESTED, A))


def put_elsewhere(liar: Liar) -> None:
    """Let a subvolume be in a directory that does not exist."""
    for make in (ref, backref):
        liar.put(ROOT, make(A, MOVED), "<Q", DIRID_AT, 4711)


def delete(liar: Liar) -> None:
    """Make a subvolume a deleted one, but leave it where it is."""
    set_root(liar, NESTED, "<I", REFS_AT, 0)
    liar.insert(ROOT, ItemKey(ORPHAN_OBJECTID, ORPHAN_ITEM_KEY, NESTED), b"")


def uuid_key(liar: Liar, tree: int, key_type: int = UUID_KEY_SUBVOL) -> ItemKey:
    """Return the key in the UUID tree that leads to a subvolume."""
    return next(
        key
        for key in liar.keys(UUIDS, key_type)
        if struct.pack("<Q", tree) == liar.body(UUIDS, key)
    )


class Case(NamedTuple):
    """A lie, and what it makes: kinds of findings, and whether `btrfs check` reports an error."""

    lie: Callable[[Liar], object]
    kinds: set[str]
    progs: bool


CASES = {
    "no ROOT_REF": Case(
        lambda liar: liar.remove(ROOT, ref(A, NESTED)), {"subvolume-reference-alone"}, True
    ),
    "no ROOT_BACKREF": Case(
        lambda liar: liar.remove(ROOT, backref(A, NESTED)), {"subvolume-reference-alone"}, True
    ),
    "another directory in ROOT_REF": Case(
        lambda liar: liar.put(ROOT, ref(A, MOVED), "<Q", DIRID_AT, 256),
        {"subvolume-reference-differs", "subvolume-entry-missing"},
        True,
    ),
    "another name in ROOT_BACKREF": Case(
        lambda liar: liar.put(ROOT, backref(A, MOVED), "<B", 18, ord("M")),
        {"subvolume-reference-differs"},
        True,
    ),
    "no root item": Case(
        lambda liar: forget(liar, NESTED), {"subvolume-missing", "uuid-alone"}, True
    ),
    "two root items": Case(
        lambda liar: liar.insert(
            ROOT, ItemKey(NESTED, ROOT_ITEM_KEY, 3), liar.body(ROOT, root_item(liar, NESTED))
        ),
        {"subvolume-repeated"},
        True,
    ),
    "two references": Case(
        lambda liar: set_root(liar, NESTED, "<I", REFS_AT, 2), {"subvolume-refs"}, False
    ),
    "deleted top level": Case(
        lambda liar: set_root(liar, TOP, "<I", REFS_AT, 0),
        {"subvolume-refs"},
        True,
    ),
    "deleted without an orphan": Case(
        lambda liar: liar.remove(ROOT, ItemKey(ORPHAN_OBJECTID, ORPHAN_ITEM_KEY, DELETED)),
        {"subvolume-forgotten"},
        False,
    ),
    "deleted, but in a directory": Case(
        delete,
        {"subvolume-deleted"},
        True,
    ),
    "made in the future": Case(
        lambda liar: set_root(liar, NESTED, "<Q", OTRANSID_AT, 1 << 40),
        {"subvolume-generation"},
        False,
    ),
    "no top directory": Case(
        lambda liar: liar.rekey(
            NESTED, ItemKey(256, INODE_ITEM_KEY, 0), ItemKey(255, INODE_ITEM_KEY, 0)
        ),
        {"subvolume-top"},
        True,
    ),
    "top is a file": Case(
        lambda liar: liar.put(NESTED, ItemKey(256, INODE_ITEM_KEY, 0), "<I", 52, 0o100644),
        {"subvolume-top"},
        False,
    ),
    "no .. at the top": Case(
        lambda liar: liar.remove(NESTED, ItemKey(256, INODE_REF_KEY, 256)),
        {"subvolume-top"},
        True,
    ),
    "no .. at the top of the data relocation tree": Case(
        lambda liar: liar.remove(DATA_RELOC_TREE_OBJECTID, ItemKey(256, INODE_REF_KEY, 256)),
        {"subvolume-top"},
        True,
    ),
    "in no directory": Case(
        lambda liar: remove_refs(liar, A, NESTED),
        {"subvolume-unreachable", "subvolume-entry-alone"},
        True,
    ),
    "in a circle": Case(
        make_circle,
        {"subvolume-unreachable", "subvolume-entry-missing", "subvolume-entry-alone"},
        True,
    ),
    "in a deleted one": Case(
        lambda liar: move(liar, (A, NESTED), (DELETED, NESTED)),
        {"subvolume-unreachable", "subvolume-entry-alone"},
        True,
    ),
    "in one that does not exist": Case(
        lambda liar: move(liar, (A, NESTED), (4711, NESTED)),
        {"subvolume-unreachable", "subvolume-missing", "subvolume-entry-alone"},
        True,
    ),
    "in two places": Case(
        lambda liar: add_place(liar, (SNAPSHOT, NESTED), (A, NESTED)), {"subvolume-places"}, False
    ),
    "top level in a subvolume": Case(
        lambda liar: add_place(liar, (A, TOP), (A, NESTED)),
        {"subvolume-places", "subvolume-entry-differs"},
        False,
    ),
    "no directory": Case(put_elsewhere, {"subvolume-directory", "subvolume-entry-alone"}, True),
    "file as the directory": Case(
        lambda liar: liar.put(A, ItemKey(DIRECTORY, INODE_ITEM_KEY, 0), "<I", 52, 0o100644),
        {"subvolume-directory"},
        True,
    ),
    "no DIR_INDEX": Case(
        lambda liar: liar.remove(A, index_of(liar, A, MOVED)), {"subvolume-entry-missing"}, True
    ),
    "no DIR_ITEM": Case(
        lambda liar: liar.remove(A, hashed(DIRECTORY, b"moved")), {"subvolume-entry-missing"}, True
    ),
    "DIR_INDEX points to another one": Case(
        lambda liar: liar.put(A, index_of(liar, A, MOVED), "<Q", 0, NESTED),
        {"subvolume-entry-differs", "subvolume-entry-alone"},
        True,
    ),
    "DIR_ITEM points to an inode": Case(
        lambda liar: liar.put(
            A, hashed(DIRECTORY, b"moved"), "<B", LOCATION_TYPE_AT, INODE_ITEM_KEY
        ),
        {"subvolume-entry-differs"},
        True,
    ),
    "no default": Case(
        lambda liar: liar.put(ROOT, hashed(6, b"default"), "<B", 30, ord("D")),
        {"subvolume-default"},
        False,
    ),
    "default does not exist": Case(
        lambda liar: liar.put(ROOT, hashed(6, b"default"), "<Q", 0, 4711),
        {"subvolume-default"},
        False,
    ),
    "UUID not in the UUID tree": Case(
        lambda liar: liar.remove(UUIDS, uuid_key(liar, NESTED)), {"uuid-missing"}, False
    ),
    "received UUID not in the UUID tree": Case(
        lambda liar: liar.remove(UUIDS, uuid_key(liar, RECEIVED, UUID_KEY_RECEIVED_SUBVOL)),
        {"uuid-missing"},
        False,
    ),
    "UUID of a subvolume that does not exist": Case(
        lambda liar: liar.insert(UUIDS, ItemKey(1, UUID_KEY_SUBVOL, 2), struct.pack("<Q", 4711)),
        {"uuid-alone"},
        False,
    ),
    "UUID of another one": Case(
        lambda liar: liar.put(UUIDS, uuid_key(liar, NESTED), "<Q", 0, A),
        {"uuid-alone", "uuid-missing"},
        False,
    ),
    "same UUID": Case(
        lambda liar: set_root(
            liar,
            NESTED,
            "16s",
            UUID_AT,
            liar.body(ROOT, root_item(liar, A))[UUID_AT : UUID_AT + 16],
        ),
        {"uuid-repeated", "uuid-alone", "uuid-missing"},
        False,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_lie(image: Path, name: str) -> None:
    case = CASES[name]
    case.lie(Liar([image]))
    found = checked(image)
    assert set(found.totals) == case.kinds, messages(found)
    progs = subprocess.run(["btrfs", "check", image], capture_output=True, text=True, check=False)
    assert (progs.returncode != 0) == case.progs, progs.stdout + progs.stderr


def test_all_kinds_are_met() -> None:
    met = set().union(*(case.kinds for case in CASES.values()))
    assert met == {kind for kind in KINDS if kind.startswith(("subvolume-", "uuid-"))}


def test_uuid_tree_that_is_made_right_at_the_next_mount(image: Path) -> None:
    """Its generation in the superblock is an old one, as after a kernel that does not know it."""
    liar = Liar([image])
    liar.remove(UUIDS, uuid_key(liar, NESTED))
    liar.change_superblocks(lambda data: struct.pack_into("<Q", data, 0x233, 3))
    assert messages(checked(image)) == []


def test_root_item_of_an_old_kernel(image: Path) -> None:
    """It has no UUIDs, or such as are not valid any more."""
    liar = Liar([image])
    liar.remove(UUIDS, uuid_key(liar, NESTED), uuid_key(liar, A))
    set_root(liar, NESTED, "<Q", GENERATION_V2_AT, 1)
    liar.change(ROOT, root_item(liar, A), lambda body: body.__delitem__(slice(239, None)))
    assert messages(checked(image)) == []


# Entries of directories.


def entries(image: Path) -> list[SubvolumeEntry]:
    """Return all entries that point to subvolumes."""
    liar = Liar([image])
    return [
        SubvolumeEntry(tree, key.objectid, key.offset, body[30:], *struct.unpack_from("<Q", body))
        for tree in (TOP, A, NESTED, MOVED, SNAPSHOT, READONLY, RECEIVED)
        for key, body in liar.items(tree)
        if key.type == DIR_INDEX_KEY and body[LOCATION_TYPE_AT] == ROOT_ITEM_KEY
    ]


def checked_entries(image: Path, rows: list[SubvolumeEntry]) -> Checked:
    with FileSystem(image, source="unmounted", on_error="skip") as fs:
        source = fs.block_source()
        found = Checked("subvolumes")
        check_entries(fs, source, read_subvolumes(fs, source), rows, found)
        return found


def test_entries(image: Path) -> None:
    rows = entries(image)
    assert {row.child for row in rows if row.tree == SNAPSHOT} == {NESTED}
    assert {row.name for row in rows} >= {b"a", b"nested", b"moved", b"snapshot", b"readonly"}
    assert messages(checked_entries(image, rows)) == []


@pytest.mark.parametrize(
    ("parent", "child", "count"), [(A, NESTED, 1), (TOP, SNAPSHOT, 1), (SNAPSHOT, NESTED, 0)]
)
def test_entry_alone(image: Path, parent: int, child: int, count: int) -> None:
    """A second entry is none that a ROOT_REF leads to, but a snapshot may have it."""
    rows = [
        row._replace(sequence=99)
        for row in entries(image)
        if (row.tree, row.child) == (parent, child)
    ]
    assert len(rows) == 1
    found = checked_entries(image, rows)
    assert found.totals["subvolume-entry-alone"] == count
