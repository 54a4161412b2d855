"""Back references: from an extent to the files that use it, and from a tree block to its trees.

If the filesystem is not mounted, references are followed from the extent tree on, see
:mod:`btrfs.ownership.backref_walk`. If it is mounted, the ioctl LOGICAL_INO answers for data. For
tree blocks it is what the extent tree alone can tell, or if the devices are read, the same walk.

    with btrfs.FileSystem('disk.img') as fs:
        for file in btrfs.ownership.backrefs.owners(fs, 30408704).files:
            print(file.tree, file.inum, file.offset)
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from btrfs.errors import StaleError
from btrfs.ondisk.constants import KEY_MAX
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ownership.backref_walk import BackrefWalk, FileRef
from btrfs.ownership.extent_refs import extent_at, no_extent

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["FileRef", "Owners", "leaf_items", "owners"]

# struct btrfs_data_container, and what it has for each use.
_CONTAINER_SIZE = 16
_USE_SIZE = 24
_LEAST_BUFFER = 64 << 10


class Owners(NamedTuple):
    """Who uses an extent.

    Attributes:
        files: Places in files, ascending; none for a tree block.
        more: How many places there are that are not among these.
        trees: Numbers of the trees that a tree block is part of, ascending; none for data.
        complete: Whether that is all. It is not if something could not be read, or if there was too
            much to look at. Nor is it for a tree block that may be in snapshots which share a block
            above it, if the kernel is asked, which does not show tree blocks.
    """

    files: list[FileRef]
    more: int
    trees: list[int]
    complete: bool


def owners(fs: FileSystem, vaddr: int, limit: int = 100, *, ignore_offset: bool = False) -> Owners:
    """Return which files use the data at an address, or which trees the block there is part of.

    A file need not use all of an extent, so a byte of it may be used by no file at all. Subvolumes
    that are deleted, but not cleaned up yet, count too.

    Args:
        fs: The filesystem. If it is mounted, this needs CAP_SYS_ADMIN.
        vaddr: Any virtual address inside an extent.
        limit: Return at most so many files.
        ignore_offset: Return the uses of any part of the extent, not only of that byte.

    Raises:
        ValueError: The limit is below 0.
        ItemNotFoundError: There is no extent, as far as the extent tree can be read.
        CorruptError: A tree block or an item is damaged, unless that is to be skipped.
        OSError: The kernel refuses.
    """
    if limit < 0:
        raise ValueError(f"limit is {limit}, but must be 0 or more")
    try:
        return _owners(fs, vaddr, limit, ignore_offset=ignore_offset)
    except StaleError:
        fs.refresh()
        return _owners(fs, vaddr, limit, ignore_offset=ignore_offset)


def _owners(fs: FileSystem, vaddr: int, limit: int, *, ignore_offset: bool) -> Owners:
    extent = extent_at(fs, vaddr)
    offset = None if ignore_offset else vaddr - extent.vaddr
    walk = BackrefWalk(fs)
    if not extent.is_data:
        trees = walk.trees_of(extent.vaddr)
        return Owners([], 0, sorted(trees), walk.complete)
    if fs.mounted:
        return _owners_by_kernel(fs, vaddr, limit, ignore_offset=ignore_offset)
    files, total = walk.files(extent, offset, limit)
    return Owners(files, total - len(files), [], walk.complete)


def leaf_items(fs: FileSystem, vaddr: int) -> Iterator[tuple[SearchHeader, Bytes]]:
    """Yield header and body of the items in the leaf at an address.

    There are none if no leaf is there, or if it is damaged and that is to be skipped.

    Args:
        fs: The filesystem.
        vaddr: Virtual address of a leaf of any tree, as a SharedDataRef names it.

    Raises:
        BtrfsError: The filesystem is read through the kernel, which shows no leaves.
        StaleError: It is mounted, and the leaf was overwritten meanwhile.
        CorruptError: The leaf is damaged, unless that is to be skipped.
    """
    fs.block_source()
    leaf = BackrefWalk(fs).leaf_at(vaddr)
    if leaf is not None:
        yield from leaf.items(0, KEY_MAX)


def _owners_by_kernel(fs: FileSystem, vaddr: int, limit: int, *, ignore_offset: bool) -> Owners:
    from btrfs import ioctl

    # The kernel also returns how many uses did not fit into the buffer.
    size = max(_LEAST_BUFFER, _CONTAINER_SIZE + limit * _USE_SIZE)
    complete = True
    try:
        try:
            uses, missing = ioctl.logical_ino_v2(fs.fd, vaddr, size, ignore_offset)
        except OSError as error:
            # A kernel before 4.15, or one without memory for such a buffer.
            if error.errno not in {errno.ENOTTY, errno.ENOMEM}:
                raise
            uses, missing = ioctl.logical_ino(fs.fd, vaddr, size)
            complete = not ignore_offset
    except FileNotFoundError:
        raise no_extent(vaddr) from None
    files = sorted({FileRef(use.root, use.inum, use.offset) for use in uses})
    shown = files[:limit]
    return Owners(shown, len(files) - len(shown) + missing // _USE_SIZE, [], complete)
