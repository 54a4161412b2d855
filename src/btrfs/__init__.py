"""Look inside a btrfs filesystem, mounted or not.

    import btrfs

    with btrfs.FileSystem('/') as fs:
        for block_group in fs.block_groups():
            print(block_group)

:class:`FileSystem` is where to begin. The items that it returns are described in
:mod:`btrfs.ctree`, reading in bulk in :mod:`btrfs.columns`.

The modules are imported when they are first used: ``import btrfs`` alone costs next to nothing.
"""

import importlib

# Of typing, a type checker needs only the name, and the import would take longer than all the rest.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from btrfs import (
        advice as advice,
        allocator as allocator,
        backrefs as backrefs,
        balancing as balancing,
        checking as checking,
        columns as columns,
        constants as constants,
        crc32c as crc32c,
        ctree as ctree,
        errors as errors,
        free_space_tree as free_space_tree,
        fs_usage as fs_usage,
        ioctl as ioctl,
        mkfs as mkfs,
        orphans as orphans,
        paths as paths,
        records as records,
        selection as selection,
        stripes as stripes,
        subvolumes as subvolumes,
        utils as utils,
        volumes as volumes,
    )
    from btrfs.constants import (
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
    from btrfs.errors import BtrfsError as BtrfsError
    from btrfs.filesystem import FileSystem as FileSystem

_MODULES = {
    "advice",
    "allocator",
    "backrefs",
    "balancing",
    "checking",
    "columns",
    "constants",
    "crc32c",
    "ctree",
    "errors",
    "free_space_tree",
    "fs_usage",
    "ioctl",
    "mkfs",
    "orphans",
    "paths",
    "records",
    "selection",
    "stripes",
    "subvolumes",
    "utils",
    "volumes",
}
_HOMES = {"FileSystem": "filesystem", "BtrfsError": "errors"}


def __getattr__(name: str) -> "Any":
    """Import a module, or what is offered here from one, when it is first used (PEP 562)."""
    if name in _MODULES:
        return importlib.import_module(f"btrfs.{name}")
    is_constant = name.startswith(("BLOCK_GROUP_", "SPACE_INFO_"))
    home = "constants" if is_constant else _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'btrfs' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"btrfs.{home}"), name)
    globals()[name] = value
    return value
