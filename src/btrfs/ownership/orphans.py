"""Deleted subvolumes: how far the kernel is with removing them.

Deleting a subvolume takes it out of its directory, and that is quick. Its tree is removed
afterwards by the kernel's cleaner thread (btrfs_drop_snapshot() in fs/btrfs/extent-tree.c), in the
order of the keys, which can take hours. Until that is done, the root tree has an orphan item with
the number of the subvolume, and the drop_progress of its root item says now and then how far it is.

:func:`of_filesystem` returns the deleted subvolumes, :func:`watch` follows their removal::

    with btrfs.FileSystem('/') as fs:
        for event in btrfs.ownership.orphans.watch(fs):
            print(event)

Which part of a tree is removed is estimated from what is left of it. The kernel does not let
the trees of deleted subvolumes be searched, so their blocks are read from the devices even if the
filesystem is mounted. They can be: a block of such a tree is never changed, it is only freed, and
those from drop_progress on are not freed yet. If one is, because the cleaner thread has gone on
meanwhile, the part is unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, Self

from btrfs.errors import BtrfsError
from btrfs.ondisk.key import DiskKey
from btrfs.source.base import ReadOptions
from btrfs.source.disk.source import DiskSource
from btrfs.source.mounts import is_read_only

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.root import RootItem
    from btrfs.source.blocks import BlockSource

__all__ = ["Dropping", "Event", "Finished", "Orphan", "Remaining", "of_filesystem", "watch"]

_INTERVAL_SECONDS = 1.0


class Orphan(NamedTuple):
    """A subvolume that is deleted but not yet removed.

    Attributes:
        id: Its number, that of its tree.
        bytes_used: Bytes of the blocks of its tree when it was deleted, those included that it
            shares with snapshots.
        drop_progress: Key that the removal has come to; zero as long as it has not begun.
        drop_level: Level of the block that holds that key.
        done: Which part of the blocks of its tree comes before that key, from 0 to 1; None if that
            cannot be found out.
    """

    id: int
    bytes_used: int
    drop_progress: DiskKey
    drop_level: int
    done: float | None

    @property
    def begun(self) -> bool:
        """Whether the kernel has noted any progress."""
        return self.drop_progress.key != 0


class Remaining(NamedTuple):
    """The number of orphans: the first event, and another one whenever it changes.

    Attributes:
        orphans: How many.
    """

    orphans: int


class Dropping(NamedTuple):
    """A subvolume is being removed: an event whenever its drop_progress has changed.

    Attributes:
        orphan: The subvolume, and how far it is.
        seconds: Since it was first seen to be.
    """

    orphan: Orphan
    seconds: float


class Finished(NamedTuple):
    """A subvolume that was being removed is gone.

    Attributes:
        id: Its number.
        seconds: Since it was first seen to be removed.
    """

    id: int
    seconds: float


Event = Dropping | Finished | Remaining


def of_filesystem(fs: FileSystem) -> list[Orphan]:
    """Return the deleted subvolumes that are not yet removed, in the order of their numbers.

    Args:
        fs: The filesystem, mounted or not.

    Raises:
        CorruptError: The root tree is damaged.
    """
    with _Trees(fs) as trees:
        return _orphans(fs, trees)


def watch(
    fs: FileSystem, *, interval: float = _INTERVAL_SECONDS, forever: bool = False
) -> Iterator[Event]:
    """Yield events about the orphans of a mounted filesystem until none is left.

    Args:
        fs: The filesystem.
        interval: Seconds between two looks.
        forever: Do not end then, but wait for more.

    Raises:
        NotMountedError: It is not mounted.
        BtrfsError: It is mounted read-only, so that there will always be some left.
    """
    fd = fs.fd
    seen = _Seen()
    with _Trees(fs) as trees:
        while True:
            fs.refresh()
            orphans = _orphans(fs, trees)
            yield from seen.events(orphans, time.monotonic())
            if not forever:
                if not orphans:
                    return
                _require_writable(fs, fd, len(orphans))
            time.sleep(interval)


class _Seen:
    """What was seen at the last look, to find out what has happened since."""

    def __init__(self) -> None:
        self._left: int | None = None
        # Of those that were being removed: since when, and how far they were.
        self._since: dict[int, float] = {}
        self._progress: dict[int, DiskKey] = {}

    def events(self, orphans: list[Orphan], now: float) -> Iterator[Event]:
        """Yield what happened since the last look."""
        for tree in self._since.keys() - {orphan.id for orphan in orphans}:
            del self._progress[tree]
            yield Finished(tree, now - self._since.pop(tree))
        if len(orphans) != self._left:
            self._left = len(orphans)
            yield Remaining(self._left)
        for orphan in orphans:
            if orphan.begun and orphan.drop_progress != self._progress.get(orphan.id):
                self._progress[orphan.id] = orphan.drop_progress
                since = self._since.setdefault(orphan.id, now)
                yield Dropping(orphan, now - since)


def _require_writable(fs: FileSystem, fd: int, count: int) -> None:
    """Check that orphans do not stay for ever.

    Raises:
        BtrfsError: The filesystem is mounted read-only.
    """
    if is_read_only(fd):
        raise BtrfsError(
            f"{fs.path} is mounted read-only, and as long as it is, orphans are not cleaned:"
            f" {count} left",
            hint=f"mount -o remount,rw {fs.path} lets the kernel go on",
        )


def _orphans(fs: FileSystem, trees: _Trees) -> list[Orphan]:
    roots = chain.from_iterable(fs.subvolumes(tree, tree) for tree in fs.orphan_subvol_ids())
    return [
        Orphan(
            root.objectid,
            root.bytes_used,
            root.drop_progress,
            root.drop_level,
            trees.part_done(root),
        )
        for root in roots
    ]


class _Trees:
    """The trees of deleted subvolumes, read from the devices.

    Args:
        fs: The filesystem.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._source: BlockSource | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: object, exc_value: object, exc_traceback: object) -> None:
        self._stack.close()

    def part_done(self, root: RootItem) -> float | None:
        """Return which part of a tree is removed, from 0 to 1, or None if it cannot be read."""
        if root.drop_progress.key == 0:
            return 0.0
        try:
            if self._source is None:
                self._source = self._opened()
            else:
                self._source.refresh()
            left = self._source.blocks_from(root, root.drop_progress) * self._fs.nodesize
        except (BtrfsError, OSError):
            return None
        # Both are about right, so one may be above the other.
        return max(0.0, 1 - left / root.bytes_used) if root.bytes_used else None

    def _opened(self) -> BlockSource:
        source = self._fs.source
        if isinstance(source, DiskSource):
            return source
        from btrfs.source.kernel import KernelSource
        from btrfs.source.live.source import open_live

        opened = open_live(KernelSource(self._fs.path), ReadOptions())
        self._stack.callback(opened.close)
        return opened
