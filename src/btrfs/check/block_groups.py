"""Block groups, as their items say, in arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.items.chunk import BlockGroupItem

if TYPE_CHECKING:
    from btrfs.ondisk.columns import ItemBatch

__all__ = ["BlockGroup", "BlockGroups", "block_groups_of", "joined_block_groups"]


class BlockGroup(NamedTuple):
    """What a block group item says; see BlockGroups."""

    vaddr: int
    length: int
    used: int
    flags: int
    chunk_objectid: int


class BlockGroups(NamedTuple):
    """Block groups in the order of their addresses; an entry per block group in each array.

    Attributes:
        vaddr: Virtual addresses, uint64.
        length: Bytes, uint64.
        used: Bytes that extents use, as they say, uint64.
        flags: Types and profiles, uint64.
        chunk_objectid: What they say of the chunk tree, uint64.
    """

    vaddr: NDArray[np.uint64]
    length: NDArray[np.uint64]
    used: NDArray[np.uint64]
    flags: NDArray[np.uint64]
    chunk_objectid: NDArray[np.uint64]

    def by_address(self) -> dict[int, BlockGroup]:
        """Return each of them as an object, by its address."""
        rows = zip(*(column.tolist() for column in self), strict=True)
        return {row[0]: BlockGroup(*row) for row in rows}


def block_groups_of(batch: ItemBatch) -> BlockGroups:
    """Return the block groups among items; items of another size are left out."""
    chosen = batch.of_type(constants.BLOCK_GROUP_ITEM_KEY)
    columns = chosen.select(chosen.size == BlockGroupItem.struct_size).columns(BlockGroupItem)
    return BlockGroups(*(columns[name] for name in BlockGroups._fields))


def joined_block_groups(groups: list[BlockGroups]) -> BlockGroups:
    """Return the block groups of several tables one after another."""
    none = BlockGroups(*(np.empty(0, np.uint64) for _ in range(5)))
    return BlockGroups(*map(np.concatenate, zip(none, *groups, strict=True)))
