"""Give a filesystem block groups of data that are filled in different ways, in next to no time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tests.lab.commands import run

SIZE = "1536M"
"""Of a filesystem whose data block groups have 160 MiB, but for the one of mkfs.btrfs with 8."""

PIECE = 5 << 20
PIECES = 30
"""So many pieces nearly fill such a block group."""


def fill_block_groups(root: Path, keep: Sequence[int]) -> None:
    """Fill block groups, then empty each so far that about so many pieces are left.

    Args:
        root: A mounted filesystem of that size.
        keep: How many pieces, for one block group after the other.
    """
    for number in range(PIECES * len(keep)):
        allocate(root / f"piece{number}", PIECE)
    run("btrfs", "filesystem", "sync", root)
    for number in range(PIECES * len(keep)):
        if number % PIECES >= keep[number // PIECES]:
            (root / f"piece{number}").unlink()
    run("btrfs", "filesystem", "sync", root)


def fragment(root: Path) -> None:
    """Fill two block groups so that only holes of 1 MiB are left, and three with larger extents.

    Args:
        root: A mounted filesystem of that size.
    """
    small, large = 2 * 160, 3 * 160 * (1 << 20) // PIECE
    for number in range(small):
        allocate(root / f"small{number}", 1 << 20)
    run("btrfs", "filesystem", "sync", root)
    for number in range(large):
        allocate(root / f"large{number}", PIECE)
    for number in range(0, small, 2):
        (root / f"small{number}").unlink()
    for number in range(large):
        if number % 4:
            (root / f"large{number}").unlink()
    run("btrfs", "filesystem", "sync", root)


def fill_completely(root: Path, piece: int = 4 << 20) -> int:
    """Allocate files until no more fits, and return how many; they are named piece0, piece1 ..."""
    number = 0
    try:
        while True:
            allocate(root / f"piece{number}", piece)
            number += 1
    except OSError:
        (root / f"piece{number}").unlink()
    run("btrfs", "filesystem", "sync", root)
    return number


def scatter(path: Path, extents: int = 20_000, size: int = 4096) -> None:
    """Write a file of many small extents, which take seconds to be moved."""
    block = os.urandom(size)
    with path.open("wb") as file:
        for number in range(extents):
            os.pwrite(file.fileno(), block, number * 2 * size)
    run("btrfs", "filesystem", "sync", path.parent)


def allocate(path: Path, size: int) -> None:
    """Make a file of this size without writing to it."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
