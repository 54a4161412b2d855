"""The extent tree: extents against block groups, references, tree blocks and free space.

The extent tree can be as large as all other trees together, so it is read chunk by chunk: what is
in memory is never more than the extents of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.references import counted_references
from btrfs.check.report import Checked
from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX, ULLONG_MAX
from btrfs.ondisk.items.chunk import BlockGroupItem
from btrfs.ondisk.items.extent import ExtentItem
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import block_group_flags_str, counted
from btrfs.source.lookup import block_group_tree

if TYPE_CHECKING:
    from btrfs.check.trees import Blocks
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch
    from btrfs.source.disk.source import DiskSource

__all__ = ["BlockGroup", "ExtentCheck", "Extents", "Range", "is_lost", "ranges"]

_TREE = constants.EXTENT_TREE_OBJECTID
_DATA_REFS = (constants.EXTENT_DATA_REF_KEY, constants.SHARED_DATA_REF_KEY)
_BLOCK_REFS = (constants.TREE_BLOCK_REF_KEY, constants.SHARED_BLOCK_REF_KEY)
_ITEMS = (constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY)
_LEVEL_AT = ExtentItem.struct_size + 17
_NO_LEVEL = 0xFF
_UNKNOWN = np.uint64(ULLONG_MAX)


class Range(NamedTuple):
    """A range of virtual addresses: a chunk, or what lies between two of them.

    Attributes:
        start: Where it begins, in bytes.
        end: Where the next one begins.
        is_chunk: Whether it is a chunk.
    """

    start: int
    end: int
    is_chunk: bool


class BlockGroup(NamedTuple):
    """What a block group item says.

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes.
        used: Bytes that extents use.
        flags: Type and profile.
    """

    vaddr: int
    length: int
    used: int
    flags: int


class Extents(NamedTuple):
    """Extents in the order of their addresses; an entry per extent in each array.

    Attributes:
        vaddr: Virtual addresses, uint64.
        length: Bytes, uint64.
        refs: How many references they have, as they say, uint64.
        counted: How many there are, uint64.
        generation: Generations, uint64.
        is_block: Whether they are tree blocks.
        level: Levels of tree blocks, uint8.
    """

    vaddr: NDArray[np.uint64]
    length: NDArray[np.uint64]
    refs: NDArray[np.uint64]
    counted: NDArray[np.uint64]
    generation: NDArray[np.uint64]
    is_block: NDArray[np.bool_]
    level: NDArray[np.uint8]

    @property
    def end(self) -> NDArray[np.uint64]:
        """Virtual addresses of the first bytes after them."""
        return self.vaddr + self.length


class _References(NamedTuple):
    """References that are items of their own."""

    vaddr: NDArray[np.uint64]
    number: NDArray[np.uint64]
    is_block: NDArray[np.bool_]


def ranges(fs: FileSystem) -> list[Range]:
    """Return all chunks and all that lies between them, in the order of addresses."""
    found = []
    end = 0
    for chunk in fs.chunks():
        # Chunks that overlap are reported where the filesystem is opened.
        if chunk.vaddr < end:
            continue
        if chunk.vaddr > end:
            found.append(Range(end, chunk.vaddr, is_chunk=False))
        end = chunk.vaddr + chunk.length
        found.append(Range(chunk.vaddr, end, is_chunk=True))
    return [*found, Range(end, ULLONG_MAX + 1, is_chunk=False)]


def is_lost(source: DiskSource, tree: int, start: int, end: int) -> bool:
    """Return whether items of a tree could not be read, under keys that begin with an address."""
    return any(
        lost.tree == tree and lost.min_key.objectid < end and lost.max_key.objectid >= start
        for lost in source.log.lost
    )


class ExtentCheck:
    """Checks the extent tree, one range after the other.

    Args:
        fs: The filesystem.
        source: Its source.
        blocks: The blocks of all trees but the log trees.
        checked: Where the findings go.

    Attributes:
        block_groups: The block groups that were met, by their addresses.
    """

    def __init__(
        self, fs: FileSystem, source: DiskSource, blocks: Blocks, checked: Checked
    ) -> None:
        self._fs = fs
        self._source = source
        self._blocks = blocks
        self._checked = checked
        self._seen_all = not source.log.lost
        self._count = 0
        self._unknown = 0
        self.block_groups = dict(self._stored_apart())

    def _stored_apart(self) -> Iterator[tuple[int, BlockGroup]]:
        """Yield the block groups, if they have a tree of their own."""
        tree = block_group_tree(self._source)
        if tree == _TREE:
            return
        try:
            for batch in self._fs.batches(tree):
                yield from _block_groups(batch)
        except TreeNotFoundError:
            self._checked.skipped = "there is no tree of block groups"

    def check(self, place: Range) -> Extents | None:
        """Check a range, and return its extents; None if not all of them could be read."""
        extents = self._read(place)
        self._count += len(extents.vaddr)
        if is_lost(self._source, _TREE, place.start, place.end):
            self._unknown += 1
            return None
        group = self.block_groups.get(place.start)
        self._check_places(extents, place, group)
        # The chunk tree is the current one, whatever else is read.
        is_system = group is not None and group.flags & constants.BLOCK_GROUP_SYSTEM
        if not (is_system and self._source.is_earlier_state):
            self._check_blocks(extents, place)
        wrong = (extents.refs != extents.counted) & (extents.refs != _UNKNOWN)
        for index in np.flatnonzero(wrong).tolist():
            self._add(
                "extent-references",
                extents,
                index,
                f"{extents.refs[index]} according to the item, but there are"
                f" {extents.counted[index]}",
            )
        return extents

    def finish(self) -> None:
        """Check the sum of all, and fill in the summary."""
        used = sum(group.used for group in self.block_groups.values())
        expected = self._source.superblock.bytes_used
        tree = block_group_tree(self._source)
        # The superblock is of the last commit.
        is_comparable = not self._source.is_earlier_state
        if used != expected and is_comparable and not is_lost(self._source, tree, 0, KEY_MAX):
            self._checked.add(
                "bytes-used", f"{expected} in the superblock, {used} in the block groups"
            )
        groups = counted(len(self.block_groups), "block group")
        self._checked.summary = f"{counted(self._count, 'extent')} in {groups}"
        self._checked.counts = {"extents": self._count, "block_groups": len(self.block_groups)}
        if self._unknown:
            self._checked.skipped = (
                f"not checked where not all can be read: {counted(self._unknown, 'range')}"
            )

    def _add(self, kind: str, extents: Extents, index: int, why: str) -> None:
        vaddr, length = int(extents.vaddr[index]), int(extents.length[index])
        message = f"extent at {vaddr}, {length} bytes{': ' if why else ''}{why}"
        self._checked.add(kind, message, tree=_TREE, vaddr=vaddr)

    # Reading.

    def _read(self, place: Range) -> Extents:
        """Return the extents that begin in a range, and keep its block groups."""
        parts: list[Extents] = []
        references: list[_References] = []
        first = Key(place.start, 0, 0)
        last = Key(place.end - 1, 255, ULLONG_MAX)
        try:
            for batch in self._fs.batches(_TREE, first, last):
                self.block_groups.update(_block_groups(batch))
                parts.append(self._extents(batch))
                references.append(_references(batch))
        except TreeNotFoundError:
            self._checked.skipped = "there is no extent tree"
        extents = Extents(*map(np.concatenate, zip(_no_extents(), *parts, strict=True)))
        self._count_references(extents, references)
        return extents

    def _extents(self, batch: ItemBatch) -> Extents:
        """Return the extents in a batch; report those whose items are damaged."""
        chosen = batch.select(np.isin(batch.type, _ITEMS))
        long_enough = chosen.size >= ExtentItem.struct_size
        self._damaged(chosen, ~long_enough, "shorter than an extent item")
        chosen = chosen.select(long_enough)
        refs, generation, flags = (chosen.gather("<u8", at) for at in (0, 8, 16))
        kind = flags & np.uint64(constants.EXTENT_FLAG_TREE_BLOCK | constants.EXTENT_FLAG_DATA)
        is_skinny = chosen.type == constants.METADATA_ITEM_KEY
        is_block = is_skinny | (kind == constants.EXTENT_FLAG_TREE_BLOCK)
        wrong = ~is_block & (kind != constants.EXTENT_FLAG_DATA)
        wrong |= is_skinny & (kind != constants.EXTENT_FLAG_TREE_BLOCK)
        self._damaged(chosen, wrong, "neither data nor a tree block, or both")
        has_info = is_block & ~is_skinny
        count, whole = counted_references(chosen, has_info)
        self._damaged(chosen, ~whole, "its references are not whole, or of an unknown kind")
        nodesize = np.uint64(self._fs.nodesize)
        length = np.where(is_skinny, nodesize, chosen.offset)
        unaligned = (chosen.objectid | length) & np.uint64(self._fs.sectorsize - 1) != 0
        unaligned |= is_block & (length != nodesize)
        self._damaged(chosen, unaligned, "an address or a length that no extent can have")
        level = np.full(len(chosen), _NO_LEVEL, np.uint8)
        level[is_skinny] = chosen.offset[is_skinny].astype(np.uint8)
        has_info &= chosen.size > _LEVEL_AT
        level[has_info] = chosen.select(has_info).gather("u1", _LEVEL_AT)
        # An item that cannot be decoded is reported once.
        refs[~whole] = _UNKNOWN
        return Extents(chosen.objectid, length, refs, count, generation, is_block, level)

    def _damaged(self, batch: ItemBatch, wrong: NDArray[np.bool_], why: str) -> None:
        for index in np.flatnonzero(wrong).tolist():
            key = batch.key(index)
            self._checked.add(
                "item-damaged",
                f"{key} in tree {_TREE}: {why}",
                tree=_TREE,
                vaddr=key.objectid,
            )

    def _count_references(self, extents: Extents, references: list[_References]) -> None:
        """Add the references that are items of their own to those that are counted."""
        for found in references:
            index = np.searchsorted(extents.vaddr, found.vaddr)
            known = index < len(extents.vaddr)
            known[known] = extents.vaddr[index[known]] == found.vaddr[known]
            known[known] = extents.is_block[index[known]] == found.is_block[known]
            np.add.at(extents.counted, index[known], found.number[known])
            for vaddr in np.unique(found.vaddr[~known]).tolist():
                self._checked.add("reference-alone", f"extent at {vaddr}", tree=_TREE, vaddr=vaddr)

    # Places.

    def _check_places(self, extents: Extents, place: Range, group: BlockGroup | None) -> None:
        """Check where the extents of a range are, and how much they use."""
        if not place.is_chunk:
            if is_lost(self._source, constants.CHUNK_TREE_OBJECTID, 0, KEY_MAX):
                return
            for index in range(len(extents.vaddr)):
                self._add("extent-outside", extents, index, "")
            return
        if len(extents.vaddr) and int(extents.end[-1]) > place.end:
            last = len(extents.vaddr) - 1
            self._add("extent-outside", extents, last, f"a chunk ends at {place.end}")
        overlapping = np.flatnonzero(extents.end[:-1] > extents.vaddr[1:]) + 1
        for index in overlapping.tolist():
            end = int(extents.end[index - 1])
            self._add("extent-overlaps", extents, index, f"the one before ends at {end}")
        if group is None:
            return
        self._check_types(extents, group)
        used = int(extents.length.sum())
        if used != group.used:
            self._checked.add(
                "block-group-used",
                f"block group at {group.vaddr}: {group.used} according to the item, but extents"
                f" use {used}",
                vaddr=group.vaddr,
            )

    def _check_types(self, extents: Extents, group: BlockGroup) -> None:
        """Check that extents lie in a block group of their type."""
        for_blocks = constants.BLOCK_GROUP_METADATA | constants.BLOCK_GROUP_SYSTEM
        for flags, wrong in (
            (for_blocks, extents.is_block),
            (constants.BLOCK_GROUP_DATA, ~extents.is_block),
        ):
            if group.flags & flags:
                continue
            for index in np.flatnonzero(wrong).tolist():
                found = block_group_flags_str(group.flags)
                self._add("extent-type", extents, index, f"in a block group of {found}")

    # Tree blocks.

    def _check_blocks(self, extents: Extents, place: Range) -> None:
        """Check that tree blocks and the extents for them are the same."""
        limits = np.array([place.start, min(place.end, ULLONG_MAX)], np.uint64)
        first, end = np.searchsorted(self._blocks.vaddr, limits)
        vaddrs = self._blocks.vaddr[first:end]
        of_blocks = np.flatnonzero(extents.is_block)
        starts = extents.vaddr[of_blocks]
        position = np.searchsorted(starts, vaddrs)
        known = position < len(starts)
        known[known] = starts[position[known]] == vaddrs[known]
        for vaddr in np.unique(vaddrs[~known]).tolist():
            self._checked.add("block-without-extent", f"tree block at {vaddr}", vaddr=vaddr)
        index = of_blocks[position[known]]
        self._compare("level", extents, index, self._blocks.level[first:end][known])
        self._compare("generation", extents, index, self._blocks.generation[first:end][known])
        if self._seen_all:
            for unused in of_blocks[~np.isin(starts, vaddrs)].tolist():
                self._add("extent-without-block", extents, unused, "")

    def _compare(
        self, name: str, extents: Extents, index: NDArray[np.intp], expected: NDArray[np.generic]
    ) -> None:
        found = getattr(extents, name)[index]
        for wrong in np.flatnonzero(found != expected).tolist():
            why = f"{name} {found[wrong]}, but the block is of {name} {expected[wrong]}"
            self._add("block-differs", extents, int(index[wrong]), why)


def _block_groups(batch: ItemBatch) -> Iterator[tuple[int, BlockGroup]]:
    """Yield the block groups in a batch, with their addresses."""
    chosen = batch.of_type(constants.BLOCK_GROUP_ITEM_KEY)
    columns = chosen.select(chosen.size == BlockGroupItem.struct_size).columns(BlockGroupItem)
    names = ("vaddr", "length", "used", "flags")
    for row in zip(*(columns[name].tolist() for name in names), strict=True):
        yield row[0], BlockGroup(*row)


def _references(batch: ItemBatch) -> _References:
    """Return the references in a batch that are items of their own."""
    chosen = batch.select(np.isin(batch.type, (*_DATA_REFS, *_BLOCK_REFS)))
    count = np.ones(len(chosen), np.uint64)
    for key_type, at in (
        (constants.EXTENT_DATA_REF_KEY, 24),
        (constants.SHARED_DATA_REF_KEY, 0),
    ):
        some = (chosen.type == key_type) & (chosen.size >= at + 4)
        count[some] = chosen.select(some).gather("<u4", at)
    return _References(chosen.objectid, count, np.isin(chosen.type, _BLOCK_REFS))


def _no_extents() -> Extents:
    numbers = [np.empty(0, np.uint64) for _ in range(5)]
    return Extents(
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
        np.empty(0, np.bool_),
        np.empty(0, np.uint8),
    )
