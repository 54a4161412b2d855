"""How extents of data are compressed: not the extent tree tells, but the files that use them.

An item of the extent tree names an inode that uses its extent, or a leaf in which that is said. The
file extent items there say how the extent is compressed (struct btrfs_file_extent_item in the
kernel's btrfs_tree.h). The inodes of many extents are read at once: those that are near one another
in their tree by one search, each other by a search of its own. Extents that are met on the way
need not be asked for any more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs import ioctl
from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from btrfs.ownership import backrefs
from heatmap.palette import palette

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["COMPRESSIONS", "compressions"]

Values = NDArray[np.uint8]
Numbers = NDArray[np.uint64]
Indexes = NDArray[np.intp]

COMPRESSIONS = palette(
    {
        "not compressed": 0x949494,
        "zlib": 0xE17903,
        "lzo": 0x11672F,
        "zstd": 0x0998FF,
        "not known": 0x983190,
        "metadata": 0x7300FF,
    }
)
"""The methods of compression, by their numbers in file extent items, and what has none.

The colours stay apart for eyes that lack any one kind of cones, and from black and from white.
"""


def compressions(fs: FileSystem, batch: ItemBatch) -> Values:
    """Return for each extent how it is compressed, an index into COMPRESSIONS.

    It stays not known if the files that use the extent cannot be read, if no file uses it, or if
    too many extents of a batch are in leaves that trees share, which are looked up one by one.

    Args:
        fs: The filesystem. If it is mounted, this needs CAP_SYS_ADMIN.
        batch: EXTENT_ITEMs and METADATA_ITEMs of its extent tree, in the order of their keys.

    Raises:
        CorruptError: It raises errors, and something cannot be read.
        OSError: The kernel refuses.
    """
    value = np.full(len(batch), _UNKNOWN, np.uint8)
    skinny = batch.type == constants.METADATA_ITEM_KEY
    readable = np.flatnonzero(~skinny & (batch.size >= _EXTENT_ITEM_SIZE))
    flags = batch.select(readable).gather("<u8", _FLAGS_AT)
    value[skinny] = _METADATA
    value[readable[flags & constants.EXTENT_FLAG_TREE_BLOCK != 0]] = _METADATA
    data = readable[flags & constants.EXTENT_FLAG_DATA != 0]
    data = data[value[data] == _UNKNOWN]
    if data.size:
        value[data] = _of_data(fs, batch.select(data))
    return value


def _of_data(fs: FileSystem, extents: ItemBatch) -> Values:
    """Return how extents of data are compressed."""
    wanted = _Wanted(extents.objectid, np.full(len(extents), _UNKNOWN, np.uint8))
    references = _first_references(fs, extents)
    span = int(min(max(int(extents.offset.max()), _MAX_UNCOMPRESSED), _MAX_EXTENT_SIZE))
    _read_files(fs, wanted, references, span)
    left = np.flatnonzero(wanted.value == _UNKNOWN)
    if not left.size:
        return wanted.value
    if fs.mounted:
        _read_files(fs, wanted, _references_by_kernel(fs, extents.objectid[left]), 1)
    else:
        left = left[references.kind[left] == constants.SHARED_DATA_REF_KEY]
        _read_leaves(fs, wanted, np.unique(references.number[left]))
    return wanted.value


class _Wanted(NamedTuple):
    """Extents, and what was found out about them.

    Attributes:
        vaddr: Their virtual addresses, ascending.
        value: How they are compressed, as far as it is known.
    """

    vaddr: Numbers
    value: Values

    def learn(self, vaddr: Numbers, compression: Values) -> None:
        """Note how extents are compressed, among which may be others."""
        index = np.minimum(np.searchsorted(self.vaddr, vaddr), len(self.vaddr) - 1)
        known = self.vaddr[index] == vaddr
        self.value[index[known]] = np.minimum(compression[known], _UNKNOWN)


class _References(NamedTuple):
    """A reference to each of some extents.

    Attributes:
        kind: Its type; 0 if there is none.
        number: The tree, or the virtual address of a leaf.
        inum: The inode that uses the extent, if it names a tree; and
        offset: Where the extent would begin in that file, if all of it were used there, in bytes.
    """

    kind: Values
    number: Numbers
    inum: Numbers
    offset: Numbers


# References.


def _first_references(fs: FileSystem, extents: ItemBatch) -> _References:
    """Return the first reference to each extent of data."""
    at = np.full(len(extents), _EXTENT_ITEM_SIZE, np.int64)
    # What simple quotas note comes before all references.
    at[_kinds(extents, at) == constants.EXTENT_OWNER_REF_KEY] += _INLINE_OWNER_SIZE
    kind = _kinds(extents, at)
    found = _References(kind, *(np.zeros(len(extents), np.uint64) for _ in range(3)))
    by_file = kind == constants.EXTENT_DATA_REF_KEY
    for column, position in (
        (found.number, _ROOT_AT),
        (found.inum, _INUM_AT),
        (found.offset, _OFFSET_AT),
    ):
        column[by_file] = extents.select(by_file).gather("<u8", at[by_file] + position)
    by_leaf = kind == constants.SHARED_DATA_REF_KEY
    found.number[by_leaf] = extents.select(by_leaf).gather("<u8", at[by_leaf] + 1)
    # Where references once did not fit into the item, those in it may be gone.
    for index in np.flatnonzero(kind == 0)[:_MOST_LOOKUPS].tolist():
        _add_separate(fs, int(extents.objectid[index]), found, index)
    return found


def _kinds(extents: ItemBatch, at: NDArray[np.int64]) -> Values:
    """Return the types of the references that begin there in the items, 0 if there is no whole."""
    kind = np.zeros(len(extents), np.uint8)
    inside = np.flatnonzero(at < extents.size)
    found = extents.select(inside).gather("u1", at[inside])
    whole = (_SIZES[found] > 0) & (at[inside] + _SIZES[found] <= extents.size[inside])
    kind[inside[whole]] = found[whole]
    return kind


def _add_separate(fs: FileSystem, vaddr: int, found: _References, index: int) -> None:
    """Find the first reference to an extent that is an item of its own."""
    first = Key(vaddr, constants.EXTENT_DATA_REF_KEY, 0)
    last = Key(vaddr, constants.SHARED_DATA_REF_KEY, constants.ULLONG_MAX)
    for items in fs.batches(constants.EXTENT_TREE_OBJECTID, first, last):
        by_file = items.of_type(constants.EXTENT_DATA_REF_KEY)
        by_file = by_file.select(by_file.size >= _DATA_REF_SIZE)
        by_leaf = items.of_type(constants.SHARED_DATA_REF_KEY)
        if len(by_file):
            found.kind[index] = constants.EXTENT_DATA_REF_KEY
            columns = (found.number, found.inum, found.offset)
            for column, position in zip(columns, (0, 8, 16), strict=True):
                column[index] = by_file.select(slice(0, 1)).gather("<u8", position)[0]
        elif len(by_leaf):
            found.kind[index] = constants.SHARED_DATA_REF_KEY
            found.number[index] = by_leaf.offset[0]
        return


def _references_by_kernel(fs: FileSystem, vaddrs: Numbers) -> _References:
    """Return ranges of files that use extents, as the kernel knows them, of the first of these."""
    uses = []
    for vaddr in vaddrs[:_MOST_LOOKUPS].tolist():
        try:
            uses += ioctl.logical_ino_v2(fs.fd, vaddr, _ROOM_FOR_ONE, ignore_offset=True)[0]
        except FileNotFoundError:
            continue
    kind = np.full(len(uses), constants.EXTENT_DATA_REF_KEY, np.uint8)
    columns = ([use.root for use in uses], [use.inum for use in uses], [u.offset for u in uses])
    return _References(kind, *(np.array(column, np.uint64) for column in columns))


# Files.


def _read_files(fs: FileSystem, wanted: _Wanted, references: _References, span: int) -> None:
    """Learn from the files that references name.

    Args:
        fs: The filesystem.
        wanted: Learns how extents are compressed.
        references: Of which those count that name files.
        span: Bytes of the file from where a reference says, in which the extent is used.
    """
    by_file = references.kind == constants.EXTENT_DATA_REF_KEY
    for tree in np.unique(references.number[by_file]).tolist():
        chosen = by_file & (references.number == tree)
        ranges = _FileRanges(references.inum[chosen], references.offset[chosen], span)
        try:
            for items in _items_near(fs, tree, ranges):
                _learn_from_items(wanted, items)
        except FileNotFoundError:
            # A subvolume that is deleted, but not cleaned up yet.
            continue


def _learn_from_items(wanted: _Wanted, items: ItemBatch) -> None:
    files = items.of_type(constants.EXTENT_DATA_KEY)
    files = files.select(files.size >= _FILE_EXTENT_SIZE)
    files = files.select(files.gather("u1", _TYPE_AT) != constants.FILE_EXTENT_INLINE)
    wanted.learn(files.gather("<u8", _DISK_BYTENR.start), files.gather("u1", _COMPRESSION_AT))


def _read_leaves(fs: FileSystem, wanted: _Wanted, vaddrs: Numbers) -> None:
    """Learn from leaves, the first of these."""
    for vaddr in vaddrs[:_MOST_LOOKUPS].tolist():
        found = [
            (int.from_bytes(data[_DISK_BYTENR], "little"), data[_COMPRESSION_AT])
            for header, data in backrefs.leaf_items(fs, vaddr)
            if header.type == constants.EXTENT_DATA_KEY
            and len(data) >= _FILE_EXTENT_SIZE
            and data[_TYPE_AT] != constants.FILE_EXTENT_INLINE
        ]
        table = np.array(found, np.uint64).reshape(-1, 2)
        wanted.learn(table[:, 0], table[:, 1].astype(np.uint8))


class _FileRanges:
    """Ranges of files, all of the same length, in the order of their keys.

    Args:
        inum: Inodes.
        offset: Where in the file each range begins, in bytes. What is below zero is wrapped around,
            as references have it.
        span: Bytes of each range.
    """

    def __init__(self, inum: Numbers, offset: Numbers, span: int) -> None:
        start = np.where(offset <= _MAX_OFFSET, offset, np.uint64(0))
        order = np.lexsort((start, inum))
        self._inum = inum[order]
        self._start = start[order]
        self._span = span
        apart = np.diff(self._inum) > _NEAR_INODES
        apart |= (np.diff(self._inum) == 0) & (np.diff(self._start) > _NEAR_BYTES)
        self._ends = np.append(np.flatnonzero(apart) + 1, len(self._inum))

    def __len__(self) -> int:
        return len(self._inum)

    def end_of_near(self, first: int) -> int:
        """Return the index after the last of those that are near one another from one on."""
        return int(self._ends[np.searchsorted(self._ends, first, "right")])

    def first_key(self, index: int) -> Key:
        """Return the first key in a range."""
        return Key(int(self._inum[index]), constants.EXTENT_DATA_KEY, int(self._start[index]))

    def last_key(self, index: int) -> Key:
        """Return the last key in a range."""
        last = int(self._start[index]) + self._span - 1
        return Key(int(self._inum[index]), constants.EXTENT_DATA_KEY, last)

    def begun(self, key: Key) -> int:
        """Return how many of the ranges begin at a key or before it."""
        inum = np.uint64(key.objectid)
        first = int(np.searchsorted(self._inum, inum, "left"))
        end = int(np.searchsorted(self._inum, inum, "right"))
        if key.type != constants.EXTENT_DATA_KEY:
            return end if key.type > constants.EXTENT_DATA_KEY else first
        return first + int(np.searchsorted(self._start[first:end], np.uint64(key.offset), "right"))


def _items_near(fs: FileSystem, tree: int, ranges: _FileRanges) -> Iterator[ItemBatch]:
    """Yield items of a tree, among them all in some ranges of files."""
    done = 0
    while done < len(ranges):
        end = ranges.end_of_near(done)
        for items in fs.batches(tree, ranges.first_key(done), ranges.last_key(end - 1)):
            yield items
            last = items.key(len(items) - 1)
            begun = ranges.begun(last)
            # Between two inodes that are near, one of them may have many items that are not needed.
            if begun == done < end and last > ranges.last_key(done - 1):
                break
            done = begun
        else:
            done = max(done, end)


# struct btrfs_extent_item, and the references in an item of data: the size of each with its type.
_FLAGS_AT = 16
_EXTENT_ITEM_SIZE = 24
_INLINE_OWNER_SIZE = 9
_DATA_REF_SIZE = 28
_ROOT_AT, _INUM_AT, _OFFSET_AT = 1, 9, 17
_SIZES = np.zeros(256, np.int64)
_SIZES[constants.EXTENT_OWNER_REF_KEY] = _INLINE_OWNER_SIZE
_SIZES[constants.EXTENT_DATA_REF_KEY] = 1 + _DATA_REF_SIZE
_SIZES[constants.SHARED_DATA_REF_KEY] = 13

# struct btrfs_file_extent_item
_COMPRESSION_AT = 16
_TYPE_AT = 20
_DISK_BYTENR = slice(21, 29)
_FILE_EXTENT_SIZE = 53

# A buffer for LOGICAL_INO: struct btrfs_data_container, and one use.
_ROOM_FOR_ONE = 40

# The largest offset in a file; bytes in an extent, if it is compressed (BTRFS_MAX_UNCOMPRESSED in
# fs/btrfs/compression.h) and at most (as __btrfs_prealloc_file_range() makes them).
_MAX_OFFSET = (1 << 63) - 1
_MAX_UNCOMPRESSED = 128 << 10
_MAX_EXTENT_SIZE = 256 << 20

# Reading some hundred items more takes no longer than another search.
_NEAR_INODES = 16
_NEAR_BYTES = 16 << 20

# One by one, of a batch.
_MOST_LOOKUPS = 2000

_UNKNOWN = COMPRESSIONS.names.index("not known")
_METADATA = COMPRESSIONS.names.index("metadata")
