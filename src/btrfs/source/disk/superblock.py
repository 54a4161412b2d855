"""The superblock: what a device says about the filesystem that it belongs to."""

import copy
from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

from btrfs.errors import BtrfsError, CorruptError, UnsupportedFeatureError
from btrfs.ondisk import constants
from btrfs.ondisk.checksum import CHECKSUMS, ChecksumType
from btrfs.ondisk.constants import (
    CSUM_SIZE,
    MAX_ADDRESS,
    MAX_LEVEL,
    SUPER_INFO_SIZE,
    SUPER_MAGIC,
    SUPER_MAGIC_OFFSET,
)
from btrfs.ondisk.fields import Stored, hidden, u8, u16, u32, u64, uuid16
from btrfs.ondisk.items.device import DevItem
from btrfs.ondisk.printing import as_flags
from btrfs.ondisk.struct import Struct
from btrfs.ondisk.text import flags_str

__all__ = [
    "RootBackup",
    "Superblock",
    "is_usable",
    "parse_superblock",
    "require_supported",
    "unsupported_features",
    "with_backup_root",
]

_MIN_BLOCK_SIZE = 4096
_MAX_BLOCK_SIZE = 65536

# What changes the format in a way that this library does not follow.
_UNSUPPORTED = constants.FEATURE_INCOMPAT_EXTENT_TREE_V2 | constants.FEATURE_INCOMPAT_REMAP_TREE


class RootBackup(Struct):
    """Where the roots of the trees were after one of the last commits (struct btrfs_root_backup).

    A superblock has four of them, written in turn.

    Attributes:
        tree_root: Virtual address of the root tree's root block; 0 if there is no such backup.
        tree_root_gen: Generation of that block.
        tree_root_level: Its level.
    """

    tree_root: u64
    tree_root_gen: u64
    chunk_root: u64
    chunk_root_gen: u64
    extent_root: u64
    extent_root_gen: u64
    fs_root: u64
    fs_root_gen: u64
    dev_root: u64
    dev_root_gen: u64
    csum_root: u64
    csum_root_gen: u64
    total_bytes: u64
    bytes_used: u64
    num_devices: u64
    unused_64: Annotated[bytes, Stored("32s", "V32")] = hidden()
    tree_root_level: u8
    chunk_root_level: u8
    extent_root_level: u8
    fs_root_level: u8
    dev_root_level: u8
    csum_root_level: u8
    unused_8: Annotated[bytes, Stored("10s", "V10")] = hidden()


class Superblock(Struct):
    """The superblock of a device (struct btrfs_super_block, 4096 bytes)."""

    csum: Annotated[bytes, Stored("32s", "V32")] = hidden()
    fsid: uuid16
    bytenr: u64
    flags: u64
    magic: Annotated[bytes, Stored("8s", "V8")]
    generation: u64
    root: u64
    chunk_root: u64
    log_root: u64
    log_root_transid: u64 = hidden()
    total_bytes: u64
    bytes_used: u64
    root_dir_objectid: u64
    num_devices: u64
    sectorsize: u32
    nodesize: u32
    leafsize: u32
    stripesize: u32
    sys_chunk_array_size: u32
    chunk_root_generation: u64
    compat_flags: u64
    compat_ro_flags: u64
    compat_ro_flags_str = as_flags(constants.FEATURE_COMPAT_RO_NAMES)
    incompat_flags: u64
    incompat_flags_str = as_flags(constants.FEATURE_INCOMPAT_NAMES)
    csum_type: u16
    root_level: u8
    chunk_root_level: u8
    log_root_level: u8
    dev_item: DevItem
    label_bytes: Annotated[bytes, Stored("256s", "V256")] = hidden()
    cache_generation: u64
    uuid_tree_generation: u64
    metadata_uuid: uuid16
    nr_global_roots: u64 = hidden()
    remap_root: u64 = hidden()
    remap_root_generation: u64 = hidden()
    remap_root_level: u8 = hidden()
    reserved: Annotated[bytes, Stored("199s", "V199")] = hidden()
    sys_chunk_array: Annotated[bytes, Stored("2048s", "V2048")] = hidden()
    root_backups: Annotated[bytes, Stored("672s", "V672")] = hidden()

    @property
    def label(self) -> str:
        """Name that the user gave the filesystem, empty if none."""
        return self.label_bytes.split(b"\0", 1)[0].decode(errors="surrogateescape")

    @property
    def backups(self) -> list[RootBackup]:
        """The four backups, whatever is in them."""
        size = RootBackup.struct_size
        return [
            RootBackup(self.root_backups[at : at + size])
            for at in range(0, len(self.root_backups), size)
        ]

    @property
    def checksum(self) -> ChecksumType:
        """The type of all checksums."""
        return CHECKSUMS[self.csum_type]

    @property
    def header_fsid(self) -> UUID:
        """UUID in the header of each tree block and in the device items.

        It is the fsid, unless that was changed later without writing all tree blocks anew.
        """
        if self.incompat_flags & constants.FEATURE_INCOMPAT_METADATA_UUID:
            return self.metadata_uuid
        return self.fsid

    @property
    def is_seed(self) -> bool:
        """Whether the filesystem is one that others grow on, and is not written to any more."""
        return bool(self.flags & constants.SUPER_FLAG_SEEDING)


def parse_superblock(data: bytes, name: str, paddr: int) -> Superblock | None:
    """Return the superblock in some bytes, or None if there is none.

    Args:
        data: The 4096 bytes read, or less at the end of a device.
        name: Device or file, for the error.
        paddr: Where on it they lie.

    Raises:
        CorruptError: It has the magic number, but a field is not as it must be.
    """
    if data[SUPER_MAGIC_OFFSET : SUPER_MAGIC_OFFSET + len(SUPER_MAGIC)] != SUPER_MAGIC:
        return None
    if len(data) < SUPER_INFO_SIZE:
        raise CorruptError(
            "superblock",
            expected=f"{SUPER_INFO_SIZE} bytes",
            found=f"{len(data)} bytes",
            device=name,
            paddr=paddr,
            hint="the image seems to be cut off",
        )
    superblock = Superblock(data)
    for what, expected, found in _violations(superblock, data, paddr):
        raise CorruptError(
            f"superblock, {what}", expected=expected, found=found, device=name, paddr=paddr
        )
    return superblock


def unsupported_features(superblock: Superblock) -> str | None:
    """Return the names of features that change the format in a way unknown here; None if none."""
    known = sum(constants.FEATURE_INCOMPAT_NAMES) & ~_UNSUPPORTED
    unknown = superblock.incompat_flags & ~known
    return flags_str(unknown, constants.FEATURE_INCOMPAT_NAMES) if unknown else None


def require_supported(superblock: Superblock) -> None:
    """Refuse features that change the format in a way unknown here.

    Raises:
        UnsupportedFeatureError: There are such features; the text names them.
    """
    names = unsupported_features(superblock)
    if names is not None:
        raise UnsupportedFeatureError(
            f"the filesystem has incompatible features that are not supported: {names}",
            hint="mount it with a kernel that knows them and give the mount point, or read what"
            " can be read all the same with --unknown-features",
        )


def with_backup_root(superblock: Superblock, number: int) -> Superblock:
    """Return a superblock that leads to the root tree of a backup.

    Everything else stays, as when the kernel mounts with rescue=usebackuproot; but the log trees
    belong to the last commit only.

    Args:
        superblock: The superblock.
        number: Which of its backups, 0 to 3.

    Raises:
        BtrfsError: There is no such backup.
    """
    backup = superblock.backups[number]
    if not is_usable(backup):
        others = [i for i, other in enumerate(superblock.backups) if is_usable(other)]
        raise BtrfsError(
            f"the superblock has no backup root {number}",
            hint=f"it has {', '.join(map(str, others))}" if others else "it has none at all",
        )
    changed = copy.copy(superblock)
    changed.root = backup.tree_root
    changed.root_level = backup.tree_root_level
    changed.generation = backup.tree_root_gen
    changed.log_root = 0
    return changed


def is_usable(backup: RootBackup) -> bool:
    """Return whether there can be roots at the addresses of a backup."""
    return all(
        0 < address < MAX_ADDRESS and generation < MAX_ADDRESS and level < MAX_LEVEL
        for address, generation, level in (
            (backup.tree_root, backup.tree_root_gen, backup.tree_root_level),
            (backup.chunk_root, backup.chunk_root_gen, backup.chunk_root_level),
        )
    )


def _violations(superblock: Superblock, data: bytes, paddr: int) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, expected and found value of each field that cannot be right."""
    if superblock.csum_type not in CHECKSUMS:
        yield "csum_type", "0 to 3", superblock.csum_type
        return
    checksum = superblock.checksum
    digest = checksum.digest(data[CSUM_SIZE:SUPER_INFO_SIZE])
    if digest != superblock.csum[: checksum.size]:
        yield "checksum", superblock.csum[: checksum.size].hex(), digest.hex()
        return
    sectorsize, nodesize = superblock.sectorsize, superblock.nodesize
    sizes = f"a power of two, {_MIN_BLOCK_SIZE} to {_MAX_BLOCK_SIZE}"
    array_size = superblock.sys_chunk_array_size
    for what, is_right, expected, found in (
        ("bytenr", superblock.bytenr == paddr, paddr, superblock.bytenr),
        ("sectorsize", _is_block_size(sectorsize), sizes, sectorsize),
        ("nodesize", _is_block_size(nodesize), sizes, nodesize),
        ("nodesize", nodesize >= sectorsize, f"at least {sectorsize}", nodesize),
        ("num_devices", superblock.num_devices > 0, "at least 1", 0),
        # Log trees are of the generation after that.
        ("generation", superblock.generation < MAX_ADDRESS, "below 2**63", superblock.generation),
        (
            "chunk_root_generation",
            superblock.chunk_root_generation < MAX_ADDRESS,
            "below 2**63",
            superblock.chunk_root_generation,
        ),
        (
            "dev_item.devid",
            superblock.dev_item.devid < MAX_ADDRESS,
            f"below {MAX_ADDRESS}",
            superblock.dev_item.devid,
        ),
        (
            "sys_chunk_array_size",
            array_size <= len(superblock.sys_chunk_array),
            f"at most {len(superblock.sys_chunk_array)}",
            array_size,
        ),
        (
            "dev_item.fsid",
            superblock.dev_item.fsid == superblock.header_fsid,
            superblock.header_fsid,
            superblock.dev_item.fsid,
        ),
    ):
        if not is_right:
            yield what, expected, found
    for name in ("root", "chunk_root", "log_root"):
        address, level = getattr(superblock, name), getattr(superblock, f"{name}_level")
        if level >= MAX_LEVEL:
            yield f"{name}_level", f"below {MAX_LEVEL}", level
        if address >= MAX_ADDRESS or (sectorsize and address % sectorsize):
            yield name, f"a multiple of {sectorsize} below {MAX_ADDRESS}", address


def _is_block_size(size: int) -> bool:
    return _MIN_BLOCK_SIZE <= size <= _MAX_BLOCK_SIZE and not size & (size - 1)
