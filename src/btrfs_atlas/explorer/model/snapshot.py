"""What is known of a filesystem without reading extents: its devices, chunks and block groups."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate, chain
from typing import TYPE_CHECKING, NamedTuple

from btrfs import ioctl
from btrfs.errors import BtrfsError
from btrfs.ondisk import constants
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import printable
from btrfs_atlas.explorer.model import lines
from heatmap.layers.block_groups import LineEntry, known_groups
from heatmap.layers.devices import entries_on_device

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, Chunk, DevItem, FileSystem
    from btrfs_atlas.explorer.model.lines import Line


class Snapshot(NamedTuple):
    """A filesystem as it was at one moment.

    Attributes:
        generation: That of the last transaction that was committed.
        groups: The block groups, by virtual address, ascending.
        chunks: The chunks, by virtual address, ascending.
        lines: The address lines, by their names.
        entries: Block groups and what could not be read on each line, ascending.
        device_paths: By devid, as text; empty where it is not known, 'missing' if others are.
    """

    generation: int
    groups: dict[int, BlockGroupItem]
    chunks: dict[int, Chunk]
    lines: dict[str, Line]
    entries: dict[str, Sequence[LineEntry]]
    device_paths: dict[int, str]


def take_snapshot(fs: FileSystem) -> Snapshot:
    """Return the filesystem as it is now.

    Raises:
        HeatmapError: There is nothing that could be shown.
        BtrfsError, OSError: It cannot be read.
    """
    # First: what changes while the rest is read has a later generation.
    generation = last_generation(fs)
    chunks = {chunk.vaddr: chunk for chunk in fs.chunks()}
    groups = {group.vaddr: group for group in fs.block_groups()}
    physical = lines.physical(fs, chunks)
    virtual = lines.virtual(fs, groups, chunks)
    find = known_groups(fs)
    devices = list(fs.devices())
    ends = accumulate(device.total_bytes for device in devices)
    on_devices = chain.from_iterable(
        entries_on_device(fs, device, end - device.total_bytes, find)
        for device, end in zip(devices, ends, strict=True)
    )
    return Snapshot(
        generation,
        groups,
        chunks,
        {line.name: line for line in (physical, virtual)},
        {
            physical.name: list(on_devices),
            virtual.name: [
                LineEntry(part.start, part.length, groups.get(part.vaddr)) for part in virtual.parts
            ],
        },
        _device_paths(fs, devices),
    )


def last_generation(fs: FileSystem) -> int:
    """Return the generation of the last transaction that was committed.

    Any transaction changes the extent tree. Its root item is written when one is committed, while
    the number that the kernel tells is that of the transaction which still goes on.
    """
    tree = Key(constants.EXTENT_TREE_OBJECTID, constants.ROOT_ITEM_KEY, 0)
    for root in fs.search(constants.ROOT_TREE_OBJECTID, tree, tree):
        if isinstance(root, RootItem):
            return root.generation
    return fs.fs_info().generation


def changed_groups(fs: FileSystem, before: Snapshot, now: Snapshot) -> list[int]:
    """Return the virtual addresses of the block groups that differ, ascending."""
    changed = {
        vaddr
        for vaddr in before.groups.keys() | now.groups.keys()
        if _signature(before, vaddr) != _signature(now, vaddr)
    }
    starts = list(now.groups)
    for vaddr in _new_extents(fs, before.generation):
        index = bisect_right(starts, vaddr) - 1
        if index >= 0:
            changed.add(starts[index])
    return sorted(changed)


def _device_paths(fs: FileSystem, devices: Sequence[DevItem]) -> dict[int, str]:
    paths = {}
    for device in devices:
        paths[device.devid] = ""
        with suppress(BtrfsError, OSError):
            path = fs.dev_info(device.devid).path
            paths[device.devid] = printable(os.fsencode(path))
    # A dump has no devices at all: none of them is missing.
    unknown = "missing" if any(paths.values()) else ""
    return {devid: path or unknown for devid, path in paths.items()}


def _signature(snapshot: Snapshot, vaddr: int) -> object:
    """Return what changes when anything is allocated, freed or moved in a block group."""
    group, chunk = snapshot.groups.get(vaddr), snapshot.chunks.get(vaddr)
    stripes = () if chunk is None else [(s.devid, s.offset) for s in chunk.stripes]
    return group and (group.used, group.flags, group.length), tuple(stripes)


def _new_extents(fs: FileSystem, generation: int) -> Iterator[int]:
    """Yield the virtual addresses of the extents made after a generation."""
    if not fs.mounted:
        return
    for header, data in ioctl.search_v2(
        fs.fd,
        constants.EXTENT_TREE_OBJECTID,
        min_transid=generation + 1,
        buf_size=_SEARCH_BUFFER,
    ):
        is_extent = header.type in (constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY)
        if is_extent and int.from_bytes(data[_GENERATION], "little") > generation:
            yield header.objectid


# In struct btrfs_extent_item.
_GENERATION = slice(8, 16)

_SEARCH_BUFFER = 1 << 18
