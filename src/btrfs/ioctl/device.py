"""Devices: adding, removing, resizing and replacing them, and announcing them to the kernel.

A filesystem does one of these at a time, and none while a balance runs: OSError with EINPROGRESS or
BtrfsError says so.
"""

import fcntl
import os
import struct

from btrfs.errors import BtrfsError
from btrfs.ioctl.numbers import READ, WRITE, ioc
from btrfs.ioctl.volume_args import (
    DEVICE_PATH_NAME_MAX,
    VOL_ARGS_SIZE,
    name_field,
    vol_args,
    vol_args_v2,
)
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.fields import Bytes, u64
from btrfs.ondisk.printing import as_name
from btrfs.ondisk.struct import Struct

__all__ = [
    "CONTROL_DEVICE",
    "DEVICE_SPEC_BY_ID",
    "DEV_REPLACE_STATE_CANCELED",
    "DEV_REPLACE_STATE_FINISHED",
    "DEV_REPLACE_STATE_NEVER_STARTED",
    "DEV_REPLACE_STATE_STARTED",
    "DEV_REPLACE_STATE_SUSPENDED",
    "IOC_ADD_DEV",
    "IOC_DEVICES_READY",
    "IOC_DEV_REPLACE",
    "IOC_FORGET_DEV",
    "IOC_RESIZE",
    "IOC_RM_DEV_V2",
    "IOC_SCAN_DEV",
    "DevReplaceStatus",
    "add_device",
    "dev_replace_cancel",
    "dev_replace_start",
    "dev_replace_status",
    "devices_ready",
    "forget_device",
    "remove_device",
    "resize",
    "scan_device",
]

CONTROL_DEVICE = "/dev/btrfs-control"
DEVICE_SPEC_BY_ID = 1 << 3

DEV_REPLACE_STATE_NEVER_STARTED = 0
DEV_REPLACE_STATE_STARTED = 1
DEV_REPLACE_STATE_FINISHED = 2
DEV_REPLACE_STATE_CANCELED = 3
DEV_REPLACE_STATE_SUSPENDED = 4

_DEV_REPLACE_STATE_NAMES = {
    DEV_REPLACE_STATE_NEVER_STARTED: "never started",
    DEV_REPLACE_STATE_STARTED: "started",
    DEV_REPLACE_STATE_FINISHED: "finished",
    DEV_REPLACE_STATE_CANCELED: "canceled",
    DEV_REPLACE_STATE_SUSPENDED: "suspended",
}
_DEV_REPLACE_CMD_START, _DEV_REPLACE_CMD_STATUS, _DEV_REPLACE_CMD_CANCEL = range(3)
_DEV_REPLACE_ERRORS = {
    1: "no replacement is running",
    2: "a replacement is running already",
    3: "a scrub is running on the device that shall be replaced",
}

# enum btrfs_err_code, which is returned instead of an errno.
_DEVICE_ERRORS = {
    1: "RAID1 needs at least 2 devices",
    2: "RAID10 needs at least 2 devices",
    3: "RAID5 needs at least 2 devices",
    4: "RAID6 needs at least 3 devices",
    5: "the device is the target of a running replacement",
    6: "there is no missing device",
    7: "it is the only writable device",
    8: "a balance, a replacement, or another change of the devices is running",
    9: "RAID1C3 needs at least 3 devices",
    10: "RAID1C4 needs at least 4 devices",
}


class DevReplaceStatus(
    Struct,
    line=(
        "replace state {replace_state_str} progress {progress_1000} "
        "write_errors {num_write_errors} read_errors {num_uncorrectable_read_errors}"
    ),
    module="btrfs.ioctl",
):
    """How far the replacement of a device is (struct btrfs_ioctl_dev_replace_status_params).

    Attributes:
        replace_state: DEV_REPLACE_STATE_STARTED and the like.
        progress_1000: How much is done, in thousandths.
        time_started: When it began, in seconds since 1970.
        time_stopped: When it ended, in seconds since 1970.
        num_write_errors: Failed writes to the new device.
        num_uncorrectable_read_errors: What could not be read from any copy.
    """

    replace_state: u64
    replace_state_str = as_name(_DEV_REPLACE_STATE_NAMES)
    progress_1000: u64
    time_started: u64
    time_stopped: u64
    num_write_errors: u64
    num_uncorrectable_read_errors: u64


# struct btrfs_ioctl_dev_replace_args: cmd, result, parameters, spare. The parameters of a start:
# srcdevid, whether to avoid reading from it, srcdev_name, tgtdev_name.
_DEV_REPLACE_ARGS = struct.Struct("<QQ2072s512x")
_DEV_REPLACE_START = struct.Struct(f"<QQ{DEVICE_PATH_NAME_MAX + 1}s{DEVICE_PATH_NAME_MAX + 1}s")

IOC_RESIZE = ioc(WRITE, 3, VOL_ARGS_SIZE)
IOC_SCAN_DEV = ioc(WRITE, 4, VOL_ARGS_SIZE)
IOC_FORGET_DEV = ioc(WRITE, 5, VOL_ARGS_SIZE)
IOC_ADD_DEV = ioc(WRITE, 10, VOL_ARGS_SIZE)
IOC_DEVICES_READY = ioc(READ, 39, VOL_ARGS_SIZE)
IOC_DEV_REPLACE = ioc(READ | WRITE, 53, _DEV_REPLACE_ARGS.size)
IOC_RM_DEV_V2 = ioc(WRITE, 58, VOL_ARGS_SIZE)


def resize(fd: int, devid: int, size: int | None = None) -> None:
    """Let the filesystem use more or less of a device. Needs CAP_SYS_ADMIN.

    To use less, what lies past the new end is moved first, which may take long.

    Args:
        fd: File descriptor.
        devid: Number of the device.
        size: Bytes to use; all of the device if not given.

    Raises:
        BtrfsError: Another change of the devices, or a balance, is running.
        OSError: ENODEV if there is no such device, EFBIG if it is smaller than that, ENOSPC if
            what lies past the new end has no room elsewhere, EINVAL if the size is below 256 MiB.
        ValueError: The size is negative.
    """
    # The kernel would take it for how much to shrink by.
    if size is not None and size < 0:
        raise ValueError(f"a size of {size} bytes is negative")
    args = vol_args(f"{devid}:{'max' if size is None else size}")
    _check(fcntl.ioctl(fd, IOC_RESIZE, args))


def add_device(fd: int, path: str | bytes | os.PathLike[str]) -> None:
    """Add a device, which loses what is on it. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        path: The device.

    Raises:
        BtrfsError: Another change of the devices, or a balance, is running.
        OSError: EEXIST if it belongs to a mounted filesystem already, EBUSY if it is in use.
        ValueError: The path is too long or has a NUL in it.
    """
    _check(fcntl.ioctl(fd, IOC_ADD_DEV, vol_args(path)))


def remove_device(fd: int, device: int | str | bytes | os.PathLike[str]) -> None:
    """Remove a device, after moving what is on it to the others. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        device: Its number, its path, or ``missing`` for the first that is missing.

    Raises:
        BtrfsError: Too few devices would be left, or another change of them is running.
        OSError: ENOENT if there is no such device, ENOSPC if the others have no room.
        ValueError: The path is too long or has a NUL in it.
    """
    if isinstance(device, int):
        args = vol_args_v2(number=device, flags=DEVICE_SPEC_BY_ID)
    else:
        args = vol_args_v2(device)
    _check(fcntl.ioctl(fd, IOC_RM_DEV_V2, args))


def _check(code: int) -> None:
    if code:
        raise BtrfsError(_DEVICE_ERRORS.get(code, f"the kernel refused with code {code}"))


def scan_device(path: str | bytes | os.PathLike[str]) -> None:
    """Announce a member of a btrfs to the kernel, for mounts to come.

    Needs the right to open /dev/btrfs-control.

    Raises:
        OSError: EINVAL if there is no btrfs on it, ENOENT if there is no such device.
        ValueError: The path is too long or has a NUL in it.
    """
    _control(IOC_SCAN_DEV, path)


def forget_device(path: str | bytes | os.PathLike[str] = b"") -> None:
    """Let the kernel forget a device that is not mounted, or all of them.

    Needs the right to open /dev/btrfs-control.

    Raises:
        OSError: EBUSY if it is mounted.
        ValueError: The path is too long or has a NUL in it.
    """
    _control(IOC_FORGET_DEV, path)


def devices_ready(path: str | bytes | os.PathLike[str]) -> bool:
    """Return whether the kernel knows all devices of the filesystem that a device is member of.

    It announces this one to the kernel, too. Needs the right to open /dev/btrfs-control.

    Raises:
        OSError: EINVAL if there is no btrfs on it, ENOENT if there is no such device.
        ValueError: The path is too long or has a NUL in it.
    """
    return _control(IOC_DEVICES_READY, path) == 0


def _control(request: int, path: str | bytes | os.PathLike[str]) -> int:
    args = vol_args(path)
    fd = os.open(CONTROL_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        return int(fcntl.ioctl(fd, request, args))
    finally:
        os.close(fd)


def dev_replace_status(fd: int) -> DevReplaceStatus:
    """Return how far the replacement of a device is, or how the last one ended.

    Needs CAP_SYS_ADMIN.
    """
    return DevReplaceStatus(_dev_replace(fd, _DEV_REPLACE_CMD_STATUS))


def dev_replace_start(
    fd: int,
    source: int | str | bytes | os.PathLike[str],
    target: str | bytes | os.PathLike[str],
    avoid_source: bool = False,
) -> None:
    """Copy a device to another, which then takes its place. Needs CAP_SYS_ADMIN.

    It returns when that is done, which may take hours.

    Args:
        fd: File descriptor.
        source: Number or path of the device to be replaced.
        target: Path of the one to take its place; at least as large, and it loses what is on it.
        avoid_source: Read from other copies wherever there are any.

    Raises:
        BtrfsError: A replacement or scrub is running already.
        OSError: EINVAL if the target is too small, ECANCELED if it was cancelled.
        ValueError: A path is too long or has a NUL in it.
    """
    devid, path = (source, b"") if isinstance(source, int) else (0, source)
    parameters = _DEV_REPLACE_START.pack(
        devid,
        avoid_source,
        name_field(path, DEVICE_PATH_NAME_MAX),
        name_field(target, DEVICE_PATH_NAME_MAX),
    )
    _dev_replace(fd, _DEV_REPLACE_CMD_START, parameters)


def dev_replace_cancel(fd: int) -> None:
    """Cancel the replacement that is running. Needs CAP_SYS_ADMIN.

    Raises:
        BtrfsError: None is running.
    """
    _dev_replace(fd, _DEV_REPLACE_CMD_CANCEL)


def _dev_replace(fd: int, command: int, parameters: bytes = b"") -> Bytes:
    args = bytearray(_DEV_REPLACE_ARGS.pack(command, ULLONG_MAX, parameters))
    fcntl.ioctl(fd, IOC_DEV_REPLACE, args)
    _, result, returned = _DEV_REPLACE_ARGS.unpack(args)
    # A kernel without a result leaves the field as it was.
    if result not in (0, ULLONG_MAX):
        raise BtrfsError(
            _DEV_REPLACE_ERRORS.get(result, f"the kernel refused with result {result}")
        )
    return bytes(returned)
