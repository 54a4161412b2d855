"""The address lines of the map, and how each of them is divided into zooms, tiles and pixels.

The physical line is all devices one after another. The virtual line is all block groups one after
another, by their virtual addresses, with nothing between them. See :mod:`heatmap.layers.lines`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from heatmap import HeatmapError, curves, unreadable
from heatmap.layers.lines import (
    AddressLine,
    Device as Device,
    Location as Location,
    Part as Part,
    device_parts,
    group_parts,
)

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, Chunk, FileSystem

PHYSICAL, VIRTUAL = SPACES = ("physical", "virtual")

TILE_ORDER = 8
"""A tile has 2^8 by 2^8 pixels, and at zoom 0 there is one."""


class Line(AddressLine):
    """An address line of the map.

    Attributes:
        name: One of SPACES.
        max_zoom: The zoom at which a pixel is a sector, or less.

    Raises:
        HeatmapError: It is empty, or too long.
    """

    def __init__(
        self,
        name: str,
        parts: Iterable[Part],
        devices: Sequence[Device],
        chunks: Mapping[int, Chunk],
        sectorsize: int,
    ) -> None:
        super().__init__(parts, chunks, devices)
        self.name = name
        pixels = -(-self.total_bytes // sectorsize)
        self.max_zoom = min(
            max(0, ((pixels - 1).bit_length() + 1) // 2 - TILE_ORDER),
            curves.MAX_ORDER - TILE_ORDER,
        )

    def order(self, zoom: int) -> int:
        """Return the order of the whole picture at a zoom.

        Raises:
            ValueError: There is no such zoom.
        """
        if not 0 <= zoom <= self.max_zoom:
            raise ValueError(f"zoom {zoom} out of range (need 0 to {self.max_zoom})")
        return TILE_ORDER + zoom

    def pixel(self, curve: str, zoom: int, row: int, column: int) -> tuple[int, int]:
        """Return which bytes of the line a pixel shows: the first one, and how many; at least one.

        Raises:
            ValueError: There is no such pixel.
        """
        order = self.order(zoom)
        if not (0 <= row < 1 << order and 0 <= column < 1 << order):
            raise ValueError(f"no pixel at {row}, {column} at zoom {zoom}")
        position = int(curves.positions_at(curve, order, np.array(row), np.array(column)))
        start = -(-position * self.total_bytes >> 2 * order)
        end = -(-(position + 1) * self.total_bytes >> 2 * order)
        return min(start, self.total_bytes - 1), max(1, end - start)

    def at(self, curve: str, zoom: int, address: int) -> tuple[int, int]:
        """Return row and column of the pixel that shows a byte of the line.

        Raises:
            ValueError: There is no such byte, or zoom.
        """
        order = self.order(zoom)
        if not 0 <= address < self.total_bytes:
            raise ValueError(f"address {address} out of range")
        position = (address << 2 * order) // self.total_bytes
        rows, columns = curves.pixels_at(curve, order, np.array([position]))
        return int(rows[0]), int(columns[0])


def physical(fs: FileSystem, chunks: Mapping[int, Chunk]) -> Line:
    """Return the line of all devices.

    Raises:
        HeatmapError: The devices are not known.
    """
    devices, parts = device_parts(fs, fs.devices(), chunks)
    if not devices:
        raise HeatmapError(
            "the devices are not known",
            hint="give all devices or images of the filesystem, or restore the image",
        )
    return Line(PHYSICAL, parts, devices, chunks, fs.sectorsize)


def virtual(
    fs: FileSystem, groups: Mapping[int, BlockGroupItem], chunks: Mapping[int, Chunk]
) -> Line:
    """Return the line of all block groups; of those that could not be read, their chunks.

    Raises:
        HeatmapError: There are none.
    """
    lengths = {
        vaddr: chunk.length
        for vaddr, chunk in chunks.items()
        if unreadable.is_block_group_lost(fs, vaddr)
    }
    lengths |= {vaddr: group.length for vaddr, group in groups.items()}
    parts = group_parts(dict(sorted(lengths.items())))
    if not parts:
        raise HeatmapError("no block group could be read", hint="try btrfs-atlas check")
    return Line(VIRTUAL, parts, [], chunks, fs.sectorsize)
