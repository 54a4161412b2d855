"""The array functions of the ownership engine beside plain counts of twenty lines."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, pairwise

import numpy as np
from hypothesis import given, settings, strategies as st

from btrfs.ownership.extents import data_extents, reference_table
from btrfs.ownership.names import _pieces
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
    assert _pieces(buffer, begin, length).tobytes() == expected


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
