"""Curves: bijections whose steps are short, and tiles that are ranges of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from heatmap import curves

ORDERS = range(7)
every_curve = pytest.mark.parametrize("curve", curves.CURVES)


@st.composite
def tiles(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Return the order of a picture, and order, row and column of a tile of it."""
    order = draw(st.integers(0, 8))
    tile_order = draw(st.integers(0, order))
    last = (1 << (order - tile_order)) - 1
    return order, tile_order, draw(st.integers(0, last)), draw(st.integers(0, last))


def test_first_steps() -> None:
    assert curves.positions("hilbert", 1).tolist() == [[1, 2], [0, 3]]
    assert curves.positions("hilbert", 2).tolist() == [
        [5, 6, 9, 10],
        [4, 7, 8, 11],
        [3, 2, 13, 12],
        [0, 1, 14, 15],
    ]
    assert curves.positions("linear", 1).tolist() == [[0, 1], [2, 3]]
    assert curves.positions("snake", 1).tolist() == [[0, 1], [3, 2]]


@every_curve
@pytest.mark.parametrize("order", ORDERS)
def test_every_pixel_is_visited_once(curve: str, order: int) -> None:
    visited = curves.positions(curve, order).ravel()
    assert np.array_equal(np.sort(visited), np.arange(4**order))


@pytest.mark.parametrize("curve", ["hilbert", "snake"])
@pytest.mark.parametrize("order", ORDERS)
def test_neighbours_on_the_curve_touch(curve: str, order: int) -> None:
    rows, columns = curves.pixels_at(curve, order, np.arange(4**order))
    assert (abs(np.diff(rows)) + abs(np.diff(columns)) == 1).all()


@every_curve
@pytest.mark.parametrize("order", ORDERS)
def test_pixels_and_positions_are_inverse(curve: str, order: int) -> None:
    position = np.arange(4**order)
    rows, columns = curves.pixels_at(curve, order, position)
    assert np.array_equal(curves.positions_at(curve, order, rows, columns), position)
    assert np.array_equal(curves.positions(curve, order)[rows, columns], position)


@every_curve
@given(order=st.integers(9, curves.MAX_ORDER), data=st.data())
def test_inverse_in_any_order(curve: str, order: int, data: st.DataObject) -> None:
    position = np.array(data.draw(st.lists(st.integers(0, 4**order - 1), min_size=1)))
    rows, columns = curves.pixels_at(curve, order, position)
    assert (rows >> order == 0).all()
    assert (columns >> order == 0).all()
    assert np.array_equal(curves.positions_at(curve, order, rows, columns), position)


@every_curve
@given(tile=tiles())
def test_tile_is_part_of_the_whole(curve: str, tile: tuple[int, int, int, int]) -> None:
    order, tile_order, row, column = tile
    side = 1 << tile_order
    square = np.full((side, side), -1)
    begin = -1
    for piece in curves.pieces(curve, order, tile_order, row, column):
        assert piece.first > begin, "pieces come in the order of the curve"
        begin = piece.first
        square[piece.window] = piece.first + piece.positions
    whole = curves.positions(curve, order)
    part = whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
    assert np.array_equal(square, part)


@given(tile=tiles())
def test_hilbert_tile_is_one_range(tile: tuple[int, int, int, int]) -> None:
    order, tile_order, _, _ = tile
    made = list(curves.pieces("hilbert", *tile))
    assert made[0].first % 4**tile_order == 0
    assert sum(piece.size for piece in made) == 4**tile_order
    assert made[-1].first + made[-1].size == made[0].first + 4**tile_order
    assert made[0].first < 4**order


@every_curve
def test_pieces_of_a_large_picture_are_small(curve: str) -> None:
    assert max(piece.size for piece in curves.pieces(curve, 10)) == 4**8


@pytest.mark.parametrize(("curve", "order"), [("spiral", 3), ("hilbert", -1), ("hilbert", 32)])
def test_no_such_curve(curve: str, order: int) -> None:
    with pytest.raises(ValueError, match=r"unknown curve|out of range"):
        curves.positions(curve, order)


@pytest.mark.parametrize("tile", [(4, 0, 0), (2, 2, 0), (2, 0, -1), (-1, 0, 0)])
def test_no_such_tile(tile: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no tile"):
        list(curves.pieces("hilbert", 3, *tile))
