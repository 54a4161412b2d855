"""btrfs-atlas orphans: follow how deleted subvolumes are removed."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from btrfs_atlas.targets import opened

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ownership.orphans import Event, Orphan

DESCRIPTION = """\
Show how far the kernel is with removing deleted subvolumes, until none is left. Deleting a
subvolume takes effect at once, but its space only comes back while the kernel removes its tree,
which it begins with up to half a minute later."""

_EPILOG = """\
drop_progress is the key that the removal has come to, in the order in which the tree is removed.
done_pct is how much of the tree comes before it, in per cent, or unknown if what is left of the
tree cannot be read. Parts of a tree that snapshots share stay, and are passed by quickly, so it
does not tell the time that is left."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "mountpoint", metavar="PATH", help="a folder on the filesystem, which must be mounted"
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="do not end when none is left, but wait for more; end it with Ctrl-C",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_seconds,
        default=1.0,
        help="look again after so many seconds (default: 1)",
    )


def run(args: argparse.Namespace) -> None:
    """Follow the removal."""
    from btrfs.ownership import orphans

    with opened([args.mountpoint]) as fs:
        _require_mounted(fs)
        for event in orphans.watch(fs, interval=args.interval, forever=args.wait):
            # Others may want to read along.
            print(_line(event), flush=True)


def _require_mounted(fs: FileSystem) -> None:
    from btrfs.errors import NotMountedError

    if not fs.mounted:
        raise NotMountedError(
            f"{fs.path} is not mounted, and only a mounted filesystem removes subvolumes",
            hint="mount it, or list what is left to be removed with btrfs-atlas search orphans",
        )


def _line(event: Event) -> str:
    from btrfs.ownership.orphans import Dropping, Finished

    if isinstance(event, Dropping):
        orphan = event.orphan
        return (
            f"dropping root {orphan.id} for at least {int(event.seconds)} sec "
            f"drop_progress {orphan.drop_progress} done_pct {_percent(orphan)}"
        )
    if isinstance(event, Finished):
        return f"dropping root {event.id} finished after at least {int(event.seconds)} sec"
    return f"{event.orphans} orphans left to clean"


def _percent(orphan: Orphan) -> str:
    return "unknown" if orphan.done is None else f"{100 * orphan.done:.1f}"


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    # Also false if it is no number.
    if not 0.001 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"not a number of seconds from 0.001 to 86400: {text!r}")
    return seconds
