"""A mounted filesystem as a source that shows its last commit, and its tree blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from btrfs.errors import StaleError
from btrfs.info import DevStats
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.key import Key
from btrfs.source.base import ReadOptions
from btrfs.source.damage import DamageLog
from btrfs.source.disk.node import Pointer
from btrfs.source.disk.source import DiskSource
from btrfs.source.kernel import KernelSource
from btrfs.source.live.commit import Commit, last_commit

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["LiveSource", "open_live"]

# So often in a row may a newer commit be in the way before it is given up. Between two commits
# there is more than enough time to read one path through a tree.
_MAX_RESTARTS = 100


def open_live(kernel: KernelSource, options: ReadOptions) -> LiveSource:
    """Open a mounted filesystem by its devices.

    Args:
        kernel: What the running kernel says of it. It is closed with the source.
        options: How to read it.

    Raises:
        BtrfsError: It cannot be read; a device must not be opened.
    """
    try:
        log = DamageLog()
        return LiveSource(kernel, last_commit(kernel, options, log), log, options)
    except BaseException:
        kernel.close()
        raise


class LiveSource(DiskSource):
    """A mounted filesystem, read from its devices. See :class:`btrfs.source.blocks.BlockSource`.

    It shows one commit until :meth:`refresh` is called, or until a search meets a block that was
    overwritten: then the search goes on from the last commit, behind the items that it has yielded.
    So the items of one search can be of several commits, as those of the search ioctl can be. If
    the tree is gone meanwhile, the search raises TreeNotFoundError.

    What reads single blocks (:meth:`read_block`, :meth:`blocks`, :meth:`search_root`,
    :meth:`blocks_from`, and the store of ``trees``) does not go on by itself: it raises StaleError.

    Args:
        kernel: What the running kernel says of it. It is closed with the source.
        commit: The commit to show first.
        log: Remembers what is wrong.
        options: How to read it.
    """

    mounted = True

    def __init__(
        self, kernel: KernelSource, commit: Commit, log: DamageLog, options: ReadOptions
    ) -> None:
        super().__init__(kernel.path, commit.superblock, commit.volume, log, options, commit.seeds)
        self._kernel = kernel
        self._options = options
        self._show(commit)

    def _show(self, commit: Commit) -> None:
        """Answer from a commit from now on. What is being read goes on in the one of before."""
        self._commit = commit
        self._frozen = DiskSource(
            self.path, commit.superblock, commit.volume, self.log, self._options, commit.seeds
        )
        self.superblock = self._frozen.superblock
        self.devices = self._frozen.devices
        self.trees = self._frozen.trees

    def refresh(self) -> bool:
        commit = last_commit(self._kernel, self._options, self.log, self._commit)
        if commit.superblock.generation <= self.superblock.generation:
            return False
        self._show(commit)
        return True

    @property
    def fd(self) -> int:
        return self._kernel.fd

    def search(
        self,
        tree: int,
        min_key: Key,
        max_key: Key,
        min_transid: int = 0,
        max_transid: int = ULLONG_MAX,
        nr_items: int | None = None,
    ) -> Iterator[tuple[SearchHeader, Bytes]]:
        tree = self._resolved(tree)
        left = ULLONG_MAX if nr_items is None else nr_items
        restarts = 0
        while left > 0 and min_key <= max_key:
            last: SearchHeader | None = None
            try:
                for item in self._frozen.search(tree, min_key, max_key):
                    last = item[0]
                    if min_transid <= last.transid <= max_transid:
                        yield item
                        left -= 1
                        if left <= 0:
                            return
                return
            except StaleError:
                restarts = self._restarted(restarts if last is None else 0)
            if last is not None:
                min_key = Key(last.objectid, last.type, last.offset) + 1
                if min_key == Key(0, 0, 0):
                    return

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        tree = self._resolved(tree)
        restarts = 0
        while min_key <= max_key:
            last: Key | None = None
            try:
                for batch in self._frozen.batches(tree, min_key, max_key):
                    last = batch.key(-1)
                    yield batch
                return
            except StaleError:
                restarts = self._restarted(restarts if last is None else 0)
            if last is not None:
                min_key = last + 1
                if min_key == Key(0, 0, 0):
                    return

    def root(self, tree: int) -> Pointer:
        restarts = 0
        while True:
            try:
                return self._frozen.root(tree)
            except StaleError:
                restarts = self._restarted(restarts)

    def _restarted(self, restarts: int) -> int:
        """Go to the last commit, as a block of the one that is shown was overwritten.

        Args:
            restarts: How often that has happened in a row.

        Returns:
            How often it has happened now.

        Raises:
            StaleError: Too often.
        """
        if restarts == _MAX_RESTARTS:
            raise StaleError(
                f"{self.path} is being written to faster than it can be read",
                hint="try it again later, or with --source mounted",
            )
        self.refresh()
        return restarts + 1

    def _resolved(self, tree: int) -> int:
        """Return the number of a tree that is asked for; 0 stands for that of the path."""
        return tree or self._kernel.subvolume()

    def dev_stats(self, devid: int, reset: bool = False) -> DevStats:
        return self._kernel.dev_stats(devid, reset)

    def sync(self) -> None:
        self._kernel.sync()
        self.refresh()

    def close(self) -> None:
        super().close()
        self._kernel.close()
