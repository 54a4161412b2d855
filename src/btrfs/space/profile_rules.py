"""Profiles as the allocator applies them: how many devices they need, and which one new chunks get.

What the kernel has in btrfs_raid_array follows from :data:`btrfs.ondisk.profiles.PROFILES`.
"""

from __future__ import annotations

from collections.abc import Iterable

from btrfs.ondisk.constants import (
    BLOCK_GROUP_DUP,
    BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_RAID0,
    BLOCK_GROUP_RAID1,
    BLOCK_GROUP_RAID1C3,
    BLOCK_GROUP_RAID1C4,
    BLOCK_GROUP_RAID5,
    BLOCK_GROUP_RAID6,
    BLOCK_GROUP_RAID10,
    BLOCK_GROUP_TYPE_MASK,
)
from btrfs.ondisk.profiles import profile_of
from btrfs.ondisk.text import space_profile_description

__all__ = [
    "TooFewDevicesError",
    "dev_stripes",
    "devices_used",
    "require_devices",
    "target_of",
    "usable_for",
]


class TooFewDevicesError(ValueError):
    """A profile cannot be made from the devices given."""


def dev_stripes(flags: int) -> int:
    """Return how many device extents a chunk has on each device."""
    return 2 if flags & BLOCK_GROUP_DUP else 1


def _devs_min(flags: int) -> int:
    """Return how many devices a chunk needs."""
    return profile_of(flags).min_stripes // dev_stripes(flags)


def _devs_increment(flags: int) -> int:
    """Return what the number of devices of a chunk must be a multiple of."""
    return profile_of(flags).ncopies // dev_stripes(flags)


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
    return used if profile_of(flags).striped else increment


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
