"""Move block groups one at a time, and nothing else, whatever interrupts it.

:func:`balance` yields a :class:`~btrfs.balance.planning.Step` for all that happens::

    with btrfs.FileSystem('/mnt/data') as fs:
        for step in balance(fs, Selection(used_pct=50, limit=3)):
            print(step.action, step.vaddr)

:func:`move_block_group` moves one block group.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from btrfs import ioctl
from btrfs.balance.planning import (
    NO_SPACE,
    Action,
    Selection,
    Step,
    candidates,
    is_finished,
    turns,
    unallocated,
)
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
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import BlockGroupItem

__all__ = ["Progress", "balance", "move_block_group", "require_balanceable"]

Progress = Callable[[int], None]
"""Is called with how many bytes of a block group were copied, several times a second."""


def require_balanceable(fs: FileSystem) -> None:
    """Find out whether a balance could be started now.

    Raises:
        NotMountedError: The filesystem is not mounted.
        BtrfsError: It is mounted read-only, or there is a balance already, which is left
            alone.
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
        BalanceError: One was started, paused or cancelled elsewhere meanwhile, or the
            filesystem became read-only.
    """
    require_balanceable(fs)
    if selected is None:
        selected = candidates(fs, selection)
    moved = 0
    for step in turns(selected, selection, lambda vaddr: _block_group(fs, vaddr)):
        if step.action is not Action.BEGIN:
            yield step
            continue
        if is_finished(selection, moved, lambda: unallocated(fs, selection.devid)):
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
    errno.ENOSPC: NO_SPACE,
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
    errno.ECANCELED: "it was cancelled elsewhere; btrfs balance status tells whether one is left",
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
