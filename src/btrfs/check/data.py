"""Data that has checksums: read, and compared with them.

Sectors are read many at a time from the first copy that can be read. Where one does not agree with
its checksum, its other copies and what parity makes of it are tried, one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.files import FileFinder
from btrfs.check.report import Checked, Progress
from btrfs.check.stripe_tree import StripeTree
from btrfs.errors import BtrfsError, CorruptError, MissingDeviceError
from btrfs.ondisk import constants
from btrfs.ondisk.columns import take
from btrfs.ondisk.constants import STRIPE_LEN
from btrfs.ondisk.text import pretty_size

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch
    from btrfs.source.disk.source import DiskSource
    from btrfs.source.disk.store import Copy

__all__ = ["check_data"]

_SECTORS_PER_READ = 1024


class _Sectors(NamedTuple):
    """Sectors of data in the order of their addresses, and what their checksums must be."""

    vaddr: NDArray[np.int64]
    expected: NDArray[np.void]


class _Bad(NamedTuple):
    """Sectors one after another that are wrong in the same way.

    Attributes:
        vaddr: Virtual address of the first.
        length: Bytes of all.
        device: Device of the copy.
        paddr: Where on it the first is.
        recovered: Whether another copy is right.
        why: What is wrong.
    """

    vaddr: int
    length: int
    device: str
    paddr: int
    recovered: bool
    why: str

    def joined(self, other: _Bad) -> _Bad | None:
        """Return this and what follows as one; None if it does not go on with it."""
        follows = (self.vaddr + self.length, self.device, self.paddr + self.length)
        same = self.recovered == other.recovered and self.why == other.why
        if same and follows == (other.vaddr, other.device, other.paddr):
            return self._replace(length=self.length + other.length)
        return None


def check_data(
    fs: FileSystem,
    source: DiskSource,
    checked: Checked,
    progress: Progress,
    *,
    all_copies: bool = False,
) -> None:
    """Compare all data that has checksums with them.

    Args:
        fs: The filesystem.
        source: Its source.
        checked: Where the findings go.
        progress: Is called with how many bytes are done, and how many there are.
        all_copies: Read all copies, not only the first.
    """
    if not source.devices:
        checked.skipped = "a dump has no data"
        return
    reader = _Reader(fs, source, all_copies=all_copies)
    total = _bytes_with_checksums(fs, source)
    files = FileFinder(fs)
    done = 0
    for sectors in _sectors(fs, source):
        for bad in _merged(reader.bad_sectors(sectors)):
            _add(bad, files, checked)
        done += len(sectors.vaddr) * fs.sectorsize
        progress(done, total)
    checked.counts = {"bytes": done}
    checked.summary = f"{pretty_size(done)} with checksums"


def _add(bad: _Bad, files: FileFinder, checked: Checked) -> None:
    kind = "data-damaged" if bad.why == _WRONG else "data-unreadable"
    found = files.at(bad.vaddr, bad.length) if checked.has_room(kind) else None
    checked.add(
        kind,
        f"{bad.length} bytes at {bad.vaddr} ({bad.device} at {bad.paddr})"
        f"{'' if bad.why == _WRONG else f': {bad.why}'}"
        f"{'; another copy is right' if bad.recovered else ''}"
        f"{'' if found is None else f'; {found}'}",
        recovered=bad.recovered,
        path=found.readers[0] if found is not None and found.readers else None,
        vaddr=bad.vaddr,
        device=bad.device,
        paddr=bad.paddr,
    )


def _merged(found: Iterator[_Bad]) -> Iterator[_Bad]:
    """Join what follows one another: on a device that is damaged all over, each sector is bad."""
    open_by_device: dict[str, _Bad] = {}
    for bad in found:
        before = open_by_device.get(bad.device)
        joined = None if before is None else before.joined(bad)
        if before is not None and joined is None:
            yield before
        open_by_device[bad.device] = joined or bad
    yield from open_by_device.values()


# The sectors that have checksums.


def _bytes_with_checksums(fs: FileSystem, source: DiskSource) -> int:
    size = sum(int(batch.size.sum()) for batch in _checksums(fs))
    return size // source.superblock.checksum.size * fs.sectorsize


def _checksums(fs: FileSystem) -> Iterator[ItemBatch]:
    for batch in fs.batches(constants.CSUM_TREE_OBJECTID):
        yield batch.of_type(constants.EXTENT_CSUM_KEY)


def _sectors(fs: FileSystem, source: DiskSource) -> Iterator[_Sectors]:
    """Yield all sectors that have checksums, some megabytes at a time."""
    csum_size = source.superblock.checksum.size
    for batch in _checksums(fs):
        counts = batch.size.astype(np.int64) // csum_size
        ends = np.cumsum(counts)
        number = np.arange(int(counts.sum()), dtype=np.int64)
        number -= np.repeat(ends - counts, counts)
        vaddr = np.repeat(batch.offset.astype(np.int64), counts) + number * fs.sectorsize
        place = np.repeat(batch.body, counts) + number * csum_size
        for first in range(0, len(vaddr), _SECTORS_PER_READ):
            part = slice(first, first + _SECTORS_PER_READ)
            expected = take(batch.buffer, np.dtype((np.void, csum_size)), place[part])
            yield _Sectors(vaddr[part], expected)


_WRONG = "checksum"


class _Reader:
    """Reads sectors and finds those that are wrong.

    Args:
        fs: The filesystem.
        source: Its source.
        all_copies: Read all copies, not only the first.
    """

    def __init__(self, fs: FileSystem, source: DiskSource, *, all_copies: bool) -> None:
        self._source = source
        self._sectorsize = fs.sectorsize
        self._digest = source.superblock.checksum.digest
        self._stripe_tree = StripeTree(fs, source)
        self._all_copies = all_copies

    def bad_sectors(self, sectors: _Sectors) -> Iterator[_Bad]:
        """Yield the sectors of which a copy that was looked at is wrong."""
        if self._all_copies or self._stripe_tree.exists:
            yield from self._bad_in_runs(sectors)
            return
        store = self._source.trees.store
        buffer, read = store.read_many(sectors.vaddr, self._sectorsize)
        right = read & self._agree(buffer, sectors.expected)
        for index in np.flatnonzero(~right).tolist():
            yield from self._bad_copies(_part(sectors, index, index + 1))

    def _bad_in_runs(self, sectors: _Sectors) -> Iterator[_Bad]:
        """Look at all copies of sectors that follow one another."""
        vaddr = sectors.vaddr
        # A run ends with its stripe, and so at the end of its chunk too.
        breaks = (np.diff(vaddr) != self._sectorsize) | (vaddr[1:] % STRIPE_LEN == 0)
        for first, end in pairwise([0, *(np.flatnonzero(breaks) + 1).tolist(), len(vaddr)]):
            run = _part(sectors, first, end)
            if not self._are_right(run):
                for index in range(end - first):
                    yield from self._bad_copies(_part(run, index, index + 1))

    def _are_right(self, run: _Sectors) -> bool:
        """Return whether the copies that are wanted of sectors are all as they must be."""
        found = False
        try:
            for copy in self._copies(run):
                if isinstance(copy.data, MissingDeviceError):
                    continue
                if isinstance(copy.data, BtrfsError) or not self._agrees(copy.data, run):
                    return False
                found = True
                if not self._all_copies:
                    break
        except CorruptError:
            return False
        return found

    def _bad_copies(self, sector: _Sectors) -> Iterator[_Bad]:
        """Yield the copies of one sector that are wrong, as far as they are wanted."""
        vaddr = int(sector.vaddr[0])
        wrong: list[_Bad] = []
        recovered = False
        try:
            for copy in self._copies(sector):
                if isinstance(copy.data, BtrfsError):
                    why = str(copy.data)
                elif self._agrees(copy.data, sector):
                    recovered = True
                    if not self._all_copies:
                        break
                    continue
                else:
                    why = _WRONG
                # A missing device is reported once, as a device.
                is_missing = isinstance(copy.data, MissingDeviceError)
                if not copy.rebuilt:
                    bad = _Bad(vaddr, self._sectorsize, copy.device, copy.paddr, is_missing, why)
                    wrong.append(bad)
        except CorruptError as error:
            wrong.append(
                _Bad(vaddr, self._sectorsize, "no device", 0, recovered=False, why=str(error))
            )
        for bad in wrong:
            if not (bad.recovered and recovered):
                yield bad._replace(recovered=recovered)

    def _copies(self, run: _Sectors) -> Iterator[Copy]:
        vaddr, length = int(run.vaddr[0]), len(run.vaddr) * self._sectorsize
        if self._stripe_tree.has(vaddr):
            return self._stripe_tree.read_copies(vaddr, length)
        return self._source.trees.store.read_copies(vaddr, length)

    def _agrees(self, data: bytes, run: _Sectors) -> bool:
        return bool(self._agree(np.frombuffer(data, np.uint8), run.expected).all())

    def _agree(self, data: NDArray[np.uint8], expected: NDArray[np.void]) -> NDArray[np.bool_]:
        """Return for each sector of some bytes whether it has the checksum expected."""
        digest = self._digest
        rows = data.reshape(len(expected), self._sectorsize)
        found = b"".join([digest(row) for row in rows])
        return np.asarray(np.frombuffer(found, expected.dtype) == expected)


def _part(sectors: _Sectors, first: int, end: int) -> _Sectors:
    return _Sectors(sectors.vaddr[first:end], sectors.expected[first:end])
