"""Trees of an unmounted filesystem: from a root down to the items between two keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from copy import copy
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

from btrfs.errors import BtrfsError
from btrfs.ondisk.items.base import SearchHeader
from btrfs.source.damage import DamageLog
from btrfs.source.disk.node import BlockFormat, Leaf, Node, Pointer
from btrfs.source.disk.store import UNREADABLE, BlockStore, UnreadableHandler, read_block

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["TreeReader"]

# A look-up needs a path from the root to a leaf. A parsed block takes some 100 KiB.
_CACHED_BLOCKS = 16

# Where much is damaged, the same blocks are asked for over and over.
_REMEMBERED_FAILURES = 4096

# So many children of a node are the sample that the size of the others is estimated from.
_SAMPLES = 8


class TreeReader:
    """Reads trees from a store of blocks.

    Args:
        store: Where the blocks are.
        block_format: What they have in common.
        log: Remembers the copies of blocks that are damaged.
    """

    def __init__(self, store: BlockStore, block_format: BlockFormat, log: DamageLog) -> None:
        self.store = store
        self.block_format = block_format
        self._log = log
        # Blocks that have been checked: a look-up begins with the same few each time.
        self._cache: OrderedDict[Pointer, Leaf | Node] = OrderedDict()
        self._failures: OrderedDict[Pointer, BtrfsError] = OrderedDict()
        # What is below some nodes, in blocks.
        self._sizes: dict[Pointer, float] = {}

    def items(
        self, root: Pointer, min_key: int, max_key: int, on_unreadable: UnreadableHandler
    ) -> Iterator[tuple[SearchHeader, memoryview]]:
        """Yield header and body of the items of a tree between two keys, both included.

        Args:
            root: Root of the tree.
            min_key: The lowest key.
            max_key: The highest key wanted.
            on_unreadable: What to do where no copy of a block passes all checks.
        """
        for leaves in self._leaves(root, min_key, max_key, on_unreadable):
            for pointer in leaves:
                leaf = self._read_or_skip(pointer, on_unreadable)
                if leaf is not None:
                    assert isinstance(leaf, Leaf)
                    yield from leaf.items(min_key, max_key)

    def batches(
        self, root: Pointer, min_key: int, max_key: int, on_unreadable: UnreadableHandler
    ) -> Iterator[ItemBatch]:
        """Yield the same items many at a time."""
        from btrfs.source.disk.bulk import BulkReader

        leaves = chain.from_iterable(self._leaves(root, min_key, max_key, on_unreadable))
        reader = BulkReader(self.store, self.block_format, self._log, on_unreadable)
        return reader.batches(leaves, min_key, max_key)

    def blocks(
        self,
        root: Pointer,
        level: int,
        min_key: int,
        max_key: int,
        on_unreadable: UnreadableHandler,
    ) -> Iterator[Pointer]:
        """Yield where the blocks of one level are that may hold keys between two keys.

        Args:
            root: Root of the tree.
            level: Level of the blocks, 0 for leaves; there are none above the root.
            min_key: The lowest key.
            max_key: The highest key wanted.
            on_unreadable: What to do where no copy of a block further up passes all checks.
        """
        if level <= root.level:
            yield from chain.from_iterable(
                self._leaves(root, min_key, max_key, on_unreadable, level)
            )

    def read(self, pointer: Pointer) -> Leaf | Node:
        """Return a block.

        Raises:
            CorruptError: It has no copy that passes all checks.
            MissingDeviceError: All copies are on devices that are missing.
        """
        if pointer in self._cache:
            self._cache.move_to_end(pointer)
            return self._cache[pointer]
        if pointer in self._failures:
            raise copy(self._failures[pointer])
        try:
            block = read_block(self.store, self.block_format, pointer, self._log)[1]
        except UNREADABLE as error:
            # Not the error itself: with its traceback it would keep whole blocks in memory.
            _remember(self._failures, pointer, copy(error), _REMEMBERED_FAILURES)
            raise
        _remember(self._cache, pointer, block, _CACHED_BLOCKS)
        return block

    def blocks_from(self, root: Pointer, key: int) -> float:
        """Return about how many blocks of a tree there are from a key on.

        The path to the key is followed. How many blocks come after it is estimated from a sample of
        them. No block is read that only holds lower keys.

        Raises:
            CorruptError: A block has no copy that passes all checks.
        """
        if root.level == 0:
            return 1.0
        node = self._node(root)
        at_key, *after = node.children_between(key, root.max_key)
        return 1 + self.blocks_from(at_key, key) + self._blocks_below(after, node)

    def _size(self, root: Pointer) -> float:
        """Return about how many blocks there are from one downwards."""
        if root.level == 0:
            return 1.0
        if root not in self._sizes:
            node = self._node(root)
            self._sizes[root] = 1 + self._blocks_below(node.children, node)
        return self._sizes[root]

    def _blocks_below(self, children: list[Pointer], node: Node) -> float:
        """Return about how many blocks there are from the last few children of a node downwards."""
        if not children:
            return 0.0
        # Where a tree has grown at its end, the last child is smaller than the others.
        *others, last = children
        if not others:
            return self._size(last)
        step = -(-len(node.children) // _SAMPLES)
        # The same ones are asked for again for a higher key, and then are known.
        sample = [child for child in node.children[::step] if child in others] or others
        return len(others) * sum(map(self._size, sample)) / len(sample) + self._size(last)

    def _node(self, pointer: Pointer) -> Node:
        node = self.read(pointer)
        assert isinstance(node, Node)
        return node

    def _leaves(
        self,
        pointer: Pointer,
        min_key: int,
        max_key: int,
        on_unreadable: UnreadableHandler,
        level: int = 0,
    ) -> Iterator[list[Pointer]]:
        """Yield the leaves that may hold keys between two keys, all below one node at a time.

        Or instead of leaves the blocks of another level, which is not above that of the pointer.
        """
        if pointer.level == level:
            yield [pointer]
            return
        node = self._read_or_skip(pointer, on_unreadable)
        if node is None:
            return
        assert isinstance(node, Node)
        children = node.children_between(min_key, max_key)
        if pointer.level == level + 1:
            yield children
            return
        for child in children:
            yield from self._leaves(child, min_key, max_key, on_unreadable, level)

    def _read_or_skip(
        self, pointer: Pointer, on_unreadable: UnreadableHandler
    ) -> Leaf | Node | None:
        try:
            return self.read(pointer)
        except UNREADABLE as error:
            on_unreadable(pointer.min_key or 0, pointer.max_key, error)
            return None


_Value = TypeVar("_Value")


def _remember(
    known: OrderedDict[Pointer, _Value], pointer: Pointer, value: _Value, most: int
) -> None:
    """Add something to what is known, and forget the oldest if that is too much."""
    known[pointer] = value
    if len(known) > most:
        known.popitem(last=False)
