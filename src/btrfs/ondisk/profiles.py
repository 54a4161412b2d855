"""Profiles: how a chunk of virtual address space is laid out on devices.

:data:`PROFILES` says for each profile what its stripes hold; the functions below convert between
the length of a chunk and that of its device extents (fs/btrfs/volumes.c, btrfs_raid_array).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from btrfs.errors import CorruptError
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
    BLOCK_GROUP_SINGLE,
    BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK,
    MAX_ADDRESS,
    STRIPE_LEN,
)

if TYPE_CHECKING:
    from btrfs.ondisk.items.chunk import Chunk

SZ_1G = 1 << 30
MIN_SECTORSIZE = 4096
BTRFS_MAX_DATA_CHUNK_SIZE = 10 * SZ_1G

# The kernel's order of profiles (enum btrfs_raid_types).
RAID_RAID10 = 0
RAID_RAID1 = 1
RAID_RAID1C3 = 2
RAID_RAID1C4 = 3
RAID_DUP = 4
RAID_RAID0 = 5
RAID_SINGLE = 6
RAID_RAID5 = 7
RAID_RAID6 = 8


class Profile(NamedTuple):
    """What the stripes of a chunk hold.

    Attributes:
        ncopies: How often each byte is stored.
        nparity: Stripes of each row that hold parity.
        sub_stripes: Neighbouring stripes that hold the same, while the others hold something else.
        min_stripes: Fewest stripes of a chunk.
        striped: Data goes on in another stripe after each 64 KiB.
    """

    ncopies: int
    nparity: int
    sub_stripes: int
    min_stripes: int
    striped: bool


PROFILES = {
    BLOCK_GROUP_SINGLE: Profile(1, 0, 1, 1, False),
    BLOCK_GROUP_DUP: Profile(2, 0, 1, 2, False),
    BLOCK_GROUP_RAID0: Profile(1, 0, 1, 1, True),
    BLOCK_GROUP_RAID1: Profile(2, 0, 1, 2, False),
    BLOCK_GROUP_RAID1C3: Profile(3, 0, 1, 3, False),
    BLOCK_GROUP_RAID1C4: Profile(4, 0, 1, 4, False),
    BLOCK_GROUP_RAID10: Profile(2, 0, 2, 2, True),
    BLOCK_GROUP_RAID5: Profile(1, 1, 1, 2, True),
    BLOCK_GROUP_RAID6: Profile(1, 2, 1, 3, True),
}


def profile_of(flags: int) -> Profile:
    """Return the profile of a block group, given its flags.

    Raises:
        ValueError: More than one bit of a profile is set.
    """
    try:
        return PROFILES[flags & BLOCK_GROUP_PROFILE_MASK]
    except KeyError:
        raise ValueError(f"0x{flags:x} has more than one profile") from None


def block_group_profile_ncopies(flags: int) -> int:
    """Return how often each byte is stored; parity is not a copy."""
    return profile_of(flags).ncopies


def chunk_length_to_dev_extent_length(flags: int, num_stripes: int, chunk_length: int) -> int:
    """Return the bytes of each device extent of a chunk.

    Args:
        flags: Type and profile of the chunk.
        num_stripes: How many device extents it has.
        chunk_length: Bytes of virtual address space.
    """
    profile = profile_of(flags)
    return chunk_length * profile.ncopies // (num_stripes - profile.nparity)


def dev_extent_length_to_chunk_length(flags: int, num_stripes: int, stripe_size: int) -> int:
    """Return the bytes of virtual address space of a chunk.

    Args:
        flags: Type and profile of the chunk.
        num_stripes: How many device extents it has.
        stripe_size: Bytes of each device extent.
    """
    profile = profile_of(flags)
    return stripe_size * (num_stripes - profile.nparity) // profile.ncopies


def chunk_to_dev_extent_length(chunk: Chunk) -> int:
    """Return the bytes of each device extent of a chunk."""
    return chunk_length_to_dev_extent_length(chunk.type, chunk.num_stripes, chunk.length)


def chunk_to_raw_parity_bytes(chunk: Chunk) -> int:
    """Return the bytes on devices that a chunk uses for parity."""
    return chunk_to_dev_extent_length(chunk) * profile_of(chunk.type).nparity


def check_chunk(chunk: Chunk) -> None:
    """Check a chunk before it is used, as the kernel does (btrfs_check_chunk_valid).

    Raises:
        CorruptError: A field is not as it must be.
    """
    for what, expected, found in _violations(chunk):
        raise CorruptError(f"chunk at {chunk.vaddr}, {what}", expected=expected, found=found)


def _violations(chunk: Chunk) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, expected and found value of each field that cannot be right."""
    profile = PROFILES.get(chunk.type & BLOCK_GROUP_PROFILE_MASK)
    if profile is None:
        yield "profile", "at most one bit", f"0x{chunk.type:x}"
        return
    stripes = chunk.num_stripes
    # Where data is not striped, each stripe is a copy of the whole chunk.
    stripes_right = (
        stripes >= profile.min_stripes if profile.striped else stripes == profile.ncopies
    )
    at_least = "at least " if profile.striped else ""
    aligned = f"a multiple of {MIN_SECTORSIZE}"
    end = chunk.vaddr + chunk.length
    last_stripe = max((stripe.offset for stripe in chunk.stripes), default=0)
    devices = len({stripe.devid for stripe in chunk.stripes})
    types = chunk.type & BLOCK_GROUP_TYPE_MASK
    for what, is_right, expected, found in (
        ("type", types, "a type", f"0x{chunk.type:x}"),
        (
            "type",
            not types & BLOCK_GROUP_SYSTEM or types == BLOCK_GROUP_SYSTEM,
            "SYSTEM alone",
            f"0x{chunk.type:x}",
        ),
        ("num_stripes", stripes_right, f"{at_least}{profile.min_stripes}", stripes),
        ("num_stripes", stripes % profile.sub_stripes == 0, "an even number", stripes),
        (
            "sub_stripes",
            profile.sub_stripes in (1, chunk.sub_stripes),
            profile.sub_stripes,
            chunk.sub_stripes,
        ),
        # Rebuilding from parity takes time for each stripe that can be read.
        ("devices", devices == stripes or not profile.nparity, f"{stripes} different", devices),
        ("stripe_len", chunk.stripe_len == STRIPE_LEN, STRIPE_LEN, chunk.stripe_len),
        ("length", chunk.length > 0, "more than 0", chunk.length),
        ("length", chunk.length % MIN_SECTORSIZE == 0, aligned, chunk.length),
        ("vaddr", chunk.vaddr % MIN_SECTORSIZE == 0, aligned, chunk.vaddr),
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
