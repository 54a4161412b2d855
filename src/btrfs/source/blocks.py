"""What a source can do beyond items where it sees tree blocks: inner nodes, and trees by address.

The kernel does not show blocks, so they are read from the devices:
:meth:`btrfs.filesystem.FileSystem.block_source` returns such a source.

If the filesystem is mounted, blocks may be overwritten while they are read, see
:mod:`btrfs.source.live`. Then :class:`btrfs.errors.StaleError` says so, and
:meth:`BlockSource.refresh` makes the source show the last commit. Pointers belong to the commit
that they were read from: who keeps some over a refresh reads them with the ``trees`` of before,
which still know that the blocks may be gone, or begins again from the roots.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import Key
from btrfs.source.base import OnError, Source
from btrfs.source.disk.node import Leaf, Node, Pointer
from btrfs.source.disk.store import UnreadableHandler
from btrfs.source.disk.superblock import Superblock
from btrfs.source.disk.tree import TreeReader

__all__ = ["BlockSource"]


class BlockSource(Source, Protocol):
    """A source that shows tree blocks.

    Attributes:
        on_error: Whether a block that cannot be read is an error, or is left out.
        superblock: That of the commit that it shows; its generation tells which one that is.
        trees: Reads the blocks of that commit.
    """

    on_error: OnError
    superblock: Superblock
    trees: TreeReader

    def root(self, tree: int) -> Pointer:
        """Return where the root of a tree is.

        Raises:
            TreeNotFoundError: There is no such tree.
            CorruptError: The block that says where it is cannot be read.
        """

    def read_block(self, pointer: Pointer) -> Leaf | Node:
        """Return a block that has passed all checks.

        Raises:
            CorruptError: It has no copy that passes them.
            MissingDeviceError: All copies are on devices that are missing.
            StaleError: It has none, and there is a newer commit than the one shown.
        """

    def blocks(
        self,
        root: Pointer,
        level: int,
        min_key: int,
        max_key: int,
        on_unreadable: UnreadableHandler,
    ) -> Iterator[Pointer]:
        """Yield where the blocks of one level of a tree are that may hold keys between two keys.

        Args:
            root: Root of the tree.
            level: Level of the blocks, 0 for leaves; there are none above the root.
            min_key: The lowest key, as a number.
            max_key: The highest key.
            on_unreadable: What to do where no copy of a block further up passes all checks.
        """

    def search_root(
        self, root: RootItem, min_key: Key, max_key: Key
    ) -> Iterator[tuple[SearchHeader, Bytes]]:
        """Yield header and body of items of the tree that a root item leads to.

        For trees that have no number of their own: log trees, subvolumes that are deleted, and
        what a balance is moving.

        Raises:
            CorruptError: A tree block has no copy that passes all checks.
        """

    def blocks_from(self, root: RootItem, key: Key) -> float:
        """Return about how many blocks of a tree there are from a key on.

        Args:
            root: Root of the tree, which may be one that is being removed, up to that key.
            key: The key.

        Raises:
            CorruptError: A tree block is damaged.
        """
