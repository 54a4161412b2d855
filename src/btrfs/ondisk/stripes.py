"""Stripes: what of a chunk lies in each of its device extents.

A chunk is laid out on its stripes row by row, 64 KiB in each (fs/btrfs/volumes.c). The stripe of a
profile that is not striped holds the whole chunk; any other holds a column of it, and with RAID5
and RAID6 parity in some of the rows. Offsets count in bytes from the beginning of the chunk, or of
the stripe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from btrfs.ondisk.constants import STRIPE_LEN
from btrfs.ondisk.profiles import Profile, profile_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btrfs.ondisk.items.chunk import Chunk

    Offsets = NDArray[np.int64]

__all__ = ["Held", "chunk_offset", "chunk_ranges", "held", "parity_length"]


class Held(NamedTuple):
    """The parts of ranges of a chunk that one of its stripes holds; arrays, an entry per part.

    Attributes:
        start: Where it begins in the stripe, ascending if the ranges ascend.
        length: Bytes.
        which: Index of the range that it is a part of; -1 for parity of them.
    """

    start: Offsets
    length: Offsets
    which: Offsets


def held(chunk: Chunk, stripe: int, start: Offsets, length: Offsets) -> Held:
    """Return what a stripe holds of ranges of a chunk.

    Parity counts as whole: a row has it if anything of the row lies in the ranges.

    Args:
        chunk: The chunk.
        stripe: Index of one of its stripes.
        start: Offsets in the chunk at which the ranges begin, ascending.
        length: Their lengths in bytes; none reaches into the next one.
    """
    import numpy as np

    profile = profile_of(chunk.type)
    if not profile.striped:
        return Held(start, length, np.arange(start.size))
    if profile.nparity:
        return _held_with_parity(profile, chunk.num_stripes, stripe, start, length)
    # What follows one another in the chunk follows one another in a column, too.
    first = _column_offset(profile, chunk.num_stripes, stripe, start)
    size = _column_offset(profile, chunk.num_stripes, stripe, start + length) - first
    index = np.flatnonzero(size > 0)
    return Held(first[index], size[index], index)


def chunk_offset(chunk: Chunk, stripe: int, offset: int) -> int | None:
    """Return which byte of a chunk a byte of one of its stripes is; None where it is parity."""
    profile = profile_of(chunk.type)
    if not profile.striped:
        return offset
    row, within = divmod(offset, STRIPE_LEN)
    columns = _columns(profile, chunk.num_stripes)
    column = (
        (stripe - row) % chunk.num_stripes if profile.nparity else stripe // profile.sub_stripes
    )
    return (row * columns + column) * STRIPE_LEN + within if column < columns else None


def parity_length(chunk: Chunk, start: Offsets, length: Offsets) -> int:
    """Return the bytes of parity, on all stripes together, of ranges of a chunk; see `held()`."""
    profile = profile_of(chunk.type)
    row_length = _columns(profile, chunk.num_stripes) * STRIPE_LEN
    first, last = start // row_length, (start + length - 1) // row_length
    # A range may begin in the row in which the one before ends.
    rows = int((last - first + 1).sum() - (first[1:] == last[:-1]).sum())
    return rows * profile.nparity * STRIPE_LEN


def chunk_ranges(chunk: Chunk, ranges: Offsets) -> Offsets:
    """Return between which offsets in a chunk lies whatever ranges of a stripe hold.

    Args:
        chunk: The chunk.
        ranges: Array (ranges, 2): first byte, counted in any of the stripes, and the one behind.

    Returns:
        The same for the chunk.
    """
    profile = profile_of(chunk.type)
    if not profile.striped:
        return ranges
    import numpy as np

    rows = np.stack([ranges[:, 0] // STRIPE_LEN, -(-ranges[:, 1] // STRIPE_LEN)], axis=1)
    return rows * (_columns(profile, chunk.num_stripes) * STRIPE_LEN)


def _columns(profile: Profile, num_stripes: int) -> int:
    """Return how many different pieces of data there are in a row."""
    return (num_stripes - profile.nparity) // profile.sub_stripes


def _column_offset(profile: Profile, num_stripes: int, stripe: int, offset: Offsets) -> Offsets:
    """Return how much of a column lies before an offset of the chunk."""
    columns = _columns(profile, num_stripes)
    row, within = offset // (columns * STRIPE_LEN), offset % (columns * STRIPE_LEN)
    column = stripe // profile.sub_stripes
    before: Offsets = row * STRIPE_LEN + (within - column * STRIPE_LEN).clip(0, STRIPE_LEN)
    return before


def _held_with_parity(
    profile: Profile, num_stripes: int, stripe: int, start: Offsets, length: Offsets
) -> Held:
    """Return what a stripe of RAID5 or RAID6 holds, which changes with each row."""
    import numpy as np

    columns = _columns(profile, num_stripes)
    row_length = columns * STRIPE_LEN
    first_row = start // row_length
    count = (start + length - 1) // row_length - first_row + 1
    index = np.repeat(np.arange(start.size), count)
    row = np.arange(index.size) - np.repeat(np.cumsum(count) - count - first_row, count)
    column = (stripe - row) % num_stripes
    begin = (row * columns + column) * STRIPE_LEN
    low = np.maximum(begin, start[index])
    high = np.minimum(begin + STRIPE_LEN, (start + length)[index])
    is_parity = column >= columns
    # Ranges of the same row have the same parity.
    is_parity[1:] &= np.diff(row) > 0
    low[is_parity] = begin[is_parity]
    high[is_parity] = begin[is_parity] + STRIPE_LEN
    index[is_parity] = -1
    kept = np.flatnonzero(is_parity | ((column < columns) & (high > low)))
    in_stripe = row * STRIPE_LEN + low - begin
    return Held(in_stripe[kept], (high - low)[kept], index[kept])
