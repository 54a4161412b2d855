"""Writing data to devices until there is no space for more, with the metadata that it needs.

devices = [DeviceSpace.empty(devid, size) for devid, size in enumerate(sizes, 1)]
filling = fill(devices, DATA | RAID1, METADATA | RAID1)
print(filling.data, filling.writable)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from btrfs.ondisk.constants import BLOCK_GROUP_METADATA
from btrfs.ondisk.profiles import profile_of
from btrfs.space.allocator import Allocator
from btrfs.space.devices import DeviceSpace

__all__ = ["Filling", "MetadataNeed", "fill", "metadata_per_data"]

_1M = 1 << 20
_1G = 1 << 30


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
    left = allocator.unallocated // profile_of(metadata_flags).ncopies
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
    left = allocator.unallocated // profile_of(flags).ncopies
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
