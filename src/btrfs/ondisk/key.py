"""Keys of metadata trees: numbers of 136 bits, written as three parts.

A key is ``(objectid << 72) + (type << 64) + offset``. Keys can be compared, counted up and down,
printed in the words of the kernel and parsed from them again.
"""

from __future__ import annotations

import re
from struct import Struct as Packer
from typing import TYPE_CHECKING, ClassVar

from btrfs.ondisk import constants
from btrfs.ondisk.constants import KEY_MAX, OBJECTID_NAMES, U8, ULL, ULLONG_MAX

if TYPE_CHECKING:
    from btrfs.ondisk.fields import Bytes

__all__ = [
    "DiskKey",
    "Key",
    "key_objectid_str",
    "key_offset_str",
    "key_str",
    "key_type_str",
    "parse_key_string",
    "parse_tree_name",
    "parse_u64",
    "qgroup_str",
]


class Key:
    """A key of a metadata tree.

    Parts outside their range wrap around, and so does the key as a whole: one less than the
    smallest key is the largest one.

    >>> key = Key(425, 'DIR_ITEM', 17818406)
    >>> key
    Key(425, 84, 17818406)
    >>> str(key)
    '(425 DIR_ITEM 17818406)'
    >>> Key(442, constants.EXTENT_DATA_KEY, 0) > key
    True
    >>> Key(0, 0, 0) - 1
    Key(18446744073709551615, 255, 18446744073709551615)
    >>> str(Key(0, 0, 0) - 1)
    '(-1 255 -1)'
    """

    __slots__ = ("_key",)

    def __init__(self, objectid: int | str, type_: int | str, offset: int | str) -> None:
        type_number = _parse_type(type_)
        self._key = (
            (_parse_part(objectid, "objectid") << 72)
            + (type_number << 64)
            + _parse_part(offset, "offset")
        )

    @property
    def objectid(self) -> int:
        """The upper 64 bits."""
        return self._key >> 72

    @objectid.setter
    def objectid(self, value: int) -> None:
        self._key = (ULL(value) << 72) + (self._key & ((1 << 72) - 1))

    @property
    def type(self) -> int:
        """The 8 bits in the middle."""
        return (self._key >> 64) & 0xFF

    @type.setter
    def type(self, value: int) -> None:
        self._key = (self.objectid << 72) + (U8(value) << 64) + self.offset

    @property
    def offset(self) -> int:
        """The lower 64 bits."""
        return self._key & ULLONG_MAX

    @offset.setter
    def offset(self, value: int) -> None:
        self._key = (self._key & ~ULLONG_MAX) + ULL(value)

    @property
    def key(self) -> int:
        """The key as one number of 136 bits."""
        return self._key

    @key.setter
    def key(self, value: int) -> None:
        self._key = value & KEY_MAX

    def __lt__(self, other: Key | int) -> bool:
        return self._key < _number(other)

    def __le__(self, other: Key | int) -> bool:
        return self._key <= _number(other)

    def __gt__(self, other: Key | int) -> bool:
        return self._key > _number(other)

    def __ge__(self, other: Key | int) -> bool:
        return self._key >= _number(other)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Key | int):
            return self._key == _number(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._key)

    def __add__(self, amount: int) -> Key:
        return _from_number(type(self), self._key + amount)

    def __sub__(self, amount: int) -> Key:
        return _from_number(type(self), self._key - amount)

    def __repr__(self) -> str:
        return f"Key({self.objectid}, {self.type}, {self.offset})"

    def __str__(self) -> str:
        return key_str(self.objectid, self.type, self.offset)


class DiskKey(Key):
    """A key as it is stored (struct btrfs_disk_key, 17 bytes)."""

    __slots__ = ()

    _packer = Packer("<QBQ")
    struct_size = _packer.size
    numpy_fields: ClassVar = [("objectid", "<u8"), ("type", "u1"), ("offset", "<u8")]

    def __init__(self, data: Bytes, pos: int = 0) -> None:
        objectid, type_, offset = self._packer.unpack_from(data, pos)
        self._key = (objectid << 72) + (type_ << 64) + offset

    @classmethod
    def unpack_from(cls, data: Bytes, pos: int) -> DiskKey:
        """Return the key that begins at a byte of a struct."""
        return cls(data, pos)


def _number(key: Key | int) -> int:
    return key if isinstance(key, int) else key._key


def _from_number(cls: type[Key], number: int) -> Key:
    key = cls.__new__(cls)
    key._key = number & KEY_MAX
    return key


# Printing. Which name a number has depends on the type of the key that it stands in.

_KEY_TYPE_NUMBERS = {name: number for number, name in constants.KEY_TYPE_NAMES.items()}
_QGROUP_OFFSETS = (
    constants.QGROUP_INFO_KEY,
    constants.QGROUP_LIMIT_KEY,
    constants.QGROUP_RELATION_KEY,
)
_UUID_KEYS = (constants.UUID_KEY_SUBVOL, constants.UUID_KEY_RECEIVED_SUBVOL)
_OBJECTID_NAMES_BY_TYPE = {
    (constants.PERSISTENT_ITEM_KEY, constants.DEV_STATS_OBJECTID): "DEV_STATS",
    (constants.DEV_ITEM_KEY, constants.DEV_ITEMS_OBJECTID): "DEV_ITEMS",
    (constants.CHUNK_ITEM_KEY, constants.FIRST_CHUNK_TREE_OBJECTID): "FIRST_CHUNK_TREE",
}


def key_str(objectid: int, type_: int, offset: int) -> str:
    """Return a key as it is printed: '(256 INODE_ITEM 0)'."""
    return (
        f"({key_objectid_str(objectid, type_)} {key_type_str(type_)} "
        f"{key_offset_str(objectid, type_, offset)})"
    )


def key_objectid_str(objectid: int, type_: int) -> str:
    """Return the object id of a key as it is printed in a key of the given type."""
    if type_ == constants.DEV_EXTENT_KEY:
        return str(objectid)
    if type_ == constants.QGROUP_RELATION_KEY:
        return qgroup_str(objectid)
    if type_ in _UUID_KEYS:
        return f"0x{objectid:016x}"
    by_type = _OBJECTID_NAMES_BY_TYPE.get((type_, objectid))
    return by_type or OBJECTID_NAMES.get(objectid) or _number_str(objectid)


def key_type_str(type_: int) -> str:
    """Return the name of a key type, or its number where it has none."""
    return constants.KEY_TYPE_NAMES.get(type_, str(type_))


def key_offset_str(objectid: int, type_: int, offset: int) -> str:
    """Return the offset of a key as it is printed after the other two parts."""
    if type_ in _QGROUP_OFFSETS:
        return qgroup_str(offset)
    if type_ in _UUID_KEYS:
        return f"0x{offset:016x}"
    # The offset of a root item is a generation, but for the copy of a tree that a balance moves.
    if type_ == constants.ROOT_ITEM_KEY and objectid == constants.TREE_RELOC_OBJECTID:
        return OBJECTID_NAMES.get(offset) or _number_str(offset)
    return _number_str(offset)


def _number_str(number: int) -> str:
    return "-1" if number == ULLONG_MAX else str(number)


def qgroup_str(qgroupid: int) -> str:
    """Return the id of a quota group as level and number: '1/5'."""
    return f"{constants.qgroup_level(qgroupid)}/{constants.qgroup_subvid(qgroupid)}"


# Parsing. Every word that is printed is understood, whatever the type of the key.

_OBJECTID_NUMBERS = {
    **{name: number for (_, number), name in _OBJECTID_NAMES_BY_TYPE.items()},
    **{name: number for number, name in OBJECTID_NAMES.items()},
}
_QGROUP_PATTERN = re.compile(r"(\d+)/(\d+)")


def parse_key_string(key_str: str) -> Key:
    """Return the key that a text stands for; the parentheses may be left out.

    >>> parse_key_string('(535 EXTENT_DATA 0)')
    Key(535, 108, 0)

    Raises:
        ValueError: There are not three parts, one of them is neither a number nor a name, or it
            does not fit; the message says which.
    """
    inner = key_str.strip()
    if inner.startswith("(") != inner.endswith(")"):
        raise ValueError(f"Key representation has only one of two parentheses: {key_str}")
    parts = inner.removeprefix("(").removesuffix(")").split()
    if len(parts) != 3:
        raise ValueError(f"Key representation needs 3 fields: objectid, type, offset: {key_str}")
    return Key(*parts)


def parse_tree_name(name: str) -> int:
    """Return the number of a tree, given its number or its name.

    The name is that of the kernel in lower or upper case, with or without '_TREE' at its end.
    Negative numbers stand for those at the end, as the kernel writes them: -9 is DATA_RELOC_TREE.

    >>> parse_tree_name('extent'), parse_tree_name('EXTENT_TREE'), parse_tree_name('256')
    (2, 2, 256)

    Raises:
        ValueError: There is no tree of that name, or the number does not fit into 64 bits.
    """
    try:
        return parse_u64(name)
    except OverflowError as error:
        raise ValueError(f"Unknown metadata tree {name}: {error}") from None
    except ValueError:
        pass
    wanted = name.upper().removesuffix("_TREE")
    for number, objectid_name in OBJECTID_NAMES.items():
        if objectid_name.removesuffix("_TREE") == wanted:
            return number
    raise ValueError(f"Unknown metadata tree name {name}")


def parse_u64(text: str) -> int:
    """Return the unsigned number that a text stands for: decimal, 0x..., or negative as -1 is.

    Raises:
        ValueError: It is not a number.
        OverflowError: It does not fit into 64 bits.
    """
    number = int(text, 0)
    if not -(1 << 63) <= number <= ULLONG_MAX:
        raise OverflowError(f"{text} does not fit into 64 bits")
    return ULL(number)


def _parse_type(type_: int | str) -> int:
    if isinstance(type_, int):
        return U8(type_)
    if type_ in _KEY_TYPE_NUMBERS:
        return _KEY_TYPE_NUMBERS[type_]
    try:
        number = int(type_, 0)
    except ValueError:
        raise ValueError(f"Unknown key type {type_}") from None
    if not -1 <= number <= U8(-1):
        raise ValueError(f"Unknown key type {type_}: types are 0 to 255, or -1 for the last")
    return U8(number)


def _parse_part(part: int | str, what: str) -> int:
    if isinstance(part, int):
        return ULL(part)
    if part in _OBJECTID_NUMBERS:
        return _OBJECTID_NUMBERS[part]
    try:
        if qgroup := _QGROUP_PATTERN.fullmatch(part):
            return _parse_qgroup(int(qgroup[1]), int(qgroup[2]))
        return parse_u64(part)
    except OverflowError as error:
        raise ValueError(f"Unparsable key {what} {part}: {error}") from None
    except ValueError:
        raise ValueError(f"Unparsable key {what} {part}") from None


def _parse_qgroup(level: int, number: int) -> int:
    if level.bit_length() > 64 - constants.QGROUP_LEVEL_SHIFT:
        raise OverflowError("the level of a quota group has 16 bits")
    if number.bit_length() > constants.QGROUP_LEVEL_SHIFT:
        raise OverflowError("the number of a quota group has 48 bits")
    return (level << constants.QGROUP_LEVEL_SHIFT) + number
