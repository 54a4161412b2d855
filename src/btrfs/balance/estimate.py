"""What a balance would do, found out by doing it in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from btrfs.balance.planning import (
    NO_SPACE,
    Action,
    Selection,
    Step,
    candidates,
    is_finished,
    turns,
)
from btrfs.balance.simulation import Simulation

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import BlockGroupItem

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a balance would do.

    Attributes:
        steps: What would happen, without the BEGINs.
        before: Bytes that are unallocated now.
        after: Bytes that would be unallocated then.
    """

    steps: list[Step]
    before: int
    after: int

    @property
    def gain(self) -> int:
        """Bytes more that would be unallocated; below zero if it would be less."""
        return self.after - self.before


def estimate(
    fs: FileSystem, selection: Selection, selected: Sequence[BlockGroupItem] | None = None
) -> Estimate:
    """Find out what :func:`btrfs.balance.running.balance` would do, by doing it in memory.

    What is moved goes into the free space of other block groups, and into new ones where there is
    none that is large enough, see :mod:`btrfs.balance.simulation`. What else is written to the
    filesystem meanwhile is not known, nor is what a swap file holds.

    Args:
        fs: The filesystem, mounted or not.
        selection: Which block groups, in which order, and when to stop.
        selected: What candidates() returned, if that was called already.
    """
    if selected is None:
        selected = candidates(fs, selection)
    simulation = Simulation(fs)
    before = simulation.unallocated(selection.devid)
    steps: list[Step] = []
    moved = 0
    for step in turns(selected, selection, simulation.groups.get):
        if step.action is not Action.BEGIN:
            steps.append(step)
            continue
        if is_finished(selection, moved, lambda: simulation.unallocated(selection.devid)):
            break
        if simulation.move(step.vaddr):
            moved += 1
            steps.append(replace(step, action=Action.MOVED))
        else:
            steps.append(replace(step, action=Action.STUCK, reason=NO_SPACE))
    return Estimate(steps, before, simulation.unallocated(selection.devid))
