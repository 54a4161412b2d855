"""From pieces of files to extents: who uses each, and how much of it.

The rows of :class:`btrfs.ownership.references.ReferenceRows` are sorted by extent, and everything
follows from runs of equal extents. Rows that do not fit into memory are first parted by the address
of their extent into temporary files. A part is worked on by itself, and the results of all parts in
the order of their addresses are the whole. So :func:`usage_of` is a function of arrays alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ownership.references import ReferenceRows
from btrfs.ownership.root_sets import EMPTY, RootSets, SetIds
from btrfs.ownership.tables import TableBuilder, in_threads

__all__ = ["DataExtents", "References", "data_extents", "reference_table"]


@dataclass(frozen=True, slots=True)
class DataExtents:
    """All extents of data that any piece of a file lies in, by address. An entry per extent.

    Attributes:
        vaddr: Virtual address, uint64.
        num_bytes: Bytes on disk, before redundancy, uint32.
        ram_bytes: Bytes when it is decompressed, uint32.
        unreachable: Bytes on disk that no file reaches any more; of a compressed extent, the same
            share as of the decompressed bytes, uint32.
        compression: Type of its compression, uint8.
        set_id: Number of the set of roots that use it, uint32.
        first: Index of its first row among the references, int64.
    """

    vaddr: NDArray[np.uint64]
    num_bytes: NDArray[np.uint32]
    ram_bytes: NDArray[np.uint32]
    unreachable: NDArray[np.uint32]
    compression: NDArray[np.uint8]
    set_id: SetIds
    first: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.vaddr)


@dataclass(frozen=True, slots=True)
class References:
    """All pieces of files that lie in extents, extent by extent. An entry per piece.

    A piece in a leaf that snapshots share is one entry.

    Attributes:
        extent: Index of the extent, uint32.
        offset: Where in the decompressed extent the piece begins, uint32.
        num_bytes: Bytes of the piece, uint32.
        kind: Type of the compression, and PREALLOCATED if it is, uint8.
        inum: Inode number of the file, uint64.
        position: Where in the file the piece begins, uint64.
        leaf: Number of the leaf, uint32.
    """

    extent: NDArray[np.uint32]
    offset: NDArray[np.uint32]
    num_bytes: NDArray[np.uint32]
    kind: NDArray[np.uint8]
    inum: NDArray[np.uint64]
    position: NDArray[np.uint64]
    leaf: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.extent)


_ROW_DTYPES = ("<u8", "<u4", "<u4", "<u4", "<u4", "u1", "<u8", "<u8", "<u4")
_EXTENT_DTYPES = ("<u8", "<u4", "<u4", "<u4", "u1", "<u4", "<i8")
_REFERENCE_DTYPES = ("<u4", "<u4", "<u4", "u1", "<u8", "<u8", "<u4")

_BYTES_PER_ROW = 128
"""Memory that a row takes while its part is sorted, and while it is collected."""

_CHUNK_ROWS = 1 << 20
"""So many rows are parted at a time."""

_SAMPLES_PER_PART = 256


def reference_table(memory: int | None = None) -> TableBuilder:
    """Return an empty table for rows as in ReferenceRows.

    Args:
        memory: Bytes that it may take in memory, if not all that it wants.
    """
    return TableBuilder(_ROW_DTYPES, memory)


def data_extents(
    table: TableBuilder, leaf_sets: SetIds, sets: RootSets, memory: int | None = None
) -> tuple[DataExtents, References]:
    """Return the extents of all rows, and the rows extent by extent.

    Args:
        table: The rows; it is empty afterwards.
        leaf_sets: Set of roots of each leaf. Rows of leaves that no root reaches are left out.
        sets: The sets of roots.
        memory: Bytes that may be taken at a time, if not all that is wanted.
    """
    # Rows that are sorted take half, and both of the tables that come of them a quarter.
    quarter = None if memory is None else memory // 4
    extents = TableBuilder(_EXTENT_DTYPES, quarter)
    references = TableBuilder(_REFERENCE_DTYPES, quarter)
    for rows in _parts(table, None if memory is None else memory // 2):
        found, sorted_rows = usage_of(rows, leaf_sets, sets)
        found[-1] += references.rows
        sorted_rows[0] += np.uint32(extents.rows)
        extents.append(found)
        references.append(sorted_rows)
    return DataExtents(*extents.finish()), References(*references.finish())


def _parts(table: TableBuilder, memory: int | None) -> Iterator[ReferenceRows]:
    """Yield all rows in parts, those of lower extents first, all rows of an extent in one part."""
    if memory is None or table.rows * _BYTES_PER_ROW <= memory:
        yield ReferenceRows(*table.finish())
        return
    bounds = _bounds(table, -(-table.rows * _BYTES_PER_ROW // memory))
    parts = [TableBuilder(_ROW_DTYPES, 0) for _ in range(len(bounds) + 1)]
    for columns in table.chunks(_CHUNK_ROWS):
        part = np.searchsorted(bounds, columns[0], "right")
        order = np.argsort(part, kind="stable")
        ends = np.searchsorted(part[order], np.arange(len(parts)), "right")
        for index, chosen in enumerate(np.split(order, ends[:-1])):
            parts[index].append([column[chosen] for column in columns])
    table.close()
    for one in parts:
        for columns in one.chunks(one.rows):
            yield ReferenceRows(*columns)
        one.close()


def _bounds(table: TableBuilder, parts: int) -> NDArray[np.uint64]:
    """Return the addresses that part rows into some parts of about the same size.

    They come from a sample of the rows.
    """
    step = max(1, table.rows // (parts * _SAMPLES_PER_PART))
    chunks = table.chunks(_CHUNK_ROWS, [0])
    sample = np.sort(np.concatenate([extent[::step] for (extent,) in chunks]))
    bounds: NDArray[np.uint64] = np.unique(sample[np.arange(1, parts) * len(sample) // parts])
    return bounds


def usage_of(
    rows: ReferenceRows, leaf_sets: SetIds, sets: RootSets
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Return the columns of DataExtents and of References for some rows.

    Args:
        rows: All rows of some extents.
        leaf_sets: Set of roots of each leaf.
        sets: The sets of roots.
    """
    if not len(rows.extent):
        return [np.empty(0, dtype) for dtype in _EXTENT_DTYPES], [
            np.empty(0, dtype) for dtype in _REFERENCE_DTYPES
        ]
    order = np.argsort(rows.extent)
    in_use = leaf_sets[rows.leaf[order]] != EMPTY
    if not in_use.all():
        order = order[in_use]
    wanted = (
        rows.extent,
        rows.offset,
        rows.num_bytes,
        rows.kind,
        rows.inum,
        rows.position,
        rows.leaf,
    )
    address, *columns = in_threads(partial(_taken, order), wanted)
    offset, num_bytes, kind, inum, position, leaf = columns
    first = np.flatnonzero(np.diff(address, prepend=~address[:1]) != 0)
    of_first = order[first]
    lengths = np.diff(first, append=len(order))
    index = np.repeat(np.arange(len(first), dtype=np.uint32), lengths)
    disk_num_bytes, ram_bytes = rows.disk_num_bytes[of_first], rows.ram_bytes[of_first]
    compression = kind[first] & _COMPRESSION_MASK
    # Kernels have written other sizes for extents that were allocated and then written in parts.
    ram_bytes = np.where(compression == constants.COMPRESS_NONE, disk_num_bytes, ram_bytes)
    reachable = _reachable(index, offset, num_bytes, ram_bytes, first)
    share = disk_num_bytes * (ram_bytes - reachable).astype(np.uint64)
    extents: list[NDArray[Any]] = [
        address[first],
        disk_num_bytes,
        ram_bytes,
        (share // np.maximum(ram_bytes, 1)).astype(np.uint32),
        compression,
        sets.unions(leaf_sets[leaf], first),
        first,
    ]
    references = [index, offset, num_bytes, kind, inum, position, leaf]
    return extents, references


_COMPRESSION_MASK = 0x7F


def _taken(order: NDArray[np.intp], column: NDArray[Any]) -> NDArray[Any]:
    return column[order]


def _reachable(
    extent: NDArray[np.uint32],
    offset: NDArray[np.uint32],
    num_bytes: NDArray[np.uint32],
    ram_bytes: NDArray[np.uint32],
    first: NDArray[np.int64],
) -> NDArray[np.uint32]:
    """Return how many bytes of each extent are in any of its pieces.

    Args:
        extent: Index of the extent of each piece, ascending.
        offset: Where in the extent the piece begins.
        num_bytes: Bytes of the piece.
        ram_bytes: Bytes of each extent.
        first: Index of the first piece of each extent.
    """
    # Most extents are used as a whole by some piece.
    reachable = np.minimum(np.maximum.reduceat(num_bytes, first), ram_bytes)
    in_parts = reachable < ram_bytes
    chosen = in_parts[extent]
    extent, offset, num_bytes = extent[chosen], offset[chosen], num_bytes[chosen]
    # Laid one after another, extents do not overlap, and all pieces can be passed in one go.
    base = np.cumsum(ram_bytes, dtype=np.int64) - ram_bytes
    size = ram_bytes.astype(np.int64)[extent]
    begin = base[extent] + np.minimum(offset, size)
    end = base[extent] + np.minimum(offset.astype(np.int64) + num_bytes, size)
    order = np.argsort(begin)
    begin, end = begin[order], end[order]
    begin[1:] = np.maximum(begin[1:], np.maximum.accumulate(end)[:-1])
    first = np.flatnonzero(np.diff(extent, prepend=-1) != 0)
    reachable[in_parts] = np.add.reduceat(np.maximum(end - begin, 0), first)
    return reachable
