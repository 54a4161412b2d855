"""Keys: arithmetic, order, printing and parsing."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given, strategies as st

from btrfs.ctree import DiskKey, Key
from btrfs.ondisk.constants import KEY_MAX, KEY_TYPE_NAMES, OBJECTID_NAMES, ULLONG_MAX
from btrfs.utils import parse_key_string

u64 = st.one_of(
    st.integers(0, ULLONG_MAX),
    st.sampled_from(sorted(OBJECTID_NAMES)),
    st.integers(0, 300),
)
keys = st.builds(Key, u64, st.one_of(st.integers(0, 255), st.sampled_from([*KEY_TYPE_NAMES])), u64)


@given(u64, st.integers(0, 255), u64)
def test_parts_make_a_number(objectid: int, type_: int, offset: int) -> None:
    key = Key(objectid, type_, offset)
    assert (key.objectid, key.type, key.offset) == (objectid, type_, offset)
    assert key.key == (objectid << 72) + (type_ << 64) + offset


@given(keys, st.integers(-(1 << 140), 1 << 140))
def test_counting_wraps_around(key: Key, amount: int) -> None:
    assert (key + amount).key == (key.key + amount) % (KEY_MAX + 1)
    assert key + amount - amount == key


@given(keys, keys)
def test_order_is_that_of_the_numbers(key: Key, other: Key) -> None:
    assert (key < other, key <= other, key == other) == (
        key.key < other.key,
        key.key <= other.key,
        key.key == other.key,
    )
    assert (key > other.key, key >= other.key) == (key.key > other.key, key.key >= other.key)
    assert hash(key) == hash(key + 0)


@given(keys)
def test_what_is_printed_can_be_parsed(key: Key) -> None:
    assert parse_key_string(str(key)) == key
    assert parse_key_string(str(key).strip("()")) == key
    assert eval(repr(key)) == key


@given(keys)
def test_disk_key_is_the_same_from_bytes(key: Key) -> None:
    data = b"xyz" + (
        key.objectid.to_bytes(8, "little") + bytes([key.type]) + key.offset.to_bytes(8, "little")
    )
    disk_key = DiskKey(data, 3)
    assert disk_key == key
    assert type(disk_key + 1) is DiskKey
    assert pickle.loads(pickle.dumps(disk_key)) == key


@pytest.mark.parametrize(
    ("key", "printed"),
    [
        (Key(2, "ROOT_ITEM", 0), "(EXTENT_TREE ROOT_ITEM 0)"),
        (Key(258, "ROOT_ITEM", 12), "(258 ROOT_ITEM 12)"),
        (Key(-9, 132, 5), "(DATA_RELOC_TREE ROOT_ITEM 5)"),
        (Key(-8, 132, 5), "(TREE_RELOC ROOT_ITEM FS_TREE)"),
        (Key(-8, 132, 258), "(TREE_RELOC ROOT_ITEM 258)"),
        (Key(1, 216, 4), "(DEV_ITEMS DEV_ITEM 4)"),
        (Key(4, 204, 5), "(4 DEV_EXTENT 5)"),
        (Key(256, 228, 7), "(FIRST_CHUNK_TREE CHUNK_ITEM 7)"),
        (Key(0, 249, 1), "(DEV_STATS PERSISTENT_ITEM 1)"),
        (Key(256, 246, (1 << 48) + 5), "(0/256 QGROUP_RELATION 1/5)"),
        (Key(5, 252, 7), "(0x0000000000000005 UUID_KEY_RECEIVED_SUBVOL 0x0000000000000007)"),
        (Key(-1, -1, -1), "(-1 255 -1)"),
    ],
)
def test_words_of_a_key(key: Key, printed: str) -> None:
    assert str(key) == printed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Key representation needs 3 fields: objectid, type, offset: "),
        ("1 2", "Key representation needs 3 fields: objectid, type, offset: 1 2"),
        ("1 2 3 4", "Key representation needs 3 fields: objectid, type, offset: 1 2 3 4"),
        ("(1 2 3", "Key representation has only one of two parentheses: (1 2 3"),
        ("1 2 3)", "Key representation has only one of two parentheses: 1 2 3)"),
        ("1 BOGUS 2", "Unknown key type BOGUS"),
        ("1 256 2", "Unknown key type 256: types are 0 to 255, or -1 for the last"),
        ("1 -2 2", "Unknown key type -2: types are 0 to 255, or -1 for the last"),
        ("FIRST 1 2", "Unparsable key objectid FIRST"),
        ("1 1 1/x", "Unparsable key offset 1/x"),
        (
            f"{1 << 64} 1 0",
            f"Unparsable key objectid {1 << 64}: {1 << 64} does not fit into 64 bits",
        ),
        (
            f"0 1 {-(1 << 63) - 1}",
            f"Unparsable key offset {-(1 << 63) - 1}: {-(1 << 63) - 1} does not fit into 64 bits",
        ),
        (
            "0 QGROUP_INFO 65536/1",
            "Unparsable key offset 65536/1: the level of a quota group has 16 bits",
        ),
        (
            f"0 QGROUP_INFO 1/{1 << 48}",
            f"Unparsable key offset 1/{1 << 48}: the number of a quota group has 48 bits",
        ),
    ],
)
def test_what_is_no_key(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told) + "$"):
        parse_key_string(text)


def test_numbers_at_the_limits() -> None:
    assert parse_key_string(f"{ULLONG_MAX} 255 {-(1 << 63)}") == Key(-1, -1, 1 << 63)
    assert parse_key_string("0 QGROUP_INFO 65535/281474976710655") == Key(0, 242, -1)


def test_parts_can_be_set() -> None:
    key = Key(1, 2, 3)
    key.objectid, key.type, key.offset = 4, 5, -1
    assert key == Key(4, 5, ULLONG_MAX)
    key.key = 9
    assert key == Key(0, 0, 9)
