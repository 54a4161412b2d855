"""What tests stand on: real filesystems, contents for them, and the programs to compare with.

    with support.filesystem(tmp_path, devices=4, data="raid10", metadata="raid10") as fs:
        support.populate(fs.mountpoint)
        ...                     # read it mounted: fs.mountpoint, fs.devices
        fs.unmount()
        ...                     # read it unmounted: fs.images

The filesystems and their contents come from tests.lab. Here is what is about testing: fixtures (the
filesystems as tests ask for them, and stored images), require (skips), oracle (python-btrfs),
heatmap_v9 (Debian's btrfs-heatmap).
"""

from tests.lab.commands import CommandError, run
from tests.lab.loopfs import LoopFilesystem, attached_images, mounted_images
from tests.lab.populate import (
    enable_quota,
    enable_verity,
    orphan,
    pause_balance,
    populate,
    send_and_receive,
)
from tests.support import heatmap_v9, oracle
from tests.support.fixtures import (
    CSUMS,
    DATA,
    LAYOUTS,
    NODESIZES,
    Layout,
    Options,
    filesystem,
    stored_image,
)
from tests.support.require import (
    UNPRIVILEGED,
    require_mkfs,
    require_programs,
    require_root,
    unavailable,
)

__all__ = [
    "CSUMS",
    "DATA",
    "LAYOUTS",
    "NODESIZES",
    "UNPRIVILEGED",
    "CommandError",
    "Layout",
    "LoopFilesystem",
    "Options",
    "attached_images",
    "enable_quota",
    "enable_verity",
    "filesystem",
    "heatmap_v9",
    "mounted_images",
    "oracle",
    "orphan",
    "pause_balance",
    "populate",
    "require_mkfs",
    "require_programs",
    "require_root",
    "run",
    "send_and_receive",
    "stored_image",
    "unavailable",
]
