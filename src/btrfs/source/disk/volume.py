"""All devices of a filesystem as one store of tree blocks, addressed virtually."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from btrfs.errors import CorruptError, MissingDeviceError
from btrfs.source.disk.chunk_map import ChunkMap, Piece
from btrfs.source.disk.devices import Device
from btrfs.source.disk.store import Copy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Volume", "require_devices"]


class Volume:
    """See :class:`btrfs.source.disk.store.BlockStore`.

    Args:
        devices: The devices by their numbers.
        chunk_map: Where on them virtual addresses are.
    """

    def __init__(self, devices: dict[int, Device], chunk_map: ChunkMap) -> None:
        self._devices = devices
        self._chunk_map = chunk_map

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield all copies of a block.

        Raises:
            CorruptError: No chunk holds the address.
        """
        for pieces in self._chunk_map.copies(vaddr, length):
            devid, paddr, _ = pieces[0]
            yield Copy(self._devices[devid].path, paddr, self._read(pieces))

    def _read(self, pieces: list[Piece]) -> bytes | CorruptError:
        """Return the bytes of all pieces; if one cannot be read, why."""
        data = b""
        for devid, paddr, length in pieces:
            device = self._devices[devid]
            try:
                data += device.read(paddr, length)
            except CorruptError as error:
                return error
            except OSError as error:
                return CorruptError(f"device, {error.strerror}", device=device.path, paddr=paddr)
        return data

    def read_many(
        self, vaddrs: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read the first copy of each of many blocks.

        Blocks that follow one another on a device, as they often do, are read together.

        Returns:
            A buffer with the blocks one after another, and which of them were read.
        """
        import numpy as np

        buffer = np.empty(len(vaddrs) * length, np.uint8)
        view = buffer.data
        good = np.zeros(len(vaddrs), np.bool_)
        devids, paddrs = self._chunk_map.first_copies(vaddrs, length)
        follows = (np.diff(devids) == 0) & (np.diff(paddrs) == length)
        starts = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(vaddrs)]
        for first, behind in pairwise(starts):
            device = self._devices.get(int(devids[first]))
            if device is None:
                continue
            try:
                part = view[first * length : behind * length]
                count = os.preadv(device.fd, [part], int(paddrs[first]))
            except OSError:
                continue
            good[first : first + count // length] = True
        return buffer, good


def require_devices(devices: dict[int, Device], chunk_map: ChunkMap, num_devices: int) -> None:
    """Check that all devices are there.

    Raises:
        MissingDeviceError: Some are not.
    """
    missing = sorted(chunk_map.devids() - devices.keys())
    if missing or len(devices) < num_devices:
        names = ", ".join(map(str, missing)) or "unknown"
        raise MissingDeviceError(
            f"{num_devices - len(devices) or len(missing)} of {num_devices} devices missing: "
            f"devid {names}",
            hint="give all devices or images of the filesystem",
        )
