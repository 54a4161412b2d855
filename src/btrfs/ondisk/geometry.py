"""The geometry of chunks: which bytes of a chunk lie where in its stripes, and the way back.

A chunk is laid out on its stripes, which are ranges of devices. With the profiles single, DUP and
RAID1, each stripe holds the whole chunk. The others are striped: a chunk fills its stripes row by
row, with an element of 64 KiB in each. The elements of a row are its columns of data, in as many
copies as the profile has, or with P and Q after them. RAID5 and RAID6 move on by one stripe with
each row (fs/btrfs/volumes.c, btrfs_map_block() and set_io_stripe()).

This is the only module that knows. Offsets count in bytes from the beginning of the chunk, or of
the stripe; where a function takes an offset, it takes a numpy array of offsets as well.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from btrfs.ondisk.constants import STRIPE_LEN
from btrfs.ondisk.profiles import Profile, profile_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btrfs.ondisk.items.chunk import Chunk

    Offsets = NDArray[np.int64]

__all__ = ["PARITY", "Geometry", "StripeRanges", "geometry_of"]

Offset = TypeVar("Offset", int, "NDArray[np.int64]")
"""An offset, or an array of them."""

PARITY = -1
"""In place of an offset in the chunk, or of the index of a range: parity."""


class StripeRanges(NamedTuple):
    """What one stripe holds of ranges of a chunk; arrays, an entry for each piece of them.

    Attributes:
        start: Where it begins in the stripe, ascending if the ranges ascend.
        length: Bytes.
        which: Index of the range that it belongs to; PARITY for parity of them.
    """

    start: Offsets
    length: Offsets
    which: Offsets


class Geometry(NamedTuple):
    """How a chunk lies in its stripes.

    Attributes:
        profile: The profile of the chunk.
        num_stripes: How many stripes it has.
    """

    profile: Profile
    num_stripes: int

    @property
    def columns(self) -> int:
        """How many different elements of data there are in a row."""
        return (self.num_stripes - self.profile.nparity) // self.profile.sub_stripes

    @property
    def row_length(self) -> int:
        """Bytes of the chunk in a row."""
        return self.columns * STRIPE_LEN

    # One byte, or an array of them.

    def to_physical(self, offset: Offset, copy: int = 0) -> tuple[Offset, Offset]:
        """Return which stripe holds a byte of the chunk, and where in the stripe.

        Args:
            offset: Offset of the byte in the chunk.
            copy: Which of the copies, from 0.
        """
        if not self.profile.striped:
            return offset * 0 + copy, offset
        element, within = offset // STRIPE_LEN, offset % STRIPE_LEN
        row, column = element // self.columns, element % self.columns
        if self.profile.nparity:
            stripe = (column + row) % self.num_stripes
        else:
            stripe = column * self.profile.sub_stripes + copy
        return stripe, row * STRIPE_LEN + within

    def to_logical(self, stripe: int, offset: int) -> int:
        """Return the offset in the chunk of a byte of a stripe; PARITY where that is parity."""
        if not self.profile.striped:
            return offset
        row, within = divmod(offset, STRIPE_LEN)
        column = self._column(stripe, row)
        return self._element(row, column) + within if column < self.columns else PARITY

    def stripes_of_row(self, offset: int) -> list[int]:
        """Return the stripes of the row that a byte of a chunk with parity lies in.

        Returns:
            Indexes of the stripes, those of data in the order of the chunk, then P, then Q.
        """
        row = offset // self.row_length
        return [(row + column) % self.num_stripes for column in range(self.num_stripes)]

    def column_of(self, offset: int) -> int:
        """Return which element of its row a byte of the chunk lies in."""
        return offset // STRIPE_LEN % self.columns

    # Ranges.

    def are_contiguous(self, start: Offsets, length: int) -> NDArray[np.bool_]:
        """Return which ranges of the chunk, all of so many bytes, lie in one piece in a stripe."""
        import numpy as np

        if not self.profile.striped:
            return np.ones(start.shape, np.bool_)
        return start % STRIPE_LEN + length <= STRIPE_LEN

    def contiguous_length(self, offset: int, length: int) -> int:
        """Return how many bytes of a range of a stripe follow one another in the chunk, too.

        Args:
            offset: Where the range begins in the stripe.
            length: Bytes of the range.
        """
        if not self.profile.striped:
            return length
        return min(length, STRIPE_LEN - offset % STRIPE_LEN)

    def split(self, offset: int, length: int) -> list[tuple[int, int]]:
        """Return a range of the chunk cut where it goes on in another stripe.

        Returns:
            Offset in the chunk, and bytes, of each piece.
        """
        if not self.profile.striped:
            return [(offset, length)]
        first_cut = (offset // STRIPE_LEN + 1) * STRIPE_LEN
        cuts = [offset, *range(first_cut, offset + length, STRIPE_LEN), offset + length]
        return [(start, end - start) for start, end in pairwise(cuts)]

    def in_stripe(self, stripe: int, start: Offsets, length: Offsets) -> StripeRanges:
        """Return what a stripe holds of ranges of the chunk.

        Parity counts as whole: a row has it if anything of the row lies in the ranges.

        Args:
            stripe: Index of the stripe.
            start: Where the ranges begin in the chunk, ascending.
            length: Their lengths in bytes; none reaches into the next one.
        """
        import numpy as np

        if not self.profile.striped:
            return StripeRanges(start, length, np.arange(start.size))
        if self.profile.nparity:
            return self._in_stripe_with_parity(stripe, start, length)
        # What follows one another in the chunk follows one another in a column, too.
        first = self._length_before(stripe, start)
        size = self._length_before(stripe, start + length) - first
        index = np.flatnonzero(size > 0)
        return StripeRanges(first[index], size[index], index)

    def in_chunk(self, ranges: Offsets) -> Offsets:
        """Return the ranges of the chunk that hold everything that ranges of a stripe do.

        Args:
            ranges: Array (ranges, 2): start and end, counted in any of the stripes.

        Returns:
            The same, counted in the chunk.
        """
        if not self.profile.striped:
            return ranges
        import numpy as np

        rows = np.stack([ranges[:, 0] // STRIPE_LEN, -(-ranges[:, 1] // STRIPE_LEN)], axis=1)
        return rows * self.row_length

    def parity_length(self, start: Offsets, length: Offsets) -> int:
        """Return the bytes of parity of ranges, on all stripes together; see `in_stripe()`."""
        first, last = start // self.row_length, (start + length - 1) // self.row_length
        # A range may begin in the row in which the one before ends.
        rows = int((last - first + 1).sum() - (first[1:] == last[:-1]).sum())
        return rows * self.profile.nparity * STRIPE_LEN

    # Rows and columns.

    def _column(self, stripe: int, row: Offset) -> Offset:
        """Return which column of a row a stripe holds; those of P and Q follow those of data."""
        if self.profile.nparity:
            return (stripe - row) % self.num_stripes
        return row * 0 + stripe // self.profile.sub_stripes

    def _element(self, row: Offset, column: Offset) -> Offset:
        """Return where in the chunk an element begins."""
        return (row * self.columns + column) * STRIPE_LEN

    def _length_before(self, stripe: int, offset: Offsets) -> Offsets:
        """Return how many bytes of a stripe without parity lie before an offset of the chunk."""
        row, within = offset // self.row_length, offset % self.row_length
        column = self._column(stripe, 0)
        before: Offsets = row * STRIPE_LEN + (within - column * STRIPE_LEN).clip(0, STRIPE_LEN)
        return before

    def _in_stripe_with_parity(self, stripe: int, start: Offsets, length: Offsets) -> StripeRanges:
        """Return what a stripe of RAID5 or RAID6 holds, whose column changes with each row."""
        import numpy as np

        first_row = start // self.row_length
        count = (start + length - 1) // self.row_length - first_row + 1
        index = np.repeat(np.arange(start.size), count)
        row = np.arange(index.size) - np.repeat(np.cumsum(count) - count - first_row, count)
        column = self._column(stripe, row)
        begin = self._element(row, column)
        low = np.maximum(begin, start[index])
        high = np.minimum(begin + STRIPE_LEN, (start + length)[index])
        is_parity = column >= self.columns
        # Ranges of the same row have the same parity.
        is_parity[1:] &= np.diff(row) > 0
        low[is_parity] = begin[is_parity]
        high[is_parity] = begin[is_parity] + STRIPE_LEN
        index[is_parity] = PARITY
        kept = np.flatnonzero(is_parity | ((column < self.columns) & (high > low)))
        in_stripe = row * STRIPE_LEN + low - begin
        return StripeRanges(in_stripe[kept], (high - low)[kept], index[kept])


def geometry_of(chunk: Chunk) -> Geometry:
    """Return how a chunk lies in its stripes.

    Raises:
        ValueError: Its flags have more than one profile.
    """
    return Geometry(profile_of(chunk.type), chunk.num_stripes)
