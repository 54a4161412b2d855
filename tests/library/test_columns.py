"""Bulk reading: columns hold what the objects hold."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs import FileSystem, ctree
from btrfs.ctree import ItemData, SearchHeader
from btrfs.errors import CorruptError
from btrfs.ondisk.columns import ItemBatch
from btrfs.source.lookup import tree_of
from btrfs.source.search_buffer import batch_at, item_positions
from tests import support

CLASSES = [
    (ctree.ExtentItem, None),
    (ctree.MetaDataItem, None),
    (ctree.BlockGroupItem, None),
    (ctree.DevExtent, None),
    (ctree.DevItem, None),
    (ctree.Chunk, None),
    (ctree.RootItem, None),
    (ctree.FreeSpaceExtent, None),
    (ctree.ExtentDataRef, None),
    (ctree.InodeItem, 256),
    (ctree.FileExtentItem, 256),
    (ctree.DirIndex, 256),
]


@pytest.mark.parametrize("source", ["mounted", "unmounted"])
@pytest.mark.parametrize(("cls", "tree"), CLASSES, ids=lambda value: getattr(value, "__name__", ""))
def test_columns_are_the_attributes(
    mounted: support.LoopFilesystem, cls: type[ItemData], tree: int | None, source: Any
) -> None:
    target = mounted.mountpoint if source == "mounted" else mounted.images[0]
    with FileSystem(target, source=source) as fs:
        parts = list(fs.columns(cls, tree=tree))
        number = tree or tree_of(fs.source, cls)
        items = [item for item in fs.search(number) if type(item) is cls]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert {len(column) for column in columns.values()} == {len(items)}
    assert items
    for name, column in columns.items():
        assert column.tolist() == [_value(item, name) for item in items], name


def _value(item: ItemData, name: str) -> Any:
    """Return the attribute of an object that a column stands for."""
    if name == "leaf_transid":
        return item.header.transid
    if name.startswith("key_"):
        return getattr(item.key, name.removeprefix("key_"))
    value: Any = item
    for part in name.split("."):
        # What an inline extent lacks is 0 in columns.
        value = getattr(value, part, 0)
    return getattr(value, "bytes", value)


# Search buffers, as the kernel fills them.

runs = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 300)), min_size=1, max_size=12)


def search_buffer(sizes: list[int]) -> bytearray:
    """Return headers and bodies in a row, as the search ioctl leaves them in its buffer."""
    buffer = bytearray(b"arguments")
    for index, size in enumerate(sizes):
        buffer += struct.pack("<QQQII", 7, 1000 + index, index * index, index % 256, size)
        buffer += bytes([index % 251]) * size
    return buffer


@given(runs)
def test_positions_in_a_search_buffer(runs: list[tuple[int, int]]) -> None:
    sizes = [size for size, count in runs for _ in range(count)]
    buffer = search_buffer(sizes)
    positions = item_positions(memoryview(buffer), 9, len(sizes))
    expected = np.cumsum([9, *(32 + size for size in sizes)])[:-1]
    assert positions.tolist() == expected.tolist()
    batch = batch_at(np.frombuffer(buffer, np.uint8), positions)
    assert batch.size.tolist() == sizes
    assert batch.objectid.tolist() == list(range(1000, 1000 + len(sizes)))
    assert batch.type.tolist() == [index % 256 for index in range(len(sizes))]
    assert batch.key(-1).offset == (len(sizes) - 1) ** 2


def batch_of(bodies: Sequence[bytes | bytearray], key_type: int) -> ItemBatch:
    """Return a batch of items with these bodies."""
    starts = np.cumsum([0, *map(len, bodies)])
    count = len(bodies)
    return ItemBatch(
        buffer=np.frombuffer(b"".join(bodies), np.uint8),
        objectid=np.arange(count, dtype=np.uint64),
        type=np.full(count, key_type, np.uint8),
        offset=np.zeros(count, np.uint64),
        transid=np.full(count, 9, np.uint64),
        body=starts[:-1].astype(np.int64),
        size=np.diff(starts).astype(np.uint32),
    )


@given(st.lists(st.binary(min_size=8, max_size=40), min_size=1, max_size=50), st.integers(0, 3))
def test_gather_takes_bytes_where_they_are(bodies: list[bytes], at: int) -> None:
    batch = batch_of(bodies, 77)
    expected = [int.from_bytes(body[at : at + 4], "little") for body in bodies]
    assert batch.gather("<u4", at).tolist() == expected
    ends = batch.size.astype(np.int64) - 2
    assert batch.gather("<u2", ends).tolist() == [
        int.from_bytes(body[-2:], "little") for body in bodies
    ]


def test_short_bodies_are_refused() -> None:
    batch = batch_of([bytes(24), bytes(10)], ctree.EXTENT_ITEM_KEY)
    with pytest.raises(
        CorruptError, match=r"\(ROOT_TREE EXTENT_ITEM 0\): expected at least 24 bytes"
    ):
        batch.columns(ctree.ExtentItem)
    assert not len(batch.columns(ctree.MetaDataItem)["vaddr"])


def test_old_short_structs_are_filled_up() -> None:
    """Filesystems of before Linux 3.6 have root items of 239 bytes."""
    old, new = bytes(range(1, 240)), bytes(index % 255 + 1 for index in range(439))
    columns = batch_of([old, new], ctree.ROOT_ITEM_KEY).columns(ctree.RootItem)
    items = [
        ctree.RootItem(SearchHeader(9, index, 0, ctree.ROOT_ITEM_KEY, len(body)), body)
        for index, body in enumerate((old, new))
    ]
    assert columns["bytenr"].tolist() == [item.bytenr for item in items]
    assert columns["otransid"].tolist() == [0, items[1].otransid]
    assert items[0].otransid == 0
    with pytest.raises(CorruptError):
        batch_of([old[:-1]], ctree.ROOT_ITEM_KEY).columns(ctree.RootItem)


def test_only_inline_extents_may_be_short() -> None:
    inline, regular = bytearray(30), bytearray(53)
    regular[20] = ctree.FILE_EXTENT_REG
    columns = batch_of([inline, regular], ctree.EXTENT_DATA_KEY).columns(ctree.FileExtentItem)
    assert columns["type"].tolist() == [ctree.FILE_EXTENT_INLINE, ctree.FILE_EXTENT_REG]
    short = batch_of([inline, regular[:52]], ctree.EXTENT_DATA_KEY)
    with pytest.raises(CorruptError, match="expected at least 53 bytes, found 52 bytes"):
        short.columns(ctree.FileExtentItem)
    header = SearchHeader(1, 1, 0, ctree.EXTENT_DATA_KEY, 52)
    with pytest.raises(CorruptError, match="expected 53 bytes, found 52 bytes"):
        ctree.FileExtentItem(header, regular[:52])


def test_selection() -> None:
    batch = batch_of([bytes([index]) for index in range(10)], 1)
    chosen = batch.select(batch.objectid % 3 == 0)
    assert chosen.gather("u1", 0).tolist() == [0, 3, 6, 9]
    assert chosen.keys(np.array([0, -1])) == [chosen.key(0).key, chosen.key(3).key]
    assert not len(batch.of_type(2))
