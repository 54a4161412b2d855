"""Quotas: switching them on and off, and counting anew how much each subvolume uses."""

import fcntl
import struct
from typing import NamedTuple

from btrfs.ioctl.numbers import NONE, READ, WRITE, ioc

__all__ = [
    "IOC_QUOTA_CTL",
    "IOC_QUOTA_RESCAN",
    "IOC_QUOTA_RESCAN_STATUS",
    "IOC_QUOTA_RESCAN_WAIT",
    "QuotaRescanStatus",
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

IOC_QUOTA_CTL = ioc(READ | WRITE, 40, _QUOTA_CTL_ARGS.size)
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
    """Switch quotas on; what there is, is counted in the background. Needs CAP_SYS_ADMIN.

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
