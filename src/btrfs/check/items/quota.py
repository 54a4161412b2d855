"""Quota groups: how much space subvolumes use, and how much they may."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items
from btrfs.ondisk import constants
from btrfs.ondisk.items.quota import QgroupInfo, QgroupLimit, QgroupStatus

__all__ = ["check_infos", "check_limits", "check_relations", "check_status"]

_VERSION = 1
_SHORT_STATUS = QgroupStatus.layout.shortest
_STATUS_FLAGS = sum(constants.QGROUP_STATUS_FLAG_NAMES)
_LEVEL = np.uint64(constants.QGROUP_LEVEL_SHIFT)


def check_status(items: Items) -> None:
    """Check the QGROUP_STATUS: whether quotas are on, and right."""
    items.wrong((items.objectid | items.offset) != 0, "its key is not (0 QGROUP_STATUS 0)")
    items = items.sized(_SHORT_STATUS, QgroupStatus.struct_size)
    items.equal(items.field(QgroupStatus, "version"), _VERSION, "version")
    items.not_future(items.field(QgroupStatus, "generation"), "generation")
    flags = items.field(QgroupStatus, "flags")
    items.known_bits(flags, _STATUS_FLAGS, "flags")
    # Simple quotas came together with the last field.
    is_simple = flags & np.uint64(constants.QGROUP_STATUS_FLAG_SIMPLE_MODE) != 0
    is_short = items.batch.size == _SHORT_STATUS
    items.wrong(is_simple & is_short, "too short for simple quotas")
    simple = items.select(is_simple & ~is_short)
    enable_gen = simple.field(QgroupStatus, "enable_gen")
    # A crash can leave the item of a transaction that enables them for the one that follows.
    newest = items.generation + 1
    simple.wrong(
        enable_gen > np.uint64(newest),
        "its enable_gen has not been yet",
        expected=f"{newest} or less",
        found=enable_gen,
    )


def check_infos(items: Items) -> None:
    """Check the QGROUP_INFO: how much is in use."""
    items.wrong(items.objectid != 0, "the objectid of its key is not 0")
    items = items.sized(QgroupInfo.struct_size)
    items.not_future(items.field(QgroupInfo, "generation"), "generation")


def check_limits(items: Items) -> None:
    """Check the QGROUP_LIMIT: how much may be used."""
    items.wrong(items.objectid != 0, "the objectid of its key is not 0")
    items.sized(QgroupLimit.struct_size)


def check_relations(items: Items) -> None:
    """Check the QGROUP_RELATION: which group is a member of which."""
    items = items.sized(0)
    items.wrong(
        items.objectid >> _LEVEL == items.offset >> _LEVEL,
        "a group is a member of another of the same level",
    )
