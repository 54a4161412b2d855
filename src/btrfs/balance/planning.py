"""Move block groups one at a time, those first that cost the least and give the most.

What little is in an almost empty block group fits into the others, and its space becomes
unallocated again. :func:`balance` does that, and yields a :class:`Step` for all that happens::

    with btrfs.FileSystem('/mnt/data') as fs:
        for step in balancing.balance(fs, balancing.Selection(used_pct=50, limit=3)):
            print(step.action, step.vaddr)

:func:`estimate` says beforehand in which order that would be, and what it would give;
:func:`move_block_group` moves one block group.

The candidates are the block groups that there are at the beginning, and each is moved once at the
most. So neither a block group that cannot move nor one that the moved data went into keeps this
going for ever.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

from btrfs import ioctl
from btrfs.errors import BtrfsError, ItemNotFoundError, NotMountedError
from btrfs.ioctl import BalanceArgs, BalanceError, BalanceProgress, BalanceStatus
from btrfs.ondisk.constants import (
    BALANCE_ARGS_VRANGE,
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK,
)

if TYPE_CHECKING:
    from btrfs.balance.simulation import SimulatedGroup
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import BlockGroupItem

__all__ = [
    "Action",
    "Estimate",
    "Order",
    "Selection",
    "Step",
    "balance",
    "candidates",
    "estimate",
    "least_used_pct",
    "move_block_group",
    "require_balanceable",
    "require_device",
    "unallocated",
]

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


def require_balanceable(fs: FileSystem) -> None:
    """Find out whether a balance could be started now.

    Raises:
        NotMountedError: The filesystem is not mounted.
        BtrfsError: It is mounted read-only, or there is a balance already; this may be anybody's,
            so it is left alone.
        BalanceError: The kernel does not tell; EPERM without root rights.
    """
    if not fs.mounted:
        raise NotMountedError(
            f"{fs.path} is not mounted", hint="mount it; only the kernel can move block groups"
        )
    if os.fstatvfs(fs.fd).f_flag & os.ST_RDONLY:
        raise BtrfsError(
            f"{fs.path} is mounted read-only",
            hint=f"mount -o remount,rw {fs.path} makes it"
            " writable, unless it was an error that made it read-only",
        )
    try:
        found = ioctl.balance_progress(fs.fd)
    except BalanceError as error:
        if error.errno == errno.ENOTCONN:
            return
        error.hint = _HINTS.get(error.errno or 0)
        raise
    running = found.state & ioctl.BALANCE_STATE_RUNNING
    raise BtrfsError(
        f"{fs.path}: a balance {'is running' if running else 'is paused'} already",
        hint=f"btrfs balance status {fs.path} tells more, btrfs balance cancel ends it",
    )


# Whose turn it is.


def _turns(
    selected: Sequence[BlockGroupItem],
    selection: Selection,
    look: Callable[[int], BlockGroupItem | SimulatedGroup | None],
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


def _finished(selection: Selection, moved: int, free: Callable[[], int]) -> bool:
    """Return whether no more block groups are to be moved.

    Args:
        selection: What says so.
        moved: How many were moved.
        free: Returns the bytes that are unallocated.
    """
    if selection.limit is not None and moved >= selection.limit:
        return True
    return selection.target_free is not None and free() >= selection.target_free


# Moving them.

Progress = Callable[[int], None]
"""Is called with how many bytes of a block group were copied, several times a second."""


def balance(
    fs: FileSystem,
    selection: Selection,
    selected: Sequence[BlockGroupItem] | None = None,
    progress: Progress | None = None,
) -> Iterator[Step]:
    """Move the selected block groups, one by one.

    Whenever it is left, also by an exception such as KeyboardInterrupt, no balance of its own is
    running or paused any more.

    Args:
        fs: The filesystem, mounted.
        selection: Which block groups, in which order, and when to stop.
        selected: What candidates() returned, if that was called already.
        progress: What to call in the meantime.

    Yields:
        What happens: BEGIN before a block group is moved, MOVED or STUCK after that. A block group
        that is stuck is not tried again.

    Raises:
        BtrfsError: No balance can be started, see require_balanceable().
        BalanceError: One was started, paused or cancelled by somebody else meanwhile, or the
            filesystem became read-only.
    """
    require_balanceable(fs)
    if selected is None:
        selected = candidates(fs, selection)
    moved = 0
    for step in _turns(selected, selection, lambda vaddr: _block_group(fs, vaddr)):
        if step.action is not Action.BEGIN:
            yield step
            continue
        if _finished(selection, moved, lambda: unallocated(fs, selection.devid)):
            return
        begin = replace(step, block_groups=sum(1 for _ in fs.chunks()))
        yield begin
        action, reason = _move(fs, step.vaddr, progress)
        moved += action is Action.MOVED
        yield replace(begin, action=action, reason=reason)


def _block_group(fs: FileSystem, vaddr: int) -> BlockGroupItem | None:
    try:
        return fs.block_group(vaddr)
    except ItemNotFoundError:
        return None


_REASONS = {
    errno.ENOSPC: "there is no space for what is in it",
    errno.ETXTBSY: "a swap file is in it",
    errno.EIO: "something in it cannot be read, or not be written elsewhere",
    errno.EUCLEAN: "something in it is damaged",
    errno.ENOENT: "something that refers to it was not found",
    errno.EINVAL: "the kernel refuses to move it",
}
"""What the errors mean that are about one block group; the next one may well move."""

_HINTS = {
    errno.EPERM: "it takes root rights; try it with sudo",
    errno.EINPROGRESS: "wait until the other balance, or work on the devices, has ended",
    errno.ECANCELED: "somebody else did that; btrfs balance status tells whether there is one left",
    errno.EROFS: "the filesystem is read-only; dmesg tells why, if it was not so before",
}
"""What to do about the errors that end everything."""


def _move(fs: FileSystem, vaddr: int, progress: Progress | None) -> tuple[Action, str]:
    """Move a block group; return what became of it, and why it did not move."""
    group = _block_group(fs, vaddr)
    if group is None:
        return Action.GONE, ""
    try:
        if move_block_group(fs, group, progress):
            return Action.MOVED, ""
    except BalanceError as error:
        if error.errno not in _REASONS:
            error.hint = _HINTS.get(error.errno or 0)
            raise
        name = errno.errorcode[error.errno]
        return Action.STUCK, f"{_REASONS[error.errno]} ({name})"
    if _block_group(fs, vaddr) is None:
        return Action.GONE, ""
    return Action.STUCK, "the kernel passes over it, as it does when a swap file is in it"


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.1
_CANCEL_SECONDS = 0.01


def move_block_group(
    fs: FileSystem, group: BlockGroupItem, progress: Progress | None = None
) -> bool:
    """Write what is in a block group to others anew, and remove it.

    Interrupted by a signal, it cancels the balance, waits until that has stopped, and only then
    lets the handler of the signal run. No second signal can come between.

    Args:
        fs: The filesystem, mounted.
        group: The block group.
        progress: What to call in the meantime.

    Returns:
        Whether it was moved. It is not if it is gone already, or if a swap file is in it.

    Raises:
        BalanceError: It was not moved; ENOSPC if there is no space for what is in it.
    """
    chosen = BalanceArgs(vstart=group.vaddr, vend=group.vaddr + 1)
    # A mixed block group is of two types, and the kernel wants the same for both.
    data, metadata, system = (
        chosen if group.flags & type_ else None
        for type_ in (BLOCK_GROUP_DATA, BLOCK_GROUP_METADATA, BLOCK_GROUP_SYSTEM)
    )
    outcome: list[BalanceProgress | BalanceError] = []

    def call_the_kernel() -> None:
        try:
            outcome.append(ioctl.balance_v2(fs.fd, data, metadata, system))
        except BalanceError as error:
            outcome.append(error)

    # The ioctl returns when all is done, and only a signal that kills the process ends it earlier.
    thread = threading.Thread(target=call_the_kernel)
    with _signals_held() as interrupted:
        try:
            copied = _Copied(fs, group)
            thread.start()
            while thread.is_alive() and not interrupted():
                if progress is not None:
                    progress(copied.bytes())
                thread.join(_POLL_SECONDS)
        finally:
            _end(fs.fd, group.vaddr, thread)
    result = outcome[0]
    if isinstance(result, BalanceError):
        raise result
    return result.completed > 0


@contextlib.contextmanager
def _signals_held() -> Iterator[Callable[[], bool]]:
    """Hold back the signals that end a program; what is returned says whether there is one."""
    held = {number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield lambda: bool(signal.sigpending() & held)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(fd: int, vaddr: int, thread: threading.Thread) -> None:
    """Wait until the thread has ended that moves the block group at this address; hasten it."""
    # It may not have come to the kernel yet, and then there is nothing to be cancelled.
    while thread.is_alive():
        with contextlib.suppress(BalanceError):
            if _moves(ioctl.balance_status(fd), vaddr):
                ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_CANCEL)
        thread.join(_CANCEL_SECONDS)


def _moves(status: BalanceStatus, vaddr: int) -> bool:
    """Return whether a balance is about this block group alone, and so is our own."""
    return any(
        args.flags == BALANCE_ARGS_VRANGE and args.vstart == vaddr and args.vend == vaddr + 1
        for args in (status.data, status.meta, status.sys)
    )


class _Copied:
    """How much of a block group was copied.

    The kernel does not tell. But until the old extents are removed at the end, the copies are used
    space too.
    """

    def __init__(self, fs: FileSystem, group: BlockGroupItem) -> None:
        self._fs = fs
        self._group = group
        self._most = 0
        self._before = self._used()

    def bytes(self) -> int:
        """Return how many bytes were copied; never less than the time before."""
        self._most = max(self._most, min(self._used() - self._before, self._group.used))
        return self._most

    def _used(self) -> int:
        type_ = self._group.flags & BLOCK_GROUP_TYPE_MASK
        return sum(space.used_bytes for space in self._fs.space_info() if space.flags & type_)


# What it would give.


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a balance would do.

    Attributes:
        steps: What would happen, without the BEGINs.
        before: Bytes that are unallocated now, and
        after: that would be.
    """

    steps: list[Step]
    before: int
    after: int

    @property
    def gain(self) -> int:
        """Bytes more that would be unallocated; below zero if it would be less."""
        return self.after - self.before


def estimate(
    fs: FileSystem, selection: Selection, selected: Sequence[BlockGroupItem] | None = None
) -> Estimate:
    """Find out what :func:`balance` would do, by doing it in memory.

    What is moved goes into the free space of other block groups, and into new ones where there is
    none that is large enough, see :mod:`btrfs.balance.simulation`. What else is written to the
    filesystem meanwhile is not known, nor is what a swap file holds.

    Args:
        fs: The filesystem, mounted or not.
        selection: Which block groups, in which order, and when to stop.
        selected: What candidates() returned, if that was called already.
    """
    from btrfs.balance.simulation import Simulation

    if selected is None:
        selected = candidates(fs, selection)
    simulation = Simulation(fs)
    before = simulation.unallocated(selection.devid)
    steps: list[Step] = []
    moved = 0
    for step in _turns(selected, selection, simulation.groups.get):
        if step.action is not Action.BEGIN:
            steps.append(step)
            continue
        if _finished(selection, moved, lambda: simulation.unallocated(selection.devid)):
            break
        if simulation.move(step.vaddr):
            moved += 1
            steps.append(replace(step, action=Action.MOVED))
        else:
            steps.append(replace(step, action=Action.STUCK, reason=_REASONS[errno.ENOSPC]))
    return Estimate(steps, before, simulation.unallocated(selection.devid))
