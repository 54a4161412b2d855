"""Chunks and devices: where virtual addresses are on devices."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items
from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.items.chunk import BlockGroupItem, Chunk, RaidStride, Stripe
from btrfs.ondisk.items.device import DevExtent, DevItem
from btrfs.ondisk.profiles import check_chunk

__all__ = [
    "check_block_groups",
    "check_chunks",
    "check_device_extents",
    "check_devices",
    "check_stripes",
]

_FLAGS = constants.BLOCK_GROUP_TYPE_MASK | constants.BLOCK_GROUP_PROFILE_MASK
_TYPES = tuple(constants.BLOCK_GROUP_TYPE_NAMES)
_MIXED = constants.BLOCK_GROUP_DATA | constants.BLOCK_GROUP_METADATA


def check_chunks(items: Items) -> None:
    """Check the CHUNK_ITEM of the chunk tree."""
    items.equal(items.objectid, constants.FIRST_CHUNK_TREE_OBJECTID, "key's objectid")
    items = items.at_least(Chunk.struct_size)
    count = items.field(Chunk, "num_stripes").astype(np.int64)
    items.wrong(count == 0, "a chunk without stripes")
    size = Chunk.struct_size + count * Stripe.struct_size
    whole = items.batch.size == size
    items.wrong(~whole, "its size is wrong", expected=size, found=items.batch.size)
    items = items.select(whole & (count > 0))
    flags = items.field(Chunk, "type")
    items.known_bits(flags, _FLAGS, "type")
    items.equal(items.field(Chunk, "sector_size"), items.fs.sectorsize, "sector_size")
    items.aligned(items.offset, "address")
    items.aligned(items.field(Chunk, "length"), "length")
    if not items.fs.incompat_flags & constants.FEATURE_INCOMPAT_MIXED_GROUPS:
        items.wrong(flags & _MIXED == _MIXED, "for data and metadata, without that feature")
    _check_layouts(items)


def _check_layouts(items: Items) -> None:
    """Check that stripes and profile fit. There are few chunks, so that each becomes an object."""
    wrong, why = np.zeros(len(items), np.bool_), {}
    for index, (header, body) in enumerate(items.batch.found()):
        try:
            check_chunk(Chunk(SearchHeader(*header), body))
        except CorruptError as error:
            wrong[index] = True
            why[index] = str(error).split(", ", 1)[-1]
    for index in np.flatnonzero(wrong).tolist():
        items.wrong(np.arange(len(items)) == index, why[index])


def check_block_groups(items: Items) -> None:
    """Check the BLOCK_GROUP_ITEM of the extent tree or the block group tree."""
    items.aligned(items.objectid, "address")
    items.aligned(items.offset, "length")
    items.wrong(items.offset == 0, "a block group without bytes")
    items.wrong(items.objectid + items.offset < items.objectid, "it ends behind all addresses")
    items = items.sized(BlockGroupItem.struct_size)
    items.equal(
        items.field(BlockGroupItem, "chunk_objectid"),
        constants.FIRST_CHUNK_TREE_OBJECTID,
        "chunk_objectid",
    )
    used = items.field(BlockGroupItem, "used")
    items.wrong(
        used > items.offset,
        "more bytes are used than it has",
        expected=items.offset,
        found=used,
    )
    flags = items.field(BlockGroupItem, "flags")
    items.known_bits(flags, _FLAGS, "flags")
    profile = flags & np.uint64(constants.BLOCK_GROUP_PROFILE_MASK)
    items.wrong(profile & (profile - np.uint64(1)) != 0, "it has several profiles", found=flags)
    kind = flags & np.uint64(constants.BLOCK_GROUP_TYPE_MASK)
    types = np.array([*_TYPES, _MIXED], np.uint64)
    items.wrong(~np.isin(kind, types), "it has no type, or several that do not fit", found=flags)
    if not items.fs.incompat_flags & constants.FEATURE_INCOMPAT_MIXED_GROUPS:
        items.wrong(kind == _MIXED, "for data and metadata, without that feature")


def check_devices(items: Items) -> None:
    """Check the DEV_ITEM of the chunk tree."""
    items.equal(items.objectid, constants.DEV_ITEMS_OBJECTID, "key's objectid")
    items = items.sized(DevItem.struct_size)
    devid = items.field(DevItem, "devid")
    items.wrong(devid != items.offset, "its devid is wrong", expected=items.offset, found=devid)
    used, total = items.field(DevItem, "bytes_used"), items.field(DevItem, "total_bytes")
    items.wrong(
        used > total,
        "more bytes are used than the device has",
        expected=total,
        found=used,
    )


def check_device_extents(items: Items) -> None:
    """Check the DEV_EXTENT of the device tree."""
    items.wrong(items.objectid == 0, "its key is not that of a device")
    items.aligned(items.offset, "address")
    items = items.sized(DevExtent.struct_size)
    items.equal(items.field(DevExtent, "chunk_tree"), constants.CHUNK_TREE_OBJECTID, "chunk_tree")
    items.equal(
        items.field(DevExtent, "chunk_objectid"),
        constants.FIRST_CHUNK_TREE_OBJECTID,
        "chunk_objectid",
    )
    items.aligned(items.field(DevExtent, "chunk_offset"), "chunk_offset")
    length = items.field(DevExtent, "length")
    items.aligned(length, "length")
    end = items.offset + length
    items.wrong(
        (length == 0) | (end < length) | (end >= np.uint64(constants.MAX_ADDRESS)),
        "it cannot be so long",
        found=length,
    )


def check_stripes(items: Items) -> None:
    """Check the RAID_STRIPE of the raid stripe tree: where a part of a data extent lies."""
    if not items.fs.incompat_flags & constants.FEATURE_INCOMPAT_RAID_STRIPE_TREE:
        items.wrong(np.ones(len(items), np.bool_), "there must be none without that feature")
    items.aligned(items.objectid, "address")
    items.aligned(items.offset, "length")
    items.wrong(items.offset == 0, "a range without bytes")
    size = items.batch.size
    items.wrong(
        (size == 0) | (size % np.uint32(RaidStride.struct_size) != 0),
        "not whole strides",
        expected=f"a multiple of {RaidStride.struct_size}",
        found=size,
    )
    end = items.objectid + items.offset
    items.wrong(end < items.objectid, "it is for more than all addresses")
    overlaps = np.zeros(len(items), np.bool_)
    overlaps[1:] = (end[:-1] > items.objectid[1:]) & (items.leaf[1:] == items.leaf[:-1])
    items.wrong(overlaps, "overlaps the range before it")
