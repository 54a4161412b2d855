"""What the programs share that answer who uses the space, each from one scan of all trees."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btrfs_atlas.progress import ProgressBar
from btrfs_atlas.targets import add_source_arguments, opened, source_options

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ownership import Ownership
    from btrfs.ownership.containment import Representation
    from btrfs.ownership.directories import Entry


_NAMED = 10


def add_scan_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the target of a scan, and the options that say how to read it."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="a folder on the filesystem, or a device or image of it, or a dump made by"
        " btrfs-image",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="commit first, to see also what was just written to a mounted filesystem",
    )
    add_source_arguments(parser)


def add_paths(parser: argparse.ArgumentParser) -> None:
    """Declare the directories and files that are asked about."""
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="*",
        help="a directory or a file: its path from the top level, or on a mounted filesystem any"
        " path that leads there (default: the whole filesystem, or the TARGET if that is a place"
        " in a mounted one)",
    )


@contextmanager
def opened_for_scan(
    args: argparse.Namespace, *, names: bool = True
) -> Iterator[tuple[FileSystem, Ownership]]:
    """Open the filesystem that is named, and scan it.

    What could not be read is told at the end.

    Args:
        args: The arguments that `add_scan_arguments()` declares.
        names: Read the names of files, too.
    """
    from btrfs.ownership import scan

    with _opened(args) as fs:
        with ProgressBar("reading trees") as progress:
            owned = scan(fs, names=names, progress=progress)
        yield fs, owned
        if not owned.is_complete:
            # Behind what is still in the buffer.
            sys.stdout.flush()
            print(f"Warning: {_incomplete(owned)}", file=sys.stderr)


def _incomplete(owned: Ownership) -> str:
    """Return which numbers of an incomplete scan may be wrong, and in which way."""
    trees = [str(one.id) for one in owned.subvolumes() if not one.is_complete]
    more = ", ..." if len(trees) > _NAMED else ""
    of = f" of subvolumes {', '.join(trees[:_NAMED])}{more}" if trees else ""
    return (
        f"not all{of} could be read: what is referenced may be more, and what is exclusive or would"
        " become free may be less"
    )


def chosen_entries(
    fs: FileSystem,
    owned: Ownership,
    args: argparse.Namespace,
    rule: Representation | None = None,
) -> list[Entry]:
    """Return what is asked about by the arguments that `add_paths()` declares.

    Args:
        fs: The filesystem.
        owned: The scan of it.
        args: The arguments.
        rule: In which place an extent is shown that is used in several, if not as by default.

    Raises:
        PathNotFoundError: There is no such path.
    """
    return entries(fs, owned, args.paths or [_default_path(fs, args.target)], rule)


def _default_path(fs: FileSystem, target: str) -> str:
    """Return what is asked about if no path is named."""
    from btrfs.source.mounts import is_mount_point

    if not fs.mounted or stat.S_ISBLK(os.stat(target).st_mode) or is_mount_point(target):
        return ""
    return target


def entries(
    fs: FileSystem,
    owned: Ownership,
    paths: Iterable[str],
    rule: Representation | None = None,
) -> list[Entry]:
    """Return the directories, files and subvolumes that a user names.

    Args:
        fs: The filesystem.
        owned: The scan of it.
        paths: Paths from the top level. If the filesystem is mounted, what is on it by this name
            comes first.
        rule: In which place an extent is shown that is used in several, if not as by default.

    Raises:
        PathNotFoundError: There is no such path.
    """
    return [_mounted_entry(fs, owned, path, rule) or owned.entry(path, rule) for path in paths]


def subvolume_ids(fs: FileSystem, owned: Ownership, names: Iterable[str]) -> list[int]:
    """Return the numbers of the subvolumes that a user names, each once.

    Args:
        fs: The filesystem.
        owned: The scan of it.
        names: Numbers; paths from the top level, and patterns of such. If the filesystem is
            mounted, a subvolume that is on it by this name comes first.

    Raises:
        BtrfsError: There is no such subvolume.
    """
    from btrfs.ondisk.constants import FIRST_FREE_OBJECTID

    found: set[int] = set()
    for name in names:
        tree, inum = (_inode_of(fs, name) if fs.mounted else None) or (0, 0)
        found.update([tree] if inum == FIRST_FREE_OBJECTID else owned.matching(name))
    return sorted(found)


def _mounted_entry(
    fs: FileSystem, owned: Ownership, path: str, rule: Representation | None
) -> Entry | None:
    """Return what a path leads to on a mounted filesystem; None if it leads to somewhere else."""
    from btrfs.errors import PathNotFoundError
    from btrfs.ondisk.text import printable

    inode = _inode_of(fs, path) if fs.mounted else None
    if inode is None:
        return None
    entry = owned.directories(rule).entry_of_inode(*inode)
    if entry is None:
        raise PathNotFoundError(
            f"{printable(os.fsencode(path))} was not there when the filesystem was last committed",
            hint="--fresh commits first",
        )
    return entry


def _inode_of(fs: FileSystem, path: str) -> tuple[int, int] | None:
    """Return subvolume and inode number of a path; None if it does not lead to this filesystem."""
    from btrfs import ioctl

    try:
        status = os.lstat(path)
        # A file is in the same subvolume as its directory, and need not be opened.
        is_folder = stat.S_ISDIR(status.st_mode)
        fd = os.open(path if is_folder else os.path.dirname(path) or ".", os.O_RDONLY)
    except OSError:
        return None
    try:
        if ioctl.fs_info(fd).fsid != fs.fsid:
            return None
        return ioctl.ino_lookup(fd).treeid, status.st_ino
    except OSError:
        # It is no btrfs.
        return None
    finally:
        os.close(fd)


@contextmanager
def _opened(args: argparse.Namespace) -> Iterator[FileSystem]:
    """Open the filesystem; if it is mounted, its devices: the kernel shows no tree blocks."""
    options = source_options(args)
    with opened([args.target], on_error="skip", **options) as fs:
        if args.fresh:
            fs.sync()
        if fs.mounted and args.source == "auto":
            options["source"] = "devices"
        elif not args.fresh:
            yield fs
            return
    with opened([args.target], on_error="skip", **options) as fs:
        yield fs
