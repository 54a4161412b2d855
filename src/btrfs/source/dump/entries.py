"""The entries of a dump made by btrfs-image, as a table: where in the file which metadata is."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["DumpEntries", "DumpEntry"]

# Entries do not overlap in a sound dump. In another one, so many are tried for each address.
_MAX_CANDIDATES = 4


class DumpEntry(NamedTuple):
    """Where in the file some metadata is.

    Attributes:
        vaddr: Virtual address that it begins at.
        position: Where in the file.
        stored_size: Bytes in the file.
        compressed: By zlib.
    """

    vaddr: int
    position: int
    stored_size: int
    compressed: bool


class DumpEntries:
    """All entries of a dump, by numbers in the order of their addresses.

    They are kept in arrays, as a file can have far more of them than there is room for objects.
    """

    def __init__(self) -> None:
        self._vaddrs = array("Q")
        self._positions = array("Q")
        self._stored_sizes = array("I")
        self._compressed = array("B")

    def __len__(self) -> int:
        return len(self._vaddrs)

    def __getitem__(self, number: int) -> DumpEntry:
        return DumpEntry(
            self._vaddrs[number],
            self._positions[number],
            self._stored_sizes[number],
            bool(self._compressed[number]),
        )

    def add(self, entry: DumpEntry) -> None:
        """Add an entry. After the last one they have to be sorted."""
        self._vaddrs.append(entry.vaddr)
        self._positions.append(entry.position)
        self._stored_sizes.append(entry.stored_size)
        self._compressed.append(entry.compressed)

    def sort(self) -> None:
        """Put the entries into the order of their addresses."""
        order = sorted(range(len(self)), key=self._vaddrs.__getitem__)
        self._vaddrs, self._positions, self._stored_sizes, self._compressed = (
            array(values.typecode, map(values.__getitem__, order))
            for values in (self._vaddrs, self._positions, self._stored_sizes, self._compressed)
        )

    def before(self, vaddr: int) -> Iterator[int]:
        """Yield the entries that an address could be in, the nearest first."""
        nearest = bisect_right(self._vaddrs, vaddr) - 1
        yield from range(nearest, max(-1, nearest - _MAX_CANDIDATES), -1)
