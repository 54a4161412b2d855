"""Lies about block groups, chunks and device extents are found.

The last field of a lie says whether `btrfs check` of btrfs-progs 6.2 reports an error, too.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from btrfs.check.allocation import _DevExtents, _paired
from btrfs.check.places import Stripes
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_ITEM_KEY,
    BLOCK_GROUP_METADATA,
    BLOCK_GROUP_RAID1,
    BLOCK_GROUP_SYSTEM,
    CHUNK_ITEM_KEY,
    CHUNK_TREE_OBJECTID,
    DEV_EXTENT_KEY,
    DEV_ITEM_KEY,
    DEV_TREE_OBJECTID,
    EXTENT_TREE_OBJECTID,
)
from tests import support
from tests.lab.lies import ItemKey, Liar
from tests.library.address_lies import Lie, assert_found, findings, only

MIB = 1 << 20
USED, CHUNK_OBJECTID, FLAGS = 0, 8, 16
"""Where fields are in the body of a block group."""

CHUNK_OFFSET, LENGTH = 16, 24
"""Where fields are in the body of a device extent."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chunks")
    with support.filesystem(folder, size="512M", metadata="dup", data="single") as fs:
        (fs.mountpoint / "file").write_bytes(os.urandom(MIB))
        # A chunk without contents is left.
        (fs.mountpoint / "large").write_bytes(bytes(100 * MIB))
        fs.sync()
    return fs.images[0]


def group(liar: Liar, kind: int) -> ItemKey:
    """Return the key of a block group of a type."""
    for key, body in liar.items(EXTENT_TREE_OBJECTID):
        if key.type == BLOCK_GROUP_ITEM_KEY and body[FLAGS] & kind:
            return key
    raise AssertionError("no such block group")


def put(code: str, at: int, value: int, kind: int = BLOCK_GROUP_DATA) -> Callable[[Liar], None]:
    return lambda liar: liar.put(EXTENT_TREE_OBJECTID, group(liar, kind), code, at, value)


def resize(length: int, kind: int = BLOCK_GROUP_DATA) -> Callable[[Liar], None]:
    def tell(liar: Liar) -> None:
        key = group(liar, kind)
        liar.rekey(EXTENT_TREE_OBJECTID, key, key._replace(offset=length))

    return tell


def insert_group(liar: Liar) -> None:
    """Insert a block group within another one."""
    key = group(liar, BLOCK_GROUP_DATA)
    body = struct.pack("<QQQ", 0, 256, BLOCK_GROUP_DATA)
    inner = ItemKey(key.objectid + MIB, BLOCK_GROUP_ITEM_KEY, MIB)
    liar.insert(EXTENT_TREE_OBJECTID, inner, body)


def remove_group(liar: Liar) -> None:
    liar.remove(EXTENT_TREE_OBJECTID, group(liar, BLOCK_GROUP_DATA))


def move_extent(distance: int) -> Callable[[Liar], None]:
    def tell(liar: Liar) -> None:
        key = liar.keys(DEV_TREE_OBJECTID, DEV_EXTENT_KEY)[-1]
        liar.rekey(DEV_TREE_OBJECTID, key, key._replace(offset=key.offset + distance))

    return tell


def put_extent(at: int, value: int) -> Callable[[Liar], None]:
    return lambda liar: liar.put(
        DEV_TREE_OBJECTID, only(liar, DEV_TREE_OBJECTID, DEV_EXTENT_KEY), "<Q", at, value
    )


def remove_extent(liar: Liar) -> None:
    liar.remove(DEV_TREE_OBJECTID, only(liar, DEV_TREE_OBJECTID, DEV_EXTENT_KEY, -1))


def move_stripe(liar: Liar) -> None:
    """Let a stripe of a chunk lie where another one is."""
    first, *_, last = liar.keys(CHUNK_TREE_OBJECTID, CHUNK_ITEM_KEY)
    (paddr,) = struct.unpack_from("<Q", liar.body(CHUNK_TREE_OBJECTID, first), 56)
    liar.put(CHUNK_TREE_OBJECTID, last, "<Q", 56, paddr)


def retype(liar: Liar) -> None:
    """Say of block group and chunk of data that they are for metadata."""
    key = group(liar, BLOCK_GROUP_DATA)
    liar.put(EXTENT_TREE_OBJECTID, key, "<Q", FLAGS, BLOCK_GROUP_METADATA)
    chunk = ItemKey(256, CHUNK_ITEM_KEY, key.objectid)
    liar.put(CHUNK_TREE_OBJECTID, chunk, "<Q", 24, BLOCK_GROUP_METADATA)


DAMAGED = ("item-damaged",)

LIES = {
    "chunk_objectid": Lie(
        put("<Q", CHUNK_OBJECTID, 257), DAMAGED, "chunk_objectid is wrong", False
    ),
    "used": Lie(
        put("<Q", USED, 1 << 40),
        ("item-damaged", "block-group-used", "bytes-used"),
        "more bytes are used than it has",
    ),
    "used by nothing": Lie(put("<Q", USED, 0), ("block-group-used", "bytes-used")),
    "two profiles": Lie(
        put("<Q", FLAGS, BLOCK_GROUP_DATA | 3 << 4),
        ("item-damaged", "block-group-differs"),
        "several profiles",
    ),
    "profile": Lie(
        put("<Q", FLAGS, BLOCK_GROUP_DATA | BLOCK_GROUP_RAID1), ("block-group-differs",)
    ),
    "no type": Lie(put("<Q", FLAGS, 0), ("item-damaged", "block-group-differs"), "it has no type"),
    "system and data": Lie(
        put("<Q", FLAGS, BLOCK_GROUP_DATA | BLOCK_GROUP_SYSTEM),
        ("item-damaged", "block-group-differs"),
        "or several that do not fit",
    ),
    "mixed": Lie(
        put("<Q", FLAGS, BLOCK_GROUP_DATA | BLOCK_GROUP_METADATA),
        ("item-damaged", "block-group-differs"),
        "without that feature",
    ),
    "unknown flag": Lie(
        put("<Q", FLAGS, BLOCK_GROUP_DATA | 1 << 40),
        ("item-damaged", "block-group-differs"),
        "bits that are not known",
    ),
    "data in metadata": Lie(retype, ("extent-type",), "in a block group of"),
    "no length": Lie(
        resize(0),
        ("item-damaged", "block-group-differs"),
        "a block group without bytes",
    ),
    "length": Lie(
        resize(1 << 30),
        ("block-group-overlaps", "block-group-differs"),
    ),
    "short item": Lie(
        lambda liar: liar.replace(EXTENT_TREE_OBJECTID, group(liar, BLOCK_GROUP_DATA), bytes(20)),
        ("item-damaged", "chunk-alone", "bytes-used"),
        "its size is wrong",
    ),
    "within another": Lie(insert_group, ("block-group-overlaps", "block-group-alone")),
    "no block group": Lie(remove_group, ("chunk-alone", "bytes-used")),
    "device extent elsewhere": Lie(move_extent(64 * MIB), ("stripe-alone", "device-extent-alone")),
    "no device extent": Lie(remove_extent, ("stripe-alone", "device-used")),
    "chunk of a device extent": Lie(put_extent(CHUNK_OFFSET, 4096), ("device-extent-differs",)),
    "length of a device extent": Lie(
        put_extent(LENGTH, 1 << 30),
        (
            *("device-extent-overlaps", "device-extent-differs"),
            *("device-extent-outside", "device-used"),
        ),
    ),
    "used bytes of a device": Lie(
        lambda liar: liar.put(
            CHUNK_TREE_OBJECTID, only(liar, CHUNK_TREE_OBJECTID, DEV_ITEM_KEY), "<Q", 16, MIB
        ),
        ("device-used", "device-item"),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_lie(sound: Path, tmp_path: Path, name: str) -> None:
    assert_found(sound, tmp_path, LIES[name])


def test_two_stripes_at_the_same_place(sound: Path, tmp_path: Path) -> None:
    """A device extent can only be of one of them."""
    support.run("cp", "--sparse=always", sound, tmp_path / "image")
    move_stripe(Liar([tmp_path / "image"]))
    kinds = {finding.kind for finding in findings(tmp_path / "image")}
    assert {"stripe-alone", "device-extent-alone"} <= kinds


def test_nothing_is_wrong(sound: Path) -> None:
    assert findings(sound) == []


def columns(rows: list[tuple[int, int]]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    one, other = np.array(rows, np.uint64).reshape(-1, 2).T
    return one, other


PLACES = st.tuples(st.integers(1, 3), st.integers(0, 5))


@given(st.lists(PLACES, max_size=12), st.sets(PLACES))
def test_pairs(stripes: list[tuple[int, int]], extents: set[tuple[int, int]]) -> None:
    """A stripe takes the device extent at its place, unless another one has it."""
    ordered = sorted(extents)
    devid, paddr = columns(stripes)
    devids, paddrs = columns(ordered)
    found = _paired(
        Stripes(devid, paddr, np.zeros(len(stripes), np.intp)),
        _DevExtents(devids, paddrs, devids, devids),
    )
    taken: dict[tuple[int, int], int] = {}
    for number, stripe in enumerate(stripes):
        if stripe in extents:
            taken.setdefault(stripe, number)
    pairs = zip(found.extents.tolist(), found.stripes.tolist(), strict=True)
    assert {ordered[extent]: stripe for extent, stripe in pairs} == taken
    assert found.stripes_alone.tolist() == sorted(set(range(len(stripes))) - set(taken.values()))
    assert [ordered[index] for index in found.extents_alone.tolist()] == sorted(
        extents - taken.keys()
    )
