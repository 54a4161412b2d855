"""Many chunks that are all alike, made at once.

The kernel makes one chunk after the other, which for a hundred large devices are millions. The
device extents of a row of equal chunks are spread over the devices so that those with the most
space give the most, which is where the kernel's choice of the emptiest devices leads to in the end.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import NamedTuple

from btrfs.space.devices import DeviceSpace

__all__ = ["Candidate", "equal_steps"]

# So many extents are left on each device to be made one by one.
_LAST_STEPS = 4


class Candidate(NamedTuple):
    """A device that a chunk may use (struct btrfs_device_info).

    Attributes:
        available: Bytes of the hole that it would give, no more than wanted.
        unallocated: Bytes in all its holes.
        device: The device.
    """

    available: int
    unallocated: int
    device: DeviceSpace


def equal_steps(
    ranked: Sequence[Candidate], used: int, length: int, wanted: int, most: int
) -> tuple[list[int], int]:
    """Return how many extents each device gives to the next chunks, all of them alike.

    Args:
        ranked: The devices that have space, the best first.
        used: How many of them each chunk uses.
        length: Bytes that a chunk takes on each of them.
        wanted: Bytes that the allocator would like to find in one hole.
        most: Make no more chunks than this, but always one.

    Returns:
        Numbers in the order of ``ranked``; and how many ways to spread them were tried.
    """
    one = [1] * used
    if most <= 1:
        return one, 0
    if used == len(ranked):
        room = [_steady_room(candidate, length, wanted) for candidate in ranked]
        return [min(most, *room)] * used, 0
    # The choice goes round among the devices that have a hole as large as wanted.
    full = [candidate for candidate in ranked if candidate.available == wanted]
    if used > len(full):
        return one, 0
    # For the last chunks, it matters which of the devices each of them is on.
    room = [candidate.device.room_for(length, wanted) - _LAST_STEPS for candidate in full]
    unallocated = [candidate.unallocated for candidate in full]

    def counts_of(steps: int) -> list[int] | None:
        counts = _levelled(unallocated, length, used, steps)
        return counts if all(map(operator.le, counts, room)) else None

    steps = min(most, sum(room) // used)
    if steps < 2 or counts_of(2) is None:
        return one, 1
    tries = 2
    while (counts := counts_of(steps)) is None:
        steps = max(2, steps // 2)
        tries += 1
    return counts, tries


def _steady_room(candidate: Candidate, length: int, wanted: int) -> int:
    """Return how many extents a device gives before the next one may look different; at least 1."""
    if candidate.available == wanted:
        return candidate.device.room_for(length, wanted)
    if len(candidate.device.holes) == 1:
        return max(1, candidate.available // length)
    return 1


def _levelled(unallocated: Sequence[int], length: int, used: int, steps: int) -> list[int]:
    """Spread extents so that the devices with the most space give the most.

    Each of the chunks takes one extent from each of the ``used`` devices that have the most space
    then. After many of them, the devices that took part have the same space left, but for those
    that were used each time and still have more.

    Args:
        unallocated: Bytes of each device, largest first.
        length: Bytes of each extent.
        used: Devices that each chunk uses.
        steps: How many chunks.

    Returns:
        How many extents each device gives: used * steps in all, and no more than steps from one.
    """

    def counts_down_to(level: int) -> list[int]:
        return [min(steps, max(0, (bytes_ - level) // length)) for bytes_ in unallocated]

    total = used * steps
    low, high = unallocated[-1] - (total // len(unallocated) + 2) * length, unallocated[0]
    while high - low > 1:
        middle = (low + high) // 2
        if sum(counts_down_to(middle)) >= total:
            low = middle
        else:
            high = middle
        if high - low < length // 4:
            break
    counts = counts_down_to(low)
    excess = sum(counts) - total
    for index in reversed(range(len(counts))):
        if excess == 0:
            break
        if counts[index]:
            counts[index] -= 1
            excess -= 1
    return counts
