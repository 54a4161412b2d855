"""From virtual to physical addresses.

A chunk maps a range of virtual addresses to its stripes, which are ranges of devices; how, is the
matter of :mod:`btrfs.ondisk.geometry`. Here are all chunks of a filesystem, for single blocks and
for many at once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from btrfs.errors import CorruptError
from btrfs.ondisk.geometry import Geometry, geometry_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btrfs.ondisk.items.chunk import Chunk

__all__ = ["ChunkMap", "PhysicalRange", "Row"]


class PhysicalRange(NamedTuple):
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
        wanted: Index of the range of data that is meant.
        data: The ranges of data.
        p: The range of the parity P.
        q: The range of the parity Q, None for RAID5.
    """

    wanted: int
    data: list[PhysicalRange]
    p: PhysicalRange
    q: PhysicalRange | None


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
                    expected=f"to begin after the one at {chunk.vaddr}",
                    found=f"a length of {chunk.length} of that",
                )

    def copies(self, vaddr: int, length: int) -> list[list[PhysicalRange]]:
        """Return all copies of a range of virtual addresses.

        A copy is a list of ranges of devices that follow one another. There is more than one where
        the range goes on in another stripe.

        Raises:
            CorruptError: No chunk holds the range.
        """
        chunk = self.chunk_at(vaddr, length)
        geometry = geometry_of(chunk)
        pieces = geometry.split(vaddr - chunk.vaddr, length)
        return [
            [_physical(chunk, *geometry.to_physical(offset, copy), size) for offset, size in pieces]
            for copy in range(geometry.profile.ncopies)
        ]

    def rows(self, vaddr: int, length: int) -> list[Row]:
        """Return the rows of stripes that a range of virtual addresses can be rebuilt from.

        There is more than one where the range goes on in another stripe, and none if the profile
        has no parity.

        Raises:
            CorruptError: No chunk holds the range.
        """
        chunk = self.chunk_at(vaddr, length)
        geometry = geometry_of(chunk)
        if not geometry.profile.nparity:
            return []
        pieces = geometry.split(vaddr - chunk.vaddr, length)
        return [_row(chunk, geometry, offset, size) for offset, size in pieces]

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
            geometry = geometry_of(chunk)
            stripe_devids = np.array(
                [stripe.devid if stripe.devid in devids else -1 for stripe in chunk.stripes]
            )
            stripe_paddrs = np.array([stripe.offset for stripe in chunk.stripes])
            chosen = np.flatnonzero(owners == owner)
            at = vaddrs[chosen] - chunk.vaddr
            whole = (at + length <= chunk.length) & geometry.are_contiguous(at, length)
            chosen, at = chosen[whole], at[whole]
            for copy in range(geometry.profile.ncopies):
                index, in_stripe = geometry.to_physical(at, copy)
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


def _physical(chunk: Chunk, index: int, offset: int, length: int) -> PhysicalRange:
    """Return a range of a stripe as one of a device."""
    stripe = chunk.stripes[index]
    return PhysicalRange(stripe.devid, stripe.offset + offset, length)


def _row(chunk: Chunk, geometry: Geometry, offset: int, length: int) -> Row:
    """Return the row that a range of a chunk with parity lies in, all in one stripe."""
    _, in_stripe = geometry.to_physical(offset)
    data_and_parity = [
        _physical(chunk, index, in_stripe, length) for index in geometry.stripes_of_row(offset)
    ]
    data, parity = data_and_parity[: geometry.columns], data_and_parity[geometry.columns :]
    return Row(geometry.column_of(offset), data, parity[0], parity[1] if len(parity) > 1 else None)
