"""The root tree: where the other trees are, and how subvolumes hang together."""

from btrfs.ondisk import constants
from btrfs.ondisk.fields import blob, key_objectid, key_offset, u8, u16, u32, u64, uuid16
from btrfs.ondisk.items.base import ItemData
from btrfs.ondisk.items.inode import InodeItem, TimeSpec
from btrfs.ondisk.key import DiskKey
from btrfs.ondisk.printing import as_flags, printed
from btrfs.ondisk.text import embedded_text_for_str

__all__ = ["RootBackref", "RootItem", "RootRef"]

# Linux 3.6 added the UUIDs, transids and times.
_SIZE_BEFORE_GENERATION_V2 = 239


class RootItem(
    ItemData,
    type=constants.ROOT_ITEM_KEY,
    tree=constants.ROOT_TREE_OBJECTID,
    line=(
        "root {objectid} uuid {uuid} generation {generation} last_snapshot {last_snapshot} "
        "flags {flags:#x}({flags_str})"
    ),
    shortest=_SIZE_BEFORE_GENERATION_V2,
    print_last=("uuid", "parent_uuid", "received_uuid", "ctime", "otime", "stime", "rtime"),
):
    """The root of a tree (struct btrfs_root_item).

    In the root tree, under (tree ROOT_ITEM offset); for a snapshot the offset is the generation
    that it was made in, else 0. Filesystems of before Linux 3.6 lack generation_v2 and what
    follows: it reads as zero.

    Attributes:
        objectid: Number of the tree.
        inode: Of it, only flags are used.
        generation: Generation of the root block.
        root_dirid: Inode number of the root directory of a subvolume; 0 for other trees.
        bytenr: Virtual address of the root block.
        byte_limit: Not used.
        bytes_used: Bytes of the blocks of the tree.
        last_snapshot: Generation that the last snapshot of it was made in.
        flags: ROOT_SUBVOL_RDONLY, or 0.
        refs: 0 if the subvolume is deleted, else 1.
        drop_progress: Key that the removal of a deleted subvolume has come to.
        drop_level: Level of the block that holds that key.
        level: Level of the root block, 0 if the tree is a single leaf.
        generation_v2: Same as generation, unless an old kernel has written last: then what follows
            is not valid.
        uuid: UUID of the subvolume.
        parent_uuid: UUID of the subvolume that it is a snapshot of.
        received_uuid: UUID of the subvolume that it was received from.
        ctransid: Generation of the last change.
        otransid: Generation that it was made in.
        stransid: Generation of the sending filesystem, of received subvolumes.
        rtransid: Generation that it was received in.
        ctime: Time of ctransid.
        otime: Time of otransid.
        stime: Time of stransid.
        rtime: Time of rtransid.
    """

    objectid: key_objectid
    inode: InodeItem
    generation: u64
    root_dirid: u64
    bytenr: u64
    byte_limit: u64
    bytes_used: u64
    last_snapshot: u64
    flags: u64
    flags_str = as_flags(constants.ROOT_FLAG_NAMES)
    refs: u32
    drop_progress: DiskKey
    drop_level: u8
    level: u8
    generation_v2: u64
    uuid: uuid16
    parent_uuid: uuid16
    received_uuid: uuid16
    ctransid: u64
    otransid: u64
    stransid: u64
    rtransid: u64
    ctime: TimeSpec
    otime: TimeSpec
    stime: TimeSpec
    rtime: TimeSpec


class RootRef(
    ItemData,
    type=constants.ROOT_REF_KEY,
    tree=constants.ROOT_TREE_OBJECTID,
    line=(
        "root ref parent_tree {parent_tree} tree {tree} dirid {dirid} sequence {sequence} "
        "name {name_str}"
    ),
):
    """Where a subvolume is, seen from the one that it is in (struct btrfs_root_ref).

    In the root tree, under (containing tree ROOT_REF tree).

    Attributes:
        parent_tree: Tree that holds the directory.
        tree: Tree of the subvolume.
        dirid: Inode number of the directory.
        sequence: Index of the name in the directory, the offset of its DIR_INDEX key.
        name_len: Bytes in the name.
        name: The name.
    """

    parent_tree: key_objectid
    tree: key_offset
    dirid: u64
    sequence: u64
    name_len: u16
    name: bytes = blob("name_len")
    name_str = printed(embedded_text_for_str)


class RootBackref(
    ItemData,
    type=constants.ROOT_BACKREF_KEY,
    tree=constants.ROOT_TREE_OBJECTID,
    line=(
        "root backref tree {tree} parent_tree {parent_tree} dirid {dirid} sequence {sequence} "
        "name {name_str}"
    ),
):
    """Where a subvolume is, seen from the subvolume (struct btrfs_root_ref).

    In the root tree, under (tree ROOT_BACKREF containing tree).

    Attributes:
        tree: Tree of the subvolume.
        parent_tree: Tree that holds the directory.
        dirid: Inode number of the directory.
        sequence: Index of the name in the directory, the offset of its DIR_INDEX key.
        name_len: Bytes in the name.
        name: The name.
    """

    tree: key_objectid
    parent_tree: key_offset
    dirid: u64
    sequence: u64
    name_len: u16
    name: bytes = blob("name_len")
    name_str = printed(embedded_text_for_str)
