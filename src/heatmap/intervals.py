"""Intervals of an address line: what layers make and grids draw.

An address line is a range of byte addresses beginning at 0: all devices one after another, or a
number of block groups. What lies on it comes in batches, ascending, so that a filesystem of any
size is drawn with little memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Intervals:
    """A batch of intervals, ascending; where two overlap, the first one counts.

    Attributes:
        start: First byte of each interval on the address line, int64.
        length: Bytes, int64.
        value: Index into the colours of the layer's palette, any integer type.
        used: The part of each interval that is in use, 0 to 1, float64. None: all of it.
        descriptions: Printed when the picture is told as it is drawn: one for each interval. A
            batch without intervals can have one, a heading.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    value: NDArray[np.integer]
    used: NDArray[np.float64] | None = None
    descriptions: Sequence[str] = ()

    def __len__(self) -> int:
        return self.start.size

    @property
    def stop(self) -> int:
        """Where the last interval ends, in bytes; 0 if there are none."""
        return int(self.start[-1] + self.length[-1]) if len(self) else 0


def heading(text: str) -> Intervals:
    """Return a batch without intervals, only with a text to be printed."""
    nothing = np.zeros(0, dtype=np.int64)
    return Intervals(nothing, nothing, nothing, descriptions=[text])
