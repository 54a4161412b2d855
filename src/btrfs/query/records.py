"""Objects as plain data: what is needed to write them as JSON.

    import json
    with btrfs.FileSystem('/') as fs:
        for block_group in fs.block_groups():
            print(json.dumps(btrfs.query.records.record(block_group)))

Everything comes from the declarations of the classes; nothing is left out but padding, and nothing
is rounded:

* Numbers stay numbers, up to 64 bits. Where one stands for words (flags, types, modes), these stand
  beside it as ``NAME_str``.
* Bytes become text if they are valid UTF-8, else ``{"hex": "ff00"}``; what is never text, such as
  checksums, always is hexadecimal.
* An item has its ``key``, and as ``leaf_transid`` the generation of the leaf that it was found in.
* A key is ``{"objectid": ..., "type": ..., "offset": ..., "str": "(256 INODE_ITEM 0)"}``; UUIDs are
  text; times have seconds, nanoseconds and ``iso8601``.
"""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from btrfs.ondisk.items.base import ItemData, UnknownItem
from btrfs.ondisk.items.inode import TimeSpec
from btrfs.ondisk.key import Key
from btrfs.ondisk.printing import Printable, byte_count_str, printed_form
from btrfs.ondisk.text import pretty_size

__all__ = ["record"]

_PADDING = ("reserved", "unused", "padding")
"""How the names of hidden fields begin that hold nothing."""


def record(obj: Any) -> Any:
    """Return an object as dicts, lists, numbers and text.

    Args:
        obj: An item, another struct, a key, or a list, dict or plain value with such inside.
    """
    if isinstance(obj, int | str):
        return obj
    for cls, form in _FORMS.items():
        if isinstance(obj, cls):
            return form(obj)
    return obj


def _object_record(obj: Printable) -> dict[str, Any]:
    plain: dict[str, Any] = {"class": type(obj).__name__}
    if isinstance(obj, ItemData) and hasattr(obj, "header"):
        plain["key"] = record(obj.key)
        plain["leaf_transid"] = obj.header.transid
    printed = obj.printed_names()
    for name, value in obj.attributes().items():
        if name in printed or not name.startswith(_PADDING):
            plain |= _attribute_record(name, value, printed_form(type(obj), name))
    if isinstance(obj, UnknownItem):
        plain["data"] = _hexadecimal(obj.data)
    if isinstance(obj, TimeSpec):
        plain["iso8601"] = obj.iso8601
    return plain


def _attribute_record(name: str, value: Any, to_str: Callable[[Any], str] | None) -> dict[str, Any]:
    if isinstance(value, bytes):
        # Names and the like are text: they are printed as they are, and not by their number.
        is_text = to_str not in (None, byte_count_str)
        return {name: _text(value) if is_text else _hexadecimal(value)}
    plain = {name: record(value)}
    # A size in units would be a rounded one.
    if to_str is not None and to_str is not pretty_size:
        plain[f"{name}_str"] = to_str(value)
    return plain


def _text(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _hexadecimal(value)


def _hexadecimal(value: bytes) -> dict[str, str]:
    return {"hex": value.hex()}


def _key_record(key: Key) -> dict[str, Any]:
    return {"objectid": key.objectid, "type": key.type, "offset": key.offset, "str": str(key)}


_FORMS: dict[type, Callable[[Any], Any]] = {
    Printable: _object_record,
    Key: _key_record,
    UUID: str,
    bytes: _text,
    dict: lambda found: {str(key): record(value) for key, value in found.items()},
    list: lambda found: [record(element) for element in found],
    tuple: lambda found: [record(element) for element in found],
}
