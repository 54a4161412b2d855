"""What is printed of a picture as it is drawn: bytes of the line, their pixels and colours.

Each interval is printed as it is drawn, one by one: this is for reading along, not for speed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heatmap import curves
from heatmap.intervals import Intervals
from heatmap.palette import Palette
from heatmap.raster import Span, overlapped_pixels, rgb, shade

INTERVALS = 1
"""From this verbosity on, intervals are printed."""
PIXELS = 2
"""From this one on also the pixels that they overlap,"""
COLOURS = 3
"""and from this one on the colours of the pixels."""


class Narrator:
    """Prints intervals and pixels, as far as the verbosity asks for them."""

    def __init__(
        self, span: Span, curve: str, palette: Palette, min_brightness: float, verbose: int
    ) -> None:
        self._span = span
        self._curve = curve
        self._colours = palette.painted
        self._hatched = palette.hatched
        self._min_brightness = min_brightness
        self._verbose = verbose
        # The pixel that the next interval may add to: colours and part in use, summed up.
        self._open_pixel: int | None = None
        self._open_colour = np.zeros(3)
        self._open_used = 0.0

    def tell(self, intervals: Intervals) -> None:
        """Tell about a batch."""
        if self._verbose < INTERVALS:
            return
        if not len(intervals):
            print(*intervals.descriptions, sep="\n")
            return
        overlap = overlapped_pixels(self._span, intervals.start, intervals.length)
        pixels = zip(
            overlap.first.tolist(),
            overlap.last.tolist(),
            overlap.in_first.tolist(),
            overlap.in_last.tolist(),
            strict=True,
        )
        for i, (text, (first, last, in_first, in_last)) in enumerate(
            zip(intervals.descriptions, pixels, strict=True)
        ):
            print(text)
            if self._verbose < PIXELS:
                continue
            colour = self._colours[intervals.value[i]]
            used = 1.0 if intervals.used is None else float(intervals.used[i])
            if intervals.value[i] == self._hatched:
                used = 0.0
            if first != self._open_pixel:
                self._close_pixel()
            if first == last:
                print(f"    in_pixel {first} {in_first:.2%}")
            else:
                print(f"    first_pixel {first} {in_first:.2%} last_pixel {last} {in_last:.2%}")
            self._add(first, in_first, colour, used)
            if first != last:
                self._close_pixel()
                self._tell_between(first + 1, last - 1, colour, used)
                self._add(last, in_last, colour, used)

    def finish(self) -> None:
        """Tell about the last pixel."""
        self._close_pixel()

    def _tell_between(
        self, first: int, last: int, colour: NDArray[np.float64], used: float
    ) -> None:
        """Tell about pixels that are all alike, and about the first of them."""
        if first > last:
            return
        if self._verbose >= COLOURS:
            shown = self._shown(colour, used)
            print(f"        pixel range linear {first} to {last} rgb {shown}")
        self._add(first, 1.0, colour, used)
        self._close_pixel()

    def _add(self, pixel: int, part: float, colour: NDArray[np.float64], used: float) -> None:
        self._open_pixel = pixel
        self._open_colour += part * colour
        self._open_used += part * used

    def _close_pixel(self) -> None:
        if self._open_pixel is None:
            return
        if self._verbose >= COLOURS:
            position = np.array(self._open_pixel)
            row, column = curves.pixels_at(self._curve, self._span.order, position)
            shown = self._shown(self._open_colour, self._open_used)
            print(f"        pixel y {row} x{column} linear {position} rgb {shown}")
        self._open_pixel = None
        self._open_colour = np.zeros(3)
        self._open_used = 0.0

    def _shown(self, colour: NDArray[np.float64], used: float) -> str:
        packed = shade(colour[np.newaxis], np.array([used]), self._min_brightness)
        return "#" + rgb(packed).tobytes().hex()
