"""Ranges of files: sharing extents that hold the same, writing fragmented ones anew, mapping them.

Deduplication and FIEMAP are not of btrfs alone: they belong to the kernel's layer for all
filesystems.
"""

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from typing import Annotated

from btrfs.ioctl.numbers import READ, WRITE, ioc
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.fields import Stored, hidden, s64, u32, u64
from btrfs.ondisk.printing import as_flags, as_size, printed
from btrfs.ondisk.struct import Struct

__all__ = [
    "DEFRAG_RANGE_COMPRESS",
    "DEFRAG_RANGE_START_IO",
    "FIDEDUPERANGE",
    "FIEMAP_EXTENT_FLAG_NAMES",
    "FIEMAP_FLAG_CACHE",
    "FIEMAP_FLAG_SYNC",
    "FIEMAP_FLAG_XATTR",
    "FILE_DEDUPE_RANGE_DIFFERS",
    "FILE_DEDUPE_RANGE_SAME",
    "FS_IOC_FIEMAP",
    "IOC_DEFRAG_RANGE",
    "FiemapExtent",
    "FileDedupeRangeInfo",
    "defrag_range",
    "fideduperange",
    "fiemap",
]

FILE_DEDUPE_RANGE_SAME = 0
FILE_DEDUPE_RANGE_DIFFERS = 1

DEFRAG_RANGE_COMPRESS = 1 << 0
DEFRAG_RANGE_START_IO = 1 << 1

FIEMAP_FLAG_SYNC = 1 << 0
FIEMAP_FLAG_XATTR = 1 << 1
FIEMAP_FLAG_CACHE = 1 << 2

FIEMAP_EXTENT_FLAG_NAMES = {
    1 << 0: "LAST",
    1 << 1: "UNKNOWN",
    1 << 2: "DELALLOC",
    1 << 3: "ENCODED",
    1 << 7: "DATA_ENCRYPTED",
    1 << 8: "NOT_ALIGNED",
    1 << 9: "DATA_INLINE",
    1 << 10: "DATA_TAIL",
    1 << 11: "UNWRITTEN",
    1 << 12: "MERGED",
    1 << 13: "SHARED",
}
_FIEMAP_EXTENT_LAST = 1 << 0

_DEDUPE_RANGE = struct.Struct("<QQH6x")
_DEDUPE_RANGE_INFO = struct.Struct("<qQQi4x")
_DEFRAG_RANGE_ARGS = struct.Struct("<QQQII16x")
_FIEMAP = struct.Struct("<QQIIII")

FIDEDUPERANGE = ioc(READ | WRITE, 54, _DEDUPE_RANGE.size)
IOC_DEFRAG_RANGE = ioc(WRITE, 16, _DEFRAG_RANGE_ARGS.size)
FS_IOC_FIEMAP = ioc(READ | WRITE, 11, _FIEMAP.size, magic=ord("f"))


def _dedupe_status_str(status: int | None) -> str:
    if status is None:
        return "none"
    if status == FILE_DEDUPE_RANGE_SAME:
        return "RANGE_SAME"
    if status == FILE_DEDUPE_RANGE_DIFFERS:
        return "RANGE_DIFFERS"
    return f"ERROR {status}: {os.strerror(-status)}"


class FileDedupeRangeInfo(
    Struct,
    line=(
        "dest_fd {dest_fd} dest_offset {dest_offset} bytes_deduped {bytes_deduped} "
        "status {status_str}"
    ),
    module="btrfs.ioctl",
):
    """A range of a file that shall share the extents of another (struct file_dedupe_range_info).

    Args:
        dest_fd: File descriptor of the file.
        dest_offset: Where in it the range begins, in bytes.

    Attributes:
        dest_fd: The same.
        dest_offset: The same.
        bytes_deduped: How many bytes are shared now.
        status: FILE_DEDUPE_RANGE_SAME, FILE_DEDUPE_RANGE_DIFFERS, or an errno below zero; None
            until it was tried.
    """

    dest_fd: s64
    dest_offset: u64
    bytes_deduped: u64
    status: Annotated[int | None, Stored("i", "<i4")]
    status_str = printed(_dedupe_status_str)
    reserved: u32 = hidden()

    def __init__(self, dest_fd: int, dest_offset: int) -> None:
        self.dest_fd = dest_fd
        self.dest_offset = dest_offset
        self.bytes_deduped = 0
        self.status = None


def fideduperange(
    fd: int, src_offset: int, src_length: int, range_infos: Sequence[FileDedupeRangeInfo]
) -> None:
    """Let ranges of files share the extents of another range, as far as they hold the same.

    What came of it is in the FileDedupeRangeInfo objects: ``bytes_deduped`` and ``status``.

    Args:
        fd: File descriptor of the file whose extents are to be shared.
        src_offset: Where in it the range begins, in bytes.
        src_length: Bytes of the range.
        range_infos: The other ranges, 127 at most with pages of 4 KiB.

    Raises:
        OSError: EINVAL if the range is not aligned to blocks or goes beyond the end of the file;
            ENOMEM if there are too many other ranges.
    """
    args = bytearray(_DEDUPE_RANGE.size + len(range_infos) * _DEDUPE_RANGE_INFO.size)
    _DEDUPE_RANGE.pack_into(args, 0, src_offset, src_length, len(range_infos))
    positions = range(_DEDUPE_RANGE.size, len(args), _DEDUPE_RANGE_INFO.size)
    for info, position in zip(range_infos, positions, strict=True):
        _DEDUPE_RANGE_INFO.pack_into(args, position, info.dest_fd, info.dest_offset, 0, 0)
    fcntl.ioctl(fd, FIDEDUPERANGE, args)
    for info, position in zip(range_infos, positions, strict=True):
        _, _, info.bytes_deduped, info.status = _DEDUPE_RANGE_INFO.unpack_from(args, position)


def defrag_range(
    fd: int,
    start: int = 0,
    length: int = ULLONG_MAX,
    flags: int = 0,
    extent_thresh: int = 0,
    compress_type: int = 0,
) -> None:
    """Mark a range of a file for being written anew in larger extents.

    Extents that other files share are no longer shared afterwards.

    Args:
        fd: File descriptor of the file, open for writing, or of a directory, of which then
            only the entries in the trees are concerned.
        start: Where the range begins, in bytes.
        length: Bytes of the range.
        flags: DEFRAG_RANGE_COMPRESS to compress, DEFRAG_RANGE_START_IO to begin writing at once.
        extent_thresh: Leave extents alone that have at least so many bytes; 0 for the kernel's
            choice, which is 256 KiB.
        compress_type: With DEFRAG_RANGE_COMPRESS: 1 zlib, 2 lzo, 3 zstd.

    Raises:
        OSError: EROFS if the subvolume is read-only, EINVAL if an argument is wrong.
    """
    args = _DEFRAG_RANGE_ARGS.pack(start, length, flags, extent_thresh, compress_type)
    fcntl.ioctl(fd, IOC_DEFRAG_RANGE, args)


class FiemapExtent(
    Struct,
    line="extent logical {logical} vaddr {vaddr} length {length} flags {flags_str}",
    module="btrfs.ioctl",
):
    """A piece of a file (struct fiemap_extent).

    Attributes:
        logical: Where in the file it begins, in bytes.
        vaddr: Virtual address of its data (fe_physical); 0 if that is inline.
        length: Bytes in the file.
        flags: FIEMAP_EXTENT_LAST, _SHARED and the like, see FIEMAP_EXTENT_FLAG_NAMES.
    """

    logical: u64
    vaddr: u64
    length: u64
    length_str = as_size()
    reserved64: Annotated[bytes, Stored("16s", "V16")] = hidden()
    flags: u32
    flags_str = as_flags(FIEMAP_EXTENT_FLAG_NAMES)
    reserved: Annotated[bytes, Stored("12s", "V12")] = hidden()


def fiemap(
    fd: int, start: int = 0, length: int = ULLONG_MAX, flags: int = 0, count: int = 512
) -> Iterator[FiemapExtent]:
    """Yield the pieces that a file is made of, holes left out. Needs no privilege.

    Args:
        fd: File descriptor of the file.
        start: Where in the file to begin, in bytes.
        length: Bytes of the range to look at.
        flags: FIEMAP_FLAG_SYNC to write out first what is only in memory.
        count: How many pieces to ask the kernel for at a time.

    Raises:
        OSError: EBADR if the flags are not known.
        ValueError: The count is less than one.
    """
    if count < 1:
        raise ValueError(f"count {count} is less than one")
    end = min(start + length, ULLONG_MAX)
    while start < end:
        args = bytearray(_FIEMAP.size + count * FiemapExtent.struct_size)
        _FIEMAP.pack_into(args, 0, start, end - start, flags, 0, count, 0)
        fcntl.ioctl(fd, FS_IOC_FIEMAP, args)
        mapped = _FIEMAP.unpack_from(args)[3]
        for index in range(mapped):
            extent = FiemapExtent(args, _FIEMAP.size + index * FiemapExtent.struct_size)
            yield extent
        if mapped == 0 or extent.flags & _FIEMAP_EXTENT_LAST:
            return
        start = extent.logical + extent.length
