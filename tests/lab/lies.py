"""Put lies into a filesystem: change its items and blocks, and make checksums right again.

A `Liar` takes the images of a filesystem that is not mounted, and changes them in place, in all
copies of a block (profiles with parity are not known to it). What it makes is what a kernel with a
fault or bad memory would write: everything that reads single blocks finds them sound.

    liar = Liar([image])
    key = liar.keys(FS_TREE, INODE_ITEM)[3]
    liar.remove(FS_TREE, key)
    liar.put(FS_TREE, other_key, "<I", 52, 0o100644)
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

from btrfs.ondisk.checksum import CHECKSUMS
from tests.lab.damage import SUPERBLOCK_SIZE, SUPERBLOCKS, Anatomy, Block, read

__all__ = ["ItemKey", "Liar"]

_CSUM_SIZE = 32
_CSUM_TYPE_AT = 0xC4
_HEADER_SIZE = 101
_NRITEMS_AT = 96
_ITEM = struct.Struct("<QBQII")
_POINTER = struct.Struct("<QBQQQ")

Change = Callable[[bytearray], None]
"""Changes bytes in place."""


class ItemKey(NamedTuple):
    """The key of an item, in the order that items are sorted by."""

    objectid: int
    type: int
    offset: int


class Liar:
    """Changes a filesystem, and keeps its checksums right.

    Args:
        images: Its images, in the order of the devids from 1 on.
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self._images = list(images)
        (csum_type,) = struct.unpack_from("<H", self._superblock(0), _CSUM_TYPE_AT)
        self._checksum = CHECKSUMS[csum_type]

    @cached_property
    def _anatomy(self) -> Anatomy:
        return Anatomy(self._images)

    # Looking.

    def items(self, tree: int) -> list[tuple[ItemKey, bytes]]:
        """Return the items of a tree: keys and bodies."""
        return [
            (ItemKey(objectid, key_type, offset), body)
            for (_, objectid, offset, key_type, _), body in self._anatomy.items[tree]
        ]

    def keys(self, tree: int, key_type: int, objectid: int | None = None) -> list[ItemKey]:
        """Return the keys of the items of a type, or only those of one objectid."""
        return [
            key
            for key, _ in self.items(tree)
            if key.type == key_type and objectid in (None, key.objectid)
        ]

    def body(self, tree: int, key: ItemKey) -> bytes:
        """Return the body of an item."""
        return dict(self.items(tree))[key]

    def leaf(self, tree: int, key: ItemKey) -> Block:
        """Return the leaf that an item is in, or would be in."""
        number = key.objectid << 72 | key.type << 64 | key.offset
        return next(leaf for leaf in self._anatomy.leaves(tree) if number <= leaf.max_key)

    def blocks(self, tree: int) -> list[Block]:
        """Return all blocks of a tree, each before those below it."""
        return list(self._anatomy.trees[tree].below())

    # Items.

    def put(self, tree: int, key: ItemKey, code: str, at: int, *values: Any) -> None:
        """Write numbers into the body of an item, as struct.pack_into() does."""
        self.change(tree, key, lambda body: struct.pack_into(code, body, at, *values))

    def add(self, tree: int, key: ItemKey, code: str, at: int, number: int) -> None:
        """Add to a number in the body of an item."""
        (value,) = struct.unpack_from(code, self.body(tree, key), at)
        self.put(tree, key, code, at, value + number)

    def change(self, tree: int, key: ItemKey, change: Change) -> None:
        """Change the body of an item, which may become longer or shorter."""

        def edit(items: dict[ItemKey, bytearray]) -> None:
            change(items[key])

        self._edit(tree, key, edit)

    def replace(self, tree: int, key: ItemKey, body: bytes) -> None:
        """Give an item another body."""

        def change(old: bytearray) -> None:
            old[:] = body

        self.change(tree, key, change)

    def remove(self, tree: int, *keys: ItemKey) -> None:
        """Remove items."""
        for key in keys:
            self._edit(tree, key, partial(_pop, key))

    def insert(self, tree: int, key: ItemKey, body: bytes) -> None:
        """Insert an item, where its key belongs."""

        def edit(items: dict[ItemKey, bytearray]) -> None:
            assert key not in items, f"{key} is there already"
            items[key] = bytearray(body)

        self._edit(tree, key, edit)

    def rekey(self, tree: int, key: ItemKey, new: ItemKey) -> None:
        """Give an item another key, and move it to where that belongs."""
        body = self.body(tree, key)
        if self.leaf(tree, key) != self.leaf(tree, new):
            self.remove(tree, key)
            self.insert(tree, new, body)
            return

        def edit(items: dict[ItemKey, bytearray]) -> None:
            assert new not in items, f"{new} is there already"
            items[new] = items.pop(key)

        # At once: without some items, such as a chunk, nothing more could be found.
        self._edit(tree, key, edit)

    # Blocks.

    def change_block(self, vaddr: int, change: Change) -> None:
        """Change a tree block in all its copies."""
        block = bytearray(self._read(vaddr))
        change(block)
        self._write(vaddr, block)

    def change_leaf(
        self, vaddr: int, edit: Callable[[dict[ItemKey, bytearray]], object]
    ) -> tuple[ItemKey, ItemKey]:
        """Change the items of a leaf, also of one that is in a log tree.

        Returns:
            The first key that it had, and the first one that it has now.
        """
        data = self._read(vaddr)
        items = dict(_unpacked(data))
        old_first = min(items)
        edit(items)
        if not items:
            raise ValueError(f"nothing would be left in the leaf at {vaddr}")
        self._write(vaddr, _packed(data, items))
        return old_first, min(items)

    def change_superblocks(self, change: Change) -> None:
        """Change all copies of the superblock on all devices."""
        for index, image in enumerate(self._images):
            for paddr in SUPERBLOCKS:
                data = bytearray(self._superblock(index, paddr))
                if len(data) == SUPERBLOCK_SIZE and any(data):
                    change(data)
                    _write(image, paddr, self._with_checksum(data))
        self._forget()

    def _superblock(self, index: int, paddr: int = SUPERBLOCKS[0]) -> bytes:
        return read(self._images[index], paddr, SUPERBLOCK_SIZE)

    def _edit(
        self, tree: int, key: ItemKey, edit: Callable[[dict[ItemKey, bytearray]], object]
    ) -> None:
        vaddr = self.leaf(tree, key).vaddr
        self._rename(vaddr, *self.change_leaf(vaddr, edit))

    def _rename(self, vaddr: int, old: ItemKey, new: ItemKey) -> None:
        """Write the first key of a block into the blocks above it, in all trees that share it."""
        if old == new:
            return
        places = {
            (parent.vaddr, index)
            for root in self._anatomy.trees.values()
            for parent in root.below()
            for index, child in enumerate(parent.children)
            if child.vaddr == vaddr
        }
        for parent_vaddr, index in places:
            self._write_first_key(parent_vaddr, index, new)
            if index == 0:
                self._rename(parent_vaddr, old, new)
        self._forget()

    def _write_first_key(self, vaddr: int, index: int, key: ItemKey) -> None:
        data = bytearray(self._read(vaddr))
        at = _HEADER_SIZE + index * _POINTER.size
        _POINTER.pack_into(data, at, *key, *_POINTER.unpack_from(data, at)[3:])
        for place in self._anatomy.chunk(vaddr).copies(vaddr):
            _write(self._images[place.devid - 1], place.paddr, self._with_checksum(data))

    def _read(self, vaddr: int) -> bytes:
        return self._anatomy.read(self._anatomy.chunk(vaddr).copies(vaddr)[0])

    def _write(self, vaddr: int, data: bytearray) -> None:
        for place in self._anatomy.chunk(vaddr).copies(vaddr):
            _write(self._images[place.devid - 1], place.paddr, self._with_checksum(data))
        self._forget()

    def _with_checksum(self, data: bytearray) -> bytes:
        digest = self._checksum.digest(bytes(data[_CSUM_SIZE:]))
        return digest.ljust(_CSUM_SIZE, b"\0") + data[_CSUM_SIZE:]

    def _forget(self) -> None:
        """Read the filesystem anew the next time that something is asked for."""
        self.__dict__.pop("_anatomy", None)


def _pop(key: ItemKey, items: dict[ItemKey, bytearray]) -> None:
    del items[key]


def _unpacked(leaf: bytes) -> Iterator[tuple[ItemKey, bytearray]]:
    (nritems,) = struct.unpack_from("<I", leaf, _NRITEMS_AT)
    for number in range(nritems):
        *key, start, size = _ITEM.unpack_from(leaf, _HEADER_SIZE + number * _ITEM.size)
        start += _HEADER_SIZE
        yield ItemKey(*key), bytearray(leaf[start : start + size])


def _packed(leaf: bytes, items: dict[ItemKey, bytearray]) -> bytearray:
    """Return a leaf with the header of another, and these items."""
    made = bytearray(len(leaf))
    made[:_HEADER_SIZE] = leaf[:_HEADER_SIZE]
    struct.pack_into("<I", made, _NRITEMS_AT, len(items))
    end = len(leaf)
    for number, key in enumerate(sorted(items)):
        body = items[key]
        end -= len(body)
        record = _HEADER_SIZE + number * _ITEM.size
        if end < record + _ITEM.size:
            raise ValueError("the leaf has no room for so much")
        _ITEM.pack_into(made, record, *key, end - _HEADER_SIZE, len(body))
        made[end : end + len(body)] = body
    return made


def _write(path: Path, paddr: int, data: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, paddr)
