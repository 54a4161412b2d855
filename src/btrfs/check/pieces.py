"""Pieces of files: file extent items as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import take
from btrfs.ondisk.items.file_extent import FileExtentItem

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["Pieces", "pieces_of_files"]


class Pieces(NamedTuple):
    """Pieces of files. An entry per file extent item.

    Attributes:
        item: Index of the item in its batch.
        inum: Inode number of the file, uint64.
        position: Where in the file the piece begins, uint64.
        num_bytes: Bytes of the piece, uint64.
        kind: FILE_EXTENT_INLINE, FILE_EXTENT_REG or FILE_EXTENT_PREALLOC, uint8.
        compression: Type of the compression, uint8.
        vaddr: Virtual address of the extent, 0 of holes and of what lies in the leaf, uint64.
        disk_num_bytes: Bytes of the extent, uint64.
        offset: Where in the decompressed extent the piece begins, uint64.
    """

    item: NDArray[np.intp]
    inum: NDArray[np.uint64]
    position: NDArray[np.uint64]
    num_bytes: NDArray[np.uint64]
    kind: NDArray[np.uint8]
    compression: NDArray[np.uint8]
    vaddr: NDArray[np.uint64]
    disk_num_bytes: NDArray[np.uint64]
    offset: NDArray[np.uint64]

    def select(self, chosen: NDArray[Any]) -> Pieces:
        """Return those that a mask or an array of indexes chooses."""
        columns: Any = (column[chosen] for column in self)
        return Pieces(*columns)

    def among(self, items: NDArray[np.bool_]) -> Pieces:
        """Return those in some items of the batch, with their indexes among these."""
        chosen = self.select(items[self.item])
        return chosen._replace(item=(np.cumsum(items) - 1)[chosen.item])

    @property
    def is_inline(self) -> NDArray[np.bool_]:
        """Which have their data in the leaf."""
        return np.asarray(self.kind == constants.FILE_EXTENT_INLINE)

    def on_disk(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return which part of its extent each needs: virtual addresses of begin and end."""
        # What is compressed is read as a whole.
        is_compressed = self.compression != constants.COMPRESS_NONE
        start = np.where(is_compressed, self.vaddr, self.vaddr + self.offset)
        return start, start + np.where(is_compressed, self.disk_num_bytes, self.num_bytes)


def pieces_of_files(batch: ItemBatch) -> Pieces:
    """Return the pieces of files among items; items that are too short are left out."""
    item = np.flatnonzero(batch.type == constants.EXTENT_DATA_KEY)
    item = item[batch.size[item] >= FileExtentItem.layout.shortest]
    kind = take(batch.buffer, "u1", batch.body[item] + _at("type"))
    is_inline = kind == constants.FILE_EXTENT_INLINE
    is_whole = is_inline | (batch.size[item] >= FileExtentItem.struct_size)
    item, kind, is_inline = item[is_whole], kind[is_whole], is_inline[is_whole]
    body = batch.body[item]
    extents = np.flatnonzero(~is_inline)
    structs = take(batch.buffer, FileExtentItem.dtype, body[extents])
    columns = []
    for name in ("num_bytes", "disk_bytenr", "disk_num_bytes", "offset"):
        column = np.zeros(len(item), np.uint64)
        column[extents] = structs[name]
        columns.append(column)
    num_bytes, vaddr, disk_num_bytes, offset = columns
    inline = np.flatnonzero(is_inline)
    num_bytes[inline] = take(batch.buffer, "<u8", body[inline] + _at("ram_bytes"))
    return Pieces(
        item,
        batch.objectid[item],
        batch.offset[item],
        num_bytes,
        kind,
        take(batch.buffer, "u1", body + _at("compression")),
        *(vaddr, disk_num_bytes, offset),
    )


def _at(name: str) -> int:
    assert FileExtentItem.dtype.fields is not None
    return int(FileExtentItem.dtype.fields[name][1])
