"""Declare an on-disk struct once; everything else follows from the declaration.

A subclass of :class:`Struct` reads like the kernel's header::

    class InodeRef(SubItem, line="inode ref index {index} name {name_str}"):
        index: u64
        name_len: u16
        name: bytes = blob("name_len")

Annotations say how a field is stored, in the order of the bytes; the value after ``=`` says how
it is printed or, for the parts of variable length at the end, how long it is. From it come

* slots, and a decoder that fills them from bytes (generated when the first object is made, as
  dataclasses generate ``__init__``),
* ``Class.struct_size``, the bytes of the fixed part, and ``Class.dtype``, the same in numpy,
  which is all that the column reader needs,
* ``str()`` from ``line``, a ``NAME_str`` property per field that has a pretty form, and what
  :func:`btrfs.utils.pretty_print` shows.

All numbers are little-endian and nothing is padded, as everywhere in btrfs.
"""

import functools
import re
import struct
import sys
from abc import ABCMeta
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypeAlias

from btrfs.errors import CorruptError
from btrfs.ondisk.text import embedded_text_for_str, flags_str, inode_mode_str, pretty_size

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Bytes",
    "Struct",
    "StructMeta",
    "array",
    "as_flags",
    "as_mode",
    "as_name",
    "as_size",
    "as_text",
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
    """A field of fixed size that the struct module unpacks: its code, and its numpy dtype."""

    def __init__(self, code: str, numpy: str) -> None:
        self.code = code
        self.numpy = numpy
        self.size = struct.calcsize("<" + code)


class KeyPart:
    """An attribute that is not in the item's body but in its key: 'objectid' or 'offset'."""

    def __init__(self, part: str) -> None:
        self.part = part


u8 = Annotated[int, Stored("B", "u1")]
u16 = Annotated[int, Stored("H", "<u2")]
u32 = Annotated[int, Stored("I", "<u4")]
u64 = Annotated[int, Stored("Q", "<u8")]
s64 = Annotated[int, Stored("q", "<i8")]

_UUID = Stored("16s", "V16")
if TYPE_CHECKING:
    from uuid import UUID

    uuid16 = UUID
else:
    uuid16 = Annotated[bytes, _UUID]

key_objectid = Annotated[int, KeyPart("objectid")]
key_offset = Annotated[int, KeyPart("offset")]


# How a field is printed, and the parts of variable length. These return what stands after the
# equals sign of a declaration. Their type is Any, so that it fits any annotation.


class Option:
    """What a declaration says about a field besides how it is stored."""

    def __init__(
        self,
        to_str: Callable[[Any], str] | None = None,
        *,
        hidden: bool = False,
        absent_if: tuple[str, int] | None = None,
        tail: "Tail | None" = None,
    ) -> None:
        self.to_str = to_str
        self.hidden = hidden
        self.absent_if = absent_if
        self.tail = tail


class Tail:
    """A part of variable length, after the fixed ones.

    Either bytes or a list of structs; as long as the field named ``count`` says, or up to the end
    of the item.
    """

    def __init__(self, count: str | None, of: "type[Struct] | None" = None) -> None:
        self.count = count
        self.of = of


def as_text(to_str: Callable[[Any], str]) -> Any:
    """Print as a function of the value says."""
    return Option(to_str)


def as_size() -> Any:
    """Print as a size: '1.00GiB'."""
    return Option(pretty_size)


def as_flags(names: Mapping[int, str]) -> Any:
    """Print as the names of the bits that are set: 'DATA|RAID1'."""
    return Option(functools.partial(flags_str, flags_str_map=names))


def as_name(names: Mapping[int, str], unknown: str | None = None) -> Any:
    """Print as the name of the number; as ``unknown`` or the number itself where it has none."""
    return Option(lambda value: names.get(value, str(value) if unknown is None else unknown))


def as_mode() -> Any:
    """Print as the mode of a file: '0100644'."""
    return Option(inode_mode_str)


def hidden() -> Any:
    """Decode, but don't print."""
    return Option(hidden=True)


def present_unless(field: str, value: int) -> Any:
    """Absent where an earlier field has the value given; in columns it is 0 there."""
    return Option(absent_if=(field, value))


def blob(count: str) -> Any:
    """Bytes, as many as the field ``count`` says; printed as text."""
    return Option(embedded_text_for_str, tail=Tail(count))


def rest() -> Any:
    """All bytes up to the end of the item."""
    return Option(lambda value: f"{len(value)} bytes of data", tail=Tail(None))


def array(of: "type[Struct]", count: str | None = None) -> Any:
    """A list of structs, as many as the field ``count`` says, else up to the item's end."""
    return Option(tail=Tail(count, of))


def elements(of: "type[Struct]") -> Any:
    """The structs that an item is a list of, up to its end; printed as the item's elements."""
    return Option(hidden=True, tail=Tail(None, of))


# The declaration, taken apart.


class Field:
    """One attribute of a struct: name, how it is stored, and how it is printed."""

    def __init__(self, name: str, annotation: Any, option: Option) -> None:
        self.name = name
        self.option = option
        metadata = getattr(annotation, "__metadata__", (None,))[0]
        self.key_part = metadata.part if isinstance(metadata, KeyPart) else None
        self.stored = metadata if isinstance(metadata, Stored) else None
        self.embedded: Any = annotation if hasattr(annotation, "_embedded") else None

    @property
    def size(self) -> int:
        """Bytes in the fixed part of the struct."""
        if self.stored is not None:
            return self.stored.size
        return int(self.embedded.struct_size) if self.embedded is not None else 0


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the annotations of a class body."""
    if sys.version_info >= (3, 14):
        import annotationlib

        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is None:
            return {}
        return annotationlib.call_annotate_function(annotate, annotationlib.Format.VALUE)
    annotations: dict[str, Any] = namespace.get("__annotations__", {})
    return annotations


def _is_class_variable(annotation: Any) -> bool:
    return str(annotation).startswith("typing.ClassVar")


def _str_property(name: str, to_str: Callable[[Any], str]) -> property:
    return property(
        lambda self: to_str(getattr(self, name)), doc=f"The attribute {name} in its printed form."
    )


def _generate_decode(self: "Struct", data: Bytes, pos: int) -> int:
    """Stand in for the decoder of a class until it is first used."""
    cls: Any = next(cls for cls in type(self).__mro__ if "_decode" in cls.__dict__)
    cls._decode = compile_decoder(cls, "_decode(self, data, pos)", returns="pos")
    return self._decode(data, pos)


class StructMeta(ABCMeta):
    """Turns the annotations of a class body into slots, fields and printed forms.

    Class keywords:

    * ``line``: template of ``str()``,
    * ``shortest``: old kernels wrote the struct only up to this many bytes; what is missing reads
      as zero,
    * ``print_last``: names of fields that are printed after all the others.
    """

    _fields: tuple[Field, ...]
    _shortest: int | None
    struct_size: int

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        line: str | None = None,
        shortest: int | None = None,
        print_last: tuple[str, ...] = (),
        **keywords: Any,
    ) -> "StructMeta":
        own = [
            Field(attribute, annotation, namespace.pop(attribute, None) or Option())
            for attribute, annotation in _annotations(namespace).items()
            if not _is_class_variable(annotation)
        ]
        for field in own:
            if field.option.to_str is not None and f"{field.name}_str" not in namespace:
                namespace[f"{field.name}_str"] = _str_property(field.name, field.option.to_str)
        inherited = next((base._fields for base in bases if isinstance(base, StructMeta)), ())
        # A field that is declared again keeps its place.
        by_name = {field.name: field for field in (*inherited, *own)}
        fields = tuple(by_name.values())
        inherited_names = {field.name for field in inherited}
        new = tuple(field.name for field in own if field.name not in inherited_names)
        namespace.setdefault("__slots__", new)
        namespace["_fields"] = fields
        namespace["_printed_fields"] = tuple(
            sorted(
                (field for field in fields if not field.option.hidden),
                key=lambda field: (field.key_part is None, field.name in print_last),
            )
        )
        namespace["struct_size"] = sum(field.size for field in fields)
        if own or not inherited:
            namespace["_shortest"] = shortest
            namespace.setdefault("_decode", _generate_decode)
        if line is not None:
            namespace["_line"] = line
        return super().__new__(mcs, name, bases, namespace, **keywords)

    @property
    def numpy_fields(cls) -> list[Any]:
        """The fixed part of the struct as numpy describes a packed record."""
        return [
            (field.name, field.stored.numpy if field.stored else field.embedded.numpy_fields)
            for field in cls._fields
            if field.size
        ]

    @property
    def dtype(cls) -> "np.dtype[np.void]":
        """The fixed part of the struct as a packed numpy dtype."""
        import numpy as np

        return np.dtype(cls.numpy_fields)


class Struct(metaclass=StructMeta):
    """An object made from the bytes of an on-disk struct. See the module's docstring."""

    _fields: ClassVar[tuple[Field, ...]]
    _printed_fields: ClassVar[tuple[Field, ...]]
    struct_size: ClassVar[int]
    _shortest: ClassVar[int | None]
    _line: ClassVar[str | None] = None
    _public_module: ClassVar[str] = "btrfs.ctree"

    def __init__(self, data: Bytes, pos: int = 0) -> None:
        self._decode(data, pos)

    def __str__(self) -> str:
        line = self._line or _derived_line(type(self))
        return line.format_map(_Attributes(self))

    if TYPE_CHECKING:
        # Type checkers cannot see the properties that end in _str.
        def __getattr__(self, name: str) -> str: ...

        def _decode(self, data: Bytes, pos: int) -> int:
            """Set all attributes from the bytes at pos; return where the struct ends."""

    @classmethod
    def _embedded(cls, data: Bytes, pos: int) -> Self:
        """Make an object from bytes in the middle of another struct."""
        self = cls.__new__(cls)
        self._decode(data, pos)
        return self

    @classmethod
    def _from_values(cls, **values: Any) -> Self:
        """Make an object from the values of some or all of its attributes."""
        self = cls.__new__(cls)
        for name, value in values.items():
            setattr(self, name, value)
        return self

    def _describe(self) -> str:
        """Return what names this object in pretty-printed output."""
        return f"<{self._public_module}.{type(self).__name__}>"

    def _printed(self) -> Iterator[tuple[str, Any, str]]:
        """Yield name, printable value and a remark for each attribute that is set."""
        for field in self._printed_fields:
            value = getattr(self, field.name, None)
            if value is None or (isinstance(value, list) and not value):
                continue
            if field.option.to_str is not None:
                value = getattr(self, f"{field.name}_str")
            # An inline reference has what its item has in the key, but no key.
            from_key = field.key_part is not None and hasattr(self, "header")
            remark = f" (key {field.key_part})" if from_key else ""
            yield field.name, value, remark


@functools.cache
def _derived_line(cls: type[Struct]) -> str:
    """Return the template of ``str()`` for a class that declares none: its name and all fields."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()
    shown = [field for field in cls._printed_fields if field.embedded is None]
    return words + "".join(
        f" {field.name} {{{field.name}{'_str' if field.option.to_str else ''}}}" for field in shown
    )


class _Attributes:
    """What str.format_map() looks names up in: the attributes of an object."""

    def __init__(self, obj: Struct) -> None:
        self._obj = obj

    def __getitem__(self, name: str) -> Any:
        return getattr(self._obj, name)


# The decoder. It is generated when a class makes its first object: importing the library must be
# quick, and of some forty classes a program uses few.


def compile_decoder(
    cls: "StructMeta", signature: str, *, first: Sequence[str] = (), returns: str = "None"
) -> Callable[..., Any]:
    """Compile a function that sets all fields of ``self`` from ``data`` at ``pos``.

    Args:
        cls: The class whose fields they are.
        signature: Name and parameters of the function.
        first: Statements to begin with.
        returns: The expression to return; ``pos`` is then behind the struct.
    """
    names: dict[str, Any] = {
        "complete": functools.partial(_complete, cls),
        "too_short": functools.partial(_too_short, cls),
        "struct_error": struct.error,
    }
    lines = [*(f" {line}" for line in first)]
    if cls._shortest is not None:
        lines.append(" data = complete(data, pos)")
    lines += _fixed_source(cls._fields, names)
    lines += [line for field in cls._fields for line in _tail_source(field, names)]
    source = "\n".join([f"def {signature}:", *lines, f" return {returns}"])
    exec(compile(source, f"<decoder of {cls.__name__}>", "exec"), names)
    function: Callable[..., Any] = names[signature.partition("(")[0]]
    return function


def _fixed_source(fields: tuple[Field, ...], names: dict[str, Any]) -> list[str]:
    """Write the statements for the fixed part. Fields side by side are unpacked in one call."""
    lines: list[str] = []
    codes = ""
    targets: list[str] = []
    converted: list[str] = []
    condition: tuple[str, int] | None = None
    start = offset = 0

    def flush() -> None:
        nonlocal codes, start
        if codes:
            unpack = f"unpack{len(names)}"
            names[unpack] = struct.Struct("<" + codes).unpack_from
            indent = " " if condition is None else "  "
            if condition is not None:
                lines.append(f" if self.{condition[0]} != {condition[1]}:")
            lines.append(f"{indent}({', '.join(targets)},) = {unpack}(data, pos + {start})")
            lines.extend(indent + line for line in converted)
        codes = ""
        start = offset
        targets.clear()
        converted.clear()

    for field in fields:
        if field.option.absent_if != condition or field.embedded is not None:
            flush()
            condition = field.option.absent_if
        if field.stored is not None:
            codes += field.stored.code
            if field.stored is _UUID:
                from uuid import UUID

                names["UUID"] = UUID
                targets.append(field.name)
                converted.append(f"self.{field.name} = UUID(bytes={field.name})")
            else:
                targets.append(f"self.{field.name}")
        elif field.embedded is not None:
            names[f"embedded_{field.name}"] = field.embedded._embedded
            lines.append(f" self.{field.name} = embedded_{field.name}(data, pos + {offset})")
            start += field.size
        offset += field.size
    flush()
    if not lines:
        return []
    return [
        " try:",
        *(" " + line for line in lines),
        " except struct_error:",
        "  raise too_short(self, data) from None",
        f" pos += {offset}",
    ]


def _tail_source(field: Field, names: dict[str, Any]) -> list[str]:
    tail = field.option.tail
    if tail is None:
        return []
    if tail.of is None:
        end = "len(data)" if tail.count is None else f"pos + self.{tail.count}"
        return [
            f" end = {end}",
            " if end > len(data):",
            "  raise too_short(self, data)",
            f" self.{field.name} = bytes(data[pos:end])",
            " pos = end",
        ]
    element = names[f"element_{field.name}"] = tail.of
    names["new"] = object.__new__
    loop = "while pos < len(data)" if tail.count is None else f"for _ in range(self.{tail.count})"
    check = (
        []
        if tail.count is None
        # Checked before anything is made: a count of garbage must not cost memory or time.
        else [
            f" if pos + self.{tail.count} * {element.struct_size} > len(data):",
            "  raise too_short(self, data)",
        ]
    )
    return [
        *check,
        f" self.{field.name} = elements = []",
        f" {loop}:",
        f"  element = new(element_{field.name})",
        "  pos = element._decode(data, pos)",
        "  elements.append(element)",
    ]


def _complete(cls: Any, data: Bytes, pos: int) -> Bytes:
    """Return data with the struct at pos filled up with zeros if it is of an old, short kind."""
    missing = cls.struct_size - (len(data) - pos)
    if 0 < missing <= cls.struct_size - cls._shortest:
        return bytes(data) + bytes(missing)
    return data


def _too_short(cls: Any, obj: Struct, data: Bytes) -> CorruptError:
    what = getattr(obj, "key", None) or cls.__name__
    return CorruptError(
        f"item {what}", expected=f"at least {cls.struct_size} bytes", found=f"{len(data)} bytes"
    )
