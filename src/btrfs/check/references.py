"""Inline references of extents, counted for many extents at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.items.extent import ExtentItem, TreeBlockInfo

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["counted_references"]

# By the type of a reference: its bytes, and where in them the number of references is that it
# stands for. Some stand for one always, and the owner of simple quotas for none.
_SIZES = np.zeros(256, np.int64)
_COUNT_AT = np.zeros(256, np.int64)
_SIZES[
    [
        constants.TREE_BLOCK_REF_KEY,
        constants.SHARED_BLOCK_REF_KEY,
        constants.EXTENT_OWNER_REF_KEY,
    ]
] = 9
_SIZES[constants.EXTENT_DATA_REF_KEY] = 29
_COUNT_AT[constants.EXTENT_DATA_REF_KEY] = 25
_SIZES[constants.SHARED_DATA_REF_KEY] = 13
_COUNT_AT[constants.SHARED_DATA_REF_KEY] = 9


def counted_references(
    batch: ItemBatch, has_info: NDArray[np.bool_]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Count the references inside extent items.

    Args:
        batch: Extent items, of data or of tree blocks.
        has_info: Which of them have the first key and the level of a tree block in them.

    Returns:
        How many references each has; and for each whether all of its body could be understood.
    """
    total = np.zeros(len(batch), np.uint64)
    at = ExtentItem.struct_size + has_info * np.int64(TreeBlockInfo.struct_size)
    whole = at <= batch.size
    # The first reference of all extents, then the second of those that have two ...
    left = np.flatnonzero(at < batch.size)
    while len(left):
        some, here = batch.select(left), at[left]
        kind = some.gather("u1", here)
        size = _SIZES[kind]
        fits = (size > 0) & (here + size <= some.size)
        whole[left[~fits]] = False
        left, kind, here = left[fits], kind[fits], here[fits]
        total[left] += _counts(batch.select(left), kind, here)
        at[left] += size[fits]
        left = left[at[left] < batch.size[left]]
    return total, whole


def _counts(batch: ItemBatch, kind: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return how many references the one that begins there in each item stands for."""
    count = np.ones(len(batch), np.uint64)
    count[kind == constants.EXTENT_OWNER_REF_KEY] = 0
    where = _COUNT_AT[kind]
    several = where > 0
    count[several] = batch.select(several).gather("<u4", at[several] + where[several])
    return count
