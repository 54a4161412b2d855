"""Reading a whole filesystem in all the ways that there are, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import btrfs
from btrfs.ctree import RootItem
from btrfs.filesystem import FileSystem
from btrfs.ondisk.constants import CHUNK_TREE_OBJECTID, ROOT_TREE_OBJECTID
from btrfs.source.disk.node import Node, Pointer
from tests import support

Items = list[tuple[tuple[int, ...], bytes]]
"""Key, generation of the leaf and size of each item, and its body."""


def all_items(fs: FileSystem) -> dict[int, Items]:
    """Return all items of all trees, as searches return them."""
    return {tree: searched(fs, tree) for tree in trees(fs)}


def all_batches(fs: FileSystem) -> dict[int, Items]:
    """Return all items of all trees, as bulk reading returns them."""
    return {tree: read_in_bulk(fs, tree) for tree in trees(fs)}


def trees(fs: FileSystem) -> list[int]:
    """Return the numbers of the trees that can be searched."""
    roots = (item for item in fs.search(ROOT_TREE_OBJECTID) if isinstance(item, RootItem))
    named = {root.objectid for root in roots if root.refs}
    return sorted({ROOT_TREE_OBJECTID, CHUNK_TREE_OBJECTID, *named})


def searched(fs: FileSystem, tree: int) -> Items:
    """Return the items of one tree from a search."""
    found = fs.source.search(tree, btrfs.ctree.Key(0, 0, 0), btrfs.ctree.Key(-1, -1, -1))
    return [(tuple(header), bytes(data)) for header, data in found]


def read_in_bulk(fs: FileSystem, tree: int) -> Items:
    """Return the items of one tree from batches."""
    items: Items = []
    for batch in fs.batches(tree):
        rows = zip(
            batch.transid.tolist(),
            batch.objectid.tolist(),
            batch.offset.tolist(),
            batch.type.tolist(),
            batch.size.tolist(),
            batch.body.tolist(),
            strict=True,
        )
        for *header, body in rows:
            items.append((tuple(header), batch.buffer[body : body + header[-1]].tobytes()))
    return items


def answers(fs: FileSystem) -> dict[str, object]:
    """Return what a filesystem says about itself, but for the paths of its devices."""
    devids = [device.devid for device in fs.devices()]
    info = fs.fs_info()
    return {
        "fsid": fs.fsid,
        "nodesize": fs.nodesize,
        "sectorsize": fs.sectorsize,
        "label": fs.label,
        "fs_info": (str(info), info.csum_type, info.csum_size, info.flags, info.generation),
        "metadata_uuid": info.metadata_uuid,
        "dev_info": [(str(fs.dev_info(devid)).partition(" path ")[0]) for devid in devids],
        "dev_stats": [str(fs.dev_stats(devid)) for devid in devids],
        "space_info": [str(space) for space in fs.space_info()],
        "features": fs.features().incompat_flags_str,
        "features_ro": fs.features().compat_ro_flags_str,
        "mixed_groups": fs.mixed_groups(),
        "devices": [str(device) for device in fs.devices()],
        "dev_extents": [str(extent) for extent in fs.dev_extents()],
        "chunks": [str(chunk) for chunk in fs.chunks()],
        "block_groups": [str(block_group) for block_group in fs.block_groups()],
        "top_level": str(fs.top_level()),
        "subvolumes": [str(root) for root in fs.subvolumes()],
        "orphans": fs.orphan_subvol_ids(),
        "extents": [
            "\n".join(btrfs.utils.pretty_lines(extent))
            for extent in fs.extents(load_data_refs=True, load_metadata_refs=True)
        ],
    }


def free_space(fs: FileSystem) -> list[tuple[int, int]]:
    """Return the free ranges inside block groups."""
    return [(extent.vaddr, extent.length) for extent in fs.free_space_extents()]


def leaves(fs: FileSystem, tree: int) -> list[Pointer]:
    """Return where the leaves of a tree of an unmounted filesystem are."""
    source = fs.block_source()

    def below(pointer: Pointer) -> Iterator[Pointer]:
        node = source.trees.read(pointer) if pointer.level else None
        if isinstance(node, Node):
            for child in node.children:
                yield from below(child)
        else:
            yield pointer

    return list(below(source.root(tree)))


def damaged(image: Path, folder: Path, tree: int, leaf: int = 0) -> Path:
    """Return a copy of an image of which all copies of a leaf are destroyed."""
    copy = folder / "damaged.img"
    support.run("cp", "--sparse=always", image, copy)
    with FileSystem(image) as fs, copy.open("r+b") as file:
        vaddr = leaves(fs, tree)[leaf].vaddr
        for place in fs.block_source().trees.store.read_copies(vaddr, fs.nodesize):
            file.seek(place.paddr)
            file.write(bytes(fs.nodesize))
    return copy
