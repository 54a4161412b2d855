"""The engine: intervals of an address line become a square of pixels.

The work is done along the curve, where everything is one-dimensional:

    intervals --Raster--> runs of pixels of one colour --Canvas--> square

The raster adds up how much of each pixel is covered, by what colours, and how much of that is in
use. Only the pixels in which an interval begins or ends need arithmetic of their own; the pixels
between are one run. The canvas unrolls the runs of one patch after the other, which is one piece of
the curve or a few small ones, and moves them to where the curve has them in the square. Both take
batches of any size and keep only what is unfinished: one pixel and one patch.

Neither knows about filesystems, and both work from any place on the line: `draw_tile()` makes a
tile of a larger picture by the same steps as a whole picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from heatmap import curves, hatching
from heatmap.curves import CurvePiece
from heatmap.intervals import Intervals
from heatmap.palette import Palette

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Values = NDArray[np.integer]
Packed = NDArray[np.uint32]
"""Colours as numbers: red, green, blue and a zero are the bytes, in this order, in memory."""

DEFAULT_MIN_BRIGHTNESS = 0.1
"""How bright the emptiest allocated pixels are, of 1: bright enough to be told from black."""

_Number = TypeVar("_Number", bound=np.number[Any])

_PACKED_DTYPE = np.dtype("<u4")

_PATCH_PIXELS = 1 << 16
"""As many as a piece of a whole picture has; the pieces of a tile can be single rows."""


class Span(NamedTuple):
    """The pixels that an address line is divided into, from one of them on.

    Attributes:
        total_bytes: Length of the whole address line.
        order: The whole line is divided into 4^order pixels.
        first: The first pixel of the span.
    """

    total_bytes: int
    order: int
    first: int = 0

    @property
    def bytes_per_pixel(self) -> float:
        """Bytes of the line that a pixel stands for: in general a fraction."""
        return self.total_bytes / self._line_pixels

    def pixels(self, addresses: Integers) -> Floats:
        """Return where these addresses of the line lie, in pixels from the span's beginning."""
        # Subtract in whole bytes first: deep in a long line a float could not tell pixels apart.
        origin, remainder = divmod(self.first * self.total_bytes, self._line_pixels)
        offset = (addresses - origin).astype(np.float64) - remainder / self._line_pixels
        return offset / self.bytes_per_pixel

    @property
    def _line_pixels(self) -> int:
        return 1 << 2 * self.order


@dataclass(frozen=True, slots=True)
class Runs:
    """Pixels along the curve, as ascending runs of one colour each; between them is black.

    Attributes:
        first: Each run's first pixel, counted from the beginning of the line.
        count: Number of pixels of each run.
        colour: Packed colour of each run.
    """

    first: Integers
    count: Integers
    colour: Packed

    def __len__(self) -> int:
        return self.first.size

    def __getitem__(self, part: slice) -> Runs:
        return Runs(self.first[part], self.count[part], self.colour[part])


class OverlappedPixels(NamedTuple):
    """The pixels that intervals overlap, counted from the beginning of a span.

    Attributes:
        first: The pixel that each interval begins in.
        last: The pixel that its last byte lies in.
        in_first: The part of the first pixel that it covers.
        in_last: The part of the last pixel; 0 where that is the first one.
    """

    first: Integers
    last: Integers
    in_first: Floats
    in_last: Floats


def overlapped_pixels(span: Span, start: Integers, length: Integers) -> OverlappedPixels:
    """Return the pixels that intervals of at least one byte overlap."""
    stop = start + length
    begin, end = span.pixels(start), span.pixels(stop)
    first = np.floor(begin).astype(np.int64)
    last = np.floor(span.pixels(stop - 1)).astype(np.int64)
    several = last > first
    in_first = np.where(several, first + 1 - begin, end - begin)
    in_last = np.where(several, end - last, 0.0)
    # Where a border of pixels runs through the last byte, its far part alone counts, and for the
    # near pixel. With many bytes to a pixel it does not matter; it is what btrfs-heatmap draws.
    in_last[in_last > 1] -= 1
    return OverlappedPixels(first, last, in_first, in_last)


class Raster:
    """Adds up what covers each pixel of a span, from batches of intervals that ascend.

    Attributes:
        lengths: Bytes of the line that each value of the palette has; each byte counts once.
        used: Bytes of these that are in use.
    """

    def __init__(
        self, span: Span, palette: Palette, min_brightness: float = DEFAULT_MIN_BRIGHTNESS
    ) -> None:
        self._span = span
        self._colours = palette.painted
        self._hatched = palette.hatched
        self._min_brightness = min_brightness
        self._reach = 0  # address up to which the line is covered by what was added so far
        # The last pixel, which the next batch may add to: colours and part in use, summed up, and
        # whether it is hatched.
        self._open_pixel = -1
        self._open_colour = np.zeros(3)
        self._open_used = 0.0
        self._open_hatched = False
        self.lengths = np.zeros(len(palette))
        self.used = np.zeros(len(palette))

    def add(self, intervals: Intervals) -> Runs:
        """Take the next batch; return the runs of pixels that are finished by it."""
        if not len(intervals):
            return _NO_RUNS
        start, length, value, used = self._disjoint(intervals)
        self._count(length, value, used)
        if not start.size:
            return _NO_RUNS
        overlap = overlapped_pixels(self._span, start, length)
        hatched = self._is_hatched(value)
        if hatched is not None:
            # Of what is not known, nothing is in use.
            used = np.where(hatched, 0.0, 1.0 if used is None else used)

        # An interval adds to the pixel it begins in, and to the one it ends in. Written one after
        # the other, these pixels ascend, and equal ones stand together. What is before the span is
        # cut off; the rest of it finishes its last pixel.
        pixel = _interleave(overlap.first, overlap.last)
        within = slice(int(np.searchsorted(pixel, 0)), None)
        pixel = pixel[within]
        edges = _NO_RUNS
        if pixel.size:
            weight = _interleave(overlap.in_first, overlap.in_last)[within]
            group = np.flatnonzero(np.diff(pixel, prepend=-1))
            shown = np.repeat(value, 2)[within]
            in_use = weight if used is None else weight * np.repeat(used, 2)[within]
            edges = self._close(
                pixel[group],
                self._colour_sums(weight, shown, group),
                np.add.reduceat(in_use, group),
                None
                if hatched is None
                else np.logical_or.reduceat(np.repeat(hatched, 2)[within], group),
            )

        inner = np.flatnonzero(overlap.last - overlap.first > 1)
        if not inner.size:
            return edges
        colour = shade(
            self._colours[value[inner]],
            np.ones(inner.size) if used is None else used[inner],
            self._min_brightness,
        )
        between = Runs(
            overlap.first[inner] + (1 + self._span.first),
            (overlap.last - overlap.first)[inner] - 1,
            _marked(colour, None if hatched is None else hatched[inner]),
        )
        return _merge(edges, between)

    def finish(self) -> Runs:
        """Return the run that only the end of the line finishes."""
        if self._open_pixel < 0:
            return _NO_RUNS
        colour = shade(
            self._open_colour[np.newaxis], np.array([self._open_used]), self._min_brightness
        )
        return Runs(
            np.array([self._open_pixel + self._span.first]),
            np.ones(1, dtype=np.int64),
            _marked(colour, np.array([self._open_hatched])),
        )

    def _is_hatched(self, value: Values) -> NDArray[np.bool_] | None:
        """Return which values are hatched; None if none of them is."""
        if self._hatched is None:
            return None
        hatched = np.asarray(value == self._hatched)
        return hatched if hatched.any() else None

    def _disjoint(self, intervals: Intervals) -> tuple[Integers, Integers, Values, Floats | None]:
        """Return start, length, value and used of what no interval before covers already."""
        stop = intervals.start + intervals.length
        reach = np.maximum.accumulate(np.maximum(stop, self._reach))
        start = np.maximum(intervals.start, np.concatenate([[self._reach], reach[:-1]]))
        self._reach = int(reach[-1])
        length = stop - start
        keep = length > 0
        if keep.all():
            return start, length, intervals.value, intervals.used
        used = None if intervals.used is None else intervals.used[keep]
        return start[keep], length[keep], intervals.value[keep], used

    def _count(self, length: Integers, value: Values, used: Floats | None) -> None:
        """Add up the bytes of each value."""
        in_use = length if used is None else length * used
        self.lengths += np.bincount(value, weights=length, minlength=self.lengths.size)
        self.used += np.bincount(value, weights=in_use, minlength=self.used.size)

    def _colour_sums(self, weight: Floats, value: Values, group: Integers) -> Floats:
        """Return the sum of weight times colour of each group, an array (groups, 3)."""
        if (value == value[0]).all():
            sums: Floats = np.outer(np.add.reduceat(weight, group), self._colours[value[0]])
            return sums
        sums = np.empty((group.size, 3))
        for channel in range(3):
            sums[:, channel] = np.add.reduceat(weight * self._colours[value, channel], group)
        return sums

    def _close(
        self,
        pixel: Integers,
        colour: Floats,
        in_use: Floats,
        hatched: NDArray[np.bool_] | None,
    ) -> Runs:
        """Return these pixels, but keep the last one, as more may come; add what was kept."""
        if hatched is None and self._open_hatched:
            hatched = np.zeros(pixel.size, np.bool_)
        if self._open_pixel == pixel[0]:
            colour[0] += self._open_colour
            in_use[0] += self._open_used
            if hatched is not None:
                hatched[0] |= self._open_hatched
        elif self._open_pixel >= 0:
            pixel = np.concatenate([[self._open_pixel], pixel])
            colour = np.concatenate([self._open_colour[np.newaxis], colour])
            in_use = np.concatenate([[self._open_used], in_use])
            if hatched is not None:
                hatched = np.concatenate([[self._open_hatched], hatched])
        self._open_pixel = int(pixel[-1])
        self._open_colour = colour[-1].copy()
        self._open_used = float(in_use[-1])
        self._open_hatched = hatched is not None and bool(hatched[-1])
        shaded = shade(colour[:-1], in_use[:-1], self._min_brightness)
        return Runs(
            pixel[:-1] + self._span.first,
            np.ones(pixel.size - 1, dtype=np.int64),
            _marked(shaded, None if hatched is None else hatched[:-1]),
        )


class Canvas:
    """Places runs of pixels in a square, patch by patch.

    Attributes:
        packed: The square, packed colours (rows, columns); complete after `finish()`, but for the
            lines of what is hatched.
    """

    def __init__(self, pieces: Iterable[CurvePiece], side: int) -> None:
        self.packed: Packed = np.zeros((side, side), dtype=_PACKED_DTYPE)
        self._patches = _patches(pieces)
        self._patch = next(self._patches, None)
        self._waiting: list[Runs] = []  # runs of the patch, which is not complete yet

    def draw(self, runs: Runs) -> None:
        """Take the next runs along the curve; those outside of the pieces are not drawn."""
        while self._patch is not None and len(runs):
            stop = self._patch[-1].first + self._patch[-1].size
            here = int(np.searchsorted(runs.first, stop))
            crosses = here > 0 and runs.first[here - 1] + runs.count[here - 1] > stop
            self._waiting.append(runs[:here])
            if here == len(runs) and not crosses:
                return
            self.finish()
            self._patch = next(self._patches, None)
            runs = runs[here - crosses :]

    def finish(self) -> None:
        """Paint what was drawn of the current patch."""
        if self._patch is not None and self._waiting:
            _paint(self.packed, self._patch, self._waiting)
        self._waiting = []

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The square as red, green and blue: a view, (rows, columns, 3)."""
        return rgb(self.packed)


def draw_tile(
    batches: Iterable[Intervals],
    palette: Palette,
    line: tuple[int, int],
    curve: str,
    tile: tuple[int, int, int],
    min_brightness: float = DEFAULT_MIN_BRIGHTNESS,
) -> NDArray[np.uint8]:
    """Return a tile of a picture, (rows, columns, 3), red, green, blue.

    Args:
        batches: What lies on the line, ascending. What does not overlap the tile may be left out.
        palette: The colours.
        line: Bytes of the whole address line, and the order of the whole picture.
        curve: One of curves.CURVES.
        tile: The tile's order, and its row and column, counted in tiles.
        min_brightness: How bright pixels are of which nothing is in use, 0 to 1.
    """
    total_bytes, order = line
    tile_order, row, column = tile
    pieces = list(curves.pieces(curve, order, *tile))
    raster = Raster(Span(total_bytes, order, pieces[0].first), palette, min_brightness)
    canvas = Canvas(pieces, 1 << tile_order)
    for runs in itertools.chain(map(raster.add, batches), _late(raster)):
        canvas.draw(runs)
    canvas.finish()
    origin = row << tile_order, column << tile_order
    return rgb(hatching.hatched(canvas.packed, palette.line_colour, origin))


def shade(colour: Floats, in_use: Floats, min_brightness: float) -> Packed:
    """Return the packed colours of pixels.

    Args:
        colour: Array (pixels, 3): the colours in a pixel, each times the part that it covers.
        in_use: Array (pixels): the part of each pixel that is in use.
        min_brightness: How bright pixels are of which nothing is in use, 0 to 1.
    """
    brightness = min_brightness + (1 - min_brightness) * in_use
    packed = np.zeros((len(colour), 4), dtype=np.uint8)
    packed[:, :3] = np.minimum(np.rint(colour * brightness[:, np.newaxis]), 255)
    return packed.view(_PACKED_DTYPE)[:, 0]


def _marked(packed: Packed, hatched: NDArray[np.bool_] | None) -> Packed:
    """Return packed colours, of which some are marked to be hatched."""
    return (
        packed
        if hatched is None
        else packed | (hatched * np.uint32(hatching.HATCHED)).astype("<u4")
    )


def rgb(packed: Packed) -> NDArray[np.uint8]:
    """Return packed colours as red, green and blue: a view with one dimension more, of 3."""
    return packed.view(np.uint8).reshape(*packed.shape, 4)[..., :3]


def _late(raster: Raster) -> Iterator[Runs]:
    yield raster.finish()


def _interleave(first: NDArray[_Number], second: NDArray[_Number]) -> NDArray[_Number]:
    """Return the elements of two arrays in turn."""
    return np.stack([first, second], axis=1).ravel()


def _merge(one: Runs, other: Runs) -> Runs:
    """Return the runs of both, which have no pixel in common, in ascending order."""
    first = np.concatenate([one.first, other.first])
    order = np.argsort(first, kind="stable")  # which merges what is sorted already
    return Runs(
        first[order],
        np.concatenate([one.count, other.count])[order],
        np.concatenate([one.colour, other.colour])[order],
    )


def _patches(pieces: Iterable[CurvePiece]) -> Iterator[list[CurvePiece]]:
    """Yield pieces in groups of so many pixels that it is worth the work for a group."""
    patch: list[CurvePiece] = []
    size = 0
    for piece in pieces:
        patch.append(piece)
        size += piece.size
        if size >= _PATCH_PIXELS:
            yield patch
            patch, size = [], 0
    if patch:
        yield patch


def _paint(square: Packed, patch: list[CurvePiece], waiting: list[Runs]) -> None:
    """Paint runs of pixels on pieces that follow one another, between which nothing is painted."""
    first = np.concatenate([runs.first for runs in waiting])
    stop = first + np.concatenate([runs.count for runs in waiting])
    colour = np.concatenate([runs.colour for runs in waiting])
    last = patch[-1]
    if first.size == 1 and first[0] <= patch[0].first and stop[0] >= last.first + last.size:
        for piece in patch:
            square[piece.window] = colour[0]
        return
    # Black, a run, black, a run, ..., black: unroll them all at once.
    size = sum(piece.size for piece in patch)
    count = np.diff(np.concatenate([[0], _on_patch(_interleave(first, stop), patch), [size]]))
    colours = np.zeros(count.size, dtype=_PACKED_DTYPE)
    colours[1::2] = colour
    pixels = np.repeat(colours, count)
    for piece in patch:
        square[piece.window] = pixels[: piece.size][piece.positions]
        pixels = pixels[piece.size :]


def _on_patch(pixel: Integers, patch: list[CurvePiece]) -> Integers:
    """Return where on a patch pixels of the curve lie, if there were none between its pieces."""
    if len(patch) == 1:
        return np.clip(pixel - patch[0].first, 0, patch[0].size)
    begin = np.array([piece.first for piece in patch])
    size = np.array([piece.size for piece in patch])
    which = np.maximum(np.searchsorted(begin, pixel, "right") - 1, 0)
    before = np.cumsum(size) - size
    found: Integers = before[which] + np.clip(pixel - begin[which], 0, size[which])
    return found


_NO_RUNS = Runs(
    np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=_PACKED_DTYPE)
)
