"""The words that single values are printed in: sizes, flags, types, modes.

They are those of python-btrfs, since scripts compare them, and its scripts find the functions in
:mod:`btrfs.utils`. Declarations of structs choose one of them for each field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from btrfs.ondisk import constants

pretty_size_units = "_KMGTPE"


def pretty_size(size: int, unit: str | None = None, binary: bool = True) -> str:
    """Return a number of bytes as text with a unit and two decimals.

    >>> pretty_size(1536)
    '1.50KiB'
    >>> pretty_size(1536, unit='M'), pretty_size(1536, unit=''), pretty_size(1536, binary=False)
    ('0.00MiB', '1536', '1.54KB')

    Args:
        size: Bytes.
        unit: A letter of 'KMGTPE' for that unit, '' for the plain number, None for the largest
            unit that the size reaches in binary, so that both kinds of units have the same letter.
        binary: Units of 1024 instead of 1000.
    """
    if unit == "":
        return str(size)
    base = 1024 if binary else 1000
    if unit is None:
        power = 0
        while abs(size) >= 1024 ** (power + 1) and power < len(pretty_size_units) - 1:
            power += 1
        symbol = pretty_size_units[power] if power else ""
    else:
        power = pretty_size_units.index(unit.upper())
        symbol = "k" if unit.upper() == "K" and not binary else unit.upper()
    return f"{size / base**power:.2f}{symbol}{'i' if binary and power else ''}B"


def parse_pretty_size(size_str: str) -> int:
    """Return the bytes that a text like '10G' or '10GiB' stands for.

    The number is whole; k, M, G, T, P and E are decimal unless an i follows; a B at the end may be
    left out.

    >>> parse_pretty_size('10G'), parse_pretty_size('10GiB')
    (10000000000, 10737418240)

    Raises:
        ValueError: It is not such a text.
    """
    match = re.fullmatch(r"(\d+)(?:([kKMGTPE])(i?)B?|B)?", size_str)
    if match is None:
        raise ValueError(f"'{size_str}' is no size: expected a number like 4096, 10G or 10GiB")
    number, unit, binary = match.groups()
    power = pretty_size_units.index(unit.upper()) if unit else 0
    return int(number) * int((1024 if binary else 1000) ** power)


def flags_str(flags: int, flags_str_map: Mapping[int, str]) -> str:
    """Return the names of the bits that are set, joined by '|'; 'none' where no bit is.

    Args:
        flags: The bits.
        flags_str_map: Names by bit.
    """
    if not flags:
        return "none"
    names = [name for bit, name in flags_str_map.items() if flags & bit]
    unknown = flags & ~sum(flags_str_map)
    return "|".join([*names, f"unknown(0x{unknown:x})"] if unknown else names)


def extent_flags_str(flags: int) -> str:
    """Return the flags of an extent item: 'TREE_BLOCK|FULL_BACKREF'."""
    return flags_str(flags, constants.EXTENT_FLAG_NAMES)


def inode_flags_str(flags: int) -> str:
    """Return the flags of an inode: 'NODATASUM|NODATACOW'."""
    return flags_str(flags, constants.INODE_FLAG_NAMES)


def root_item_flags_str(flags: int) -> str:
    """Return the flags of a root item: 'RDONLY'."""
    return flags_str(flags, constants.ROOT_FLAG_NAMES)


def free_space_info_flags_str(flags: int) -> str:
    """Return the flags of a free space info item: 'bitmaps'."""
    return flags_str(flags, constants.FREE_SPACE_INFO_FLAG_NAMES)


def compress_type_str(compression: int) -> str:
    """Return the name of a kind of compression: 'zstd'."""
    return constants.COMPRESS_TYPE_NAMES.get(compression, "unknown")


def file_extent_type_str(type_: int) -> str:
    """Return the type of a file extent: 'regular'."""
    return constants.FILE_EXTENT_TYPE_NAMES.get(type_, "unknown")


def dir_item_type_str(type_: int) -> str:
    """Return the type of what a directory entry leads to: 'FILE'.

    Raises:
        KeyError: There is no such type.
    """
    return constants.DIR_ITEM_TYPE_NAMES[type_]


def block_group_flags_str(flags: int) -> str:
    """Return type and profile of a block group: 'DATA|RAID1'."""
    return flags_str(flags, constants.BLOCK_GROUP_FLAG_NAMES)


def block_group_type_str(flags: int) -> str:
    """Return the type of a block group: 'DATA'."""
    return flags_str(flags & constants.BLOCK_GROUP_TYPE_MASK, constants.BLOCK_GROUP_TYPE_NAMES)


def block_group_profile_str(flags: int) -> str:
    """Return the profile of a block group: 'RAID1', or 'none' for single."""
    return flags_str(
        flags & constants.BLOCK_GROUP_PROFILE_MASK, constants.BLOCK_GROUP_PROFILE_NAMES
    )


_SPACE_TYPES = {
    constants.BLOCK_GROUP_DATA: "Data",
    constants.BLOCK_GROUP_SYSTEM: "System",
    constants.BLOCK_GROUP_METADATA: "Metadata",
    constants.BLOCK_GROUP_DATA | constants.BLOCK_GROUP_METADATA: "Data+Metadata",
    constants.SPACE_INFO_GLOBAL_RSV: "GlobalReserve",
}


def space_type_description(flags: int) -> str:
    """Return the type of a space as btrfs-progs writes it: 'Data', 'Data+Metadata'."""
    type_ = flags & (constants.BLOCK_GROUP_TYPE_MASK | constants.SPACE_INFO_GLOBAL_RSV)
    return _SPACE_TYPES.get(type_, "unknown")


def space_profile_description(flags: int) -> str:
    """Return the profile of a space as btrfs-progs writes it: 'RAID1', or 'single'."""
    profile = flags & constants.BLOCK_GROUP_PROFILE_MASK
    if not profile:
        return "single"
    return constants.BLOCK_GROUP_PROFILE_NAMES.get(profile, "unknown")


def space_flags_description(flags: int) -> str:
    """Return type and profile of a space as btrfs-progs writes them: 'Data, RAID1'."""
    return f"{space_type_description(flags)}, {space_profile_description(flags)}"


def inode_mode_str(mode: int) -> str:
    """Return type and permissions of an inode in octal digits: '0100644'."""
    return f"0{mode:05o}"


def embedded_text_for_str(text: bytes) -> str:
    """Return bytes that should be text in a printable form, whatever they are."""
    if not text:
        return "<empty>"
    try:
        return f"utf-8 '{bytes(text).decode()}'"
    except UnicodeDecodeError:
        return f"raw '{bytes(text)!r}'"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it needs one.

    >>> counted(1, 'device'), counted(1200, 'device')
    ('1 device', '1,200 devices')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(name: bytes) -> str:
    r"""Return the bytes of a name as text of a single line.

    Bytes that are not UTF-8, and characters that cannot be seen or change the text around them
    (control characters, marks that turn the direction of writing, odd spaces), are shown byte by
    byte as ``\xNN``; a few well-known ones as ``\n``, ``\r`` and ``\t``.

    >>> print(printable(b"na\xefve"), printable(b"a\nb"), printable(b"caf\xc3\xa9"))
    na\xefve a\nb café
    """
    text = name.decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return _SHORT_ESCAPES.get(char) or "".join(f"\\x{byte:02x}" for byte in char.encode())
