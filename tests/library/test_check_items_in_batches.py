"""The rules for single items, on items made here: of log trees, of many leaves, and at random."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.check.items import ItemFormat, ItemRules, Problem
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA,
    BLOCK_GROUP_TREE_OBJECTID,
    CHUNK_ITEM_KEY,
    CHUNK_TREE_OBJECTID,
    CSUM_TREE_OBJECTID,
    DEV_TREE_OBJECTID,
    DIR_LOG_INDEX_KEY,
    DIR_LOG_ITEM_KEY,
    EXTENT_CSUM_KEY,
    EXTENT_CSUM_OBJECTID,
    EXTENT_DATA_KEY,
    EXTENT_TREE_OBJECTID,
    FEATURE_INCOMPAT_RAID_STRIPE_TREE,
    FREE_SPACE_TREE_OBJECTID,
    FS_TREE_OBJECTID,
    INODE_ITEM_KEY,
    KEY_TYPE_NAMES,
    QUOTA_TREE_OBJECTID,
    RAID_STRIPE_KEY,
    RAID_STRIPE_TREE_OBJECTID,
    ROOT_TREE_OBJECTID,
    TREE_LOG_OBJECTID,
    UNTYPED_KEY,
    UUID_TREE_OBJECTID,
    VERITY_DESC_ITEM_KEY,
    VERITY_MERKLE_ITEM_KEY,
)

NODESIZE, SECTOR = 16384, 4096
GENERATION = 7
TREES = (
    *(ROOT_TREE_OBJECTID, EXTENT_TREE_OBJECTID, CHUNK_TREE_OBJECTID, DEV_TREE_OBJECTID),
    *(FS_TREE_OBJECTID, CSUM_TREE_OBJECTID, QUOTA_TREE_OBJECTID, UUID_TREE_OBJECTID),
    *(FREE_SPACE_TREE_OBJECTID, BLOCK_GROUP_TREE_OBJECTID, RAID_STRIPE_TREE_OBJECTID),
    *(TREE_LOG_OBJECTID, 256),
)


class Item(NamedTuple):
    """Key and body of an item."""

    objectid: int
    type: int
    offset: int
    body: bytes = b""


def batch_of(
    leaves: list[list[Item]],
) -> tuple[ItemBatch, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the items of leaves, and the number of the leaf of each."""
    buffer = np.zeros(len(leaves) * NODESIZE, np.uint8)
    begins, numbers = [], []
    for number, leaf in enumerate(leaves):
        begin = (number + 1) * NODESIZE
        for item in leaf:
            end, begin = begin, begin - len(item.body)
            buffer[begin:end] = np.frombuffer(item.body, np.uint8)
            begins.append(begin)
            numbers.append(number)
    items = [item for leaf in leaves for item in leaf]
    batch = ItemBatch(
        buffer,
        np.array([item.objectid for item in items], np.uint64),
        np.array([item.type for item in items], np.uint8),
        np.array([item.offset for item in items], np.uint64),
        np.full(len(items), GENERATION, np.uint64),
        np.array(begins, np.int64),
        np.array([len(item.body) for item in items], np.uint32),
    )
    return batch, np.array(numbers, np.int64)


def problems(tree: int, leaves: list[list[Item]], incompat_flags: int = 0) -> list[Problem]:
    fs = ItemFormat(SECTOR, NODESIZE, 4, GENERATION, incompat_flags)
    return ItemRules(fs).check(*batch_of(leaves), tree)


def reasons(tree: int, *items: Item, incompat_flags: int = 0) -> list[str]:
    return [problem.why for problem in problems(tree, [list(items)], incompat_flags)]


def inode(generation: int = GENERATION) -> bytes:
    return struct.pack("<QQ36xI", generation, generation, 0o100644).ljust(160, b"\0")


def piece(num_bytes: int) -> bytes:
    return struct.pack("<QQBBHBQQQQ", 1, num_bytes, 0, 0, 0, 1, 0, 0, 0, num_bytes)


def checksums(address: int, sectors: int) -> Item:
    return Item(EXTENT_CSUM_OBJECTID, EXTENT_CSUM_KEY, address, bytes(4 * sectors))


def test_log_trees_are_of_the_next_generation() -> None:
    item = Item(257, INODE_ITEM_KEY, 0, inode(GENERATION + 1))
    assert reasons(TREE_LOG_OBJECTID, item) == []
    assert len(reasons(FS_TREE_OBJECTID, item)) == 2


@pytest.mark.parametrize("key_type", [DIR_LOG_ITEM_KEY, DIR_LOG_INDEX_KEY])
def test_ranges_of_logged_directories(key_type: int) -> None:
    right = Item(256, key_type, 5, struct.pack("<Q", 9))
    assert reasons(TREE_LOG_OBJECTID, right) == []
    assert [each.kind for each in problems(FS_TREE_OBJECTID, [[right]])] == ["key-type"]
    (why,) = reasons(TREE_LOG_OBJECTID, right._replace(offset=10))
    assert "before it begins" in why
    (why,) = reasons(TREE_LOG_OBJECTID, right._replace(body=b""))
    assert "size" in why
    (why,) = reasons(TREE_LOG_OBJECTID, right._replace(objectid=2))
    assert "not that of an inode" in why


def test_verity() -> None:
    items = [
        Item(257, INODE_ITEM_KEY, 0, inode()),
        Item(257, VERITY_DESC_ITEM_KEY, 0, struct.pack("<QQQB", 256, 0, 0, 0)),
        Item(257, VERITY_DESC_ITEM_KEY, 1, bytes(256)),
        Item(257, VERITY_MERKLE_ITEM_KEY, 0, bytes(2048)),
        Item(257, VERITY_MERKLE_ITEM_KEY, 2048, bytes(2048)),
    ]
    assert reasons(FS_TREE_OBJECTID, *items) == []


def test_raid_stripes() -> None:
    flag = FEATURE_INCOMPAT_RAID_STRIPE_TREE
    right = Item(16 * SECTOR, RAID_STRIPE_KEY, 4 * SECTOR, bytes(32))
    after = right._replace(objectid=20 * SECTOR)

    def found(*items: Item, incompat_flags: int = flag) -> list[str]:
        return reasons(RAID_STRIPE_TREE_OBJECTID, *items, incompat_flags=incompat_flags)

    assert found(right, after) == []
    assert found(right, after, incompat_flags=0) == ["there must be none without that feature"] * 2
    assert found(right, after._replace(objectid=19 * SECTOR)) == ["overlaps the range before it"]
    assert found(right._replace(body=bytes(31))) == ["not whole strides"]
    assert found(right._replace(body=b"")) == ["not whole strides"]
    assert found(right._replace(offset=0)) == ["a range without bytes"]
    assert found(right._replace(offset=1)) == ["its length is not a multiple of 4096"]
    assert found(right._replace(objectid=1)) == ["its address is not a multiple of 4096"]


def test_neighbours_are_those_of_a_leaf() -> None:
    first = Item(257, EXTENT_DATA_KEY, 0, piece(2 * SECTOR))
    second = first._replace(offset=SECTOR)
    assert reasons(FS_TREE_OBJECTID, first, second) == ["overlaps the piece of the file before it"]
    assert problems(FS_TREE_OBJECTID, [[first], [second]]) == []
    assert reasons(FS_TREE_OBJECTID, first, second._replace(objectid=258)) == [
        "there is no inode item before it"
    ]
    assert problems(FS_TREE_OBJECTID, [[first], [second._replace(objectid=258)]]) == []


def test_checksums_that_overlap_are_left_to_others() -> None:
    """They can be in different leaves: :mod:`btrfs.check.checksums` reads them in order."""
    one, other = checksums(0, 2), checksums(SECTOR, 1)
    for tree in (CSUM_TREE_OBJECTID, TREE_LOG_OBJECTID):
        assert problems(tree, [[one, other]]) == []


@pytest.mark.parametrize("index", [0, 1, 2])
def test_gap_between_bodies(index: int) -> None:
    leaf = [Item(257 + number, INODE_ITEM_KEY, 0, inode()) for number in range(3)]
    batch, numbers = batch_of([leaf, leaf])
    batch.size[3 + index] = 159
    batch.body[3 + index] -= index
    found = ItemRules(ItemFormat(SECTOR, NODESIZE, 4, GENERATION, 0)).check(batch, numbers, 5)
    assert {problem.leaf for problem in found} == {1}
    assert any("does not end where" in problem.why for problem in found)


SMALL = st.one_of(st.integers(0, 300), st.sampled_from([1 << 63, (1 << 64) - 1, SECTOR]))
LARGE = st.one_of(SMALL, st.integers((1 << 64) - 256, (1 << 64) - 1))
KEY_TYPE = st.one_of(st.sampled_from([UNTYPED_KEY, *KEY_TYPE_NAMES]), st.integers(0, 255))
BODY = st.one_of(
    st.binary(max_size=64),
    st.binary(min_size=17, max_size=500),
    st.sampled_from([8, 25, 40, 41, 48, 53, 72, 80, 98, 160, 239, 439, 448]).flatmap(
        lambda size: st.binary(min_size=size, max_size=size)
    ),
)
LEAF = st.lists(st.builds(Item, LARGE, KEY_TYPE, LARGE, BODY), max_size=12).map(sorted)


@given(st.sampled_from(TREES), st.lists(LEAF, max_size=4), st.integers(0, 1 << 17))
def test_random_items(tree: int, leaves: list[list[Item]], incompat_flags: int) -> None:
    """Nothing raises, and leaves together have the problems that each has alone."""
    alone = [
        problem._replace(leaf=number)
        for number, leaf in enumerate(leaves)
        for problem in problems(tree, [leaf], incompat_flags)
    ]
    together = problems(tree, leaves, incompat_flags)
    assert sorted(map(str, together)) == sorted(map(str, alone))


def test_chunks() -> None:
    stripe = struct.pack("<QQ16x", 1, 1 << 20)

    def found(flags: int, count: int, stripes: int) -> list[str]:
        fixed = struct.pack("<QQQQIIIHH", 1 << 23, 2, 1 << 16, flags, 0, 0, SECTOR, count, 1)
        return reasons(
            CHUNK_TREE_OBJECTID, Item(256, CHUNK_ITEM_KEY, 1 << 20, fixed + stripe * stripes)
        )

    assert found(BLOCK_GROUP_DATA, 1, 1) == []
    assert "a chunk without stripes" in found(BLOCK_GROUP_DATA, 0, 0)
    assert found(BLOCK_GROUP_DATA, 2, 1) == ["its size is wrong"]
    (why,) = found(0, 1, 1)
    assert "a type" in why
