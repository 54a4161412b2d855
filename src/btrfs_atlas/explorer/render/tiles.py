"""Squares of the map as PNG files: what lies there, and marks to be laid over it.

A tile is drawn by `heatmap.raster` from the intervals that overlap it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs_atlas.explorer.model.lines import TILE_ORDER, Line
from heatmap import curves, raster
from heatmap.intervals import Intervals
from heatmap.palette import Palette, palette

Positions = NDArray[np.int64]

SIDE = 1 << TILE_ORDER

_WIDE_HULL = 4
"""Ranges are taken as one, gaps and all, if that is not more than so many times as long."""

_COMPRESS_LEVEL = 1
"""Of PNG: any more takes longer to make than to send."""

_CLEAR, _FOUND, _RIM, _CHANGED, _DEVICE_BORDER, _GROUP_BORDER = range(6)
"""What there is on pictures of marks; the rim lets what is found be seen on a bright ground."""

_MARK_COLOURS = np.array(
    [
        (0x00, 0x00, 0x00, 0x00),
        (0xFF, 0xE0, 0x00, 0xFF),
        (0x00, 0x00, 0x00, 0xC0),
        (0xFF, 0x7A, 0x00, 0xC0),
        (0xFF, 0x9E, 0x1B, 0xFF),
        (0x80, 0x86, 0x90, 0xA0),
    ],
    dtype=np.uint8,
)
"""Red, green, blue and opacity of each of them."""

_SMALLEST_GROUP = 24
"""Block groups have borders if as many pixels wide, about."""


TileKey = tuple[str, str, int, int, int]
"""Which tile: space, curve, zoom, row and column; the last two count tiles."""


class Tile(NamedTuple):
    """A tile of the map.

    Attributes:
        png: The picture, a file.
        complete: Whether all that lies there was known; otherwise ask again later.
    """

    png: bytes
    complete: bool


class Square(NamedTuple):
    """Which tile: a line, how it runs, and the place of the tile in the picture.

    Attributes:
        line: The address line.
        curve: One of `heatmap.curves.CURVES`.
        zoom: From 0 to the largest of the line.
        row: Counted in tiles from the top.
        column: Counted in tiles from the left.
    """

    line: Line
    curve: str
    zoom: int
    row: int
    column: int

    @property
    def order(self) -> int:
        """The whole picture has 4^order pixels."""
        return self.line.order(self.zoom)

    @property
    def bytes_per_pixel(self) -> float:
        """Bytes of the line that a pixel stands for."""
        return raster.Span(self.line.total_bytes, self.order).bytes_per_pixel

    def check(self) -> None:
        """Raise ValueError if there is no such tile."""
        curves.check_curve(self.curve, self.order)
        if not (0 <= self.row < 1 << self.zoom and 0 <= self.column < 1 << self.zoom):
            raise ValueError(f"no tile at {self.row}, {self.column} at zoom {self.zoom}")

    def ranges(self) -> list[tuple[int, int]]:
        """Return the ranges of the line that the tile shows: start and end."""
        total, pixels = self.line.total_bytes, 2 * self.order
        found: list[tuple[int, int]] = []
        for piece in curves.pieces(self.curve, self.order, TILE_ORDER, self.row, self.column):
            first = piece.first * total >> pixels
            end = -(-(piece.first + piece.size) * total >> pixels)
            if found and found[-1][1] >= first:
                found[-1] = found[-1][0], end
            else:
                found.append((first, end))
        hull = found[0][0], found[-1][1]
        inside = sum(end - first for first, end in found)
        return [hull] if hull[1] - hull[0] <= _WIDE_HULL * inside else found

    def positions(self) -> Positions:
        """Return where on the curve each pixel lies, and each of the row and the column before.

        Before the picture's own first row and column, these are the same once more.

        Returns:
            Array (rows, columns), each one more than the tile has.
        """
        found = np.empty((SIDE + 1, SIDE + 1), dtype=np.int64)
        for piece in curves.pieces(self.curve, self.order, TILE_ORDER, self.row, self.column):
            found[1:, 1:][piece.window] = piece.first + piece.positions
        rows, columns = (
            np.maximum(0, np.arange(-1, SIDE) + (at << TILE_ORDER))
            for at in (self.row, self.column)
        )
        found[0] = curves.positions_at(self.curve, self.order, rows[:1].repeat(SIDE + 1), columns)
        found[:, 0] = curves.positions_at(
            self.curve, self.order, rows, columns[:1].repeat(SIDE + 1)
        )
        return found


def draw(square: Square, shown: Intervals, colours: Palette) -> bytes:
    """Return a tile as PNG.

    Args:
        square: Which one.
        shown: What lies there.
        colours: What its values look like.
    """
    return _png(_pixels(square, shown, colours))


def draw_whole(line: Line, curve: str, zoom: int, shown: Intervals, colours: Palette) -> bytes:
    """Return the whole of a zoom as PNG; for the arguments see `Square` and `draw()`."""
    order = line.order(zoom)
    whole = (order, 0, 0)
    return _png(raster.draw_tile([shown], colours, (line.total_bytes, order), curve, whole))


def marks(square: Square, start: Positions, length: Positions, kind: str) -> bytes:
    """Return a transparent picture, on which ranges of the line are marked, as PNG.

    However short a range is, it is seen.

    Args:
        square: Which tile.
        start: Where the ranges begin, ascending, in bytes.
        length: Their lengths in bytes.
        kind: 'found' or 'changed'.
    """
    span = raster.Span(square.line.total_bytes, square.order)
    line_start, line_end = square.ranges()[0][0], square.ranges()[-1][1]
    near = slice(
        max(0, int(np.searchsorted(start, line_start)) - 1), int(np.searchsorted(start, line_end))
    )
    overlap = raster.overlapped_pixels(span, start[near], length[near])
    # All of each pixel, a little less so that it overlaps no other one.
    begin = np.ceil(overlap.first * span.bytes_per_pixel).astype(np.int64)
    end = np.ceil((overlap.last + 1) * span.bytes_per_pixel).astype(np.int64)
    value = np.zeros(begin.size, np.uint8)
    covered = Intervals(begin, np.maximum(1, end - begin), value)
    is_marked = _pixels(square, covered, _ON)[:, :, 0] > 0
    picture = np.full((SIDE, SIDE), _CLEAR, np.uint8)
    if kind == "found":
        picture[_grown(is_marked, 2)] = _RIM
        picture[_grown(is_marked, 1)] = _FOUND
    else:
        picture[is_marked] = _CHANGED
    return _png(picture, _MARK_COLOURS)


def borders(square: Square) -> bytes:
    """Return a transparent picture with the borders of devices and, if large, of block groups."""
    positions = square.positions()
    picture = np.full((SIDE, SIDE), _CLEAR, np.uint8)
    smallest = square.bytes_per_pixel * _SMALLEST_GROUP**2
    edges = [
        edge
        for first, end in square.ranges()
        for part in square.line.parts_between(first, end)
        if part.length >= smallest
        for edge in (part.start, part.start + part.length)
    ]
    picture[_borders(square, positions, edges)] = _GROUP_BORDER
    starts = [device.start for device in square.line.devices[1:]]
    picture[_borders(square, positions, starts)] = _DEVICE_BORDER
    return _png(picture, _MARK_COLOURS)


def _borders(square: Square, positions: Positions, edges: Iterable[int]) -> NDArray[np.bool_]:
    """Return the pixels of a tile that differ from the one above or to the left.

    Args:
        square: Which tile.
        positions: Of its pixels, and of a row and a column before.
        edges: Bytes of the line at which something else begins.
    """
    total, pixels = square.line.total_bytes, 2 * square.order
    at = sorted({-(-(edge << pixels) // total) for edge in edges})
    part = np.searchsorted(np.array(at, np.int64), positions, "right")
    inside = part[1:, 1:]
    return np.asarray((inside != part[:-1, 1:]) | (inside != part[1:, :-1]))


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """Return a mask in which what is set is so many pixels larger on all sides."""
    grown = mask.copy()
    for _ in range(by):
        before = grown.copy()
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
        before = grown.copy()
        grown[:, 1:] |= before[:, :-1]
        grown[:, :-1] |= before[:, 1:]
    return grown


def _pixels(square: Square, shown: Intervals, colours: Palette) -> NDArray[np.uint8]:
    return raster.draw_tile(
        [shown],
        colours,
        (square.line.total_bytes, square.order),
        square.curve,
        (TILE_ORDER, square.row, square.column),
    )


def _png(pixels: NDArray[np.uint8], colours: NDArray[np.uint8] | None = None) -> bytes:
    """Return a picture as PNG.

    Args:
        pixels: Array (rows, columns, 3), red, green and blue; with colours, (rows, columns).
        colours: Array (colours, 4), red, green, blue and opacity, of which the pixels are indexes.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    options = {}
    if colours is not None:
        image.putpalette(colours[:, :3].tobytes())
        options["transparency"] = colours[:, 3].tobytes()
    file = io.BytesIO()
    image.save(file, format="PNG", compress_level=_COMPRESS_LEVEL, **options)
    return file.getvalue()


_ON = palette({"marked": 0xFFFFFF})
