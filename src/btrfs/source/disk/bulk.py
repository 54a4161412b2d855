"""Many blocks at once: from leaves to a batch of items, from nodes to the blocks below them.

There is no Python loop over items. In a block, the records have a fixed stride, so the records of a
whole batch of blocks are taken with one array of positions. All checks of
:mod:`btrfs.source.disk.node` are made here too, on arrays. A block that does not pass them, or that
could not be read, is read again by :func:`btrfs.source.disk.store.read_block`: it finds another
copy, or says what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.constants import CSUM_SIZE, MAX_ADDRESS
from btrfs.source.damage import DamageLog
from btrfs.source.disk.node import (
    HEADER_SIZE,
    ITEM_RECORD_SIZE,
    POINTER_RECORD_SIZE,
    BlockFormat,
    Header,
    Pointer,
)
from btrfs.source.disk.pointers import BlockPointers, Keys
from btrfs.source.disk.store import UNREADABLE, BlockStore, UnreadableHandler, read_block

__all__ = ["BulkReader", "Children", "Leaves"]

BATCH_BYTES = 1 << 20
"""Bytes of blocks in a batch: enough that a batch is worth its calls of numpy, and few enough that
the blocks stay in the processor's cache between them."""

_HEADER_DTYPE = Header.dtype

# struct btrfs_item
_ITEM_DTYPE = np.dtype(
    [("objectid", "<u8"), ("type", "u1"), ("offset", "<u8"), ("start", "<u4"), ("size", "<u4")]
)

# struct btrfs_key_ptr
_POINTER_DTYPE = np.dtype(
    [
        ("objectid", "<u8"),
        ("type", "u1"),
        ("offset", "<u8"),
        ("vaddr", "<u8"),
        ("generation", "<u8"),
    ]
)


class Leaves(NamedTuple):
    """The items of some leaves.

    Attributes:
        batch: The items, leaf by leaf.
        block: Of each item, the index of the leaf among the pointers that were given.
        read: The indexes of the leaves that could be read.
        headers: The headers of these (struct btrfs_header).
    """

    batch: ItemBatch
    block: NDArray[np.intp]
    read: NDArray[np.intp]
    headers: NDArray[np.void]


class Children(NamedTuple):
    """The blocks below some nodes.

    Attributes:
        pointers: Pointers to them, node by node.
        block: Of each, the index of the node among the pointers that were given.
        read: The indexes of the nodes that could be read.
        headers: The headers of these (struct btrfs_header).
    """

    pointers: BlockPointers
    block: NDArray[np.intp]
    read: NDArray[np.intp]
    headers: NDArray[np.void]


class BulkReader:
    """Reads blocks many at a time.

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
        leaves_per_batch = max(1, BATCH_BYTES // self._format.nodesize)
        while leaves := list(islice(pointers, leaves_per_batch)):
            batch = self.leaves(BlockPointers.of(0, leaves)).batch
            # Only the leaves at both ends can have items outside the range.
            batch = _between(batch, min_key, max_key)
            if len(batch):
                yield batch

    def leaves(self, pointers: BlockPointers) -> Leaves:
        """Return the items of leaves, which need not be neighbours in a tree."""
        blocks, kept = self._read(pointers)
        batch, starts, first = _items(blocks)
        suspicious = _suspicious_leaves(batch, starts, first, pointers.select(kept), self._format)
        if len(suspicious):
            blocks, kept = self._replace(blocks, pointers, kept, suspicious)
            batch, _, _ = _items(blocks)
        return Leaves(batch, np.repeat(kept, _nritems(blocks)), kept, _headers(blocks))

    def children(self, pointers: BlockPointers) -> Children:
        """Return pointers to the blocks below nodes, which need not be neighbours in a tree."""
        blocks, kept = self._read(pointers)
        suspicious = _suspicious_nodes(blocks, pointers.select(kept))
        if len(suspicious):
            blocks, kept = self._replace(blocks, pointers, kept, suspicious)
        children = _children(blocks, pointers.select(kept))
        return Children(children, np.repeat(kept, _nritems(blocks)), kept, _headers(blocks))

    def _read(self, pointers: BlockPointers) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
        """Return blocks whose headers and checksums are right, and the indexes of their pointers.

        Of an inner node or a leaf, what comes after the header is not checked yet.
        """
        nodesize = self._format.nodesize
        buffer, good = self._store.read_many(pointers.vaddr, nodesize)
        blocks = buffer.reshape(len(pointers), nodesize)
        good &= _headers_match(blocks, pointers, self._format)
        good &= _checksums_match(blocks, self._format)
        kept = np.arange(len(pointers))
        return self._replace(blocks, pointers, kept, np.flatnonzero(~good))

    def _replace(
        self,
        blocks: NDArray[np.uint8],
        pointers: BlockPointers,
        kept: NDArray[np.intp],
        indexes: NDArray[np.intp],
    ) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
        """Replace blocks by copies that pass all checks, and leave out those that have none."""
        lost = []
        for index in indexes.tolist():
            pointer = pointers.pointer(int(kept[index]))
            try:
                data, _ = read_block(self._store, self._format, pointer, self._log)
            except UNREADABLE as error:
                self._on_unreadable(pointer.min_key or 0, pointer.max_key, error)
                lost.append(index)
            else:
                blocks[index] = np.frombuffer(data, np.uint8)
        if lost:
            blocks = np.delete(blocks, lost, axis=0)
            kept = np.delete(kept, lost)
        return blocks, kept


def _headers(blocks: NDArray[np.uint8]) -> NDArray[np.void]:
    return np.ndarray((len(blocks),), _HEADER_DTYPE, blocks, 0, (blocks.strides[0],))


def _nritems(blocks: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.asarray(_headers(blocks)["nritems"].astype(np.int64))


def _checksums_match(blocks: NDArray[np.uint8], block_format: BlockFormat) -> NDArray[np.bool_]:
    digest, size = block_format.checksum.digest, block_format.checksum.size
    found = b"".join([digest(block) for block in blocks[:, CSUM_SIZE:]])
    expected = np.ascontiguousarray(blocks[:, :size]).view((np.void, size))
    return np.asarray(expected[:, 0] == np.frombuffer(found, (np.void, size)))


def _headers_match(
    blocks: NDArray[np.uint8], pointers: BlockPointers, block_format: BlockFormat
) -> NDArray[np.bool_]:
    headers = _headers(blocks)
    # Only the root of a tree can be empty, and only if it is a leaf.
    least = ~pointers.is_root if pointers.level == 0 else 1
    record_size = POINTER_RECORD_SIZE if pointers.level else ITEM_RECORD_SIZE
    most = (block_format.nodesize - HEADER_SIZE) // record_size
    fsids = [np.void(fsid) for fsid in (block_format.fsid, *block_format.seeds)]
    return np.asarray(
        np.logical_or.reduce([headers["fsid"] == fsid for fsid in fsids])
        & (headers["bytenr"] == pointers.vaddr.astype(np.uint64))
        & (headers["generation"] == pointers.generation)
        & (headers["level"] == pointers.level)
        & (headers["nritems"] >= least)
        & (headers["nritems"] <= most)
    )


def _positions(
    nritems: NDArray[np.int64], nodesize: int, record_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return where in a buffer of blocks the records of all items are.

    Returns:
        The position of each record; for each block, where its records begin; and the index of the
        first item of each block.
    """
    first = np.cumsum(nritems) - nritems
    after_header = np.arange(len(nritems), dtype=np.int64) * nodesize + HEADER_SIZE
    # The record with index i lies (i - first of its block) records after the header.
    positions = np.repeat(after_header - first * record_size, nritems)
    positions += np.arange(0, len(positions) * record_size, record_size)
    return positions, after_header, first


def _items(
    blocks: NDArray[np.uint8],
) -> tuple[ItemBatch, NDArray[np.uint32], NDArray[np.int64]]:
    """Return all items of leaves whose headers are right.

    Returns:
        The items; where in its block the body of each begins, counted from the end of the header;
        and the index of the first item of each block.
    """
    nritems = _nritems(blocks)
    positions, after_header, first = _positions(nritems, blocks.shape[1], ITEM_RECORD_SIZE)
    buffer = blocks.reshape(-1)
    records = take(buffer, _ITEM_DTYPE, positions)
    starts = np.ascontiguousarray(records["start"])
    batch = ItemBatch(
        buffer=buffer,
        objectid=np.ascontiguousarray(records["objectid"]),
        type=np.ascontiguousarray(records["type"]),
        offset=np.ascontiguousarray(records["offset"]),
        transid=np.repeat(_headers(blocks)["generation"], nritems),
        body=np.repeat(after_header, nritems) + starts,
        size=np.ascontiguousarray(records["size"]),
    )
    return batch, starts, first


def _pointer_records(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Return the records of nodes whose headers are right, and the first index of each node."""
    positions, _, first = _positions(_nritems(blocks), blocks.shape[1], POINTER_RECORD_SIZE)
    return take(blocks.reshape(-1), _POINTER_DTYPE, positions), first


def _record_keys(records: NDArray[np.void]) -> Keys:
    return Keys(*(np.ascontiguousarray(records[part]) for part in ("objectid", "type", "offset")))


def _children(blocks: NDArray[np.uint8], pointers: BlockPointers) -> BlockPointers:
    """Return pointers to the blocks below nodes that have passed all checks."""
    records, first = _pointer_records(blocks)
    keys = _record_keys(records)
    # A child may hold keys up to the one before the next child begins, the last child of a node
    # as many as the node.
    following = keys.select(np.minimum(np.arange(1, len(records) + 1), len(records) - 1))
    last = following.before()
    if len(records):
        ends = np.append(first[1:], len(records)) - 1
        last.objectid[ends] = pointers.last.objectid
        last.type[ends] = pointers.last.type
        last.offset[ends] = pointers.last.offset
    return BlockPointers(
        pointers.level - 1,
        records["vaddr"].astype(np.int64),
        np.ascontiguousarray(records["generation"]),
        np.zeros(len(records), np.bool_),
        keys,
        last,
    )


def _suspicious_nodes(blocks: NDArray[np.uint8], pointers: BlockPointers) -> NDArray[np.intp]:
    """Return the indexes of nodes with pointers that are not as they must be."""
    records, first = _pointer_records(blocks)
    if not len(records):
        return np.empty(0, np.intp)
    keys = _record_keys(records)
    bad = _bounds_violated(keys, first, pointers)
    outside = (records["vaddr"] == 0) | (records["vaddr"] >= MAX_ADDRESS)
    bad |= np.logical_or.reduceat(outside, first)
    return np.flatnonzero(bad)


def _suspicious_leaves(
    batch: ItemBatch,
    starts: NDArray[np.uint32],
    first: NDArray[np.int64],
    pointers: BlockPointers,
    block_format: BlockFormat,
) -> NDArray[np.intp]:
    """Return the indexes of leaves with items whose keys or bodies are not as they must be."""
    if not len(batch):
        return np.empty(0, np.intp)
    # Only the root of a tree can be without items; reduceat() wants a first item of each.
    indexes = np.flatnonzero(np.diff(np.append(first, len(batch))))
    first, pointers = first[indexes], pointers.select(indexes)
    end = np.append(first[1:], len(batch))
    ends = starts.astype(np.int64) + batch.size
    end_of_records = (end - first) * ITEM_RECORD_SIZE
    end_of_bodies = block_format.nodesize - HEADER_SIZE
    bad = np.minimum.reduceat(starts, first) < end_of_records
    bad |= np.maximum.reduceat(ends, first) > end_of_bodies
    bad |= np.add.reduceat(batch.size.astype(np.int64), first) > end_of_bodies - end_of_records
    bad |= _bounds_violated(Keys(batch.objectid, batch.type, batch.offset), first, pointers)
    return indexes[bad]


def _bounds_violated(
    keys: Keys, first: NDArray[np.int64], pointers: BlockPointers
) -> NDArray[np.bool_]:
    """Return for each block whether its keys do not ascend, or are not those of its pointer.

    Args:
        keys: The keys of all blocks.
        first: The index of the first key of each block; none is empty.
        pointers: Pointers to the blocks.
    """
    ends = np.append(first[1:], len(keys.offset)) - 1
    bad = ~(pointers.is_root | keys.select(first).equal(pointers.first))
    bad |= pointers.last.are_below(keys.select(ends))
    ascending = _ascending(keys)
    # From one block to the next, they need not ascend.
    ascending[first[1:] - 1] = True
    out_of_order = np.flatnonzero(~ascending)
    bad[np.searchsorted(first, out_of_order, "right") - 1] = True
    return bad


def _ascending(keys: Keys) -> NDArray[np.bool_]:
    """Return for each key but the first whether it is above the one before."""
    ascending = np.asarray(keys.objectid[1:] > keys.objectid[:-1])
    # In an extent tree few items share the first part of their key with a neighbour.
    left = np.flatnonzero(~ascending)
    if len(left):
        ascending[left] = keys.select(left).are_below(keys.select(left + 1))
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
