"""How much the directories and files of a subvolume use.

An extent belongs to a directory alone if all that use it are below. The names of a subvolume are
numbered in preorder, so that is the lowest directory whose range has the first and the last name
that use the extent. The sums of all directories then follow from one pass over the references of
the subvolume and a running sum, however many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ownership.names import LinkRows
from btrfs.ownership.path_tree import PathTree, path_tree
from btrfs.ownership.places import Places

__all__ = ["DirectorySizes", "FileSizes", "Inodes", "SubvolumeFiles"]


@dataclass(frozen=True, slots=True)
class DirectorySizes:
    """Bytes of data on disk of each node with all that is below it. An entry per node.

    Attributes:
        represented: Bytes of extents that are shown there, each in one place only, int64.
        exclusive: Bytes that nothing else uses: what deleting it frees, int64.
        referenced: Bytes of all extents that are used there, each once, int64.
        unreachable: Of the bytes that are shown there, those that no file reaches, int64.
        breaks: How often the next piece of a file does not follow on disk, int64. Those in
            subvolumes inside do not count, and in a read-only subvolume there are none.
    """

    represented: NDArray[np.int64]
    exclusive: NDArray[np.int64]
    referenced: NDArray[np.int64]
    unreachable: NDArray[np.int64]
    breaks: NDArray[np.int64]


class FileSizes(NamedTuple):
    """What single files use. An entry per inode, as in :attr:`PathTree.inodes`.

    After those come, as one, the files that are deleted and still open.

    Attributes:
        represented: Bytes of extents that are shown there, each in one place only, int64.
        exclusive: Bytes that no other file uses, int64.
        referenced: Bytes of all extents that it uses, int64.
        unreachable: Of the bytes that are shown there, those that no file reaches, int64.
        reclaimable: Of these, bytes of extents that no other file uses, int64: to write the file
            anew gives them back.
        pieces: How many pieces it has in extents, int64.
        piece_bytes: Bytes of these when they are decompressed, int64.
        breaks: How often the next piece does not follow on disk, int64; 0 in a read-only subvolume.
    """

    represented: NDArray[np.int64]
    exclusive: NDArray[np.int64]
    referenced: NDArray[np.int64]
    unreachable: NDArray[np.int64]
    reclaimable: NDArray[np.int64]
    pieces: NDArray[np.int64]
    piece_bytes: NDArray[np.int64]
    breaks: NDArray[np.int64]


class Inodes(NamedTuple):
    """What the inodes with a name are. An entry per inode, as in :attr:`PathTree.inodes`.

    Attributes:
        size: Bytes of the file, uint64.
        mode: Type and permissions, as in stat(2), uint32; 0 if the inode could not be read.
        nlink: How many names it has, uint32.
    """

    size: NDArray[np.uint64]
    mode: NDArray[np.uint32]
    nlink: NDArray[np.uint32]


class _Uses(NamedTuple):
    """Which inodes use which extents. An entry per reference, extent by extent.

    Attributes:
        row: Index of the reference, int64.
        inode: Index of the inode; files without a name have the one after the last.
        extent: Extents that are used, each once, uint32.
        first: Where the references of each extent begin, int64.
    """

    row: NDArray[np.intp]
    inode: NDArray[np.int64]
    extent: NDArray[np.uint32]
    first: NDArray[np.intp]


class SubvolumeFiles:
    """The directories and files of one subvolume.

    Args:
        places: Where the extents of each set of roots are at home, and where they are shown.
        tree: Number of the subvolume.
    """

    def __init__(self, places: Places, tree: int) -> None:
        self.tree = tree
        self._places = places
        self._scan = places.scan
        has_set = self._scan.sets.meeting(places.mask([tree]))
        self._has_leaf = has_set[self._scan.leaf_sets]

    @cached_property
    def names(self) -> PathTree:
        """The directories and files, by name."""
        links = self._scan.links
        # The top directory has a name, too: .. in itself.
        is_top = links.inum == constants.FIRST_FREE_OBJECTID
        chosen = np.flatnonzero(self._has_leaf[links.leaf] & ~is_top)
        # Leaves were read in the order of their addresses, which tells nothing to a user.
        chosen = chosen[np.lexsort((links.parent[chosen], links.inum[chosen]))]
        return path_tree(
            self.tree,
            LinkRows(
                links.inum[chosen],
                links.parent[chosen],
                links.leaf[chosen],
                links.name_at[chosen],
                links.name_len[chosen],
            ),
            self._scan.names,
            self._places.contained.mounts.get(self.tree, ()),
        )

    @cached_property
    def inodes(self) -> Inodes:
        """What the inodes with a name are."""
        rows = self._scan.inodes
        chosen = np.flatnonzero(self._has_leaf[rows.leaf])
        index = self.names.index_of(rows.inum[chosen])
        chosen, index = chosen[index >= 0], index[index >= 0]
        found = Inodes(*(np.zeros(len(self.names.inodes), each.dtype) for each in rows[1:4]))
        found.size[index] = rows.size[chosen]
        found.mode[index] = rows.mode[chosen]
        found.nlink[index] = rows.nlink[chosen]
        return found

    @cached_property
    def uses(self) -> _Uses:
        """Which inodes use which extents."""
        references = self._scan.references
        row = self._rows
        inode = self.names.index_of(references.inum[row])
        inode[inode < 0] = len(self.names.inodes)
        extent = references.extent[row]
        first = np.flatnonzero(np.diff(extent.astype(np.int64), prepend=-1) != 0)
        return _Uses(row, inode, extent[first], first)

    @cached_property
    def sizes(self) -> DirectorySizes:
        """Bytes of each directory and file, with all that is below it."""
        extents, names, uses = self._scan.extents, self.names, self.uses
        num_bytes = extents.num_bytes[uses.extent].astype(np.int64)
        represented, exclusive, unreachable = np.zeros((3, len(names)), np.int64)
        for node, mount in names.mounts.items():
            totals = self._places.totals(mount.tree)
            represented[node], exclusive[node] = totals.represented, totals.exclusive
            unreachable[node] = totals.unreachable
        shown = self._is_shown
        at_node, _ = self._shown_at
        np.add.at(represented, at_node[shown], num_bytes[shown])
        np.add.at(unreachable, at_node[shown], extents.unreachable[uses.extent[shown]])
        self._add_exclusive(exclusive, num_bytes)
        return DirectorySizes(
            represented=names.sums_below(represented),
            exclusive=names.sums_below(exclusive),
            referenced=self._referenced(),
            unreachable=names.sums_below(unreachable),
            breaks=names.sums_below(self._breaks_of_nodes()),
        )

    @cached_property
    def files(self) -> FileSizes:
        """What single files use."""
        extents, uses = self._scan.extents, self.uses
        count = len(self.names.inodes) + 1
        num_bytes = extents.num_bytes[uses.extent].astype(np.int64)
        shown = self._is_shown
        _, shown_inode = self._shown_at
        lowest = _reduced(np.minimum, uses.inode, uses.first)
        alone = lowest == _reduced(np.maximum, uses.inode, uses.first)
        alone &= self._scan.sets.within(self._places.mask([self.tree]))[extents.set_id[uses.extent]]
        lowest, of_alone = lowest[alone], uses.extent[alone]
        # An extent counts once for each file, however many of its pieces the file has.
        extent = self._scan.references.extent[uses.row]
        pairs = np.sort(extent.astype(np.uint64) << np.uint64(32) | uses.inode.astype(np.uint64))
        pairs = pairs[np.diff(pairs, prepend=~pairs[:1]) != 0]
        of_pairs = extents.num_bytes[(pairs >> np.uint64(32)).astype(np.intp)]
        unreachable = extents.unreachable
        return FileSizes(
            represented=_sums(shown_inode[shown], num_bytes[shown], count),
            exclusive=_sums(lowest, extents.num_bytes[of_alone], count),
            referenced=_sums((pairs & np.uint64(0xFFFFFFFF)).astype(np.intp), of_pairs, count),
            unreachable=_sums(shown_inode[shown], unreachable[uses.extent[shown]], count),
            reclaimable=_sums(lowest, unreachable[of_alone], count),
            pieces=np.bincount(uses.inode, minlength=count),
            piece_bytes=_sums(uses.inode, self._scan.references.num_bytes[uses.row], count),
            breaks=np.bincount(uses.inode[self._breaks], minlength=count),
        )

    @property
    def breaks(self) -> int:
        """How often the next piece of a file does not follow on disk, in all files together."""
        return len(self._breaks)

    def _referenced(self) -> NDArray[np.int64]:
        """Return the bytes of all extents that are used at each node or below it."""
        names, num_bytes = self.names, self._scan.extents.num_bytes
        place, extent, common, extent_of_common = self._distinct
        sums = _sums(place, num_bytes[extent], len(names))
        sums -= _sums(common, num_bytes[extent_of_common], len(names))
        found = names.sums_below(sums)
        with_mounts = set()
        for node, mount in names.mounts.items():
            found[node] = self._places.totals(mount.tree).referenced
            above = int(names.parent[node])
            while above > 0 and above not in with_mounts:
                with_mounts.add(above)
                above = int(names.parent[above])
        for node in with_mounts:
            found[node] = self._referenced_with_mounts(node)
        found[0] = self._places.totals(self.tree).referenced
        return found

    def _referenced_with_mounts(self, node: int) -> int:
        """Return the bytes of extents used at a node, below it, and in subvolumes below it."""
        names, extents = self.names, self._scan.extents
        inside = self.subvolumes_below(node)
        others = self._scan.sets.meeting(self._places.mask(inside))
        place, extent, common, extent_of_common = self._distinct
        begin, end = node, int(names.end[node])
        here = extent[(place >= begin) & (place < end)]
        twice = extent_of_common[(common >= begin) & (common < end)]
        own = sum(
            sign * int(extents.num_bytes[chosen[~others[extents.set_id[chosen]]]].sum(dtype=int))
            for sign, chosen in ((1, here), (-1, twice))
        )
        return own + int(self._places.data_by_set[others].sum())

    def subvolumes_below(self, node: int) -> list[int]:
        """Return the numbers of the subvolumes below a node, at any depth."""
        end = int(self.names.end[node])
        return [
            tree
            for place, mount in self.names.mounts.items()
            if node <= place < end
            for tree in self._places.contained.within(mount.tree)
        ]

    def extents_below(self, node: int) -> NDArray[np.uint32]:
        """Return the indexes of the extents that files of this subvolume use below a node."""
        place, extent, _, _ = self._distinct
        return np.unique(extent[(place >= node) & (place < self.names.end[node])])

    def kept(self, nodes: NDArray[np.bool_]) -> NDArray[np.uint32]:
        """Return the indexes of extents that are still used when some nodes are deleted.

        Args:
            nodes: For each node, whether it is deleted.
        """
        order, first = self.names.nodes_by_inode
        is_gone = np.append(np.logical_and.reduceat(nodes[order], first), nodes[0])
        extent = self._scan.references.extent[self.uses.row]
        return np.unique(extent[~is_gone[self.uses.inode]])

    @cached_property
    def _rows(self) -> NDArray[np.intp]:
        """Indexes of the references of this subvolume."""
        return np.flatnonzero(self._has_leaf[self._scan.references.leaf])

    @cached_property
    def _is_shown(self) -> NDArray[np.bool_]:
        """Of each extent that is used, whether it is shown in this subvolume."""
        set_ids = self._scan.extents.set_id[self.uses.extent]
        return np.asarray(self._places.shown_in[set_ids] == self.tree)

    @cached_property
    def _shown_at(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each extent that is used, the node and the inode that stand for all of them."""
        names, uses = self.names, self.uses
        # Files without a name come last, and are shown at the top.
        node = np.append(names.first_by(self._ranks), 0)
        rank = np.append(self._ranks[node[:-1]], np.iinfo(np.int64).max)
        order = np.argsort(rank, kind="stable")
        position = np.empty(len(order), np.int64)
        position[order] = np.arange(len(order))
        inode = order[_reduced(np.minimum, position[uses.inode], uses.first)]
        return node[inode], inode

    @cached_property
    def _ranks(self) -> NDArray[np.int64]:
        """Of each node a number that is lower the sooner it stands for others."""
        names = self.names
        above = self._places.contained.paths[self.tree]
        rank = np.ones(len(names), np.int64)
        for patterns, value in ((self._places.rule.prefer, 0), (self._places.rule.ignore, 2)):
            for pattern in patterns:
                for node in names.matching(pattern, above):
                    rank[node : names.end[node]] = value
        return rank << _PATH_BITS | names.path_len

    def _add_exclusive(self, exclusive: NDArray[np.int64], num_bytes: NDArray[np.int64]) -> None:
        """Add the bytes of what belongs to this subvolume, at the lowest nodes with all uses."""
        names, uses = self.names, self.uses
        home = self._places.home == self.tree
        first_mount, last_mount = self._mounts_of_sets()
        set_ids = self._scan.extents.set_id[uses.extent]
        chosen = home[set_ids]
        first, last = (np.append(nodes, 0) for nodes in names.first_and_last)
        low = np.minimum(
            _reduced(np.minimum, first[uses.inode], uses.first)[chosen],
            first_mount[set_ids[chosen]],
        )
        high = np.maximum(
            _reduced(np.maximum, last[uses.inode], uses.first)[chosen],
            last_mount[set_ids[chosen]],
        )
        np.add.at(exclusive, names.common_ancestor(low, high), num_bytes[chosen])
        # What only subvolumes inside use, more than one of them.
        without = home & ~self._scan.sets.meeting(self._places.mask([self.tree]))
        ids = np.flatnonzero(without)
        ancestors = names.common_ancestor(first_mount[ids], last_mount[ids])
        np.add.at(exclusive, ancestors, self._places.data_by_set[ids])

    def _mounts_of_sets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return of each set the first and the last node of a subvolume inside with a root of it.

        Where there is none, the first is beyond all nodes and the last before all.
        """
        inside = [
            (node, tree)
            for node, mount in sorted(self.names.mounts.items())
            for tree in self._places.contained.within(mount.tree)
        ]
        bits = self._places.bits(tree for _, tree in inside)
        first, last = self._scan.sets.first_and_last(bits)
        nodes = np.array([node for node, _ in inside], np.int64)
        return np.append(nodes, len(self.names))[first], np.append(nodes, -1)[last]

    @cached_property
    def _distinct(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64], NDArray[np.uint32]]:
        """What counts each extent once in every directory.

        Returns:
            Nodes and the extents that they use, each pair once; and for two such nodes of an extent
            that follow each other, the lowest node with both below it, and the extent. In a
            directory, there is one more of the former than of the latter.
        """
        names, uses = self.names, self.uses
        order, first = names.nodes_by_inode
        first = np.append(first, len(order))
        order = np.append(order, 0)
        count = np.diff(first, append=len(order))[uses.inode]
        extent = np.repeat(self._scan.references.extent[uses.row], count)
        within = np.arange(len(extent)) - np.repeat(np.cumsum(count) - count, count)
        node = order[np.repeat(first[uses.inode], count) + within]
        by_extent = np.lexsort((node, extent))
        node, extent = node[by_extent], extent[by_extent]
        is_new = np.ones(len(node), np.bool_)
        is_new[1:] = (node[1:] != node[:-1]) | (extent[1:] != extent[:-1])
        node, extent = node[is_new], extent[is_new]
        same = np.flatnonzero(extent[1:] == extent[:-1])
        return node, extent, names.common_ancestor(node[same], node[same + 1]), extent[same]

    def _breaks_of_nodes(self) -> NDArray[np.int64]:
        """Return how many breaks the files have that are at each node; each file is at one."""
        names = self.names
        breaks = np.zeros(len(names), np.int64)
        np.add.at(breaks, names.first_by(names.path_len), self.files.breaks[:-1])
        breaks[0] += self.files.breaks[-1]
        return breaks

    @cached_property
    def _breaks(self) -> NDArray[np.intp]:
        """Indexes in `uses` of the pieces that do not follow on disk the one before in the file.

        Files that can only be read have none: nothing can be done about these.
        """
        if self._places.is_read_only(self.tree):
            return np.empty(0, np.intp)
        references, extents = self._scan.references, self._scan.extents
        inum = references.inum[self._rows]
        order = np.lexsort((references.position[self._rows], inum))
        row = self._rows[order]
        extent = references.extent[row]
        offset = references.offset[row].astype(np.int64)
        length = references.num_bytes[row].astype(np.int64)
        begin = extents.vaddr[extent].astype(np.int64)
        is_plain = extents.compression[extent] == constants.COMPRESS_NONE
        end = begin + np.where(is_plain, offset + length, extents.num_bytes[extent])
        begin = begin + np.where(is_plain, offset, 0)
        follows = begin[1:] == end[:-1]
        # Pieces of one compressed extent follow each other if they do in the decompressed one.
        follows |= (extent[1:] == extent[:-1]) & (offset[1:] == (offset + length)[:-1])
        follows |= inum[order][1:] != inum[order][:-1]
        return np.asarray(order[1:][~follows])


_PATH_BITS = 32
"""So many bits hold the length of a path."""


def _reduced(
    function: np.ufunc, values: NDArray[np.int64], first: NDArray[np.intp]
) -> NDArray[np.int64]:
    """Return what a function makes of each run of values; of no values, there are no runs."""
    if not len(first):
        return values
    reduced: NDArray[np.int64] = function.reduceat(values, first)
    return reduced


def _sums(index: NDArray[Any], values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Return the sums of values by an index; exact below 2**53."""
    sums: NDArray[np.int64] = np.bincount(index, values, count).astype(np.int64)
    return sums
