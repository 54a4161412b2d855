"""What the kernel would do with the contents of block groups that are moved.

:class:`Simulation` holds the block groups and devices of a filesystem, and
:meth:`Simulation.move` does in memory what a balance of one block group does: each extent goes,
in one piece, into the first hole between the extents of other block groups that is large enough;
where there is none, a new block group is made (prealloc_file_extent_cluster() in
fs/btrfs/relocation.c). So free space that is in small pieces takes up no large extents.

Since Linux 6.3, the block groups of data have a size class, that of the smallest extents in them.
An extent of another class is put there only if no new block group can be made
(find_free_extent() in fs/btrfs/extent-tree.c). A filesystem that is not mounted is taken for one
that such a kernel will mount.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from btrfs.ondisk import profiles
from btrfs.ondisk.constants import BLOCK_GROUP_DATA, BLOCK_GROUP_METADATA, BLOCK_GROUP_TYPE_MASK
from btrfs.ondisk.items.extent import ExtentItem, MetaDataItem
from btrfs.ondisk.key import Key
from btrfs.space.allocator import Allocator
from btrfs.space.devices import device_spaces
from btrfs.space.profile_rules import target_of, usable_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import BlockGroupItem, Chunk

__all__ = ["SimulatedGroup", "Simulation", "kernel_version"]

# enum btrfs_block_group_size_class: what is larger than these, is in the next class.
_SIZE_CLASSES = (128 << 10, 8 << 20)
_KERNEL_WITH_CLASSES = (6, 3)
# How many extents the kernel looks at to find the class (load_block_group_size_class()).
_CLASS_SAMPLES = 5

# No more different lengths of extents than this are told apart in a block group.
_MOST_LENGTHS = 256
# The others are rounded up to so many significant bits.
_SIGNIFICANT_BITS = 5


@dataclass(slots=True)
class SimulatedGroup:
    """A block group that can be filled in memory.

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes of it.
        flags: Type and profile.
        used: Bytes of it that are used.
        on_devices: Devid and bytes of each device extent.
        contents: The extents and the holes, once they were asked for.
    """

    vaddr: int
    length: int
    flags: int
    used: int
    on_devices: list[tuple[int, int]]
    contents: _Contents | None = None

    @property
    def used_pct(self) -> int:
        """Percentage of it that is used."""
        return round(self.used * 100 / self.length)

    @property
    def free(self) -> int:
        """Bytes of it that are not used."""
        return self.length - self.used


@dataclass(slots=True)
class _Contents:
    """What is in a block group.

    Attributes:
        extents: How many extents there are of each length in bytes.
        holes: Bytes of each range between the extents, in the order of addresses.
        size_class: The class of extents that are put there; None if there are none yet, or if
            block groups of this type have no class.
    """

    extents: Counter[int]
    holes: NDArray[np.uint64]
    size_class: int | None = None

    @property
    def largest_hole(self) -> int:
        """Bytes of the largest hole; 0 if there is none."""
        return int(self.holes.max(initial=0))

    def add(self, length: int, count: int) -> int:
        """Put extents into the holes, the first ones first; return how many found a place.

        Args:
            length: Bytes of each.
            count: How many.
        """
        room = self.holes // np.uint64(length)
        before = np.cumsum(room) - room
        taken = np.minimum(room, np.uint64(count) - np.minimum(before, np.uint64(count)))
        placed = int(taken.sum())
        if placed:
            self.holes = self.holes - taken * np.uint64(length)
            self.extents[length] += placed
        return placed

    def copy(self) -> _Contents:
        """Return one like it, to be changed."""
        return _Contents(self.extents.copy(), self.holes, self.size_class)


class Simulation:
    """The block groups and devices of a filesystem, to be changed in memory.

    Attributes:
        groups: The block groups by address.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._has_classes = not fs.mounted or kernel_version() >= _KERNEL_WITH_CLASSES
        chunks = {chunk.vaddr: chunk for chunk in fs.chunks()}
        self.groups = {
            group.vaddr: _simulated(group, chunks[group.vaddr])
            for group in fs.block_groups()
            if group.vaddr in chunks
        }
        devices = [
            (device.devid, device.total_bytes, device.total_bytes - device.bytes_used)
            for device in fs.devices()
        ]
        spaces = device_spaces(devices, fs.dev_extents())
        self._allocator = Allocator(spaces, fs.nodesize)

    def unallocated(self, devid: int | None) -> int:
        """Return the bytes that are unallocated, on all devices or on one."""
        return sum(
            device.unallocated
            for device in self._allocator.devices
            if devid is None or device.devid == devid
        )

    def move(self, vaddr: int) -> bool:
        """Move what is in a block group to others, and remove it; return whether that went."""
        old = self.groups[vaddr]
        type_ = old.flags & BLOCK_GROUP_TYPE_MASK
        same = [g for g in self.groups.values() if g.flags & BLOCK_GROUP_TYPE_MASK == type_]
        present = (group.flags for group in same)
        target = target_of(type_, present, len(self._allocator.devices))
        others = [g for g in same if g is not old and usable_for(g.flags, target)]
        # If there is nothing in any of them, the kernel makes a new one first, so that the profile
        # is not forgotten (btrfs_may_alloc_data_chunk()).
        if type_ & BLOCK_GROUP_DATA and not any(group.used for group in same):
            if self._make(target) is None:
                return False
        elif not self._place(self._contents(old).extents, others, target):
            return False
        del self.groups[vaddr]
        self._free(old)
        return True

    def _place(self, extents: Counter[int], groups: Sequence[SimulatedGroup], target: int) -> bool:
        """Put extents into block groups and, where these are full, into new ones.

        Args:
            extents: How many there are of each length.
            groups: The block groups, the first ones first.
            target: Type and profile of new block groups.

        Returns:
            Whether all found a place. If not, nothing has changed but for new block groups.
        """
        filling = _Filling(self._contents)
        for size_class, alike in self._by_class(extents, target):
            suitable = [g for g in groups if filling.size_class(g) in {size_class, None}]
            # Those that have the class already come first.
            suitable.sort(key=lambda group: filling.size_class(group) is None)
            left = filling.fill(suitable, alike, size_class)
            while left and (made := self._make(target)) is not None:
                left = filling.fill([made], left, size_class)
            if filling.fill(groups, left, size_class):
                return False
        filling.apply()
        return True

    def _by_class(
        self, extents: Counter[int], target: int
    ) -> list[tuple[int | None, Counter[int]]]:
        """Return extents sorted by the size class that they will be in, the largest first."""
        if not self._classes(target):
            return [(None, _rounded(extents))]
        classes: dict[int | None, Counter[int]] = {}
        for length, count in sorted(_rounded(extents).items(), reverse=True):
            classes.setdefault(_class_of(length), Counter())[length] = count
        return list(classes.items())

    def _contents(self, group: SimulatedGroup) -> _Contents:
        if group.contents is None:
            group.contents = self._read(group)
        return group.contents

    def _read(self, group: SimulatedGroup) -> _Contents:
        """Return what the extent tree says of a block group."""
        vaddrs, lengths = _extents(self._fs, group)
        ends = np.concatenate(([np.uint64(group.vaddr)], vaddrs + lengths))
        begins = np.concatenate((vaddrs, [np.uint64(group.vaddr + group.length)]))
        holes = (begins - ends)[begins > ends]
        found, counts = np.unique(lengths, return_counts=True)
        extents = Counter(dict(zip(found.tolist(), counts.tolist(), strict=True)))
        classes = self._classes(group.flags)
        size_class = _sampled_class(group, vaddrs, lengths) if classes else None
        return _Contents(extents, holes, size_class)

    def _classes(self, flags: int) -> bool:
        """Return whether block groups of a type have size classes."""
        return self._has_classes and flags & BLOCK_GROUP_TYPE_MASK == BLOCK_GROUP_DATA

    def _make(self, flags: int) -> SimulatedGroup | None:
        """Make a block group, if there is space."""
        before = {device.devid: device.unallocated for device in self._allocator.devices}
        allocated = self._allocator.allocate(flags)
        if allocated is None:
            return None
        taken = [
            (device.devid, before[device.devid] - device.unallocated)
            for device in self._allocator.devices
            if device.unallocated != before[device.devid]
        ]
        vaddr = max(group.vaddr + group.length for group in self.groups.values())
        contents = _Contents(Counter(), np.array([allocated.length], np.uint64))
        made = SimulatedGroup(vaddr, allocated.length, flags, 0, taken, contents)
        self.groups[vaddr] = made
        return made

    def _free(self, group: SimulatedGroup) -> None:
        """Give the space of a block group back to the devices."""
        devices = {device.devid: device for device in self._allocator.devices}
        for devid, length in group.on_devices:
            if devid in devices:
                devices[devid].unallocated += length
                devices[devid].holes.append(length)


class _Filling:
    """Block groups that are being filled; nothing changes until apply() is called.

    Args:
        contents: Returns what is in a block group.
    """

    def __init__(self, contents: Callable[[SimulatedGroup], _Contents]) -> None:
        self._read = contents
        self._filled: dict[int, tuple[SimulatedGroup, _Contents]] = {}

    def size_class(self, group: SimulatedGroup) -> int | None:
        """Return the class of a block group as it is now; that of a full one does not matter."""
        return self._contents(group).size_class if group.free else -1

    def fill(
        self, groups: Sequence[SimulatedGroup], extents: Counter[int], size_class: int | None
    ) -> Counter[int]:
        """Put extents into block groups, the first ones first; return those without a place.

        Args:
            groups: The block groups.
            extents: How many there are of each length, all of one class.
            size_class: That class; block groups without one get it.
        """
        left = +extents
        for group in groups:
            if not left:
                break
            if group.free < min(left):
                continue
            largest = self._contents(group).largest_hole
            if largest < min(left):
                continue
            contents = self._contents(group).copy()
            placed = 0
            # The large ones first: they have the least choice.
            for length in sorted((length for length in left if length <= largest), reverse=True):
                fit = contents.add(length, left[length])
                left[length] -= fit
                placed += fit
            left = +left
            if placed:
                if contents.size_class is None:
                    contents.size_class = size_class
                self._filled[group.vaddr] = (group, contents)
        return left

    def apply(self) -> None:
        """Let the block groups be as they were filled."""
        for group, contents in self._filled.values():
            group.contents = contents
            group.used = group.length - int(contents.holes.sum())

    def _contents(self, group: SimulatedGroup) -> _Contents:
        if group.vaddr in self._filled:
            return self._filled[group.vaddr][1]
        return self._read(group)


def kernel_version() -> tuple[int, ...]:
    """Return the first two numbers of the version of the running kernel."""
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


def _class_of(length: int) -> int:
    return sum(length > limit for limit in _SIZE_CLASSES)


def _sampled_class(
    group: SimulatedGroup, vaddrs: NDArray[np.uint64], lengths: NDArray[np.uint64]
) -> int | None:
    """Return the size class that the kernel finds when it looks at the extents of a block group."""
    step = group.length // _CLASS_SAMPLES
    places = np.array([group.vaddr + i * step for i in range(_CLASS_SAMPLES)], np.uint64)
    found = np.searchsorted(vaddrs, places)
    samples = lengths[found[found < len(lengths)]]
    return _class_of(int(samples.min())) if len(samples) else None


def _simulated(group: BlockGroupItem, chunk: Chunk) -> SimulatedGroup:
    length = profiles.chunk_to_dev_extent_length(chunk)
    on_devices = [(stripe.devid, length) for stripe in chunk.stripes]
    return SimulatedGroup(group.vaddr, group.length, group.flags, group.used, on_devices)


def _extents(
    fs: FileSystem, group: SimulatedGroup
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return addresses and lengths of the extents in a block group, in the order of addresses."""
    first = Key(group.vaddr, 0, 0)
    last = Key(group.vaddr + group.length - 1, 255, -1)
    data = list(fs.columns(ExtentItem, first, last))
    vaddrs = [columns["vaddr"] for columns in data]
    lengths = [columns["length"] for columns in data]
    if group.flags & BLOCK_GROUP_METADATA or not group.flags & BLOCK_GROUP_DATA:
        blocks = [columns["vaddr"] for columns in fs.columns(MetaDataItem, first, last)]
        vaddrs += blocks
        lengths += [np.full(len(part), fs.nodesize, np.uint64) for part in blocks]
    if not vaddrs:
        return np.empty(0, np.uint64), np.empty(0, np.uint64)
    vaddr, length = np.concatenate(vaddrs), np.concatenate(lengths)
    order = np.argsort(vaddr, kind="stable")
    return vaddr[order], length[order]


def _rounded(extents: Counter[int]) -> Counter[int]:
    """Return the extents with their lengths rounded up, if there are too many different ones."""
    if len(extents) <= _MOST_LENGTHS:
        return +extents
    rounded: Counter[int] = Counter()
    for length, count in extents.items():
        unit = 1 << max(0, length.bit_length() - _SIGNIFICANT_BITS)
        rounded[-(-length // unit) * unit] += count
    return rounded
