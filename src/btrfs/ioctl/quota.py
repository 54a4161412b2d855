"""Quotas: switching them on and off, counting anew, and the groups that limits are for.

A quota group's number holds its level in the upper 16 bits: 0 for the group that each subvolume has
of its own, whose number is that of the subvolume; higher ones for groups of groups.
"""

import fcntl
import struct
from typing import NamedTuple

from btrfs.ioctl.numbers import NONE, READ, WRITE, ioc
from btrfs.ondisk.constants import QGROUP_LIMIT_MAX_EXCL, QGROUP_LIMIT_MAX_RFER, ULLONG_MAX

__all__ = [
    "IOC_QGROUP_ASSIGN",
    "IOC_QGROUP_CREATE",
    "IOC_QGROUP_LIMIT",
    "IOC_QUOTA_CTL",
    "IOC_QUOTA_RESCAN",
    "IOC_QUOTA_RESCAN_STATUS",
    "IOC_QUOTA_RESCAN_WAIT",
    "QuotaRescanStatus",
    "qgroup_assign",
    "qgroup_create",
    "qgroup_destroy",
    "qgroup_limit",
    "qgroup_remove",
    "quota_disable",
    "quota_enable",
    "quota_rescan",
    "quota_rescan_status",
    "quota_rescan_wait",
]

_QUOTA_CTL_ENABLE = 1
_QUOTA_CTL_DISABLE = 2
_QUOTA_CTL_ENABLE_SIMPLE_QUOTA = 4

# struct btrfs_ioctl_quota_ctl_args: cmd, status.
_QUOTA_CTL_ARGS = struct.Struct("<QQ")
# struct btrfs_ioctl_quota_rescan_args: flags, progress, reserved.
_QUOTA_RESCAN_ARGS = struct.Struct("<QQ48x")
# struct btrfs_ioctl_qgroup_assign_args: assign, src, dst.
_QGROUP_ASSIGN_ARGS = struct.Struct("<QQQ")
# struct btrfs_ioctl_qgroup_create_args: create, qgroupid.
_QGROUP_CREATE_ARGS = struct.Struct("<QQ")
# struct btrfs_ioctl_qgroup_limit_args: qgroupid, flags, max_rfer, max_excl, rsv_rfer, rsv_excl.
_QGROUP_LIMIT_ARGS = struct.Struct("<QQQQQQ")

IOC_QUOTA_CTL = ioc(READ | WRITE, 40, _QUOTA_CTL_ARGS.size)
IOC_QGROUP_ASSIGN = ioc(WRITE, 41, _QGROUP_ASSIGN_ARGS.size)
IOC_QGROUP_CREATE = ioc(WRITE, 42, _QGROUP_CREATE_ARGS.size)
IOC_QGROUP_LIMIT = ioc(READ, 43, _QGROUP_LIMIT_ARGS.size)
IOC_QUOTA_RESCAN = ioc(WRITE, 44, _QUOTA_RESCAN_ARGS.size)
IOC_QUOTA_RESCAN_STATUS = ioc(READ, 45, _QUOTA_RESCAN_ARGS.size)
IOC_QUOTA_RESCAN_WAIT = ioc(NONE, 46, 0)


class QuotaRescanStatus(NamedTuple):
    """Whether counting is going on, and how far it is (struct btrfs_ioctl_quota_rescan_args).

    Attributes:
        running: Whether it is.
        progress: Virtual address in the extent tree up to which it has counted.
    """

    running: bool
    progress: int


def quota_enable(fd: int, simple: bool = False) -> None:
    """Switch quotas on; what exists is counted in the background. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        simple: Charge an extent to the subvolume that wrote it first, and nothing else: no
            counting, and next to no cost.

    Raises:
        OSError: EINVAL if the kernel has no simple quotas, or quotas of the other kind are on.
    """
    _quota_ctl(fd, _QUOTA_CTL_ENABLE_SIMPLE_QUOTA if simple else _QUOTA_CTL_ENABLE)


def quota_disable(fd: int) -> None:
    """Switch quotas off; groups and limits are forgotten. Needs CAP_SYS_ADMIN."""
    _quota_ctl(fd, _QUOTA_CTL_DISABLE)


def _quota_ctl(fd: int, command: int) -> None:
    fcntl.ioctl(fd, IOC_QUOTA_CTL, bytearray(_QUOTA_CTL_ARGS.pack(command, 0)))


def quota_rescan(fd: int) -> None:
    """Begin to count anew, in the background. Needs CAP_SYS_ADMIN.

    Raises:
        OSError: EINPROGRESS if that is going on already, ENOTCONN if quotas are off.
    """
    fcntl.ioctl(fd, IOC_QUOTA_RESCAN, _QUOTA_RESCAN_ARGS.pack(0, 0))


def quota_rescan_status(fd: int) -> QuotaRescanStatus:
    """Return how far counting is. Needs CAP_SYS_ADMIN."""
    args = bytearray(_QUOTA_RESCAN_ARGS.size)
    fcntl.ioctl(fd, IOC_QUOTA_RESCAN_STATUS, args)
    flags, progress = _QUOTA_RESCAN_ARGS.unpack(args)
    return QuotaRescanStatus(bool(flags), progress)


def quota_rescan_wait(fd: int) -> None:
    """Wait until counting has ended; return at once if none is going on. Needs CAP_SYS_ADMIN."""
    fcntl.ioctl(fd, IOC_QUOTA_RESCAN_WAIT)


def qgroup_create(fd: int, qgroupid: int) -> None:
    """Make a quota group. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        qgroupid: Its number, with the level.

    Raises:
        OSError: EEXIST if there is one of that number, ENOTCONN if quotas are off.
    """
    fcntl.ioctl(fd, IOC_QGROUP_CREATE, _QGROUP_CREATE_ARGS.pack(1, qgroupid))


def qgroup_destroy(fd: int, qgroupid: int) -> None:
    """Delete a quota group. Needs CAP_SYS_ADMIN.

    Raises:
        OSError: ENOENT if there is none of that number, EBUSY if there are groups in it, or it is
            that of a subvolume, ENOTCONN if quotas are off.
    """
    fcntl.ioctl(fd, IOC_QGROUP_CREATE, _QGROUP_CREATE_ARGS.pack(0, qgroupid))


def qgroup_assign(fd: int, member: int, group: int) -> bool:
    """Put a quota group into another. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        member: Number of the group.
        group: Number of the group to add it to, which must be of a higher level.

    Returns:
        Whether what is used must be counted anew, by :func:`quota_rescan`, to be right again.

    Raises:
        OSError: EEXIST if it is in there already, EINVAL if one of them does not exist or the
            level is not higher, ENOTCONN if quotas are off.
    """
    return _qgroup_assign(fd, 1, member, group)


def qgroup_remove(fd: int, member: int, group: int) -> bool:
    """Take a quota group out of another; see :func:`qgroup_assign`.

    Raises:
        OSError: ENOENT if it is not in there, ENOTCONN if quotas are off.
    """
    return _qgroup_assign(fd, 0, member, group)


def _qgroup_assign(fd: int, assign: int, member: int, group: int) -> bool:
    # Of bytes that can be changed, ioctl() returns the kernel's result; of others, the bytes.
    args = bytearray(_QGROUP_ASSIGN_ARGS.pack(assign, member, group))
    return bool(fcntl.ioctl(fd, IOC_QGROUP_ASSIGN, args))


def qgroup_limit(
    fd: int, qgroupid: int = 0, max_rfer: int | None = None, max_excl: int | None = None
) -> None:
    """Set both limits of a quota group. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        qgroupid: Number of the group; 0 for that of the subvolume that fd is in.
        max_rfer: Most bytes that it may refer to; no limit if not given.
        max_excl: Most bytes that only it may refer to; no limit if not given.

    Raises:
        OSError: ENOENT if there is no such group, ENOTCONN if quotas are off.
    """
    flags = QGROUP_LIMIT_MAX_RFER | QGROUP_LIMIT_MAX_EXCL
    # The highest number takes a limit away.
    limits = (ULLONG_MAX if limit is None else limit for limit in (max_rfer, max_excl))
    args = bytearray(_QGROUP_LIMIT_ARGS.pack(qgroupid, flags, *limits, 0, 0))
    fcntl.ioctl(fd, IOC_QGROUP_LIMIT, args)
