"""Many leaves at once, from blocks to a batch of items, without a Python loop over items.

In a leaf, the records of the items have a fixed stride, so the records of a whole batch of leaves
are taken with one array of positions. All checks of :mod:`btrfs.source.disk.node` are made here
too, on arrays. A block that does not pass them, or that could not be read, is read again by
:func:`btrfs.source.disk.store.read_block`: it finds another copy, or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.constants import CSUM_SIZE
from btrfs.source.damage import DamageLog
from btrfs.source.disk.node import (
    HEADER_SIZE,
    ITEM_RECORD_SIZE,
    BlockFormat,
    Header,
    Pointer,
)
from btrfs.source.disk.store import UNREADABLE, BlockStore, UnreadableHandler, read_block

__all__ = ["BulkReader"]

# Bytes of blocks in a batch: enough that a batch is worth its calls of numpy, and few enough that
# the blocks stay in the processor's cache between them.
_BATCH_BYTES = 1 << 20

# struct btrfs_item
_RECORD_DTYPE = np.dtype(
    [("objectid", "<u8"), ("type", "u1"), ("offset", "<u8"), ("start", "<u4"), ("size", "<u4")]
)


class BulkReader:
    """Reads leaves many at a time.

    Args:
        store: Where the blocks are.
        block_format: What they have in common.
        log: Remembers the copies of blocks that are damaged.
        on_unreadable: What to do where no copy of a block passes all checks.
    """

    def __init__(
        self,
        store: BlockStore,
        block_format: BlockFormat,
        log: DamageLog,
        on_unreadable: UnreadableHandler,
    ) -> None:
        self._store = store
        self._format = block_format
        self._log = log
        self._on_unreadable = on_unreadable

    def batches(
        self, pointers: Iterator[Pointer], min_key: int, max_key: int
    ) -> Iterator[ItemBatch]:
        """Yield the items of leaves between two keys, both included.

        Args:
            pointers: The leaves in the order of their keys.
            min_key: The lowest key.
            max_key: The highest key wanted.
        """
        leaves_per_batch = max(1, _BATCH_BYTES // self._format.nodesize)
        while leaves := list(islice(pointers, leaves_per_batch)):
            batch = self._read_batch(leaves)
            # Only the leaves at both ends can have items outside the range.
            batch = _between(batch, min_key, max_key)
            if len(batch):
                yield batch

    def _read_batch(self, leaves: list[Pointer]) -> ItemBatch:
        vaddrs = np.array([leaf.vaddr for leaf in leaves], np.int64)
        buffer, good = self._store.read_many(vaddrs, self._format.nodesize)
        blocks = buffer.reshape(len(leaves), self._format.nodesize)
        good &= _headers_match(blocks, leaves, self._format)
        good &= _checksums_match(blocks, self._format)
        blocks, leaves = self._replace(blocks, leaves, np.flatnonzero(~good))
        batch, starts, first = _items(blocks)
        suspicious = _suspicious_leaves(batch, starts, first, leaves, self._format)
        if len(suspicious):
            blocks, leaves = self._replace(blocks, leaves, suspicious)
            batch, _, _ = _items(blocks)
        return batch

    def _replace(
        self, blocks: NDArray[np.uint8], leaves: list[Pointer], indexes: NDArray[np.intp]
    ) -> tuple[NDArray[np.uint8], list[Pointer]]:
        """Replace blocks by copies that pass all checks, and leave out those that have none."""
        lost = []
        for index in indexes.tolist():
            leaf = leaves[index]
            try:
                data, _ = read_block(self._store, self._format, leaf, self._log)
            except UNREADABLE as error:
                self._on_unreadable(leaf.min_key or 0, leaf.max_key, error)
                lost.append(index)
            else:
                blocks[index] = np.frombuffer(data, np.uint8)
        if lost:
            blocks = np.delete(blocks, lost, axis=0)
            leaves = [leaf for index, leaf in enumerate(leaves) if index not in set(lost)]
        return blocks, leaves


def _headers(blocks: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ndarray((len(blocks),), Header.dtype, blocks, 0, (blocks.strides[0],))


def _checksums_match(blocks: NDArray[np.uint8], block_format: BlockFormat) -> NDArray[np.bool_]:
    digest, size = block_format.checksum.digest, block_format.checksum.size
    found = b"".join([digest(block) for block in blocks[:, CSUM_SIZE:]])
    expected = np.ascontiguousarray(blocks[:, :size]).view((np.void, size))
    return np.asarray(expected[:, 0] == np.frombuffer(found, (np.void, size)))


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


def _items(
    blocks: NDArray[np.uint8],
) -> tuple[ItemBatch, NDArray[np.uint32], NDArray[np.int64]]:
    """Return all items of blocks whose headers are right.

    Returns:
        The items; where in its block the body of each begins, counted from the end of the header;
        and the index of the first item of each block.
    """
    headers = _headers(blocks)
    nritems = headers["nritems"].astype(np.int64)
    first = np.cumsum(nritems) - nritems
    after_header = np.arange(len(blocks), dtype=np.int64) * blocks.shape[1] + HEADER_SIZE
    # The record with index i lies (i - first of its block) records after the header.
    positions = np.repeat(after_header - first * ITEM_RECORD_SIZE, nritems)
    positions += np.arange(0, len(positions) * ITEM_RECORD_SIZE, ITEM_RECORD_SIZE)
    buffer = blocks.reshape(-1)
    records = take(buffer, _RECORD_DTYPE, positions)
    starts = np.ascontiguousarray(records["start"])
    batch = ItemBatch(
        buffer=buffer,
        objectid=np.ascontiguousarray(records["objectid"]),
        type=np.ascontiguousarray(records["type"]),
        offset=np.ascontiguousarray(records["offset"]),
        transid=np.repeat(headers["generation"], nritems),
        body=np.repeat(after_header, nritems) + starts,
        size=np.ascontiguousarray(records["size"]),
    )
    return batch, starts, first


def _suspicious_leaves(
    batch: ItemBatch,
    starts: NDArray[np.uint32],
    first: NDArray[np.int64],
    leaves: list[Pointer],
    block_format: BlockFormat,
) -> NDArray[np.intp]:
    """Return the indexes of leaves with items whose keys or bodies are not as they must be."""
    if not len(batch):
        # Nothing but the root of an empty tree has no items, and it has no neighbours.
        return np.empty(0, np.intp)
    end = np.append(first[1:], len(batch))
    ends = starts.astype(np.int64) + batch.size
    end_of_records = (end - first) * ITEM_RECORD_SIZE
    end_of_bodies = block_format.nodesize - HEADER_SIZE
    bad = np.minimum.reduceat(starts, first) < end_of_records
    bad |= np.maximum.reduceat(ends, first) > end_of_bodies
    bad |= np.add.reduceat(batch.size.astype(np.int64), first) > end_of_bodies - end_of_records
    # The bounds that the blocks above give to the keys.
    bad |= [
        leaf.min_key is not None and key != leaf.min_key
        for leaf, key in zip(leaves, batch.keys(first), strict=True)
    ]
    bad |= [key > leaf.max_key for leaf, key in zip(leaves, batch.keys(end - 1), strict=True)]
    # Keys ascend from leaf to leaf too. An item out of order belongs to the last leaf that begins
    # at or before it.
    out_of_order = np.flatnonzero(~_ascending(batch)) + 1
    bad[np.searchsorted(first, out_of_order, "right") - 1] = True
    return np.flatnonzero(bad)


def _ascending(batch: ItemBatch) -> NDArray[np.bool_]:
    """Return for each item but the first whether its key is above the one before."""
    ascending = np.asarray(batch.objectid[1:] > batch.objectid[:-1])
    # In an extent tree few items share the first part of their key with a neighbour.
    left = np.flatnonzero(~ascending)
    if len(left):
        objectid, key_type, offset = (
            (part[left], part[left + 1]) for part in (batch.objectid, batch.type, batch.offset)
        )
        ascending[left] = (objectid[0] == objectid[1]) & (
            (key_type[0] < key_type[1]) | ((key_type[0] == key_type[1]) & (offset[0] < offset[1]))
        )
    return ascending


def _between(batch: ItemBatch, min_key: int, max_key: int) -> ItemBatch:
    """Cut off the items whose keys are not between two keys."""
    first, end = 0, len(batch)
    if first < end and batch.key(0) < min_key:
        first = _bisect(batch, min_key, first, end)
    if first < end and batch.key(end - 1) > max_key:
        end = _bisect(batch, max_key + 1, first, end)
    return batch if end - first == len(batch) else batch.select(slice(first, end))


def _bisect(batch: ItemBatch, key: int, first: int, end: int) -> int:
    """Return the index of the first item whose key is not below the one given."""
    while first < end:
        middle = (first + end) // 2
        if batch.key(middle) < key:
            first = middle + 1
        else:
            end = middle
    return first
