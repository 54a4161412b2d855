"""Damage filesystems on purpose, and know what must still be readable.

`Anatomy` finds every tree block of a sound filesystem in its images, all copies and the rows of
stripes with parity that they lie in. A `Harm` says what is to happen to the images, and `harmed()`
makes files to which it has happened. `remains()` returns what is left: a block can be read if its
bytes are as they were in one of its places, or in enough other places of its row.

None of it uses the reader that is tested with it: the addresses are worked out here once more.
"""

from __future__ import annotations

import contextlib
import os
import random
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

STRIPE_LEN = 64 << 10
SUPERBLOCKS = (64 << 10, 64 << 20)
"""Where the copies of the superblock are on devices of less than 256 GiB."""
SUPERBLOCK_SIZE = 4096

ROOT_TREE, CHUNK_TREE = 1, 3
KEY_MAX = (1 << 136) - 1

_MAGIC = b"_BHRfS_M"
_CHUNK_KEY = 228
_ROOT_KEY = 132
_SYSTEM = 1 << 1
_RAID0, _RAID10, _RAID5, _RAID6 = 1 << 3, 1 << 6, 1 << 7, 1 << 8

_HEADER = struct.Struct("<32s16sQQ16sQQIB")
_ITEM = struct.Struct("<QBQII")
_POINTER = struct.Struct("<QBQQQ")
_DISK_KEY = struct.Struct("<QBQ")
_CHUNK = struct.Struct("<QQQQIIIHH")
_STRIPE = struct.Struct("<QQ16s")

Items = list[tuple[tuple[int, ...], bytes]]
"""Generation of the leaf, objectid, offset, type and size of each item, and its body."""


class Place(NamedTuple):
    """Where something begins: the number of a device, and the address on it in bytes."""

    devid: int
    paddr: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A range of virtual addresses, and where its device extents begin."""

    vaddr: int
    length: int
    flags: int
    stripes: tuple[Place, ...]

    @property
    def nparity(self) -> int:
        """How many stripes of each row hold parity."""
        return {_RAID5: 1, _RAID6: 2}.get(self.flags & (_RAID5 | _RAID6), 0)

    def copies(self, vaddr: int) -> list[Place]:
        """Return where the copies of what is at a virtual address begin."""
        count = len(self.stripes)
        stripe, within = divmod(vaddr - self.vaddr, STRIPE_LEN)
        if self.flags & _RAID0:
            row, chosen = stripe // count, [stripe % count]
        elif self.flags & _RAID10:
            row, pair = divmod(stripe, count // 2)
            chosen = [pair * 2, pair * 2 + 1]
        elif self.nparity:
            row, index = divmod(stripe, count - self.nparity)
            chosen = [(row + index) % count]
        else:
            row, chosen = stripe, list(range(count))
        return [self._in_stripe(index, row, within) for index in chosen]

    def row(self, vaddr: int) -> list[Place]:
        """Return the places beside it in its row: those of data, P, Q; none without parity."""
        if not self.nparity:
            return []
        count = len(self.stripes)
        stripe, within = divmod(vaddr - self.vaddr, STRIPE_LEN)
        row = stripe // (count - self.nparity)
        return [self._in_stripe((row + index) % count, row, within) for index in range(count)]

    def _in_stripe(self, index: int, row: int, within: int) -> Place:
        devid, paddr = self.stripes[index]
        return Place(devid, paddr + row * STRIPE_LEN + within)


@dataclass(frozen=True, slots=True)
class Block:
    """A tree block.

    Attributes:
        tree: Number of the tree that it was found in.
        vaddr: Virtual address.
        level: 0 for a leaf.
        generation: Generation that it was written in.
        min_key: Lowest key that may be below it, and
        max_key: The highest, by the blocks above it.
        items: What a leaf holds.
        children: The blocks below a node.
    """

    tree: int
    vaddr: int
    level: int
    generation: int
    min_key: int
    max_key: int
    items: Items
    children: list[Block]

    def below(self) -> Iterator[Block]:
        """Yield this block and all below it."""
        yield self
        for child in self.children:
            yield from child.below()


class Anatomy:
    """Where everything is in a sound filesystem.

    Args:
        images: Its images, in the order of the devids from 1 on.

    Attributes:
        images: The images by devid.
        fsid: UUID of the filesystem, 16 bytes.
        nodesize: Bytes of a tree block.
        generation: Generation of the last commit.
        chunks: All chunks.
        trees: Root of each tree that can be searched, by its number.
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self.images = dict(enumerate(images, start=1))
        superblock = read(images[0], SUPERBLOCKS[0], SUPERBLOCK_SIZE)
        self.fsid = superblock[0x20:0x30]
        self.generation, root, chunk_root = struct.unpack_from("<3Q", superblock, 0x48)
        self.nodesize, _, _, array_size = struct.unpack_from("<4I", superblock, 0x94)
        self.chunks = list(_system_chunks(superblock[0x32B : 0x32B + array_size]))
        self.trees = {CHUNK_TREE: self._walk(CHUNK_TREE, chunk_root)}
        self.chunks = list(_chunks(self.trees[CHUNK_TREE].below()))
        self.trees[ROOT_TREE] = self._walk(ROOT_TREE, root)
        for block in list(self.trees[ROOT_TREE].below()):
            for tree, bytenr in _roots(block):
                self.trees[tree] = self._walk(tree, bytenr)

    @cached_property
    def items(self) -> dict[int, Items]:
        """All items of each tree."""
        return {
            tree: [item for block in root.below() for item in block.items]
            for tree, root in self.trees.items()
        }

    @cached_property
    def stored(self) -> dict[Place, bytes]:
        """What is in each place of each tree block, and in the others of its row."""
        return {
            place: self.read(place)
            for root in self.trees.values()
            for block in root.below()
            for place in self.places(block)
        }

    def read(self, place: Place) -> bytes:
        """Return what is in the place of a block."""
        return read(self.images[place.devid], place.paddr, self.nodesize)

    def copies(self, block: Block) -> list[Place]:
        """Return where the copies of a block are."""
        return self.chunk(block.vaddr).copies(block.vaddr)

    def row(self, block: Block) -> list[Place]:
        """Return the places in a block's row: those of data, then P and Q; none without parity."""
        return self.chunk(block.vaddr).row(block.vaddr)

    def nparity(self, block: Block) -> int:
        """Return how many places in a block's row are of parity."""
        return self.chunk(block.vaddr).nparity

    def places(self, block: Block) -> list[Place]:
        """Return all places that a block can be read from."""
        return self.row(block) or self.copies(block)

    def chunk(self, vaddr: int) -> Chunk:
        """Return the chunk that a virtual address is in."""
        return next(c for c in self.chunks if c.vaddr <= vaddr < c.vaddr + c.length)

    def leaves(self, tree: int) -> list[Block]:
        """Return the leaves of a tree."""
        return [block for block in self.trees[tree].below() if not block.level]

    def _walk(self, tree: int, vaddr: int, min_key: int = 0, max_key: int = KEY_MAX) -> Block:
        """Return a block and all below it, read from the first copy of each."""
        data = self.read(self.chunk(vaddr).copies(vaddr)[0])
        *_, generation, _, nritems, level = _HEADER.unpack_from(data)
        block = Block(tree, vaddr, level, generation, min_key, max_key, [], [])
        if level == 0:
            block.items.extend(_items(data, generation, nritems))
            return block
        pointers = [
            _POINTER.unpack_from(data, _HEADER.size + number * _POINTER.size)
            for number in range(nritems)
        ]
        keys = [_key(*pointer[:3]) for pointer in pointers]
        ends = [*(key - 1 for key in keys[1:]), max_key]
        for pointer, key, end in zip(pointers, keys, ends, strict=True):
            block.children.append(self._walk(tree, pointer[3], key, end))
        return block


def read(path: Path, paddr: int, length: int) -> bytes:
    """Return bytes of a file, fewer where it ends before."""
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, paddr)


def _key(objectid: int, key_type: int, offset: int) -> int:
    return objectid << 72 | key_type << 64 | offset


def _items(leaf: bytes, generation: int, nritems: int) -> Iterator[tuple[tuple[int, ...], bytes]]:
    for number in range(nritems):
        objectid, key_type, offset, start, size = _ITEM.unpack_from(
            leaf, _HEADER.size + number * _ITEM.size
        )
        body = leaf[_HEADER.size + start : _HEADER.size + start + size]
        yield (generation, objectid, offset, key_type, size), body


def _system_chunks(array: bytes) -> Iterator[Chunk]:
    pos = 0
    while pos < len(array):
        _, _, vaddr = _DISK_KEY.unpack_from(array, pos)
        pos += _DISK_KEY.size
        chunk = _chunk(vaddr, array[pos:])
        yield chunk
        pos += _CHUNK.size + len(chunk.stripes) * _STRIPE.size


def _chunks(blocks: Iterable[Block]) -> Iterator[Chunk]:
    """Yield the chunks of blocks of the chunk tree."""
    for block in blocks:
        for (_, _, vaddr, key_type, _), body in block.items:
            if key_type == _CHUNK_KEY:
                yield _chunk(vaddr, body)


def _chunk(vaddr: int, body: bytes) -> Chunk:
    length, _, _, flags, *_, num_stripes, _ = _CHUNK.unpack_from(body)
    stripes = (
        _STRIPE.unpack_from(body, _CHUNK.size + number * _STRIPE.size)
        for number in range(num_stripes)
    )
    return Chunk(vaddr, length, flags, tuple(Place(*stripe[:2]) for stripe in stripes))


def _roots(block: Block) -> Iterator[tuple[int, int]]:
    """Yield the trees whose root items a block has: number of the tree, address of its root."""
    for (_, tree, _, key_type, _), body in block.items:
        (refs,) = struct.unpack_from("<I", body, 216) if key_type == _ROOT_KEY else (0,)
        if refs:
            yield tree, struct.unpack_from("<Q", body, 176)[0]


# What is done to a filesystem.


@dataclass(frozen=True, slots=True)
class Harm:
    """What happens to the images of a filesystem; each device that is not named stays as it is.

    Attributes:
        writes: What is written over, and with what.
        missing: Devices that are not there.
        zeroed: Devices that are zeros from end to end.
        scribbled: Devices where all that was in use, but for the superblocks, is random now.
        cut: Devices that end early, and at which address.
        replaced: Devices in whose place an older image is.
        also: Other images given along with those.
        reverse: Give them in the opposite order.
    """

    writes: tuple[tuple[Place, bytes], ...] = ()
    missing: Collection[int] = ()
    zeroed: Collection[int] = ()
    scribbled: Collection[int] = ()
    cut: Mapping[int, int] = field(default_factory=dict)
    replaced: Mapping[int, Path] = field(default_factory=dict)
    also: Sequence[Path] = ()
    reverse: bool = False


@contextlib.contextmanager
def harmed(anatomy: Anatomy, harm: Harm, folder: Path) -> Iterator[list[Path]]:
    """Make files to which some harm has been done, in a new folder that is removed at the end.

    Nothing else is in the folder: members that are not given are looked for there. The images of
    the sound filesystem stay as they are.

    Yields:
        The files, in the order in which they are to be given.
    """
    folder.mkdir()
    try:
        made = [
            _harmed_image(image, devid, harm, folder)
            for devid, image in anatomy.images.items()
            if devid not in harm.missing
        ]
        for number, image in enumerate(harm.also):
            made.append(folder / f"also{number}.img")
            os.link(image, made[-1])
        yield made[::-1] if harm.reverse else made
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


def _harmed_image(image: Path, devid: int, harm: Harm, folder: Path) -> Path:
    target = folder / f"disk{devid}.img"
    writes = [(place.paddr, data) for place, data in harm.writes if place.devid == devid]
    if devid in harm.zeroed:
        with target.open("wb") as file:
            file.truncate(image.stat().st_size)
    elif devid in harm.replaced:
        os.link(harm.replaced[devid], target)
    elif devid in harm.scribbled:
        superblocks = [(paddr, read(image, paddr, SUPERBLOCK_SIZE)) for paddr in SUPERBLOCKS]
        copy_image(image, target)
        _overwrite(target, [*_noise(image), *superblocks])
    elif writes or devid in harm.cut:
        copy_image(image, target)
        _overwrite(target, writes)
        os.truncate(target, harm.cut.get(devid, image.stat().st_size))
    else:
        os.link(image, target)
    return target


def copy_image(image: Path, target: Path) -> None:
    """Copy a file, and leave out its holes."""
    with target.open("wb") as file:
        file.truncate(image.stat().st_size)
    _overwrite(target, ((start, read(image, start, end - start)) for start, end in _used(image)))


def noise(length: int, seed: int = 1) -> bytes:
    """Return bytes that mean nothing, the same ones each time."""
    return random.Random(seed).randbytes(length)


def _noise(image: Path) -> Iterator[tuple[int, bytes]]:
    for start, end in _used(image):
        yield start, noise(end - start, start)


def _used(image: Path) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that are no holes."""
    with image.open("rb") as file:
        end = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, end


def _overwrite(path: Path, writes: Iterable[tuple[int, bytes]]) -> None:
    with path.open("r+b") as file:
        for paddr, data in writes:
            os.pwrite(file.fileno(), data, paddr)


# What is left of it.


@dataclass(frozen=True, slots=True)
class Remains:
    """What can be read of a damaged filesystem.

    Attributes:
        files: The devices that there are, by their numbers.
        items: What is left of each tree.
        lost: The keys that are not: tree, the lowest, and the highest.
        damage: Which bytes are wrong where the filesystem is read: the place, the virtual address,
            and whether the block can be read all the same.
    """

    files: dict[int, Path]
    items: dict[int, Items] = field(default_factory=dict)
    lost: set[tuple[int, int, int]] = field(default_factory=set)
    damage: set[tuple[Place, int, bool]] = field(default_factory=set)


def remains(anatomy: Anatomy, files: Iterable[Path]) -> Remains:
    """Tell what can be read of a filesystem, which was sound before.

    Args:
        anatomy: How it was.
        files: Its images now. One that has no superblock is like none. Of two that are the same
            device, the one that was written to last counts.
    """
    return _Examination(anatomy, files).remains


class _Examination:
    """Goes through all trees, and sees which blocks are left.

    Which chunks are known depends on what is left of the chunk tree, and which trees on what is
    left of the root tree, so these come first.
    """

    def __init__(self, anatomy: Anatomy, files: Iterable[Path]) -> None:
        self._anatomy = anatomy
        self._files = _members(files, anatomy.fsid)
        self.remains = Remains(self._files)
        # The superblock has these: without them there would be no chunk tree.
        self._chunks = [chunk for chunk in anatomy.chunks if chunk.flags & _SYSTEM]
        self._chunks += _chunks(self._left(CHUNK_TREE))
        known = {tree for block in self._left(ROOT_TREE) for tree, _ in _roots(block)}
        for tree in anatomy.trees.keys() - {ROOT_TREE, CHUNK_TREE}:
            if tree in known:
                list(self._left(tree))
            else:
                self.remains.items[tree] = []
                self.remains.lost.add((tree, 0, KEY_MAX))

    def _left(self, tree: int) -> list[Block]:
        """Return the blocks of a tree that can be reached."""
        blocks = list(self._reachable(self._anatomy.trees[tree]))
        self.remains.items[tree] = [item for block in blocks for item in block.items]
        return blocks

    def _reachable(self, block: Block) -> Iterator[Block]:
        if not self._is_readable(block):
            self.remains.lost.add((block.tree, block.min_key, block.max_key))
            return
        yield block
        for child in block.children:
            yield from self._reachable(child)

    def _is_readable(self, block: Block) -> bool:
        """Return whether a block can be read, and note what is wrong with copies of it."""
        chunk = self._anatomy.chunk(block.vaddr)
        if chunk not in self._chunks:
            return False
        copies, wrong = chunk.copies(block.vaddr), []
        for place in copies:
            if self._is_good(place):
                break
            wrong.append(place)
        bad_in_row = [place for place in chunk.row(block.vaddr) if not self._is_good(place)]
        readable = len(wrong) < len(copies) or 0 < len(bad_in_row) <= chunk.nparity
        self.remains.damage.update(
            (place, block.vaddr, readable) for place in wrong if place.devid in self._files
        )
        return readable

    def _is_good(self, place: Place) -> bool:
        file = self._files.get(place.devid)
        if file is None:
            return False
        return read(file, place.paddr, self._anatomy.nodesize) == self._anatomy.stored[place]


def _members(files: Iterable[Path], fsid: bytes) -> dict[int, Path]:
    """Return the files that have a superblock of a filesystem, by the number of the device."""
    found: dict[int, tuple[int, Path]] = {}
    for path in files:
        for paddr in SUPERBLOCKS:
            superblock = read(path, paddr, SUPERBLOCK_SIZE)
            if superblock[0x40:0x48] == _MAGIC and superblock[0x20:0x30] == fsid:
                (generation,) = struct.unpack_from("<Q", superblock, 0x48)
                (devid,) = struct.unpack_from("<Q", superblock, 0xC9)
                found[devid] = max(found.get(devid, (0, path)), (generation, path))
    return {devid: path for devid, (_, path) in found.items()}
