"""The free space tree: what it says is free must be what the extents leave free.

Both sides are lists of ranges. They are compared by sums of hashes for each block group (see
:mod:`btrfs.check.pairing`), while the trees are read once each. Where a block group has a rest, its
ranges are read again, and the first that differs is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.check.extent_items import Extents, extents_of
from btrfs.check.pairing import Hash, Sums
from btrfs.check.places import Places, is_lost
from btrfs.check.report import Checked
from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX, ULLONG_MAX
from btrfs.ondisk.items.free_space import FreeSpaceInfo
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import counted

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["FreeSpaceCheck"]

_TREE = constants.FREE_SPACE_TREE_OBJECTID
_FEATURES = (
    constants.FEATURE_COMPAT_RO_FREE_SPACE_TREE | constants.FEATURE_COMPAT_RO_FREE_SPACE_TREE_VALID
)

_NO_TREE = "there is no free space tree"

Pairs = NDArray[np.uint64]
"""Ranges, in the order of their addresses: rows of where one begins and where it ends."""


class FreeSpaceCheck:
    """Compares the free space tree with the extents.

    Args:
        fs: The filesystem.
        places: The chunks, and what lies between them.
        checked: Where the findings go.
    """

    def __init__(self, fs: FileSystem, places: Places, checked: Checked) -> None:
        self._fs = fs
        self._source = fs.block_source()
        self._places = places
        self._checked = checked
        self._hashes = Hash()
        self._sums = Sums(len(places))
        self._ends = places.start.copy()
        self._found = np.zeros(len(places), np.int64)
        self._counts = np.zeros(len(places), np.int64)
        self._infos = np.zeros(len(places), np.int64)
        self._forms = _Forms(len(places))
        self._outside: list[Pairs] = []
        self._groups: list[Pairs] = []
        self._last: Pairs = np.empty((0, 2), np.uint64)
        self._end = 0
        found = self._source.features().compat_ro_flags & _FEATURES
        if not found:
            checked.skipped = _NO_TREE
        elif found != _FEATURES:
            checked.skipped = "the free space tree is marked as not valid"

    def add_extents(self, extents: Extents, place: NDArray[np.intp]) -> None:
        """Take some extents, in the order of their addresses.

        Args:
            extents: The extents.
            place: The place that each begins in.
        """
        if not len(place):
            return
        follows = np.zeros(len(place), np.bool_)
        follows[1:] = place[1:] == place[:-1]
        begin = self._ends[place]
        # Where extents overlap, the longest counts; that is reported elsewhere.
        reach = np.maximum.accumulate(extents.end)
        begin[1:] = np.where(follows[1:], np.maximum(reach[:-1], begin[1:]), begin[1:])
        is_gap = np.flatnonzero(extents.vaddr > begin)
        hashes = self._hashes(begin[is_gap], extents.vaddr[is_gap])
        self._sums.add(place[is_gap], hashes)
        np.maximum.at(self._ends, place, extents.end)

    def run(self, lost_extents: NDArray[np.bool_], groups: NDArray[np.uint64]) -> None:
        """Read the tree, compare, and fill in the summary.

        Args:
            lost_extents: Places of which not all extents are known.
            groups: Where the block groups begin.
        """
        if self._checked.skipped:
            return
        self._add_last_gaps()
        try:
            for batch in self._fs.batches(_TREE):
                self._take(batch)
        except TreeNotFoundError:
            self._checked.skipped = _NO_TREE
            return
        self._add_ranges(np.empty((0, 2), np.uint64), keep_last=False)
        lost = lost_extents | self._places.lost(self._source, _TREE)
        is_group = np.zeros(len(lost), np.bool_)
        start = self._places.starting_at(groups)
        is_group[start[start >= 0]] = True
        # A missing block group is reported where chunks are checked.
        wanted = self._places.is_chunk & ~lost & (is_group | (self._infos > 0))
        for place in np.flatnonzero(wanted & self._is_wrong()).tolist():
            self._compare(place)
        self._check_forms(np.flatnonzero(wanted & (self._infos == 1)))
        self._check_outside()
        count, ranges = int(wanted.sum()), int(self._found.sum())
        self._checked.summary = (
            f"{counted(ranges, 'free range')} in {counted(count, 'block group')}"
        )
        self._checked.counts = {"free_ranges": ranges, "block_groups": count}
        unknown = int((lost & self._places.is_chunk).sum())
        if unknown:
            self._checked.skipped = (
                f"not checked where not all can be read: {counted(unknown, 'block group')}"
            )

    def _is_wrong(self) -> NDArray[np.bool_]:
        """Return the places where something does not agree."""
        return np.asarray(
            (self._sums.values != 0)
            | (self._counts != self._forms.counted(self._found))
            | (self._infos != 1)
        )

    def _add_last_gaps(self) -> None:
        """Add what is free after the last extent of each chunk."""
        place = np.flatnonzero(self._places.is_chunk & (self._ends < self._places.end))
        self._sums.add(place, self._hashes(self._ends[place], self._places.end[place]))

    # Reading.

    def _take(self, batch: ItemBatch) -> None:
        infos = batch.of_type(constants.FREE_SPACE_INFO_KEY)
        infos = infos.select(infos.size >= FreeSpaceInfo.struct_size)
        place = self._places.of(infos.objectid)
        np.add.at(self._infos, place, 1)
        np.add.at(self._counts, place, infos.gather("<u4", 0))
        is_exact = self._places.start[place] == infos.objectid
        is_exact &= self._places.end[place] - infos.objectid == infos.offset
        self._forms.add_infos(place, infos.gather("<u4", 4), is_exact)
        self._groups.append(_by_keys(infos))
        self._add_items(batch)
        self._add_ranges(_ranges_of(batch, self._fs.sectorsize), keep_last=True)

    def _add_items(self, batch: ItemBatch) -> None:
        """Count items of both kinds, and look for those that overlap the one before."""
        is_bitmap = batch.type == constants.FREE_SPACE_BITMAP_KEY
        chosen = is_bitmap | (batch.type == constants.FREE_SPACE_EXTENT_KEY)
        batch, is_bitmap = batch.select(chosen), is_bitmap[chosen]
        pairs = _by_keys(batch)
        place = self._places.of(pairs[:, 0])
        self._forms.add_items(place, is_bitmap, batch.offset)
        before = np.concatenate([[np.uint64(self._end)], pairs[:, 1]])[: len(pairs)]
        for index in np.flatnonzero(pairs[:, 0] < before).tolist():
            key = batch.key(index)
            self._checked.add(
                "free-space-overlaps",
                f"{key}: the item before reaches to {before[index]}",
                tree=_TREE,
                key=str(key),
                vaddr=key.objectid,
            )
        if len(pairs):
            self._end = int(pairs[-1, 1])

    def _add_ranges(self, pairs: Pairs, *, keep_last: bool) -> None:
        """Add free ranges; those that follow one another in a block group count as one."""
        pairs = self._joined(np.concatenate([self._last, pairs]))
        self._last = pairs[:0]
        if keep_last and len(pairs):
            pairs, self._last = pairs[:-1], pairs[-1:]
        place = self._places.of(pairs[:, 0])
        inside = self._places.is_chunk[place]
        self._outside.append(pairs[~inside])
        pairs, place = pairs[inside], place[inside]
        np.add.at(self._found, place, 1)
        self._sums.subtract(place, self._hashes(pairs[:, 0], pairs[:, 1]))

    def _joined(self, pairs: Pairs) -> Pairs:
        if not len(pairs):
            return pairs
        # Two block groups that follow one another have ranges of their own.
        is_border = np.zeros(len(pairs), np.bool_)
        place = self._places.of(pairs[:, 0])
        is_border[1:] = place[1:] != place[:-1]
        return joined(pairs, is_border)

    # Findings.

    def _check_forms(self, place: NDArray[np.intp]) -> None:
        """Check that the items of block groups are of the form that their information tells."""
        length = self._places.end - self._places.start
        for where, why in self._forms.problems(place, self._found, length):
            start = int(self._places.start[where])
            self._checked.add(
                "free-space-form", f"block group at {start}: {why}", tree=_TREE, vaddr=start
            )

    def _check_outside(self) -> None:
        """Report what is free outside of all chunks, unless it is the rest of a block group."""
        free = np.concatenate(self._outside)
        if not len(free) or is_lost(self._source, constants.CHUNK_TREE_OBJECTID, 0, KEY_MAX):
            return
        groups = np.concatenate(self._groups)
        groups = groups[~self._places.is_chunk[self._places.of(groups[:, 0])]]
        # What mkfs.btrfs leaves of the block groups that it begins with does no harm.
        known = set(map(tuple, joined(groups).tolist()))
        for start, end in joined(free).tolist():
            if (start, end) not in known:
                self._checked.add(
                    "free-space-alone", f"between {start} and {end}", tree=_TREE, vaddr=start
                )

    def _compare(self, place: int) -> None:
        """Read the ranges of a block group again, and say how they differ."""
        start, end = int(self._places.start[place]), int(self._places.end[place])
        where = f"block group at {start}"
        found, count, infos = (
            int(column[place])
            for column in (self._forms.counted(self._found), self._counts, self._infos)
        )
        if infos != 1 or count != found:
            said = {0: "no number", 1: str(count)}.get(infos, f"{infos} numbers")
            self._checked.add(
                "free-space-count",
                f"{where}: {said} according to its item, but there are {found}",
                tree=_TREE,
                vaddr=start,
            )
        stored, expected = self._stored(start, end), self._left(start, end)
        different = sorted(set(map(tuple, stored.tolist())) ^ set(map(tuple, expected.tolist())))
        if not different:
            return
        first, last = different[0]
        side = "in the tree" if [first, last] in stored.tolist() else "by the extents"
        self._checked.add(
            "free-space-differs",
            f"{where}: {counted(len(different), 'range')}, first {last - first} bytes at {first},"
            f" free only {side}",
            tree=_TREE,
            vaddr=start,
        )

    def _stored(self, start: int, end: int) -> Pairs:
        """Return what the tree says is free between two addresses."""
        batches = self._fs.batches(_TREE, *_keys(start, end))
        parts = [_ranges_of(batch, self._fs.sectorsize) for batch in batches]
        return joined(np.concatenate([np.empty((0, 2), np.uint64), *parts]))

    def _left(self, start: int, end: int) -> Pairs:
        """Return what the extents leave free between two addresses."""
        starts, ends = [np.array([start], np.uint64)], []
        for batch in self._fs.batches(constants.EXTENT_TREE_OBJECTID, *_keys(start, end)):
            extents = extents_of(batch, self._fs.nodesize)
            starts.append(extents.end)
            ends.append(extents.vaddr)
        one, other = np.concatenate(starts), np.concatenate([*ends, np.array([end], np.uint64)])
        one = np.maximum.accumulate(one)
        return np.column_stack((one, other))[other > one]


class _Forms:
    """How the free space of block groups is stored: as ranges, or as bitmaps that cover all of it.

    Args:
        places: How many places there are.
    """

    def __init__(self, places: int) -> None:
        self._flags = np.zeros(places, np.uint32)
        self._is_exact = np.zeros(places, np.bool_)
        self._extents = np.zeros(places, np.int64)
        self._bitmaps = np.zeros(places, np.int64)
        self._bitmap_bytes = np.zeros(places, np.uint64)

    def add_infos(
        self, place: NDArray[np.intp], flags: NDArray[np.uint32], is_exact: NDArray[np.bool_]
    ) -> None:
        """Take what is said of block groups.

        Args:
            place: The place of each.
            flags: FREE_SPACE_USING_BITMAPS, or 0.
            is_exact: Whether it is for the block group from its beginning to its end.
        """
        self._flags[place] |= flags
        self._is_exact[place] = is_exact

    def add_items(
        self, place: NDArray[np.intp], is_bitmap: NDArray[np.bool_], length: NDArray[np.uint64]
    ) -> None:
        """Take items: the place of each, whether it is a bitmap, and bytes that it is for."""
        np.add.at(self._extents, place[~is_bitmap], 1)
        np.add.at(self._bitmaps, place[is_bitmap], 1)
        np.add.at(self._bitmap_bytes, place[is_bitmap], length[is_bitmap])

    def counted(self, ranges: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what the kernel counts as ranges of each place: items or, with bitmaps, ranges.

        Args:
            ranges: How many free ranges each place has; neighbours are one.
        """
        return np.where(self._bitmaps > 0, ranges, self._extents)

    def problems(
        self, place: NDArray[np.intp], ranges: NDArray[np.int64], length: NDArray[np.uint64]
    ) -> Iterator[tuple[int, str]]:
        """Yield places where something is wrong, and what.

        Args:
            place: The places to look at.
            ranges: How many free ranges each place has; neighbours are one.
            length: Bytes of each place.
        """
        has_bitmaps = self._flags & np.uint32(constants.FREE_SPACE_USING_BITMAPS) != 0
        for wrong, why in (
            (~self._is_exact, "its information is for another range"),
            (has_bitmaps & (self._extents > 0), "it has ranges, though it should have bitmaps"),
            (~has_bitmaps & (self._bitmaps > 0), "it has bitmaps, though it should have ranges"),
            (
                has_bitmaps & (self._bitmap_bytes != length),
                "its bitmaps are not for all of its bytes",
            ),
            (
                ~has_bitmaps & (self._bitmaps == 0) & (self._extents != ranges),
                "two of its ranges lie side by side, and should be one",
            ),
        ):
            for where in place[wrong[place]].tolist():
                yield where, why


def _keys(start: int, end: int) -> tuple[Key, Key]:
    return Key(start, 0, 0), Key(end - 1, 255, ULLONG_MAX)


def _ranges_of(batch: ItemBatch, sectorsize: int) -> Pairs:
    """Return the free ranges that items tell, in the order of their addresses."""
    extents = _by_keys(batch.of_type(constants.FREE_SPACE_EXTENT_KEY))
    bitmaps = batch.of_type(constants.FREE_SPACE_BITMAP_KEY)
    if not len(bitmaps):
        return extents
    # Nearly all have the same size.
    parts = [
        _unpacked(bitmaps.select(bitmaps.size == size), size, sectorsize)
        for size in np.unique(bitmaps.size).tolist()
    ]
    pairs = np.concatenate([extents, *parts])
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _unpacked(bitmaps: ItemBatch, size: int, sectorsize: int) -> Pairs:
    """Return the free ranges of bitmaps that have the same size."""
    bodies = bitmaps.buffer[bitmaps.body[:, None] + np.arange(size)]
    bits = np.unpackbits(bodies, axis=1, bitorder="little")
    # A column of zeros at either side, so that no range goes on in the next bitmap.
    row = np.zeros((len(bitmaps), size * 8 + 2), np.int8)
    row[:, 1:-1] = bits
    sectors = bitmaps.offset // np.uint64(sectorsize)
    row[:, 1:-1] &= np.arange(size * 8, dtype=np.uint64) < sectors[:, None]
    bitmap, sector = np.nonzero(np.diff(row, axis=1))
    places = bitmaps.objectid[bitmap] + sector.astype(np.uint64) * np.uint64(sectorsize)
    return places.reshape(-1, 2)


def _by_keys(batch: ItemBatch) -> Pairs:
    """Return the ranges that the keys of items tell."""
    return np.column_stack((batch.objectid, batch.objectid + batch.offset))


def joined(pairs: Pairs, is_border: NDArray[np.bool_] | None = None) -> Pairs:
    """Return ranges, those that follow one another as one.

    Args:
        pairs: Ranges in the order of their addresses.
        is_border: Which of them are not to be joined with the one before.
    """
    if not len(pairs):
        return pairs
    begins = np.ones(len(pairs), np.bool_)
    begins[1:] = pairs[1:, 0] != pairs[:-1, 1]
    if is_border is not None:
        begins |= is_border
    ends = np.append(begins[1:], True)
    return np.column_stack((pairs[begins, 0], pairs[ends, 1]))
