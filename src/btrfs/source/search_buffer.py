"""The buffer that the search ioctl fills, as a batch of items, without an object for each.

The buffer is a chain of items: a header and a body, and then the next. See
:func:`btrfs.ioctl.search_v2_into`.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from btrfs.ioctl import SEARCH_HEADER_SIZE
from btrfs.ondisk.columns import ItemBatch, take

__all__ = ["batch_at", "item_positions"]

# struct btrfs_ioctl_search_header
_HEADER_DTYPE = [
    ("transid", "<u8"),
    ("objectid", "<u8"),
    ("offset", "<u8"),
    ("type", "<u4"),
    ("len", "<u4"),
]
_LEN_OFFSET = 28
_LEN = struct.Struct("<I")
_RUN_WORTH_AN_ARRAY = 8
_FIRST_RUN = 64


def batch_at(args: NDArray[np.uint8], positions: NDArray[np.int64]) -> ItemBatch:
    """Return the items of a search buffer as a batch."""
    headers = take(args, _HEADER_DTYPE, positions)
    return ItemBatch(
        buffer=args,
        objectid=np.ascontiguousarray(headers["objectid"]),
        type=headers["type"].astype(np.uint8),
        offset=np.ascontiguousarray(headers["offset"]),
        transid=np.ascontiguousarray(headers["transid"]),
        body=positions + SEARCH_HEADER_SIZE,
        size=np.ascontiguousarray(headers["len"]),
    )


def item_positions(args: memoryview, pos: int, count: int) -> NDArray[np.int64]:
    """Return where the header of each item in a search buffer begins.

    The items are a chain: the length of each tells where the next one is. Most items are as long
    as their neighbours, though, so after some of the same length the rest of such a run is found
    by comparing lengths at a fixed stride, all at once.
    """
    unpack_len = _LEN.unpack_from
    header_size = SEARCH_HEADER_SIZE
    parts: list[NDArray[np.int64]] = []
    singles: list[int] = []
    previous, repeated, run = -1, 0, _FIRST_RUN
    while count:
        (length,) = unpack_len(args, pos + _LEN_OFFSET)
        stride = header_size + length
        if length != previous:
            previous, repeated, run = length, 0, _FIRST_RUN
        elif repeated >= _RUN_WORTH_AN_ARRAY:
            tried = min(run, count, (len(args) - pos - header_size) // stride + 1)
            lengths = np.ndarray((tried,), "<u4", args, pos + _LEN_OFFSET, (stride,))
            differs = lengths != length
            # The length of the item after the last equal one lies at the stride too.
            equal = int(differs.argmax()) if differs.any() else tried
            parts.append(np.array(singles, np.int64))
            parts.append(np.arange(pos, pos + equal * stride, stride))
            singles = []
            pos += equal * stride
            count -= equal
            run *= 4
            continue
        repeated += 1
        singles.append(pos)
        pos += stride
        count -= 1
    parts.append(np.array(singles, np.int64))
    return np.concatenate(parts)
