"""Questions: what somebody looks for on the map, and what it leads to.

See the module find for what can be asked.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs import ioctl
from btrfs.errors import BtrfsError, PathNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import counted, printable, space_flags_description
from btrfs.ownership.paths import Place
from btrfs_atlas.explorer.search.file_extents import Used, words_of_file, words_of_files
from btrfs_atlas.explorer.search.reading import (
    HOW,
    MAX_EXTENTS,
    FindError,
    Reader,
    size_text,
    text_of,
)

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch
    from btrfs.ondisk.items.chunk import BlockGroupItem
    from btrfs.ondisk.items.inode import InodeItem
    from btrfs_atlas.explorer.atlas import Atlas

__all__ = ["Matter", "answer"]

Addresses = NDArray[np.int64]


@dataclass(slots=True)
class Matter:
    """What was found, no matter how it lies on a line; see Found."""

    kind: str
    title: str
    words: list[str]
    vaddr: Addresses
    length: Addresses
    extents: int
    bytes: int
    truncated: bool = False
    first: int | None = None
    """Virtual address of what should be seen first; None for all of it."""


def answer(reader: Reader, query: str) -> Matter:
    """Return what a question leads to."""
    words = query.split()
    if not words:
        raise FindError("there is nothing to find", hint=HOW)
    if len(query) > _MAX_QUERY:
        raise FindError(f"a question has at most {_MAX_QUERY:,} characters", hint=HOW)
    for pattern, ask in _QUESTIONS:
        match = pattern.fullmatch(query.strip())
        if match is not None:
            return ask(reader, *match.groups())
    try:
        return _path(reader, query)
    except PathNotFoundError as error:
        if words[0].lower() in _WORDS:
            raise FindError(text_of(str(error)), hint=HOW) from error
        raise


def _number(text: str) -> int:
    """Return the number that a text stands for, decimal or 0x..., of 64 bits at most."""
    number = int(text, 16 if text[:2].lower() == "0x" else 10)
    if number > constants.ULLONG_MAX:
        raise FindError(f"{text} does not fit into 64 bits", hint=HOW)
    return number


_MAX_QUERY = 8192
_WORDS = ("inode", "vaddr", "group", "subvolume")
_NUMBER = r"(0x[0-9a-f]{1,16}|[0-9]{1,20})"


def _path(reader: Reader, query: str) -> Matter:
    """Return the file, directory or the like that a path leads to."""
    place, path = _place(reader, query)
    return _of_inode(reader, place, "file", f"/{printable(path)}")


def _inode(reader: Reader, inum: str, subvolume: str | None) -> Matter:
    """Return the inode of a number."""
    number = _number(inum)
    trees: list[int]
    trees = _trees_with(reader, number) if subvolume is None else [_tree(reader, subvolume)]
    if not trees or reader.inode(Place(trees[0], number)) is None:
        where = "in any subvolume" if subvolume is None else f"in subvolume {text_of(subvolume)}"
        raise FindError(f"there is no inode {number} {where}", hint=HOW)
    matter = _of_inode(
        reader, Place(trees[0], number), "inode", f"inode {number} in subvolume {trees[0]}"
    )
    if len(trees) > 1:
        others = ", ".join(str(tree) for tree in trees[1:_OTHERS])
        more = " and others" if len(trees) > _OTHERS else ""
        matter.words.append(
            f"There is an inode of this number in subvolume {others}{more}, too:"
            f" say 'inode {number} in {trees[1]}' for that."
        )
    return matter


_OTHERS = 4


def _trees_with(reader: Reader, inum: int) -> list[int]:
    """Return the first subvolumes that have an inode of this number."""
    with reader.atlas.lock:
        numbers = [root.objectid for root in reader.fs.subvolumes()]
    trees: list[int] = []
    for tree in dict.fromkeys([reader.home(), constants.FS_TREE_OBJECTID, *numbers]):
        if reader.is_late or len(trees) > _OTHERS:
            break
        if reader.inode(Place(tree, inum)) is not None:
            trees.append(tree)
    return trees


def _vaddr(reader: Reader, text: str) -> Matter:
    """Return the extent that holds a virtual address."""
    vaddr = _number(text)
    group = _group_at(reader.atlas, vaddr)
    if group is None:
        raise FindError(f"no block group holds vaddr {vaddr}", hint=_known_addresses(reader.atlas))
    where = f"In block group {group.vaddr} ({space_flags_description(group.flags)})."
    extent = _extent_at(reader, vaddr, group)
    if extent is None:
        sector = vaddr - vaddr % reader.fs.sectorsize
        words = [f"No extent lies at {vaddr}: it is free.", where]
        words += reader.losses(constants.EXTENT_TREE_OBJECTID, *_keys_of_extents(sector, vaddr))
        one = _one(sector, reader.fs.sectorsize)
        return Matter("vaddr", f"free space at {vaddr}", words, *one, 0, 0, first=sector)
    words = [
        (
            f"{extent.kind}, {size_text(extent.length)}, from {extent.vaddr}"
            f" to {extent.vaddr + extent.length}."
        ),
        (
            f"Made or last changed in generation {extent.generation},"
            f" {counted(extent.refs, 'reference')}."
        ),
        where,
    ]
    title = f"extent at {extent.vaddr}"
    one = _one(extent.vaddr, extent.length)
    return Matter("vaddr", title, words, *one, 1, extent.length, first=extent.vaddr)


def _group(reader: Reader, text: str) -> Matter:
    """Return the block group that begins at a virtual address."""
    vaddr = _number(text)
    group = reader.atlas.groups.get(vaddr)
    if group is None:
        holder = _group_at(reader.atlas, vaddr)
        hint = _known_addresses(reader.atlas)
        if holder is not None:
            hint = f"the block group that holds this address is 'group {holder.vaddr}'"
        raise FindError(f"no block group begins at vaddr {vaddr}", hint=hint)
    words = [
        (
            f"{space_flags_description(group.flags)}, {size_text(group.length)},"
            f" {group.used_pct}% of it in use."
        )
    ]
    chunk = reader.atlas.chunks.get(vaddr)
    if chunk is not None:
        devids = sorted({stripe.devid for stripe in chunk.stripes})
        names = ", ".join(str(devid) for devid in devids)
        words.append(f"On device{'s' if len(devids) > 1 else ''} {names}.")
    extents = reader.atlas.extents(vaddr)
    if extents is None:
        words.append("Its extents cannot be read, or do not fit into the memory of the map.")
    return Matter(
        "group",
        f"block group {vaddr}",
        words,
        *_one(vaddr, group.length),
        0 if extents is None else extents.vaddr.size,
        group.used,
        first=vaddr,
    )


def _subvolume(reader: Reader, text: str) -> Matter:
    """Return all that the files of a subvolume use."""
    tree = _tree(reader, text)
    root = reader.subvolume(tree)
    if root is None:
        raise FindError(f"there is no subvolume {tree}", hint=HOW)
    first, last = Key(0, 0, 0), Key(-1, -1, -1)
    used = Used()
    used.read(reader, tree, first, last)
    is_snapshot = bool(root.parent_uuid.int)
    words = [
        _place_of_subvolume(reader, tree),
        (
            f"Made{' as a snapshot' if is_snapshot else ''} in generation {root.otransid},"
            f" last changed in {root.generation}"
            f"{', read-only' if root.flags & constants.ROOT_SUBVOL_RDONLY else ''}."
        ),
        *words_of_files(used),
        "What its files hold lights up; the tree with their names does not.",
        *reader.losses(tree, first, last),
    ]
    return _matter(reader, used, "subvolume", f"subvolume {tree}", words)


_QUESTIONS = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), ask)
    for pattern, ask in (
        (rf"inode\s+{_NUMBER}(?:\s+in\s+(.+))?", _inode),
        (rf"(?:vaddr\s+)?{_NUMBER}", _vaddr),
        (rf"(?:block\s+)?group\s+{_NUMBER}", _group),
        (r"subvol(?:ume)?\s+(.+)", _subvolume),
    )
)


# Paths and subvolumes.


def _place(reader: Reader, text: str) -> tuple[Place, bytes]:
    """Return where a path leads to, and the path from the top of the filesystem.

    Raises:
        PathNotFoundError: There is no such path.
    """
    failure: BtrfsError | None = None
    for path in _spellings(text):
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


def _spellings(text: str) -> list[bytes]:
    r"""Return what a text can stand for as a path: as it is, or with ``\xNN`` made into bytes."""
    try:
        exact = os.fsencode(text)
    except UnicodeEncodeError:
        raise FindError("this is no text", hint=HOW) from None
    unescaped = _ESCAPE.sub(lambda match: _unescaped(match[1]), exact)
    return list(dict.fromkeys([exact, unescaped, exact.strip()]))


_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|[nrt])")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}


def _unescaped(escape: bytes) -> bytes:
    return _ESCAPED.get(escape) or bytes([int(escape[1:], 16)])


def _beginnings(reader: Reader, path: bytes) -> Iterator[tuple[int, bytes]]:
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


def _top_of_mount(reader: Reader) -> bytes:
    """Return which folder of its subvolume was opened, as a path from the top of that."""
    with reader.atlas.lock:
        inum = os.fstat(reader.fs.fd).st_ino
        return ioctl.ino_lookup(reader.fs.fd, 0, inum).name_bytes


def _tree(reader: Reader, text: str) -> int:
    """Return the number of a subvolume, given that or its path.

    Raises:
        BtrfsError: There is no such subvolume.
    """
    if re.fullmatch(_NUMBER, text, re.IGNORECASE):
        tree = _number(text)
        if reader.subvolume(tree) is None:
            raise FindError(f"there is no subvolume {tree}", hint=HOW)
        return tree
    place, path = _place(reader, text)
    if place.inum != constants.FIRST_FREE_OBJECTID:
        raise FindError(
            f"/{printable(path)} is no subvolume", hint=f"it is in subvolume {place.tree}"
        )
    return place.tree


def _place_of_subvolume(reader: Reader, tree: int) -> str:
    """Return in words where a subvolume is."""
    if tree == constants.FS_TREE_OBJECTID:
        return "It is the top level of the filesystem."
    path = reader.path_of_subvolume(tree)
    if path is None:
        return "It is deleted, or its path cannot be read."
    return f"Its path is /{printable(path)}"


# What files use.


def _of_inode(reader: Reader, place: Place, kind: str, title: str) -> Matter:
    """Return the extents of an inode, with words about it."""
    first = Key(place.inum, constants.EXTENT_DATA_KEY, 0)
    last = Key(place.inum, constants.EXTENT_DATA_KEY, constants.ULLONG_MAX)
    inode = reader.inode(place)
    words = _words_of_inode(reader, place, inode)
    used = Used(inode.size if inode is not None and stat.S_ISREG(inode.mode) else 0)
    if inode is None or not stat.S_ISDIR(inode.mode):
        used.read(reader, place.tree, first, last)
        words += words_of_file(used, reader.fs.sectorsize)
    words += reader.losses(place.tree, Key(place.inum, 0, 0), last)
    matter = _matter(reader, used, kind, title, words)
    # The beginning of the file, which need not have the lowest address.
    matter.first = used.first
    return matter


def _words_of_inode(reader: Reader, place: Place, inode: InodeItem | None) -> list[str]:
    """Return what an inode is, and where."""
    where = f"Inode {place.inum} in subvolume {place.tree}"
    top = reader.path_of_subvolume(place.tree)
    inner = reader.path_of_inode(place)
    if top is None or inner is None:
        where += "; it is deleted, or its path cannot be read"
    else:
        where += f": /{printable(b'/'.join(filter(None, (top, inner))))}"
    if inode is None:
        return [where, "The inode itself could not be read."]
    what = _KINDS.get(stat.S_IFMT(inode.mode), "An inode of unknown type")
    if not stat.S_ISDIR(inode.mode):
        links = f", {counted(inode.nlink, 'name')}" if inode.nlink != 1 else ""
        return [f"{what}, {size_text(inode.size)}{links}.", where]
    return [
        f"{what}: its names lie in the tree of the subvolume, it has no extents.",
        where,
        f"Say 'subvolume {place.tree}' to see all that the files of that use.",
    ]


_KINDS = {
    stat.S_IFREG: "A file",
    stat.S_IFDIR: "A directory",
    stat.S_IFLNK: "A symbolic link",
    stat.S_IFIFO: "A pipe",
    stat.S_IFSOCK: "A socket",
    stat.S_IFCHR: "A character device",
    stat.S_IFBLK: "A block device",
}


def _matter(reader: Reader, used: Used, kind: str, title: str, words: list[str]) -> Matter:
    """Return the extents of files, those that lie where there are block groups."""
    vaddr, length = (column[:MAX_EXTENTS] for column in used.extents)
    groups = reader.atlas.groups
    starts = np.array(sorted(groups), dtype=np.int64)
    ends = np.array([groups[start].length for start in starts.tolist()], dtype=np.int64) + starts
    index = np.searchsorted(starts, vaddr, side="right") - 1
    # Damage alone makes extents that overlap, or that reach beyond their block group.
    room = np.where(index >= 0, ends[index], 0) - vaddr if starts.size else np.zeros_like(vaddr)
    room[:-1] = np.minimum(room[:-1], np.diff(vaddr))
    length = np.minimum(length, room)
    inside = length > 0
    vaddr, length = vaddr[inside], length[inside]
    return Matter(kind, title, words, vaddr, length, vaddr.size, int(length.sum()), used.truncated)


# Addresses.


class _Extent(NamedTuple):
    """An extent, as its item in the extent tree tells."""

    vaddr: int
    length: int
    refs: int
    generation: int
    kind: str


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
    behind = groups[-1].vaddr + groups[-1].length
    return f"block groups lie between {groups[0].vaddr} and {behind}; for an inode, say 'inode 257'"


def _extent_at(reader: Reader, vaddr: int, group: BlockGroupItem) -> _Extent | None:
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


def _last_extent(batch: ItemBatch, nodesize: int) -> _Extent | None:
    """Return the last extent of some items of the extent tree."""
    is_block = batch.type == constants.METADATA_ITEM_KEY
    is_extent = is_block | (batch.type == constants.EXTENT_ITEM_KEY)
    items = batch.select(np.flatnonzero(is_extent & (batch.size >= _EXTENT_ITEM_SIZE))[-1:])
    if not len(items):
        return None
    refs, generation, flags = (
        int(items.gather("<u8", at)[0]) for at in (_REFS_AT, _GENERATION_AT, _FLAGS_AT)
    )
    skinny = items.type[0] == constants.METADATA_ITEM_KEY
    is_block = skinny or bool(flags & constants.EXTENT_FLAG_TREE_BLOCK)
    return _Extent(
        int(items.objectid[0]),
        nodesize if skinny else int(items.offset[0]),
        refs,
        generation,
        "A tree block" if is_block else "Data",
    )


# struct btrfs_extent_item
_REFS_AT = 0
_GENERATION_AT = 8
_FLAGS_AT = 16
_EXTENT_ITEM_SIZE = 24


def _one(start: int, length: int) -> tuple[Addresses, Addresses]:
    """Return a single range."""
    return np.array([start], dtype=np.int64), np.array([length], dtype=np.int64)
