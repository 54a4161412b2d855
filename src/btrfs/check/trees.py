"""Every tree from its root to its leaves: all blocks pass the checks, and so do all items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from btrfs.check.items import ItemRules
from btrfs.check.leaves import Crossings
from btrfs.check.report import Checked, Progress
from btrfs.check.tree_walk import TreeWalk
from btrfs.errors import CorruptError, TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import key_objectid_str
from btrfs.ondisk.text import counted
from btrfs.ownership.owners import Kind, Owner, owner_of
from btrfs.source.disk.node import root_pointer
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.store import UNREADABLE

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["TreeCheck"]

_ROOT_TREE = constants.ROOT_TREE_OBJECTID


class TreeCheck:
    """Checks all trees, and keeps what others compare.

    Args:
        fs: The filesystem.
        source: Its source.
        rules: The rules for single items.
        checked: Where the findings go.
    """

    def __init__(
        self, fs: FileSystem, source: DiskSource, rules: ItemRules, checked: Checked
    ) -> None:
        self._fs = fs
        self._source = source
        self._rules = rules
        self._checked = checked

    def trees(self, crossings: Crossings | None, progress: Progress) -> TreeWalk:
        """Read all trees but the log trees.

        The leaves of the extent tree are not among them: these are read in the order of their keys,
        by :mod:`btrfs.check.extents`.

        Args:
            crossings: What is compared across trees; None to look at single items alone.
            progress: Is called with how many leaves are read, and how many there are.
        """
        owners = list(self._owners())
        apart = {constants.EXTENT_TREE_OBJECTID}
        walk = TreeWalk(self._source, owners, self._rules, crossings, apart)
        walk.run(progress)
        self._report(walk)
        self._require_trees()
        return walk

    def log_trees(self, progress: Progress) -> TreeWalk:
        """Read the log trees, if there are any."""
        owners = list(self._log_owners())
        walk = TreeWalk(self._source, owners, self._rules, None, set())
        walk.run(progress)
        self._report(walk)
        return walk

    def finish(self, extent_items: int) -> None:
        """Fill in the summary.

        Args:
            extent_items: How many items the extent tree has.
        """
        checked = self._checked
        for row in checked.details:
            if row["tree"] == constants.EXTENT_TREE_OBJECTID:
                row["items"] = extent_items
        items = checked.counts["items"] + extent_items
        checked.counts = {"trees": len(checked.details), **checked.counts, "items": items}
        trees, blocks = len(checked.details), checked.counts["blocks"]
        checked.summary = (
            f"{counted(trees, 'tree')}, {counted(blocks, 'block')}, {counted(items, 'item')}"
        )

    def _report(self, walk: TreeWalk) -> None:
        """Report what is wrong with items and headers, and count."""
        for part in walk.leaves.parts:
            for problem in part.problems:
                if problem.inum is not None:
                    continue
                tree = walk.tree_of(problem.leaf)
                self._checked.add(
                    problem.kind,
                    f"{problem.key} in tree {tree}{f': {problem.why}' if problem.why else ''}",
                    tree=tree,
                    key=str(problem.key),
                    expected=problem.expected,
                    found=problem.found,
                )
        for vaddr, tree, owner in walk.wrong_owners():
            self._checked.add(
                "block-owner",
                f"tree block at {vaddr} in {_name(tree)}: of {_name(owner)}",
                tree=tree,
                vaddr=vaddr,
            )
        for vaddr, tree in walk.unwritten():
            self._checked.add(
                "block-unwritten",
                f"tree block at {vaddr} in {_name(tree)}: its flag WRITTEN is not set",
                tree=tree,
                vaddr=vaddr,
            )
        for tree_owner, row in zip(walk.owners, walk.details(), strict=True):
            self._checked.details.append({**row, "name": _name_of(tree_owner)})
        counts = self._checked.counts
        counts["blocks"] = counts.get("blocks", 0) + len(walk.blocks().vaddr)
        counts["items"] = counts.get("items", 0) + walk.items()

    def _require_trees(self) -> None:
        """Check that no tree is missing that each filesystem has, or that its features ask for."""
        for number in _needed(self._fs):
            try:
                self._source.root(number)
            except TreeNotFoundError:
                self._checked.add("tree-missing", f"tree {number}, {_name(number)}", tree=number)
            except UNREADABLE as error:
                self._source.skip_or_raise(number, 0, KEY_MAX, error)

    def _owners(self) -> Iterator[Owner]:
        """Yield all trees but the log trees."""
        for number in (_ROOT_TREE, constants.CHUNK_TREE_OBJECTID):
            try:
                yield Owner(number, Kind.INTERNAL, self._source.root(number))
            except UNREADABLE as error:
                self._source.skip_or_raise(number, 0, KEY_MAX, error)
        generation = self._source.superblock.generation
        for item in self._fs.search(_ROOT_TREE):
            if isinstance(item, RootItem):
                self._check_generation(item, generation)
                try:
                    yield owner_of(item)
                except CorruptError as error:
                    self._checked.add("item-damaged", str(error), tree=_ROOT_TREE)

    def _log_owners(self) -> Iterator[Owner]:
        """Yield the tree of log trees, and these."""
        if not self._source.superblock.log_root:
            return
        number = constants.TREE_LOG_OBJECTID
        yield Owner(number, Kind.INTERNAL, self._source.root(number))
        # They belong to the transaction after the last commit.
        generation = self._source.superblock.generation + 1
        for item in self._fs.log_trees():
            self._check_generation(item, generation)
            try:
                yield Owner(number, Kind.INTERNAL, root_pointer(item), item=item)
            except CorruptError as error:
                self._checked.add("item-damaged", str(error), tree=number)

    def _check_generation(self, item: RootItem, generation: int) -> None:
        if item.generation > generation:
            self._checked.add(
                "item-damaged",
                f"{item.key} in tree {_ROOT_TREE}: of a generation that has not been yet",
                tree=_ROOT_TREE,
                key=str(item.key),
                expected=f"{generation} at most",
                found=item.generation,
            )


def _needed(fs: FileSystem) -> Iterator[int]:
    """Yield the numbers of the trees that a filesystem with these features must have."""
    features = fs.features()
    yield constants.EXTENT_TREE_OBJECTID
    yield constants.DEV_TREE_OBJECTID
    yield constants.FS_TREE_OBJECTID
    yield constants.CSUM_TREE_OBJECTID
    if features.compat_ro_flags & constants.FEATURE_COMPAT_RO_FREE_SPACE_TREE:
        yield constants.FREE_SPACE_TREE_OBJECTID
    if features.compat_ro_flags & constants.FEATURE_COMPAT_RO_BLOCK_GROUP_TREE:
        yield constants.BLOCK_GROUP_TREE_OBJECTID
    if features.incompat_flags & constants.FEATURE_INCOMPAT_RAID_STRIPE_TREE:
        yield constants.RAID_STRIPE_TREE_OBJECTID


def _name(number: int) -> str:
    return key_objectid_str(number, constants.ROOT_ITEM_KEY).lower().replace("_", " ")


def _name_of(owner: Owner) -> str:
    name = _name(owner.tree)
    if owner.tree == constants.TREE_LOG_OBJECTID:
        return "log root tree" if owner.item is None else f"log of tree {owner.item.key.offset}"
    if owner.kind is Kind.RELOCATION:
        assert owner.item is not None
        return f"balance of tree {_name(owner.item.key.offset)}"
    if owner.kind is Kind.DELETED:
        return f"deleted subvolume {name}"
    if constants.FIRST_FREE_OBJECTID <= owner.tree <= constants.LAST_FREE_OBJECTID:
        return f"subvolume {name}"
    return name
