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
        start: first byte of each interval on the address line, int64.
        length: bytes, int64.
        value: what is shown, as an index into the colours of the layer's palette, any integer type.
        used: the part of each interval that is in use, 0 to 1, float64. None: all of it.
        words: for those who want to read along: the text that introduces each interval. A batch
            without intervals can have one text, a heading.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]
    value: NDArray[np.integer]
    used: NDArray[np.float64] | None = None
    words: Sequence[str] = ()

    def __len__(self) -> int:
        return self.start.size

    @property
    def stop(self) -> int:
        """Where the last interval ends, in bytes; 0 if there are none."""
        return int(self.start[-1] + self.length[-1]) if len(self) else 0


def heading(text: str) -> Intervals:
    """Return a batch that has only something to say."""
    nothing = np.zeros(0, dtype=np.int64)
    return Intervals(nothing, nothing, nothing, words=[text])
