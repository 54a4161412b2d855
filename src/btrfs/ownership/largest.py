"""What is largest: directories as a tree, and files as a list.

There may be millions of both. Arrays say which are shown, and only these become objects. The files
of a subvolume are looked at only if any of them can be among those that are shown.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from btrfs.ownership.directories import Directories, Entry, Sort
from btrfs.ownership.path_tree import PathTree

__all__ = ["Branch", "FileSpace", "largest_entries", "largest_files"]


@dataclass(slots=True)
class Branch:
    """A directory, file or subvolume in a tree of those that are large.

    Attributes:
        entry: What it is.
        children: What is shown of that which is directly in it, the largest first.
        is_open: Whether what is in it was looked at; else it was too small, or too deep.
    """

    entry: Entry
    children: list[Branch] = field(default_factory=list)
    is_open: bool = False

    @property
    def left_out(self) -> int:
        """How many entries are directly in it, but not shown."""
        return self.entry.count() - len(self.children) if self.is_open else 0

    @property
    def represented_in_left_out(self) -> int:
        """Bytes of the extents that are shown in these."""
        shown = sum(child.entry.represented for child in self.children)
        return self.entry.represented - self.entry.unnamed - shown


@dataclass(frozen=True, slots=True)
class FileSpace:
    """A file with what it uses: bytes of data on disk, before redundancy.

    Attributes:
        path: Its path from the top level, of several the shortest. None stands for all files of a
            subvolume that have no name: they are deleted, but were open when it was read.
        tree: Number of the subvolume.
        inum: Inode number; 0 if it has no name.
        size: Bytes in the file.
        represented: Bytes of the extents that are shown here, each in one place only.
        exclusive: Bytes that no other file uses.
        referenced: Bytes of all extents that it uses.
        unreachable: Of the bytes that are shown here, those that no file reaches any more.
        reclaimable: Of these, bytes of extents that no other file uses: to write the file anew
            gives them back. None if it can only be read.
        pieces: How many pieces it has in extents.
        piece_bytes: Bytes of these when they are decompressed.
        breaks: How often the next piece does not follow on disk; 0 if it can only be read.
        read_only: Whether its subvolume can only be read.
    """

    path: bytes | None
    tree: int
    inum: int
    size: int
    represented: int
    exclusive: int
    referenced: int
    unreachable: int
    reclaimable: int
    pieces: int
    piece_bytes: int
    breaks: int
    read_only: bool

    @property
    def average_piece(self) -> int:
        """Bytes of a piece, on average; 0 if there is none."""
        return self.piece_bytes // self.pieces if self.pieces else 0


def largest_entries(
    top: Entry, sort: Sort, *, depth: int, least: int = 0, limit: int | None = None
) -> Branch:
    """Return a tree of what is largest.

    Args:
        top: Where it begins.
        sort: What is compared.
        depth: How many levels there are below the top.
        least: Leave out what has less.
        limit: So many entries at most, the top included; the largest of all levels.
    """
    root = Branch(top)
    order = count()
    shown = 0
    waiting: list[tuple[int, int, int, Branch, Branch | None]] = [(0, 0, 0, root, None)]
    while waiting and (limit is None or shown < limit):
        _, _, level, branch, parent = heapq.heappop(waiting)
        shown += 1
        if parent is not None:
            parent.children.append(branch)
        if level == depth:
            continue
        branch.is_open = True
        left = None if limit is None else limit - shown
        for entry in branch.entry.largest(sort, left, least):
            # Larger ones first, and of equal ones those that were met first.
            row = (-getattr(entry, sort), next(order), level + 1, Branch(entry), branch)
            heapq.heappush(waiting, row)
    return root


def largest_files(top: Entry, sort: Sort, limit: int) -> list[FileSpace]:
    """Return the files that are largest, or worst, in a directory and all that is below it.

    Args:
        top: The directory.
        sort: What is compared. Files that have nothing of it are left out.
        limit: So many files at most.
    """
    directories = top.directories
    places = [(top.tree, top.node)]
    places += ((tree, 0) for tree in directories.subvolume(top.tree).subvolumes_below(top.node))
    found: list[FileSpace] = []
    by_bound = sorted(places, key=lambda place: -_bound(directories, place[0], sort))
    for tree, node in by_bound:
        least = getattr(found[-1], sort) if found and len(found) == limit else 0
        # No file has more than its subvolume.
        if _bound(directories, tree, sort) <= least:
            break
        if least and _closer_bound(directories, tree, sort) <= least:
            continue
        found += _files(directories, tree, node, sort, limit, least)
        found.sort(key=lambda file: -int(getattr(file, sort)))
        del found[limit:]
    return found


def _bound(directories: Directories, tree: int, sort: Sort) -> int:
    """Return what no file of a subvolume exceeds, in bytes or breaks."""
    places = directories.places
    match sort:
        case "breaks":
            return 0 if places.is_read_only(tree) else len(places.scan.references)
        case "referenced":
            return places.totals(tree).referenced
        case "unreachable":
            return places.unreachable(tree)
        case "represented" | "exclusive":
            # What no other file uses is shown where it is.
            return places.shown(tree)


def _closer_bound(directories: Directories, tree: int, sort: Sort) -> int:
    """Return what no file of a subvolume exceeds; closer, and known without its names."""
    if sort in ("breaks", "referenced"):
        return _bound(directories, tree, sort)
    scanned, shown_in = directories.places.scan, directories.places.shown_in
    extents, references = scanned.extents, scanned.references
    extent = np.flatnonzero(shown_in[extents.set_id] == tree)
    if not len(extent):
        return 0
    first, end = extents.first[extent], np.append(extents.first[1:], len(references))[extent]
    row = np.repeat(end - np.cumsum(end - first), end - first) + np.arange((end - first).sum())
    # Files of other subvolumes are among them that have the same number: it is a bound only.
    sizes = extents.unreachable if sort == "unreachable" else extents.num_bytes
    inum, index = np.unique(references.inum[row], return_inverse=True)
    pairs = np.unique(index.astype(np.uint64) << np.uint64(32) | references.extent[row])
    of_pairs = sizes[(pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)]
    sums = np.bincount((pairs >> np.uint64(32)).astype(np.intp), of_pairs, len(inum))
    return int(sums.max())


def _files(
    directories: Directories, tree: int, node: int, sort: Sort, limit: int, least: int
) -> Iterator[FileSpace]:
    """Yield the files of a subvolume at a node or below it that have most, and more than others.

    Args:
        directories: Those of all subvolumes.
        tree: Number of the subvolume.
        node: The node.
        sort: What is compared.
        limit: So many files at most.
        least: They must have more than that.
    """
    files = directories.subvolume(tree)
    names = files.names
    values = getattr(files.files, sort)
    is_below = _is_below(names, node)
    chosen = np.flatnonzero(is_below & (values > least))
    chosen = chosen[np.argsort(-values[chosen], kind="stable")][:limit]
    above = directories.places.contained.paths[tree]
    read_only = directories.places.is_read_only(tree)
    for index in chosen.tolist():
        has_name = index < len(names.inodes)
        path = None
        if has_name:
            inside = names.path(_shortest(names, index, node))
            path = b"/".join(filter(None, (above, inside)))
        sizes = {name: int(column[index]) for name, column in files.files._asdict().items()}
        if read_only:
            sizes["reclaimable"] = 0
        yield FileSpace(
            path=path,
            tree=tree,
            inum=int(names.inodes[index]) if has_name else 0,
            size=int(files.inodes.size[index]) if has_name else 0,
            read_only=read_only,
            **sizes,
        )


def _is_below(names: PathTree, node: int) -> NDArray[np.bool_]:
    """Return for each inode whether it has a name at a node or below it.

    Files without a name are below the top, and come last.
    """
    found = np.zeros(len(names.inodes) + 1, np.bool_)
    found[names.index_of(names.inum[node : names.end[node]])] = True
    found[-1] = node == 0
    return found


def _shortest(names: PathTree, index: int, node: int) -> int:
    """Return the node of the shortest name that an inode has at a node or below it."""
    order, first = names.nodes_by_inode
    end = first[index + 1] if index + 1 < len(first) else len(order)
    nodes = order[first[index] : end]
    nodes = nodes[(nodes >= node) & (nodes < names.end[node])]
    return int(nodes[names.path_len[nodes].argmin()])
