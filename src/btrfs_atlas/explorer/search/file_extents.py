"""What files use: file extent items, summed up in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.items.file_extent import FileExtentItem
from btrfs.ondisk.key import Key
from btrfs_atlas.explorer.search.step_reader import MAX_EXTENTS, StepReader

if TYPE_CHECKING:
    from btrfs.ondisk.columns import Columns, ItemBatch

__all__ = ["FileExtentSummary"]

Addresses = NDArray[np.int64]


class FileExtentSummary:
    """What a number of file extent items refer to, summed up.

    Attributes:
        size: Bytes of the file, if it is one.
        first: Virtual address of the first extent that was met.
        items: How many refer to extents on disk.
        prealloc_bytes: How many bytes of files these only reserve.
        filled: How many bytes before the end of the file these fill.
        inline: How many hold the content themselves.
        inline_bytes: Bytes of content in these.
        truncated: Whether there may be more.
    """

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.first: int | None = None
        self.items = 0
        self.prealloc_bytes = 0
        self.filled = 0
        self.inline = 0
        self.inline_bytes = 0
        self.truncated = False
        self._vaddr = [_NONE]
        self._length = [_NONE]
        self._kept = 0

    @property
    def extents(self) -> tuple[Addresses, Addresses]:
        """Virtual addresses and lengths of the extents, ascending, each once."""
        vaddr, length = _each_once(np.concatenate(self._vaddr), np.concatenate(self._length))
        self._vaddr, self._length, self._kept = [vaddr], [length], vaddr.size
        return vaddr, length

    def read(self, reader: StepReader, tree: int, first: Key, last: Key) -> None:
        """Read the file extents between two keys, as far as the limits allow."""
        for batch in reader.batches(tree, first, last):
            self._add(_file_extents(batch))
            # To sort them after each batch would take long; there is memory for some more.
            if self._kept > 2 * MAX_EXTENTS and self.extents[0].size > MAX_EXTENTS:
                break
        vaddr, length = self.extents
        self.truncated = reader.is_late or vaddr.size > MAX_EXTENTS
        self._vaddr, self._length = [vaddr[:MAX_EXTENTS]], [length[:MAX_EXTENTS]]

    def _add(self, columns: Columns) -> None:
        inline = columns["type"] == constants.FILE_EXTENT_INLINE
        self.inline += int(inline.sum())
        self.inline_bytes += int(columns["ram_bytes"][inline].sum())
        on_disk = ~inline & (columns["disk_bytenr"] > 0)
        # No number of a healthy filesystem is larger, and none that is less overflows.
        vaddr, length, start, size = (
            np.minimum(columns[name][on_disk], 1 << 61).astype(np.int64)
            for name in ("disk_bytenr", "disk_num_bytes", "logical_offset", "num_bytes")
        )
        if not vaddr.size:
            return
        prealloc = columns["type"][on_disk] == constants.FILE_EXTENT_PREALLOC
        self.prealloc_bytes += int(size[prealloc].sum())
        ends = np.minimum(start + size, self.size)
        self.filled += int((ends - np.minimum(start, self.size)).sum())
        self.items += vaddr.size
        if self.first is None:
            self.first = int(vaddr[0])
        vaddr, length = _each_once(vaddr, length)
        self._vaddr.append(vaddr)
        self._length.append(length)
        self._kept += vaddr.size


def _file_extents(batch: ItemBatch) -> Columns:
    """Return those items of a batch as columns that are file extents, and long enough."""
    items = batch.of_type(constants.EXTENT_DATA_KEY)
    items = items.select(items.size > _TYPE_AT)
    inline = items.gather("u1", _TYPE_AT) == constants.FILE_EXTENT_INLINE
    whole = items.size >= FileExtentItem.struct_size
    return items.select(inline | whole).columns(FileExtentItem)


def _each_once(vaddr: Addresses, length: Addresses) -> tuple[Addresses, Addresses]:
    """Return extents ascending, each once."""
    unique, index = np.unique(vaddr, return_index=True)
    return unique, length[index]


# struct btrfs_file_extent_item
_TYPE_AT = 20

_NONE = np.zeros(0, dtype=np.int64)
