"""What the items of extents tell: how old an extent is, how often it is used, and whose it is.

An item counts the references to its extent, and has as many of them in it ("inline") as fit. One
names a tree, or a parent: a tree block above, which several trees may share. After a balance data
is known by parents only, however few trees there are, so whose an extent is then is asked of the
parents, and theirs. See struct btrfs_extent_inline_ref in the kernel's btrfs_tree.h and
fs/btrfs/backref.c.

All of it is done for many extents at once: the first reference of all of them, then the second of
those that have one, and so on. Items are not trusted further than they reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import take
from btrfs.ondisk.key import Key

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["SEVERAL", "UNKNOWN", "generations", "owning_trees", "reference_counts"]

Numbers = NDArray[np.uint64]
Indexes = NDArray[np.intp]

SEVERAL = (1 << 64) - 1
"""In place of the number of a tree: references of different trees."""

UNKNOWN = (1 << 64) - 2
"""In place of the number of a tree: nothing tells."""


def generations(batch: ItemBatch) -> NDArray[np.int64]:
    """Return the generations in which extents were made; 0 where an item is too short.

    Args:
        batch: EXTENT_ITEMs and METADATA_ITEMs.
    """
    return _field(batch, _GENERATION_AT)


def reference_counts(batch: ItemBatch) -> NDArray[np.int64]:
    """Return how many references there are to extents, in all; 0 where an item is too short.

    Args:
        batch: EXTENT_ITEMs and METADATA_ITEMs.
    """
    return _field(batch, _REFS_AT)


def owning_trees(fs: FileSystem, batch: ItemBatch) -> Numbers:
    """Return the number of the tree that each extent belongs to, SEVERAL or UNKNOWN.

    It is the one that all references in the item lead to, by parents or not: that other trees
    share a block which refers to it is not seen. References that found no place in the item are
    looked up only if it has none. Parents that cannot be found count as of another tree where there
    are other references. What simple quotas note, who wrote the extent first, is used where nothing
    else tells.

    Args:
        fs: The filesystem.
        batch: EXTENT_ITEMs and METADATA_ITEMs of its extent tree.

    Raises:
        CorruptError: It raises errors, and references cannot be read.
    """
    return _owners(fs, batch.objectid, _references(fs, batch), constants.MAX_LEVEL)


class _References(NamedTuple):
    """References to extents, an entry for each; in any order.

    Attributes:
        extent: Which extent it refers to, an index.
        kind: Its type.
        number: The tree or the virtual address of the parent that it names.
    """

    extent: Indexes
    kind: NDArray[np.uint8]
    number: Numbers

    def select(self, mask: NDArray[np.bool_]) -> _References:
        """Return those that a mask chooses."""
        if mask.all():
            return self
        return _References(self.extent[mask], self.kind[mask], self.number[mask])


def _owners(fs: FileSystem, vaddr: Numbers, found: _References, levels: int) -> Numbers:
    """Return the owners of the extents at vaddr.

    Args:
        fs: The filesystem.
        vaddr: Where the extents begin.
        found: References to them.
        levels: How many levels of tree blocks there can be above them.
    """
    noted = found.kind == constants.EXTENT_OWNER_REF_KEY
    shared = _is_shared(found.kind)
    named = found.select(~(noted | shared))
    trees = [named]
    unclear: Indexes = np.empty(0, np.intp)
    if shared.any():
        by_parent = _with_owners(fs, vaddr, found.select(shared), levels)
        clear = by_parent.number != UNKNOWN
        trees.append(by_parent.select(clear))
        unclear = by_parent.extent[~clear]
    owner = _common(len(vaddr), trees)
    owner[unclear[owner[unclear] != UNKNOWN]] = SEVERAL
    if noted.any():
        first_owner = _common(len(vaddr), [found.select(noted)])
        owner = np.where(owner == UNKNOWN, first_owner, owner)
    return owner


def _with_owners(fs: FileSystem, vaddr: Numbers, found: _References, levels: int) -> _References:
    """Return references of parents with the owners of the parents in place of their addresses."""
    parent, position = np.unique(found.number, return_inverse=True)
    owner = np.full(len(parent), UNKNOWN, np.uint64)
    if levels:
        owner = _owners(fs, parent, _references_to_blocks(fs, parent), levels - 1)
    number = owner[position]
    # The root of a tree that a balance makes, for as long as it runs, is its own parent.
    own = (found.kind == constants.SHARED_BLOCK_REF_KEY) & (found.number == vaddr[found.extent])
    number[own] = constants.TREE_RELOC_OBJECTID
    return found._replace(number=number)


def _common(count: int, parts: Iterable[_References]) -> Numbers:
    """Return the tree that all references to each of so many extents name."""
    lowest = np.full(count, constants.ULLONG_MAX, np.uint64)
    highest = np.zeros(count, np.uint64)
    for part in parts:
        np.minimum.at(lowest, part.extent, part.number)
        np.maximum.at(highest, part.extent, part.number)
    owner = np.where(lowest == highest, lowest, np.uint64(SEVERAL))
    owner[lowest > highest] = UNKNOWN
    return owner


def _references_to_blocks(fs: FileSystem, vaddrs: Numbers) -> _References:
    """Return references to tree blocks, at ascending addresses, as far as not too many are read."""
    parts: list[_References] = []
    count = 0
    for batch in _near(fs, vaddrs):
        position = np.minimum(np.searchsorted(vaddrs, batch.objectid), len(vaddrs) - 1)
        wanted = np.flatnonzero((vaddrs[position] == batch.objectid) & _is_extent(batch.type))
        found = _references(fs, batch.select(wanted))
        parts.append(found._replace(extent=position[wanted][found.extent]))
        count += len(found.extent)
        if count > _MOST_REFERENCES:
            break
    return _joined(parts)


def _near(fs: FileSystem, vaddrs: Numbers) -> Iterator[ItemBatch]:
    """Yield items of the extent tree, among them those at these ascending addresses."""
    last = np.flatnonzero(np.diff(vaddrs) > _NEAR)
    ranges = zip(
        vaddrs[np.append(0, last + 1)].tolist(),
        vaddrs[np.append(last, len(vaddrs) - 1)].tolist(),
        strict=True,
    )
    for begin, end in list(ranges)[:_MOST_LOOKUPS]:
        yield from fs.batches(
            constants.EXTENT_TREE_OBJECTID,
            Key(begin, constants.EXTENT_ITEM_KEY, 0),
            Key(end, constants.METADATA_ITEM_KEY, constants.ULLONG_MAX),
        )


def _references(fs: FileSystem, batch: ItemBatch) -> _References:
    """Return the references in items of extents, and those of their own where there are none."""
    inline = _joined(list(_inline(batch)))
    bare = batch.size >= _EXTENT_ITEM_SIZE
    bare[inline.extent[inline.kind != constants.EXTENT_OWNER_REF_KEY]] = False
    missing = np.flatnonzero(bare)[:_MOST_LOOKUPS]
    if not missing.size:
        return inline
    return _joined([inline, *(_separate(fs, batch, extent) for extent in missing.tolist())])


def _inline(batch: ItemBatch) -> Iterator[_References]:
    """Yield the first reference in each item, then the second of those that have two ..."""
    at = _first_at(batch)
    extent = np.flatnonzero(at < batch.size)
    while extent.size:
        begin = at[extent]
        kind = batch.buffer[batch.body[extent] + begin]
        end = begin + _SIZES[kind]
        whole = (end > begin) & (end <= batch.size[extent])
        if not whole.all():
            extent, kind, begin, end = extent[whole], kind[whole], begin[whole], end[whole]
        number = take(batch.buffer, "<u8", batch.body[extent] + begin + 1)
        yield _References(extent, kind, number)
        at[extent] = end
        extent = extent[end < batch.size[extent]]


def _first_at(batch: ItemBatch) -> NDArray[np.int64]:
    """Return where in each item its references begin, in bytes."""
    at = np.full(len(batch), _EXTENT_ITEM_SIZE, np.int64)
    old = np.flatnonzero(
        (batch.type == constants.EXTENT_ITEM_KEY) & (batch.size >= _EXTENT_ITEM_SIZE)
    )
    flags = take(batch.buffer, "<u8", batch.body[old] + _FLAGS_AT)
    at[old[flags & constants.EXTENT_FLAG_TREE_BLOCK != 0]] += _TREE_BLOCK_INFO_SIZE
    return at


def _separate(fs: FileSystem, batch: ItemBatch, extent: int) -> _References:
    """Return references to an extent that are items of their own, some thousand at most."""
    vaddr = int(batch.objectid[extent])
    first = Key(vaddr, constants.TREE_BLOCK_REF_KEY, 0)
    last = Key(vaddr, constants.SHARED_DATA_REF_KEY, constants.ULLONG_MAX)
    for items in fs.batches(constants.EXTENT_TREE_OBJECTID, first, last):
        by_file = items.of_type(constants.EXTENT_DATA_REF_KEY)
        by_file = by_file.select(by_file.size >= _U64_SIZE)
        by_key = items.select(_is_shared(items.type) | (items.type == constants.TREE_BLOCK_REF_KEY))
        number = np.concatenate([by_file.gather("<u8", 0), by_key.offset])
        kind = np.concatenate([by_file.type, by_key.type])
        return _References(np.full(len(number), extent, np.intp), kind, number)
    return _NONE


def _joined(parts: list[_References]) -> _References:
    """Return the references of all parts."""
    if len(parts) == 1:
        return parts[0]
    extent, kind, number = zip(_NONE, *parts, strict=True)
    return _References(np.concatenate(extent), np.concatenate(kind), np.concatenate(number))


def _field(batch: ItemBatch, at: int) -> NDArray[np.int64]:
    """Return a number of 64 bits from each item, or as much of it as int64 can hold."""
    value = np.zeros(len(batch), np.int64)
    readable = np.flatnonzero(batch.size >= _EXTENT_ITEM_SIZE)
    stored = take(batch.buffer, "<u8", batch.body[readable] + at)
    value[readable] = np.minimum(stored, np.uint64(np.iinfo(np.int64).max)).astype(np.int64)
    return value


def _is_shared(kind: NDArray[np.uint8]) -> NDArray[np.bool_]:
    block, data = constants.SHARED_BLOCK_REF_KEY, constants.SHARED_DATA_REF_KEY
    shared: NDArray[np.bool_] = (kind == block) | (kind == data)
    return shared


def _is_extent(kind: NDArray[np.uint8]) -> NDArray[np.bool_]:
    full, skinny = constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY
    extent: NDArray[np.bool_] = (kind == full) | (kind == skinny)
    return extent


# struct btrfs_extent_item, and what follows it in an item of a tree block that is not skinny.
_REFS_AT = 0
_GENERATION_AT = 8
_FLAGS_AT = 16
_EXTENT_ITEM_SIZE = 24
_TREE_BLOCK_INFO_SIZE = 18
_U64_SIZE = 8

# Bytes of an inline reference by its type, with the type; 0 is no reference.
_SIZES = np.zeros(256, np.int64)
_SIZES[constants.TREE_BLOCK_REF_KEY] = 9
_SIZES[constants.SHARED_BLOCK_REF_KEY] = 9
_SIZES[constants.EXTENT_OWNER_REF_KEY] = 9
_SIZES[constants.EXTENT_DATA_REF_KEY] = 29
_SIZES[constants.SHARED_DATA_REF_KEY] = 13

_NONE = _References(np.empty(0, np.intp), np.empty(0, np.uint8), np.empty(0, np.uint64))

# Reading some hundred items at one go takes no longer than looking up one more.
_NEAR = 4 << 20

# Of a batch, so that a filesystem that was made to be slow cannot be.
_MOST_LOOKUPS = 1000
_MOST_REFERENCES = 1 << 20
