"""The space of devices: the holes between their device extents, which new ones may take."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btrfs.ondisk.items.device import DevExtent

__all__ = ["DEVICE_RANGE_RESERVED", "DeviceSpace", "device_spaces", "holes_between"]

# fs/btrfs/fs.h.
DEVICE_RANGE_RESERVED = 1 << 20


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
