"""Filters and orders: what they let through, and what they say when they cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from btrfs.ctree import (
    BlockGroupItem,
    Chunk,
    DirItem,
    InodeItem,
    Key,
    Stripe,
    UnknownItem,
)
from btrfs.info import SpaceInfo
from btrfs.ondisk.struct import from_values
from btrfs.query.selection import Filter, Order, SelectionError

GIB = 1 << 30
IDENTITY = UUID("29aa5c09-c0d8-4f16-90cb-889090bd655c")


def group(**values: int) -> BlockGroupItem:
    return from_values(
        BlockGroupItem,
        **{"vaddr": 0, "length": GIB, "used": 0, "flags": 0x11, "chunk_objectid": 256} | values,
    )


def chunk(*devids: int) -> Chunk:
    stripes = [from_values(Stripe, devid=devid, offset=0, uuid=IDENTITY) for devid in devids]
    return from_values(Chunk, stripes=stripes, num_stripes=len(devids))


GROUP = group(used=GIB // 10, vaddr=1 << 63)
ENTRY = from_values(DirItem, location=Key(257, 1, 0), type=2, name="ü.bak".encode(), transid=7)


@pytest.mark.parametrize(
    ("expression", "obj", "holds"),
    [
        ("used_pct == 10", GROUP, True),
        ("used_pct < 10", GROUP, False),
        ("used <= 103MiB", GROUP, True),
        ("length >= 1GiB", GROUP, True),
        ("length > 1GiB", GROUP, False),
        ("length == 1073741824", GROUP, True),
        ("vaddr == 0x8000000000000000", GROUP, True),
        ("9223372036854775808 == vaddr", GROUP, True),
        ("RAID1 in flags", GROUP, True),
        ("RAID10 in flags", GROUP, False),
        ("DATA|RAID1 in flags", GROUP, True),
        ("flags == RAID1|DATA", GROUP, True),
        ("DATA == flags", GROUP, False),
        ("flags != DATA", GROUP, True),
        ("flags == 'DATA|RAID1'", GROUP, True),
        ("16 in flags", GROUP, True),
        ("4 in flags", GROUP, False),
        ("0 in flags", GROUP, False),
        ("RAID1 not in flags", GROUP, False),
        ("not RAID1 in flags", GROUP, False),
        ("used_pct < 5 or length > 5 and RAID1 in flags", GROUP, True),
        ("(used_pct < 5 or length > 5) and RAID0 in flags", GROUP, False),
        ("not not used_pct==10", GROUP, True),
        ("name == 'ü.bak'", ENTRY, True),
        ("'.bak' in name", ENTRY, True),
        ('"x" not in name', ENTRY, True),
        ("name < 'z'", ENTRY, False),
        ("type == DIR", ENTRY, True),
        ("type != REG_FILE", ENTRY, True),
        ("location.objectid == 257", ENTRY, True),
        ("location == '(257 INODE_ITEM 0)'", ENTRY, True),
        ("location < '(257 DIR_ITEM 0)'", ENTRY, True),
        ("4 in stripes.devid", chunk(1, 4), True),
        ("4 not in stripes.devid", chunk(1, 4), False),
        ("4 not in stripes.devid", chunk(1, 2), True),
        (f"'{IDENTITY}' in stripes.uuid", chunk(1), True),
        # Of another class: nothing holds.
        ("used_pct < 5", ENTRY, False),
        ("used_pct != 5", ENTRY, False),
        ("4 not in stripes.devid", GROUP, False),
    ],
)
def test_filter(expression: str, obj: Any, holds: bool) -> None:
    assert Filter(expression)(obj) is holds


def test_attributes_of_another_object() -> None:
    chunks = {1: chunk(1, 2), 2: chunk(2, 4)}
    groups = [group(vaddr=2, used=5), group(vaddr=1, used=9)]

    def chunk_of(group: BlockGroupItem) -> Chunk:
        return chunks[group.vaddr]

    classes = (BlockGroupItem, Chunk)
    assert list(filter(Filter("4 not in stripes.devid", chunk_of, classes), groups)) == groups[1:]
    assert Order("num_stripes,used:desc", chunk_of, classes).sorted(groups) == groups[::-1]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "expected an attribute or a value, found nothing more, at character 1 of ''"),
        ("used <", "expected an attribute or a value, found nothing more, at character 7"),
        ("used", "expected a comparison, found nothing more, at character 5"),
        ("used < 5 5", "expected and, or, or the end, found 5, at character 10"),
        ("(used < 5", "expected ), found nothing more, at character 10"),
        ("used $ 5", "what is $, at character 6"),
        ("used = 5", "what is =, at character 6"),
        ("used < 5Gi5", "what is 5Gi5, at character 8"),
        ("used not 5", "expected in, found 5, at character 10"),
        ("flags == data|raid1", "what is |raid1, at character 14"),
        ("__class__ == 5", "there is no attribute __class__"),
        ("used_pc < 5", "there is no attribute used_pc"),
        ("stripes.devidx == 5", "there is no attribute devidx"),
    ],
)
def test_what_is_no_expression(expression: str, told: str) -> None:
    with pytest.raises(SelectionError) as caught:
        Filter(expression)
    assert told in str(caught.value)
    assert caught.value.hint


def test_hint_names_what_is_near() -> None:
    with pytest.raises(SelectionError) as caught:
        Filter("used_pc < 5", classes=(BlockGroupItem,))
    assert caught.value.hint == "there is used_pct, used"
    with pytest.raises(SelectionError, match="there is no attribute stripes"):
        Filter("5 in stripes.devid", classes=(BlockGroupItem,))


@pytest.mark.parametrize(
    ("expression", "obj", "told"),
    [
        ("used < 'x'", GROUP, "cannot compare a number with text"),
        ("name == 5", ENTRY, None),
        ("name > 5", ENTRY, "cannot compare text with a number"),
        ("flags < DATA", GROUP, "words are not greater or less"),
        ("5 in name", ENTRY, "cannot compare a number with text"),
        ("location == 'x'", ENTRY, "Key representation needs 3 fields"),
        ("stripes > 5", chunk(1), "cannot compare a list with a number"),
    ],
)
def test_what_cannot_be_compared(expression: str, obj: Any, told: str | None) -> None:
    holds: Callable[[Any], bool] = Filter(expression)
    if told is None:
        assert not holds(obj)
        return
    with pytest.raises(SelectionError, match=told):
        holds(obj)


def test_order() -> None:
    groups = [
        group(vaddr=n, used=used, length=length)
        for n, (used, length) in enumerate([(5, 9), (7, 9), (5, 3), (0, 9)])
    ]
    other = from_values(UnknownItem, data=b"")
    assert [g.vaddr for g in Order("used,length:desc").sorted(groups)] == [3, 0, 2, 1]
    assert [g.vaddr for g in Order(" used:desc , vaddr").sorted(groups)] == [1, 0, 2, 3]
    assert Order("used").sorted([other, groups[0]]) == [groups[0], other]
    assert Order("used:desc").sorted([other, groups[0]]) == [groups[0], other]
    assert Order("data").sorted([other, groups[0]]) == [other, groups[0]]
    for text, told in (
        ("", "cannot sort by ''"),
        ("used;", "cannot sort by 'used;'"),
        ("usedd", "no attribute usedd"),
    ):
        with pytest.raises(SelectionError, match=told):
            Order(text)


def test_order_of_different_kinds() -> None:
    inode = from_values(InodeItem, size=5)
    assert Order("location,size").sorted([inode, ENTRY]) == [ENTRY, inode]
    assert Order("name").sorted([ENTRY, inode]) == [ENTRY, inode]
    assert [len(c.stripes) for c in Order("stripes.devid").sorted([chunk(2), chunk(1, 3)])] == [
        2,
        1,
    ]


def test_attributes_of_results() -> None:
    sizes = (100, 300, 200)
    spaces = [SpaceInfo(flags=1, total_bytes=size, used_bytes=size // 2) for size in sizes]
    large = filter(Filter("used_bytes > 50"), spaces)
    assert [space.total_bytes for space in large] == [300, 200]
    ordered = Order("total_bytes").sorted(spaces)
    assert [space.total_bytes for space in ordered] == [100, 200, 300]
