"""What is allocated on devices: device extents, or what chunks tell in their place."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from btrfs.ondisk import profiles
from heatmap import unreadable

if TYPE_CHECKING:
    from btrfs.ctree import Chunk, DevExtent, DevItem, FileSystem

__all__ = ["Allocated", "allocated", "chunk_sizes"]


class Allocated(NamedTuple):
    """A range of a device that belongs to a chunk, as a chunk tells it; see DevExtent."""

    devid: int
    paddr: int
    length: int
    vaddr: int


def allocated(
    fs: FileSystem, device: DevItem
) -> tuple[Sequence[DevExtent | Allocated], list[unreadable.Range]]:
    """Return what is allocated on a device, and the ranges of it of which that is not known."""
    extents = list(fs.dev_extents(device.devid, device.devid))
    lost = unreadable.on_device(fs, device, [extent.paddr for extent in extents])
    if not lost or unreadable.is_chunk_tree_damaged(fs):
        return extents, lost
    # The chunks tell the same.
    stripes = [
        Allocated(
            device.devid, stripe.offset, profiles.chunk_to_dev_extent_length(chunk), chunk.vaddr
        )
        for chunk in fs.chunks()
        for stripe in chunk.stripes
        if stripe.devid == device.devid
    ]
    return sorted(stripes, key=attrgetter("paddr")), []


def chunk_sizes(fs: FileSystem) -> list[tuple[int, int, Chunk | None]]:
    """Return for each chunk its virtual address, its bytes on devices, and the chunk if known.

    A chunk that could not be read is known from its device extents.
    """
    chunks: dict[int, Chunk | None] = {chunk.vaddr: chunk for chunk in fs.chunks()}
    sizes = {
        vaddr: profiles.chunk_to_dev_extent_length(chunk) * chunk.num_stripes
        for vaddr, chunk in chunks.items()
        if chunk is not None
    }
    if unreadable.is_chunk_tree_damaged(fs):
        for extent in fs.dev_extents(0):
            if chunks.setdefault(extent.vaddr) is None:
                sizes[extent.vaddr] = sizes.get(extent.vaddr, 0) + extent.length
    return [(vaddr, size, chunks[vaddr]) for vaddr, size in sorted(sizes.items())]
