"""What each set of roots stands for: where its extents are at home, and where they are shown.

Subvolumes are inside each other, as directories are. So what several subvolumes use belongs to the
innermost one that has all of them in it, its home; and it is shown in one of them, which a rule
says.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ownership.containment import Containment, Representation, representatives
from btrfs.ownership.owners import Kind
from btrfs.ownership.root_sets import mask_of
from btrfs.ownership.scanning import Scan

__all__ = ["Elsewhere", "Places", "Totals"]


class Totals(NamedTuple):
    """Bytes of data on disk of a subvolume with all that are in it; as those of an Entry."""

    represented: int
    exclusive: int
    referenced: int
    unreachable: int


class Elsewhere(NamedTuple):
    """Bytes of data on disk that no subvolume uses which can be reached.

    Attributes:
        deleted: Bytes that deleted subvolumes hold, which are not cleaned up yet.
        internal: Bytes that the filesystem itself holds: its cache of free space, and what a
            balance is moving.
    """

    deleted: int
    internal: int


class Places:
    """Where the extents of each set of roots are at home, and where they are shown.

    Args:
        scanned: What was read.
        contained: How the subvolumes are inside each other.
        rule: In which place an extent is shown that is used in several.

    Attributes:
        scan: As given.
        contained: As given.
        rule: As given.
    """

    def __init__(self, scanned: Scan, contained: Containment, rule: Representation) -> None:
        self.scan = scanned
        self.contained = contained
        self.rule = rule
        self._bits = {owner.tree: bit for bit, owner in enumerate(scanned.owners)}

    def bits(self, trees: Iterable[int]) -> list[int]:
        """Return the bit of each of some trees in sets of roots.

        A tree whose root is lost has one that is in no set.
        """
        return [self._bits.get(tree, len(self.scan.owners)) for tree in trees]

    def mask(self, trees: Iterable[int]) -> int:
        """Return the bit mask of some trees."""
        return mask_of(self.bits(trees))

    @cached_property
    def shown_in(self) -> NDArray[np.int64]:
        """Of each set, the tree whose files stand for all."""
        return representatives(self.scan.owners, self.contained, self.scan.sets, self.rule)

    @cached_property
    def home(self) -> NDArray[np.int64]:
        """Of each set, the innermost subvolume with all of its roots in it; 0 if there is none."""
        trees, end, parent = self._nesting
        first, last = self.scan.sets.first_and_last(self.bits(trees.tolist()))
        known = set(trees.tolist())
        others = mask_of(
            bit for bit, owner in enumerate(self.scan.owners) if owner.tree not in known
        )
        is_inside = (last >= 0) & ~self.scan.sets.meeting(others)
        found = np.where(is_inside, first, 0)
        last = np.where(is_inside, last, 0)
        while len(left := np.flatnonzero(end[found] <= last)):
            found[left] = parent[found[left]]
        return np.where(is_inside, trees[found], 0)

    @cached_property
    def data_by_set(self) -> NDArray[np.int64]:
        """Bytes of data of each set."""
        return np.asarray(self.scan.sizes.data.sum(axis=1))

    @cached_property
    def unreachable_by_set(self) -> NDArray[np.int64]:
        """Bytes of data of each set that no file reaches."""
        extents = self.scan.extents
        ids = extents.set_id.astype(np.intp)
        return np.bincount(ids, extents.unreachable, len(self.scan.sets)).astype(np.int64)

    def totals(self, tree: int) -> Totals:
        """Return the bytes of a subvolume with all that are in it."""
        return self._totals[tree]

    def shown(self, tree: int) -> int:
        """Return the bytes that are shown in one tree alone, without those in it."""
        return int(self.data_by_set[self.shown_in == tree].sum())

    def unreachable(self, tree: int) -> int:
        """Return the bytes of these that no file reaches."""
        return int(self.unreachable_by_set[self.shown_in == tree].sum())

    def elsewhere(self) -> Elsewhere:
        """Return the bytes that are shown in no subvolume."""
        return Elsewhere(
            deleted=self._shown_in_kinds(Kind.DELETED),
            internal=self._shown_in_kinds(Kind.INTERNAL, Kind.RELOCATION),
        )

    def _shown_in_kinds(self, *kinds: Kind) -> int:
        # Trees of relocation all have the same number.
        return sum(map(self.shown, {one.tree for one in self.scan.owners if one.kind in kinds}))

    def is_read_only(self, tree: int) -> bool:
        """Return whether a subvolume can only be read."""
        bit = self._bits.get(tree)
        item = None if bit is None else self.scan.owners[bit].item
        return item is not None and bool(item.flags & constants.ROOT_SUBVOL_RDONLY)

    @cached_property
    def _nesting(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The subvolumes in preorder: their numbers, where those inside end, and their parents.

        Ends and parents are indexes; the top level is its own parent.
        """
        trees = self.contained.preorder
        index = {tree: number for number, tree in enumerate(trees)}
        parent = [index.get(self.contained.parents.get(tree, 0), 0) for tree in trees]
        end = list(range(1, len(trees) + 1))
        for number in range(len(trees) - 1, 0, -1):
            end[parent[number]] = max(end[parent[number]], end[number])
        return np.array(trees, np.int64), np.array(end, np.int64), np.array(parent, np.int64)

    @cached_property
    def _totals(self) -> dict[int, Totals]:
        """The bytes of each subvolume with all that are in it."""
        trees, _, _ = self._nesting
        columns = (
            self._sums_inside(self.shown_in, self.data_by_set),
            self._sums_inside(self.home, self.data_by_set),
            self._referenced(),
            self._sums_inside(self.shown_in, self.unreachable_by_set),
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        return {tree: Totals(*row) for tree, row in zip(trees.tolist(), rows, strict=True)}

    def _sums_inside(
        self, tree_of_set: NDArray[np.int64], values: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the sums of values over the sets of each subvolume and of those in it."""
        trees, end, _ = self._nesting
        order = np.argsort(trees)
        found = np.minimum(np.searchsorted(trees[order], tree_of_set), len(trees) - 1)
        index = order[found]
        is_subvolume = trees[index] == tree_of_set
        running = np.zeros(len(trees) + 1, np.int64)
        np.add.at(running, index[is_subvolume] + 1, values[is_subvolume])
        np.cumsum(running, out=running)
        return running[end] - running[:-1]

    def _referenced(self) -> NDArray[np.int64]:
        """Return the bytes that each subvolume uses with those in it, in preorder."""
        trees, end, _ = self._nesting
        bits = self.bits(trees.tolist())
        has_inside = np.flatnonzero(end > np.arange(len(trees)) + 1).tolist()
        found = np.zeros(len(trees), np.int64)
        for some, members in self.scan.sets.members(len(self.scan.owners) + 1):
            ordered = members[:, bits]
            data = self.data_by_set[some]
            sums = data @ ordered.astype(np.int64)
            for index in has_inside:
                sums[index] = data[ordered[:, index : end[index]].any(axis=1)].sum()
            found += sums
        return found
