"""Chunks: ranges of the virtual address space, and where on the devices they lie."""

from btrfs.ondisk import constants
from btrfs.ondisk.fields import array, key_objectid, key_offset, u16, u32, u64, uuid16
from btrfs.ondisk.items.base import ItemData, SubItem
from btrfs.ondisk.printing import as_flags, as_size

__all__ = ["BlockGroupItem", "Chunk", "RaidStride", "RaidStripeExtent", "Stripe"]


class Stripe(SubItem, line="stripe devid {devid} offset {offset}"):
    """A device extent that a chunk is made of (struct btrfs_stripe).

    Attributes:
        devid: Number of the device.
        offset: Address on the device in bytes.
        uuid: UUID of the device.
    """

    devid: u64
    offset: u64
    uuid: uuid16


class Chunk(
    ItemData,
    type=constants.CHUNK_ITEM_KEY,
    tree=constants.CHUNK_TREE_OBJECTID,
    line="chunk vaddr {vaddr} type {type_str} length {length_str} num_stripes {num_stripes}",
):
    """A range of the virtual address space (struct btrfs_chunk).

    In the chunk tree, under (FIRST_CHUNK_TREE CHUNK_ITEM vaddr). To each belongs a
    :class:`BlockGroupItem`, and a :class:`btrfs.ctree.DevExtent` per stripe.

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes of virtual address space.
        owner: The extent tree, always 2.
        stripe_len: Bytes before data goes on in the next stripe, always 64 KiB.
        type: Type and profile, as in BlockGroupItem.flags.
        io_align: Same as stripe_len.
        io_width: Same as stripe_len.
        sector_size: Smallest unit of input and output in bytes.
        num_stripes: How many device extents it is made of.
        sub_stripes: 2 for RAID10, where pairs of stripes hold the same; else 1 (or 0).
        stripes: Where the device extents are.
    """

    vaddr: key_offset
    length: u64
    length_str = as_size()
    owner: u64
    stripe_len: u64
    stripe_len_str = as_size()
    type: u64
    type_str = as_flags(constants.BLOCK_GROUP_FLAG_NAMES)
    io_align: u32
    io_align_str = as_size()
    io_width: u32
    io_width_str = as_size()
    sector_size: u32
    sector_size_str = as_size()
    num_stripes: u16
    sub_stripes: u16
    stripes: list[Stripe] = array(Stripe, "num_stripes")


class BlockGroupItem(
    ItemData,
    type=constants.BLOCK_GROUP_ITEM_KEY,
    line=(
        "block group vaddr {vaddr} length {length} flags {flags_str} "
        "used {used} used_pct {used_pct}"
    ),
):
    """How much of a chunk is in use (struct btrfs_block_group_item).

    In the extent tree or, with that feature, the block group tree, under
    (vaddr BLOCK_GROUP_ITEM length).

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes of virtual address space.
        used: Bytes of it that extents use.
        chunk_objectid: Always 256.
        flags: Type and profile, for instance BLOCK_GROUP_DATA | BLOCK_GROUP_RAID1.
    """

    vaddr: key_objectid
    length: key_offset
    length_str = as_size()
    used: u64
    used_str = as_size()
    chunk_objectid: u64
    flags: u64
    flags_str = as_flags(constants.BLOCK_GROUP_FLAG_NAMES)

    @property
    def used_pct(self) -> int:
        """Percentage of the block group that is in use."""
        return round(self.used * 100 / self.length) if self.length else 0


class RaidStride(SubItem):
    """Where a copy or a part of a data extent lies (struct btrfs_raid_stride).

    Attributes:
        devid: Number of the device.
        physical: Address on the device in bytes.
    """

    devid: u64
    physical: u64


class RaidStripeExtent(
    ItemData, type=constants.RAID_STRIPE_KEY, tree=constants.RAID_STRIPE_TREE_OBJECTID
):
    """Where a range of a data extent lies on the devices (struct btrfs_stripe_extent).

    In the raid stripe tree, under (vaddr RAID_STRIPE length).

    Attributes:
        vaddr: Virtual address that the range begins at.
        length: Bytes of virtual address space.
        strides: One per device written to.
    """

    vaddr: key_objectid
    length: key_offset
    length_str = as_size()
    strides: list[RaidStride] = array(RaidStride)
