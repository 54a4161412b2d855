"""All devices of a filesystem as one store of tree blocks, addressed virtually."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from btrfs.errors import BtrfsError, CorruptError, MissingDeviceError
from btrfs.source.disk import raid56
from btrfs.source.disk.chunk_map import ChunkMap, Piece, Row
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

    def close(self) -> None:
        for device in self.devices.values():
            device.close()

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield all copies of a range, then what it must have been by each parity, if not that.

        Raises:
            CorruptError: No chunk holds the range.
        """
        for pieces in self.chunk_map.copies(vaddr, length):
            stored = self.stored(pieces)
            yield stored
            for data in self._combined(self.chunk_map.rows(vaddr, length)):
                if data != stored.data:
                    yield self._copy(pieces, data, rebuilt=True)

    def stored(self, pieces: list[Piece]) -> Copy:
        """Return what lies in some pieces, one after another."""
        return self._copy(pieces, self._read_all(pieces))

    def _copy(
        self, pieces: list[Piece], data: bytes | BtrfsError, *, rebuilt: bool = False
    ) -> Copy:
        devid, paddr, _ = pieces[0]
        device = self.devices.get(devid)
        return Copy(f"device {devid}" if device is None else device.path, paddr, data, rebuilt)

    def _combined(self, rows: list[Row]) -> Iterator[bytes]:
        """Yield a range that goes over some rows, its part of each in all the ways there are."""
        if not rows:
            return
        row, *others = rows
        for part in self._ways(row):
            if not others:
                yield part
            for rest in self._combined(others):
                yield part + rest

    def _ways(self, row: Row) -> Iterator[bytes]:
        """Yield a piece of a row as it is stored, and as it must have been by the others."""
        data = [self._bytes(piece) for piece in row.data]
        stored = data[row.wanted]
        if stored is not None:
            yield stored
        p, q = self._bytes(row.p), None if row.q is None else self._bytes(row.q)
        yield from raid56.reconstructions(data, p, q, row.wanted)

    def _bytes(self, piece: Piece) -> bytes | None:
        data = self.read(piece)
        return data if isinstance(data, bytes) else None

    def _read_all(self, pieces: list[Piece]) -> bytes | BtrfsError:
        """Return the bytes of all pieces; if one cannot be read, why."""
        parts = []
        for piece in pieces:
            part = self.read(piece)
            if isinstance(part, BtrfsError):
                return part
            parts.append(part)
        return b"".join(parts)

    def read(self, piece: Piece) -> bytes | BtrfsError:
        """Return the bytes of a piece; if it cannot be read, why."""
        devid, paddr, length = piece
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
        for first, behind in pairwise(starts):
            device = self.devices.get(int(devids[first]))
            if device is None:
                continue
            try:
                part = view[first * length : behind * length]
                count = device.read_into(part, int(paddrs[first]))
            except OSError:
                continue
            good[first : first + count // length] = True
        return buffer, good
