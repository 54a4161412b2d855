"""Answering a query: from what it names to the extents of it, with what is known about it."""

from __future__ import annotations

import os
import stat
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from btrfs import ioctl
from btrfs.errors import BtrfsError, PathNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import printable
from btrfs.ownership.paths import Place
from btrfs_atlas.explorer.search.descriptions import shown
from btrfs_atlas.explorer.search.errors import USAGE, FindError
from btrfs_atlas.explorer.search.file_extents import FileExtentSummary
from btrfs_atlas.explorer.search.parse import (
    AddressQuery,
    GroupQuery,
    InodeQuery,
    PathQuery,
    Query,
    SubvolumeQuery,
    number_of,
    spellings,
)
from btrfs_atlas.explorer.search.results import (
    AddressFacts,
    Extent,
    Facts,
    GroupFacts,
    InodeFacts,
    QueryResult,
    SubvolumeFacts,
    one_range,
)
from btrfs_atlas.explorer.search.step_reader import MAX_EXTENTS, StepReader

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch
    from btrfs.ondisk.items.chunk import BlockGroupItem
    from btrfs_atlas.explorer.atlas import Atlas

__all__ = ["answer"]


def answer(reader: StepReader, query: Query) -> QueryResult:
    """Return what a query leads to.

    Raises:
        BtrfsError: It is not there, or cannot be read.
        OSError: The kernel refuses to tell.
    """
    if isinstance(query, PathQuery):
        return _by_path(reader, query)
    if isinstance(query, InodeQuery):
        return _by_number(reader, query)
    if isinstance(query, AddressQuery):
        return _at_address(reader, query.vaddr)
    if isinstance(query, GroupQuery):
        return _block_group(reader, query.vaddr)
    return _subvolume(reader, query)


# Files.


def _by_path(reader: StepReader, query: PathQuery) -> QueryResult:
    try:
        place, path = _place(reader, query.text)
    except PathNotFoundError as error:
        if query.begins_with_keyword:
            raise FindError(shown(str(error)), hint=USAGE) from error
        raise
    return _inode(reader, place, "file", asked_path=path)


def _by_number(reader: StepReader, query: InodeQuery) -> QueryResult:
    subvolume = query.subvolume
    trees = _trees_with(reader, query.inum) if subvolume is None else [_tree(reader, subvolume)]
    if not trees or reader.inode(Place(trees[0], query.inum)) is None:
        where = "in any subvolume" if subvolume is None else f"in subvolume {shown(subvolume)}"
        raise FindError(f"there is no inode {query.inum} {where}", hint=USAGE)
    return _inode(reader, Place(trees[0], query.inum), "inode", others=trees[1:])


_OTHERS = 3
"""So many further subvolumes with an inode of the same number are named."""


def _trees_with(reader: StepReader, inum: int) -> list[int]:
    """Return the first subvolumes that have an inode of this number."""
    with reader.atlas.lock:
        numbers = [root.objectid for root in reader.fs.subvolumes()]
    trees: list[int] = []
    for tree in dict.fromkeys([reader.home(), constants.FS_TREE_OBJECTID, *numbers]):
        if reader.is_late or len(trees) > _OTHERS + 1:
            break
        if reader.inode(Place(tree, inum)) is not None:
            trees.append(tree)
    return trees


def _inode(
    reader: StepReader,
    place: Place,
    kind: str,
    *,
    asked_path: bytes | None = None,
    others: list[int] | None = None,
) -> QueryResult:
    """Return the extents of an inode."""
    first = Key(place.inum, constants.EXTENT_DATA_KEY, 0)
    last = Key(place.inum, constants.EXTENT_DATA_KEY, constants.ULLONG_MAX)
    inode = reader.inode(place)
    summary = FileExtentSummary(inode.size if inode is not None and stat.S_ISREG(inode.mode) else 0)
    has_extents = inode is None or not stat.S_ISDIR(inode.mode)
    if has_extents:
        summary.read(reader, place.tree, first, last)
    further = others or []
    facts = InodeFacts(
        place,
        asked_path,
        _path_of(reader, place),
        inode,
        summary if has_extents else None,
        reader.fs.sectorsize,
        further[:_OTHERS],
        len(further) > _OTHERS,
        reader.loss(place.tree, Key(place.inum, 0, 0), last),
    )
    # The beginning of the file is seen first, which need not have the lowest address.
    return _of_files(reader, summary, kind, facts, summary.first)


def _path_of(reader: StepReader, place: Place) -> bytes | None:
    """Return the first path of an inode, from the top of the filesystem; None if it has none."""
    top, inner = reader.path_of_subvolume(place.tree), reader.path_of_inode(place)
    if top is None or inner is None:
        return None
    return b"/".join(filter(None, (top, inner)))


def _of_files(
    reader: StepReader,
    summary: FileExtentSummary,
    kind: str,
    facts: Facts,
    first: int | None = None,
) -> QueryResult:
    """Return the extents of files, those that lie where there are block groups."""
    vaddr, length = (column[:MAX_EXTENTS] for column in summary.extents)
    groups = reader.atlas.groups
    starts = np.array(sorted(groups), dtype=np.int64)
    ends = np.array([groups[start].length for start in starts.tolist()], dtype=np.int64) + starts
    index = np.searchsorted(starts, vaddr, side="right") - 1
    # Damage alone makes extents that overlap, or that reach beyond their block group.
    room = np.where(index >= 0, ends[index], 0) - vaddr if starts.size else np.zeros_like(vaddr)
    room[:-1] = np.minimum(room[:-1], np.diff(vaddr))
    length = np.minimum(length, room)
    inside = length > 0
    ranges = vaddr[inside], length[inside]
    size = int(ranges[1].sum())
    return QueryResult(kind, facts, ranges, ranges[0].size, size, summary.truncated, first=first)


# Subvolumes.


def _subvolume(reader: StepReader, query: SubvolumeQuery) -> QueryResult:
    """Return all that the files of a subvolume use."""
    tree = _tree(reader, query.subvolume)
    root = reader.subvolume(tree)
    if root is None:
        raise FindError(f"there is no subvolume {tree}", hint=USAGE)
    first, last = Key(0, 0, 0), Key(-1, -1, -1)
    summary = FileExtentSummary()
    summary.read(reader, tree, first, last)
    path = reader.path_of_subvolume(tree)
    facts = SubvolumeFacts(tree, path, root, summary, reader.loss(tree, first, last))
    return _of_files(reader, summary, "subvolume", facts)


def _tree(reader: StepReader, text: str) -> int:
    """Return the number of a subvolume, given that or its path.

    Raises:
        BtrfsError: There is no such subvolume.
    """
    tree = number_of(text)
    if tree is not None:
        if reader.subvolume(tree) is None:
            raise FindError(f"there is no subvolume {tree}", hint=USAGE)
        return tree
    place, path = _place(reader, text)
    if place.inum != constants.FIRST_FREE_OBJECTID:
        raise FindError(
            f"/{printable(path)} is no subvolume", hint=f"it is in subvolume {place.tree}"
        )
    return place.tree


# Paths.


def _place(reader: StepReader, text: str) -> tuple[Place, bytes]:
    """Return the inode that a path leads to, and the path from the top of the filesystem.

    Raises:
        PathNotFoundError: There is no such path.
    """
    failure: BtrfsError | None = None
    for path in spellings(text):
        for tree, inner in _beginnings(reader, path):
            try:
                place = reader.lookup(inner, tree)
            except PathNotFoundError as error:
                failure = failure or error
            else:
                top = reader.path_of_subvolume(tree) or b""
                return place, os.path.normpath(b"/" + top + b"/" + inner).strip(b"/")
    assert failure is not None
    raise failure


def _beginnings(reader: StepReader, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield subvolumes that a path may begin in, and the path in each, the likeliest first."""
    home = reader.home()
    if reader.fs.mounted and path.startswith(b"/"):
        inner = _below(os.path.normpath(path), os.path.abspath(os.fsencode(reader.fs.path)))
        if inner is not None:
            yield home, _top_of_mount(reader) + b"/" + inner
    yield constants.FS_TREE_OBJECTID, path
    if home != constants.FS_TREE_OBJECTID:
        yield home, path


def _below(path: bytes, folder: bytes) -> bytes | None:
    """Return the path from a folder on, if it is below it."""
    folder = folder.rstrip(b"/")
    return path[len(folder) :] if path == folder or path.startswith(folder + b"/") else None


def _top_of_mount(reader: StepReader) -> bytes:
    """Return which folder of its subvolume was opened, as a path from the top of that."""
    with reader.atlas.lock:
        inum = os.fstat(reader.fs.fd).st_ino
        return ioctl.ino_lookup(reader.fs.fd, 0, inum).name_bytes


# Addresses.


def _at_address(reader: StepReader, vaddr: int) -> QueryResult:
    """Return the extent that holds a virtual address."""
    group = _group_at(reader.atlas, vaddr)
    if group is None:
        raise FindError(f"no block group holds vaddr {vaddr}", hint=_known_addresses(reader.atlas))
    extent = _extent_at(reader, vaddr, group)
    if extent is None:
        sector = vaddr - vaddr % reader.fs.sectorsize
        lost = reader.loss(constants.EXTENT_TREE_OBJECTID, *_keys_of_extents(sector, vaddr))
        facts = AddressFacts(vaddr, group, None, lost)
        ranges = one_range(sector, reader.fs.sectorsize)
        return QueryResult("vaddr", facts, ranges, 0, 0, first=sector)
    facts = AddressFacts(vaddr, group, extent, None)
    ranges = one_range(extent.vaddr, extent.length)
    return QueryResult("vaddr", facts, ranges, 1, extent.length, first=extent.vaddr)


def _block_group(reader: StepReader, vaddr: int) -> QueryResult:
    """Return the block group that begins at a virtual address."""
    group = reader.atlas.groups.get(vaddr)
    if group is None:
        holder = _group_at(reader.atlas, vaddr)
        hint = _known_addresses(reader.atlas)
        if holder is not None:
            hint = f"the block group that holds this address is 'group {holder.vaddr}'"
        raise FindError(f"no block group begins at vaddr {vaddr}", hint=hint)
    chunk = reader.atlas.chunks.get(vaddr)
    devids = [] if chunk is None else sorted({stripe.devid for stripe in chunk.stripes})
    extents = reader.atlas.extents(vaddr)
    facts = GroupFacts(group, devids, None if extents is None else len(extents))
    ranges = one_range(vaddr, group.length)
    return QueryResult("group", facts, ranges, facts.extents or 0, group.used, first=vaddr)


def _group_at(atlas: Atlas, vaddr: int) -> BlockGroupItem | None:
    """Return the block group that holds a virtual address."""
    groups = list(atlas.groups.values())
    index = bisect_right(groups, vaddr, key=lambda group: group.vaddr) - 1
    if index < 0 or vaddr >= groups[index].vaddr + groups[index].length:
        return None
    return groups[index]


def _known_addresses(atlas: Atlas) -> str | None:
    """Return a hint that says where block groups are."""
    groups = list(atlas.groups.values())
    if not groups:
        return None
    end = groups[-1].vaddr + groups[-1].length
    return f"block groups lie between {groups[0].vaddr} and {end}; for an inode, say 'inode 257'"


def _extent_at(reader: StepReader, vaddr: int, group: BlockGroupItem) -> Extent | None:
    """Return the extent that holds a virtual address; None if there is none."""
    for reach in _REACHES:
        first, last = _keys_of_extents(max(group.vaddr, vaddr - reach), vaddr)
        found = None
        for batch in reader.batches(constants.EXTENT_TREE_OBJECTID, first, last):
            found = _last_extent(batch, reader.fs.nodesize) or found
        # Extents do not overlap: the last one before the address holds it, or none does.
        if found is not None:
            return found if vaddr < found.vaddr + found.length else None
    return None


_REACHES = (1 << 16, 1 << 22, 1 << 28)
"""How far before an address to look for its extent. The kernel makes none of more than 256 MiB."""


def _keys_of_extents(first: int, last: int) -> tuple[Key, Key]:
    """Return the keys of the extent tree from one virtual address to another."""
    return Key(first, 0, 0), Key(last, 255, constants.ULLONG_MAX)


def _last_extent(batch: ItemBatch, nodesize: int) -> Extent | None:
    """Return the last extent of some items of the extent tree."""
    is_skinny = batch.type == constants.METADATA_ITEM_KEY
    is_extent = is_skinny | (batch.type == constants.EXTENT_ITEM_KEY)
    items = batch.select(np.flatnonzero(is_extent & (batch.size >= _EXTENT_ITEM_SIZE))[-1:])
    if not len(items):
        return None
    refs, generation, flags = (
        int(items.gather("<u8", at)[0]) for at in (_REFS_AT, _GENERATION_AT, _FLAGS_AT)
    )
    skinny = items.type[0] == constants.METADATA_ITEM_KEY
    return Extent(
        int(items.objectid[0]),
        nodesize if skinny else int(items.offset[0]),
        refs,
        generation,
        bool(skinny or flags & constants.EXTENT_FLAG_TREE_BLOCK),
    )


# struct btrfs_extent_item
_REFS_AT = 0
_GENERATION_AT = 8
_FLAGS_AT = 16
_EXTENT_ITEM_SIZE = 24
