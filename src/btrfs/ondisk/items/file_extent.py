"""File extents: which piece of a file lies in which extent."""

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.fields import (
    Bytes,
    hidden,
    key_objectid,
    key_offset,
    present_unless,
    u8,
    u16,
    u64,
)
from btrfs.ondisk.items.base import ItemData, SearchHeader
from btrfs.ondisk.printing import as_name

__all__ = ["FileExtentItem"]

_INLINE_HEADER_SIZE = 21


class FileExtentItem(
    ItemData,
    type=constants.EXTENT_DATA_KEY,
    line=(
        "extent data at {logical_offset} generation {generation} ram_bytes {ram_bytes} "
        "compression {compression_str} type {type_str}"
    ),
    shortest=_INLINE_HEADER_SIZE,
):
    """A piece of a file (struct btrfs_file_extent_item).

    In a subvolume tree, under (inode number EXTENT_DATA offset in the file). A piece need not use
    all of an extent, and several can use the same.

    Attributes:
        objectid: Inode number.
        logical_offset: Where in the file the piece begins, in bytes.
        generation: Generation that it was made in.
        ram_bytes: Bytes of the whole extent when it is decompressed.
        compression: COMPRESS_NONE, COMPRESS_ZLIB, COMPRESS_LZO or COMPRESS_ZSTD.
        encryption: Not used, always 0.
        other_encoding: Not used, always 0.
        type: FILE_EXTENT_INLINE where the content lies in this item, FILE_EXTENT_REG, or
            FILE_EXTENT_PREALLOC for a range reserved but not yet written.
        disk_bytenr: Virtual address of the extent, 0 for a hole; this and what follows is absent
            from inline extents.
        disk_num_bytes: Bytes of the extent.
        offset: Where in the (decompressed) extent the piece begins, in bytes.
        num_bytes: Bytes of the piece.
        inline_data: The content of an inline extent, perhaps compressed; else empty.
    """

    objectid: key_objectid
    logical_offset: key_offset
    generation: u64
    ram_bytes: u64
    compression: u8
    compression_str = as_name(constants.COMPRESS_TYPE_NAMES, unknown="unknown")
    encryption: u8
    other_encoding: u16 = hidden()
    type: u8
    type_str = as_name(constants.FILE_EXTENT_TYPE_NAMES, unknown="unknown")
    disk_bytenr: u64 = present_unless("type", constants.FILE_EXTENT_INLINE)
    disk_num_bytes: u64 = present_unless("type", constants.FILE_EXTENT_INLINE)
    offset: u64 = present_unless("type", constants.FILE_EXTENT_INLINE)
    num_bytes: u64 = present_unless("type", constants.FILE_EXTENT_INLINE)
    inline_data: bytes = hidden()

    def __init__(self, header: SearchHeader, data: Bytes) -> None:
        self._load(header, data)
        inline = self.type == constants.FILE_EXTENT_INLINE
        self.inline_data = bytes(data[_INLINE_HEADER_SIZE:]) if inline else b""
        if not inline and len(data) < self.struct_size:
            raise CorruptError(
                f"item {self.key}",
                expected=f"{self.struct_size} bytes",
                found=f"{len(data)} bytes",
            )

    def __str__(self) -> str:
        start = super().__str__()
        if self.type == constants.FILE_EXTENT_INLINE:
            return f"{start} inline_encoded_nbytes {len(self.inline_data)}"
        return (
            f"{start} disk_bytenr {self.disk_bytenr} disk_num_bytes {self.disk_num_bytes} "
            f"offset {self.offset} num_bytes {self.num_bytes}"
        )
