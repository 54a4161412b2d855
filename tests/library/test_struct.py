"""Declaring structs: what follows from a declaration, and which declarations are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.ctree import BlockGroupItem, Chunk, DirItem, ItemData, Key, SearchHeader, Stripe
from btrfs.errors import CorruptError
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.printing import Printable, pretty_lines, printed_form, str_lines
from btrfs.ondisk.struct import Struct, fields, from_values
from tests.library.test_items import item_classes

FUTURE = """
from __future__ import annotations
from btrfs.ondisk.fields import u64
from btrfs.ondisk.struct import Struct

class Pair(Struct):
    first: u64
    second: u64
"""


def subclasses(base: type[Struct]) -> list[type[Struct]]:
    """Return all structs that are declared."""
    return [base, *(found for cls in base.__subclasses__() for found in subclasses(cls))]


def test_annotations_that_are_text_are_refused() -> None:
    with pytest.raises(TypeError, match=r"Pair\.first: .*from __future__ import annotations"):
        exec(compile(FUTURE, "declarations", "exec", dont_inherit=True), {"__name__": "declared"})


def test_printed_form_in_the_place_of_an_option_is_refused(tmp_path: Path) -> None:
    (tmp_path / "declared.py").write_text(
        "from btrfs.ondisk.fields import u64\n"
        "from btrfs.ondisk.printing import as_size\n"
        "from btrfs.ondisk.struct import Struct\n"
        "class Length(Struct):\n"
        "    length: u64 = as_size()\n"
    )
    done = subprocess.run(
        [sys.executable, "declared.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "its printed form is declared as length_str" in done.stderr


def test_fields() -> None:
    assert [field.name for field in fields(Stripe)] == ["devid", "offset", "uuid"]
    assert [field.size for field in fields(Stripe)] == [8, 8, 16]
    by_name = {field.name: field for field in fields(Chunk)}
    assert by_name["vaddr"].key_part == "offset"
    assert by_name["stripes"].tail is not None
    assert by_name["stripes"].tail.of is Stripe
    location, *_ = fields(from_values(DirItem, type=1))
    assert (location.name, location.embedded.struct_size, location.hidden) == (
        "location",
        17,
        False,
    )


def test_from_values() -> None:
    group = from_values(BlockGroupItem, used=1 << 20, flags=1)
    assert (group.used_str, group.flags_str) == ("1.00MiB", "DATA")
    assert not hasattr(group, "length")
    with pytest.raises(TypeError, match="BlockGroupItem has no attribute usde"):
        from_values(BlockGroupItem, usde=5)


@pytest.mark.parametrize("cls", subclasses(Struct), ids=lambda cls: cls.__name__)
def test_every_printed_form_is_that_of_an_attribute(cls: type[Struct]) -> None:
    names = {field.name for field in fields(cls)}
    for name in dir(cls):
        if printed_form(cls, name) is not None:
            assert name in names


@pytest.mark.parametrize("cls", subclasses(Struct), ids=lambda cls: cls.__name__)
def test_repr_says_what_it_is_even_half_filled(cls: type[Struct]) -> None:
    assert repr(cls.__new__(cls)).lstrip("<").startswith(cls.__name__)


def test_repr() -> None:
    group = BlockGroupItem(SearchHeader(7, 4096, 2, 192, 24), bytes(16) + b"\x01" + bytes(7))
    assert repr(group) == (
        "<BlockGroupItem (4096 BLOCK_GROUP_ITEM 2) "
        "vaddr=4096 length=2 used=0 chunk_objectid=0 flags=1>"
    )
    assert repr(from_values(BlockGroupItem, used=3)) == "<BlockGroupItem used=3>"
    entry = from_values(DirItem, location=Key(257, 1, 0), type=2, name=b"name")
    assert repr(entry) == "<DirItem location=Key(257, 1, 0) type=2 name=b'name'>"


def test_repr_of_a_batch() -> None:
    batch = batch_of(SearchHeader(7, 4096, 2, 192, 24), bytes(24))
    assert repr(batch) == (
        "<ItemBatch of 1 item from (4096 BLOCK_GROUP_ITEM 2) to (4096 BLOCK_GROUP_ITEM 2)>"
    )
    assert repr(batch.select(slice(0, 0))) == "<ItemBatch of 0 items>"


# One item in every form: its attributes, columns, str() and pretty print say the same.


LEAF_TRANSID = 77


def batch_of(header: SearchHeader, body: bytes) -> ItemBatch:
    """Return a batch that is one item."""
    return ItemBatch(
        buffer=np.frombuffer(body + bytes(4096), np.uint8),
        objectid=np.array([header.objectid], np.uint64),
        type=np.array([header.type], np.uint8),
        offset=np.array([header.offset], np.uint64),
        transid=np.array([header.transid], np.uint64),
        body=np.zeros(1, np.int64),
        size=np.array([header.len], np.uint32),
    )


def value_of_column(obj: Any, name: str) -> Any:
    """Return the attribute that a column like 'inode.flags' is about; None where it is absent."""
    for part in name.split("."):
        obj = getattr(obj, part, None)
    return obj


def assert_same_in_all_forms(item: ItemData, body: bytes) -> None:
    for name, column in batch_of(item.header, body).columns(type(item)).items():
        expected = value_of_column(item, name)
        if isinstance(expected, int):
            assert column[0] == expected, name
    # The leaf has a generation, and so have inodes and names of files.
    assert batch_of(item.header, body).columns(type(item))["leaf_transid"][0] == LEAF_TRANSID
    shown = dict(line.split(": ", 1) for line in list(pretty_lines(item))[1:] if ": " in line)
    for name in item.printed_names():
        form = printed_form(type(item), name)
        value = getattr(item, name, None)
        if value is not None and not isinstance(value, list | Printable):
            text = shown[name].partition(" (key ")[0]
            assert text == (str(value) if form is None else form(value)), name
    assert next(str_lines(item)) == str(item)


@given(
    cls=st.sampled_from(item_classes()),
    body=st.binary(max_size=600),
    objectid=st.integers(0, (1 << 64) - 1),
    offset=st.integers(0, (1 << 64) - 1),
)
def test_readers_and_printers_agree(
    cls: type[ItemData], body: bytes, objectid: int, offset: int
) -> None:
    body = body.ljust(cls.struct_size, b"\0")
    header = SearchHeader(LEAF_TRANSID, objectid, offset, cls.key_type, len(body))
    try:
        item = cls(header, body)
    except CorruptError:
        return
    assert_same_in_all_forms(item, body)
