"""Back references as rows are what a plain version finds, wherever the batches of items end."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, strategies as st

from btrfs.check.extent_items import backrefs_between, extents_of, inline_backrefs
from btrfs.check.items import ItemFormat, ItemRules
from btrfs.check.items.extents import check_inline_refs
from btrfs.check.referrers import Referrers
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.constants import (
    EXTENT_DATA_REF_KEY,
    EXTENT_ITEM_KEY,
    EXTENT_OWNER_REF_KEY,
    EXTENT_TREE_OBJECTID,
    METADATA_ITEM_KEY,
    SHARED_BLOCK_REF_KEY,
    SHARED_DATA_REF_KEY,
    TREE_BLOCK_REF_KEY,
)

NODESIZE = 16384
DATA, TREE_BLOCK = 1, 2

Row = tuple[int, ...]
"""Address and length of an extent, type, origin, inode number, offset, and number of uses."""


class Item(NamedTuple):
    """An item of the extent tree."""

    objectid: int
    type: int
    offset: int
    body: bytes


# Items at random.

NUMBER = st.integers(0, (1 << 64) - 1)
COUNT = st.integers(0, (1 << 32) - 1)
FILE = st.tuples(NUMBER, NUMBER, NUMBER, COUNT)


def inline(kind: int, *values: int) -> bytes:
    return bytes([kind]) + struct.pack(f"<{'Q' * len(values)}", *values)


OF_DATA = st.one_of(
    FILE.map(lambda row: bytes([EXTENT_DATA_REF_KEY]) + struct.pack("<QQQI", *row)),
    st.tuples(NUMBER, COUNT).map(
        lambda row: bytes([SHARED_DATA_REF_KEY]) + struct.pack("<QI", *row)
    ),
    NUMBER.map(lambda root: inline(EXTENT_OWNER_REF_KEY, root)),
)
OF_BLOCK = st.one_of(
    NUMBER.map(lambda root: inline(TREE_BLOCK_REF_KEY, root)),
    NUMBER.map(lambda parent: inline(SHARED_BLOCK_REF_KEY, parent)),
)


@st.composite
def items_of_an_extent(draw: st.DrawFn, vaddr: int) -> list[Item]:
    """Return the item of an extent, and back references behind it."""
    is_data = draw(st.booleans())
    refs = b"".join(draw(st.lists(OF_DATA if is_data else OF_BLOCK, max_size=4)))
    head = struct.pack("<QQQ", draw(NUMBER), draw(NUMBER), DATA if is_data else TREE_BLOCK)
    if is_data:
        items = [Item(vaddr, EXTENT_ITEM_KEY, draw(st.integers(1, 1 << 27)), head + refs)]
        keyed = draw(st.lists(st.tuples(NUMBER, FILE), max_size=4, unique_by=lambda row: row[0]))
        items += [
            Item(vaddr, EXTENT_DATA_REF_KEY, offset, struct.pack("<QQQI", *row))
            for offset, row in sorted(keyed)
        ]
    else:
        items = [Item(vaddr, METADATA_ITEM_KEY, draw(st.integers(0, 7)), head + refs)]
        parents = draw(st.lists(NUMBER, max_size=3, unique=True))
        items += [Item(vaddr, SHARED_BLOCK_REF_KEY, parent, b"") for parent in sorted(parents)]
    return items


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Return items of the extent tree, in order."""
    count = draw(st.integers(0, 6))
    parts = [draw(items_of_an_extent((number + 1) << 30)) for number in range(count)]
    return [item for part in parts for item in part]


def batch_of(rows: list[Item]) -> ItemBatch:
    sizes = [len(row.body) for row in rows]
    return ItemBatch(
        np.frombuffer(b"".join(row.body for row in rows) + bytes(32), np.uint8),
        np.array([row.objectid for row in rows], np.uint64),
        np.array([row.type for row in rows], np.uint8),
        np.array([row.offset for row in rows], np.uint64),
        np.zeros(len(rows), np.uint64),
        np.cumsum([0, *sizes], dtype=np.int64)[:-1],
        np.array(sizes, np.uint32),
    )


# A plain version.


def plain_rows(rows: list[Item]) -> Iterator[Row]:
    """Yield the back references of items, one by one."""
    extent = (0, 0)
    for row in rows:
        if row.type in (EXTENT_ITEM_KEY, METADATA_ITEM_KEY):
            length = row.offset if row.type == EXTENT_ITEM_KEY else NODESIZE
            extent = (row.objectid, length)
            yield from ((*extent, *ref) for ref in plain_inline(row.body[24:]))
        elif row.type == EXTENT_DATA_REF_KEY:
            yield (*extent, row.type, *struct.unpack("<QQQI", row.body))
        else:
            yield (*extent, row.type, row.offset, 0, 0, 1)


def plain_inline(body: bytes) -> Iterator[Row]:
    while body:
        kind = body[0]
        if kind == EXTENT_DATA_REF_KEY:
            yield (kind, *struct.unpack_from("<QQQI", body, 1))
            body = body[29:]
        elif kind == SHARED_DATA_REF_KEY:
            parent, count = struct.unpack_from("<QI", body, 1)
            yield (kind, parent, 0, 0, count)
            body = body[13:]
        else:
            if kind != EXTENT_OWNER_REF_KEY:
                yield (kind, *struct.unpack_from("<Q", body, 1), 0, 0, 1)
            body = body[9:]


class FakeFileSystem:
    """Has an extent tree alone, in batches that end where one likes."""

    nodesize = NODESIZE

    def __init__(self, rows: list[Item], borders: list[int]) -> None:
        ends = [*sorted(min(border, len(rows)) for border in borders), len(rows)]
        begins = [0, *ends[:-1]]
        self._parts = [rows[begin:end] for begin, end in zip(begins, ends, strict=True)]

    def batches(self, tree: int, *_keys: Any) -> Iterator[ItemBatch]:
        """Yield the items."""
        assert tree == EXTENT_TREE_OBJECTID
        return (batch_of(part) for part in self._parts if part)


@given(items(), st.lists(st.integers(0, 40), max_size=5))
def test_rows(rows: list[Item], borders: list[int]) -> None:
    fs: Any = FakeFileSystem(rows, borders)
    parts = [part for _, part in backrefs_between(fs, 0, 1 << 63)]
    found = Referrers.concatenated(parts)
    columns = (column.tolist() for column in found)
    assert Counter(zip(*columns, strict=True)) == Counter(plain_rows(rows))


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=120)), min_size=1, max_size=6))
def test_bodies_at_random(bodies: list[tuple[bool, bytes]]) -> None:
    """Whatever is in an item, nothing is read that is not in it, and what is wrong is told."""
    rows = [
        Item((number + 1) << 20, METADATA_ITEM_KEY if is_skinny else EXTENT_ITEM_KEY, 0, body)
        for number, (is_skinny, body) in enumerate(bodies)
    ]
    batch = batch_of(rows)
    extents = extents_of(batch, NODESIZE)
    inline_refs = inline_backrefs(batch, extents)
    rules = ItemRules(ItemFormat(4096, NODESIZE, 4, 100, 1 << 8))
    checked = rules.items(batch, np.zeros(len(rows)), EXTENT_TREE_OBJECTID)
    check_inline_refs(checked, extents, inline_refs)
    problems = [
        *checked.problems,
        *rules.check(batch, np.zeros(len(rows)), EXTENT_TREE_OBJECTID),
    ]
    damaged = {problem.key.objectid for problem in problems}
    unclear = ~(inline_refs.is_whole & extents.has_kind)
    assert set(extents.vaddr[unclear].tolist()) <= damaged
    assert len(inline_refs.extent) == len(inline_refs.rows.extent)
