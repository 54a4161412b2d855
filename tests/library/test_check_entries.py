"""Entries of directories and names of inodes as rows are those that items hold one by one."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from hypothesis import given, strategies as st

from btrfs.check.items.entries import entry_rows_and_rests, link_rows_and_rests
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.constants import (
    DIR_INDEX_KEY,
    DIR_ITEM_KEY,
    INODE_EXTREF_KEY,
    INODE_ITEM_KEY,
    INODE_REF_KEY,
    XATTR_ITEM_KEY,
)

ENTRY, REF, EXTREF = struct.Struct("<QBQQHHB"), struct.Struct("<QH"), struct.Struct("<QQH")
ENTRY_TYPES = {DIR_ITEM_KEY: ENTRY, DIR_INDEX_KEY: ENTRY, XATTR_ITEM_KEY: ENTRY}
LINK_TYPES = {INODE_REF_KEY: REF, INODE_EXTREF_KEY: EXTREF}

Parsed = list[tuple[int, tuple[int, ...], bytes]]


def batch_of(items: list[tuple[int, bytes]]) -> ItemBatch:
    """Return items as a batch, given types and bodies."""
    size = np.array([len(body) for _, body in items], np.uint32)
    number = np.arange(len(items), dtype=np.uint64)
    return ItemBatch(
        buffer=np.frombuffer(b"".join(body for _, body in items) + bytes(64), np.uint8),
        objectid=number + np.uint64(256),
        type=np.array([key_type for key_type, _ in items], np.uint8),
        offset=number,
        transid=np.ones(len(items), np.uint64),
        body=np.cumsum(size, dtype=np.int64) - size,
        size=size,
    )


def entry(name: bytes, data: bytes) -> bytes:
    return ENTRY.pack(257, 1, 0, 9, len(data), len(name), 1) + name + data


NAME = st.binary(max_size=20)
WHOLE = st.one_of(
    st.lists(st.builds(entry, NAME, NAME), max_size=3).map(b"".join),
    st.lists(NAME.map(lambda name: REF.pack(7, len(name)) + name), max_size=3).map(b"".join),
    st.lists(NAME.map(lambda name: EXTREF.pack(256, 7, len(name)) + name), max_size=3).map(
        b"".join
    ),
)
BODY = st.one_of(
    WHOLE, st.binary(max_size=60), st.tuples(WHOLE, st.binary(max_size=9)).map(b"".join)
)
TYPE = st.sampled_from([*ENTRY_TYPES, *LINK_TYPES, INODE_ITEM_KEY])
ITEMS = st.lists(st.tuples(TYPE, BODY), max_size=8)


def parsed(
    items: list[tuple[int, bytes]], types: dict[int, struct.Struct]
) -> tuple[Parsed, set[int]]:
    """Return the structs of each item with their names, and the items that hold something else."""
    found: Parsed = []
    rests = set()
    for index, (key_type, body) in enumerate(items):
        if key_type in types:
            structs = list(pieces(body, types[key_type]))
            found += [(index, *each) for each in structs]
            layout = types[key_type]
            used = sum(layout.size + sum(sizes(layout, fields)) for fields, _ in structs)
            if used != len(body) or not body:
                rests.add(index)
    return found, rests


def pieces(body: bytes, layout: struct.Struct) -> Iterator[tuple[tuple[int, ...], bytes]]:
    at = 0
    while at + layout.size <= len(body):
        fields = layout.unpack_from(body, at)
        at += layout.size
        end = at + sum(sizes(layout, fields))
        if end > len(body):
            return
        yield fields, body[at : at + sizes(layout, fields)[0]]
        at = end


def sizes(layout: struct.Struct, fields: tuple[int, ...]) -> tuple[int, int]:
    """Return the bytes of the name, and those of data after it."""
    return (fields[5], fields[4]) if layout is ENTRY else (fields[-1], 0)


@given(ITEMS)
def test_entries(items: list[tuple[int, bytes]]) -> None:
    batch = batch_of(items)
    rows, rests = entry_rows_and_rests(batch)
    columns = (
        *(rows.objectid, rows.location_type, rows.location_offset, rows.transid),
        *(rows.data_len, rows.name_len, rows.file_type),
    )
    found: Parsed = [
        (index, tuple(fields), batch.buffer[at : at + fields[5]].tobytes())
        for index, at, *fields in zip(
            *(column.tolist() for column in (rows.index, rows.name_at, *columns)), strict=True
        )
    ]
    expected, expected_rests = parsed(items, ENTRY_TYPES)
    assert sorted(found) == sorted(expected)
    assert set(rests.tolist()) == expected_rests


@given(ITEMS)
def test_links(items: list[tuple[int, bytes]]) -> None:
    batch = batch_of(items)
    rows, rests = link_rows_and_rests(batch)
    columns = (rows.index, rows.parent, rows.dir_index, rows.name_at, rows.name_len)
    found = [
        (index, (parent, dir_index, length), batch.buffer[at : at + length].tobytes())
        for index, parent, dir_index, at, length in zip(
            *(column.tolist() for column in columns), strict=True
        )
    ]
    expected, expected_rests = parsed(items, LINK_TYPES)
    # The directory is in the key of an INODE_REF.
    expected = [
        (index, fields if len(fields) == 3 else (index, *fields), name)
        for index, fields, name in expected
    ]
    assert sorted(found) == sorted(expected)
    assert set(rests.tolist()) == expected_rests
