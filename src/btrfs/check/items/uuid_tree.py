"""UUIDs: which subvolumes have one, or were received from one that has it."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items

__all__ = ["check_uuids"]

_ENTRY_SIZE = 8


def check_uuids(items: Items) -> None:
    """Check the UUID_KEY_SUBVOL or UUID_KEY_RECEIVED_SUBVOL: lists of numbers of subvolumes."""
    size = items.batch.size
    items.wrong(
        (size == 0) | (size % np.uint32(_ENTRY_SIZE) != 0),
        "not whole numbers of subvolumes",
        expected=f"a multiple of {_ENTRY_SIZE}",
        found=size,
    )
    items.wrong((items.objectid | items.offset) == 0, "its key is not that of a UUID")
