"""Each kind of damage is found, nothing is found where there is none, and nothing is written."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from btrfs import FileSystem, check
from btrfs.check import KINDS, Checked
from btrfs.errors import BtrfsError
from btrfs.ondisk.constants import (
    BLOCK_GROUP_RAID1,
    BLOCK_GROUP_TREE_OBJECTID,
    CHUNK_TREE_OBJECTID,
    CSUM_TREE_OBJECTID,
    DEV_TREE_OBJECTID,
    EXTENT_TREE_OBJECTID,
    FREE_SPACE_TREE_OBJECTID,
    FS_TREE_OBJECTID,
    KEY_MAX,
    RAID_STRIPE_TREE_OBJECTID,
    ROOT_TREE_OBJECTID,
    SUPER_INFO_SIZE,
    SUPER_MIRRORS,
)
from btrfs.ondisk.key import Key
from btrfs.ownership.paths import lookup
from btrfs.source.disk.node import HEADER_SIZE, ITEM_RECORD_SIZE
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.volume import Volume
from tests import support
from tests.library.reading import leaves
from tests.library.test_damage import NRITEMS, change_block, put
from tests.support import removal

MIB = 1 << 20
OWNER = 88
SECTOR = 4096

Edit = Callable[[bytearray, int, int], None]
"""Changes a block, given where in it the record and the body of an item are."""


def found(
    targets: Path | list[Path], *, all_copies: bool = False, data: bool = False
) -> dict[str, Checked]:
    """Check, and return what each check found."""
    with FileSystem(targets, source="unmounted", on_error="skip") as fs:
        checks = check.check(fs, all_copies=all_copies, data=data)
        return {checked.name: checked for checked in checks}


def kinds(checks: dict[str, Checked]) -> dict[str, int]:
    """Return how many findings of each kind there are."""
    return {kind: total for checked in checks.values() for kind, total in checked.totals.items()}


def messages(checks: dict[str, Checked]) -> list[str]:
    return [finding.message for checked in checks.values() for finding in checked.findings]


# Filesystems in which nothing is wrong.


@pytest.mark.parametrize(
    "options",
    [
        {"size": "512M"},
        {"mixed": True, "data": "dup", "metadata": "dup", "size": "512M"},
        {
            "features": ("^skinny-metadata", "^free-space-tree", "^no-holes"),
            "nodesize": 4096,
            "csum": "xxhash",
            "size": "512M",
        },
        {"devices": 3, "data": "raid5", "metadata": "raid5", "size": "512M"},
        {"devices": 4, "data": "raid0", "metadata": "raid10", "size": "512M"},
        {"devices": 4, "data": "raid6", "metadata": "raid1c4", "csum": "sha256", "size": "512M"},
    ],
    ids=["dup", "mixed", "old", "raid5", "raid10", "raid6"],
)
def test_nothing_is_wrong(tmp_path: Path, options: support.Options) -> None:
    """Neither as a crash leaves it, with an open file and log trees, nor when it is unmounted."""
    with support.filesystem(tmp_path / "a", **options) as fs:
        support.populate(fs.mountpoint)
        support.enable_quota(fs.mountpoint)
        fs.sync()
        with support.orphan(fs.mountpoint / "gone"):
            for number in range(40):
                with (fs.mountpoint / f"synced{number % 7}").open("ab") as file:
                    file.write(os.urandom(10 ** (number % 6)))
                    file.flush()
                    os.fsync(file.fileno())
            crashed = fs.copy_images(tmp_path / "crash")
    for images in (crashed, fs.images):
        before = [image.stat() for image in images]
        checks = found(images, all_copies=True, data=True)
        assert messages(checks) == []
        has_tree = "^free-space-tree" not in options.get("features", ())
        assert (checks["free space"].skipped is None) == has_tree
        assert checks["trees"].counts["items"] > 5000
        assert checks["data"].counts["bytes"] > 10 * MIB
        rows = checks["trees"].details
        assert any("log of" in row["name"] for row in rows) == (images is crashed)
        assert [image.stat().st_mtime_ns for image in images] == [
            stat.st_mtime_ns for stat in before
        ]


def test_half_removed_subvolume(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path / "a", size="2G", metadata="single", nodesize=removal.NODESIZE
    ) as fs:
        removed = removal.interrupt(fs, tmp_path / "b")
    checks = found(removed.images)
    assert messages(checks) == []
    blocks = {row["tree"]: row["blocks"] for row in checks["trees"].details}
    assert 0 < blocks[removed.root.objectid] < removed.leaves
    names = [row["name"] for row in checks["trees"].details]
    assert f"deleted subvolume {removed.root.objectid}" in names


def test_paused_balance(tmp_path: Path) -> None:
    with support.filesystem(tmp_path / "a", size="1G") as fs:
        support.populate(fs.mountpoint)
        assert support.pause_balance(fs.mountpoint)
        fs.sync()
        images = fs.copy_images(tmp_path / "b")
    assert messages(found(images, data=True)) == []


@pytest.mark.parametrize("name", ["simple-quota.img", "raid-stripe-tree.img"])
def test_stored_images(tmp_path: Path, name: str) -> None:
    checks = found(support.stored_image(name, tmp_path), all_copies=True, data=True)
    assert messages(checks) == []
    assert checks["data"].counts["bytes"] > MIB


def test_dump(tmp_path: Path) -> None:
    dump = support.stored_image("block-group-tree.btrfs-image", tmp_path)
    checks = found(dump, all_copies=True, data=True)
    assert messages(checks) == []
    assert {name for name, checked in checks.items() if checked.skipped} == {"copies", "data"}


# One item is changed.


def disk(fs: FileSystem) -> tuple[DiskSource, Volume]:
    source = fs.block_source()
    assert isinstance(source.trees.store, Volume)
    return source, source.trees.store


def refuse(_min_key: int, _max_key: int, error: BtrfsError) -> None:
    raise error


class Place(NamedTuple):
    """Where a tree block is: its virtual address, and all its copies on the only device."""

    vaddr: int
    paddrs: list[int]
    nodesize: int


def leaf_of(image: Path, tree: int, key: int) -> Place:
    """Return where the leaf is that a key is in."""
    with FileSystem(image) as fs:
        _, volume = disk(fs)
        vaddr = next(leaf.vaddr for leaf in leaves(fs, tree) if leaf.max_key >= key)
        copies = volume.chunk_map.copies(vaddr, fs.nodesize)
        return Place(vaddr, [pieces[0].paddr for pieces in copies], fs.nodesize)


def change_leaf(image: Path, tree: int, change: Callable[[bytearray], None], key: int = 0) -> Place:
    """Change all copies of a leaf, by default of the first one."""
    place = leaf_of(image, tree, key)
    for paddr in place.paddrs:
        change_block(image, paddr, place.nodesize, change)
    return place


def change_item(image: Path, tree: int, key: Key, edit: Edit) -> None:
    """Change an item in all copies of its leaf."""

    def change(block: bytearray) -> None:
        (nritems,) = struct.unpack_from("<I", block, NRITEMS)
        for record in range(HEADER_SIZE, HEADER_SIZE + nritems * ITEM_RECORD_SIZE, 25):
            *parts, start, _ = struct.unpack_from("<QBQII", block, record)
            if Key(*parts) == key:
                edit(block, record, HEADER_SIZE + start)
                return
        raise AssertionError(f"{key} is not there")

    change_leaf(image, tree, change, key.key)


def body(code: str, at: int, value: int) -> Edit:
    """Return an edit that writes a number into the body."""
    return lambda block, _, start: struct.pack_into(code, block, start + at, value)


def add(code: str, at: int, number: int) -> Edit:
    """Return an edit that adds to a number in the body."""

    def edit(block: bytearray, _: int, start: int) -> None:
        (value,) = struct.unpack_from(code, block, start + at)
        struct.pack_into(code, block, start + at, value + number)

    return edit


def record(code: str, at: int, value: int) -> Edit:
    """Return an edit that writes a number into the record: 0 objectid, 8 type, 9 offset ..."""
    return lambda block, start, _: struct.pack_into(code, block, start + at, value)


def both(*edits: Edit) -> Edit:
    """Return several edits as one."""

    def edit(block: bytearray, start: int, body_start: int) -> None:
        for each in edits:
            each(block, start, body_start)

    return edit


def change_superblocks(image: Path, change: Callable[[bytearray], None]) -> None:
    for paddr in SUPER_MIRRORS[:2]:
        change_block(image, paddr, SUPER_INFO_SIZE, change)


def keys(image: Path, tree: int, key_type: str) -> list[Key]:
    """Return the keys of the items of a type."""
    with FileSystem(image) as fs:
        found_keys = [item.key for item in fs.search(tree)]
    return [key for key in found_keys if f" {key_type} " in str(key)]


# What to change: tree, type of key, which of its items; how; and what is found.
TYPE, SIZE = 8, 21
DATA_CHUNK, METADATA_CHUNK = (13631488, 8 * MIB), (30408704, 32 * MIB)

ITEMS: dict[str, tuple[int, str, int, Edit, set[str]]] = {
    "size of an inode": (
        FS_TREE_OBJECTID, "INODE_ITEM", 3, record("<I", SIZE, 159),
        {"item-damaged", "inode-missing", "entry-without-inode"},
    ),
    "mode of an inode": (
        FS_TREE_OBJECTID, "INODE_ITEM", 3, body("<I", 52, 0o644),
        {"item-damaged", "inode-type", "entry-type"},
    ),
    "generation of an inode": (
        FS_TREE_OBJECTID, "INODE_ITEM", 3, body("<Q", 0, 1 << 40), {"item-damaged"},
    ),
    "names of a directory": (
        FS_TREE_OBJECTID, "INODE_ITEM", 0, body("<I", 40, 2), {"item-damaged", "inode-links"},
    ),
    "name of an inode": (
        FS_TREE_OBJECTID, "INODE_REF", 3, body("<H", 8, 500),
        {"item-damaged", "inode-links", "entry-without-link"},
    ),
    "length of a name": (
        FS_TREE_OBJECTID, "DIR_INDEX", 3, body("<H", 27, 500),
        {"item-damaged", "directory-size", "link-without-entry", "entry-without-index"},
    ),
    "type of an entry": (
        FS_TREE_OBJECTID, "DIR_INDEX", 3, body("<B", 29, 77),
        {"item-damaged", "entry-type", "entry-without-index", "entry-without-hash"},
    ),
    "hash of a name": (
        FS_TREE_OBJECTID, "DIR_ITEM", 3, body("<B", 30, 0x7F),
        {"item-damaged", "entry-without-index", "entry-without-hash"},
    ),
    "type of a piece": (
        FS_TREE_OBJECTID, "EXTENT_DATA", 9, body("<B", 20, 9),
        {"item-damaged", "inode-bytes", "extent-missing"},
    ),
    "size of a piece": (
        FS_TREE_OBJECTID, "EXTENT_DATA", 9, record("<I", SIZE, 20),
        {"item-damaged", "inode-bytes"},
    ),
    "key type": (
        CSUM_TREE_OBJECTID, "EXTENT_CSUM", -1, record("<B", TYPE, 130),
        {"key-type", "checksums-missing"},
    ),
    "overlapping checksums": (
        CSUM_TREE_OBJECTID, "EXTENT_CSUM", 2, record("<Q", 9, 13873152 - SECTOR),
        {"checksums-overlap", "checksums-missing"},
    ),
    "half a checksum": (
        CSUM_TREE_OBJECTID, "EXTENT_CSUM", 2, record("<I", SIZE, 3),
        {"item-damaged", "checksums-missing"},
    ),
    "extent as data and block": (
        EXTENT_TREE_OBJECTID, "EXTENT_ITEM", 7, body("<Q", 16, 3), {"item-damaged"},
    ),
    "short extent": (
        EXTENT_TREE_OBJECTID, "EXTENT_ITEM", 7, record("<I", SIZE, 20), {"item-damaged"},
    ),
    "inline reference": (
        EXTENT_TREE_OBJECTID, "EXTENT_ITEM", 7, body("<B", 24, 1), {"item-damaged"},
    ),
    "half an inline reference": (
        EXTENT_TREE_OBJECTID, "EXTENT_ITEM", 7, record("<I", SIZE, 40), {"item-damaged"},
    ),
    "references": (EXTENT_TREE_OBJECTID, "EXTENT_ITEM", 7, add("<Q", 0, 1), {"extent-references"}),
    "references counted": (
        EXTENT_TREE_OBJECTID, "EXTENT_ITEM", 7, add("<I", 49, 2),
        {"extent-references", "backref-count"},
    ),
    "references of a block": (
        EXTENT_TREE_OBJECTID, "METADATA_ITEM", 7, add("<Q", 0, 1), {"extent-references"},
    ),
    "reference to nothing": (
        EXTENT_TREE_OBJECTID, "METADATA_ITEM", 7,
        both(record("<B", TYPE, 182), record("<I", SIZE, 0)),
        {
            *("reference-alone", "block-without-extent", "block-group-used"),
            *("free-space-differs", "item-damaged", "extent-missing"),
        },
    ),
    "level": (EXTENT_TREE_OBJECTID, "METADATA_ITEM", 7, record("<Q", 9, 5), {"block-differs"}),
    "generation": (EXTENT_TREE_OBJECTID, "METADATA_ITEM", 7, add("<Q", 8, 1), {"block-differs"}),
    "overlapping extents": (
        EXTENT_TREE_OBJECTID, "EXTENT_ITEM", 7, record("<Q", 9, 2 * SECTOR),
        {"extent-overlaps", "block-group-used", "backref-missing", "backref-alone"},
    ),
    "extent behind its chunk": (
        EXTENT_TREE_OBJECTID, "EXTENT_ITEM", -1, record("<Q", 9, 8 * MIB),
        {
            *("extent-outside", "extent-overlaps", "block-group-used", "free-space-differs"),
            *("backref-missing", "backref-alone"),
        },
    ),
    "used": (
        BLOCK_GROUP_TREE_OBJECTID, "BLOCK_GROUP_ITEM", 0, add("<Q", 0, SECTOR),
        {"block-group-used", "bytes-used"},
    ),
    "profile": (
        BLOCK_GROUP_TREE_OBJECTID, "BLOCK_GROUP_ITEM", 2, body("<Q", 16, 4 | BLOCK_GROUP_RAID1),
        {"block-group-differs"},
    ),
    "type": (
        BLOCK_GROUP_TREE_OBJECTID, "BLOCK_GROUP_ITEM", 0, body("<Q", 16, 4),
        {"block-group-differs"},
    ),
    "length": (
        BLOCK_GROUP_TREE_OBJECTID, "BLOCK_GROUP_ITEM", 2, record("<Q", 9, 16 * MIB),
        {"block-group-differs"},
    ),
    "block group elsewhere": (
        BLOCK_GROUP_TREE_OBJECTID, "BLOCK_GROUP_ITEM", 2, record("<Q", 0, 1 << 40),
        {"block-group-alone", "chunk-alone"},
    ),
    "free space": (
        FREE_SPACE_TREE_OBJECTID, "FREE_SPACE_EXTENT", -1, record("<Q", 9, 31850496 - 16384),
        {"free-space-differs"},
    ),
    "free ranges": (
        FREE_SPACE_TREE_OBJECTID, "FREE_SPACE_INFO", 1, add("<I", 0, 1), {"free-space-count"},
    ),
    "free space elsewhere": (
        FREE_SPACE_TREE_OBJECTID, "FREE_SPACE_EXTENT", -1, record("<Q", 0, 1 << 40),
        {"free-space-alone", "free-space-differs", "free-space-count"},
    ),
    "chunk of a device extent": (
        DEV_TREE_OBJECTID, "DEV_EXTENT", 0, body("<Q", 16, METADATA_CHUNK[0]),
        {"device-extent-differs"},
    ),
    "overlapping device extents": (
        DEV_TREE_OBJECTID, "DEV_EXTENT", 0, body("<Q", 24, 16 * MIB),
        {"device-extent-differs", "device-extent-overlaps", "device-used"},
    ),
    "device extent behind the end": (
        DEV_TREE_OBJECTID, "DEV_EXTENT", -1, record("<Q", 9, 240 * MIB),
        {"stripe-alone", "device-extent-alone", "device-extent-outside"},
    ),
    "bytes of a device": (
        CHUNK_TREE_OBJECTID, "DEV_ITEM", 0, add("<Q", 16, MIB), {"device-item", "device-used"},
    ),
    "chunk": (
        CHUNK_TREE_OBJECTID, "CHUNK_ITEM", 0, body("<Q", 16, SECTOR),
        {"item-damaged", "keys-lost"},
    ),
    "generation of a tree": (
        ROOT_TREE_OBJECTID, "ROOT_ITEM", -1, body("<Q", 160, 1 << 40),
        {"item-damaged", "block-damaged", "keys-lost"},
    ),
    "root of a tree": (
        ROOT_TREE_OBJECTID, "ROOT_ITEM", -1, body("<B", 238, 99),
        {"item-damaged", "extent-without-block", "backref-alone"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ITEMS)
def test_changed_item(image: Path, name: str) -> None:
    tree, key_type, index, edit, expected = ITEMS[name]
    change_item(image, tree, keys(image, tree, key_type)[index], edit)
    checks = found(image)
    assert set(kinds(checks)) == expected, messages(checks)
    assert all(finding.kind in KINDS for checked in checks.values() for finding in checked.findings)


def test_tree_that_is_gone(image: Path) -> None:
    """The last item of the root tree is cut off; its tree is still in the extent tree."""
    change_leaf(image, ROOT_TREE_OBJECTID, _drop_last_item)
    assert kinds(found(image)) == {"extent-without-block": 1, "backref-alone": 1}


def _drop_last_item(block: bytearray) -> None:
    (nritems,) = struct.unpack_from("<I", block, NRITEMS)
    struct.pack_into("<I", block, NRITEMS, nritems - 1)


def test_block_of_another_tree(image: Path) -> None:
    place = change_leaf(image, CSUM_TREE_OBJECTID, put("<Q", OWNER, EXTENT_TREE_OBJECTID))
    checks = found(image)
    assert kinds(checks) == {"block-owner": 1}
    assert messages(checks) == [f"tree block at {place.vaddr} in csum tree: of extent tree"]


# Superblocks.


def test_destroyed_superblock(image: Path) -> None:
    first, second = SUPER_MIRRORS[:2]
    scribble(image, first + 300)
    checks = found(image)
    assert kinds(checks) == {"superblock-invalid": 1}
    assert f"{image} at {first}: superblock, checksum" in messages(checks)[0]
    scribble(image, second + 300)
    with pytest.raises(BtrfsError):
        found(image)


def test_wiped_copy_of_the_superblock(image: Path) -> None:
    with image.open("r+b") as file:
        file.seek(SUPER_MIRRORS[1])
        file.write(bytes(SUPER_INFO_SIZE))
    assert messages(found(image)) == [f"{image} at {SUPER_MIRRORS[1]}: there is none"]


def test_copy_of_the_superblock_that_differs(image: Path) -> None:
    change_block(image, SUPER_MIRRORS[1], SUPER_INFO_SIZE, put("<Q", 0x48, 3))
    checks = found(image)
    assert kinds(checks) == {"superblock-differs": 1}
    assert "generation is 3 instead of 14" in messages(checks)[0]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0x70, {"device-sums"}),
        (0x78, {"bytes-used"}),
        (0xC9 + 16, {"device-item"}),
    ],
    ids=["total_bytes", "bytes_used", "bytes of the device"],
)
def test_wrong_number_in_all_superblocks(image: Path, at: int, expected: set[str]) -> None:
    change_superblocks(image, lambda block: put("<Q", at, _u64(block, at) - SECTOR)(block))
    assert set(kinds(found(image))) == expected


def _u64(block: bytearray, at: int) -> int:
    (value,) = struct.unpack_from("<Q", block, at)
    assert isinstance(value, int)
    return value


def test_device_that_is_cut_off(image: Path) -> None:
    os.truncate(image, 200 * MIB)
    checks = found(image, data=True)
    assert kinds(checks) == {"device-cut-off": 1}
    assert messages(checks) == [f"{image} ends at {200 * MIB} instead of {256 * MIB}"]


# Tree blocks.


def scribble(image: Path, at: int) -> None:
    with image.open("r+b") as file:
        file.seek(at)
        file.write(b"scribble")


def test_damaged_tree_blocks(image: Path) -> None:
    """With one bad copy all can be read; with two, what follows from that is not told."""
    place = leaf_of(image, EXTENT_TREE_OBJECTID, KEY_MAX)
    scribble(image, place.paddrs[1] + 200)
    assert kinds(found(image)) == {}
    checks = found(image, all_copies=True)
    assert kinds(checks) == {"copy-damaged": 1}
    assert all(finding.recovered for finding in checks["copies"].findings)
    assert f"tree block at {place.vaddr}, checksum" in messages(checks)[0]
    scribble(image, place.paddrs[0] + 200)
    checks = found(image, all_copies=True)
    assert kinds(checks) == {"block-damaged": 2, "keys-lost": 1}
    assert not any(finding.recovered for finding in checks["trees"].findings)
    skipped = checks["extents"].skipped
    assert skipped is not None
    assert skipped.startswith("not checked where not all can be read: ")


def test_first_copy_of_a_tree_block(image: Path) -> None:
    place = leaf_of(image, FS_TREE_OBJECTID, 0)
    scribble(image, place.paddrs[0] + 200)
    for all_copies in (False, True):
        checks = found(image, all_copies=all_copies)
        assert kinds(checks) == {"block-damaged": 1}
        assert checks["trees"].findings[0].recovered


@pytest.mark.parametrize(
    "tree",
    [ROOT_TREE_OBJECTID, EXTENT_TREE_OBJECTID, CHUNK_TREE_OBJECTID, DEV_TREE_OBJECTID, 10, 11],
)
def test_tree_without_its_root(image: Path, tree: int) -> None:
    with FileSystem(image) as fs:
        source, volume = disk(fs)
        vaddr = source.root(tree).vaddr
        copies = volume.chunk_map.copies(vaddr, fs.nodesize)
    for pieces in copies:
        scribble(image, pieces[0].paddr + 200)
    checks = found(image, all_copies=True, data=True)
    assert set(kinds(checks)) == {"block-damaged", "keys-lost"}, messages(checks)


def test_too_much_damage_to_tell(image: Path) -> None:
    """All is counted, but not all is kept."""

    def change(block: bytearray) -> None:
        for number in range(struct.unpack_from("<I", block, NRITEMS)[0]):
            at = HEADER_SIZE + number * ITEM_RECORD_SIZE + TYPE
            block[at] = 255

    count = len(keys(image, CSUM_TREE_OBJECTID, "EXTENT_CSUM"))
    change_leaf(image, CSUM_TREE_OBJECTID, change)
    found_kinds = kinds(found(image))
    assert found_kinds.pop("checksums-missing") > 100
    assert found_kinds == {"key-type": count}
    report = Checked("trees")
    for number in range(5000):
        report.add("key-type", str(number))
    assert report.found == report.totals["key-type"] == 5000
    assert len(report.findings) == 1000


# Several devices.


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two devices: all tree blocks are on both, and each piece of data on one of them."""
    folder = tmp_path_factory.mktemp("pair")
    with support.filesystem(folder, devices=2, size="256M", data="raid0", metadata="raid1") as fs:
        (fs.mountpoint / "file").write_bytes(os.urandom(4 * MIB))
        fs.sync()
        fs.copy_images(folder / "before")
        (fs.mountpoint / "another").write_bytes(os.urandom(4 * MIB))
    return fs.images


def test_missing_device(pair: list[Path], tmp_path: Path) -> None:
    support.run("cp", "--sparse=always", pair[0], tmp_path / "alone.img")
    checks = found(tmp_path / "alone.img", all_copies=True, data=True)
    assert set(kinds(checks)) == {"device-missing", "data-unreadable"}
    assert messages({"superblocks": checks["superblocks"]})[0].startswith("device 2, of UUID")
    assert "device 2 is missing" in messages({"data": checks["data"]})[0]


def test_stale_device(pair: list[Path], tmp_path: Path) -> None:
    images = [tmp_path / "one.img", tmp_path / "two.img"]
    before = pair[0].parent / "before"
    support.run("cp", "--sparse=always", pair[0], images[0])
    support.run("cp", "--sparse=always", before / pair[1].name, images[1])
    # From the superblock alone it could be a crash; what the device missed is found besides.
    checks = found(images, all_copies=True)
    assert kinds(checks)["device-behind"] == 1
    assert set(kinds(checks)) <= {"device-behind", "copy-damaged", "block-damaged"}
    assert str(images[1]) in messages(checks)[0]


def test_parity(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, devices=3, size="256M", data="raid5", metadata="raid5"
    ) as made:
        (made.mountpoint / "file").write_bytes(os.urandom(MIB))
    with FileSystem(made.images) as fs:
        source, volume = disk(fs)
        vaddr = source.root(FS_TREE_OBJECTID).vaddr
        parity = volume.chunk_map.rows(vaddr, fs.nodesize)[0].p
    scribble(made.images[parity.devid - 1], parity.paddr + 500)
    assert kinds(found(made.images)) == {}
    checks = found(made.images, all_copies=True, data=True)
    assert kinds(checks)["parity-differs"] >= 1
    assert set(kinds(checks)) == {"parity-differs"}
    assert any(f"tree block at {vaddr} " in message for message in messages(checks))


# Data.


def first_data(image: Path) -> tuple[int, int]:
    """Return virtual and physical address of a sector of data."""
    with FileSystem(image) as fs:
        chunk = next(fs.chunks())
        vaddr = next(fs.extents(chunk.vaddr)).vaddr
        return vaddr, chunk.stripes[0].offset + vaddr - chunk.vaddr


def test_damaged_data(image: Path) -> None:
    vaddr, paddr = first_data(image)
    for number in range(2):
        scribble(image, paddr + number * SECTOR + 100)
    assert kinds(found(image)) == {}
    for all_copies in (False, True):
        checks = found(image, data=True, all_copies=all_copies)
        assert kinds(checks) == {"data-damaged": 1}
        (message,) = messages(checks)
        assert message.startswith(f"{2 * SECTOR} bytes at {vaddr} ({image} at {paddr}); in ")
        name = re.split(", | and ", message.partition("; in ")[2])[0]
        with FileSystem(image) as fs:
            assert lookup(fs, name).tree == FS_TREE_OBJECTID


def test_damaged_copy_of_data(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, devices=2, size="256M", data="raid1", metadata="raid1"
    ) as made:
        (made.mountpoint / "file").write_bytes(os.urandom(MIB))
    with FileSystem(made.images) as fs:
        _, volume = disk(fs)
        vaddr = next(extent.vaddr for extent in fs.extents() if extent.flags & 1)
        copies = volume.chunk_map.copies(vaddr, SECTOR)
    second = copies[1][0]
    scribble(made.images[second.devid - 1], second.paddr)
    assert kinds(found(made.images, data=True)) == {}
    checks = found(made.images, data=True, all_copies=True)
    assert kinds(checks) == {"data-damaged": 1}
    (finding,) = checks["data"].findings
    assert finding.recovered
    assert finding.message.endswith("; another copy is right; in /file")
    assert (finding.device, finding.paddr) == (
        str(made.images[second.devid - 1]),
        second.paddr,
    )


def test_progress(image: Path) -> None:
    told: list[tuple[int, int]] = []
    with FileSystem(image, on_error="skip") as fs:
        for _ in check.check(fs, data=True, progress=lambda *numbers: told.append(numbers)):
            pass
    done, total = told[-1]
    assert done == total > MIB


def test_raid_stripe_tree(tmp_path: Path) -> None:
    """Data is where that tree says, which is not where the chunk is."""
    image = support.stored_image("raid-stripe-tree.img", tmp_path)
    with FileSystem(image) as fs:
        chunk = next(fs.chunks())
        flags = chunk.type | 8
    moved = 128 * MIB
    with image.open("r+b") as file:
        file.seek(chunk.stripes[0].offset)
        content = file.read(chunk.length)
        file.seek(chunk.stripes[0].offset)
        file.write(bytes(chunk.length))
        file.seek(moved)
        file.write(content)
    # RAID0 with a single device.
    change_item(image, CHUNK_TREE_OBJECTID, chunk.key, body("<Q", 24, flags))
    group = Key(chunk.vaddr, 192, chunk.length)
    with FileSystem(image) as fs:
        tree = 11 if fs.features().compat_ro_flags & 8 else EXTENT_TREE_OBJECTID
    change_item(image, tree, group, body("<Q", 16, flags))
    assert set(kinds(found(image, data=True))) == {"data-unreadable"}
    half = chunk.length // 2

    def insert(block: bytearray) -> None:
        struct.pack_into("<I", block, NRITEMS, 2)
        for number in range(2):
            start = len(block) - HEADER_SIZE - 16 * (number + 1)
            at = HEADER_SIZE + number * ITEM_RECORD_SIZE
            vaddr = chunk.vaddr + number * half
            struct.pack_into("<QBQII", block, at, vaddr, 230, half, start, 16)
            struct.pack_into("<QQ", block, HEADER_SIZE + start, 1, moved + number * half)

    change_leaf(image, RAID_STRIPE_TREE_OBJECTID, insert)
    checks = found(image, data=True, all_copies=True)
    assert messages(checks) == []
    assert checks["data"].counts["bytes"] > MIB
    scribble(image, moved + half - SECTOR)
    scribble(image, moved)
    checks = found(image, data=True)
    assert f"({image} at {moved})" in messages(checks)[0]
    assert set(kinds(checks)) == {"data-damaged"}


# How it is called.


def test_opened_to_raise(image: Path) -> None:
    with FileSystem(image) as fs, pytest.raises(ValueError, match="on_error='skip'"):
        check.check(fs)


def test_mounted(mounted: support.LoopFilesystem) -> None:
    with FileSystem(mounted.mountpoint) as fs, pytest.raises(BtrfsError, match="is mounted"):
        check.check(fs)


def test_shared_leaf_that_another_tree_looks_for_elsewhere(tmp_path: Path) -> None:
    """It was checked when the first tree led to it, but not against the keys of the second."""
    with support.filesystem(tmp_path, size="256M", nodesize=4096) as made:
        one, two = made.mountpoint / "one", made.mountpoint / "two"
        made.btrfs("subvolume", "create", one)
        for number in range(200):
            (one / f"file{number}").touch()
        made.btrfs("subvolume", "snapshot", one, two)
    (image,) = made.images
    assert kinds(found(image)) == {}
    with FileSystem(image) as fs:
        source, volume = disk(fs)
        root = source.root(257)
        places = [pieces[0].paddr for pieces in volume.chunk_map.copies(root.vaddr, fs.nodesize)]
    assert root.level
    third_offset = HEADER_SIZE + 2 * 33 + 9

    def lower(block: bytearray) -> None:
        (offset,) = struct.unpack_from("<Q", block, third_offset)
        struct.pack_into("<Q", block, third_offset, offset - 1 if offset else offset)
        if not offset:
            block[third_offset - 1] -= 1

    for paddr in places:
        change_block(image, paddr, 4096, lower)
    assert set(kinds(found(image))) == {"block-damaged", "keys-lost"}


@pytest.mark.parametrize("tree", [DEV_TREE_OBJECTID, CSUM_TREE_OBJECTID, FREE_SPACE_TREE_OBJECTID])
def test_tree_that_is_missing(image: Path, tree: int) -> None:
    """A root item without references is as good as none."""
    refs = 216
    change_item(image, ROOT_TREE_OBJECTID, Key(tree, 132, 0), body("<I", refs, 0))
    checks = found(image, data=True)
    assert kinds(checks)["tree-missing"] == 1
    assert any(message.startswith(f"tree {tree}, ") for message in messages(checks))


def test_every_kind_has_a_test() -> None:
    """What :data:`KINDS` promises is found by some test of a check."""
    tests = Path(__file__).parent.glob("test_check*.py")
    content = "".join(test.read_text() for test in tests)
    assert [kind for kind in KINDS if f'"{kind}"' not in content] == []
