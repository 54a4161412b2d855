"""The types of keys in a mounted filesystem; runs under python-btrfs (tests.support.oracle)."""

from __future__ import annotations

import btrfs


def of_filesystem(path: str) -> list[int]:
    """Return the types of all keys in all trees, ascending."""
    with btrfs.FileSystem(path) as fs:
        roots = [
            header.objectid
            for header, _ in btrfs.ioctl.search_v2(fs.fd, btrfs.ctree.ROOT_TREE_OBJECTID)
            if header.type == btrfs.ctree.ROOT_ITEM_KEY
        ]
        trees = [btrfs.ctree.ROOT_TREE_OBJECTID, btrfs.ctree.CHUNK_TREE_OBJECTID, *roots]
        return sorted(
            {header.type for tree in trees for header, _ in btrfs.ioctl.search_v2(fs.fd, tree)}
        )
