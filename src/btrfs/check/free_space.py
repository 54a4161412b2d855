"""The free space tree: what it says is free must be what the extents leave free."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.extents import BlockGroup, Extents, Range, is_lost
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
    from btrfs.source.disk.source import DiskSource

__all__ = ["FreeSpaceCheck"]

_TREE = constants.FREE_SPACE_TREE_OBJECTID
_FEATURES = (
    constants.FEATURE_COMPAT_RO_FREE_SPACE_TREE | constants.FEATURE_COMPAT_RO_FREE_SPACE_TREE_VALID
)

_NO_TREE = "there is no free space tree"

Pairs = NDArray[np.uint64]
"""Ranges, in the order of their addresses: rows of where one begins and where it ends."""


class _Stored(NamedTuple):
    """What the free space tree says about a range.

    Attributes:
        free: The free ranges in it.
        groups: The block groups that it has an item for.
        counts: How many free ranges each of these items counts.
    """

    free: Pairs
    groups: Pairs
    counts: list[int]


class FreeSpaceCheck:
    """Compares the free space tree with the extents, one block group after the other.

    Args:
        fs: The filesystem.
        source: Its source.
        checked: Where the findings go.
    """

    def __init__(self, fs: FileSystem, source: DiskSource, checked: Checked) -> None:
        self._fs = fs
        self._source = source
        self._checked = checked
        self._count = self._groups = self._unknown = 0
        found = source.features().compat_ro_flags & _FEATURES
        if not found:
            checked.skipped = _NO_TREE
        elif found != _FEATURES:
            checked.skipped = "the free space tree is marked as not valid"

    def check(self, place: Range, extents: Extents | None, group: BlockGroup | None) -> None:
        """Check a range.

        Args:
            place: The range.
            extents: Its extents; None if they are not all known.
            group: The block group there; None if there is none.
        """
        if self._checked.skipped:
            return
        try:
            stored = self._read(place)
        except TreeNotFoundError:
            self._checked.skipped = _NO_TREE
            return
        self._count += len(stored.free)
        if extents is None or is_lost(self._source, _TREE, place.start, place.end):
            self._unknown += place.is_chunk
            return
        if not place.is_chunk:
            # What mkfs.btrfs leaves of the block groups that it begins with does no harm.
            is_wrong = not np.array_equal(stored.free, stored.groups)
            if is_wrong and not is_lost(self._source, constants.CHUNK_TREE_OBJECTID, 0, KEY_MAX):
                message = f"between {place.start} and {place.end}"
                self._checked.add("free-space-alone", message, tree=_TREE, vaddr=place.start)
            return
        # A missing block group is reported where chunks are checked.
        if group is not None or stored.counts:
            self._groups += 1
            self._compare(stored, _gaps(extents, place), place)

    def finish(self) -> None:
        """Fill in the summary."""
        if self._checked.skipped:
            return
        groups = counted(self._groups, "block group")
        self._checked.summary = f"{counted(self._count, 'free range')} in {groups}"
        self._checked.counts = {"free_ranges": self._count, "block_groups": self._groups}
        if self._unknown:
            self._checked.skipped = (
                f"not checked where not all can be read: {counted(self._unknown, 'block group')}"
            )

    def _compare(self, stored: _Stored, expected: Pairs, place: Range) -> None:
        where = f"block group at {place.start}"
        if stored.counts != [len(stored.free)]:
            found = " and ".join(map(str, stored.counts)) or "no number"
            self._checked.add(
                "free-space-count",
                f"{where}: {found} according to its item, but there are {len(stored.free)}",
                tree=_TREE,
                vaddr=place.start,
            )
        if np.array_equal(stored.free, expected):
            return
        in_tree = set(map(tuple, stored.free.tolist()))
        by_extents = set(map(tuple, expected.tolist()))
        different = sorted(in_tree ^ by_extents)
        start, end = different[0]
        side = "only in the tree" if (start, end) in in_tree else "only by the extents"
        self._checked.add(
            "free-space-differs",
            f"{where}: {counted(len(different), 'range')}, first {end - start} bytes at {start},"
            f" free {side}",
            tree=_TREE,
            vaddr=place.start,
        )

    def _read(self, place: Range) -> _Stored:
        """Return what the tree says about a range."""
        parts, groups = [np.empty((0, 2), np.uint64)], [np.empty((0, 2), np.uint64)]
        counts: list[int] = []
        first = Key(place.start, 0, 0)
        last = Key(place.end - 1, 255, ULLONG_MAX)
        for batch in self._fs.batches(_TREE, first, last):
            infos = batch.of_type(constants.FREE_SPACE_INFO_KEY)
            infos = infos.select(infos.size >= FreeSpaceInfo.struct_size)
            counts.extend(infos.gather("<u4", 0).tolist())
            groups.append(_by_keys(infos))
            parts.append(_by_keys(batch.of_type(constants.FREE_SPACE_EXTENT_KEY)))
            bitmaps = batch.of_type(constants.FREE_SPACE_BITMAP_KEY)
            parts.extend(self._unpacked(bitmaps, index) for index in range(len(bitmaps)))
        return _Stored(_joined(np.concatenate(parts)), _joined(np.concatenate(groups)), counts)

    def _unpacked(self, batch: ItemBatch, index: int) -> Pairs:
        """Return the free ranges of a bitmap."""
        start, sectorsize = int(batch.body[index]), self._fs.sectorsize
        body = batch.buffer[start : start + int(batch.size[index])]
        bits = np.unpackbits(body, bitorder="little")[: int(batch.offset[index]) // sectorsize]
        changes = np.flatnonzero(np.diff(bits, prepend=0, append=0)).astype(np.uint64)
        return np.asarray(changes.reshape(-1, 2) * np.uint64(sectorsize) + batch.objectid[index])


def _by_keys(batch: ItemBatch) -> Pairs:
    """Return the ranges that the keys of items tell."""
    return np.column_stack((batch.objectid, batch.objectid + batch.offset))


def _joined(pairs: Pairs) -> Pairs:
    """Return ranges in order, those that follow one another as one."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    if not len(pairs):
        return pairs
    begins = np.concatenate(([True], pairs[1:, 0] != pairs[:-1, 1]))
    ends = np.concatenate((begins[1:], [True]))
    return np.column_stack((pairs[begins, 0], pairs[ends, 1]))


def _gaps(extents: Extents, place: Range) -> Pairs:
    """Return what the extents of a range leave free."""
    starts = np.concatenate((np.array([place.start], np.uint64), extents.end))
    ends = np.concatenate((extents.vaddr, np.array([place.end], np.uint64)))
    return np.column_stack((starts, ends))[ends > starts]
