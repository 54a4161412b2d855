"""Extents and their back references, each by itself: see btrfs.check.extents for what joins them.

A back reference is part of the item of its extent, or an item of its own. What it says must be
right in both places. Only the inline ones have an order: of their types, and those of a type by
hash or number, the highest first. The kernel searches as if it were so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.check.items.base import Items, Mask, is_subvolume_number, is_wrong_inum
from btrfs.ondisk import constants
from btrfs.ondisk.items.extent import ExtentDataRef, ExtentItem, SharedDataRef
from btrfs.ondisk.name_hashes import data_ref_hashes

if TYPE_CHECKING:
    from btrfs.check.extent_items import Extents, InlineBackrefs
    from btrfs.check.referrers import Referrers

__all__ = [
    "check_block_refs",
    "check_data_refs",
    "check_extents",
    "check_inline_refs",
    "check_shared_data_refs",
]

_KINDS = constants.EXTENT_FLAG_DATA | constants.EXTENT_FLAG_TREE_BLOCK
_FLAGS = _KINDS | constants.BLOCK_FLAG_FULL_BACKREF
_OF_BLOCKS = (constants.TREE_BLOCK_REF_KEY, constants.SHARED_BLOCK_REF_KEY)
_SHARED = (constants.SHARED_BLOCK_REF_KEY, constants.SHARED_DATA_REF_KEY)

_MAX_COLLISIONS = 256
"""How far behind its hash a back reference can be, because others have the same hash."""


def check_extents(items: Items) -> None:
    """Check what the EXTENT_ITEM or METADATA_ITEM of the extent tree begin with."""
    is_skinny = bool(len(items)) and items.batch.type[0] == constants.METADATA_ITEM_KEY
    items.aligned(items.objectid, "address")
    items = items.at_least(ExtentItem.struct_size)
    flags = items.field(ExtentItem, "flags")
    items.known_bits(flags, _FLAGS, "flags")
    kind = flags & np.uint64(_KINDS)
    is_block = kind == constants.EXTENT_FLAG_TREE_BLOCK
    is_data = kind == constants.EXTENT_FLAG_DATA
    items.wrong(~(is_block | is_data), "neither data nor a tree block, or both")
    is_full = flags & np.uint64(constants.BLOCK_FLAG_FULL_BACKREF) != 0
    items.wrong(is_data & is_full, "data cannot have the flag FULL_BACKREF")
    items.wrong(items.field(ExtentItem, "refs") == 0, "an extent without references")
    items.not_future(items.field(ExtentItem, "generation"), "generation")
    if is_skinny:
        _check_skinny(items, is_data)
    else:
        _check_lengths(items, is_data, is_block)


def _check_skinny(items: Items, is_data: Mask) -> None:
    """Check extents of tree blocks whose keys have a level in the place of a length."""
    items.wrong(is_data, "data cannot have a METADATA_ITEM")
    if not items.fs.incompat_flags & constants.FEATURE_INCOMPAT_SKINNY_METADATA:
        items.wrong(np.ones(len(items), np.bool_), "there must be none without that feature")
    items.wrong(
        items.offset >= constants.MAX_LEVEL,
        "its level is too high",
        expected=f"below {constants.MAX_LEVEL}",
        found=items.offset,
    )


def _check_lengths(items: Items, is_data: Mask, is_block: Mask) -> None:
    length = items.offset
    items.wrong(
        is_block & (length != items.fs.nodesize),
        "its length is not that of a tree block",
        expected=items.fs.nodesize,
        found=length,
    )
    items.wrong(
        is_data & (items.odd(length) | (length == 0)),
        "its length cannot be that of data",
        expected=f"a multiple of {items.fs.sectorsize}",
        found=length,
    )
    end = items.objectid + length
    items.wrong(end < items.objectid, "it ends behind all addresses", found=length)


# Back references that are items of their own.


def check_block_refs(items: Items) -> None:
    """Check the TREE_BLOCK_REF or SHARED_BLOCK_REF of the extent tree: who refers to a block."""
    items.aligned(items.objectid, "address")
    items.sized(0)
    if len(items) and items.batch.type[0] == constants.SHARED_BLOCK_REF_KEY:
        _check_parents(items, items.offset)
    else:
        _check_trees(items, items.offset)


def check_shared_data_refs(items: Items) -> None:
    """Check the SHARED_DATA_REF of the extent tree: leaves that refer to data."""
    items.aligned(items.objectid, "address")
    _check_parents(items, items.offset)
    items = items.sized(SharedDataRef.struct_size)
    _check_counts(items, items.field(SharedDataRef, "count"))


def check_data_refs(items: Items) -> None:
    """Check the EXTENT_DATA_REF of the extent tree: files that refer to data."""
    items.aligned(items.objectid, "address")
    items = items.sized(ExtentDataRef.struct_size)
    root, objectid, offset = (
        np.ascontiguousarray(items.field(ExtentDataRef, name))
        for name in ("root", "objectid", "offset")
    )
    _check_files(items, root, objectid, offset)
    _check_counts(items, items.field(ExtentDataRef, "count"))
    expected = data_ref_hashes(root, objectid, offset)
    items.wrong(
        items.offset - expected >= np.uint64(_MAX_COLLISIONS),
        "it is not stored under its hash",
        expected=expected,
        found=items.offset,
    )


# Back references inside the items of extents.


def check_inline_refs(items: Items, extents: Extents, inline: InlineBackrefs) -> None:
    """Check the back references inside of EXTENT_ITEM and METADATA_ITEM.

    Args:
        items: Items of the extent tree, of any types.
        extents: The extents among them.
        inline: Their back references.
    """
    right = extents.has_kind
    body_is_wrong = ~inline.is_whole & right
    rows = extents.item
    items.wrong(body_is_wrong, "its references are not whole, or of an unknown kind", rows=rows)
    _check_owners(items, extents, inline)
    refs, extent = inline.rows, inline.extent
    item = extents.item[extent]
    of_block = (refs.kind == _OF_BLOCKS[0]) | (refs.kind == _OF_BLOCKS[1])
    items.wrong(
        (of_block != extents.is_block[extent]) & right[extent],
        "data has a reference for tree blocks, or a tree block one for data",
        rows=item,
    )
    _check_rows(items, refs, item)
    _check_order(items, refs, extent, item)


def _check_rows(items: Items, refs: Referrers, item: NDArray[np.intp]) -> None:
    """Check what back references say; those of one kind at a time."""
    for kind in (*_OF_BLOCKS, constants.EXTENT_DATA_REF_KEY, constants.SHARED_DATA_REF_KEY):
        chosen = np.flatnonzero(refs.kind == kind)
        if not len(chosen):
            continue
        some, rows = refs.select(chosen), item[chosen]
        if kind in _SHARED:
            _check_parents(items, some.origin, rows)
        elif kind == constants.TREE_BLOCK_REF_KEY:
            _check_trees(items, some.origin, rows)
        else:
            _check_files(items, some.origin, some.objectid, some.offset, rows)
        _check_counts(items, some.uses, rows)


def _check_owners(items: Items, extents: Extents, inline: InlineBackrefs) -> None:
    """Check the EXTENT_OWNER_REF: data has one at most, before all others, with simple quotas."""
    owners = inline.owners
    if not len(owners):
        return
    rows = extents.item[owners]
    if not items.fs.incompat_flags & constants.FEATURE_INCOMPAT_SIMPLE_QUOTA:
        everywhere = np.ones(len(owners), np.bool_)
        items.wrong(everywhere, "names its owner, without simple quotas", rows=rows)
    items.wrong(extents.is_block[owners], "a tree block that names its owner", rows=rows)
    items.wrong(~inline.owner_is_first, "its owner does not come first", rows=rows)


def _check_order(
    items: Items, refs: Referrers, extent: NDArray[np.intp], item: NDArray[np.intp]
) -> None:
    """Check the order of several back references in the same item."""
    # The first ones of all extents come first, then the second ones: most have only one.
    counts = np.bincount(extent)
    several = np.flatnonzero(counts[extent] > 1) if len(extent) else extent
    if not len(several):
        return
    order = several[np.argsort(extent[several], kind="stable")]
    refs, extent, item = refs.select(order), extent[order], item[order]
    sequence = refs.origin.copy()
    is_file = refs.kind == constants.EXTENT_DATA_REF_KEY
    sequence[is_file] = data_ref_hashes(
        *(column[is_file] for column in (refs.origin, refs.objectid, refs.offset))
    )
    follows = extent[1:] == extent[:-1]
    same_kind = follows & (refs.kind[1:] == refs.kind[:-1])
    wrong = follows & (refs.kind[1:] < refs.kind[:-1])
    wrong |= same_kind & (sequence[1:] > sequence[:-1])
    items.wrong(wrong, "its references are not in order", rows=item[1:])
    columns = (refs.origin, refs.objectid, refs.offset)
    same = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    items.wrong(same_kind & same, "it has the same reference twice", rows=item[1:])


# What is the same in both places.


def _check_parents(
    items: Items, parent: NDArray[np.uint64], rows: NDArray[np.intp] | None = None
) -> None:
    items.wrong(
        items.odd(parent) | (parent == 0),
        "a reference of a block at an address that no block can have",
        found=parent,
        rows=rows,
    )


def _check_trees(
    items: Items, tree: NDArray[np.uint64], rows: NDArray[np.intp] | None = None
) -> None:
    items.wrong(tree == 0, "a reference of no tree", rows=rows)


def _check_files(
    items: Items,
    tree: NDArray[np.uint64],
    inum: NDArray[np.uint64],
    offset: NDArray[np.uint64],
    rows: NDArray[np.intp] | None = None,
) -> None:
    has_files = is_subvolume_number(tree)
    # The root tree has the files of the space cache, the other one what a balance moves.
    has_files |= (tree == constants.ROOT_TREE_OBJECTID) | (
        tree == np.uint64(constants.DATA_RELOC_TREE_OBJECTID)
    )
    items.wrong(~has_files, "a reference of a tree without files", found=tree, rows=rows)
    items.wrong(is_wrong_inum(inum), "a reference of no file", found=inum, rows=rows)
    # What is before the used part of an extent may come before the file: a number below zero.
    items.wrong(
        items.odd(offset),
        f"a reference whose offset is not a multiple of {items.fs.sectorsize}",
        found=offset,
        rows=rows,
    )


def _check_counts(
    items: Items, count: NDArray[np.generic], rows: NDArray[np.intp] | None = None
) -> None:
    items.wrong(np.asarray(count == 0), "a reference that is counted 0 times", rows=rows)
