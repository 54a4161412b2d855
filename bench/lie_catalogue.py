"""The lies of `bench.lies`: which there are, by subject, and how each is told.

Most follow from the structures of the disk format. Of each type of item in each tree one is
removed, moved to another key, and repeated at another key, and each of its numbers is changed to
one more, to nothing, and to far too much. Others are told of one certain file, of nodes, of headers
of blocks, and of superblocks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from btrfs.ondisk import constants
from btrfs.ondisk.items.chunk import BlockGroupItem, Chunk
from btrfs.ondisk.items.device import DevExtent, DevItem
from btrfs.ondisk.items.directory import DirIndex, DirItem
from btrfs.ondisk.items.extent import ExtentItem, InlineExtentDataRef, InlineTreeBlockRef
from btrfs.ondisk.items.file_extent import FileExtentItem
from btrfs.ondisk.items.free_space import FreeSpaceInfo
from btrfs.ondisk.items.inode import InodeItem, InodeRef
from btrfs.ondisk.items.quota import QgroupInfo, QgroupLimit, QgroupStatus
from btrfs.ondisk.items.root import RootItem, RootRef
from tests.lab.lies import ItemKey, Liar

__all__ = ["BASES", "Lie", "lies"]

BASES: dict[str, dict[str, Any]] = {
    "usual": {"size": "256M"},
    "old": {"size": "256M", "nodesize": 4096, "features": ("^no-holes", "^skinny-metadata")},
    "quotas": {"size": "256M"},
    "raid1": {"size": "256M", "devices": 2, "data": "raid1", "metadata": "raid1"},
}
"""The filesystems that lies are put into: how each is made."""

WORK, SNAPSHOT = 256, 257
"""Numbers of the subvolumes that tests.lab.liefs makes."""

HEADER_SIZE, POINTER_SIZE = 101, 33


class Lie(NamedTuple):
    """A change of a filesystem.

    Attributes:
        base: Which filesystem is changed, a key of BASES.
        subject: The tree and the type of item, or the like.
        name: What is changed.
        tell: Changes it.
    """

    base: str
    subject: str
    name: str
    tell: Callable[[Liar], object]


# Items of all types.

Part = tuple[Any, int]
"""A class with the numbers of a struct, and where in the item it begins."""

_ENTRY: tuple[Part, ...] = ((DirItem, 0),)

ITEMS: dict[tuple[int, int], tuple[Part, ...]] = {
    (constants.ROOT_TREE_OBJECTID, constants.ROOT_ITEM_KEY): ((RootItem, 0),),
    (constants.ROOT_TREE_OBJECTID, constants.ROOT_REF_KEY): ((RootRef, 0),),
    (constants.ROOT_TREE_OBJECTID, constants.ROOT_BACKREF_KEY): ((RootRef, 0),),
    (constants.ROOT_TREE_OBJECTID, constants.DIR_ITEM_KEY): _ENTRY,
    (constants.ROOT_TREE_OBJECTID, constants.INODE_ITEM_KEY): (),
    (constants.ROOT_TREE_OBJECTID, constants.INODE_REF_KEY): (),
    (constants.EXTENT_TREE_OBJECTID, constants.EXTENT_ITEM_KEY): (
        (ExtentItem, 0),
        (InlineExtentDataRef, 25),
    ),
    (constants.EXTENT_TREE_OBJECTID, constants.METADATA_ITEM_KEY): (
        (ExtentItem, 0),
        (InlineTreeBlockRef, 25),
    ),
    (constants.EXTENT_TREE_OBJECTID, constants.BLOCK_GROUP_ITEM_KEY): ((BlockGroupItem, 0),),
    (constants.CHUNK_TREE_OBJECTID, constants.CHUNK_ITEM_KEY): ((Chunk, 0),),
    (constants.CHUNK_TREE_OBJECTID, constants.DEV_ITEM_KEY): ((DevItem, 0),),
    (constants.DEV_TREE_OBJECTID, constants.DEV_EXTENT_KEY): ((DevExtent, 0),),
    (constants.DEV_TREE_OBJECTID, constants.PERSISTENT_ITEM_KEY): (),
    (WORK, constants.INODE_ITEM_KEY): ((InodeItem, 0),),
    (WORK, constants.INODE_REF_KEY): ((InodeRef, 0),),
    (WORK, constants.DIR_ITEM_KEY): _ENTRY,
    (WORK, constants.DIR_INDEX_KEY): ((DirIndex, 0),),
    (WORK, constants.XATTR_ITEM_KEY): _ENTRY,
    (WORK, constants.EXTENT_DATA_KEY): ((FileExtentItem, 0),),
    (constants.CSUM_TREE_OBJECTID, constants.EXTENT_CSUM_KEY): (),
    (constants.FREE_SPACE_TREE_OBJECTID, constants.FREE_SPACE_INFO_KEY): ((FreeSpaceInfo, 0),),
    (constants.FREE_SPACE_TREE_OBJECTID, constants.FREE_SPACE_EXTENT_KEY): (),
    (constants.UUID_TREE_OBJECTID, constants.UUID_KEY_SUBVOL): (),
    (constants.DATA_RELOC_TREE_OBJECTID, constants.INODE_ITEM_KEY): (),
    (constants.DATA_RELOC_TREE_OBJECTID, constants.INODE_REF_KEY): (),
}
"""The types of items by tree, and the structs that each begins with."""

QUOTA_ITEMS: dict[tuple[int, int], tuple[Part, ...]] = {
    (constants.QUOTA_TREE_OBJECTID, constants.QGROUP_STATUS_KEY): ((QgroupStatus, 0),),
    (constants.QUOTA_TREE_OBJECTID, constants.QGROUP_INFO_KEY): ((QgroupInfo, 0),),
    (constants.QUOTA_TREE_OBJECTID, constants.QGROUP_LIMIT_KEY): ((QgroupLimit, 0),),
}

_TOLD_OF_TREES = {
    constants.ROOT_TREE_OBJECTID: "root tree",
    constants.EXTENT_TREE_OBJECTID: "extent tree",
    constants.CHUNK_TREE_OBJECTID: "chunk tree",
    constants.DEV_TREE_OBJECTID: "device tree",
    WORK: "subvolume",
    SNAPSHOT: "snapshot",
    constants.CSUM_TREE_OBJECTID: "checksum tree",
    constants.FREE_SPACE_TREE_OBJECTID: "free space tree",
    constants.UUID_TREE_OBJECTID: "UUID tree",
    constants.DATA_RELOC_TREE_OBJECTID: "data relocation tree",
    constants.QUOTA_TREE_OBJECTID: "quota tree",
}


def _subject(tree: int, key_type: int) -> str:
    return f"{_TOLD_OF_TREES[tree]}: {constants.KEY_TYPE_NAMES.get(key_type, key_type)}"


def _of_item(base: str, tree: int, key_type: int, parts: tuple[Part, ...]) -> Iterator[Lie]:
    """Yield the lies about items of one type in one tree."""
    subject = _subject(tree, key_type)
    for name, tell in (
        ("removed", _removed),
        ("moved to another objectid", _moved),
        ("moved to another offset", _shifted),
        ("once more at another offset", _repeated),
        ("cut short", _cut),
    ):
        yield Lie(base, subject, name, partial(tell, tree=tree, key_type=key_type))
    for layout, start in parts:
        for field, code, at in _numbers(layout.dtype):
            for how, change in _CHANGES.items():
                tell = partial(
                    _changed,
                    tree=tree,
                    key_type=key_type,
                    field=(code, start + at),
                    change=change,
                )
                yield Lie(base, subject, f"{field} {how}", tell)


def _numbers(dtype: np.dtype[Any], prefix: str = "", at: int = 0) -> Iterator[tuple[str, str, int]]:
    """Yield the numbers of a struct, and of structs in it: name, code of struct, and place."""
    assert dtype.fields is not None
    for name, (kind, offset, *_) in dtype.fields.items():
        if kind.fields is not None:
            if name not in _UNINTERESTING:
                yield from _numbers(kind, f"{prefix}{name}.", at + offset)
        elif kind.kind in "iu" and name not in _UNINTERESTING:
            yield f"{prefix}{name}", "<" + kind.char.upper().replace("L", "Q"), at + offset


_UNINTERESTING = {"atime", "ctime", "mtime", "otime", "stime", "rtime", "inode", "uid", "gid"}
"""Fields of which any value is as good as another."""


def _one_more(value: int, size: int) -> int:
    return (value + 1) % (1 << 8 * size)


def _nothing(_value: int, _size: int) -> int:
    return 0


def _far(value: int, size: int) -> int:
    return (1 << (8 * size - 2)) + value % 2


_CHANGES: dict[str, Callable[[int, int], int]] = {
    "one more": _one_more,
    "nothing": _nothing,
    "far too much": _far,
}


def _one(liar: Liar, tree: int, key_type: int) -> ItemKey:
    """Return the item of a type that is in the middle of all; of files, one with data on disk."""
    items = [item for item in liar.items(tree) if item[0].type == key_type]
    if key_type == constants.EXTENT_DATA_KEY:
        items = [(key, body) for key, body in items if len(body) == 53 and body[20] == 1]
    elif (tree, key_type) == (WORK, constants.INODE_ITEM_KEY):
        data = {key.objectid for key in liar.keys(tree, constants.EXTENT_DATA_KEY)}
        items = [(key, body) for key, body in items if key.objectid in data]
    elif (tree, key_type) == (constants.ROOT_TREE_OBJECTID, constants.ROOT_ITEM_KEY):
        items = [(key, body) for key, body in items if key.objectid == WORK]
    elif key_type == constants.EXTENT_ITEM_KEY:
        items = [(key, body) for key, body in items if len(body) == 53 and body[24] == 178]
    if not items:
        raise LookupError("there is no such item")
    return items[len(items) // 2][0]


def _removed(liar: Liar, tree: int, key_type: int) -> None:
    liar.remove(tree, _one(liar, tree, key_type))


def _moved(liar: Liar, tree: int, key_type: int) -> None:
    key = _one(liar, tree, key_type)
    by = 4096 if key.objectid > 1 << 16 else 5000
    liar.rekey(tree, key, key._replace(objectid=(key.objectid + by) % (1 << 64)))


def _shifted(liar: Liar, tree: int, key_type: int) -> None:
    key = _one(liar, tree, key_type)
    liar.rekey(tree, key, key._replace(offset=(key.offset + 4096) % (1 << 64)))


def _repeated(liar: Liar, tree: int, key_type: int) -> None:
    key = _one(liar, tree, key_type)
    body = liar.body(tree, key)
    liar.insert(tree, key._replace(offset=(key.offset + (1 << 30)) % (1 << 64)), body)


def _cut(liar: Liar, tree: int, key_type: int) -> None:
    key = _one(liar, tree, key_type)
    body = liar.body(tree, key)
    if not body:
        raise LookupError("there is nothing to cut")
    liar.replace(tree, key, body[:-1])


def _changed(
    liar: Liar,
    tree: int,
    key_type: int,
    field: tuple[str, int],
    change: Callable[[int, int], int],
) -> None:
    code, at = field
    key = _one(liar, tree, key_type)
    (value,) = struct.unpack_from(code, liar.body(tree, key), at)
    changed = change(value, struct.calcsize(code))
    if changed == value:
        raise LookupError("it is so already")
    liar.put(tree, key, code, at, changed)


# Nodes, headers, superblocks.

_HEADER_FIELDS = {
    "fsid": ("<Q", 32),
    "bytenr": ("<Q", 48),
    "flags": ("<Q", 56),
    "chunk tree UUID": ("<Q", 64),
    "generation": ("<Q", 80),
    "owner": ("<Q", 88),
    "nritems": ("<I", 96),
    "level": ("<B", 100),
}
_POINTER_FIELDS = {
    "objectid of the key": ("<Q", 0),
    "offset of the key": ("<Q", 9),
    "address": ("<Q", 17),
    "generation": ("<Q", 25),
}
_SUPERBLOCK_FIELDS = {
    "generation": ("<Q", 72),
    "address of the root tree": ("<Q", 80),
    "address of the chunk tree": ("<Q", 88),
    "total bytes": ("<Q", 112),
    "bytes used": ("<Q", 120),
    "root_dir_objectid": ("<Q", 128),
    "number of devices": ("<Q", 136),
    "sectorsize": ("<I", 144),
    "nodesize": ("<I", 148),
    "stripesize": ("<I", 156),
    "size of the array of chunks": ("<I", 160),
    "generation of the root of the chunk tree": ("<Q", 164),
    "compat_ro_flags": ("<Q", 180),
    "incompat_flags": ("<Q", 188),
    "csum_type": ("<H", 196),
    "level of the root tree": ("<B", 198),
    "level of the chunk tree": ("<B", 199),
    "devid": ("<Q", 201),
    "total bytes of the device": ("<Q", 209),
    "used bytes of the device": ("<Q", 217),
    "cache_generation": ("<Q", 555),
    "uuid_tree_generation": ("<Q", 563),
}


def _add(block: bytearray, code: str, at: int, by: int) -> None:
    (value,) = struct.unpack_from(code, block, at)
    struct.pack_into(code, block, at, (value + by) % (1 << 8 * struct.calcsize(code)))


def _in_leaf(liar: Liar, tree: int, code: str, at: int) -> None:
    leaf = [block for block in liar.blocks(tree) if not block.children][-1]
    liar.change_block(leaf.vaddr, lambda block: _add(block, code, at, 1))


def _in_pointer(liar: Liar, code: str, at: int, by: int) -> None:
    node = next(block for block in liar.blocks(WORK) if block.children)
    at += HEADER_SIZE + POINTER_SIZE
    liar.change_block(node.vaddr, lambda block: _add(block, code, at, by))


def _in_superblocks(liar: Liar, code: str, at: int, by: int) -> None:
    liar.change_superblocks(lambda block: _add(block, code, at, by))


def _of_blocks() -> Iterator[Lie]:
    for tree in (WORK, constants.EXTENT_TREE_OBJECTID, constants.CHUNK_TREE_OBJECTID):
        for name, (code, at) in _HEADER_FIELDS.items():
            tell = partial(_in_leaf, tree=tree, code=code, at=at)
            yield Lie("usual", f"{_TOLD_OF_TREES[tree]}: header of a leaf", f"{name} + 1", tell)
    for name, (code, at) in _POINTER_FIELDS.items():
        for by in (1, 1 << 20):
            point = partial(_in_pointer, code=code, at=at, by=by)
            yield Lie("usual", "subvolume: pointer in a node", f"{name} + {by}", point)
    for base in ("usual", "raid1"):
        for name, (code, at) in _SUPERBLOCK_FIELDS.items():
            change = partial(_in_superblocks, code=code, at=at, by=1)
            yield Lie(base, "all superblocks", f"{name} + 1", change)


# Certain files.


class Place(NamedTuple):
    """An item of a file that tests.lab.liefs makes.

    Attributes:
        name: Name of the file.
        key_type: Type of the item.
        number: Which of these.
    """

    name: str
    key_type: int
    number: int = 0

    def key(self, liar: Liar, tree: int) -> ItemKey:
        """Return the key of the item."""
        return liar.keys(tree, self.key_type, inum_of(liar, tree, self.name))[self.number]


def inum_of(liar: Liar, tree: int, name: str) -> int:
    """Return the inode number of a file by its name, in whichever directory."""
    wanted = name.encode()
    for key, body in liar.items(tree):
        if key.type == constants.DIR_INDEX_KEY and body[30:] == wanted:
            (inum,) = struct.unpack_from("<Q", body)
            return int(inum)
    raise LookupError(f"no file {name!r} in tree {tree}")


_INODE, _REF, _EXTENT = (
    constants.INODE_ITEM_KEY,
    constants.INODE_REF_KEY,
    constants.EXTENT_DATA_KEY,
)
_DIR_ITEM, _DIR_INDEX, _ORPHAN = (
    constants.DIR_ITEM_KEY,
    constants.DIR_INDEX_KEY,
    constants.ORPHAN_ITEM_KEY,
)

_PUTS: tuple[tuple[str, Place, str, int, int], ...] = (
    ("mode of a file: a directory", Place("small", _INODE), "<I", 52, 0o40755),
    ("mode of a file: a pipe", Place("large", _INODE), "<I", 52, 0o10644),
    ("mode of a file: none", Place("small", _INODE), "<I", 52, 0o644),
    ("mode of a directory: a file", Place("folder", _INODE), "<I", 52, 0o100644),
    ("mode of a symbolic link: a file", Place("link", _INODE), "<I", 52, 0o100777),
    ("mode of a pipe: a socket", Place("pipe", _INODE), "<I", 52, 0o140644),
    ("nlink 2 of a file with one name", Place("small", _INODE), "<I", 40, 2),
    ("nlink 0 of a file with a name", Place("small", _INODE), "<I", 40, 0),
    ("nlink 1 of a file with two names", Place("linked", _INODE), "<I", 40, 1),
    ("nlink 2 of a directory", Place("folder", _INODE), "<I", 40, 2),
    ("size of a directory", Place("folder", _INODE), "<Q", 16, 8),
    ("size of a large file", Place("large", _INODE), "<Q", 16, 3 << 19),
    ("size of a small file", Place("small", _INODE), "<Q", 16, 5),
    ("size of a sparse file", Place("sparse", _INODE), "<Q", 16, 9 << 20),
    ("size of a symbolic link", Place("link", _INODE), "<Q", 16, 5),
    ("NODATASUM set", Place("large", _INODE), "<Q", 64, 1),
    ("NODATASUM cleared", Place("no sums", _INODE), "<Q", 64, 0),
    ("flag READONLY set", Place("large", _INODE), "<Q", 64, 4),
    ("piece: preallocated, but has checksums", Place("sparse", _EXTENT), "<B", 20, 2),
    ("piece: written, but was preallocated", Place("reserved", _EXTENT), "<B", 20, 1),
    ("piece: type 3", Place("large", _EXTENT), "<B", 20, 3),
    ("piece: compressed, but is not", Place("large", _EXTENT), "<B", 16, 1),
    ("piece: not compressed, but is", Place("zeros", _EXTENT), "<B", 16, 0),
    ("piece: compressed by zlib, not zstd", Place("zeros", _EXTENT), "<B", 16, 1),
    ("piece: a hole instead", Place("large", _EXTENT), "<Q", 21, 0),
    ("piece: extent at 2^50", Place("large", _EXTENT), "<Q", 21, 1 << 50),
    ("piece: begins elsewhere in its extent", Place("large", _EXTENT), "<Q", 37, 4096),
    ("piece: without bytes", Place("large", _EXTENT), "<Q", 45, 0),
    ("piece: shorter", Place("large", _EXTENT), "<Q", 45, 4096),
    ("piece of a clone: other ram_bytes", Place("copy", _EXTENT), "<Q", 8, 1 << 24),
    ("entry: another type of file", Place("folder", _DIR_INDEX, 5), "<B", 29, 2),
    ("entry by hash: another type of file", Place("folder", _DIR_ITEM, 5), "<B", 29, 2),
    ("entry: leads nowhere", Place("folder", _DIR_INDEX, 5), "<Q", 0, 99999),
    ("entry by hash: leads nowhere", Place("folder", _DIR_ITEM, 5), "<Q", 0, 99999),
    ("entry: type of location 99", Place("folder", _DIR_ITEM, 5), "<B", 8, 99),
    ("entry: another name", Place("folder", _DIR_INDEX, 5), "<B", 30, ord("X")),
    ("entry by hash: another name", Place("folder", _DIR_ITEM, 5), "<B", 30, ord("X")),
    ("entry: name with a slash", Place("folder", _DIR_INDEX, 5), "<B", 30, ord("/")),
    ("name in an inode: another name", Place("small", _REF), "<B", 10, ord("X")),
    ("name in an inode: another index", Place("small", _REF), "<Q", 0, 999),
)
"""Numbers of certain items that are changed: what, where, code, place, and the new value."""

_REMOVALS: tuple[tuple[str, tuple[Place, ...]], ...] = (
    ("inode item of a small file removed", (Place("small", _INODE),)),
    ("inode item of a directory removed", (Place("folder", _INODE),)),
    ("inode item of a symbolic link removed", (Place("link", _INODE),)),
    ("one of two names removed", (Place("linked", _REF),)),
    ("inline piece removed", (Place("small", _EXTENT),)),
    ("target of a symbolic link removed", (Place("link", _EXTENT),)),
    ("a piece in the middle removed", (Place("large", _EXTENT, 1),)),
    ("entry of a directory removed", (Place("folder", _DIR_INDEX, 20),)),
    ("entry by hash of a directory removed", (Place("folder", _DIR_ITEM, 20),)),
    ("inode and all names in it removed", (Place("small", _INODE), Place("small", _REF))),
)


def _put_place(liar: Liar, tree: int, place: Place, code: str, at: int, value: int) -> None:
    liar.put(tree, place.key(liar, tree), code, at, value)


def _remove_places(liar: Liar, tree: int, places: tuple[Place, ...]) -> None:
    liar.remove(tree, *[place.key(liar, tree) for place in places])


def _orphan(liar: Liar) -> None:
    key = ItemKey(constants.ORPHAN_OBJECTID % (1 << 64), _ORPHAN, inum_of(liar, WORK, "small"))
    liar.insert(WORK, key, b"")


def _orphan_of_none(liar: Liar) -> None:
    liar.insert(WORK, ItemKey(constants.ORPHAN_OBJECTID % (1 << 64), _ORPHAN, 88888), b"")


def _overlap(liar: Liar) -> None:
    key = Place("large", _EXTENT).key(liar, WORK)
    liar.rekey(WORK, key, key._replace(offset=key.offset + 4096))


def _of_files() -> Iterator[Lie]:
    for base, tree in (("usual", WORK), ("usual", SNAPSHOT), ("old", WORK), ("old", SNAPSHOT)):
        subject = f"files of the {_TOLD_OF_TREES[tree]}"
        for name, place, code, at, value in _PUTS:
            if tree == SNAPSHOT and (place.number or place.name == "copy"):
                continue
            tell = partial(_put_place, tree=tree, place=place, code=code, at=at, value=value)
            yield Lie(base, subject, name, tell)
        for name, places in _REMOVALS:
            remove = partial(_remove_places, tree=tree, places=places)
            yield Lie(base, subject, name, remove)
    for base in ("usual", "old"):
        subject = "files of the subvolume"
        yield Lie(base, subject, "orphan item of a file with a name", _orphan)
        yield Lie(base, subject, "orphan item of no file", _orphan_of_none)
        yield Lie(base, subject, "piece moved, so that it overlaps", _overlap)


def lies() -> Iterator[Lie]:
    """Yield all lies."""
    for (tree, key_type), parts in ITEMS.items():
        yield from _of_item("usual", tree, key_type, parts)
    for (tree, key_type), parts in QUOTA_ITEMS.items():
        yield from _of_item("quotas", tree, key_type, parts)
    for tree, key_type in ITEMS:
        yield from _of_item("old", tree, key_type, ())
    yield from _of_files()
    yield from _of_blocks()
