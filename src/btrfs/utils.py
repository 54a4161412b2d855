"""Numbers to words and back, and objects to text, by the names of python-btrfs.

Single values are in :mod:`btrfs.ondisk.text`, keys in :mod:`btrfs.ondisk.key`, and objects in
:mod:`btrfs.ondisk.printing`.
"""

from __future__ import annotations

from btrfs.ondisk.block_group_flags import *
from btrfs.ondisk.key import (
    parse_key_string as parse_key_string,
    parse_tree_name as parse_tree_name,
)
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
    compress_type_str as compress_type_str,
    dir_item_type_str as dir_item_type_str,
    embedded_text_for_str as embedded_text_for_str,
    extent_flags_str as extent_flags_str,
    file_extent_type_str as file_extent_type_str,
    flags_str as flags_str,
    free_space_info_flags_str as free_space_info_flags_str,
    inode_flags_str as inode_flags_str,
    inode_mode_str as inode_mode_str,
    parse_pretty_size as parse_pretty_size,
    pretty_size as pretty_size,
    pretty_size_units as pretty_size_units,
    root_item_flags_str as root_item_flags_str,
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


def mounted_filesystem_paths() -> list[str]:
    """Return a path of each btrfs that is mounted, one per filesystem."""
    from btrfs.source.mounts import mounted_filesystems

    return [mount.path for mount in mounted_filesystems()]
