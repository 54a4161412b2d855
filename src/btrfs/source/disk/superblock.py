"""The superblock: what a device says about the filesystem that it belongs to."""

from collections.abc import Iterator
from typing import Annotated, Any
from uuid import UUID

from btrfs import constants
from btrfs.constants import (
    CSUM_SIZE,
    MAX_ADDRESS,
    MAX_LEVEL,
    SUPER_INFO_SIZE,
    SUPER_MAGIC,
    SUPER_MAGIC_OFFSET,
)
from btrfs.errors import CorruptError, UnsupportedFeatureError
from btrfs.items.device import DevItem
from btrfs.layout import Stored, Struct, as_flags, hidden, u8, u16, u32, u64, uuid16
from btrfs.source.disk.checksum import CHECKSUMS, ChecksumType
from btrfs.text import flags_str

__all__ = ["Superblock", "parse_superblock", "require_supported"]

_MIN_BLOCK_SIZE = 4096
_MAX_BLOCK_SIZE = 65536

# What changes the format in a way that this library does not follow.
_UNSUPPORTED = constants.FEATURE_INCOMPAT_EXTENT_TREE_V2 | constants.FEATURE_INCOMPAT_REMAP_TREE


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
    compat_ro_flags: u64 = as_flags(constants.FEATURE_COMPAT_RO_NAMES)
    incompat_flags: u64 = as_flags(constants.FEATURE_INCOMPAT_NAMES)
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


def require_supported(superblock: Superblock) -> None:
    """Refuse features that change the format in a way unknown here.

    Raises:
        UnsupportedFeatureError: There are such features; the text names them.
    """
    known = sum(constants.FEATURE_INCOMPAT_NAMES) & ~_UNSUPPORTED
    unknown = superblock.incompat_flags & ~known
    if unknown:
        names = flags_str(unknown, constants.FEATURE_INCOMPAT_NAMES)
        raise UnsupportedFeatureError(
            f"the filesystem has incompatible features that are not supported: {names}",
            hint="mount it with a kernel that knows them, and give the mount point",
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
