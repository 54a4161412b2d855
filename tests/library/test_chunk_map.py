"""From virtual to physical addresses: the arithmetic of the profiles."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import STRIPE_LEN
from btrfs.source.disk.chunk_map import ChunkMap
from btrfs.volumes import (
    PROFILES,
    check_chunk,
    chunk_length_to_dev_extent_length,
    chunk_to_raw_parity_bytes,
    dev_extent_length_to_chunk_length,
)

LAYOUTS = [
    (constants.BLOCK_GROUP_SINGLE, 1),
    (constants.BLOCK_GROUP_DUP, 2),
    (constants.BLOCK_GROUP_RAID0, 3),
    (constants.BLOCK_GROUP_RAID1, 2),
    (constants.BLOCK_GROUP_RAID1C3, 3),
    (constants.BLOCK_GROUP_RAID1C4, 4),
    (constants.BLOCK_GROUP_RAID10, 6),
    (constants.BLOCK_GROUP_RAID5, 2),
    (constants.BLOCK_GROUP_RAID5, 4),
    (constants.BLOCK_GROUP_RAID6, 3),
    (constants.BLOCK_GROUP_RAID6, 5),
]
VADDR = 1 << 30


def chunk(profile: int, num_stripes: int, rows: int = 8, vaddr: int = VADDR) -> Any:
    """Return a chunk of some rows of stripes; its device extents lie at (devid << 40)."""
    stripe_size = rows * STRIPE_LEN
    return SimpleNamespace(
        vaddr=vaddr,
        length=dev_extent_length_to_chunk_length(profile, num_stripes, stripe_size),
        type=profile | constants.BLOCK_GROUP_DATA,
        num_stripes=num_stripes,
        sub_stripes=PROFILES[profile].sub_stripes,
        stripe_len=STRIPE_LEN,
        stripes=[
            SimpleNamespace(devid=devid, offset=devid << 40) for devid in range(1, num_stripes + 1)
        ],
    )


@pytest.mark.parametrize(("profile", "num_stripes"), LAYOUTS)
def test_every_byte_has_places_of_its_own(profile: int, num_stripes: int) -> None:
    """All copies of all stripes together fill the device extents, but for the parity."""
    made = chunk(profile, num_stripes)
    check_chunk(made)
    chunk_map = ChunkMap([made])
    places = [
        (piece.devid, piece.paddr, piece.length)
        for vaddr in range(VADDR, VADDR + made.length, STRIPE_LEN)
        for copy in chunk_map.copies(vaddr, STRIPE_LEN)
        for piece in copy
    ]
    assert len(set(places)) == len(places) == made.length // STRIPE_LEN * PROFILES[profile].ncopies
    extent = chunk_length_to_dev_extent_length(profile, num_stripes, made.length)
    total = sum(length for _, _, length in places)
    assert total + chunk_to_raw_parity_bytes(made) == extent * num_stripes
    for devid, paddr, length in places:
        assert devid << 40 <= paddr
        assert paddr + length <= (devid << 40) + extent


@given(st.sampled_from(LAYOUTS), st.data())
def test_many_at_once_are_the_first_copies(layout: tuple[int, int], data: st.DataObject) -> None:
    chunks = [chunk(*layout), chunk(*LAYOUTS[0], vaddr=VADDR + (1 << 30))]
    chunk_map = ChunkMap(chunks)
    length = data.draw(st.sampled_from([4096, 16384, 65536]))
    starts = [made.vaddr + at for made in chunks for at in (0, 4096, 61440, made.length - length)]
    starts += [VADDR - 4096, VADDR + (1 << 29), chunks[1].vaddr + chunks[1].length]
    vaddrs = data.draw(st.lists(st.sampled_from(starts), max_size=20))
    devids, paddrs = chunk_map.first_copies(np.array(vaddrs, np.int64), length, range(1, 99))
    for vaddr, devid, paddr in zip(vaddrs, devids.tolist(), paddrs.tolist(), strict=True):
        try:
            first = chunk_map.copies(vaddr, length)[0]
        except CorruptError:
            assert devid == -1
            continue
        if len(first) > 1:
            assert devid == -1
        else:
            assert (devid, paddr, length) == first[0]


def test_parity_moves_on_with_each_row() -> None:
    """RAID6 on 4 devices: data, data, P, Q; then one device further in the next row."""
    chunk_map = ChunkMap([chunk(constants.BLOCK_GROUP_RAID6, 4)])
    devids = [chunk_map.copies(VADDR + index * STRIPE_LEN, 4096)[0][0].devid for index in range(10)]
    assert devids == [1, 2, 2, 3, 3, 4, 4, 1, 1, 2]


def test_range_across_stripes_is_cut() -> None:
    chunk_map = ChunkMap([chunk(constants.BLOCK_GROUP_RAID10, 4)])
    copies = chunk_map.copies(VADDR + STRIPE_LEN - 4096, 16384)
    assert [[(piece.devid, piece.length) for piece in copy] for copy in copies] == [
        [(1, 4096), (3, 12288)],
        [(2, 4096), (4, 12288)],
    ]


def test_overlapping_chunks_are_refused() -> None:
    first = chunk(*LAYOUTS[0])
    with pytest.raises(CorruptError, match="expected to begin after"):
        ChunkMap([first, chunk(*LAYOUTS[0], vaddr=VADDR + 4096)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": constants.BLOCK_GROUP_RAID0}, "type: expected a type"),
        ({"type": 1 | 8 | 16}, "profile: expected at most one bit"),
        ({"num_stripes": 3}, "num_stripes: expected 2, found 3"),
        ({"num_stripes": 0}, "num_stripes"),
        ({"stripe_len": 4096}, "stripe_len"),
        ({"length": 0}, "length"),
        ({"length": 4097}, "length"),
        ({"vaddr": 77}, "vaddr"),
        ({"length": 1 << 63}, "end"),
        (
            {"type": 1 | 64, "num_stripes": 5, "sub_stripes": 2},
            "num_stripes: expected an even number",
        ),
        ({"type": 1 | 64, "num_stripes": 4, "sub_stripes": 1}, "sub_stripes: expected 2, found 1"),
        ({"type": 1 | 256, "num_stripes": 2}, "num_stripes: expected at least 3, found 2"),
    ],
)
def test_impossible_chunks_are_refused(changes: dict[str, int], message: str) -> None:
    made = chunk(constants.BLOCK_GROUP_RAID1, 2)
    vars(made).update(changes)
    with pytest.raises(CorruptError, match=message):
        check_chunk(made)
