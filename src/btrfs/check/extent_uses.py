"""Back references of extents against what really refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.check.extent_items import backrefs_between
from btrfs.check.file_paths import FilePaths
from btrfs.check.pairing import Hash, Sums
from btrfs.check.pieces import pieces_of_files
from btrfs.check.places import Places
from btrfs.check.referrers import (
    Difference,
    FullBackrefs,
    Referrers,
    data_referrers,
    differences,
    referrer_hashes,
    root_referrers,
)
from btrfs.check.report import Checked
from btrfs.check.rereading import reread
from btrfs.ondisk import constants
from btrfs.ondisk.key import key_objectid_str
from btrfs.ondisk.text import counted

if TYPE_CHECKING:
    from btrfs.check.tree_walk import TreeWalk
    from btrfs.filesystem import FileSystem

__all__ = ["ExtentUses"]

_ROWS_AT_A_TIME = 4_000_000

_OF_BLOCKS = (constants.TREE_BLOCK_REF_KEY, constants.SHARED_BLOCK_REF_KEY)


class ExtentUses:
    """Compares back references with what refers to extents, chunk by chunk.

    Args:
        fs: The filesystem.
        places: The chunks, and what lies between them.

    Attributes:
        hashes: Makes hashes of what refers to extents.
    """

    def __init__(self, fs: FileSystem, places: Places) -> None:
        self._fs = fs
        self._places = places
        self.hashes = Hash()
        self._sums = Sums(len(places))
        self._counts = np.zeros(len(places), np.int64)

    def add_backrefs(self, rows: Referrers) -> None:
        """Take the back references of some extents."""
        place = self._places.of(rows.extent)
        self._sums.subtract(place, referrer_hashes(self.hashes, rows))
        np.add.at(self._counts, place, 1)

    def compare(
        self,
        walk: TreeWalk,
        flags: FullBackrefs,
        wanted: NDArray[np.bool_],
        checked: Checked,
        *,
        unclear: NDArray[np.uint64],
        all_seen: bool,
    ) -> None:
        """Compare both sides, and report what differs.

        Args:
            walk: The trees, which have been read.
            flags: Which blocks have the flag FULL_BACKREF.
            wanted: The places of which all extents are known.
            checked: Where the findings go.
            unclear: Addresses of extents whose back references are not known.
            all_seen: Whether everything that can refer to extents could be read.
        """
        nodes = Referrers.concatenated(
            [walk.node_referrers(), root_referrers(walk.owners, self._fs.nodesize)]
        )
        self.add_uses(nodes.extent, referrer_hashes(self.hashes, nodes))
        reporter = _Reporter(self._fs, checked, set(unclear.tolist()), all_seen=all_seen)
        unequal = self._sums.unequal()
        for places in self._groups(unequal[wanted[unequal]]):
            expected = Referrers.concatenated(
                [self._within(nodes, places), *self._of_leaves(walk, flags, places)]
            )
            extents, found = self._found(places)
            reporter.add(differences(expected, found), extents)

    def add_uses(self, extents: NDArray[np.uint64], hashes: NDArray[np.uint64]) -> None:
        """Take what refers to extents: their addresses, and its hashes."""
        self._sums.add(self._places.of(extents), hashes)

    def _groups(self, places: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
        """Yield places in groups whose rows fit into memory."""
        group = np.cumsum(self._counts[places]) // _ROWS_AT_A_TIME
        for number in np.unique(group).tolist():
            yield places[group == number]

    def _within(self, rows: Referrers, places: NDArray[np.intp]) -> Referrers:
        return rows.select(np.isin(self._places.of(rows.extent), places))

    def _of_leaves(
        self, walk: TreeWalk, flags: FullBackrefs, places: NDArray[np.intp]
    ) -> Iterator[Referrers]:
        source = self._fs.block_source()
        for leaves, _, numbers in reread(source, walk, walk.with_leaves):
            index = np.full(len(numbers), -1)
            index[leaves.read] = np.arange(len(leaves.read))
            pieces = pieces_of_files(leaves.batch)
            rows = data_referrers(pieces, index[leaves.block], leaves.headers, flags)
            yield self._within(rows, places)

    def _found(self, places: NDArray[np.intp]) -> tuple[set[int], Referrers]:
        """Return the addresses of the extents in some places, and their back references."""
        extents: set[int] = set()
        parts = []
        for place in places.tolist():
            start, end = int(self._places.start[place]), int(self._places.end[place])
            for vaddr, rows in backrefs_between(self._fs, start, end):
                extents.update(vaddr.tolist())
                parts.append(rows)
        return extents, Referrers.concatenated(parts)


class _Reporter:
    """Makes findings of differences.

    Args:
        fs: The filesystem.
        checked: Where the findings go.
        unclear: Addresses of extents whose back references are not known.
        all_seen: Whether everything that can refer to extents could be read.
    """

    def __init__(
        self, fs: FileSystem, checked: Checked, unclear: set[int], *, all_seen: bool
    ) -> None:
        self._unclear = unclear
        self._checked = checked
        self._all_seen = all_seen
        self._paths = FilePaths(fs)

    def add(self, found: Iterable[Difference], known: set[int]) -> None:
        """Add a finding for each difference.

        Args:
            found: The differences.
            known: The addresses of all extents.
        """
        for one in found:
            if one.extent in self._unclear:
                continue
            if one.expected:
                kind = "backref-missing" if one.extent in known else "extent-missing"
            else:
                kind = "backref-alone"
            if one.expected and one.found:
                kind = "backref-count"
            # What could not be read may be what a back reference stands for.
            if one.found > one.expected and not self._all_seen:
                continue
            path = self._path(kind, one)
            self._checked.add(
                kind,
                f"extent at {one.extent}, {one.length} bytes, {_referrer(one)}",
                tree=None if _is_shared(one) else one.origin,
                path=path,
                expected=counted(one.expected, "time"),
                found=counted(one.found, "time"),
                vaddr=one.extent,
            )

    def _path(self, kind: str, one: Difference) -> str | None:
        if one.kind != constants.EXTENT_DATA_REF_KEY or not self._checked.has_room(kind):
            return None
        return self._paths.of_inode(one.origin, one.objectid)


def _is_shared(one: Difference) -> bool:
    return one.kind in (constants.SHARED_BLOCK_REF_KEY, constants.SHARED_DATA_REF_KEY)


def _referrer(one: Difference) -> str:
    """Return what a difference is about, in words."""
    if _is_shared(one):
        return f"referred to by the block at {one.origin}"
    tree = key_objectid_str(one.origin, constants.ROOT_ITEM_KEY)
    if one.kind in _OF_BLOCKS:
        return f"referred to by tree {tree}"
    # A piece may begin behind the beginning of its extent, so that this can be below zero.
    offset = one.offset - (1 << 64) if one.offset >> 63 else one.offset
    return f"referred to by inode {one.objectid} of tree {tree}, at {offset}"
