"""All chunks by virtual address, packed, each as long as all its device extents together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from btrfs import utils
from heatmap import unreadable
from heatmap.colours import ActiveColouring
from heatmap.layers.allocation import chunk_sizes
from heatmap.layers.base import Layer, Scene, coloured
from heatmap.layers.block_groups import LineEntry, known_groups
from heatmap.layers.devices import DEVICE_GRANULARITY

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, Chunk, DevItem, FileSystem
    from heatmap.layers.lines import AddressLine

__all__ = ["chunks"]


def chunks(
    fs: FileSystem,
    sizes: Sequence[DevItem],
    granularity: int | None = None,
    active: ActiveColouring | None = None,
) -> Layer:
    """Return the layer of all chunks.

    The line is as long as the devices together, so that its end is what is not allocated. A chunk
    that could not be read is known from its device extents.

    Args:
        fs: The filesystem.
        sizes: The devices.
        granularity: Bytes of a good pixel, if not DEVICE_GRANULARITY.
        active: In which colours; without any, block groups are coloured by type. Extents are shown
            in the stripes of their chunk, which lie one after another.
    """
    total_bytes = sum(device.total_bytes for device in sizes)

    def entries(verbose: int) -> Iterator[list[LineEntry]]:
        groups = known_groups(fs)
        start = 0
        for vaddr, length, chunk in chunk_sizes(fs):
            group = groups(vaddr)
            if group is not None or unreadable.is_block_group_lost(fs, vaddr):
                description = _description(group, chunk, (vaddr, length), verbose)
                yield [LineEntry(start, length, group, description)]
            start += length

    def line() -> AddressLine:
        from heatmap.layers.lines import chunk_line

        return chunk_line(chunk_sizes(fs), total_bytes)

    scene = Scene(
        title="chunks by virtual address",
        scope="chunks",
        total_bytes=total_bytes,
        granularity=DEVICE_GRANULARITY if granularity is None else granularity,
        rest="not allocated",
        entries=entries,
        line=line,
    )
    return coloured(fs, scene, active)


def _description(
    group: BlockGroupItem | None, chunk: Chunk | None, where: tuple[int, int], verbose: int
) -> str:
    """Return what is printed about a chunk, given its virtual address and bytes on devices."""
    if verbose < 1:
        return ""
    vaddr, length = where
    lines = [
        str(group) if group is not None else f"block group {vaddr} {unreadable.DESCRIPTION}",
        str(chunk) if chunk is not None else f"chunk {vaddr} {unreadable.DESCRIPTION}",
        f"allocated physical space for chunk at {vaddr}: {utils.pretty_size(length)}",
    ]
    if verbose >= 2 and chunk is not None:
        lines += [
            f"    stripe devid {stripe.devid} offset {stripe.offset}" for stripe in chunk.stripes
        ]
    return "\n".join(lines)
