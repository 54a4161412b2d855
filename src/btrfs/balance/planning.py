"""Which block groups a balance moves, and in which order.

What little is in an almost empty block group fits into the others, and its space becomes
unallocated again. So the block groups come first that cost the least and give the most. The
candidates are the block groups that there are at the beginning, and each is moved once at the most:
neither a block group that cannot move nor one that the moved data went into keeps this going for
ever.

:mod:`btrfs.balance.running` moves them, :mod:`btrfs.balance.estimate` does so in memory.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol

from btrfs.errors import BtrfsError
from btrfs.ondisk.constants import BLOCK_GROUP_DATA

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import BlockGroupItem

__all__ = [
    "NO_SPACE",
    "Action",
    "Order",
    "Selection",
    "Step",
    "candidates",
    "is_finished",
    "least_used_pct",
    "require_device",
    "turns",
    "unallocated",
]

NO_SPACE = "there is no space for what is in it"
"""Why most block groups that are stuck do not move."""

Order = Literal["least-used", "random", "vaddr"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which block groups to move, in which order, and when to stop.

    Attributes:
        types: BLOCK_GROUP_DATA and the like, one or more.
        used_pct: Only block groups of which no more than so many per cent are used.
        devid: Only those that use this device.
        order: The least used ones first, by chance, or by address.
        limit: Stop after so many were moved.
        target_free: Stop when so many bytes are unallocated, see :func:`unallocated`.
    """

    types: int = BLOCK_GROUP_DATA
    used_pct: int = 100
    devid: int | None = None
    order: Order = "least-used"
    limit: int | None = None
    target_free: int | None = None


class Action(Enum):
    """What happened to a block group."""

    BEGIN = "begin"
    """It is about to be moved."""
    MOVED = "moved"
    STUCK = "stuck"
    """It did not move: there is no space for what is in it, or a swap file holds it."""
    POSTPONED = "postponed"
    """It is fuller than it was, so others come first."""
    IGNORED = "ignored"
    """It is fuller than it was, too full now."""
    GONE = "gone"
    """It was removed before its turn came."""


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happened to a block group.

    Attributes:
        action: What.
        vaddr: Virtual address of the block group.
        used: Bytes of it that are used.
        used_pct: Percentage of it that is used.
        before_pct: What the percentage was when it was looked at last.
        block_groups: How many block groups the filesystem has.
        reason: Why it did not move.
    """

    action: Action
    vaddr: int
    used: int
    used_pct: int
    before_pct: int
    block_groups: int = 0
    reason: str = ""


def candidates(fs: FileSystem, selection: Selection) -> list[BlockGroupItem]:
    """Return the block groups that are selected now, in the order of addresses.

    Raises:
        BtrfsError: There is no such device.
    """
    require_device(fs, selection)
    chosen = None if selection.devid is None else _vaddrs_on(fs, selection.devid)
    return [
        group
        for group in _block_groups(fs, selection)
        if group.used_pct <= selection.used_pct and (chosen is None or group.vaddr in chosen)
    ]


def least_used_pct(fs: FileSystem, selection: Selection) -> int | None:
    """Return how full the least used block group of the selected types is; None without any."""
    return min((group.used_pct for group in _block_groups(fs, selection)), default=None)


def _block_groups(fs: FileSystem, selection: Selection) -> list[BlockGroupItem]:
    return [group for group in fs.block_groups() if group.flags & selection.types]


def _vaddrs_on(fs: FileSystem, devid: int) -> set[int]:
    """Return the addresses of the block groups that use a device."""
    return {extent.vaddr for extent in fs.dev_extents(devid, devid)}


def unallocated(fs: FileSystem, devid: int | None = None) -> int:
    """Return the raw bytes that are in no chunk, of all devices together or of one."""
    return sum(
        device.total_bytes - device.bytes_used
        for device in fs.devices()
        if devid is None or device.devid == devid
    )


def require_device(fs: FileSystem, selection: Selection) -> None:
    """Find out whether the filesystem has the device that is selected, if one is.

    Raises:
        BtrfsError: It has not; the hint names those that it has.
    """
    if selection.devid is None:
        return
    devids = {device.devid for device in fs.devices()}
    if selection.devid not in devids:
        known = ", ".join(str(known) for known in sorted(devids))
        raise BtrfsError(
            f"{fs.path} has no device {selection.devid}",
            hint=f"the numbers of its devices are {known}",
        )


class _Group(Protocol):
    """What is asked of a block group, be it a real one or simulated."""

    @property
    def used(self) -> int:
        """Bytes of it that are used."""

    @property
    def used_pct(self) -> int:
        """Percentage of it that is used."""


def turns(
    selected: Sequence[BlockGroupItem],
    selection: Selection,
    look: Callable[[int], _Group | None],
) -> Iterator[Step]:
    """Yield a BEGIN for each block group whose turn it is, and what became of the others.

    Args:
        selected: The candidates.
        selection: What chose them.
        look: Returns the block group at an address as it is now; None if it is gone.
    """
    queue = _queue(selected, selection)
    while queue:
        _, vaddr, before_pct = heapq.heappop(queue)
        group = look(vaddr)
        if group is None:
            yield Step(Action.GONE, vaddr, 0, 0, before_pct)
            continue
        action = Action.BEGIN
        if group.used_pct > selection.used_pct:
            action = Action.IGNORED
        elif group.used_pct > before_pct and selection.order == "least-used":
            action = Action.POSTPONED
            heapq.heappush(queue, (group.used_pct, vaddr, group.used_pct))
        yield Step(action, vaddr, group.used, group.used_pct, before_pct)


def _queue(selected: Sequence[BlockGroupItem], selection: Selection) -> list[tuple[int, int, int]]:
    """Return the candidates as a heap of (position, vaddr, used_pct)."""
    if selection.order == "least-used":
        positions = [group.used_pct for group in selected]
    else:
        positions = list(range(len(selected)))
        if selection.order == "random":
            random.shuffle(positions)
    queue = [
        (position, group.vaddr, group.used_pct)
        for position, group in zip(positions, selected, strict=True)
    ]
    heapq.heapify(queue)
    return queue


def is_finished(selection: Selection, moved: int, free: Callable[[], int]) -> bool:
    """Return whether no more block groups are to be moved.

    Args:
        selection: What says so.
        moved: How many were moved.
        free: Returns the bytes that are unallocated.
    """
    if selection.limit is not None and moved >= selection.limit:
        return True
    return selection.target_free is not None and free() >= selection.target_free
