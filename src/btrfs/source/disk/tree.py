"""Trees of an unmounted filesystem: from a root down to the items between two keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from btrfs.items.base import SearchHeader
from btrfs.source.disk.node import BlockFormat, Leaf, Node, Pointer
from btrfs.source.disk.store import BlockStore, read_block

if TYPE_CHECKING:
    from btrfs.columns import ItemBatch

__all__ = ["TreeReader"]

# A look-up needs a path from the root to a leaf. A parsed block takes some 100 KiB.
_CACHED_BLOCKS = 16

# So many of the children of a node tell how large the others are.
_SAMPLES = 8


class TreeReader:
    """Reads trees from a store of blocks.

    Args:
        store: Where the blocks are.
        block_format: What they have in common.
    """

    def __init__(self, store: BlockStore, block_format: BlockFormat) -> None:
        self._store = store
        self._format = block_format
        # Blocks that have been checked: a look-up begins with the same few each time.
        self._cache: OrderedDict[Pointer, Leaf | Node] = OrderedDict()
        # What is below some nodes, in blocks.
        self._sizes: dict[Pointer, float] = {}

    def items(
        self, root: Pointer, min_key: int, max_key: int
    ) -> Iterator[tuple[SearchHeader, memoryview]]:
        """Yield header and body of the items of a tree between two keys, both included.

        Raises:
            CorruptError: A block has no copy that passes all checks.
        """
        for leaves in self._leaves(root, min_key, max_key):
            for pointer in leaves:
                leaf = self._read(pointer)
                assert isinstance(leaf, Leaf)
                yield from leaf.items(min_key, max_key)

    def batches(self, root: Pointer, min_key: int, max_key: int) -> Iterator[ItemBatch]:
        """Yield the same items many at a time.

        Raises:
            CorruptError: A block has no copy that passes all checks.
        """
        from btrfs.source.disk.bulk import read_batches

        leaves = chain.from_iterable(self._leaves(root, min_key, max_key))
        return read_batches(leaves, self._store, self._format, min_key, max_key)

    def blocks_from(self, root: Pointer, key: int) -> float:
        """Return about how many blocks of a tree there are from a key on.

        The path to the key is followed. How much there is behind it is estimated from some of the
        blocks there. No block is read that only holds lower keys.

        Raises:
            CorruptError: A block has no copy that passes all checks.
        """
        if root.level == 0:
            return 1.0
        node = self._node(root)
        at_key, *behind = node.children_between(key, root.max_key)
        return 1 + self.blocks_from(at_key, key) + self._blocks_below(behind, node)

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
        node = self._read(pointer)
        assert isinstance(node, Node)
        return node

    def _leaves(self, pointer: Pointer, min_key: int, max_key: int) -> Iterator[list[Pointer]]:
        """Yield the leaves that may hold keys between two keys, all below one node at a time."""
        if pointer.level == 0:
            yield [pointer]
            return
        children = self._node(pointer).children_between(min_key, max_key)
        if pointer.level == 1:
            yield children
            return
        for child in children:
            yield from self._leaves(child, min_key, max_key)

    def _read(self, pointer: Pointer) -> Leaf | Node:
        if pointer in self._cache:
            self._cache.move_to_end(pointer)
        else:
            self._cache[pointer] = read_block(self._store, self._format, pointer)[1]
            if len(self._cache) > _CACHED_BLOCKS:
                self._cache.popitem(last=False)
        return self._cache[pointer]
