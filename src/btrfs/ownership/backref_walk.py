"""Walks along references: from tree blocks up to trees, and from data extents to files.

One reference can stand for many: a snapshot is nothing but a second way down to the same leaves. So
from each leaf with a use of an extent, all ways up to the roots are followed, by what the extent
tree says about each block on the way (:mod:`btrfs.ownership.extent_refs`). That is what
fs/btrfs/backref.c does for the ioctl LOGICAL_INO.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from heapq import nsmallest
from itertools import chain, islice, product
from typing import TYPE_CHECKING, NamedTuple

from btrfs.errors import BtrfsError, CorruptError, TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX, ULLONG_MAX
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.items.file_extent import FileExtentItem
from btrfs.ondisk.key import Key
from btrfs.ownership.extent_refs import ExtentRefs, read_extent
from btrfs.source.blocks import BlockSource
from btrfs.source.disk.node import Leaf, Node, Pointer, root_pointer
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.store import UNREADABLE

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["BackrefWalk", "FileRef"]

# So many extents and blocks are looked at for one answer, which takes some seconds.
_MAX_LOOKUPS = 10_000

# The largest offset in a file.
_MAX_OFFSET = (1 << 63) - 1

# BTRFS_MAX_UNCOMPRESSED, in fs/btrfs/compression.h: so much is in a compressed extent.
_MAX_UNCOMPRESSED = 128 << 10

# Where in a file extent item the address of the extent is.
_DISK_BYTENR = slice(21, 29)


class FileRef(NamedTuple):
    """A place in a file that uses an extent.

    Attributes:
        tree: Number of the subvolume.
        inum: Inode number in it.
        offset: Where in the file, in bytes: of the very byte that was asked for, or where the file
            extent item begins if the extent is compressed or all of it was asked for.
    """

    tree: int
    inum: int
    offset: int


class _Use(NamedTuple):
    """A place in a file, in whichever trees it is."""

    inum: int
    offset: int


_Part = tuple[int, int]
"""A part of an extent: the offset of its first byte, and how many bytes it has."""


class BackrefWalk:
    """Follows references upwards, and remembers what it came across.

    Args:
        fs: The filesystem.

    Attributes:
        complete: Whether nothing was left out so far.
    """

    def __init__(self, fs: FileSystem) -> None:
        self.complete = True
        self._fs = fs
        # None if the kernel is asked, which shows no blocks.
        self._source: BlockSource | None = fs.source if isinstance(fs.source, DiskSource) else None
        self._lookups_left = _MAX_LOOKUPS
        self._extents: dict[int, ExtentRefs | None] = {}
        self._trees: dict[int, frozenset[int]] = {}
        self._roots: dict[int, Pointer | None] = {}

    # Upwards, from a tree block to the trees that it is part of.

    def trees_of(self, vaddr: int) -> frozenset[int]:
        """Return the trees that the tree block at an address is part of."""
        if vaddr not in self._trees:
            block = self._block(vaddr)
            trees: set[int] = set()
            if block is not None:
                for tree in block.trees:
                    trees |= self._trees_through(tree, block)
                for parent in block.parents:
                    trees |= self._trees_above(parent, block)
            self._trees[vaddr] = frozenset(trees)
        return self._trees[vaddr]

    def _trees_above(self, parent: int, block: ExtentRefs) -> frozenset[int]:
        """Return the trees that the block above another is part of.

        As levels rise on the way up, there is an end to it, whatever the references say. The root
        of a tree that a balance moves refers to itself.
        """
        above = self._block(parent)
        if above is None or above.level != block.level + 1:
            return frozenset()
        return self.trees_of(parent)

    def _trees_through(self, tree: int, block: ExtentRefs) -> frozenset[int]:
        """Return a tree that has a block, and those that share what is above the block in it."""
        itself = frozenset((tree,))
        if self._source is None:
            self.complete &= not _is_subvolume(tree)
            return itself
        root = self._root(tree)
        if root is None:
            return frozenset()
        if root.vaddr == block.vaddr:
            return itself
        key = self._first_key(block)
        if key is None:
            return itself
        for above in self._blocks(tree, block.level + 1, key, key):
            return itself | self._trees_above(above.vaddr, block)
        return itself

    def _first_key(self, block: ExtentRefs) -> int | None:
        """Return the first key in a block as a number; None if it cannot be read."""
        content = self._read(_pointer(block))
        if isinstance(content, Node):
            return content.children[0].min_key
        if isinstance(content, Leaf):
            for header, _ in content.items(0, KEY_MAX):
                return Key(header.objectid, header.type, header.offset).key
        return None

    # Downwards, to the files that use data.

    def files(
        self, extent: ExtentRefs, offset: int | None, limit: int, length: int = 1
    ) -> tuple[list[FileRef], int]:
        """Return the first places in files that use an extent of data, and how many there are.

        Args:
            extent: The extent.
            offset: The first byte in it, in bytes from its beginning; None for any.
            limit: How many places to return.
            length: How many bytes from there on, of which one is enough.
        """
        self.complete &= extent.complete
        total = 0
        files: list[FileRef] = []
        for pointer, known in self._leaves(extent):
            uses = self._uses(pointer, extent, None if offset is None else (offset, length))
            trees = known | self.trees_of(pointer.vaddr) if uses else known
            total += len(uses) * len(trees)
            found = (FileRef(tree, *use) for tree, use in product(sorted(trees), uses))
            files = nsmallest(limit, chain(files, islice(found, limit)))
        return files, total

    def _leaves(self, extent: ExtentRefs) -> Iterable[tuple[Pointer, set[int]]]:
        """Return the leaves that may refer to an extent of data, and trees known to have each."""
        leaves: dict[int, tuple[Pointer, set[int]]] = {}
        for tree, first, last in _ranges(extent):
            for pointer in self._blocks(tree, 0, first, last):
                if pointer.vaddr not in leaves and not self._may_look():
                    break
                leaves.setdefault(pointer.vaddr, (pointer, set()))[1].add(tree)
        for parent in extent.parents:
            block = self._block(parent)
            if block is not None:
                leaves.setdefault(parent, (_pointer(block), set()))
        return leaves.values()

    def _uses(self, pointer: Pointer, extent: ExtentRefs, part: _Part | None) -> list[_Use]:
        """Return the uses of an extent, or of a part of it, in a leaf."""
        leaf = self._read(pointer)
        if not isinstance(leaf, Leaf):
            return []
        disk_bytenr = extent.vaddr.to_bytes(8, "little")
        uses = []
        for header, data in leaf.items(0, KEY_MAX):
            if header.type == constants.EXTENT_DATA_KEY and data[_DISK_BYTENR] == disk_bytenr:
                place = self._place(header, data, part)
                if place is not None:
                    uses.append(_Use(header.objectid, place))
        return uses

    def _place(self, header: SearchHeader, data: Bytes, part: _Part | None) -> int | None:
        """Return where in its file a file extent item has a part of its extent, if it has.

        That is check_extent_in_eb() in fs/btrfs/backref.c.
        """
        try:
            item = FileExtentItem(header, data)
        except CorruptError as error:
            self._skip(error)
            return None
        if item.type == constants.FILE_EXTENT_INLINE:
            return None
        encoded = item.compression or item.encryption or item.other_encoding
        if part is None or encoded:
            return item.logical_offset
        offset, length = part
        first = max(offset - item.offset, 0)
        end = min(offset + length - item.offset, item.num_bytes)
        return item.logical_offset + first if first < end else None

    def leaf_at(self, vaddr: int) -> Leaf | None:
        """Return the leaf at an address; None if there is none that can be read."""
        block = self._block(vaddr)
        leaf = None if block is None else self._read(_pointer(block))
        return leaf if isinstance(leaf, Leaf) else None

    # What both need.

    def _block(self, vaddr: int) -> ExtentRefs | None:
        """Return the extent of a tree block, None if there is none that can be read."""
        if vaddr not in self._extents:
            block = read_extent(self._fs, vaddr) if self._may_look() else None
            if block is not None and (block.is_data or block.level >= constants.MAX_LEVEL):
                block = None
            self.complete &= block is not None and block.complete
            self._extents[vaddr] = block
        return self._extents[vaddr]

    def _blocks(self, tree: int, level: int, first: int, last: int) -> Iterator[Pointer]:
        """Yield the blocks of a level of a tree that may hold keys between two keys."""
        root = self._root(tree)
        if root is None or self._source is None:
            return
        on_unreadable = partial(self._skip_keys, tree)
        yield from self._source.blocks(root, level, first, last, on_unreadable)

    def _root(self, tree: int) -> Pointer | None:
        """Return where the root of a tree is, be it deleted; None if there is no such tree."""
        if tree not in self._roots:
            self._roots[tree] = self._find_root(tree)
        return self._roots[tree]

    def _find_root(self, tree: int) -> Pointer | None:
        assert self._source is not None
        try:
            try:
                return self._source.root(tree)
            except TreeNotFoundError:
                deleted = list(self._fs.subvolumes(tree, tree))
                return root_pointer(deleted[-1]) if deleted else None
        except UNREADABLE as error:
            self._skip_keys(tree, 0, KEY_MAX, error)
            return None

    def _read(self, pointer: Pointer) -> Leaf | Node | None:
        """Return a block; None if it cannot be read and that is to be skipped."""
        assert self._source is not None
        if not self._may_look():
            return None
        try:
            return self._source.read_block(pointer)
        except UNREADABLE as error:
            self._skip(error)
            return None

    def _skip(self, error: BtrfsError) -> None:
        """Raise an error, unless what is damaged is to be skipped."""
        assert self._source is not None
        if self._source.on_error == "raise":
            raise error
        self.complete = False

    def _skip_keys(self, tree: int, min_key: int, max_key: int, error: BtrfsError) -> None:
        assert self._source is not None
        self._source.skip_or_raise(tree, min_key, max_key, error)
        self.complete = False

    def _may_look(self) -> bool:
        """Return whether there has not been too much to look at so far."""
        self._lookups_left -= 1
        self.complete &= self._lookups_left >= 0
        return self._lookups_left >= 0


def _ranges(extent: ExtentRefs) -> Iterator[tuple[int, int, int]]:
    """Yield tree, lowest and highest key of where inodes may refer to an extent of data."""
    span = max(extent.length, _MAX_UNCOMPRESSED)
    wanted: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for ref in extent.inodes:
        # What is used from the middle of an extent on may begin in the file before that middle:
        # then the offset of the reference is below zero, and wraps around.
        offset = ref.offset if ref.offset <= _MAX_OFFSET else ref.offset - ULLONG_MAX - 1
        wanted[ref.root, ref.objectid].append((offset, offset + span - 1))
    # In that order, since the blocks on the way to neighbours are the same.
    for (tree, inum), ranges in sorted(wanted.items()):
        for first, last in _merged(ranges):
            if last >= 0:
                yield (
                    tree,
                    Key(inum, constants.EXTENT_DATA_KEY, max(first, 0)).key,
                    Key(inum, constants.EXTENT_DATA_KEY, last).key,
                )


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges, both ends included, with those put together that overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _pointer(block: ExtentRefs) -> Pointer:
    """Return where a tree block is, and of what generation and level."""
    return Pointer(block.vaddr, block.generation, block.level)


def _is_subvolume(tree: int) -> bool:
    first, last = constants.FIRST_FREE_OBJECTID, constants.LAST_FREE_OBJECTID
    return tree == constants.FS_TREE_OBJECTID or first <= tree <= last
