"""Address lines: what can be shown, as one long range of bytes, and what lies where on it.

The physical line is all devices one after another. The virtual line is all block groups one after
another, by their virtual addresses, with nothing between them. A line is made of parts, each a
range that a block group, or one stripe of it, takes.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import stripes
from heatmap import HeatmapError, curves, layers, unreadable

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, Chunk, FileSystem

Addresses = NDArray[np.int64]

PHYSICAL, VIRTUAL = SPACES = ("physical", "virtual")

TILE_ORDER = 8
"""A tile has 2^8 by 2^8 pixels, and at zoom 0 there is one."""


class Device(NamedTuple):
    """A device on a line.

    Attributes:
        devid: its number.
        start: where it begins on the line, in bytes.
        length: bytes.
    """

    devid: int
    start: int
    length: int


class Part(NamedTuple):
    """A range of a line that belongs to a block group.

    Attributes:
        start: where it begins on the line, in bytes.
        length: bytes.
        vaddr: virtual address at which the block group begins.
        stripe: index of the stripe that it is; None if it is the whole block group.
        devid: number of the device that the stripe lies on, and
        paddr: where on it; both None if it is the whole block group.
    """

    start: int
    length: int
    vaddr: int
    stripe: int | None = None
    devid: int | None = None
    paddr: int | None = None


class Location(NamedTuple):
    """What a byte of a line is; None is what does not apply.

    Attributes:
        devid: number of the device that it lies on. Of the virtual line, that of the first copy.
        paddr: address on that device.
        vaddr: virtual address; None where nothing is allocated, and of parity.
        group: virtual address at which its block group begins.
    """

    devid: int | None = None
    paddr: int | None = None
    vaddr: int | None = None
    group: int | None = None


class Line:
    """An address line.

    Attributes:
        name: one of SPACES.
        total_bytes: its length.
        max_zoom: the zoom at which a pixel is a sector, or less.
        devices: the devices on it, in order; none on the virtual line.
        parts: what of it is allocated, in order.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[Part],
        devices: Sequence[Device],
        chunks: dict[int, Chunk],
        sectorsize: int,
    ) -> None:
        self.name = name
        self.devices = list(devices)
        self.parts = _disjoint(parts)
        ends = [device.start + device.length for device in devices]
        self.total_bytes = max([*ends, *(part.start + part.length for part in self.parts[-1:])])
        if not 0 < self.total_bytes < 1 << 62:
            raise HeatmapError(f"cannot draw {self.total_bytes} bytes")
        pixels = -(-self.total_bytes // sectorsize)
        self.max_zoom = min(
            max(0, ((pixels - 1).bit_length() + 1) // 2 - TILE_ORDER),
            curves.MAX_ORDER - TILE_ORDER,
        )
        self._chunks = chunks
        self._starts = [part.start for part in self.parts]
        self._of_group: dict[int, list[Part]] = {}
        for part in self.parts:
            self._of_group.setdefault(part.vaddr, []).append(part)
        self._groups = sorted(self._of_group)

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
        first = -(-position * self.total_bytes >> 2 * order)
        behind = -(-(position + 1) * self.total_bytes >> 2 * order)
        return min(first, self.total_bytes - 1), max(1, behind - first)

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

    def parts_between(self, first: int, behind: int) -> list[Part]:
        """Return the parts that touch a range of the line."""
        begin = max(0, bisect_right(self._starts, first) - 1)
        if begin < len(self.parts) and self._end(begin) <= first:
            begin += 1
        return self.parts[begin : bisect_right(self._starts, behind - 1)]

    def parts_of(self, group: int) -> list[Part]:
        """Return the parts that belong to the block group that begins at a virtual address."""
        return self._of_group.get(group, [])

    def locate(self, address: int) -> Location:
        """Return what a byte of the line is."""
        index = bisect_right(self._starts, address) - 1
        part = self.parts[index] if index >= 0 and address < self._end(index) else None
        device = next((d for d in self.devices if d.start <= address < d.start + d.length), None)
        if part is None:
            if device is None:
                return Location()
            return Location(device.devid, address - device.start)
        if device is None:
            return self._first_copy(part.vaddr, address - part.start)
        return Location(
            device.devid, address - device.start, self._vaddr(part, address), part.vaddr
        )

    def places(self, vaddr: Addresses, length: Addresses) -> tuple[Addresses, Addresses]:
        """Return where on the line ranges of virtual addresses lie, with all their copies.

        Args:
            vaddr: where the ranges begin, ascending; what is in no block group is left out.
            length: bytes; no range reaches into the next one, nor out of its block group.

        Returns:
            Where these places begin, ascending, and their lengths in bytes.
        """
        starts, lengths = [_NONE], [_NONE]
        bounds = np.searchsorted(vaddr, [*self._groups, 1 << 62])
        for i in np.flatnonzero(np.diff(bounds)).tolist():
            group = self._groups[i]
            chosen = slice(int(bounds[i]), int(bounds[i + 1]))
            for part in self._of_group[group]:
                held = self.held(part, vaddr[chosen] - group, length[chosen])
                data = (held.which >= 0) & (held.start < part.length)
                starts.append(held.start[data] + part.start)
                lengths.append(np.minimum(held.length, part.length - held.start)[data])
        start, size = np.concatenate(starts), np.concatenate(lengths)
        order = np.argsort(start, kind="stable")
        return start[order], size[order]

    def held(self, part: Part, start: Addresses, length: Addresses) -> stripes.Held:
        """Return what a part holds of ranges of its block group; see `btrfs.ondisk.stripes`."""
        chunk = self._chunks.get(part.vaddr)
        if part.stripe is None or chunk is None:
            return stripes.Held(start, length, np.arange(start.size))
        return stripes.held(chunk, part.stripe, start, length)

    def parity_length(self, group: int, start: Addresses, length: Addresses) -> int:
        """Return the bytes of parity on the line of ranges of a block group."""
        chunk = self._chunks.get(group)
        if chunk is None or self.name == VIRTUAL:
            return 0
        return stripes.parity_length(chunk, start, length)

    def group_ranges(self, part: Part, ranges: Addresses) -> Addresses:
        """Return between which bytes of its block group lies what ranges of a part hold.

        Both are arrays (ranges, 2): first byte, and the one behind. With some profiles, those of
        the block group overlap.
        """
        chunk = self._chunks.get(part.vaddr)
        if part.stripe is None or chunk is None:
            return ranges
        return stripes.chunk_ranges(chunk, ranges)

    def _end(self, index: int) -> int:
        return self._starts[index] + self.parts[index].length

    def _vaddr(self, part: Part, address: int) -> int | None:
        chunk = self._chunks.get(part.vaddr)
        if chunk is None or part.stripe is None:
            return None
        offset = stripes.chunk_offset(chunk, part.stripe, address - part.start)
        return part.vaddr + offset if offset is not None and offset < chunk.length else None

    def _first_copy(self, group: int, offset: int) -> Location:
        """Return where the first copy of a byte of a block group lies."""
        chunk = self._chunks.get(group)
        byte = np.array([offset]), np.array([1])
        for index, stripe in enumerate(() if chunk is None else chunk.stripes):
            assert chunk is not None
            held = stripes.held(chunk, index, *byte)
            data = held.which >= 0
            if data.any():
                paddr = stripe.offset + int(held.start[data][0])
                return Location(stripe.devid, paddr, group + offset, group)
        return Location(vaddr=group + offset, group=group)


def _disjoint(parts: Iterable[Part]) -> list[Part]:
    """Return parts in order; where two overlap, as they can where there is damage, the first ends.

    The sorting goes by the start alone: parts of the same start can differ in what is None.
    """
    disjoint: list[Part] = []
    for part in sorted(parts, key=attrgetter("start")):
        if disjoint and disjoint[-1].start + disjoint[-1].length > part.start:
            before = disjoint.pop()
            if before.start < part.start:
                disjoint.append(before._replace(length=part.start - before.start))
        disjoint.append(part)
    return disjoint


def physical(fs: FileSystem, chunks: dict[int, Chunk]) -> Line:
    """Return the line of all devices.

    Raises:
        HeatmapError: The devices are not known.
    """
    devices: list[Device] = []
    parts: list[Part] = []
    stripe_at = {
        (chunk.vaddr, stripe.devid, stripe.offset): index
        for chunk in chunks.values()
        for index, stripe in enumerate(chunk.stripes)
    }
    start = 0
    for device in fs.devices():
        devices.append(Device(device.devid, start, device.total_bytes))
        known, _ = layers.allocated(fs, device)
        for extent in known:
            length = min(extent.length, device.total_bytes - extent.paddr)
            if length > 0:
                stripe = stripe_at.get((extent.vaddr, device.devid, extent.paddr))
                parts.append(
                    Part(
                        start + extent.paddr,
                        length,
                        extent.vaddr,
                        stripe,
                        device.devid,
                        extent.paddr,
                    )
                )
        start += device.total_bytes
    if not devices:
        raise HeatmapError(
            "the devices are not known",
            hint="give all devices or images of the filesystem, or restore the image",
        )
    return Line(PHYSICAL, parts, devices, chunks, fs.sectorsize)


def virtual(fs: FileSystem, groups: dict[int, BlockGroupItem], chunks: dict[int, Chunk]) -> Line:
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
    parts = []
    start = 0
    for vaddr, length in sorted(lengths.items()):
        parts.append(Part(start, length, vaddr))
        start += length
    if not parts:
        raise HeatmapError("no block group could be read", hint="try btrfs-atlas check")
    return Line(VIRTUAL, parts, [], chunks, fs.sectorsize)


_NONE = np.zeros(0, dtype=np.int64)
