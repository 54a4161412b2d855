"""What the check computes over whole columns is what plain code finds, one row after the other."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.check.inodes import ChecksumRuns, InodeRows, _atoms, combined
from btrfs.check.names import (
    INDEX_OF_ITEM,
    INDEX_OF_LINK,
    ITEM,
    LINK,
    TYPE_IN_ENTRY,
    TYPE_IN_INODE,
    NameRows,
    compare_names,
)
from btrfs.check.preallocated import merged
from btrfs.check.referrers import Difference, Referrers, differences
from btrfs.ownership.root_sets import RootSets
from tests import support
from tests.lab.liefs import fill
from tests.library.findings import findings

ROOTS = 4
NEVER = (1 << 64) - 1

MASK = st.integers(0, (1 << ROOTS) - 1)

# Ranges of addresses.

RANGE = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)
RANGES = st.lists(RANGE, max_size=8)


def bytes_of(ranges: list[list[int]]) -> set[int]:
    return {address for start, end in ranges for address in range(start, end)}


def columns(ranges: list[list[int]]) -> tuple[Any, Any]:
    rows = np.array(ranges, np.uint64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


@given(RANGES)
def test_merged(ranges: list[list[int]]) -> None:
    start, end = merged(*columns(ranges))
    found = [list(pair) for pair in zip(start.tolist(), end.tolist(), strict=True)]
    assert bytes_of(found) == bytes_of(ranges)
    assert all(one[1] < other[0] for one, other in pairwise(found))


@given(RANGES, RANGES, RANGES)
def test_bytes_with_checksums(
    ranges: list[list[int]], unknown: list[list[int]], asked: list[list[int]]
) -> None:
    empty = [[start, end] for start, end in unknown if start < end]
    runs = ChecksumRuns(*merged(*columns(ranges)), [(start, end) for start, end in empty])
    found = runs.bytes_within(*columns(asked)).tolist()
    have = bytes_of(ranges)
    assert found == [len(have & bytes_of([one])) for one in asked]
    known = runs.is_known(*columns(asked)).tolist()
    lost = bytes_of(empty)
    for is_known, one in zip(known, asked, strict=True):
        assert not is_known or not lost & bytes_of([one])


# Sets of roots.


@given(st.lists(MASK, max_size=7))
def test_atoms(masks: list[int]) -> None:
    expected: dict[tuple[int, ...], int] = defaultdict(int)
    for root in range(ROOTS):
        chosen = tuple(index for index, mask in enumerate(masks) if mask >> root & 1)
        if chosen:
            expected[chosen] |= 1 << root
    assert {tuple(chosen): mask for mask, chosen in _atoms(masks)} == dict(expected)


# Inodes.

INODE_ROW = st.tuples(
    st.integers(256, 258),
    st.integers(0, 5),
    st.integers(0, 9),
    st.one_of(st.none(), st.tuples(st.integers(0, 30), st.integers(1, 8))),
)
"""Inode number, leaf, a number for all sums, and where pieces begin, and their length."""


def inode_rows_of(rows: list[tuple[int, int, int, Any]]) -> InodeRows:
    made: dict[str, Any] = {}
    for field in fields(InodeRows):
        if field.name == "inum":
            values = [row[0] for row in rows]
        elif field.name == "leaf":
            values = [row[1] for row in rows]
        elif field.name == "first":
            values = [NEVER if row[3] is None else row[3][0] for row in rows]
        elif field.name == "end":
            values = [0 if row[3] is None else sum(row[3]) for row in rows]
        elif field.name == "gap":
            values = [NEVER for row in rows]
        elif field.name == "overlaps":
            values = [False for row in rows]
        else:
            values = [row[2] for row in rows]
        small = field.name in {"leaf", "items"}
        dtype = np.bool_ if field.name == "overlaps" else np.uint32 if small else np.uint64
        made[field.name] = np.array(values, dtype)
    return InodeRows(**made)


INODE_ROWS = st.lists(
    INODE_ROW, max_size=9, unique_by=lambda row: row[3][0] if row[3] else (row[:3],)
)


@given(INODE_ROWS, st.lists(MASK, min_size=6, max_size=6), MASK)
def test_combined(rows: list[tuple[int, int, int, Any]], masks: list[int], wanted: int) -> None:
    sets = RootSets()
    leaf_sets = np.array([sets.id_of(mask) for mask in masks], np.uint32)
    whole, found_masks = combined(inode_rows_of(rows), sets, leaf_sets, wanted)
    found = {}
    for index, mask in enumerate(found_masks):
        for root in range(ROOTS):
            if mask >> root & 1:
                key = int(whole.inum[index]), root
                assert key not in found
                found[key] = tuple(
                    int(getattr(whole, name)[index])
                    for name in ("nlink", "bytes", "end", "gap", "overlaps")
                )
    assert found == combined_plainly(rows, masks, wanted)


def combined_plainly(
    rows: list[tuple[int, int, int, Any]], masks: list[int], wanted: int
) -> dict[tuple[int, int], tuple[int, ...]]:
    expected: dict[tuple[int, int], tuple[int, ...]] = {}
    for root in range(ROOTS):
        for inum in {row[0] for row in rows}:
            seen = [row for row in rows if row[0] == inum and masks[row[1]] & wanted & 1 << root]
            if not seen:
                continue
            total = sum(row[2] for row in seen)
            pieces = sorted((row[3] for row in seen if row[3] is not None), key=lambda one: one[0])
            # Rows of a sound file follow one another: what comes before is the last one alone.
            gap, overlaps = NEVER, False
            for one, other in pairwise(pieces):
                if other[0] > sum(one):
                    gap = min(gap, sum(one))
                overlaps |= other[0] < sum(one)
            end = max((sum(one) for one in pieces), default=0)
            expected[inum, root] = (total, total, end, gap, int(overlaps))
    return expected


# Names.

SIDE = st.sampled_from([INDEX_OF_LINK, LINK, INDEX_OF_ITEM, ITEM])
NAME = st.tuples(SIDE, st.integers(0, 3), st.integers(0, 5))
"""Side, hash, and leaf."""


@given(st.lists(NAME, max_size=9), st.lists(MASK, min_size=6, max_size=6), MASK)
def test_names(names: list[tuple[int, int, int]], masks: list[int], wanted: int) -> None:
    sets = RootSets()
    leaf_sets = np.array([sets.id_of(mask) for mask in masks], np.uint32)
    # All inodes exist, so that only names differ; the hashes of both pairs of sides are apart.
    every = [*names, *((TYPE_IN_INODE, 0, leaf) for leaf in range(6))]
    side, number, leaf = (np.array(column, np.uint64) for column in zip(*every, strict=True))
    rows = NameRows(
        side.astype(np.uint8),
        number + np.where(side < INDEX_OF_ITEM, 0, 10).astype(np.uint64),
        leaf.astype(np.uint32),
        np.full(len(every), 257, np.uint64),
        np.full(len(every), 256, np.uint64),
        number,
        np.ones(len(every), np.uint32),
    )
    found = Counter(
        (problem.kind, problem.dir_index, root)
        for problem in compare_names(rows, sets, leaf_sets, wanted)
        for root in range(ROOTS)
        if problem.roots >> root & 1
    )
    assert found == names_plainly(names, masks, wanted)


def names_plainly(
    names: list[tuple[int, int, int]], masks: list[int], wanted: int
) -> Counter[tuple[str, int, int]]:
    kinds = {
        INDEX_OF_LINK: ("entry-without-link", LINK),
        LINK: ("link-without-entry", INDEX_OF_LINK),
        INDEX_OF_ITEM: ("entry-without-hash", ITEM),
        ITEM: ("entry-without-index", INDEX_OF_ITEM),
    }
    expected: Counter[tuple[str, int, int]] = Counter()
    for root in range(ROOTS):
        seen = [(side, number) for side, number, leaf in names if masks[leaf] & wanted & 1 << root]
        for side, number in seen:
            kind, other = kinds[side]
            if (other, number) not in seen:
                expected[kind, number, root] += 1
    return expected


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=8), MASK)
def test_names_without_an_inode(rows: list[tuple[bool, int]], wanted: int) -> None:
    """An entry leads to an inode that some roots have, and others do not."""
    masks = [0b0001, 0b0011, 0b0110, 0b1111, 0b1000, 0b0100]
    sets = RootSets()
    leaf_sets = np.array([sets.id_of(mask) for mask in masks], np.uint32)
    entries = [(TYPE_IN_ENTRY if is_entry else TYPE_IN_INODE, leaf) for is_entry, leaf in rows]
    count = len(entries)
    side = np.array([one for one, _ in entries], np.uint8)
    made = NameRows(
        side,
        np.arange(count, dtype=np.uint64),
        np.array([leaf for _, leaf in entries], np.uint32),
        np.full(count, 257, np.uint64),
        np.full(count, 256, np.uint64),
        np.where(side == TYPE_IN_INODE, 1, 7).astype(np.uint64),
        np.ones(count, np.uint32),
    )
    found = Counter(
        (problem.kind, root)
        for problem in compare_names(made, sets, leaf_sets, wanted)
        for root in range(ROOTS)
        if problem.roots >> root & 1
    )
    expected: Counter[tuple[str, int]] = Counter()
    for root in range(ROOTS):
        seen = [one for one, leaf in entries if masks[leaf] & wanted & 1 << root]
        if TYPE_IN_INODE not in seen and seen:
            expected["entry-without-inode", root] += len(seen)
    assert found == expected


# Back references.

REFERRER = st.tuples(*(st.integers(0, 1) for _ in range(6)), st.integers(1, 3))


def referrers_of(rows: list[tuple[int, ...]]) -> Referrers:
    table = np.array(rows, np.uint64).reshape(-1, 7)
    made: dict[str, Any] = {name: table[:, index] for index, name in enumerate(Referrers._fields)}
    made["kind"] = made["kind"].astype(np.uint8)
    return Referrers(**made)


@given(st.lists(REFERRER, max_size=9), st.lists(REFERRER, max_size=9))
def test_differences(one: list[tuple[int, ...]], other: list[tuple[int, ...]]) -> None:
    counts: dict[tuple[int, ...], list[int]] = defaultdict(lambda: [0, 0])
    for side, rows in enumerate((one, other)):
        for *row, uses in rows:
            counts[tuple(row)][side] += uses
    expected = {Difference(*row, *both) for row, both in counts.items() if both[0] != both[1]}
    found = list(differences(referrers_of(one), referrers_of(other)))
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert [row.extent for row in found] == sorted(row.extent for row in found)


def test_a_sound_filesystem_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its sums of names and of back references leave nothing, so that no row is read again."""

    def fail(*_: object) -> None:
        raise AssertionError("read again")

    with support.filesystem(tmp_path, size="512M") as fs:
        fill(fs.mountpoint)
    for module in ("subvolume_files", "extent_uses"):
        monkeypatch.setattr(f"btrfs.check.{module}.reread", fail)
    assert findings(fs.images) == []
