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

from btrfs.ownership.containment import Containment, Representation, representatives
from btrfs.ownership.root_sets import mask_of
from btrfs.ownership.scanning import Scan

__all__ = ["Places", "Totals"]


class Totals(NamedTuple):
    """Bytes of data on disk of a subvolume with all that are in it; as those of an Entry."""

    represented: int
    exclusive: int
    referenced: int
    unreachable: int


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
        self._totals: dict[int, Totals] = {}

    def mask(self, trees: Iterable[int]) -> int:
        """Return the bit mask of some trees, without those whose root is lost."""
        return mask_of(self._bits[tree] for tree in trees if tree in self._bits)

    @cached_property
    def shown_in(self) -> NDArray[np.int64]:
        """Of each set, the tree whose files stand for all."""
        return representatives(self.scan.owners, self.contained, self.scan.sets, self.rule)

    @cached_property
    def home(self) -> NDArray[np.int64]:
        """Of each set, the innermost subvolume with all of its roots in it; 0 if there is none."""
        trees = [owner.tree for owner in self.scan.owners]
        found = np.zeros(len(self.scan.sets), np.int64)
        for number, mask in enumerate(self.scan.sets.masks):
            members = [tree for bit, tree in enumerate(trees) if mask >> bit & 1]
            if members and all(tree in self.contained.paths for tree in members):
                found[number] = self.contained.common(members)
        return found

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
        if tree not in self._totals:
            trees = self.contained.within(tree)
            mask = self.mask(trees)
            shown = np.isin(self.shown_in, trees)
            data = self.data_by_set
            self._totals[tree] = Totals(
                represented=int(data[shown].sum()),
                exclusive=int(data[self.scan.sets.within(mask)].sum()),
                referenced=int(data[self.scan.sets.meeting(mask)].sum()),
                unreachable=int(self.unreachable_by_set[shown].sum()),
            )
        return self._totals[tree]
