"""Hashes of many names at once are those of one name after another."""

from __future__ import annotations

import numpy as np
from hypothesis import given, strategies as st

from btrfs.ondisk.hashes import crc32c, extref_hash, name_hash
from btrfs.ondisk.name_hashes import data_ref_hashes, extref_hashes, name_hashes, names_with

PARENTS = st.integers(0, (1 << 64) - 1)
NAMES = st.lists(st.tuples(PARENTS, st.binary(max_size=40)), max_size=20)


@given(NAMES, st.binary(max_size=9))
def test_same_as_one_by_one(rows: list[tuple[int, bytes]], before: bytes) -> None:
    buffer = np.frombuffer(before + b"".join(name for _, name in rows), np.uint8)
    length = np.array([len(name) for _, name in rows], np.uint16)
    begin = len(before) + np.cumsum(length, dtype=np.int64) - length
    parent = np.array([parent for parent, _ in rows], np.uint64)
    assert name_hashes(buffer, begin, length).tolist() == [name_hash(name) for _, name in rows]
    assert extref_hashes(parent, buffer, begin, length).tolist() == [
        extref_hash(number & 0xFFFFFFFF, name) for number, name in rows
    ]


@given(st.binary(min_size=250, max_size=70000))
def test_long_names(name: bytes) -> None:
    buffer, begin = np.frombuffer(name, np.uint8), np.zeros(1, np.int64)
    assert name_hashes(buffer, begin, np.array([len(name)])).tolist() == [name_hash(name)]


@given(st.lists(st.binary(max_size=20)))
def test_bytes_in_names(names: list[bytes]) -> None:
    buffer = np.frombuffer(b"/\0".join(names), np.uint8)
    length = np.array([len(name) for name in names], np.int64)
    begin = np.cumsum(length + 2) - length - 2
    expected = [b"/" in name or b"\0" in name for name in names]
    assert names_with(buffer, begin, length, (0, ord("/"))).tolist() == expected


NUMBERS = st.integers(0, (1 << 64) - 1)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1))
def test_references(rows: list[tuple[int, int, int]]) -> None:
    columns = (np.array([row[part] for row in rows], np.uint64) for part in range(3))
    expected = []
    for root, objectid, offset in rows:
        high = crc32c(0xFFFFFFFF, root.to_bytes(8, "little"))
        low = crc32c(0xFFFFFFFF, objectid.to_bytes(8, "little"))
        low = crc32c(low, offset.to_bytes(8, "little"))
        expected.append(high << 31 ^ low)
    assert data_ref_hashes(*columns).tolist() == expected
