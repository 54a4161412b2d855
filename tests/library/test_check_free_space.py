"""Lies in the free space tree are found, and its bitmaps are read as a plain version reads them.

The last field of a lie says whether `btrfs check` of btrfs-progs 6.2 reports an error, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.check.free_space import _ranges_of, joined
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.constants import (
    FREE_SPACE_BITMAP_KEY,
    FREE_SPACE_EXTENT_KEY,
    FREE_SPACE_INFO_KEY,
    FREE_SPACE_TREE_OBJECTID,
)
from tests import support
from tests.lab.damage import Anatomy, copy_image
from tests.lab.lies import ItemKey, Liar
from tests.library.address_lies import Lie, assert_found, findings, only

TREE = FREE_SPACE_TREE_OBJECTID
COUNT, FLAGS = 0, 4
"""Where fields are in the body of a FREE_SPACE_INFO."""

SECTOR = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a filesystem of which one block group has bitmaps, and the others have ranges."""
    folder = tmp_path_factory.mktemp("free")
    with support.filesystem(
        folder, size="256M", nodesize=4096, metadata="single", data="single"
    ) as fs:
        for number in range(400):
            (fs.mountpoint / str(number)).write_bytes(os.urandom(SECTOR))
        fs.sync()
        for number in range(0, 400, 2):
            (fs.mountpoint / str(number)).unlink()
        fs.sync()
    return fs.images[0]


def group(liar: Liar, flags: int) -> ItemKey:
    """Return the key of the information of a block group with bitmaps (1), or with ranges (0)."""
    for key, body in liar.items(TREE):
        if key.type == FREE_SPACE_INFO_KEY and body[FLAGS] == flags:
            return key
    raise AssertionError("no such block group")


def put(flags: int, code: str, at: int, value: int) -> Callable[[Liar], None]:
    return lambda liar: liar.put(TREE, group(liar, flags), code, at, value)


def a_range(liar: Liar, index: int = 0) -> ItemKey:
    return only(liar, TREE, FREE_SPACE_EXTENT_KEY, index)


def a_bitmap(liar: Liar, index: int = 0) -> ItemKey:
    return only(liar, TREE, FREE_SPACE_BITMAP_KEY, index)


def resize(change: int, move: int = 0) -> Callable[[Liar], None]:
    """Make the longest range longer, or let it begin elsewhere."""

    def tell(liar: Liar) -> None:
        key = max(liar.keys(TREE, FREE_SPACE_EXTENT_KEY), key=lambda key: key.offset)
        new = key._replace(objectid=key.objectid + move, offset=key.offset + change)
        liar.rekey(TREE, key, new)

    return tell


def cut(liar: Liar) -> None:
    """Store a range as two, and count both."""
    key = max(liar.keys(TREE, FREE_SPACE_EXTENT_KEY), key=lambda key: key.offset)
    (info,) = (
        info
        for info in liar.keys(TREE, FREE_SPACE_INFO_KEY)
        if info.objectid <= key.objectid < info.objectid + info.offset
    )
    half = key.offset // 2 // SECTOR * SECTOR
    liar.rekey(TREE, key, key._replace(offset=half))
    rest = ItemKey(key.objectid + half, FREE_SPACE_EXTENT_KEY, key.offset - half)
    liar.insert(TREE, rest, b"")
    liar.add(TREE, info, "<I", COUNT, 1)


def tell_twice(liar: Liar) -> None:
    """Tell of a part of a range once more."""
    key = max(liar.keys(TREE, FREE_SPACE_EXTENT_KEY), key=lambda key: key.offset)
    again = ItemKey(key.objectid + SECTOR, FREE_SPACE_EXTENT_KEY, SECTOR)
    liar.insert(TREE, again, b"")


def mix(liar: Liar) -> None:
    """Store a bitmap as a range."""
    key = liar.keys(TREE, FREE_SPACE_BITMAP_KEY)[-1]
    liar.rekey(TREE, key, ItemKey(key.objectid, FREE_SPACE_EXTENT_KEY, key.offset))
    liar.replace(TREE, ItemKey(key.objectid, FREE_SPACE_EXTENT_KEY, key.offset), b"")


def as_bitmap(liar: Liar) -> None:
    """Store a range as a bitmap that is as long."""
    key = min(liar.keys(TREE, FREE_SPACE_EXTENT_KEY), key=lambda key: key.offset)
    liar.remove(TREE, key)
    bits = (1 << key.offset // SECTOR) - 1
    size = (key.offset // SECTOR + 7) // 8
    bitmap = ItemKey(key.objectid, FREE_SPACE_BITMAP_KEY, key.offset)
    liar.insert(TREE, bitmap, bits.to_bytes(size, "little"))


def set_bits(value: int) -> Callable[[Liar], None]:
    """Write a byte into a bitmap."""
    return lambda liar: liar.put(TREE, a_bitmap(liar), "<B", 20, value)


FORM = ("free-space-form",)
DAMAGED = ("item-damaged",)

LIES = {
    "count": Lie(put(0, "<I", COUNT, 77), ("free-space-count",), "77 according to its item"),
    "count of bitmaps": Lie(put(1, "<I", COUNT, 77), ("free-space-count",)),
    "no information": Lie(
        lambda liar: liar.remove(TREE, group(liar, 0)), ("free-space-count",), "no number"
    ),
    "information for too little": Lie(
        lambda liar: liar.rekey(TREE, group(liar, 0), group(liar, 0)._replace(offset=1 << 20)),
        FORM,
        "for another range",
    ),
    "should have bitmaps": Lie(put(0, "<I", FLAGS, 1), FORM, "though it should have bitmaps"),
    "should have ranges": Lie(put(1, "<I", FLAGS, 0), FORM, "though it should have ranges"),
    "unknown flags": Lie(put(0, "<I", FLAGS, 4), DAMAGED, "bits that are not known", seen=False),
    "range among bitmaps": Lie(
        mix,
        ("free-space-form", "free-space-differs", "free-space-count"),
        "though it should have bitmaps",
    ),
    "bitmap among ranges": Lie(as_bitmap, FORM, "though it should have ranges"),
    "two ranges side by side": Lie(cut, FORM, "side by side"),
    "told of twice": Lie(
        tell_twice, ("free-space-overlaps", "free-space-count", "free-space-differs")
    ),
    "too short": Lie(resize(-SECTOR), ("free-space-differs",)),
    "begins too late": Lie(resize(-SECTOR, SECTOR), ("free-space-differs",)),
    "odd length": Lie(resize(-1), ("item-damaged", "free-space-differs"), "length is not a"),
    "bits": Lie(set_bits(0b1010101), ("free-space-differs", "free-space-count")),
    "short bitmap": Lie(
        lambda liar: liar.change(TREE, a_bitmap(liar), lambda body: body.__delitem__(-1)),
        ("item-damaged", "free-space-differs"),
        "size is wrong",
    ),
    "missing bitmap": Lie(
        lambda liar: liar.remove(TREE, a_bitmap(liar)),
        ("free-space-form", "free-space-differs", "free-space-count"),
        "not for all of its bytes",
    ),
    "elsewhere": Lie(
        lambda liar: liar.insert(TREE, ItemKey(1 << 40, FREE_SPACE_EXTENT_KEY, SECTOR), b""),
        ("free-space-alone",),
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_lie(sound: Path, tmp_path: Path, name: str) -> None:
    assert_found(sound, tmp_path, LIES[name])


def test_nothing_is_wrong(sound: Path) -> None:
    assert findings(sound) == []
    liar = Liar([sound])
    assert group(liar, 0)
    assert group(liar, 1)


def test_nothing_follows_from_what_cannot_be_read(sound: Path, tmp_path: Path) -> None:
    anatomy = Anatomy([sound])
    for leaf in anatomy.leaves(TREE):
        image = tmp_path / "unreadable.img"
        copy_image(sound, image)
        with image.open("r+b") as file:
            for place in anatomy.copies(leaf):
                file.seek(place.paddr + 2000)
                file.write(b"unreadable")
        assert {finding.kind for finding in findings(image)} == {"block-damaged", "keys-lost"}


# Against plain versions.


def batch_of(bitmaps: list[tuple[int, int, bytes]], extents: list[tuple[int, int]]) -> ItemBatch:
    """Return items: bitmaps of addresses, lengths, and bodies; and ranges."""
    bodies = b"".join(body for _, _, body in bitmaps) + bytes(8)
    sizes = [len(body) for _, _, body in bitmaps] + [0] * len(extents)
    keys = [(vaddr, length) for vaddr, length, _ in bitmaps] + extents
    types = [FREE_SPACE_BITMAP_KEY] * len(bitmaps) + [FREE_SPACE_EXTENT_KEY] * len(extents)
    return ItemBatch(
        np.frombuffer(bodies, np.uint8),
        np.array([key[0] for key in keys], np.uint64),
        np.array(types, np.uint8),
        np.array([key[1] for key in keys], np.uint64),
        np.zeros(len(keys), np.uint64),
        np.cumsum([0, *sizes[:-1]]),
        np.array(sizes, np.uint32),
    )


def plain_ranges(vaddr: int, length: int, body: bytes) -> list[tuple[int, int]]:
    """Return the free ranges of a bitmap, found bit by bit."""
    found: list[tuple[int, int]] = []
    for sector in range(min(length // SECTOR, len(body) * 8)):
        if body[sector // 8] >> sector % 8 & 1:
            start = vaddr + sector * SECTOR
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], start + SECTOR)
            else:
                found.append((start, start + SECTOR))
    return found


@given(
    st.lists(
        st.tuples(st.integers(1, 80), st.binary(min_size=1, max_size=10)), min_size=1, max_size=8
    )
)
def test_bitmaps(rows: list[tuple[int, bytes]]) -> None:
    step = 1 << 20
    bitmaps = [
        (number * step, sectors * SECTOR, body) for number, (sectors, body) in enumerate(rows)
    ]
    expected = [pair for row in bitmaps for pair in plain_ranges(*row)]
    found = _ranges_of(batch_of(bitmaps, [(1 << 40, SECTOR)]), SECTOR)
    assert [tuple(row) for row in found.tolist()] == [*expected, (1 << 40, (1 << 40) + SECTOR)]


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_joined(bits: list[bool]) -> None:
    pairs = [(number, number + 1) for number, bit in enumerate(bits) if bit]
    expected = [
        (start // SECTOR, end // SECTOR)
        for start, end in plain_ranges(
            0,
            len(bits) * SECTOR,
            sum(bit << number for number, bit in enumerate(bits)).to_bytes(8, "little"),
        )
    ]
    found = joined(np.array(pairs, np.uint64).reshape(-1, 2))
    assert [tuple(row) for row in found.tolist()] == expected
