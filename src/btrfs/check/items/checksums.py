"""Checksums of data."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items
from btrfs.ondisk import constants

__all__ = ["check_checksums"]


def check_checksums(items: Items) -> None:
    """Check the EXTENT_CSUM of the checksum tree and of log trees."""
    items.wrong(
        items.objectid != np.uint64(constants.EXTENT_CSUM_OBJECTID),
        "its key is not that of checksums",
    )
    items.aligned(items.offset, "address")
    size = items.batch.size
    csum_size = items.fs.csum_size
    right = (size > 0) & (size % np.uint32(csum_size) == 0)
    items.wrong(~right, "not whole checksums", expected=f"a multiple of {csum_size}", found=size)
    end = items.offset + size // np.uint32(csum_size) * np.uint64(items.fs.sectorsize)
    items.wrong(end < items.offset, "it is for more than all addresses")
