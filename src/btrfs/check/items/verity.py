"""Verity: the descriptor and the hash tree of files that cannot be changed any more."""

from __future__ import annotations

import numpy as np

from btrfs.check.items.base import Items, is_wrong_inum

__all__ = ["check_descriptors", "check_merkle"]

# struct btrfs_verity_descriptor_item: size, two u64 that are not used, and encryption.
_ITEM_SIZE = 25
_ENCRYPTION_AT = 24
_MAX_SIZE = (1 << 31) - 1


def check_descriptors(items: Items) -> None:
    """Check the VERITY_DESC_ITEM of files: a header at offset 0, pieces of text at others."""
    _check_pieces(items)
    headers = items.select(items.offset == 0).sized(_ITEM_SIZE)
    size = headers.batch.gather("<u8", 0)
    headers.wrong(size > _MAX_SIZE, "its descriptor is too long", found=size)
    headers.equal(headers.batch.gather("u1", _ENCRYPTION_AT), 0, "encryption")


def check_merkle(items: Items) -> None:
    """Check the VERITY_MERKLE_ITEM of files."""
    _check_pieces(items)


def _check_pieces(items: Items) -> None:
    items.wrong(is_wrong_inum(items.objectid), "its key is not that of an inode")
    items.wrong(items.batch.size == np.uint32(0), "it is empty")
