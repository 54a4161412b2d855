"""Look inside a btrfs filesystem, mounted or not.

    import btrfs

    with btrfs.FileSystem('/') as fs:
        for block_group in fs.block_groups():
            print(block_group)

:class:`FileSystem` is where to begin. The items that it returns are described in
:mod:`btrfs.ctree`, reading in bulk in :mod:`btrfs.ondisk.columns`.

A module is imported when it is first used: ``import btrfs`` alone costs next to nothing.
"""

from btrfs._lazy import lazy_names
from btrfs.ondisk.block_group_flags import *

__version__ = "0.1.0"
"""Version of btrfs-atlas, which this library is part of."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs import (
        balance as balance,
        check as check,
        crc32c as crc32c,
        ctree as ctree,
        errors as errors,
        filesystem as filesystem,
        free_space_tree as free_space_tree,
        fs_usage as fs_usage,
        info as info,
        ioctl as ioctl,
        ondisk as ondisk,
        ownership as ownership,
        query as query,
        source as source,
        space as space,
        utils as utils,
        volumes as volumes,
    )
    from btrfs.errors import BtrfsError as BtrfsError
    from btrfs.filesystem import FileSystem as FileSystem
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        __path__,
        homes={"FileSystem": "btrfs.filesystem", "BtrfsError": "btrfs.errors"},
        others=[
            name
            for name in globals()
            if name.startswith(("BLOCK_GROUP_", "SPACE_INFO_")) or name == "__version__"
        ],
    )
