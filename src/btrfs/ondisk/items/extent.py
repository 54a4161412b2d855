"""The extent tree: what of the virtual address space is in use, and who refers to it.

An extent item tells how often an extent is referred to. As many of the references as fit are
stored after it ("inline"), the rest as items of their own that follow it in the tree.
"""

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.fields import Bytes, key_objectid, key_offset, u8, u32, u64
from btrfs.ondisk.items.base import ItemData, SearchHeader, SubItem
from btrfs.ondisk.key import DiskKey, key_objectid_str
from btrfs.ondisk.printing import as_flags

__all__ = [
    "ExtentDataRef",
    "ExtentItem",
    "ExtentOwnerRef",
    "InlineExtentDataRef",
    "InlineExtentOwnerRef",
    "InlineSharedBlockRef",
    "InlineSharedDataRef",
    "InlineTreeBlockRef",
    "MetaDataItem",
    "SharedBlockRef",
    "SharedDataRef",
    "TreeBlockInfo",
    "TreeBlockRef",
]


class ExtentDataRef(
    ItemData,
    type=constants.EXTENT_DATA_REF_KEY,
    tree=constants.EXTENT_TREE_OBJECTID,
    line="extent data backref root {root} objectid {objectid} offset {offset} count {count}",
):
    """A reference of a file to a data extent (struct btrfs_extent_data_ref).

    Under (vaddr EXTENT_DATA_REF hash of the other three).

    Attributes:
        root: Tree that the file is in.
        objectid: Inode number of the file.
        offset: Where the extent would begin in the file, if all of it were used there; in bytes.
        count: How many file extent items refer to it so.
    """

    root: u64
    objectid: u64
    offset: u64
    count: u32


class SharedDataRef(
    ItemData,
    type=constants.SHARED_DATA_REF_KEY,
    tree=constants.EXTENT_TREE_OBJECTID,
    line="shared data backref parent {parent} count {count}",
):
    """References of a leaf, shared between trees, to a data extent (struct btrfs_shared_data_ref).

    Under (vaddr SHARED_DATA_REF parent).

    Attributes:
        parent: Virtual address of the leaf.
        count: How many file extent items in it refer to the extent.
    """

    parent: key_offset
    count: u32


class TreeBlockRef(
    ItemData, type=constants.TREE_BLOCK_REF_KEY, tree=constants.EXTENT_TREE_OBJECTID
):
    """A reference of a tree to one of its blocks, under (vaddr TREE_BLOCK_REF root).

    Attributes:
        root: The tree.
    """

    root: key_offset

    def __str__(self) -> str:
        return f"tree block backref root {_tree_str(self.root)}"


class SharedBlockRef(
    ItemData,
    type=constants.SHARED_BLOCK_REF_KEY,
    tree=constants.EXTENT_TREE_OBJECTID,
    line="shared block backref parent {parent}",
):
    """A reference of a block, shared between trees, to one below it, under (.. parent).

    Attributes:
        parent: Virtual address of the block above.
    """

    parent: key_offset


class ExtentOwnerRef(ItemData, type=constants.EXTENT_OWNER_REF_KEY):
    """Which subvolume a data extent was first written in, for simple quotas.

    Only ever stored inline (struct btrfs_extent_owner_ref).

    Attributes:
        root: The subvolume.
    """

    root: key_offset

    def __str__(self) -> str:
        return f"extent owner root {_tree_str(self.root)}"


class InlineExtentDataRef(ExtentDataRef):
    """The same as ExtentDataRef, stored inside the extent item."""

    def __init__(self, data: Bytes, pos: int = 0) -> None:
        self._decode(data, pos)

    def __str__(self) -> str:
        return f"inline {super().__str__()}"


class InlineSharedDataRef(SharedDataRef):
    """The same as SharedDataRef, stored inside the extent item."""

    parent: u64
    count: u32

    def __init__(self, data: Bytes, pos: int = 0) -> None:
        self._decode(data, pos)

    def __str__(self) -> str:
        return f"inline {super().__str__()}"


class InlineTreeBlockRef(TreeBlockRef):
    """The same as TreeBlockRef, stored inside the extent item."""

    root: u64

    def __init__(self, root: int) -> None:
        self.root = root

    def __str__(self) -> str:
        return f"inline {super().__str__()}"


class InlineSharedBlockRef(SharedBlockRef):
    """The same as SharedBlockRef, stored inside the extent item."""

    parent: u64

    def __init__(self, parent: int) -> None:
        self.parent = parent

    def __str__(self) -> str:
        return f"inline {super().__str__()}"


class InlineExtentOwnerRef(ExtentOwnerRef):
    """The same as ExtentOwnerRef; there is no other kind."""

    root: u64

    def __init__(self, root: int) -> None:
        self.root = root

    def __str__(self) -> str:
        return f"inline {super().__str__()}"


class TreeBlockInfo(SubItem, line="tree block key {key} level {level}", print_last=("key",)):
    """The first key and the level of a tree block (struct btrfs_tree_block_info).

    Attributes:
        key: The first key in the block.
        level: 0 for a leaf.
    """

    key: DiskKey
    level: u8


class ExtentItem(
    ItemData,
    type=constants.EXTENT_ITEM_KEY,
    tree=constants.EXTENT_TREE_OBJECTID,
    line=("extent vaddr {vaddr} length {length} refs {refs} gen {generation} flags {flags_str}"),
):
    """A range of the virtual address space that is in use (struct btrfs_extent_item).

    In the extent tree, under (vaddr EXTENT_ITEM length). With the feature SKINNY_METADATA, tree
    blocks are :class:`MetaDataItem` instead.

    Args:
        header: Key and generation of the item.
        data: Its body.
        load_data_refs: Decode the inline references of a data extent.
        load_metadata_refs: Decode the inline references of a tree block.

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes.
        refs: How many references there are to it, in all.
        generation: Generation that it was made in.
        flags: EXTENT_FLAG_DATA or EXTENT_FLAG_TREE_BLOCK, the latter perhaps with
            BLOCK_FLAG_FULL_BACKREF.
        extent_data_refs: References of files; only if loaded, like all that follow.
        shared_data_refs: References of shared leaves.
        owner_refs: Where it was first written, with simple quotas: a list of at most one.
        tree_block_info: First key and level of a tree block.
        tree_block_refs: Trees that a tree block is in.
        shared_block_refs: Shared blocks that refer to a tree block.
    """

    vaddr: key_objectid
    length: key_offset
    refs: u64
    generation: u64
    flags: u64
    flags_str = as_flags(constants.EXTENT_FLAG_NAMES)
    tree_block_info: TreeBlockInfo | None
    owner_refs: list[ExtentOwnerRef]
    extent_data_refs: list[ExtentDataRef]
    shared_data_refs: list[SharedDataRef]
    tree_block_refs: list[TreeBlockRef]
    shared_block_refs: list[SharedBlockRef]

    def __init__(
        self,
        header: SearchHeader,
        data: Bytes,
        load_data_refs: bool = True,
        load_metadata_refs: bool = True,
    ) -> None:
        self._load(header, data)
        if load_data_refs and self.flags & constants.EXTENT_FLAG_DATA:
            self.extent_data_refs = []
            self.shared_data_refs = []
            _load_inline_refs(self, data, self.struct_size)
        if load_metadata_refs and self.flags & constants.EXTENT_FLAG_TREE_BLOCK:
            self.tree_block_info = TreeBlockInfo(data, self.struct_size)
            self.tree_block_refs = []
            self.shared_block_refs = []
            _load_inline_refs(self, data, self.struct_size + TreeBlockInfo.struct_size)


class MetaDataItem(
    ItemData,
    type=constants.METADATA_ITEM_KEY,
    tree=constants.EXTENT_TREE_OBJECTID,
    line=(
        "metadata vaddr {vaddr} refs {refs} gen {generation} flags {flags_str} "
        "skinny level {skinny_level}"
    ),
):
    """A tree block, with the feature SKINNY_METADATA (struct btrfs_extent_item).

    In the extent tree, under (vaddr METADATA_ITEM level). Its length is the nodesize.

    Args:
        header: Key and generation of the item.
        data: Its body.
        load_refs: Decode the inline references.

    Attributes:
        vaddr: Virtual address that it begins at.
        skinny_level: 0 for a leaf.
        refs: How many references there are to it, in all.
        generation: Generation that it was made in.
        flags: EXTENT_FLAG_TREE_BLOCK, perhaps with BLOCK_FLAG_FULL_BACKREF.
        tree_block_refs: Trees that it is in; only if loaded, like what follows.
        shared_block_refs: Shared blocks that refer to it.
    """

    vaddr: key_objectid
    skinny_level: key_offset
    refs: u64
    generation: u64
    flags: u64
    flags_str = as_flags(constants.EXTENT_FLAG_NAMES)
    tree_block_refs: list[TreeBlockRef]
    shared_block_refs: list[SharedBlockRef]

    def __init__(self, header: SearchHeader, data: Bytes, load_refs: bool = True) -> None:
        self._load(header, data)
        if load_refs:
            self.tree_block_refs = []
            self.shared_block_refs = []
            _load_inline_refs(self, data, self.struct_size)


# Inline references: a type byte, then the struct of that type, in the order of the types. Where one
# ends, and the next begins, only the type says.

_INLINE_REFS: dict[int, tuple[str, type[ItemData]]] = {
    constants.TREE_BLOCK_REF_KEY: ("tree_block_refs", InlineTreeBlockRef),
    constants.EXTENT_DATA_REF_KEY: ("extent_data_refs", InlineExtentDataRef),
    constants.SHARED_BLOCK_REF_KEY: ("shared_block_refs", InlineSharedBlockRef),
    constants.SHARED_DATA_REF_KEY: ("shared_data_refs", InlineSharedDataRef),
    constants.EXTENT_OWNER_REF_KEY: ("owner_refs", InlineExtentOwnerRef),
}
"""The list that an inline reference is put into, and its class, by the type."""


def _load_inline_refs(item: ExtentItem | MetaDataItem, data: Bytes, pos: int) -> None:
    """Append the inline references, which begin at pos, to the lists of the item."""
    while pos < len(data):
        ref_type = data[pos]
        if ref_type not in _INLINE_REFS:
            raise CorruptError(
                f"item {item.key}", expected="an inline reference", found=f"type {ref_type}"
            )
        name, cls = _INLINE_REFS[ref_type]
        ref = cls.__new__(cls)
        try:
            pos = ref._decode(data, pos + 1)
        except CorruptError:
            raise CorruptError(
                f"item {item.key}", expected="a whole inline reference", found="a part of one"
            ) from None
        try:
            getattr(item, name).append(ref)
        except AttributeError:
            _start_list(item, name, ref)


def _start_list(item: ExtentItem | MetaDataItem, name: str, ref: ItemData) -> None:
    """Make a list of the item that it has not: the owner of simple quotas, or one out of place."""
    # Simple quotas need to know the owner of data only.
    if name != "owner_refs" or isinstance(item, MetaDataItem):
        raise CorruptError(
            f"item {item.key}", expected="references fit for its flags", found=f"{ref}"
        )
    setattr(item, name, [ref])


def _tree_str(tree: int) -> str:
    return key_objectid_str(tree, constants.ROOT_ITEM_KEY)
