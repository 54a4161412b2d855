"""Scrub: read all copies of everything on a device, and repair what is wrong from good ones.

Each device has a scrub of its own. :func:`scrub` returns when it has ended; meanwhile, from another
thread or process, :func:`scrub_progress` returns how far it is, and :func:`scrub_cancel` ends it.
"""

import fcntl
import struct

from btrfs.ioctl.numbers import NONE, READ, WRITE, ioc
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.fields import u64
from btrfs.ondisk.printing import as_size
from btrfs.ondisk.struct import Struct

__all__ = [
    "IOC_SCRUB",
    "IOC_SCRUB_CANCEL",
    "IOC_SCRUB_PROGRESS",
    "SCRUB_READONLY",
    "ScrubProgress",
    "scrub",
    "scrub_cancel",
    "scrub_progress",
]

SCRUB_READONLY = 1 << 0


class ScrubProgress(
    Struct,
    line=(
        "scrub data {data_bytes_scrubbed_str} tree {tree_bytes_scrubbed_str} "
        "last_physical {last_physical} read_errors {read_errors} csum_errors {csum_errors} "
        "verify_errors {verify_errors} super_errors {super_errors} "
        "corrected {corrected_errors} uncorrectable {uncorrectable_errors}"
    ),
    module="btrfs.ioctl",
):
    """How far a scrub of a device is, and what it has found (struct btrfs_scrub_progress).

    Attributes:
        data_extents_scrubbed: Extents of data read.
        tree_extents_scrubbed: Tree blocks read.
        data_bytes_scrubbed: Bytes of data read.
        tree_bytes_scrubbed: Bytes of tree blocks read.
        read_errors: Reads that failed.
        csum_errors: Wrong checksums.
        verify_errors: Tree blocks that have a right checksum, and a wrong header.
        no_csum: Blocks of data without a checksum.
        csum_discards: Checksums without data.
        super_errors: Bad superblocks.
        malloc_errors: Times that the kernel had no memory.
        uncorrectable_errors: Errors that no copy could mend.
        corrected_errors: Errors that a copy mended, or could have if not read-only.
        last_physical: Address on the device up to which it has come.
        unverified_errors: Errors that were gone at the second reading.
    """

    data_extents_scrubbed: u64
    tree_extents_scrubbed: u64
    data_bytes_scrubbed: u64
    data_bytes_scrubbed_str = as_size()
    tree_bytes_scrubbed: u64
    tree_bytes_scrubbed_str = as_size()
    read_errors: u64
    csum_errors: u64
    verify_errors: u64
    no_csum: u64
    csum_discards: u64
    super_errors: u64
    malloc_errors: u64
    uncorrectable_errors: u64
    corrected_errors: u64
    last_physical: u64
    unverified_errors: u64


# struct btrfs_ioctl_scrub_args: devid, start, end, flags, progress, and zeros up to 1 KiB.
_SCRUB_ARGS = struct.Struct("<QQQQ992x")
_PROGRESS_OFFSET = 32

IOC_SCRUB = ioc(READ | WRITE, 27, _SCRUB_ARGS.size)
IOC_SCRUB_CANCEL = ioc(NONE, 28, 0)
IOC_SCRUB_PROGRESS = ioc(READ | WRITE, 29, _SCRUB_ARGS.size)


def scrub(
    fd: int, devid: int, start: int = 0, end: int = ULLONG_MAX, read_only: bool = False
) -> ScrubProgress:
    """Scrub a device, and return what was found. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        devid: Number of the device.
        start: Address on it to begin at, for instance ``last_physical`` of a cancelled scrub.
        end: Address on it to stop at.
        read_only: Only look, repair nothing.

    Raises:
        OSError: EINPROGRESS if one is running on this device, ENODEV if there is no such device,
            ECANCELED if it was cancelled.
    """
    flags = SCRUB_READONLY if read_only else 0
    args = bytearray(_SCRUB_ARGS.pack(devid, start, end, flags))
    fcntl.ioctl(fd, IOC_SCRUB, args)
    return ScrubProgress(args, _PROGRESS_OFFSET)


def scrub_progress(fd: int, devid: int) -> ScrubProgress:
    """Return how far the scrub of a device is. Needs CAP_SYS_ADMIN.

    Raises:
        OSError: ENOTCONN if none is running, ENODEV if there is no such device.
    """
    args = bytearray(_SCRUB_ARGS.pack(devid, 0, 0, 0))
    fcntl.ioctl(fd, IOC_SCRUB_PROGRESS, args)
    return ScrubProgress(args, _PROGRESS_OFFSET)


def scrub_cancel(fd: int) -> None:
    """Cancel the scrubs of all devices, and wait until they have ended. Needs CAP_SYS_ADMIN.

    Raises:
        OSError: ENOTCONN if none is running.
    """
    fcntl.ioctl(fd, IOC_SCRUB_CANCEL)
