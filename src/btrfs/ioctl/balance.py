"""Balance: move what is in some block groups to new ones, so that the old ones can be removed.

:func:`balance_v2` starts a balance and returns when it has ended, which may take days; of
signals, only one that kills the process ends it earlier. Meanwhile, from another thread or process,
:func:`balance_progress` returns how far it is, and :func:`balance_ctl` pauses or cancels it.
:class:`BalanceArgs` chooses the block groups::

    few = BalanceArgs(usage_max=20, limit_max=3)
    print(balance_v2(fd, data_args=few))

A filesystem has one balance at most, and any process with the privilege can see, pause and cancel
it. See btrfs_balance() in fs/btrfs/volumes.c.
"""

import errno
import fcntl
import struct
from typing import Annotated, NamedTuple

from btrfs.errors import BtrfsError
from btrfs.ioctl.numbers import READ, WRITE, ioc
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX, ULONG_MAX
from btrfs.ondisk.fields import Stored, hidden, u64
from btrfs.ondisk.items.balance import DiskBalanceArgs
from btrfs.ondisk.printing import as_flags
from btrfs.ondisk.struct import Struct, fields
from btrfs.ondisk.text import flags_str

__all__ = [
    "BALANCE_CTL_CANCEL",
    "BALANCE_CTL_PAUSE",
    "BALANCE_STATE_CANCEL_REQ",
    "BALANCE_STATE_PAUSE_REQ",
    "BALANCE_STATE_RUNNING",
    "IOC_BALANCE_CTL",
    "IOC_BALANCE_PROGRESS",
    "IOC_BALANCE_V2",
    "BalanceArgs",
    "BalanceError",
    "BalanceProgress",
    "BalanceStatus",
    "balance_ctl",
    "balance_progress",
    "balance_status",
    "balance_v2",
]

BALANCE_CTL_PAUSE = 1
BALANCE_CTL_CANCEL = 2

BALANCE_STATE_RUNNING = 1 << 0
BALANCE_STATE_PAUSE_REQ = 1 << 1
BALANCE_STATE_CANCEL_REQ = 1 << 2

_STATE_NAMES = {
    BALANCE_STATE_RUNNING: "RUNNING",
    BALANCE_STATE_PAUSE_REQ: "PAUSE_REQ",
    BALANCE_STATE_CANCEL_REQ: "CANCEL_REQ",
}
_CTL_NAMES = {BALANCE_CTL_PAUSE: "pause", BALANCE_CTL_CANCEL: "cancel"}

# In filters 'single' has a bit, as there must be one to name it by.
_PROFILE_NAMES = {
    **constants.BLOCK_GROUP_PROFILE_NAMES,
    constants.AVAIL_ALLOC_BIT_SINGLE: "SINGLE",
}


class _Filter(NamedTuple):
    """One thing that block groups are chosen by, or what is done with them.

    Attributes:
        flag: What says that it counts.
        word: What it is printed as.
        names: The attributes that it consists of.
    """

    flag: int
    word: str
    names: tuple[str, ...]


_FILTERS = (
    _Filter(constants.BALANCE_ARGS_PROFILES, "profiles", ("profiles",)),
    _Filter(constants.BALANCE_ARGS_USAGE_RANGE, "usage", ("usage_min", "usage_max")),
    _Filter(constants.BALANCE_ARGS_DEVID, "devid", ("devid",)),
    _Filter(constants.BALANCE_ARGS_DRANGE, "drange", ("pstart", "pend")),
    _Filter(constants.BALANCE_ARGS_VRANGE, "vrange", ("vstart", "vend")),
    _Filter(constants.BALANCE_ARGS_CONVERT, "target", ("target",)),
    _Filter(constants.BALANCE_ARGS_LIMIT_RANGE, "limit", ("limit_min", "limit_max")),
    _Filter(constants.BALANCE_ARGS_STRIPES_RANGE, "stripes", ("stripes_min", "stripes_max")),
    _Filter(constants.BALANCE_ARGS_SOFT, "soft", ("soft",)),
)
_NEEDS = {
    constants.BALANCE_ARGS_DRANGE: constants.BALANCE_ARGS_DEVID,
    constants.BALANCE_ARGS_SOFT: constants.BALANCE_ARGS_CONVERT,
}
"""A filter without the other one has no meaning; the kernel would refuse it."""

_DEFAULTS = {
    "usage_max": 100,
    "pend": ULLONG_MAX,
    "vend": ULLONG_MAX,
    "limit_max": ULONG_MAX,
    "stripes_max": ULONG_MAX,
}
"""What an attribute is that was not given; the others are 0 then."""

_PRINT_ORDER = (
    *("flags", "profiles", "usage_min", "usage_max", "devid", "pstart", "pend", "vstart", "vend"),
    *("target", "soft", "limit_min", "limit_max", "stripes_min", "stripes_max"),
)


class BalanceArgs(DiskBalanceArgs, module="btrfs.ioctl"):
    """Which block groups of a type to move (struct btrfs_balance_args).

    Without arguments, all of them. What is given must all be true of a block group. The two ends of
    a range can be given alone.

    Args:
        profiles: Only block groups with one of these profiles; AVAIL_ALLOC_BIT_SINGLE is 'single'.
        usage_min: Only those filled at least so far, in per cent.
        usage_max: Only those filled less than so far; 0 is for those that are empty.
        devid: Only those that use this device.
        pstart: Only those with bytes on it at this address or a higher one.
        pend: Only those with bytes on it below this address.
        vstart: Only those with bytes at this virtual address or a higher one.
        vend: Only those with bytes below this virtual address.
        target: Profile to convert to; AVAIL_ALLOC_BIT_SINGLE is 'single'.
        limit_min: Do nothing if there are fewer than so many.
        limit_max: Move no more than so many.
        stripes_min: Only those of at least so many stripes.
        stripes_max: Only those of at most so many stripes.
        soft: Leave out those that have the target profile already.

    Attributes:
        flags: Which of the others count: BALANCE_ARGS_PROFILES and the like. A range of a device
            counts only together with a devid, and soft only with a target.
        soft: True, or not there.
    """

    profiles: u64
    profiles_str = as_flags(_PROFILE_NAMES)
    target: u64
    target_str = as_flags(_PROFILE_NAMES)
    soft: bool

    def __init__(
        self,
        profiles: int | None = None,
        usage_min: int | None = None,
        usage_max: int | None = None,
        devid: int | None = None,
        pstart: int | None = None,
        pend: int | None = None,
        vstart: int | None = None,
        vend: int | None = None,
        target: int | None = None,
        limit_min: int | None = None,
        limit_max: int | None = None,
        stripes_min: int | None = None,
        stripes_max: int | None = None,
        soft: bool = False,
    ) -> None:
        given: dict[str, int | None] = {
            "profiles": profiles,
            "usage_min": usage_min,
            "usage_max": usage_max,
            "devid": devid,
            "pstart": pstart,
            "pend": pend,
            "vstart": vstart,
            "vend": vend,
            "target": target,
            "limit_min": limit_min,
            "limit_max": limit_max,
            "stripes_min": stripes_min,
            "stripes_max": stripes_max,
            "soft": soft or None,
        }
        self.flags = 0
        self.reserved = bytes(48)
        for filter_ in _FILTERS:
            values = {name: given[name] for name in filter_.names}
            needed = _NEEDS.get(filter_.flag, 0)
            if self.flags & needed != needed or set(values.values()) == {None}:
                values = dict.fromkeys(values)
            else:
                self.flags |= filter_.flag
            self._set(values)

    def _set(self, values: dict[str, int | None]) -> None:
        """Set attributes, to their defaults where there is no value."""
        for name, value in values.items():
            if value is not None:
                setattr(self, name, value)
            elif name != "soft":
                setattr(self, name, _DEFAULTS.get(name, 0))

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{name}={_in_code(name, getattr(self, name))}"
            for filter_ in self._filters()
            for name in filter_.names
        )
        return f"BalanceArgs({arguments})"

    def __str__(self) -> str:
        filters = ", ".join(map(self._text_of, self._filters()))
        return f"flags({self.flags_str}) {filters}"

    def _filters(self) -> list[_Filter]:
        """Return the filters that count; none before the flags are set."""
        flags = getattr(self, "flags", 0)
        return [filter_ for filter_ in _FILTERS if flags & filter_.flag]

    def _text_of(self, filter_: _Filter) -> str:
        """Return a filter as text: 'usage=0..20'."""
        if filter_.word == "soft":
            return filter_.word
        values = (getattr(self, f"{name}_str", getattr(self, name)) for name in filter_.names)
        return f"{filter_.word}={'..'.join(map(str, values))}"

    @classmethod
    def printed_names(cls) -> tuple[str, ...]:
        """Return the names of the attributes in the order of python-btrfs."""
        return tuple(sorted(super().printed_names(), key=_PRINT_ORDER.index))


def _in_code(name: str, value: int) -> str:
    return hex(value) if name in {"profiles", "target"} else str(value)


class BalanceProgress(
    Struct,
    line=("state {state_str} expected {expected} considered {considered} completed {completed}"),
    module="btrfs.ioctl",
):
    """How far a balance is, or how far it came (struct btrfs_balance_progress).

    Attributes:
        state: BALANCE_STATE_RUNNING and the like; 0 for a balance that is paused or has ended.
        expected: Estimate of how many block groups are to be moved.
        considered: How many block groups were looked at.
        completed: How many were moved.
    """

    state: u64
    state_str = as_flags(_STATE_NAMES)
    expected: u64
    considered: u64
    completed: u64

    def __init__(self, state: int, expected: int, considered: int, completed: int) -> None:
        self.state = state
        self.expected = expected
        self.considered = considered
        self.completed = completed

    def __repr__(self) -> str:
        if not hasattr(self, "completed"):
            # Its bytes were too short.
            return super().__repr__()
        return (
            f"BalanceProgress(state={self.state:#x}, expected={self.expected}, "
            f"considered={self.considered}, completed={self.completed})"
        )


class BalanceError(BtrfsError):
    """A balance did not start, or did not come to its end.

    Attributes:
        state: BALANCE_STATE_PAUSE_REQ or BALANCE_STATE_CANCEL_REQ for a balance that was
            paused or cancelled.
        msg: What happened.
    """

    def __init__(self, state: int, msg: str, *, hint: str | None = None) -> None:
        super().__init__(msg, hint=hint)
        self.args = (state, msg)
        self.state = state
        self.msg = msg

    def __str__(self) -> str:
        return self.msg

    @property
    def errno(self) -> int | None:
        """The error that the kernel returned: ENOTCONN, if there is no balance."""
        return getattr(self.__cause__, "errno", None)


class BalanceStatus(Struct, module="btrfs.ioctl"):
    """A balance: what it is to move, and how far it is (struct btrfs_ioctl_balance_args).

    Attributes:
        flags: Which types of block groups: BALANCE_DATA and the like.
        state: As in BalanceProgress.
        data: Which of the data block groups.
        meta: Which of the metadata block groups.
        sys: Which of the system block groups.
        expected: As in BalanceProgress.
        considered: As in BalanceProgress.
        completed: As in BalanceProgress.
    """

    flags: u64
    flags_str = as_flags(constants.BALANCE_FLAG_NAMES)
    state: u64
    state_str = as_flags(_STATE_NAMES)
    data: DiskBalanceArgs
    meta: DiskBalanceArgs
    sys: DiskBalanceArgs
    expected: u64
    considered: u64
    completed: u64
    unused: Annotated[bytes, Stored("576s", "V576")] = hidden()

    def progress(self) -> BalanceProgress:
        """Return how far it is."""
        return BalanceProgress(self.state, self.expected, self.considered, self.completed)


IOC_BALANCE_V2 = ioc(READ | WRITE, 32, BalanceStatus.struct_size)
IOC_BALANCE_CTL = ioc(WRITE, 33, struct.calcsize("i"))
IOC_BALANCE_PROGRESS = ioc(READ, 34, BalanceStatus.struct_size)

# enum btrfs_err_code: what the ioctl returns, instead of an error, while devices are added, removed
# or replaced, or a filesystem is resized.
_DEV_EXCL_RUN_IN_PROGRESS = 8


def balance_v2(
    fd: int,
    data_args: BalanceArgs | None = None,
    meta_args: BalanceArgs | None = None,
    sys_args: BalanceArgs | None = None,
    force: bool = False,
    resume: bool = False,
) -> BalanceProgress:
    """Move block groups, and return when that is done. Needs CAP_SYS_ADMIN.

    Types of block groups for which there are no arguments are left alone.

    Args:
        fd: File descriptor.
        data_args: Which block groups of data to move.
        meta_args: Which block groups of metadata.
        sys_args: Which block groups of the chunk tree.
        force: Allow a conversion to a profile with less redundancy.
        resume: Go on with a balance that is paused; all other arguments are ignored.

    Raises:
        BalanceError: It failed or was paused or cancelled (ECANCELED), or there is a balance
            already (EINPROGRESS); to resume, there is none (ENOTCONN).
    """
    args = bytearray(BalanceStatus.struct_size)
    if resume:
        struct.pack_into("<Q", args, 0, constants.BALANCE_RESUME)
    else:
        _pack_args(args, {"data": data_args, "meta": meta_args, "sys": sys_args}, force)
    try:
        if fcntl.ioctl(fd, IOC_BALANCE_V2, args) == _DEV_EXCL_RUN_IN_PROGRESS:
            raise OSError(errno.EINPROGRESS, "Another operation on the devices is in progress")
    except OSError as error:
        state = BalanceStatus(args).state
        raise BalanceError(state, _message(error, state, resume)) from error
    return BalanceStatus(args).progress()


def balance_progress(fd: int) -> BalanceProgress:
    """Return how far the balance that runs or is paused is. Needs CAP_SYS_ADMIN.

    Raises:
        BalanceError: There is none (ENOTCONN).
    """
    return balance_status(fd).progress()


def balance_status(fd: int) -> BalanceStatus:
    """Return the balance that runs or is paused, with what it is to move. Needs CAP_SYS_ADMIN.

    Raises:
        BalanceError: There is none (ENOTCONN).
    """
    args = bytearray(BalanceStatus.struct_size)
    try:
        fcntl.ioctl(fd, IOC_BALANCE_PROGRESS, args)
    except OSError as error:
        found_none = error.errno == errno.ENOTCONN
        what = "No balance found" if found_none else "Balance progress failed"
        raise BalanceError(0, f"{what} ({_name(error)})") from error
    return BalanceStatus(args)


def balance_ctl(fd: int, cmd: int) -> None:
    """Pause or cancel a balance, and return when it has stopped. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        cmd: BALANCE_CTL_PAUSE for a balance that runs, BALANCE_CTL_CANCEL for one that runs or is
            paused.

    Raises:
        BalanceError: There is none (ENOTCONN).
    """
    try:
        fcntl.ioctl(fd, IOC_BALANCE_CTL, cmd)
    except OSError as error:
        found_none = error.errno == errno.ENOTCONN
        why = ": Not in progress" if found_none else ""
        what = _CTL_NAMES.get(cmd, f"command {cmd}")
        raise BalanceError(0, f"Balance {what} failed{why} ({_name(error)})") from error


_TYPE_FLAGS = {
    "data": constants.BALANCE_DATA,
    "meta": constants.BALANCE_METADATA,
    "sys": constants.BALANCE_SYSTEM,
}
_TYPE_OFFSETS = {
    name: 16 + number * DiskBalanceArgs.struct_size
    for number, name in enumerate(("data", "meta", "sys"))
}
_STORED = [field for field in fields(DiskBalanceArgs) if field.stored is not None]
_PACKED = struct.Struct("<" + "".join(field.stored.code for field in _STORED if field.stored))


def _pack_args(args: bytearray, types: dict[str, BalanceArgs | None], force: bool) -> None:
    """Write what to move to the argument of the ioctl."""
    flags = constants.BALANCE_FORCE if force else 0
    for name, chosen in types.items():
        if chosen is not None:
            flags |= _TYPE_FLAGS[name]
            values = (getattr(chosen, field.name) for field in _STORED)
            _PACKED.pack_into(args, _TYPE_OFFSETS[name], *values)
    struct.pack_into("<Q", args, 0, flags)


def _message(error: OSError, state: int, resume: bool) -> str:
    """Return what an error of a balance means."""
    name = _name(error)
    if error.errno == errno.ECANCELED:
        if state & BALANCE_STATE_CANCEL_REQ:
            return "Balance canceled by user"
        if state & BALANCE_STATE_PAUSE_REQ:
            return "Balance paused by user"
    if error.errno == errno.EINPROGRESS:
        what = "resume failed: Already running" if resume else "start failed: Already in progress"
        return f"Balance {what} ({name})"
    if error.errno == errno.ENOTCONN and resume:
        return f"Balance resume failed: Not in progress ({name})"
    states = flags_str(state, _STATE_NAMES)
    return f"Error during balancing, there may be more info in dmesg: {name}, state {states}"


def _name(error: OSError) -> str:
    number = error.errno or 0
    return errno.errorcode.get(number, str(number))
