"""Block groups on an address line, in the colours of their types or any others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import ItemNotFoundError
from btrfs.ondisk import constants
from heatmap import unreadable
from heatmap.colours import GroupColours
from heatmap.intervals import Intervals
from heatmap.palette import UNREADABLE, UNREADABLE_COLOUR, palette

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, FileSystem

__all__ = [
    "BLOCK_GROUPS",
    "BY_TYPE",
    "LineEntry",
    "intervals_of_groups",
    "known_groups",
    "used_part",
]

BLOCK_GROUPS = palette(
    {
        "data": 0xFFFFFF,
        "metadata": 0x0000FF,
        "system": 0xFF0033,
        "data and metadata": 0x99CCFF,
        "other": 0xFFFFFF,
        UNREADABLE: UNREADABLE_COLOUR,
    },
    hatched=UNREADABLE,
)
"""The types of block groups."""


class LineEntry(NamedTuple):
    """A range of an address line that belongs to a block group, or could not be read.

    Attributes:
        start: Where it begins on the line, in bytes.
        length: Bytes.
        group: The block group; None if it could not be read.
        description: What is printed about it; empty if nothing shall be.
    """

    start: int
    length: int
    group: BlockGroupItem | None
    description: str = ""


def intervals_of_groups(entries: Sequence[LineEntry], colours: GroupColours) -> Intervals:
    """Return what lies on a line as intervals in the colours of block groups."""
    groups = [entry.group for entry in entries]
    unknown = colours.unreadable_value
    used = np.array([used_part(group) for group in groups], dtype=np.float64)
    return Intervals(
        start=np.array([entry.start for entry in entries], dtype=np.int64),
        length=np.array([entry.length for entry in entries], dtype=np.int64),
        value=np.array(
            [unknown if group is None else colours.value(group) for group in groups], dtype=np.int64
        ),
        used=used if colours.shows_used else None,
        descriptions=[entry.description for entry in entries],
    )


def used_part(group: BlockGroupItem | None) -> float:
    """Return which part of a block group is in use, 0 to 1; 1 if it could not be read."""
    if group is None:
        return 1.0
    return min(1.0, group.used / group.length) if group.length else 0.0


def known_groups(fs: FileSystem) -> Callable[[int], BlockGroupItem | None]:
    """Return a function that finds the block group at a virtual address."""
    groups = {group.vaddr: group for group in fs.block_groups()}

    def find(vaddr: int) -> BlockGroupItem | None:
        if vaddr not in groups and unreadable.is_chunk_tree_damaged(fs):
            # They were looked up by their chunks, and this one may be unknown.
            with suppress(ItemNotFoundError):
                groups[vaddr] = fs.block_group(vaddr)
        return groups.get(vaddr)

    return find


def _type_value(group: BlockGroupItem) -> int:
    return int(_TYPE_VALUES[group.flags & constants.BLOCK_GROUP_TYPE_MASK])


def _type_values() -> NDArray[np.uint8]:
    """Return the values of BLOCK_GROUPS, indexed by the type bits of a block group."""
    values = np.full(
        constants.BLOCK_GROUP_TYPE_MASK + 1, BLOCK_GROUPS.names.index("other"), dtype=np.uint8
    )
    for flags, name in (
        (constants.BLOCK_GROUP_DATA, "data"),
        (constants.BLOCK_GROUP_METADATA, "metadata"),
        (constants.BLOCK_GROUP_SYSTEM, "system"),
        (constants.BLOCK_GROUP_DATA | constants.BLOCK_GROUP_METADATA, "data and metadata"),
    ):
        values[flags] = BLOCK_GROUPS.names.index(name)
    return values


_TYPE_VALUES = _type_values()

BY_TYPE = GroupColours(
    BLOCK_GROUPS,
    _type_value,
    shows_used=True,
    note="block groups: the brighter, the fuller",
)
"""Block groups by type, as btrfs-heatmap has always shown them."""
