"""How objects print: ``str()``, a printed form per attribute, and pretty print.

All objects that scripts print are :class:`Printable`: structs on disk (:mod:`btrfs.ondisk.struct`)
and results, which are dataclasses::

    @dataclass(frozen=True)
    class SpaceInfo(
        Printable,
        line="{flags_str}: total={total_bytes_str}, used={used_bytes_str}",
        module="btrfs.ioctl",
    ):
        flags: int
        flags_str = printed(space_flags_description)
        total_bytes: int
        total_bytes_str = as_size()
        used_bytes: int
        used_bytes_str = as_size()

An attribute ``NAME_str`` is the printed form of the attribute ``NAME``. It is declared where the
attribute is, so that type checkers know it as a ``str``.

The text is that of python-btrfs, since scripts compare it.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, overload

from btrfs.ondisk.key import Key
from btrfs.ondisk.text import flags_str, inode_mode_str, pretty_size

__all__ = [
    "Printable",
    "Printed",
    "as_byte_count",
    "as_flags",
    "as_mode",
    "as_name",
    "as_size",
    "byte_count_str",
    "pretty_lines",
    "pretty_print",
    "printed",
    "printed_form",
    "str_lines",
    "str_print",
]


# The printed forms of attributes.


class Printed:
    """The attribute ``NAME_str`` of a class: the attribute ``NAME`` in its printed form.

    Attributes:
        to_str: Makes the printed form from the value.
    """

    def __init__(self, to_str: Callable[[Any], str]) -> None:
        self.to_str = to_str
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name.removesuffix("_str")
        self.__doc__ = f"The attribute {self._name} in its printed form."

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...
    @overload
    def __get__(self, obj: object, owner: type) -> str: ...
    def __get__(self, obj: object | None, owner: type) -> Self | str:
        return self if obj is None else self.to_str(getattr(obj, self._name))


def printed(to_str: Callable[[Any], str]) -> Printed:
    """Print as a function of the value says."""
    return Printed(to_str)


def as_size() -> Printed:
    """Print as a size: '1.00GiB'."""
    return Printed(pretty_size)


def as_flags(names: Mapping[int, str]) -> Printed:
    """Print as the names of the bits that are set: 'DATA|RAID1'."""
    return Printed(functools.partial(flags_str, flags_str_map=names))


def as_name(names: Mapping[int, str], unknown: str | None = None) -> Printed:
    """Print as the name of the number; as ``unknown`` or the number itself where it has none."""
    return Printed(lambda value: names.get(value, str(value) if unknown is None else unknown))


def as_mode() -> Printed:
    """Print as the mode of a file: '0100644'."""
    return Printed(inode_mode_str)


def as_byte_count() -> Printed:
    """Print how many bytes there are, not which: '12 bytes of data'."""
    return Printed(byte_count_str)


def byte_count_str(value: bytes) -> str:
    """Return how many bytes there are: '12 bytes of data'."""
    return f"{len(value)} bytes of data"


def printed_form(cls: type, name: str) -> Callable[[Any], str] | None:
    """Return the function that makes the printed form of an attribute; None if it has no other."""
    found = getattr(cls, f"{name}_str", None)
    return found.to_str if isinstance(found, Printed) else None


# Objects that print.


class Printable:
    """An object that prints in one line, by ``str()``, and with a line per attribute.

    Class keywords:

    * ``line``: the template of ``str()``; if there is none, ``str()`` is the name of the class and
      all printed attributes,
    * ``module``: the module by whose name scripts know the class,
    * ``hidden``: names of fields of a dataclass that do not print,
    * ``one_line``: inside other objects it prints as ``str()`` does, without its attributes.
    """

    __slots__ = ()

    _line: ClassVar[str | None] = None
    _public_module: ClassVar[str] = "btrfs.ctree"
    _hidden: ClassVar[tuple[str, ...]] = ()
    _one_line: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        line: str | None = None,
        module: str | None = None,
        hidden: tuple[str, ...] | None = None,
        one_line: bool | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        if line is not None:
            cls._line = line
        if module is not None:
            cls._public_module = module
        if hidden is not None:
            cls._hidden = hidden
        if one_line is not None:
            cls._one_line = one_line

    def __str__(self) -> str:
        cls: Any = type(self)
        line = self._line or _derived_line(cls)
        return line.format_map(_Attributes(self))

    @classmethod
    def attribute_names(cls) -> Sequence[str]:
        """Return the names of all attributes that the class declares, in order."""
        dataclass: Any = cls
        return [field.name for field in dataclasses.fields(dataclass)]

    @classmethod
    def printed_names(cls) -> Sequence[str]:
        """Return the names of the attributes that print, in order."""
        return [name for name in cls.attribute_names() if name not in cls._hidden]

    @classmethod
    def line_names(cls) -> Sequence[str]:
        """Return the names of the attributes in ``str()`` of a class without ``line``."""
        return cls.printed_names()

    def attributes(self) -> dict[str, Any]:
        """Return the values of all attributes that are set by their names, hidden ones too."""
        names = self.attribute_names()
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def pretty_name(self) -> str:
        """Return the line that stands above the attributes in pretty-printed output."""
        return f"<{self._public_module}.{type(self).__name__}>"

    def pretty_attributes(self) -> Iterator[tuple[str, Any]]:
        """Yield name and printable value of each attribute that prints and is set."""
        for name in self.printed_names():
            value = getattr(self, name, None)
            if value is not None and value != []:
                yield name, getattr(self, f"{name}_str", value)

    def printed_inside(self) -> Iterator[Any]:
        """Yield the objects inside that print lines of their own, and lists of such."""
        for name in self.printed_names():
            value = getattr(self, name, None)
            inner = value[0] if isinstance(value, list) and value else value
            if _has_lines(inner):
                yield value


@functools.cache
def _derived_line(cls: Any) -> str:
    """Return the template of ``str()`` for a class that declares none: its name and attributes."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()
    return words + "".join(
        f" {name} {{{name}{'_str' if hasattr(cls, f'{name}_str') else ''}}}"
        for name in cls.line_names()
    )


class _Attributes:
    """What str.format_map() looks names up in: the attributes of an object."""

    def __init__(self, obj: object) -> None:
        self._obj = obj

    def __getitem__(self, name: str) -> Any:
        return getattr(self._obj, name)


def _has_lines(value: Any) -> bool:
    return isinstance(value, Printable) and not value._one_line


# Whole objects.


def pretty_print(obj: Any) -> None:
    """Write an object to standard output, a line per attribute; lists and the like are walked."""
    for line in pretty_lines(obj):
        print(line)


def str_print(obj: Any) -> None:
    """Write ``str()`` of an object to standard output, and below it of the objects inside it.

    Of lists and the like, each element is written; what is no object of this library is left out.
    """
    for line in str_lines(obj):
        print(line)


def pretty_lines(obj: Any) -> Iterator[str]:
    """Yield the lines that :func:`pretty_print` writes."""
    if isinstance(obj, Printable):
        yield obj.pretty_name()
        for name, value in obj.pretty_attributes():
            yield from _pretty_attribute(name, value)
        if isinstance(obj, Sequence):
            yield from _pretty_elements(obj)
    elif isinstance(obj, Key):
        yield f"<btrfs.ctree.{type(obj).__name__}>"
        yield str(obj)
    elif isinstance(obj, Mapping) and obj:
        for key, value in obj.items():
            yield f"{key}:"
            yield from _indented(pretty_lines(value))
    elif isinstance(obj, list | Iterator):
        yield from _pretty_elements(obj)
    else:
        yield str(obj)


def _pretty_attribute(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) or _has_lines(value):
        yield f"{name}:"
        yield from _indented(pretty_lines(value))
    elif isinstance(value, list):
        yield f"{name}:"
        yield from pretty_lines(value)
    else:
        yield f"{name}: {value}"


def _pretty_elements(elements: Any) -> Iterator[str]:
    for element in elements:
        yield "-"
        yield from _indented(pretty_lines(element))


def str_lines(obj: Any) -> Iterator[str]:
    """Yield the lines that :func:`str_print` writes."""
    if isinstance(obj, list | Iterator):
        for element in obj:
            yield from str_lines(element)
    elif isinstance(obj, Printable):
        yield str(obj)
        for inner in obj.printed_inside():
            yield from _indented(str_lines(inner))
    elif isinstance(obj, tuple) and type(obj).__module__.startswith("btrfs."):
        yield str(obj)


def _indented(lines: Iterator[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
