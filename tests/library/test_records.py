"""Objects as plain data: nothing is lost on the way to JSON and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem
from btrfs.ctree import DirItem, Key, SearchHeader, classify
from btrfs.ondisk.struct import Struct, fields, from_values
from btrfs.query.records import record
from tests import support
from tests.library.reading import trees


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.stored_image("simple-quota.img", tmp_path_factory.mktemp("records"))


def assert_same(plain: Any, value: Any) -> None:
    """Compare what JSON has for an attribute with the attribute."""
    if isinstance(value, bytes):
        as_bytes = bytes.fromhex(plain["hex"]) if isinstance(plain, dict) else plain.encode()
        assert as_bytes == value
    elif isinstance(value, Key):
        assert Key(plain["objectid"], plain["type"], plain["offset"]) == value
        assert plain["str"] == str(value)
    elif isinstance(value, Struct):
        assert_same_struct(plain, value)
    elif isinstance(value, list):
        for element, inner in zip(plain, value, strict=True):
            assert_same(element, inner)
    else:
        assert plain == (value if isinstance(value, int) else str(value))


def assert_same_struct(plain: dict[str, Any], obj: Struct) -> None:
    assert plain["class"] == type(obj).__name__
    for field in fields(obj):
        if hasattr(obj, field.name) and "reserved" not in field.name:
            assert_same(plain[field.name], getattr(obj, field.name))


def test_every_item_comes_back(image: Path) -> None:
    classes = set()
    with FileSystem(image) as fs:
        for tree in trees(fs):
            for item in fs.search(tree):
                plain = json.loads(json.dumps(record(item)))
                assert_same_struct(plain, item)
                assert_same(plain["key"], item.key)
                assert plain["leaf_transid"] == item.header.transid
                classes.add(plain["class"])
    assert len(classes) > 15


def test_words_stand_beside_numbers(image: Path) -> None:
    with FileSystem(image) as fs:
        group = record(next(iter(fs.block_groups())))
        inode = record(next(iter(fs.search(5))))
    assert (group["flags"], group["flags_str"]) == (1, "DATA")
    assert isinstance(group["length"], int)
    assert "length_str" not in group, "1.00GiB is a rounded number"
    assert inode["mode_str"] == "040755"
    assert set(inode["mtime"]) == {"class", "sec", "nsec", "iso8601"}


def test_bytes_that_are_no_text() -> None:
    location = Key(257, "INODE_ITEM", 0)
    entry = from_values(DirItem, location=location, transid=1 << 63, name=b"\xff\n", data=b"")
    plain = json.loads(json.dumps(record(entry)))
    assert plain["name"] == {"hex": "ff0a"}
    assert plain["data"] == ""
    assert plain["transid"] == 1 << 63
    unknown = classify(SearchHeader(1, (1 << 64) - 1, 3, 231, 2), b"ab")
    plain = json.loads(json.dumps(record(unknown)))
    assert plain["data"] == {"hex": "6162"}
    assert plain["key"] == {
        "objectid": (1 << 64) - 1,
        "type": 231,
        "offset": 3,
        "str": "(-1 231 3)",
    }


def test_containers() -> None:
    assert record({1: [b"a", (2, None)]}) == {"1": ["a", [2, None]]}


def test_usage(image: Path) -> None:
    """Numbers that are computed, and not read, have the same form."""
    with FileSystem(image) as fs:
        usage = fs.usage()
        plain = json.loads(json.dumps(record(usage)))
    data = plain["virtual_block_group_type_usage"]["1"]
    assert data["unused"] == data["total"] - data["used"] > 0
    assert plain["free_data"] == usage.free_data
    assert plain["dev_usage"]["1"]["unallocated"] == usage.dev_usage[1].unallocated
