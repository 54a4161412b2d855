"""Files and directories: what is compared of them when all leaves have been read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrfs.check.file_paths import FilePaths
from btrfs.check.inodes import InodeRows, combined, problems
from btrfs.check.items.entries import entry_rows, link_rows
from btrfs.check.leaves import LeafProblem
from btrfs.check.names import NameProblem, NameRows, compare_names, name_table
from btrfs.check.preallocated import hidden_data
from btrfs.check.report import Checked
from btrfs.check.rereading import reread
from btrfs.check.roots import SubvolumeEntry, may_be_snapshot
from btrfs.ondisk import constants
from btrfs.ondisk.items.directory import DirIndex, DirItem, DirItemList
from btrfs.ondisk.items.inode import InodeItem
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import counted
from btrfs.ownership.root_sets import first_bit

if TYPE_CHECKING:
    from btrfs.check.inodes import ChecksumRuns
    from btrfs.check.leaves import Crossings
    from btrfs.check.tree_walk import TreeWalk
    from btrfs.filesystem import FileSystem
    from btrfs.source.disk.source import DiskSource

__all__ = ["check_files", "subvolume_entries"]

_MEMORY_OF_NAMES = 256 << 20


def check_files(fs: FileSystem, walk: TreeWalk, checked: Checked, crossings: Crossings) -> None:
    """Check inodes that lie in several leaves, names, and orphans.

    Args:
        fs: The filesystem.
        walk: The trees, which have been read.
        checked: Where the findings go.
        crossings: What the trees were compared with.
    """
    findings = _FileFindings(fs, walk, checked)
    for part in walk.leaves.parts:
        for problem in part.problems:
            if problem.inum is not None:
                findings.of_leaf(problem)
    inodes = sum(part.complete for part in walk.leaves.parts)
    inodes += _check_long_inodes(walk, findings, no_holes=crossings.no_holes)
    _check_preallocated(fs.block_source(), walk, findings, crossings.runs)
    _check_names(fs.block_source(), walk, findings)
    _check_orphans(fs, walk, findings)
    subvolumes = walk.live.bit_count()
    checked.counts = {"inodes": inodes, "subvolumes": subvolumes}
    checked.summary = f"{counted(inodes, 'inode')} in {counted(subvolumes, 'subvolume')}"
    incomplete = (walk.incomplete & walk.live).bit_count()
    if incomplete:
        checked.skipped = (
            f"what joins leaves is not checked in {counted(incomplete, 'subvolume')} of which not"
            " all can be read"
        )


def subvolume_entries(fs: FileSystem, walk: TreeWalk) -> Iterator[SubvolumeEntry]:
    """Yield the entries of directories that lead to subvolumes, but for those in snapshots.

    Args:
        fs: The filesystem.
        walk: The trees, which have been read.
    """
    wanted = walk.live & ~walk.incomplete
    for bit, owner in enumerate(walk.owners):
        # A snapshot keeps the entries of subvolumes that are only in its original.
        if owner.item is not None and may_be_snapshot(owner.item):
            wanted &= ~(1 << bit)
    leaf, *columns = walk.small_rows("subvolumes")
    for mask, dirid, sequence, child in zip(
        _masks(walk, leaf), *(column.tolist() for column in columns), strict=True
    ):
        for owner in walk.trees_of(mask & wanted):
            key = Key(dirid, constants.DIR_INDEX_KEY, sequence)
            for item in fs.search(owner.tree, key, key):
                if isinstance(item, DirIndex):
                    yield SubvolumeEntry(owner.tree, dirid, sequence, item.name, child)


class _FileFindings:
    """Makes findings of problems with files.

    Args:
        fs: The filesystem.
        walk: The trees.
        checked: Where the findings go.
    """

    def __init__(self, fs: FileSystem, walk: TreeWalk, checked: Checked) -> None:
        self._fs = fs
        self._walk = walk
        self._checked = checked
        self._paths = FilePaths(fs)

    def of_leaf(self, problem: LeafProblem) -> None:
        """Add what is wrong with an inode in a leaf."""
        assert problem.inum is not None
        tree = self._walk.tree_of(problem.leaf)
        values = {"expected": problem.expected, "found": problem.found}
        self.add(problem.kind, tree, problem.inum, problem.why, **values)

    def of_roots(self, roots: int, kind: str, inum: int, why: str, **values: Any) -> None:
        """Add what is wrong with an inode in some trees; it is named in the first of them."""
        tree = self._walk.owners[first_bit(roots)].tree
        self.add(kind, tree, inum, why, **values)

    def of_name(self, problem: NameProblem) -> None:
        """Add what is wrong with a name."""
        tree = self._walk.owners[first_bit(problem.roots)].tree
        directory = self._path(problem.kind, tree, problem.directory)
        inside = f" ({directory})" if directory else ""
        path = None
        if directory and problem.in_directory:
            path = self._path_of_entry(tree, directory, problem)
        self.add(
            problem.kind,
            tree,
            problem.inum,
            f"entry {problem.dir_index} of directory {problem.directory}{inside}: {problem.why}",
            path,
            expected=problem.expected,
            found=problem.found,
        )

    def _path_of_entry(self, tree: int, directory: str, problem: NameProblem) -> str | None:
        """Return the path of a name as the directory has it: the inode may lack it."""
        for key_type in (constants.DIR_INDEX_KEY, constants.DIR_ITEM_KEY):
            key = Key(problem.directory, key_type, problem.dir_index)
            for item in self._fs.search(tree, key, key):
                for entry in item if isinstance(item, DirItemList) else [item]:
                    if (
                        isinstance(entry, (DirIndex, DirItem))
                        and entry.location.objectid == problem.inum
                    ):
                        name = entry.name.decode(errors="backslashreplace")
                        return f"{directory.rstrip('/')}/{name}"
        return None

    def add(
        self,
        kind: str,
        tree: int,
        inum: int,
        why: str,
        path: str | None = None,
        **values: Any,
    ) -> None:
        """Add a finding about an inode, whose path is looked for if it is not given."""
        path = path or self._path(kind, tree, inum)
        where = f" ({path})" if path else ""
        self._checked.add(
            kind,
            f"inode {inum} of tree {tree}{where}: {why}",
            tree=tree,
            path=path,
            **values,
        )

    def _path(self, kind: str, tree: int, inum: int) -> str | None:
        """Return the path of an inode, if the finding will be kept."""
        return self._paths.of_inode(tree, inum) if self._checked.has_room(kind) else None


def _check_long_inodes(walk: TreeWalk, findings: _FileFindings, *, no_holes: bool) -> int:
    """Check the inodes that lie in several leaves, or could; return how many there are.

    An inode that is not the same in all snapshots counts once for each version.
    """
    parts = [rows for part in walk.leaves.parts for rows in part.inodes]
    if not parts:
        return 0
    wanted = walk.live & ~walk.incomplete
    rows = InodeRows.concatenated(parts)
    whole, masks = combined(rows, walk.sets, walk.leaf_sets, wanted)
    for kind, index, why, expected, found in problems(whole, no_holes=no_holes):
        if masks[index]:
            inum = int(whole.inum[index])
            findings.of_roots(masks[index], kind, inum, why, expected=expected, found=found)
    return len(masks)


def _check_preallocated(
    source: DiskSource, walk: TreeWalk, findings: _FileFindings, runs: ChecksumRuns
) -> None:
    """Check that what is only preallocated has no checksums of its own."""
    if walk.incomplete or source.log.lost:
        # What cannot be read may be the piece that the checksums are of.
        return
    for one in hidden_data(source, walk, walk.small_rows("preallocated"), runs):
        mask = walk.sets.masks[walk.leaf_sets[one.leaf]] & walk.live
        if mask:
            why = f"bytes with checksums of the extent at {one.vaddr}, told to be never written"
            findings.of_roots(
                mask, "checksums-too-many", one.inum, why, expected=0, found=one.found
            )


def _check_names(source: DiskSource, walk: TreeWalk, findings: _FileFindings) -> None:
    """Compare names, one by one in the subvolumes in which they do not agree."""
    unequal = walk.unequal_names()
    if not unequal:
        return
    table = name_table(_MEMORY_OF_NAMES)
    for found, leaf, _ in reread(source, walk, unequal):
        batch = found.batch
        table.append(walk.leaves.name_hashes.rows(batch, leaf, link_rows(batch), entry_rows(batch)))
    rows = NameRows(*table.finish())
    for problem in compare_names(rows, walk.sets, walk.leaf_sets, unequal):
        findings.of_name(problem)


def _check_orphans(fs: FileSystem, walk: TreeWalk, findings: _FileFindings) -> None:
    """Check that the inodes without a name are those that are noted to be deleted."""
    wanted = walk.live & ~walk.incomplete
    noted: dict[int, int] = defaultdict(int)
    orphans, unlinked = walk.small_rows("orphans"), walk.small_rows("unlinked")
    for mask, inum in zip(_masks(walk, orphans.leaf), orphans.one.tolist(), strict=True):
        noted[inum] |= mask
    for mask, inum in zip(_masks(walk, unlinked.leaf), unlinked.one.tolist(), strict=True):
        lacking = mask & wanted & ~noted[inum]
        if lacking:
            why = "says that it has no name, but has no orphan item: it is never deleted"
            findings.of_roots(lacking, "orphan-missing", inum, why)
        noted[inum] &= ~mask
    for inum, mask in noted.items():
        _check_needless_orphan(fs, walk, findings, inum, mask & wanted)


def _check_needless_orphan(
    fs: FileSystem, walk: TreeWalk, findings: _FileFindings, inum: int, mask: int
) -> None:
    """Check that an inode that is noted to be deleted, but not without a name, is gone already."""
    key = Key(inum, constants.INODE_ITEM_KEY, 0)
    for owner in walk.trees_of(mask):
        for item in fs.search(owner.tree, key, key):
            if isinstance(item, InodeItem) and item.nlink:
                why = "has an orphan item, as if it were to be deleted, but has a name"
                findings.add("orphan-needless", owner.tree, inum, why)
                return


def _masks(walk: TreeWalk, leaf: NDArray[np.uint32]) -> list[int]:
    return [walk.sets.masks[set_id] for set_id in walk.leaf_sets[leaf].tolist()]
