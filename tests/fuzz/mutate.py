"""What is done to a good image: changes to its structures, chosen at random.

A change says which bytes of what become what. Checksums are put right afterwards, so that a change
gets as far as the code that takes the bytes apart; parity of RAID5 and RAID6 is not. A list of
changes is plain data, and makes the same damaged image each time.
"""

from __future__ import annotations

import dataclasses
import random
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz import images
from tests.fuzz.images import (
    CLUSTER,
    CLUSTER_ITEM,
    HEADER,
    HEADER_SIZE,
    ITEM,
    ITEM_SIZE,
    KEY,
    KEY_SIZE,
    POINTER,
    POINTER_SIZE,
    ROOT_ITEM,
    SUPER_SIZE,
    Block,
    Image,
    Item,
)
from tests.fuzz.seeds import DUMP_CLUSTER_ALIGNMENT, DUMP_MAGIC_V0

MOST_CHANGES = 4


@dataclass(frozen=True, slots=True)
class Change:
    """A change to an image.

    Attributes:
        kind: What it is meant to be, for the table of figures.
        target: What is changed: 'block', 'super', 'file', 'cluster' (a cluster header of a dump);
            or what happens to a whole file: 'cut', 'missing', 'twice'.
        number: Address of the block; else index of the file, or position of the cluster.
        at: Where the bytes are, from the beginning of the target; or the size to cut the file to.
        data: The new bytes in hexadecimal digits.
        copy: Which of the copies is changed; all if None.
        fix: Whether the checksum is put right.
    """

    kind: str
    target: str
    number: int
    at: int = 0
    data: str = ""
    copy: int | None = None
    fix: bool = True


Writes = list[tuple[int, bytes]]
"""What is written to a file: positions and bytes."""


@dataclass(slots=True)
class Damaged:
    """How the files of an image come to be damaged.

    Attributes:
        writes: What is written to each file, by its index.
        sizes: New sizes of files, by their index.
        order: The indexes of the files that are given to the reader, in that order.
    """

    writes: dict[int, Writes]
    sizes: dict[int, int]
    order: list[int]


# Applying.


def apply(image: Image, changes: list[Change]) -> Damaged:
    """Return what changes do to the files of an image."""
    damaged = Damaged(defaultdict(list), {}, list(range(len(image.seed.files))))
    if image.seed.dump:
        _apply_to_dump(image, changes, damaged)
    else:
        _apply_to_devices(image, changes, damaged)
    for change in changes:
        if change.target == "file":
            damaged.writes[change.number].append((change.at, bytes.fromhex(change.data)))
        elif change.target == "cut":
            damaged.sizes[change.number] = change.at
        elif change.target == "missing":
            left = [index for index in damaged.order if index != change.number]
            damaged.order = left or damaged.order
        elif change.target == "twice":
            damaged.order.append(change.number)
    return damaged


def _apply_to_devices(image: Image, changes: list[Change], damaged: Damaged) -> None:
    changed: dict[tuple[int, int], bytes] = {}
    fixed: set[tuple[int, int]] = set()
    for change in changes:
        if change.target == "block":
            block = image.blocks[change.number]
            places, size = block.places, len(block.data)
        elif change.target == "super":
            places, size = [p for p in image.supers if p[0] == change.number], SUPER_SIZE
            if change.number < 0:
                places = image.supers
        else:
            continue
        if change.copy is not None:
            places = [places[change.copy % len(places)]]
        for place in places:
            data = changed.get(place) or image.seed.files[place[0]].read(place[1], size)
            changed[place] = _patched(data, change)
            if change.fix:
                fixed.add(place)
    for place, data in changed.items():
        whole = image.checksummed(data) if place in fixed else data
        damaged.writes[place[0]].append((place[1], whole))


def _apply_to_dump(image: Image, changes: list[Change], damaged: Damaged) -> None:
    """Write the whole dump anew: what is compressed changes its size."""
    changed: dict[int, bytes] = {}
    fixed: set[int] = set()
    (super_place,) = image.supers
    for change in changes:
        if change.target not in ("block", "super"):
            continue
        vaddr = change.number if change.target == "block" else super_place[1]
        original = (
            image.blocks[vaddr].data
            if change.target == "block"
            else images.read_super(image.seed, image.clusters, super_place)
        )
        changed[vaddr] = _patched(changed.get(vaddr, original), change)
        if change.fix:
            fixed.add(vaddr)
    changed = {
        vaddr: image.checksummed(data) if vaddr in fixed else data
        for vaddr, data in changed.items()
    }
    dump = bytearray(_dump_of(image, changed))
    for change in changes:
        if change.target == "cluster":
            data = bytes.fromhex(change.data)[: max(0, len(dump) - change.number - change.at)]
            start = change.number + change.at
            dump[start : start + len(data)] = data
    damaged.writes[0].append((0, bytes(dump)))
    damaged.sizes[0] = len(dump)


def _dump_of(image: Image, changed: dict[int, bytes]) -> bytes:
    magic = image.seed.files[0].read(0, len(DUMP_MAGIC_V0))
    dump = b""
    for cluster in image.clusters:
        bodies = []
        for piece in cluster.pieces:
            data = bytearray(piece.data)
            for vaddr, block in changed.items():
                at = vaddr - piece.vaddr
                if 0 <= at < len(data):
                    data[at : at + len(block)] = block
            bodies.append(zlib.compress(data) if cluster.compressed else bytes(data))
        head = magic + CLUSTER.pack(0, len(dump), len(bodies), cluster.compressed)[8:]
        head += b"".join(
            CLUSTER_ITEM.pack(piece.vaddr, len(body))
            for piece, body in zip(cluster.pieces, bodies, strict=True)
        )
        dump += head.ljust(DUMP_CLUSTER_ALIGNMENT, b"\0") + b"".join(bodies)
        dump += bytes(-len(dump) % DUMP_CLUSTER_ALIGNMENT)
    return dump


def _patched(data: bytes, change: Change) -> bytes:
    new = bytes.fromhex(change.data)[: max(0, len(data) - change.at)]
    return data[: change.at] + new + data[change.at + len(new) :]


# Choosing.

_SUPER_FIELDS = (
    *((at, 8) for at in (0x30, 0x38, 0x48, 0x50, 0x58, 0x60, 0x70, 0x78, 0x80, 0x88)),
    *((at, 4) for at in (0x90, 0x94, 0x98, 0x9C, 0xA0)),
    *((at, 8) for at in (0xA4, 0xAC, 0xB4, 0xBC)),
    (0xC4, 2),
    *((at, 1) for at in (0xC6, 0xC7, 0xC8)),
    # The device item.
    *((0xC9 + at, 8) for at in (0, 8, 16, 36, 44, 52)),
    *((0xC9 + at, 4) for at in (24, 28, 32, 60)),
    *((at, 8) for at in (0x20, 0x28, 0x22B, 0x233, 0x23B, 0x243)),
)
"""Where the fields of a superblock are, and how large."""

_SYS_CHUNKS, _SYS_CHUNKS_SIZE = 0x32B, 0xA0
_BACKUPS, _BACKUP_SIZE, _BACKUP_COUNT = 0xB2B, 168, 4
_BACKUP_FIELDS = (*((at, 8) for at in range(0, 120, 8)), *((at, 1) for at in range(152, 158)))
_LABEL, _LABEL_SIZE = 0x12B, 256

_HEADER_FIELDS = ((32, 8), (48, 8), (56, 8), (64, 8), (80, 8), (88, 8), (96, 4), (100, 1))

_KEY_TYPES = (
    *(0, 1, 12, 13, 24, 36, 37, 48, 60, 72, 84, 96, 108, 128, 132, 144, 156, 168, 169, 172, 176),
    *(178, 180, 182, 184, 192, 198, 199, 200, 204, 216, 228, 230, 240, 242, 244, 246, 248, 249),
    *(250, 251, 252, 253, 255),
)

_BOUNDARIES = (
    *(0, 1, 2, 3, 5, 8, 16, 100, 255, 256, 257, 512, 4095, 4096, 4097, 16384, 65535, 65536, 65537),
    *(1 << 20, 1 << 24, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 50),
    *((1 << 60), (1 << 63) - 4096, (1 << 63) - 1, 1 << 63, (1 << 64) - 4096),
    *((1 << 64) - 256, (1 << 64) - 9, (1 << 64) - 2, (1 << 64) - 1),
)

_BLOCK_GROUP_FLAGS = (
    1,
    2,
    4,
    3,
    5,
    6,
    7,
    *(1 << bit for bit in range(3, 12)),
    0x18,
    0x1FF,
    1 << 48,
)


class Mutator:
    """Chooses changes to an image.

    Args:
        image: The image.
        choose: Makes all choices.
    """

    def __init__(self, image: Image, choose: random.Random) -> None:
        self._image = image
        self._choose = choose
        self._kind = ""
        self._blocks = list(image.blocks.values())

    def changes(self) -> list[Change]:
        """Return one change, or a few."""
        changes: list[Change] = []
        wanted = min(self._choose.randint(1, MOST_CHANGES), self._choose.randint(1, MOST_CHANGES))
        kinds = KINDS_OF_DUMPS if self._image.seed.dump else KINDS_OF_DEVICES
        for _ in range(20):
            if len(changes) >= wanted:
                break
            self._kind = self._choose.choices(list(kinds), list(kinds.values()))[0]
            method: Callable[[], list[Change]] = getattr(self, f"_{self._kind}")
            changes += method()
        return changes

    # Choices that all kinds make.

    def _copy(self) -> int | None:
        return self._choose.randrange(4) if self._choose.random() < 0.15 else None

    def _block(self, *, leaf: bool | None = None) -> Block | None:
        """Return a block, of each tree as likely as of any other."""
        trees = list(self._image.trees.values())
        blocks = [self._image.blocks[vaddr] for vaddr in self._choose.choice(trees)]
        if leaf is not None:
            blocks = [b for b in blocks if (b.level == 0) == leaf and b.count] or [
                b for b in self._blocks if (b.level == 0) == leaf and b.count
            ]
        return self._choose.choice(blocks) if blocks else None

    def _leaf_item(self) -> tuple[Block, int, Item] | None:
        """Return an item: its leaf, index and place; each type as likely as any other."""
        leaf = self._block(leaf=True)
        if leaf is None:
            return None
        by_type: dict[int, list[tuple[int, Item]]] = defaultdict(list)
        for index, item in enumerate(leaf.items()):
            by_type[item.key[1]].append((index, item))
        index, item = self._choose.choice(self._choose.choice(list(by_type.values())))
        return leaf, index, item

    def _number(self, size: int, now: int) -> bytes:
        """Return a number for a field of so many bytes that it may not be ready for."""
        choose = self._choose
        way = choose.randrange(8)
        if way == 0:
            number = now + choose.choice((-1, 1, -4096, 4096, 65536, 8, -8))
        elif way == 1:
            number = now ^ (1 << choose.randrange(8 * size))
        elif way == 2:
            number = choose.randrange(1 << (8 * size))
        elif way == 3:
            number = choose.choice(self._blocks).vaddr
        elif way == 4:
            number = choose.choice(_BLOCK_GROUP_FLAGS)
        elif way == 5:
            number = choose.choice((now * 2, now // 2, -now, now + (1 << 63)))
        else:
            number = choose.choice(_BOUNDARIES)
        return (number & ((1 << (8 * size)) - 1)).to_bytes(size, "little")

    def _patch(self, block: Block, at: int, data: bytes, copy: int | None = None) -> Change:
        return Change(self._kind, "block", block.vaddr, at, data.hex(), copy)

    def _field(self, block: Block, at: int, size: int) -> list[Change]:
        """Change a number in a block."""
        size = max(0, min(size, len(block.data) - at))
        now = int.from_bytes(block.data[at : at + size], "little")
        return [self._patch(block, at, self._number(size, now), self._copy())] if size else []

    def _with_keys_above(self, block: Block, key: bytes) -> list[Change]:
        """Let the nodes above a block expect another first key."""
        changes = []
        while block.above is not None:
            vaddr, index = block.above
            block = self._image.blocks[vaddr]
            changes.append(self._patch(block, HEADER_SIZE + index * POINTER_SIZE, key))
            if index:
                break
        return changes

    # Tree blocks. Each method returns changes of the kind that it is called.

    def _header(self) -> list[Change]:
        block = self._block()
        return self._field(block, *self._choose.choice(_HEADER_FIELDS)) if block else []

    def _key(self) -> list[Change]:
        block = self._block(leaf=self._choose.random() < 0.8)
        if block is None:
            return []
        index = self._choose.randrange(block.count)
        record = HEADER_SIZE + index * (POINTER_SIZE if block.level else ITEM_SIZE)
        part = self._choose.randrange(3)
        at, size = ((0, 8), (8, 1), (9, 8))[part]
        now = int.from_bytes(block.data[record + at : record + at + size], "little")
        new = self._number(size, now)
        if part == 1:
            new = bytes([self._choose.choice(_KEY_TYPES)])
        changes = [self._patch(block, record + at, new)]
        if index == 0 and self._choose.random() < 0.7:
            key = bytearray(block.first_key)
            key[at : at + size] = new
            changes += self._with_keys_above(block, bytes(key))
        return changes

    def _place(self) -> list[Change]:
        """Change where the body of an item is, and how long."""
        found = self._leaf_item()
        if found is None:
            return []
        leaf, index, item = found
        record = HEADER_SIZE + index * ITEM_SIZE + KEY_SIZE
        if self._choose.random() < 0.3:
            return self._field(leaf, record + self._choose.choice((0, 4)), 4)
        # Somewhere else in the same block, where it may overlap with others.
        start = self._choose.randrange(leaf.count * ITEM_SIZE, len(leaf.data) - HEADER_SIZE)
        most = len(leaf.data) - HEADER_SIZE - start
        size = self._choose.choice((most, self._choose.randint(0, most), min(most, item.size)))
        return [self._patch(leaf, record, ITEM.pack(0, 0, 0, start, size)[KEY_SIZE:])]

    def _size(self) -> list[Change]:
        """Cut off a body, or let it go on into the next one."""
        found = self._leaf_item()
        if found is None:
            return []
        leaf, index, item = found
        most = len(leaf.data) - item.start
        size = self._choose.choice((0, 1, max(0, item.size - 1), min(most, item.size + 1), most))
        if self._choose.random() < 0.5:
            size = self._choose.randint(0, min(most, 2 * item.size))
        at = HEADER_SIZE + index * ITEM_SIZE + KEY_SIZE + 4
        return [self._patch(leaf, at, size.to_bytes(4, "little"))]

    def _body(self) -> list[Change]:
        """Change a number in the body of an item."""
        found = self._leaf_item()
        if found is None or not found[2].size:
            return []
        leaf, _, item = found
        at = self._choose.randrange(item.size)
        if self._choose.random() < 0.6:
            at -= at % 8
        return self._field(leaf, item.start + at, self._choose.choice((1, 2, 4, 8, 8)))

    def _bits(self) -> list[Change]:
        """Flip bits in the body of an item."""
        found = self._leaf_item()
        if found is None or not found[2].size:
            return []
        leaf, _, item = found
        body = bytearray(leaf.data[item.start : item.start + item.size])
        for _ in range(self._choose.randint(1, 8)):
            body[self._choose.randrange(len(body))] ^= 1 << self._choose.randrange(8)
        return [self._patch(leaf, item.start, bytes(body), self._copy())]

    def _type(self) -> list[Change]:
        """Let the body of an item be taken for one of another type, where the order allows it."""
        found = self._leaf_item()
        if found is None:
            return []
        leaf, index, _ = found
        at = HEADER_SIZE + index * ITEM_SIZE + 8
        return [self._patch(leaf, at, bytes([self._choose.choice(_KEY_TYPES)]))]

    def _swap(self) -> list[Change]:
        """Put one block in the place of another, with or without the right address and so on."""
        block, other = self._block(), self._block()
        if block is None or other is None:
            return []
        data = bytearray(other.data)
        if self._choose.random() < 0.8:
            data[48:56] = block.data[48:56]
        if self._choose.random() < 0.8:
            data[80:88] = block.data[80:88]
        changes = [self._patch(block, 0, bytes(data), self._copy())]
        if self._choose.random() < 0.7:
            changes += self._with_keys_above(block, other.first_key)
        return changes

    def _pointer(self) -> list[Change]:
        """Let a node point to itself, to its parent, or to any block of any tree."""
        node = self._block(leaf=False)
        if node is None:
            return []
        index = self._choose.randrange(node.count)
        target = self._choose.choice(
            (node, *(b for b in self._blocks if b.level == node.level - 1), *self._blocks)
        )
        record = HEADER_SIZE + index * POINTER_SIZE
        if self._choose.random() < 0.2:
            return self._field(node, record + KEY_SIZE + self._choose.choice((0, 8)), 8)
        key = target.first_key if self._choose.random() < 0.7 else node.data[record:][:KEY_SIZE]
        pointer = POINTER.pack(0, 0, 0, target.vaddr, target.generation)[KEY_SIZE:]
        return [self._patch(node, record, key + pointer)]

    def _root(self) -> list[Change]:
        """Let a tree begin at any block."""
        target = self._choose.choice(self._blocks)
        roots = [
            (block, item)
            for block in self._blocks
            if block.level == 0 and block.tree in (images.ROOT_TREE, images.LOG_TREES)
            for item in block.items()
            if item.key[1] == ROOT_ITEM and item.size > images.ROOT_ITEM_LEVEL
        ]
        if not roots or self._choose.random() < 0.2:
            return self._root_in_super(target)
        block, item = self._choose.choice(roots)
        return self._point_root(block, item.start, target)

    def _point_root(self, block: Block, start: int, target: Block) -> list[Change]:
        fields = [
            (images.ROOT_ITEM_BYTENR, 8, target.vaddr),
            (images.ROOT_ITEM_GENERATION, 8, target.generation),
            (images.ROOT_ITEM_LEVEL, 1, target.level),
        ]
        if self._choose.random() < 0.2:
            fields = [self._choose.choice(fields)]
        return [
            self._patch(block, start + at, number.to_bytes(size, "little"))
            for at, size, number in fields
        ]

    def _root_in_super(self, target: Block) -> list[Change]:
        address, generation, level = self._choose.choice(list(images.SUPER_POINTERS.values()))
        fields = [(address, 8, target.vaddr), (level, 1, target.level)]
        if generation is not None:
            fields.append((generation, 8, target.generation))
        return [
            Change(self._kind, "super", -1, at, number.to_bytes(size, "little").hex())
            for at, size, number in fields
        ]

    def _deeper(self) -> list[Change]:
        """Put a node, or several, between the root of a tree and what it points to."""
        roots = [block for block in self._blocks if block.above is None]
        root, victim = self._choose.choice(roots), self._choose.choice(self._blocks)
        below = sorted(
            {block.first_key: block for block in self._choose.choices(self._blocks, k=3)}.values(),
            key=lambda block: KEY.unpack(block.first_key),
        )
        level = self._choose.choice((root.level + 1, root.level + 1, 2, 7, 8, 255))
        if level == root.level + 1 and self._choose.random() < 0.7:
            below = [root]
        pointers = b"".join(
            block.first_key + POINTER.pack(0, 0, 0, block.vaddr, block.generation)[KEY_SIZE:]
            for block in below
        )
        nritems = len(below).to_bytes(4, "little")
        changes = [self._patch(victim, 96, nritems + bytes([level]) + pointers)]
        for block in self._blocks:
            for item in block.items() if block.level == 0 else []:
                if item.key[:2] == (root.tree, ROOT_ITEM) and item.size > images.ROOT_ITEM_LEVEL:
                    made = dataclasses.replace(victim, level=level)
                    return changes + self._point_root(block, item.start, made)
        return changes + self._root_in_super(dataclasses.replace(victim, level=level))

    def _leaf(self) -> list[Change]:
        """Fill a leaf with items of any kind from anywhere."""
        leaf = self._block(leaf=True)
        if leaf is None:
            return []
        donors = [
            (item.key, block.data[item.start : item.start + item.size])
            for block in self._choose.choices(self._blocks, k=3)
            if block.level == 0
            for item in block.items()
        ]
        first = KEY.unpack(leaf.first_key)
        items = {first: donors[0][1] if donors else b""}
        for key, body in self._choose.sample(donors, min(len(donors), 20)):
            wanted = list(key)
            if self._choose.random() < 0.5:
                wanted[0] = self._choose.choice((first[0], first[0] + 1, (1 << 64) - 9))
            if self._choose.random() < 0.2:
                wanted[1] = self._choose.choice(_KEY_TYPES)
            made = (wanted[0] & ((1 << 64) - 1), wanted[1], wanted[2])
            if made > first:
                items[made] = body
        return [self._patch(leaf, 96, _leaf_of(items, len(leaf.data)))]

    # Superblocks.

    def _super(self) -> list[Change]:
        at, size = self._choose.choice(_SUPER_FIELDS)
        return self._super_field(at, size)

    def _super_field(self, at: int, size: int) -> list[Change]:
        file, address = self._choose.choice(self._image.supers)
        data = images.read_super(self._image.seed, self._image.clusters, (file, address))
        now = int.from_bytes(data[at : at + size], "little")
        number = self._choose.choice((-1, file))
        new = self._number(size, now).hex()
        return [Change(self._kind, "super", number, at, new, self._copy())]

    def _sys_chunks(self) -> list[Change]:
        file, address = self._image.supers[0]
        data = images.read_super(self._image.seed, self._image.clusters, (file, address))
        used = int.from_bytes(data[_SYS_CHUNKS_SIZE : _SYS_CHUNKS_SIZE + 4], "little")
        size = self._choose.choice((1, 2, 4, 8, 8))
        at = self._choose.randrange(max(1, used))
        return self._super_field(_SYS_CHUNKS + at, size)

    def _backups(self) -> list[Change]:
        at, size = self._choose.choice(_BACKUP_FIELDS)
        return self._super_field(
            _BACKUPS + self._choose.randrange(_BACKUP_COUNT) * _BACKUP_SIZE + at, size
        )

    def _label(self) -> list[Change]:
        label = self._choose.randbytes(_LABEL_SIZE).hex()
        return [Change(self._kind, "super", -1, _LABEL, label)]

    # Whole files, and what has no checksum.

    def _scribble(self) -> list[Change]:
        """Overwrite a block or a superblock, or a part of it, and leave the checksum as it is."""
        block = self._block()
        if block is None or self._choose.random() < 0.2:
            at = self._choose.randrange(SUPER_SIZE)
            data, target, number = self._garbage(SUPER_SIZE - at), "super", -1
        else:
            at = self._choose.choice((0, self._choose.randrange(len(block.data))))
            data, target, number = self._garbage(len(block.data) - at), "block", block.vaddr
        copy = self._choose.choice((None, 0, 1, 2))
        return [Change(self._kind, target, number, at, data.hex(), copy, fix=False)]

    def _garbage(self, most: int) -> bytes:
        size = self._choose.choice((1, min(most, 64), most))
        return self._choose.choice((bytes(size), b"\xff" * size, self._choose.randbytes(size)))

    def _cut(self) -> list[Change]:
        number = self._choose.randrange(len(self._image.seed.files))
        file = self._image.seed.files[number]
        last = max(file.pages, default=0) * 4096
        size = self._choose.choice(
            (0, 1000, 65536 + 2000, self._choose.randint(0, last), self._choose.randint(0, last))
        )
        return [Change(self._kind, "cut", number, size)]

    def _missing(self) -> list[Change]:
        number = self._choose.randrange(len(self._image.seed.files))
        return [Change(self._kind, self._choose.choice(("missing", "missing", "twice")), number)]

    def _cluster(self) -> list[Change]:
        """Change the header of a cluster, or a record in it."""
        data = self._image.seed.files[0].read(0, DUMP_CLUSTER_ALIGNMENT)
        _, _, count, _ = CLUSTER.unpack_from(data)
        record = CLUSTER.size + self._choose.randrange(count + 1) * CLUSTER_ITEM.size
        fields = ((0, 8), (8, 8), (16, 4), (20, 1), (record, 8), (record + 8, 4), (record + 8, 4))
        at, size = self._choose.choice(fields)
        now = int.from_bytes(data[at : at + size], "little")
        return [Change(self._kind, "cluster", 0, at, self._number(size, now).hex())]

    def _stored(self) -> list[Change]:
        """Change what is stored in a dump as it is stored: compressed data, for instance."""
        file = self._image.seed.files[0]
        at = self._choose.randrange(DUMP_CLUSTER_ALIGNMENT, file.size)
        garbage = self._garbage(min(64, file.size - at))
        return [Change(self._kind, "cluster", 0, at, garbage.hex())]


def _leaf_of(items: dict[tuple[int, int, int], bytes], nodesize: int) -> bytes:
    """Return a leaf of these items, from the number of items in its header on."""
    records, bodies, end = b"", b"", nodesize - HEADER_SIZE
    count = 0
    for key in sorted(items):
        body = items[key]
        if (count + 1) * ITEM_SIZE + len(bodies) + len(body) > nodesize - HEADER_SIZE:
            continue
        end -= len(body)
        records += ITEM.pack(*key, end, len(body))
        bodies = body + bodies
        count += 1
    space = bytes(nodesize - HEADER_SIZE - len(records) - len(bodies))
    return count.to_bytes(4, "little") + b"\0" + records + space + bodies


assert HEADER.size == HEADER_SIZE

_KINDS = {
    "header": 6,
    "key": 8,
    "place": 6,
    "size": 8,
    "body": 24,
    "bits": 8,
    "type": 4,
    "swap": 3,
    "pointer": 6,
    "root": 6,
    "deeper": 3,
    "leaf": 6,
    "super": 8,
    "backups": 1,
    "label": 1,
    "scribble": 4,
    "cut": 2,
}
"""How often each kind is chosen."""

KINDS_OF_DEVICES = {**_KINDS, "sys_chunks": 5, "missing": 3}
KINDS_OF_DUMPS = {**_KINDS, "cluster": 12, "stored": 6}
