"""What of the extents lies on a tile, in as much detail as its pixels can show.

Few extents are drawn as they are. Where there are more, a tile is drawn from a level with less
detail, of which each part of a line has its own; see :mod:`~btrfs_atlas.explorer.render.pyramid`.
All functions here are pure: what is known of the parts is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs_atlas.explorer.model.lines import Line
from btrfs_atlas.explorer.render.pyramid import FINEST_CELL, Pyramid, limited
from btrfs_atlas.explorer.render.tiles import Square
from heatmap.colours import PARITY_VALUE, UNREAD_VALUE, UNREADABLE_VALUE, ExtentColouring
from heatmap.extents.table import Extents
from heatmap.intervals import Intervals
from heatmap.layers.coverage import (
    Coverage,
    Ranges,
    covered_by_extents,
    extents_near,
    joined,
)
from heatmap.layers.lines import Part
from heatmap.palette import Palette, followed

ByteCounts = NDArray[np.float64]
"""Bytes by the values of a colouring."""

EXACT_EXTENTS = 50_000
"""Up to so many extents are drawn as they are."""

_FEWEST_CELLS = 64
"""So many intervals of a part are kept in its coarsest level, if there are as many."""


class PartDetail(NamedTuple):
    """What is known of a part of a line.

    Attributes:
        extents: The extents of its block group; None if they are not in memory.
        pyramid: Levels of less detail; None if they are not in memory.
        fallback: Its coarsest level, or what is shown in its place; not needed if extents are
            known.
    """

    extents: Extents | None
    pyramid: Pyramid | None
    fallback: Coverage


class TileCoverage(NamedTuple):
    """What lies on a tile.

    Attributes:
        coverage: Ascending; it can have more than what overlaps the tile.
        coarse: The parts that have less detail than the tile could show, as that is not in memory.
    """

    coverage: Coverage
    coarse: list[Part]


class PartSummary(NamedTuple):
    """What is kept of a part of a line in a colouring.

    Attributes:
        pyramid: Levels of less and less detail.
        coarsest: A level with few intervals.
    """

    pyramid: Pyramid
    coarsest: Coverage


def cell_of(square: Square) -> int:
    """Return the size of cells for a tile: the largest power of two not larger than a pixel."""
    return 1 << max(0, int(square.bytes_per_pixel).bit_length() - 1)


def parts_on(square: Square) -> dict[Part, Ranges]:
    """Return the parts of a line that lie on a tile, and which of their bytes do.

    These are counted from the beginning of the part.
    """
    found: dict[Part, list[tuple[int, int]]] = {}
    for start, end in square.ranges():
        for part in square.line.parts_between(start, end):
            bounds = max(0, start - part.start), min(part.length, end - part.start)
            found.setdefault(part, []).append(bounds)
    return {part: np.array(ranges) for part, ranges in found.items()}


def is_enough(detail: PartDetail, cell: int) -> bool:
    """Return whether what is known of a part is enough for a tile with cells of this size."""
    if cell >= FINEST_CELL:
        if detail.pyramid is None:
            return False
        if detail.pyramid.at(cell) is not None:
            return True
    return detail.extents is not None


def tile_coverage(
    square: Square, colouring: ExtentColouring, known: Mapping[Part, PartDetail]
) -> TileCoverage:
    """Return what lies on a tile.

    Args:
        square: Which tile.
        colouring: In which colours.
        known: What is known of each part on it.
    """
    cell = cell_of(square)
    parts = parts_on(square)
    exactly = cell < FINEST_CELL or _are_few(square.line, parts, known)
    coverage = []
    coarse = []
    for part, ranges in parts.items():
        detail = known[part]
        level = None if exactly or detail.pyramid is None else detail.pyramid.at(cell)
        if level is not None:
            found = level.overlapping(ranges)
        elif detail.extents is not None:
            found = covered_by_extents(square.line, part, ranges, detail.extents, colouring.values)
        else:
            found = detail.fallback
            coarse.append(part)
        coverage.append(found.moved(part.start))
    return TileCoverage(joined(coverage), coarse)


def summary_of(
    line: Line, part: Part, extents: Extents, colouring: ExtentColouring, coarsest_cell: int
) -> PartSummary:
    """Return what is kept of a part of a line in a colouring.

    Args:
        line: The line.
        part: The part.
        extents: The extents of its block group.
        colouring: In which colours.
        coarsest_cell: Bytes of the cells of the coarsest level.
    """
    whole = np.array([[0, part.length]])
    coverage = covered_by_extents(line, part, whole, extents, colouring.values)
    pyramid = Pyramid(coverage)
    coarsest = pyramid.at(coarsest_cell)
    most = max(_FEWEST_CELLS, 2 * part.length // coarsest_cell)
    return PartSummary(
        pyramid, limited(coverage if coarsest is None else coarsest, coarsest_cell, most)
    )


def byte_counts(line: Line, group: int, extents: Extents, colouring: ExtentColouring) -> ByteCounts:
    """Return how many bytes of a block group have which value.

    Of data these are bytes of virtual addresses; of parity, bytes on the line.
    """
    value = colouring.values(extents)
    counts = np.bincount(value, weights=extents.length, minlength=PARITY_VALUE + 1)
    counts[PARITY_VALUE] = line.parity_length(group, extents.vaddr - group, extents.length)
    return counts.astype(np.float64)


def with_unread_groups(
    coverage: Coverage, colouring: ExtentColouring, groups: Intervals | None
) -> tuple[Intervals, Palette]:
    """Return a coverage for the raster, and its colours.

    Args:
        coverage: What lies on a tile.
        colouring: In which colours.
        groups: The block groups of the line in the colours that stand for what was not read yet;
            None if there are no such colours.
    """
    palette = colouring.palette
    by_group = colouring.colours.unread
    unread = np.flatnonzero(coverage.value == UNREAD_VALUE)
    if by_group is None or groups is None or not unread.size:
        return coverage.intervals, palette
    at = np.searchsorted(groups.start, coverage.start[unread], "right") - 1
    value, used = coverage.value.astype(np.int64), np.ones(len(coverage))
    known = groups.value[at] != by_group.unreadable_value
    value[unread] = np.where(known, len(palette) + groups.value[at], UNREADABLE_VALUE)
    if groups.used is not None:
        used[unread] = groups.used[at]
    drawn = Intervals(coverage.start, coverage.length, value, used)
    return drawn, followed(palette, by_group.palette)


def _are_few(line: Line, parts: Mapping[Part, Ranges], known: Mapping[Part, PartDetail]) -> bool:
    """Return whether the extents are known, and few enough to be drawn as they are."""
    count = 0
    for part, ranges in parts.items():
        extents = known[part].extents
        if extents is None:
            return False
        count += extents_near(line, part, ranges, extents).size
        if count > EXACT_EXTENTS:
            return False
    return True
