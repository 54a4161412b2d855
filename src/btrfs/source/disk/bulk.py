"""Many leaves at once, from blocks to a batch of items, without a Python loop over items.

In a leaf, the records of the items have a fixed stride, so the records of a whole batch of leaves
are taken with one array of positions. All checks of :mod:`btrfs.source.disk.node` are made here
too, on arrays. Where a block does not pass them, or could not be read, the careful reader of single
blocks has a look: it finds another copy, or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from btrfs.columns import ItemBatch, take
from btrfs.constants import CSUM_SIZE
from btrfs.source.disk.node import (
    HEADER_SIZE,
    ITEM_RECORD_SIZE,
    BlockFormat,
    Header,
    Pointer,
)
from btrfs.source.disk.tree import BlockStore, read_block

__all__ = ["read_batches"]

# Bytes of blocks in a batch: enough that a batch is worth its calls of numpy, and few enough that
# the blocks stay in the processor's cache between them.
_BATCH_BYTES = 2 << 20

# struct btrfs_item
_RECORD_DTYPE = np.dtype(
    [("objectid", "<u8"), ("type", "u1"), ("offset", "<u8"), ("start", "<u4"), ("size", "<u4")]
)


def read_batches(
    pointers: Iterator[Pointer],
    store: BlockStore,
    block_format: BlockFormat,
    min_key: int,
    max_key: int,
) -> Iterator[ItemBatch]:
    """Yield the items of leaves between two keys, both included.

    Args:
        pointers: The leaves in the order of their keys.
        store: Where the blocks are.
        block_format: What they have in common.
        min_key: The lowest key, and
        max_key: the highest key wanted.

    Raises:
        CorruptError: A block has no copy that passes all checks.
    """
    leaves_per_batch = max(1, _BATCH_BYTES // block_format.nodesize)
    while leaves := list(islice(pointers, leaves_per_batch)):
        batch = _read_batch(leaves, store, block_format)
        # Only the leaves at both ends can have items outside the range.
        batch = _between(batch, min_key, max_key)
        if len(batch):
            yield batch


def _read_batch(leaves: list[Pointer], store: BlockStore, block_format: BlockFormat) -> ItemBatch:
    vaddrs = np.array([leaf.vaddr for leaf in leaves], np.int64)
    buffer, good = store.read_many(vaddrs, block_format.nodesize)
    blocks = buffer.reshape(len(leaves), block_format.nodesize)
    good &= _checksums_match(blocks, block_format)
    good &= _headers_match(blocks, leaves, block_format)
    _read_again(blocks, leaves, np.flatnonzero(~good), store, block_format)
    batch, leaf_of_item = _items(blocks)
    suspicious = _suspicious_leaves(batch, leaf_of_item, leaves, block_format)
    if len(suspicious):
        _read_again(blocks, leaves, suspicious, store, block_format)
        batch, _ = _items(blocks)
    return batch


def _read_again(
    blocks: NDArray[np.uint8],
    leaves: list[Pointer],
    indexes: NDArray[np.intp],
    store: BlockStore,
    block_format: BlockFormat,
) -> None:
    """Replace blocks by copies that pass all checks."""
    for index in indexes:
        data, _ = read_block(store, block_format, leaves[index])
        blocks[index] = np.frombuffer(data, np.uint8)


def _headers(blocks: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ndarray((len(blocks),), Header.dtype, blocks, 0, (blocks.strides[0],))


def _checksums_match(blocks: NDArray[np.uint8], block_format: BlockFormat) -> NDArray[np.bool_]:
    digest, size = block_format.checksum.digest, block_format.checksum.size
    return np.array(
        [digest(block[CSUM_SIZE:]) == block[:size].tobytes() for block in blocks], np.bool_
    )


def _headers_match(
    blocks: NDArray[np.uint8], leaves: list[Pointer], block_format: BlockFormat
) -> NDArray[np.bool_]:
    headers = _headers(blocks)
    vaddrs = np.array([leaf.vaddr for leaf in leaves], np.uint64)
    generations = np.array([leaf.generation for leaf in leaves], np.uint64)
    least = np.array([0 if leaf.min_key is None else 1 for leaf in leaves], np.uint32)
    most = (block_format.nodesize - HEADER_SIZE) // ITEM_RECORD_SIZE
    fsid = np.frombuffer(block_format.fsid, headers["fsid"].dtype)
    return np.asarray(
        (headers["fsid"] == fsid)
        & (headers["bytenr"] == vaddrs)
        & (headers["generation"] == generations)
        & (headers["level"] == 0)
        & (headers["nritems"] >= least)
        & (headers["nritems"] <= most)
    )


def _items(blocks: NDArray[np.uint8]) -> tuple[ItemBatch, NDArray[np.intp]]:
    """Return all items of blocks whose headers are right, and which block each is in."""
    nodesize = blocks.shape[1]
    headers = _headers(blocks)
    nritems = headers["nritems"].astype(np.int64)
    leaf_of_item = np.repeat(np.arange(len(blocks)), nritems)
    first_item = np.cumsum(nritems) - nritems
    block_starts = np.arange(len(blocks)) * nodesize + HEADER_SIZE
    # Position of the record with index i: start of its block + (i - first item) * record size.
    record_starts = block_starts - first_item * ITEM_RECORD_SIZE
    positions = record_starts[leaf_of_item] + np.arange(len(leaf_of_item)) * ITEM_RECORD_SIZE
    buffer = blocks.reshape(-1)
    records = take(buffer, _RECORD_DTYPE, positions)
    batch = ItemBatch(
        buffer=buffer,
        objectid=np.ascontiguousarray(records["objectid"]),
        type=np.ascontiguousarray(records["type"]),
        offset=np.ascontiguousarray(records["offset"]),
        transid=headers["generation"][leaf_of_item],
        body=block_starts[leaf_of_item] + records["start"],
        size=np.ascontiguousarray(records["size"]),
    )
    return batch, leaf_of_item


def _suspicious_leaves(
    batch: ItemBatch,
    leaf_of_item: NDArray[np.intp],
    leaves: list[Pointer],
    block_format: BlockFormat,
) -> NDArray[np.intp]:
    """Return the indexes of leaves with items whose keys or bodies are not as they must be."""
    if not len(batch):
        return np.empty(0, np.intp)
    nritems = np.bincount(leaf_of_item, minlength=len(leaves))
    start = batch.body - (leaf_of_item * block_format.nodesize + HEADER_SIZE)
    bad = start < (nritems * ITEM_RECORD_SIZE)[leaf_of_item]
    bad |= start + batch.size > block_format.nodesize - HEADER_SIZE
    # From one leaf to the next the keys must ascend as well, which covers the bounds that the
    # blocks above give, but for the first and the last leaf and the first key of each.
    bad[1:] |= ~_ascending(batch)
    suspicious = np.unique(leaf_of_item[bad])
    first = np.flatnonzero(np.diff(leaf_of_item, prepend=-1))
    last = np.flatnonzero(np.diff(leaf_of_item, append=len(leaves)))
    out_of_bounds = [
        index
        for index, first_item, last_item in zip(leaf_of_item[first], first, last, strict=True)
        if leaves[index].min_key not in (None, batch.key(first_item).key)
        or batch.key(last_item).key > leaves[index].max_key
    ]
    return np.union1d(suspicious, np.array(out_of_bounds, np.intp))


def _ascending(batch: ItemBatch) -> NDArray[np.bool_]:
    """Return for each item but the first whether its key is above the one before."""
    objectid, offset = batch.objectid, batch.offset
    same_objectid = objectid[1:] == objectid[:-1]
    same_type = batch.type[1:] == batch.type[:-1]
    return np.asarray(
        (objectid[1:] > objectid[:-1])
        | (same_objectid & (batch.type[1:] > batch.type[:-1]))
        | (same_objectid & same_type & (offset[1:] > offset[:-1]))
    )


def _between(batch: ItemBatch, min_key: int, max_key: int) -> ItemBatch:
    """Cut off the items whose keys are not between two keys."""
    first, behind = 0, len(batch)
    if len(batch) and batch.key(first).key < min_key:
        first = _bisect(batch, min_key, first, behind)
    if first < behind and batch.key(behind - 1).key > max_key:
        behind = _bisect(batch, max_key + 1, first, behind)
    return batch if behind - first == len(batch) else batch.select(slice(first, behind))


def _bisect(batch: ItemBatch, key: int, first: int, behind: int) -> int:
    """Return the index of the first item whose key is not below the one given."""
    while first < behind:
        middle = (first + behind) // 2
        if batch.key(middle).key < key:
            first = middle + 1
        else:
            behind = middle
    return first
