"""Items: whether each can be what its key says, and belongs in its tree.

The rules are those of the kernel's tree checker (fs/btrfs/tree-checker.c) that concern one item,
or two neighbours. They are applied to many items at once where that is worth it; the rest is
decoded item by item. Items of extents are left to :mod:`btrfs.check.extents`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.hashes import name_hash
from btrfs.ondisk.items.base import SearchHeader, classify
from btrfs.ondisk.items.chunk import Chunk
from btrfs.ondisk.items.directory import DirItem
from btrfs.ondisk.items.file_extent import FileExtentItem
from btrfs.ondisk.items.inode import InodeItem, InodeRef
from btrfs.ondisk.key import Key
from btrfs.ondisk.profiles import check_chunk
from btrfs.ondisk.struct import Struct

if TYPE_CHECKING:
    from btrfs.check.report import Checked
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch
    from btrfs.source.disk.source import DiskSource

__all__ = ["ItemRules"]

Mask = NDArray[np.bool_]

_FILE_TYPES = {
    constants.UNTYPED_KEY,
    constants.INODE_ITEM_KEY,
    constants.INODE_REF_KEY,
    constants.INODE_EXTREF_KEY,
    constants.XATTR_ITEM_KEY,
    constants.VERITY_DESC_ITEM_KEY,
    constants.VERITY_MERKLE_ITEM_KEY,
    constants.ORPHAN_ITEM_KEY,
    constants.DIR_ITEM_KEY,
    constants.DIR_INDEX_KEY,
    constants.EXTENT_DATA_KEY,
}
"""Of trees of files. Those of no type were written by the inode cache of old kernels."""

_TYPES_BY_TREE = {
    constants.ROOT_TREE_OBJECTID: {
        *_FILE_TYPES,
        constants.ROOT_ITEM_KEY,
        constants.ROOT_REF_KEY,
        constants.ROOT_BACKREF_KEY,
        constants.TEMPORARY_ITEM_KEY,
    },
    constants.EXTENT_TREE_OBJECTID: {
        constants.EXTENT_ITEM_KEY,
        constants.METADATA_ITEM_KEY,
        constants.TREE_BLOCK_REF_KEY,
        constants.EXTENT_DATA_REF_KEY,
        constants.SHARED_BLOCK_REF_KEY,
        constants.SHARED_DATA_REF_KEY,
        constants.BLOCK_GROUP_ITEM_KEY,
    },
    constants.CHUNK_TREE_OBJECTID: {constants.DEV_ITEM_KEY, constants.CHUNK_ITEM_KEY},
    constants.DEV_TREE_OBJECTID: {
        constants.DEV_EXTENT_KEY,
        constants.PERSISTENT_ITEM_KEY,
        constants.DEV_REPLACE_KEY,
    },
    constants.CSUM_TREE_OBJECTID: {constants.EXTENT_CSUM_KEY},
    constants.QUOTA_TREE_OBJECTID: {
        constants.QGROUP_STATUS_KEY,
        constants.QGROUP_INFO_KEY,
        constants.QGROUP_LIMIT_KEY,
        constants.QGROUP_RELATION_KEY,
    },
    constants.UUID_TREE_OBJECTID: {
        constants.UUID_KEY_SUBVOL,
        constants.UUID_KEY_RECEIVED_SUBVOL,
    },
    constants.FREE_SPACE_TREE_OBJECTID: {
        constants.FREE_SPACE_INFO_KEY,
        constants.FREE_SPACE_EXTENT_KEY,
        constants.FREE_SPACE_BITMAP_KEY,
    },
    constants.BLOCK_GROUP_TREE_OBJECTID: {constants.BLOCK_GROUP_ITEM_KEY},
    constants.RAID_STRIPE_TREE_OBJECTID: {constants.RAID_STRIPE_KEY},
    constants.TREE_LOG_OBJECTID: {
        *_FILE_TYPES,
        constants.ROOT_ITEM_KEY,
        constants.DIR_LOG_ITEM_KEY,
        constants.DIR_LOG_INDEX_KEY,
        constants.EXTENT_CSUM_KEY,
    },
}

_SIZES = {
    constants.INODE_ITEM_KEY: (160,),
    constants.ORPHAN_ITEM_KEY: (0,),
    constants.ROOT_ITEM_KEY: (239, 439),
    constants.TREE_BLOCK_REF_KEY: (0,),
    constants.EXTENT_DATA_REF_KEY: (28,),
    constants.SHARED_BLOCK_REF_KEY: (0,),
    constants.SHARED_DATA_REF_KEY: (4,),
    constants.BLOCK_GROUP_ITEM_KEY: (24,),
    constants.FREE_SPACE_INFO_KEY: (8,),
    constants.FREE_SPACE_EXTENT_KEY: (0,),
    constants.DEV_EXTENT_KEY: (48,),
    constants.DEV_ITEM_KEY: (98,),
    constants.QGROUP_INFO_KEY: (40,),
    constants.QGROUP_LIMIT_KEY: (40,),
    constants.QGROUP_RELATION_KEY: (0,),
}
"""Bytes in the bodies of items that are always of the same size, or of one of two."""

_EXTENTS = {constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY}

_MAX_NAME = 255
_BITS = 8
_INLINE_FILE_EXTENT_SIZE = 21

_TYPE_OF_FILE = 0o170000
_MODES = np.array(
    sorted(
        stat.S_IFMT(mode)
        for mode in (
            stat.S_IFREG,
            stat.S_IFDIR,
            stat.S_IFLNK,
            stat.S_IFCHR,
            stat.S_IFBLK,
            stat.S_IFIFO,
            stat.S_IFSOCK,
        )
    ),
    np.uint32,
)


class ItemRules:
    """Checks the items of a tree.

    Args:
        fs: The filesystem.
        source: Its source.
        tree: Number of the tree.
        checked: Where the findings go.
    """

    def __init__(self, fs: FileSystem, source: DiskSource, tree: int, checked: Checked) -> None:
        self._tree = tree
        self._checked = checked
        self._sectorsize = fs.sectorsize
        self._csum_size = source.superblock.checksum.size
        # What is in the log trees belongs to the transaction after the last commit.
        is_log = tree == constants.TREE_LOG_OBJECTID
        self._generation = source.superblock.generation + is_log
        self._allowed = _TYPES_BY_TREE.get(tree, _FILE_TYPES)
        self._end_of_checksums = 0
        self._rules: dict[int, Callable[[ItemBatch], None]] = {
            constants.INODE_ITEM_KEY: self._inodes,
            constants.INODE_REF_KEY: self._inode_refs,
            constants.DIR_ITEM_KEY: self._entries,
            constants.DIR_INDEX_KEY: self._entries,
            constants.XATTR_ITEM_KEY: self._entries,
            constants.EXTENT_DATA_KEY: self._file_extents,
            constants.EXTENT_CSUM_KEY: self._checksums,
            constants.FREE_SPACE_BITMAP_KEY: self._bitmaps,
        }

    def check(self, batch: ItemBatch) -> None:
        """Check the items of a batch; batches must come in the order of their keys."""
        for key_type in np.unique(batch.type).tolist():
            chosen = batch.of_type(key_type)
            if key_type not in self._allowed:
                self._report(chosen, np.ones(len(chosen), np.bool_), "key-type", "")
                continue
            sizes = _SIZES.get(key_type)
            if sizes is not None:
                right = np.isin(chosen.size, sizes)
                expected = " or ".join(map(str, sizes))
                self._report(chosen, ~right, why=f"its size is not {expected} bytes")
                chosen = chosen.select(right)
            rule = self._rules.get(key_type)
            if rule is not None:
                rule(chosen)
            elif sizes is None and key_type not in _EXTENTS:
                self._decode(chosen)

    def _report(
        self, batch: ItemBatch, wrong: Mask, kind: str = "item-damaged", why: str = ""
    ) -> None:
        """Add a finding for each item that a mask chooses."""
        for index in np.flatnonzero(wrong).tolist():
            self._add(batch.key(index), why, kind)

    def _add(self, key: Key, why: str, kind: str = "item-damaged") -> None:
        reason = f": {why}" if why else ""
        self._checked.add(kind, f"{key} in tree {self._tree}{reason}", tree=self._tree)

    def _decode(self, batch: ItemBatch) -> None:
        """Decode items one by one."""
        for index in range(len(batch)):
            key = batch.key(index)
            body = _body(batch, index)
            header = SearchHeader(
                int(batch.transid[index]), key.objectid, key.offset, key.type, len(body)
            )
            try:
                item = classify(header, body)
                if isinstance(item, Chunk):
                    check_chunk(item)
            except CorruptError as error:
                self._add(key, _without_key(error))

    def _inodes(self, batch: ItemBatch) -> None:
        mode, nlink, generation, transid = (
            _values(batch, InodeItem, name) for name in ("mode", "nlink", "generation", "transid")
        )
        file_type = mode & np.uint32(_TYPE_OF_FILE)
        self._report(batch, ~np.isin(file_type, _MODES), why="its mode is of no type of file")
        future = np.maximum(generation, transid) > self._generation
        self._report(batch, future, why="it is of a generation that has not been yet")
        is_directory = file_type == stat.S_IFDIR
        self._report(batch, is_directory & (nlink > 1), why="a directory of more than one name")

    def _inode_refs(self, batch: ItemBatch) -> None:
        """Check names of inodes; nearly all items hold just one."""
        plain = batch.size > InodeRef.struct_size
        some = batch.select(plain)
        plain[plain] = InodeRef.struct_size + _values(some, InodeRef, "name_len") == some.size
        self._decode(batch.select(~plain))

    def _entries(self, batch: ItemBatch) -> None:
        """Check entries of directories, and extended attributes; nearly all items hold just one."""
        plain = batch.size > DirItem.struct_size
        some = batch.select(plain)
        data_len, name_len, file_type = (
            _values(some, DirItem, name).astype(np.int64)
            for name in ("data_len", "name_len", "type")
        )
        size = DirItem.struct_size + data_len + name_len
        is_whole = (size == some.size) & (name_len > 0)
        plain[plain] = is_whole
        is_attribute = some.type == constants.XATTR_ITEM_KEY
        fit = np.where(
            is_attribute, file_type == constants.FT_XATTR, file_type < constants.FT_XATTR
        )
        self._report(some, ~fit, why="an entry of a type that does not exist")
        too_long = is_whole & (name_len > _MAX_NAME)
        self._report(some, too_long, why=f"a name of more than {_MAX_NAME} bytes")
        self._decode(batch.select(~plain))
        if len(batch) and batch.type[0] != constants.DIR_INDEX_KEY:
            self._check_hashes(batch.select(plain))

    def _check_hashes(self, batch: ItemBatch) -> None:
        """Check that entries are stored under the hash of their name."""
        memory = batch.buffer.data
        name_len = _values(batch, DirItem, "name_len").tolist()
        rows = zip(batch.body.tolist(), name_len, batch.offset.tolist(), strict=True)
        for index, (body, length, offset) in enumerate(rows):
            start = body + DirItem.struct_size
            if name_hash(bytes(memory[start : start + length])) != offset:
                self._add(batch.key(index), "not the hash of its name")

    def _file_extents(self, batch: ItemBatch) -> None:
        try:
            columns = batch.columns(FileExtentItem)
        except CorruptError:
            self._decode(batch)
            return
        is_inline = columns["type"] == constants.FILE_EXTENT_INLINE
        expected = np.where(
            is_inline,
            np.where(
                columns["compression"] == constants.COMPRESS_NONE,
                columns["ram_bytes"] + np.uint64(_INLINE_FILE_EXTENT_SIZE),
                batch.size.astype(np.uint64),
            ),
            np.uint64(FileExtentItem.struct_size),
        )
        self._report(batch, batch.size != expected, why="its size does not fit")
        wrong_type = columns["type"] > constants.FILE_EXTENT_PREALLOC
        wrong_type |= columns["compression"] > constants.COMPRESS_ZSTD
        wrong_type |= columns["encryption"] != 0
        self._report(batch, wrong_type, why="of a type, compression or encryption not known")
        parts = [columns[name] for name in ("disk_bytenr", "disk_num_bytes", "offset", "num_bytes")]
        odd = self._odd(columns["key_offset"], *parts)
        odd |= ~is_inline & self._odd(columns["ram_bytes"])
        self._report(batch, odd, why=f"not all multiples of {self._sectorsize}")
        self._check_overlaps(batch, columns, is_inline)

    def _odd(self, *columns: NDArray[Any]) -> Mask:
        """Return where a value is not a multiple of the size of a sector."""
        mask = np.uint64(self._sectorsize - 1)
        return np.asarray(np.bitwise_or.reduce([column & mask for column in columns]) != 0)

    def _check_overlaps(
        self, batch: ItemBatch, columns: dict[str, NDArray[Any]], is_inline: Mask
    ) -> None:
        """Check that pieces of files do not overlap the one before."""
        length = np.where(is_inline, columns["ram_bytes"], columns["num_bytes"])
        end = columns["key_offset"] + length
        overlaps = np.zeros(len(batch), np.bool_)
        overlaps[1:] = (batch.objectid[1:] == batch.objectid[:-1]) & (end[:-1] > batch.offset[1:])
        self._report(batch, overlaps, why="overlaps the piece of the file before it")

    def _checksums(self, batch: ItemBatch) -> None:
        wrong = (batch.size == 0) | (batch.size % self._csum_size != 0)
        wrong |= batch.offset % np.uint64(self._sectorsize) != 0
        self._report(batch, wrong, why="not whole checksums of whole sectors")
        if self._tree != constants.CSUM_TREE_OBJECTID:
            # Log trees can have checksums of the same data twice.
            return
        right = batch.select(~wrong)
        if not len(right):
            return
        sectors = right.size.astype(np.uint64) // np.uint64(self._csum_size)
        ends = right.offset + sectors * np.uint64(self._sectorsize)
        before = np.concatenate(([np.uint64(self._end_of_checksums)], ends[:-1]))
        self._report(right, right.offset < before, "checksums-overlap")
        self._end_of_checksums = int(ends[-1])

    def _bitmaps(self, batch: ItemBatch) -> None:
        sectors = batch.offset // np.uint64(self._sectorsize)
        expected = (sectors + np.uint64(_BITS - 1)) // np.uint64(_BITS)
        self._report(batch, batch.size != expected, why="its size does not fit its length")


def _values(batch: ItemBatch, struct: type[Struct], name: str) -> NDArray[Any]:
    """Return the field of a struct that each body begins with."""
    fields = struct.dtype.fields
    assert fields is not None
    dtype, at = fields[name][:2]
    return batch.gather(dtype, at)


def _body(batch: ItemBatch, index: int) -> bytes:
    start = int(batch.body[index])
    return batch.buffer[start : start + int(batch.size[index])].tobytes()


def _without_key(error: CorruptError) -> str:
    """Return what is wrong with an item, without its key, which the finding names already."""
    return str(error).split(": ", 1)[-1]
