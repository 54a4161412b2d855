"""Two lists of rows that must be the same, compared without keeping them.

What refers to an extent stands twice in a filesystem: as items of files and pointers of nodes, and
as back references in the extent tree. So does each name: in the directory and in the inode. The two
sides come in different orders, and there may be many millions of rows.

Each row becomes a number of 64 bits, by a hash whose key is chosen at random in each run. The rows
of one side are added up, those of the other are subtracted. Where both sides are the same, nothing
is left; where they are not, it would be by a chance of one in 2**64. The sums are kept apart by
place, so that only places with a rest are looked at once more, row by row.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Hash", "Sums"]

Numbers = NDArray[np.uint64]

_HALF = np.uint64(32)


class Hash:
    """Makes a number of 64 bits of each row of a table, by a key that is chosen at random."""

    def __init__(self) -> None:
        self._start = self._random()
        self._factors: list[np.uint64] = []

    def __call__(self, *columns: NDArray[Any] | int) -> Numbers:
        """Return the hashes of rows, which are given as columns of whole numbers.

        A column may be one number that all rows have; not the first one.
        """
        found = np.full(len(np.atleast_1d(columns[0])), self._start)
        for index, column in enumerate(columns):
            if index == len(self._factors):
                # An odd factor loses nothing.
                self._factors.append(self._random() | np.uint64(1))
            found ^= np.asarray(column).astype(np.uint64, copy=False)
            found *= self._factors[index]
            found ^= found >> _HALF
        found *= self._factors[0]
        found ^= found >> _HALF
        return found

    @staticmethod
    def _random() -> np.uint64:
        return np.uint64(secrets.randbits(64))


class Sums:
    """The sums of the hashes of rows, by place.

    Args:
        places: How many places there are.
    """

    def __init__(self, places: int) -> None:
        self.values = np.zeros(places, np.uint64)

    def add(self, place: NDArray[Any], hashes: Numbers) -> None:
        """Add rows of the one side."""
        np.add.at(self.values, place, hashes)

    def subtract(self, place: NDArray[Any], hashes: Numbers) -> None:
        """Take away rows of the other side."""
        np.subtract.at(self.values, place, hashes)

    def unequal(self) -> NDArray[np.intp]:
        """Return the places where the two sides are not the same."""
        return np.flatnonzero(self.values)
