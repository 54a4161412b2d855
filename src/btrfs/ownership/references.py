"""What leaves say of files, as columns: which pieces of which extents they have.

A leaf that snapshots share is read once, so a row stands for the same piece in all subvolumes that
reach the leaf.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.items.file_extent import FileExtentItem

__all__ = ["PREALLOCATED", "InlineRows", "ReferenceRows", "reference_rows"]

_STRUCT = FileExtentItem.dtype
_INLINE_HEADER_SIZE = FileExtentItem.layout.shortest

PREALLOCATED = 0x80
"""Set in the column 'kind' of a piece that is reserved, but not written."""


class ReferenceRows(NamedTuple):
    """Pieces of files that lie in extents: file extent items. An entry per piece.

    Attributes:
        extent: Virtual address of the extent, uint64.
        disk_num_bytes: Bytes of the extent, uint32: no kernel makes one of a GiB or more.
        ram_bytes: Bytes of the extent when it is decompressed, uint32.
        offset: Where in the decompressed extent the piece begins, uint32.
        num_bytes: Bytes of the piece, uint32.
        kind: Type of the compression, and PREALLOCATED if it is, uint8.
        inum: Inode number of the file, uint64.
        position: Where in the file the piece begins, uint64.
        leaf: Number of the leaf, uint32.
    """

    extent: NDArray[np.uint64]
    disk_num_bytes: NDArray[np.uint32]
    ram_bytes: NDArray[np.uint32]
    offset: NDArray[np.uint32]
    num_bytes: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    inum: NDArray[np.uint64]
    position: NDArray[np.uint64]
    leaf: NDArray[np.uint32]


class InlineRows(NamedTuple):
    """Pieces of files that lie in the leaf itself. An entry per piece.

    Attributes:
        num_bytes: Bytes in the leaf, uint32.
        ram_bytes: Bytes when they are decompressed, uint32.
        kind: Type of the compression, uint8.
        inum: Inode number of the file, uint64.
        leaf: Number of the leaf, uint32.
    """

    num_bytes: NDArray[np.uint32]
    ram_bytes: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    inum: NDArray[np.uint64]
    leaf: NDArray[np.uint32]


def reference_rows(
    batch: ItemBatch, leaf: NDArray[np.uint32]
) -> tuple[ReferenceRows, InlineRows, NDArray[np.intp]]:
    """Return the pieces of files that items describe; holes are left out.

    Args:
        batch: Items of leaves.
        leaf: Number of the leaf of each.

    Returns:
        Pieces in extents; pieces in leaves; and the indexes of file extent items that are left out,
        since they cannot be right: they are too short, or longer than any extent.
    """
    index = np.flatnonzero(batch.type == constants.EXTENT_DATA_KEY)
    size = batch.size[index]
    short = index[size < _INLINE_HEADER_SIZE]
    if len(short):
        size, index = size[size >= _INLINE_HEADER_SIZE], np.setdiff1d(index, short)
    kind = _field(batch, index, "type")
    is_inline = kind == constants.FILE_EXTENT_INLINE
    is_whole = size >= _STRUCT.itemsize
    inline, bad = index[is_inline], index[~is_inline & ~is_whole]
    chosen = ~is_inline & is_whole
    extent = _field(batch, index[chosen], "disk_bytenr")
    # What is no inline extent and not at an address is a hole.
    chosen[chosen] = extent != 0
    regular, extent = index[chosen], extent[extent != 0]
    sizes = [_field(batch, regular, name) for name in _SIZES]
    is_too_long = np.bitwise_or.reduce(sizes) >= _TOO_LONG
    disk_num_bytes, ram_bytes, offset, num_bytes = (one.astype(np.uint32) for one in sizes)
    kind = _field(batch, regular, "compression")
    kind[_field(batch, regular, "type") == constants.FILE_EXTENT_PREALLOC] |= PREALLOCATED
    rows = ReferenceRows(
        *(extent, disk_num_bytes, ram_bytes, offset, num_bytes, kind),
        batch.objectid[regular],
        batch.offset[regular],
        leaf[regular],
    )
    if is_too_long.any():
        bad = np.concatenate([bad, regular[is_too_long]])
        rows = ReferenceRows(*(column[~is_too_long] for column in rows))
    return rows, _inline_rows(batch, inline, leaf[inline]), np.concatenate([short, bad])


_SIZES = ("disk_num_bytes", "ram_bytes", "offset", "num_bytes")

_TOO_LONG = 1 << 32


def _inline_rows(batch: ItemBatch, index: NDArray[np.intp], leaf: NDArray[np.uint32]) -> InlineRows:
    return InlineRows(
        batch.size[index] - np.uint32(_INLINE_HEADER_SIZE),
        np.minimum(_field(batch, index, "ram_bytes"), _TOO_LONG - 1).astype(np.uint32),
        _field(batch, index, "compression"),
        batch.objectid[index],
        leaf,
    )


def _field(batch: ItemBatch, index: NDArray[np.intp], name: str) -> NDArray[Any]:
    """Return one field of the struct in some bodies, which must be long enough."""
    assert _STRUCT.fields is not None
    dtype, at, *_ = _STRUCT.fields[name]
    return take(batch.buffer, dtype, batch.body[index] + at)
