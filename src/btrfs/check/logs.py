"""Log trees: what was synced after the last commit must not be in the way of what is in use.

An fsync writes what it must keep into a log tree, one for each subvolume, and leaves all other
trees as they are. The next mount replays log trees, as if what they hold had just been written
(fs/btrfs/tree-log.c). They belong to the transaction after the last commit. So the extent tree does
not know their blocks, nor the data that was written since: all of that must lie in what the extent
tree leaves free, or else replaying would overwrite something. Only an extent of data that is in the
extent tree already, with the same length, may be used once more.

What is new has its checksums in the log tree, too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.places import is_lost
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX, ULLONG_MAX
from btrfs.ondisk.items.csum import ExtentCsumItem
from btrfs.ondisk.items.directory import DirLogItem
from btrfs.ondisk.items.file_extent import FileExtentItem
from btrfs.ondisk.items.inode import InodeItem
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import block_group_flags_str, counted

if TYPE_CHECKING:
    from btrfs.check.block_groups import BlockGroup
    from btrfs.check.report import Checked
    from btrfs.check.tree_walk import BlockTable
    from btrfs.filesystem import FileSystem
    from btrfs.source.disk.source import DiskSource

__all__ = ["check_logs"]

_TREE = constants.TREE_LOG_OBJECTID
_EXTENTS = constants.EXTENT_TREE_OBJECTID
_OF_BLOCK_GROUPS = (_EXTENTS, constants.BLOCK_GROUP_TREE_OBJECTID)
_DATA = constants.BLOCK_GROUP_DATA
_METADATA = constants.BLOCK_GROUP_METADATA
_EXTENT_ITEMS = (constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY)
_NEEDED = {_TREE, *_OF_BLOCK_GROUPS, constants.ROOT_TREE_OBJECTID, constants.CHUNK_TREE_OBJECTID}


class _Range(NamedTuple):
    """A range of virtual addresses that a log tree uses.

    Attributes:
        vaddr: Where it begins.
        length: Bytes.
        is_data: Whether it is an extent of data, and not a block of a log tree.
        what: What uses it, as text.
    """

    vaddr: int
    length: int
    is_data: bool
    what: str

    @property
    def end(self) -> int:
        """Virtual address of the first byte after it."""
        return self.vaddr + self.length


class _Piece(NamedTuple):
    """A piece of a file in an extent of data.

    Attributes:
        range: The extent.
        first: Address of the first byte that needs a checksum.
        end: Address of the byte after the last one; the same if none needs any.
    """

    range: _Range
    first: int
    end: int


class _Extents(NamedTuple):
    """The extents in a block group by their addresses: where each begins and ends, uint64."""

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]


def check_logs(
    fs: FileSystem,
    source: DiskSource,
    blocks: BlockTable,
    block_groups: dict[int, BlockGroup],
    checked: Checked,
) -> None:
    """Check what the log trees use, if there are any.

    Args:
        fs: The filesystem.
        source: Its source.
        blocks: The blocks of all log trees.
        block_groups: All block groups by their addresses.
        checked: Where the findings go.
    """
    if source.is_earlier_state:
        checked.skipped = "what is read is an earlier state than the log trees are of"
        return
    roots = list(fs.log_trees())
    checked.counts = {"log_trees": len(roots), "blocks": len(blocks.vaddr)}
    checked.summary = (
        f"{counted(len(roots), 'log tree')} of {counted(len(blocks.vaddr), 'block')}"
        if source.superblock.log_root
        else "none"
    )
    if not source.superblock.log_root:
        return
    check = _Check(fs, source, block_groups, checked)
    for root in roots:
        check.tree(root)
    check.places(blocks)
    if {lost.tree for lost in source.log.lost} & _NEEDED:
        checked.skipped = "not checked where not all can be read"


class _Check:
    """Checks log trees. See check_logs()."""

    def __init__(
        self,
        fs: FileSystem,
        source: DiskSource,
        block_groups: dict[int, BlockGroup],
        checked: Checked,
    ) -> None:
        self._fs = fs
        self._source = source
        self._groups = block_groups
        self._checked = checked
        self._pieces: list[_Piece] = []
        # Where there are checksums in log trees, as addresses of first bytes and of ends.
        self._sums: list[tuple[int, int]] = []

    # Reading.

    def tree(self, root: RootItem) -> None:
        """Take what is wanted of a log tree, and check what concerns no other item."""
        tree = root.key.offset
        self._subvolume(tree, root)
        has_sums: dict[int, bool] = {}
        for item in self._fs.search_root(root):
            if isinstance(item, InodeItem):
                has_sums[item.objectid] = not item.flags & constants.INODE_NODATASUM
            elif isinstance(item, FileExtentItem):
                # An inode comes before its pieces. Without it, nothing is known of checksums.
                self._piece(tree, item, has_sums=has_sums.get(item.objectid, False))
            elif isinstance(item, DirLogItem):
                self._directory(tree, item)
            elif isinstance(item, ExtentCsumItem):
                sectors = len(item.sums) // self._source.superblock.checksum.size
                self._sums.append((item.vaddr, item.vaddr + sectors * self._fs.sectorsize))

    def _subvolume(self, tree: int, root: RootItem) -> None:
        """Check that there is the subvolume that a log tree is of."""
        first = Key(tree, constants.ROOT_ITEM_KEY, 0)
        last = Key(tree, constants.ROOT_ITEM_KEY, ULLONG_MAX)
        exists = any(True for _ in self._fs.search(constants.ROOT_TREE_OBJECTID, first, last))
        if not exists and not is_lost(self._source, constants.ROOT_TREE_OBJECTID, tree, tree + 1):
            self._checked.add("log-alone", f"log of tree {tree}", tree=_TREE, key=str(root.key))

    def _directory(self, tree: int, item: DirLogItem) -> None:
        """Check a range of names that a log tree has all of."""
        if item.end < item.start:
            self._checked.add(
                "log-directory",
                f"log of tree {tree}",
                tree=_TREE,
                key=str(item.key),
                found=f"up to {item.end}",
                expected=f"{item.start} at least",
            )

    def _piece(self, tree: int, item: FileExtentItem, *, has_sums: bool) -> None:
        if item.type == constants.FILE_EXTENT_INLINE or not item.disk_bytenr:
            return
        what = f"inode {item.objectid} in the log of tree {tree}"
        extent = _Range(item.disk_bytenr, item.disk_num_bytes, is_data=True, what=what)
        first, end = extent.vaddr, extent.end
        if item.compression == constants.COMPRESS_NONE:
            first += item.offset
            end = first + item.num_bytes
        if item.type != constants.FILE_EXTENT_REG or not has_sums:
            end = first
        self._pieces.append(_Piece(extent, first, end))

    # Comparing.

    def places(self, blocks: BlockTable) -> None:
        """Check where the blocks of log trees and the extents of data are."""
        nodesize = self._fs.nodesize
        ranges = [
            _Range(vaddr, nodesize, is_data=False, what="block of a log tree")
            for vaddr in np.unique(blocks.vaddr).tolist()
        ]
        # Several pieces of files can be in the same extent.
        ranges += {piece.range[:2]: piece.range for piece in self._pieces}.values()
        new = []
        for group, inside in self._by_group(sorted(ranges)):
            if is_lost(self._source, _EXTENTS, group.vaddr, group.vaddr + group.length):
                continue
            extents = self._extents(group)
            new += [found for found in inside if self._is_new(found, extents)]
        self._overlaps(new)
        self._checksums({found[:2] for found in new})

    def _by_group(self, ranges: list[_Range]) -> Iterator[tuple[BlockGroup, list[_Range]]]:
        """Yield block groups, and which ranges lie in each; report those that lie in none."""
        found: dict[int, list[_Range]] = defaultdict(list)
        starts = sorted(self._groups)
        for one in ranges:
            index = bisect_right(starts, one.vaddr) - 1
            group = self._groups[starts[index]] if index >= 0 else None
            if group is None or one.end > group.vaddr + group.length:
                self._add_outside(one, "in no block group")
            elif not group.flags & (_DATA if one.is_data else _METADATA):
                self._add_outside(one, f"in a block group of {block_group_flags_str(group.flags)}")
            else:
                found[group.vaddr].append(one)
        for start, inside in found.items():
            yield self._groups[start], inside

    def _add_outside(self, one: _Range, where: str) -> None:
        source = self._source
        if any(is_lost(source, tree, 0, KEY_MAX) for tree in _OF_BLOCK_GROUPS):
            return
        self._add("log-outside", one, found=where)

    def _extents(self, group: BlockGroup) -> _Extents:
        """Return all extents in a block group."""
        first, last = Key(group.vaddr, 0, 0), Key(group.vaddr + group.length - 1, 255, ULLONG_MAX)
        starts, ends = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
        for batch in self._fs.batches(_EXTENTS, first, last):
            chosen = batch.select(np.isin(batch.type, _EXTENT_ITEMS))
            is_skinny = chosen.type == constants.METADATA_ITEM_KEY
            length = np.where(is_skinny, np.uint64(self._fs.nodesize), chosen.offset)
            starts.append(chosen.objectid)
            ends.append(chosen.objectid + length)
        return _Extents(np.concatenate(starts), np.concatenate(ends))

    def _is_new(self, one: _Range, extents: _Extents) -> bool:
        """Return whether a range is not in use at the last commit; report if half of it is."""
        vaddr, end = np.uint64(one.vaddr), np.uint64(one.end)
        index = int(np.searchsorted(extents.end, vaddr, "right"))
        if index == len(extents.start) or extents.start[index] >= end:
            return True
        found = int(extents.start[index]), int(extents.end[index])
        if not one.is_data or found != (one.vaddr, one.end):
            self._add("log-in-use", one, found=f"an extent from {found[0]} to {found[1]}")
        return False

    def _overlaps(self, new: list[_Range]) -> None:
        """Check that nothing that log trees have added is where something else of theirs is."""
        end, what = 0, ""
        for one in sorted(new):
            if one.vaddr < end:
                self._add("log-overlaps", one, found=f"{what} up to {end}")
            end, what = max((end, what), (one.end, one.what))

    def _checksums(self, new: set[tuple[int, ...]]) -> None:
        """Check that log trees have the checksums of the data that they have added."""
        if any(lost.tree == _TREE for lost in self._source.log.lost):
            return
        sums = list(_joined(sorted(self._sums)))
        starts = [start for start, _ in sums]
        for piece in self._pieces:
            if piece.range[:2] not in new or piece.first == piece.end:
                continue
            index = bisect_right(starts, piece.first) - 1
            if index < 0 or sums[index][1] < piece.end:
                expected = f"checksums of {piece.first} to {piece.end}"
                self._add("log-checksum", piece.range, expected=expected)

    def _add(self, kind: str, one: _Range, **place: Any) -> None:
        message = f"{one.what}, {one.length} bytes at {one.vaddr}"
        self._checked.add(kind, message, tree=_TREE, vaddr=one.vaddr, **place)


def _joined(ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield sorted ranges, those that touch as one."""
    start = end = -1
    for first, last in ranges:
        if first > end:
            if end >= 0:
                yield start, end
            start = first
        end = max(end, last)
    if end >= 0:
        yield start, end
