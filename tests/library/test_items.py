"""Items as objects: text and attributes, beside those of python-btrfs for the same bytes."""

from __future__ import annotations

import contextlib
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import btrfs
from btrfs import FileSystem
from btrfs.ctree import ItemData, Key, SearchHeader, classify
from btrfs.layout import Struct
from btrfs.utils import pretty_lines, str_lines
from tests import support
from tests.library.reading import trees

# What python-btrfs says of each item of a filesystem. Where it has no class, or an item makes it
# fail, it says nothing, and there is nothing to compare.
ORACLE = """
import contextlib, io
import btrfs

def printed(function, item):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        function(item)
    return text.getvalue().splitlines()

def attributes(item):
    found = {}
    for name in dir(item):
        value = None if name.startswith("_") else getattr(item, name)
        if isinstance(value, (int, bytes, memoryview, str)) or type(value).__name__ == "UUID":
            found[name] = value
    return found

answer = []
with btrfs.FileSystem(args[0]) as fs:
    for tree in map(int, args[1].split()):
        for header, data in btrfs.ioctl.search_v2(fs.fd, tree):
            try:
                item = btrfs.ctree.classify(header, data)
            except TypeError:
                continue
            name = type(item).__name__
            if name in ("NotImplementedItem", "UnknownItem"):
                continue
            answer.append([
                list(header), bytes(data), name, str(item),
                printed(btrfs.utils.pretty_print, item), printed(btrfs.utils.str_print, item),
                attributes(item),
            ])
"""

# Where we differ on purpose.
CLASS_NAMES = {
    # Its class for lists of extended attributes exists, but is not used for them.
    ("XAttrItemList", "DirItemList"),
}


@pytest.fixture(scope="module")
def oracle_items(mounted: support.LoopFilesystem) -> list[list[Any]]:
    with FileSystem(mounted.mountpoint) as fs:
        numbers = " ".join(map(str, trees(fs)))
    answer: list[list[Any]] = support.oracle.ask(ORACLE, mounted.mountpoint, numbers)
    return answer


def objects(oracle_items: list[list[Any]]) -> Iterator[tuple[ItemData, list[Any]]]:
    for header, data, *said in oracle_items:
        yield classify(SearchHeader(*header), bytes.fromhex(data)), said


def test_same_text_as_python_btrfs(oracle_items: list[list[Any]]) -> None:
    seen = set()
    for item, (name, text, pretty, printed, _) in objects(oracle_items):
        ours = type(item).__name__
        assert ours == name or (ours, name) in CLASS_NAMES
        assert str(item) == text
        # Names may have line ends in them.
        assert "\n".join(pretty_lines(item)).replace(ours, name).splitlines() == pretty
        assert "\n".join(str_lines(item)).splitlines() == printed
        seen.add(ours)
    assert len(seen) >= 17


def test_same_attributes_as_python_btrfs(oracle_items: list[list[Any]]) -> None:
    for item, (*_, attributes) in objects(oracle_items):
        for name, value in attributes.items():
            ours = getattr(item, name)
            if isinstance(ours, bytes):
                ours = ours.hex()
            elif isinstance(ours, uuid.UUID):
                ours = str(ours)
            assert ours == value, (str(item.key), name)


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
        struct._decode(data, 0)
    for field in cls._fields:
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
