"""What mkfs.btrfs makes, laid out in memory, beside what it really makes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from btrfs import FileSystem
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA as DATA,
    BLOCK_GROUP_METADATA as METADATA,
    BLOCK_GROUP_PROFILE_MASK as PROFILE_MASK,
    BLOCK_GROUP_PROFILE_NAMES,
    BLOCK_GROUP_RAID1 as RAID1,
    BLOCK_GROUP_RAID1C3 as RAID1C3,
    BLOCK_GROUP_RAID10 as RAID10,
    BLOCK_GROUP_SYSTEM as SYSTEM,
)
from btrfs.space import mkfs
from tests import support
from tests.lab import loopfs
from tests.lab.commands import run

MIB = 1 << 20
GIB = 1 << 30
UNEQUAL = (GIB, 1536 * MIB, 2560 * MIB, 2560 * MIB)
PROFILES = {name.lower(): flag for flag, name in BLOCK_GROUP_PROFILE_NAMES.items()}

MADE = [
    ("single", "dup", (2 * GIB,)),
    ("single", "single", (2 * GIB,)),
    ("single", "dup", (140 * MIB,)),
    ("dup", "dup", (GIB,)),
    ("single", "dup", (20 * GIB,)),
    ("single", "dup", (60 * GIB,)),
    ("single", "dup", UNEQUAL),
    ("single", "dup", (300 * MIB,) * 3),
    ("raid0", "raid1", UNEQUAL),
    ("raid0", "raid0", UNEQUAL),
    ("raid1", "raid1", UNEQUAL),
    ("raid1", "raid1", (60 * GIB, 70 * GIB, 30 * GIB)),
    ("raid1c3", "raid1c3", UNEQUAL),
    ("raid1c4", "raid1c4", UNEQUAL),
    ("raid10", "raid10", UNEQUAL),
    ("raid10", "raid10", (20 * GIB,) * 5),
    ("raid5", "raid1", (300 * MIB,) * 4),
    ("raid5", "raid5", UNEQUAL),
    ("raid6", "raid1c3", UNEQUAL),
    ("raid6", "raid6", UNEQUAL),
]
MADE_MIXED = [
    ("single", (GIB, 1536 * MIB)),
    ("dup", (GIB,)),
    ("raid0", (512 * MIB, 700 * MIB, GIB)),
    ("raid1", (512 * MIB, 700 * MIB, GIB)),
]


def made_by_mkfs(
    folder: Path, data: str, metadata: str, sizes: tuple[int, ...], *, mixed: bool = False
) -> tuple[dict[int, int], dict[int, list[tuple[int, int]]]]:
    """Run mkfs.btrfs on image files; return the chunks, and the device extents by devid."""
    support.require_mkfs()
    images = [folder / f"disk{number}.img" for number in range(1, len(sizes) + 1)]
    for image, size in zip(images, sizes, strict=True):
        loopfs.make_sparse(image, size)
    profiles = ("--data", data, "--metadata", metadata, *(("--mixed",) if mixed else ()))
    run("mkfs.btrfs", "--quiet", *profiles, *images)
    with FileSystem([os.fspath(image) for image in images]) as fs:
        chunks = {chunk.type: chunk.length for chunk in fs.chunks()}
        extents: dict[int, list[tuple[int, int]]] = {dev.devid: [] for dev in fs.devices()}
        for extent in fs.dev_extents():
            extents[extent.devid].append((extent.paddr, extent.length))
    return chunks, extents


def flags_of(name: str) -> int:
    return PROFILES.get(name, 0) & PROFILE_MASK


@pytest.mark.parametrize(("data", "metadata", "sizes"), MADE)
def test_it_is_what_mkfs_makes(
    tmp_path: Path, data: str, metadata: str, sizes: tuple[int, ...]
) -> None:
    chunks, extents = made_by_mkfs(tmp_path, data, metadata, sizes)
    profile = flags_of(metadata)
    ours = mkfs.new_filesystem(
        dict(enumerate(sizes, 1)), DATA | flags_of(data), METADATA | profile, SYSTEM | profile
    )
    assert ours.extents == extents
    assert ours.chunks == chunks


@pytest.mark.parametrize(("profile", "sizes"), MADE_MIXED)
def test_it_is_what_mkfs_makes_mixed(tmp_path: Path, profile: str, sizes: tuple[int, ...]) -> None:
    chunks, extents = made_by_mkfs(tmp_path, profile, profile, sizes, mixed=True)
    flags = flags_of(profile)
    ours = mkfs.new_filesystem(
        dict(enumerate(sizes, 1)), DATA | METADATA | flags, 0, SYSTEM | flags
    )
    assert ours.extents == extents
    assert ours.chunks == chunks


def test_what_is_left() -> None:
    made = mkfs.new_filesystem({1: GIB, 2: GIB}, DATA | RAID1, METADATA | RAID1, SYSTEM | RAID1)
    for device in made.devices:
        assert sum(device.holes) + MIB == device.unallocated
        taken = sum(length for _, length in made.extents[device.devid])
        assert device.unallocated == GIB - taken
    # What was there at first, and was removed.
    assert made.devices[0].holes[0] == 20 * MIB
    assert len(made.devices[1].holes) == 1


def test_too_few_devices_give_nothing() -> None:
    filling = mkfs.capacity({1: GIB, 2: GIB}, DATA | RAID1C3, METADATA | RAID1C3)
    assert (filling.data, filling.metadata, filling.writable) == (0, 0, 0)
    filling = mkfs.capacity({1: GIB}, DATA | RAID10, METADATA)
    assert filling.data == filling.writable == 0


def test_the_ratio_says_how_much_is_for_metadata() -> None:
    sizes = {1: 10**12, 2: 10**12}
    few = mkfs.capacity(sizes, DATA | RAID1, METADATA | RAID1, metadata_per_data=1 / 1000)
    many = mkfs.capacity(sizes, DATA | RAID1, METADATA | RAID1, metadata_per_data=1 / 5)
    assert few.writable < 10**12 < 1.01 * few.writable
    assert many.metadata == pytest.approx(many.data / 5, rel=0.02)
    assert many.writable + many.metadata == pytest.approx(10**12, rel=0.01)
