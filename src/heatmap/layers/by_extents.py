"""Extents on an address line, in the colours of a colouring.

The parts of a line are shown one after another, each with the extents of its block group. With
several copies or stripes, a block group has several parts: its extents are kept until the last of
them, as far as there is room.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from heatmap.colours import UNREADABLE_VALUE, ExtentColouring
from heatmap.extents.table import Extents, read_extents
from heatmap.intervals import Intervals, heading
from heatmap.layers.coverage import Coverage, Values, covered_by_extents, uniform

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, FileSystem
    from heatmap.layers.block_groups import LineEntry
    from heatmap.layers.lines import AddressLine

__all__ = ["intervals_of_extents"]

_KEPT_BYTES = 512 << 20
"""Memory for extents that are shown again further on the line."""


def intervals_of_extents(
    fs: FileSystem,
    line: AddressLine,
    entries: Iterable[LineEntry],
    colouring: ExtentColouring,
    verbose: int = 0,
) -> Iterator[Intervals]:
    """Yield the extents on a line, a batch for each part of it, ascending.

    Args:
        fs: The filesystem.
        line: The line.
        entries: What of it belongs to which block group, ascending.
        colouring: In which colours.
        verbose: With 1 and more, the batches come with descriptions.
    """
    reader = _Reader(fs, line, colouring)
    names = colouring.named_palette.names if verbose >= 1 else ()
    for entry in entries:
        if verbose >= 1:
            yield heading(entry.description)
        for coverage in _of_entry(line, entry, reader, colouring.values):
            yield (
                _described(coverage, colouring.name, names) if verbose >= 1 else coverage.intervals
            )


def _of_entry(
    line: AddressLine, entry: LineEntry, reader: _Reader, values: Values
) -> Iterator[Coverage]:
    """Yield what extents cover of each part of a line that an entry stands for."""
    if entry.group is None:
        yield uniform(entry.length, UNREADABLE_VALUE).moved(entry.start)
        return
    between = line.parts_between(entry.start, entry.start + entry.length)
    parts = [part for part in between if part.vaddr == entry.group.vaddr]
    extents = reader.extents(entry.group, len(parts))
    for part in parts:
        whole = np.array([[0, part.length]])
        yield covered_by_extents(line, part, whole, extents, values).moved(part.start)


def _described(coverage: Coverage, colouring: str, names: tuple[str, ...]) -> Intervals:
    """Return a coverage as intervals with a description of each."""
    return Intervals(
        coverage.start,
        coverage.length,
        coverage.value,
        descriptions=[
            f"extent first_byte {start} length {length} {colouring} {names[value]}"
            for start, length, value in zip(
                coverage.start.tolist(),
                coverage.length.tolist(),
                coverage.value.tolist(),
                strict=True,
            )
        ],
    )


class _Reader:
    """Reads the extents of the block groups of a line, and keeps them while they are needed."""

    def __init__(self, fs: FileSystem, line: AddressLine, colouring: ExtentColouring) -> None:
        self._fs = fs
        self._columns = colouring.colours.columns
        self._trees = colouring.context.trees
        self._parts_left = Counter(part.vaddr for part in line.parts)
        self._kept: OrderedDict[int, Extents] = OrderedDict()

    def extents(self, group: BlockGroupItem, parts: int) -> Extents:
        """Return the extents of a block group for so many of its parts."""
        extents = self._kept.pop(group.vaddr, None)
        if extents is None:
            extents = read_extents(self._fs, group.vaddr, group.length, self._columns, self._trees)
        self._parts_left[group.vaddr] -= parts
        if self._parts_left[group.vaddr] > 0:
            self._kept[group.vaddr] = extents
            while sum(one.nbytes for one in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
        return extents
