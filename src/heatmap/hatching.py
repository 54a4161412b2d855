"""Hatching: diagonal lines where something could not be read.

Pixels are marked when they are drawn, and the lines are put onto the finished picture, however
large that is. Tiles of a picture fit together, since the lines are those of the whole picture.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HATCHED = 1 << 24
"""Added to the packed colour of pixels that are to be hatched."""

_BAND_PIXELS = 1 << 20
"""So many pixels are hatched at a time."""

_PERIOD = 8
_THICKNESS = 3
_TINT = 0.35
"""How much of the colour there is between the lines: even a single pixel is seen."""


def is_line(diagonal: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which pixels lie on a line, given the sums of their rows and columns."""
    return np.asarray(diagonal % _PERIOD < _THICKNESS)


def tint(channels: NDArray[np.uint8], colour: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what is between the lines: red, green, blue in the last axis, as in both arguments."""
    return np.rint(channels * (1 - _TINT) + colour * _TINT).astype(np.uint8)


def hatched(
    packed: NDArray[np.uint32], colour: NDArray[np.uint8], origin: tuple[int, int] = (0, 0)
) -> NDArray[np.uint32]:
    """Return packed colours (rows, columns) with lines where they are marked.

    Args:
        packed: Part of a picture, or all of it.
        colour: Of the lines: red, green, blue.
        origin: Row and column of the whole picture that the part begins at.
    """
    finished: NDArray[np.uint32] | None = None
    # A band of rows at a time: the arrays of one are small, however large the picture is.
    height = max(1, _BAND_PIXELS // packed.shape[1])
    for top in range(0, packed.shape[0], height):
        band = packed[top : top + height]
        if band.max() < HATCHED:
            continue
        if finished is None:
            finished = packed.copy()
        rows, columns = np.nonzero(band & np.uint32(HATCHED))
        pixels = (band[rows, columns] & np.uint32(HATCHED - 1)).astype("<u4")
        channels = pixels.view(np.uint8).reshape(-1, 4)[:, :3]
        channels[:] = tint(channels, colour)
        channels[is_line(rows + columns + (top + sum(origin)))] = colour
        finished[top + rows, columns] = pixels
    return packed if finished is None else finished
