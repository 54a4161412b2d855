"""Lies about files and names are found, and nothing else: what is said, and of which file.

The filesystem has small leaves, so that large files and directories lie in several of them, and
snapshots, of which some leaves are shared and some are not.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from btrfs import FileSystem, check
from btrfs.check import Finding
from btrfs.ondisk.constants import (
    DIR_INDEX_KEY,
    DIR_ITEM_KEY,
    EXTENT_DATA_KEY,
    EXTENT_DATA_REF_KEY,
    EXTENT_ITEM_KEY,
    EXTENT_TREE_OBJECTID,
    INODE_ITEM_KEY,
    INODE_REF_KEY,
    ORPHAN_ITEM_KEY,
    ORPHAN_OBJECTID,
)
from tests import support
from tests.lab.damage import copy_image
from tests.lab.liefs import fill
from tests.lab.lies import ItemKey, Liar

WORK, SNAPSHOT, SECOND = 256, 257, 258
"""Numbers of the subvolumes: /work, and two snapshots of it."""

PIECES = 300
BLOCK = 4096

REG, PREALLOC = 1, 2
TYPE_AT, VADDR_AT, OFFSET_AT, NUM_BYTES_AT = 20, 21, 37, 45
SIZE_AT, NBYTES_AT, NLINK_AT, MODE_AT, FLAGS_AT = 16, 24, 40, 52, 64
"""Where fields are in a file extent item, and in an inode item."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the image of a filesystem in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("files")
    features = ("^no-holes", "^skinny-metadata")
    with support.filesystem(folder, size="256M", nodesize=BLOCK, features=features) as fs:
        root = fs.mountpoint
        fill(root)
        with (root / "work" / "pieces").open("wb") as file:
            for number in range(PIECES):
                os.pwrite(file.fileno(), os.urandom(BLOCK), 2 * number * BLOCK)
        fs.sync()
        fs.btrfs("subvolume", "snapshot", root / "work", root / "second")
        with (root / "work" / "pieces").open("r+b") as file:
            os.pwrite(file.fileno(), os.urandom(BLOCK), 2 * BLOCK)
        # A preallocated extent that only one file uses, and that was written to in its middle.
        support.run("fallocate", "--length", "1M", root / "second" / "half")
        with (root / "second" / "half").open("r+b") as file:
            os.pwrite(file.fileno(), os.urandom(16 * BLOCK), 32 * BLOCK)
    (image,) = fs.images
    assert findings(image) == []
    return image


def findings(image: Path) -> list[Finding]:
    with FileSystem(image, source="unmounted", on_error="skip") as fs:
        return [finding for checked in check.check(fs) for finding in checked.findings]


class At(NamedTuple):
    """An item of a file.

    Attributes:
        name: Name of the file.
        key_type: Type of the item.
        number: Which of these.
        tree: Number of the subvolume.
    """

    name: str
    key_type: int
    number: int = 0
    tree: int = WORK

    def key(self, liar: Liar) -> ItemKey:
        """Return the key of the item."""
        return liar.keys(self.tree, self.key_type, inum_of(liar, self.tree, self.name))[self.number]


def inum_of(liar: Liar, tree: int, name: str) -> int:
    for key, body in liar.items(tree):
        if key.type == DIR_INDEX_KEY and body[30:] == name.encode():
            return int(struct.unpack_from("<Q", body)[0])
    raise LookupError(name)


Tell = Callable[[Liar], object]


def remove(*places: At) -> Tell:
    def tell(liar: Liar) -> None:
        for at in places:
            liar.remove(at.tree, at.key(liar))

    return tell


def put(at: At, code: str, offset: int, value: int) -> Tell:
    return lambda liar: liar.put(at.tree, at.key(liar), code, offset, value)


def add(at: At, code: str, offset: int, value: int) -> Tell:
    return lambda liar: liar.add(at.tree, at.key(liar), code, offset, value)


def both(*tells: Tell) -> Tell:
    return lambda liar: [tell(liar) for tell in tells]


def orphan(name: str, tree: int = WORK) -> Tell:
    def tell(liar: Liar) -> None:
        key = ItemKey(ORPHAN_OBJECTID % (1 << 64), ORPHAN_ITEM_KEY, inum_of(liar, tree, name))
        liar.insert(tree, key, b"")

    return tell


def data_ref(liar: Liar, name: str) -> ItemKey:
    """Return the key of an extent of a file that has one back reference, in its item."""
    inum = inum_of(liar, WORK, name)
    for key, body in liar.items(EXTENT_TREE_OBJECTID):
        if key.type == EXTENT_ITEM_KEY and len(body) == 53 and body[24] == EXTENT_DATA_REF_KEY:
            _, objectid = struct.unpack_from("<QQ", body, 25)
            if objectid == inum:
                return key
    raise LookupError(name)


def last_of_leaf(liar: Liar) -> ItemKey:
    """Return the key of a hole of the long file that ends its leaf, which /second shares."""
    inum = inum_of(liar, WORK, "pieces")
    items = [item for item in liar.items(WORK) if item[0][:2] == (inum, EXTENT_DATA_KEY)]
    # Only what was written anew, near the beginning, is in leaves of /work alone.
    for (following, _), (key, body) in pairwise(reversed(items)):
        is_hole = struct.unpack_from("<Q", body, VADDR_AT) == (0,)
        if is_hole and liar.leaf(WORK, key) != liar.leaf(WORK, following):
            return key
    raise LookupError("no leaf ends with a hole")


def moved(key: ItemKey, by: int) -> tuple[ItemKey, ItemKey]:
    return key, key._replace(offset=key.offset + by)


def in_extent(code: str, at: int, value: int) -> Tell:
    def tell(liar: Liar) -> None:
        liar.put(EXTENT_TREE_OBJECTID, data_ref(liar, "pieces"), code, at, value)

    return tell


def inode(name: str, tree: int = WORK) -> At:
    return At(name, INODE_ITEM_KEY, 0, tree)


def piece(name: str, number: int = 0, tree: int = WORK) -> At:
    return At(name, EXTENT_DATA_KEY, number, tree)


class Case(NamedTuple):
    """A lie.

    Attributes:
        tell: Tells it.
        kinds: The kinds of all findings, each as often as it is found.
        path: Path of the file that the finding of the first kind names.
        why: A part of that finding.
    """

    tell: Tell
    kinds: tuple[str, ...]
    path: str | None
    why: str


CASES: dict[str, Case] = {
    # Inodes.
    "inode item removed": Case(
        remove(inode("small")),
        ("inode-missing", "entry-without-inode", "entry-without-inode", "item-damaged"),
        "/work/small",
        "no inode item",
    ),
    "inode item of long file removed": Case(
        remove(inode("pieces")),
        ("inode-missing", "entry-without-inode", "item-damaged"),
        "/work/pieces",
        "no inode item",
    ),
    "inode item in one snapshot": Case(
        remove(inode("pieces", SECOND)),
        ("inode-missing", "entry-without-inode", "item-damaged"),
        "/second/pieces",
        "no inode item",
    ),
    "nlink": Case(
        put(inode("small"), "<I", NLINK_AT, 2), ("inode-links",), "/work/small", "2, expected 1"
    ),
    "nlink of long file": Case(
        put(inode("pieces"), "<I", NLINK_AT, 9), ("inode-links",), "/work/pieces", "9, expected 1"
    ),
    "nlink of long directory": Case(
        put(inode("folder"), "<I", NLINK_AT, 2),
        ("inode-links", "item-damaged"),
        "/work/folder",
        "2, expected 1",
    ),
    "no name": Case(
        put(inode("pieces"), "<I", NLINK_AT, 0),
        ("orphan-missing", "inode-links"),
        "/work/pieces",
        "never deleted",
    ),
    "needless orphan": Case(orphan("small"), ("orphan-needless",), "/work/small", "has a name"),
    "needless orphan in snapshot": Case(
        orphan("pieces", SECOND), ("orphan-needless",), "/second/pieces", "has a name"
    ),
    "file is a directory": Case(
        put(inode("small"), "<I", MODE_AT, 0o40755),
        ("inode-type", "directory-size", "entry-type", "entry-type"),
        "/work/small",
        "has data",
    ),
    "directory is a file": Case(
        put(inode("folder"), "<I", MODE_AT, 0o100644),
        ("inode-type", "entry-type", "hole-missing"),
        "/work/folder",
        "has entries",
    ),
    "long file is a pipe": Case(
        put(inode("pieces"), "<I", MODE_AT, 0o10644),
        ("inode-type", "entry-type"),
        "/work/pieces",
        "has data",
    ),
    "pipe is a socket": Case(
        put(inode("pipe"), "<I", MODE_AT, 0o140644),
        ("entry-type", "entry-type"),
        "/work/pipe",
        "fifo, expected sock",
    ),
    "size of directory": Case(
        put(inode("packed"), "<Q", SIZE_AT, 3),
        ("directory-size",),
        "/work/packed",
        "3, expected 10",
    ),
    "size of long directory": Case(
        add(inode("folder"), "<Q", SIZE_AT, 2), ("directory-size",), "/work/folder", "directory"
    ),
    "nbytes": Case(
        add(inode("large"), "<Q", NBYTES_AT, 1),
        ("inode-bytes",),
        "/work/large",
        "3145729, expected 3145728",
    ),
    "nbytes of long file": Case(
        add(inode("pieces"), "<Q", NBYTES_AT, BLOCK),
        ("inode-bytes",),
        "/work/pieces",
        "bytes of its data",
    ),
    "nbytes of long file in snapshot": Case(
        add(inode("pieces", SECOND), "<Q", NBYTES_AT, BLOCK),
        ("inode-bytes",),
        "/second/pieces",
        "bytes of its data",
    ),
    "length of symbolic link": Case(
        put(inode("link"), "<Q", SIZE_AT, 5), ("symlink",), "/work/link", "12, expected 5"
    ),
    "no target": Case(
        remove(piece("link")), ("symlink", "inode-bytes"), "/work/link", "0, expected 12"
    ),
    # Data.
    "piece removed": Case(
        remove(piece("large", 1)),
        ("hole-missing", "backref-alone", "inode-bytes"),
        "/work/large",
        "at 1048576",
    ),
    "piece of long file removed": Case(
        remove(piece("pieces", 300)),
        ("hole-missing", "backref-alone", "hole-missing", "inode-bytes", "inode-bytes"),
        "/work/pieces",
        f"at {300 * BLOCK}",
    ),
    "hole of long file removed": Case(
        remove(piece("pieces", 301)),
        ("hole-missing", "hole-missing"),
        "/work/pieces",
        f"at {301 * BLOCK}",
    ),
    "first piece removed": Case(
        remove(piece("pieces", 0, SECOND)),
        ("hole-missing", "backref-alone", "inode-bytes"),
        "/second/pieces",
        "at 0",
    ),
    "checksums of a file that has none": Case(
        put(inode("large"), "<Q", FLAGS_AT, 1),
        ("checksums-too-many",),
        "/work/large",
        "without any",
    ),
    "checksums of a long file that has none": Case(
        put(inode("pieces"), "<Q", FLAGS_AT, 1),
        ("checksums-too-many",),
        "/work/pieces",
        "without any",
    ),
    "no checksums": Case(
        put(inode("no sums"), "<Q", FLAGS_AT, 0),
        ("checksums-missing",),
        "/work/no sums",
        "0, expected 262144",
    ),
    "preallocated piece was written": Case(
        put(piece("half", 1, SECOND), "<B", TYPE_AT, PREALLOC),
        ("checksums-too-many",),
        "/second/half",
        "never written: 65536, expected 0",
    ),
    "written piece was preallocated": Case(
        put(piece("half", 0, SECOND), "<B", TYPE_AT, REG),
        ("checksums-missing",),
        "/second/half",
        "bytes",
    ),
    "two pieces in different leaves overlap": Case(
        lambda liar: liar.add(WORK, last_of_leaf(liar), "<Q", NUM_BYTES_AT, BLOCK),
        ("file-overlaps", "file-overlaps"),
        "/work/pieces",
        "in different leaves",
    ),
    "piece moved, so that it overlaps": Case(
        lambda liar: liar.rekey(WORK, *moved(piece("large", 2).key(liar), -BLOCK)),
        ("item-damaged", "backref-count", "backref-missing", "hole-missing"),
        None,
        "overlaps the piece",
    ),
    # Names.
    "name leads nowhere": Case(
        remove(inode("pipe"), At("pipe", INODE_REF_KEY)),
        ("entry-without-inode", "entry-without-inode"),
        "/work/pipe",
        "not exist",
    ),
    "name not in inode": Case(
        remove(At("linked", INODE_REF_KEY)),
        ("entry-without-link", "entry-without-link", "inode-links"),
        "/work/linked",
        "inode does not",
    ),
    "another name in inode": Case(
        put(At("small", INODE_REF_KEY), "<B", 10, ord("X")),
        ("link-without-entry", "entry-without-link", "entry-without-link"),
        "/work/Xmall",
        "directory does not",
    ),
    "another index in inode": Case(
        add(At("small", INODE_REF_KEY), "<Q", 0, 999),
        ("entry-without-link", "entry-without-link", "link-without-entry"),
        "/work/small",
        "at this index",
    ),
    "name not listed": Case(
        remove(At("packed", DIR_INDEX_KEY)),
        ("entry-without-index", "directory-size", "link-without-entry"),
        "/work/packed/zeros",
        "not listed",
    ),
    "name not to be opened": Case(
        remove(At("packed", DIR_ITEM_KEY)),
        ("entry-without-hash", "directory-size"),
        "/work/packed/zeros",
        "hash",
    ),
    "name not to be opened in a shared leaf": Case(
        remove(At("packed", DIR_ITEM_KEY, 0, SECOND)),
        ("entry-without-hash", "directory-size"),
        "/work/packed/zeros",
        "hash",
    ),
    "type of entry": Case(
        both(
            put(At("packed", DIR_ITEM_KEY), "<B", 29, 2),
            put(At("packed", DIR_INDEX_KEY), "<B", 29, 2),
        ),
        ("entry-type",),
        "/work/packed/zeros",
        "dir, expected file",
    ),
    # Back references.
    "back reference of another inode": Case(
        in_extent("<Q", 33, 999), ("backref-missing", "backref-alone"), "/work/pieces", "0 times"
    ),
    "back reference of a tree that does not exist": Case(
        in_extent("<Q", 25, 999), ("backref-missing", "backref-alone"), "/work/pieces", "0 times"
    ),
    "back reference at another place": Case(
        in_extent("<Q", 41, 7 * BLOCK),
        ("backref-missing", "backref-alone"),
        "/work/pieces",
        "0 times",
    ),
    "extent item removed": Case(
        lambda liar: liar.remove(EXTENT_TREE_OBJECTID, data_ref(liar, "pieces")),
        ("extent-missing", "block-group-used", "checksum-alone", "free-space-differs"),
        "/work/pieces",
        "times",
    ),
    "piece of another extent": Case(
        add(piece("copy"), "<Q", VADDR_AT, BLOCK),
        ("extent-missing", "backref-count"),
        "/work/copy",
        "0 times",
    ),
    "piece at another place of its extent": Case(
        put(piece("large"), "<Q", OFFSET_AT, BLOCK),
        ("backref-missing", "backref-count"),
        "/work/large",
        "times",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_lie(sound: Path, tmp_path: Path, name: str) -> None:
    case = CASES[name]
    image = tmp_path / "lie.img"
    copy_image(sound, image)
    case.tell(Liar([image]))
    found = findings(image)
    assert Counter(one.kind for one in found) == Counter(case.kinds)
    first = next(one for one in found if one.kind == case.kinds[0] and one.path == case.path)
    assert case.why in str(first)
    assert first.path == case.path
    assert first.tree in {None, WORK, SNAPSHOT, SECOND}
