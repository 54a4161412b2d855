"""Who can own space: the subvolumes, and the other trees that hold blocks or data.

Every tree block is reached from the roots of some trees, and every extent of data from leaves of
some. The trees of subvolumes are owners in the eyes of a user. The rest is the filesystem's own:
the root tree with the files of the free space cache, the data relocation tree, in which a balance
collects data that it moves, and trees that hold no data, like the extent tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from btrfs.ondisk import constants
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import DiskKey
from btrfs.source.disk.node import Pointer, root_pointer

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["Kind", "Owner", "is_subvolume", "owner_of", "owners"]


class Kind(Enum):
    """What an owner is.

    A tree of relocation is a snapshot that a balance works on. Its blocks are of the subvolume, so
    it owns only what nothing else does.
    """

    SUBVOLUME = "subvolume"
    DELETED = "deleted subvolume"
    RELOCATION = "relocation"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Owner:
    """A tree as an owner of its blocks, and of the data that its items refer to.

    Attributes:
        tree: Number of the tree.
        kind: What it is.
        pointer: Pointer to its root.
        drop_progress: Of a deleted subvolume, the key that its removal has come to.
        drop_level: Level of the block with that key.
        item: Its root item; None of the root tree and the chunk tree.
    """

    tree: int
    kind: Kind
    pointer: Pointer
    drop_progress: DiskKey | None = None
    drop_level: int = 0
    item: RootItem | None = None

    @property
    def has_files(self) -> bool:
        """Whether its leaves have file extents."""
        return self.kind is not Kind.INTERNAL or self.tree in _WITH_FILES


_WITH_FILES = {constants.ROOT_TREE_OBJECTID, constants.DATA_RELOC_TREE_OBJECTID}


def owners(fs: FileSystem) -> list[Owner]:
    """Return all trees of a filesystem whose blocks are shown: see ``fs.block_source()``.

    Log trees are none of them: their blocks and what only they refer to do not count as used.

    Raises:
        CorruptError: The root tree is damaged.
    """
    source = fs.block_source()
    own = (constants.ROOT_TREE_OBJECTID, constants.CHUNK_TREE_OBJECTID)
    found = [Owner(tree, Kind.INTERNAL, source.root(tree)) for tree in own]
    found += (owner_of(item) for item in _root_items(fs))
    return found


def _root_items(fs: FileSystem) -> Iterator[RootItem]:
    for item in fs.search(constants.ROOT_TREE_OBJECTID):
        if isinstance(item, RootItem):
            yield item


def owner_of(item: RootItem) -> Owner:
    """Return the tree that a root item leads to.

    Raises:
        CorruptError: Its root cannot be there.
    """
    tree = item.objectid
    pointer = root_pointer(item)
    if tree == constants.TREE_RELOC_OBJECTID:
        return Owner(tree, Kind.RELOCATION, pointer, item=item)
    if not is_subvolume(tree):
        return Owner(tree, Kind.INTERNAL, pointer, item=item)
    if item.refs:
        return Owner(tree, Kind.SUBVOLUME, pointer, item=item)
    begun = item.drop_progress.key != 0
    return Owner(
        tree,
        Kind.DELETED,
        pointer,
        item.drop_progress if begun else None,
        item.drop_level,
        item,
    )


def is_subvolume(tree: int) -> bool:
    """Return whether a tree of this number is a subvolume."""
    return tree == constants.FS_TREE_OBJECTID or (
        constants.FIRST_FREE_OBJECTID <= tree <= constants.LAST_FREE_OBJECTID
    )
