"""All trees as one graph: each block once, with the set of roots that reach it.

Snapshots share blocks, so the trees of all subvolumes are one directed graph without circles. It is
walked level by level, from the highest roots down to the leaves. The pointers to all blocks of a
level are arrays. Sorted by address, a block that several nodes lead to is one entry, and its set of
roots is the union of theirs. Blocks are read in the order of their addresses, each once, however
many snapshots there are.

A filesystem that is mounted may be changing. Where a block was overwritten, :meth:`Graph.walk`
raises :class:`btrfs.errors.StaleError`. It is then called again with the roots of a newer commit:
blocks that are still in use are known, and only the others are read.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError
from btrfs.ondisk.constants import MAX_LEVEL
from btrfs.ownership.owners import Owner
from btrfs.ownership.root_sets import EMPTY, RootSets, SetIds, first_bit, mask_of
from btrfs.source.disk.bulk import BulkReader, Children, Leaves
from btrfs.source.disk.node import Pointer
from btrfs.source.disk.pointers import BlockPointers, Keys

if TYPE_CHECKING:
    from btrfs.source.disk.source import DiskSource

__all__ = ["AskedLeaves", "Graph", "LeafConsumer", "NodeHandler", "Progress", "TreeBlocks"]

Progress = Callable[[int, int], None]
"""Is called with how many leaves are read, and how many there are. May raise, to cancel."""

_THREADS = os.cpu_count() or 1
_BATCHES_AHEAD = 2 * _THREADS

_BATCH_BYTES = 8 << 20
"""Bytes of blocks that are read together. Threads stand less in each other's way the longer the
arrays are that they work on; with still more, these would not stay in the processor's cache."""


NodeHandler = Callable[[BlockPointers, Children, SetIds], None]
"""Is called with nodes, with those of the blocks below them that count, and with the set of roots
that reach each node."""


class AskedLeaves(NamedTuple):
    """Leaves that are read together, whether they can be read or not.

    Attributes:
        pointers: Pointers to them.
        numbers: Their numbers, uint32.
        set_ids: Of each, the set of roots that reach it now.
    """

    pointers: BlockPointers
    numbers: NDArray[np.uint32]
    set_ids: SetIds


class LeafConsumer(Protocol):
    """Takes the items of leaves, each leaf once."""

    def decode(self, leaves: Leaves, asked: AskedLeaves) -> Any:
        """Return what is wanted of the items of some leaves. Is called in several threads.

        Args:
            leaves: The items.
            asked: The leaves that were asked for.
        """

    def collect(self, decoded: Any) -> None:
        """Take what decode() returned, in the order of the leaves."""


@dataclass(frozen=True, slots=True)
class TreeBlocks:
    """All blocks of all trees, each once.

    Attributes:
        vaddr: Virtual addresses, int64.
        set_id: Of each, the number of the set of roots that reach it.
    """

    vaddr: NDArray[np.int64]
    set_id: SetIds


@dataclass(slots=True)
class _Level:
    """The nodes of a level that have been read, and the pointers in them.

    Attributes:
        nodes: The nodes.
        children: Pointers to the blocks below them.
        parent: Of each pointer, the index of its node.
    """

    nodes: BlockPointers
    children: BlockPointers
    parent: NDArray[np.intp]


class _Unreadable(NamedTuple):
    """A block that cannot be read; see UnreadableHandler."""

    min_key: int
    max_key: int
    error: BtrfsError


class Graph:
    """The graph of all trees, as far as it has been walked.

    Args:
        source: The source of the blocks.
        sets: The sets of roots: bit N is the Nth of the owners that walk() is given.
        consumer: Gets the items of leaves.
        on_nodes: Is called with nodes, each once.

    Attributes:
        incomplete: Bit mask of the roots of the last walk that lead to blocks which cannot be read.
    """

    def __init__(
        self,
        source: DiskSource,
        sets: RootSets,
        consumer: LeafConsumer,
        on_nodes: NodeHandler | None = None,
    ) -> None:
        self._source = source
        self._sets = sets
        self._consumer = consumer
        self._on_nodes = on_nodes
        self.incomplete = 0
        self._levels: dict[int, _Level] = {}
        self._leaves: list[BlockPointers] = []

    def walk(
        self, owners: Sequence[Owner], progress: Progress, with_leaves: int | None = None
    ) -> tuple[TreeBlocks, SetIds]:
        """Read what has not been read yet of some trees.

        Args:
            owners: The trees.
            progress: Is called now and then.
            with_leaves: Bit mask of the owners whose leaves are read; if not given, of those that
                may hold files.

        Returns:
            All blocks; and for each leaf that was ever read, by its number, the set of roots that
            reach it, which is empty if it is in use no more.

        Raises:
            StaleError: A block was overwritten; the filesystem has been committed since.
            CorruptError: A block has no copy that passes all checks, and errors are to be raised.
        """
        self.incomplete = 0
        frontier = _Frontier(self._sets)
        for bit, owner in enumerate(owners):
            self._add_root(frontier, owner, self._sets.id_of(1 << bit))
        if with_leaves is None:
            with_leaves = mask_of(bit for bit, owner in enumerate(owners) if owner.has_files)
        blocks: list[tuple[NDArray[np.int64], SetIds]] = []
        for level in range(MAX_LEVEL - 1, 0, -1):
            pointers, set_ids = frontier.take(level)
            blocks.append(frontier.all_of(level, pointers, set_ids))
            children, parent = self._read_nodes(level, pointers, set_ids, owners)
            frontier.add(children, set_ids[parent])
        pointers, set_ids = frontier.take(0)
        blocks.append(frontier.all_of(0, pointers, set_ids))
        wanted = self._sets.meeting(with_leaves)[set_ids]
        pointers, set_ids = pointers.select(wanted), set_ids[wanted]
        self._read_leaves(pointers, set_ids, owners, progress)
        return _tree_blocks(blocks), self._set_of_leaves(pointers, set_ids)

    def leaves(self) -> BlockPointers:
        """Return the leaves that were read, by their numbers; of those that are lost, too."""
        return self._known_leaves()

    def _reader(self) -> tuple[BulkReader, list[_Unreadable]]:
        """Return a reader of blocks, and the list that it adds those to that cannot be read."""
        lost: list[_Unreadable] = []
        trees = self._source.trees

        def on_unreadable(*arguments: Any) -> None:
            lost.append(_Unreadable(*arguments))

        store, block_format, log = trees.store, trees.block_format, self._source.log
        return BulkReader(store, block_format, log, on_unreadable), lost

    def _blocks_per_batch(self) -> int:
        return max(1, _BATCH_BYTES // self._source.trees.block_format.nodesize)

    def _add_root(self, frontier: _Frontier, owner: Owner, set_id: int) -> None:
        """Add the root of a tree; of one that is being removed, what is left of it."""
        pointers = BlockPointers.of(owner.pointer.level, [owner.pointer])
        set_ids = np.full(1, set_id, np.uint32)
        if owner.drop_progress is None:
            frontier.add(pointers, set_ids)
            return
        bulk, lost = self._reader()
        removed = Keys.of([owner.drop_progress.key])
        while pointers.level:
            found = bulk.children(pointers)
            if len(self._report_lost(lost, found.read, set_ids, [owner])):
                return
            frontier.count(pointers.pointer(0), set_id)
            rest = np.flatnonzero(~found.pointers.last.are_below(removed))
            left = found.pointers.select(rest)
            if self._on_nodes is not None:
                counted = found._replace(pointers=left, block=found.block[rest])
                self._on_nodes(pointers, counted, set_ids)
            if pointers.level <= max(1, owner.drop_level) or not len(left):
                frontier.add(left, np.full(len(left), set_id, np.uint32))
                return
            # Of the first of these, a part is removed.
            pointers, whole = left.select(slice(0, 1)), left.select(slice(1, None))
            frontier.add(whole, np.full(len(whole), set_id, np.uint32))
        frontier.add(pointers, set_ids)

    def _read_nodes(
        self,
        level: int,
        pointers: BlockPointers,
        set_ids: SetIds,
        owners: Sequence[Owner],
    ) -> tuple[BlockPointers, NDArray[np.intp]]:
        """Return pointers to the blocks below nodes, and for each the index of its node."""
        known = self._levels.get(level)
        children: list[BlockPointers] = []
        parents: list[NDArray[np.intp]] = []
        new = np.arange(len(pointers))
        if known is not None:
            parent = _indexes(known.nodes, pointers)[known.parent]
            still = parent >= 0
            children.append(known.children.select(still))
            parents.append(parent[still])
            new = np.flatnonzero(_indexes(pointers, known.nodes) < 0)
        bulk, lost = self._reader()
        size = self._blocks_per_batch()
        is_read = np.ones(len(pointers), np.bool_)
        for some in _batches(new, size):
            chosen = pointers.select(some)
            found = bulk.children(chosen)
            if self._on_nodes is not None:
                self._on_nodes(chosen, found, set_ids[some])
            is_read[some[self._report_lost(lost, found.read, set_ids[some], owners)]] = False
            lost.clear()
            children.append(found.pointers)
            parents.append(some[found.block])
        made = BlockPointers.concatenated(level - 1, children)
        parent = np.concatenate(parents) if parents else np.empty(0, np.intp)
        # What could not be read is not known: another walk tries it again, and reports it.
        read = np.flatnonzero(is_read)
        self._levels[level] = _Level(pointers.select(read), made, np.searchsorted(read, parent))
        return made, parent

    def _read_leaves(
        self,
        pointers: BlockPointers,
        set_ids: SetIds,
        owners: Sequence[Owner],
        progress: Progress,
    ) -> None:
        """Read the leaves that are not known yet, and pass their items on."""
        known = self._known_leaves()
        number = len(known)
        new = np.flatnonzero(_indexes(pointers, known) < 0)
        total = len(pointers)
        done = total - len(new)

        def read(some: NDArray[np.intp], number: int) -> tuple[Any, NDArray[np.intp], Any]:
            bulk, lost = self._reader()
            chosen = pointers.select(some)
            found = bulk.leaves(chosen)
            numbers = np.arange(number, number + len(some), dtype=np.uint32)
            asked = AskedLeaves(chosen, numbers, set_ids[some])
            return lost, found.read, self._consumer.decode(found, asked)

        with ThreadPoolExecutor(_THREADS, "btrfs-decode") as threads:
            batches = _batches(new, self._blocks_per_batch())
            under_way: deque[tuple[NDArray[np.intp], Future[Any]]] = deque()
            while True:
                while len(under_way) < _BATCHES_AHEAD and (some := next(batches, None)) is not None:
                    under_way.append((some, threads.submit(read, some, number)))
                    number += len(some)
                if not under_way:
                    break
                progress(done, total)
                some, future = under_way.popleft()
                lost, is_read, decoded = future.result()
                indexes = self._report_lost(lost, is_read, set_ids[some], owners)
                self._consumer.collect(decoded)
                self._leaves.append(_without_generation(pointers.select(some), indexes))
                done += len(some)
        progress(total, total)

    def _set_of_leaves(self, pointers: BlockPointers, set_ids: SetIds) -> SetIds:
        """Return the set of each leaf that was read, given those that are in use."""
        index = _indexes(self._known_leaves(), pointers)
        in_use = index >= 0
        found = np.full(len(index), EMPTY, np.uint32)
        found[in_use] = set_ids[index[in_use]]
        return found

    def _known_leaves(self) -> BlockPointers:
        """Return the leaves that have been read, by their numbers."""
        self._leaves = [BlockPointers.concatenated(0, self._leaves)]
        return self._leaves[0]

    def _report_lost(
        self,
        lost: Sequence[_Unreadable],
        read: NDArray[np.intp],
        set_ids: SetIds,
        owners: Sequence[Owner],
    ) -> NDArray[np.intp]:
        """Report the blocks of a batch that could not be read, and return their indexes."""
        if not lost:
            return np.empty(0, np.intp)
        indexes = np.setdiff1d(np.arange(len(set_ids)), read)
        for set_id, error in zip(set_ids[indexes].tolist(), lost, strict=True):
            mask = self._sets.masks[set_id]
            self._skip(set_id, owners[first_bit(mask)].tree, *error)
        return indexes

    def _skip(self, set_id: int, tree: int, min_key: int, max_key: int, error: BtrfsError) -> None:
        """Note that a block cannot be read, or raise the error."""
        self._source.skip_or_raise(tree, min_key, max_key, error)
        self.incomplete |= self._sets.masks[set_id]


class _Frontier:
    """Pointers to the blocks that come next, by level.

    Args:
        sets: The sets of roots.
    """

    def __init__(self, sets: RootSets) -> None:
        self._sets = sets
        self._pointers: dict[int, list[BlockPointers]] = defaultdict(list)
        self._set_ids: dict[int, list[SetIds]] = defaultdict(list)
        # Blocks that count, but whose children are added by themselves.
        self._counted: dict[int, list[tuple[int, int]]] = defaultdict(list)

    def add(self, pointers: BlockPointers, set_ids: SetIds) -> None:
        """Add pointers to blocks of one level, with the sets of roots that reach these."""
        self._pointers[pointers.level].append(pointers)
        self._set_ids[pointers.level].append(set_ids)

    def count(self, pointer: Pointer, set_id: int) -> None:
        """Add a block whose children are added by themselves."""
        self._counted[pointer.level].append((pointer.vaddr, set_id))

    def take(self, level: int) -> tuple[BlockPointers, SetIds]:
        """Return the blocks of a level whose children come next, each once, by address."""
        pointers = BlockPointers.concatenated(level, self._pointers.pop(level, []))
        if not len(pointers):
            return pointers, np.empty(0, np.uint32)
        set_ids = np.concatenate(self._set_ids.pop(level))
        # By generation, too: two pointers that do not agree in it cannot both be right.
        order = np.lexsort((pointers.generation, pointers.vaddr))
        vaddr, generation = pointers.vaddr[order], pointers.generation[order]
        is_first = np.ones(len(order), np.bool_)
        is_first[1:] = (vaddr[1:] != vaddr[:-1]) | (generation[1:] != generation[:-1])
        order, is_first = _by_bounds(pointers, order, is_first)
        first = np.flatnonzero(is_first)
        return pointers.select(order[first]), self._sets.unions(set_ids[order], first)

    def all_of(
        self, level: int, pointers: BlockPointers, set_ids: SetIds
    ) -> tuple[NDArray[np.int64], SetIds]:
        """Return addresses and sets of all blocks of a level, given those that take() gave."""
        counted = self._counted.get(level)
        if counted is None:
            return pointers.vaddr, set_ids
        vaddr = np.concatenate([pointers.vaddr, [vaddr for vaddr, _ in counted]])
        set_ids = np.concatenate([set_ids, np.array([ids for _, ids in counted], np.uint32)])
        order = np.argsort(vaddr, kind="stable")
        different, first = np.unique(vaddr[order], return_index=True)
        return different, self._sets.unions(set_ids[order], first)


def _by_bounds(
    pointers: BlockPointers, order: NDArray[np.intp], is_first: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Sort the pointers to each block so that the first of them promises the narrowest keys.

    What comes after a block differs from tree to tree, and so does the highest key that it may
    hold. Its first key does not: a pointer with another one cannot be right, and stands alone.

    Args:
        pointers: Pointers to blocks.
        order: Their indexes, block by block.
        is_first: Which of these is the first of its block.
    """
    first, last = pointers.first.select(order), pointers.last.select(order)
    previous = np.arange(len(order)) - 1
    differ = ~is_first & ~(first.equal(first.select(previous)) & last.equal(last.select(previous)))
    if not differ.any():
        return order, is_first
    block = np.cumsum(is_first) - 1
    some = np.flatnonzero(np.isin(block, block[differ]))
    chosen, of_block = order[some], block[some]
    first, last = first.select(some), last.select(some)
    rank = np.lexsort((*reversed(last), *reversed(first), of_block))
    order, is_first = order.copy(), is_first.copy()
    order[some] = chosen[rank]
    of_block, first = of_block[rank], first.select(rank)
    previous = np.arange(len(some)) - 1
    is_first[some] = (of_block != of_block[previous]) | ~first.equal(first.select(previous))
    is_first[some[0]] = True
    return order, is_first


def _without_generation(pointers: BlockPointers, indexes: NDArray[np.intp]) -> BlockPointers:
    """Return pointers of which some match no block: another walk reads and reports them again."""
    if not len(indexes):
        return pointers
    generation = pointers.generation.copy()
    generation[indexes] = 0
    return replace(pointers, generation=generation)


def _batches(indexes: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for begin in range(0, len(indexes), size):
        yield indexes[begin : begin + size]


def _indexes(wanted: BlockPointers, blocks: BlockPointers) -> NDArray[np.intp]:
    """Return for each of some blocks its index among others, or -1 if it is not among them.

    Pointers to the same block that promise another first key are not the same.
    """
    found = np.full(len(wanted), -1, np.intp)
    order = np.argsort(blocks.vaddr, kind="stable")
    position = np.searchsorted(blocks.vaddr, wanted.vaddr, sorter=order)
    left = np.arange(len(wanted))
    while len(left):
        left = left[position[left] < len(order)]
        index = order[position[left]]
        is_there = blocks.vaddr[index] == wanted.vaddr[left]
        left, index = left[is_there], index[is_there]
        same = blocks.generation[index] == wanted.generation[left]
        same &= blocks.first.select(index).equal(wanted.first.select(left))
        found[left[same]] = index[same]
        left = left[~same]
        position[left] += 1
    return found


def _tree_blocks(levels: Sequence[tuple[NDArray[np.int64], SetIds]]) -> TreeBlocks:
    return TreeBlocks(
        np.concatenate([vaddr for vaddr, _ in levels]),
        np.concatenate([set_ids for _, set_ids in levels]),
    )
