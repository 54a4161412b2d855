"""The kernel's interface to a mounted filesystem, one function per ioctl.

Functions take a file descriptor of anything in the filesystem and raise :class:`OSError` where the
kernel does. Structs are those of include/uapi/linux/btrfs.h.
"""

import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

from btrfs.constants import (
    BLOCK_GROUP_PROFILE_MASK,
    FEATURE_COMPAT_RO_BLOCK_GROUP_TREE as FEATURE_COMPAT_RO_BLOCK_GROUP_TREE,
    FEATURE_COMPAT_RO_FREE_SPACE_TREE as FEATURE_COMPAT_RO_FREE_SPACE_TREE,
    FEATURE_COMPAT_RO_FREE_SPACE_TREE_VALID as FEATURE_COMPAT_RO_FREE_SPACE_TREE_VALID,
    FEATURE_COMPAT_RO_NAMES,
    FEATURE_COMPAT_RO_VERITY as FEATURE_COMPAT_RO_VERITY,
    FEATURE_INCOMPAT_BIG_METADATA as FEATURE_INCOMPAT_BIG_METADATA,
    FEATURE_INCOMPAT_COMPRESS_LZO as FEATURE_INCOMPAT_COMPRESS_LZO,
    FEATURE_INCOMPAT_COMPRESS_ZSTD as FEATURE_INCOMPAT_COMPRESS_ZSTD,
    FEATURE_INCOMPAT_DEFAULT_SUBVOL as FEATURE_INCOMPAT_DEFAULT_SUBVOL,
    FEATURE_INCOMPAT_EXTENDED_IREF as FEATURE_INCOMPAT_EXTENDED_IREF,
    FEATURE_INCOMPAT_EXTENT_TREE_V2 as FEATURE_INCOMPAT_EXTENT_TREE_V2,
    FEATURE_INCOMPAT_METADATA_UUID as FEATURE_INCOMPAT_METADATA_UUID,
    FEATURE_INCOMPAT_MIXED_BACKREF as FEATURE_INCOMPAT_MIXED_BACKREF,
    FEATURE_INCOMPAT_MIXED_GROUPS as FEATURE_INCOMPAT_MIXED_GROUPS,
    FEATURE_INCOMPAT_NAMES,
    FEATURE_INCOMPAT_NO_HOLES as FEATURE_INCOMPAT_NO_HOLES,
    FEATURE_INCOMPAT_RAID1C34 as FEATURE_INCOMPAT_RAID1C34,
    FEATURE_INCOMPAT_RAID56 as FEATURE_INCOMPAT_RAID56,
    FEATURE_INCOMPAT_RAID_STRIPE_TREE as FEATURE_INCOMPAT_RAID_STRIPE_TREE,
    FEATURE_INCOMPAT_REMAP_TREE as FEATURE_INCOMPAT_REMAP_TREE,
    FEATURE_INCOMPAT_SIMPLE_QUOTA as FEATURE_INCOMPAT_SIMPLE_QUOTA,
    FEATURE_INCOMPAT_SKINNY_METADATA as FEATURE_INCOMPAT_SKINNY_METADATA,
    FEATURE_INCOMPAT_ZONED as FEATURE_INCOMPAT_ZONED,
    ULLONG_MAX as ULLONG_MAX,
    ULONG_MAX as ULONG_MAX,
)
from btrfs.items.base import SearchHeader as SearchHeader
from btrfs.key import Key
from btrfs.layout import (
    Bytes,
    Stored,
    Struct,
    as_flags,
    as_size,
    as_text,
    hidden,
    u16,
    u32,
    u64,
    uuid16,
)
from btrfs.text import (
    space_flags_description,
    space_profile_description,
    space_type_description,
)

# Numbers of ioctls: direction, size of the argument, magic and a running number
# (include/uapi/asm-generic/ioctl.h, and its like of the architectures that differ).

arch = os.uname().machine
BTRFS_IOCTL_MAGIC = 0x94

_OTHER_DIRECTIONS = arch.startswith(("ppc", "sparc", "mips", "alpha", "parisc"))
_NONE, _READ, _WRITE = (1, 2, 4) if _OTHER_DIRECTIONS else (0, 2, 1)
_SIZE_SHIFT = 16
_DIRECTION_SHIFT = _SIZE_SHIFT + (13 if _OTHER_DIRECTIONS else 14)


def _ioc(direction: int, number: int, size: int) -> int:
    return (
        (direction << _DIRECTION_SHIFT) | (size << _SIZE_SHIFT) | (BTRFS_IOCTL_MAGIC << 8) | number
    )


class FsInfo(
    Struct,
    line=(
        "max_id {max_id} num_devices {num_devices} fsid {fsid} nodesize {nodesize} "
        "sectorsize {sectorsize} clone_alignment {clone_alignment}"
    ),
    print_last=("fsid",),
):
    """The filesystem as a whole (struct btrfs_ioctl_fs_info_args).

    Attributes:
        max_id: Highest number of a device.
        num_devices: How many devices it has.
        fsid: Its UUID.
        nodesize: Bytes of a tree block.
        sectorsize: Bytes of the smallest extent of data.
        clone_alignment: Bytes that cloned ranges must be aligned to.
        csum_type: 0 crc32c, 1 xxhash64, 2 sha256, 3 blake2b.
        csum_size: Bytes of a checksum.
        flags: Which of the attributes around this one the kernel knew.
        generation: Number of the last transaction.
        metadata_uuid: UUID in the headers of tree blocks; the fsid unless that was changed.
    """

    _public_module = "btrfs.ioctl"

    max_id: u64
    num_devices: u64
    fsid: uuid16
    nodesize: u32 = as_size()
    sectorsize: u32 = as_size()
    clone_alignment: u32 = as_size()
    csum_type: u16 = hidden()
    csum_size: u16 = hidden()
    flags: u64 = hidden()
    generation: u64 = hidden()
    metadata_uuid: uuid16 = hidden()
    reserved: Annotated[bytes, Stored("944s", "V944")] = hidden()


class DevInfo(
    Struct,
    line=(
        "devid {devid} uuid {uuid} bytes_used {bytes_used} total_bytes {total_bytes} path {path}"
    ),
    print_last=("uuid",),
):
    """A device of the filesystem (struct btrfs_ioctl_dev_info_args).

    Attributes:
        devid: Number of the device.
        uuid: UUID of the device.
        bytes_used: Bytes allocated to chunks.
        total_bytes: Bytes of the device that the filesystem may use.
        path: Where the device is; empty if it is missing or there is none.
    """

    _public_module = "btrfs.ioctl"

    devid: u64
    uuid: uuid16
    bytes_used: u64 = as_size()
    total_bytes: u64 = as_size()
    fsid: uuid16 = hidden()
    unused: Annotated[bytes, Stored("3016s", "V3016")] = hidden()
    path_bytes: Annotated[bytes, Stored("1024s", "V1024")] = hidden()
    path: str

    def __init__(self, buf: Bytes) -> None:
        self._decode(buf, 0)
        self.path = os.fsdecode(self.path_bytes.split(b"\0", 1)[0])


class DevStats(
    Struct,
    line=(
        "devid {devid} write_errs {write_errs} read_errs {read_errs} flush_errs {flush_errs} "
        "corruption_errs {corruption_errs} generation_errs {generation_errs}"
    ),
):
    """Counters of errors of a device (struct btrfs_ioctl_get_dev_stats).

    Attributes:
        devid: Number of the device.
        nr_items: How many counters there are.
        flags: DEV_STATS_RESET, if they were set to zero.
        write_errs: Failed writes.
        read_errs: Failed reads.
        flush_errs: Failed flushes.
        corruption_errs: Blocks whose checksum or content was wrong.
        generation_errs: Tree blocks that were of another generation than they should be.
    """

    _public_module = "btrfs.ioctl"

    devid: u64
    nr_items: u64
    flags: u64
    write_errs: u64
    read_errs: u64
    flush_errs: u64
    corruption_errs: u64
    generation_errs: u64
    unused: Annotated[bytes, Stored("968s", "V968")] = hidden()

    @property
    def counters(self) -> dict[str, int]:
        """The five counters by name."""
        return {name: getattr(self, name) for name in DEV_STATS_COUNTERS}


DEV_STATS_COUNTERS = (
    "write_errs",
    "read_errs",
    "flush_errs",
    "corruption_errs",
    "generation_errs",
)


class SpaceInfo(Struct, line="{flags_str}: total={total_bytes_str}, used={used_bytes_str}"):
    """The block groups of one type and profile together (struct btrfs_ioctl_space_info).

    Attributes:
        flags: Type and profile; SPACE_INFO_GLOBAL_RSV for the global reserve.
        total_bytes: Bytes of virtual address space in the block groups.
        used_bytes: Bytes of it that extents use.
    """

    _public_module = "btrfs.ioctl"

    flags: u64 = as_text(space_flags_description)
    total_bytes: u64 = as_size()
    used_bytes: u64 = as_size()

    @property
    def type(self) -> int:
        """The type without the profile."""
        return self.flags & ~BLOCK_GROUP_PROFILE_MASK

    @property
    def type_str(self) -> str:
        """The type as btrfs-progs writes it: 'Data'."""
        return space_type_description(self.flags)

    @property
    def profile(self) -> int:
        """The profile without the type."""
        return self.flags & BLOCK_GROUP_PROFILE_MASK

    @property
    def profile_str(self) -> str:
        """The profile as btrfs-progs writes it: 'RAID1', or 'single'."""
        return space_profile_description(self.flags)


class FeatureFlags(Struct):
    """Features that the filesystem uses (struct btrfs_ioctl_feature_flags).

    Attributes:
        compat_flags: Those that any kernel may ignore.
        compat_ro_flags: Those that a kernel must know to write.
        incompat_flags: Those that a kernel must know to read.
    """

    _public_module = "btrfs.ioctl"

    compat_flags: u64 = as_flags({})
    compat_ro_flags: u64 = as_flags(FEATURE_COMPAT_RO_NAMES)
    incompat_flags: u64 = as_flags(FEATURE_INCOMPAT_NAMES)

    def __init__(self, compat_flags: int, compat_ro_flags: int, incompat_flags: int) -> None:
        self.compat_flags = compat_flags
        self.compat_ro_flags = compat_ro_flags
        self.incompat_flags = incompat_flags


class SpaceArgs(NamedTuple):
    """Head of what the space info ioctl returns (struct btrfs_ioctl_space_args).

    Attributes:
        space_slots: How many entries there was room for.
        total_spaces: How many there are.
    """

    space_slots: int
    total_spaces: int


IOC_TREE_SEARCH = _ioc(_READ | _WRITE, 17, 4096)
IOC_SYNC = _ioc(_NONE, 8, 0)
IOC_SPACE_INFO = _ioc(_READ | _WRITE, 20, 16)
IOC_DEV_INFO = _ioc(_READ | _WRITE, 30, DevInfo.struct_size)
IOC_FS_INFO = _ioc(_READ, 31, FsInfo.struct_size)
IOC_GET_FSLABEL = _ioc(_READ, 49, 256)
IOC_GET_DEV_STATS = _ioc(_READ | _WRITE, 52, DevStats.struct_size)
IOC_GET_FEATURES = _ioc(_READ, 57, FeatureFlags.struct_size)
IOC_TREE_SEARCH_V2 = _ioc(_READ | _WRITE, 17, 112)

# BTRFS_FS_INFO_FLAG_CSUM_INFO, _GENERATION and _METADATA_UUID
FS_INFO_FLAGS = 0b111
_FS_INFO_FLAGS_OFFSET = 48
_DEV_STATS_RESET = 1 << 0


def fs_info(fd: int) -> FsInfo:
    """Return what there is to know of the filesystem as a whole. Needs no privilege."""
    args = bytearray(FsInfo.struct_size)
    # flags is an input too: which of the fields added later the caller asks for.
    struct.pack_into("<Q", args, _FS_INFO_FLAGS_OFFSET, FS_INFO_FLAGS)
    fcntl.ioctl(fd, IOC_FS_INFO, args)
    return FsInfo(args)


def dev_info(fd: int, devid: int) -> DevInfo:
    """Return what there is to know of a device. Needs no privilege.

    Raises:
        OSError: ENODEV if there is no device of that number.
    """
    args = bytearray(DevInfo.struct_size)
    struct.pack_into("<Q", args, 0, devid)
    fcntl.ioctl(fd, IOC_DEV_INFO, args)
    return DevInfo(args)


def dev_stats(fd: int, devid: int, reset: bool = False) -> DevStats:
    """Return the counters of errors of a device.

    Args:
        fd: File descriptor.
        devid: Number of the device.
        reset: Set the counters to zero after reading them; needs CAP_SYS_ADMIN.

    Raises:
        OSError: ENODEV if there is no device of that number.
    """
    args = bytearray(DevStats.struct_size)
    struct.pack_into(
        "<QQQ", args, 0, devid, len(DEV_STATS_COUNTERS), _DEV_STATS_RESET if reset else 0
    )
    fcntl.ioctl(fd, IOC_GET_DEV_STATS, args)
    return DevStats(args)


def space_info(fd: int) -> list[SpaceInfo]:
    """Return the sizes of all block groups, one entry per type and profile. Needs no privilege."""
    slots = 0
    while True:
        args = bytearray(16 + slots * SpaceInfo.struct_size)
        struct.pack_into("<QQ", args, 0, slots, 0)
        fcntl.ioctl(fd, IOC_SPACE_INFO, args)
        space_args = SpaceArgs(*struct.unpack_from("<QQ", args))
        # With no slots the kernel tells how many it takes; there may be more by the second call.
        if space_args.total_spaces <= slots:
            break
        slots = space_args.total_spaces
    return [
        SpaceInfo(args, 16 + index * SpaceInfo.struct_size)
        for index in range(space_args.total_spaces)
    ]


def get_features(fd: int) -> FeatureFlags:
    """Return the features that the filesystem uses. Needs no privilege."""
    args = bytearray(FeatureFlags.struct_size)
    fcntl.ioctl(fd, IOC_GET_FEATURES, args)
    return FeatureFlags(*struct.unpack("<QQQ", args))


def get_label(fd: int) -> str:
    """Return the label of the filesystem, empty if it has none. Needs no privilege."""
    args = bytearray(256)
    fcntl.ioctl(fd, IOC_GET_FSLABEL, args)
    return args.split(b"\0", 1)[0].decode(errors="surrogateescape")


def sync(fd: int) -> None:
    """Commit the running transaction, so that all changes up to now are on disk."""
    fcntl.ioctl(fd, IOC_SYNC)


# Searches. The kernel fills a buffer with items, each a header and a body, and is called again with
# the key after the last one until there are none left.

_SEARCH_KEY = struct.Struct("<QQQQQQQIIII32x")
_SEARCH_V1_SIZE = 4096
# In the order of SearchHeader.
_SEARCH_HEADER = struct.Struct("<QQQII")
SEARCH_HEADER_SIZE = _SEARCH_HEADER.size
SEARCH_V2_ARGS_SIZE = _SEARCH_KEY.size + 8


def search(
    fd: int,
    tree: int,
    min_key: Key | None = None,
    max_key: Key | None = None,
    min_transid: int = 0,
    max_transid: int = ULLONG_MAX,
    nr_items: int | None = None,
) -> Iterator[tuple[SearchHeader, memoryview]]:
    """Yield the items of a tree by the first version of the ioctl; see :func:`search_v2`.

    Raises:
        OSError: EOVERFLOW at an item of more than 3960 bytes, which its buffer has no room for.
    """

    def fill(min_key: Key, max_key: Key, nr_items: int) -> tuple[bytearray, int, int]:
        args = bytearray(_SEARCH_V1_SIZE)
        _pack_search_key(args, tree, min_key, max_key, min_transid, max_transid, nr_items)
        fcntl.ioctl(fd, IOC_TREE_SEARCH, args)
        return args, _SEARCH_KEY.size, _found(args)

    return _search(fill, min_key, max_key, nr_items)


def search_v2(
    fd: int,
    tree: int,
    min_key: Key | None = None,
    max_key: Key | None = None,
    min_transid: int = 0,
    max_transid: int = ULLONG_MAX,
    nr_items: int | None = None,
    buf_size: int = 16384,
) -> Iterator[tuple[SearchHeader, memoryview]]:
    """Yield the items of a tree whose keys lie between two keys.

    Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        tree: Number of the tree; 0 for the subvolume that fd is in.
        min_key: The lowest key, and
        max_key: the highest key that may be returned.
        min_transid: Skip leaves of generations below this one,
        max_transid: and above this one.
        nr_items: Yield at most so many.
        buf_size: Bytes of the buffer that the kernel fills. A larger one is used for an item that
            does not fit.

    Yields:
        Header and body of each item in the order of their keys.

    Raises:
        OSError: EPERM without the privilege, ENOENT if there is no such tree.
    """

    def fill(min_key: Key, max_key: Key, nr_items: int) -> tuple[bytearray, int, int]:
        size = buf_size
        while True:
            args = bytearray(SEARCH_V2_ARGS_SIZE + size)
            try:
                count = search_v2_into(
                    fd, args, tree, min_key, max_key, min_transid, max_transid, nr_items
                )
                return args, SEARCH_V2_ARGS_SIZE, count
            except OSError as error:
                if error.errno != errno.EOVERFLOW:
                    raise
                size = needed_buf_size(args)

    return _search(fill, min_key, max_key, nr_items)


def search_v2_into(
    fd: int,
    args: bytearray | memoryview,
    tree: int,
    min_key: Key,
    max_key: Key,
    min_transid: int = 0,
    max_transid: int = ULLONG_MAX,
    nr_items: int = ULONG_MAX,
) -> int:
    """Call the kernel once to fill a buffer with items.

    Args:
        fd: File descriptor.
        args: The buffer: SEARCH_V2_ARGS_SIZE bytes for the arguments, then as many for items as it
            has. Each item is SEARCH_HEADER_SIZE bytes of header and then its body.
        tree: Number of the tree.
        min_key: Lowest key.
        max_key: Highest key.
        min_transid: Lowest generation of a leaf.
        max_transid: Highest generation of a leaf.
        nr_items: Most items to return.

    Returns:
        How many items there are in the buffer; 0 if there are no more.

    Raises:
        OSError: EOVERFLOW if there is no room for the first item; see :func:`needed_buf_size`.
    """
    _pack_search_key(args, tree, min_key, max_key, min_transid, max_transid, nr_items)
    struct.pack_into("<Q", args, _SEARCH_KEY.size, len(args) - SEARCH_V2_ARGS_SIZE)
    fcntl.ioctl(fd, IOC_TREE_SEARCH_V2, args)
    return _found(args)


def needed_buf_size(args: bytearray | memoryview) -> int:
    """Return the room that search_v2_into() would have needed when it raised EOVERFLOW."""
    (size,) = struct.unpack_from("<Q", args, _SEARCH_KEY.size)
    return int(size)


def _pack_search_key(
    args: bytearray | memoryview,
    tree: int,
    min_key: Key,
    max_key: Key,
    min_transid: int,
    max_transid: int,
    nr_items: int,
) -> None:
    _SEARCH_KEY.pack_into(
        args,
        0,
        tree,
        min_key.objectid,
        max_key.objectid,
        min_key.offset,
        max_key.offset,
        min_transid,
        max_transid,
        min_key.type,
        max_key.type,
        nr_items,
        0,
    )


def _found(args: bytearray | memoryview) -> int:
    """Return the number of items that the kernel put into a buffer."""
    return int(_SEARCH_KEY.unpack_from(args)[9])


def _search(
    fill: Callable[[Key, Key, int], tuple[bytearray, int, int]],
    min_key: Key | None,
    max_key: Key | None,
    nr_items: int | None,
) -> Iterator[tuple[SearchHeader, memoryview]]:
    """Yield items from buffer after buffer.

    ``fill`` gets a new buffer of items between two keys, and returns it with where the first item
    begins and how many there are.
    """
    next_key = min_key if min_key is not None else Key(0, 0, 0)
    last_key = max_key if max_key is not None else Key(-1, -1, -1)
    left = ULLONG_MAX if nr_items is None else nr_items
    while left > 0 and next_key <= last_key:
        args, pos, count = fill(next_key, last_key, min(left, ULONG_MAX))
        if count == 0:
            return
        view = memoryview(args)
        unpack, new_header = _SEARCH_HEADER.unpack_from, SearchHeader._make
        for _ in range(count):
            header = new_header(unpack(args, pos))
            pos += SEARCH_HEADER_SIZE
            end = pos + header.len
            yield header, view[pos:end]
            pos = end
        left -= count
        found_key = Key(header.objectid, header.type, header.offset)
        if found_key >= last_key:
            return
        next_key = found_key + 1
