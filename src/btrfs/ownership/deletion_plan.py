"""Which subvolumes to delete to free so much."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from btrfs.ownership.sizes import Space

if TYPE_CHECKING:
    from btrfs.ownership.scanning import Scan

__all__ = ["Order", "Plan", "plan"]

Order = Literal["oldest", "fewest"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Subvolumes to delete.

    Attributes:
        ids: Their numbers, in the order in which they were chosen.
        frees: What deleting all of them frees.
        is_enough: Whether that is as much as was asked for.
    """

    ids: list[int]
    frees: Space
    is_enough: bool


def plan(scanned: Scan, wanted: int, candidates: Collection[int], gone: int, order: Order) -> Plan:
    """Return which subvolumes to delete so that bytes become free.

    Args:
        scanned: What was read.
        wanted: Bytes that are to become free.
        candidates: The bits of those that may be deleted.
        gone: Bit mask of those that are deleted already.
        order: See :meth:`btrfs.ownership.engine.Ownership.plan`.
    """
    already = scanned.sizes.of(scanned.sets.within(gone))
    left = sorted(candidates, key=lambda bit: _age(scanned, bit))
    chosen: list[int] = []
    frees = Space(0, 0)
    while left and frees.total < wanted:
        best = _most_freeing(scanned, left, gone) if order == "fewest" else left[0]
        left.remove(best)
        chosen.append(best)
        gone |= 1 << best
        frees = scanned.sizes.of(scanned.sets.within(gone)).without(already)
    ids = [scanned.owners[bit].tree for bit in chosen]
    return Plan(ids, frees, frees.total >= wanted)


def _age(scanned: Scan, bit: int) -> tuple[int, int, int]:
    """Return what sorts subvolumes by their age, the oldest first."""
    item = scanned.owners[bit].item
    assert item is not None
    return item.otime.sec, item.otime.nsec, bit


def _most_freeing(scanned: Scan, left: list[int], gone: int) -> int:
    """Return which of some subvolumes frees most beside those that are gone.

    Where none frees anything alone, it is the one with the largest shares of what would become free
    if all of them were deleted.
    """
    count = len(scanned.owners)
    totals = (scanned.sizes.data + scanned.sizes.metadata).sum(axis=1)
    is_gone = np.array([bool(gone >> bit & 1) for bit in range(count)])
    is_left = np.zeros(count, np.bool_)
    is_left[left] = True
    alone, shares = np.zeros((2, count))
    for some, members in scanned.sets.members(count):
        rest = members & ~is_gone
        users = rest.sum(axis=1)
        weight = totals[some] * ~(rest & ~is_left).any(axis=1) / np.maximum(users, 1)
        shares += weight @ rest
        alone += (weight * (users == 1)) @ rest
    return max(left, key=lambda bit: (alone[bit], shares[bit]))
