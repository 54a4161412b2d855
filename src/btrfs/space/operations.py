"""What the kernel is doing to a filesystem as a whole: balance, scrub, and changes of its devices.

    with btrfs.FileSystem('/mnt/data') as fs:
        for operation in operations.under_way(fs):
            print(operation.kind, operation.state, operation.done)

A filesystem does one of these at a time, except that each device may have a scrub beside a balance.
The kernel has a call for the progress of a balance, a replacement and a scrub, but none for that of
a device that is removed or made smaller. Both begin with setting the size of the device in memory,
to zero if it is removed, and end with writing it to the item of the device (btrfs_shrink_device()
in fs/btrfs/volumes.c). Meanwhile, the two sizes differ. How much there was to move at the beginning
is not kept anywhere, only what is left is known.

A balance or a replacement that was interrupted by unmounting has an item in a tree. The kernel goes
on with it at the next mount.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from btrfs.ondisk import constants
from btrfs.ondisk.items.balance import BalanceItem
from btrfs.ondisk.items.device import DevReplaceItem
from btrfs.ondisk.key import Key

if TYPE_CHECKING:
    from btrfs.info import DevInfo
    from btrfs.ondisk.items.base import ItemData
    from btrfs.ondisk.items.device import DevExtent, DevItem

__all__ = ["Kind", "Operation", "OperationLookups", "State", "under_way"]


class OperationLookups(Protocol):
    """The look-ups of a FileSystem that are needed here.

    Attributes:
        mounted: Whether the running kernel answers.
    """

    mounted: bool

    @property
    def fd(self) -> int:
        """File descriptor for ioctls."""

    def devices(self) -> Iterable[DevItem]:
        """Return the devices."""

    def dev_extents(self, min_devid: int, max_devid: int) -> Iterable[DevExtent]:
        """Return the allocated ranges of the devices between two numbers."""

    def dev_info(self, devid: int) -> DevInfo:
        """Return what describes a device."""

    def search(self, tree: int, min_key: Key, max_key: Key) -> Iterable[ItemData]:
        """Return the items of a tree whose keys lie between two keys."""


class Kind(Enum):
    """What is done, by the words that the kernel has for it in exclusive_operation in sysfs."""

    BALANCE = "balance"
    REPLACE = "device replace"
    REMOVE = "device remove"
    RESIZE = "resize"
    SCRUB = "scrub"


class State(Enum):
    """Whether it goes on by itself."""

    RUNNING = "running"
    PAUSED = "paused"
    """A user paused it."""
    SUSPENDED = "suspended"
    """It goes on at the next mount."""


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation that is not finished.

    Attributes:
        kind: What is done.
        state: Whether it goes on.
        devid: Number of the device that is scrubbed, replaced, removed or resized; None for a
            balance.
        done: How much of it is done, from 0 to 1; None if that is not known. For a balance, the
            part of the block groups that it wants to move; for a scrub, the part of the allocated
            bytes of the device.
        bytes_left: Of a removal or resize, bytes of device extents that are still to be moved.
        errors: Of a scrub, errors found that no copy could mend; of a replacement, failed writes,
            and reads that no copy could replace.
    """

    kind: Kind
    state: State
    devid: int | None = None
    done: float | None = None
    bytes_left: int | None = None
    errors: int = 0


def under_way(fs: OperationLookups) -> list[Operation]:
    """Return the operations that are not finished.

    Args:
        fs: The filesystem. One that is not mounted can have a balance and a replacement that were
            interrupted.

    Raises:
        OSError: EPERM without root rights on a mounted filesystem.
        BtrfsError: The kernel does not tell, or a tree is damaged.
    """
    if not fs.mounted:
        return list(_suspended(fs))
    replacements = list(_replacements(fs))
    # A replacement reads its device by a scrub, and the kernel allows no other one meanwhile.
    scrubs = [] if replacements else list(_scrubs(fs))
    return [*_balances(fs), *replacements, *_shrinking_devices(fs), *scrubs]


def _suspended(fs: OperationLookups) -> Iterator[Operation]:
    """Yield what the trees say that the kernel has to go on with."""
    balance = Key(constants.BALANCE_OBJECTID, constants.TEMPORARY_ITEM_KEY, 0)
    for item in fs.search(constants.ROOT_TREE_OBJECTID, balance, balance):
        if isinstance(item, BalanceItem):
            yield Operation(Kind.BALANCE, State.SUSPENDED)
    if (replace := _replace_item(fs)) and replace.replace_state in _UNFINISHED:
        yield Operation(Kind.REPLACE, State.SUSPENDED, replace.src_devid)


def _replace_item(fs: OperationLookups) -> DevReplaceItem | None:
    key = Key(0, constants.DEV_REPLACE_KEY, 0)
    for item in fs.search(constants.DEV_TREE_OBJECTID, key, key):
        if isinstance(item, DevReplaceItem):
            return item
    return None


# BTRFS_IOCTL_DEV_REPLACE_STATE_STARTED and _SUSPENDED.
_UNFINISHED = {1: State.RUNNING, 4: State.SUSPENDED}


def _balances(fs: OperationLookups) -> Iterator[Operation]:
    from btrfs import ioctl

    try:
        progress = ioctl.balance_progress(fs.fd)
    except ioctl.BalanceError as error:
        if error.errno == errno.ENOTCONN:
            return
        raise
    is_running = progress.state & ioctl.BALANCE_STATE_RUNNING
    yield Operation(
        Kind.BALANCE,
        State.RUNNING if is_running else State.PAUSED,
        done=_part(progress.completed, progress.expected),
    )


def _replacements(fs: OperationLookups) -> Iterator[Operation]:
    from btrfs import ioctl

    status = ioctl.dev_replace_status(fs.fd)
    if status.replace_state not in _UNFINISHED:
        return
    # The item is written when a transaction is committed: at the very beginning, there is none.
    item = _replace_item(fs)
    yield Operation(
        Kind.REPLACE,
        _UNFINISHED[status.replace_state],
        item.src_devid if item else None,
        done=status.progress_1000 / 1000,
        errors=status.num_write_errors + status.num_uncorrectable_read_errors,
    )


def _shrinking_devices(fs: OperationLookups) -> Iterator[Operation]:
    """Yield devices that are removed or made smaller."""
    for device in fs.devices():
        wanted = _size_in_memory(fs, device.devid)
        if wanted is None or wanted >= device.total_bytes:
            continue
        left = sum(
            extent.length
            for extent in fs.dev_extents(device.devid, device.devid)
            if extent.paddr + extent.length > wanted
        )
        kind = Kind.RESIZE if wanted else Kind.REMOVE
        yield Operation(kind, State.RUNNING, device.devid, bytes_left=left)


def _size_in_memory(fs: OperationLookups, devid: int) -> int | None:
    """Return the bytes of a device that the kernel may use; None if the device is gone."""
    try:
        return fs.dev_info(devid).total_bytes
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def _scrubs(fs: OperationLookups) -> Iterator[Operation]:
    from btrfs import ioctl

    for device in fs.devices():
        try:
            progress = ioctl.scrub_progress(fs.fd, device.devid)
        except OSError as error:
            # None is running, or the device is gone meanwhile.
            if error.errno in (errno.ENOTCONN, errno.ENODEV):
                continue
            raise
        yield Operation(
            Kind.SCRUB,
            State.RUNNING,
            device.devid,
            done=_part_scrubbed(fs.dev_extents(device.devid, device.devid), progress.last_physical),
            errors=progress.uncorrectable_errors,
        )


def _part_scrubbed(extents: Iterable[DevExtent], address: int) -> float | None:
    """Return which part of device extents lies before an address: a scrub takes them in order."""
    passed = total = 0
    for extent in extents:
        passed += min(max(address - extent.paddr, 0), extent.length)
        total += extent.length
    return _part(passed, total)


def _part(done: int, total: int) -> float | None:
    return min(done / total, 1.0) if total else None
