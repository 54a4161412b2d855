"""What all items share: the key, the order, and finding the class for a type of key."""

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, MutableSequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, overload

from btrfs.ondisk.decoder import compile_decoder
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.key import Key
from btrfs.ondisk.struct import Struct, fields

__all__ = [
    "ItemData",
    "ItemList",
    "NotImplementedItem",
    "SearchHeader",
    "SubItem",
    "UnknownItem",
    "classify",
    "item_reader",
]


class SearchHeader(NamedTuple):
    """What a search says about an item (struct btrfs_ioctl_search_header).

    Attributes:
        transid: Generation of the leaf that the item was found in.
        objectid: First part of the key.
        offset: Third part of the key.
        type: Second part of the key.
        len: Bytes in the item's body.
    """

    transid: int
    objectid: int
    offset: int
    type: int
    len: int


def classify(header: SearchHeader, data: Bytes) -> "ItemData":
    """Make the object for an item that a search returned.

    Args:
        header: Key and generation of the item.
        data: Its body.

    Raises:
        CorruptError: The body is too short for what should be in it.
    """
    make = _maker_by_type.get(header.type)
    if make is None:
        if header.type not in _class_by_type:
            _import_families()
        cls = _class_by_type.get(header.type)
        if cls is None:
            key = header.type, header.objectid
            return _class_by_type_and_objectid.get(key, UnknownItem)(header, data)
        make = _maker_by_type[header.type] = _maker(cls)
    return make(header, data)


def item_reader(cls: "type[_Item]") -> "Callable[[SearchHeader, Bytes], _Item]":
    """Return a function that makes objects from header and body, as fast as that can be done.

    It sets what the class declares; what a constructor of the class does besides, it leaves out.
    """
    reader = _reader_by_class.get(cls)
    if reader is None:
        first = ["self = new(cls)", *_from_header(cls)]
        reader = compile_decoder(cls.layout, "read(header, data)", first, "self", {"cls": cls})
        _reader_by_class[cls] = reader
    return reader


def _maker(cls: "type[ItemData]") -> "Callable[[SearchHeader, Bytes], ItemData]":
    """Return what makes the same objects as a class does: its reader, or the class itself."""
    return item_reader(cls) if cls.__init__ is ItemData.__init__ else cls


@functools.cache
def _import_families() -> None:
    """Import all modules of items: until then, those that nothing else needs stand for no key."""
    package = importlib.import_module("btrfs.ondisk.items")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"btrfs.ondisk.items.{module.name}")


# Which class stands for a type of key; where the type alone doesn't tell, with the object id.
_class_by_type: dict[int, "type[ItemData]"] = {}
_class_by_type_and_objectid: dict[tuple[int, int], "type[ItemData]"] = {}

# What makes the objects, for classes that a search has met.
_maker_by_type: "dict[int, Callable[[SearchHeader, Bytes], ItemData]]" = {}
_reader_by_class: "dict[type[ItemData], Callable[[SearchHeader, Bytes], Any]]" = {}

_Item = TypeVar("_Item", bound="ItemData")


class ItemData(Struct):
    """An item of a metadata tree.

    Class keywords, besides those of :class:`btrfs.ondisk.struct.StructMeta`: ``type`` and
    ``objectid`` are the type of key, and where needed the object id, that :func:`classify` knows
    it by; ``tree`` is the tree that all items of the class are in, if there is only one.

    Attributes:
        header: Where the item was found: key, generation of its leaf, size.
    """

    __slots__ = ("header",)

    key_type: ClassVar[int]
    home_tree: ClassVar[int | None] = None

    if TYPE_CHECKING:
        header: SearchHeader

    def __init__(self, header: SearchHeader, data: Bytes = b"") -> None:
        self._load(header, data)

    def __init_subclass__(
        cls,
        *,
        type: int | None = None,
        objectid: int | None = None,
        tree: int | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        cls.home_tree = tree
        cls._load = _compile_load  # type: ignore[method-assign]
        if type is not None:
            cls.key_type = type
        if type is not None and objectid is not None:
            _class_by_type_and_objectid[type, objectid] = cls
        elif type is not None:
            _class_by_type[type] = cls
            _maker_by_type.pop(type, None)

    @property
    def key(self) -> Key:
        """The key that the item is stored under."""
        return Key(self.header.objectid, self.header.type, self.header.offset)

    def __lt__(self, other: "ItemData") -> bool:
        return self.key < other.key

    def __repr__(self) -> str:
        key = f" {self.key}" if hasattr(self, "header") else ""
        name, _, values = super().__repr__().partition(" ")
        return f"{name}{key} {values}" if values else f"{name[:-1]}{key}>"

    def pretty_name(self) -> str:
        """Return class and key, which stand above the attributes in pretty-printed output."""
        key = f" {self.key}" if hasattr(self, "header") else ""
        return f"{super().pretty_name()[:-1]}{key}>"

    def pretty_attributes(self) -> Iterator[tuple[str, Any]]:
        """Yield name and printable value of each attribute; it says which are from the key."""
        # An inline reference has what its item has in the key, but no key.
        parts = _key_parts(type(self)) if hasattr(self, "header") else {}
        for name, value in super().pretty_attributes():
            yield name, f"{value} (key {parts[name]})" if name in parts else value

    if TYPE_CHECKING:

        def _load(self, header: SearchHeader, data: Bytes) -> None:
            """Set all attributes that the class declares."""


@functools.cache
def _key_parts(cls: type[ItemData]) -> dict[str, str]:
    """Return the names of the attributes that come from the key, and from which part of it."""
    return {field.name: field.key_part for field in fields(cls) if field.key_part is not None}


def _from_header(cls: type[ItemData]) -> list[str]:
    """Return the statements that set what an item has from its header."""
    parts = [f"self.{name} = header.{part}" for name, part in _key_parts(cls).items()]
    return ["self.header = header", *parts]


def _compile_load(self: ItemData, header: SearchHeader, data: Bytes) -> None:
    """Stand in for ``_load`` of a class until it is first used."""
    cls = type(self)
    load = compile_decoder(cls.layout, "_load(self, header, data)", _from_header(cls))
    cls._load = load  # type: ignore[method-assign]
    load(self, header, data)


class SubItem(Struct):
    """A struct inside an item."""


Element = TypeVar("Element", bound=Struct)


class ItemList(ItemData, MutableSequence[Element]):
    """An item that is a list of structs, for names whose hash is the same. It cannot be changed.

    A subclass declares ``elements``.
    """

    if TYPE_CHECKING:
        elements: list[Element]

    @overload
    def __getitem__(self, index: int) -> Element: ...
    @overload
    def __getitem__(self, index: slice) -> list[Element]: ...
    def __getitem__(self, index: int | slice) -> Element | list[Element]:
        return self.elements[index]

    def __len__(self) -> int:
        return len(self.elements)

    def __str__(self) -> str:
        return f"{super().__str__()} size {len(self)}"

    def __repr__(self) -> str:
        elements = repr(self.elements) if hasattr(self, "elements") else ""
        return f"{super().__repr__()[:-1]} {elements}>"

    def printed_inside(self) -> Iterator[Any]:
        """Yield the elements."""
        yield from super().printed_inside()
        yield self.elements

    def __setitem__(self, index: Any, value: Any) -> None:
        raise NotImplementedError("items cannot be changed")

    def __delitem__(self, index: Any) -> None:
        raise NotImplementedError("items cannot be changed")

    def insert(self, index: int, value: Element) -> None:
        """Not implemented: items cannot be changed."""
        raise NotImplementedError("items cannot be changed")


class UnknownItem(ItemData):
    """An item whose type of key is not known here.

    Attributes:
        data: The item's body.
    """

    __slots__ = ("data",)

    if TYPE_CHECKING:
        data: bytes

    def __init__(self, header: SearchHeader, data: Bytes = b"") -> None:
        self.header = header
        self.data = bytes(data)

    def __str__(self) -> str:
        return f"unknown item data ({len(self.data)} bytes)"


class NotImplementedItem(UnknownItem):
    """What python-btrfs returns for items that it does not decode. All are decoded here."""

    def __str__(self) -> str:
        return f"not implemented item data ({len(self.data)} bytes)"
