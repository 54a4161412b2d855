"""Devices one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING

from btrfs import utils
from heatmap import unreadable
from heatmap.colours import ActiveColouring
from heatmap.layers.allocation import Allocated, allocated
from heatmap.layers.base import Layer, Scene, coloured
from heatmap.layers.block_groups import LineEntry, known_groups, used_part

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, DevExtent, DevItem, FileSystem
    from heatmap.layers.lines import AddressLine

__all__ = ["DEVICE_GRANULARITY", "devices", "entries_on_device"]

DEVICE_GRANULARITY = 32 << 20
"""Bytes per pixel, about, of a picture of devices: small enough to see each block group."""


def devices(
    fs: FileSystem,
    shown: Sequence[DevItem],
    granularity: int | None = None,
    active: ActiveColouring | None = None,
) -> Layer:
    """Return the layer of devices one after another.

    Args:
        fs: The filesystem.
        shown: The devices.
        granularity: Bytes of a good pixel, if not DEVICE_GRANULARITY.
        active: In which colours; without any, block groups are coloured by type.
    """
    ends = list(accumulate(device.total_bytes for device in shown))

    def entries(verbose: int) -> Iterator[list[LineEntry]]:
        groups = known_groups(fs)
        for device, end in zip(shown, ends, strict=True):
            yield entries_on_device(fs, device, end - device.total_bytes, groups, verbose)

    def line() -> AddressLine:
        from heatmap.layers.lines import device_line

        return device_line(fs, shown, {chunk.vaddr: chunk for chunk in fs.chunks()})

    devids = " ".join(str(device.devid) for device in shown)
    scene = Scene(
        title=f"device{'s' if len(shown) > 1 else ''} {devids}",
        scope=f"device {devids}",
        total_bytes=ends[-1] if ends else 0,
        granularity=DEVICE_GRANULARITY if granularity is None else granularity,
        rest="not allocated",
        entries=entries,
        line=line,
    )
    return coloured(fs, scene, active)


def entries_on_device(
    fs: FileSystem,
    device: DevItem,
    start: int,
    groups: Callable[[int], BlockGroupItem | None],
    verbose: int = 0,
) -> list[LineEntry]:
    """Return the device extents of a device, ascending, and what of it could not be read.

    Args:
        fs: The filesystem.
        device: The device.
        start: Where it begins on the address line, in bytes.
        groups: Finds the block group at a virtual address; see `known_groups()`.
        verbose: 1 and more adds descriptions.
    """
    entries: list[LineEntry] = []
    known, lost = allocated(fs, device)
    for extent in known:
        if extent.paddr >= device.total_bytes:
            continue
        group = groups(extent.vaddr)
        if group is None and not unreadable.is_block_group_lost(fs, extent.vaddr):
            continue
        # Nothing may reach into the next device, whatever is on disk.
        length = min(extent.length, device.total_bytes - extent.paddr)
        description = _description(extent, group) if verbose >= 1 else ""
        entries.append(LineEntry(start + extent.paddr, length, group, description))
    for first, end in lost:
        description = (
            f"devid {device.devid} paddr {first} length {end - first} {unreadable.DESCRIPTION}"
        )
        entries.append(LineEntry(start + first, end - first, None, description))
    return sorted(entries, key=attrgetter("start"))


def _description(extent: DevExtent | Allocated, group: BlockGroupItem | None) -> str:
    where = (
        f"dev_extent devid {extent.devid} paddr {extent.paddr} length {extent.length}"
        f" pend {extent.paddr + extent.length - 1}"
    )
    if group is None:
        return f"{where} block group {extent.vaddr} {unreadable.DESCRIPTION}"
    return (
        f"{where}"
        f" type {utils.block_group_flags_str(group.flags)}"
        f" used_pct {used_part(group) * 100:.2f}"
    )
