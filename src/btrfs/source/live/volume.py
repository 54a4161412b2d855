"""The devices of a mounted filesystem as a store of tree blocks, as of one commit."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from btrfs.source.disk.chunk_map import ChunkMap
from btrfs.source.disk.members import own_devices
from btrfs.source.disk.store import Copy
from btrfs.source.disk.volume import Volume
from btrfs.source.live.devices import ALIGNMENT, LiveDevice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["LiveVolume"]

# So much is read at once: more makes no device faster, and less leaves more reads to overlap.
_MAX_READ_BYTES = 1 << 20

# So many reads are under way at once. An SSD needs some to be as fast as it can be.
_THREADS = 8

_PARITY_TRIES = 3
_PARITY_SECONDS = 0.05


class LiveVolume(Volume):
    """See :class:`btrfs.source.disk.store.BlockStore`.

    Args:
        devices: The devices by their numbers, as many of them as there are.
        chunk_map: Where on them virtual addresses are.
        generation: Generation of the commit.
    """

    devices: Mapping[int, LiveDevice]

    def __init__(
        self, devices: Mapping[int, LiveDevice], chunk_map: ChunkMap, generation: int
    ) -> None:
        super().__init__(devices, chunk_map)
        self.generation = generation

    def is_stale(self) -> bool:
        """Return whether there is a newer superblock on any device, or none on all of them.

        The kernel takes the superblock away from a device that it removes or has replaced. To those
        of seeds, it writes nothing.
        """
        newest = max(device.generation() for device in own_devices(self.devices))
        return newest == 0 or newest > self.generation

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield all copies of a block, then what it must have been by each parity.

        While the kernel writes to another block of the same row, its parity is wrong for a moment,
        so reconstructions are made again some times.

        Raises:
            CorruptError: No chunk holds the range.
        """
        yield from super().read_copies(vaddr, length)
        if not self.chunk_map.rows(vaddr, length):
            return
        for _ in range(_PARITY_TRIES):
            time.sleep(_PARITY_SECONDS)
            yield from (copy for copy in super().read_copies(vaddr, length) if copy.rebuilt)

    def read_many(
        self, vaddrs: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read the first copy of each of many blocks that is on a device that is there.

        Blocks that are neighbours on a device are read together, in whatever order they are asked
        for, and several such runs of them at once.

        Returns:
            A buffer with the blocks one after another, and which of them were read.
        """
        import numpy as np

        buffer = _aligned(len(vaddrs) * length)
        view = buffer.data
        good = np.zeros(len(vaddrs), np.bool_)
        runs = self._runs(vaddrs, length)

        def read(run: _Run) -> int:
            blocks = [view[index * length : (index + 1) * length] for index in run.indexes]
            try:
                return run.device.read_scattered(blocks, run.paddr)
            except OSError:
                return 0

        for run, count in zip(runs, _threads().map(read, runs), strict=True):
            good[run.indexes[: count // length]] = True
        return buffer, good

    def _runs(self, vaddrs: NDArray[np.int64], length: int) -> list[_Run]:
        import numpy as np

        devids, paddrs = self.chunk_map.first_copies(vaddrs, length, self.devices.keys())
        order = np.lexsort((paddrs, devids))
        order = order[devids[order] >= 0]
        if not len(order):
            return []
        devids, paddrs = devids[order], paddrs[order]
        follows = (np.diff(devids) == 0) & (np.diff(paddrs) == length)
        starts = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(order)]
        most = max(1, _MAX_READ_BYTES // length)
        return [
            _Run(
                self.devices[int(devids[first])],
                int(paddrs[first]),
                order[first : min(first + most, end)].tolist(),
            )
            for start, end in pairwise(starts)
            for first in range(start, end, most)
        ]


@cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads that read; to start some for each batch takes longer than its reads."""
    return ThreadPoolExecutor(_THREADS, "btrfs-read")


# A process that is forked off has no threads.
os.register_at_fork(after_in_child=_threads.cache_clear)


class _Run(NamedTuple):
    """Blocks that are neighbours on a device.

    Attributes:
        device: The device.
        paddr: Where on it the first one is.
        indexes: Which blocks they are among those that are wanted.
    """

    device: LiveDevice
    paddr: int
    indexes: list[int]


def _aligned(size: int) -> NDArray[np.uint8]:
    """Return a buffer that can be read into past the page cache."""
    import numpy as np

    buffer = np.empty(size + ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % ALIGNMENT
    return buffer[start : start + size]
