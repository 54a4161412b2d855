"""How an unmounted filesystem is opened and read: choices, members, what is left out."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem
from btrfs.ctree import BlockGroupItem, ExtentItem, InodeItem, InodeRefList, RootItem
from btrfs.errors import (
    BtrfsError,
    CorruptError,
    MissingDeviceError,
    NotBtrfsError,
    TreeNotFoundError,
    UnsupportedFeatureError,
)
from btrfs.ondisk.constants import (
    CHUNK_TREE_OBJECTID,
    EXTENT_TREE_OBJECTID,
    FS_TREE_OBJECTID,
    ROOT_TREE_OBJECTID,
    SUPER_INFO_SIZE,
    SUPER_MIRRORS,
)
from btrfs.ondisk.key import Key
from btrfs.source.damage import DamageLog
from btrfs.source.disk.node import HEADER_SIZE
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.volume import Volume
from tests import support
from tests.library.reading import all_items, leaves
from tests.library.test_checking import change_item
from tests.library.test_damage import change_block, put

GENERATION, LOG_ROOT, INCOMPAT, CHUNK_ROOT = 0x48, 0x60, 0xBC, 0x58


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The two devices of a RAID1."""
    folder = tmp_path_factory.mktemp("pair")
    with support.filesystem(
        folder, devices=2, size="256M", data="raid1", metadata="raid1", nodesize=4096
    ) as fs:
        for number in range(300):
            (fs.mountpoint / f"file{number}").write_bytes(bytes(5000))
    return fs.images


def copies(paths: list[Path], folder: Path) -> list[Path]:
    for path in paths:
        support.run("cp", "--sparse=always", path, folder / path.name)
    return [folder / path.name for path in paths]


def places(fs: FileSystem, vaddr: int) -> list[int]:
    """Return where on the only device the copies of a block are."""
    source = fs.source
    assert isinstance(source, DiskSource)
    volume = source.trees.store
    assert isinstance(volume, Volume)
    return [pieces[0].paddr for pieces in volume.chunk_map.copies(vaddr, fs.nodesize)]


def root_of(fs: FileSystem, tree: int) -> int:
    source = fs.source
    assert isinstance(source, DiskSource)
    return source.root(tree).vaddr


def wipe(image: Path, at: list[int], size: int) -> None:
    with image.open("r+b") as file:
        for place in at:
            file.seek(place)
            file.write(bytes(size))


def wipe_root(image: Path, tree: int) -> None:
    """Destroy all copies of the root of a tree."""
    with FileSystem(image) as fs:
        at, nodesize = places(fs, root_of(fs, tree)), fs.nodesize
    wipe(image, at, nodesize)


def change_superblocks(image: Path, change: Callable[[bytearray], None]) -> None:
    for paddr in SUPER_MIRRORS[:2]:
        change_block(image, paddr, SUPER_INFO_SIZE, change)


# What is given.


def test_name_in_bytes(image: Path) -> None:
    with FileSystem(os.fsencode(image)) as fs:
        assert fs.path == str(image)


@pytest.mark.parametrize("path", [None, 5, [7]])
def test_no_name_at_all(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be a str, bytes or"):
        FileSystem(path)


@pytest.mark.parametrize(
    "options", [{"superblock": 3}, {"backup_root": 4}, {"on_error": "ignore"}], ids=str
)
def test_options_out_of_range(image: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="but must be"):
        FileSystem(image, **options)


def test_closed_filesystem(image: Path) -> None:
    fs = FileSystem(image)
    begun = fs.batches(EXTENT_TREE_OBJECTID)
    assert list(fs.chunks())
    fs.close()
    fs.close()
    for ask in (lambda: list(fs.chunks()), fs.fs_info, lambda: fs.label, lambda: next(begun)):
        with pytest.raises(BtrfsError, match="the filesystem is closed") as caught:
            ask()
        assert type(caught.value) is BtrfsError
    assert fs.damage_summary() is None


# Members.


def test_missing_member(pair: list[Path], tmp_path: Path) -> None:
    with FileSystem(pair) as fs:
        items = all_items(fs)
    for path in pair:
        (left,) = copies([path], tmp_path)
        with FileSystem(left) as fs:
            assert fs.notes == [f"device {2 - pair.index(path)} is missing"]
            assert all_items(fs) == items
            assert fs.damage == []
            assert [fs.dev_info(devid).path for devid in (1, 2)].count("") == 1
        left.unlink()


def test_no_device_with_the_only_copy(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path / "a", devices=2, size="256M", data="raid0", metadata="raid0"
    ) as made:
        for number in range(3000):
            (made.mountpoint / f"file{number}").write_bytes(b"")
    (left,) = copies(made.images[:1], tmp_path)
    with FileSystem(left) as fs, pytest.raises(MissingDeviceError, match="device 2 is missing"):
        all_items(fs)


def test_device_given_twice(pair: list[Path], tmp_path: Path) -> None:
    again = tmp_path / "again.img"
    support.run("cp", "--sparse=always", pair[0], again)
    with FileSystem([*pair, again]) as fs:
        assert fs.notes == [
            f"{again} is left out: it is device 1, as {pair[0]} is, and no newer",
        ]


def test_device_that_was_replaced(pair: list[Path], tmp_path: Path) -> None:
    """It has the number of a member, but another UUID than that."""
    first, second = copies(pair, tmp_path)
    change_superblocks(second, put("<Q", 0xC9 + 66, 77))
    with FileSystem([first, second]) as fs:
        assert fs.notes == [
            f"{second} is left out: another device has become 2",
            "device 2 is missing",
        ]
        assert all_items(fs)


def test_device_without_superblock(pair: list[Path], tmp_path: Path) -> None:
    first, second = copies(pair, tmp_path)
    wipe(second, list(SUPER_MIRRORS[:2]), SUPER_INFO_SIZE)
    for order in ([first, second], [second, first]):
        with FileSystem(order) as fs:
            assert fs.notes == [
                f"left out: {second} holds no btrfs filesystem",
                "device 2 is missing",
            ]
            assert all_items(fs)


# The state that is read.


def test_superblock_of_choice(image: Path) -> None:
    """The copies differ: each leads to its own generation of the label."""
    change_block(image, SUPER_MIRRORS[1], SUPER_INFO_SIZE, put("<B", 0x12B, ord("X")))
    with FileSystem(image) as first, FileSystem(image, superblock=1) as second:
        assert first.label != second.label
        assert second.label.startswith("X")
        assert all_items(first) == all_items(second)
    with pytest.raises(NotBtrfsError, match="has no copy 2 of the superblock at 274877906944"):
        FileSystem(image, superblock=2)


def test_superblock_of_a_dump(tmp_path: Path) -> None:
    dump = support.stored_image("block-group-tree.btrfs-image", tmp_path)
    with FileSystem(dump, superblock=0) as fs:
        assert all_items(fs)
    with pytest.raises(NotBtrfsError, match="has no copy 1 of the superblock"):
        FileSystem(dump, superblock=1)


def test_superblock_that_is_gone(image: Path) -> None:
    with FileSystem(image) as fs:
        items = all_items(fs)
    with image.open("r+b") as file:
        file.seek(SUPER_MIRRORS[0] + 200)
        file.write(b"scribble")
    with FileSystem(image) as fs:
        assert all_items(fs) == items
        (damage,) = fs.damage
        assert (damage.paddr, damage.vaddr, damage.recovered) == (SUPER_MIRRORS[0], None, True)
        assert damage.what == "superblock, checksum"
    with pytest.raises(CorruptError, match="superblock, checksum"):
        FileSystem(image, superblock=0)
    wipe(image, [SUPER_MIRRORS[0]], SUPER_INFO_SIZE)
    with FileSystem(image) as fs:
        assert all_items(fs) == items
        assert fs.notes == [f"{image} is read by the copy of its superblock at 67108864"]


def test_backup_roots(image: Path) -> None:
    with FileSystem(image) as fs:
        now = fs.fs_info().generation
        source = fs.source
        assert isinstance(source, DiskSource)
        backups = [backup.tree_root_gen for backup in source.superblock.backups]
        items = all_items(fs)
    assert max(backups) == now
    with FileSystem(image, backup_root=backups.index(now)) as fs:
        assert all_items(fs) == items
    before = backups.index(now - 1)
    with FileSystem(image, backup_root=before) as fs:
        assert fs.notes == [f"read from backup root {before}, of generation {now - 1}"]
        assert fs.fs_info().generation == now - 1
        assert {root.generation for root in fs.search(1) if isinstance(root, RootItem)} <= set(
            range(now)
        )
    wipe_root(image, ROOT_TREE_OBJECTID)
    with FileSystem(image) as fs:
        with pytest.raises(CorruptError) as caught:
            list(fs.search(FS_TREE_OBJECTID))
        assert caught.value.hint == (
            f"--backup-root {before} reads the filesystem as it was at generation {now - 1}"
        )
        assert list(fs.chunks())
    with FileSystem(image, backup_root=before) as fs:
        assert list(fs.search(ROOT_TREE_OBJECTID))


def test_backup_root_that_is_not_there(image: Path) -> None:
    backup = 0xB2B + 2 * 168
    change_superblocks(image, put("<Q", backup, 0))
    with pytest.raises(BtrfsError, match="no backup root 2") as caught:
        FileSystem(image, backup_root=2)
    assert caught.value.hint == "it has 0, 1, 3"


def test_unreadable_chunk_tree(image: Path) -> None:
    """The backups tell of another chunk tree."""
    with FileSystem(image) as fs:
        items = all_items(fs)
        address, nodesize = root_of(fs, CHUNK_TREE_OBJECTID), fs.nodesize
        generation = fs.block_source().superblock.chunk_root_generation
    # The superblock leads astray; the backups do not.
    change_superblocks(image, put("<Q", CHUNK_ROOT, address + nodesize))
    with FileSystem(image, on_error="skip") as fs:
        assert all_items(fs) == items
        (note,) = fs.notes
        assert note.endswith(f"and is read as it was at generation {generation}: 3 chunks")
        assert [lost.tree for lost in fs.lost] == [CHUNK_TREE_OBJECTID]
    with FileSystem(image) as fs:
        (note,) = fs.notes
        assert "3 chunks known from" in note
        assert list(fs.search(EXTENT_TREE_OBJECTID))
        with pytest.raises(CorruptError):
            list(fs.chunks())


def test_unknown_features(tmp_path: Path) -> None:
    image = support.stored_image("extent-tree-v2.img", tmp_path)
    with pytest.raises(UnsupportedFeatureError, match="extent_tree_v2") as caught:
        FileSystem(image)
    assert "--unknown-features" in str(caught.value.hint)
    with FileSystem(image, unknown_features=True) as fs:
        assert list(fs.chunks())
        assert len(list(fs.search(ROOT_TREE_OBJECTID))) > 5
        assert fs.notes[0].startswith("features that are not known here, extent_tree_v2")


def test_log_trees(tmp_path: Path) -> None:
    with support.filesystem(tmp_path / "a", size="256M") as made:
        made.btrfs("subvolume", "create", made.mountpoint / "sub")
        made.sync()
        with FileSystem(made.mountpoint) as fs, pytest.raises(BtrfsError, match="is mounted"):
            list(fs.log_trees())
        for name in ("one", "sub/two"):
            with (made.mountpoint / name).open("wb") as file:
                file.write(b"synced")
                file.flush()
                os.fsync(file.fileno())
        (image,) = made.copy_images(tmp_path)
    with FileSystem(image) as fs:
        (note,) = fs.notes
        assert note.startswith("not cleanly unmounted: read as of the last commit")
        roots = list(fs.log_trees())
        assert [root.key.offset for root in roots] == [FS_TREE_OBJECTID, 256]
        names = []
        for root in roots:
            items = list(fs.search_root(root))
            names += [ref.name for item in items if isinstance(item, InodeRefList) for ref in item]
            assert any(isinstance(item, InodeItem) and item.size == 6 for item in items)
        assert names == [b"one", b"two"]
    with FileSystem(made.images[0]) as fs:
        assert list(fs.log_trees()) == []
        assert fs.notes == []


# What is left out.


@pytest.fixture
def damaged(pair: list[Path], tmp_path: Path) -> tuple[list[Path], Key, Key]:
    """A filesystem of which one leaf of the tree of files is gone, and the keys that were there."""
    images = copies(pair, tmp_path)
    with FileSystem(images) as fs:
        source = fs.block_source()
        found = leaves(fs, FS_TREE_OBJECTID)
        leaf = found[len(found) // 2]
        volume = source.trees.store
        assert isinstance(volume, Volume)
        for pieces in volume.chunk_map.copies(leaf.vaddr, fs.nodesize):
            wipe(images[pieces[0].devid - 1], [pieces[0].paddr + 40], 8)
    assert leaf.min_key is not None
    return images, Key(0, 0, 0) + leaf.min_key, Key(0, 0, 0) + leaf.max_key


def test_keys_that_are_left_out(pair: list[Path], damaged: tuple[list[Path], Key, Key]) -> None:
    images, min_key, max_key = damaged
    with FileSystem(pair) as fs:
        whole = list(fs.search(FS_TREE_OBJECTID))
    expected = [str(item) for item in whole if not min_key <= item.key <= max_key]
    with FileSystem(images) as fs:
        for read in (fs.search, fs.batches):
            with pytest.raises(CorruptError, match="checksum"):
                list(read(FS_TREE_OBJECTID))
        assert fs.lost == []
    with FileSystem(images, on_error="skip") as fs:
        assert [str(item) for item in fs.search(FS_TREE_OBJECTID)] == expected
        assert sum(map(len, fs.batches(FS_TREE_OBJECTID))) == len(expected)
        (lost,) = fs.lost
        assert lost[:3] == (FS_TREE_OBJECTID, min_key, max_key)
        assert [(damage.recovered, damage.device) for damage in fs.damage] == [
            (False, str(images[0])),
            (False, str(images[1])),
        ]
        assert fs.damage_summary() == (
            "2 damaged places could not be recovered; 1 range of keys left out, of tree 5"
        )
        # What lies outside that range is there without any complaint.
        assert list(fs.search(FS_TREE_OBJECTID, Key(0, 0, 0), min_key - 1))


def test_tree_whose_root_is_left_out(image: Path) -> None:
    wipe_root(image, EXTENT_TREE_OBJECTID)
    with FileSystem(image, on_error="skip") as fs:
        assert list(fs.search(EXTENT_TREE_OBJECTID)) == list(fs.extents()) == []
        assert list(fs.columns(ExtentItem)) == []
        assert [lost[:3] for lost in fs.lost] == [
            (EXTENT_TREE_OBJECTID, Key(0, 0, 0), Key(-1, -1, -1))
        ]
        assert list(fs.block_groups())


def test_root_item_that_is_left_out(image: Path) -> None:
    """Then nobody can tell that there is no such tree."""
    wipe_root(image, ROOT_TREE_OBJECTID)
    with FileSystem(image, on_error="skip") as fs:
        assert list(fs.search(FS_TREE_OBJECTID)) == []
        assert [lost.tree for lost in fs.lost] == [ROOT_TREE_OBJECTID, FS_TREE_OBJECTID]
        assert any("--backup-root" in note for note in fs.notes)
    with FileSystem(image) as fs, pytest.raises(CorruptError):
        list(fs.search(4711))


def test_tree_that_does_not_exist(image: Path) -> None:
    with FileSystem(image, on_error="skip") as fs, pytest.raises(TreeNotFoundError):
        list(fs.search(4711))


def test_items_that_are_left_out(image: Path) -> None:
    """A leaf that is as it must be can hold an item that is not."""
    with FileSystem(image) as fs:
        groups = list(map(str, fs.block_groups()))
        first = next(fs.block_groups())
        at, nodesize = places(fs, root_of(fs, 11)), fs.nodesize
    # The size in the record of the first item.
    for place in at:
        change_block(image, place, nodesize, put("<I", HEADER_SIZE + 21, 5))
    with FileSystem(image) as fs, pytest.raises(CorruptError, match="BLOCK_GROUP_ITEM"):
        list(fs.block_groups())
    with FileSystem(image) as fs, pytest.raises(CorruptError, match="BLOCK_GROUP_ITEM"):
        list(fs.columns(BlockGroupItem))
    with FileSystem(image, on_error="skip") as fs:
        assert list(map(str, fs.block_groups())) == groups[1:]
        found = sum(len(columns["used"]) for columns in fs.columns(BlockGroupItem))
        assert found == len(groups) - 1
        assert [lost[:3] for lost in fs.lost] == [(11, first.key, first.key)]


def test_root_item_of_a_snapshot_that_is_left_out(image: Path) -> None:
    """Its key has an offset."""
    with FileSystem(image) as fs:
        (snapshot,) = (root for root in fs.subvolumes() if root.key.offset)

    def shorten(block: bytearray, record: int, _body: int) -> None:
        struct.pack_into("<I", block, record + 21, 5)

    change_item(image, ROOT_TREE_OBJECTID, snapshot.key, shorten)
    with FileSystem(image, on_error="skip") as fs:
        assert list(fs.search(snapshot.objectid)) == []
        assert [lost.tree for lost in fs.lost] == [ROOT_TREE_OBJECTID, snapshot.objectid]
        with pytest.raises(TreeNotFoundError):
            list(fs.search(4711))


def test_default_subvolume_that_is_left_out(image: Path) -> None:
    """It is lost by the number that it has."""
    wipe_root(image, FS_TREE_OBJECTID)
    with FileSystem(image, on_error="skip") as fs:
        assert list(fs.search(0)) == list(fs.search(FS_TREE_OBJECTID)) == []
        assert list(fs.batches(0)) == []
        assert [lost.tree for lost in fs.lost] == [FS_TREE_OBJECTID]


def test_root_item_that_leads_nowhere(image: Path) -> None:
    with FileSystem(image) as fs:
        root = fs.top_level()
        root.bytenr = 1 << 63
        with pytest.raises(CorruptError, match="a root block at an address below"):
            list(fs.search_root(root))
    with FileSystem(image, on_error="skip") as fs:
        assert list(fs.search_root(root)) == []
        assert [lost.tree for lost in fs.lost] == [FS_TREE_OBJECTID]


@pytest.mark.parametrize("at", [GENERATION, 0xA4], ids=["generation", "chunk_root_generation"])
def test_generation_that_none_can_follow(image: Path, at: int) -> None:
    """Log trees are of the next one."""
    change_superblocks(image, put("<Q", at, (1 << 64) - 1))
    with pytest.raises(CorruptError, match=r"generation .* expected below"):
        FileSystem(image)


def test_superblock_without_chunks(image: Path) -> None:
    change_superblocks(image, put("<I", 0xA0, 0))
    with pytest.raises(CorruptError, match="sys_chunk_array: expected at least one chunk"):
        FileSystem(image)


def test_damaged_superblock_of_a_member_that_was_not_named(
    pair: list[Path], tmp_path: Path
) -> None:
    first, second = copies(pair, tmp_path)
    with second.open("r+b") as file:
        file.seek(SUPER_MIRRORS[0] + 200)
        file.write(b"scribble")
    with FileSystem(first) as fs:
        assert [(damage.device, damage.recovered) for damage in fs.damage] == [(str(second), True)]
        assert fs.notes == [f"{second} is read by the copy of its superblock at 67108864"]


def test_pipe(tmp_path: Path) -> None:
    """Nobody waits for what will never come."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotBtrfsError, match="neither a block device nor an image file"):
        FileSystem(tmp_path / "pipe", source="unmounted")


def test_damage_that_became_worse() -> None:
    log = DamageLog()
    error = CorruptError("tree block", expected=1, found=2, device="a", paddr=3)
    log.add(error, 4, recovered=True)
    log.add(error, 4, recovered=False)
    log.add(error, 4, recovered=True)
    assert [damage.recovered for damage in log.damage] == [False]
    for what in ("one", "two", "one"):
        log.add(CorruptError(what), None, recovered=False)
    assert len(log.damage) == 3


def test_seed(tmp_path: Path) -> None:
    """It is another filesystem, on which this one has grown; it is found beside it."""
    with support.filesystem(tmp_path, size="256M") as made:
        (made.mountpoint / "file").write_bytes(bytes(100_000))
        made.unmount()
        made.tune("-S", "1")
        made.mount()
        sprout = made.add_image("256M")
        made.btrfs("device", "add", sprout, made.mountpoint)
    with FileSystem(made.images[0]) as fs:
        seed = fs.fsid
    with FileSystem(made.images[1]) as fs:
        assert fs.fsid != seed
        assert fs.notes == []
    made.images[0].unlink()
    with FileSystem(made.images[1]) as fs:
        assert fs.notes == [f"device 1 is of a seed filesystem, {seed}", "device 1 is missing"]
