"""Free space inside block groups.

The free space tree lists the free ranges of each block group, or holds a bitmap where a list would
take more room. The free space cache v1, which is older, keeps them in files instead; its items in
the root tree say which.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from btrfs import constants
from btrfs.errors import CorruptError
from btrfs.items.base import ItemData
from btrfs.key import DiskKey
from btrfs.layout import as_flags, as_size, key_objectid, key_offset, rest, u32, u64

if TYPE_CHECKING:
    from btrfs import free_space_tree

__all__ = ["FreeSpaceBitmap", "FreeSpaceExtent", "FreeSpaceHeader", "FreeSpaceInfo"]


class FreeSpaceInfo(
    ItemData,
    type=constants.FREE_SPACE_INFO_KEY,
    tree=constants.FREE_SPACE_TREE_OBJECTID,
    line=(
        "free space info vaddr {vaddr} length {length_str} extent_count {extent_count} "
        "flags {flags_str}"
    ),
):
    """How the free space of a block group is stored (struct btrfs_free_space_info).

    In the free space tree, under (vaddr FREE_SPACE_INFO length).

    Attributes:
        vaddr: Virtual address of the block group.
        length: Bytes of the block group.
        extent_count: How many free ranges it has.
        flags: FREE_SPACE_USING_BITMAPS, or 0.
    """

    vaddr: key_objectid
    length: key_offset = as_size()
    extent_count: u32
    flags: u32 = as_flags(constants.FREE_SPACE_INFO_FLAG_NAMES)


class FreeSpaceExtent(
    ItemData,
    type=constants.FREE_SPACE_EXTENT_KEY,
    tree=constants.FREE_SPACE_TREE_OBJECTID,
    line="free space extent vaddr {vaddr} length {length}",
):
    """A free range, in the free space tree under (vaddr FREE_SPACE_EXTENT length), without a body.

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes.
    """

    vaddr: key_objectid
    length: key_offset = as_size()


class FreeSpaceBitmap(
    ItemData,
    type=constants.FREE_SPACE_BITMAP_KEY,
    tree=constants.FREE_SPACE_TREE_OBJECTID,
    line="free space bitmap for vaddr {vaddr} length {length}",
):
    """A bit per sector, set where it is free, under (vaddr FREE_SPACE_BITMAP length).

    Attributes:
        vaddr: Virtual address of the first sector.
        length: Bytes of virtual address space that the bits stand for.
        bitmap: The bits, lowest first in each byte.
    """

    vaddr: key_objectid
    length: key_offset
    bitmap: bytes = rest()

    def unpack(self, sectorsize: int) -> "Iterator[free_space_tree.FreeSpaceExtent]":
        """Yield the free ranges, neighbouring free sectors as one.

        Args:
            sectorsize: Bytes that a bit stands for, the sectorsize of the filesystem.

        Raises:
            CorruptError: The bitmap has fewer bits than the range has sectors.
        """
        from btrfs.free_space_tree import FreeSpaceExtent

        sectors = self.length // sectorsize
        if len(self.bitmap) * 8 < sectors:
            raise CorruptError(
                f"item {self.key}",
                expected=f"a bitmap of {sectors} bits",
                found=f"{len(self.bitmap) * 8} bits",
            )
        bits = int.from_bytes(self.bitmap, "little") & ((1 << sectors) - 1)
        # The lowest set bit begins a free range, the lowest clear bit above it ends the range.
        sector = 0
        while bits:
            skip = (bits & -bits).bit_length() - 1
            bits >>= skip
            count = (~bits & (bits + 1)).bit_length() - 1
            bits >>= count
            sector += skip
            yield FreeSpaceExtent(self.vaddr + sector * sectorsize, count * sectorsize)
            sector += count


class FreeSpaceHeader(
    ItemData,
    type=constants.UNTYPED_KEY,
    tree=constants.ROOT_TREE_OBJECTID,
    objectid=constants.FREE_SPACE_OBJECTID,
):
    """Which file holds the free space cache v1 of a block group (struct btrfs_free_space_header).

    In the root tree, under (FREE_SPACE 0 vaddr).

    Attributes:
        vaddr: Virtual address of the block group.
        location: Key of the inode of the file, in the root tree.
        generation: Generation that the file was written in.
        num_entries: Entries in the file, extents and bitmaps.
        num_bitmaps: How many of them are bitmaps.
    """

    vaddr: key_offset
    location: DiskKey
    generation: u64
    num_entries: u64
    num_bitmaps: u64
