"""Each rule for single items of other trees than those of files: an item that breaks it is found.

The lies that the kernel finds, too, are tried out on it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from btrfs.ondisk.constants import (
    CHUNK_ITEM_KEY,
    CHUNK_TREE_OBJECTID as CHUNK,
    CSUM_TREE_OBJECTID as CSUM,
    DEV_EXTENT_KEY,
    DEV_ITEM_KEY,
    DEV_REPLACE_KEY,
    DEV_TREE_OBJECTID as DEV,
    EXTENT_CSUM_KEY,
    FREE_SPACE_BITMAP_KEY,
    FREE_SPACE_EXTENT_KEY,
    FREE_SPACE_INFO_KEY,
    FREE_SPACE_TREE_OBJECTID as FREE_SPACE,
    INODE_ITEM_KEY,
    PERSISTENT_ITEM_KEY,
    QGROUP_INFO_KEY,
    QGROUP_LIMIT_KEY,
    QGROUP_RELATION_KEY,
    QGROUP_STATUS_KEY,
    QUOTA_TREE_OBJECTID as QUOTA,
    ROOT_BACKREF_KEY,
    ROOT_ITEM_KEY,
    ROOT_REF_KEY,
    ROOT_TREE_OBJECTID as ROOT,
    TEMPORARY_ITEM_KEY,
    UNTYPED_KEY,
    UUID_KEY_SUBVOL,
    UUID_TREE_OBJECTID as UUID,
)
from tests import support
from tests.lab.lies import ItemKey
from tests.library.findings import findings
from tests.library.item_lies import (
    Lie,
    add,
    assert_told,
    insert,
    put,
    rekey,
    replace,
    resize,
)

SECTOR = 4096
FUTURE = 1 << 40

# Where fields are: struct btrfs_root_item, btrfs_chunk, btrfs_dev_extent.
GENERATION, ROOT_DIRID, BYTENR, LAST_SNAPSHOT, ROOT_FLAGS, REFS = 160, 168, 176, 200, 208, 216
DROP_PROGRESS, DROP_LEVEL, LEVEL, GENERATION_V2 = 220, 237, 238, 239
CHUNK_TYPE, SECTOR_SIZE = 24, 40
CHUNK_TREE, CHUNK_OBJECTID, CHUNK_OFFSET, LENGTH = 0, 8, 16, 24


def is_subvolume(key: ItemKey, _: bytes) -> bool:
    return 256 <= key.objectid < 1 << 63


def replacement(state: int, mode: int) -> bytes:
    return struct.pack("<9Q", 1, 0, 0, mode, state, 0, 0, 0, 0)


HEADER_OF_CACHE = struct.pack("<QBQQQQ", 300, 1, 0, 1, 0, 0)

ROOTS = {
    "generation": Lie(
        ROOT, ROOT_ITEM_KEY, put("<Q", GENERATION, FUTURE), "generation has not been yet",
        is_subvolume, refused=True,
    ),
    "generation_v2": Lie(
        ROOT, ROOT_ITEM_KEY, put("<Q", GENERATION_V2, FUTURE), "generation_v2 has not been yet",
        is_subvolume, refused=True,
    ),
    "last snapshot": Lie(
        ROOT, ROOT_ITEM_KEY, put("<Q", LAST_SNAPSHOT, FUTURE), "last_snapshot has not been yet",
        is_subvolume, refused=True,
    ),
    "bytenr": Lie(
        ROOT, ROOT_ITEM_KEY, add("<Q", BYTENR, 1), "bytenr is not", is_subvolume, refused=True
    ),
    "level": Lie(
        ROOT, ROOT_ITEM_KEY, put("<B", LEVEL, 8), "level is too high", is_subvolume, refused=True
    ),
    "drop level": Lie(
        ROOT, ROOT_ITEM_KEY, put("<B", DROP_LEVEL, 8), "drop_level is too high", is_subvolume,
        refused=True,
    ),
    "drop progress": Lie(
        ROOT, ROOT_ITEM_KEY, put("<Q", DROP_PROGRESS, 256), "drop_level is 0", is_subvolume,
        refused=True,
    ),
    "flags": Lie(
        ROOT, ROOT_ITEM_KEY, put("<Q", ROOT_FLAGS, 2), "flags has bits", is_subvolume, refused=True
    ),
    "refs": Lie(ROOT, ROOT_ITEM_KEY, put("<I", REFS, 2), "refs are wrong", is_subvolume),
    "root_dirid": Lie(
        ROOT, ROOT_ITEM_KEY, put("<Q", ROOT_DIRID, 7), "root_dirid is wrong", is_subvolume,
        refused=True,
    ),
    "no root_dirid": Lie(
        ROOT, ROOT_ITEM_KEY, put("<Q", ROOT_DIRID, 0), "root_dirid is wrong", is_subvolume,
    ),
    "size": Lie(ROOT, ROOT_ITEM_KEY, resize(-1), "size is wrong", is_subvolume, refused=True),
    "no number": Lie(
        ROOT, ROOT_ITEM_KEY, insert(ItemKey(0, ROOT_ITEM_KEY, 0), bytes(439)), "that of a tree",
        refused=True,
    ),
    "tree of a balance": Lie(
        ROOT, ROOT_ITEM_KEY, insert(ItemKey((1 << 64) - 8, ROOT_ITEM_KEY, 0), bytes(439)),
        "of no other tree", refused=True,
    ),
    "size of a reference": Lie(ROOT, ROOT_REF_KEY, resize(1), "its size is wrong", refused=True),
    "short reference": Lie(
        ROOT, ROOT_REF_KEY, replace(lambda body: body[:9]), "too short", refused=True
    ),
    "name of a reference": Lie(
        ROOT, ROOT_BACKREF_KEY, put("<B", 19, ord("/")), "cannot be that of a file"
    ),
    "empty name": Lie(
        ROOT, ROOT_REF_KEY, replace(lambda body: body[:16] + b"\0\0"), "length of its name",
        refused=True,
    ),
    "directory": Lie(ROOT, ROOT_BACKREF_KEY, put("<Q", 0, 3), "not in a directory"),
    "subvolumes of a reference": Lie(
        ROOT, ROOT_BACKREF_KEY, rekey(offset=8), "not that of two subvolumes"
    ),
    "balance": Lie(
        ROOT, ROOT_ITEM_KEY, insert(ItemKey((1 << 64) - 4, TEMPORARY_ITEM_KEY, 0), bytes(447)),
        "its size is wrong",
    ),
    "flags of a balance": Lie(
        ROOT, ROOT_ITEM_KEY,
        insert(ItemKey((1 << 64) - 4, TEMPORARY_ITEM_KEY, 0), b"\0\1" + bytes(446)), "flags has",
    ),
    "no balance": Lie(
        ROOT, ROOT_ITEM_KEY, insert(ItemKey(1 << 63, TEMPORARY_ITEM_KEY, 0), bytes(448)),
        "not that of a balance",
    ),
    "header of a cache": Lie(
        ROOT, ROOT_ITEM_KEY, insert(ItemKey((1 << 64) - 11, UNTYPED_KEY, 1 << 20), bytes(40)),
        "its size is wrong",
    ),
    "file of a cache": Lie(
        ROOT, ROOT_ITEM_KEY,
        insert(ItemKey((1 << 64) - 11, UNTYPED_KEY, 1 << 20), bytes(8) + HEADER_OF_CACHE[8:]),
        "not lead to a file",
    ),
    "no header": Lie(
        ROOT, ROOT_ITEM_KEY, insert(ItemKey(1 << 63, UNTYPED_KEY, 1 << 20), HEADER_OF_CACHE),
        "not that of free space",
    ),
    "inode": Lie(ROOT, INODE_ITEM_KEY, put("<I", 52, 1), "of no type of file", refused=True),
}  # fmt: skip

CHUNKS = {
    "type": Lie(
        CHUNK, CHUNK_ITEM_KEY, put("<Q", CHUNK_TYPE, 1 | 1 << 20), "type has bits", refused=True
    ),
    "sector size": Lie(
        CHUNK, CHUNK_ITEM_KEY, put("<I", SECTOR_SIZE, 512), "sector_size is wrong", refused=True
    ),
    "mixed": Lie(
        CHUNK, CHUNK_ITEM_KEY, put("<Q", CHUNK_TYPE, 5), "for data and metadata", refused=True
    ),
    "objectid": Lie(CHUNK, CHUNK_ITEM_KEY, rekey(objectid=255), "objectid is wrong"),
    "size": Lie(CHUNK, CHUNK_ITEM_KEY, resize(32), "its size is wrong", refused=True),
    "devid": Lie(CHUNK, DEV_ITEM_KEY, rekey(offset=2), "devid is wrong", refused=True),
    "used": Lie(
        CHUNK, DEV_ITEM_KEY, put("<Q", 16, 1 << 40), "more bytes are used", refused=True
    ),
    "size of a device": Lie(CHUNK, DEV_ITEM_KEY, resize(1), "its size is wrong", refused=True),
    "key of a device": Lie(
        CHUNK, DEV_ITEM_KEY, rekey(objectid=2), "objectid is wrong", refused=True
    ),
    "chunk tree": Lie(
        DEV, DEV_EXTENT_KEY, put("<Q", CHUNK_TREE, 4), "chunk_tree is wrong", refused=True
    ),
    "chunk objectid": Lie(
        DEV, DEV_EXTENT_KEY, put("<Q", CHUNK_OBJECTID, 4), "chunk_objectid is wrong", refused=True
    ),
    "chunk offset": Lie(
        DEV, DEV_EXTENT_KEY, add("<Q", CHUNK_OFFSET, 1), "chunk_offset is not", refused=True
    ),
    "length": Lie(DEV, DEV_EXTENT_KEY, add("<Q", LENGTH, 1), "length is not", refused=True),
    "no length": Lie(DEV, DEV_EXTENT_KEY, put("<Q", LENGTH, 0), "cannot be so long", refused=True),
    "address": Lie(DEV, DEV_EXTENT_KEY, rekey(by=1), "address is not", refused=True),
    "size of an extent": Lie(DEV, DEV_EXTENT_KEY, resize(-1), "its size is wrong"),
    "no device": Lie(DEV, DEV_EXTENT_KEY, rekey(objectid=0), "that of a device", refused=True),
    "half a counter": Lie(DEV, PERSISTENT_ITEM_KEY, resize(-1), "not whole counters"),
    "no counters": Lie(DEV, PERSISTENT_ITEM_KEY, rekey(objectid=2), "that of counters"),
    "replacement": Lie(
        DEV, DEV_EXTENT_KEY, insert(ItemKey(0, DEV_REPLACE_KEY, 0), bytes(71)), "its size is wrong"
    ),
    "state of a replacement": Lie(
        DEV, DEV_EXTENT_KEY, insert(ItemKey(0, DEV_REPLACE_KEY, 0), replacement(9, 0)),
        "state is not known",
    ),
    "mode of a replacement": Lie(
        DEV, DEV_EXTENT_KEY, insert(ItemKey(0, DEV_REPLACE_KEY, 0), replacement(2, 2)),
        "mode is not known",
    ),
    "key of a replacement": Lie(
        DEV, DEV_EXTENT_KEY, insert(ItemKey(0, DEV_REPLACE_KEY, 1), replacement(2, 0)),
        "its key is not",
    ),
}  # fmt: skip

OTHERS = {
    "objectid of checksums": Lie(
        CSUM, EXTENT_CSUM_KEY, rekey(objectid=5), "that of checksums", refused=True
    ),
    "address of checksums": Lie(CSUM, EXTENT_CSUM_KEY, rekey(by=1), "address is not", refused=True),
    "half a checksum": Lie(CSUM, EXTENT_CSUM_KEY, resize(-1), "not whole checksums", refused=True),
    "no checksums": Lie(
        CSUM, EXTENT_CSUM_KEY, replace(lambda _: b""), "not whole checksums", refused=True
    ),
    "version of quotas": Lie(QUOTA, QGROUP_STATUS_KEY, put("<Q", 0, 2), "version is wrong"),
    "generation of quotas": Lie(
        QUOTA, QGROUP_STATUS_KEY, put("<Q", 8, FUTURE), "generation has not been yet"
    ),
    "flags of quotas": Lie(QUOTA, QGROUP_STATUS_KEY, put("<Q", 16, 65), "flags has bits"),
    "simple quotas": Lie(
        QUOTA, QGROUP_STATUS_KEY,
        replace(lambda body: body[:16] + struct.pack("<QQ", 9, 0)), "too short for simple quotas",
    ),
    "simple quotas of the future": Lie(
        QUOTA, QGROUP_STATUS_KEY,
        replace(lambda body: body[:16] + struct.pack("<QQQ", 9, 0, FUTURE)),
        "enable_gen has not been yet",
    ),
    "key of quotas": Lie(QUOTA, QGROUP_STATUS_KEY, rekey(offset=1), "key is not"),
    "size of a group": Lie(QUOTA, QGROUP_INFO_KEY, resize(-1), "its size is wrong"),
    "generation of a group": Lie(
        QUOTA, QGROUP_INFO_KEY, put("<Q", 0, FUTURE), "generation has not been yet"
    ),
    "key of a group": Lie(QUOTA, QGROUP_INFO_KEY, rekey(objectid=1), "objectid of its key"),
    "size of a limit": Lie(QUOTA, QGROUP_LIMIT_KEY, resize(8), "its size is wrong"),
    "same level": Lie(QUOTA, QGROUP_RELATION_KEY, rekey(offset=7), "of the same level"),
    "half a subvolume": Lie(UUID, UUID_KEY_SUBVOL, resize(-1), "whole numbers of subvolumes"),
    "no UUID": Lie(UUID, UUID_KEY_SUBVOL, rekey(0, 0), "that of a UUID"),
    "flags of free space": Lie(FREE_SPACE, FREE_SPACE_INFO_KEY, put("<I", 4, 8), "flags has bits"),
    "size of free space": Lie(FREE_SPACE, FREE_SPACE_INFO_KEY, resize(1), "its size is wrong"),
    "body of free space": Lie(FREE_SPACE, FREE_SPACE_EXTENT_KEY, resize(1), "its size is wrong"),
    "length of free space": Lie(FREE_SPACE, FREE_SPACE_EXTENT_KEY, rekey(by=-1), "length is not"),
    "no free space": Lie(
        FREE_SPACE, FREE_SPACE_EXTENT_KEY, rekey(offset=0), "range without bytes"
    ),
    "size of a bitmap": Lie(
        FREE_SPACE, FREE_SPACE_INFO_KEY,
        insert(ItemKey(1 << 50, FREE_SPACE_BITMAP_KEY, 64 * SECTOR), bytes(7)), "its size is wrong",
    ),
}  # fmt: skip

LIES = {
    f"{table}: {name}": lie
    for table, lies in (("root", ROOTS), ("chunk", CHUNKS), ("other", OTHERS))
    for name, lie in lies.items()
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A filesystem with a subvolume, quotas and few files."""
    folder = tmp_path_factory.mktemp("sound")
    with support.filesystem(folder, size="128M") as fs:
        (fs.mountpoint / "file").write_bytes(os.urandom(9 * SECTOR))
        support.run("btrfs", "subvolume", "create", fs.mountpoint / "subvolume")
        support.enable_quota(fs.mountpoint)
        fs.unmount()
        fs.detach()
        yield fs.images[0]


def test_nothing_is_wrong(sound: Path) -> None:
    assert findings(sound) == []


@pytest.mark.parametrize("name", LIES)
def test_lie(sound: Path, tmp_path: Path, name: str) -> None:
    assert_told(sound, tmp_path, LIES[name])
