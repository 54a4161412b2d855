"""Directories and extended attributes: names, and what they lead to.

A directory has each name twice: by the hash of the name, to look it up, and by a running index, to
list it. Extended attributes are stored in the same struct, under an inode of any type.
"""

from btrfs.ondisk import constants
from btrfs.ondisk.fields import blob, elements, key_objectid, key_offset, u8, u16, u64
from btrfs.ondisk.items.base import ItemData, ItemList, SubItem
from btrfs.ondisk.key import DiskKey
from btrfs.ondisk.printing import as_name, printed
from btrfs.ondisk.text import embedded_text_for_str

__all__ = [
    "DirIndex",
    "DirItem",
    "DirItemList",
    "DirLogIndexItem",
    "DirLogItem",
    "XAttrItem",
    "XAttrItemList",
]


class DirItem(SubItem, line="dir item location {location} type {type_str} name {name_str}"):
    """An entry of a directory (struct btrfs_dir_item).

    Attributes:
        location: Key of the inode, or of the root item of a subvolume.
        transid: Generation that it was made in.
        data_len: Bytes of data after the name; only extended attributes have data.
        name_len: Bytes in the name.
        type: FT_REG_FILE, FT_DIR ...
        name: The name.
        data: Value of an extended attribute.
    """

    location: DiskKey
    transid: u64
    data_len: u16
    name_len: u16
    type: u8
    type_str = as_name(constants.DIR_ITEM_TYPE_NAMES)
    name: bytes = blob("name_len")
    name_str = printed(embedded_text_for_str)
    data: bytes = blob("data_len")
    data_str = printed(embedded_text_for_str)


class DirItemList(
    ItemList[DirItem],
    type=constants.DIR_ITEM_KEY,
    line="dir item list objectid {objectid} name_hash {name_hash}",
):
    """Entries of a directory whose names have the same hash: a list of :class:`DirItem`.

    In a subvolume tree, under (inode number of the directory DIR_ITEM hash).

    Attributes:
        objectid: Inode number of the directory.
        name_hash: Hash of the names, see :func:`btrfs.ondisk.hashes.name_hash`.
    """

    objectid: key_objectid
    name_hash: key_offset
    elements: list[DirItem] = elements(DirItem)


class XAttrItem(DirItem, line="xattr item name {name_str} data {data_str}"):
    """An extended attribute (struct btrfs_dir_item): its name, and its value as data."""


class XAttrItemList(DirItemList, type=constants.XATTR_ITEM_KEY):
    """Extended attributes whose names have the same hash: a list of :class:`XAttrItem`.

    In a subvolume tree, under (inode number XATTR_ITEM hash).

    Attributes:
        objectid: Inode number.
        name_hash: Hash of the names of the attributes.
    """

    elements: list[XAttrItem] = elements(XAttrItem)  # type: ignore[assignment]


class DirIndex(
    ItemData,
    type=constants.DIR_INDEX_KEY,
    line=(
        "dir index objectid {objectid} index {index} location {location} type {type_str} "
        "name {name_str}"
    ),
):
    """An entry of a directory (struct btrfs_dir_item), in the order that they were made.

    In a subvolume tree, under (inode number of the directory DIR_INDEX index).

    Attributes:
        objectid: Inode number of the directory.
        index: Index of the name in the directory.
        location: Key of the inode, or of the root item of a subvolume.
        transid: Generation that it was made in.
        data_len: Not used, always 0.
        name_len: Bytes in the name.
        type: FT_REG_FILE, FT_DIR ...
        name: The name.
    """

    objectid: key_objectid
    index: key_offset
    location: DiskKey
    transid: u64
    data_len: u16
    name_len: u16
    type: u8
    type_str = as_name(constants.DIR_ITEM_TYPE_NAMES)
    name: bytes = blob("name_len")
    name_str = printed(embedded_text_for_str)


class DirLogItem(ItemData, type=constants.DIR_LOG_ITEM_KEY):
    """A range of name hashes of a directory that a log tree is complete in (btrfs_dir_log_item).

    Attributes:
        objectid: Inode number of the directory.
        start: First hash of the range.
        end: Last hash of the range.
    """

    objectid: key_objectid
    start: key_offset
    end: u64


class DirLogIndexItem(DirLogItem, type=constants.DIR_LOG_INDEX_KEY):
    """The same for a range of indexes of a directory instead of hashes.

    Attributes:
        objectid: Inode number of the directory.
        start: First index of the range.
        end: Last index of the range.
    """
