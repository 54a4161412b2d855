"""Less detail: how much there is of everything stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs_atlas.explorer.render import pyramid
from btrfs_atlas.explorer.render.pyramid import Pyramid
from heatmap.layers.coverage import Coverage

GAPS_LENGTHS_VALUES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 200), st.integers(0, 3)), max_size=60
)


def coverage(drawn: list[tuple[int, int, int]]) -> Coverage:
    """Return a coverage, given gaps and lengths in sectors, and values."""
    gap, length, value = np.array(drawn, np.int64).reshape(-1, 3).T
    start = np.cumsum(gap + length) - length
    return Coverage(start * 4096, length * 4096, value.astype(np.uint16))


def amounts(shown: Coverage, cell: int, value: int) -> dict[int, int]:
    """Return how many bytes of each cell have a value."""
    found: dict[int, int] = {}
    for start, length, one in zip(
        shown.start.tolist(), shown.length.tolist(), shown.value.tolist(), strict=True
    ):
        at = start
        while one == value and at < start + length:
            stop = min(start + length, (at // cell + 1) * cell)
            found[at // cell] = found.get(at // cell, 0) + stop - at
            at = stop
    return found


@given(GAPS_LENGTHS_VALUES, st.sampled_from([4096, 8192, 65536, 1 << 20]))
def test_each_cell_keeps_its_amounts(drawn: list[tuple[int, int, int]], cell: int) -> None:
    whole = coverage(drawn)
    less = pyramid.simplified(whole, cell)
    for value in range(4):
        assert amounts(less, cell, value) == amounts(whole, cell, value)
    assert (np.diff(less.start) >= less.length[:-1]).all()
    assert (less.length > 0).all()


@given(GAPS_LENGTHS_VALUES)
def test_levels_of_a_pyramid_have_ever_less(drawn: list[tuple[int, int, int]]) -> None:
    whole = coverage(drawn)
    pyramid = Pyramid(whole)
    before = whole
    for cell in (1 << bit for bit in range(13, 26)):
        level = pyramid.at(cell)
        if level is None:
            continue
        assert len(level) <= len(before)
        before = level
        for value in range(4):
            assert amounts(level, cell, value) == amounts(whole, cell, value)


@given(GAPS_LENGTHS_VALUES, st.integers(1, 20))
def test_limited_keeps_what_fits(drawn: list[tuple[int, int, int]], most: int) -> None:
    whole = coverage(drawn)
    less = pyramid.limited(whole, 4096, most)
    assert len(less) <= most
    if len(whole) <= most:
        assert less is whole
    if len(set(whole.value.tolist())) <= most:
        assert less.length.sum() == whole.length.sum()


def test_many_small_extents_become_few() -> None:
    count = 50_000
    whole = coverage([(1, 1, 0)] * count)
    pyramid = Pyramid(whole)
    level = pyramid.at(1 << 20)
    assert level is not None
    assert len(level) == pytest.approx(count * 8192 / (1 << 20), rel=0.01)
    assert pyramid.nbytes <= whole.nbytes


def test_extents_of_one_kind_without_gaps_are_one() -> None:
    level = Pyramid(coverage([(0, 1, 2)] * 1000)).at(1)
    assert level is not None
    assert (level.start.tolist(), level.length.tolist()) == ([0], [1000 * 4096])


@given(
    GAPS_LENGTHS_VALUES,
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 300)), min_size=1, max_size=8),
)
def test_only_what_overlaps_a_range_is_left(
    drawn: list[tuple[int, int, int]], steps_and_lengths: list[tuple[int, int]]
) -> None:
    whole = coverage(drawn)
    step, length = np.array(steps_and_lengths, np.int64).T * 4096
    first = np.cumsum(step)
    end = np.maximum.accumulate(first + length)  # they can overlap, as those of stripes do
    overlaps = np.array(
        [
            ((start < end) & (start + size > first)).any()
            for start, size in zip(whole.start, whole.length, strict=True)
        ],
        dtype=np.bool_,
    )
    part = whole.overlapping(np.stack([first, end], axis=1))
    assert part.start.tolist() == whole.start[overlaps].tolist()
