"""The kernel's chunk allocator: which chunks it would make from the space that devices have left.

How much can still be written depends on the chunks that the kernel will make: how long their device
extents are, and on which devices. So this module makes them, in memory, by the kernel's rules
(btrfs_create_chunk() in fs/btrfs/volumes.c, as in Linux 6.18). :mod:`btrfs.space.filling` writes
data with it until there is no more space.

It leaves out the copies of the superblock, 64 KiB each, that no extent may lie on.

The kernel makes one chunk after the other. Most of them are like the one before, so
:meth:`Allocator.allocate` makes as many as are alike at once; see :mod:`btrfs.space.equal_chunks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from btrfs.ondisk.constants import BLOCK_GROUP_DATA, BLOCK_GROUP_SYSTEM, STRIPE_LEN
from btrfs.ondisk.profiles import (
    BTRFS_MAX_DATA_CHUNK_SIZE,
    dev_extent_length_to_chunk_length,
    profile_of,
)
from btrfs.space.devices import DeviceSpace
from btrfs.space.equal_chunks import Candidate, equal_steps
from btrfs.space.profile_rules import dev_stripes, devices_used

__all__ = ["Allocated", "Allocator"]

_1M = 1 << 20
_1G = 1 << 30

# fs/btrfs/volumes.h.
MAX_STRIPE_SIZE = _1G
STRIPE_SIZE_ALIGNMENT = 16 * _1M

# calc_chunk_size() in fs/btrfs/space-info.c.
MAX_SYSTEM_CHUNK_SIZE = 32 * _1M
MAX_METADATA_CHUNK_SIZE = _1G
MAX_METADATA_CHUNK_SIZE_SMALL = 256 * _1M
SMALL_FILESYSTEM = 50 * _1G

# A system chunk must fit into the array of the superblock (BTRFS_MAX_DEVS_SYS_CHUNK).
MAX_STRIPES_SYSTEM = 29
# BTRFS_MAX_DEVS: a chunk is one item, so it has as many stripes as a leaf has room for.
_LEAF_WITHOUT_ITEM = 101 + 25
_CHUNK_ITEM_SIZE = 80
_STRIPE_ITEM_SIZE = 32

# What making chunks costs, in units of about 0.2 microseconds, and where it ends: after some
# seconds. A hundred devices of 20 TB with nothing on them take a quarter of that.
_EFFORT_PER_CALL = 100
_EFFORT_PER_DEVICE = 20
_EFFORT_PER_TRY = 40
_MOST_EFFORT = 20_000_000


class Allocated(NamedTuple):
    """Chunks that are all alike.

    Attributes:
        chunks: How many.
        length: Bytes of virtual address space of each.
        stripe_size: Bytes of each device extent.
        num_stripes: Device extents of each.
    """

    chunks: int
    length: int
    stripe_size: int
    num_stripes: int

    @property
    def total(self) -> int:
        """Bytes of virtual address space of all of them."""
        return self.chunks * self.length


class Allocator:
    """Makes chunks on a set of devices. It changes the devices that it is given.

    Args:
        devices: Those that can be written to.
        nodesize: Bytes of a tree block.
    """

    def __init__(self, devices: Sequence[DeviceSpace], nodesize: int = 16384) -> None:
        self.devices = devices
        self._effort = 0
        self._total_bytes = sum(device.total_bytes for device in devices)
        self._most_stripes = (
            nodesize - _LEAF_WITHOUT_ITEM - _CHUNK_ITEM_SIZE
        ) // _STRIPE_ITEM_SIZE + 1

    @property
    def unallocated(self) -> int:
        """Bytes of all devices that no device extent takes."""
        return sum(device.unallocated for device in self.devices)

    @property
    def exhausted(self) -> bool:
        """Whether so many chunks had to be made one by one that no more are made.

        That takes devices of impossible sizes, as a damaged filesystem can have them.
        """
        return self._effort > _MOST_EFFORT

    def chunk_size(self, flags: int) -> int:
        """Return the most bytes of virtual address space of a chunk.

        Args:
            flags: Type and profile of the chunk.
        """
        return min(self._total_bytes * 10 // 100, self._space_chunk_size(flags))

    def allocate(self, flags: int, most: int = 0) -> Allocated | None:
        """Make chunks: as many as will be alike, at least one.

        Args:
            flags: Type and profile of the chunks.
            most: Bytes of virtual address space that more than one may have together.

        Returns:
            What was made; None if there is no space, or it was too much already.
        """
        if self.exhausted:
            return None
        self._effort += _EFFORT_PER_CALL + sum(
            _EFFORT_PER_DEVICE + len(device.holes) for device in self.devices
        )
        per_device = dev_stripes(flags)
        wanted = min(self._space_chunk_size(flags), MAX_STRIPE_SIZE) * per_device
        ranked = self._ranked(wanted, STRIPE_LEN * per_device)
        most_stripes = MAX_STRIPES_SYSTEM if flags & BLOCK_GROUP_SYSTEM else self._most_stripes
        used = min(devices_used(flags, len(ranked)), most_stripes)
        if used == 0:
            return None
        stripe_size = self._stripe_size(flags, used, ranked[used - 1].available)
        if stripe_size == 0:
            return None
        num_stripes = used * per_device
        length = dev_extent_length_to_chunk_length(flags, num_stripes, stripe_size)
        counts, tries = equal_steps(ranked, used, stripe_size * per_device, wanted, most // length)
        self._effort += tries * _EFFORT_PER_TRY * len(ranked)
        for candidate, count in zip(ranked, counts, strict=False):
            if count:
                candidate.device.take(stripe_size * per_device, wanted, count)
        return Allocated(sum(counts) // used, length, stripe_size, num_stripes)

    def take_rest(self, flags: int) -> int:
        """Take all that is left, as if chunks could be made of all of it.

        Args:
            flags: Type and profile of the chunks.

        Returns:
            Bytes of virtual address space.
        """
        left = sum(sum(device.holes) for device in self.devices)
        num_stripes = devices_used(flags, len(self.devices)) * dev_stripes(flags)
        if num_stripes == 0:
            return 0
        for device in self.devices:
            device.unallocated -= sum(device.holes)
            device.holes.clear()
        return dev_extent_length_to_chunk_length(flags, num_stripes, left // num_stripes)

    def _space_chunk_size(self, flags: int) -> int:
        """Return the limit that is set for a type of chunk (calc_chunk_size())."""
        if flags & BLOCK_GROUP_DATA:
            return BTRFS_MAX_DATA_CHUNK_SIZE
        if flags & BLOCK_GROUP_SYSTEM:
            return MAX_SYSTEM_CHUNK_SIZE
        if self._total_bytes > SMALL_FILESYSTEM:
            return MAX_METADATA_CHUNK_SIZE
        return MAX_METADATA_CHUNK_SIZE_SMALL

    def _ranked(self, wanted: int, least: int) -> list[Candidate]:
        """Return the devices with enough space, the best first (gather_device_info())."""
        candidates = [
            Candidate(available, device.unallocated, device)
            for device in self.devices
            if device.unallocated >= least and (available := device.available(wanted)) >= least
        ]
        candidates.sort(key=lambda candidate: candidate[:2], reverse=True)
        return candidates

    def _stripe_size(self, flags: int, used: int, available: int) -> int:
        """Return the bytes of each device extent (decide_stripe_size_regular()).

        Args:
            flags: Type and profile of the chunk.
            used: How many devices it uses.
            available: Bytes that the one with the least of them can give.
        """
        profile = profile_of(flags)
        per_device = dev_stripes(flags)
        data_stripes = (used * per_device - profile.nparity) // profile.ncopies
        stripe_size = available // per_device
        chunk_size = self.chunk_size(flags)
        if stripe_size * data_stripes > chunk_size:
            rounded = -(-(chunk_size // data_stripes) // STRIPE_SIZE_ALIGNMENT)
            stripe_size = min(stripe_size, rounded * STRIPE_SIZE_ALIGNMENT)
        stripe_size = min(stripe_size, MAX_STRIPE_SIZE)
        return stripe_size - stripe_size % STRIPE_LEN
