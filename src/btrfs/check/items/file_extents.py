"""File extents: which piece of a file lies in which extent."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrfs.check.items.base import Items, Mask, is_wrong_inum
from btrfs.ondisk import constants
from btrfs.ondisk.items.file_extent import FileExtentItem

__all__ = ["check_file_extents"]

_WHOLE = FileExtentItem.dtype
# What inline extents begin with, too.
_HEADER = np.dtype(
    [
        ("generation", "<u8"),
        ("ram_bytes", "<u8"),
        ("compression", "u1"),
        ("encryption", "u1"),
        ("other_encoding", "<u2"),
        ("type", "u1"),
    ]
)
_INLINE_HEADER_SIZE = _HEADER.itemsize
_MAX_COMPRESSED = 128 << 10
_MAX_FILE = np.uint64(constants.MAX_ADDRESS)


def check_file_extents(items: Items) -> None:
    """Check the EXTENT_DATA of files."""
    items.wrong(is_wrong_inum(items.objectid), "its key is not that of an inode")
    items.aligned(items.offset, "place in the file")
    items = items.at_least(_INLINE_HEADER_SIZE)
    generation, compression, encryption, other_encoding, kind = items.fields(
        _HEADER, "generation", "compression", "encryption", "other_encoding", "type"
    )
    items.wrong(
        kind > constants.FILE_EXTENT_PREALLOC,
        "its type is not known",
        expected="0 to 2",
        found=kind,
    )
    items.wrong(
        compression > constants.COMPRESS_ZSTD,
        "its compression is not known",
        expected=f"0 to {constants.COMPRESS_ZSTD}",
        found=compression,
    )
    items.equal(encryption, 0, "encryption")
    items.equal(other_encoding, 0, "other_encoding")
    items.not_future(generation, "generation")
    end = np.empty(len(items), np.uint64)
    is_inline = kind == constants.FILE_EXTENT_INLINE
    some = np.flatnonzero(is_inline)
    end[some] = _check_inline(items.select(some), compression[some])
    some = np.flatnonzero(~is_inline)
    end[some] = _check_regular(items.select(some), kind[some], compression[some])
    _check_overlaps(items, end)


def _check_inline(items: Items, compression: NDArray[Any]) -> NDArray[np.uint64]:
    """Check extents whose content is in the item; return where in the file they end."""
    ram_bytes = items.field(FileExtentItem, "ram_bytes")
    items.wrong(items.offset != 0, "an inline extent that is not at the beginning of the file")
    stored = items.batch.size - np.uint32(_INLINE_HEADER_SIZE)
    is_plain = compression == constants.COMPRESS_NONE
    items.wrong(
        is_plain & (ram_bytes != stored),
        "its size is wrong",
        expected=ram_bytes + np.uint64(_INLINE_HEADER_SIZE),
        found=items.batch.size,
    )
    # What is compressed is read into one sector.
    items.wrong(
        ~is_plain & ((ram_bytes > items.fs.sectorsize) | (stored == 0)),
        "it cannot hold so many bytes",
        expected=f"{items.fs.sectorsize} or less",
        found=ram_bytes,
    )
    sector = np.uint64(items.fs.sectorsize - 1)
    return np.asarray((items.offset + ram_bytes + sector) & ~sector)


def _check_regular(
    items: Items, kind: NDArray[Any], compression: NDArray[Any]
) -> NDArray[np.uint64]:
    """Check extents on the devices, and holes; return where in the file they end."""
    is_whole = items.batch.size == FileExtentItem.struct_size
    if not is_whole.all():
        whole = np.flatnonzero(is_whole)
        items.sized(FileExtentItem.struct_size)
        end = items.offset.copy()
        end[whole] = _check_regular(items.select(whole), kind[whole], compression[whole])
        return end
    disk_bytenr, disk_num_bytes, offset, num_bytes, ram_bytes = items.fields(
        _WHOLE, "disk_bytenr", "disk_num_bytes", "offset", "num_bytes", "ram_bytes"
    )
    _check_aligned(
        items,
        disk_bytenr=disk_bytenr,
        disk_num_bytes=disk_num_bytes,
        offset=offset,
        num_bytes=num_bytes,
        ram_bytes=ram_bytes,
    )
    items.wrong(num_bytes == 0, "a piece without bytes")
    end = items.offset + num_bytes
    items.wrong(
        (end > _MAX_FILE) | (end < num_bytes), "it lies behind the end of all files", found=end
    )
    is_hole = disk_bytenr == 0
    is_plain = compression == constants.COMPRESS_NONE
    items.wrong(
        _reaches(offset, num_bytes, ram_bytes),
        "more bytes than its extent has",
        expected=ram_bytes,
        found=offset + num_bytes,
    )
    items.wrong(
        is_plain & ~is_hole & _reaches(offset, num_bytes, disk_num_bytes),
        "more bytes than its extent has on disk",
        expected=disk_num_bytes,
        found=offset + num_bytes,
    )
    items.wrong(
        (disk_bytenr >= _MAX_FILE) | _reaches(disk_bytenr, disk_num_bytes, _MAX_FILE),
        "its extent is at no possible address",
        found=disk_bytenr,
    )
    items.wrong(~is_hole & (disk_num_bytes == 0), "an extent without bytes")
    _check_compressed(items, kind, ~is_plain, is_hole, np.maximum(ram_bytes, disk_num_bytes))
    return np.asarray(end)


def _check_aligned(items: Items, **columns: NDArray[np.uint64]) -> None:
    """Note what is not a multiple of the size of a sector: nearly always all together is one."""
    if items.odd(np.bitwise_or.reduce(list(columns.values()))).any():
        for name, values in columns.items():
            items.aligned(values, name)


def _check_compressed(
    items: Items,
    kind: NDArray[Any],
    is_compressed: Mask,
    is_hole: Mask,
    size: NDArray[np.uint64],
) -> None:
    if not is_compressed.any():
        return
    items.wrong(
        is_compressed & (kind == constants.FILE_EXTENT_PREALLOC),
        "compressed, though nothing has been written to it",
    )
    items.wrong(
        is_compressed & ~is_hole & (size > _MAX_COMPRESSED),
        "too many bytes are compressed as one",
        expected=f"{_MAX_COMPRESSED} or less",
        found=size,
    )


def _reaches(begin: NDArray[np.uint64], size: NDArray[np.uint64], end: Any) -> Mask:
    """Return where a range goes beyond an end, or beyond all numbers."""
    last = begin + size
    return np.asarray((last > end) | (last < begin))


def _check_overlaps(items: Items, end: NDArray[np.uint64]) -> None:
    """Check that pieces of files do not overlap the one before, if that is in the same leaf."""
    overlaps = np.zeros(len(items), np.bool_)
    overlaps[1:] = end[:-1] > items.offset[1:]
    overlaps[1:] &= items.objectid[1:] == items.objectid[:-1]
    overlaps[1:] &= items.leaf[1:] == items.leaf[:-1]
    items.wrong(overlaps, "overlaps the piece of the file before it")
