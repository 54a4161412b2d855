"""What to show: a filesystem becomes intervals on an address line.

A layer says how long the line is, what lies on it where, and what the values mean. All that is
particular to a kind of map is in its layer: another kind of map is another layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs import utils
from btrfs.errors import ItemNotFoundError
from btrfs.ondisk import constants, profiles
from heatmap import unreadable
from heatmap.extents import reading as extents_of, types
from heatmap.intervals import Intervals, heading
from heatmap.palette import UNREADABLE, UNREADABLE_COLOUR, Palette, palette

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, Chunk, DevExtent, DevItem, FileSystem
    from btrfs.ondisk.columns import ItemBatch

Shown = tuple[int, int, "BlockGroupItem | None", str]
"""Start and length on the address line; the block group, None if it could not be read; words."""

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
        UNREADABLE: UNREADABLE_COLOUR,
    },
    hatched=UNREADABLE,
)
"""The types of block groups."""


def devices(fs: FileSystem, shown: Sequence[DevItem], granularity: int | None = None) -> Layer:
    """The device extents of these devices, one device after another."""
    ends = list(accumulate(device.total_bytes for device in shown))

    def batches(verbose: int) -> Iterator[Intervals]:
        groups = known_groups(fs)
        for device, end in zip(shown, ends, strict=True):
            start = end - device.total_bytes
            yield block_group_intervals(on_device(fs, device, start, groups, verbose))

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
    A chunk that could not be read is known from its device extents.
    """
    total_bytes = sum(device.total_bytes for device in sizes)

    def batches(verbose: int) -> Iterator[Intervals]:
        groups = known_groups(fs)
        start = 0
        for vaddr, length, chunk in _chunk_lengths(fs):
            group = groups(vaddr)
            if group is not None or unreadable.is_block_group_lost(fs, vaddr):
                words = _chunk_words(group, chunk, (vaddr, length), verbose)
                yield block_group_intervals([(start, length, group, words)])
            start += length

    return Layer(
        title="chunks by virtual address",
        scope="chunks",
        total_bytes=total_bytes,
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
            yield from _readable_or_not(fs, (groups[0].vaddr, length), start, verbose)
            start += length

    vaddrs = " ".join(str(group.vaddr) for group in shown)
    counted = f"block group {vaddrs}" if len(shown) == 1 else f"{len(shown)} block groups"
    return Layer(
        title=f"extents of {counted}",
        scope=f"block_group {vaddrs}",
        total_bytes=sum(group.length for group in shown),
        granularity=fs.sectorsize if granularity is None else granularity,
        palette=types.EXTENTS,
        rest="free",
        batches=batches,
    )


def on_device(
    fs: FileSystem,
    device: DevItem,
    start: int,
    groups: Callable[[int], BlockGroupItem | None],
    verbose: int = 0,
) -> list[Shown]:
    """Return the device extents of a device that begins at `start` on the address line, sorted.

    Args:
        fs: the filesystem.
        device: the device.
        start: where it begins.
        groups: finds the block group at a virtual address; see `known_groups()`.
        verbose: 1 and more adds the words.
    """
    shown: list[Shown] = []
    known, lost = allocated(fs, device)
    for extent in known:
        if extent.paddr >= device.total_bytes:
            continue
        group = groups(extent.vaddr)
        if group is None and not unreadable.is_block_group_lost(fs, extent.vaddr):
            continue
        # Nothing may reach into the next device, whatever is on disk.
        length = min(extent.length, device.total_bytes - extent.paddr)
        words = _dev_extent_words(extent, group) if verbose >= 1 else ""
        shown.append((start + extent.paddr, length, group, words))
    for first, behind in lost:
        words = f"devid {device.devid} paddr {first} length {behind - first} {unreadable.WORDS}"
        shown.append((start + first, behind - first, None, words))
    return sorted(shown, key=itemgetter(0))


def known_groups(fs: FileSystem) -> Callable[[int], BlockGroupItem | None]:
    """Return what finds the block group at a virtual address."""
    groups = {group.vaddr: group for group in fs.block_groups()}

    def find(vaddr: int) -> BlockGroupItem | None:
        if vaddr not in groups and unreadable.is_chunk_tree_damaged(fs):
            # They were looked up by their chunks, and this one may be unknown.
            with suppress(ItemNotFoundError):
                groups[vaddr] = fs.block_group(vaddr)
        return groups.get(vaddr)

    return find


def _chunk_lengths(fs: FileSystem) -> list[tuple[int, int, Chunk | None]]:
    """Return address of each chunk, how much of the devices it takes, and what is known of it."""
    chunks: dict[int, Chunk | None] = {chunk.vaddr: chunk for chunk in fs.chunks()}
    lengths = {
        vaddr: profiles.chunk_to_dev_extent_length(chunk) * chunk.num_stripes
        for vaddr, chunk in chunks.items()
        if chunk is not None
    }
    if unreadable.is_chunk_tree_damaged(fs):
        for extent in fs.dev_extents(0):
            if chunks.setdefault(extent.vaddr) is None:
                lengths[extent.vaddr] = lengths.get(extent.vaddr, 0) + extent.length
    return [(vaddr, length, chunks[vaddr]) for vaddr, length in sorted(lengths.items())]


def block_group_intervals(shown: Sequence[Shown]) -> Intervals:
    """Return intervals with the colours of their block groups."""
    groups = [group for _, _, group, _ in shown]
    return Intervals(
        start=np.array([start for start, _, _, _ in shown], dtype=np.int64),
        length=np.array([length for _, length, _, _ in shown], dtype=np.int64),
        value=np.array([block_group_value(group) for group in groups], dtype=np.uint8),
        used=np.array([_used_part(group) for group in groups], dtype=np.float64),
        words=[words for _, _, _, words in shown],
    )


def block_group_value(group: BlockGroupItem | None) -> int:
    """Return the value that a block group has in BLOCK_GROUPS."""
    if group is None:
        return BLOCK_GROUPS.names.index(UNREADABLE)
    return int(_BLOCK_GROUP_VALUES[group.flags & constants.BLOCK_GROUP_TYPE_MASK])


def _used_part(group: BlockGroupItem | None) -> float:
    if group is None:
        return 1.0
    return min(1.0, group.used / group.length) if group.length else 0.0


class _Allocated(NamedTuple):
    """A part of a device that belongs to a chunk."""

    devid: int
    paddr: int
    length: int
    vaddr: int


def allocated(
    fs: FileSystem, device: DevItem
) -> tuple[Sequence[DevExtent | _Allocated], list[unreadable.Range]]:
    """Return what is allocated on a device, and the parts of it of which that is not known."""
    extents = list(fs.dev_extents(device.devid, device.devid))
    lost = unreadable.on_device(fs, device, [extent.paddr for extent in extents])
    if not lost or unreadable.is_chunk_tree_damaged(fs):
        return extents, lost
    # The chunks tell the same.
    stripes = [
        _Allocated(
            device.devid, stripe.offset, profiles.chunk_to_dev_extent_length(chunk), chunk.vaddr
        )
        for chunk in fs.chunks()
        for stripe in chunk.stripes
        if stripe.devid == device.devid
    ]
    return sorted(stripes, key=attrgetter("paddr")), []


def _dev_extent_words(extent: DevExtent | _Allocated, group: BlockGroupItem | None) -> str:
    place = (
        f"dev_extent devid {extent.devid} paddr {extent.paddr} length {extent.length}"
        f" pend {extent.paddr + extent.length - 1}"
    )
    if group is None:
        return f"{place} block group {extent.vaddr} {unreadable.WORDS}"
    return (
        f"{place}"
        f" type {utils.block_group_flags_str(group.flags)}"
        f" used_pct {_used_part(group) * 100:.2f}"
    )


def _chunk_words(
    group: BlockGroupItem | None, chunk: Chunk | None, place: tuple[int, int], verbose: int
) -> str:
    """Return the words about a chunk at a place: its virtual address, and its bytes on devices."""
    if verbose < 1:
        return ""
    vaddr, length = place
    lines = [
        str(group) if group is not None else f"block group {vaddr} {unreadable.WORDS}",
        str(chunk) if chunk is not None else f"chunk {vaddr} {unreadable.WORDS}",
        f"allocated physical space for chunk at {vaddr}: {utils.pretty_size(length)}",
    ]
    if verbose >= 2 and chunk is not None:
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


def _readable_or_not(
    fs: FileSystem, group: tuple[int, int], line_start: int, verbose: int
) -> Iterator[Intervals]:
    """Yield the extents in a range, and what could not be read between them.

    Args:
        fs: the filesystem.
        group: first virtual address and length of the range.
        line_start: where the range begins on the address line.
        verbose: 1 and more adds the words.
    """
    shift = line_start - group[0]
    for items, lost in extents_of.read(fs, *group):
        if items is None:
            yield _unknown_extents(lost, shift)
            continue
        known = _extents(fs, items, group, line_start, verbose)
        yield _merged(known, _unknown_extents(lost, shift)) if lost else known


def _merged(known: Intervals, unknown: Intervals) -> Intervals:
    """Return two batches of intervals in one; of those with the same start, the known is first."""
    start = np.concatenate([known.start, unknown.start])
    order = np.argsort(start, kind="stable")
    words = [*(known.words or [""] * len(known)), *unknown.words]
    return Intervals(
        start[order],
        np.concatenate([known.length, unknown.length])[order],
        np.concatenate([known.value, unknown.value])[order],
        words=[words[index] for index in order],
    )


def _extents(
    fs: FileSystem, batch: ItemBatch, group: tuple[int, int], line_start: int, verbose: int
) -> Intervals:
    """Return the extents of a batch; the arguments are those of `_readable_or_not()`."""
    offset, length = extents_of.within(fs, batch, *group)
    start = offset + line_start
    words: Sequence[str] = ()
    if verbose >= 1:
        words = [
            f"extent vaddr {at} first_byte {first} type {_EXTENT_NAMES[type_]} length {size}"
            for at, first, type_, size in zip(
                batch.objectid.tolist(),
                start.tolist(),
                batch.type.tolist(),
                extents_of.lengths(fs, batch).tolist(),
                strict=True,
            )
        ]
    return Intervals(start, length, types.extent_values(fs, batch), words=words)


def _unknown_extents(lost: Sequence[unreadable.Range], shift: int) -> Intervals:
    """Return what could not be read of the extents as intervals.

    Args:
        lost: the ranges of virtual addresses.
        shift: how much further they are on the address line.
    """
    first = np.array([start for start, _ in lost], dtype=np.int64)
    behind = np.array([end for _, end in lost], dtype=np.int64)
    return Intervals(
        first + shift,
        behind - first,
        np.full(len(lost), types.EXTENTS.names.index(UNREADABLE), np.uint8),
        words=[f"vaddr {start} length {end - start} {unreadable.WORDS}" for start, end in lost],
    )


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
