"""What a user names on the command line, sorted into filesystems."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import closing


def filesystems(targets: Iterable[str]) -> list[list[str]]:
    """Return the targets, those together that are members of the same filesystem.

    Folders and dumps made by btrfs-image hold a whole filesystem, so each of them stays alone.

    Raises:
        BtrfsError: A device cannot be read.
        OSError: There is no such file, or it must not be read.
    """
    together: dict[object, list[str]] = {}
    for i, target in enumerate(targets):
        together.setdefault(_fsid_of_member(target) or i, []).append(target)
    return list(together.values())


def _fsid_of_member(target: str) -> object:
    """Return the fsid of a device or of its image; None if the target is something else."""
    from btrfs.source.disk.devices import has_superblock, open_device
    from btrfs.source.metadump import is_metadump

    mode = os.stat(target).st_mode
    if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
        return None
    if is_metadump(target) or not has_superblock(target):
        return None
    with closing(open_device(target)) as device:
        return device.superblock.fsid
