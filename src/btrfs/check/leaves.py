"""Leaves: what is checked of their items when they are read, and what is kept of them.

Leaves are read once each, whatever number of snapshots share them, in the order of their addresses
and in several threads. All that is about one item or one inode within a leaf is decided here. What
joins several leaves is kept as sums and as a few rows for each leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.inodes import (
    ChecksumRuns,
    InodeRows,
    LeafContents,
    inode_rows,
    problems,
)
from btrfs.check.items import ItemRules
from btrfs.check.items.entries import EntryRows, entry_rows, link_rows
from btrfs.check.items.headers import are_unwritten
from btrfs.check.names import NameHashes, sums_by_leaf
from btrfs.check.pairing import Hash, Numbers
from btrfs.check.pieces import Pieces, pieces_of_files
from btrfs.check.referrers import FullBackrefs, data_referrers, referrer_hashes
from btrfs.check.small_rows import SmallRows
from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.items.inode import InodeItem
from btrfs.ondisk.key import Key

if TYPE_CHECKING:
    from btrfs.ownership.graph import AskedLeaves
    from btrfs.source.disk.bulk import Leaves
    from btrfs.source.disk.pointers import Keys

__all__ = ["FILES", "Crossings", "LeafCheck", "LeafProblem"]

FILES = constants.FS_TREE_OBJECTID
"""Stands for the trees of all subvolumes, which share leaves."""


_LAST_TYPE = 0xFF


class LeafProblem(NamedTuple):
    """Something in a leaf that is not as it must be.

    Attributes:
        kind: A key of KINDS.
        leaf: Number of the leaf.
        key: Key of the item, None if it is not about one item.
        inum: Inode number, None if it is not about an inode.
        why: What is wrong.
        expected: What should be there, or None.
        found: What is there instead, or None.
    """

    kind: str
    leaf: int
    key: Key | None
    inum: int | None
    why: str
    expected: Any = None
    found: Any = None


class Crossings(NamedTuple):
    """What the check compares across trees, and is known before leaves are read.

    Attributes:
        runs: Which addresses have checksums.
        flags: Which blocks have the flag FULL_BACKREF.
        hashes: Makes hashes of what refers to extents.
        add_uses: Takes extents and the hashes of what refers to them.
        no_holes: Whether holes in files may be left out.
    """

    runs: ChecksumRuns
    flags: FullBackrefs
    hashes: Hash
    add_uses: Callable[[Numbers, Numbers], None]
    no_holes: bool


@dataclass(slots=True)
class _Decoded:
    """What is kept of some leaves.

    Attributes:
        count: How many leaves they are.
        is_read: Which of them could be read.
        owner: Owner in the header of each.
        items: How many items each has.
        unwritten: Which of them lack the flag of blocks that have been written.
        problems: What is wrong.
        complete: How many inodes lie within these leaves.
        inodes: Rows of inodes that may go on in other leaves.
        names: Sums of names, by leaf.
        extents: Extents that are referred to, and
        hashes: The hashes of what refers to them.
        unlinked: Inodes without a name: the number of each.
        orphans: Orphan items: the inode of each.
        subvolumes: Entries of subvolumes: directory, index or hash, number of the subvolume.
        preallocated: Pieces that were not written to, but have checksums: inode, begin, and end.
    """

    count: int
    is_read: NDArray[np.bool_]
    owner: NDArray[np.uint64]
    items: NDArray[np.uint32]
    unwritten: NDArray[np.bool_]
    problems: list[LeafProblem]
    complete: int
    inodes: list[InodeRows]
    names: Numbers
    extents: NDArray[np.uint64]
    hashes: Numbers
    unlinked: SmallRows
    orphans: SmallRows
    subvolumes: SmallRows
    preallocated: SmallRows


class LeafCheck:
    """Checks leaves. See :class:`btrfs.ownership.graph.LeafConsumer`.

    Args:
        sectorsize: Bytes of a sector.
        rules: The rules for single items.
        family: Returns for each set of roots the tree that stands for its kind of trees.
        is_whole: Returns for each set of roots whether it has a subvolume that stays.
        crossings: What is compared across trees; None to look at single items alone.

    Attributes:
        parts: What is kept of the leaves.
    """

    def __init__(
        self,
        sectorsize: int,
        rules: ItemRules,
        family: Callable[[], NDArray[np.uint64]],
        is_whole: Callable[[], NDArray[np.bool_]],
        crossings: Crossings | None,
    ) -> None:
        self._sectorsize = sectorsize
        self._rules = rules
        self._family = family
        self._is_whole = is_whole
        self._crossings = crossings
        self.name_hashes = NameHashes()
        self.parts: list[_Decoded] = []

    def decode(self, leaves: Leaves, asked: AskedLeaves) -> _Decoded:
        """Check the items of some leaves, and return what is kept of them."""
        numbers, set_ids = asked.numbers, asked.set_ids
        made = _nothing(len(numbers))
        pieces = pieces_of_files(leaves.batch)
        made.is_read[leaves.read] = True
        made.owner[leaves.read] = leaves.headers["owner"]
        made.items[leaves.read] = leaves.headers["nritems"]
        made.unwritten[leaves.read] = are_unwritten(leaves.headers)
        family = self._family()[set_ids]
        for tree in np.unique(family[leaves.read]).tolist():
            chosen = family[leaves.block] == tree
            batch = leaves.batch if chosen.all() else leaves.batch.select(chosen)
            leaf = numbers[leaves.block[chosen]]
            made.problems += (
                LeafProblem(one.kind, one.leaf, one.key, None, one.why, one.expected, one.found)
                for one in self._rules.check(batch, leaf, tree)
            )
            if tree == FILES and self._crossings is not None:
                # The trees of a subvolume that is being deleted have lost a part already.
                chosen &= self._is_whole()[set_ids][leaves.block]
                self._files(made, asked, _contents(leaves, asked, chosen, pieces))
        if self._crossings is not None:
            self._referrers(made, leaves, pieces)
        return made

    def collect(self, decoded: _Decoded) -> None:
        """Keep what decode() returned."""
        if self._crossings is not None:
            self._crossings.add_uses(decoded.extents, decoded.hashes)
            # There may be very many of them.
            decoded.extents = decoded.hashes = np.empty(0, np.uint64)
        self.parts.append(decoded)

    def _files(self, made: _Decoded, asked: AskedLeaves, contents: LeafContents) -> None:
        """Check the files and directories of some leaves."""
        assert self._crossings is not None
        batch, leaf = contents.batch, contents.leaf
        rows, is_complete = inode_rows(contents, self._crossings.runs, self._sectorsize)
        whole = rows.select(is_complete)
        for problem in problems(whole, no_holes=self._crossings.no_holes):
            kind, row, why, expected, found = problem
            number, inum = int(whole.leaf[row]), int(whole.inum[row])
            made.problems.append(LeafProblem(kind, number, None, inum, why, expected, found))
        made.complete += len(whole)
        made.inodes.append(rows.select(~is_complete))
        names = self.name_hashes.rows(batch, leaf, contents.links, contents.entries)
        made.names = sums_by_leaf(names, int(asked.numbers[0]), made.count)
        made.unlinked, made.orphans = _unlinked(batch, leaf), _orphans(batch, leaf)
        made.subvolumes = _subvolumes(batch, leaf, contents.entries)
        made.preallocated = _preallocated(contents.pieces, leaf, self._crossings.runs)

    def _referrers(self, made: _Decoded, leaves: Leaves, pieces: Pieces) -> None:
        assert self._crossings is not None
        index = np.full(made.count, -1)
        index[leaves.read] = np.arange(len(leaves.read))
        block = index[leaves.block]
        rows = data_referrers(pieces, block, leaves.headers, self._crossings.flags)
        made.extents, made.hashes = rows.extent, referrer_hashes(self._crossings.hashes, rows)


def _nothing(count: int) -> _Decoded:
    no_rows = SmallRows.concatenated([])
    return _Decoded(
        count,
        np.zeros(count, np.bool_),
        np.zeros(count, np.uint64),
        np.zeros(count, np.uint32),
        np.zeros(count, np.bool_),
        [],
        0,
        [],
        np.zeros(count, np.uint64),
        np.empty(0, np.uint64),
        np.empty(0, np.uint64),
        *(no_rows, no_rows, no_rows, no_rows),
    )


def _contents(
    leaves: Leaves, asked: AskedLeaves, chosen: NDArray[np.bool_], pieces: Pieces
) -> LeafContents:
    """Return what is in some leaves, as far as items are chosen.

    Args:
        leaves: The items.
        asked: The leaves.
        chosen: Which items are wanted.
        pieces: The pieces of files in all items.
    """
    batch, block = leaves.batch, leaves.block
    if not chosen.all():
        batch, block, pieces = batch.select(chosen), block[chosen], pieces.among(chosen)
    return LeafContents(
        batch,
        asked.numbers[block],
        _last_whole_inum(asked.pointers.last)[block],
        link_rows(batch),
        entry_rows(batch),
        pieces,
    )


def _last_whole_inum(last: Keys) -> NDArray[np.uint64]:
    """Return for each leaf the highest inode number of which nothing can be in a later leaf.

    Args:
        last: The highest key that each may hold: the one before the next leaf begins.
    """
    is_whole = (last.type == _LAST_TYPE) & (last.offset == np.uint64(constants.ULLONG_MAX))
    return np.asarray(last.objectid - ~is_whole)


def _unlinked(batch: ItemBatch, leaf: NDArray[np.uint32]) -> SmallRows:
    index = np.flatnonzero(
        (batch.type == constants.INODE_ITEM_KEY) & (batch.size >= InodeItem.struct_size)
    )
    assert InodeItem.dtype.fields is not None
    dtype, at, *_ = InodeItem.dtype.fields["nlink"]
    index = index[take(batch.buffer, dtype, batch.body[index] + at) == 0]
    zero = np.zeros(len(index), np.uint64)
    return SmallRows(leaf[index], batch.objectid[index], zero, zero)


def _orphans(batch: ItemBatch, leaf: NDArray[np.uint32]) -> SmallRows:
    index = np.flatnonzero(
        (batch.type == constants.ORPHAN_ITEM_KEY)
        & (batch.objectid == np.uint64(constants.ORPHAN_OBJECTID))
    )
    zero = np.zeros(len(index), np.uint64)
    return SmallRows(leaf[index], batch.offset[index], zero, zero)


def _subvolumes(batch: ItemBatch, leaf: NDArray[np.uint32], entries: EntryRows) -> SmallRows:
    some = entries.location_type == constants.ROOT_ITEM_KEY
    some &= batch.type[entries.index] == constants.DIR_INDEX_KEY
    index = entries.index[some]
    return SmallRows(
        leaf[index], batch.objectid[index], batch.offset[index], entries.objectid[some]
    )


def _preallocated(pieces: Pieces, leaf: NDArray[np.uint32], runs: ChecksumRuns) -> SmallRows:
    """Return the preallocated pieces that have checksums: inode, begin and end of each.

    Args:
        pieces: Pieces of files in some leaves.
        leaf: Number of the leaf of each item in these.
        runs: Which addresses have checksums.
    """
    some = pieces.select((pieces.kind == constants.FILE_EXTENT_PREALLOC) & (pieces.vaddr != 0))
    start, end = some.on_disk()
    # What is no range at all is reported as an item that cannot be.
    found = np.flatnonzero((start < end) & runs.is_known(start, end))
    found = found[runs.bytes_within(start[found], end[found]) > 0]
    return SmallRows(leaf[some.item[found]], some.inum[found], start[found], end[found])
