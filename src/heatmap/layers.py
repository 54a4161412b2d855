"""What to show: a filesystem becomes intervals on an address line.

A layer says how long the line is, what lies on it where, and what the values mean. All that is
particular to a kind of map is in its layer: another kind of map is another layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs import constants, utils, volumes
from btrfs.key import Key
from heatmap import owners
from heatmap.intervals import Intervals, heading
from heatmap.palette import Palette, palette

if TYPE_CHECKING:
    from btrfs.columns import ItemBatch
    from btrfs.ctree import BlockGroupItem, Chunk, DevExtent, DevItem, FileSystem

DEVICE_GRANULARITY = 32 << 20
"""Bytes per pixel, about, of a picture of devices: small enough to see each block group."""


class Layer(NamedTuple):
    """An address line and what lies on it.

    Attributes:
        title: what is shown, as a heading.
        scope: the same, in the words of `scope ...`.
        total_bytes: length of the address line.
        granularity: bytes that make a good pixel; more of them than needed show nothing new.
        palette: the colours of the values.
        rest: what a legend calls the parts of the line where nothing lies.
        batches: makes the intervals. Its argument is the verbosity: with 1 and more they come with
            their words, with 2 and more these words tell more.
    """

    title: str
    scope: str
    total_bytes: int
    granularity: int
    palette: Palette
    rest: str
    batches: Callable[[int], Iterator[Intervals]]


BLOCK_GROUPS = palette(
    {
        "data": 0xFFFFFF,
        "metadata": 0x0000FF,
        "system": 0xFF0033,
        "data and metadata": 0x99CCFF,
        "other": 0xFFFFFF,
    }
)
"""The types of block groups."""


def devices(fs: FileSystem, shown: Sequence[DevItem], granularity: int | None = None) -> Layer:
    """The device extents of these devices, one device after another."""
    ends = list(accumulate(device.total_bytes for device in shown))

    def batches(verbose: int) -> Iterator[Intervals]:
        groups = {group.vaddr: group for group in fs.block_groups()}
        for device, end in zip(shown, ends, strict=True):
            yield _device(fs, device, end - device.total_bytes, groups, verbose)

    devids = " ".join(str(device.devid) for device in shown)
    return Layer(
        title=f"device{'s' if len(shown) > 1 else ''} {devids}",
        scope=f"device {devids}",
        total_bytes=ends[-1] if ends else 0,
        granularity=DEVICE_GRANULARITY if granularity is None else granularity,
        palette=BLOCK_GROUPS,
        rest="not allocated",
        batches=batches,
    )


def chunks(fs: FileSystem, sizes: Sequence[DevItem], granularity: int | None = None) -> Layer:
    """All chunks by virtual address, packed, each as long as all its device extents together.

    The line is as long as these devices together, so that what is not allocated is left at its end.
    """

    def batches(verbose: int) -> Iterator[Intervals]:
        groups = {group.vaddr: group for group in fs.block_groups()}
        start = 0
        for chunk in sorted(fs.chunks(), key=lambda chunk: chunk.vaddr):
            length = volumes.chunk_to_dev_extent_length(chunk) * chunk.num_stripes
            group = groups.get(chunk.vaddr)
            if group is not None:
                words = _chunk_words(group, chunk, length, verbose)
                yield _block_groups([(start, length, group, words)])
            start += length

    return Layer(
        title="chunks by virtual address",
        scope="chunks",
        total_bytes=sum(device.total_bytes for device in sizes),
        granularity=DEVICE_GRANULARITY if granularity is None else granularity,
        palette=BLOCK_GROUPS,
        rest="not allocated",
        batches=batches,
    )


def extents(
    fs: FileSystem, shown: Sequence[BlockGroupItem], granularity: int | None = None
) -> Layer:
    """The extents of these block groups, one block group after another."""

    def batches(verbose: int) -> Iterator[Intervals]:
        start = 0
        for groups in _adjoining(shown) if verbose < 1 else ([group] for group in shown):
            length = sum(group.length for group in groups)
            if verbose >= 1:
                yield heading(str(groups[0]))
            for batch in _extent_items(fs, groups[0].vaddr, length):
                yield _extents(fs, batch, groups[0].vaddr, (start, length), verbose)
            start += length

    vaddrs = " ".join(str(group.vaddr) for group in shown)
    counted = f"block group {vaddrs}" if len(shown) == 1 else f"{len(shown)} block groups"
    return Layer(
        title=f"extents of {counted}",
        scope=f"block_group {vaddrs}",
        total_bytes=sum(group.length for group in shown),
        granularity=fs.sectorsize if granularity is None else granularity,
        palette=owners.EXTENTS,
        rest="free",
        batches=batches,
    )


def _device(
    fs: FileSystem,
    device: DevItem,
    start: int,
    groups: Mapping[int, BlockGroupItem],
    verbose: int,
) -> Intervals:
    """Return the device extents of a device that begins at `start` on the address line."""
    shown = []
    for extent in fs.dev_extents(device.devid, device.devid):
        group = groups.get(extent.vaddr)
        if group is None or extent.paddr >= device.total_bytes:
            continue
        # Nothing may reach into the next device, whatever is on disk.
        length = min(extent.length, device.total_bytes - extent.paddr)
        words = _dev_extent_words(extent, group) if verbose >= 1 else ""
        shown.append((start + extent.paddr, length, group, words))
    return _block_groups(shown)


def _block_groups(shown: Sequence[tuple[int, int, BlockGroupItem, str]]) -> Intervals:
    """Return intervals (start, length, block group, words) with the colour of the block group."""
    groups = [group for _, _, group, _ in shown]
    return Intervals(
        start=np.array([start for start, _, _, _ in shown], dtype=np.int64),
        length=np.array([length for _, length, _, _ in shown], dtype=np.int64),
        value=_BLOCK_GROUP_VALUES[
            [group.flags & constants.BLOCK_GROUP_TYPE_MASK for group in groups]
        ],
        used=np.array([_used_part(group) for group in groups], dtype=np.float64),
        words=[words for _, _, _, words in shown],
    )


def _used_part(group: BlockGroupItem) -> float:
    return min(1.0, group.used / group.length) if group.length else 0.0


def _dev_extent_words(extent: DevExtent, group: BlockGroupItem) -> str:
    return (
        f"dev_extent devid {extent.devid} paddr {extent.paddr} length {extent.length}"
        f" pend {extent.paddr + extent.length - 1}"
        f" type {utils.block_group_flags_str(group.flags)}"
        f" used_pct {_used_part(group) * 100:.2f}"
    )


def _chunk_words(group: BlockGroupItem, chunk: Chunk, length: int, verbose: int) -> str:
    if verbose < 1:
        return ""
    lines = [
        str(group),
        str(chunk),
        f"allocated physical space for chunk at {chunk.vaddr}: {utils.pretty_size(length)}",
    ]
    if verbose >= 2:
        lines += [
            f"    stripe devid {stripe.devid} offset {stripe.offset}" for stripe in chunk.stripes
        ]
    return "\n".join(lines)


def _adjoining(groups: Sequence[BlockGroupItem]) -> Iterator[list[BlockGroupItem]]:
    """Yield the block groups, those together that follow one another, to be read in one go."""
    together: list[BlockGroupItem] = []
    for group in groups:
        if together and together[-1].vaddr + together[-1].length != group.vaddr:
            yield together
            together = []
        together.append(group)
    if together:
        yield together


def _extent_items(fs: FileSystem, vaddr: int, length: int) -> Iterator[ItemBatch]:
    """Yield the items of all extents that begin in a range of virtual addresses."""
    first = Key(vaddr, constants.EXTENT_ITEM_KEY, 0)
    last_vaddr = min(vaddr + length - 1, constants.ULLONG_MAX)
    last = Key(last_vaddr, constants.METADATA_ITEM_KEY, constants.ULLONG_MAX)
    for batch in fs.batches(constants.EXTENT_TREE_OBJECTID, first, last):
        extents = batch.select(
            (batch.type == constants.EXTENT_ITEM_KEY) | (batch.type == constants.METADATA_ITEM_KEY)
        )
        if len(extents):
            yield extents


def _extents(
    fs: FileSystem, batch: ItemBatch, vaddr: int, place: tuple[int, int], verbose: int
) -> Intervals:
    """Return the extents of a batch.

    Args:
        fs: the filesystem.
        batch: items of extents.
        vaddr: the virtual address at which the range begins that is shown.
        place: first byte and length of that range on the address line.
        verbose: 1 and more adds the words.
    """
    line_start, range_length = place
    length = np.where(batch.type == constants.METADATA_ITEM_KEY, fs.nodesize, batch.offset)
    offset = batch.objectid - np.uint64(vaddr)
    # Nothing may reach out of the range, whatever is on disk.
    inside = np.minimum(length.astype(np.uint64), np.uint64(range_length) - offset)
    start = offset.astype(np.int64) + line_start
    words: Sequence[str] = ()
    if verbose >= 1:
        words = [
            f"extent vaddr {at} first_byte {first} type {_EXTENT_NAMES[type_]} length {size}"
            for at, first, type_, size in zip(
                batch.objectid.tolist(),
                start.tolist(),
                batch.type.tolist(),
                length.tolist(),
                strict=True,
            )
        ]
    return Intervals(start, inside.astype(np.int64), owners.extent_values(fs, batch), words=words)


_EXTENT_NAMES = {
    constants.EXTENT_ITEM_KEY: "EXTENT_ITEM",
    constants.METADATA_ITEM_KEY: "METADATA_ITEM",
}


def _block_group_values() -> NDArray[np.uint8]:
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


_BLOCK_GROUP_VALUES = _block_group_values()
