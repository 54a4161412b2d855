"""What a user names on the command line, sorted into filesystems."""

from __future__ import annotations

import argparse
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem
    from btrfs.filesystem import FileSystem, SourceChoice

_SOURCES = ("auto", "mounted", "unmounted")


def add_source_argument(parser: argparse._ActionsContainer, default: str = "auto") -> None:
    """Declare the option that says how to read what is named."""
    parser.add_argument(
        "--source",
        choices=_SOURCES,
        default=default,
        help="read through the kernel (mounted), or read the devices or images directly"
        " (unmounted); by default as the TARGET is",
    )


@contextmanager
def opened(targets: Sequence[str], source: SourceChoice) -> Iterator[FileSystem]:
    """Open the filesystem that the targets are, or are members of.

    What goes wrong while it is open is told with its name.
    """
    import btrfs

    try:
        with btrfs.FileSystem(targets[0] if len(targets) == 1 else targets, source=source) as fs:
            yield fs
    except OSError as error:
        # What the kernel says about a filesystem does not name it. Only writing can take up space,
        # so that error is about the output.
        if error.filename is None and error.errno != errno.ENOSPC:
            error.filename = " ".join(targets)
        raise


def block_group(fs: FileSystem, vaddr: int) -> BlockGroupItem:
    """Return the block group that begins at a virtual address.

    Raises:
        BtrfsError: There is none; the hint says which one holds this address.
    """
    from btrfs.errors import BtrfsError, ItemNotFoundError

    try:
        return fs.block_group(vaddr)
    except ItemNotFoundError:
        hint = "btrfs-atlas search block_groups lists them"
        for group in fs.block_groups():
            if group.vaddr < vaddr < group.vaddr + group.length:
                hint = f"the block group that holds this address begins at {group.vaddr}"
        raise BtrfsError(f"no block group at vaddr {vaddr}", hint=hint) from None


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
