"""Reading for one search: a step at a time, and with a limit.

A search holds the lock of the atlas for one step only, so that the map can be drawn meanwhile, and
ends after so many seconds or extents.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from btrfs import ioctl
from btrfs.errors import CorruptError, ItemNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.items.inode import InodeItem
from btrfs.ondisk.key import Key
from btrfs.ownership import subvolumes
from btrfs.ownership.paths import Paths, Place, lookup

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch
    from btrfs.ondisk.items.root import RootItem
    from btrfs_atlas.explorer.atlas import Atlas

__all__ = ["MAX_EXTENTS", "MAX_SECONDS", "StepReader"]

MAX_EXTENTS = 2_000_000
"""A search ends when it has found so many extents."""

MAX_SECONDS = 20.0
"""A search ends after so many seconds."""


class StepReader:
    """Reads for one search, a step at a time.

    Args:
        atlas: The map.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.atlas = atlas
        self.fs = atlas.fs
        self.paths = Paths(atlas.fs)
        self._end = time.monotonic() + MAX_SECONDS

    @property
    def is_late(self) -> bool:
        """Whether it has been reading for long enough."""
        return time.monotonic() > self._end

    def batches(self, tree: int, first: Key, last: Key) -> Iterator[ItemBatch]:
        """Yield the items of a tree between two keys, until it gets late."""
        with self.atlas.lock:
            batches = self.fs.batches(tree, first, last)
        while not self.is_late:
            with self.atlas.lock:
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def lookup(self, path: bytes, tree: int) -> Place:
        """Return where a path leads to; see btrfs.ownership.paths.lookup()."""
        with self.atlas.lock:
            return lookup(self.fs, path, tree)

    def subvolume(self, tree: int) -> RootItem | None:
        """Return the root item of a subvolume; None if there is none."""
        if tree != constants.FS_TREE_OBJECTID and tree < constants.FIRST_FREE_OBJECTID:
            return None
        with self.atlas.lock:
            if tree != constants.FS_TREE_OBJECTID:
                return next(self.fs.subvolumes(tree, tree), None)
            try:
                return self.fs.top_level()
            except ItemNotFoundError:
                return None

    def path_of_subvolume(self, tree: int) -> bytes | None:
        """Return the path of a subvolume; None if it has none, or it cannot be known."""
        try:
            with self.atlas.lock:
                return self.paths.of_subvolume(tree)
        except (CorruptError, OSError):
            return None

    def path_of_inode(self, place: Place) -> bytes | None:
        """Return the first path of an inode; None if it has none, or it cannot be known."""
        try:
            with self.atlas.lock:
                return next(self.paths.of_inode(*place), None)
        except (CorruptError, OSError):
            return None

    def inode(self, place: Place) -> InodeItem | None:
        """Return an inode; None if there is none."""
        key = Key(place.inum, constants.INODE_ITEM_KEY, 0)
        try:
            with self.atlas.lock:
                found = list(self.fs.search(place.tree, key, key))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None
        return next((item for item in found if isinstance(item, InodeItem)), None)

    def loss(self, tree: int, first: Key, last: Key) -> str | None:
        """Return why something of a range of keys could not be read; None if all could."""
        with self.atlas.lock:
            lost = [lost for lost in self.fs.lost if lost.overlaps(tree, first, last)]
        return lost[0].reason if lost else None

    def home(self) -> int:
        """Return the subvolume that is mounted, or that would be if none were named."""
        with self.atlas.lock:
            if self.fs.mounted:
                return ioctl.ino_lookup(self.fs.fd).treeid
            try:
                return subvolumes.default(self.fs)
            except ItemNotFoundError:
                return constants.FS_TREE_OBJECTID
