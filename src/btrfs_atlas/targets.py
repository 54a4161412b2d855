"""What a user names on the command line, sorted into filesystems."""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem
    from btrfs.filesystem import FileSystem
    from btrfs.source.disk.superblock import Superblock

_SOURCES = ("auto", "mounted", "unmounted", "devices")


def add_source_arguments(
    parser: argparse._ActionsContainer, *, suppress_defaults: bool = False
) -> None:
    """Declare the options that say how to read what is named.

    Args:
        parser: Where to declare them.
        suppress_defaults: Leave them alone if they are not given, as they may be somewhere else.
    """

    def default(value: object) -> object:
        return argparse.SUPPRESS if suppress_defaults else value

    parser.add_argument(
        "--source",
        choices=_SOURCES,
        default=default("auto"),
        help="read what is mounted through the kernel (mounted) or from its devices as of the last"
        " commit (devices), or read devices or images that are not mounted (unmounted); by default"
        " as the TARGET is",
    )
    parser.add_argument(
        "--super",
        dest="superblock",
        type=int,
        choices=(0, 1, 2),
        default=default(None),
        help="go by this copy of the superblock: at 64 KiB, 64 MiB or 256 GiB (default: by the"
        " newest that is valid)",
    )
    parser.add_argument(
        "--backup-root",
        type=int,
        choices=(0, 1, 2, 3),
        default=default(None),
        help="read the filesystem as of one of the last commits, from this backup in the"
        " superblock",
    )
    parser.add_argument(
        "--unknown-features",
        action="store_true",
        default=default(False),
        help="read it also where it has incompatible features that are not known here",
    )


def source_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was said about how to read a filesystem, as arguments of FileSystem."""
    names = ("source", "superblock", "backup_root", "unknown_features")
    return {name: getattr(args, name) for name in names}


@contextmanager
def opened(targets: Sequence[str], **options: Any) -> Iterator[FileSystem]:
    """Open the filesystem that the targets are, or are members of; see `opened_quietly()`.

    What is wrong with it, but did not keep it from being read, is told at the end.
    """
    from btrfs.errors import BtrfsError

    with opened_quietly(targets, **options) as fs:
        try:
            yield fs
        except BrokenPipeError:
            raise
        except (BtrfsError, OSError):
            _warn(fs)
            raise
        _warn(fs)


@contextmanager
def opened_quietly(targets: Sequence[str], **options: Any) -> Iterator[FileSystem]:
    """Open the filesystem that the targets are, or are members of.

    What goes wrong while it is open is told with its name.

    Args:
        targets: What the user named.
        options: How to read it; arguments of FileSystem.
    """
    import btrfs

    require_names(targets)
    target = targets[0] if len(targets) == 1 else targets
    with named(targets), btrfs.FileSystem(target, **options) as fs:
        yield fs


@contextmanager
def named(targets: Sequence[str]) -> Iterator[None]:
    """Give errors the names of the targets: what the kernel says does not name a filesystem."""
    try:
        yield
    except OSError as error:
        # Only writing can take up space, so that error is about the output.
        if error.filename is None and error.errno != errno.ENOSPC:
            error.filename = " ".join(targets)
        raise


def require_names(targets: Sequence[str]) -> None:
    """Refuse a target without a name, as an empty variable of a shell script gives it.

    Raises:
        BtrfsError: There is one.
    """
    from btrfs.errors import BtrfsError

    if "" in targets:
        raise BtrfsError(
            "the name of the TARGET is empty",
            hint="give a mount point, a block device, an image or a btrfs-image dump",
        )


def _warn(fs: FileSystem) -> None:
    summary = fs.damage_summary()
    if summary is not None:
        # Behind what is still in the buffer.
        sys.stdout.flush()
        print(f"Warning: {one_line(summary)}", file=sys.stderr)


def one_line(text: str) -> str:
    """Return a text in one line that any terminal can show."""
    return " ".join(text.encode(errors="backslashreplace").decode().split())


def block_group(fs: FileSystem, vaddr: int) -> BlockGroupItem:
    """Return the block group that begins at a virtual address.

    Raises:
        BtrfsError: There is none; the hint says which one holds this address.
    """
    from btrfs.errors import BtrfsError, ItemNotFoundError

    try:
        return fs.block_group(vaddr)
    except ItemNotFoundError:
        if fs.lost:
            raise BtrfsError(
                f"the block group at vaddr {vaddr} could not be read: {fs.lost[0].reason}"
            ) from None
        hint = "btrfs-atlas search block_groups lists them"
        for group in fs.block_groups():
            if group.vaddr < vaddr < group.vaddr + group.length:
                hint = f"the block group that holds this address begins at {group.vaddr}"
        raise BtrfsError(f"no block group at vaddr {vaddr}", hint=hint) from None


def filesystems(targets: Sequence[str]) -> list[list[str]]:
    """Return the targets, those together that are members of the same filesystem.

    Folders and dumps made by btrfs-image hold a whole filesystem, so each of them stays alone. A
    device without a valid superblock, which can be a destroyed one, goes with the others if these
    are of one filesystem. Seeds go with what has grown on them.

    Raises:
        OSError: There is no such file, or it must not be read.
    """
    require_names(targets)
    members: dict[object, list[str]] = {}
    seeds: set[object] = set()
    alone, destroyed = [], []
    for target in targets:
        if not _is_device(target):
            alone.append(target)
        elif (superblock := _superblock(target)) is not None:
            members.setdefault(superblock.fsid, []).append(target)
            if superblock.is_seed:
                seeds.add(superblock.fsid)
        else:
            destroyed.append(target)
    for fsid in seeds:
        _join_sprout(members, fsid)
    if len(members) == 1 and not alone:
        return [[*chain(*members.values()), *destroyed]]
    return [*members.values(), *([target] for target in (*alone, *destroyed))]


def _is_device(target: str) -> bool:
    """Return whether a target is a device or an image of one."""
    from btrfs.source.dump.metadump import is_metadump

    mode = os.stat(target).st_mode
    return stat.S_ISBLK(mode) or (stat.S_ISREG(mode) and not is_metadump(target))


def _join_sprout(members: dict[object, list[str]], seed: object) -> None:
    """Let the members of a seed go with those of a filesystem that has grown on it, if any."""
    from btrfs.errors import BtrfsError
    from btrfs.source.base import ReadOptions
    from btrfs.source.opening import open_unmounted

    for fsid, targets in members.items():
        if fsid == seed:
            continue
        together = [*targets, *members[seed]]
        with suppress(BtrfsError), closing(open_unmounted(together, ReadOptions(on_error="skip"))):
            members[fsid] = together
            del members[seed]
            return


def _superblock(target: str) -> Superblock | None:
    """Return the superblock of a device or of its image; None if it has none that is valid."""
    from btrfs.errors import CorruptError, NotBtrfsError
    from btrfs.source.disk.devices import open_device

    try:
        with closing(open_device(target)) as device:
            return device.superblock
    except (CorruptError, NotBtrfsError):
        return None
