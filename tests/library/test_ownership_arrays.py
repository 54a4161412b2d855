"""The array functions of the ownership engine beside plain counts of twenty lines."""

from __future__ import annotations

import struct
from collections import defaultdict
from itertools import chain, pairwise

import numpy as np
from hypothesis import given, settings, strategies as st

from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.constants import (
    EXTENT_DATA_KEY,
    INODE_EXTREF_KEY,
    INODE_ITEM_KEY,
    INODE_REF_KEY,
)
from btrfs.ownership.extents import data_extents, reference_table
from btrfs.ownership.names import pieces_of, name_parts
from btrfs.ownership.references import PREALLOCATED, reference_rows
from btrfs.ownership.root_sets import RootSets, mask_of
from btrfs.ownership.tables import TableBuilder
from btrfs.source.disk.pointers import Keys

Pieces = tuple[list[tuple[int, ...]], list[int]]

MASKS = st.integers(0, 2**70 - 1)


@given(st.lists(st.lists(MASKS, min_size=1, max_size=9), max_size=30))
def test_unions(groups: list[list[int]]) -> None:
    sets = RootSets()
    ids = np.array([sets.id_of(mask) for mask in chain(*groups)], np.uint32)
    lengths = [len(group) for group in groups]
    first = np.cumsum([0, *lengths])[: len(groups)].astype(np.int64)
    expected = []
    for group in groups:
        union = 0
        for mask in group:
            union |= mask
        expected.append(union)
    assert [sets.masks[number] for number in sets.unions(ids, first).tolist()] == expected


@given(st.lists(MASKS, max_size=40), MASKS)
def test_members(masks: list[int], roots: int) -> None:
    sets = RootSets()
    for mask in masks:
        sets.id_of(mask)
    for number, mask in enumerate(sets.masks):
        assert sets.within(roots)[number] == (mask != 0 and mask | roots == roots)
        assert sets.meeting(roots)[number] == (mask & roots != 0)
    for some, table in sets.members(70):
        for mask, row in zip(sets.masks[some], table, strict=True):
            assert mask_of(np.flatnonzero(row).tolist()) == mask


@st.composite
def pieces(draw: st.DrawFn) -> Pieces:
    """Return rows of extents that are what each address says, and the set of each leaf."""
    leaves = draw(st.lists(st.integers(0, 7), min_size=1, max_size=6))
    sizes = draw(
        st.dictionaries(
            st.integers(1, 12),
            st.tuples(st.integers(1, 9), st.integers(1, 20), st.sampled_from([0, 1, 3])),
            min_size=1,
        )
    )
    rows: list[tuple[int, ...]] = []
    for _ in range(draw(st.integers(0, 40))):
        extent = draw(st.sampled_from(sorted(sizes)))
        disk, ram, compression = sizes[extent]
        # Of what is not compressed, ram_bytes may be wrong.
        whole = ram if compression else disk
        offset = draw(st.integers(0, whole - 1))
        length = draw(st.integers(1, whole - offset))
        leaf = draw(st.integers(0, len(leaves) - 1))
        inum, position = draw(st.integers(256, 260)), draw(st.integers(0, 100))
        rows.append((extent, disk, ram, offset, length, compression, inum, position, leaf))
    return rows, leaves


@given(pieces(), st.sampled_from([None, 256, 1000]))
@settings(deadline=None)
def test_usage_of_extents(made: Pieces, memory: int | None) -> None:
    rows, masks = made
    sets = RootSets()
    leaf_sets = np.array([sets.id_of(mask) for mask in masks], np.uint32)
    table = reference_table(memory)
    dtypes = ("u8", "u4", "u4", "u4", "u4", "u1", "u8", "u8", "u4")
    for row in rows:
        table.append([np.array([value], dtype) for value, dtype in zip(row, dtypes, strict=True)])
    extents, references = data_extents(table, leaf_sets, sets, memory)
    reached: dict[int, set[int]] = defaultdict(set)
    users: dict[int, int] = defaultdict(int)
    for extent, _, _, offset, length, _, _, _, leaf in rows:
        if masks[leaf]:
            reached[extent].update(range(offset, offset + length))
            users[extent] |= masks[leaf]
    assert extents.vaddr.tolist() == sorted(users)
    for index, extent in enumerate(sorted(users)):
        assert sets.masks[extents.set_id[index]] == users[extent]
        disk, ram, *_, compression = next(row[1:6] for row in rows if row[0] == extent)
        whole = ram if compression else disk
        assert extents.ram_bytes[index] == whole
        assert extents.compression[index] == compression
        assert extents.unreachable[index] == disk * (whole - len(reached[extent])) // whole
    used = [row for row in rows if masks[row[-1]]]
    back = list(
        zip(
            extents.vaddr[references.extent].tolist(),
            references.offset.tolist(),
            references.num_bytes.tolist(),
            references.inum.tolist(),
            references.position.tolist(),
            references.leaf.tolist(),
            strict=True,
        )
    )
    assert sorted(back) == sorted((row[0], *row[3:5], *row[6:]) for row in used)
    bounds = [*extents.first.tolist(), len(references)]
    for index, (begin, end) in enumerate(pairwise(bounds)):
        assert set(references.extent[begin:end].tolist()) == {index}


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 255)), max_size=5)),
    st.sampled_from([None, 0, 20]),
)
def test_table(batches: list[list[tuple[int, int]]], memory: int | None) -> None:
    builder = TableBuilder(["u8", "u1"], memory)
    for batch in batches:
        builder.append(
            [
                np.array([row[column] for row in batch], dtype)
                for column, dtype in enumerate(("u8", "u1"))
            ]
        )
    rows = list(chain(*batches))
    assert builder.rows == len(rows)
    assert list(zip(*(column.tolist() for column in builder.finish()), strict=True)) == rows


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 10)), max_size=20))
def test_pieces_of_a_buffer(places: list[tuple[int, int]]) -> None:
    buffer = np.arange(100, dtype=np.uint8)
    begin = np.array([at for at, _ in places], np.int64)
    length = np.array([size for _, size in places], np.uint16)
    expected = b"".join(bytes(range(at, at + size)) for at, size in places)
    assert pieces_of(buffer, begin, length).tobytes() == expected


KEYS = st.integers(1, 2**136 - 1)


@given(st.lists(st.tuples(KEYS, KEYS), min_size=1))
def test_keys(pairs: list[tuple[int, int]]) -> None:
    left, right = (Keys.of([pair[side] for pair in pairs]) for side in (0, 1))
    assert left.are_below(right).tolist() == [one < other for one, other in pairs]
    assert left.equal(left).all()
    before = left.before()
    for index, (one, _) in enumerate(pairs):
        assert left.number(index) == one
        assert before.number(index) == one - 1


def batch_of(items: list[tuple[tuple[int, int, int], bytes]]) -> ItemBatch:
    """Return items of these keys and bodies."""
    bodies = [body for _, body in items]
    size = np.array([len(body) for body in bodies], np.uint32)
    # Whatever reads on beyond a body finds something.
    buffer = np.frombuffer(b"".join(bodies) + b"\xff" * 64, np.uint8)
    return ItemBatch(
        buffer,
        np.array([key[0] for key, _ in items], np.uint64),
        np.array([key[1] for key, _ in items], np.uint8),
        np.array([key[2] for key, _ in items], np.uint64),
        np.ones(len(items), np.uint64),
        np.cumsum(size, dtype=np.int64) - size,
        size,
    )


def file_extent(
    ram_bytes: int, compression: int, kind: int, *rest: int, content: bytes = b""
) -> bytes:
    """Return the body of a file extent item (struct btrfs_file_extent_item)."""
    head = struct.pack("<QQBBHB", 1, ram_bytes, compression, 0, 0, kind)
    return head + struct.pack(f"<{len(rest)}Q", *rest) + content


def test_file_extents_that_cannot_be_right_are_reported() -> None:
    key = (257, EXTENT_DATA_KEY, 0)
    batch = batch_of(
        [
            ((256, INODE_ITEM_KEY, 0), b"something else"),
            (key, file_extent(8192, 3, 1, 1 << 20, 4096, 512, 7680)),
            (key, file_extent(4096, 0, 1, 0, 0, 0, 4096)),
            (key, file_extent(4096, 0, 2, 2 << 20, 4096, 0, 4096)),
            (key, file_extent(9, 1, 0, content=b"inline")),
            (key, b"too short"),
            (key, file_extent(4096, 0, 1, 3 << 20, 4096)),
            (key, file_extent(4096, 0, 1, 3 << 20, 1 << 32, 0, 4096)),
            (key, file_extent(4096, 0, 1, 3 << 20, 4096, 0, 1 << 63)),
        ]
    )
    rows, inline, bad = reference_rows(batch, np.arange(9, dtype=np.uint32))
    assert sorted(bad.tolist()) == [5, 6, 7, 8]
    assert list(zip(*(column.tolist() for column in rows), strict=True)) == [
        (1 << 20, 4096, 8192, 512, 7680, 3, 257, 0, 1),
        (2 << 20, 4096, 4096, 0, 4096, PREALLOCATED, 257, 0, 3),
    ]
    assert [column.tolist() for column in inline] == [[6], [9], [1], [257], [4]]


def test_names_that_cannot_be_right_are_reported() -> None:
    def ref(name: bytes, length: int | None = None) -> bytes:
        return struct.pack("<QH", 2, len(name) if length is None else length) + name

    def extref(parent: int, name: bytes) -> bytes:
        return struct.pack("<QQH", parent, 2, len(name)) + name

    inode = bytes(160)
    batch = batch_of(
        [
            ((257, INODE_ITEM_KEY, 0), inode),
            ((258, INODE_ITEM_KEY, 0), inode[:-1]),
            ((257, INODE_REF_KEY, 256), ref(b"one") + ref(b"another")),
            ((258, INODE_REF_KEY, 256), ref(b"whole") + ref(b"cut", 4)),
            ((259, INODE_REF_KEY, 256), ref(b"whole, too") + b"rest"),
            ((260, INODE_REF_KEY, 256), b""),
            ((261, INODE_EXTREF_KEY, 77), extref(300, b"far") + extref(301, b"away")),
        ]
    )
    parts = name_parts(batch, np.arange(7, dtype=np.uint32))
    assert sorted(parts.bad.tolist()) == [1, 3, 4, 5]
    assert parts.inodes[0].tolist() == [257]
    lengths = parts.links[3].tolist()
    ends = np.cumsum(lengths).tolist()
    data = parts.names.tobytes()
    names = [data[end - size : end] for end, size in zip(ends, lengths, strict=True)]
    inums, parents = parts.links[0].tolist(), parts.links[1].tolist()
    assert sorted(zip(inums, parents, names, strict=True)) == [
        (257, 256, b"another"),
        (257, 256, b"one"),
        (258, 256, b"whole"),
        (259, 256, b"whole, too"),
        (261, 300, b"far"),
        (261, 301, b"away"),
    ]
