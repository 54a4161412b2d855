"""Damage that the kernel itself notices: a copy of data that is wrong, a device that is gone."""

from __future__ import annotations

import os
from pathlib import Path

import btrfs
from tests.lab.commands import run
from tests.lab.loopfs import LoopFilesystem

_BYTES = b"x" * 8192


def overwrite_data(made: LoopFilesystem, devid: int) -> None:
    """Overwrite the first two blocks of data on a device of a mounted filesystem."""
    with btrfs.FileSystem(made.mountpoint) as fs:
        extent = next(
            extent
            for group in fs.block_groups()
            if group.flags & btrfs.BLOCK_GROUP_DATA and group.used
            for extent in fs.extents(group.vaddr)
        )
        chunk = next(chunk for chunk in fs.chunks() if chunk.vaddr + chunk.length > extent.vaddr)
    stripe = next(stripe for stripe in chunk.stripes if stripe.devid == devid)
    with open(made.devices[devid - 1], "r+b", buffering=0) as device:
        device.seek(stripe.offset + extent.vaddr - chunk.vaddr)
        device.write(_BYTES)
        os.fsync(device)


def lose_last_device(made: LoopFilesystem, folder: Path) -> None:
    """Take the last device away from an unmounted filesystem.

    Args:
        made: The filesystem.
        folder: Where the image goes; one beside the others would be found.
    """
    device = made.devices.pop()
    run("btrfs", "device", "scan", "--forget", device)
    run("losetup", "--detach", device)
    folder.mkdir()
    made.images.pop().rename(folder / "lost.img")
