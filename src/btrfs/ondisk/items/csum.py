"""Checksums of data."""

from btrfs.ondisk import constants
from btrfs.ondisk.fields import key_offset, rest
from btrfs.ondisk.items.base import ItemData
from btrfs.ondisk.printing import as_byte_count

__all__ = ["ExtentCsumItem"]


class ExtentCsumItem(
    ItemData,
    type=constants.EXTENT_CSUM_KEY,
    tree=constants.CSUM_TREE_OBJECTID,
    line="extent csum vaddr {vaddr} sums {sums_str}",
):
    """Checksums of consecutive sectors of data (struct btrfs_csum_item).

    In the checksum tree, under (EXTENT_CSUM EXTENT_CSUM vaddr).

    Attributes:
        vaddr: Virtual address of the first sector.
        sums: The checksums one after another. How long each is depends on the filesystem's type
            of checksum: see :meth:`split`.
    """

    vaddr: key_offset
    sums: bytes = rest()
    sums_str = as_byte_count()

    def split(self, csum_size: int) -> list[bytes]:
        """Return a list of checksums, one per sector.

        Args:
            csum_size: Bytes of a checksum, csum_size of the filesystem.
        """
        return [
            self.sums[start : start + csum_size] for start in range(0, len(self.sums), csum_size)
        ]
