"""How the fields of a struct are declared: where each is stored, in how many bytes.

These are the words that declarations are written in (see :mod:`btrfs.ondisk.struct`). An
annotation says how a field is stored; the value after ``=``, if there is one, that it does not
print, when it is absent, or, for the parts of variable length at the end, how long it is.
"""

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeAlias

__all__ = [
    "UUID_STORED",
    "Absence",
    "Bytes",
    "Field",
    "KeyPart",
    "Layout",
    "Option",
    "Stored",
    "Tail",
    "array",
    "blob",
    "elements",
    "hidden",
    "key_objectid",
    "key_offset",
    "present_unless",
    "rest",
    "s64",
    "u8",
    "u16",
    "u32",
    "u64",
    "uuid16",
]

Bytes: TypeAlias = bytes | bytearray | memoryview


# How a field is stored.


class Stored:
    """A field of fixed size.

    Attributes:
        code: Its code in the struct module.
        numpy: Its numpy dtype.
        size: Bytes.
    """

    def __init__(self, code: str, numpy: str) -> None:
        self.code = code
        self.numpy = numpy
        self.size = struct.calcsize("<" + code)


class KeyPart:
    """An attribute that is not in the item's body but in its key.

    Attributes:
        part: 'objectid' or 'offset'.
    """

    def __init__(self, part: str) -> None:
        self.part = part


u8 = Annotated[int, Stored("B", "u1")]
u16 = Annotated[int, Stored("H", "<u2")]
u32 = Annotated[int, Stored("I", "<u4")]
u64 = Annotated[int, Stored("Q", "<u8")]
s64 = Annotated[int, Stored("q", "<i8")]

UUID_STORED = Stored("16s", "V16")
if TYPE_CHECKING:
    from uuid import UUID

    uuid16 = UUID
else:
    # The uuid module takes a while to import; the decoder does so for the first struct with one.
    uuid16 = Annotated[bytes, UUID_STORED]

key_objectid = Annotated[int, KeyPart("objectid")]
key_offset = Annotated[int, KeyPart("offset")]


# What else is said about a field. These return what stands after the equals sign of a declaration;
# their type is Any, so that it fits any annotation.


class Absence(NamedTuple):
    """When a field is absent.

    Attributes:
        field: Name of an earlier field.
        value: The value of that field for which this one is absent.
    """

    field: str
    value: int


class Tail:
    """A part of variable length, after the fixed ones: bytes, or a list of structs.

    Attributes:
        count: Name of the field that says how many; None if it goes on to the end of the item.
        of: Class of the structs, a Struct; None for bytes.
    """

    def __init__(self, count: str | None, of: type[Any] | None = None) -> None:
        self.count = count
        self.of = of


class Option:
    """What a declaration says about a field besides how it is stored. See :class:`Field`."""

    def __init__(
        self, *, hidden: bool = False, absent_if: Absence | None = None, tail: Tail | None = None
    ) -> None:
        self.hidden = hidden
        self.absent_if = absent_if
        self.tail = tail


def hidden() -> Any:
    """Decode, but don't print."""
    return Option(hidden=True)


def present_unless(field: str, value: int) -> Any:
    """Absent where an earlier field has the value given; in columns it is 0 there."""
    return Option(absent_if=Absence(field, value))


def blob(count: str) -> Any:
    """Bytes, as many as the field ``count`` says."""
    return Option(tail=Tail(count))


def rest() -> Any:
    """All bytes up to the end of the item."""
    return Option(tail=Tail(None))


def array(of: type[Any], count: str | None = None) -> Any:
    """A list of structs, as many as the field ``count`` says, else up to the item's end."""
    return Option(tail=Tail(count, of))


def elements(of: type[Any]) -> Any:
    """The structs that an item is a list of, up to its end; printed as the item's elements."""
    return Option(hidden=True, tail=Tail(None, of))


# The declaration, taken apart.


class Field:
    """One attribute of a struct.

    Attributes:
        name: Its name.
        stored: How it is stored, if it is a plain value in the fixed part.
        embedded: Class of the struct that it is, if it is one in the fixed part: a Struct or
            DiskKey, with ``struct_size``, ``numpy_fields`` and ``unpack_from()``.
        key_part: 'objectid' or 'offset', if it is a part of the item's key.
        tail: What it is, if it is of variable length.
        absent_if: When it is absent.
        hidden: Whether it does not print.
    """

    def __init__(self, name: str, annotation: Any, option: Option) -> None:
        self.name = name
        metadata = getattr(annotation, "__metadata__", (None,))[0]
        self.stored = metadata if isinstance(metadata, Stored) else None
        self.embedded: Any = annotation if hasattr(annotation, "unpack_from") else None
        self.key_part = metadata.part if isinstance(metadata, KeyPart) else None
        self.tail = option.tail
        self.absent_if = option.absent_if
        self.hidden = option.hidden

    @property
    def size(self) -> int:
        """Bytes in the fixed part of the struct; 0 if it is not in it."""
        if self.stored is not None:
            return self.stored.size
        return int(self.embedded.struct_size) if self.embedded is not None else 0

    def __repr__(self) -> str:
        return f"<Field {self.name}>"


@dataclass(frozen=True, slots=True)
class Layout:
    """All fields of a struct.

    Attributes:
        name: Name of the class.
        fields: The fields, in the order of the bytes.
        size: Bytes of the fixed part.
        shortest: Bytes of the shortest form of it that a kernel wrote; what is missing reads as
            zero.
    """

    name: str
    fields: tuple[Field, ...]
    size: int
    shortest: int
