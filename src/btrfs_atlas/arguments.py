"""Types of arguments that several subcommands take."""

from __future__ import annotations

import argparse
import sys

__all__ = ["count", "size"]


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
