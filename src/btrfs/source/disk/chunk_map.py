"""From virtual to physical addresses.

A chunk maps a range of virtual addresses to stripes, which are ranges of devices. How the bytes
are spread over the stripes depends on the profile; :func:`_stripe_of` has the arithmetic. It works
on numbers and on numpy arrays of them alike, for single blocks and for many at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from btrfs import constants
from btrfs.constants import MAX_ADDRESS, STRIPE_LEN
from btrfs.errors import CorruptError
from btrfs.volumes import PROFILES, Profile, profile_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btrfs.items.chunk import Chunk

__all__ = ["ChunkMap", "Piece", "check_chunk"]


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


class ChunkMap:
    """The chunks of a filesystem, in the order of their virtual addresses.

    Args:
        chunks: Chunks that have passed :func:`check_chunk`.

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

    def devids(self) -> set[int]:
        """Return the numbers of all devices that chunks lie on."""
        return {stripe.devid for chunk in self._chunks for stripe in chunk.stripes}

    def copies(self, vaddr: int, length: int) -> list[list[Piece]]:
        """Return all places where a range of virtual addresses is stored.

        A place is a list of pieces that follow one another. There is more than one where the range
        goes on in another stripe.

        Raises:
            CorruptError: No chunk holds the range.
        """
        chunk = self._chunk_at(vaddr, length)
        profile = profile_of(chunk.type)
        return [
            [
                self._piece(chunk, profile, copy, at, size)
                for at, size in _split(profile, vaddr - chunk.vaddr, length)
            ]
            for copy in range(profile.ncopies)
        ]

    def first_copies(
        self, vaddrs: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the first copy of each of many ranges lies.

        Args:
            vaddrs: Virtual addresses.
            length: Bytes of each range.

        Returns:
            Numbers of the devices, and addresses on them. The number is -1 where no chunk holds the
            range or it does not lie in one piece: see :meth:`copies` for these.
        """
        import numpy as np

        devids = np.full(len(vaddrs), -1, np.int64)
        paddrs = np.zeros(len(vaddrs), np.int64)
        owners = np.searchsorted(np.array(self._starts, np.int64), vaddrs, "right") - 1
        for owner in np.unique(owners[owners >= 0]):
            chunk = self._chunks[owner]
            profile = profile_of(chunk.type)
            chosen = np.flatnonzero(owners == owner)
            at = vaddrs[chosen] - chunk.vaddr
            whole = at + length <= chunk.length
            if profile.striped:
                whole &= at % STRIPE_LEN + length <= STRIPE_LEN
            chosen, at = chosen[whole], at[whole]
            index, in_stripe = _stripe_of(profile, chunk.num_stripes, 0, at)
            devids[chosen] = np.array([stripe.devid for stripe in chunk.stripes])[index]
            paddrs[chosen] = (
                np.array([stripe.offset for stripe in chunk.stripes])[index] + in_stripe
            )
        return devids, paddrs

    def _chunk_at(self, vaddr: int, length: int) -> Chunk:
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


def check_chunk(chunk: Chunk, sectorsize: int) -> None:
    """Check a chunk before it is used, as the kernel does (btrfs_check_chunk_valid).

    Raises:
        CorruptError: A field is not as it must be.
    """
    for what, expected, found in _violations(chunk, sectorsize):
        raise CorruptError(f"chunk at {chunk.vaddr}, {what}", expected=expected, found=found)


def _violations(chunk: Chunk, sectorsize: int) -> Iterable[tuple[str, Any, Any]]:
    """Yield name, expected and found value of each field that cannot be right."""
    profile = PROFILES.get(chunk.type & constants.BLOCK_GROUP_PROFILE_MASK)
    if profile is None:
        yield "profile", "at most one bit", f"0x{chunk.type:x}"
        return
    stripes = chunk.num_stripes
    # Where data is not striped, each stripe is a copy of the whole chunk.
    stripes_right = (
        stripes >= profile.min_stripes if profile.striped else stripes == profile.ncopies
    )
    at_least = "at least " if profile.striped else ""
    end = chunk.vaddr + chunk.length
    last_stripe = max((stripe.offset for stripe in chunk.stripes), default=0)
    for what, is_right, expected, found in (
        ("type", chunk.type & constants.BLOCK_GROUP_TYPE_MASK, "a type", f"0x{chunk.type:x}"),
        ("num_stripes", stripes_right, f"{at_least}{profile.min_stripes}", stripes),
        ("num_stripes", stripes % profile.sub_stripes == 0, "an even number", stripes),
        (
            "sub_stripes",
            profile.sub_stripes in (1, chunk.sub_stripes),
            profile.sub_stripes,
            chunk.sub_stripes,
        ),
        ("stripe_len", chunk.stripe_len == STRIPE_LEN, STRIPE_LEN, chunk.stripe_len),
        ("length", chunk.length > 0, "more than 0", chunk.length),
        ("length", chunk.length % sectorsize == 0, f"a multiple of {sectorsize}", chunk.length),
        ("vaddr", chunk.vaddr % sectorsize == 0, f"a multiple of {sectorsize}", chunk.vaddr),
        ("end", end < MAX_ADDRESS, f"below {MAX_ADDRESS}", end),
        (
            "stripe",
            last_stripe + chunk.length < MAX_ADDRESS,
            f"an address below {MAX_ADDRESS}",
            last_stripe,
        ),
    ):
        if not is_right:
            yield what, expected, found
