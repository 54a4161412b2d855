"""Duplicates: what is stored more than once, found without reading any data.

The checksum tree has a checksum for each sector of data. Where the same checksums follow one
another in two places, the data is the same, and a deduplicator could make files share one of them::

    with btrfs.FileSystem('/') as fs:
        found = btrfs.ownership.duplicates.find(fs)
        print(found.total, 'of', found.compared, 'bytes')
        for index in range(len(found.groups)):
            print(found.groups.length[index], found.groups.vaddrs(index))

What is compared are runs of 16 sectors (64 KiB) at least, wherever extents begin and end: a file
that was written twice lies in other extents each time. Where checksums have 8 bytes or more,
extents shorter than that are compared as a whole, too; of checksums of 32 bytes, the first 8 count.
With crc32c, shorter runs do not count, and as anybody can make data that has a given crc32c, the
result is an estimate. Deduplicators compare the data itself.

Compressed extents have checksums of what is on disk. Copies are found if they are compressed in the
same way, as they are if the same was written twice.

A run that repeats another gives space back only if no byte of its extent is needed any more. So
there are two numbers: extents of which everything is stored in other extents too, and the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import take
from btrfs.ondisk.items.extent import ExtentItem
from btrfs.ownership import equal_runs

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["WINDOW", "Checksums", "Duplicates", "Extents", "Groups", "Progress", "find"]

Progress = Callable[[int, int], None]
"""Is called with how much is done, and how much there is to do, in bytes of data."""

WINDOW = 16
"""Runs have so many sectors at least: 64 KiB, if a sector has 4 KiB."""

_STRONG_CHECKSUM = 8
"""With so many bytes, the checksum of a single sector counts."""

_MAX_ADDRESS = 1 << 62
"""What lies beyond is damaged, and is left out so that no sum overflows."""


@dataclass(frozen=True, slots=True, repr=False)
class Checksums:
    """The checksums of all sectors of data, in the order of addresses.

    They fall into pieces: the sectors of a piece follow one another.

    Attributes:
        values: Checksums, or the first 8 bytes of each; uint32 or uint64.
        begins: Index of the first checksum of each piece, int64.
        vaddr: Virtual address of the first sector of each piece, int64.
        sectorsize: Bytes of a sector.
    """

    values: equal_runs.Values
    begins: NDArray[np.int64]
    vaddr: NDArray[np.int64]
    sectorsize: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Number of sectors in each piece."""
        return np.diff(self.begins, append=len(self.values))

    def index(self, vaddr: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many sectors with a checksum begin before each address."""
        if not len(self.begins):
            return np.zeros(len(vaddr), np.int64)
        piece = np.maximum(np.searchsorted(self.vaddr, vaddr, side="right") - 1, 0)
        into = (vaddr - self.vaddr[piece]) // self.sectorsize
        return np.asarray(self.begins[piece] + np.clip(into, 0, self.lengths[piece]))

    def vaddr_of(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the address of the sector of each checksum."""
        piece = np.searchsorted(self.begins, index, side="right") - 1
        return self.vaddr[piece] + (index - self.begins[piece]) * self.sectorsize

    def of_range(self, vaddr: int, length: int) -> equal_runs.Values | None:
        """Return the checksums of a range of addresses; None if there are not all of them."""
        first, end = self.index(np.array([vaddr, vaddr + length])).tolist()
        return self.values[first:end] if (end - first) * self.sectorsize == length else None


@dataclass(frozen=True, slots=True, repr=False)
class Extents:
    """Extents of data, in the order of addresses. An entry per extent.

    Attributes:
        vaddr: Virtual addresses, int64.
        length: Bytes, int64.
    """

    vaddr: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.vaddr)

    def select(self, chosen: NDArray[Any] | slice) -> Extents:
        """Return the extents that a mask, an array of indexes or a slice chooses."""
        return Extents(self.vaddr[chosen], self.length[chosen])

    def within(self, vaddr: int, length: int) -> Extents:
        """Return the extents that have a byte in a range of addresses."""
        first = int(np.searchsorted(self.vaddr + self.length, vaddr, side="right"))
        return self.select(slice(first, int(np.searchsorted(self.vaddr, vaddr + length))))


@dataclass(frozen=True, slots=True, repr=False)
class Groups:
    """Places that hold the same, those with the greatest gain first. An entry per group.

    A copy can lie in a part of an extent, or in several extents one after another. A copy that is
    shorter than others of the same makes a group of its own, with the first of them.

    Attributes:
        length: Bytes of one copy, int64.
        copies: Number of copies, 2 at least, int64.
        frees: How many bytes of the gain are in extents that would be free, int64.
        begin: Where in vaddr the addresses of a group begin, int64.
        vaddr: Virtual addresses of the copies of all groups, ascending in each, int64.
    """

    length: NDArray[np.int64]
    copies: NDArray[np.int64]
    frees: NDArray[np.int64]
    begin: NDArray[np.int64]
    vaddr: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.length)

    @property
    def gain(self) -> NDArray[np.int64]:
        """Bytes of all copies but one."""
        return self.length * (self.copies - 1)

    def vaddrs(self, index: int) -> list[int]:
        """Return the virtual addresses of the copies of a group."""
        begin, copies = int(self.begin[index]), int(self.copies[index])
        found: list[int] = self.vaddr[begin : begin + copies].tolist()
        return found


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What is stored more than once. Numbers are bytes on disk, before redundancy.

    Attributes:
        groups: Places that hold the same.
        whole_extents: What is in extents of which everything is in others, too: that is freed for
            certain if files use these others.
        parts_of_extents: What repeats something else, but in extents that are needed.
        unlisted: What of both is in no group: sectors that are all the same one after another, such
            as zeros, and shorter pieces that are left beside what other groups have.
        compared: Data that was compared.
        without_checksums: Data that has no checksums, so that it could not be: nodatacow,
            nodatasum, or allocated and not written.
        too_short: Data that has checksums, but too few in a row to tell anything.
        is_estimate: Whether the checksums are too short to be sure.
        is_complete: Whether both trees could be read as a whole; else all numbers may be too low,
            and without_checksums too high.
        spare: The extents that whole_extents counts.
        extents: All extents of data.
        checksums: All checksums.
    """

    groups: Groups
    whole_extents: int
    parts_of_extents: int
    unlisted: int
    compared: int
    without_checksums: int
    too_short: int
    is_estimate: bool
    is_complete: bool
    spare: Extents = field(repr=False)
    extents: Extents = field(repr=False)
    checksums: Checksums = field(repr=False)

    @property
    def total(self) -> int:
        """Bytes that are stored already somewhere else."""
        return self.whole_extents + self.parts_of_extents


def find(fs: FileSystem, progress: Progress = lambda _done, _total: None) -> Duplicates:
    """Return what a filesystem stores more than once, as its checksums tell.

    This reads the checksum tree and the extent tree, and no data. It takes about 15 bytes of memory
    for each sector of data, 20 if checksums have more than 4 bytes, and three to four times as much
    where most of the data repeats.

    Args:
        fs: The filesystem, mounted or not. If it is, this needs CAP_SYS_ADMIN.
        progress: Is called now and then; an exception that it raises ends the work.

    Raises:
        CorruptError: A tree block or an item is damaged, unless that is to be skipped.
    """
    used = sum(space.used_bytes for space in fs.space_info() if space.flags & _DATA)
    checksums = _read_checksums(fs, lambda done: progress(min(done, used), 2 * used))
    extents = _read_extents(fs)
    trees = {lost.tree for lost in fs.lost}
    return _compared(
        checksums,
        extents,
        is_estimate=fs.fs_info().csum_size < _STRONG_CHECKSUM,
        is_complete=trees.isdisjoint(
            (constants.CSUM_TREE_OBJECTID, constants.EXTENT_TREE_OBJECTID)
        ),
        progress=lambda part: progress(used + int(used * part), 2 * used),
    )


_DATA = constants.BLOCK_GROUP_DATA


def _read_checksums(fs: FileSystem, progress: Callable[[int], None]) -> Checksums:
    csum_size = fs.fs_info().csum_size
    dtype = np.dtype("<u8" if csum_size >= _STRONG_CHECKSUM else "<u4")
    values = [np.empty(0, dtype)]
    vaddrs, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    end = total = 0
    for batch in fs.batches(constants.CSUM_TREE_OBJECTID):
        items = _valid_items(batch.of_type(constants.EXTENT_CSUM_KEY), csum_size, fs.sectorsize)
        vaddr, count = items.offset.astype(np.int64), items.size.astype(np.int64) // csum_size
        chosen = _without_overlaps(vaddr, count * fs.sectorsize, end)
        items, vaddr, count = items.select(chosen), vaddr[chosen], count[chosen]
        if not len(vaddr):
            continue
        place = np.repeat(items.body, count) + equal_runs.ranges(count) * csum_size
        values.append(take(items.buffer, dtype, place))
        vaddrs.append(vaddr)
        counts.append(count)
        end = int(vaddr[-1] + count[-1] * fs.sectorsize)
        total += len(place)
        progress(total * fs.sectorsize)
    return _joined(np.concatenate(values), np.concatenate(vaddrs), np.concatenate(counts), fs)


def _valid_items(batch: ItemBatch, csum_size: int, sectorsize: int) -> ItemBatch:
    """Return the items that can be what they should be; damage can make others."""
    is_valid = (batch.size >= csum_size) & (batch.offset < _MAX_ADDRESS)
    return batch.select(is_valid & (batch.offset % np.uint64(sectorsize) == 0))


def _without_overlaps(
    vaddr: NDArray[np.int64], length: NDArray[np.int64], end: int
) -> NDArray[np.bool_]:
    """Return which ranges begin behind all before them, as all do where nothing is damaged.

    Args:
        vaddr: Addresses, ascending.
        length: Bytes.
        end: End of the last range before these.
    """
    ends = np.maximum.accumulate(np.append(end, vaddr + length))
    return np.asarray(vaddr >= ends[:-1])


def _joined(
    values: NDArray[Any], vaddr: NDArray[np.int64], counts: NDArray[np.int64], fs: FileSystem
) -> Checksums:
    """Return the checksums of items, those together whose sectors follow one another."""
    begins = np.cumsum(counts) - counts
    is_new = np.ones(len(vaddr), np.bool_)
    is_new[1:] = vaddr[1:] != (vaddr + counts * fs.sectorsize)[:-1]
    return Checksums(values, begins[is_new], vaddr[is_new], fs.sectorsize)


def _read_extents(fs: FileSystem) -> Extents:
    vaddrs, lengths = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    end = 0
    for columns in fs.columns(ExtentItem):
        chosen = (columns["flags"] & constants.EXTENT_FLAG_DATA) != 0
        for name in ("vaddr", "length"):
            chosen &= columns[name] < _MAX_ADDRESS
            chosen &= columns[name] % fs.sectorsize == 0
        vaddr, length = (columns[name][chosen].astype(np.int64) for name in ("vaddr", "length"))
        chosen = _without_overlaps(vaddr, length, end) & (length > 0)
        vaddrs.append(vaddr[chosen])
        lengths.append(length[chosen])
        if chosen.any():
            end = int(vaddrs[-1][-1] + lengths[-1][-1])
    return Extents(np.concatenate(vaddrs), np.concatenate(lengths))


# What follows from checksums and extents.


def _compared(
    checksums: Checksums,
    extents: Extents,
    *,
    is_estimate: bool,
    is_complete: bool,
    progress: Callable[[float], None],
) -> Duplicates:
    values, begins, sectorsize = checksums.values, checksums.begins, checksums.sectorsize
    first = checksums.index(extents.vaddr)
    covered = checksums.index(extents.vaddr + extents.length) - first
    distances = equal_runs.repeat_distances(values, begins, WINDOW, progress)
    is_short_piece = checksums.lengths < WINDOW
    too_short = int(checksums.lengths[is_short_piece].sum())
    if not is_estimate:
        is_short = (covered < WINDOW) & (covered * sectorsize == extents.length)
        starts, lengths = first[is_short], covered[is_short]
        for length in range(1, WINDOW):
            equal_runs.add_windows(distances, values, starts[lengths == length], length)
        piece = np.searchsorted(begins, starts, side="right") - 1
        too_short -= int(lengths[is_short_piece[piece]].sum())
    equal_runs.resolve(distances)
    is_whole = covered * sectorsize == extents.length
    is_spare = equal_runs.spare_extents(distances, first, covered, ~is_whole)
    spare = extents.select(is_spare)
    total = int(np.count_nonzero(distances)) * sectorsize
    runs = equal_runs.repeat_runs(values, begins, distances, WINDOW)
    groups = _groups(runs, checksums, spare, shortest=WINDOW if is_estimate else 1)
    whole = int(spare.length.sum())
    return Duplicates(
        groups=groups,
        whole_extents=whole,
        parts_of_extents=total - whole,
        unlisted=total - int(groups.gain.sum()),
        compared=(len(values) - too_short) * sectorsize,
        without_checksums=int(extents.length.sum() - covered.sum() * sectorsize),
        too_short=too_short * sectorsize,
        is_estimate=is_estimate,
        is_complete=is_complete,
        spare=spare,
        extents=extents,
        checksums=checksums,
    )


def _groups(
    runs: equal_runs.Runs, checksums: Checksums, spare: Extents, *, shortest: int
) -> Groups:
    """Return the runs that repeat the same as groups.

    Args:
        runs: All runs.
        checksums: The checksums in which they are.
        spare: Extents that would be free.
        shortest: Leave out runs of fewer sectors.
    """
    is_long = runs.length >= shortest
    start, source, length = (part[is_long] for part in runs)
    # Stable, so that the copies of a group stay in the order of their addresses.
    order = np.lexsort((length, source))
    start, source, length = start[order], source[order], length[order]
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (source[1:] != source[:-1]) | (length[1:] != length[:-1])
    first = np.flatnonzero(is_new)
    repetitions = np.diff(first, append=len(order))
    begin = first + np.arange(len(first))
    index = np.empty(len(order) + len(first), np.int64)
    is_source = np.zeros(len(index), np.bool_)
    is_source[begin] = True
    index[is_source], index[~is_source] = source[first], start
    groups = Groups(
        length=length[first] * checksums.sectorsize,
        copies=repetitions + 1,
        frees=np.zeros(len(first), np.int64),
        begin=begin,
        vaddr=checksums.vaddr_of(index),
    )
    return _by_gain(_with_frees(groups, spare))


def _with_frees(groups: Groups, spare: Extents) -> Groups:
    """Return groups with the bytes of their copies that are in extents which would be free."""
    if not len(groups):
        return groups
    length = np.repeat(groups.length, groups.copies)
    bytes_in_spare = _bytes_before(spare, groups.vaddr + length)
    bytes_in_spare -= _bytes_before(spare, groups.vaddr)
    # If something outside of the group has the same, too, all copies may be free.
    frees = np.minimum(np.add.reduceat(bytes_in_spare, groups.begin), groups.gain)
    return replace(groups, frees=frees)


def _bytes_before(extents: Extents, vaddr: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many bytes extents have before each address."""
    if not len(extents):
        return np.zeros(len(vaddr), np.int64)
    number = np.maximum(np.searchsorted(extents.vaddr, vaddr, side="right") - 1, 0)
    before = (np.cumsum(extents.length) - extents.length)[number]
    into = np.clip(vaddr - extents.vaddr[number], 0, extents.length[number])
    return np.asarray(before + into)


def _by_gain(groups: Groups) -> Groups:
    """Return groups with those first that have the greatest gain, then the lowest address."""
    order = np.lexsort((groups.vaddr[groups.begin], -groups.gain))
    # The addresses stay where they are.
    return Groups(
        length=groups.length[order],
        copies=groups.copies[order],
        frees=groups.frees[order],
        begin=groups.begin[order],
        vaddr=groups.vaddr,
    )
