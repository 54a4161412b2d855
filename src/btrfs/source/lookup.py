"""Look-ups that work on any source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar, cast

from btrfs.errors import CorruptError, ItemNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.fields import Bytes
from btrfs.ondisk.items.base import ItemData, SearchHeader, classify
from btrfs.ondisk.items.chunk import BlockGroupItem, Chunk
from btrfs.ondisk.key import Key
from btrfs.ondisk.profiles import check_chunk
from btrfs.source.base import Source

if TYPE_CHECKING:
    from btrfs.ondisk.columns import Columns, ItemBatch

__all__ = [
    "block_group",
    "block_group_tree",
    "block_groups",
    "chunks",
    "decode_columns",
    "decode_items",
    "items",
    "tree_of",
]


def items(
    source: Source, tree: int, min_key: Key, max_key: Key, nr_items: int | None = None
) -> Iterator[ItemData]:
    """Yield the items of a tree between two keys as objects."""
    return decode_items(
        source, tree, source.search(tree, min_key, max_key, nr_items=nr_items), classify
    )


_Item = TypeVar("_Item")


def decode_items(
    source: Source,
    tree: int,
    found: Iterable[tuple[SearchHeader, Bytes]],
    make: Callable[[SearchHeader, Bytes], _Item],
) -> Iterator[_Item]:
    """Yield objects for the items that a search found.

    An item that is damaged is left out, or raises its error, as the source decides.

    Args:
        source: Where they were found.
        tree: Number of the tree.
        found: Header and body of each.
        make: Makes the object; may raise CorruptError.
    """
    for header, data in found:
        try:
            item = make(header, data)
        except CorruptError as error:
            key = Key(header.objectid, header.type, header.offset).key
            source.skip_or_raise(tree, key, key, error)
        else:
            yield item


def decode_columns(
    source: Source, tree: int, batch: ItemBatch, cls: type[ItemData]
) -> Iterator[Columns]:
    """Yield the columns of a batch: at once, or around items that are damaged and left out.

    Args:
        source: Where the items were found; it decides whether a damaged one raises its error.
        tree: Number of the tree.
        batch: The items.
        cls: Their class.
    """
    try:
        yield batch.columns(cls)
    except CorruptError as error:
        if len(batch) == 1:
            key = batch.key(0).key
            source.skip_or_raise(tree, key, key, error)
            return
        middle = len(batch) // 2
        yield from decode_columns(source, tree, batch.select(slice(0, middle)), cls)
        yield from decode_columns(source, tree, batch.select(slice(middle, None)), cls)


def tree_of(source: Source, cls: type[ItemData]) -> int:
    """Return the number of the tree that has all items of a class.

    Raises:
        ValueError: The class is of no type of key, or its items are in several trees.
    """
    if cls is BlockGroupItem:
        return block_group_tree(source)
    if not hasattr(cls, "key_type"):
        raise ValueError(f"{cls.__name__} stands for no type of key, so it has no columns")
    if cls.home_tree is None:
        raise ValueError(f"{cls.__name__} items are in several trees: say which one")
    return cls.home_tree


def chunks(
    source: Source, min_vaddr: int, max_vaddr: int, nr_items: int | None = None
) -> Iterator[Chunk]:
    """Yield the chunks that begin between two virtual addresses, checked."""
    objectid, key_type = constants.FIRST_CHUNK_TREE_OBJECTID, constants.CHUNK_ITEM_KEY
    min_key = Key(objectid, key_type, min_vaddr)
    max_key = Key(objectid, key_type, max_vaddr)
    tree = constants.CHUNK_TREE_OBJECTID
    found = source.search(tree, min_key, max_key, nr_items=nr_items)
    return decode_items(source, tree, found, _checked_chunk)


def _checked_chunk(header: SearchHeader, data: Bytes) -> Chunk:
    chunk = Chunk(header, data)
    check_chunk(chunk)
    return chunk


def block_group(
    source: Source, vaddr: int, length: int | None = None, tree: int | None = None
) -> BlockGroupItem:
    """Return the block group that begins at a virtual address.

    Raises:
        ItemNotFoundError: There is none.
    """
    key_type = constants.BLOCK_GROUP_ITEM_KEY
    min_key = Key(vaddr, key_type, 0 if length is None else length)
    max_key = Key(vaddr, key_type, ULLONG_MAX if length is None else length)
    if tree is None:
        tree = block_group_tree(source)
    for item in items(source, tree, min_key, max_key, nr_items=1):
        return cast("BlockGroupItem", item)
    raise ItemNotFoundError(f"No block group at vaddr {vaddr}")


def block_groups(
    source: Source, min_vaddr: int, max_vaddr: int, nr_items: int | None = None
) -> Iterator[BlockGroupItem]:
    """Yield the block groups that begin between two virtual addresses.

    In an extent tree their items lie scattered among those of the extents, so each is looked up by
    its chunk. One that is removed meanwhile is left out.
    """
    tree = block_group_tree(source)
    left = ULLONG_MAX if nr_items is None else nr_items
    for chunk in chunks(source, min_vaddr, max_vaddr):
        if left == 0:
            return
        try:
            found = block_group(source, chunk.vaddr, chunk.length, tree)
        except ItemNotFoundError:
            continue
        left -= 1
        yield found


def block_group_tree(source: Source) -> int:
    """Return the number of the tree that holds the block group items."""
    if source.features().compat_ro_flags & constants.FEATURE_COMPAT_RO_BLOCK_GROUP_TREE:
        return constants.BLOCK_GROUP_TREE_OBJECTID
    return constants.EXTENT_TREE_OBJECTID
