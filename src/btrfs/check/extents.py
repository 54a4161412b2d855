"""The extent tree: extents against block groups, their references, and tree blocks.

The extent tree can be as large as all other trees together. It is read once, in the order of its
keys, some thousands of extents at a time; of data extents nothing is kept but sums by chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.ahead import worked_ahead
from btrfs.check.block_groups import BlockGroups, block_groups_of, joined_block_groups
from btrfs.check.extent_items import (
    Extents,
    InlineBackrefs,
    extents_of,
    inline_backrefs,
    joined_extents,
    keyed_backrefs,
    no_extents,
)
from btrfs.check.items import ItemRules, Problem
from btrfs.check.items.extents import check_inline_refs
from btrfs.check.items.headers import are_unwritten
from btrfs.check.places import Places, is_lost
from btrfs.check.referrers import Referrers
from btrfs.check.report import Checked
from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX
from btrfs.ondisk.text import block_group_flags_str, counted
from btrfs.source.disk.node import Header
from btrfs.source.lookup import block_group_tree

if TYPE_CHECKING:
    from btrfs.check.tree_walk import BlockTable
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["BlockExtents", "ExtentCheck", "ExtentConsumer"]

_TREE = constants.EXTENT_TREE_OBJECTID


class BlockExtents(NamedTuple):
    """The extents of tree blocks in the order of their addresses.

    Attributes:
        vaddr: Virtual addresses, uint64.
        generation: Generations, uint64.
        level: Levels, or NO_LEVEL, uint8.
        is_full_backref: Whether references of what they hold name them, not their tree.
    """

    vaddr: NDArray[np.uint64]
    generation: NDArray[np.uint64]
    level: NDArray[np.uint8]
    is_full_backref: NDArray[np.bool_]


class ExtentConsumer(NamedTuple):
    """Those who look at extents while they are read.

    Attributes:
        backrefs: Gets the back references.
        extents: Gets the extents, and for each the place that it begins in.
    """

    backrefs: Callable[[Referrers], None]
    extents: Callable[[Extents, NDArray[np.intp]], None]


class _Counted(NamedTuple):
    """Extents, and how many references they have.

    Attributes:
        extents: The extents.
        refs: For how many references their back references stand, uint64.
        is_clear: Whether their items could be understood.
    """

    extents: Extents
    refs: NDArray[np.uint64]
    is_clear: NDArray[np.bool_]

    def followed_by(self, other: _Counted) -> _Counted:
        """Return these and others."""
        if not len(self.refs):
            return other
        return _Counted(
            joined_extents(self.extents, other.extents),
            np.concatenate([self.refs, other.refs]),
            np.concatenate([self.is_clear, other.is_clear]),
        )

    def select(self, chosen: slice) -> _Counted:
        """Return those that a slice chooses."""
        return _Counted(self.extents.select(chosen), self.refs[chosen], self.is_clear[chosen])


class _Decoded(NamedTuple):
    """What is in a batch of items of the extent tree.

    Attributes:
        batch: The items.
        extents: The extents.
        inline: The back references inside their items.
        problems: What is wrong with each item by itself.
    """

    batch: ItemBatch
    extents: Extents
    inline: InlineBackrefs
    problems: list[Problem]


class ExtentCheck:
    """Reads the extent tree, and checks what can be told from it and the block groups.

    Args:
        fs: The filesystem.
        rules: The rules for items.
        places: The chunks, and what lies between them.
        checked: Where the findings go.

    Attributes:
        blocks: The extents of tree blocks, after run().
        block_groups: The block groups, after run().
        items: How many items the extent tree has.
        unclear: Addresses of the extents whose items are damaged, so that nothing can be compared
            with them.
    """

    def __init__(self, fs: FileSystem, rules: ItemRules, places: Places, checked: Checked) -> None:
        self._rules = rules
        self._fs = fs
        self._source = fs.block_source()
        self._places = places
        self._checked = checked
        self._used = np.zeros(len(places), np.uint64)
        self._last = _Counted(no_extents(), np.empty(0, np.uint64), np.empty(0, np.bool_))
        self._unclear = [np.empty(0, np.uint64)]
        self._end = 0
        self._count = 0
        self._blocks: list[BlockExtents] = []
        self.items = 0
        self.unclear = np.empty(0, np.uint64)
        self.block_groups = joined_block_groups([])
        self.blocks = _block_extents(no_extents())

    def run(self, consumer: ExtentConsumer) -> None:
        """Read the tree.

        Args:
            consumer: Those who look at extents, too.
        """
        tree = block_group_tree(self._source)
        groups = list(self._groups_apart(tree))
        try:
            for decoded in worked_ahead(self._fs.batches(_TREE), self._decoded):
                self.items += len(decoded.batch)
                if tree == _TREE:
                    groups.append(block_groups_of(decoded.batch))
                else:
                    self._reject_block_groups(decoded.batch)
                self._take(decoded, consumer)
        except TreeNotFoundError:
            self._checked.skipped = "there is no extent tree"
        self._check_counts(self._last)
        self.unclear = np.concatenate(self._unclear)
        self.block_groups = joined_block_groups(groups)
        columns: Any = map(np.concatenate, zip(self.blocks, *self._blocks, strict=True))
        self.blocks = BlockExtents(*columns)
        self._blocks.clear()

    @property
    def lost_places(self) -> NDArray[np.bool_]:
        """Places of which not all extents could be read."""
        return self._places.lost(self._source, _TREE)

    def finish(self, blocks: BlockTable, *, all_seen: bool) -> None:
        """Compare with block groups and tree blocks, and fill in the summary.

        Args:
            blocks: The tree blocks that are in use.
            all_seen: Whether all trees could be read.
        """
        lost = self.lost_places
        self._check_used(lost)
        self._check_blocks(blocks, lost, all_seen=all_seen)
        self._check_sum()
        count = len(self.block_groups.vaddr)
        self._checked.summary = (
            f"{counted(self._count, 'extent')} in {counted(count, 'block group')}"
        )
        self._checked.counts = {"extents": self._count, "block_groups": count}
        unknown = int(lost.sum())
        if unknown:
            self._checked.skipped = (
                f"not checked where not all can be read: {counted(unknown, 'range')}"
            )

    # Reading.

    def _groups_apart(self, tree: int) -> Iterator[BlockGroups]:
        """Yield the block groups, if they have a tree of their own."""
        if tree == _TREE:
            return
        try:
            for batch in self._fs.batches(tree):
                yield block_groups_of(batch)
        except TreeNotFoundError:
            self._checked.skipped = "there is no tree of block groups"

    def _reject_block_groups(self, batch: ItemBatch) -> None:
        """Report block groups in this tree, while they have a tree of their own."""
        for index in np.flatnonzero(batch.type == constants.BLOCK_GROUP_ITEM_KEY).tolist():
            key = batch.key(index)
            self._checked.add(
                "key-type",
                f"{key} in tree {_TREE}",
                tree=_TREE,
                key=str(key),
                vaddr=key.objectid,
            )

    def _decoded(self, batch: ItemBatch) -> _Decoded:
        """Return what is in a batch, and what is wrong with each item by itself."""
        extents = extents_of(batch, self._fs.nodesize)
        inline = inline_backrefs(batch, extents)
        leaf = batch.body // self._fs.nodesize
        items = self._rules.items(batch, leaf, _TREE)
        check_inline_refs(items, extents, inline)
        problems = [*self._rules.check(batch, leaf, _TREE), *items.problems]
        return _Decoded(batch, extents, inline, problems)

    def _take(self, decoded: _Decoded, consumer: ExtentConsumer) -> None:
        """Look at the items of a batch."""
        batch, extents, inline, problems = decoded
        self._count += len(extents.vaddr)
        self._report(batch, problems)
        is_clear = inline.is_whole & extents.has_kind
        if not is_clear.all():
            self._unclear.append(extents.vaddr[~is_clear])
        # What follows the last extent of a batch comes with the next one.
        known = self._last.followed_by(_Counted(extents, inline.counted, is_clear))
        keyed, owner, alone = keyed_backrefs(batch, known.extents)
        np.add.at(known.refs, owner, keyed.uses)
        self._check_alone(np.unique(batch.objectid[alone]))
        consumer.backrefs(inline.rows)
        consumer.backrefs(keyed)
        place = self._places.of(extents.vaddr)
        consumer.extents(extents, place)
        self._check_places(extents, place)
        self._check_types(extents.select(is_clear), place[is_clear])
        self._blocks.append(_block_extents(extents))
        self._check_counts(known.select(slice(None, -1)))
        self._last = known.select(slice(-1, None))

    # Extents by themselves.

    def _report(self, batch: ItemBatch, problems: list[Problem]) -> None:
        """Report what is wrong with single items, and check the headers of leaves."""
        for problem in problems:
            self._checked.add(
                problem.kind,
                f"{problem.key} in tree {_TREE}{f': {problem.why}' if problem.why else ''}",
                tree=_TREE,
                key=str(problem.key),
                expected=problem.expected,
                found=problem.found,
                vaddr=problem.key.objectid,
            )
        nodesize = self._fs.nodesize
        count = len(batch.buffer) // nodesize
        headers = np.ndarray((count,), Header.dtype, batch.buffer, 0, (nodesize,))
        for vaddr in headers["bytenr"][are_unwritten(headers)].tolist():
            self._checked.add(
                "block-unwritten", f"tree block at {vaddr} in tree {_TREE}", tree=_TREE, vaddr=vaddr
            )
        for index in np.flatnonzero(headers["owner"] != _TREE).tolist():
            vaddr, owner = int(headers["bytenr"][index]), int(headers["owner"][index])
            self._checked.add(
                "block-owner",
                f"tree block at {vaddr} in tree {_TREE}: of tree {owner}",
                tree=_TREE,
                vaddr=vaddr,
            )

    def _check_alone(self, vaddrs: NDArray[np.uint64]) -> None:
        for vaddr in vaddrs.tolist():
            if not is_lost(self._source, _TREE, vaddr, vaddr + 1):
                self._checked.add("reference-alone", f"extent at {vaddr}", tree=_TREE, vaddr=vaddr)

    def _check_counts(self, counted: _Counted) -> None:
        """Check that extents have as many references as they say."""
        extents, found, is_clear = counted
        for index in np.flatnonzero(is_clear & (extents.refs != found)).tolist():
            vaddr = int(extents.vaddr[index])
            # Back references that follow an extent can be in a leaf that cannot be read.
            if not is_lost(self._source, _TREE, vaddr, vaddr + 1):
                self._add(
                    "extent-references",
                    extents,
                    index,
                    f"{extents.refs[index]} according to the item, but there are {found[index]}",
                )

    def _add(self, kind: str, extents: Extents, index: int, why: str) -> None:
        vaddr, length = int(extents.vaddr[index]), int(extents.length[index])
        message = f"extent at {vaddr}, {length} bytes{': ' if why else ''}{why}"
        self._checked.add(kind, message, tree=_TREE, vaddr=vaddr)

    def _check_places(self, extents: Extents, place: NDArray[np.intp]) -> None:
        """Check where extents lie, and count what they use."""
        if not len(extents.vaddr):
            return
        np.add.at(self._used, place, extents.length)
        is_outside = ~self._places.is_chunk[place]
        if is_lost(self._source, constants.CHUNK_TREE_OBJECTID, 0, KEY_MAX):
            is_outside[:] = False
        for index in np.flatnonzero(is_outside).tolist():
            self._add("extent-outside", extents, index, "")
        end = self._places.end[place]
        too_long = self._places.is_chunk[place] & (extents.length > end - extents.vaddr)
        for index in np.flatnonzero(too_long).tolist():
            self._add("extent-outside", extents, index, f"a chunk ends at {end[index]}")
        before = np.concatenate([[np.uint64(self._end)], extents.end[:-1]])
        for index in np.flatnonzero(before > extents.vaddr).tolist():
            self._add("extent-overlaps", extents, index, f"the one before ends at {before[index]}")
        self._end = int(extents.end[-1])

    def _check_types(self, extents: Extents, place: NDArray[np.intp]) -> None:
        """Check that extents lie in a chunk of their type."""
        for_blocks = np.uint64(constants.BLOCK_GROUP_METADATA | constants.BLOCK_GROUP_SYSTEM)
        allowed = np.where(extents.is_block, for_blocks, np.uint64(constants.BLOCK_GROUP_DATA))
        flags = self._places.flags[place]
        wrong = self._places.is_chunk[place] & ((flags & allowed) == 0)
        for index in np.flatnonzero(wrong).tolist():
            found = block_group_flags_str(int(flags[index]))
            self._add("extent-type", extents, index, f"in a block group of {found}")

    # Against what else there is.

    def _check_used(self, lost: NDArray[np.bool_]) -> None:
        """Check that block groups count the bytes that their extents use."""
        groups = self.block_groups
        place = self._places.starting_at(groups.vaddr)
        known = place >= 0
        known[known] = ~lost[place[known]]
        used = np.zeros(len(place), np.uint64)
        used[known] = self._used[place[known]]
        for index in np.flatnonzero(known & (used != groups.used)).tolist():
            vaddr = int(groups.vaddr[index])
            self._checked.add(
                "block-group-used",
                f"block group at {vaddr}: {groups.used[index]} according to the item, but extents"
                f" use {used[index]}",
                vaddr=vaddr,
            )

    def check_unshareable(self, vaddrs: NDArray[np.uint64]) -> None:
        """Check that blocks that are never shared do not have the flag of those that were.

        Args:
            vaddrs: Addresses of blocks of trees without files.
        """
        blocks = self.blocks
        flagged = blocks.vaddr[blocks.is_full_backref]
        wrong = np.isin(flagged, vaddrs) & ~np.isin(flagged, self.unclear)
        for vaddr in flagged[wrong].tolist():
            self._checked.add(
                "block-shared",
                f"extent at {vaddr}, {self._fs.nodesize} bytes, of a tree that is no subvolume",
                tree=_TREE,
                vaddr=vaddr,
            )

    def _check_blocks(self, blocks: BlockTable, lost: NDArray[np.bool_], *, all_seen: bool) -> None:
        """Check that tree blocks and the extents for them are the same."""
        vaddr = blocks.vaddr
        extents = self.blocks
        place = self._places.of(vaddr)
        wanted = ~lost[place] & ~np.isin(vaddr, self.unclear)
        if self._source.is_earlier_state:
            # The chunk tree is the current one, whatever else is read.
            is_system = self._places.flags[place] & np.uint64(constants.BLOCK_GROUP_SYSTEM)
            wanted &= is_system == 0
        index = np.searchsorted(extents.vaddr, vaddr)
        known = index < len(extents.vaddr)
        known[known] = extents.vaddr[index[known]] == vaddr[known]
        for address in np.unique(vaddr[wanted & ~known]).tolist():
            self._checked.add("block-without-extent", f"tree block at {address}", vaddr=address)
        both = wanted & known
        self._compare_blocks("level", index[both], blocks.level[both])
        self._compare_blocks("generation", index[both], blocks.generation[both])
        if all_seen and not self._source.is_earlier_state:
            place = self._places.of(extents.vaddr)
            unused = ~np.isin(extents.vaddr, vaddr) & ~lost[place]
            unused &= ~np.isin(extents.vaddr, self.unclear)
            for address in extents.vaddr[unused].tolist():
                self._checked.add(
                    "extent-without-block",
                    f"extent at {address}, {self._fs.nodesize} bytes",
                    tree=_TREE,
                    vaddr=address,
                )

    def _compare_blocks(
        self, name: str, index: NDArray[np.intp], expected: NDArray[np.generic]
    ) -> None:
        found = getattr(self.blocks, name)[index]
        for wrong in np.flatnonzero(found != expected).tolist():
            vaddr = int(self.blocks.vaddr[index[wrong]])
            self._checked.add(
                "block-differs",
                f"extent at {vaddr}, {self._fs.nodesize} bytes: {name} {found[wrong]}, but the"
                f" block is of {name} {expected[wrong]}",
                tree=_TREE,
                vaddr=vaddr,
            )

    def _check_sum(self) -> None:
        used = int(self.block_groups.used.sum())
        expected = self._source.superblock.bytes_used
        tree = block_group_tree(self._source)
        # The superblock is of the last commit.
        is_comparable = not self._source.is_earlier_state
        if used != expected and is_comparable and not is_lost(self._source, tree, 0, KEY_MAX):
            self._checked.add(
                "bytes-used", f"{expected} in the superblock, {used} in the block groups"
            )


def _block_extents(extents: Extents) -> BlockExtents:
    """Return those that are for tree blocks."""
    blocks = extents.select(extents.is_block)
    return BlockExtents(blocks.vaddr, blocks.generation, blocks.level, blocks.is_full_backref)
