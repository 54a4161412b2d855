"""Inodes: what is known of a file besides its content, and the names that lead to it."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from btrfs.ondisk import constants
from btrfs.ondisk.fields import (
    Stored,
    blob,
    elements,
    hidden,
    key_objectid,
    key_offset,
    rest,
    s64,
    u16,
    u32,
    u64,
)
from btrfs.ondisk.items.base import ItemData, ItemList, SubItem
from btrfs.ondisk.printing import as_byte_count, as_flags, as_mode, printed
from btrfs.ondisk.struct import Struct
from btrfs.ondisk.text import embedded_text_for_str, flags_str, inode_mode_str

__all__ = [
    "InodeExtref",
    "InodeExtrefList",
    "InodeItem",
    "InodeRef",
    "InodeRefList",
    "OrphanItem",
    "TimeSpec",
    "VerityDescItem",
    "VerityMerkleItem",
]


class TimeSpec(Struct, one_line=True):
    """A point in time (struct btrfs_timespec).

    >>> time = TimeSpec.from_values(1546280270, 4044945)
    >>> time.sec, time.nsec
    (1546280270, 4044945)
    >>> time.iso8601
    '2018-12-31T18:17:50.404495'

    Attributes:
        sec: Seconds since 1970, negative before.
        nsec: Nanoseconds.
    """

    sec: s64
    nsec: u32

    @staticmethod
    def from_values(sec: int, nsec: int) -> "TimeSpec":
        """Make one from numbers instead of bytes."""
        time = TimeSpec.__new__(TimeSpec)
        time.sec = sec
        time.nsec = nsec
        return time

    @property
    def iso8601(self) -> str:
        """The time in UTC as ISO 8601 has it; the number of seconds if that is no date.

        After the point stand the digits of nsec, which python-btrfs does not fill up
        to nine, and scripts compare. The exact time is ``timestamp``.
        """
        try:
            time = _EPOCH + timedelta(seconds=float(f"{self.sec}.{self.nsec}"))
            return time.replace(tzinfo=None).isoformat()
        except OverflowError:
            return str(self.sec)

    @property
    def timestamp(self) -> float:
        """Seconds since 1970 with their fraction, as os.stat() has it."""
        return self.sec + self.nsec / 10**9

    def __str__(self) -> str:
        return f"{self.sec}.{self.nsec} ({self.iso8601})"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class InodeItem(ItemData, type=constants.INODE_ITEM_KEY):
    """A file, directory or other inode (struct btrfs_inode_item).

    In a subvolume tree, under (inode number INODE_ITEM 0).

    Attributes:
        objectid: Inode number.
        generation: Generation that it was made in.
        transid: Generation that it was last changed in.
        size: Bytes of the file.
        nbytes: Bytes allocated to it.
        block_group: Virtual address of the block group, for the files of the free space cache v1.
        nlink: How many names it has.
        uid: User.
        gid: Group.
        mode: Type and permissions, as in stat(2).
        rdev: Major and minor number of a device file.
        flags: INODE_NODATASUM and the like.
        sequence: Changes, counted for NFS.
        atime: Last read.
        ctime: Last change of the inode.
        mtime: Last change of the content.
        otime: When it was made.
    """

    objectid: key_objectid
    generation: u64
    transid: u64
    size: u64
    nbytes: u64
    block_group: u64
    nlink: u32
    uid: u32
    gid: u32
    mode: u32
    mode_str = as_mode()
    rdev: u64
    flags: u64
    flags_str = as_flags(constants.INODE_FLAG_NAMES)
    sequence: u64
    reserved: Annotated[bytes, Stored("32s", "V32")] = hidden()
    atime: TimeSpec
    ctime: TimeSpec
    mtime: TimeSpec
    otime: TimeSpec

    def __str__(self) -> str:
        # The inode inside a root item has no key, and so no number.
        number = f" objectid {self.objectid}" if hasattr(self, "header") else ""
        return (
            f"inode{number} generation {self.generation} transid {self.transid} size {self.size} "
            f"nbytes {self.nbytes} block_group {self.block_group} mode {inode_mode_str(self.mode)} "
            f"nlink {self.nlink} uid {self.uid} gid {self.gid} rdev {self.rdev} "
            f"flags {self.flags:#x}({flags_str(self.flags, constants.INODE_FLAG_NAMES)})"
        )


class InodeRef(SubItem, line="inode ref index {index} name {name_str}"):
    """A name of an inode (struct btrfs_inode_ref).

    Attributes:
        index: Index of the name in the directory, the offset of its DIR_INDEX key.
        name_len: Bytes in the name.
        name: The name.
    """

    index: u64
    name_len: u16
    name: bytes = blob("name_len")
    name_str = printed(embedded_text_for_str)


class InodeRefList(
    ItemList[InodeRef],
    type=constants.INODE_REF_KEY,
    line="inode ref list objectid {objectid} parent_objectid {parent_objectid}",
):
    """The names that an inode has in one directory: a list of :class:`InodeRef`.

    In a subvolume tree, under (inode number INODE_REF inode number of the directory).

    Attributes:
        objectid: Inode number.
        parent_objectid: Inode number of the directory.
    """

    objectid: key_objectid
    parent_objectid: key_offset
    elements: list[InodeRef] = elements(InodeRef)


class InodeExtref(
    SubItem,
    line="inode extref parent_objectid {parent_objectid} index {index} name {name_str}",
):
    """A name of an inode, where a list of InodeRef would be too long (struct btrfs_inode_extref).

    Attributes:
        parent_objectid: Inode number of the directory.
        index: Index of the name in the directory, the offset of its DIR_INDEX key.
        name_len: Bytes in the name.
        name: The name.
    """

    parent_objectid: u64
    index: u64
    name_len: u16
    name: bytes = blob("name_len")
    name_str = printed(embedded_text_for_str)


class InodeExtrefList(
    ItemList[InodeExtref],
    type=constants.INODE_EXTREF_KEY,
    line="inode extref list objectid {objectid} hash {extref_hash}",
):
    """Names of an inode whose hash is the same: a list of :class:`InodeExtref`.

    In a subvolume tree, under (inode number INODE_EXTREF hash).

    Attributes:
        objectid: Inode number.
        extref_hash: Hash of the inode number of the directory and the name.
    """

    objectid: key_objectid
    extref_hash: key_offset
    elements: list[InodeExtref] = elements(InodeExtref)


class OrphanItem(ItemData, type=constants.ORPHAN_ITEM_KEY, line="orphan objectid {objectid}"):
    """Something that is deleted, but not yet cleaned up.

    A subvolume if it is in the root tree, an inode if in a subvolume tree; under
    (ORPHAN ORPHAN_ITEM object id).

    Attributes:
        objectid: Object id of the subvolume or inode.
    """

    objectid: key_offset


class VerityDescItem(ItemData, type=constants.VERITY_DESC_ITEM_KEY):
    """A piece of the fs-verity descriptor of a file.

    In a subvolume tree, under (inode number VERITY_DESC_ITEM offset). At offset 0 lies not the
    descriptor itself but a struct btrfs_verity_descriptor_item, which holds its length.

    Attributes:
        objectid: Inode number.
        offset: Where the piece belongs, in bytes; the descriptor begins at 1.
        data: The piece.
    """

    objectid: key_objectid
    offset: key_offset
    data: bytes = rest()
    data_str = as_byte_count()


class VerityMerkleItem(ItemData, type=constants.VERITY_MERKLE_ITEM_KEY):
    """A piece of the fs-verity Merkle tree of a file.

    In a subvolume tree, under (inode number VERITY_MERKLE_ITEM offset).

    Attributes:
        objectid: Inode number.
        offset: Where the piece belongs, in bytes.
        data: The piece.
    """

    objectid: key_objectid
    offset: key_offset
    data: bytes = rest()
    data_str = as_byte_count()
