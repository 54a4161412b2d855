"""The fuzzer's own small reader of the format: the parts of a good image that can be changed.

It shares no code with the library that is tested but the checksums. It believes what it reads, and
needs no map of chunks: it knows a tree block by its header, wherever on the devices it finds one.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from btrfs.ondisk.checksum import CHECKSUMS
from tests.fuzz import seeds
from tests.fuzz.seeds import PAGE, Seed

SUPER_ADDRESSES = (64 << 10, 64 << 20, 256 << 30)
SUPER_SIZE = 4096
SUPER_MAGIC = b"_BHRfS_M"
CSUM_SIZE = 32

HEADER_SIZE = 101
ITEM_SIZE = 25
POINTER_SIZE = 33
KEY_SIZE = 17

HEADER = struct.Struct("<32s16sQQ16sQQIB")
ITEM = struct.Struct("<QBQII")
POINTER = struct.Struct("<QBQQQ")
KEY = struct.Struct("<QBQ")

ROOT_TREE, CHUNK_TREE, LOG_TREES = 1, 3, (1 << 64) - 6
ROOT_ITEM = 132
ROOT_ITEM_GENERATION, ROOT_ITEM_BYTENR, ROOT_ITEM_LEVEL = 160, 176, 238
SUPER_POINTERS = {
    ROOT_TREE: (0x50, 0x48, 0xC6),
    CHUNK_TREE: (0x58, 0xA4, 0xC7),
    LOG_TREES: (0x60, None, 0xC8),
}
"""Where in a superblock address, generation and level of a root block are."""

CLUSTER = struct.Struct("<QQIB")
CLUSTER_ITEM = struct.Struct("<QI")


class Item(NamedTuple):
    """An item of a leaf.

    Attributes:
        key: Object id, type and offset.
        start: Where its body is, from the beginning of the block.
        size: Bytes of the body.
    """

    key: tuple[int, int, int]
    start: int
    size: int


class Down(NamedTuple):
    """A pointer of a node: first key, address and generation of a block below."""

    key: tuple[int, int, int]
    vaddr: int
    generation: int


@dataclass(slots=True)
class Block:
    """A tree block that belongs to a tree.

    Attributes:
        vaddr: Virtual address.
        data: Its bytes.
        tree: The tree that it was found in first.
        generation: Of its header.
        level: Of its header.
        places: Where it is stored: index of the file and offset in it. Where RAID5 or RAID6 has
            little to add up, a parity looks like a copy.
        above: The node that points to it, and which of its pointers does; None for a root.
    """

    vaddr: int
    data: bytes
    tree: int
    generation: int
    level: int
    places: list[tuple[int, int]]
    above: tuple[int, int] | None = None

    def items(self) -> list[Item]:
        """Return the items of a leaf."""
        count = self.count
        return [
            Item((objectid, type_, offset), HEADER_SIZE + start, size)
            for objectid, type_, offset, start, size in (
                ITEM.unpack_from(self.data, HEADER_SIZE + index * ITEM_SIZE)
                for index in range(count)
            )
        ]

    def pointers(self) -> list[Down]:
        """Return the pointers of a node."""
        return [
            Down((objectid, type_, offset), vaddr, generation)
            for objectid, type_, offset, vaddr, generation in (
                POINTER.unpack_from(self.data, HEADER_SIZE + index * POINTER_SIZE)
                for index in range(self.count)
            )
        ]

    @property
    def count(self) -> int:
        """How many items or pointers it has."""
        return int.from_bytes(self.data[96:100], "little")

    @property
    def first_key(self) -> bytes:
        """Its first key, as it is stored."""
        return self.data[HEADER_SIZE : HEADER_SIZE + KEY_SIZE]


class Piece(NamedTuple):
    """What a dump has in one piece: its virtual address, and the bytes."""

    vaddr: int
    data: bytes


@dataclass(slots=True)
class Cluster:
    """A cluster of a dump.

    Attributes:
        compressed: Whether its pieces are stored compressed.
        pieces: What is in it.
    """

    compressed: bool
    pieces: list[Piece] = field(default_factory=list)


@dataclass(slots=True)
class Image:
    """A good filesystem, taken apart.

    Attributes:
        seed: Where it comes from.
        nodesize: Bytes of a tree block.
        supers: All superblocks: index of the file, and offset in it. In a dump, there is one; its
            offset is its address.
        blocks: The tree blocks by their addresses.
        trees: The addresses of the blocks of each tree.
        clusters: Those of a dump.
    """

    seed: Seed
    nodesize: int
    csum_type: int
    supers: list[tuple[int, int]]
    blocks: dict[int, Block]
    trees: dict[int, list[int]]
    clusters: list[Cluster]

    def checksummed(self, data: bytes) -> bytes:
        """Return a block or superblock with the checksum that it must have."""
        checksum = CHECKSUMS[self.csum_type]
        digest = checksum.digest(data[CSUM_SIZE:])
        return digest.ljust(CSUM_SIZE, b"\0") + data[CSUM_SIZE:]


@functools.cache
def parse(name: str) -> Image:
    """Return a stored seed, taken apart."""
    seed = seeds.load(name)
    clusters = _clusters(seed) if seed.dump else []
    supers = list(_supers(seed)) or [(0, SUPER_ADDRESSES[0])]
    super_ = read_super(seed, clusters, supers[0])
    nodesize = int.from_bytes(super_[0x94:0x98], "little")
    found = _candidates(seed, clusters, super_, nodesize)
    blocks = _walk(found, super_)
    trees = defaultdict(list)
    for block in blocks.values():
        trees[block.tree].append(block.vaddr)
    csum_type = int.from_bytes(super_[0xC4:0xC6], "little")
    return Image(seed, nodesize, csum_type, supers, blocks, dict(trees), clusters)


def read_super(seed: Seed, clusters: list[Cluster], place: tuple[int, int]) -> bytes:
    """Return the bytes of a superblock."""
    if not seed.dump:
        return seed.files[place[0]].read(place[1], SUPER_SIZE)
    return next(
        piece.data for cluster in clusters for piece in cluster.pieces if piece.vaddr == place[1]
    )


def _supers(seed: Seed) -> Iterator[tuple[int, int]]:
    if seed.dump:
        return
    for index, file in enumerate(seed.files):
        for address in SUPER_ADDRESSES:
            if file.read(address + 0x40, len(SUPER_MAGIC)) == SUPER_MAGIC:
                yield index, address


def _clusters(seed: Seed) -> list[Cluster]:
    """Take a dump apart."""
    (file,) = seed.files
    data = file.read(0, file.size)
    clusters, at = [], 0
    while at < len(data):
        _, _, count, compress = CLUSTER.unpack_from(data, at)
        cluster = Cluster(bool(compress))
        body = at + seeds.DUMP_CLUSTER_ALIGNMENT
        for index in range(count):
            record = at + CLUSTER.size + index * CLUSTER_ITEM.size
            vaddr, size = CLUSTER_ITEM.unpack_from(data, record)
            stored = data[body : body + size]
            cluster.pieces.append(Piece(vaddr, zlib.decompress(stored) if compress else stored))
            body += size
        clusters.append(cluster)
        at = body + -body % seeds.DUMP_CLUSTER_ALIGNMENT
    return clusters


_Candidates = dict[tuple[int, int], tuple[bytes, list[tuple[int, int]]]]
"""By address and generation: the bytes of a block, and its places."""


def _candidates(seed: Seed, clusters: list[Cluster], super_: bytes, nodesize: int) -> _Candidates:
    """Return all that looks like a tree block, current or not."""
    # A filesystem whose UUID was changed keeps the old one in the blocks, and one that has grown on
    # a seed that of the seed.
    all_supers = [super_, *(read_super(seed, [], place) for place in _supers(seed))]
    fsids = {data[at : at + 16] for data in all_supers for at in (0x20, 0x23B)} - {bytes(16)}
    found: _Candidates = {}
    for place, data in _possible(seed, clusters, nodesize):
        if data[32:48] in fsids and len(data) == nodesize and data[64:72] != SUPER_MAGIC:
            _, _, vaddr, _, _, generation, *_ = HEADER.unpack_from(data)
            if seed.dump and vaddr != place[1]:
                continue
            found.setdefault((vaddr, generation), (data, []))[1].append(place)
    return found


def _possible(
    seed: Seed, clusters: list[Cluster], nodesize: int
) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yield the places where blocks can be, with what is there."""
    for cluster in clusters:
        for piece in cluster.pieces:
            for at in range(0, len(piece.data), nodesize):
                yield (0, piece.vaddr + at), piece.data[at : at + nodesize]
    if not seed.dump:
        for index, file in enumerate(seed.files):
            for number in file.pages:
                if number * PAGE not in SUPER_ADDRESSES:
                    yield (index, number * PAGE), file.read(number * PAGE, nodesize)


def _walk(found: _Candidates, super_: bytes) -> dict[int, Block]:
    """Return the blocks of all trees, by their addresses."""
    by_vaddr: dict[int, list[int]] = defaultdict(list)
    for vaddr, generation in found:
        by_vaddr[vaddr].append(generation)
    blocks: dict[int, Block] = {}
    wanted: list[tuple[int, int, tuple[int, int] | None]] = [
        (tree, int.from_bytes(super_[address : address + 8], "little"), None)
        for tree, (address, _, _) in SUPER_POINTERS.items()
    ]
    while wanted:
        tree, vaddr, above = wanted.pop()
        if vaddr in blocks or vaddr not in by_vaddr:
            continue
        generation = max(by_vaddr[vaddr])
        data, places = found[vaddr, generation]
        block = Block(vaddr, data, tree, generation, data[100], places, above)
        blocks[vaddr] = block
        if block.level:
            wanted += [(tree, down.vaddr, (vaddr, i)) for i, down in enumerate(block.pointers())]
        elif tree in (ROOT_TREE, LOG_TREES):
            for item in block.items():
                if item.key[1] == ROOT_ITEM and item.size > ROOT_ITEM_LEVEL:
                    root = data[item.start + ROOT_ITEM_BYTENR :][:8]
                    # A log tree has the number of its subvolume after the type of its key.
                    inner = item.key[2] if tree == LOG_TREES else item.key[0]
                    wanted.append((inner, int.from_bytes(root, "little"), None))
    return blocks
