"""What the kernel's chunk allocator would do with the space that devices have left.

Nobody can know how much can still be written without knowing which chunks the kernel would make:
how long their device extents are, and on which devices. So this module makes them, in memory, by
the kernel's rules (btrfs_create_chunk() in fs/btrfs/volumes.c, as in Linux 6.18)::

    devices = [allocator.DeviceSpace.empty(devid, size) for devid, size in enumerate(sizes, 1)]
    filling = allocator.fill(devices, DATA | RAID1, METADATA | RAID1)
    print(filling.data, filling.writable)

:class:`DeviceSpace` is one device: the holes between its device extents. :class:`Allocator` makes
chunks on a set of them. :func:`fill` writes data until there is no more space, and makes metadata
chunks as the data needs them.

What it leaves out are the copies of the superblock, 64 KiB each, that no extent may lie on.

The kernel makes one chunk after the other, which for a hundred large devices are millions. Most of
them are like the one before, so :meth:`Allocator.allocate` makes as many as are alike at once: the
device extents of such a row are spread over the devices so that those with the most space give the
most, which is where the kernel's choice of the emptiest devices leads to in the end.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from btrfs.ondisk import profiles
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_DUP,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_RAID0,
    BLOCK_GROUP_RAID1,
    BLOCK_GROUP_RAID1C3,
    BLOCK_GROUP_RAID1C4,
    BLOCK_GROUP_RAID5,
    BLOCK_GROUP_RAID6,
    BLOCK_GROUP_RAID10,
    BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK,
    STRIPE_LEN,
)
from btrfs.ondisk.text import space_profile_description

if TYPE_CHECKING:
    from btrfs.ondisk.items.device import DevExtent

__all__ = [
    "Allocated",
    "Allocator",
    "DeviceSpace",
    "Filling",
    "MetadataNeed",
    "TooFewDevicesError",
    "device_spaces",
    "devices_used",
    "fill",
    "holes_between",
    "metadata_per_data",
    "require_devices",
    "target_of",
    "usable_for",
]

_1M = 1 << 20
_1G = 1 << 30

# fs/btrfs/volumes.h and fs.h.
DEVICE_RANGE_RESERVED = _1M
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


class TooFewDevicesError(ValueError):
    """A profile cannot be made from the devices given."""


@dataclass(slots=True)
class DeviceSpace:
    """The space of one device.

    Attributes:
        devid: Number of the device.
        total_bytes: Bytes that the filesystem may use.
        unallocated: Bytes of it that no device extent takes, the reserved first MiB included.
        holes: Bytes of each free range that device extents may take, in the order of addresses.
    """

    devid: int
    total_bytes: int
    unallocated: int
    holes: list[int]

    @classmethod
    def empty(cls, devid: int, total_bytes: int) -> DeviceSpace:
        """Return a device with nothing on it.

        Args:
            devid: Number of the device.
            total_bytes: Bytes that the filesystem may use.
        """
        return cls(devid, total_bytes, total_bytes, holes_between(total_bytes, []))

    def copy(self) -> DeviceSpace:
        """Return one like it, to allocate from."""
        return DeviceSpace(self.devid, self.total_bytes, self.unallocated, list(self.holes))

    def hole_for(self, wanted: int) -> int:
        """Return which hole a device extent of ``wanted`` bytes goes into.

        It is the first that is large enough; if none is, the largest (find_free_dev_extent()).
        There must be a hole.
        """
        largest = 0
        for index, length in enumerate(self.holes):
            if length >= wanted:
                return index
            if length > self.holes[largest]:
                largest = index
        return largest

    def available(self, wanted: int) -> int:
        """Return the bytes of the hole that hole_for() finds, but no more than wanted."""
        if not self.holes:
            return 0
        return min(self.holes[self.hole_for(wanted)], wanted)

    def take(self, length: int, wanted: int, count: int = 1) -> None:
        """Allocate device extents.

        Args:
            length: Bytes of each.
            wanted: Bytes that the allocator would have liked each to have.
            count: How many.
        """
        self.unallocated -= length * count
        while count:
            index = self.hole_for(wanted)
            fit = _extents_in_hole(self.holes[index], length, wanted)
            taken = min(count, max(fit, 1))
            self.holes[index] -= taken * length
            count -= taken

    def room_for(self, length: int, wanted: int) -> int:
        """Return how many device extents fit while there is a hole of ``wanted`` bytes for each.

        Args:
            length: Bytes of each.
            wanted: Bytes that the allocator would like each to have.
        """
        return sum(_extents_in_hole(hole, length, wanted) for hole in self.holes)


def _extents_in_hole(hole: int, length: int, wanted: int) -> int:
    """Return how many extents a hole gives, each taken while it still has ``wanted`` bytes."""
    return (hole - wanted) // length + 1 if hole >= wanted else 0


def holes_between(total_bytes: int, extents: Iterable[tuple[int, int]]) -> list[int]:
    """Return the bytes of each free range of a device.

    Args:
        total_bytes: Bytes of the device.
        extents: Address and length of each device extent, in the order of addresses.
    """
    holes = []
    position = DEVICE_RANGE_RESERVED
    for start, length in extents:
        if start > position:
            holes.append(start - position)
        position = max(position, start + length)
    if total_bytes > position:
        holes.append(total_bytes - position)
    return holes


def device_spaces(
    devices: Iterable[tuple[int, int, int]], extents: Iterable[DevExtent]
) -> list[DeviceSpace]:
    """Return the devices of a filesystem with the holes on them.

    Args:
        devices: Devid, bytes that the filesystem may use, and those of them that are unallocated.
        extents: All device extents, those of a device in the order of addresses.
    """
    spaces = {devid: DeviceSpace(devid, total, left, []) for devid, total, left in devices}
    taken: dict[int, list[tuple[int, int]]] = {devid: [] for devid in spaces}
    for extent in extents:
        if extent.devid in taken:
            taken[extent.devid].append((extent.paddr, extent.length))
    for devid, space in spaces.items():
        space.holes = holes_between(space.total_bytes, taken[devid])
    return list(spaces.values())


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

        It takes devices of sizes that nobody has, as a damaged filesystem can say.
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
        dev_stripes = _dev_stripes(flags)
        wanted = min(self._space_chunk_size(flags), MAX_STRIPE_SIZE) * dev_stripes
        ranked = self._ranked(wanted, STRIPE_LEN * dev_stripes)
        most_stripes = MAX_STRIPES_SYSTEM if flags & BLOCK_GROUP_SYSTEM else self._most_stripes
        used = min(devices_used(flags, len(ranked)), most_stripes)
        if used == 0:
            return None
        stripe_size = self._stripe_size(flags, used, ranked[used - 1].available)
        if stripe_size == 0:
            return None
        num_stripes = used * dev_stripes
        length = profiles.dev_extent_length_to_chunk_length(flags, num_stripes, stripe_size)
        counts, tries = _equal_steps(
            ranked, used, stripe_size * dev_stripes, wanted, most // length
        )
        self._effort += tries * _EFFORT_PER_TRY * len(ranked)
        for candidate, count in zip(ranked, counts, strict=False):
            if count:
                candidate.device.take(stripe_size * dev_stripes, wanted, count)
        return Allocated(sum(counts) // used, length, stripe_size, num_stripes)

    def take_rest(self, flags: int) -> int:
        """Take all that is left, as if chunks could be made of all of it.

        Args:
            flags: Type and profile of the chunks.

        Returns:
            Bytes of virtual address space.
        """
        left = sum(sum(device.holes) for device in self.devices)
        num_stripes = devices_used(flags, len(self.devices)) * _dev_stripes(flags)
        if num_stripes == 0:
            return 0
        for device in self.devices:
            device.unallocated -= sum(device.holes)
            device.holes.clear()
        return profiles.dev_extent_length_to_chunk_length(flags, num_stripes, left // num_stripes)

    def _space_chunk_size(self, flags: int) -> int:
        """Return the limit that is set for a type of chunk (calc_chunk_size())."""
        if flags & BLOCK_GROUP_DATA:
            return profiles.BTRFS_MAX_DATA_CHUNK_SIZE
        if flags & BLOCK_GROUP_SYSTEM:
            return MAX_SYSTEM_CHUNK_SIZE
        if self._total_bytes > SMALL_FILESYSTEM:
            return MAX_METADATA_CHUNK_SIZE
        return MAX_METADATA_CHUNK_SIZE_SMALL

    def _ranked(self, wanted: int, least: int) -> list[_Candidate]:
        """Return the devices with enough space, the best first (gather_device_info())."""
        candidates = [
            _Candidate(available, device.unallocated, device)
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
        profile = profiles.profile_of(flags)
        dev_stripes = _dev_stripes(flags)
        data_stripes = (used * dev_stripes - profile.nparity) // profile.ncopies
        stripe_size = available // dev_stripes
        chunk_size = self.chunk_size(flags)
        if stripe_size * data_stripes > chunk_size:
            rounded = -(-(chunk_size // data_stripes) // STRIPE_SIZE_ALIGNMENT)
            stripe_size = min(stripe_size, rounded * STRIPE_SIZE_ALIGNMENT)
        stripe_size = min(stripe_size, MAX_STRIPE_SIZE)
        return stripe_size - stripe_size % STRIPE_LEN


class _Candidate(NamedTuple):
    """A device that a chunk may use (struct btrfs_device_info).

    Attributes:
        available: Bytes of the hole that it would give, no more than wanted.
        unallocated: Bytes in all its holes.
        device: The device.
    """

    available: int
    unallocated: int
    device: DeviceSpace


# What the kernel has in btrfs_raid_array follows from the table of profiles.


def _dev_stripes(flags: int) -> int:
    """Return how many device extents a chunk has on each device."""
    return 2 if flags & BLOCK_GROUP_DUP else 1


def _devs_min(flags: int) -> int:
    """Return how many devices a chunk needs."""
    return profiles.profile_of(flags).min_stripes // _dev_stripes(flags)


def _devs_increment(flags: int) -> int:
    """Return what the number of devices of a chunk must be a multiple of."""
    return profiles.profile_of(flags).ncopies // _dev_stripes(flags)


def devices_used(flags: int, available: int) -> int:
    """Return how many of the devices that have space a chunk uses; 0 if there are too few.

    Args:
        flags: Type and profile of the chunk.
        available: How many devices have space.
    """
    increment = _devs_increment(flags)
    used = available - available % increment
    if used < _devs_min(flags):
        return 0
    return used if profiles.profile_of(flags).striped else increment


def require_devices(flags: int, devices: int) -> None:
    """Check that a profile can be made from so many devices.

    Raises:
        TooFewDevicesError: It needs more.
    """
    if devices < _devs_min(flags):
        raise TooFewDevicesError(
            f"{space_profile_description(flags)} needs {_devs_min(flags)} devices or more, "
            f"but there are {devices}"
        )


# Many equal chunks at once.

# So many extents are left on each device to be made one by one.
_LAST_STEPS = 4

# What making chunks costs, in units of about 0.2 microseconds, and where it ends: after some
# seconds. A hundred devices of 20 TB with nothing on them take a quarter of that.
_EFFORT_PER_CALL = 100
_EFFORT_PER_DEVICE = 20
_EFFORT_PER_TRY = 40
_MOST_EFFORT = 20_000_000


def _equal_steps(
    ranked: Sequence[_Candidate], used: int, length: int, wanted: int, most: int
) -> tuple[list[int], int]:
    """Return how many extents each device gives to the next chunks, all of them alike.

    Args:
        ranked: The devices that have space, the best first.
        used: How many of them each chunk uses.
        length: Bytes that a chunk takes on each of them.
        wanted: Bytes that the allocator would like to find in one hole.
        most: Make no more chunks than this, but always one.

    Returns:
        Numbers in the order of ``ranked``; and how many ways to spread them were tried.
    """
    one = [1] * used
    if most <= 1:
        return one, 0
    if used == len(ranked):
        room = [_steady_room(candidate, length, wanted) for candidate in ranked]
        return [min(most, *room)] * used, 0
    # The choice goes round among the devices that have a hole as large as wanted.
    full = [candidate for candidate in ranked if candidate.available == wanted]
    if used > len(full):
        return one, 0
    # For the last chunks, it matters which of the devices each of them is on.
    room = [candidate.device.room_for(length, wanted) - _LAST_STEPS for candidate in full]
    unallocated = [candidate.unallocated for candidate in full]

    def counts_of(steps: int) -> list[int] | None:
        counts = _levelled(unallocated, length, used, steps)
        return counts if all(map(operator.le, counts, room)) else None

    steps = min(most, sum(room) // used)
    if steps < 2 or counts_of(2) is None:
        return one, 1
    tries = 2
    while (counts := counts_of(steps)) is None:
        steps = max(2, steps // 2)
        tries += 1
    return counts, tries


def _steady_room(candidate: _Candidate, length: int, wanted: int) -> int:
    """Return how many extents a device gives before the next one may look different; at least 1."""
    if candidate.available == wanted:
        return candidate.device.room_for(length, wanted)
    if len(candidate.device.holes) == 1:
        return max(1, candidate.available // length)
    return 1


def _levelled(unallocated: Sequence[int], length: int, used: int, steps: int) -> list[int]:
    """Spread extents so that the devices with the most space give the most.

    Each of the chunks takes one extent from each of the ``used`` devices that have the most space
    then. After many of them, the devices that took part have the same space left, but for those
    that were used each time and still have more.

    Args:
        unallocated: Bytes of each device, largest first.
        length: Bytes of each extent.
        used: Devices that each chunk uses.
        steps: How many chunks.

    Returns:
        How many extents each device gives: used * steps in all, and no more than steps from one.
    """

    def counts_down_to(level: int) -> list[int]:
        return [min(steps, max(0, (bytes_ - level) // length)) for bytes_ in unallocated]

    total = used * steps
    low, high = unallocated[-1] - (total // len(unallocated) + 2) * length, unallocated[0]
    while high - low > 1:
        middle = (low + high) // 2
        if sum(counts_down_to(middle)) >= total:
            low = middle
        else:
            high = middle
        if high - low < length // 4:
            break
    counts = counts_down_to(low)
    excess = sum(counts) - total
    for index in reversed(range(len(counts))):
        if excess == 0:
            break
        if counts[index]:
            counts[index] -= 1
            excess -= 1
    return counts


# Writing until there is no more space.


@dataclass(frozen=True, slots=True)
class MetadataNeed:
    """What metadata there is, and how much of it data to come needs.

    Attributes:
        per_data: Bytes of metadata for each byte of data.
        total: Bytes of virtual address space of metadata chunks.
        used: Bytes of it that tree blocks take.
        reserve: Bytes of the global reserve, which nothing else may use.
        reserved_trees: Bytes of the trees that the reserve grows with.
    """

    per_data: float
    total: int = 0
    used: int = 0
    reserve: int = 0
    reserved_trees: int = 0

    def used_with(self, data: int) -> int:
        """Return the bytes of tree blocks after so many more bytes of data."""
        return self.used + math.ceil(data * self.per_data)

    def needed_with(self, data: int) -> int:
        """Return the bytes that metadata chunks must have for so many more bytes of data.

        The global reserve grows with the trees that it is there for, up to a limit
        (btrfs_update_global_block_rsv()).
        """
        trees = self.reserved_trees + math.ceil(data * self.per_data)
        return self.used_with(data) + max(self.reserve, min(trees, _MAX_GLOBAL_RESERVE))


_MAX_GLOBAL_RESERVE = 512 * _1M
# should_alloc_chunk(): metadata that takes less of its chunks than this gets no other one.
_METADATA_FULL = 0.8
_METADATA_SLACK = 2 * _1M
# Headers of leaves, keys, inner nodes, and the items of extents, in proportion to the checksums.
_CSUM_TREE_OVERHEAD = 1 / 32
# Items for an extent of data, which is of the largest size in a large file.
_ITEMS_PER_EXTENT = 256
_MAX_EXTENT_SIZE = 128 * _1M
# Data is written in portions of at most this part of what is left, with metadata in between.
_PORTION = 16
_UNLIMITED = 1 << 63


def metadata_per_data(csum_size: int, sectorsize: int) -> float:
    """Return the bytes of metadata that each byte of data needs, written to a large file.

    Args:
        csum_size: Bytes of a checksum.
        sectorsize: Bytes of data that it is made of.
    """
    return csum_size / sectorsize * (1 + _CSUM_TREE_OVERHEAD) + _ITEMS_PER_EXTENT / _MAX_EXTENT_SIZE


def usable_for(flags: int, target: int) -> bool:
    """Return whether the kernel puts what it writes into a block group of another profile.

    It does so only if new chunks are to be single (find_free_extent()).

    Args:
        flags: Type and profile of the block group.
        target: Type and profile that new chunks get.
    """
    if (flags ^ target) & BLOCK_GROUP_TYPE_MASK:
        return False
    return flags & target == target


# btrfs_reduce_alloc_profile(): the first of these that there is.
_PREFERRED = (
    BLOCK_GROUP_RAID1C4,
    BLOCK_GROUP_RAID6,
    BLOCK_GROUP_RAID1C3,
    BLOCK_GROUP_RAID5,
    BLOCK_GROUP_RAID10,
    BLOCK_GROUP_RAID1,
    BLOCK_GROUP_DUP,
    BLOCK_GROUP_RAID0,
)


def target_of(block_group_type: int, present: Iterable[int], devices: int) -> int:
    """Return the type and profile that the kernel gives new chunks while no balance is running.

    Where a conversion was not finished, that is the profile which survives the most, of those that
    there are block groups of, no matter which of them are the newest.

    Args:
        block_group_type: Type of the chunks.
        present: Type and profile of the block groups that there are.
        devices: Number of devices.
    """
    profiles = 0
    for flags in present:
        if flags & BLOCK_GROUP_TYPE_MASK == block_group_type:
            profiles |= flags & BLOCK_GROUP_PROFILE_MASK
    for profile in _PREFERRED:
        if profiles & profile and devices >= _devs_min(profile):
            return block_group_type | profile
    return block_group_type


@dataclass(slots=True)
class Filling:
    """What became of devices that were filled.

    Attributes:
        devices: The devices, with what could not be allocated.
        data: Bytes of virtual address space of new data chunks, or of mixed ones.
        metadata: The same of new metadata chunks.
        writable: Bytes of data that can be written, to chunks that there were and to new ones.
    """

    devices: list[DeviceSpace]
    data: int = 0
    metadata: int = 0
    writable: int = 0


def fill(
    devices: Iterable[DeviceSpace],
    data_flags: int,
    metadata_flags: int,
    *,
    free_data: int = 0,
    need: MetadataNeed | None = None,
    nodesize: int = 16384,
) -> Filling:
    """Write data to devices until there is no space for more.

    Args:
        devices: They are not changed.
        data_flags: Type and profile of new chunks for data; of mixed ones, with both types.
        metadata_flags: The same for metadata; not used if they are mixed.
        free_data: Bytes that are free in chunks for data.
        need: Metadata that there is and that will be needed; by default a new filesystem with
            32-bit checksums.
        nodesize: Bytes of a tree block.
    """
    if need is None:
        need = MetadataNeed(metadata_per_data(4, 4096))
    allocator = Allocator([device.copy() for device in devices], nodesize)
    if data_flags & BLOCK_GROUP_METADATA:
        return _fill_mixed(allocator, data_flags, free_data, need)
    return _fill_separate(allocator, data_flags, metadata_flags, free_data, need)


def _fill_mixed(allocator: Allocator, flags: int, free: int, need: MetadataNeed) -> Filling:
    """Write data into block groups that hold both data and metadata."""
    filling = Filling(list(allocator.devices))
    while allocated := allocator.allocate(flags, most=_UNLIMITED):
        filling.data += allocated.total
    if allocator.exhausted:
        filling.data += allocator.take_rest(flags)
    # What is used now is not in what is free.
    more = MetadataNeed(need.per_data, 0, 0, need.reserve, need.reserved_trees)
    space = free + filling.data
    filling.writable = _most_data(lambda data: data + more.needed_with(data) <= space, space)
    return filling


def _fill_separate(
    allocator: Allocator, data_flags: int, metadata_flags: int, free: int, need: MetadataNeed
) -> Filling:
    """Write data into block groups of its own."""
    filling = Filling(list(allocator.devices))
    while True:
        data = free + filling.data
        if _metadata_is_short(allocator, data_flags, metadata_flags, need, filling, data):
            missing = need.used_with(data) - need.total - filling.metadata
            _add_metadata(allocator, metadata_flags, filling, missing)
        portion = _portion(allocator, data_flags, need, filling, data)
        allocated = allocator.allocate(data_flags, most=portion)
        if allocated is None:
            break
        filling.data += allocated.total
    if allocator.exhausted:
        filling.data += allocator.take_rest(data_flags)
    space = free + filling.data
    metadata = need.total + filling.metadata
    reservable = metadata + _overcommitted(allocator, data_flags, metadata_flags)
    filling.writable = _most_data(
        lambda data: need.used_with(data) <= metadata and need.needed_with(data) <= reservable,
        space,
    )
    return filling


def _metadata_is_short(
    allocator: Allocator,
    data_flags: int,
    metadata_flags: int,
    need: MetadataNeed,
    filling: Filling,
    data: int,
) -> bool:
    """Return whether there will be another metadata chunk when so much data is written.

    Tree blocks have no place any more, or what is reserved for them goes too far beyond the place
    that there is: it may do so by an eighth of what could be allocated to metadata, without what
    the next data chunk will take (calc_available_free_space()).
    """
    total = need.total + filling.metadata
    used = need.used_with(data)
    if used >= total:
        return True
    if used + _METADATA_SLACK < _METADATA_FULL * total:
        return False
    overcommitted = _overcommitted(allocator, data_flags, metadata_flags)
    return need.needed_with(data) + _METADATA_SLACK > total + overcommitted


def _overcommitted(allocator: Allocator, data_flags: int, metadata_flags: int) -> int:
    """Return the bytes by which more metadata may be reserved than there is place for.

    The kernel counts on what is unallocated, no matter whether a chunk could be made from it.
    """
    left = allocator.unallocated // profiles.profile_of(metadata_flags).ncopies
    left -= min(allocator.chunk_size(data_flags), _1G)
    return max(0, left) // 8


def _add_metadata(allocator: Allocator, flags: int, filling: Filling, missing: int) -> None:
    """Make metadata chunks of so many bytes together, at least one if there is space."""
    while allocated := allocator.allocate(flags, most=missing):
        filling.metadata += allocated.total
        missing -= allocated.total
        if missing <= 0:
            break


def _portion(
    allocator: Allocator, flags: int, need: MetadataNeed, filling: Filling, data: int
) -> int:
    """Return how many bytes of data to make chunks for before looking at the metadata again."""
    left = allocator.unallocated // profiles.profile_of(flags).ncopies
    total = need.total + filling.metadata
    used = need.used_with(data)
    if used + _METADATA_SLACK >= _METADATA_FULL * total:
        return left // _PORTION
    return max(left // _PORTION, math.floor((_METADATA_FULL * total - used) / need.per_data))


def _most_data(enough: Callable[[int], bool], space: int) -> int:
    """Return the most bytes of data, up to space, that there is enough of all else for."""
    if enough(space):
        return space
    low, high = 0, space
    while high - low > 1:
        middle = (low + high) // 2
        if enough(middle):
            low = middle
        else:
            high = middle
    return low
