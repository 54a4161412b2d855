"""What a query leads to, as data. English for it is in :mod:`.descriptions`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from btrfs.ondisk.items.chunk import BlockGroupItem
    from btrfs.ondisk.items.inode import InodeItem
    from btrfs.ondisk.items.root import RootItem
    from btrfs.ownership.paths import Place
    from btrfs_atlas.explorer.search.file_extents import FileExtentSummary

__all__ = [
    "AddressFacts",
    "Extent",
    "Facts",
    "GroupFacts",
    "InodeFacts",
    "QueryResult",
    "SubvolumeFacts",
    "one_range",
]

Addresses = NDArray[np.int64]
Ranges = tuple[Addresses, Addresses]
"""Virtual addresses, ascending, and lengths, in bytes."""


@dataclass(frozen=True, slots=True)
class InodeFacts:
    """An inode that was found.

    Attributes:
        place: Subvolume and number.
        asked_path: Its path, if it was found by that.
        path: The first of its paths, from the top of the filesystem; None if it has none.
        inode: The inode; None if it could not be read.
        summary: What its file extents refer to; None for a directory, which has none.
        sectorsize: Bytes of the smallest extent of data.
        others: Further subvolumes that have an inode of this number.
        more_others: Whether there may be more of these.
        lost: Why not all of it could be read; None if all could.
    """

    place: Place
    asked_path: bytes | None
    path: bytes | None
    inode: InodeItem | None
    summary: FileExtentSummary | None
    sectorsize: int
    others: list[int]
    more_others: bool
    lost: str | None


@dataclass(frozen=True, slots=True)
class Extent:
    """An extent, as its item in the extent tree tells (struct btrfs_extent_item).

    Attributes:
        vaddr: Virtual address.
        length: Bytes.
        refs: Number of references to it.
        generation: In which it was made.
        is_tree_block: Whether it is a tree block; otherwise data.
    """

    vaddr: int
    length: int
    refs: int
    generation: int
    is_tree_block: bool


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """What lies at a virtual address.

    Attributes:
        vaddr: The address.
        group: The block group that holds it.
        extent: The extent that holds it; None if it is free.
        lost: Why an extent may be there all the same; None if not.
    """

    vaddr: int
    group: BlockGroupItem
    extent: Extent | None
    lost: str | None


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A block group that was found.

    Attributes:
        group: The block group.
        devids: The devices that it lies on, as far as they are known.
        extents: How many extents it has; None if they cannot be read.
    """

    group: BlockGroupItem
    devids: list[int]
    extents: int | None


@dataclass(frozen=True, slots=True)
class SubvolumeFacts:
    """A subvolume that was found.

    Attributes:
        tree: Its number.
        path: Its path from the top of the filesystem; None if it has none.
        root: Its root item.
        summary: What the file extents of its files refer to.
        lost: Why not all of it could be read; None if all could.
    """

    tree: int
    path: bytes | None
    root: RootItem
    summary: FileExtentSummary
    lost: str | None


Facts: TypeAlias = InodeFacts | AddressFacts | GroupFacts | SubvolumeFacts


@dataclass(frozen=True, slots=True)
class QueryResult:
    """What a query leads to, no matter how it lies on a line; see Found.

    Attributes:
        kind: 'file', 'inode', 'vaddr', 'group' or 'subvolume'.
        facts: What is known about it.
        ranges: Virtual addresses, ascending, each once, and lengths; int64, bytes.
        extents: How many extents it has.
        bytes: Bytes of virtual address space that they take.
        truncated: Whether there may be more, which was not looked for.
        first: Virtual address of what should be seen first; None for all of it.
    """

    kind: str
    facts: Facts
    ranges: Ranges
    extents: int
    bytes: int
    truncated: bool = False
    first: int | None = field(default=None, kw_only=True)


def one_range(start: int, length: int) -> Ranges:
    """Return a single range."""
    return np.array([start], dtype=np.int64), np.array([length], dtype=np.int64)
