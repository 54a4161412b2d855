"""What is checked in the order of addresses: extents, free space, and checksums, read together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.check.checksums import ChecksumCheck
from btrfs.check.extent_items import Extents
from btrfs.check.extent_uses import ExtentUses
from btrfs.check.extents import ExtentCheck, ExtentConsumer
from btrfs.check.free_space import FreeSpaceCheck
from btrfs.check.items import ItemRules
from btrfs.check.leaves import Crossings
from btrfs.check.places import Places
from btrfs.check.referrers import FullBackrefs
from btrfs.check.report import Checked
from btrfs.ondisk import constants

if TYPE_CHECKING:
    from btrfs.check.tree_walk import TreeWalk
    from btrfs.filesystem import FileSystem

__all__ = ["ByAddress"]


class ByAddress:
    """Checks extents, free space, and checksums.

    Args:
        fs: The filesystem.
        rules: The rules for items.

    Attributes:
        places: The chunks, and what lies between them.
        extents: What is found of extents.
        free_space: What is found of free space.
        checksums: What is found of checksums.
        extent_check: Reads the extent tree.
    """

    def __init__(self, fs: FileSystem, rules: ItemRules) -> None:
        self._source = fs.block_source()
        self.places = Places(fs)
        self.extents = Checked("extents")
        self.free_space = Checked("free space")
        self.checksums = Checked("checksums")
        self.extent_check = ExtentCheck(fs, rules, self.places, self.extents)
        self._free_space = FreeSpaceCheck(fs, self.places, self.free_space)
        with _added_to(self.checksums):
            self._checksums = ChecksumCheck(fs, self.places, self.checksums)
        self._uses = ExtentUses(fs, self.places)
        self._flags = FullBackrefs(np.empty(0, np.uint64))

    def read(self) -> None:
        """Read the trees that have addresses for keys."""
        with _added_to(self.extents):
            self.extent_check.run(ExtentConsumer(self._uses.add_backrefs, self._add_extents))
        blocks = self.extent_check.blocks
        self._flags = FullBackrefs(blocks.vaddr[blocks.is_full_backref])
        lost = self.extent_check.lost_places
        with _added_to(self.free_space):
            self._free_space.run(lost, self.extent_check.block_groups.vaddr)
        with _added_to(self.checksums):
            self._checksums.finish(lost)

    def crossings(self) -> Crossings:
        """Return what the trees are compared with."""
        flags = self._source.superblock.incompat_flags
        no_holes = bool(flags & constants.FEATURE_INCOMPAT_NO_HOLES)
        uses = self._uses
        return Crossings(self._checksums.runs, self._flags, uses.hashes, uses.add_uses, no_holes)

    def finish(self, walk: TreeWalk, crossings: Crossings | None) -> None:
        """Compare extents with the trees, which have been read.

        Args:
            walk: The trees.
            crossings: What they were compared with; None to compare tree blocks alone.
        """
        with _added_to(self.extents):
            all_seen = not self._source.log.lost and not walk.incomplete
            self.extent_check.finish(walk.blocks(), all_seen=all_seen)
            if not self._source.is_earlier_state:
                self.extent_check.check_unshareable(walk.unshareable())
            if crossings is None or not self.extent_check.items:
                return
            lost = self.extent_check.lost_places
            if (lost & self.places.has_blocks).any():
                # What a block refers to has one of two forms. Its extent says which.
                return
            wanted = ~lost
            if self._source.is_earlier_state:
                # The chunk tree is the current one, whatever else is read.
                wanted &= self.places.flags & np.uint64(constants.BLOCK_GROUP_SYSTEM) == 0
            self._uses.compare(
                walk,
                self._flags,
                wanted,
                self.extents,
                unclear=self.extent_check.unclear,
                all_seen=all_seen,
            )

    def _add_extents(self, extents: Extents, place: NDArray[np.intp]) -> None:
        self._free_space.add_extents(extents, place)
        self._checksums.add_extents(extents, place)


@contextmanager
def _added_to(checked: Checked) -> Iterator[None]:
    """Add the time that something takes to the record of a check."""
    begin = time.monotonic()
    yield
    checked.seconds += time.monotonic() - begin
