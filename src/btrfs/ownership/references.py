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
) -> tuple[ReferenceRows, InlineRows, NDArray[np.bool_]]:
    """Return the pieces of files that items describe; holes are left out.

    Args:
        batch: File extent items.
        leaf: Number of the leaf of each.

    Returns:
        Pieces in extents; pieces in leaves; and of each item, whether it can be right. Those that
        cannot be are left out: they are too short, or longer than any extent.
    """
    usable = batch.size >= _INLINE_HEADER_SIZE
    is_inline = np.zeros(len(batch), np.bool_)
    is_inline[usable] = _field(batch.select(usable), "type") == constants.FILE_EXTENT_INLINE
    usable &= is_inline | (batch.size >= FileExtentItem.struct_size)
    inline = _inline_rows(batch.select(is_inline), leaf[is_inline])
    chosen = np.flatnonzero(usable & ~is_inline)
    regular = batch.select(chosen)
    structs = take(batch.buffer, _STRUCT, regular.body)
    fits = np.ones(len(chosen), np.bool_)
    for name in ("disk_num_bytes", "ram_bytes", "offset", "num_bytes"):
        fits &= structs[name] < _TOO_LONG
    is_hole = structs["disk_bytenr"] == 0
    usable[chosen[~(fits | is_hole)]] = False
    kept = np.flatnonzero(fits & ~is_hole)
    structs, regular = structs[kept], regular.select(kept)
    kind = np.ascontiguousarray(structs["compression"])
    kind[structs["type"] == constants.FILE_EXTENT_PREALLOC] |= PREALLOCATED
    rows = ReferenceRows(
        np.ascontiguousarray(structs["disk_bytenr"]),
        structs["disk_num_bytes"].astype(np.uint32),
        structs["ram_bytes"].astype(np.uint32),
        structs["offset"].astype(np.uint32),
        structs["num_bytes"].astype(np.uint32),
        kind,
        regular.objectid,
        regular.offset,
        leaf[chosen[kept]],
    )
    return rows, inline, usable


_TOO_LONG = 1 << 32


def _inline_rows(batch: ItemBatch, leaf: NDArray[np.uint32]) -> InlineRows:
    return InlineRows(
        batch.size - np.uint32(_INLINE_HEADER_SIZE),
        np.minimum(_field(batch, "ram_bytes"), _TOO_LONG - 1).astype(np.uint32),
        _field(batch, "compression"),
        batch.objectid,
        leaf,
    )


def _field(batch: ItemBatch, name: str) -> NDArray[Any]:
    """Return one field of the struct in each body; it is not checked that they are long enough."""
    assert _STRUCT.fields is not None
    dtype, at, *_ = _STRUCT.fields[name]
    return take(batch.buffer, dtype, batch.body + at)
