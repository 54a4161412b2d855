"""Fill: how much of a block group is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heatmap.colouring import Colouring, Export
from heatmap.colours import GroupColours
from heatmap.palette import with_unreadable
from heatmap.scales import sequential

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem

_STEPS = 20
_NAMES = [f"{100 * step // _STEPS} to {100 * (step + 1) // _STEPS} %" for step in range(_STEPS)]


def _step(group: BlockGroupItem) -> int:
    """Return the step of the scale that a block group is on."""
    return min(_STEPS - 1, group.used * _STEPS // group.length) if group.length else 0


COLOURING = Colouring(
    name="fill",
    title="how full",
    description="how much of a block group is in use",
    rank=20,
    groups=GroupColours(
        with_unreadable(_NAMES, sequential(_STEPS)),
        _step,
        is_scale=True,
        note="how much of a block group is in use",
    ),
    export=Export.ALWAYS,
)
