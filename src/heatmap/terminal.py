"""A picture in the terminal: two pixels in each character, in 24-bit colour.

The character is an upper half block: its own colour is the upper pixel, its background the lower.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heatmap.legend import Legend, entry_text

HALF_BLOCK = "\N{UPPER HALF BLOCK}"
_RESET = "\x1b[0m"


def picture_lines(pixels: NDArray[np.uint8], columns: int) -> Iterator[str]:
    """Yield the lines that show pixels, (height, width, 3), in a terminal of this many columns.

    A picture that is wider than the terminal is made smaller: each character then shows the mean of
    the pixels that it stands for. A smaller one is made larger by whole numbers.
    """
    fitted = _fit(pixels, max(1, columns))
    if len(fitted) % 2:
        fitted = np.concatenate([fitted, np.zeros_like(fitted[:1])])
    for upper, lower in zip(fitted[::2].tolist(), fitted[1::2].tolist(), strict=True):
        yield _line(upper, lower)


def legend_lines(legend: Legend) -> Iterator[str]:
    """Yield the lines of a legend."""
    yield legend.title
    yield from legend.notes
    for entry in legend.entries:
        red, green, blue = entry.colour
        ground = "38;2;0;0;0;48" if entry.hatched else "48"
        swatch = "////" if entry.hatched else "    "
        yield f"\x1b[{ground};2;{red};{green};{blue}m{swatch}{_RESET} {entry_text(entry)}"


def _line(upper: list[list[int]], lower: list[list[int]]) -> str:
    parts = []
    shown: tuple[list[int] | None, list[int] | None] = (None, None)
    for above, below in zip(upper, lower, strict=True):
        # Colours stay until others are set: say only what changes.
        if above != shown[0]:
            parts.append(f"\x1b[38;2;{above[0]};{above[1]};{above[2]}m")
        if below != shown[1]:
            parts.append(f"\x1b[48;2;{below[0]};{below[1]};{below[2]}m")
        shown = above, below
        parts.append(HALF_BLOCK)
    return "".join(parts) + _RESET


def _fit(pixels: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    side = len(pixels)
    if side <= columns:
        times = columns // side
        return pixels.repeat(times, axis=0).repeat(times, axis=1)
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((columns, columns), Image.Resampling.BOX))
