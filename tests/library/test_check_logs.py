"""Lies in log trees are found, and nothing is found in what was synced in many ways.

`btrfs check` of btrfs-progs 6.2 looks into no log tree: it reports an error only where a lie is in
the extent tree.
"""

from __future__ import annotations

import fcntl
import os
import random
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from btrfs import FileSystem
from btrfs.check import KINDS
from btrfs.ondisk.constants import (
    BLOCK_GROUP_ITEM_KEY,
    DIR_LOG_INDEX_KEY,
    EXTENT_CSUM_KEY,
    EXTENT_DATA_KEY,
    EXTENT_ITEM_KEY,
    EXTENT_TREE_OBJECTID,
    FS_TREE_OBJECTID,
    INODE_ITEM_KEY,
    METADATA_ITEM_KEY,
    ROOT_TREE_OBJECTID,
)
from tests import support
from tests.lab.damage import copy_image, noise
from tests.lab.lies import ItemKey, Liar
from tests.library.findings import line_of, messages

FICLONE = 0x40049409

Items = dict[ItemKey, bytearray]

DISK_BYTENR_AT, DISK_NUM_BYTES_AT = 21, 29
"""Where fields are in a file extent item."""

OLD_SIZE, NEW_SIZE = 303_104, 200_704
"""Bytes of extents: of one that is committed, and of one that is only in the log."""


def write(path: Path, content: bytes, position: int = 0) -> None:
    """Write into a file, and sync it."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.seek(position)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_files(root: Path) -> None:
    """Sync files and a directory in the ways that log trees differ by; nothing is committed."""
    write(root / "old", os.urandom(50_000), 100_000)
    write(root / "new", os.urandom(200_000))
    with (root / "allocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
        write(root / "allocated", b"x" * 8192)
    with (root / "old").open("rb") as source, (root / "clone").open("wb") as target:
        fcntl.ioctl(target, FICLONE, source.fileno())
        os.fsync(target.fileno())
    (root / "no checksums").touch()
    support.run("chattr", "+C", root / "no checksums")
    write(root / "no checksums", os.urandom(100_000))
    write(root / "folder" / "small", b"small")
    (root / "folder" / "small").rename(root / "folder" / "renamed")
    directory = os.open(root / "folder", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an image as a crash leaves it, with the log tree of the top level."""
    folder = tmp_path_factory.mktemp("logs")
    with support.filesystem(folder, size="256M", mount_options="commit=300") as fs:
        (fs.mountpoint / "folder").mkdir()
        (fs.mountpoint / "old").write_bytes(os.urandom(OLD_SIZE))
        fs.sync()
        sync_files(fs.mountpoint)
        (image,) = fs.copy_images(folder / "copy")
    return image


@pytest.fixture
def image(sound: Path, tmp_path: Path) -> Path:
    copy_image(sound, tmp_path / "copy.img")
    return tmp_path / "copy.img"


checked = partial(line_of, name="log trees")


def test_nothing_is_wrong(sound: Path) -> None:
    found = checked(sound)
    assert messages(found) == []
    assert found.counts["log_trees"] == 1
    assert found.skipped is None


def test_no_log_trees(image: Path, tmp_path: Path) -> None:
    with support.mounted_images([image], tmp_path / "mnt") as fs:
        fs.unmount()
    found = checked(image)
    assert (found.summary, found.counts["log_trees"]) == ("none", 0)


@pytest.mark.parametrize(
    ("mount_options", "mixed"),
    [("commit=300", False), ("commit=300", True), ("commit=300,compress-force=zstd", False)],
    ids=["plain", "mixed", "compressed"],
)
def test_nothing_is_wrong_after_many_syncs(tmp_path: Path, mount_options: str, mixed: bool) -> None:
    choose = random.Random(1)
    count = 0
    with support.filesystem(tmp_path, size="300M", mount_options=mount_options, mixed=mixed) as fs:
        support.run("btrfs", "subvolume", "create", fs.mountpoint / "subvolume")
        for number in range(4):
            for _ in range(60):
                change(fs.mountpoint / choose.choice([".", "subvolume"]), choose)
            found = checked(fs.copy_images(tmp_path / f"copy{number}"))
            assert messages(found) == []
            count += found.counts["log_trees"]
    assert count


def change(folder: Path, choose: random.Random) -> None:
    """Change a file in some way, and sync it often."""
    path = folder / f"file{choose.randrange(6)}"
    with path.open("r+b" if path.exists() else "w+b") as file:
        position = choose.randrange(os.fstat(file.fileno()).st_size + 1)
        match choose.randrange(4):
            case 0:
                file.truncate(position)
            case 1:
                mode = choose.choice([["--keep-size"], ["--punch-hole"], ["--zero-range"]])
                support.run("fallocate", *mode, "-o", str(position), "-l", "65536", path)
            case _:
                file.seek(position)
                file.write(choose.randbytes(choose.choice([10, 3000, 4096, 20_000, 150_000])))
        file.flush()
        if choose.random() < 0.7:
            os.fsync(file.fileno())
    if choose.random() < 0.1:
        path.rename(folder / f"file{choose.randrange(6)}")


# Lies.


def change_log(image: Path, edit: Callable[[Items], object]) -> None:
    """Change the items in the log tree of the top level, which is a single leaf."""
    with FileSystem(image) as fs:
        (root,) = fs.log_trees()
    Liar([image]).change_leaf(root.bytenr, edit)


def new_extent(items: Items) -> bytearray:
    """Return the body of the file extent item of the file that is only in the log."""
    return next(
        body
        for key, body in items.items()
        if key.type == EXTENT_DATA_KEY
        and struct.unpack_from("<Q", body, DISK_NUM_BYTES_AT) == (NEW_SIZE,)
    )


def old_extent(image: Path) -> int:
    """Return the address of the extent that is committed."""
    return next(
        key.objectid
        for key in Liar([image]).keys(EXTENT_TREE_OBJECTID, EXTENT_ITEM_KEY)
        if key.offset == OLD_SIZE
    )


def put_extent(image: Path, vaddr: int, length: int = NEW_SIZE) -> None:
    """Let the piece of a file be in another extent, of which it uses all."""

    def edit(items: Items) -> None:
        body = new_extent(items)
        struct.pack_into("<QQQQ", body, DISK_BYTENR_AT, vaddr, length, 0, min(NEW_SIZE, length))

    change_log(image, edit)


def in_use(image: Path) -> None:
    """Let the new extent begin in the middle of an old one."""
    put_extent(image, old_extent(image) + 4096, OLD_SIZE)


def shorter(image: Path) -> None:
    """Let an extent of the extent tree be a sector shorter."""
    put_extent(image, old_extent(image), OLD_SIZE - 4096)


def in_metadata(image: Path) -> None:
    """Let data be in a block group of metadata."""
    with FileSystem(image) as fs:
        put_extent(image, next(group.vaddr for group in fs.block_groups() if group.flags & 4))


def twice(image: Path) -> None:
    """Let the new extent overlap another new one."""

    def edit(items: Items) -> None:
        body = new_extent(items)
        (vaddr,) = struct.unpack_from("<Q", body, DISK_BYTENR_AT)
        allocated = next(
            body
            for key, body in items.items()
            if key.type == EXTENT_DATA_KEY
            and struct.unpack_from("<Q", body, DISK_NUM_BYTES_AT) == (1 << 20,)
        )
        (other,) = struct.unpack_from("<Q", allocated, DISK_BYTENR_AT)
        assert other != vaddr
        struct.pack_into("<Q", body, DISK_BYTENR_AT, other + (1 << 19))

    change_log(image, edit)


def without_checksums(image: Path) -> None:
    """Remove the checksums of the file."""

    def edit(items: Items) -> None:
        (vaddr,) = struct.unpack_from("<Q", new_extent(items), DISK_BYTENR_AT)
        key = next(key for key in items if (key.type, key.offset) == (EXTENT_CSUM_KEY, vaddr))
        # Only of the last sector.
        del items[key][-4:]

    change_log(image, edit)


def block_in_use(image: Path) -> None:
    """Let the extent tree know the block of a log tree."""
    with FileSystem(image) as fs:
        (root,) = fs.log_trees()
    key = ItemKey(root.bytenr, METADATA_ITEM_KEY, 0)
    body = struct.pack("<QQQBQ", 1, 3, 2, 176, FS_TREE_OBJECTID)
    Liar([image]).insert(EXTENT_TREE_OBJECTID, key, body)


def block_in_data(image: Path) -> None:
    """Let the block group of metadata be one of data."""
    liar = Liar([image])
    tree = next(tree for tree in (EXTENT_TREE_OBJECTID, 11) if has_block_groups(liar, tree))
    for key in liar.keys(tree, BLOCK_GROUP_ITEM_KEY):
        (flags,) = struct.unpack_from("<Q", liar.body(tree, key), 16)
        if flags & 4:
            liar.put(tree, key, "<Q", 16, flags & ~4 | 1)


def has_block_groups(liar: Liar, tree: int) -> bool:
    try:
        return bool(liar.keys(tree, BLOCK_GROUP_ITEM_KEY))
    except KeyError:
        return False


def turned_range(image: Path) -> None:
    """Let a range of names end before it begins."""

    def edit(items: Items) -> None:
        key = next(key for key in items if key.type == DIR_LOG_INDEX_KEY)
        struct.pack_into("<Q", items[key], 0, key.offset - 1)

    change_log(image, edit)


def of_no_subvolume(image: Path) -> None:
    """Let the log tree be of a subvolume that does not exist."""
    with FileSystem(image) as fs:
        vaddr = fs.block_source().superblock.log_root

    def edit(items: Items) -> None:
        (key,) = items
        items[key._replace(offset=4711)] = items.pop(key)

    Liar([image]).change_leaf(vaddr, edit)


class Case(NamedTuple):
    """A lie, and what it makes: kinds of findings, and whether `btrfs check` reports an error."""

    lie: Callable[[Path], object]
    kinds: set[str]
    progs: bool = False


CASES = {
    "extent in no block group": Case(lambda image: put_extent(image, 1 << 40), {"log-outside"}),
    "data among metadata": Case(in_metadata, {"log-outside"}),
    "block among data": Case(block_in_data, {"log-outside"}, progs=True),
    "extent in use": Case(in_use, {"log-in-use"}),
    "extent of another length": Case(shorter, {"log-in-use"}),
    "block in use": Case(block_in_use, {"log-in-use"}, progs=True),
    "extents that overlap": Case(twice, {"log-overlaps", "log-checksum"}),
    "no checksums": Case(without_checksums, {"log-checksum"}),
    "range of names": Case(turned_range, {"log-directory"}),
    "no subvolume": Case(of_no_subvolume, {"log-alone"}),
}


@pytest.mark.parametrize("name", CASES)
def test_lie(image: Path, name: str) -> None:
    case = CASES[name]
    case.lie(image)
    found = checked(image)
    assert set(found.totals) == case.kinds, messages(found)
    progs = subprocess.run(["btrfs", "check", image], capture_output=True, text=True, check=False)
    assert (progs.returncode != 0) == case.progs, progs.stdout + progs.stderr


def test_all_kinds_are_met() -> None:
    met = set().union(*(case.kinds for case in CASES.values()))
    assert met == {kind for kind in KINDS if kind.startswith("log-")}


def test_inode_that_is_not_in_the_log(image: Path) -> None:
    """Nothing tells whether its data has checksums."""

    def edit(items: Items) -> None:
        for key in [key for key in items if key.type in (INODE_ITEM_KEY, EXTENT_CSUM_KEY)]:
            del items[key]

    change_log(image, edit)
    assert messages(checked(image)) == []


@pytest.mark.parametrize("tree", [EXTENT_TREE_OBJECTID, ROOT_TREE_OBJECTID, None])
def test_nothing_follows_from_what_cannot_be_read(image: Path, tree: int | None) -> None:
    liar = Liar([image])
    with FileSystem(image) as fs:
        (root,) = fs.log_trees()
    vaddr = liar.blocks(tree)[0].vaddr if tree else root.bytenr
    with FileSystem(image) as fs:
        chunk = next(chunk for chunk in fs.chunks() if 0 <= vaddr - chunk.vaddr < chunk.length)
    with image.open("r+b") as file:
        for stripe in chunk.stripes:
            os.pwrite(file.fileno(), noise(64), stripe.offset + vaddr - chunk.vaddr + 2000)
    found = checked(image)
    assert messages(found) == []
    assert found.skipped == "not checked where not all can be read"
