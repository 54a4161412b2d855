"""What every source of metadata can do.

Sources that show tree blocks, too, and not items alone, can do more: see
:mod:`btrfs.source.blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from btrfs.errors import BtrfsError
from btrfs.info import DevInfo, DevStats, FeatureFlags, FsInfo, SpaceInfo
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.key import Key
from btrfs.source.damage import DamageLog

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["OnError", "ReadOptions", "Source"]

OnError = Literal["raise", "skip"]


class ReadOptions(NamedTuple):
    """How to read a filesystem that is not mounted.

    Attributes:
        superblock: Which copy of the superblock to go by, 0 to 2, if not the newest.
        backup_root: Which of its backups of the root tree to read, 0 to 3, if not the current one.
        on_error: What to do about what cannot be read: raise, or leave it out.
        unknown_features: Read it also where it has features that are not known here.
    """

    superblock: int | None = None
    backup_root: int | None = None
    on_error: OnError = "raise"
    unknown_features: bool = False


class Source(Protocol):
    """The few questions that all look-ups are answered from.

    All sources give the same items in the same order for the same filesystem.

    Attributes:
        path: What was opened, or the first of several files.
        mounted: Whether it is mounted, so that there is a kernel to call.
        log: What was wrong so far.
    """

    path: str
    mounted: bool
    log: DamageLog

    @property
    def fd(self) -> int:
        """File descriptor for :mod:`btrfs.ioctl`.

        Raises:
            NotMountedError: It is not mounted.
        """

    def search(
        self,
        tree: int,
        min_key: Key,
        max_key: Key,
        min_transid: int = 0,
        max_transid: int = ULLONG_MAX,
        nr_items: int | None = None,
    ) -> Iterator[tuple[SearchHeader, Bytes]]:
        """Yield header and body of the items between two keys, both included.

        Raises:
            OSError: ENOENT if there is no such tree; what the kernel raises if it is mounted.
            CorruptError: A tree block has no copy that passes all checks.
        """

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        """Yield the same items many at a time, without an object for each.

        A batch has some thousands of items, so memory does not grow with the filesystem.
        """

    def skip_or_raise(self, tree: int, min_key: int, max_key: int, error: BtrfsError, /) -> None:
        """Note that items cannot be read and return, or raise the error, as ReadOptions say.

        Args:
            tree: Number of the tree.
            min_key: The lowest key of such an item, as a number.
            max_key: The highest key.
            error: Why they cannot be read.
        """

    def fs_info(self) -> FsInfo:
        """Return what describes the filesystem as a whole."""

    def dev_info(self, devid: int) -> DevInfo:
        """Return what describes a device.

        Raises:
            OSError: ENODEV if there is no device of that number.
        """

    def dev_stats(self, devid: int, reset: bool = False) -> DevStats:
        """Return the counters of errors of a device.

        Raises:
            OSError: ENODEV if there is no device of that number.
            NotMountedError: They are to be reset, but it is not mounted.
        """

    def space_info(self) -> list[SpaceInfo]:
        """Return the sizes of all block groups, one entry per type and profile."""

    def features(self) -> FeatureFlags:
        """Return the features that the filesystem uses."""

    def label(self) -> str:
        """Return the label of the filesystem."""

    def sync(self) -> None:
        """Commit the running transaction.

        Raises:
            NotMountedError: It is not mounted.
        """

    def is_stale(self) -> bool:
        """Return whether there is a newer commit than the one that is shown.

        There is none of a filesystem that is not mounted, nor if the kernel answers, which shows
        the running transaction. It costs no more than to read the superblocks.
        """

    def refresh(self) -> bool:
        """Show the last commit from now on; return whether it is a newer one than before."""

    def close(self) -> None:
        """Close all files."""
