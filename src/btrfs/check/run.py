"""The checks one after the other, and what they hand to one another."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btrfs.check.allocation import check_allocation
from btrfs.check.by_address import ByAddress
from btrfs.check.copies import check_copies
from btrfs.check.data import check_data
from btrfs.check.items import ItemFormat, ItemRules
from btrfs.check.logs import check_logs
from btrfs.check.quotas import check_quotas
from btrfs.check.report import Checked, Progress, no_progress
from btrfs.check.roots import Subvolumes, check_entries, check_subvolumes, read_subvolumes
from btrfs.check.subvolume_files import check_files, subvolume_entries
from btrfs.check.superblocks import check_superblocks
from btrfs.check.trees import TreeCheck
from btrfs.check.uuids import check_uuids
from btrfs.errors import BtrfsError, TreeNotFoundError
from btrfs.ondisk import constants

if TYPE_CHECKING:
    from btrfs.check.tree_walk import TreeWalk
    from btrfs.filesystem import FileSystem
    from btrfs.source.damage import Damage, LostKeys
    from btrfs.source.disk.source import DiskSource

__all__ = ["check"]


def check(
    fs: FileSystem,
    *,
    quick: bool = False,
    all_copies: bool = False,
    data: bool = False,
    progress: Progress = no_progress,
) -> Iterator[Checked]:
    """Check a filesystem, and yield what each check found, one after the other.

    Args:
        fs: The filesystem, not mounted, and opened with on_error='skip'.
        quick: Check trees and items one by one, but not how they hang together: leave out files,
            subvolumes, quotas, and what refers to extents.
        all_copies: Read all copies of tree blocks, not only the first good one of each. With
            ``data``, all copies of data too.
        data: Compare data with its checksums.
        progress: Is called now and then by the checks that take long.

    Raises:
        BtrfsError: The filesystem is mounted.
        ValueError: It was opened with on_error='raise'.
    """
    source = fs.block_source()
    if fs.mounted:
        raise BtrfsError(
            f"{fs.path} is mounted, and what is being written to cannot be checked",
            hint="unmount it; btrfs scrub checks one that is in use",
        )
    if source.on_error != "skip":
        raise ValueError("the filesystem must be opened with on_error='skip'")
    checks = _Checks(fs, source, progress)
    return checks.run(quick=quick, all_copies=all_copies, data=data)


_EXTENTS = {constants.EXTENT_TREE_OBJECTID, constants.BLOCK_GROUP_TREE_OBJECTID}
_ALLOCATION = _EXTENTS | {constants.DEV_TREE_OBJECTID}
"""The trees that these checks are about."""


class _Checks:
    """The checks, and what they hand to one another.

    Args:
        fs: The filesystem.
        source: Its source.
        progress: Is called now and then by those that take long.
    """

    def __init__(self, fs: FileSystem, source: DiskSource, progress: Progress) -> None:
        self._fs = fs
        self._source = source
        self._progress = progress
        self._reported: set[Damage | LostKeys] = set()

    def run(self, *, quick: bool, all_copies: bool, data: bool) -> Iterator[Checked]:
        """Yield what each check found."""
        fs, source = self._fs, self._source
        with self._timed("superblocks") as checked:
            check_superblocks(fs, source, checked)
        self._forget_damage_of_superblocks()
        yield checked
        rules = ItemRules(ItemFormat.of(source.superblock))
        by_address = ByAddress(fs, rules)
        by_address.read()
        crossings = None if quick else by_address.crossings()
        with self._timed("trees") as checked:
            tree_check = TreeCheck(fs, source, rules, checked)
            walk = tree_check.trees(crossings, self._progress)
            log_walk = tree_check.log_trees(self._progress)
            tree_check.finish(by_address.extent_check.items)
            self._report_damage(checked)
        yield checked
        if crossings is not None:
            with self._timed("files") as checked:
                check_files(fs, walk, checked, crossings)
            yield self._qualified(checked, set())
        if all_copies:
            with self._timed("copies") as checked:
                blocks = [walk.blocks(), log_walk.blocks()]
                check_copies(source, blocks, checked, self._progress)
            yield checked
        by_address.finish(walk, crossings)
        yield self._qualified(by_address.extents, _EXTENTS)
        yield self._qualified(by_address.free_space, {constants.FREE_SPACE_TREE_OBJECTID})
        yield self._qualified(by_address.checksums, {constants.CSUM_TREE_OBJECTID})
        block_groups = by_address.extent_check.block_groups
        with self._timed("chunks") as checked:
            check_allocation(fs, source, by_address.places, block_groups, checked)
        yield self._qualified(checked, _ALLOCATION)
        if not quick:
            with self._timed("subvolumes") as checked:
                subvolumes = self._subvolumes(walk, checked)
            yield self._qualified(checked, {constants.UUID_TREE_OBJECTID})
            with self._timed("log trees") as checked:
                check_logs(fs, source, log_walk.blocks(), block_groups.by_address(), checked)
            yield self._qualified(checked, {constants.TREE_LOG_OBJECTID})
            with self._timed("quotas") as checked:
                check_quotas(fs, source, subvolumes, walk.blocks(), checked, self._progress)
            yield self._qualified(checked, {constants.QUOTA_TREE_OBJECTID})
        if data:
            with self._timed("data") as checked:
                self._data(checked, all_copies=all_copies)
            yield self._qualified(checked, {constants.CSUM_TREE_OBJECTID})

    def _subvolumes(self, walk: TreeWalk, checked: Checked) -> Subvolumes:
        found = read_subvolumes(self._fs, self._source)
        check_subvolumes(self._fs, self._source, found, checked)
        entries = subvolume_entries(self._fs, walk)
        check_entries(self._fs, self._source, found, entries, checked)
        check_uuids(self._fs, self._source, found, checked)
        return found

    def _data(self, checked: Checked, *, all_copies: bool) -> None:
        try:
            check_data(self._fs, self._source, checked, self._progress, all_copies=all_copies)
        except TreeNotFoundError:
            checked.skipped = "there is no tree of checksums"

    def _qualified(self, checked: Checked, trees: set[int]) -> Checked:
        """Return the record of a check, with a remark if not all of its trees could be read."""
        lost = {lost.tree for lost in self._source.log.lost}
        # Without the root tree or the chunk tree, other trees are not even searched for.
        needed = trees | {constants.ROOT_TREE_OBJECTID, constants.CHUNK_TREE_OBJECTID}
        if checked.skipped is None and lost & needed:
            checked.skipped = "not checked where not all can be read"
        return checked

    @contextmanager
    def _timed(self, name: str) -> Iterator[Checked]:
        """Make the record of a check, and measure how long it takes."""
        checked = Checked(name)
        begin = time.monotonic()
        yield checked
        checked.seconds = time.monotonic() - begin

    def _forget_damage_of_superblocks(self) -> None:
        """Leave out damage that was met at opening and that the first check has reported."""
        self._reported.update(damage for damage in self._source.log.damage if damage.vaddr is None)

    def _report_damage(self, checked: Checked) -> None:
        """Add what was damaged or lost when trees were read."""
        log = self._source.log
        for damage in log.damage:
            if damage not in self._reported:
                checked.add(
                    "block-damaged",
                    str(damage),
                    recovered=damage.recovered,
                    vaddr=damage.vaddr,
                    device=damage.device,
                    paddr=damage.paddr,
                )
        for lost in log.lost:
            checked.add("keys-lost", str(lost), tree=lost.tree)
