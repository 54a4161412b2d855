"""All that can be asked of one object, asked: every attribute, and every printed form.

Nothing is expected of the answers, only that there are some.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from btrfs.ctree import ExtentCsumItem, FreeSpaceBitmap, ItemData, SearchHeader
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items import base
from btrfs.ondisk.key import Key
from btrfs.ondisk.struct import Struct
from btrfs.query.records import record
from btrfs.utils import pretty_lines, str_lines

SECTORSIZE = 4096

MANY_ELEMENTS = 1000
"""So many runs of free space of a bitmap are enough."""

CSUM_SIZES = (4, 8, 32)


def item_classes() -> list[type[ItemData]]:
    """Return all classes that stand for a type of key, and those that are stored inside others."""
    base._import_families()
    found: list[type[ItemData]] = []
    classes: list[type[ItemData]] = [ItemData]
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        if "key_type" in cls.__dict__:
            found.append(cls)
    return sorted(found, key=lambda cls: (cls.key_type, cls.__name__))


def touch_object(obj: Any) -> None:
    """Read every attribute of an object and of those inside it, and print it in every form."""
    assert str(obj)
    for line in itertools.chain(pretty_lines(obj), str_lines(obj)):
        # Undecoded bytes would be text that no terminal takes.
        line.encode()
    json.dumps(record(obj)).encode()
    touch_attributes(obj)


def touch_attributes(obj: Any) -> None:
    """Read every attribute of an object and of those inside it."""
    for value in _values(obj):
        inner = value if isinstance(value, list) else [value]
        for element in inner:
            if isinstance(element, Struct | Key):
                touch_attributes(element)
    if isinstance(obj, FreeSpaceBitmap):
        for free in itertools.islice(obj.unpack(SECTORSIZE), MANY_ELEMENTS):
            assert str(free)
    if isinstance(obj, ExtentCsumItem):
        for size in CSUM_SIZES:
            assert b"".join(obj.split(size)) == obj.sums


def _values(obj: Any) -> Iterator[Any]:
    cls: Any = type(obj)
    names = _slots(cls) | _properties(cls)
    for name in sorted(name for name in names if not name.startswith("_")):
        # Of what an object may lack, such as references that were not loaded, or the key of an item
        # inside another one, the printed form is lacking too.
        attribute = "header" if name == "key" else name.removesuffix("_str")
        if attribute not in _slots(cls) or hasattr(obj, attribute):
            yield getattr(obj, name)


@functools.cache
def _slots(cls: type) -> frozenset[str]:
    return frozenset(name for base in cls.__mro__ for name in base.__dict__.get("__slots__", ()))


@functools.cache
def _properties(cls: type) -> frozenset[str]:
    return frozenset(
        name
        for base in cls.__mro__
        for name, value in base.__dict__.items()
        if isinstance(value, property)
    )


def touch_batch(batch: ItemBatch, classes: list[type[ItemData]] | None = None) -> None:
    """Make columns of a batch of items, of each of the classes, and read their values.

    Raises:
        CorruptError: A body is too short.
    """
    for cls in item_classes() if classes is None else classes:
        if cls.key_type in batch.type:
            for column in batch.columns(cls).values():
                assert len(column.tobytes()) == column.nbytes


def batch_of(header: SearchHeader, data: Bytes) -> ItemBatch:
    """Return a batch of the one item."""
    return ItemBatch(
        buffer=np.frombuffer(bytes(data), np.uint8),
        objectid=np.array([header.objectid], np.uint64),
        type=np.array([header.type], np.uint8),
        offset=np.array([header.offset], np.uint64),
        transid=np.array([header.transid], np.uint64),
        body=np.zeros(1, np.int64),
        size=np.array([len(data)], np.uint32),
    )
