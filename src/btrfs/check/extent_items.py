"""Items of the extent tree as columns: the extents, and their back references.

A back reference is stored inside the item of its extent or, where these became too many, as an item
of its own behind it. Here each becomes a row. Nearly all extents have one; the first ones of all
extents are read at once, then the second ones of those that have two, and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.referrers import Referrers
from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.columns import take
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.extent import ExtentItem, TreeBlockInfo
from btrfs.ondisk.key import Key

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = [
    "NO_LEVEL",
    "Extents",
    "InlineBackrefs",
    "backrefs_between",
    "extents_of",
    "inline_backrefs",
    "joined_extents",
    "keyed_backrefs",
    "no_extents",
]

NO_LEVEL = 0xFF
"""Level of extents that are no tree blocks, or do not tell theirs."""

_ITEMS = (constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY)
_KEYED = (
    constants.TREE_BLOCK_REF_KEY,
    constants.SHARED_BLOCK_REF_KEY,
    constants.EXTENT_DATA_REF_KEY,
    constants.SHARED_DATA_REF_KEY,
)
# struct btrfs_extent_item
_EXTENT_DTYPE = np.dtype([("refs", "<u8"), ("generation", "<u8"), ("flags", "<u8")])
# struct btrfs_extent_data_ref, without its count
_DATA_REF_DTYPE = np.dtype([("root", "<u8"), ("objectid", "<u8"), ("offset", "<u8")])
_LEVEL_AT = ExtentItem.struct_size + 17
_FULL_BACKREF = np.uint64(constants.BLOCK_FLAG_FULL_BACKREF)
_DATA = np.uint64(constants.EXTENT_FLAG_DATA)
_TREE_BLOCK = np.uint64(constants.EXTENT_FLAG_TREE_BLOCK)
_KINDS = _DATA | _TREE_BLOCK

# By the type of an inline reference: its bytes, and where in them the number of references is that
# it stands for. Some stand for one always, and the owner of simple quotas for none.
_SIZES = np.zeros(256, np.int64)
_COUNT_AT = np.zeros(256, np.int64)
_SIZES[
    [
        constants.TREE_BLOCK_REF_KEY,
        constants.SHARED_BLOCK_REF_KEY,
        constants.EXTENT_OWNER_REF_KEY,
    ]
] = 9
_SIZES[constants.EXTENT_DATA_REF_KEY] = 29
_COUNT_AT[constants.EXTENT_DATA_REF_KEY] = 25
_SIZES[constants.SHARED_DATA_REF_KEY] = 13
_COUNT_AT[constants.SHARED_DATA_REF_KEY] = 9


class Extents(NamedTuple):
    """Extents in the order of their addresses; an entry per extent in each array.

    Attributes:
        item: Index of the item in its batch.
        vaddr: Virtual addresses, uint64.
        length: Bytes, uint64.
        refs: How many references they have, as they say, uint64.
        generation: Generations, uint64.
        flags: Flags, uint64.
        is_block: Whether they are tree blocks.
        level: Levels of tree blocks, uint8.
    """

    item: NDArray[np.intp]
    vaddr: NDArray[np.uint64]
    length: NDArray[np.uint64]
    refs: NDArray[np.uint64]
    generation: NDArray[np.uint64]
    flags: NDArray[np.uint64]
    is_block: NDArray[np.bool_]
    level: NDArray[np.uint8]

    @property
    def end(self) -> NDArray[np.uint64]:
        """Virtual addresses of the first bytes after them."""
        return self.vaddr + self.length

    @property
    def has_kind(self) -> NDArray[np.bool_]:
        """Which are either data or tree blocks, as they must be."""
        kind = self.flags & _KINDS
        return np.asarray((kind == _DATA) | (kind == _TREE_BLOCK))

    @property
    def is_full_backref(self) -> NDArray[np.bool_]:
        """Which are tree blocks whose references name them, not their tree."""
        return np.asarray(self.is_block & ((self.flags & _FULL_BACKREF) != 0))

    def select(self, chosen: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Extents:
        """Return those that a mask, an array of indexes or a slice chooses."""
        columns: Any = (column[chosen] for column in self)
        return Extents(*columns)


def no_extents() -> Extents:
    """Return a table without extents."""
    columns: Any = [np.empty(0, np.uint64) for _ in Extents._fields]
    none = Extents(*columns)
    return none._replace(
        item=np.empty(0, np.intp), is_block=np.empty(0, np.bool_), level=np.empty(0, np.uint8)
    )


def extents_of(batch: ItemBatch, nodesize: int) -> Extents:
    """Return the extents among items; those whose items are too short have zeros.

    Args:
        batch: Items of the extent tree.
        nodesize: Bytes of a tree block.
    """
    is_skinny = batch.type == constants.METADATA_ITEM_KEY
    index = np.flatnonzero(is_skinny | (batch.type == constants.EXTENT_ITEM_KEY))
    is_skinny, size, at = is_skinny[index], batch.size[index], batch.body[index]
    is_short = size < ExtentItem.struct_size
    at[is_short] = 0
    structs = take(batch.buffer, _EXTENT_DTYPE, at)
    refs, generation, flags = (
        np.ascontiguousarray(structs[name]) for name in ("refs", "generation", "flags")
    )
    for column in (refs, generation, flags):
        column[is_short] = 0
    is_block = is_skinny | (flags & _KINDS == _TREE_BLOCK)
    length = np.where(is_skinny, np.uint64(nodesize), batch.offset[index])
    level = np.full(len(index), NO_LEVEL, np.uint8)
    level[is_skinny] = np.minimum(batch.offset[index[is_skinny]], NO_LEVEL - 1).astype(np.uint8)
    has_info = is_block & ~is_skinny & (size > _LEVEL_AT)
    level[has_info] = take(batch.buffer, "u1", at[has_info] + _LEVEL_AT)
    return Extents(
        *(index, batch.objectid[index], length, refs, generation, flags, is_block, level)
    )


def joined_extents(one: Extents, other: Extents) -> Extents:
    """Return the extents of two tables one after the other."""
    pairs: Any = zip(one, other, strict=True)
    columns: Any = map(np.concatenate, pairs)
    return Extents(*columns)


class InlineBackrefs(NamedTuple):
    """Back references inside the items of extents.

    Attributes:
        rows: The back references, the first ones of all extents first.
        extent: Of each, the index of its extent.
        counted: How many references those of each extent stand for, uint64.
        is_whole: Of each extent, whether all of its body could be understood.
        owners: Index of the extent of each owner of simple quotas, which is no reference.
        owner_is_first: Whether the owner comes before all references.
    """

    rows: Referrers
    extent: NDArray[np.intp]
    counted: NDArray[np.uint64]
    is_whole: NDArray[np.bool_]
    owners: NDArray[np.intp]
    owner_is_first: NDArray[np.bool_]


def inline_backrefs(batch: ItemBatch, extents: Extents) -> InlineBackrefs:
    """Return the back references inside the items of extents.

    Args:
        batch: The items.
        extents: The extents among them.
    """
    begin, size = batch.body[extents.item], batch.size[extents.item].astype(np.int64)
    is_skinny = batch.type[extents.item] == constants.METADATA_ITEM_KEY
    has_info = extents.is_block & ~is_skinny
    first = ExtentItem.struct_size + has_info * np.int64(TreeBlockInfo.struct_size)
    at = first.copy()
    is_whole = at <= size
    counted = np.zeros(len(begin), np.uint64)
    parts = [_Stored(*_NOTHING_STORED)]
    left = np.flatnonzero(at < size)
    while len(left):
        here = begin[left] + at[left]
        kind = take(batch.buffer, "u1", here)
        length = _SIZES[kind]
        fits = (length > 0) & (at[left] + length <= size[left])
        if not fits.all():
            is_whole[left[~fits]] = False
            left, kind, here, length = left[fits], kind[fits], here[fits], length[fits]
        count = _counts(batch, kind, here)
        counted[left] += count
        at[left] += length
        parts.append(_Stored(left, kind, here + 1, count))
        left = left[at[left] < size[left]]
    columns: Any = (np.concatenate(column) for column in list(zip(*parts, strict=True))[:-1])
    stored = _Stored(*columns)
    is_owner = stored.kind == constants.EXTENT_OWNER_REF_KEY
    owners, owner_at = stored.extent[is_owner], stored.at[is_owner]
    if len(owners):
        refs: Any = (column[~is_owner] for column in stored[:-1])
        stored = _Stored(*refs)
    rows = _rows(batch, extents, stored)
    is_first = owner_at - 1 == begin[owners] + first[owners]
    return InlineBackrefs(rows, stored.extent, counted, is_whole, owners, is_first)


def _counts(batch: ItemBatch, kind: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return how many references those stand for that begin at some places of the buffer."""
    count = np.ones(len(at), np.uint64)
    count[kind == constants.EXTENT_OWNER_REF_KEY] = 0
    where = _COUNT_AT[kind]
    several = where > 0
    count[several] = take(batch.buffer, "<u4", at[several] + where[several])
    return count


def keyed_backrefs(
    batch: ItemBatch, extents: Extents
) -> tuple[Referrers, NDArray[np.intp], NDArray[np.intp]]:
    """Return the back references that are items of their own.

    Args:
        batch: The items.
        extents: Extents in the order of their addresses: those among the items, and the one before.

    Returns:
        The back references; of each the index of its extent; and the indexes of the items that
        belong to no extent of their kind.
    """
    kind = batch.type
    is_ref = np.logical_or.reduce([kind == one for one in _KEYED])
    index = np.flatnonzero(is_ref & (batch.size >= _sizes_of_keyed()[kind]))
    vaddr = batch.objectid[index]
    extent = np.searchsorted(extents.vaddr, vaddr, "right") - 1
    is_known = extent >= 0
    is_known[is_known] = extents.vaddr[extent[is_known]] == vaddr[is_known]
    of_block = np.isin(kind[index], _KEYED[:2])
    is_known[is_known] = extents.is_block[extent[is_known]] == of_block[is_known]
    alone, index, extent = index[~is_known], index[is_known], extent[is_known]
    kind, at = batch.type[index], batch.body[index]
    count = np.ones(len(index), np.uint64)
    for one, where in ((constants.EXTENT_DATA_REF_KEY, 24), (constants.SHARED_DATA_REF_KEY, 0)):
        some = kind == one
        count[some] = take(batch.buffer, "<u4", at[some] + where)
    stored = _Stored(extent, kind, at, count, batch.offset[index])
    return _rows(batch, extents, stored), extent, alone


def _sizes_of_keyed() -> NDArray[np.uint32]:
    """Return by type how many bytes an item has at least that is a back reference."""
    sizes = np.zeros(256, np.uint32)
    sizes[constants.EXTENT_DATA_REF_KEY] = 28
    sizes[constants.SHARED_DATA_REF_KEY] = 4
    return sizes


class _Stored(NamedTuple):
    """Where back references are stored.

    Attributes:
        extent: Index of the extent of each.
        kind: Its type.
        at: Where in the buffer its numbers begin.
        uses: For how many references it stands.
        offset: The last parts of their keys, if they are items of their own.
    """

    extent: NDArray[np.intp]
    kind: NDArray[np.uint8]
    at: NDArray[np.int64]
    uses: NDArray[np.uint64]
    offset: NDArray[np.uint64] | None = None


_NOTHING_STORED = (
    np.empty(0, np.intp),
    np.empty(0, np.uint8),
    np.empty(0, np.int64),
    np.empty(0, np.uint64),
)


def _rows(batch: ItemBatch, extents: Extents, stored: _Stored) -> Referrers:
    """Return back references as rows."""
    extent, kind, at, count, offsets = stored
    is_data_ref = kind == constants.EXTENT_DATA_REF_KEY
    origin = np.zeros(len(at), np.uint64)
    objectid, offset = np.zeros_like(origin), np.zeros_like(origin)
    if offsets is None:
        origin[~is_data_ref] = take(batch.buffer, "<u8", at[~is_data_ref])
    else:
        origin[~is_data_ref] = offsets[~is_data_ref]
    refs = take(batch.buffer, _DATA_REF_DTYPE, at[is_data_ref])
    for column, name in ((origin, "root"), (objectid, "objectid"), (offset, "offset")):
        column[is_data_ref] = refs[name]
    return Referrers(
        *(extents.vaddr[extent], extents.length[extent], kind, origin, objectid, offset, count)
    )


def backrefs_between(
    fs: FileSystem, start: int, end: int
) -> Iterator[tuple[NDArray[np.uint64], Referrers]]:
    """Yield the extents that begin between two addresses, and their back references.

    Args:
        fs: The filesystem.
        start: The first address, in bytes.
        end: The first address that is not wanted.

    Yields:
        The addresses of some extents, uint64; and back references.
    """
    last: Extents | None = None
    first, end_key = Key(start, 0, 0), Key(end - 1, 255, ULLONG_MAX)
    try:
        for batch in fs.batches(constants.EXTENT_TREE_OBJECTID, first, end_key):
            extents = extents_of(batch, fs.nodesize)
            yield extents.vaddr, inline_backrefs(batch, extents).rows
            known = extents if last is None else joined_extents(last, extents)
            yield known.vaddr, keyed_backrefs(batch, known)[0]
            if len(known.vaddr):
                last = known.select(np.array([len(known.vaddr) - 1]))
    except TreeNotFoundError:
        return
