"""The geometry of chunks against a slow, plain model that writes a chunk row by row."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.ondisk.constants import STRIPE_LEN
from btrfs.ondisk.geometry import PARITY, Geometry, geometry_of
from btrfs.ondisk.profiles import PROFILES
from tests.library.test_chunk_map import LAYOUTS, chunk
from tests.support.javascript import run_module

SECTOR = 4096
ROWS = 8

GEOMETRIES = [
    *(Geometry(PROFILES[profile], count) for profile, count in LAYOUTS),
    *(Geometry(PROFILES[1 << 3], count) for count in (1, 2, 7)),  # RAID0
    *(Geometry(PROFILES[1 << 6], count) for count in (2, 4, 10)),  # RAID10
    *(Geometry(PROFILES[1 << 7], count) for count in (3, 10)),  # RAID5
    *(Geometry(PROFILES[1 << 8], count) for count in (4, 9)),  # RAID6
]

geometries = pytest.mark.parametrize(
    "geometry", GEOMETRIES, ids=lambda one: f"{one.profile}-{one.num_stripes}"
)


def model(geometry: Geometry) -> list[list[int]]:
    """Return which sector of the chunk each sector of each stripe is, PARITY for parity.

    The chunk is written as it is described: row by row, element by element, in turn.
    """
    profile, count = geometry
    sectors = STRIPE_LEN // SECTOR
    if not profile.striped:
        return [list(range(ROWS * sectors)) for _ in range(count)]
    stripes: list[list[int]] = [[] for _ in range(count)]
    sector = 0
    for row in range(ROWS):
        row_of_elements: list[list[int]] = []
        for _ in range((count - profile.nparity) // profile.sub_stripes):
            element = list(range(sector, sector + sectors))
            row_of_elements += [element] * profile.sub_stripes
            sector += sectors
        row_of_elements += [[PARITY] * sectors] * profile.nparity
        for index, element in enumerate(row_of_elements):
            turned = (index + row) % count if profile.nparity else index
            stripes[turned] += element
    return stripes


@geometries
def test_each_byte_leads_to_its_stripes_and_back(geometry: Geometry) -> None:
    homes = defaultdict(set)
    for stripe, sectors in enumerate(model(geometry)):
        for at, sector in enumerate(sectors):
            back = geometry.to_logical(stripe, at * SECTOR + 17)
            assert back == (PARITY if sector == PARITY else sector * SECTOR + 17)
            if sector != PARITY:
                homes[sector].add((stripe, at * SECTOR))
    for sector, expected in homes.items():
        found = [
            geometry.to_physical(sector * SECTOR, copy) for copy in range(geometry.profile.ncopies)
        ]
        assert set(found) == expected
        assert len(found) == len(expected)


@geometries
def test_arrays_are_the_same_as_single_bytes(geometry: Geometry) -> None:
    offsets = np.arange(0, 3 * geometry.row_length, 20480)
    far = offsets + (geometry.row_length << 40)
    for copy in range(geometry.profile.ncopies):
        for many in (offsets, far):
            stripes, within = geometry.to_physical(many, copy)
            single = [geometry.to_physical(offset, copy) for offset in many.tolist()]
            assert list(zip(stripes.tolist(), within.tolist(), strict=True)) == single


@geometries
@given(data=st.data())
def test_stripes_hold_ranges(geometry: Geometry, data: st.DataObject) -> None:
    stripes = model(geometry)
    length = 1 + max(max(sectors) for sectors in stripes)
    cuts = sorted(data.draw(st.sets(st.integers(0, length), min_size=2, max_size=8)))
    # Every second range between the cuts, so that there are holes.
    begin, end = np.array(cuts[:-1:2]), np.array(cuts[1::2])
    begin = begin[: end.size]
    for stripe, sectors in enumerate(stripes):
        found = geometry.in_stripe(stripe, begin * SECTOR, (end - begin) * SECTOR)
        assert (np.diff(found.start) >= found.length[:-1]).all()
        held = {}
        for start, size, which in zip(*(part.tolist() for part in found), strict=True):
            for at in range(start // SECTOR, (start + size) // SECTOR):
                held[at] = which
        expected = {
            at: next(
                index
                for index, (first, last) in enumerate(zip(begin, end, strict=True))
                if first <= sector < last
            )
            for at, sector in enumerate(sectors)
            if sector != PARITY and ((begin <= sector) & (sector < end)).any()
        }
        expected |= dict.fromkeys(parity_in_use(geometry, sectors, begin, end), PARITY)
        assert held == expected


def parity_in_use(
    geometry: Geometry, sectors: list[int], begin: np.ndarray, end: np.ndarray
) -> set[int]:
    """Return the sectors of parity of a stripe in rows that ranges of the chunk reach into."""
    in_row = geometry.row_length // SECTOR
    return {
        at
        for at, sector in enumerate(sectors)
        if sector == PARITY
        for row in [at * SECTOR // STRIPE_LEN]
        if ((begin < (row + 1) * in_row) & (end > row * in_row)).any()
    }


@geometries
def test_parity_is_in_each_row_that_is_in_use(geometry: Geometry) -> None:
    # Two ranges in the first row, one in the third.
    start = np.array([0, 8192, 2 * geometry.row_length], np.int64)
    length = np.full(3, SECTOR)
    nparity = geometry.profile.nparity
    assert geometry.parity_length(start, length) == 2 * nparity * STRIPE_LEN
    parity = [
        at // STRIPE_LEN
        for stripe in range(geometry.num_stripes)
        for at, which in zip(*geometry.in_stripe(stripe, start, length)[::2], strict=True)
        if which == PARITY
    ]
    assert sorted(parity) == [0] * nparity + [2] * nparity


@geometries
@given(start=st.integers(0, 100), size=st.integers(1, 40))
def test_pieces_of_a_range_lie_in_one_stripe_each(
    geometry: Geometry, start: int, size: int
) -> None:
    pieces = geometry.split(start * SECTOR, size * SECTOR)
    assert pieces[0][0] == start * SECTOR
    assert sum(length for _, length in pieces) == size * SECTOR
    for offset, length in pieces:
        stripe, at = geometry.to_physical(offset)
        assert geometry.are_contiguous(np.array([offset]), length).all()
        assert geometry.contiguous_length(at, length) == length
        assert geometry.to_logical(stripe, at + length - 1) == offset + length - 1
    if len(pieces) > 1:
        assert not geometry.are_contiguous(np.array([start * SECTOR]), size * SECTOR).any()


@geometries
@given(start=st.integers(0, 120), size=st.integers(1, 40))
def test_ranges_of_a_stripe_lie_in_ranges_of_the_chunk(
    geometry: Geometry, start: int, size: int
) -> None:
    for sectors in model(geometry):
        ((first, end),) = geometry.in_chunk(np.array([[start * SECTOR, (start + size) * SECTOR]]))
        for sector in sectors[start : start + size]:
            assert sector == PARITY or first <= sector * SECTOR < end


@pytest.mark.parametrize("geometry", [one for one in GEOMETRIES if one.profile.nparity])
def test_rows_have_their_data_in_order_and_then_parity(geometry: Geometry) -> None:
    stripes = model(geometry)
    for offset in range(0, ROWS * geometry.row_length, STRIPE_LEN):
        row = offset // geometry.row_length
        order = geometry.stripes_of_row(offset)
        found = [stripes[stripe][row * STRIPE_LEN // SECTOR] for stripe in order]
        first = row * geometry.row_length // SECTOR
        columns = [first + column * STRIPE_LEN // SECTOR for column in range(geometry.columns)]
        assert found == [*columns, *[PARITY] * geometry.profile.nparity]
        assert found[geometry.column_of(offset)] == offset // SECTOR


def test_a_chunk_has_the_geometry_of_its_profile() -> None:
    for profile, count in LAYOUTS:
        assert geometry_of(chunk(profile, count)) == Geometry(PROFILES[profile], count)


def test_javascript_says_the_same() -> None:
    """An exported map finds addresses without a server, by a module of its own."""
    models = [model(geometry) for geometry in GEOMETRIES]
    layouts = [
        {
            "isStriped": geometry.profile.striped,
            "parity": geometry.profile.nparity,
            "subStripes": geometry.profile.sub_stripes,
            "stripes": geometry.num_stripes,
            "sectors": len(stripes[0]),
            "length": 1 + max(map(max, stripes)),
        }
        for geometry, stripes in zip(GEOMETRIES, models, strict=True)
    ]
    answers = run_module("stripe-sectors.js", layouts)
    for geometry, stripes, answer in zip(GEOMETRIES, models, answers, strict=True):
        assert answer["held"] == stripes
        for sector, (stripe, at) in enumerate(answer["first"]):
            assert geometry.to_physical(sector * SECTOR) == (stripe, at * SECTOR)
