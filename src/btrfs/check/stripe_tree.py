"""The raid stripe tree: where data is, if the chunk alone does not tell.

With that feature, data in block groups of these profiles lies wherever it was written to on the
devices, and an item per piece of an extent says where (fs/btrfs/raid-stripe-tree.c).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.chunk import RaidStripeExtent
from btrfs.ondisk.key import Key
from btrfs.source.disk.chunk_map import PhysicalRange
from btrfs.source.disk.store import Copy
from btrfs.source.disk.volume import Volume

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.chunk import Chunk
    from btrfs.source.disk.source import DiskSource

__all__ = ["StripeTree"]

_PROFILES = (
    constants.BLOCK_GROUP_DUP
    | constants.BLOCK_GROUP_RAID0
    | constants.BLOCK_GROUP_RAID1
    | constants.BLOCK_GROUP_RAID1C3
    | constants.BLOCK_GROUP_RAID1C4
    | constants.BLOCK_GROUP_RAID10
)


class StripeTree:
    """Reads data by the raid stripe tree.

    Args:
        fs: The filesystem.
        source: Its source.

    Attributes:
        exists: Whether the filesystem has that tree.
    """

    def __init__(self, fs: FileSystem, source: DiskSource) -> None:
        self._fs = fs
        self._source = source
        flag = constants.FEATURE_INCOMPAT_RAID_STRIPE_TREE
        self.exists = bool(source.superblock.incompat_flags & flag)
        self._chunks = [chunk for chunk in fs.chunks() if _is_mapped(chunk)] if self.exists else []
        self._starts = [chunk.vaddr for chunk in self._chunks]
        # Those of the chunk that was asked for last.
        self._chunk: Chunk | None = None
        self._items: list[RaidStripeExtent] = []
        self._item_starts: list[int] = []

    def has(self, vaddr: int) -> bool:
        """Return whether this tree says where the data at an address is."""
        return self._chunk_at(vaddr) is not None

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield all copies of a range of data.

        Raises:
            CorruptError: The tree does not say where it is.
        """
        volume = self._source.trees.store
        assert isinstance(volume, Volume)
        found = list(self._pieces(vaddr, length))
        for number in range(min(len(item.strides) for item, _, _ in found)):
            strides = [(item.strides[number], at, size) for item, at, size in found]
            ranges = [
                PhysicalRange(stride.devid, stride.physical + at, size)
                for stride, at, size in strides
            ]
            yield volume.stored(ranges)

    def _pieces(self, vaddr: int, length: int) -> Iterator[tuple[RaidStripeExtent, int, int]]:
        """Yield the items that a range lies in: each with the offset in it, and the length.

        Raises:
            CorruptError: There are none for a part of it.
        """
        self._load(vaddr)
        end = vaddr + length
        while vaddr < end:
            index = bisect_right(self._item_starts, vaddr) - 1
            item = self._items[index] if index >= 0 else None
            if item is None or vaddr >= item.vaddr + item.length or not item.strides:
                raise CorruptError(
                    f"data at {vaddr}", expected="to be in the raid stripe tree", found="it is not"
                )
            size = min(end, item.vaddr + item.length) - vaddr
            yield item, vaddr - item.vaddr, size
            vaddr += size

    def _load(self, vaddr: int) -> None:
        """Read the items of the chunk that an address is in."""
        chunk = self._chunk_at(vaddr)
        if chunk is None or chunk is self._chunk:
            return
        first = Key(chunk.vaddr, 0, 0)
        last = Key(chunk.vaddr + chunk.length - 1, 255, ULLONG_MAX)
        found = self._fs.search(constants.RAID_STRIPE_TREE_OBJECTID, first, last)
        self._items = [item for item in found if isinstance(item, RaidStripeExtent)]
        self._item_starts = [item.vaddr for item in self._items]
        self._chunk = chunk

    def _chunk_at(self, vaddr: int) -> Chunk | None:
        index = bisect_right(self._starts, vaddr) - 1
        if index < 0:
            return None
        chunk = self._chunks[index]
        return chunk if vaddr < chunk.vaddr + chunk.length else None


def _is_mapped(chunk: Chunk) -> bool:
    return bool(chunk.type & constants.BLOCK_GROUP_DATA and chunk.type & _PROFILES)
