"""The extents in a range of virtual addresses: their items, and what between them is not known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from heatmap import unreadable
from heatmap.unreadable import Range

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ondisk.columns import ItemBatch


class Read(NamedTuple):
    """What was read next of a range.

    Attributes:
        items: EXTENT_ITEMs and METADATA_ITEMs; None if there are no more.
        lost: Ranges of virtual addresses in which there may be extents that could not be read.
            None reaches into an extent that is known.
    """

    items: ItemBatch | None
    lost: list[Range]


def read(fs: FileSystem, vaddr: int, length: int) -> Iterator[Read]:
    """Yield all extents that begin in a range of virtual addresses, ascending, in batches."""
    end = vaddr + length
    done = vaddr
    begun: int | None = None  # where something unknown begins that reaches to the next extent
    for batch in _items(fs, vaddr, length):
        known = batch.objectid.tolist()
        last = known[-1] + 1
        starts = unreadable.extent_starts(fs, (done, last))
        if begun is not None:
            starts = [(begun, done), *starts]
            begun = None
        lost = unreadable.up_to_known(starts, known, end)
        if lost and lost[-1][1] == end > last:
            begun = lost.pop()[0]
        yield Read(batch, lost)
        done = last
    starts = unreadable.extent_starts(fs, (done, end))
    if begun is not None:
        starts = [(begun, done), *starts]
    if starts:
        yield Read(None, unreadable.up_to_known(starts, [], end))


def within(
    fs: FileSystem, batch: ItemBatch, vaddr: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the extents of a batch begin in a range, and their lengths, in bytes.

    Nothing reaches out of the range, whatever is on disk.

    Args:
        fs: The filesystem.
        batch: Items of extents that begin in the range.
        vaddr: Virtual address at which the range begins.
        length: Bytes of the range.
    """
    offset = batch.objectid - np.uint64(vaddr)
    inside = np.minimum(lengths(fs, batch).astype(np.uint64), np.uint64(length) - offset)
    return offset.astype(np.int64), inside.astype(np.int64)


def lengths(fs: FileSystem, batch: ItemBatch) -> NDArray[np.uint64]:
    """Return the lengths of the extents of a batch, in bytes, as they are stored."""
    skinny = batch.type == constants.METADATA_ITEM_KEY
    return np.where(skinny, np.uint64(fs.nodesize), batch.offset)


def _items(fs: FileSystem, vaddr: int, length: int) -> Iterator[ItemBatch]:
    """Yield the items of all extents that begin in a range of virtual addresses."""
    first = Key(vaddr, constants.EXTENT_ITEM_KEY, 0)
    last_vaddr = min(vaddr + length - 1, constants.ULLONG_MAX)
    last = Key(last_vaddr, constants.METADATA_ITEM_KEY, constants.ULLONG_MAX)
    for batch in fs.batches(constants.EXTENT_TREE_OBJECTID, first, last):
        extents = batch.select(
            (batch.type == constants.EXTENT_ITEM_KEY) | (batch.type == constants.METADATA_ITEM_KEY)
        )
        if len(extents):
            yield extents
