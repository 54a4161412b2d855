"""Rows that are kept of leaves where there are few of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SmallRows"]


class SmallRows(NamedTuple):
    """Rows that are few: number of a leaf, and three numbers of an item in it.

    Attributes:
        leaf: Number of the leaf, uint32.
        one: First number, uint64.
        two: Second number, uint64.
        three: Third number, uint64.
    """

    leaf: NDArray[np.uint32]
    one: NDArray[np.uint64]
    two: NDArray[np.uint64]
    three: NDArray[np.uint64]

    @classmethod
    def concatenated(cls, parts: Sequence[SmallRows]) -> SmallRows:
        """Return the rows of several tables one after another."""
        empty = [np.empty(0, np.uint32), *(np.empty(0, np.uint64) for _ in range(3))]
        return cls(*map(np.concatenate, zip(empty, *parts, strict=True)))
