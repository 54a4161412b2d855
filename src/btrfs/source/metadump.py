"""A dump made by btrfs-image: the tree blocks of a filesystem and its superblock, nothing else.

The file is a row of clusters. Each begins with an index block that lists what follows: pieces of
metadata by their virtual addresses, one block or several adjacent ones, perhaps compressed
(struct meta_cluster in btrfs-progs' image/metadump.h). Addresses are virtual, so that no device and
no map of chunks is needed to read it.
"""

from __future__ import annotations

import os
import struct
import zlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from btrfs.constants import SUPER_INFO_SIZE, SUPER_MIRRORS
from btrfs.errors import CorruptError
from btrfs.source.descriptor import Descriptor
from btrfs.source.disk.store import Copy
from btrfs.source.disk.superblock import Superblock, parse_superblock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Metadump", "is_metadump"]

_MAGICS = (0xBD5C25E27295668B, 0x31765F506D55445F)
_CLUSTER_ALIGNMENT = 1024
_CLUSTER_HEADER = struct.Struct("<QQIB")
_CLUSTER_ITEM = struct.Struct("<QI")
_MAX_ITEMS = (_CLUSTER_ALIGNMENT - _CLUSTER_HEADER.size) // _CLUSTER_ITEM.size
_COMPRESS_NONE, _COMPRESS_ZLIB = 0, 1

# btrfs-image puts at most so many bytes of adjacent blocks into one piece (MAX_PENDING_SIZE).
_MAX_PIECE_SIZE = 256 << 10
_CACHED_PIECES = 64


class _Piece(NamedTuple):
    """Where in the file some metadata is.

    Attributes:
        vaddr: Virtual address that it begins at.
        position: Where in the file.
        stored_size: Bytes in the file.
        compressed: By zlib.
    """

    vaddr: int
    position: int
    stored_size: int
    compressed: bool


def is_metadump(path: str) -> bool:
    """Return whether a file is a dump made by btrfs-image."""
    with open(path, "rb") as file:
        start = file.read(8)
    return len(start) == 8 and int.from_bytes(start, "little") in _MAGICS


class Metadump:
    """A dump as a store of tree blocks. See :class:`btrfs.source.disk.store.BlockStore`.

    Attributes:
        path: The file.
        superblock: The superblock in it.

    Raises:
        CorruptError: The file is cut off or no dump, or there is no valid superblock in it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.notes: list[str] = []
        self._descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._fd = self._descriptor.fd
        try:
            self._pieces = sorted(self._read_index())
            self._starts = [piece.vaddr for piece in self._pieces]
            self._contents: OrderedDict[_Piece, bytes] = OrderedDict()
            self.superblock = self._read_superblock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._descriptor.close()

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield the block; a dump has only one copy of each.

        Raises:
            CorruptError: The dump does not have it.
        """
        index = bisect_right(self._starts, vaddr) - 1
        data = self._read(vaddr, length)
        yield Copy(self.path, self._pieces[index].position, data)

    def read_many(
        self, vaddrs: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read many blocks: a buffer with one after another, and which of them were read."""
        import numpy as np

        blocks = np.zeros((len(vaddrs), length), np.uint8)
        good = np.zeros(len(vaddrs), np.bool_)
        for index, vaddr in enumerate(vaddrs.tolist()):
            try:
                blocks[index] = np.frombuffer(self._read(vaddr, length), np.uint8)
            except CorruptError:
                continue
            good[index] = True
        return blocks.reshape(-1), good

    def _read(self, vaddr: int, length: int) -> bytes:
        """Return bytes of metadata, which may begin in one piece and end in the next.

        Raises:
            CorruptError: The dump does not have them.
        """
        data = b""
        while len(data) < length:
            at = vaddr + len(data)
            index = bisect_right(self._starts, at) - 1
            content = self._content(self._pieces[index]) if index >= 0 else b""
            part = content[at - self._starts[index] :][: length - len(data)]
            if not part:
                raise CorruptError(
                    f"tree block at {vaddr}", expected="to be in the dump", found="it is not"
                )
            data += part
        return data

    def _content(self, piece: _Piece) -> bytes:
        if piece in self._contents:
            self._contents.move_to_end(piece)
            return self._contents[piece]
        data = os.pread(self._fd, piece.stored_size, piece.position)
        if piece.compressed:
            data = self._decompressed(data, piece)
        self._contents[piece] = data
        if len(self._contents) > _CACHED_PIECES:
            self._contents.popitem(last=False)
        return data

    def _decompressed(self, data: bytes, piece: _Piece) -> bytes:
        decompressor = zlib.decompressobj()
        try:
            content = decompressor.decompress(data, _MAX_PIECE_SIZE)
        except zlib.error as error:
            raise CorruptError(
                f"dump, metadata at {piece.vaddr}: {error}", device=self.path, paddr=piece.position
            ) from None
        if not decompressor.eof:
            raise CorruptError(
                f"dump, metadata at {piece.vaddr}",
                expected=f"at most {_MAX_PIECE_SIZE} bytes of compressed metadata",
                found="more, or a part of them",
                device=self.path,
                paddr=piece.position,
            )
        return content

    def _read_superblock(self) -> Superblock:
        paddr = SUPER_MIRRORS[0]
        superblock = parse_superblock(self._read(paddr, SUPER_INFO_SIZE), self.path, paddr)
        if superblock is None:
            raise CorruptError("dump", expected="a superblock", found="none", device=self.path)
        return superblock

    def _read_index(self) -> Iterator[_Piece]:
        """Yield all pieces, cluster by cluster.

        Raises:
            CorruptError: The file is cut off, or a cluster is not as it must be.
        """
        file_size = os.fstat(self._fd).st_size
        position = 0
        while position < file_size:
            block = os.pread(self._fd, _CLUSTER_ALIGNMENT, position)
            if len(block) < _CLUSTER_ALIGNMENT:
                raise self._cut_off(file_size)
            magic, bytenr, nritems, compress = _CLUSTER_HEADER.unpack_from(block)
            for what, expected, found in (
                ("magic", _MAGICS, magic),
                ("bytenr", (position,), bytenr),
                ("nritems", range(_MAX_ITEMS + 1), nritems),
                ("compress", (_COMPRESS_NONE, _COMPRESS_ZLIB), compress),
            ):
                if found not in expected:
                    raise CorruptError(
                        f"cluster of the dump, {what}",
                        expected=" or ".join(map(str, expected)) if len(expected) < 3 else expected,
                        found=found,
                        device=self.path,
                        paddr=position,
                    )
            position += _CLUSTER_ALIGNMENT
            for index in range(nritems):
                at = _CLUSTER_HEADER.size + index * _CLUSTER_ITEM.size
                vaddr, size = _CLUSTER_ITEM.unpack_from(block, at)
                yield _Piece(vaddr, position, size, compress == _COMPRESS_ZLIB)
                position += size
                if position > file_size:
                    raise self._cut_off(file_size)
            position += -position % _CLUSTER_ALIGNMENT

    def _cut_off(self, file_size: int) -> CorruptError:
        return CorruptError(
            "dump",
            expected="more clusters",
            found=f"its end at {file_size}",
            device=self.path,
            hint="the dump seems to be cut off",
        )
