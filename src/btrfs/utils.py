"""Numbers to words and back, and objects to text.

The words are those that python-btrfs prints, since scripts compare them. Those that the structs
themselves are printed with come from :mod:`btrfs.ondisk.text`.
"""

from __future__ import annotations

from btrfs.ondisk import constants
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA as BLOCK_GROUP_DATA,
    BLOCK_GROUP_DUP as BLOCK_GROUP_DUP,
    BLOCK_GROUP_METADATA as BLOCK_GROUP_METADATA,
    BLOCK_GROUP_PROFILE_MASK as BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_RAID0 as BLOCK_GROUP_RAID0,
    BLOCK_GROUP_RAID1 as BLOCK_GROUP_RAID1,
    BLOCK_GROUP_RAID1C3 as BLOCK_GROUP_RAID1C3,
    BLOCK_GROUP_RAID1C4 as BLOCK_GROUP_RAID1C4,
    BLOCK_GROUP_RAID5 as BLOCK_GROUP_RAID5,
    BLOCK_GROUP_RAID6 as BLOCK_GROUP_RAID6,
    BLOCK_GROUP_RAID10 as BLOCK_GROUP_RAID10,
    BLOCK_GROUP_SINGLE as BLOCK_GROUP_SINGLE,
    BLOCK_GROUP_SYSTEM as BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK as BLOCK_GROUP_TYPE_MASK,
    SPACE_INFO_GLOBAL_RSV as SPACE_INFO_GLOBAL_RSV,
)
from btrfs.ondisk.key import Key, parse_key, parse_u64
from btrfs.ondisk.printing import (
    pretty_lines as pretty_lines,
    pretty_print as pretty_print,
    str_lines as str_lines,
    str_print as str_print,
)
from btrfs.ondisk.text import (
    block_group_flags_str as block_group_flags_str,
    block_group_profile_str as block_group_profile_str,
    block_group_type_str as block_group_type_str,
    embedded_text_for_str as embedded_text_for_str,
    flags_str as flags_str,
    inode_mode_str as inode_mode_str,
    parse_pretty_size as parse_pretty_size,
    pretty_size as pretty_size,
    pretty_size_units as pretty_size_units,
    space_flags_description as space_flags_description,
    space_profile_description as space_profile_description,
    space_type_description as space_type_description,
)

SZ_1K = 1 << 10
SZ_2K = 2 << 10
SZ_4K = 4 << 10
SZ_8K = 8 << 10
SZ_16K = 16 << 10
SZ_32K = 32 << 10
SZ_64K = 64 << 10
SZ_128K = 128 << 10
SZ_256K = 256 << 10
SZ_512K = 512 << 10
SZ_1M = 1 << 20
SZ_2M = 2 << 20
SZ_4M = 4 << 20
SZ_8M = 8 << 20
SZ_16M = 16 << 20
SZ_32M = 32 << 20
SZ_64M = 64 << 20
SZ_128M = 128 << 20
SZ_256M = 256 << 20
SZ_512M = 512 << 20
SZ_1G = 1 << 30

# Flags and enumerations.


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


# Trees and keys.


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
    for number, objectid_name in constants.OBJECTID_NAMES.items():
        if objectid_name.removesuffix("_TREE") == wanted:
            return number
    raise ValueError(f"Unknown metadata tree name {name}")


def parse_key_string(key_str: str) -> Key:
    """Return the key that a text stands for; the parentheses may be left out.

    >>> parse_key_string('(535 EXTENT_DATA 0)')
    Key(535, 108, 0)

    Raises:
        ValueError: There are not three parts, one of them is neither a number nor a name, or it
            does not fit; the message says which.
    """
    return parse_key(key_str)


def mounted_filesystem_paths() -> list[str]:
    """Return a path of each btrfs that is mounted, one per filesystem."""
    from btrfs.source.mounts import mounted_filesystems

    return [mount.path for mount in mounted_filesystems()]
