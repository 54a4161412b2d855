"""What of a chunk lies in each of its stripes: the reverse of the chunk map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.ondisk import stripes
from btrfs.ondisk.constants import STRIPE_LEN
from btrfs.source.disk.chunk_map import ChunkMap
from btrfs.volumes import profile_of
from tests.library.test_chunk_map import LAYOUTS, chunk

Place = tuple[int, int]
"""Index of a stripe, and a byte of it."""


def places(made: Any, start: int, length: int) -> set[Place]:
    """Return where the chunk map puts the sectors of a range of a chunk."""
    chunk_map = ChunkMap([made])
    return {
        (piece.devid - 1, piece.paddr - (piece.devid << 40) + at)
        for copy in chunk_map.copies(made.vaddr + start, length)
        for piece in copy
        for at in range(0, piece.length, 4096)
    }


@pytest.mark.parametrize(("profile", "num_stripes"), LAYOUTS)
@given(data=st.data())
def test_stripes_hold_what_the_chunk_map_says(
    profile: int, num_stripes: int, data: st.DataObject
) -> None:
    made = chunk(profile, num_stripes)
    cuts = sorted(data.draw(st.sets(st.integers(0, made.length // 4096), min_size=2, max_size=8)))
    # Every second range between the cuts, so that there are holes.
    start = np.array(cuts[:-1:2], np.int64) * 4096
    length = np.array(cuts[1::2], np.int64)[: start.size] * 4096 - start
    found = [stripes.held(made, stripe, start, length) for stripe in range(num_stripes)]
    for index, (first, size) in enumerate(zip(start.tolist(), length.tolist(), strict=True)):
        held = {
            (stripe, at)
            for stripe, parts in enumerate(found)
            for begin, count, owner in zip(*(part.tolist() for part in parts), strict=True)
            if owner == index
            for at in range(begin, begin + count, 4096)
        }
        assert held == places(made, first, size)
    for parts in found:
        assert (np.diff(parts.start) >= parts.length[:-1]).all()


@pytest.mark.parametrize(("profile", "num_stripes"), LAYOUTS)
def test_each_byte_leads_back_to_the_chunk(profile: int, num_stripes: int) -> None:
    made = chunk(profile, num_stripes)
    for offset in range(0, made.length, 20480):
        for stripe, at in places(made, offset, 1):
            assert stripes.chunk_offset(made, stripe, at) == offset
            ((first, behind),) = stripes.chunk_ranges(made, np.array([[at, at + 1]]))
            assert first <= offset < behind


@pytest.mark.parametrize(("profile", "num_stripes"), LAYOUTS)
def test_parity_is_in_each_row_that_is_in_use(profile: int, num_stripes: int) -> None:
    made = chunk(profile, num_stripes)
    nparity = profile_of(made.type).nparity
    # Two ranges in the first row, one in the third.
    row = (num_stripes - nparity) * STRIPE_LEN
    start = np.array([0, 8192, 2 * row], np.int64)
    parity = set()
    for stripe in range(num_stripes):
        parts = stripes.held(made, stripe, start, np.full(3, 4096))
        for at in parts.start[parts.which < 0].tolist():
            assert stripes.chunk_offset(made, stripe, at) is None
            parity.add((stripe, at // STRIPE_LEN))
    lengths = stripes.parity_length(made, start, np.full(3, 4096))
    assert lengths == len(parity) * STRIPE_LEN
    assert sorted(at for _, at in parity) == [0] * nparity + [2] * nparity
