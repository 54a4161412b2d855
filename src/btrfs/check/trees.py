"""Every tree from its root to its leaves: all blocks pass the checks, and so do all items.

Trees share blocks: a snapshot has those of its original that have not changed since. Each block is
read once, so that the time depends on how much metadata there is, and not on how many snapshots.
The addresses of all blocks are kept, to be compared with the extent tree.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.items import ItemFormat, ItemRules, Problem
from btrfs.check.report import Checked
from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import key_objectid_str
from btrfs.ondisk.text import counted
from btrfs.source.disk.bulk import BulkReader
from btrfs.source.disk.node import Header, Node, Pointer, root_pointer
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.store import UNREADABLE

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["Blocks", "check_trees", "is_subvolume"]


class Blocks(NamedTuple):
    """Tree blocks that are in use, in the order of their addresses; an entry per block in each.

    Attributes:
        vaddr: Virtual addresses, uint64.
        generation: Generations, uint64.
        level: Levels, uint8.
    """

    vaddr: NDArray[np.uint64]
    generation: NDArray[np.uint64]
    level: NDArray[np.uint8]


class Tree(NamedTuple):
    """A tree to be walked.

    Attributes:
        number: Its number, or TREE_LOG or TREE_RELOC for those of a subvolume.
        name: What it is called.
        root: Its root block.
        min_key: Where it begins: what comes before is removed already.
    """

    number: int
    name: str
    root: Pointer
    min_key: int = 0


def check_trees(fs: FileSystem, source: DiskSource, checked: Checked) -> tuple[Blocks, Blocks]:
    """Walk all trees.

    Args:
        fs: The filesystem.
        source: Its source.
        checked: Where the findings go.

    Returns:
        The blocks of all trees but the log trees, and those of the log trees.
    """
    walk = _Walk(fs, source, checked)
    for tree in _trees(fs, source, checked):
        walk.tree(tree)
    _require_trees(fs, source, checked)
    blocks = walk.blocks()
    walk.forget_blocks()
    for tree in _log_trees(fs, source, checked):
        walk.tree(tree)
    log_blocks = walk.blocks()
    count = len(blocks.vaddr) + len(log_blocks.vaddr)
    items = sum(row["items"] for row in checked.details)
    checked.counts = {"trees": len(checked.details), "blocks": count, "items": items}
    checked.summary = (
        f"{counted(len(checked.details), 'tree')}, {counted(count, 'block')},"
        f" {counted(items, 'item')}"
    )
    return blocks, log_blocks


def _require_trees(fs: FileSystem, source: DiskSource, checked: Checked) -> None:
    """Check that no tree is missing that each filesystem has, or that its features ask for."""
    features = fs.features()
    needed = [
        constants.EXTENT_TREE_OBJECTID,
        constants.DEV_TREE_OBJECTID,
        constants.FS_TREE_OBJECTID,
        constants.CSUM_TREE_OBJECTID,
    ]
    if features.compat_ro_flags & constants.FEATURE_COMPAT_RO_FREE_SPACE_TREE:
        needed.append(constants.FREE_SPACE_TREE_OBJECTID)
    if features.compat_ro_flags & constants.FEATURE_COMPAT_RO_BLOCK_GROUP_TREE:
        needed.append(constants.BLOCK_GROUP_TREE_OBJECTID)
    if features.incompat_flags & constants.FEATURE_INCOMPAT_RAID_STRIPE_TREE:
        needed.append(constants.RAID_STRIPE_TREE_OBJECTID)
    for number in needed:
        try:
            source.root(number)
        except TreeNotFoundError:
            checked.add("tree-missing", f"tree {number}, {_name(number)}", tree=number)
        except UNREADABLE as error:
            source.skip_or_raise(number, 0, KEY_MAX, error)


def is_subvolume(tree: int) -> bool:
    """Return whether a tree is one of files, which may share blocks with others."""
    return (
        tree in (constants.FS_TREE_OBJECTID, constants.DATA_RELOC_TREE_OBJECTID)
        or tree == constants.TREE_RELOC_OBJECTID
        or constants.FIRST_FREE_OBJECTID <= tree <= constants.LAST_FREE_OBJECTID
    )


def _trees(fs: FileSystem, source: DiskSource, checked: Checked) -> Iterator[Tree]:
    """Yield all trees but the log trees."""
    for number in (constants.ROOT_TREE_OBJECTID, constants.CHUNK_TREE_OBJECTID):
        try:
            yield Tree(number, _name(number), source.root(number))
        except UNREADABLE as error:
            source.skip_or_raise(number, 0, KEY_MAX, error)
    for item in fs.search(constants.ROOT_TREE_OBJECTID):
        if isinstance(item, RootItem):
            yield from _tree_of(item, _name_of(item), source.superblock.generation, checked)


def _log_trees(fs: FileSystem, source: DiskSource, checked: Checked) -> Iterator[Tree]:
    """Yield the tree of log trees, and these."""
    number = constants.TREE_LOG_OBJECTID
    if not source.superblock.log_root:
        return
    yield Tree(number, "log root tree", source.root(number))
    for item in fs.log_trees():
        # They belong to the transaction after the last commit.
        generation = source.superblock.generation + 1
        yield from _tree_of(item, f"log of tree {item.key.offset}", generation, checked)


def _tree_of(item: RootItem, name: str, generation: int, checked: Checked) -> Iterator[Tree]:
    """Yield the tree that a root item leads to, which is of that generation at most."""
    if item.generation > generation:
        checked.add(
            "item-damaged",
            f"{item.key} in tree {constants.ROOT_TREE_OBJECTID}: of generation {item.generation},"
            " which has not been yet",
            tree=constants.ROOT_TREE_OBJECTID,
        )
    try:
        root = root_pointer(item)
    except UNREADABLE as error:
        checked.add("item-damaged", str(error), tree=constants.ROOT_TREE_OBJECTID)
        return
    # A balance notes in the same field what it has moved so far, but nothing of that tree is gone.
    yield Tree(item.objectid, name, root, 0 if item.refs else item.drop_progress.key)


def _name(number: int) -> str:
    return key_objectid_str(number, constants.ROOT_ITEM_KEY).lower().replace("_", " ")


def _name_of(item: RootItem) -> str:
    if item.objectid == constants.TREE_RELOC_OBJECTID:
        return f"balance of tree {_name(item.key.offset)}"
    name = _name(item.objectid)
    if not constants.FIRST_FREE_OBJECTID <= item.objectid <= constants.LAST_FREE_OBJECTID:
        return name
    return f"subvolume {name}" if item.refs else f"deleted subvolume {name}"


class _Walk:
    """Walks over trees, and remembers which blocks it has seen.

    Args:
        fs: The filesystem.
        source: Its source.
        checked: Where the findings go.
    """

    def __init__(self, fs: FileSystem, source: DiskSource, checked: Checked) -> None:
        self._fs = fs
        self._source = source
        self._checked = checked
        self._rules = ItemRules(ItemFormat.of(source.superblock))
        # Each as one number: a tuple would take twice the memory.
        self._seen: set[int] = set()
        self._bounds: set[int] = set()
        self._vaddrs, self._generations, self._levels = array("Q"), array("Q"), array("B")

    def tree(self, tree: Tree) -> None:
        """Read what has not been read yet of a tree, and check it."""
        on_unreadable = partial(self._source.skip_or_raise, tree.number)
        reader = self._source.trees
        bulk = BulkReader(reader.store, reader.block_format, self._source.log, on_unreadable)
        blocks, items = len(self._vaddrs), 0
        leaves = self._new_leaves(tree, tree.root)
        for batch in bulk.batches(leaves, 0, KEY_MAX):
            self._check_owners(tree, batch)
            items += len(batch)
            # Leaves follow one another in the buffer.
            for problem in self._rules.check(batch, batch.body // self._fs.nodesize, tree.number):
                self._add_problem(problem, tree.number)
        self._checked.details.append(
            {
                "tree": tree.number,
                "name": tree.name,
                "blocks": len(self._vaddrs) - blocks,
                "items": items,
            }
        )

    def _new_leaves(self, tree: Tree, pointer: Pointer) -> Iterator[Pointer]:
        """Yield the leaves below a block that no other tree has led to."""
        bounds = hash(pointer)
        if bounds in self._bounds:
            return
        self._bounds.add(bounds)
        is_new = self._add(pointer)
        if pointer.level == 0 and is_new:
            yield pointer
            return
        # Of a leaf that is known, another tree may say that its keys lie between others.
        try:
            node = self._source.trees.read(pointer)
        except UNREADABLE as error:
            self._source.skip_or_raise(tree.number, pointer.min_key or 0, pointer.max_key, error)
            return
        if not isinstance(node, Node):
            return
        for child in node.children_between(tree.min_key, KEY_MAX):
            yield from self._new_leaves(tree, child)

    def _add(self, pointer: Pointer) -> bool:
        """Remember a block; return whether it is new."""
        vaddr, generation, level = pointer[:3]
        number = (generation << 68) + (vaddr << 4) + level
        if number in self._seen:
            return False
        self._seen.add(number)
        self._vaddrs.append(vaddr)
        self._generations.append(generation)
        self._levels.append(level)
        return True

    def _add_problem(self, problem: Problem, tree: int) -> None:
        key = str(problem.key)
        why = f": {problem.why}" if problem.why else ""
        self._checked.add(
            problem.kind,
            f"{key} in tree {tree}{why}",
            tree=tree,
            key=key,
            expected=problem.expected,
            found=problem.found,
        )

    def _check_owners(self, tree: Tree, batch: ItemBatch) -> None:
        """Check which trees the leaves of a batch say that they belong to."""
        nodesize = self._fs.nodesize
        count = len(batch.buffer) // nodesize
        headers = np.ndarray((count,), Header.dtype, batch.buffer, 0, (nodesize,))
        for owner in np.unique(headers["owner"]).tolist():
            # Of snapshots of snapshots, any can have written a block that they share.
            if owner == tree.number or (is_subvolume(owner) and is_subvolume(tree.number)):
                continue
            for vaddr in headers["bytenr"][headers["owner"] == owner].tolist():
                self._checked.add(
                    "block-owner",
                    f"tree block at {vaddr} in {tree.name}: of {_name(owner)}",
                    tree=tree.number,
                    vaddr=vaddr,
                )

    def blocks(self) -> Blocks:
        """Return the blocks seen, but for those that are not what they should be."""
        damage = self._source.log.damage
        lost = [bad.vaddr for bad in damage if bad.vaddr is not None and not bad.recovered]
        vaddrs = np.array(self._vaddrs, np.uint64)
        order = np.argsort(vaddrs, kind="stable")
        order = order[~np.isin(vaddrs[order], np.array(lost, np.uint64))]
        generations, levels = np.array(self._generations, np.uint64), np.array(self._levels)
        return Blocks(vaddrs[order], generations[order], levels[order].astype(np.uint8))

    def forget_blocks(self) -> None:
        """Begin a new list of blocks; they are still not read again."""
        self._vaddrs, self._generations, self._levels = array("Q"), array("Q"), array("B")
