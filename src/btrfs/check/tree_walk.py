"""All trees, each block once: what every block and item is by itself, and what is left to compare.

A walk over the graph of all trees (:mod:`btrfs.ownership.graph`) reads every block once. Items are
checked as they are read (:mod:`btrfs.check.leaves`); what joins leaves, trees, and extents is kept
in little space, and compared when everything has been read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.items import ItemRules
from btrfs.check.items.headers import are_unwritten
from btrfs.check.leaves import FILES, Crossings, LeafCheck
from btrfs.check.pairing import Numbers
from btrfs.check.referrers import Referrers, block_referrers
from btrfs.check.small_rows import SmallRows
from btrfs.ondisk import constants
from btrfs.ownership.graph import Graph, Progress, TreeBlocks
from btrfs.ownership.owners import Kind, Owner
from btrfs.ownership.root_sets import RootSets, SetIds, first_bit, mask_of

if TYPE_CHECKING:
    from btrfs.source.disk.bulk import Children
    from btrfs.source.disk.pointers import BlockPointers
    from btrfs.source.disk.source import DiskSource

__all__ = ["BlockTable", "TreeWalk"]


class BlockTable(NamedTuple):
    """Tree blocks in use, in the order of their addresses; an entry per block.

    Attributes:
        vaddr: Virtual addresses, uint64.
        generation: Generations, uint64.
        level: Levels, uint8.
    """

    vaddr: NDArray[np.uint64]
    generation: NDArray[np.uint64]
    level: NDArray[np.uint8]


@dataclass(slots=True)
class _Nodes:
    """What is kept of nodes."""

    blocks: list[BlockPointers] = field(default_factory=list)
    owners: list[tuple[NDArray[np.uint64], NDArray[np.uint64], SetIds]] = field(
        default_factory=list
    )
    unwritten: list[tuple[Numbers, SetIds]] = field(default_factory=list)
    referrers: list[Referrers] = field(default_factory=list)


class TreeWalk:
    """A walk over some trees, and what is known after it.

    Args:
        source: Source of the blocks.
        owners: The trees.
        rules: The rules for single items.
        crossings: What is compared across trees; None to look at single items alone.
        apart: Numbers of trees whose leaves are read elsewhere.

    Attributes:
        owners: The trees; bit N of a set of roots is the Nth of them.
        sets: The sets of roots.
        leaf_sets: Set of each leaf by its number.
        incomplete: Bit mask of the trees that could not be read as a whole.
    """

    def __init__(
        self,
        source: DiskSource,
        owners: Sequence[Owner],
        rules: ItemRules,
        crossings: Crossings | None,
        apart: set[int],
    ) -> None:
        self._source = source
        self._format = source.trees.block_format
        self.owners = list(owners)
        self.sets = RootSets()
        self.leaf_sets: SetIds = np.empty(0, np.uint32)
        self._unshareable = np.empty(0, np.uint64)
        self.incomplete = 0
        self._crossings = crossings
        self._nodes = _Nodes()
        self._leaves = LeafCheck(
            source.superblock.sectorsize,
            rules,
            lambda: self._families,
            lambda: self._is_whole,
            crossings,
        )
        self.with_leaves = mask_of(
            bit for bit, owner in enumerate(owners) if owner.tree not in apart
        )
        self.graph = Graph(source, self.sets, self._leaves, self._keep_nodes)

    def run(self, progress: Progress) -> None:
        """Read all blocks."""
        blocks, self.leaf_sets = self.graph.walk(self.owners, progress, self.with_leaves)
        self._unshareable = self._without_files(blocks)
        self.incomplete = self.graph.incomplete

    # Which trees a set of roots is of.

    @property
    def live(self) -> int:
        """Bit mask of the subvolumes that are not being deleted."""
        return mask_of(bit for bit, owner in enumerate(self.owners) if owner.kind is Kind.SUBVOLUME)

    @cached_property
    def _families(self) -> NDArray[np.uint64]:
        """For each set the tree that stands for its kind of trees."""
        families = [0 if not mask else self._family(first_bit(mask)) for mask in self.sets.masks]
        return np.array(families, np.uint64)

    def _family(self, bit: int) -> int:
        owner = self.owners[bit]
        is_data_reloc = owner.tree == constants.DATA_RELOC_TREE_OBJECTID
        return FILES if owner.kind is not Kind.INTERNAL or is_data_reloc else owner.tree

    @cached_property
    def _is_whole(self) -> NDArray[np.bool_]:
        return self.sets.meeting(self.live)

    def tree_of(self, leaf: int) -> int:
        """Return the number of a tree that a leaf is in, if possible of one that stays."""
        mask = self.sets.masks[self.leaf_sets[leaf]]
        return self.owners[first_bit(mask & self.live or mask)].tree

    def trees_of(self, mask: int) -> Iterator[Owner]:
        """Yield the trees of a bit mask."""
        while mask:
            bit = first_bit(mask)
            yield self.owners[bit]
            mask &= ~(1 << bit)

    # What is known after the walk.

    @property
    def leaves(self) -> LeafCheck:
        """What was kept of the leaves."""
        return self._leaves

    def blocks(self) -> BlockTable:
        """Return all blocks, but for those that are not what they should be."""
        parts = [
            *(
                (owner.pointer.vaddr, owner.pointer.generation, owner.pointer.level)
                for owner in self.owners
            ),
        ]
        roots = np.array(parts, np.uint64).reshape(-1, 3)
        below = self._nodes.blocks
        vaddr = np.concatenate([roots[:, 0], *(some.vaddr.astype(np.uint64) for some in below)])
        generation = np.concatenate([roots[:, 1], *(some.generation for some in below)])
        level = np.concatenate(
            [
                roots[:, 2].astype(np.uint8),
                *(np.full(len(some), some.level, np.uint8) for some in below),
            ]
        )
        damage = self._source.log.damage
        lost = [bad.vaddr for bad in damage if bad.vaddr is not None and not bad.recovered]
        order = np.lexsort((level, generation, vaddr))
        order = order[~np.isin(vaddr[order], np.array(lost, np.uint64))]
        rows = (vaddr[order], generation[order], level[order])
        is_new = np.ones(len(order), np.bool_)
        is_new[1:] = np.logical_or.reduce([row[1:] != row[:-1] for row in rows])
        return BlockTable(*(row[is_new] for row in rows))

    def node_referrers(self) -> Referrers:
        """Return what pointers in nodes refer to."""
        return Referrers.concatenated(self._nodes.referrers)

    def details(self) -> list[dict[str, Any]]:
        """Return for each tree how many blocks and items it has; shared ones count in each."""
        items = np.concatenate(
            [np.zeros(0, np.uint32), *(part.items for part in self._leaves.parts)]
        ).astype(np.int64)
        counts = np.zeros((len(self.sets), 2), np.int64)
        np.add.at(counts[:, 0], self.leaf_sets, items > 0)
        np.add.at(counts[:, 1], self.leaf_sets, items)
        for _, _, set_ids in self._nodes.owners:
            np.add.at(counts[:, 0], set_ids, 1)
        by_tree = self.by_tree(counts)
        return [
            {"tree": owner.tree, "blocks": int(row[0]), "items": int(row[1])}
            for owner, row in zip(self.owners, by_tree, strict=True)
        ]

    def items(self) -> int:
        """Return how many items the leaves have that were read."""
        return sum(int(part.items.sum()) for part in self._leaves.parts)

    def by_tree(self, by_set: NDArray[Any]) -> NDArray[Any]:
        """Return sums by tree, given those by set of roots, with the same other dimensions."""
        shape = (len(self.owners), *by_set.shape[1:])
        found = np.zeros(shape, by_set.dtype)
        for some, members in self.sets.members(len(self.owners)):
            found += np.tensordot(members.T.astype(by_set.dtype), by_set[some], 1)
        return found

    def unequal_names(self) -> int:
        """Return a bit mask of the subvolumes in which names do not agree."""
        sums = np.zeros(len(self.sets), np.uint64)
        names = [part.names for part in self._leaves.parts]
        if names:
            np.add.at(sums, self.leaf_sets, np.concatenate(names))
        rests = self.by_tree(sums)
        return mask_of(np.flatnonzero(rests).tolist()) & self.live & ~self.incomplete

    def small_rows(self, name: str) -> SmallRows:
        """Return the rows of a kind that were kept: unlinked, orphans or subvolumes."""
        return SmallRows.concatenated([getattr(part, name) for part in self._leaves.parts])

    def wrong_owners(self) -> Iterator[tuple[int, int, int]]:
        """Yield blocks that name another tree as their owner: address, tree, and that owner."""
        owner, vaddr, set_ids = self._headers()
        pairs = np.unique(np.stack([owner, set_ids.astype(np.uint64)]), axis=1)
        for named, set_id in pairs.T.tolist():
            mask = self.sets.masks[set_id]
            if not mask or self._may_own(named, mask):
                continue
            tree = self.owners[first_bit(mask)].tree
            for address in vaddr[(owner == named) & (set_ids == set_id)].tolist():
                yield address, tree, named

    def unshareable(self) -> Numbers:
        """Return the addresses of the blocks that only trees without files have: never shared."""
        return self._unshareable

    def _without_files(self, blocks: TreeBlocks) -> Numbers:
        with_files = mask_of(bit for bit in range(len(self.owners)) if self._family(bit) == FILES)
        is_alone = [bool(mask) and not mask & with_files for mask in self.sets.masks]
        chosen = np.array(is_alone, np.bool_)[blocks.set_id]
        return blocks.vaddr[chosen].astype(np.uint64)

    def unwritten(self) -> Iterator[tuple[int, int]]:
        """Yield blocks that lack the flag of blocks that have been written: address, and tree."""
        lacking = [part.unwritten for part in self._leaves.parts]
        leaves = np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *lacking]))
        vaddr = self.graph.leaves().vaddr[leaves].astype(np.uint64)
        for some, set_ids in ((vaddr, self.leaf_sets[leaves]), *self._nodes.unwritten):
            for address, set_id in zip(some.tolist(), set_ids.tolist(), strict=True):
                mask = self.sets.masks[set_id]
                if mask:
                    yield address, self.owners[first_bit(mask)].tree

    def _headers(self) -> tuple[Numbers, Numbers, SetIds]:
        """Return owner, address and set of roots of all blocks that were read."""
        leaves = self.graph.leaves()
        none = np.zeros(0, np.uint64)
        owner = np.concatenate([none, *(part.owner for part in self._leaves.parts)])
        is_read = np.concatenate([none, *(part.is_read for part in self._leaves.parts)])
        read = np.flatnonzero(is_read)
        parts = [
            (owner[read], leaves.vaddr[read].astype(np.uint64), self.leaf_sets[read]),
            *self._nodes.owners,
        ]
        one, two, three = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return one, two, three

    def _may_own(self, named: int, mask: int) -> bool:
        """Return whether a block of some trees may name a tree as its owner."""
        for owner in self.trees_of(mask):
            # Of snapshots of snapshots, any can have written a block that they share.
            if owner.tree == named or (self._has_files(owner.tree) and self._has_files(named)):
                return True
        return False

    @staticmethod
    def _has_files(tree: int) -> bool:
        return (
            tree in (FILES, constants.DATA_RELOC_TREE_OBJECTID, constants.TREE_RELOC_OBJECTID)
            or constants.FIRST_FREE_OBJECTID <= tree <= constants.LAST_FREE_OBJECTID
        )

    def _keep_nodes(self, nodes: BlockPointers, found: Children, set_ids: SetIds) -> None:
        self._nodes.blocks.append(found.pointers)
        read = found.headers
        self._nodes.owners.append(
            (read["owner"].copy(), read["bytenr"].copy(), set_ids[found.read])
        )
        lacking = are_unwritten(read)
        self._nodes.unwritten.append((read["bytenr"][lacking], set_ids[found.read][lacking]))
        if self._crossings is not None:
            flags, nodesize = self._crossings.flags, self._format.nodesize
            self._nodes.referrers.append(block_referrers(nodes, found, flags, nodesize))
