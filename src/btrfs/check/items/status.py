"""States that outlive a mount: a balance, the replacement of a device, counters of errors."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items
from btrfs.ondisk import constants
from btrfs.ondisk.items.balance import BalanceItem
from btrfs.ondisk.items.device import DevReplaceItem

__all__ = ["check_persistent", "check_replace", "check_temporary"]

_COUNTER_SIZE = 8
_LAST_STATE = max(constants.DEV_REPLACE_STATE_NAMES)
_FLAGS = sum(constants.BALANCE_FLAG_NAMES)


def check_temporary(items: Items) -> None:
    """Check the TEMPORARY_ITEM of the root tree: a balance that is not finished."""
    is_balance = items.objectid == np.uint64(constants.BALANCE_OBJECTID)
    items.wrong(~is_balance | (items.offset != 0), "its key is not that of a balance")
    items = items.select(is_balance).sized(BalanceItem.struct_size)
    items.known_bits(items.field(BalanceItem, "flags"), _FLAGS, "flags")


def check_persistent(items: Items) -> None:
    """Check the PERSISTENT_ITEM of the device tree: counters of errors of a device."""
    items.wrong(
        items.objectid != constants.DEV_STATS_OBJECTID, "its key is not that of counters of errors"
    )
    size = items.batch.size
    items.wrong(
        (size == 0) | (size % np.uint32(_COUNTER_SIZE) != 0),
        "not whole counters",
        expected=f"a multiple of {_COUNTER_SIZE}",
        found=size,
    )


def check_replace(items: Items) -> None:
    """Check the DEV_REPLACE of the device tree: how far the replacement of a device is."""
    items.wrong((items.objectid | items.offset) != 0, "its key is not (0 DEV_REPLACE 0)")
    items = items.sized(DevReplaceItem.struct_size)
    state = items.field(DevReplaceItem, "replace_state")
    items.wrong(
        state > _LAST_STATE,
        "its state is not known",
        expected=f"0 to {_LAST_STATE}",
        found=state,
    )
    mode = items.field(DevReplaceItem, "cont_reading_from_srcdev_mode")
    items.wrong(mode > 1, "its mode is not known", expected="0 or 1", found=mode)
