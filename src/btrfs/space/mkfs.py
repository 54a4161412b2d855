"""What mkfs.btrfs puts on devices, and how much a filesystem made anew on them can hold.

    sizes = {1: 2 * 10**12, 2: 3 * 10**12}
    filling = mkfs.capacity(sizes, DATA | RAID1, METADATA | RAID1)
    print(filling.writable)

The first block groups of a filesystem are made by mkfs.btrfs, and not by the rules of the kernel:
on small devices they are smaller, and that of single data is tiny. As the kernel makes its own
around them, and metadata often lives in the first one for a long time, an estimate has to begin
with them. :func:`new_filesystem` lays them out as mkfs.btrfs 6 does, :func:`capacity` goes on from
there with :mod:`btrfs.space.allocator`.

At first, mkfs.btrfs makes small chunks on the first device, to have something to write to. Then it
makes a chunk of each kind, and removes the small one in its favour, but for a kind whose profile is
single: that keeps the small one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from btrfs.ondisk import profiles
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_DUP,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK,
    STRIPE_LEN,
)
from btrfs.space.allocator import SMALL_FILESYSTEM
from btrfs.space.devices import DEVICE_RANGE_RESERVED, DeviceSpace, holes_between
from btrfs.space.filling import Filling, MetadataNeed, fill
from btrfs.space.profile_rules import devices_used

__all__ = ["DATA_PER_METADATA", "NewFilesystem", "capacity", "new_filesystem"]

_1M = 1 << 20
_1G = 1 << 30

DATA_PER_METADATA = 200
"""Bytes of data to one of metadata, in a filesystem of files of all sizes."""

_SMALL_SYSTEM_CHUNK = 4 * _1M
_SMALL_CHUNK = 8 * _1M
# Tree blocks of a new filesystem, and of them those of trees that the global reserve grows with.
_FIRST_NODES = 8
_FIRST_RESERVED_NODES = 4
# The least that the kernel reserves, in tree blocks.
_RESERVE_NODES = 352


@dataclass(frozen=True, slots=True)
class NewFilesystem:
    """What mkfs.btrfs made.

    Attributes:
        devices: The devices, with what is left of them.
        chunks: Bytes of virtual address space of each chunk, by type and profile.
        extents: By devid, the address and length in bytes of each device extent.
    """

    devices: list[DeviceSpace]
    chunks: dict[int, int]
    extents: dict[int, list[tuple[int, int]]]


def capacity(
    sizes: Mapping[int, int],
    data_flags: int,
    metadata_flags: int,
    *,
    system_flags: int | None = None,
    metadata_per_data: float = 1 / DATA_PER_METADATA,
    nodesize: int = 16384,
) -> Filling:
    """Make a filesystem in memory, and write data to it until there is no space for more.

    Args:
        sizes: Bytes of each device, by devid.
        data_flags: Type and profile of data chunks; of mixed ones, with both types.
        metadata_flags: The same for metadata; not used if they are mixed.
        system_flags: The same for system chunks; by default they have the profile of metadata.
        metadata_per_data: Bytes of metadata for each byte of data.
        nodesize: Bytes of a tree block.

    Returns:
        What it then has, the chunks that mkfs.btrfs made included. There are none of a profile
        that cannot be made from so many devices.
    """
    if data_flags & BLOCK_GROUP_METADATA:
        metadata_flags = data_flags
    if system_flags is None:
        system_flags = BLOCK_GROUP_SYSTEM | metadata_flags & BLOCK_GROUP_PROFILE_MASK
    made = new_filesystem(sizes, data_flags, metadata_flags, system_flags)
    data, metadata = made.chunks.get(data_flags, 0), made.chunks.get(metadata_flags, 0)
    filling = fill(
        made.devices,
        data_flags,
        metadata_flags,
        free_data=data,
        need=MetadataNeed(
            metadata_per_data,
            metadata,
            _FIRST_NODES * nodesize,
            _RESERVE_NODES * nodesize,
            _FIRST_RESERVED_NODES * nodesize,
        ),
        nodesize=nodesize,
    )
    filling.data += data
    if metadata_flags != data_flags:
        filling.metadata += metadata
    return filling


@dataclass(slots=True)
class _Device:
    """A device while it is being written to, which goes on from where it ended.

    Attributes:
        devid: Number of the device.
        total_bytes: Bytes of it.
        end: Where the next device extent begins.
        extents: Address and length of each device extent.
    """

    devid: int
    total_bytes: int
    end: int = DEVICE_RANGE_RESERVED
    extents: list[tuple[int, int]] = field(default_factory=list)

    @property
    def available(self) -> int:
        """Bytes that are left."""
        return max(0, self.total_bytes - self.end)

    def take(self, length: int, *, stays: bool = True) -> None:
        """Put a device extent on it, one that stays or one that is removed in the end."""
        if stays:
            self.extents.append((self.end, length))
        self.end += length

    def space(self) -> DeviceSpace:
        """Return what is left of it."""
        taken = sum(length for _, length in self.extents)
        holes = holes_between(self.total_bytes, self.extents)
        return DeviceSpace(self.devid, self.total_bytes, self.total_bytes - taken, holes)


def new_filesystem(
    sizes: Mapping[int, int], data_flags: int, metadata_flags: int, system_flags: int
) -> NewFilesystem:
    """Lay out what mkfs.btrfs makes.

    Args:
        sizes: Bytes of each device, by devid.
        data_flags: Type and profile of the data chunk; of a mixed one, with both types.
        metadata_flags: The same for metadata; not used if they are mixed.
        system_flags: The same for the system chunk.
    """
    devices = [_Device(devid, size) for devid, size in sizes.items()]
    wanted = list(dict.fromkeys((system_flags, metadata_flags, data_flags)))
    if data_flags & BLOCK_GROUP_METADATA:
        wanted = [system_flags, data_flags]
    chunks = {}
    for flags in wanted:
        small = _SMALL_SYSTEM_CHUNK if flags & BLOCK_GROUP_SYSTEM else _SMALL_CHUNK
        stays = not flags & BLOCK_GROUP_PROFILE_MASK and devices[0].available >= small
        devices[0].take(small, stays=stays)
        if stays:
            chunks[flags] = small
    for flags in wanted:
        if flags & BLOCK_GROUP_PROFILE_MASK and (length := _make_chunk(devices, flags)):
            chunks[flags] = length
    return NewFilesystem(
        [device.space() for device in devices],
        chunks,
        {device.devid: device.extents for device in devices},
    )


def _make_chunk(devices: Sequence[_Device], flags: int) -> int:
    """Make a chunk; return the bytes of virtual address space of it, 0 if there is no place."""
    dev_stripes = 2 if flags & BLOCK_GROUP_DUP else 1
    used = devices_used(flags, len(devices))
    if used == 0:
        return 0
    stripe_size = _stripe_size(flags, used * dev_stripes, sum(d.total_bytes for d in devices))
    # It takes the devices as they come, the last one first, no matter what space they have.
    needed = stripe_size * dev_stripes
    fitting = [device for device in reversed(devices) if device.available >= needed]
    used = devices_used(flags, len(fitting))
    for device in fitting[:used]:
        for _ in range(dev_stripes):
            device.take(stripe_size)
    if used == 0:
        return 0
    return profiles.dev_extent_length_to_chunk_length(flags, used * dev_stripes, stripe_size)


def _stripe_size(flags: int, num_stripes: int, total_bytes: int) -> int:
    """Return the bytes of each device extent of a chunk."""
    stripe_size, most, least = _limits(flags & BLOCK_GROUP_TYPE_MASK, total_bytes)
    most = min(most, total_bytes // 10)
    if profiles.dev_extent_length_to_chunk_length(flags, num_stripes, stripe_size) > most:
        # By the number of all stripes, also of those that hold a copy or parity.
        stripe_size = most // num_stripes
    stripe_size -= stripe_size % STRIPE_LEN
    return max(stripe_size, least)


def _limits(type_: int, total_bytes: int) -> tuple[int, int, int]:
    """Return the bytes that a stripe should have, the most of a chunk, the least of a stripe."""
    if type_ & BLOCK_GROUP_SYSTEM:
        return 8 * _1M, 16 * _1M, _1M
    if type_ & BLOCK_GROUP_DATA:
        return _1G, 10 * _1G, 64 * _1M
    if total_bytes > SMALL_FILESYSTEM:
        return _1G, _1G, 32 * _1M
    return 256 * _1M, 256 * _1M, 32 * _1M
