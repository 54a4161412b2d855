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

    def _leaves(self, pointer: Pointer, min_key: int, max_key: int) -> Iterator[list[Pointer]]:
        """Yield the leaves that may hold keys between two keys, all below one node at a time."""
        if pointer.level == 0:
            yield [pointer]
            return
        node = self._read(pointer)
        assert isinstance(node, Node)
        children = node.children_between(min_key, max_key)
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
