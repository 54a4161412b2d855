"""The simulation of the chunk allocator: against what the kernel did, and against itself."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings, strategies as st

from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA as DATA,
    BLOCK_GROUP_DUP as DUP,
    BLOCK_GROUP_METADATA as METADATA,
    BLOCK_GROUP_RAID0 as RAID0,
    BLOCK_GROUP_RAID1 as RAID1,
    BLOCK_GROUP_RAID1C3 as RAID1C3,
    BLOCK_GROUP_RAID1C4 as RAID1C4,
    BLOCK_GROUP_RAID5 as RAID5,
    BLOCK_GROUP_RAID6 as RAID6,
    BLOCK_GROUP_RAID10 as RAID10,
    BLOCK_GROUP_SYSTEM as SYSTEM,
)
from btrfs.space.allocator import Allocator
from btrfs.space.devices import DeviceSpace, holes_between
from btrfs.space.filling import MetadataNeed, fill
from btrfs.space.profile_rules import TooFewDevicesError, require_devices, target_of, usable_for

MIB = 1 << 20
GIB = 1 << 30
TB = 10**12

NO_METADATA = MetadataNeed(1e-9, total=GIB)
PROFILES = (0, DUP, RAID0, RAID1, RAID1C3, RAID1C4, RAID10, RAID5, RAID6)


def devices_of(*sizes: int) -> list[DeviceSpace]:
    return [DeviceSpace.empty(devid, size) for devid, size in enumerate(sizes, 1)]


def after_mkfs(stripes: dict[int, list[int]]) -> list[DeviceSpace]:
    """Devices of 1.0, 1.5, 2.5 and 2.5 GiB with device extents (MiB) behind a hole of 20 MiB.

    That is how mkfs.btrfs leaves the first device. On the others, they begin after the first MiB.
    """
    devices = []
    for devid, size in enumerate((1024, 1536, 2560, 2560), 1):
        start = 21 if devid == 1 else 1
        used = sum(stripes.get(devid, []))
        holes = holes_between(size * MIB, [(start * MIB, used * MIB)] if used else [])
        devices.append(DeviceSpace(devid, size * MIB, (size - used) * MIB, holes))
    return devices


# Chunks that Linux 6.18 made when such filesystems were filled: MiB of each.
MADE_BY_THE_KERNEL = [
    (RAID1, {3: [8, 256, 384], 4: [8, 256, 384]}, [768, 768, 768, 375, 375]),
    (RAID1C3, {devid: [8, 256, 256] for devid in (2, 3, 4)}, [768, 768, 255, 247]),
    (RAID10, {devid: [8, 64, 192] for devid in (1, 2, 3, 4)}, [768, 710, 40, 768, 768]),
    (
        RAID5,
        {1: [192], 2: [192], 3: [8, 256, 192], 4: [8, 256, 192]},
        [768, 768, 768, 129, 60, 768, 256, 760],
    ),
    (
        RAID0,
        {1: [192], 2: [192], 3: [8, 256, 192], 4: [8, 256, 192]},
        [768, 768, 768, 768, 172, 80, 768, 768, 768, 752],
    ),
    (RAID1C4, {devid: [8, 256, 192] for devid in (1, 2, 3, 4)}, [547, 20]),
]


@pytest.mark.parametrize(("profile", "stripes", "expected"), MADE_BY_THE_KERNEL)
def test_chunks_are_those_that_the_kernel_made(
    profile: int, stripes: dict[int, list[int]], expected: list[int]
) -> None:
    kernel = Allocator(after_mkfs(stripes))
    made = []
    while allocated := kernel.allocate(DATA | profile):
        made.append(allocated.length // MIB)
    # The first device keeps a smaller hole at its start where nothing was put behind it.
    assert made[: len(expected)] == expected
    assert sum(made[len(expected) :]) <= 20


def test_sizes_of_chunks_depend_on_type_and_filesystem() -> None:
    small, large = Allocator(devices_of(20 * GIB)), Allocator(devices_of(400 * GIB))
    assert small.chunk_size(DATA) == 2 * GIB
    assert small.chunk_size(METADATA) == 256 * MIB
    assert large.chunk_size(DATA) == large.chunk_size(DATA | METADATA) == 10 * GIB
    assert large.chunk_size(METADATA) == GIB
    assert small.chunk_size(SYSTEM) == large.chunk_size(SYSTEM) == 32 * MIB
    one = large.allocate(DATA)
    assert one is not None
    assert (one.chunks, one.length, one.stripe_size, one.num_stripes) == (1, GIB, GIB, 1)
    two = large.allocate(METADATA | DUP)
    assert two is not None
    assert (two.length, two.stripe_size, two.num_stripes) == (GIB, GIB, 2)


def test_first_hole_that_is_large_enough_else_the_largest() -> None:
    device = DeviceSpace(1, 10 * GIB, 6 * GIB, [GIB // 2, GIB, 2 * GIB])
    assert [device.hole_for(wanted) for wanted in (MIB, GIB, GIB + 1, 3 * GIB)] == [0, 1, 2, 2]
    assert device.available(3 * GIB) == 2 * GIB
    device.take(GIB, GIB, 2)
    assert device.holes == [GIB // 2, 0, GIB]
    assert device.unallocated == 4 * GIB


def test_holes() -> None:
    assert holes_between(GIB, []) == [GIB - MIB]
    extents = [(0, 4 * MIB), (8 * MIB, MIB), (9 * MIB, MIB)]
    assert holes_between(GIB, extents) == [4 * MIB, GIB - 10 * MIB]
    assert holes_between(10 * MIB, extents) == [4 * MIB]
    assert holes_between(MIB // 2, []) == []


def test_too_few_devices() -> None:
    for profile, least in ((RAID1C3, 3), (RAID1C4, 4), (RAID6, 3), (RAID5, 2), (RAID10, 2)):
        assert Allocator(devices_of(*[GIB] * (least - 1))).allocate(DATA | profile) is None
        assert Allocator(devices_of(*[GIB] * least)).allocate(DATA | profile) is not None
        with pytest.raises(TooFewDevicesError, match=f"needs {least} devices"):
            require_devices(DATA | profile, least - 1)
        require_devices(DATA | profile, least)
    require_devices(DATA | DUP, 1)


def test_what_is_written_goes_into_block_groups_of_other_profiles_or_not() -> None:
    assert usable_for(DATA | RAID1, DATA)
    assert usable_for(DATA | RAID1, DATA | RAID1)
    assert not usable_for(DATA | RAID1, DATA | RAID6)
    assert not usable_for(DATA, DATA | RAID1)
    assert not usable_for(METADATA | RAID1, DATA | RAID1)


def test_new_chunks_have_the_profile_that_survives_most() -> None:
    present = [DATA, DATA | RAID1, DATA | RAID5, METADATA | RAID1C3]
    assert target_of(DATA, present, 4) == DATA | RAID5
    assert target_of(DATA, present[:2], 4) == DATA | RAID1
    assert target_of(DATA, present[:2], 1) == DATA
    assert target_of(METADATA, present, 4) == METADATA | RAID1C3
    assert target_of(SYSTEM, present, 4) == SYSTEM


device_sizes = st.lists(st.integers(20 * GIB, 400 * GIB), min_size=4, max_size=8)


@settings(max_examples=60)
@given(device_sizes, st.sampled_from(PROFILES))
def test_many_chunks_at_once_come_to_the_same_as_one_by_one(sizes: list[int], profile: int) -> None:
    one_by_one, at_once = Allocator(devices_of(*sizes)), Allocator(devices_of(*sizes))
    totals = []
    for kernel, most in ((one_by_one, 0), (at_once, 1 << 60)):
        total = 0
        while allocated := kernel.allocate(DATA | profile, most=most):
            total += allocated.total
        totals.append(total)
    assert totals[1] == pytest.approx(totals[0], rel=0.001)


@settings(max_examples=100)
@given(device_sizes, st.sampled_from(PROFILES), st.integers(0, 1 << 50))
def test_devices_give_what_chunks_take(sizes: list[int], profile: int, most: int) -> None:
    kernel = Allocator(devices_of(*sizes))
    before = kernel.unallocated
    while allocated := kernel.allocate(DATA | profile, most=most):
        taken = allocated.chunks * allocated.stripe_size * allocated.num_stripes
        assert kernel.unallocated == before - taken
        before = kernel.unallocated
    for device in kernel.devices:
        assert min(device.holes) >= 0
        assert device.unallocated == sum(device.holes) + MIB


def test_metadata_grows_with_data() -> None:
    devices = devices_of(10 * TB, 10 * TB)
    little = fill(devices, DATA | RAID1, METADATA | RAID1)
    much = fill(devices, DATA | RAID1, METADATA | RAID1, need=MetadataNeed(1 / 10))
    assert little.metadata == pytest.approx(10 * TB / 1000, rel=0.1)
    assert much.metadata == pytest.approx(10 * TB / 11, rel=0.02)
    assert much.data + much.metadata == pytest.approx(10 * TB, rel=0.001)
    assert much.writable <= much.data


def test_data_that_metadata_has_no_room_for_cannot_be_written() -> None:
    full = DeviceSpace(1, GIB, MIB, [])
    need = MetadataNeed(1 / 128, total=64 * MIB, used=50 * MIB, reserve=8 * MIB, reserved_trees=0)
    filling = fill([full], DATA, METADATA | DUP, free_data=4 * GIB, need=need)
    assert filling.data == filling.metadata == 0
    # What the reserve does not need is the place for checksums.
    assert filling.writable == 6 * MIB * 128
    assert fill([full], DATA, METADATA, free_data=GIB, need=NO_METADATA).writable == GIB


def test_mixed_block_groups_hold_the_metadata_too() -> None:
    need = MetadataNeed(1 / 128, reserve=4 * MIB)
    filling = fill(devices_of(10 * GIB), DATA | METADATA, 0, need=need)
    assert filling.data == 10 * GIB - MIB
    # Each byte of data brings metadata, and the reserve grows with it.
    assert filling.writable == pytest.approx((10 * GIB - MIB) / (1 + 2 / 128), rel=0.001)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_hundred_devices_of_20_tb_take_less_than_a_second(profile: int) -> None:
    seconds = []
    # A machine that is busy with other things may be slow for a moment.
    for _ in range(3):
        devices = devices_of(*[20 * TB] * 100)
        started = time.thread_time()
        filling = fill(devices, DATA | profile, METADATA | RAID1)
        seconds.append(time.thread_time() - started)
    assert min(seconds) < 1
    assert sum(device.unallocated for device in filling.devices) < 0.001 * 2000 * TB
