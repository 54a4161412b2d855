"""Each rule for single items of files: a made item that breaks it is found.

The lies that the kernel finds, too, are tried out on it.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from btrfs.ondisk.constants import (
    DIR_INDEX_KEY,
    DIR_ITEM_KEY,
    EXTENT_DATA_KEY,
    EXTENT_TREE_OBJECTID,
    FIRST_FREE_OBJECTID,
    FS_TREE_OBJECTID as FS,
    INODE_EXTREF_KEY,
    INODE_ITEM_KEY,
    INODE_REF_KEY,
    ORPHAN_ITEM_KEY,
    ROOT_TREE_OBJECTID,
    VERITY_DESC_ITEM_KEY,
    VERITY_MERKLE_ITEM_KEY,
    XATTR_ITEM_KEY,
)
from tests import support
from tests.lab.lies import ItemKey, Liar
from tests.library.findings import findings
from tests.library.item_lies import (
    Lie,
    add,
    assert_told,
    insert,
    is_refused,
    number,
    put,
    rekey,
    replace,
    resize,
)

SECTOR = 4096
FUTURE = 1 << 40

# Of struct btrfs_header.
BLOCK_FLAGS = 56

# Where fields are: struct btrfs_inode_item, btrfs_dir_item, btrfs_file_extent_item.
SIZE, NLINK, MODE, FLAGS = 16, 40, 52, 64
LOCATION_TYPE, LOCATION_OFFSET, DATA_LEN = 8, 9, 25
NAME_LEN, FILE_TYPE, NAME = 27, 29, 30
RAM_BYTES, COMPRESSION, ENCRYPTION, OTHER_ENCODING, EXTENT_TYPE = 8, 16, 17, 18, 20
DISK_BYTENR, DISK_NUM_BYTES, OFFSET, NUM_BYTES = 21, 29, 37, 45

is_directory = number("<I", MODE, 0o40755)
is_file = number("<B", FILE_TYPE, 1)


def is_top(key: ItemKey, _: bytes) -> bool:
    return key.objectid == FIRST_FREE_OBJECTID


def is_inline(_: ItemKey, body: bytes) -> bool:
    return body[EXTENT_TYPE] == 0 and body[COMPRESSION] == 0


def is_compressed_inline(_: ItemKey, body: bytes) -> bool:
    return body[EXTENT_TYPE] == 0 and body[COMPRESSION] != 0


def is_regular(_: ItemKey, body: bytes) -> bool:
    (disk_bytenr,) = struct.unpack_from("<Q", body.ljust(29), DISK_BYTENR)
    return body[EXTENT_TYPE] == 1 and body[COMPRESSION] == 0 and disk_bytenr != 0


def is_compressed(_: ItemKey, body: bytes) -> bool:
    return body[EXTENT_TYPE] == 1 and body[COMPRESSION] != 0


def is_second_piece(key: ItemKey, body: bytes) -> bool:
    return key.offset > SECTOR and is_regular(key, body)


def twice(body: bytes) -> bytes:
    return body * 2


INODES = {
    "size of the item": Lie(
        FS, INODE_ITEM_KEY, resize(-1), "its size is wrong", is_directory, refused=True
    ),
    "number": Lie(
        FS, INODE_ITEM_KEY, insert(ItemKey(9, 1, 0), bytes(160)), "not that of an inode",
        refused=True,
    ),
    "offset": Lie(FS, INODE_ITEM_KEY, rekey(offset=1), "offset of its key is not 0", refused=True),
    "generation": Lie(
        FS, INODE_ITEM_KEY, put("<Q", 0, FUTURE), "generation has not been yet", refused=True
    ),
    "transid": Lie(
        FS, INODE_ITEM_KEY, put("<Q", 8, FUTURE), "transid has not been yet", refused=True
    ),
    "no type of file": Lie(
        FS, INODE_ITEM_KEY, put("<I", MODE, 0o755), "of no type of file", refused=True
    ),
    "two types of file": Lie(
        FS, INODE_ITEM_KEY, put("<I", MODE, 0o150755), "of no type of file", refused=True
    ),
    "bits of the mode": Lie(
        FS, INODE_ITEM_KEY, put("<I", MODE, 0o1040755), "mode has bits", refused=True
    ),
    "names of a directory": Lie(
        FS, INODE_ITEM_KEY, put("<I", NLINK, 2), "more than one name", is_directory, refused=True
    ),
    "flags": Lie(FS, INODE_ITEM_KEY, put("<Q", FLAGS, 1 << 20), "flags has bits", refused=True),
    "upper flags": Lie(
        FS, INODE_ITEM_KEY, put("<Q", FLAGS, 1 << 40), "flags has bits"
    ),
    "negative size": Lie(FS, INODE_ITEM_KEY, put("<Q", SIZE, 1 << 63), "size is too large"),
    "no name": Lie(FS, INODE_REF_KEY, resize(-99), "not made of whole names", refused=True),
    "half a name": Lie(
        FS, INODE_REF_KEY, resize(-1), "not made of whole names", lambda *_: True, refused=True
    ),
    "half a second name": Lie(
        FS, INODE_REF_KEY, resize(5), "not made of whole names", refused=True
    ),
    "empty name": Lie(
        FS, INODE_REF_KEY, replace(lambda _: struct.pack("<QH", 2, 0)), "length of its name",
        refused=True,
    ),
    "directory of a name": Lie(FS, INODE_REF_KEY, rekey(offset=7), "not that of a directory"),
    "hash of a link": Lie(
        FS, INODE_EXTREF_KEY, replace(lambda body: body[:-1] + b"~"), "under the hash of its name"
    ),
    "directory of a link": Lie(
        FS, INODE_EXTREF_KEY, put("<Q", 0, 7), "its name is not in a directory"
    ),
    "half a link": Lie(FS, INODE_EXTREF_KEY, resize(-1), "whole names", refused=True),
    "inode item": Lie(
        FS, XATTR_ITEM_KEY, rekey(objectid=(1 << 40) + 1), "no inode item before it", refused=True
    ),
    "orphan": Lie(
        FS, INODE_ITEM_KEY, insert(ItemKey((1 << 64) - 4, ORPHAN_ITEM_KEY, 257), b""), "an orphan"
    ),
    "orphan with a body": Lie(
        FS, INODE_ITEM_KEY, insert(ItemKey((1 << 64) - 5, ORPHAN_ITEM_KEY, 257), b"x"),
        "its size is wrong",
    ),
    "encryption of verity": Lie(
        FS, INODE_ITEM_KEY,
        insert(ItemKey(257, VERITY_DESC_ITEM_KEY, 0), bytes(24) + b"\1"), "encryption is wrong",
    ),
    "size of verity": Lie(
        FS, INODE_ITEM_KEY,
        insert(ItemKey(257, VERITY_DESC_ITEM_KEY, 0), struct.pack("<QQQB", 1 << 31, 0, 0, 0)),
        "descriptor is too long",
    ),
    "short verity": Lie(
        FS, INODE_ITEM_KEY, insert(ItemKey(257, VERITY_DESC_ITEM_KEY, 0), b"x"), "size is wrong"
    ),
    "empty hashes": Lie(
        FS, INODE_ITEM_KEY, insert(ItemKey(257, VERITY_MERKLE_ITEM_KEY, 0), b""), "it is empty"
    ),
    "type of key": Lie(
        FS, INODE_ITEM_KEY, insert(ItemKey(257, 77, 0), b""), "", kind="key-type"
    ),
    "type of key of another tree": Lie(
        FS, INODE_ITEM_KEY, insert(ItemKey(257, 128, 0), bytes(4)), "", kind="key-type",
        refused=True,
    ),
}  # fmt: skip

ENTRIES = {
    "location": Lie(
        FS, DIR_ITEM_KEY, put("<B", LOCATION_TYPE, 99), "else than a file", refused=True
    ),
    "inode of a location": Lie(
        FS, DIR_ITEM_KEY, put("<Q", 0, 3), "cannot be a file", is_file, refused=True
    ),
    "offset of a location": Lie(
        FS, DIR_ITEM_KEY, put("<Q", LOCATION_OFFSET, 3), "cannot be a file", is_file, refused=True
    ),
    "subvolume of a location": Lie(
        FS, DIR_ITEM_KEY, put("<Q", 0, 8), "cannot be a file",
        number("<B", LOCATION_TYPE, 132), refused=True,
    ),
    "type": Lie(
        FS, DIR_INDEX_KEY, put("<B", FILE_TYPE, 77), "not that of a file", refused=True
    ),
    "no type": Lie(FS, DIR_INDEX_KEY, put("<B", FILE_TYPE, 0), "not that of a file", refused=True),
    "type of an attribute": Lie(
        FS, DIR_INDEX_KEY, put("<B", FILE_TYPE, 8), "not that of a file", refused=True
    ),
    "attribute of a type": Lie(
        FS, XATTR_ITEM_KEY, put("<B", FILE_TYPE, 1), "not that of an attribute", refused=True
    ),
    "attribute with a location": Lie(
        FS, XATTR_ITEM_KEY, put("<Q", 0, 257), "leads to something", refused=True
    ),
    "entry with data": Lie(
        FS, DIR_INDEX_KEY,
        replace(lambda body: body[:DATA_LEN] + b"\2\0" + body[NAME_LEN:] + b"xy"),
        "an entry with data", refused=True,
    ),
    "half an entry": Lie(FS, DIR_INDEX_KEY, resize(-1), "whole entries", refused=True),
    "length of a name": Lie(
        FS, DIR_ITEM_KEY, put("<H", NAME_LEN, 500), "whole entries", refused=True
    ),
    "half a second entry": Lie(FS, DIR_ITEM_KEY, resize(7), "whole entries", refused=True),
    "long name": Lie(
        FS, DIR_INDEX_KEY,
        replace(lambda body: body[:NAME_LEN] + struct.pack("<HB", 256, 1) + b"x" * 256),
        "length of its name",
        lambda key, _: key.objectid != FIRST_FREE_OBJECTID, refused=True,
    ),
    "empty name": Lie(
        FS, DIR_INDEX_KEY,
        replace(lambda body: body[:NAME_LEN] + struct.pack("<HB", 0, 1)), "length of its name",
        refused=True,
    ),
    "hash of a name": Lie(
        FS, DIR_ITEM_KEY, put("<B", NAME, ord("Z")), "hash of its name", refused=True
    ),
    "hash of an attribute": Lie(
        FS, XATTR_ITEM_KEY, put("<B", NAME + 5, ord("Z")), "hash of its name", refused=True
    ),
    "hash of a second name": Lie(
        FS, DIR_ITEM_KEY, replace(lambda body: body[:-1] + b"~"), "hash of its name",
        lambda _, body: len(body) == 2 * (NAME + 8), refused=True,
    ),
    "slash": Lie(
        FS, DIR_INDEX_KEY, put("<B", NAME + 1, ord("/")), "cannot be that of a file", refused=True
    ),
    "NUL": Lie(FS, DIR_INDEX_KEY, put("<B", NAME + 1, 0), "cannot be that of a file", refused=True),
    "dots": Lie(
        FS, DIR_INDEX_KEY,
        replace(lambda body: body[:NAME_LEN] + struct.pack("<HB", 2, 1) + b".."),
        "cannot be that of a file",
    ),
    "two entries of one index": Lie(FS, DIR_INDEX_KEY, replace(twice), "more than one entry"),
    "inode of a directory": Lie(
        FS, DIR_INDEX_KEY, rekey(objectid=3), "key is not that of an inode"
    ),
}  # fmt: skip

FILE_EXTENTS = {
    "place": Lie(
        FS, EXTENT_DATA_KEY, rekey(by=5), "place in the file is not", is_regular, refused=True
    ),
    "short": Lie(
        FS, EXTENT_DATA_KEY, replace(lambda body: body[:20]), "too short", is_inline, refused=True
    ),
    "type": Lie(FS, EXTENT_DATA_KEY, put("<B", EXTENT_TYPE, 9), "type is not known", refused=True),
    "compression": Lie(
        FS, EXTENT_DATA_KEY, put("<B", COMPRESSION, 4), "compression is not", is_regular,
        refused=True,
    ),
    "encryption": Lie(
        FS, EXTENT_DATA_KEY, put("<B", ENCRYPTION, 1), "encryption is wrong", refused=True
    ),
    "other encoding": Lie(
        FS, EXTENT_DATA_KEY, put("<H", OTHER_ENCODING, 1), "other_encoding is wrong"
    ),
    "generation": Lie(FS, EXTENT_DATA_KEY, put("<Q", 0, FUTURE), "generation has not been yet"),
    "inline elsewhere": Lie(
        FS, EXTENT_DATA_KEY, rekey(by=SECTOR), "not at the beginning", is_inline, refused=True
    ),
    "inline size": Lie(
        FS, EXTENT_DATA_KEY, resize(3), "its size is wrong", is_inline, refused=True
    ),
    "compressed inline": Lie(
        FS, EXTENT_DATA_KEY, put("<Q", RAM_BYTES, 5000), "hold so many bytes",
        is_compressed_inline, refused=True,
    ),
    "size": Lie(
        FS, EXTENT_DATA_KEY, resize(-1), "its size is wrong", is_regular, refused=True
    ),
    "address in a sector": Lie(
        FS, EXTENT_DATA_KEY, add("<Q", DISK_BYTENR, 1), "disk_bytenr is not", is_regular,
        refused=True,
    ),
    "bytes on disk in a sector": Lie(
        FS, EXTENT_DATA_KEY, add("<Q", DISK_NUM_BYTES, 1), "disk_num_bytes is not", is_regular,
        refused=True,
    ),
    "offset in a sector": Lie(
        FS, EXTENT_DATA_KEY, add("<Q", OFFSET, 1), "offset is not", is_regular, refused=True
    ),
    "bytes in a sector": Lie(
        FS, EXTENT_DATA_KEY, add("<Q", NUM_BYTES, 1), "num_bytes is not", is_regular, refused=True
    ),
    "ram_bytes in a sector": Lie(
        FS, EXTENT_DATA_KEY, add("<Q", RAM_BYTES, 1), "ram_bytes is not", is_regular, refused=True
    ),
    "no bytes": Lie(
        FS, EXTENT_DATA_KEY, put("<Q", NUM_BYTES, 0), "a piece without bytes", is_regular
    ),
    "no bytes on disk": Lie(
        FS, EXTENT_DATA_KEY, put("<Q", DISK_NUM_BYTES, 0), "an extent without bytes", is_regular
    ),
    "end": Lie(
        FS, EXTENT_DATA_KEY, put("<Q", NUM_BYTES, (1 << 64) - SECTOR), "behind the end of all",
        is_second_piece, refused=True,
    ),
    "more than it has": Lie(
        FS, EXTENT_DATA_KEY, add("<Q", OFFSET, SECTOR), "more bytes than its extent has",
        is_regular,
    ),
    "more than it has on disk": Lie(
        FS, EXTENT_DATA_KEY, put("<QQ", OFFSET, 8 * SECTOR, 64 * SECTOR), "extent has on disk",
        is_regular, refused=True,
    ),
    "address": Lie(
        FS, EXTENT_DATA_KEY, put("<Q", DISK_BYTENR, 1 << 63), "at no possible address", is_regular,
        refused=True,
    ),
    "compressed and not written": Lie(
        FS, EXTENT_DATA_KEY, put("<B", EXTENT_TYPE, 2), "though nothing has been", is_compressed
    ),
    "large and compressed": Lie(
        FS, EXTENT_DATA_KEY, put("<Q", RAM_BYTES, 256 << 10), "too many bytes", is_compressed
    ),
    "overlap": Lie(
        FS, EXTENT_DATA_KEY, rekey(by=-3 * SECTOR), "overlaps the piece", is_second_piece,
        refused=True,
    ),
}  # fmt: skip

LIES = {
    f"{table}: {name}": lie
    for table, lies in (("inode", INODES), ("entry", ENTRIES), ("extent", FILE_EXTENTS))
    for name, lie in lies.items()
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A filesystem with some files of each kind."""
    folder = tmp_path_factory.mktemp("sound")
    with support.filesystem(folder, size="128M", nodesize=8192) as fs:
        write(fs.mountpoint)
        fs.unmount()
        fs.detach()
        yield fs.images[0]


def write(root: Path) -> None:
    """Write few files: inline and compressed ones, with holes, of many names, with attributes."""
    (root / "inline").write_bytes(b"inline")
    with (root / "pieces").open("wb") as file:
        for index in range(4):
            os.pwrite(file.fileno(), os.urandom(2 * SECTOR), index * 4 * SECTOR)
    subprocess.run(["btrfs", "property", "set", root, "compression", "zstd"], check=True)
    (root / "compressed").write_bytes(b"c" * 200_000)
    (root / "compressed-inline").write_bytes(b"c" * 3000)
    os.setxattr(root / "inline", "user.comment", b"value")
    (root / "folder").mkdir()
    (root / "folder" / "link").symlink_to("inline")
    # Both have the same hash.
    (root / "folder" / "db1f575d").touch()
    (root / "folder" / "9802be03").touch()
    for index in range(70):
        os.link(root / "inline", root / f"{index:0120}")
    support.run("btrfs", "subvolume", "create", root / "subvolume")


def test_nothing_is_wrong(sound: Path) -> None:
    assert findings(sound) == []


@pytest.mark.parametrize("name", LIES)
def test_lie(sound: Path, tmp_path: Path, name: str) -> None:
    assert_told(sound, tmp_path, LIES[name])


@pytest.mark.parametrize(
    ("tree", "index"), [(FS, 0), (FS, -1), (EXTENT_TREE_OBJECTID, -1), (ROOT_TREE_OBJECTID, -1)]
)
def test_flag_of_a_block(sound: Path, tmp_path: Path, tree: int, index: int) -> None:
    """A node, or a leaf, that says that it has not been written."""
    image = tmp_path / "image"
    support.run("cp", "--sparse=always", sound, image)
    liar = Liar([image])
    vaddr = liar.blocks(tree)[index].vaddr
    liar.change_block(vaddr, lambda block: struct.pack_into("<B", block, BLOCK_FLAGS, 0))
    (finding,) = findings(image)
    assert (finding.kind, finding.vaddr, finding.tree) == ("block-unwritten", vaddr, tree)
    assert is_refused(image, tmp_path / "mounted")
