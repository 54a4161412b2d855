"""Copies of the superblock: what a crash leaves is a remark, all else that differs is a finding."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from btrfs.check import KINDS
from btrfs.ondisk.constants import (
    CHUNK_ITEM_KEY,
    CHUNK_TREE_OBJECTID,
    SUPER_INFO_SIZE,
    SUPER_MIRRORS,
)
from tests import support
from tests.lab.lies import Liar
from tests.library.address_lies import findings
from tests.library.test_damage import change_block

GENERATION, LOG_ROOT, CSUM_TYPE_AND_LABEL = 0x48, 0x60, 0x12B
STRIPESIZE, ARRAY_SIZE, ARRAY = 0x9C, 0xA0, 0x32B
FIRST, SECOND = SUPER_MIRRORS[:2]

KEY_SIZE, LENGTH, STRIPE = 17, 0, 48
"""A chunk of the array: the size of its key, then where fields are in the body."""

Change = Callable[[bytearray], None]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("superblocks")
    options: support.Options = {"devices": 2, "size": "256M", "data": "raid1", "metadata": "raid1"}
    with support.filesystem(folder, **options) as fs:
        (fs.mountpoint / "file").write_bytes(bytes(100_000))
        fs.sync()
    return fs.images


@pytest.fixture
def images(sound: list[Path], tmp_path: Path) -> list[Path]:
    copies = [tmp_path / image.name for image in sound]
    for image, copy in zip(sound, copies, strict=True):
        support.run("cp", "--sparse=always", image, copy)
    return copies


def add(code: str, at: int, number: int) -> Change:
    def change(block: bytearray) -> None:
        (value,) = struct.unpack_from(code, block, at)
        struct.pack_into(code, block, at, value + number)

    return change


def kinds(images: list[Path]) -> list[str]:
    return sorted(finding.kind for finding in findings(images))


@pytest.mark.parametrize(
    ("paddr", "change", "expected"),
    [
        (SECOND, add("<Q", GENERATION, -1), ["superblock-behind"]),
        (SECOND, add("<Q", GENERATION, -2), ["superblock-differs"]),
        (SECOND, add("<B", CSUM_TYPE_AND_LABEL, 65), ["superblock-differs"]),
        (SECOND, add("<Q", LOG_ROOT, 1 << 24), []),
    ],
    ids=["one behind", "two behind", "label", "log root"],
)
def test_second_copy(images: list[Path], paddr: int, change: Change, expected: list[str]) -> None:
    change_block(images[1], paddr, SUPER_INFO_SIZE, change)
    assert kinds(images) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(-1, "device-behind"), (-2, "device-stale")], ids=["one", "two"]
)
def test_device(images: list[Path], number: int, expected: str) -> None:
    for paddr in (FIRST, SECOND):
        change_block(images[1], paddr, SUPER_INFO_SIZE, add("<Q", GENERATION, number))
    assert kinds(images) == [expected]


def test_crash_is_a_remark() -> None:
    behind = {"superblock-behind", "device-behind"}
    assert {kind for kind in KINDS if kind.endswith("-behind") and KINDS[kind].is_remark} == behind


@pytest.mark.parametrize(
    "change",
    [
        add("<Q", ARRAY + KEY_SIZE + LENGTH, 4 << 20),
        add("<B", ARRAY + KEY_SIZE + STRIPE + 16, 1),
    ],
    ids=["length", "UUID of a device"],
)
def test_system_chunk_that_differs(images: list[Path], change: Change) -> None:
    Liar(images).change_superblocks(change)
    found = findings(images)
    assert {finding.kind for finding in found} >= {"system-chunk"}, list(map(str, found))


def test_array_of_system_chunks_that_ends_amid_a_chunk(images: list[Path]) -> None:
    Liar(images).change_superblocks(add("<I", ARRAY_SIZE, 1))
    assert kinds(images) == ["system-chunk"]


def test_field_that_cannot_be(images: list[Path]) -> None:
    Liar(images).change_superblocks(add("<I", STRIPESIZE, 1))
    (finding,) = findings(images)
    assert (finding.kind, finding.expected, finding.found) == ("superblock-field", "4096", "4097")


def test_system_chunk_that_is_missing(images: list[Path]) -> None:
    """There is another one in its place, which is far behind it."""

    def move(block: bytearray) -> None:
        (size,) = struct.unpack_from("<I", block, ARRAY_SIZE)
        chunk = bytearray(block[ARRAY : ARRAY + size])
        struct.pack_into("<Q", chunk, 9, 1 << 40)
        struct.pack_into("<I", block, ARRAY_SIZE, 2 * size)
        block[ARRAY + size : ARRAY + 2 * size] = chunk

    Liar(images).change_superblocks(move)
    found = [finding for finding in findings(images) if finding.kind == "system-chunk"]
    assert [(finding.vaddr, finding.expected) for finding in found] == [(1 << 40, "no chunk")]


def test_stripe_on_no_device(images: list[Path]) -> None:
    liar = Liar(images)
    key = liar.keys(CHUNK_TREE_OBJECTID, CHUNK_ITEM_KEY)[-1]
    liar.put(CHUNK_TREE_OBJECTID, key, "<Q", STRIPE, 7)
    assert "stripe-device" in kinds(images)
