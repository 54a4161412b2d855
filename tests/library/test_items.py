"""Items as objects; test_differential compares them with those of python-btrfs."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest

import btrfs
from btrfs import FileSystem
from btrfs.ctree import ItemData, Key, SearchHeader, classify
from btrfs.ondisk.items.base import item_reader
from btrfs.ondisk.struct import Struct, fields
from btrfs.utils import pretty_lines
from tests import support
from tests.library.reading import trees


def test_every_item_is_known(mounted: support.LoopFilesystem) -> None:
    with FileSystem(mounted.mountpoint) as fs:
        unknown = [
            str(item.key)
            for tree in trees(fs)
            for item in fs.search(tree)
            if isinstance(item, btrfs.ctree.UnknownItem)
        ]
    assert not unknown


def item_classes() -> list[type[ItemData]]:
    """Return all classes that classify() knows, and those inside them."""
    found: list[type[ItemData]] = []
    classes = [ItemData]
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        if "key_type" in cls.__dict__:
            found.append(cls)
    return found


@pytest.mark.parametrize("cls", item_classes(), ids=lambda cls: cls.__name__)
def test_any_body_is_decoded_or_refused(cls: type[ItemData]) -> None:
    """No exception but CorruptError, whatever the length and content of the body."""
    for fill in (b"\x00", b"\x01", b"\xff", bytes(range(256))):
        for size in (*range(cls.struct_size + 40), 512):
            data = (fill * (size + 1))[:size]
            header = SearchHeader(1, 256, 0, cls.key_type, size)
            with contextlib.suppress(btrfs.errors.CorruptError):
                item = cls(header, data)
                assert list(pretty_lines(item))
                assert str(item)


@pytest.mark.parametrize("cls", item_classes(), ids=lambda cls: cls.__name__)
def test_dtype_is_the_struct(cls: type[ItemData]) -> None:
    """The column reader and the object reader see the same bytes as the same numbers."""
    assert cls.dtype.itemsize == cls.struct_size
    data = bytes(index % 251 for index in range(cls.struct_size))
    if not data:
        return
    (record,) = np.frombuffer(data, cls.dtype)
    struct = Struct.__new__(cls)
    # Lengths in these bytes reach beyond them; the fixed part is decoded all the same.
    with contextlib.suppress(btrfs.errors.CorruptError):
        Struct.__init__(struct, data)
    for field in fields(cls):
        if field.stored is not None and isinstance(getattr(struct, field.name), int):
            assert getattr(struct, field.name) == record[field.name]


def test_keys_of_items() -> None:
    item = classify(SearchHeader(7, 5, 9, btrfs.ctree.DEV_EXTENT_KEY, 48), bytes(48))
    assert isinstance(item, btrfs.ctree.DevExtent)
    assert item.key == Key(5, btrfs.ctree.DEV_EXTENT_KEY, 9)
    assert (item.devid, item.paddr, item.vaddr, item.header.transid) == (5, 9, 0, 7)
    later = classify(SearchHeader(7, 5, 10, btrfs.ctree.DEV_EXTENT_KEY, 48), bytes(48))
    assert item < later
    with pytest.raises(AttributeError):
        item.nonsense = 1  # type: ignore[attr-defined]


def test_truly_unknown_item_keeps_its_bytes() -> None:
    item = classify(SearchHeader(1, 2, 3, 77, 2), memoryview(b"ab"))
    assert isinstance(item, btrfs.ctree.UnknownItem)
    assert item.data == b"ab"
    assert str(item) == "unknown item data (2 bytes)"


EVERY_CLASS = """
import sys, btrfs
with btrfs.FileSystem(sys.argv[1]) as fs:
    names = {type(item).__name__ for tree in (1, 7, 9) for item in fs.search(tree)}
print(*sorted(names))
"""


def test_classes_do_not_depend_on_what_was_imported(tmp_path: Path) -> None:
    """A script that imports btrfs and nothing else gets an object of the right class."""
    image = support.stored_image("block-group-tree.btrfs-image", tmp_path)
    names = support.run(sys.executable, "-c", EVERY_CLASS, image).split()
    assert {"ExtentCsumItem", "UuidSubvolItem", "RootBackref"} <= set(names)
    assert "UnknownItem" not in names


@pytest.mark.parametrize("cls", item_classes(), ids=lambda cls: cls.__name__)
def test_reader_makes_what_the_constructor_makes(cls: type[ItemData]) -> None:
    """But for what a constructor adds: the reader sets all that is declared to be stored."""
    header = SearchHeader(1, 4096, 8192, cls.key_type, cls.struct_size)
    data = bytes(cls.struct_size)
    read, made = item_reader(cls)(header, data), cls(header, data)
    assert type(read) is cls
    assert read.header == header
    for field in fields(cls):
        if field.stored is not None or field.key_part is not None:
            assert getattr(read, field.name, None) == getattr(made, field.name, None)
