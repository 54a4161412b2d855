"""Why a search finds nothing."""

from __future__ import annotations

from btrfs.errors import BtrfsError

__all__ = ["USAGE", "FindError"]

USAGE = (
    "find a path, 'inode 257 in 256', 'vaddr 30408704', 'group 30408704' or 'subvolume home/fred'"
)
"""What can be asked for, as a hint."""


class FindError(BtrfsError):
    """A query that names nothing in the filesystem, or cannot be understood."""
