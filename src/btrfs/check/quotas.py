"""Quota groups: whether the kernel has counted right, and whether groups and subvolumes agree.

Quotas come in two kinds (fs/btrfs/qgroup.c). Full ones count for each subvolume what it refers to,
and what only it refers to; a group of a higher level counts the same for all its members together.
Simple ones count for each subvolume what was first written in it, since quotas were enabled: an
extent of data names its owner, a tree block is of the tree in its header.

Wrong numbers damage nothing, but limits rely on them. So all findings are remarks. Where the kernel
itself knows that its numbers are not right, or are being made, they are not compared.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError, TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import qgroup_level, qgroup_subvid
from btrfs.ondisk.items.extent import ExtentItem
from btrfs.ondisk.items.quota import QgroupInfo, QgroupLimit, QgroupRelation, QgroupStatus
from btrfs.ondisk.key import qgroup_str
from btrfs.ondisk.text import counted
from btrfs.ownership.owners import Kind, is_subvolume
from btrfs.ownership.root_sets import mask_of
from btrfs.ownership.scanning import Scan, scan_trees
from btrfs.source.disk.node import Header
from btrfs.source.disk.store import UNREADABLE

if TYPE_CHECKING:
    from btrfs.check.report import Checked, Progress
    from btrfs.check.roots import Subvolumes
    from btrfs.check.tree_walk import BlockTable
    from btrfs.filesystem import FileSystem
    from btrfs.source.disk.source import DiskSource

__all__ = ["check_quotas"]

_TREE = constants.QUOTA_TREE_OBJECTID
_OWNER_AT = ExtentItem.struct_size
"""Where the owner of simple quotas is in the item of an extent: it comes before references."""

_BLOCKS_AT_A_TIME = 256

_Numbers = tuple[int, int]
"""Bytes that a group refers to, and bytes that only it refers to."""


@dataclass(slots=True)
class _Groups:
    """The items of the quota tree.

    Attributes:
        status: Whether quotas are on and right; None if there is no such item.
        infos: How much each group uses.
        limits: How much each may use.
        relations: Pairs of groups, as they are stored, in both directions.
    """

    status: QgroupStatus | None = None
    infos: dict[int, QgroupInfo] = field(default_factory=dict)
    limits: dict[int, QgroupLimit] = field(default_factory=dict)
    relations: set[tuple[int, int]] = field(default_factory=set)

    @property
    def is_simple(self) -> bool:
        """Whether these are simple quotas."""
        status = self.status
        return status is not None and bool(status.flags & constants.QGROUP_STATUS_FLAG_SIMPLE_MODE)

    def subvolumes_of(self) -> dict[int, set[int]]:
        """Return the subvolumes that each group counts: its own one, and those of its members."""
        counted_by: dict[int, set[int]] = defaultdict(set)
        above: dict[int, set[int]] = defaultdict(set)
        for one, other in self.relations:
            if qgroup_level(one) < qgroup_level(other):
                above[one].add(other)
        # Members are of lower levels, so that they are complete before the groups above them.
        for group in sorted(self.infos):
            if not qgroup_level(group):
                counted_by[group].add(qgroup_subvid(group))
            for upper in above[group]:
                counted_by[upper] |= counted_by[group]
        return counted_by


def check_quotas(
    fs: FileSystem,
    source: DiskSource,
    found: Subvolumes,
    blocks: BlockTable,
    checked: Checked,
    progress: Progress,
) -> None:
    """Check quota groups, if quotas are enabled.

    Args:
        fs: The filesystem.
        source: Its source.
        found: What the root tree says about subvolumes.
        blocks: The blocks of all trees but the log trees.
        checked: Where the findings go.
        progress: Is called with how many leaves are read, and how many there are.
    """
    try:
        groups = _read(fs)
    except TreeNotFoundError:
        groups = _Groups()
    if groups.status is None or not groups.status.flags & constants.QGROUP_STATUS_FLAG_ON:
        checked.summary = "not enabled"
        checked.counts = {"groups": 0}
        return
    checked.counts = {"groups": len(groups.infos)}
    kind = "simple quotas" if groups.is_simple else "quotas"
    checked.summary = f"{counted(len(groups.infos), 'group')} of {kind}"
    if source.is_earlier_state or source.log.lost or not found.is_complete:
        checked.skipped = "not everything can be read"
        return
    _check_groups(groups, found, checked)
    checked.skipped = _why_not_right(groups, groups.status, source.superblock.generation)
    if checked.skipped:
        return
    if groups.is_simple:
        expected = _simple_numbers(fs, source, groups, groups.status.enable_gen, blocks)
    else:
        try:
            scanned = scan_trees(fs, names=False, progress=progress)
        except UNREADABLE:
            # A root item leads nowhere, which has been said of the item.
            checked.skipped = "not everything can be read"
            return
        if any(owner.kind is Kind.RELOCATION for owner in scanned.owners):
            checked.skipped = "numbers are not compared while a balance is not finished"
            return
        expected = _full_numbers(scanned, groups)
    if expected is None or source.log.lost:
        checked.skipped = "not everything can be read"
        return
    _compare(groups, expected, checked)


def _read(fs: FileSystem) -> _Groups:
    groups = _Groups()
    for item in fs.search(_TREE):
        if isinstance(item, QgroupStatus):
            groups.status = item
        elif isinstance(item, QgroupInfo):
            groups.infos[item.qgroupid] = item
        elif isinstance(item, QgroupLimit):
            groups.limits[item.qgroupid] = item
        elif isinstance(item, QgroupRelation):
            groups.relations.add((item.qgroupid, item.other_qgroupid))
    return groups


def _why_not_right(groups: _Groups, status: QgroupStatus, generation: int) -> str | None:
    """Return why the kernel would not rely on the numbers itself; None if it does."""
    if status.flags & constants.QGROUP_STATUS_FLAG_INCONSISTENT:
        return "numbers are not compared: the kernel has marked them as inconsistent"
    if status.flags & constants.QGROUP_STATUS_FLAG_RESCAN:
        return "numbers are not compared: the kernel is counting anew"
    if status.generation != generation and not groups.is_simple:
        return "numbers are not compared: they are not of the last commit"
    return None


# Which groups there are.


def _check_groups(groups: _Groups, found: Subvolumes, checked: Checked) -> None:
    """Compare groups with subvolumes, with their limits, and with the relations between them."""
    live = {tree for tree in found.items if is_subvolume(tree) and found.is_live(tree)}
    for tree in sorted(live - groups.infos.keys()):
        _add("quota-group-missing", tree, checked, found="none")
    for group, info in sorted(groups.infos.items()):
        # An empty one goes soon after its subvolume. Simple quotas count what a deleted subvolume
        # has written as long as another one uses it.
        is_used = info.rfer and not qgroup_level(group) and not groups.is_simple
        if is_used and qgroup_subvid(group) not in found.items:
            _add("quota-group-alone", group, checked, found=f"{info.rfer} bytes")
    for group in sorted(groups.infos.keys() ^ groups.limits.keys()):
        missing = "QGROUP_LIMIT" if group in groups.infos else "QGROUP_INFO"
        _add("quota-group-half", group, checked, found=f"no {missing}")
    for one, other in sorted(groups.relations):
        if (other, one) not in groups.relations:
            expected = f"one of {qgroup_str(other)} and {qgroup_str(one)}"
            _add("quota-relation", one, checked, f" and {qgroup_str(other)}", expected=expected)
        elif one not in groups.infos or qgroup_level(one) == qgroup_level(other):
            _add("quota-relation", one, checked, f" and {qgroup_str(other)}", found="impossible")


# How much they use.


def _full_numbers(scanned: Scan, groups: _Groups) -> dict[int, _Numbers]:
    """Return how much groups use, but for those that count what is deleted or does not exist."""
    bits = {
        owner.tree: bit for bit, owner in enumerate(scanned.owners) if owner.kind is Kind.SUBVOLUME
    }
    internal = mask_of(
        bit for bit, owner in enumerate(scanned.owners) if owner.kind is Kind.INTERNAL
    )
    sizes, sets = scanned.sizes, scanned.sets
    by_set = sizes.data.sum(axis=1) + sizes.metadata.sum(axis=1)
    numbers = {}
    subvolumes = groups.subvolumes_of()
    for group in groups.infos:
        trees = subvolumes[group]
        if trees <= bits.keys():
            mask = mask_of(bits[tree] for tree in trees)
            used = sets.meeting(mask)
            exclusive = used & sets.within(mask | internal)
            numbers[group] = int(by_set[used].sum()), int(by_set[exclusive].sum())
    return numbers


def _simple_numbers(
    fs: FileSystem, source: DiskSource, groups: _Groups, first: int, blocks: BlockTable
) -> dict[int, _Numbers] | None:
    """Return how much groups own that was written from a generation on; None if it is not known."""
    try:
        owned = _owned_blocks(source, first, blocks)
    except BtrfsError:
        return None
    for tree, count in _owned_data(fs, first).items():
        owned[tree] += count
    subvolumes = groups.subvolumes_of()
    sums = {group: sum(owned[tree] for tree in subvolumes[group]) for group in groups.infos}
    return {group: (number, number) for group, number in sums.items()}


def _owned_data(fs: FileSystem, first: int) -> dict[int, int]:
    """Return the bytes of data that each tree owns."""
    owned: dict[int, int] = defaultdict(int)
    for batch in fs.batches(constants.EXTENT_TREE_OBJECTID):
        chosen = batch.of_type(constants.EXTENT_ITEM_KEY)
        chosen = chosen.select(chosen.size > _OWNER_AT + np.uint32(8))
        is_new = chosen.gather("<u8", 8) >= np.uint64(first)
        is_owned = chosen.gather("u1", _OWNER_AT) == constants.EXTENT_OWNER_REF_KEY
        chosen = chosen.select(is_new & is_owned)
        _add_up(owned, chosen.gather("<u8", _OWNER_AT + 1), chosen.offset)
    return owned


def _owned_blocks(source: DiskSource, first: int, blocks: BlockTable) -> dict[int, int]:
    """Return the bytes of tree blocks that each tree owns.

    Raises:
        BtrfsError: Not all of them can be read.
    """
    owned: dict[int, int] = defaultdict(int)
    nodesize = source.trees.block_format.nodesize
    vaddrs = blocks.vaddr[blocks.generation >= np.uint64(first)].astype(np.int64)
    for begin in range(0, len(vaddrs), _BLOCKS_AT_A_TIME):
        some = vaddrs[begin : begin + _BLOCKS_AT_A_TIME]
        buffer, good = source.trees.store.read_many(some, nodesize)
        headers = np.ndarray((len(some),), Header.dtype, buffer, 0, (nodesize,))
        if not good.all() or (headers["bytenr"] != some.astype(np.uint64)).any():
            raise BtrfsError("not all tree blocks can be read")
        _add_up(owned, headers["owner"], np.full(len(some), nodesize, np.uint64))
    return owned


def _add_up(sums: dict[int, int], trees: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
    found, index = np.unique(trees, return_inverse=True)
    totals = np.zeros(len(found), np.uint64)
    np.add.at(totals, index, lengths)
    for tree, total in zip(found.tolist(), totals.tolist(), strict=True):
        sums[tree] += total


def _compare(groups: _Groups, expected: dict[int, _Numbers], checked: Checked) -> None:
    """Compare the numbers that the kernel has counted with those that the trees give."""
    for group, numbers in sorted(expected.items()):
        info = groups.infos[group]
        rows = [("referenced", info.rfer, numbers[0]), ("exclusive", info.excl, numbers[1])]
        if not groups.is_simple:
            # The kernel has them equal, as it does not look at how data is compressed.
            rows.append(("referenced, compressed", info.rfer_cmpr, numbers[0]))
            rows.append(("exclusive, compressed", info.excl_cmpr, numbers[1]))
        for name, found, right in rows:
            if found != right:
                _add("quota-number", group, checked, f", {name}", found=found, expected=right)


def _add(kind: str, group: int, checked: Checked, where: str = "", **values: Any) -> None:
    checked.add(kind, f"quota group {qgroup_str(group)}{where}", tree=_TREE, **values)
