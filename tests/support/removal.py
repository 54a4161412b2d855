"""A subvolume whose removal was interrupted in the middle, as by a power cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from btrfs import FileSystem, ioctl
from btrfs.ctree import FIRST_FREE_OBJECTID, RootItem
from tests.lab.commands import run
from tests.lab.loopfs import LoopFilesystem

NODESIZE = 4096
"""Of the filesystem: so small a leaf has no room for a second file of :func:`make_subvolume`."""

_ATTRIBUTE_SIZE = 3000

_MANY = 20_000
"""Leaves that the kernel takes about a quarter of a second for."""


class Interrupted(NamedTuple):
    """A subvolume of whose tree a part is removed.

    Attributes:
        root: Its root.
        leaves: How many leaves of files it had, which have followed each other in its tree.
        images: Images of the filesystem. As long as they are mounted read-only, nothing moves.
    """

    root: RootItem
    leaves: int
    images: list[Path]


def make_subvolume(path: Path, leaves: int) -> None:
    """Make a subvolume whose tree has so many leaves, and some more for the names of the files."""
    run("btrfs", "subvolume", "create", path)
    value = os.urandom(_ATTRIBUTE_SIZE)
    for number in range(leaves):
        file = path / str(number)
        file.touch()
        os.setxattr(file, b"user.filling", value)


def interrupt(fs: LoopFilesystem, folder: Path, tries: int = 5) -> Interrupted:
    """Delete a subvolume, and copy the filesystem when some of its files are removed.

    Another subvolume is deleted right after it, and waits for its turn. The filesystem itself is
    detached at the end: the kernel does not mount two of the same UUID.

    Args:
        fs: A mounted filesystem of that nodesize.
        folder: Where to copy the images to.
        tries: How many subvolumes to delete until it happens.
    """
    leaves = _MANY
    for number in range(tries):
        path, another = fs.mountpoint / f"removal{number}", fs.mountpoint / f"another{number}"
        make_subvolume(path, leaves)
        make_subvolume(another, 10)
        trees = _tree_of(path), _tree_of(another)
        fs.sync()
        run("btrfs", "subvolume", "delete", path, another)
        if _removes_files(fs, trees[0]):
            # It goes on, but that is not on the devices before the next sync.
            images = fs.copy_images(folder)
            with FileSystem(images) as copy:
                root, other = (next(copy.subvolumes(tree, tree), None) for tree in trees)
            if root is not None and other is not None and not other.drop_progress.key:
                fs.detach()
                return Interrupted(root, leaves, images)
        # It was too quick.
        leaves *= 2
    raise AssertionError(f"{tries} subvolumes were removed at once")


def _tree_of(path: Path) -> int:
    with FileSystem(path) as fs:
        return ioctl.ino_lookup(fs.fd).treeid


def _removes_files(fs: LoopFilesystem, tree: int) -> bool:
    """Wait until some files of a subvolume are removed; return False if all are at once."""
    with FileSystem(fs.mountpoint) as opened:
        while root := next(opened.subvolumes(tree, tree), None):
            # This wakes the kernel's cleaner thread, and writes down how far it is.
            opened.sync()
            if root.drop_progress.objectid > FIRST_FREE_OBJECTID:
                return True
    return False
