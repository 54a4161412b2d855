"""Types of arguments that several subcommands take."""

from __future__ import annotations

import argparse
import math
import sys

__all__ = ["add_targets", "count", "seconds", "size"]


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Declare the devices, images or the folder that one filesystem is named by."""
    parser.add_argument(
        "targets",
        metavar="TARGET",
        nargs="+",
        help="a folder on the filesystem, or a device or image of it, or several that are members"
        " of it, or a dump made by btrfs-image",
    )


def size(text: str) -> int:
    """Return the bytes of a size like 10GiB."""
    from btrfs.ondisk.text import parse_pretty_size

    try:
        return parse_pretty_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """Return a number that is not negative."""
    if not text.isdecimal() or int(text) > sys.maxsize:
        raise argparse.ArgumentTypeError(f"not a count: {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Return a number of seconds that is not negative."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    # Also false if it is no number.
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
    return number
