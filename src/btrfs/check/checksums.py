"""Checksums of data: which addresses have them, and that these belong to extents of data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.check.extent_items import Extents, extents_of
from btrfs.check.free_space import Pairs, joined
from btrfs.check.inodes import ChecksumRuns
from btrfs.check.places import Places
from btrfs.check.report import Checked
from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import counted, pretty_size

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["ChecksumCheck"]

_TREE = constants.CSUM_TREE_OBJECTID
_EXTENTS = constants.EXTENT_TREE_OBJECTID


class ChecksumCheck:
    """Reads the tree of checksums, and compares it with the extents.

    Args:
        fs: The filesystem.
        places: The chunks, and what lies between them.
        checked: Where the findings go.

    Attributes:
        runs: Which addresses have checksums.
    """

    def __init__(self, fs: FileSystem, places: Places, checked: Checked) -> None:
        self._fs = fs
        self._source = fs.block_source()
        self._places = places
        self._checked = checked
        self._pairs = self._read()
        start, end = self._pairs.T.copy()
        self.runs = ChecksumRuns(start, end, list(self._unknown()))
        self._within = np.zeros(len(places), np.uint64)

    def add_extents(self, extents: Extents, place: NDArray[np.intp]) -> None:
        """Take some extents, and for each the place that it begins in."""
        is_data = ~extents.is_block
        extents, place = extents.select(is_data), place[is_data]
        found = self.runs.bytes_within(extents.vaddr, extents.end)
        np.add.at(self._within, place, found)

    def finish(self, lost_extents: NDArray[np.bool_]) -> None:
        """Report checksums that belong to no extent of data, and fill in the summary.

        Args:
            lost_extents: Places of which not all extents are known.
        """
        known = self.runs.bytes_within(self._places.start, self._places.end)
        for place in np.flatnonzero((known != self._within) & ~lost_extents).tolist():
            self._compare(place)
        size = int((self._pairs[:, 1] - self._pairs[:, 0]).sum())
        self._checked.summary = f"of {pretty_size(size)} in {counted(len(self._pairs), 'range')}"
        self._checked.counts = {"bytes": size, "ranges": len(self._pairs)}

    def _read(self) -> Pairs:
        """Return the ranges that have checksums; what overlaps is one range."""
        csum_size = self._source.superblock.checksum.size
        parts = [np.empty((0, 2), np.uint64)]
        reach = np.uint64(0)
        try:
            for batch in self._fs.batches(_TREE):
                chosen = batch.of_type(constants.EXTENT_CSUM_KEY)
                sectors = chosen.size.astype(np.uint64) // np.uint64(csum_size)
                ends = chosen.offset + sectors * np.uint64(self._fs.sectorsize)
                pairs = np.column_stack((chosen.offset, np.maximum(chosen.offset, ends)))
                parts.append(self._checked_pairs(pairs, reach))
                reach = pairs[:, 1].max(initial=reach)
        except TreeNotFoundError:
            self._checked.skipped = "there is no tree of checksums"
        return joined(np.concatenate(parts))

    def _unknown(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges whose checksums cannot be read."""
        first = Key(constants.EXTENT_CSUM_OBJECTID, constants.EXTENT_CSUM_KEY, 0)
        last = Key(constants.EXTENT_CSUM_OBJECTID, constants.EXTENT_CSUM_KEY, ULLONG_MAX)
        for lost in self._source.log.lost:
            if lost.tree == _TREE and lost.min_key <= last and lost.max_key >= first:
                start, end = max(lost.min_key, first).offset, min(lost.max_key, last).offset
                yield start, end

    def _checked_pairs(self, pairs: Pairs, last: np.uint64) -> Pairs:
        """Report ranges that overlap those before, and return them without what overlaps."""
        reach = np.maximum.accumulate(np.concatenate([[last], pairs[:, 1]]))[:-1]
        for index in np.flatnonzero(pairs[:, 0] < reach).tolist():
            start, end = pairs[index].tolist()
            key = Key(constants.EXTENT_CSUM_OBJECTID, constants.EXTENT_CSUM_KEY, start)
            self._checked.add(
                "checksums-overlap",
                f"{key}, up to {end}: the ones before reach to {reach[index]}",
                tree=_TREE,
                key=str(key),
                vaddr=start,
            )
        start = np.maximum(pairs[:, 0], reach)
        return np.column_stack((start, np.maximum(pairs[:, 1], start)))

    def _compare(self, place: int) -> None:
        """Report the checksums in a place that belong to no extent of data."""
        start, end = int(self._places.start[place]), int(self._places.end[place])
        parts = [np.empty((0, 2), np.uint64)]
        try:
            for batch in self._fs.batches(
                _EXTENTS, Key(start, 0, 0), Key(end - 1, 255, ULLONG_MAX)
            ):
                extents = extents_of(batch, self._fs.nodesize)
                extents = extents.select(~extents.is_block)
                parts.append(np.column_stack((extents.vaddr, extents.end)))
        except TreeNotFoundError:
            return
        covered = joined(np.concatenate(parts))
        inside = (self._pairs[:, 0] < np.uint64(end)) & (self._pairs[:, 1] > np.uint64(start))
        for first, last in _without(self._pairs[inside], covered):
            self._checked.add(
                "checksum-alone",
                f"{last - first} bytes at {first}",
                tree=_TREE,
                vaddr=first,
            )


def _without(pairs: Pairs, others: Pairs) -> list[tuple[int, int]]:
    """Return what is left of some ranges without others; both are in order."""
    left = []
    number = 0
    rows = others.tolist()
    for start, end in pairs.tolist():
        at = start
        while number < len(rows) and rows[number][1] <= at:
            number += 1
        index = number
        while index < len(rows) and rows[index][0] < end:
            if rows[index][0] > at:
                left.append((at, rows[index][0]))
            at = max(at, rows[index][1])
            index += 1
        if at < end:
            left.append((at, end))
    return left
