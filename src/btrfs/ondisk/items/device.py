"""Devices: what is known about each, and which ranges of it are allocated.

Device items are in the chunk tree; device extents, statistics and the state of a replacement in
the device tree.
"""

from btrfs.ondisk import constants
from btrfs.ondisk.fields import key_objectid, key_offset, u8, u32, u64, uuid16
from btrfs.ondisk.items.base import ItemData
from btrfs.ondisk.printing import as_name, as_size

__all__ = ["DevExtent", "DevItem", "DevReplaceItem", "DevStatsItem"]


class DevItem(
    ItemData,
    type=constants.DEV_ITEM_KEY,
    tree=constants.CHUNK_TREE_OBJECTID,
    line="dev item devid {devid} uuid {uuid} bytes_used {bytes_used} total_bytes {total_bytes}",
):
    """A device of the filesystem (struct btrfs_dev_item).

    In the chunk tree, under (DEV_ITEMS DEV_ITEM devid). Of ``type``, ``generation`` and what
    follows up to ``bandwidth`` the kernel uses nothing.

    Attributes:
        devid: Number of the device.
        total_bytes: Bytes of the device that the filesystem may use.
        bytes_used: Bytes allocated to chunks.
        io_align: Same as sector_size; not used.
        io_width: Same as sector_size; not used.
        sector_size: Smallest unit of input and output in bytes.
        uuid: UUID of the device.
        fsid: UUID of the filesystem.
    """

    devid: u64
    total_bytes: u64
    bytes_used: u64
    io_align: u32
    io_width: u32
    sector_size: u32
    type: u64
    generation: u64
    start_offset: u64
    dev_group: u32
    seek_speed: u8
    bandwidth: u8
    uuid: uuid16
    fsid: uuid16


class DevExtent(
    ItemData,
    type=constants.DEV_EXTENT_KEY,
    tree=constants.DEV_TREE_OBJECTID,
    line="dev extent devid {devid} paddr {paddr} length {length_str} chunk {chunk_offset}",
):
    """A range of a device that backs part of a chunk (struct btrfs_dev_extent).

    In the device tree, under (devid DEV_EXTENT paddr).

    Attributes:
        devid: Number of the device.
        paddr: Address on the device in bytes.
        chunk_tree: Tree that the chunk is in, always 3.
        chunk_objectid: Object id of the chunk, always 256.
        chunk_offset: Virtual address of the chunk.
        length: Bytes on the device.
        chunk_tree_uuid: UUID of the chunk tree; zeros in what newer kernels write.
    """

    devid: key_objectid
    paddr: key_offset
    chunk_tree: u64
    chunk_objectid: u64
    chunk_offset: u64
    length: u64
    length_str = as_size()
    chunk_tree_uuid: uuid16

    @property
    def vaddr(self) -> int:
        """Virtual address of the chunk, the same as chunk_offset."""
        return self.chunk_offset


class DevStatsItem(
    ItemData,
    type=constants.PERSISTENT_ITEM_KEY,
    tree=constants.DEV_TREE_OBJECTID,
    objectid=constants.DEV_STATS_OBJECTID,
    shortest=8,
):
    """Counters of errors of a device (struct btrfs_dev_stats_item).

    In the device tree, under (DEV_STATS PERSISTENT_ITEM devid). Missing where no error has
    ever been counted.

    Attributes:
        devid: Number of the device.
        write_errs: Failed writes.
        read_errs: Failed reads.
        flush_errs: Failed flushes.
        corruption_errs: Blocks whose checksum or content was wrong.
        generation_errs: Tree blocks that were of another generation than they should be.
    """

    devid: key_offset
    write_errs: u64
    read_errs: u64
    flush_errs: u64
    corruption_errs: u64
    generation_errs: u64


class DevReplaceItem(ItemData, type=constants.DEV_REPLACE_KEY, tree=constants.DEV_TREE_OBJECTID):
    """The state of the replacement of a device (struct btrfs_dev_replace_item).

    In the device tree, under (0 DEV_REPLACE 0).

    Attributes:
        src_devid: Device that is replaced.
        cursor_left: Start of the range being copied, an address on the device.
        cursor_right: End of that range.
        cont_reading_from_srcdev_mode: 0 always, 1 only if there is no other copy.
        replace_state: How far it is; prints as a name.
        time_started: Seconds since 1970.
        time_stopped: Seconds since 1970.
        num_write_errors: Failed writes to the new device.
        num_uncorrectable_read_errors: Blocks that could not be read from any copy.
    """

    src_devid: u64
    cursor_left: u64
    cursor_right: u64
    cont_reading_from_srcdev_mode: u64
    replace_state: u64
    replace_state_str = as_name(constants.DEV_REPLACE_STATE_NAMES)
    time_started: u64
    time_stopped: u64
    num_write_errors: u64
    num_uncorrectable_read_errors: u64
