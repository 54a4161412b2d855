"""Legends of the map: what the colours mean, and how many bytes have which one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from btrfs.ondisk import constants
from btrfs.ondisk.profiles import PROFILES
from btrfs_atlas.explorer.model.lines import VIRTUAL, Line
from btrfs_atlas.explorer.render.coverage import ByteCounts
from heatmap.colours import UNREADABLE_VALUE, ExtentColouring, GroupColouring
from heatmap.intervals import Intervals
from heatmap.palette import BLACK, LegendEntry, legend_entries

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem

_UNREAD_NOTE = "what was not read yet: block groups, the brighter, the fuller"


class Legend(NamedTuple):
    """What the colours of the map mean, and how much there is of each.

    Attributes:
        note: A sentence about them.
        is_scale: The entries are the steps of a scale, the lowest first.
        entries: The colours.
        read: The part of the block groups that these numbers are about, 0 to 1.
    """

    note: str
    is_scale: bool
    entries: list[LegendEntry]
    read: float


def of_groups(colouring: GroupColouring, intervals: Intervals, total_bytes: int) -> Legend:
    """Return the legend of a map that shows block groups.

    Args:
        colouring: In which colours.
        intervals: The block groups on the line.
        total_bytes: Length of the line.
    """
    colours = colouring.colours
    used = intervals.length if intervals.used is None else intervals.length * intervals.used
    lengths, in_use = (
        np.bincount(intervals.value, weights=weights, minlength=len(colours.palette))
        for weights in (intervals.length, used)
    )
    entries = legend_entries(
        colours.palette,
        lengths.astype(np.float64),
        in_use.astype(np.float64),
        total_bytes,
        "not allocated",
    )
    return Legend(colours.note, colours.is_scale, entries, 1.0)


def of_extents(
    colouring: ExtentColouring,
    line: Line,
    groups: Mapping[int, BlockGroupItem],
    counts: Mapping[int, ByteCounts | None],
    failed: Collection[int],
    unreadable: int,
) -> Legend:
    """Return the legend of a map that shows extents.

    Args:
        colouring: In which colours.
        line: The line.
        groups: The block groups by virtual address.
        counts: Bytes of each by value; None where they have not been read.
        failed: The block groups that cannot be read.
        unreadable: Bytes of the line that could not be read.
    """
    colours, palette = colouring.colours, colouring.named_palette
    lengths = np.zeros(len(palette))
    lengths[UNREADABLE_VALUE] = unreadable
    read = 0
    for vaddr, group in groups.items():
        known = counts.get(vaddr)
        read += known is not None or vaddr in failed
        if known is not None:
            copies = 1 if line.name == VIRTUAL else _copies(group)
            shown = known[: lengths.size] * copies
            lengths[: shown.size] += shown
    is_partly_read = read < len(groups)
    allocated = sum(part.length for part in line.parts)
    free = "free, or not read yet" if is_partly_read else "free"
    *entries, rest = legend_entries(palette, lengths, lengths, allocated, free)
    if colours.largest_first:
        entries.sort(key=attrgetter("length"), reverse=True)
    unallocated = LegendEntry("not allocated", BLACK, line.total_bytes - allocated, 0)
    return Legend(
        _UNREAD_NOTE if colours.unread is not None and is_partly_read else colours.note,
        colours.is_scale,
        [*entries, rest, *([unallocated] if unallocated.length else [])],
        read / max(1, len(groups)),
    )


def _copies(group: BlockGroupItem) -> int:
    profile = PROFILES.get(group.flags & constants.BLOCK_GROUP_PROFILE_MASK)
    return 1 if profile is None else profile.ncopies
