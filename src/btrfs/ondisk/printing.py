"""How results print that are no structs: dataclasses that look like items to scripts.

``str()`` of such an object is one line, :func:`btrfs.utils.pretty_print` shows a line for each of
its attributes, and an attribute ``NAME_str`` is the printed form of another one::

    @dataclass(frozen=True)
    class SpaceInfo(Printable, module="btrfs.ioctl"):
        flags: int
        flags_str = printed(space_flags_description)
        total_bytes: int
        total_bytes_str = as_size()

Structs print the same way by their declarations, see :mod:`btrfs.ondisk.struct`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self, overload

from btrfs.ondisk.text import flags_str, pretty_size

__all__ = ["Printable", "Printed", "as_flags", "as_size", "printed"]


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
    """Declare the printed form of an attribute. Its name is that of the attribute and ``_str``."""
    return Printed(to_str)


def as_size() -> Printed:
    """Print as a size: '1.00GiB'."""
    return Printed(pretty_size)


def as_flags(names: Mapping[int, str]) -> Printed:
    """Print as the names of the bits that are set: 'DATA|RAID1'."""
    return Printed(functools.partial(flags_str, flags_str_map=names))


class Printable:
    """Base class of dataclasses that print like structs.

    Class keywords:

    * ``line``: the template of ``str()``; if there is none, ``str()`` is the name of the class and
      all printed attributes,
    * ``module``: the module by whose name scripts know the class,
    * ``hidden``: names of fields that do not print.
    """

    __slots__ = ()

    _line: ClassVar[str | None] = None
    _public_module: ClassVar[str] = "btrfs.ctree"
    _hidden: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(
        cls,
        *,
        line: str | None = None,
        module: str | None = None,
        hidden: tuple[str, ...] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init_subclass__(**keywords)
        if line is not None:
            cls._line = line
        if module is not None:
            cls._public_module = module
        if hidden is not None:
            cls._hidden = hidden

    def __str__(self) -> str:
        line = self._line or _derived_line(type(self))
        return line.format_map(_Attributes(self))

    def pretty_name(self) -> str:
        """Return the line that stands above the attributes in pretty-printed output."""
        return f"<{self._public_module}.{type(self).__name__}>"

    def attributes(self) -> dict[str, Any]:
        """Return the values of all attributes that are set by their names, hidden ones too."""
        names = [field.name for field in _fields(type(self))]
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def pretty_attributes(self) -> Iterator[tuple[str, Any]]:
        """Yield name and printable value of each attribute that is set and not hidden."""
        for name, value in self.attributes().items():
            if name not in self._hidden and value is not None and value != []:
                yield name, getattr(self, f"{name}_str", value)


class _Attributes:
    """What str.format_map() looks names up in: the attributes of an object."""

    def __init__(self, obj: object) -> None:
        self._obj = obj

    def __getitem__(self, name: str) -> Any:
        return getattr(self._obj, name)


def _fields(cls: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _derived_line(cls: type[Printable]) -> str:
    """Return the template of ``str()`` for a class that sets none: its name and all fields."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", cls.__name__).lower()
    names = [field.name for field in _fields(cls) if field.name not in cls._hidden]
    return words + "".join(
        f" {name} {{{name}{'_str' if hasattr(cls, f'{name}_str') else ''}}}" for name in names
    )
