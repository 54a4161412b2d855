"""What the extent tree says about an extent: where it is, what it is, and who refers to it.

An extent is referred to one step up. A data extent is used either by an inode of a tree, in leaves
that are that tree's own (EXTENT_DATA_REF), or by a leaf that is shared between trees
(SHARED_DATA_REF). A tree block is referred to by a tree that it is part of (TREE_BLOCK_REF) or by
the block above it (SHARED_BLOCK_REF). These references are inside the extent's item, or items of
their own after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from btrfs.errors import ItemNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.extent import (
    ExtentDataRef,
    ExtentItem,
    MetaDataItem,
    SharedBlockRef,
    SharedDataRef,
    TreeBlockRef,
)
from btrfs.ondisk.key import Key

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["ExtentRefs", "extent_at", "no_extent", "read_extent"]

# So many references of one extent are looked at.
_MAX_REFERENCES = 50_000

# How far before an address an extent can begin that the address lies in: what is allocated ahead is
# cut into pieces of that size (__btrfs_prealloc_file_range() in fs/btrfs/inode.c).
_MAX_EXTENT_SIZE = 256 << 20
_FIRST_REACH = 64 << 10

# The references inside the items of extents.
_REFERENCE_LISTS = ("tree_block_refs", "shared_block_refs", "extent_data_refs", "shared_data_refs")


class ExtentRefs(NamedTuple):
    """What the extent tree says about an extent.

    Attributes:
        vaddr: Virtual address.
        length: Bytes.
        generation: Generation that it was made in.
        is_data: Whether it is data, and not a tree block.
        level: Level of a tree block, else 0.
        trees: Trees that refer to a tree block.
        inodes: References of files to data.
        parents: Virtual addresses of the blocks that refer to it.
        complete: Whether these are all references.
    """

    vaddr: int
    length: int
    generation: int
    is_data: bool
    level: int
    trees: list[int]
    inodes: list[ExtentDataRef]
    parents: list[int]
    complete: bool


def extent_at(fs: FileSystem, vaddr: int) -> ExtentRefs:
    """Return the extent that an address lies in.

    Raises:
        ItemNotFoundError: There is none, as far as the extent tree can be read.
        CorruptError: A tree block or an item is damaged, unless that is to be skipped.
    """
    start = _last_start(fs, vaddr) if 0 <= vaddr <= ULLONG_MAX else None
    extent = None if start is None else read_extent(fs, start)
    if extent is None or vaddr >= extent.vaddr + extent.length:
        raise no_extent(vaddr)
    return extent


def no_extent(vaddr: int) -> ItemNotFoundError:
    """Return the error that says that no extent is at an address."""
    return ItemNotFoundError(f"No extent at vaddr {vaddr}")


def _last_start(fs: FileSystem, vaddr: int) -> int | None:
    """Return where the last extent begins that begins at an address or not too far before it."""
    end, reach = vaddr, _FIRST_REACH
    while end >= 0 and reach <= _MAX_EXTENT_SIZE:
        start = max(0, vaddr - reach)
        first = Key(start, 0, 0)
        last = Key(end, constants.METADATA_ITEM_KEY, ULLONG_MAX)
        found = None
        for batch in fs.batches(constants.EXTENT_TREE_OBJECTID, first, last):
            is_extent = batch.type == constants.EXTENT_ITEM_KEY
            is_extent |= batch.type == constants.METADATA_ITEM_KEY
            for begin in batch.objectid[is_extent][-1:].tolist():
                found = begin
        if found is not None:
            return int(found)
        # Where nothing begins for long, extents are large.
        end, reach = start - 1, reach * 4
    return None


def read_extent(fs: FileSystem, vaddr: int) -> ExtentRefs | None:
    """Return the extent that begins at an address, None if there is none that can be read."""
    first = Key(vaddr, constants.EXTENT_ITEM_KEY, 0)
    last = Key(vaddr, constants.SHARED_DATA_REF_KEY, ULLONG_MAX)
    found = fs.search(constants.EXTENT_TREE_OBJECTID, first, last)
    extent: ExtentRefs | None = None
    for count, item in enumerate(islice(found, _MAX_REFERENCES)):
        if isinstance(item, ExtentItem | MetaDataItem):
            extent = _begun(fs, item)
            for name in _REFERENCE_LISTS:
                _add_references(extent, getattr(item, name, ()))
        elif extent is not None:
            _add_references(extent, (item,))
        if extent is not None and count == _MAX_REFERENCES - 1:
            extent = extent._replace(complete=False)
    return extent


def _begun(fs: FileSystem, item: ExtentItem | MetaDataItem) -> ExtentRefs:
    """Return an extent without its references."""
    length, is_data, level = fs.nodesize, False, 0
    if isinstance(item, MetaDataItem):
        level = item.skinny_level
    elif item.flags & constants.EXTENT_FLAG_TREE_BLOCK:
        level = 0 if item.tree_block_info is None else item.tree_block_info.level
    else:
        length, is_data = item.length, True
    return ExtentRefs(item.vaddr, length, item.generation, is_data, level, [], [], [], True)


def _add_references(extent: ExtentRefs, refs: Iterable[object]) -> None:
    for ref in refs:
        if isinstance(ref, ExtentDataRef):
            extent.inodes.append(ref)
        elif isinstance(ref, SharedDataRef | SharedBlockRef):
            extent.parents.append(ref.parent)
        elif isinstance(ref, TreeBlockRef):
            extent.trees.append(ref.root)
