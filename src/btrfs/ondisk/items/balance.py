"""The state of a balance that is not finished."""

from typing import Annotated

from btrfs.ondisk import constants
from btrfs.ondisk.fields import Stored, hidden, u32, u64
from btrfs.ondisk.items.base import ItemData, SubItem
from btrfs.ondisk.printing import as_flags

__all__ = ["BalanceItem", "DiskBalanceArgs"]


class DiskBalanceArgs(SubItem):
    """Which block groups of a type to move (struct btrfs_disk_balance_args).

    Attributes:
        profiles: Only block groups with one of these profiles.
        usage_min: Only those filled at least so far, in per cent, and
        usage_max: less than so far.
        devid: Only those that use this device.
        pstart: Only those that overlap addresses on it from here
        pend: to there.
        vstart: Only those that overlap virtual addresses from here
        vend: to there.
        target: Profile to convert to.
        flags: Which of the other attributes count: BALANCE_ARGS_PROFILES and the like.
        limit_min: How many to move at least, and
        limit_max: at most.
        stripes_min: Only those of at least so many stripes, and
        stripes_max: at most so many.
    """

    profiles: u64
    profiles_str = as_flags(constants.BLOCK_GROUP_FLAG_NAMES)
    usage_min: u32
    usage_max: u32
    devid: u64
    pstart: u64
    pend: u64
    vstart: u64
    vend: u64
    target: u64
    target_str = as_flags(constants.BLOCK_GROUP_FLAG_NAMES)
    flags: u64
    flags_str = as_flags(constants.BALANCE_ARGS_FLAG_NAMES)
    limit_min: u32
    limit_max: u32
    stripes_min: u32
    stripes_max: u32
    reserved: Annotated[bytes, Stored("48s", "V48")] = hidden()


class BalanceItem(
    ItemData,
    type=constants.TEMPORARY_ITEM_KEY,
    tree=constants.ROOT_TREE_OBJECTID,
    objectid=constants.BALANCE_OBJECTID,
    line="balance flags {flags_str}",
):
    """A balance that is running, paused or interrupted (struct btrfs_balance_item).

    In the root tree, under (BALANCE TEMPORARY_ITEM 0).

    Attributes:
        flags: Which types of block groups: BALANCE_DATA and the like.
        data: Which of the data block groups,
        meta: which of the metadata block groups, and
        sys: which of the system block groups.
    """

    flags: u64
    flags_str = as_flags(constants.BALANCE_FLAG_NAMES)
    data: DiskBalanceArgs
    meta: DiskBalanceArgs
    sys: DiskBalanceArgs
    reserved: Annotated[bytes, Stored("32s", "V32")] = hidden()
