"""Decoders of structs, generated from their declarations.

A decoder is compiled when a class makes its first object, as dataclasses compile ``__init__``:
importing the library must be quick, and of some forty classes a program uses few. It unpacks the
fixed part in one call, that of structs inside included, unless a field may be absent.
"""

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from btrfs.errors import CorruptError
from btrfs.ondisk.fields import UUID_STORED, Bytes, Field, Layout

__all__ = ["compile_decoder"]


def compile_decoder(
    layout: Layout,
    signature: str,
    first: Sequence[str] = (),
    returns: str = "pos",
    known: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile a function that sets all fields of ``self`` from ``data``.

    Args:
        layout: The fields.
        signature: Name and parameters of the function. If ``pos`` is among them, the struct begins
            there, else at the first byte.
        first: Statements to begin with.
        returns: The variable to return: ``pos`` is where the struct ends.
        known: Other names that the statements refer to.
    """
    names: dict[str, Any] = {
        **(known or {}),
        "complete": functools.partial(_complete, layout),
        "new": object.__new__,
        "struct_error": struct.error,
        "too_short": functools.partial(_too_short, layout),
    }
    lines = [*first]
    start = "pos + " if "pos" in signature else ""
    if layout.shortest < layout.size:
        lines.append(f"data = complete(data, {start}0)")
    lines += _fixed_part(layout.fields, start, names)
    lines.append(f"pos = {start}{layout.size}")
    for field in layout.fields:
        lines += _tail(field, names)
    lines.append(f"return {returns}")
    source = "\n".join([f"def {signature}:", *_indented(lines)])
    exec(compile(source, f"<decoder of {layout.name}>", "exec"), names)
    function: Callable[..., Any] = names[signature.partition("(")[0]]
    return function


def _indented(lines: Sequence[str]) -> list[str]:
    return [f" {line}" for line in lines]


def _fixed_part(fields: Sequence[Field], start: str, names: dict[str, Any]) -> list[str]:
    """Write the statements for the fixed part: one call for neighbours with the same condition."""
    lines: list[str] = []
    offset = 0
    in_fixed_part = [field for field in fields if field.size]
    for absence, group in groupby(in_fixed_part, key=lambda field: field.absent_if):
        neighbours = list(group)
        unpacking = _unpack(neighbours, start, offset, names)
        offset += sum(field.size for field in neighbours)
        if absence is None:
            lines += unpacking
        else:
            lines += [f"if self.{absence.field} != {absence.value}:", *_indented(unpacking)]
    if not lines:
        return []
    return [
        "try:",
        *_indented(lines),
        "except struct_error:",
        " raise too_short(self, data) from None",
    ]


def _unpack(fields: Sequence[Field], start: str, offset: int, names: dict[str, Any]) -> list[str]:
    """Write the statements for fields side by side, which begin at an offset in the struct."""
    call = _Call(start, [], [], [], [])
    _add_to_call(call, "self", fields, offset, names)
    unpack = f"unpack{len(names)}"
    names[unpack] = struct.Struct("<" + "".join(call.codes)).unpack_from
    targets = "".join(f"{target}, " for target in call.targets)
    return [*call.before, f"({targets}) = {unpack}(data, {start}{offset})", *call.after]


class _Call(NamedTuple):
    """A call that unpacks many fields.

    Attributes:
        start: The position of the struct as the beginning of a sum: 'pos + ', or nothing.
        codes: What to unpack, in codes of the struct module.
        targets: What the values are assigned to.
        before: Statements to execute before it, and
        after: after it.
    """

    start: str
    codes: list[str]
    targets: list[str]
    before: list[str]
    after: list[str]


def _add_to_call(
    call: _Call, owner: str, fields: Sequence[Field], offset: int, names: dict[str, Any]
) -> None:
    """Add fields to a call; ``owner`` is the variable that holds the object they belong to."""
    for field in fields:
        attribute, local = f"{owner}.{field.name}", f"{owner}_{field.name}"
        layout = getattr(field.embedded, "layout", None)
        if layout is not None:
            names[f"class_{local}"] = field.embedded
            call.before.append(f"{attribute} = {local} = new(class_{local})")
            _add_to_call(call, local, layout.fields, offset, names)
        elif field.embedded is not None:
            names[f"unpack_{local}"] = field.embedded.unpack_from
            call.codes.append(f"{field.size}x")
            call.after.append(f"{attribute} = unpack_{local}(data, {call.start}{offset})")
        elif field.stored is UUID_STORED:
            from uuid import UUID

            names["UUID"] = UUID
            call.codes.append(field.stored.code)
            call.targets.append(local)
            call.after.append(f"{attribute} = UUID(bytes={local})")
        elif field.stored is not None:
            call.codes.append(field.stored.code)
            call.targets.append(attribute)
        offset += field.size


def _tail(field: Field, names: dict[str, Any]) -> list[str]:
    """Write the statements for a field of variable length; none if it is not."""
    tail = field.tail
    if tail is None:
        return []
    if tail.of is None:
        end = "len(data)" if tail.count is None else f"pos + self.{tail.count}"
        return [
            f"end = {end}",
            "if end > len(data):",
            " raise too_short(self, data)",
            f"self.{field.name} = bytes(data[pos:end])",
            "pos = end",
        ]
    names[f"element_{field.name}"] = tail.of
    lines = [f"self.{field.name} = elements = []"]
    if tail.count is None:
        lines.append("while pos < len(data):")
    else:
        lines += [
            # Checked before anything is made: a count of garbage must not cost memory or time.
            f"if pos + self.{tail.count} * {tail.of.struct_size} > len(data):",
            " raise too_short(self, data)",
            f"for _ in range(self.{tail.count}):",
        ]
    return [
        *lines,
        f" element = new(element_{field.name})",
        " pos = element._decode(data, pos)",
        " elements.append(element)",
    ]


def _complete(layout: Layout, data: Bytes, pos: int) -> Bytes:
    """Return data with the struct at pos filled up with zeros if it is of an old, short kind."""
    missing = layout.size - (len(data) - pos)
    if 0 < missing <= layout.size - layout.shortest:
        return bytes(data) + bytes(missing)
    return data


def _too_short(layout: Layout, obj: Any, data: Bytes) -> CorruptError:
    what = getattr(obj, "key", None) or layout.name
    return CorruptError(
        f"item {what}", expected=f"at least {layout.size} bytes", found=f"{len(data)} bytes"
    )
