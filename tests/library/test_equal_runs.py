"""Runs of equal values in arrays, compared with what plain loops find."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from btrfs.ownership import equal_runs

WINDOW = 3


@st.composite
def pieces(draw: st.DrawFn) -> list[list[int]]:
    """Return pieces of an array that have much in common, some of it one value all the way."""
    blocks = draw(
        st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=6), min_size=1, max_size=4)
    )
    blocks += [[0] * 4, [0] * 9]
    chosen = st.lists(st.sampled_from(blocks), min_size=1, max_size=5)
    return [list(chain(*piece)) for piece in draw(st.lists(chosen, min_size=1, max_size=8))]


def flat(made: list[list[int]]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return pieces as values, and where each begins."""
    ends = np.cumsum([len(piece) for piece in made])
    return np.array([*chain(*made)], np.uint32), np.append(0, ends[:-1])


def plain_distances(made: list[list[int]], window: int) -> list[int]:
    """Return how far before each value the first one lies that it repeats."""
    distances = [0] * sum(map(len, made))
    seen: dict[tuple[int, ...], int] = {}
    begin = 0
    for piece in made:
        for start in range(len(piece) - window + 1):
            first = seen.setdefault(tuple(piece[start : start + window]), begin + start)
            for index in range(begin + start, begin + start + window):
                distances[index] = max(distances[index], begin + start - first)
        begin += len(piece)
    for index, distance in enumerate(distances):
        if distance:
            distances[index] += distances[index - distance]
    return distances


def resolved(made: list[list[int]], window: int = WINDOW) -> NDArray[np.int64]:
    values, begins = flat(made)
    distances = equal_runs.repeat_distances(values, begins, window)
    equal_runs.resolve(distances)
    return distances.astype(np.int64)


@given(pieces())
def test_distances(made: list[list[int]]) -> None:
    assert resolved(made).tolist() == plain_distances(made, WINDOW)


@given(pieces())
def test_distances_of_parts_that_are_sorted_one_by_one(made: list[list[int]]) -> None:
    before = equal_runs._PART_BITS, equal_runs._BLOCK
    equal_runs._PART_BITS, equal_runs._BLOCK = 2, 5
    try:
        assert resolved(made).tolist() == plain_distances(made, WINDOW)
    finally:
        equal_runs._PART_BITS, equal_runs._BLOCK = before


@given(pieces())
def test_what_is_not_equal_is_no_repetition_whatever_its_hash(made: list[list[int]]) -> None:
    before = equal_runs._MULTIPLIER
    equal_runs._MULTIPLIER = np.uint64(0)
    try:
        distances = resolved(made)
    finally:
        equal_runs._MULTIPLIER = before
    values, _ = flat(made)
    assert (values == values[np.arange(len(values)) - distances]).all()


@given(pieces())
def test_runs(made: list[list[int]]) -> None:
    """Each run repeats what it says, within pieces, and nothing that can be in a run is in none."""
    values, begins = flat(made)
    distances = resolved(made)
    repeated = distances > 0
    runs = equal_runs.repeat_runs(values, begins, distances, WINDOW)
    piece_of = np.searchsorted(begins, np.arange(len(values)), side="right")
    covered = np.zeros(len(values), bool)
    for start, source, length in zip(*runs, strict=True):
        run, repeats = slice(start, start + length), slice(source, source + length)
        assert source < start
        assert (values[run] == values[repeats]).all()
        assert len(set(piece_of[run])) == len(set(piece_of[repeats])) == 1
        assert not covered[run].any()
        covered[run] = True
    is_flat = np.zeros(len(values), bool)
    for start in range(len(values) - WINDOW + 1):
        window = slice(start, start + WINDOW)
        is_flat[window] |= len(set(values[window])) == len(set(piece_of[window])) == 1
    assert (covered[~is_flat] == repeated[~is_flat]).all()


def test_a_copy_with_zeros_in_it_is_one_run() -> None:
    zeros = [0] * 7
    file = [*range(1, 8), *zeros, *range(8, 15), *zeros]
    values, begins = flat([[0] * 8, file, file])
    distances = resolved([[0] * 8, file, file])
    runs = equal_runs.repeat_runs(values, begins, distances, WINDOW)
    assert np.transpose(runs).tolist() == [[8 + len(file), 8, len(file)]]


def spare_pieces(distances: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which pieces are spare if each is an extent."""
    first = np.cumsum(lengths) - lengths
    return equal_runs.spare_extents(distances, first, lengths, np.zeros(len(lengths), bool))


@given(pieces())
def test_no_value_is_only_in_spare_extents(made: list[list[int]]) -> None:
    distances = resolved(made)
    lengths = np.array([len(piece) for piece in made])
    spare = spare_pieces(distances, lengths)
    root = np.arange(len(distances)) - distances
    assert set(root[np.repeat(~spare, lengths)].tolist()) == set(root.tolist())


def test_the_shorter_extent_is_spare() -> None:
    short, long = list(range(5)), list(range(20))
    for made in ([short, long], [long, short]):
        distances = resolved(made)
        lengths = np.array([len(piece) for piece in made])
        spare = spare_pieces(distances, lengths)
        assert lengths[spare].tolist() == [5]


def test_what_the_others_hold_together_is_spare() -> None:
    """The longest is kept for its zeros at first, but another one that is needed has zeros, too."""
    zeros, file = [0] * 30, [*range(1, 8), *[0] * 5, *range(8, 15)]
    made = [zeros, file, file]
    lengths = np.array([len(piece) for piece in made])
    spare = spare_pieces(resolved(made), lengths)
    assert spare.tolist() == [True, False, True]
