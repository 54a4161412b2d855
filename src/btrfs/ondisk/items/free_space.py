"""Free space inside block groups.

The free space tree lists the free ranges of each block group, or holds a bitmap where a list would
take more room. The free space cache v1, which is older, keeps them in files instead; its items in
the root tree say which.
"""

import re
from collections.abc import Iterator

from btrfs.errors import CorruptError
from btrfs.ondisk import constants, free_space
from btrfs.ondisk.fields import key_objectid, key_offset, rest, u32, u64
from btrfs.ondisk.items.base import ItemData
from btrfs.ondisk.key import DiskKey
from btrfs.ondisk.printing import as_byte_count, as_flags, as_size

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
    length: key_offset
    length_str = as_size()
    extent_count: u32
    flags: u32
    flags_str = as_flags(constants.FREE_SPACE_INFO_FLAG_NAMES)


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
    length: key_offset
    length_str = as_size()


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
    bitmap_str = as_byte_count()

    def unpack(self, sectorsize: int) -> Iterator[free_space.FreeSpaceExtent]:
        """Yield the free ranges, neighbouring free sectors as one.

        Args:
            sectorsize: Bytes that a bit stands for, the sectorsize of the filesystem.

        Raises:
            CorruptError: The bitmap has fewer bits than the range has sectors.
        """
        sectors = self.length // sectorsize
        if len(self.bitmap) * 8 < sectors:
            raise CorruptError(
                f"item {self.key}",
                expected=f"a bitmap of {sectors} bits",
                found=f"{len(self.bitmap) * 8} bits",
            )
        bits = f"{int.from_bytes(self.bitmap, 'little'):0{sectors}b}"[::-1][:sectors]
        for run in re.finditer("1+", bits):
            vaddr = self.vaddr + run.start() * sectorsize
            yield free_space.FreeSpaceExtent(vaddr, len(run[0]) * sectorsize)


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
