"""Names: in directories and in inodes, they must be the same.

Each name of a file stands three times in a subvolume: in the directory by the hash of the name, in
the directory by its index, and in the inode. The type of the file stands in the directory and in
the inode. What stands on one side is added up, and what must be the same on the other side is
subtracted (see :mod:`btrfs.check.pairing`), for each leaf. The sum of the leaves of a subvolume
must be nothing. Where it is not, its rows are collected, and compared one by one.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.check.pairing import Hash, Numbers
from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.items.inode import InodeItem
from btrfs.ownership.names import pieces_of
from btrfs.ownership.tables import TableBuilder

if TYPE_CHECKING:
    from btrfs.check.items.entries import EntryRows, LinkRows
    from btrfs.ownership.root_sets import RootSets, SetIds

__all__ = ["NameHashes", "NameProblem", "NameRows", "compare_names", "name_table"]

_TOP = constants.FIRST_FREE_OBJECTID

INDEX_OF_LINK, LINK, INDEX_OF_ITEM, ITEM, TYPE_IN_ENTRY, TYPE_IN_INODE = range(6)
"""What a row is: the first of each two has the hash that one of the second must have, too."""

_SIGNS = (1, -1, 1, -1, 1, -1)

_LONGEST = 1 << 16
"""No name has so many bytes: its length has 16 bits."""

_TYPES = np.zeros(16, np.uint8)
_TYPES[[mode >> 12 for mode in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)]] = (
    constants.FT_REG_FILE,
    constants.FT_DIR,
    constants.FT_SYMLINK,
)
_TYPES[[mode >> 12 for mode in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)]] = (
    constants.FT_CHRDEV,
    constants.FT_BLKDEV,
    constants.FT_FIFO,
    constants.FT_SOCK,
)
"""Type of a file in entries of directories, by the upper bits of the mode."""

_DTYPES = ("u1", "<u8", "<u4", "<u8", "<u8", "<u8", "<u4")


class NameRows(NamedTuple):
    """What leaves say of names. An entry per name and place where it stands.

    Attributes:
        side: INDEX_OF_LINK, LINK ..., uint8.
        hash: Hash of what must be the same on the other side, uint64.
        leaf: Number of the leaf, uint32.
        inum: Inode number of the file, or number of the subvolume, uint64.
        directory: Inode number of the directory, uint64.
        dir_index: Index of the name in the directory, or its hash, uint64.
        value: How many names of that type the inode says that it has, or the type, uint32.
    """

    side: NDArray[np.uint8]
    hash: Numbers
    leaf: NDArray[np.uint32]
    inum: NDArray[np.uint64]
    directory: NDArray[np.uint64]
    dir_index: NDArray[np.uint64]
    value: NDArray[np.uint32]

    def select(self, chosen: Any) -> NameRows:
        """Return the rows that a mask or an array of indexes chooses."""
        return NameRows(*(column[chosen] for column in self))


class NameHashes:
    """Makes rows of the names in leaves."""

    def __init__(self) -> None:
        self._hashes = [Hash(), Hash(), Hash()]
        random = np.random.default_rng()
        self._weights = random.integers(0, 1 << 64, _LONGEST, np.uint64) | np.uint64(1)

    def rows(
        self, batch: ItemBatch, leaf: NDArray[np.uint32], links: LinkRows, entries: EntryRows
    ) -> NameRows:
        """Return what leaves of subvolumes say of names.

        Args:
            batch: The items.
            leaf: Number of the leaf of each.
            links: The names of inodes in these items.
            entries: The entries of directories in them.
        """
        parts = [
            *self._of_entries(batch, leaf, entries),
            self._of_links(batch, leaf, links),
            self._of_inodes(batch, leaf),
        ]
        return NameRows(*map(np.concatenate, zip(*parts, strict=True)))

    def _of_entries(
        self, batch: ItemBatch, leaf: NDArray[np.uint32], entries: EntryRows
    ) -> Iterator[NameRows]:
        of_link, of_item, of_type = self._hashes
        key_type = batch.type[entries.index]
        some = np.flatnonzero(key_type != constants.XATTR_ITEM_KEY)
        key_type, item = key_type[some], entries.index[some]
        inum, kind = entries.objectid[some], entries.location_type[some]
        file_type = entries.file_type[some]
        directory, index = batch.objectid[item], batch.offset[item]
        name = self._names(batch, entries.name_at[some], entries.name_len[some])
        is_index = key_type == constants.DIR_INDEX_KEY
        both = of_item(directory, inum, kind, file_type, name)
        side = np.where(is_index, INDEX_OF_ITEM, ITEM).astype(np.uint8)
        count = file_type.astype(np.uint32)
        row = NameRows(side, both, leaf[item], inum, directory, index, count)
        yield row
        in_subvolume = is_index & (kind == constants.INODE_ITEM_KEY)
        row, name = row.select(in_subvolume), name[in_subvolume]
        hashes = of_link(row.directory, row.inum, row.dir_index, name)
        yield row._replace(side=np.full(len(name), INDEX_OF_LINK, np.uint8), hash=hashes)
        hashes = of_type(row.inum, row.value)
        yield row._replace(side=np.full(len(name), TYPE_IN_ENTRY, np.uint8), hash=hashes)

    def _of_links(self, batch: ItemBatch, leaf: NDArray[np.uint32], links: LinkRows) -> NameRows:
        of_link, *_ = self._hashes
        inum = batch.objectid[links.index]
        # The top directory has a name in itself, but no entry.
        some = np.flatnonzero((inum != _TOP) | (links.parent != _TOP))
        inum, parent = inum[some], links.parent[some]
        index = links.dir_index[some]
        name = self._names(batch, links.name_at[some], links.name_len[some])
        return NameRows(
            np.full(len(some), LINK, np.uint8),
            of_link(parent, inum, index, name),
            leaf[links.index[some]],
            *(inum, parent, index, np.ones(len(some), np.uint32)),
        )

    def _of_inodes(self, batch: ItemBatch, leaf: NDArray[np.uint32]) -> NameRows:
        *_, of_type = self._hashes
        is_inode = (batch.type == constants.INODE_ITEM_KEY) & (batch.size >= InodeItem.struct_size)
        is_inode &= batch.objectid != _TOP
        item = np.flatnonzero(is_inode)
        mode, nlink = (
            take(batch.buffer, "<u4", batch.body[item] + _at(name)) for name in ("mode", "nlink")
        )
        inum, file_type = batch.objectid[item], _TYPES[mode >> np.uint32(12) & np.uint32(15)]
        return NameRows(
            np.full(len(item), TYPE_IN_INODE, np.uint8),
            of_type(inum, file_type),
            leaf[item],
            *(inum, np.zeros_like(inum), file_type.astype(np.uint64), nlink),
        )

    def _names(self, batch: ItemBatch, at: NDArray[np.int64], length: NDArray[Any]) -> Numbers:
        """Return a hash of each name: the sum of its bytes, each with a weight by its place."""
        length = length.astype(np.int64)
        found = length.astype(np.uint64)
        has_bytes = np.flatnonzero(length)
        length = length[has_bytes]
        if not len(length):
            return found
        first = np.cumsum(length) - length
        place = np.arange(int(length.sum())) - np.repeat(first, length)
        weighted = pieces_of(batch.buffer, at[has_bytes], length) * self._weights[place]
        found[has_bytes] += np.add.reduceat(weighted, first)
        return found


def _at(name: str) -> int:
    assert InodeItem.dtype.fields is not None
    return int(InodeItem.dtype.fields[name][1])


def sums_by_leaf(rows: NameRows, first: int, count: int) -> Numbers:
    """Return for each leaf what is left when one side is subtracted from the other.

    Args:
        rows: Rows of some leaves that follow one another.
        first: Number of the first of these.
        count: How many there are.
    """
    sums = np.zeros(count, np.uint64)
    leaf = rows.leaf - np.uint32(first)
    for side, sign in enumerate(_SIGNS):
        some = rows.side == side
        hashes = rows.hash[some]
        if side == TYPE_IN_INODE:
            hashes = hashes * rows.value[some].astype(np.uint64)
        (np.add if sign > 0 else np.subtract).at(sums, leaf[some], hashes)
    return sums


def name_table(memory: int | None) -> TableBuilder:
    """Return an empty table of NameRows."""
    return TableBuilder(_DTYPES, memory)


# Row by row.


class NameProblem(NamedTuple):
    """A name that does not stand everywhere that it must.

    Attributes:
        kind: A key of KINDS.
        roots: Bit mask of the trees where this is so.
        inum: Inode number of the file, or number of the subvolume.
        directory: Inode number of the directory.
        dir_index: Index of the name in the directory, or its hash.
        why: What is wrong.
        expected: What should be there, or None.
        found: What is there, or None.
    """

    kind: str
    roots: int
    inum: int
    directory: int
    dir_index: int
    why: str
    expected: str | None = None
    found: str | None = None

    @property
    def in_directory(self) -> bool:
        """Whether the directory has the name, by its index or by its hash."""
        return self.kind != "link-without-entry"


def compare_names(
    rows: NameRows, sets: RootSets, leaf_sets: SetIds, wanted: int
) -> Iterator[NameProblem]:
    """Yield the names that are not the same on both sides.

    Args:
        rows: All names of the trees in question.
        sets: The sets of roots.
        leaf_sets: Set of each leaf.
        wanted: Bit mask of these trees.
    """
    masks = [mask & wanted for mask in sets.masks]
    set_ids = leaf_sets[rows.leaf]
    missing = dict(_targets(rows, set_ids, masks))
    yield from _without_target(rows, set_ids, masks, missing)
    yield from _wrong_types(rows, set_ids, masks)
    for one, other, kinds in (
        (INDEX_OF_LINK, LINK, ("entry-without-link", "link-without-entry")),
        (INDEX_OF_ITEM, ITEM, ("entry-without-hash", "entry-without-index")),
    ):
        for row, mask in _unequal(rows, set_ids, masks, one, other):
            is_one = rows.side[row] == one
            if is_one and one == INDEX_OF_LINK:
                # Without the inode, there is no name in it either; that has been said.
                lacking = mask & ~missing.get(int(rows.inum[row]), 0)
            else:
                lacking = mask
            if lacking:
                yield _problem(rows, row, kinds[0] if is_one else kinds[1], lacking)


_WHY = {
    "entry-without-link": "the directory has the name at this index, the inode does not",
    "link-without-entry": "the inode has the name at this index, the directory does not",
    "entry-without-hash": "listed by its index, but not stored the same by the hash of the name",
    "entry-without-index": "stored by the hash of the name, but not listed the same by an index",
    "entry-without-inode": "leads to an inode that does not exist",
}


def _problem(rows: NameRows, row: int, kind: str, mask: int) -> NameProblem:
    return NameProblem(
        kind,
        mask,
        int(rows.inum[row]),
        int(rows.directory[row]),
        int(rows.dir_index[row]),
        _WHY[kind],
    )


def _unequal(
    rows: NameRows, set_ids: SetIds, masks: list[int], one: int, other: int
) -> Iterator[tuple[int, int]]:
    """Yield rows that the other side lacks, each with the roots for which it does."""
    some = np.flatnonzero((rows.side == one) | (rows.side == other))
    some = some[np.argsort(rows.hash[some], kind="stable")]
    hashes = rows.hash[some]
    begins = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])[: len(some)])
    ends = np.append(begins[1:], len(some))
    # Two rows of different sides in the same leaves are the common case.
    is_plain = ends - begins == 2
    pair = begins[is_plain]
    is_plain[is_plain] = (rows.side[some[pair]] != rows.side[some[pair + 1]]) & (
        set_ids[some[pair]] == set_ids[some[pair + 1]]
    )
    for group in np.flatnonzero(~is_plain).tolist():
        members = some[begins[group] : ends[group]].tolist()
        found = {one: 0, other: 0}
        for row in members:
            found[int(rows.side[row])] |= masks[set_ids[row]]
        for row in members:
            side = int(rows.side[row])
            lacking = masks[set_ids[row]] & ~found[other if side == one else one]
            if lacking:
                yield row, lacking


def _targets(rows: NameRows, set_ids: SetIds, masks: list[int]) -> Iterator[tuple[int, int]]:
    """Yield inodes that entries lead to but that do not exist: number, and the roots without."""
    some = np.flatnonzero((rows.side == TYPE_IN_ENTRY) | (rows.side == TYPE_IN_INODE))
    some = some[np.argsort(rows.inum[some], kind="stable")]
    inum = rows.inum[some]
    begins = np.flatnonzero(np.concatenate([[True], inum[1:] != inum[:-1]])[: len(some)])
    if not len(begins):
        return
    side = rows.side[some]
    ids = set_ids[some]
    one_set = np.minimum.reduceat(ids, begins) == np.maximum.reduceat(ids, begins)
    has_inode = np.maximum.reduceat(side, begins) == TYPE_IN_INODE
    ends = np.append(begins[1:], len(some))
    for group in np.flatnonzero(~(one_set & has_inode)).tolist():
        entry = inode = 0
        for row in some[begins[group] : ends[group]].tolist():
            if rows.side[row] == TYPE_IN_INODE:
                inode |= masks[set_ids[row]]
            else:
                entry |= masks[set_ids[row]]
        if entry & ~inode:
            yield int(inum[begins[group]]), entry & ~inode


def _without_target(
    rows: NameRows, set_ids: SetIds, masks: list[int], missing: dict[int, int]
) -> Iterator[NameProblem]:
    if not missing:
        return
    wanted = (rows.side == TYPE_IN_ENTRY) & np.isin(rows.inum, np.array(list(missing), np.uint64))
    for row in np.flatnonzero(wanted).tolist():
        mask = masks[set_ids[row]] & missing[int(rows.inum[row])]
        if mask:
            yield _problem(rows, row, "entry-without-inode", mask)


def _wrong_types(rows: NameRows, set_ids: SetIds, masks: list[int]) -> Iterator[NameProblem]:
    """Yield entries of another type than their inode."""
    entries = np.flatnonzero(rows.side == TYPE_IN_ENTRY)
    inodes = np.flatnonzero(rows.side == TYPE_IN_INODE)
    inodes = inodes[np.argsort(rows.inum[inodes], kind="stable")]
    first = np.searchsorted(rows.inum[inodes], rows.inum[entries], "left")
    end = np.searchsorted(rows.inum[inodes], rows.inum[entries], "right")
    # Nearly always there is one version of the inode, of the same type.
    plain = end - first == 1
    same = inodes[np.minimum(first, max(len(inodes) - 1, 0))] if len(inodes) else first
    if len(inodes):
        plain &= rows.dir_index[same] == rows.value[entries]
    for number in np.flatnonzero(~plain).tolist():
        row = int(entries[number])
        for inode in inodes[first[number] : end[number]].tolist():
            mask = masks[set_ids[row]] & masks[set_ids[inode]]
            if mask and rows.dir_index[inode] != rows.value[row]:
                yield NameProblem(
                    "entry-type",
                    mask,
                    int(rows.inum[row]),
                    int(rows.directory[row]),
                    int(rows.dir_index[row]),
                    "its type is not that of the inode",
                    _type_name(int(rows.dir_index[inode])),
                    _type_name(int(rows.value[row])),
                )


def _type_name(file_type: int) -> str:
    return constants.DIR_ITEM_TYPE_NAMES.get(file_type, f"type {file_type}").lower()
