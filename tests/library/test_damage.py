"""No byte is trusted: what is wrong in a block is found, and another copy taken."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from btrfs import FileSystem
from btrfs.crc32c import crc32c_data
from btrfs.ctree import ExtentItem
from btrfs.errors import BtrfsError, CorruptError
from btrfs.ondisk.constants import (
    BLOCK_GROUP_SYSTEM,
    CHUNK_TREE_OBJECTID,
    CSUM_SIZE,
    EXTENT_TREE_OBJECTID,
    KEY_MAX,
    ROOT_TREE_OBJECTID,
    SUPER_INFO_SIZE,
)
from btrfs.source.disk.node import HEADER_SIZE, ITEM_RECORD_SIZE
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.volume import Volume
from tests import support
from tests.library.reading import all_batches, all_items

SUPERBLOCK = 64 << 10
BYTENR, GENERATION, NRITEMS, LEVEL, FSID = 48, 80, 96, 100, 32


def refuse(_min_key: int, _max_key: int, error: BtrfsError) -> None:
    raise error


def leaf_places(image: Path) -> list[int]:
    """Return where the copies of the first leaf of the extent tree are."""
    with FileSystem(image) as fs:
        source = fs.source
        assert isinstance(source, DiskSource)
        root = source.root(EXTENT_TREE_OBJECTID)
        leaves = list(source.blocks(root, 0, 0, KEY_MAX, refuse))
        volume = source.trees.store
        assert isinstance(volume, Volume)
        copies = volume.chunk_map.copies(leaves[0].vaddr, fs.nodesize)
        return [pieces[0].paddr for pieces in copies]


def change_block(image: Path, paddr: int, size: int, change: Callable[[bytearray], None]) -> None:
    """Change bytes of a block, and make its checksum right again."""
    with image.open("r+b") as file:
        file.seek(paddr)
        block = bytearray(file.read(size))
        change(block)
        block[:4] = crc32c_data(block[CSUM_SIZE:]).to_bytes(4, "little")
        file.seek(paddr)
        file.write(block)


def put(code: str, at: int, value: int) -> Callable[[bytearray], None]:
    """Return a change that writes one number."""
    return lambda block: struct.pack_into(code, block, at, value)


def swap_first_items(block: bytearray) -> None:
    first, second = HEADER_SIZE, HEADER_SIZE + ITEM_RECORD_SIZE
    end = second + ITEM_RECORD_SIZE
    block[first:end] = block[second:end] + block[first:second]


def repeat_third_item(block: bytearray) -> None:
    third, fourth = (HEADER_SIZE + number * ITEM_RECORD_SIZE for number in (2, 3))
    block[fourth : fourth + ITEM_RECORD_SIZE] = block[third:fourth]


def raise_last_key(block: bytearray) -> None:
    (nritems,) = struct.unpack_from("<I", block, NRITEMS)
    block[HEADER_SIZE + (nritems - 1) * ITEM_RECORD_SIZE + 7] = 0xFF


BODY_START = HEADER_SIZE + ITEM_RECORD_SIZE + 17
CHANGES = {
    "bytenr": (put("<Q", BYTENR, 4096), r"bytenr \(.*\): expected"),
    "generation": (put("<Q", GENERATION, 1), r"generation \(.*\): expected"),
    "fsid": (put("<Q", FSID, 0), r"fsid \(.*\): expected"),
    "level": (put("<B", LEVEL, 1), r"level \(.*\): expected 0, found 1"),
    "level 255": (put("<B", LEVEL, 255), r"level \(.*\): expected 0, found 255"),
    "nritems": (put("<I", NRITEMS, 1 << 30), r"nritems \(.*\): expected 1 to"),
    "no items": (put("<I", NRITEMS, 0), r"nritems \(.*\): expected 1 to"),
    "order": (swap_first_items, r"key \(.*\): expected one above"),
    "same key": (repeat_third_item, r"key \(.*\): expected one above"),
    "first key": (put("<B", HEADER_SIZE, 1), r"first key \(.*\): expected"),
    "last key": (raise_last_key, r"last key \(.*\): expected at most"),
    "body behind the end": (put("<I", BODY_START, 1 << 20), "body of"),
    "body in the records": (put("<I", BODY_START, 0), "body of"),
    "huge body": (put("<I", BODY_START + 4, 0xFFFFFFFF), "body of"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_wrong_field_in_a_leaf(image: Path, name: str) -> None:
    change, message = CHANGES[name]
    first, second = leaf_places(image)
    with FileSystem(image) as fs:
        items, nodesize = all_items(fs), fs.nodesize
    change_block(image, first, nodesize, change)
    with FileSystem(image) as fs:
        assert all_items(fs) == items
        assert all_batches(fs) == items
    change_block(image, second, nodesize, change)
    with FileSystem(image) as fs:
        with pytest.raises(CorruptError, match=message):
            list(fs.search(EXTENT_TREE_OBJECTID))
        with pytest.raises(CorruptError, match=message):
            list(fs.columns(ExtentItem))


def test_wrong_checksum(image: Path) -> None:
    message = r"tree block at .* checksum \(.*img at \d+\): expected"
    first, second = leaf_places(image)
    with FileSystem(image) as fs:
        items = all_items(fs)
    for place, is_last in ((first, False), (second, True)):
        with image.open("r+b") as file:
            file.seek(place + 5000)
            file.write(b"scribble")
        with FileSystem(image) as fs:
            if not is_last:
                assert all_items(fs) == items
                assert all_batches(fs) == items
                continue
            with pytest.raises(CorruptError, match=message):
                list(fs.search(EXTENT_TREE_OBJECTID))
            with pytest.raises(CorruptError, match=message):
                list(fs.batches(EXTENT_TREE_OBJECTID))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("<H", 0xC4, 9), "csum_type"),
        (put("<Q", 0x30, 4096), "bytenr"),
        (put("<I", 0x90, 512), "sectorsize"),
        (put("<I", 0x94, 12345), "nodesize"),
        (put("<I", 0x94, 1 << 30), "nodesize"),
        (put("<I", 0xA0, 4096), "sys_chunk_array_size"),
        (put("<B", 0xC7, 9), "chunk_root_level"),
        (put("<Q", 0x50, 77), "root"),
        (put("<Q", 0x88, 0), "num_devices"),
        (put("<Q", 0x20, 0), "dev_item.fsid"),
        (put("<B", 0x32B + 8, 7), "sys_chunk_array"),
        (put("<H", 0x32B + 17 + 44, 999), "item"),
        (put("<Q", 0x32B + 17 + 16, 4096), "stripe_len"),
        (put("<Q", 0x32B + 17 + 24, 2 | 8 | 16), "profile"),
        (put("<Q", 0x32B + 17, 1 << 63), "end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_field_in_the_superblock(
    image: Path, change: Callable[[bytearray], None], message: str
) -> None:
    with image.open("r+b") as file:
        # Wipe the copy at 64 MiB, which would serve else.
        file.seek(64 << 20)
        file.write(bytes(SUPER_INFO_SIZE))
    change_block(image, SUPERBLOCK, SUPER_INFO_SIZE, change)
    with pytest.raises(CorruptError, match=message):
        FileSystem(image)


def test_copy_of_an_older_filesystem(image: Path) -> None:
    """mkfs.btrfs of something smaller leaves it; its generation may be higher."""
    with FileSystem(image) as fs:
        fsid = fs.fsid
    far = 64 << 20

    def age(block: bytearray) -> None:
        struct.pack_into("<Q", block, 0x48, 1 << 40)
        block[0x20:0x30] = block[0xC9 + 82 : 0xC9 + 98] = bytes(range(16))

    change_block(image, far, SUPER_INFO_SIZE, age)
    with FileSystem(image) as fs:
        assert fs.fsid == fsid
        assert fs.fs_info().generation < 1 << 40


def test_device_that_was_replaced(image: Path) -> None:
    """Its number fits, but it is not the one that the chunk tree means."""
    for place in (SUPERBLOCK, 64 << 20):
        change_block(image, place, SUPER_INFO_SIZE, put("<Q", 0xC9 + 66, 77))
    with pytest.raises(CorruptError, match=r"device 1 .*: expected UUID") as caught:
        FileSystem(image)
    assert caught.value.hint


def test_another_copy_of_the_superblock(image: Path) -> None:
    with FileSystem(image) as fs:
        items = all_items(fs)
    with image.open("r+b") as file:
        file.seek(SUPERBLOCK + 200)
        file.write(b"scribble")
    with FileSystem(image) as fs:
        assert all_items(fs) == items


def cut_off(image: Path, size: int) -> None:
    with image.open("r+b") as file:
        file.truncate(size)


def test_image_that_ends_in_the_superblock(image: Path) -> None:
    cut_off(image, SUPERBLOCK + 500)
    with pytest.raises(CorruptError, match="expected 4096 bytes, found 500 bytes") as caught:
        FileSystem(image)
    assert caught.value.hint == "the image seems to be cut off"


def test_image_that_ends_behind_the_metadata(image: Path) -> None:
    with FileSystem(image) as fs:
        items = all_items(fs)
    size = 256 << 20
    cut_off(image, size - 4096)
    with FileSystem(image) as fs:
        assert all_items(fs) == items
        assert all_batches(fs) == items
        assert fs.notes == [
            f"device 1 ({image}) is cut off: {size - 4096} of {size} bytes are there"
        ]
        assert fs.damage == []


def test_image_that_has_little_more_than_the_superblock(image: Path) -> None:
    with FileSystem(image) as fs:
        system = [chunk.vaddr for chunk in fs.chunks() if chunk.type & BLOCK_GROUP_SYSTEM]
    cut_off(image, 1 << 20)
    with FileSystem(image) as fs:
        assert fs.fs_info().num_devices == 1
        with pytest.raises(CorruptError, match="found its end at 1048576"):
            list(fs.chunks())
    with FileSystem(image, on_error="skip") as fs:
        assert list(fs.chunks()) == list(fs.search(EXTENT_TREE_OBJECTID)) == []
        assert [lost.tree for lost in fs.lost] == [
            CHUNK_TREE_OBJECTID,
            ROOT_TREE_OBJECTID,
            EXTENT_TREE_OBJECTID,
        ]
        assert f"{len(system)} chunk known" in str(fs.notes)


def test_device_that_ends_while_it_is_read(image: Path) -> None:
    with FileSystem(image) as fs:
        with image.open("r+b") as file:
            file.truncate(leaf_places(image)[0])
        with pytest.raises(CorruptError, match="found its end at"):
            list(fs.search(EXTENT_TREE_OBJECTID))
        with pytest.raises(CorruptError, match="found its end at"):
            list(fs.batches(EXTENT_TREE_OBJECTID))


def test_chunk_tree_without_devices(image: Path) -> None:
    """What is on them can be read all the same."""
    with FileSystem(image) as fs:
        items = list(map(str, fs.search(EXTENT_TREE_OBJECTID)))
        source, nodesize = fs.source, fs.nodesize
        assert isinstance(source, DiskSource)
        root = source.root(CHUNK_TREE_OBJECTID)
        volume = source.trees.store
        assert isinstance(volume, Volume)
        places = [pieces[0].paddr for pieces in volume.chunk_map.copies(root.vaddr, nodesize)]
    for place in places:
        change_block(image, place, nodesize, put("<B", HEADER_SIZE + 8, 215))
    with FileSystem(image) as fs:
        assert fs.fs_info().max_id == 1
        assert list(map(str, fs.search(EXTENT_TREE_OBJECTID))) == items


def test_chunks_of_a_dump_are_checked(image: Path, tmp_path: Path) -> None:
    """They are not needed to read it, but pictures and sums are made from them."""
    support.require_root()
    dump = tmp_path / "dump"
    support.run("btrfs-image", "-c0", image, dump)
    content = bytearray(dump.read_bytes())
    with FileSystem(dump) as fs:
        chunks = list(fs.chunks())
        nodesize = fs.nodesize
        source = fs.source
        assert isinstance(source, DiskSource)
        vaddr = source.root(CHUNK_TREE_OBJECTID).vaddr
    # The header of a tree block has its address and the type of tree; pieces hold whole blocks.
    at = content.index(struct.pack("<Q", vaddr) + bytes([1, 0, 0, 0, 0, 0, 0, 1])) - BYTENR
    block = content[at : at + nodesize]
    first = chunks[0]
    body = struct.pack("<QQQQ", first.length, first.owner, first.stripe_len, first.type)
    block[block.index(body) + 24 : block.index(body) + 32] = struct.pack("<Q", 1 | 128)
    block[:4] = crc32c_data(block[CSUM_SIZE:]).to_bytes(4, "little")
    content[at : at + nodesize] = block
    dump.write_bytes(content)
    with (
        FileSystem(dump) as fs,
        pytest.raises(CorruptError, match="num_stripes: expected at least 2, found 1"),
    ):
        list(fs.chunks())
    with FileSystem(dump, on_error="skip") as fs:
        assert list(map(str, fs.chunks())) == list(map(str, chunks[1:]))
        assert [lost.min_key for lost in fs.lost] == [first.key]


def test_messages_are_one_line(image: Path) -> None:
    first, second = leaf_places(image)
    for place in (first, second):
        change_block(image, place, 16384, CHANGES["generation"][0])
    with FileSystem(image) as fs, pytest.raises(BtrfsError) as caught:
        list(fs.search(EXTENT_TREE_OBJECTID))
    assert "\n" not in str(caught.value)
