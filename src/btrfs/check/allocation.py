"""Chunks, block groups and device extents: three views of the same allocations.

Each of them is a table in the order of addresses. Two tables are compared by searching the keys of
one in the other. Only for what differs, a row is looked at by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.report import Checked
from btrfs.errors import CorruptError, TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.device import DevExtent
from btrfs.ondisk.profiles import profile_of
from btrfs.ondisk.text import block_group_flags_str, counted
from btrfs.source.disk.chunk_recovery import parsed_system_chunks

if TYPE_CHECKING:
    from btrfs.check.block_groups import BlockGroups
    from btrfs.check.places import Chunks, Places, Stripes
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import Chunk
    from btrfs.source.disk.source import DiskSource
    from btrfs.source.disk.superblock import Superblock

__all__ = ["check_allocation"]


class _DevExtents(NamedTuple):
    """Device extents in the order of devices and addresses; an entry per extent in each array.

    Attributes:
        devid: Numbers of the devices, uint64.
        paddr: Addresses on the devices in bytes, uint64.
        vaddr: Virtual addresses of the chunks that they say they are of, uint64.
        length: Bytes, uint64.
    """

    devid: NDArray[np.uint64]
    paddr: NDArray[np.uint64]
    vaddr: NDArray[np.uint64]
    length: NDArray[np.uint64]


def check_allocation(
    fs: FileSystem,
    source: DiskSource,
    places: Places,
    groups: BlockGroups,
    checked: Checked,
) -> None:
    """Compare chunks with block groups and device extents, and these with the devices.

    Args:
        fs: The filesystem.
        source: Its source.
        places: The chunks.
        groups: All block groups.
        checked: Where the findings go.
    """
    if source.is_earlier_state:
        checked.skipped = "what is read is an earlier state than the chunk tree is of"
        return
    chunks = places.chunks
    extents = _dev_extents(fs)
    if extents is None:
        checked.skipped = "there is no device tree"
    lost = {lost.tree for lost in source.log.lost}
    _check_block_groups(chunks, groups, lost, checked)
    if constants.CHUNK_TREE_OBJECTID not in lost:
        _check_system_chunks(fs, source.superblock, checked)
        _check_stripe_devices(fs, places, checked)
    if extents is not None:
        _check_stripes(chunks, places.stripes, extents, lost, checked)
        _check_devices(fs, extents, lost, checked)
    count = 0 if extents is None else len(extents.devid)
    checked.counts = {
        "chunks": len(chunks.vaddr),
        "block_groups": len(groups.vaddr),
        "device_extents": count,
    }
    checked.summary = (
        f"{counted(len(chunks.vaddr), 'chunk')}, {counted(len(groups.vaddr), 'block group')},"
        f" {counted(count, 'device extent')}"
    )


def _dev_extents(fs: FileSystem) -> _DevExtents | None:
    """Return the device extents, None if there is no device tree."""
    none = np.empty(0, np.uint64)
    parts = [_DevExtents(none, none, none, none)]
    try:
        for batch in fs.batches(constants.DEV_TREE_OBJECTID):
            chosen = batch.of_type(constants.DEV_EXTENT_KEY)
            columns = chosen.select(chosen.size == DevExtent.struct_size).columns(DevExtent)
            names = ("devid", "paddr", "chunk_offset", "length")
            parts.append(_DevExtents(*(columns[name] for name in names)))
    except TreeNotFoundError:
        return None
    return _DevExtents(*map(np.concatenate, zip(*parts, strict=True)))


# Chunks and block groups.


def _check_block_groups(
    chunks: Chunks, groups: BlockGroups, lost: set[int], checked: Checked
) -> None:
    """Check that there is a block group like it for each chunk, and the other way round."""
    trees = {constants.EXTENT_TREE_OBJECTID, constants.BLOCK_GROUP_TREE_OBJECTID}
    if not lost & trees:
        for vaddr in chunks.vaddr[~np.isin(chunks.vaddr, groups.vaddr)].tolist():
            checked.add("chunk-alone", f"chunk at {vaddr}", vaddr=vaddr)
    chunk = np.searchsorted(chunks.vaddr, groups.vaddr)
    has_chunk = np.isin(groups.vaddr, chunks.vaddr)
    if constants.CHUNK_TREE_OBJECTID not in lost:
        for vaddr in groups.vaddr[~has_chunk].tolist():
            checked.add("block-group-alone", f"block group at {vaddr}", vaddr=vaddr)
    group, chunk = np.flatnonzero(has_chunk), chunk[has_chunk]
    differs = groups.length[group] != chunks.length[chunk]
    differs |= groups.flags[group] != chunks.flags[chunk]
    for one, other in zip(group[differs].tolist(), chunk[differs].tolist(), strict=True):
        _report_block_group(groups, one, chunks, other, checked)
    ends = groups.vaddr + groups.length
    for index in np.flatnonzero(groups.vaddr[1:] < ends[:-1]).tolist():
        vaddr = int(groups.vaddr[index + 1])
        message = f"block group at {vaddr}: the one before ends at {ends[index]}"
        checked.add("block-group-overlaps", message, vaddr=vaddr)


def _report_block_group(
    groups: BlockGroups, group: int, chunks: Chunks, chunk: int, checked: Checked
) -> None:
    """Report a block group that is not like its chunk."""
    vaddr = int(groups.vaddr[group])
    differences = []
    if groups.length[group] != chunks.length[chunk]:
        differences.append(f"length {groups.length[group]} instead of {chunks.length[chunk]}")
    if groups.flags[group] != chunks.flags[chunk]:
        flags = [int(flags) for flags in (groups.flags[group], chunks.flags[chunk])]
        found, expected = map(block_group_flags_str, flags)
        differences.append(f"{found} instead of {expected}")
    message = f"block group at {vaddr}: {', '.join(differences)}"
    checked.add("block-group-differs", message, vaddr=vaddr)


# Chunks and the superblock.


def _check_system_chunks(fs: FileSystem, superblock: Superblock, checked: Checked) -> None:
    """Check that the superblock has the system chunks, which hold the chunk tree, as that does."""
    try:
        stored = {chunk.vaddr: chunk for chunk in parsed_system_chunks(superblock)}
    except CorruptError as error:
        checked.add("system-chunk", f"the array in the superblock: {error}")
        return
    system = {
        chunk.vaddr: chunk for chunk in fs.chunks() if chunk.type & constants.BLOCK_GROUP_SYSTEM
    }
    for vaddr in sorted(stored.keys() | system.keys()):
        found, expected = (
            "no chunk" if chunk is None else _layout(chunk)
            for chunk in (stored.get(vaddr), system.get(vaddr))
        )
        if found != expected:
            checked.add(
                "system-chunk",
                f"chunk at {vaddr}, in the superblock",
                expected=expected,
                found=found,
                vaddr=vaddr,
            )


def _layout(chunk: Chunk) -> str:
    """Return what must be the same of a chunk wherever it is stored, as text."""
    stripes = ", ".join(
        f"device {stripe.devid} ({stripe.uuid}) at {stripe.offset}" for stripe in chunk.stripes
    )
    return f"{block_group_flags_str(chunk.type)} of {chunk.length} bytes on {stripes}"


def _check_stripe_devices(fs: FileSystem, places: Places, checked: Checked) -> None:
    """Check that the devices that chunks lie on have items."""
    stripes, devids = places.stripes, [device.devid for device in fs.devices(0, ULLONG_MAX)]
    alone = ~np.isin(stripes.devid, np.array(devids, np.uint64))
    for index in np.flatnonzero(alone).tolist():
        devid, paddr = int(stripes.devid[index]), int(stripes.paddr[index])
        vaddr = int(places.chunks.vaddr[stripes.chunk[index]])
        message = f"device {devid} at {paddr}, of the chunk at {vaddr}"
        checked.add("stripe-device", message, vaddr=vaddr, paddr=paddr)


# Stripes and device extents.


def _check_stripes(
    chunks: Chunks, stripes: Stripes, extents: _DevExtents, lost: set[int], checked: Checked
) -> None:
    """Check that there is a device extent like it for each stripe, and the other way round."""
    pairs = _paired(stripes, extents)
    if constants.DEV_TREE_OBJECTID not in lost:
        for index in pairs.stripes_alone.tolist():
            devid, paddr = int(stripes.devid[index]), int(stripes.paddr[index])
            vaddr = int(chunks.vaddr[stripes.chunk[index]])
            message = f"device {devid} at {paddr}, of the chunk at {vaddr}"
            checked.add("stripe-alone", message, vaddr=vaddr, paddr=paddr)
    if constants.CHUNK_TREE_OBJECTID not in lost:
        for index in pairs.extents_alone.tolist():
            devid, paddr, vaddr, _ = (int(column[index]) for column in extents)
            message = f"device {devid} at {paddr}, for a chunk at {vaddr}"
            checked.add("device-extent-alone", message, vaddr=vaddr, paddr=paddr)
    chunk = stripes.chunk[pairs.stripes]
    expected, vaddr_expected = _stripe_lengths(chunks)[chunk], chunks.vaddr[chunk]
    length, vaddr_found = extents.length[pairs.extents], extents.vaddr[pairs.extents]
    for row in np.flatnonzero((length != expected) | (vaddr_found != vaddr_expected)).tolist():
        differences = []
        if length[row] != expected[row]:
            differences.append(f"length {length[row]} instead of {expected[row]}")
        if vaddr_found[row] != vaddr_expected[row]:
            differences.append(f"for the chunk at {vaddr_found[row]}")
            differences[-1] += f" instead of {vaddr_expected[row]}"
        devid, paddr, *_ = (int(column[pairs.extents[row]]) for column in extents)
        message = f"device {devid} at {paddr}: {', '.join(differences)}"
        vaddr = int(vaddr_expected[row])
        checked.add("device-extent-differs", message, vaddr=vaddr, paddr=paddr)


class _Pairs(NamedTuple):
    """Stripes and device extents that are at the same place of a device, and those that are alone.

    Attributes:
        stripes: Indexes of stripes.
        extents: Indexes of the device extents at their places.
        stripes_alone: Indexes of stripes without a device extent of their own.
        extents_alone: Indexes of device extents without a stripe.
    """

    stripes: NDArray[np.intp]
    extents: NDArray[np.intp]
    stripes_alone: NDArray[np.intp]
    extents_alone: NDArray[np.intp]


def _paired(stripes: Stripes, extents: _DevExtents) -> _Pairs:
    """Return which stripes and device extents belong together."""
    devid = np.concatenate([extents.devid, stripes.devid])
    paddr = np.concatenate([extents.paddr, stripes.paddr])
    # The sort is stable: a device extent comes before the stripes at its place.
    order = np.lexsort((paddr, devid))
    devid, paddr = devid[order], paddr[order]
    is_extent = order < len(extents.devid)
    is_pair = (devid[1:] == devid[:-1]) & (paddr[1:] == paddr[:-1])
    is_pair &= is_extent[:-1] & ~is_extent[1:]
    first = np.flatnonzero(is_pair)
    one, other = order[first], order[first + 1] - len(extents.devid)
    stripes_alone = np.setdiff1d(np.arange(len(stripes.devid)), other)
    extents_alone = np.setdiff1d(np.arange(len(extents.devid)), one)
    return _Pairs(other, one, stripes_alone, extents_alone)


def _stripe_lengths(chunks: Chunks) -> NDArray[np.uint64]:
    """Return the bytes of each device extent of chunks."""
    lengths = np.zeros(len(chunks.vaddr), np.uint64)
    for flags in np.unique(chunks.flags).tolist():
        profile = profile_of(flags)
        some = chunks.flags == flags
        with_data = (chunks.num_stripes[some] - profile.nparity).astype(np.uint64)
        lengths[some] = chunks.length[some] * np.uint64(profile.ncopies) // with_data
    return lengths


# Devices.


def _check_devices(fs: FileSystem, extents: _DevExtents, lost: set[int], checked: Checked) -> None:
    """Check that device extents lie on their device side by side, and that their sum is right."""
    devices = {device.devid: device for device in fs.devices(0, ULLONG_MAX)}
    ends = extents.paddr + extents.length
    overlaps = np.zeros(len(ends), np.bool_)
    overlaps[1:] = (extents.devid[1:] == extents.devid[:-1]) & (extents.paddr[1:] < ends[:-1])
    for index in np.flatnonzero(overlaps).tolist():
        devid, paddr, vaddr, _ = (int(column[index]) for column in extents)
        message = f"device {devid} at {paddr}: the one before ends at {ends[index - 1]}"
        checked.add("device-extent-overlaps", message, vaddr=vaddr, paddr=paddr)
    for devid in np.unique(extents.devid).tolist():
        # While a device is replaced, the new one has the number 0 and no item.
        size = devices[devid].total_bytes if devid in devices else ULLONG_MAX
        outside = (extents.devid == np.uint64(devid)) & (ends > np.uint64(size))
        for index in np.flatnonzero(outside).tolist():
            _, paddr, vaddr, _ = (int(column[index]) for column in extents)
            message = f"device {devid} at {paddr}: up to {ends[index]} of {size}"
            checked.add("device-extent-outside", message, vaddr=vaddr, paddr=paddr)
    if constants.DEV_TREE_OBJECTID in lost:
        return
    for devid, device in devices.items():
        used = int(extents.length[extents.devid == np.uint64(devid)].sum())
        if device.bytes_used != used:
            checked.add(
                "device-used",
                f"device {devid}: {device.bytes_used} according to its item, {used} in"
                " device extents",
            )
