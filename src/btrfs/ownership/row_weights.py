"""How often a row of a scan's tables counts for some directories and files.

A row is read once, but stands for a piece of a file in every subvolume that reaches its leaf, and
the file may have several names, or none any more. Each name in each subvolume counts. Where a
subvolume is chosen as a whole, sets of roots tell that, and names matter only for the few files
that have not exactly one. Only of directories in a subvolume all names are looked at.
"""

from __future__ import annotations

import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ownership.root_sets import mask_of

if TYPE_CHECKING:
    from btrfs.ownership.directories import Entry
    from btrfs.ownership.scanning import Scan

__all__ = ["Place", "RowWeights", "places"]

_FORMAT_MASK = 0o170000
"""The bits of a mode that say what an inode is (S_IFMT)."""

_PAIRS_AT_A_TIME = 1 << 22


class NameCounts(NamedTuple):
    """How many names inodes have among what is chosen. An entry per inode that has any.

    Attributes:
        inum: Inode number, ascending, uint64.
        number: How many names, int64.
    """

    inum: NDArray[np.uint64]
    number: NDArray[np.int64]

    def of(self, inum: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return how many names some inodes have; many of them may have none."""
        if not len(self.inum):
            return np.zeros(len(inum), np.int64)
        index = np.searchsorted(self.inum, inum)
        index[index == len(self.inum)] = 0
        return np.where(self.inum[index] == inum, self.number[index], 0)


class Place(NamedTuple):
    """What is chosen of a subvolume.

    Attributes:
        tree: Number of the subvolume.
        names: The names that are chosen; None if all are.
    """

    tree: int
    names: NameCounts | None = None


def places(entries: Iterable[Entry]) -> list[Place]:
    """Return what of which subvolumes is below some directories, files and subvolumes."""
    return [place for entry in entries for place in _places(entry)]


def _places(entry: Entry) -> Iterator[Place]:
    contained = entry.directories.places.contained
    if entry.is_subvolume:
        yield from map(Place, contained.within(entry.tree))
        return
    files = entry.directories.subvolume(entry.tree)
    below = slice(entry.node, int(files.names.end[entry.node]))
    yield Place(entry.tree, NameCounts(*np.unique(files.names.inum[below], return_counts=True)))
    yield from map(Place, files.subvolumes_below(entry.node))


class RowWeights:
    """How often the rows of a scan's tables count: once for each name that is chosen.

    Only names of regular files count: symbolic links have inline content, too.

    Args:
        scanned: What was read, with names.
        chosen: What is chosen. What comes twice counts twice.

    Attributes:
        files: How many names are chosen.
    """

    def __init__(self, scanned: Scan, chosen: Sequence[Place]) -> None:
        self._scan = scanned
        self._bits = {owner.tree: bit for bit, owner in enumerate(scanned.owners)}
        # The root of the top level may be lost.
        self._chosen = [place for place in chosen if place.tree in self._bits]
        trees = Counter(place.tree for place in self._chosen if place.names is None)
        self._whole = _WholeSubvolumes(scanned, {self._bits[tree]: trees[tree] for tree in trees})
        self._parts = [
            _PartOfSubvolume(scanned, self._bits[tree], names)
            for tree, names in _merged(self._chosen).items()
        ]
        self.files = self._whole.files + sum(part.files for part in self._parts)

    def of(self, leaf: NDArray[np.uint32], inum: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return how often some rows count.

        Args:
            leaf: Number of the leaf of each row.
            inum: Inode number of each row.
        """
        weights = self._whole.weights(leaf, inum)
        for part in self._parts:
            part.add_weights(weights, leaf, inum)
        return weights

    def first_met(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return of each extent the reference that comes first in what is chosen.

        In a subvolume that is the one of the lowest inode number, and in a file the first piece.

        Args:
            rows: Indexes of references that count, extent by extent.
        """
        references = self._scan.references
        extent, inum = references.extent[rows], references.inum[rows]
        place = self._first_places(references.leaf[rows], inum)
        order = np.lexsort((references.position[rows], inum, place, extent))
        return rows[order][np.flatnonzero(np.diff(extent[order], prepend=~extent[:1]) != 0)]

    def _first_places(
        self, leaf: NDArray[np.uint32], inum: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """Return for some rows the first of the places that have it."""
        masks = self._scan.sets.masks
        ids, set_of_row = np.unique(self._scan.leaf_sets[leaf], return_inverse=True)
        found = np.full(len(leaf), len(self._chosen))
        for index, place in reversed(list(enumerate(self._chosen))):
            bit = self._bits[place.tree]
            has_place = np.array([masks[number] >> bit & 1 for number in ids.tolist()], np.bool_)
            is_in = has_place[set_of_row]
            if place.names is not None:
                is_in &= place.names.of(inum) != 0
            found[is_in] = index
        return found


class _WholeSubvolumes:
    """Weights where subvolumes are chosen as a whole.

    Args:
        scanned: What was read.
        times: How often each is chosen, by its bit in sets of roots.

    Attributes:
        files: How many names of regular files they have.
    """

    def __init__(self, scanned: Scan, times: dict[int, int]) -> None:
        self._scan = scanned
        bits = defaultdict(list)
        for bit, number in times.items():
            bits[number].append(bit)
        self._masks = {number: mask_of(some) for number, some in bits.items()}
        by_set = np.array([self._roots_in(mask) for mask in scanned.sets.masks], np.int64)
        self._by_leaf = by_set[scanned.leaf_sets]
        inodes = scanned.inodes
        formats = inodes.mode & _FORMAT_MASK
        is_regular = formats == stat.S_IFREG
        names = np.where(is_regular, inodes.nlink, 0).astype(np.int64)
        by_inode = self._by_leaf[inodes.leaf]
        self.files = int((names * by_inode).sum())
        # Inodes that have not exactly one name that counts, by inode number. Directories have no
        # content that could be counted.
        has_content = is_regular | (formats == stat.S_IFLNK)
        odd = np.flatnonzero(has_content & (names != 1) & (by_inode != 0))
        odd = odd[np.argsort(inodes.inum[odd])]
        self._odd_inum = inodes.inum[odd]
        self._odd_names = names[odd]
        self._odd_set = scanned.leaf_sets[inodes.leaf[odd]]

    def weights(self, leaf: NDArray[np.uint32], inum: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return how often some rows count."""
        weights = self._by_leaf[leaf]
        row = np.flatnonzero(np.isin(inum, self._odd_inum) & (weights != 0))
        first = np.searchsorted(self._odd_inum, inum[row])
        count = np.searchsorted(self._odd_inum, inum[row], "right") - first
        # Independent subvolumes use the same inode numbers, so there may be many pairs.
        pairs = np.cumsum(count)
        bounds = np.arange(0, int(count.sum()), _PAIRS_AT_A_TIME)[1:]
        for some in np.split(np.arange(len(row)), np.searchsorted(pairs, bounds)):
            self._add_odd(
                weights, leaf, np.repeat(row[some], count[some]), _ranges(first[some], count[some])
            )
        return weights

    def _add_odd(
        self,
        weights: NDArray[np.int64],
        leaf: NDArray[np.uint32],
        row: NDArray[np.intp],
        odd: NDArray[np.intp],
    ) -> None:
        """Correct the weights of rows of odd inodes.

        Args:
            weights: The weights of all rows.
            leaf: Leaves of all rows.
            row: Indexes of rows.
            odd: For each an inode of its number, in some subvolumes. A row has several where the
                inode item differs between subvolumes.
        """
        sets = self._scan.leaf_sets[leaf[row]].astype(np.uint64) << np.uint64(32)
        pairs, inverse = np.unique(sets | self._odd_set[odd], return_inverse=True)
        masks = self._scan.sets.masks
        roots = [
            self._roots_in(masks[pair >> 32] & masks[pair & 0xFFFFFFFF]) for pair in pairs.tolist()
        ]
        more = np.array(roots, np.int64)[inverse] * (self._odd_names[odd] - 1)
        np.add.at(weights, row, more)

    def _roots_in(self, mask: int) -> int:
        """Return how many subvolumes of a set are chosen, each as often as it is."""
        return sum(times * (mask & some).bit_count() for times, some in self._masks.items())


class _PartOfSubvolume:
    """Weights where directories and files of a subvolume are chosen.

    Args:
        scanned: What was read.
        bit: Its bit in sets of roots.
        names: The names that are chosen.

    Attributes:
        files: How many names of regular files there are among them.
    """

    def __init__(self, scanned: Scan, bit: int, names: NameCounts) -> None:
        inodes = scanned.inodes
        self._has_leaf = scanned.sets.meeting(1 << bit)[scanned.leaf_sets]
        is_file = (inodes.mode & _FORMAT_MASK == stat.S_IFREG) & self._has_leaf[inodes.leaf]
        kept = np.isin(names.inum, inodes.inum[is_file])
        self._names = NameCounts(names.inum[kept], names.number[kept])
        self.files = int(self._names.number.sum())

    def add_weights(
        self, weights: NDArray[np.int64], leaf: NDArray[np.uint32], inum: NDArray[np.uint64]
    ) -> None:
        """Add to the weights of some rows how often they count."""
        row = np.flatnonzero(self._has_leaf[leaf])
        weights[row] += self._names.of(inum[row])


def _merged(chosen: Iterable[Place]) -> dict[int, NameCounts]:
    """Return the names that are chosen of each subvolume that is not chosen as a whole."""
    parts: dict[int, list[NameCounts]] = defaultdict(list)
    for place in chosen:
        if place.names is not None:
            parts[place.tree].append(place.names)
    found = {}
    for tree, some in parts.items():
        inum, index = np.unique(np.concatenate([one.inum for one in some]), return_inverse=True)
        count = np.bincount(index, np.concatenate([one.number for one in some]), len(inum))
        found[tree] = NameCounts(inum, count.astype(np.int64))
    return found


def _ranges(first: NDArray[np.intp], count: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the numbers of ranges, one after another."""
    begins = np.repeat(first - (np.cumsum(count) - count), count)
    return begins + np.arange(len(begins))
