"""What the programs share that answer who uses the space, each from one scan of all trees."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from btrfs_atlas.progress import ProgressBar
from btrfs_atlas.targets import add_source_arguments, opened, source_options

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ownership import Ownership


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
            print(
                "Warning: some items could not be read, so all numbers may be too low",
                file=sys.stderr,
            )


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
