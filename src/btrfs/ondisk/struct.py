"""Declare an on-disk struct once; everything else follows from the declaration.

A subclass of :class:`Struct` reads like the kernel's header::

    class InodeRef(SubItem, line="inode ref index {index} name {name_str}"):
        index: u64
        name_len: u16
        name: bytes = blob("name_len")
        name_str = printed(embedded_text_for_str)

Annotations say how a field is stored, in the order of the bytes, in the words of
:mod:`btrfs.ondisk.fields`; ``NAME_str`` is the printed form of a field, see
:mod:`btrfs.ondisk.printing`. From it come

* slots, and a decoder that fills them from bytes (:mod:`btrfs.ondisk.decoder`),
* ``Class.struct_size``, the bytes of the fixed part, and ``Class.dtype``, the same in numpy,
  which is all that the column reader needs,
* ``str()`` from ``line``, and what :func:`btrfs.utils.pretty_print` shows,
* the types that type checkers see: an attribute that is misspelt is an error.

All numbers are little-endian and nothing is padded, as everywhere in btrfs.
"""

import sys
from abc import ABCMeta
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, get_origin

from btrfs.ondisk.decoder import compile_decoder
from btrfs.ondisk.fields import Bytes, Field, Layout, Option
from btrfs.ondisk.printing import Printable

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Struct", "StructMeta", "fields", "from_values"]


def fields(struct: "StructMeta | Struct") -> tuple[Field, ...]:
    """Return the fields of a struct, as dataclasses.fields() does, in the order of the bytes.

    Args:
        struct: The class, or an object of it.
    """
    return struct.layout.fields


_S = TypeVar("_S", bound="Struct")


def from_values(cls: type[_S], /, **values: Any) -> _S:
    """Return an object made from the values of some or all of its attributes, not from bytes.

    Raises:
        TypeError: The class has no such attribute.
    """
    made = cls.__new__(cls)
    for name, value in values.items():
        if not hasattr(cls, name):
            raise TypeError(f"{cls.__name__} has no attribute {name}")
        setattr(made, name, value)
    return made


class StructMeta(ABCMeta):
    """Turns the annotations of a class body into slots and fields.

    Class keywords, besides those of :class:`btrfs.ondisk.printing.Printable`:

    * ``shortest``: old kernels wrote the struct only up to this many bytes; what is missing reads
      as zero,
    * ``print_last``: names of fields that are printed after all the others.

    Attributes:
        layout: The fields.
    """

    layout: Layout
    struct_size: int

    def __new__(
        mcs,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        shortest: int | None = None,
        print_last: tuple[str, ...] = (),
        **keywords: Any,
    ) -> "StructMeta":
        own = _own_fields(name, namespace)
        base = next((base.layout for base in bases if isinstance(base, StructMeta)), None)
        inherited = () if base is None else base.fields
        # A field that is declared again keeps its place.
        by_name = {field.name: field for field in (*inherited, *own)}
        all_fields = tuple(by_name.values())
        inherited_names = {field.name for field in inherited}
        new = tuple(field.name for field in own if field.name not in inherited_names)
        namespace.setdefault("__slots__", new)
        size = sum(field.size for field in all_fields)
        if own or base is None:
            namespace.setdefault("_decode", _compile_decode)
        elif shortest is None:
            shortest = base.shortest
        namespace["layout"] = Layout(name, all_fields, size, size if shortest is None else shortest)
        namespace["struct_size"] = size
        printed = sorted(
            (field for field in all_fields if not field.hidden),
            key=lambda field: (field.key_part is None, field.name in print_last),
        )
        namespace["_printed_names"] = tuple(field.name for field in printed)
        return super().__new__(mcs, name, bases, namespace, **keywords)

    @property
    def numpy_fields(cls) -> list[Any]:
        """The fixed part of the struct as numpy describes a packed record."""
        return [
            (field.name, field.stored.numpy if field.stored else field.embedded.numpy_fields)
            for field in cls.layout.fields
            if field.size
        ]

    @property
    def dtype(cls) -> "np.dtype[np.void]":
        """The fixed part of the struct as a packed numpy dtype."""
        import numpy as np

        return np.dtype(cls.numpy_fields)


# What the class body says; the class Struct below needs it already.


def _own_fields(name: str, namespace: dict[str, Any]) -> list[Field]:
    """Return the fields that a class body declares, and take their options out of it."""
    own = []
    for attribute, annotation in _annotations(namespace).items():
        if isinstance(annotation, str):
            raise TypeError(
                f"{name}.{attribute}: how a field is stored is read from its annotation when the "
                "class is made, so it must not be text; remove 'from __future__ import "
                "annotations' from the module, or the quotes"
            )
        if get_origin(annotation) is ClassVar or annotation is ClassVar:
            continue
        option = namespace.pop(attribute, Option())
        if not isinstance(option, Option):
            raise TypeError(
                f"{name}.{attribute}: the value of a field is an option such as hidden(), not "
                f"{option!r}; its printed form is declared as {attribute}_str"
            )
        own.append(Field(attribute, annotation, option))
    return own


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the annotations of a class body."""
    if sys.version_info >= (3, 14):
        import annotationlib

        annotate = annotationlib.get_annotate_from_class_namespace(namespace)
        if annotate is not None:
            return annotationlib.call_annotate_function(annotate, annotationlib.Format.VALUE)
    annotations: dict[str, Any] = namespace.get("__annotations__", {})
    return annotations


def _compile_decode(self: "Struct", data: Bytes, pos: int) -> int:
    """Stand in for the decoder of a class until it is first used."""
    cls: Any = next(cls for cls in type(self).__mro__ if "_decode" in cls.__dict__)
    cls._decode = compile_decoder(cls.layout, "_decode(self, data, pos)")
    return self._decode(data, pos)


class Struct(Printable, metaclass=StructMeta):
    """An object made from the bytes of an on-disk struct. See the module's docstring.

    Args:
        data: Bytes that hold it.
        pos: Where in them it begins.

    Attributes:
        layout: The fields.
        struct_size: Bytes of the fixed part.
    """

    layout: ClassVar[Layout]
    struct_size: ClassVar[int]
    _printed_names: ClassVar[tuple[str, ...]]

    def __init__(self, data: Bytes, pos: int = 0) -> None:
        self._decode(data, pos)

    def __repr__(self) -> str:
        values = "".join(
            f" {field.name}={getattr(self, field.name)!r}"
            for field in self.layout.fields
            if not field.hidden and hasattr(self, field.name)
        )
        return f"<{type(self).__name__}{values}>"

    @classmethod
    def unpack_from(cls, data: Bytes, pos: int) -> Self:
        """Return the struct that begins at a byte of another one, without what is from a key."""
        made = cls.__new__(cls)
        made._decode(data, pos)
        return made

    @classmethod
    def attribute_names(cls) -> list[str]:
        """Return the names of the fields."""
        return [field.name for field in cls.layout.fields]

    @classmethod
    def printed_names(cls) -> tuple[str, ...]:
        """Return the names of the fields that print: those of the key first."""
        return cls._printed_names

    @classmethod
    def line_names(cls) -> list[str]:
        """Return the names of the fields that print, but for structs inside."""
        inside = {field.name for field in cls.layout.fields if field.embedded is not None}
        return [name for name in cls._printed_names if name not in inside]

    if TYPE_CHECKING:

        def _decode(self, data: Bytes, pos: int) -> int:
            """Set all fields that are not from a key; return where the struct ends."""
