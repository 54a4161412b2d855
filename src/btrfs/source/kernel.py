"""A mounted filesystem, read through the search ioctl of the kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from btrfs import ioctl
from btrfs.errors import BtrfsError, NotBtrfsError
from btrfs.info import DevInfo, DevStats, FeatureFlags, FsInfo, SpaceInfo
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.key import Key
from btrfs.source.damage import DamageLog
from btrfs.source.descriptor import Descriptor, SharedNumber

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["KernelSource"]

_SEARCH_BUF_SIZE = 64 * 1024
# For bulk reading. At each leaf the kernel touches every page of the buffer that is still free
# (fault_in_subpage_writeable in fs/btrfs/ioctl.c), so a larger one is slower.
_BATCH_BUF_SIZE = 512 * 1024


class KernelSource:
    """The filesystem that a path lies on. See :class:`btrfs.source.base.Source`.

    Attributes:
        path: The path.
        log: Always empty: the kernel keeps a log of its own.

    Raises:
        NotBtrfsError: The path does not lie on a btrfs.
    """

    mounted = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.log = DamageLog()
        self._descriptor = Descriptor(_open(path))
        self._shared = SharedNumber(self._descriptor)
        try:
            self.fs_info()
        except OSError as error:
            self.close()
            if error.errno in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
                raise NotBtrfsError(
                    f"{path} is not on a btrfs filesystem",
                    hint="give a mount point, a block device, an image or a btrfs-image dump",
                ) from None
            raise

    @property
    def fd(self) -> int:
        """Descriptor of the path, or of its folder if it is neither a folder nor a plain file.

        It may be closed: this source does not read through it.
        """
        return self._shared.fd

    @property
    def _fd(self) -> int:
        return self._descriptor.fd

    def search(
        self,
        tree: int,
        min_key: Key,
        max_key: Key,
        min_transid: int = 0,
        max_transid: int = ULLONG_MAX,
        nr_items: int | None = None,
    ) -> Iterator[tuple[SearchHeader, Bytes]]:
        return ioctl.search_v2(
            self._fd, tree, min_key, max_key, min_transid, max_transid, nr_items, _SEARCH_BUF_SIZE
        )

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        import numpy as np

        from btrfs.source.search_buffer import batch_at, item_positions

        next_key = min_key
        buf_size = _BATCH_BUF_SIZE
        while next_key <= max_key:
            args = np.empty(ioctl.SEARCH_V2_ARGS_SIZE + buf_size, np.uint8)
            view = args.data
            try:
                count = ioctl.search_v2_into(self._fd, view, tree, next_key, max_key)
            except OSError as error:
                if error.errno != errno.EOVERFLOW:
                    raise
                # The next item alone is larger than the buffer.
                buf_size = ioctl.needed_buf_size(view)
                continue
            if count == 0:
                return
            batch = batch_at(args, item_positions(view, ioctl.SEARCH_V2_ARGS_SIZE, count))
            yield batch
            next_key = batch.key(-1) + 1
            if next_key == Key(0, 0, 0):
                return
            buf_size = _BATCH_BUF_SIZE

    def skip_or_raise(self, _tree: int, _min_key: int, _max_key: int, error: BtrfsError, /) -> None:
        raise error

    def fs_info(self) -> FsInfo:
        return ioctl.fs_info(self._fd)

    def dev_info(self, devid: int) -> DevInfo:
        return ioctl.dev_info(self._fd, devid)

    def device_infos(self) -> Iterator[DevInfo]:
        """Yield what describes each device; number 0 is one that is to replace another."""
        for devid in range(self.fs_info().max_id + 1):
            try:
                yield self.dev_info(devid)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise

    def subvolume(self) -> int:
        """Return the number of the subvolume that the path is in."""
        return ioctl.ino_lookup(self._fd).treeid

    def dev_stats(self, devid: int, reset: bool = False) -> DevStats:
        return ioctl.dev_stats(self._fd, devid, reset)

    def space_info(self) -> list[SpaceInfo]:
        return list(ioctl.space_info(self._fd))

    def features(self) -> FeatureFlags:
        return ioctl.get_features(self._fd)

    def label(self) -> str:
        return ioctl.get_label(self._fd)

    def sync(self) -> None:
        ioctl.sync(self._fd)

    def is_stale(self) -> bool:
        return False

    def refresh(self) -> bool:
        return False

    def close(self) -> None:
        self._shared.close()
        self._descriptor.close()


def _open(path: str) -> int:
    """Open a path for ioctls that ask about the filesystem it lies on."""
    mode = os.stat(path).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        # To open a pipe or a device would wait for it, or be about the device.
        path = os.path.dirname(os.path.abspath(path))
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
