"""All devices of a filesystem as one store of tree blocks, addressed virtually."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from btrfs.errors import BtrfsError, CorruptError, MissingDeviceError
from btrfs.source.disk import raid56
from btrfs.source.disk.chunk_map import ChunkMap, PhysicalRange, Row
from btrfs.source.disk.devices import Device
from btrfs.source.disk.store import Copy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Volume"]


class Volume:
    """See :class:`btrfs.source.disk.store.BlockStore`.

    Args:
        devices: The devices by their numbers, as many of them as there are.
        chunk_map: Where on them virtual addresses are.
    """

    def __init__(self, devices: Mapping[int, Device], chunk_map: ChunkMap) -> None:
        self.devices = devices
        self.chunk_map = chunk_map

    def is_stale(self) -> bool:
        """Return False: a filesystem that is not mounted does not change."""
        return False

    def close(self) -> None:
        for device in self.devices.values():
            device.close()

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield all copies of a range, then what it must have been by each parity, if not that.

        Raises:
            CorruptError: No chunk holds the range.
        """
        for ranges in self.chunk_map.copies(vaddr, length):
            stored = self.stored(ranges)
            yield stored
            for data in self._candidate_ranges(self.chunk_map.rows(vaddr, length)):
                if data != stored.data:
                    yield self._copy(ranges, data, rebuilt=True)

    def stored(self, ranges: list[PhysicalRange]) -> Copy:
        """Return the bytes of ranges of devices, one after another, as a copy."""
        return self._copy(ranges, self._read_all(ranges))

    def _copy(
        self, ranges: list[PhysicalRange], data: bytes | BtrfsError, *, rebuilt: bool = False
    ) -> Copy:
        devid, paddr, _ = ranges[0]
        device = self.devices.get(devid)
        return Copy(f"device {devid}" if device is None else device.path, paddr, data, rebuilt)

    def _candidate_ranges(self, rows: list[Row]) -> Iterator[bytes]:
        """Yield what a range that goes over some rows can have been: all candidates for each."""
        if not rows:
            return
        row, *others = rows
        for part in self._candidates(row):
            if not others:
                yield part
            for rest in self._candidate_ranges(others):
                yield part + rest

    def _candidates(self, row: Row) -> Iterator[bytes]:
        """Yield data of a row as it is stored, and as it must have been by the others."""
        data = [self._bytes(one) for one in row.data]
        stored = data[row.wanted]
        if stored is not None:
            yield stored
        p, q = self._bytes(row.p), None if row.q is None else self._bytes(row.q)
        yield from raid56.reconstructions(data, p, q, row.wanted)

    def _bytes(self, wanted: PhysicalRange) -> bytes | None:
        data = self.read(wanted)
        return data if isinstance(data, bytes) else None

    def _read_all(self, ranges: list[PhysicalRange]) -> bytes | BtrfsError:
        """Return the bytes of ranges of devices; if one cannot be read, why."""
        parts = []
        for wanted in ranges:
            part = self.read(wanted)
            if isinstance(part, BtrfsError):
                return part
            parts.append(part)
        return b"".join(parts)

    def read(self, wanted: PhysicalRange) -> bytes | BtrfsError:
        """Return the bytes of a range of a device; if it cannot be read, why."""
        devid, paddr, length = wanted
        device = self.devices.get(devid)
        if device is None:
            return MissingDeviceError(
                f"device {devid} is missing, and there is no other copy of what it has at {paddr}",
                hint="give all devices or images of the filesystem",
            )
        try:
            return device.read(paddr, length)
        except CorruptError as error:
            return error
        except OSError as error:
            return CorruptError(f"device, {error.strerror}", device=device.path, paddr=paddr)

    def read_many(
        self, vaddrs: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read the first copy of each of many blocks that is on a device that is there.

        Blocks that follow one another on a device, as they often do, are read together.

        Returns:
            A buffer with the blocks one after another, and which of them were read.
        """
        import numpy as np

        buffer = np.empty(len(vaddrs) * length, np.uint8)
        view = buffer.data
        good = np.zeros(len(vaddrs), np.bool_)
        devids, paddrs = self.chunk_map.first_copies(vaddrs, length, self.devices.keys())
        follows = (np.diff(devids) == 0) & (np.diff(paddrs) == length)
        starts = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(vaddrs)]
        for first, end in pairwise(starts):
            device = self.devices.get(int(devids[first]))
            if device is None:
                continue
            try:
                part = view[first * length : end * length]
                count = device.read_into(part, int(paddrs[first]))
            except OSError:
                continue
            good[first : first + count // length] = True
        return buffer, good
