"""Lies about checksums of data are found: those that overlap, and those of what is no data.

The last field of a lie says whether `btrfs check` of btrfs-progs 6.2 reports an error, too.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.check.checksums import _without
from btrfs.ondisk.constants import (
    CSUM_TREE_OBJECTID,
    EXTENT_CSUM_KEY,
    EXTENT_CSUM_OBJECTID,
    EXTENT_TREE_OBJECTID,
)
from tests import support
from tests.lab.damage import Anatomy, copy_image
from tests.lab.lies import ItemKey, Liar
from tests.library.address_lies import Lie, assert_found, findings

TREE = CSUM_TREE_OBJECTID
SECTOR, CSUM = 4096, 4


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checksums")
    with support.filesystem(
        folder, size="256M", nodesize=4096, metadata="single", data="single"
    ) as fs:
        (fs.mountpoint / "large").write_bytes(os.urandom(8 << 20))
        (fs.mountpoint / "plain").touch()
        support.run("chattr", "+C", fs.mountpoint / "plain")
        (fs.mountpoint / "plain").write_bytes(os.urandom(64 << 10))
        for number in range(20):
            (fs.mountpoint / str(number)).write_bytes(os.urandom(8192))
            (fs.mountpoint / f"reserved {number}").touch()
            support.run("fallocate", "--length", "8K", fs.mountpoint / f"reserved {number}")
        fs.sync()
    return fs.images[0]


def last(liar: Liar) -> ItemKey:
    return liar.keys(TREE, EXTENT_CSUM_KEY)[-1]


def append(liar: Liar) -> None:
    """Add checksums of what follows the last extent of data."""
    liar.change(TREE, last(liar), lambda body: body.extend(bytes(5 * CSUM)))


def elsewhere(vaddr: int) -> ItemKey:
    return ItemKey(EXTENT_CSUM_OBJECTID, EXTENT_CSUM_KEY, vaddr)


def repeat(liar: Liar) -> None:
    """Tell the checksum of a sector twice."""
    key = last(liar)
    body = liar.body(TREE, key)
    again = elsewhere(key.offset + SECTOR)
    liar.insert(TREE, again, body[CSUM : 2 * CSUM])


def of_a_block(liar: Liar) -> None:
    """Add a checksum of a tree block."""
    vaddr = liar.blocks(TREE)[0].vaddr
    liar.insert(TREE, elsewhere(vaddr), bytes(CSUM))


LIES = {
    "after the last extent": Lie(append, ("checksum-alone",), f"{5 * SECTOR} bytes at", seen=False),
    "of no chunk": Lie(
        lambda liar: liar.insert(TREE, elsewhere(1 << 40), bytes(2 * CSUM)),
        ("checksum-alone",),
        f"{2 * SECTOR} bytes at {1 << 40}",
        seen=False,
    ),
    "of a tree block": Lie(of_a_block, ("checksum-alone",)),
    "twice": Lie(repeat, ("checksums-overlap",)),
    "not whole": Lie(
        lambda liar: liar.change(TREE, last(liar), lambda body: body.extend(b"12")),
        ("item-damaged",),
        "not whole checksums",
        seen=False,
    ),
    "odd address": Lie(
        lambda liar: liar.insert(TREE, elsewhere((1 << 40) + 5), bytes(CSUM)),
        ("item-damaged", "checksum-alone"),
        "its address is not a multiple",
        seen=False,
    ),
    "missing": Lie(
        lambda liar: liar.change(TREE, last(liar), lambda body: body.__delitem__(slice(0, CSUM))),
        ("checksums-missing",),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_lie(sound: Path, tmp_path: Path, name: str) -> None:
    assert_found(sound, tmp_path, LIES[name])


@pytest.mark.parametrize("leaves", [1, 2, 3])
def test_batches_make_no_difference(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaves: int
) -> None:
    image = tmp_path / "image"
    copy_image(sound, image)
    for name in ("after the last extent", "of no chunk", "of a tree block", "twice"):
        LIES[name].tell(Liar([image]))
    expected = sorted(map(str, findings(image)))
    assert len(expected) >= 4
    monkeypatch.setattr("btrfs.source.disk.bulk.BATCH_BYTES", leaves * 4096)
    assert sorted(map(str, findings(image))) == expected
    assert findings(sound) == []


def test_nothing_follows_from_what_cannot_be_read(sound: Path, tmp_path: Path) -> None:
    for tree in (TREE, EXTENT_TREE_OBJECTID):
        anatomy = Anatomy([sound])
        for leaf in anatomy.leaves(tree):
            image = tmp_path / "unreadable.img"
            copy_image(sound, image)
            with image.open("r+b") as file:
                for place in anatomy.copies(leaf):
                    file.seek(place.paddr + 2000)
                    file.write(b"unreadable")
            kinds = {finding.kind for finding in findings(image)}
            assert kinds == {"block-damaged", "keys-lost"}, (tree, leaf.vaddr)


def test_nothing_is_wrong(sound: Path) -> None:
    assert findings(sound) == []


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ranges in order that do not touch: between each two of the numbers."""
    ordered = sorted(set(numbers))
    return list(zip(ordered[::2], ordered[1::2], strict=False))


@given(st.lists(st.integers(0, 40)), st.lists(st.integers(0, 40)))
def test_ranges_without_others(one: list[int], other: list[int]) -> None:
    pairs, others = ranges(one), ranges(other)
    left = _without(*(np.array(rows, np.uint64).reshape(-1, 2) for rows in (pairs, others)))
    covered = {number for start, end in others for number in range(start, end)}
    expected = {number for start, end in pairs for number in range(start, end)} - covered
    assert {number for start, end in left for number in range(start, end)} == expected
    assert all(start < end for start, end in left)
