"""Choosing and ordering objects by what is written about their attributes.

    wanted = Filter("used_pct < 20 and RAID1 in flags")
    emptiest_first = Order("used_pct,length:desc")
    with btrfs.FileSystem('/') as fs:
        for group in emptiest_first.sorted(filter(wanted, fs.block_groups())):
            print(group)

An expression compares attributes by their names, as :func:`btrfs.utils.pretty_print` shows them,
with values:

* numbers, also with a unit: ``length >= 1GiB``, ``vaddr == 0x1d00000``,
* words in capitals, for flags, types and other attributes that are printed as words:
  ``RAID1 in flags``, ``flags == DATA|RAID1``, ``type != DIR``,
* quoted text, for names, UUIDs, keys and times: ``name == 'notes'``, ``'.bak' in name``.

The operators are ``==``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in`` and ``not in``; parentheses,
``and``, ``or`` and ``not`` combine. A point leads into a struct, or into each of a list of structs:
``4 not in stripes.devid``. Where an object has no such attribute, because it is of another class,
a comparison with it does not hold.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from typing import Any, NoReturn
from uuid import UUID

from btrfs.errors import BtrfsError
from btrfs.ondisk.key import Key, parse_key_string
from btrfs.ondisk.printing import Printable
from btrfs.ondisk.text import parse_pretty_size

__all__ = ["Filter", "Order", "SelectionError"]

Lookup = Callable[[Any], Any]
"""Finds another object whose attributes count as those of the object given."""


class SelectionError(BtrfsError):
    """An expression that cannot be understood, or names what does not exist."""


class Filter:
    """Tells of objects whether an expression holds for them.

    Args:
        expression: The expression; see the module's docstring.
        also: Finds an object whose attributes count too, for instance the chunk of a block group.
        classes: The classes that the objects can be of; all if not given.

    Raises:
        SelectionError: It cannot be understood, or names an attribute that is not there; the
            message says where.
    """

    def __init__(
        self,
        expression: str,
        also: Lookup | None = None,
        classes: Collection[type] | None = None,
    ) -> None:
        self._holds = _Parser(expression, _Attributes(also, classes)).whole()

    def __call__(self, obj: Any) -> bool:
        """Return whether the expression holds for an object.

        Raises:
            SelectionError: An attribute cannot be compared so.
        """
        return self._holds(obj)


class Order:
    """Sorts objects by attributes.

    Args:
        attributes: Their names, separated by commas, the most important first; ``:desc`` after
            one puts the greatest first.
        also: Finds an object whose attributes count too.
        classes: The classes that the objects can be of; all if not given.

    Raises:
        SelectionError: One of them is no name, or there is no such attribute.
    """

    def __init__(
        self,
        attributes: str,
        also: Lookup | None = None,
        classes: Collection[type] | None = None,
    ) -> None:
        self._keys: list[tuple[_Value, bool]] = []
        known = _Attributes(also, classes)
        for part in attributes.split(","):
            name = part.strip()
            path = name.removesuffix(_DESCENDING)
            if not re.fullmatch(_NAME, path):
                raise SelectionError(
                    f"cannot sort by {part!r}",
                    hint=f"name attributes, such as used_pct,length{_DESCENDING}",
                )
            self._keys.append((known.value_of(path), name.endswith(_DESCENDING)))

    def sorted(self, objects: Iterable[Any]) -> list[Any]:
        """Return the objects in order; those that lack an attribute come last."""
        ordered = list(objects)
        # Sorting is stable: the least important first.
        for value, descending in reversed(self._keys):
            have = [obj for obj in ordered if value(obj) is not None]
            have_not = [obj for obj in ordered if value(obj) is None]
            have.sort(key=lambda obj: _sortable(value(obj)), reverse=descending)
            ordered = have + have_not
        return ordered


def _sortable(value: Any) -> tuple[str, Any]:
    """Return what values of all kinds can be sorted by: numbers first, then each kind by itself."""
    if isinstance(value, int | float):
        return "", value
    if isinstance(value, bytes):
        return "bytes", value
    if isinstance(value, list | tuple):
        return "list", [_sortable(element) for element in value]
    return "text", str(value)


# Attributes. The value of one is what the object has under its name; None where it has nothing.

_Value = Callable[[Any], Any]
_DESCENDING = ":desc"
_PARTS_OF_KEYS = {"objectid", "type", "offset"}

_MANY = 30
"""More names than this are of no help."""

_NAME = r"[a-z_][a-z_0-9]*(?:\.[a-z_][a-z_0-9]*)*"


class _Attributes:
    """Looks attributes up in objects, and in others whose attributes count too.

    Args:
        also: Finds another object.
        classes: The classes that the objects can be of; all if not given.
    """

    def __init__(self, also: Lookup | None, classes: Collection[type] | None) -> None:
        self._also = also
        everywhere = _attributes(_all_classes())
        self._first = everywhere if classes is None else _attributes(classes)
        self._inner = everywhere | _PARTS_OF_KEYS

    def operand(self, path: str) -> _Operand:
        """Return an attribute as one side of a comparison."""
        return _Operand(self.value_of(path), self._getter(f"{path}_str"))

    def value_of(self, path: str) -> _Value:
        """Return the function that gets an attribute, or an attribute of an attribute.

        Raises:
            SelectionError: There is no such attribute.
        """
        for index, name in enumerate(path.split(".")):
            known = self._inner if index else self._first
            if name not in known:
                raise SelectionError(
                    f"there is no attribute {name}", hint=_what_there_is(name, known)
                )
        return self._getter(path)

    def _getter(self, path: str) -> _Value:
        first, *names = path.split(".")

        def value(obj: Any) -> Any:
            found = getattr(obj, first, None)
            if found is None and self._also is not None:
                found = getattr(self._also(obj), first, None)
            for name in names:
                found = _inside(found, name)
            return found

        return value


def _what_there_is(name: str, known: set[str]) -> str:
    near = get_close_matches(name, known) or sorted(known)
    if len(near) > _MANY:
        return "--format long shows what attributes there are"
    return f"there is {', '.join(near)}"


def _inside(found: Any, name: str) -> Any:
    if isinstance(found, list):
        return [_inside(element, name) for element in found]
    return getattr(found, name, None)


def _all_classes() -> set[type]:
    """Return the classes of all structs and results."""
    import btrfs.ctree  # noqa: F401  (declares structs)

    found: set[type] = set()
    classes: list[type] = [Printable]
    while classes:
        cls = classes.pop()
        found.add(cls)
        classes += cls.__subclasses__()
    return found


def _attributes(classes: Iterable[type]) -> set[str]:
    """Return the names of the attributes that objects of these classes have."""
    names: set[str] = set()
    for cls in classes:
        if is_dataclass(cls):
            names |= {field.name for field in fields(cls)}
        for base in cls.__mro__:
            slots = base.__dict__.get("__slots__", ())
            properties = {n for n, value in base.__dict__.items() if isinstance(value, property)}
            names |= {*slots, *properties}
    return {name for name in names if not name.startswith("_") and not name.endswith("_str")}


# Comparisons.


class _Words(frozenset[str]):
    """Names in capitals, as flags and types are printed: one, or several joined by '|'."""


@dataclass(frozen=True, slots=True)
class _Operand:
    """One side of a comparison.

    Attributes:
        value: Gets it from an object; None where that has nothing.
        printed: Gets its printed form; None where it has no other than the value.
    """

    value: _Value
    printed: _Value = lambda _: None


def _constant(value: Any) -> _Operand:
    return _Operand(lambda _: value)


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _compare(sign: str, left: _Operand, right: _Operand, obj: Any) -> bool:
    """Return whether a comparison holds for an object."""
    orders = sign not in ("==", "!=")
    found_left = _comparable(left, right, obj, orders)
    found_right = _comparable(right, left, obj, orders)
    if found_left is None or found_right is None:
        return False
    if isinstance(found_left, _Words) and orders:
        raise SelectionError("words are not greater or less than others", hint="use ==, != or in")
    try:
        return _COMPARISONS[sign](found_left, found_right)
    except TypeError:
        raise _unlike(found_left, found_right) from None


def _comparable(side: _Operand, other: _Operand, obj: Any, orders: bool) -> Any:
    """Return the value of one side in a form that fits the other."""
    value, opposite = side.value(obj), other.value(obj)
    if value is None or opposite is None or isinstance(value, _Words):
        return value
    if isinstance(opposite, _Words):
        return _words(side, obj)
    if isinstance(opposite, str):
        if isinstance(value, int) and not orders:
            return side.printed(obj) or value
        return str(value) if isinstance(value, UUID) else value
    if isinstance(value, str):
        return _text_like(opposite, value)
    return value


def _text_like(opposite: Any, text: str) -> Any:
    """Return text in the form that what it is compared with has."""
    if isinstance(opposite, bytes):
        return text.encode()
    if isinstance(opposite, Key):
        try:
            return parse_key_string(text)
        except ValueError as error:
            raise SelectionError(str(error), hint="a key is '(256 INODE_ITEM 0)'") from None
    return text


def _words(side: _Operand, obj: Any) -> _Words:
    printed = side.printed(obj)
    return _Words(printed.split("|") if isinstance(printed, str) else ())


def _contains(container: _Operand, element: _Operand, obj: Any) -> bool:
    """Return whether a list, text or flags of an object contain something."""
    whole, part = container.value(obj), element.value(obj)
    if whole is None or part is None:
        return False
    if isinstance(whole, list):
        return any(_is_or_contains(_constant(inner), element, obj) for inner in whole)
    if isinstance(part, _Words):
        return part <= _words(container, obj)
    if isinstance(whole, int) and isinstance(part, int):
        return part != 0 and whole & part == part
    if isinstance(whole, str | bytes) and isinstance(part, str | bytes):
        return _as_bytes(part) in _as_bytes(whole)
    raise _unlike(part, whole)


def _is_or_contains(found: _Operand, element: _Operand, obj: Any) -> bool:
    if isinstance(found.value(obj), list):
        return _contains(found, element, obj)
    return _compare("==", found, element, obj)


def _as_bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _unlike(left: Any, right: Any) -> SelectionError:
    kinds = {int: "a number", str: "text", bytes: "text", list: "a list", _Words: "words"}
    one, other = (kinds.get(type(side), type(side).__name__) for side in (left, right))
    return SelectionError(
        f"cannot compare {one} with {other}",
        hint="numbers go without quotes, text in quotes, flags and types in capitals",
    )


# The parser: an expression becomes a function of the object, by recursive descent.

_TOKEN = re.compile(
    rf"""\s*(?:
        (?P<number>(?:0[xX][0-9a-fA-F]+|\d+(?:[kKMGTPE]i?B?|B)?)(?![\w.]))
      | (?P<text>'[^']*'|"[^"]*")
      | (?P<sign>==|!=|<=|>=|<|>|\(|\))
      | (?P<words>[A-Z][A-Z0-9_]*(?:\|[A-Z][A-Z0-9_]*)*(?![\w|]))
      | (?P<name>{_NAME}(?![\w.]))
    )""",
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in")

_Holds = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    where: int


class _Parser:
    """Reads an expression from left to right; each method reads one kind of part of it."""

    def __init__(self, expression: str, attributes: _Attributes) -> None:
        self._expression = expression
        self._attributes = attributes
        self._tokens = self._tokenize()

    def _tokenize(self) -> list[_Token]:
        """Return the tokens, the last first, so that the next is always at the end."""
        tokens = []
        pos = 0
        end = len(self._expression.rstrip())
        while pos < end:
            match = _TOKEN.match(self._expression, pos)
            if match is None:
                rest = self._expression[pos:].lstrip()
                self._fail(f"what is {rest.split()[0]}", len(self._expression) - len(rest))
            kind = str(match.lastgroup)
            text = match[kind]
            tokens.append(_Token("sign" if text in _KEYWORDS else kind, text, match.start(kind)))
            pos = match.end()
        return [_Token("end", "nothing more", end), *reversed(tokens)]

    def _fail(self, message: str, where: int) -> NoReturn:
        raise SelectionError(
            f"{message}, at character {where + 1} of {self._expression!r}",
            hint="for instance: used_pct < 20 and RAID1 in flags; or: 4 not in stripes.devid",
        )

    def _expected(self, what: str) -> NoReturn:
        token = self._tokens[-1]
        self._fail(f"expected {what}, found {token.text}", token.where)

    def _take(self, *signs: str) -> str | None:
        """Return the next token and go on after it if it is one of these signs."""
        token = self._tokens[-1]
        if token.kind == "sign" and token.text in signs:
            return self._tokens.pop().text
        return None

    def whole(self) -> _Holds:
        """Read the whole expression."""
        holds = self._either()
        if self._tokens[-1].kind != "end":
            self._expected("and, or, or the end")
        return holds

    def _either(self) -> _Holds:
        terms = [self._both()]
        while self._take("or"):
            terms.append(self._both())
        return lambda obj: any(term(obj) for term in terms)

    def _both(self) -> _Holds:
        terms = [self._one()]
        while self._take("and"):
            terms.append(self._one())
        return lambda obj: all(term(obj) for term in terms)

    def _one(self) -> _Holds:
        if self._take("not"):
            inner = self._one()
            return lambda obj: not inner(obj)
        if self._take("("):
            inner = self._either()
            if not self._take(")"):
                self._expected(")")
            return inner
        return self._comparison()

    def _comparison(self) -> _Holds:
        left = self._operand()
        if sign := self._take(*_COMPARISONS):
            right = self._operand()
            return lambda obj: _compare(sign, left, right, obj)
        negated = self._take("not") is not None
        if not self._take("in"):
            self._expected("in" if negated else "a comparison")
        right = self._operand()
        if negated:
            return lambda obj: right.value(obj) is not None and not _contains(right, left, obj)
        return lambda obj: _contains(right, left, obj)

    def _operand(self) -> _Operand:
        token = self._tokens[-1]
        if token.kind not in ("number", "text", "words", "name"):
            self._expected("an attribute or a value")
        self._tokens.pop()
        if token.kind == "name":
            return self._attributes.operand(token.text)
        return _constant(self._literal(token))

    def _literal(self, token: _Token) -> int | str | _Words:
        if token.kind == "text":
            return token.text[1:-1]
        if token.kind == "words":
            return _Words(token.text.split("|"))
        if token.text[:2] in ("0x", "0X"):
            return int(token.text, 16)
        return parse_pretty_size(token.text)
