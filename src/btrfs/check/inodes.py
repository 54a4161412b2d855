"""Inodes: what the items of each must have in common.

All items of an inode lie side by side in its tree, most often in one leaf. For each inode of a leaf
there is a row of sums: how many names it has, how many bytes its pieces take, and so on. An inode
that lies within its leaf is checked at once, in all trees that share the leaf. Rows of the first
and the last inode of each leaf are kept: they may go on in other leaves, and in snapshots these are
not the same ones. They are put together for each group of trees that see the same of them.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from btrfs.check.pieces import Pieces
from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.inode import InodeItem

if TYPE_CHECKING:
    from btrfs.check.items.entries import EntryRows, LinkRows
    from btrfs.ownership.root_sets import RootSets, SetIds

__all__ = [
    "ChecksumRuns",
    "InodeRows",
    "LeafContents",
    "Problem",
    "combined",
    "inode_rows",
    "problems",
]

_FIRST, _LAST = constants.FIRST_FREE_OBJECTID, constants.LAST_FREE_OBJECTID
"""Inode numbers of files and directories lie between these."""

_TOP = constants.FIRST_FREE_OBJECTID
_NEVER = np.uint64(ULLONG_MAX)
_NODATASUM = np.uint64(constants.INODE_NODATASUM)


class ChecksumRuns:
    """Which addresses have checksums.

    Args:
        start: Where each run of sectors with checksums begins, in order, uint64.
        end: Where it ends.
        unknown: Ranges whose checksums cannot be read: where each begins, and where it ends.
    """

    def __init__(
        self,
        start: NDArray[np.uint64],
        end: NDArray[np.uint64],
        unknown: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._unknown = np.array(unknown, np.uint64).reshape(-1, 2)
        self._start = start
        self._end = end
        self._before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(end - start)])

    def bytes_within(
        self, start: NDArray[np.uint64], end: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Return of each range how many of its bytes have checksums."""
        if not len(self._start):
            return np.zeros(len(start), np.uint64)
        return self._up_to(end) - self._up_to(start)

    def is_known(self, start: NDArray[np.uint64], end: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return of each range whether all checksums that it may have could be read."""
        known = np.ones(len(start), np.bool_)
        for first, last in self._unknown:
            known &= (end <= first) | (start >= last)
        return known

    def _up_to(self, address: NDArray[np.uint64]) -> NDArray[np.uint64]:
        run = np.searchsorted(self._start, address, "right")
        index = np.maximum(run, 1) - 1
        within = np.minimum(address, self._end[index]) - np.minimum(address, self._start[index])
        return np.asarray(self._before[index] + within)


@dataclass(slots=True)
class InodeRows:
    """What some leaves say of inodes. An entry per inode and leaf.

    Attributes:
        inum: Inode number, uint64.
        leaf: Number of the leaf, uint32.
        items: How many inode items there are, 0 or 1, uint8.
        mode: Type and permissions, and from here to `flags` 0 without an inode item, uint32.
        nlink: How many names the inode says that it has, uint32.
        size: Its size in bytes, uint64.
        nbytes: The bytes that it says its pieces take, uint64.
        flags: Its flags, uint64.
        links: How many names it has in items of references, uint32.
        entries: How many entries it has as a directory, counted twice, uint32.
        entry_bytes: The bytes of the names of these, counted twice, uint64.
        pieces: How many file extent items it has, uint32.
        inline: How many of these have their data in the leaf, uint32.
        bytes: The bytes that pieces take, as `nbytes` counts them, uint64.
        first: Where in the file the first piece begins, or the highest number, uint64.
        end: Where the last piece ends, uint64.
        gap: Where the first gap between pieces begins, or the highest number, uint64.
        overlaps: Whether a piece begins before the one in the leaf before it ends.
        written: The bytes on disk of pieces that were written to, uint64.
        summed: How many of these have checksums, uint64.
    """

    inum: NDArray[np.uint64]
    leaf: NDArray[np.uint32]
    items: NDArray[np.uint8]
    mode: NDArray[np.uint32]
    nlink: NDArray[np.uint32]
    size: NDArray[np.uint64]
    nbytes: NDArray[np.uint64]
    flags: NDArray[np.uint64]
    links: NDArray[np.uint32]
    entries: NDArray[np.uint32]
    entry_bytes: NDArray[np.uint64]
    pieces: NDArray[np.uint32]
    inline: NDArray[np.uint32]
    bytes: NDArray[np.uint64]
    first: NDArray[np.uint64]
    end: NDArray[np.uint64]
    gap: NDArray[np.uint64]
    overlaps: NDArray[np.bool_]
    written: NDArray[np.uint64]
    summed: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.inum)

    def select(self, chosen: NDArray[Any]) -> Self:
        """Return the rows that a mask or an array of indexes chooses."""
        return type(self)(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @classmethod
    def concatenated(cls, parts: list[InodeRows]) -> InodeRows:
        """Return the rows of several tables one after another; there is at least one."""
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class LeafContents(NamedTuple):
    """What is in some leaves.

    Attributes:
        batch: The items, leaf by leaf.
        leaf: Number of the leaf of each, uint32.
        last_inum: Of each, the highest inode number of which all items are in its leaf or before.
        links: The names of inodes.
        entries: The entries of directories.
        pieces: The pieces of files.
    """

    batch: ItemBatch
    leaf: NDArray[np.uint32]
    last_inum: NDArray[np.uint64]
    links: LinkRows
    entries: EntryRows
    pieces: Pieces


def inode_rows(
    contents: LeafContents, runs: ChecksumRuns, sectorsize: int
) -> tuple[InodeRows, NDArray[np.bool_]]:
    """Return what leaves say of inodes.

    Args:
        contents: What is in the leaves.
        runs: Which addresses have checksums.
        sectorsize: Bytes of a sector.

    Returns:
        The rows, and which of them are complete: all items of the inode are in its leaf.
    """
    batch, leaf, last_inum, links, entries, pieces = contents
    is_new_leaf = np.ones(len(batch), np.bool_)
    is_new_leaf[1:] = leaf[1:] != leaf[:-1]
    begins = is_new_leaf.copy()
    begins[1:] |= batch.objectid[1:] != batch.objectid[:-1]
    first = np.flatnonzero(begins)
    row = np.cumsum(begins) - 1
    made = _empty_rows(batch.objectid[first], leaf[first])
    _add_items(made, batch, row)
    np.add.at(made.links, row[links.index], 1)
    in_directory = batch.type[entries.index] != constants.XATTR_ITEM_KEY
    index = row[entries.index[in_directory]]
    np.add.at(made.entries, index, 1)
    np.add.at(made.entry_bytes, index, entries.name_len[in_directory].astype(np.uint64))
    _add_pieces(made, row, pieces, np.uint64(sectorsize - 1))
    _add_checksums(made, row, pieces, runs)
    # Without its first item, the first inode of a leaf goes on from the leaf before.
    is_complete = made.inum <= last_inum[first]
    is_complete &= ~is_new_leaf[first] | (made.items > 0)
    of_files = (made.inum >= _FIRST) & (made.inum <= np.uint64(_LAST))
    return made.select(of_files), is_complete[of_files]


def _empty_rows(inum: NDArray[np.uint64], leaf: NDArray[np.uint32]) -> InodeRows:
    count = len(inum)

    def zeros(dtype: Any) -> NDArray[Any]:
        return np.zeros(count, dtype)

    never = np.full(count, _NEVER)
    return InodeRows(
        *(inum, leaf, zeros(np.uint8), zeros(np.uint32), zeros(np.uint32)),
        *(zeros(np.uint64), zeros(np.uint64), zeros(np.uint64)),
        *(zeros(np.uint32), zeros(np.uint32), zeros(np.uint64)),
        *(zeros(np.uint32), zeros(np.uint32), zeros(np.uint64)),
        never,
        zeros(np.uint64),
        never.copy(),
        zeros(np.bool_),
        *(zeros(np.uint64), zeros(np.uint64)),
    )


def _add_items(made: InodeRows, batch: ItemBatch, row: NDArray[np.intp]) -> None:
    """Fill in what the inode items say."""
    index = np.flatnonzero(
        (batch.type == constants.INODE_ITEM_KEY) & (batch.size >= InodeItem.struct_size)
    )
    row = row[index]
    made.items[row] = 1
    for name in ("mode", "nlink", "size", "nbytes", "flags"):
        getattr(made, name)[row] = _field(batch, index, name)


def _field(batch: ItemBatch, index: NDArray[np.intp], name: str) -> NDArray[Any]:
    assert InodeItem.dtype.fields is not None
    dtype, at, *_ = InodeItem.dtype.fields[name]
    return take(batch.buffer, dtype, batch.body[index] + at)


def _add_pieces(made: InodeRows, row: NDArray[np.intp], pieces: Pieces, mask: np.uint64) -> None:
    """Fill in what the pieces of files add up to."""
    row, position = row[pieces.item], pieces.position
    np.add.at(made.pieces, row, 1)
    np.add.at(made.inline, row[pieces.is_inline], 1)
    counts = pieces.is_inline | (pieces.vaddr != 0)
    np.add.at(made.bytes, row[counts], pieces.num_bytes[counts])
    end = position + ((pieces.num_bytes + mask) & ~mask)
    np.minimum.at(made.first, row, position)
    np.maximum.at(made.end, row, end)
    gaps = np.flatnonzero((row[1:] == row[:-1]) & (position[1:] > end[:-1]))
    np.minimum.at(made.gap, row[gaps], end[gaps])


def _add_checksums(
    made: InodeRows, row: NDArray[np.intp], pieces: Pieces, runs: ChecksumRuns
) -> None:
    """Fill in how much of the pieces was written, and has checksums."""
    written = pieces.select((pieces.vaddr != 0) & (pieces.kind == constants.FILE_EXTENT_REG))
    row = row[written.item]
    start, end = written.on_disk()
    known = runs.is_known(start, end)
    if not known.all():
        row, start, end = row[known], start[known], end[known]
    np.add.at(made.written, row, end - start)
    np.add.at(made.summed, row, runs.bytes_within(start, end))


# Rows of the same inode, put together.


def combined(
    rows: InodeRows, sets: RootSets, leaf_sets: SetIds, wanted: int
) -> tuple[InodeRows, list[int]]:
    """Put the rows of inodes together that lie in several leaves.

    Args:
        rows: Rows of leaves.
        sets: The sets of roots.
        leaf_sets: Set of each leaf.
        wanted: Bit mask of the roots that are wanted.

    Returns:
        A row for each inode as some roots see it; and of each the bit mask of these roots.
    """
    set_ids = leaf_sets[rows.leaf]
    order = np.lexsort((rows.first, set_ids, rows.inum))
    rows, set_ids = rows.select(order), set_ids[order]
    begins = np.ones(len(rows), np.bool_)
    begins[1:] = rows.inum[1:] != rows.inum[:-1]
    first = np.flatnonzero(begins)
    if not len(first):
        return rows, []
    end = np.append(first[1:], len(rows))
    is_mixed = np.minimum.reduceat(set_ids, first) != np.maximum.reduceat(set_ids, first)
    plain = np.flatnonzero(~is_mixed)
    masks = [sets.masks[set_id] & wanted for set_id in set_ids[first[plain]].tolist()]
    members = _ranges(first[plain], (end - first)[plain]).tolist()
    group = np.repeat(np.arange(len(plain)), (end - first)[plain]).tolist()
    known: dict[tuple[int, ...], list[tuple[int, list[int]]]] = {}
    mixed = np.flatnonzero(is_mixed)
    for start, stop in zip(first[mixed].tolist(), end[mixed].tolist(), strict=True):
        ids = tuple(set_ids[start:stop].tolist())
        atoms = known.get(ids)
        if atoms is None:
            atoms = known[ids] = list(_atoms([sets.masks[one] & wanted for one in ids]))
        for mask, chosen in atoms:
            members += [start + number for number in chosen]
            group += [len(masks)] * len(chosen)
            masks.append(mask)
    chosen_rows = rows.select(np.array(members, np.intp))
    return _merged(chosen_rows, np.array(group, np.intp), len(masks)), masks


def _ranges(start: NDArray[np.intp], length: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the numbers of several ranges one after another."""
    first = np.cumsum(length) - length
    return np.asarray(np.repeat(start - first, length) + np.arange(int(length.sum())))


def _atoms(masks: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Yield groups of roots that are in the same of some sets, and the indexes of these sets."""
    parts: dict[int, list[int]] = {}
    for index, mask in enumerate(masks):
        left = mask
        for part, chosen in list(parts.items()):
            both = part & mask
            if not both:
                continue
            del parts[part]
            if part & ~mask:
                parts[part & ~mask] = chosen
            parts[both] = [*chosen, index]
            left &= ~both
        if left:
            parts[left] = [index]
    yield from parts.items()


_SUMS = (
    *("items", "mode", "nlink", "size", "nbytes", "flags", "links", "entries", "entry_bytes"),
    *("pieces", "inline", "bytes", "written", "summed"),
)


def _merged(rows: InodeRows, group: NDArray[np.intp], count: int) -> InodeRows:
    """Return one row for the rows of each group."""
    order = np.lexsort((rows.first, group))
    rows, group = rows.select(order), group[order]
    first = np.searchsorted(group, np.arange(count))
    if not count:
        return rows
    made = rows.select(first)
    changed: dict[str, NDArray[Any]] = {}
    for name in _SUMS:
        column = getattr(rows, name)
        changed[name] = np.add.reduceat(column, first, dtype=column.dtype)
    changed["end"] = np.maximum.reduceat(rows.end, first)
    same = group[1:] == group[:-1]
    follows = same & (rows.first[1:] != _NEVER) & (rows.first[:-1] != _NEVER)
    gap = rows.gap.copy()
    is_gap = np.flatnonzero(follows & (rows.first[1:] > rows.end[:-1]))
    gap[is_gap] = np.minimum(gap[is_gap], rows.end[is_gap])
    changed["gap"] = np.minimum.reduceat(gap, first)
    overlaps = rows.overlaps.copy()
    overlaps[1:] |= follows & (rows.first[1:] < rows.end[:-1])
    changed["overlaps"] = np.logical_or.reduceat(overlaps, first)
    return replace(made, **changed)


# Rules.


class Problem(NamedTuple):
    """Something about an inode that is not as it must be.

    Attributes:
        kind: A key of KINDS.
        row: Index of the row.
        why: What is wrong.
        expected: What should be there, or None.
        found: What is there instead, or None.
    """

    kind: str
    row: int
    why: str
    expected: int | None = None
    found: int | None = None


def problems(rows: InodeRows, *, no_holes: bool) -> Iterator[Problem]:
    """Yield what is wrong with inodes.

    Args:
        rows: A row for each inode, with all that there is of it.
        no_holes: Whether holes in files may be left out, as with the feature no-holes.
    """
    if not len(rows):
        return
    has_item = rows.items > 0
    yield from _some("inode-missing", ~has_item, "has items, but no inode item")
    file_type = rows.mode & np.uint32(0o170000)
    is_directory = has_item & (file_type == stat.S_IFDIR)
    is_file = has_item & (file_type == stat.S_IFREG)
    is_symlink = has_item & (file_type == stat.S_IFLNK)
    yield from _differing(
        "inode-links", has_item, "number of names, as it says", rows.links, rows.nlink
    )
    yield from _some(
        "inode-type", has_item & ~is_directory & (rows.entries > 0), "has entries, but no directory"
    )
    has_no_data = has_item & ~is_file & ~is_symlink
    yield from _some("inode-type", has_no_data & (rows.pieces > 0), "has data, but is no file")
    yield from _differing(
        "directory-size", is_directory, "size of the directory", rows.entry_bytes, rows.size
    )
    yield from _differing(
        "inode-bytes", is_file | is_symlink, "bytes of its data", rows.bytes, rows.nbytes
    )
    # btrfs-convert stores the zero byte at the end, too.
    is_text = is_symlink & (rows.bytes != rows.size + np.uint64(1))
    yield from _differing("symlink", is_text, "length of its target", rows.size, rows.bytes)
    yield from _some(
        "symlink", is_symlink & (rows.inline != rows.pieces), "its target is not stored in its item"
    )
    yield from _some(
        "file-overlaps", has_item & rows.overlaps, "two pieces of it overlap, in different leaves"
    )
    has_sums = (rows.flags & _NODATASUM) == 0
    yield from _differing(
        "checksums-missing", is_file & has_sums, "bytes with checksums", rows.written, rows.summed
    )
    yield from _differing(
        "checksums-too-many",
        is_file & ~has_sums,
        "bytes with checksums of a file without any",
        np.zeros_like(rows.summed),
        rows.summed,
    )
    if not no_holes:
        yield from _holes(rows, is_file & (rows.nlink > 0))


def _holes(rows: InodeRows, wanted: NDArray[np.bool_]) -> Iterator[Problem]:
    """Yield files that are not covered by their pieces, where each hole must have an item."""
    start = np.where(rows.first > 0, np.uint64(0), rows.gap)
    start = np.minimum(start, rows.end)
    wrong = wanted & (start < rows.size)
    for index in np.flatnonzero(wrong).tolist():
        yield Problem(
            "hole-missing", index, f"neither data nor a hole at {start[index]}, before its end"
        )


def _some(kind: str, wrong: NDArray[np.bool_], why: str) -> Iterator[Problem]:
    for index in np.flatnonzero(wrong).tolist():
        yield Problem(kind, index, why)


def _differing(
    kind: str,
    wanted: NDArray[np.bool_],
    what: str,
    expected: NDArray[Any],
    found: NDArray[Any],
) -> Iterator[Problem]:
    for index in np.flatnonzero(wanted & (expected != found)).tolist():
        yield Problem(kind, index, what, int(expected[index]), int(found[index]))
