"""The extents of block groups, one block group after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from btrfs.ondisk import constants
from heatmap import unreadable
from heatmap.colours import ActiveColouring
from heatmap.extents import reading, types
from heatmap.intervals import Intervals, heading
from heatmap.layers.base import Layer, Scene, coloured
from heatmap.layers.block_groups import LineEntry
from heatmap.palette import UNREADABLE

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, FileSystem
    from btrfs.ondisk.columns import ItemBatch
    from heatmap.layers.lines import AddressLine

__all__ = ["extents"]


def extents(
    fs: FileSystem,
    shown: Sequence[BlockGroupItem],
    granularity: int | None = None,
    active: ActiveColouring | None = None,
) -> Layer:
    """Return the layer of the extents of block groups.

    Args:
        fs: The filesystem.
        shown: The block groups.
        granularity: Bytes of a good pixel, if not the sectorsize.
        active: In which colours; without any, extents are coloured by type.
    """
    vaddrs = " ".join(str(group.vaddr) for group in shown)
    counted = f"block group {vaddrs}" if len(shown) == 1 else f"{len(shown)} block groups"
    scene = Scene(
        title=f"extents of {counted}",
        scope=f"block_group {vaddrs}",
        total_bytes=sum(group.length for group in shown),
        granularity=fs.sectorsize if granularity is None else granularity,
        rest="free",
        entries=lambda _verbose: _entries(shown),
        line=lambda: _line(shown),
    )
    if active is not None:
        return coloured(fs, scene, active)
    return Layer(
        scene.title,
        scene.scope,
        scene.total_bytes,
        scene.granularity,
        types.EXTENTS,
        scene.rest,
        lambda verbose: _by_type(fs, shown, verbose),
    )


def _line(shown: Sequence[BlockGroupItem]) -> AddressLine:
    """Return the line of block groups, each as a whole: no chunks are needed."""
    from heatmap.layers.lines import group_line

    return group_line({group.vaddr: group.length for group in shown}, {})


def _entries(shown: Sequence[BlockGroupItem]) -> Iterator[list[LineEntry]]:
    start = 0
    for group in shown:
        yield [LineEntry(start, group.length, group, str(group))]
        start += group.length


def _by_type(fs: FileSystem, shown: Sequence[BlockGroupItem], verbose: int) -> Iterator[Intervals]:
    """Yield the extents by type. They need not be kept, so memory does not grow with them."""
    start = 0
    for groups in _adjoining(shown) if verbose < 1 else ([group] for group in shown):
        length = sum(group.length for group in groups)
        if verbose >= 1:
            yield heading(str(groups[0]))
        yield from _readable_or_not(fs, (groups[0].vaddr, length), start, verbose)
        start += length


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
        fs: The filesystem.
        group: First virtual address and length of the range.
        line_start: Where the range begins on the address line.
        verbose: 1 and more adds descriptions.
    """
    shift = line_start - group[0]
    for items, lost in reading.read(fs, *group):
        if items is None:
            yield _unknown_extents(lost, shift)
            continue
        known = _extents(fs, items, group, line_start, verbose)
        yield _merged(known, _unknown_extents(lost, shift)) if lost else known


def _merged(known: Intervals, unknown: Intervals) -> Intervals:
    """Return two batches of intervals in one; of those with the same start, the known is first."""
    start = np.concatenate([known.start, unknown.start])
    order = np.argsort(start, kind="stable")
    descriptions = [*(known.descriptions or [""] * len(known)), *unknown.descriptions]
    return Intervals(
        start[order],
        np.concatenate([known.length, unknown.length])[order],
        np.concatenate([known.value, unknown.value])[order],
        descriptions=[descriptions[index] for index in order],
    )


def _extents(
    fs: FileSystem, batch: ItemBatch, group: tuple[int, int], line_start: int, verbose: int
) -> Intervals:
    """Return the extents of a batch; the arguments are those of `_readable_or_not()`."""
    offset, length = reading.within(fs, batch, *group)
    start = offset + line_start
    descriptions: Sequence[str] = ()
    if verbose >= 1:
        descriptions = [
            f"extent vaddr {at} first_byte {first} type {_EXTENT_NAMES[type_]} length {size}"
            for at, first, type_, size in zip(
                batch.objectid.tolist(),
                start.tolist(),
                batch.type.tolist(),
                reading.lengths(fs, batch).tolist(),
                strict=True,
            )
        ]
    return Intervals(start, length, types.extent_values(fs, batch), descriptions=descriptions)


def _unknown_extents(lost: Sequence[unreadable.Range], shift: int) -> Intervals:
    """Return what could not be read of the extents as intervals.

    Args:
        lost: The ranges of virtual addresses.
        shift: How much further they are on the address line.
    """
    first = np.array([start for start, _ in lost], dtype=np.int64)
    end = np.array([end for _, end in lost], dtype=np.int64)
    return Intervals(
        first + shift,
        end - first,
        np.full(len(lost), types.EXTENTS.names.index(UNREADABLE), np.uint8),
        descriptions=[
            f"vaddr {start} length {end - start} {unreadable.DESCRIPTION}" for start, end in lost
        ],
    )


_EXTENT_NAMES = {
    constants.EXTENT_ITEM_KEY: "EXTENT_ITEM",
    constants.METADATA_ITEM_KEY: "METADATA_ITEM",
}
