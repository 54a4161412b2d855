"""Grid: a whole picture, from its geometry to its file."""

from __future__ import annotations

import math
from operator import attrgetter
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heatmap import curves, hatching
from heatmap.errors import HeatmapError
from heatmap.intervals import Intervals
from heatmap.layers.base import Layer
from heatmap.narration import Narrator
from heatmap.palette import BLACK, LegendEntry, legend_entries
from heatmap.raster import DEFAULT_MIN_BRIGHTNESS, Canvas, Packed, Raster, Span, rgb

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ORDER = 14
"""A picture of this order is 16384 pixels wide, and making it takes some 2 GiB of memory."""

DEFAULT_SIZE = 10
DEFAULT_MAX_ORDER = 10


class Grid:
    """A picture: intervals of an address line on a square of pixels.

    Words about it are printed as the verbosity asks for: below 0 none at all, from 1 on more.

    Attributes:
        layer: What is shown.
        order: The square has 2^order by 2^order pixels.
        size: It is written as an image of 2^size by 2^size.
        curve: How the address line runs through the square, one of curves.CURVES.
        total_bytes: Length of the address line.
        bytes_per_pixel: Bytes of the line that a pixel stands for, in general a fraction.
        height: Rows of pixels,
        width: And columns.
        min_brightness: How bright pixels are of which nothing is in use, 0 to 1.
        verbose: How much to tell.
    """

    def __init__(
        self,
        layer: Layer,
        geometry: tuple[int, int],
        *,
        curve: str | None = None,
        min_brightness: float | None = None,
        verbose: int = 0,
    ) -> None:
        """Prepare a picture on which there is nothing yet.

        Args:
            layer: What will be shown; the intervals that it makes are for `fill()`.
            geometry: Order and size, as from `choose_geometry()`.
            curve: One of curves.CURVES, by default hilbert.
            min_brightness: How bright pixels are of which nothing is in use, 0 to 1, by default
                DEFAULT_MIN_BRIGHTNESS.
            verbose: How much to tell.
        """
        self.order, self.size = geometry
        self.curve = curves.HILBERT if curve is None else curve
        self.layer = layer
        self.total_bytes = layer.total_bytes
        self.verbose = verbose
        self.width = self.height = 1 << self.order
        span = Span(self.total_bytes, self.order)
        self.bytes_per_pixel = span.bytes_per_pixel
        self.min_brightness = check_brightness(min_brightness)
        self._finished = False
        self._raster = Raster(span, layer.palette, self.min_brightness)
        self._canvas = Canvas(curves.pieces(self.curve, self.order), self.width)
        self._narrator = Narrator(span, self.curve, layer.palette, self.min_brightness, verbose)
        if verbose >= 0:
            print(self._words())

    def fill(self, intervals: Intervals) -> None:
        """Draw the next intervals; batches ascend as the intervals in them do."""
        if self._finished:
            raise ValueError("the picture is finished: its pixels were looked at")
        self._narrator.tell(intervals)
        self._canvas.draw(self._raster.add(intervals))

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The finished picture: red, green and blue, an array (height, width, 3), uint8."""
        packed = self._finish()
        if self._is_hatched():
            packed = hatching.hatched(packed, self.layer.palette.line_colour)
        return rgb(packed)

    def image(self) -> Image:
        """Return the finished picture as an image, 2^size high and wide."""
        from heatmap import picture

        packed = self._finish()
        if self._is_hatched():
            # The lines are as fine as the image is, not as the pixels are.
            times = 1 << (self.size - self.order)
            packed = packed.repeat(times, axis=0).repeat(times, axis=1)
            packed = hatching.hatched(packed, self.layer.palette.line_colour)
        return picture.image(packed, 1 << self.size)

    def entries(self) -> list[LegendEntry]:
        """Return what the colours of the picture mean, and how many bytes have each of them."""
        layer = self.layer
        lengths, used = self._raster.lengths, self._raster.used
        if layer.allocated is None:
            return legend_entries(layer.palette, lengths, used, self.total_bytes, layer.rest)
        *entries, free = legend_entries(layer.palette, lengths, used, layer.allocated, "free")
        if layer.largest_first:
            entries.sort(key=attrgetter("length"), reverse=True)
        rest = LegendEntry(layer.rest, BLACK, self.total_bytes - layer.allocated, 0)
        return [*entries, free, *([rest] if rest.length else [])]

    def write_png(self, name: str | PathLike[str]) -> None:
        """Write the picture as PNG, whatever the name; an existing file is replaced as a whole.

        Raises:
            OSError: The file cannot be written; an existing one is as it was.
        """
        from heatmap import picture

        picture.write_image(self.image(), name, picture.PNG)
        self.written(name)

    def written(self, name: str | PathLike[str]) -> None:
        """Tell that the picture was written to a file of this name."""
        if self.verbose >= 0:
            print(f"pngfile {name}")
        self._narrator.finish()

    def _is_hatched(self) -> bool:
        hatched = self.layer.palette.hatched
        return hatched is not None and bool(self._raster.lengths[hatched])

    def _finish(self) -> Packed:
        if not self._finished:
            self._finished = True
            self._canvas.draw(self._raster.finish())
            self._canvas.finish()
        return self._canvas.packed

    def _words(self) -> str:
        curve = "" if self.curve == curves.HILBERT else f" curve {self.curve}"
        return (
            f"grid{curve} order {self.order} size {self.size} height {self.height}"
            f" width {self.width} total_bytes {self.total_bytes}"
            f" bytes_per_pixel {self.bytes_per_pixel}"
        )


def choose_geometry(
    total_bytes: int, granularity: int, order: int | None = None, size: int | None = None
) -> tuple[int, int]:
    """Return the order and the size of a picture.

    Args:
        total_bytes: Length of the address line.
        granularity: Bytes that a pixel is to stand for, about, where no order is given.
        order: The order wanted.
        size: The size wanted.

    Raises:
        HeatmapError: They do not fit together, or are out of range.
    """
    if not 0 < total_bytes < 1 << 62:
        raise HeatmapError(
            f"cannot draw {total_bytes} bytes",
            hint="choose at least one device or block group",
        )
    check_geometry(order, size)
    if order is None:
        pixels = total_bytes / max(1, granularity)
        order = min(DEFAULT_MAX_ORDER, max(0, math.ceil(math.log2(math.sqrt(pixels)))))
        if size is not None:
            order = min(order, size)
    return order, max(DEFAULT_SIZE, order) if size is None else size


def check_geometry(order: int | None, size: int | None) -> None:
    """Raise HeatmapError if this order and size do not fit together, or are out of range."""
    for name, number in (("order", order), ("size", size)):
        if number is not None and not 0 <= number <= MAX_ORDER:
            raise HeatmapError(f"{name} {number} out of range", hint=f"use 0 to {MAX_ORDER}")
    if order is not None and size is not None and size < order:
        raise HeatmapError(
            f"size ({size}) cannot be smaller than order ({order})",
            hint="leave out the size, or choose a larger one",
        )


def check_brightness(min_brightness: float | None) -> float:
    """Return the brightness to be used; raise HeatmapError, a ValueError, if there is no such."""
    if min_brightness is None:
        return DEFAULT_MIN_BRIGHTNESS
    if not 0 <= min_brightness <= 1:
        raise HeatmapError("min_brightness out of range (need >= 0 and <= 1)")
    return float(min_brightness)
