"""Where the address line runs through the square: hilbert, snake and linear.

A curve visits every pixel of a square of 2^order by 2^order pixels once. Its first position
belongs to the first bytes of the address line. Rows count from the top, columns from the left.

The Hilbert curve of order n is made of four curves of order n-1, one in each quarter of the square:

    +-----+-----+      quarter 0 is mirrored on the diagonal that rises from the bottom left,
    |  1  |  2  |      quarter 3 on the one that falls from the top left,
    +-----+-----+      quarters 1 and 2 are upright.
    |  0  |  3  |
    +-----+-----+      The curve begins at the bottom left and ends at the bottom right.

So every aligned range of 4^k positions fills a square, which has one of four orientations. The two
mirrorings are their own opposites and do not care which comes first: an orientation is a number of
two bits, one for each mirroring, and orientations combine by exclusive or.

A picture is made from pieces: ranges of the curve that each fill a rectangle and are small enough
to stay in the processor's cache. A tile of a larger picture is made from pieces in the same way,
and the whole picture is the tile that covers everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]

HILBERT, LINEAR, SNAKE = CURVES = ("hilbert", "linear", "snake")

MAX_ORDER = 31
"""Positions of this order still fit into 64 bits with a sign: 4^31."""

# Orientations of a square, to be combined by exclusive or.
_UPRIGHT = 0
_FALLING = 1  # mirrored on the diagonal that falls from the top left (transposed)
_RISING = 2  # mirrored on the diagonal that rises from the bottom left

# How the curve is turned in each quarter of an upright square, in the order of the curve.
_QUARTER_ORIENTATION = np.array([_RISING, _UPRIGHT, _UPRIGHT, _FALLING])

_PIECE_ORDER = 8
"""A piece has up to 4^8 pixels: positions, colours and window together fit a level 2 cache."""


class CurvePiece(NamedTuple):
    """A range of the curve, and the rectangle of the picture that it fills.

    Attributes:
        first: Position of the range's first pixel, counted from the beginning of the curve.
        window: The rectangle, as an index into the picture or tile, an array (rows, columns).
        positions: For each pixel of the rectangle its position, counted from `first`.
    """

    first: int
    window: tuple[slice, slice]
    positions: Positions

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.positions.size


def pieces(
    curve: str, order: int, tile_order: int | None = None, row: int = 0, column: int = 0
) -> Iterator[CurvePiece]:
    """Yield the pieces of a tile, in the order of the curve.

    Args:
        curve: One of CURVES.
        order: The whole picture has 2^order by 2^order pixels.
        tile_order: The tile has 2^tile_order by 2^tile_order pixels. Left out, the tile is the
            whole picture.
        row: Which tile, counted in tiles from the top.
        column: Which tile, counted in tiles from the left.
    """
    check_curve(curve, order)
    if tile_order is None:
        tile_order = order
    if (
        not 0 <= tile_order <= order
        or not 0 <= row < 1 << (order - tile_order)
        or not 0 <= column < 1 << (order - tile_order)
    ):
        raise ValueError(f"no tile of order {tile_order} at {row}, {column} in order {order}")
    if curve == HILBERT:
        return _hilbert_pieces(order, tile_order, row, column)
    return _row_pieces(curve, order, tile_order, row, column)


def positions(curve: str, order: int) -> Positions:
    """Return the position on the curve of every pixel of the square, an array (rows, columns)."""
    check_curve(curve, order)
    if curve == HILBERT:
        return _hilbert_square(order, _UPRIGHT)
    side = 1 << order
    square = np.arange(side * side, dtype=np.int64).reshape(side, side)
    if curve == SNAKE:
        square[1::2] = square[1::2, ::-1]
    return square


def pixels_at(curve: str, order: int, position: Positions) -> tuple[Positions, Positions]:
    """Return the rows and the columns of the pixels at the given positions of the curve."""
    check_curve(curve, order)
    if curve == HILBERT:
        rows, columns, _ = _hilbert_walk(order, position)
        return rows, columns
    side = 1 << order
    rows, columns = position // side, position % side
    return rows, columns if curve == LINEAR else _snake_column(rows, columns, side)


def positions_at(curve: str, order: int, row: Positions, column: Positions) -> Positions:
    """Return the positions on the curve of the pixels at the given rows and columns."""
    check_curve(curve, order)
    side = 1 << order
    if curve == LINEAR:
        return row * side + column
    if curve == SNAKE:
        return row * side + _snake_column(row, column, side)
    position = np.zeros_like(row)
    orientation = np.zeros_like(row)
    for bit in reversed(range(order)):
        quarter = _QUARTER_AT[orientation, (row >> bit) & 1, (column >> bit) & 1]
        position = position << 2 | quarter
        orientation = orientation ^ _QUARTER_ORIENTATION[quarter]
    return position


def check_curve(curve: str, order: int) -> None:
    """Raise ValueError if there is no such curve, or none of this order."""
    if curve not in CURVES:
        raise ValueError(f"unknown curve {curve!r} (there are {', '.join(CURVES)})")
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"order {order} out of range (need 0 to {MAX_ORDER})")


def _hilbert_pieces(order: int, tile_order: int, row: int, column: int) -> Iterator[CurvePiece]:
    piece_order = min(tile_order, _PIECE_ORDER)
    side = 1 << piece_order
    area = side * side
    # The tile is one range of the curve; its place on the curve tells how it is turned.
    tile = positions_at(HILBERT, order - tile_order, np.array(row), np.array(column))
    index = (tile << 2 * (tile_order - piece_order)) + np.arange(4 ** (tile_order - piece_order))
    rows, columns, orientations = _hilbert_walk(order - piece_order, index)
    within = (1 << (tile_order - piece_order)) - 1
    for i, r, c, o in zip(
        index.tolist(),
        (rows & within).tolist(),
        (columns & within).tolist(),
        orientations.tolist(),
        strict=True,
    ):
        window = slice(r * side, (r + 1) * side), slice(c * side, (c + 1) * side)
        yield CurvePiece(i * area, window, _hilbert_square(piece_order, o))


def _row_pieces(
    curve: str, order: int, tile_order: int, row: int, column: int
) -> Iterator[CurvePiece]:
    side = 1 << order
    width = 1 << tile_order
    # Whole rows follow one another on the line and go together; parts of rows do not.
    height = max(1, min(width, 4**_PIECE_ORDER // width)) if width == side else 1
    straight = np.arange(height * width, dtype=np.int64).reshape(height, width)
    even = odd = straight  # of pieces that begin with an even row, and with an odd one
    if curve == SNAKE:
        # Only a piece that is a single row can begin with an odd one.
        odd = straight[:, ::-1]
        even = np.where(np.arange(height)[:, np.newaxis] % 2, odd, straight)
    for top in range(0, width, height):
        is_odd = (row * width + top) % 2 == 1
        before = side - (column + 1) * width if is_odd and curve == SNAKE else column * width
        first = (row * width + top) * side + before
        window = slice(top, top + height), slice(0, width)
        yield CurvePiece(first, window, odd if is_odd else even)


@cache
def _hilbert_square(order: int, orientation: int) -> Positions:
    """Return the position of each pixel of a square of this orientation; shared, so read-only."""
    if orientation:
        square = _mirror(_hilbert_square(order, _UPRIGHT), orientation)
    else:
        square = np.zeros((1, 1), dtype=np.int64)
        for _ in range(order):
            area = square.size
            quarters = [
                _mirror(square, int(o)) + i * area for i, o in enumerate(_QUARTER_ORIENTATION)
            ]
            square = np.block([[quarters[1], quarters[2]], [quarters[0], quarters[3]]])
    square = np.ascontiguousarray(square)
    square.flags.writeable = False
    return square


def _mirror(square: Positions, orientation: int) -> Positions:
    if orientation & _FALLING:
        square = square.T
    if orientation & _RISING:
        square = square[::-1, ::-1].T
    return square


def _hilbert_walk(order: int, position: Positions) -> tuple[Positions, Positions, Positions]:
    """Return rows, columns and orientations of the squares at these positions."""
    rows, columns, orientation = (np.zeros_like(position) for _ in range(3))
    for digit in reversed(range(order)):
        quarter = (position >> 2 * digit) & 3
        rows = rows << 1 | _ROW_OF[orientation, quarter]
        columns = columns << 1 | _COLUMN_OF[orientation, quarter]
        orientation = orientation ^ _QUARTER_ORIENTATION[quarter]
    return rows, columns, orientation


def _snake_column(row: Positions, column: Positions, side: int) -> Positions:
    return np.where(row % 2 == 1, side - 1 - column, column)


def _turned_quarters() -> tuple[Positions, Positions, Positions]:
    """Return where each quarter lies in a square of each orientation, and the reverse.

    Rows and columns are indexed by [orientation, quarter], quarters by [orientation, row, column].
    """
    upright = np.array([[1, 2], [0, 3]])
    quarters = np.stack([_mirror(upright, orientation) for orientation in range(4)])
    rows, columns = np.empty((2, 4, 4), dtype=np.int64)
    for orientation, square in enumerate(quarters):
        for row, column in np.ndindex(2, 2):
            rows[orientation, square[row, column]] = row
            columns[orientation, square[row, column]] = column
    return rows, columns, quarters


_ROW_OF, _COLUMN_OF, _QUARTER_AT = _turned_quarters()
