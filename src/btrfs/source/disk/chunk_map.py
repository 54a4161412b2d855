"""From virtual to physical addresses.

A chunk maps a range of virtual addresses to stripes, which are ranges of devices. How the bytes
are spread over the stripes depends on the profile; :func:`_stripe_of` has the arithmetic. It works
on numbers and on numpy arrays of them alike, for single blocks and for many at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from btrfs.errors import CorruptError
from btrfs.ondisk.constants import STRIPE_LEN
from btrfs.ondisk.profiles import Profile, profile_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btrfs.ondisk.items.chunk import Chunk

__all__ = ["ChunkMap", "Piece", "Row"]


class Piece(NamedTuple):
    """A range of a device that holds a range of the virtual address space.

    Attributes:
        devid: Number of the device.
        paddr: Address on it in bytes.
        length: Bytes.
    """

    devid: int
    paddr: int
    length: int


class Row(NamedTuple):
    """The same range of all stripes of a row of RAID5 or RAID6.

    Attributes:
        wanted: Which piece of data is meant.
        data: The pieces of data.
        p: The piece of the parity P.
        q: That of Q, None for RAID5.
    """

    wanted: int
    data: list[Piece]
    p: Piece
    q: Piece | None


class ChunkMap:
    """The chunks of a filesystem, in the order of their virtual addresses.

    Args:
        chunks: Chunks that have passed :func:`btrfs.ondisk.profiles.check_chunk`.

    Raises:
        CorruptError: Two of them overlap.
    """

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = sorted(chunks, key=lambda chunk: chunk.vaddr)
        self._starts = [chunk.vaddr for chunk in self._chunks]
        for chunk, following in pairwise(self._chunks):
            if chunk.vaddr + chunk.length > following.vaddr:
                raise CorruptError(
                    f"chunk at {following.vaddr}",
                    expected=f"to begin behind the one at {chunk.vaddr}",
                    found=f"a length of {chunk.length} of that",
                )

    def copies(self, vaddr: int, length: int) -> list[list[Piece]]:
        """Return all places where a range of virtual addresses is stored.

        A place is a list of pieces that follow one another. There is more than one where the range
        goes on in another stripe.

        Raises:
            CorruptError: No chunk holds the range.
        """
        chunk = self.chunk_at(vaddr, length)
        profile = profile_of(chunk.type)
        return [
            [
                self._piece(chunk, profile, copy, at, size)
                for at, size in _split(profile, vaddr - chunk.vaddr, length)
            ]
            for copy in range(profile.ncopies)
        ]

    def rows(self, vaddr: int, length: int) -> list[Row]:
        """Return the rows of stripes that a range of virtual addresses can be rebuilt from.

        There is more than one where the range goes on in another stripe, and none if the profile
        has no parity.

        Raises:
            CorruptError: No chunk holds the range.
        """
        chunk = self.chunk_at(vaddr, length)
        profile = profile_of(chunk.type)
        if not profile.nparity:
            return []
        return [
            _row(chunk, profile, at, size)
            for at, size in _split(profile, vaddr - chunk.vaddr, length)
        ]

    def first_copies(
        self, vaddrs: NDArray[np.int64], length: int, devids: Collection[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the first copy of each of many ranges lies that is on one of some devices.

        Args:
            vaddrs: Virtual addresses.
            length: Bytes of each range.
            devids: Numbers of the devices.

        Returns:
            Numbers of the devices, and addresses on them. The number is -1 where there is no such
            copy, no chunk holds the range or it does not lie in one piece: see :meth:`copies` and
            :meth:`rows` for these.
        """
        import numpy as np

        found = np.full(len(vaddrs), -1, np.int64)
        paddrs = np.zeros(len(vaddrs), np.int64)
        owners = np.searchsorted(np.array(self._starts, np.int64), vaddrs, "right") - 1
        for owner in np.unique(owners[owners >= 0]):
            chunk = self._chunks[owner]
            profile = profile_of(chunk.type)
            stripe_devids = np.array(
                [stripe.devid if stripe.devid in devids else -1 for stripe in chunk.stripes]
            )
            stripe_paddrs = np.array([stripe.offset for stripe in chunk.stripes])
            chosen = np.flatnonzero(owners == owner)
            at = vaddrs[chosen] - chunk.vaddr
            whole = at + length <= chunk.length
            if profile.striped:
                whole &= at % STRIPE_LEN + length <= STRIPE_LEN
            chosen, at = chosen[whole], at[whole]
            for copy in range(profile.ncopies):
                index, in_stripe = _stripe_of(profile, chunk.num_stripes, copy, at)
                found[chosen] = stripe_devids[index]
                paddrs[chosen] = stripe_paddrs[index] + in_stripe
                left = found[chosen] < 0
                if not left.any():
                    break
                chosen, at = chosen[left], at[left]
        return found, paddrs

    def chunk_at(self, vaddr: int, length: int = 1) -> Chunk:
        """Return the chunk that holds a range of virtual addresses.

        Raises:
            CorruptError: There is none.
        """
        index = bisect_right(self._starts, vaddr) - 1
        if index >= 0:
            chunk = self._chunks[index]
            if vaddr + length <= chunk.vaddr + chunk.length:
                return chunk
        raise CorruptError(f"address {vaddr}", expected="to lie in a chunk", found="none there")

    @staticmethod
    def _piece(chunk: Chunk, profile: Profile, copy: int, at: int, length: int) -> Piece:
        index, in_stripe = _stripe_of(profile, chunk.num_stripes, copy, at)
        stripe = chunk.stripes[index]
        return Piece(stripe.devid, stripe.offset + in_stripe, length)


def _row(chunk: Chunk, profile: Profile, at: int, length: int) -> Row:
    """Return the row that a range of a chunk with parity lies in, all in one stripe."""
    count = chunk.num_stripes - profile.nparity
    row, index = divmod(at // STRIPE_LEN, count)
    in_stripe = row * STRIPE_LEN + at % STRIPE_LEN
    # Data and parity move on by one stripe with each row.
    pieces = [
        Piece(stripe.devid, stripe.offset + in_stripe, length)
        for stripe in (
            chunk.stripes[(row + i) % chunk.num_stripes] for i in range(chunk.num_stripes)
        )
    ]
    q = pieces[count + 1] if profile.nparity > 1 else None
    return Row(index, pieces[:count], pieces[count], q)


# An address, or an array of them.
Address = TypeVar("Address", int, "NDArray[np.int64]")


def _stripe_of(
    profile: Profile, num_stripes: int, copy: int, at: Address
) -> tuple[Address, Address]:
    """Return which stripe holds a byte of a chunk, and where in the stripe.

    Args:
        profile: Profile of the chunk.
        num_stripes: How many stripes it has.
        copy: Which of the copies, from 0.
        at: Offset in the chunk in bytes.
    """
    if not profile.striped:
        return at * 0 + copy, at
    row_of_stripes, in_stripe = at // STRIPE_LEN, at % STRIPE_LEN
    if profile.nparity:
        data_stripes = num_stripes - profile.nparity
        row = row_of_stripes // data_stripes
        # Data and parity move on by one stripe with each row.
        index = (row_of_stripes % data_stripes + row) % num_stripes
    else:
        groups = num_stripes // profile.sub_stripes
        row = row_of_stripes // groups
        index = row_of_stripes % groups * profile.sub_stripes + copy
    return index, row * STRIPE_LEN + in_stripe


def _split(profile: Profile, at: int, length: int) -> list[tuple[int, int]]:
    """Cut a range of a chunk where it goes on in another stripe: offsets and lengths."""
    if not profile.striped:
        return [(at, length)]
    cuts = [at, *range((at // STRIPE_LEN + 1) * STRIPE_LEN, at + length, STRIPE_LEN), at + length]
    return [(start, end - start) for start, end in pairwise(cuts)]
