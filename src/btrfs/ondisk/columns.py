"""Bulk reading: items as numpy columns, no Python object per item.

A source yields :class:`ItemBatch` objects: the bytes of many items in one buffer, and arrays that
say under which key each item is stored and where in the buffer its body begins. Columns are made
from it by gathering values straight from the bytes::

    for batch in fs.batches(EXTENT_TREE_OBJECTID):
        extents = batch.columns(ExtentItem)
        total += extents["length"].sum()

``fs.columns(ExtentItem)`` is the short form. Values are gathered through an overlapping view of
the buffer, which has an element per byte position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from btrfs.errors import CorruptError
from btrfs.ondisk.fields import Field
from btrfs.ondisk.items.base import ItemData, SearchHeader
from btrfs.ondisk.key import Key
from btrfs.ondisk.struct import fields
from btrfs.ondisk.text import counted

__all__ = ["Columns", "ItemBatch"]

Columns = dict[str, NDArray[Any]]
ItemClass = type[ItemData]


@dataclass(frozen=True, slots=True, repr=False)
class ItemBatch:
    """Many items, in the order of their keys. All arrays but the buffer have an entry per item.

    Attributes:
        buffer: Bytes that hold the bodies, uint8.
        objectid: First part of the keys, uint64.
        type: Second part of the keys, uint8.
        offset: Third part of the keys, uint64.
        transid: Generations of the leaves, uint64.
        body: Where in the buffer each body begins, int64.
        size: Bytes in each body, uint32.
    """

    buffer: NDArray[np.uint8]
    objectid: NDArray[np.uint64]
    type: NDArray[np.uint8]
    offset: NDArray[np.uint64]
    transid: NDArray[np.uint64]
    body: NDArray[np.int64]
    size: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.type)

    def __repr__(self) -> str:
        where = f" from {self.key(0)} to {self.key(-1)}" if len(self) else ""
        return f"<ItemBatch of {counted(len(self), 'item')}{where}>"

    def select(self, chosen: NDArray[Any] | slice) -> ItemBatch:
        """Return the items that a mask, an array of indexes or a slice chooses."""
        return ItemBatch(
            self.buffer,
            self.objectid[chosen],
            self.type[chosen],
            self.offset[chosen],
            self.transid[chosen],
            self.body[chosen],
            self.size[chosen],
        )

    def of_type(self, key_type: int) -> ItemBatch:
        """Return the items of one key type."""
        mask = self.type == key_type
        return self if mask.all() else self.select(mask)

    def key(self, index: int) -> Key:
        """Return the key of one item."""
        return Key(int(self.objectid[index]), int(self.type[index]), int(self.offset[index]))

    def found(self) -> Iterator[tuple[SearchHeader, memoryview]]:
        """Yield header and body of each item, as a search does."""
        data = self.buffer.data
        parts = (self.transid, self.objectid, self.offset, self.type, self.size, self.body)
        for transid, objectid, offset, key_type, size, body in zip(
            *(part.tolist() for part in parts), strict=True
        ):
            header = SearchHeader(transid, objectid, offset, key_type, size)
            yield header, data[body : body + size]

    def keys(self, indexes: NDArray[Any]) -> list[int]:
        """Return the keys of some items as numbers of 136 bits."""
        parts = (self.objectid[indexes], self.type[indexes], self.offset[indexes])
        return [
            (objectid << 72) + (key_type << 64) + offset
            for objectid, key_type, offset in zip(*(part.tolist() for part in parts), strict=True)
        ]

    def gather(self, dtype: DTypeLike, at: int | NDArray[np.int64]) -> NDArray[Any]:
        """Return a value from each body.

        Args:
            dtype: Type of the value, little-endian: '<u8', or the dtype of a struct.
            at: Where in the body it begins, in bytes: a number, or one per item.

        Raises:
            CorruptError: A body is too short.
        """
        wanted = np.dtype(dtype)
        self._require_size(at + wanted.itemsize)
        return take(self.buffer, wanted, self.body + at)

    def columns(self, cls: ItemClass) -> Columns:
        """Return the items of a class as columns, leaving out all others.

        The columns are the attributes that the class declares in its fixed part, in order, those
        from the key first; fields of a struct inside have the name of both, like 'inode.flags'.
        Then there are 'key_objectid', 'key_type' and 'key_offset', the key itself, and
        'leaf_transid', the generation of the leaf.

        Args:
            cls: A class of items that is known by its type of key.

        Raises:
            CorruptError: A body is too short.
        """
        batch = self.of_type(cls.key_type)
        columns: Columns = {}
        for field in fields(cls):
            if field.key_part is not None:
                columns[field.name] = getattr(batch, field.key_part)
        if cls.struct_size:
            _add_fields(columns, "", fields(cls), batch._structs(cls))
        columns["key_objectid"] = batch.objectid
        columns["key_type"] = batch.type
        columns["key_offset"] = batch.offset
        columns["leaf_transid"] = batch.transid
        return columns

    def _structs(self, cls: ItemClass) -> NDArray[np.void]:
        """Return the fixed part of each body, filled up with zeros where it may be cut off."""
        if cls.layout.shortest == cls.struct_size or not (self.size < cls.struct_size).any():
            return self.gather(cls.dtype, 0)
        self._require_size(cls.layout.shortest)
        structs = np.zeros((len(self), cls.struct_size), np.uint8)
        column = np.arange(cls.struct_size)
        for size in np.unique(np.minimum(self.size, cls.struct_size)):
            rows = np.flatnonzero(np.minimum(self.size, cls.struct_size) == size)
            structs[rows, :size] = self.buffer[self.body[rows, None] + column[:size]]
        made = structs.view(cls.dtype)[:, 0]
        # What may be absent may be cut off only where it is absent.
        for condition in {field.absent_if for field in fields(cls)}:
            if condition is not None:
                other, value = condition
                self.select(made[other] != value)._require_size(cls.struct_size)
        return made

    def _require_size(self, size: int | NDArray[np.int64]) -> None:
        short = self.size < size
        if short.any():
            index = int(np.argmax(short))
            expected = int(np.broadcast_to(size, len(self))[index])
            raise CorruptError(
                f"item {self.key(index)}",
                expected=f"at least {expected} bytes",
                found=f"{self.size[index]} bytes",
            )


def take(buffer: NDArray[np.uint8], dtype: DTypeLike, positions: NDArray[np.int64]) -> NDArray[Any]:
    """Return the values that begin at the given bytes of a buffer, aligned or not."""
    wanted = np.dtype(dtype)
    if not len(positions):
        return np.empty(0, wanted)
    # A struct is taken as plain bytes: these numpy copies at one go, a struct field by field.
    element = wanted if wanted.names is None else np.dtype((np.void, wanted.itemsize))
    overlapping = np.ndarray(
        (len(buffer) - wanted.itemsize + 1,), element, buffer=buffer, strides=(1,)
    )
    return overlapping[positions].view(wanted)


def _add_fields(
    columns: Columns, prefix: str, declared: tuple[Field, ...], structs: NDArray[np.void]
) -> None:
    """Split an array of structs into columns, each contiguous and aligned."""
    for field in declared:
        if not field.size or field.hidden:
            continue
        values = structs[field.name]
        if values.dtype.names is None:
            column = np.ascontiguousarray(values)
            if field.absent_if is not None:
                other, value = field.absent_if
                column[columns[prefix + other] == value] = 0
            columns[prefix + field.name] = column
        else:
            layout = getattr(field.embedded, "layout", None)
            if layout is not None:
                _add_fields(columns, f"{prefix}{field.name}.", layout.fields, values)
            else:
                for name in values.dtype.names:
                    columns[f"{prefix}{field.name}.{name}"] = np.ascontiguousarray(values[name])
