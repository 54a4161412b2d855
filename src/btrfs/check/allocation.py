"""Chunks, block groups and device extents: three views of the same allocations."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from btrfs.check.report import Checked
from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.profiles import chunk_to_dev_extent_length
from btrfs.ondisk.text import block_group_flags_str, counted

if TYPE_CHECKING:
    from btrfs.check.extents import BlockGroup
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import Chunk
    from btrfs.ondisk.items.device import DevExtent
    from btrfs.source.disk.source import DiskSource

__all__ = ["check_allocation"]

_DeviceAddress = tuple[int, int]
"""Number of a device, and an address on it in bytes."""


def check_allocation(
    fs: FileSystem,
    source: DiskSource,
    groups: dict[int, BlockGroup],
    checked: Checked,
) -> None:
    """Compare chunks with block groups and device extents, and these with the devices.

    Args:
        fs: The filesystem.
        source: Its source.
        groups: All block groups by their addresses.
        checked: Where the findings go.
    """
    if source.is_earlier_state:
        checked.skipped = "what is read is an earlier state than the chunk tree is of"
        return
    chunks = {chunk.vaddr: chunk for chunk in fs.chunks()}
    try:
        dev_extents = {(extent.devid, extent.paddr): extent for extent in fs.dev_extents(0)}
    except TreeNotFoundError:
        dev_extents = {}
        checked.skipped = "there is no device tree"
    lost = {lost.tree for lost in source.log.lost}
    _check_block_groups(chunks, groups, lost, checked)
    if not checked.skipped:
        _check_stripes(chunks, dev_extents, lost, checked)
        _check_devices(fs, dev_extents, lost, checked)
    checked.counts = {
        "chunks": len(chunks),
        "block_groups": len(groups),
        "device_extents": len(dev_extents),
    }
    checked.summary = (
        f"{counted(len(chunks), 'chunk')}, {counted(len(groups), 'block group')},"
        f" {counted(len(dev_extents), 'device extent')}"
    )


def _check_block_groups(
    chunks: dict[int, Chunk], groups: dict[int, BlockGroup], lost: set[int], checked: Checked
) -> None:
    """Check that there is a block group like it for each chunk, and the other way round."""
    trees = {constants.EXTENT_TREE_OBJECTID, constants.BLOCK_GROUP_TREE_OBJECTID}
    if not lost & trees:
        for vaddr in sorted(chunks.keys() - groups.keys()):
            checked.add("chunk-alone", f"chunk at {vaddr}", vaddr=vaddr)
    if constants.CHUNK_TREE_OBJECTID not in lost:
        for vaddr in sorted(groups.keys() - chunks.keys()):
            checked.add("block-group-alone", f"block group at {vaddr}", vaddr=vaddr)
    for vaddr in sorted(groups.keys() & chunks.keys()):
        group, chunk = groups[vaddr], chunks[vaddr]
        differences = []
        if group.length != chunk.length:
            differences.append(f"length {group.length} instead of {chunk.length}")
        if group.flags != chunk.type:
            expected = chunk.type_str
            differences.append(f"{block_group_flags_str(group.flags)} instead of {expected}")
        if group.chunk_objectid != constants.FIRST_CHUNK_TREE_OBJECTID:
            expected_id = constants.FIRST_CHUNK_TREE_OBJECTID
            differences.append(f"chunk_objectid {group.chunk_objectid} instead of {expected_id}")
        if differences:
            message = f"block group at {vaddr}: {', '.join(differences)}"
            checked.add("block-group-differs", message, vaddr=vaddr)


def _check_stripes(
    chunks: dict[int, Chunk],
    extents: dict[_DeviceAddress, DevExtent],
    lost: set[int],
    checked: Checked,
) -> None:
    """Check that there is a device extent like it for each stripe, and the other way round."""
    stripes = {
        (stripe.devid, stripe.offset): chunk
        for chunk in chunks.values()
        for stripe in chunk.stripes
    }
    if constants.DEV_TREE_OBJECTID not in lost:
        for devid, paddr in sorted(stripes.keys() - extents.keys()):
            vaddr = stripes[devid, paddr].vaddr
            message = f"device {devid} at {paddr}, of the chunk at {vaddr}"
            checked.add("stripe-alone", message, vaddr=vaddr, paddr=paddr)
    if constants.CHUNK_TREE_OBJECTID not in lost:
        for devid, paddr in sorted(extents.keys() - stripes.keys()):
            vaddr = extents[devid, paddr].vaddr
            message = f"device {devid} at {paddr}, for a chunk at {vaddr}"
            checked.add("device-extent-alone", message, vaddr=vaddr, paddr=paddr)
    for devid, paddr in sorted(extents.keys() & stripes.keys()):
        extent, chunk = extents[devid, paddr], stripes[devid, paddr]
        differences = []
        expected = chunk_to_dev_extent_length(chunk)
        if extent.length != expected:
            differences.append(f"length {extent.length} instead of {expected}")
        if extent.vaddr != chunk.vaddr:
            differences.append(f"for the chunk at {extent.vaddr} instead of {chunk.vaddr}")
        if differences:
            message = f"device {devid} at {paddr}: {', '.join(differences)}"
            checked.add("device-extent-differs", message, vaddr=chunk.vaddr, paddr=paddr)


def _check_devices(
    fs: FileSystem, extents: dict[_DeviceAddress, DevExtent], lost: set[int], checked: Checked
) -> None:
    """Check that device extents lie on their device side by side, and that their sum is right."""
    devices = {device.devid: device for device in fs.devices(0, ULLONG_MAX)}
    used: dict[int, int] = defaultdict(int)
    last_devid = last_end = 0
    for (devid, paddr), extent in sorted(extents.items()):
        used[devid] += extent.length
        if devid == last_devid and paddr < last_end:
            message = f"device {devid} at {paddr}: the one before ends at {last_end}"
            checked.add("device-extent-overlaps", message, vaddr=extent.vaddr, paddr=paddr)
        last_devid, last_end = devid, paddr + extent.length
        device = devices.get(devid)
        # While a device is replaced, the new one has the number 0 and no item.
        if device is not None and last_end > device.total_bytes:
            message = f"device {devid} at {paddr}: up to {last_end} of {device.total_bytes}"
            checked.add("device-extent-outside", message, vaddr=extent.vaddr, paddr=paddr)
    if constants.DEV_TREE_OBJECTID in lost:
        return
    for devid, device in devices.items():
        if device.bytes_used != used[devid]:
            checked.add(
                "device-used",
                f"device {devid}: {device.bytes_used} according to its item, {used[devid]} in"
                " device extents",
            )
