"""Extents as objects, with the references that are items of their own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import SearchHeader, item_reader
from btrfs.ondisk.items.extent import (
    ExtentDataRef,
    ExtentItem,
    MetaDataItem,
    SharedBlockRef,
    SharedDataRef,
    TreeBlockRef,
)
from btrfs.ondisk.key import Key
from btrfs.source.base import Source

__all__ = ["extents"]

# The list of an extent that a reference is added to, and the class of the reference.
_REFERENCES = {
    constants.TREE_BLOCK_REF_KEY: ("tree_block_refs", TreeBlockRef),
    constants.SHARED_BLOCK_REF_KEY: ("shared_block_refs", SharedBlockRef),
    constants.EXTENT_DATA_REF_KEY: ("extent_data_refs", ExtentDataRef),
    constants.SHARED_DATA_REF_KEY: ("shared_data_refs", SharedDataRef),
}


def extents(
    source: Source, min_key: Key, max_key: Key, load_data_refs: bool, load_metadata_refs: bool
) -> Iterator[ExtentItem | MetaDataItem]:
    """Yield the extents between two keys of the extent tree.

    Args:
        source: Where the items are read.
        min_key: The lowest key.
        max_key: The highest key.
        load_data_refs: Decode the references to extents of data.
        load_metadata_refs: Decode the references to tree blocks.
    """
    # There can be millions of extents, so names that are looked up for each of them are local.
    extent_key, metadata_key = constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY
    read_extent = item_reader(ExtentItem)
    if load_data_refs or load_metadata_refs:
        read_extent = partial(
            ExtentItem, load_data_refs=load_data_refs, load_metadata_refs=load_metadata_refs
        )
    read_metadata = MetaDataItem if load_metadata_refs else item_reader(MetaDataItem)
    tree = constants.EXTENT_TREE_OBJECTID
    extent: ExtentItem | MetaDataItem | None = None
    for header, data in source.search(tree, min_key, max_key):
        key_type = header.type
        try:
            if key_type == extent_key:
                found: ExtentItem | MetaDataItem = read_extent(header, data)
            elif key_type == metadata_key:
                found = read_metadata(header, data)
            else:
                if key_type in _REFERENCES:
                    _add_reference(extent, header, data)
                continue
        except CorruptError as error:
            key = Key(header.objectid, key_type, header.offset).key
            source.skip_or_raise(tree, key, key, error)
            continue
        if extent is not None:
            yield extent
        extent = found
    if extent is not None:
        yield extent


def _add_reference(
    extent: ExtentItem | MetaDataItem | None, header: SearchHeader, data: Bytes
) -> None:
    """Decode a reference; append it to its list if that is of this extent, and was asked for."""
    name, cls = _REFERENCES[header.type]
    reference = cls(header, data)
    if extent is not None and extent.vaddr == header.objectid:
        references = getattr(extent, name, None)
        if references is not None:
            references.append(reference)
