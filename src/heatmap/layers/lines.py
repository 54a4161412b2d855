"""Address lines: one long range of bytes, and which block groups lie where on it.

A line is made of parts, each a range that a block group, or one stripe of it, takes. There are
three kinds: devices one after another (:func:`device_line`), block groups one after another
(:func:`group_line`), and chunks with all their stripes one after another (:func:`chunk_line`).
Where on a line a range of virtual addresses lies, with all its copies and parity, follows from the
geometry of the chunks (:mod:`btrfs.ondisk.geometry`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.geometry import PARITY, StripeRanges, geometry_of
from heatmap.errors import HeatmapError
from heatmap.layers.allocation import allocated

if TYPE_CHECKING:
    from btrfs.ctree import Chunk, DevItem, FileSystem

__all__ = [
    "AddressLine",
    "Device",
    "Location",
    "Part",
    "chunk_line",
    "device_line",
    "group_line",
]

Addresses = NDArray[np.int64]


class Device(NamedTuple):
    """A device on a line.

    Attributes:
        devid: Its number.
        start: Where it begins on the line, in bytes.
        length: Bytes.
    """

    devid: int
    start: int
    length: int


class Part(NamedTuple):
    """A range of a line that belongs to a block group.

    Attributes:
        start: Where it begins on the line, in bytes.
        length: Bytes.
        vaddr: Virtual address at which the block group begins.
        stripe: Index of the stripe that it is; None if it is the whole block group.
        devid: Number of the device that the stripe lies on; None for a whole block group.
        paddr: Where on that device, in bytes; None for a whole block group.
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
        devid: Number of the device that it lies on. On a line of block groups, that of the first
            copy.
        paddr: Address on that device.
        vaddr: Virtual address; None where nothing is allocated, and of parity.
        group: Virtual address at which its block group begins.
    """

    devid: int | None = None
    paddr: int | None = None
    vaddr: int | None = None
    group: int | None = None


class AddressLine:
    """An address line.

    Args:
        parts: What of it belongs to block groups.
        chunks: The chunks by their virtual addresses.
        devices: The devices on it, in order.
        total_bytes: Its length, if it is longer than what lies on it.

    Attributes:
        total_bytes: Its length.
        devices: The devices on it, in order; none if it is a line of block groups.
        parts: What of it is allocated, in order; none overlap.

    Raises:
        HeatmapError: It is empty, or too long.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        chunks: Mapping[int, Chunk],
        devices: Sequence[Device] = (),
        total_bytes: int = 0,
    ) -> None:
        self.devices = list(devices)
        self.parts = _disjoint(parts)
        ends = [device.start + device.length for device in devices]
        ends += [part.start + part.length for part in self.parts[-1:]]
        self.total_bytes = max([total_bytes, *ends])
        if not 0 < self.total_bytes < 1 << 62:
            raise HeatmapError(f"cannot draw {self.total_bytes} bytes")
        self._chunks = chunks
        self._starts = [part.start for part in self.parts]
        self._of_group: dict[int, list[Part]] = {}
        for part in self.parts:
            self._of_group.setdefault(part.vaddr, []).append(part)
        self._groups = sorted(self._of_group)

    def parts_between(self, start: int, end: int) -> list[Part]:
        """Return the parts that overlap a range of the line."""
        begin = max(0, bisect_right(self._starts, start) - 1)
        if begin < len(self.parts) and self._end(begin) <= start:
            begin += 1
        return self.parts[begin : bisect_right(self._starts, end - 1)]

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

    def ranges_of(self, vaddr: Addresses, length: Addresses) -> tuple[Addresses, Addresses]:
        """Return where on the line ranges of virtual addresses lie, with all their copies.

        Args:
            vaddr: Where the ranges begin, ascending; what is in no block group is left out.
            length: Bytes; no range reaches into the next one, nor out of its block group.

        Returns:
            Where these ranges of the line begin, ascending, and their lengths in bytes.
        """
        starts, lengths = [_NONE], [_NONE]
        bounds = np.searchsorted(vaddr, [*self._groups, 1 << 62])
        for i in np.flatnonzero(np.diff(bounds)).tolist():
            group = self._groups[i]
            chosen = slice(int(bounds[i]), int(bounds[i + 1]))
            for part in self._of_group[group]:
                held = self.in_part(part, vaddr[chosen] - group, length[chosen])
                data = (held.which != PARITY) & (held.start < part.length)
                starts.append(held.start[data] + part.start)
                lengths.append(np.minimum(held.length, part.length - held.start)[data])
        start, size = np.concatenate(starts), np.concatenate(lengths)
        order = np.argsort(start, kind="stable")
        return start[order], size[order]

    def in_part(self, part: Part, start: Addresses, length: Addresses) -> StripeRanges:
        """Return what a part holds of ranges of its block group; see `Geometry.in_stripe()`."""
        chunk = self._chunks.get(part.vaddr)
        if part.stripe is None or chunk is None:
            return StripeRanges(start, length, np.arange(start.size))
        return geometry_of(chunk).in_stripe(part.stripe, start, length)

    def contiguous_end(self, part: Part, address: int, end: int) -> int:
        """Return up to where bytes of a part follow one another in virtual addresses, too.

        Args:
            part: The part.
            address: Byte of the line that the range begins at, inside the part.
            end: Where it ends at the latest.
        """
        chunk = self._chunks.get(part.vaddr)
        length = min(end, part.start + part.length) - address
        if part.stripe is not None and chunk is not None:
            length = geometry_of(chunk).contiguous_length(address - part.start, length)
        return address + length

    def parity_length(self, group: int, start: Addresses, length: Addresses) -> int:
        """Return the bytes of parity on the line of ranges of a block group."""
        chunk = self._chunks.get(group)
        has_stripes = any(part.stripe is not None for part in self.parts_of(group))
        return geometry_of(chunk).parity_length(start, length) if chunk and has_stripes else 0

    def group_ranges(self, part: Part, ranges: Addresses) -> Addresses:
        """Return in which ranges of its block group lies what ranges of a part hold.

        Both are arrays (ranges, 2), start and end. With some profiles, the ranges of the block
        group overlap.
        """
        chunk = self._chunks.get(part.vaddr)
        if part.stripe is None or chunk is None:
            return ranges
        return geometry_of(chunk).in_chunk(ranges)

    def _end(self, index: int) -> int:
        return self._starts[index] + self.parts[index].length

    def _vaddr(self, part: Part, address: int) -> int | None:
        chunk = self._chunks.get(part.vaddr)
        if chunk is None or part.stripe is None:
            return None
        offset = geometry_of(chunk).to_logical(part.stripe, address - part.start)
        return part.vaddr + offset if PARITY < offset < chunk.length else None

    def _first_copy(self, group: int, offset: int) -> Location:
        """Return where the first copy of a byte of a block group lies."""
        chunk = self._chunks.get(group)
        if chunk is None or not chunk.stripes:
            return Location(vaddr=group + offset, group=group)
        index, in_stripe = geometry_of(chunk).to_physical(offset)
        stripe = chunk.stripes[index]
        return Location(stripe.devid, stripe.offset + in_stripe, group + offset, group)


def device_parts(
    fs: FileSystem, shown: Iterable[DevItem], chunks: Mapping[int, Chunk]
) -> tuple[list[Device], list[Part]]:
    """Return devices one after another, and what is allocated on them."""
    devices: list[Device] = []
    parts: list[Part] = []
    stripe_at = {
        (chunk.vaddr, stripe.devid, stripe.offset): index
        for chunk in chunks.values()
        for index, stripe in enumerate(chunk.stripes)
    }
    start = 0
    for device in shown:
        devices.append(Device(device.devid, start, device.total_bytes))
        known, _ = allocated(fs, device)
        for extent in known:
            length = min(extent.length, device.total_bytes - extent.paddr)
            if length > 0:
                at = start + extent.paddr
                stripe = stripe_at.get((extent.vaddr, device.devid, extent.paddr))
                parts.append(Part(at, length, extent.vaddr, stripe, device.devid, extent.paddr))
        start += device.total_bytes
    return devices, parts


def device_line(
    fs: FileSystem, shown: Iterable[DevItem], chunks: Mapping[int, Chunk]
) -> AddressLine:
    """Return the line of devices one after another."""
    devices, parts = device_parts(fs, shown, chunks)
    return AddressLine(parts, chunks, devices)


def group_parts(lengths: Mapping[int, int]) -> list[Part]:
    """Return block groups one after another, given their lengths by virtual address."""
    parts = []
    start = 0
    for vaddr, length in lengths.items():
        parts.append(Part(start, length, vaddr))
        start += length
    return parts


def group_line(lengths: Mapping[int, int], chunks: Mapping[int, Chunk]) -> AddressLine:
    """Return the line of block groups one after another, given their lengths in this order."""
    return AddressLine(group_parts(lengths), chunks)


def chunk_line(sizes: Iterable[tuple[int, int, Chunk | None]], total_bytes: int) -> AddressLine:
    """Return the line of chunks, each with its stripes one after another.

    Args:
        sizes: Virtual address of each chunk, its bytes on devices, and the chunk if it is known.
        total_bytes: Length of the line, if it is longer than all chunks.
    """
    parts = []
    chunks = {}
    start = 0
    for vaddr, size, chunk in sizes:
        stripes_of = [] if chunk is None else chunk.stripes
        length = size // max(1, len(stripes_of))
        for index, stripe in enumerate(stripes_of):
            at = start + index * length
            parts.append(Part(at, length, vaddr, index, stripe.devid, stripe.offset))
        if chunk is not None:
            chunks[vaddr] = chunk
        start += size
    return AddressLine(parts, chunks, total_bytes=total_bytes)


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


_NONE = np.zeros(0, dtype=np.int64)
