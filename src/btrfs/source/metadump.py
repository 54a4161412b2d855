"""A dump made by btrfs-image: the tree blocks of a filesystem and its superblock, nothing else.

The file is a row of clusters. Each begins with an index block that lists what follows: pieces of
metadata by their virtual addresses, one block or several adjacent ones, perhaps compressed
(struct meta_cluster in btrfs-progs' image/metadump.h). Addresses are virtual, so that no device and
no map of chunks is needed to read it.

A cluster is found from the one before it. So where one of them is damaged, or where the file is cut
off, the dump ends for us, and what is before that place is used.

A piece can be as large as 256 MiB. Of one that is not compressed, only what is wanted is read. One
that is compressed is read by windows, and states of the decompressor are kept, from which it can go
on, so that to read at any place neither fills the memory nor begins at the beginning each time.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
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

_MAX_PIECE_SIZES = {0xBD5C25E27295668B: 256 << 10, 0x31765F506D55445F: 256 << 20}
"""By the magic number of each version, how many bytes of metadata it puts into one piece at most
(max_pending_size in btrfs-progs)."""

_CLUSTER_ALIGNMENT = 1024
_CLUSTER_HEADER = struct.Struct("<QQIB")
_CLUSTER_ITEM = struct.Struct("<QI")
_MAX_ITEMS = (_CLUSTER_ALIGNMENT - _CLUSTER_HEADER.size) // _CLUSTER_ITEM.size
_COMPRESS_NONE, _COMPRESS_ZLIB = 0, 1

# Pieces do not overlap in a sound dump. In another one, so many are tried for each address.
_MAX_CANDIDATES = 4
# A tree block of 64 KiB has no more parts than this, as each is a sector at least.
_MAX_PARTS = 16

# Of compressed pieces.
_WINDOW_SIZE = 1 << 20
_CACHED_BYTES = 16 << 20
_CACHE_ENTRY_BYTES = 256
# The state of a decompressor takes up to 50 KiB.
_MAX_CHECKPOINTS = 256
# What zlib was given last is lost if there is an error in it, so it is given little.
_INPUT_SIZE = 4096


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
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        start = os.pread(fd, 8, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError:
        # The beginning of a device can be unreadable, and all else good.
        return False
    finally:
        os.close(fd)
    return len(start) == 8 and int.from_bytes(start, "little") in _MAX_PIECE_SIZES


class Metadump:
    """A dump as a store of tree blocks. See :class:`btrfs.source.disk.store.BlockStore`.

    Attributes:
        path: The file.
        superblock: The superblock in it.
        notes: How far the dump is good, where it is not as a whole.

    Raises:
        CorruptError: There is no valid superblock in what is good of it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.notes: list[str] = []
        self._descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        try:
            self._size = os.fstat(self._descriptor.fd).st_size
            self._magic = self._read_magic()
            self._limit = _MAX_PIECE_SIZES[self._magic]
            self._pieces = _Pieces()
            self._read_clusters()
            self._pieces.sort()
            self._inflater = _Inflater(self._pieces, self._pread, self._limit)
            self.superblock = self._read_superblock()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._descriptor.close()

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield the block; a sound dump has only one copy of each.

        Raises:
            CorruptError: The dump does not have it.
        """
        missing = True
        for number in self._pieces.before(vaddr):
            piece = self._pieces[number]
            offset = vaddr - piece.vaddr
            paddr = piece.position if piece.compressed else piece.position + offset
            data: bytes | CorruptError
            try:
                data = self._read_piece(number, offset, length)
                if not data:
                    continue
                data = self._completed(data, vaddr, length)
            except CorruptError as error:
                data = error
            missing = False
            yield Copy(self.path, paddr, data)
        if missing:
            raise self._not_there(vaddr)

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
        """Return bytes of metadata.

        Raises:
            CorruptError: The dump does not have them.
        """
        return self._completed(b"", vaddr, length)

    def _completed(self, data: bytes, vaddr: int, length: int) -> bytes:
        """Return bytes of metadata of which some are there, the rest from the pieces that follow.

        Raises:
            CorruptError: The dump does not have all of them.
        """
        for _ in range(_MAX_PARTS):
            part = self._part(vaddr + len(data), length - len(data))
            data += part
            if not part or len(data) == length:
                break
        if len(data) < length:
            raise self._not_there(vaddr)
        return data

    def _part(self, vaddr: int, length: int) -> bytes:
        """Return what one piece has of some metadata, none if no piece has it.

        Raises:
            CorruptError: It has that, but it cannot be read.
        """
        for number in self._pieces.before(vaddr):
            part = self._read_piece(number, vaddr - self._pieces[number].vaddr, length)
            if part:
                return part
        return b""

    def _read_piece(self, number: int, offset: int, length: int) -> bytes:
        """Return bytes of a piece; fewer than wanted if it ends before, none if it has none there.

        Raises:
            CorruptError: It has them, but they cannot be read.
        """
        piece = self._pieces[number]
        most = self._limit if piece.compressed else piece.stored_size
        wanted = min(length, most - offset)
        if wanted <= 0:
            return b""
        if piece.compressed:
            data = self._inflater.read(number, offset, wanted)
            fault = self._inflater.faults.get(number)
            if len(data) < wanted and fault is not None:
                raise CorruptError(
                    f"dump, metadata at {piece.vaddr}",
                    expected="compressed metadata",
                    found=fault,
                    device=self.path,
                    paddr=piece.position,
                )
            return data
        data = self._pread(wanted, piece.position + offset)
        if len(data) < wanted:
            raise CorruptError(
                f"dump, metadata at {piece.vaddr}",
                expected=f"{piece.stored_size} bytes",
                found=f"the end of the dump at {self._size}",
                device=self.path,
                paddr=piece.position,
            )
        return data

    def _pread(self, length: int, position: int) -> bytes:
        """Return bytes of the file, fewer at its end.

        Raises:
            CorruptError: They cannot be read.
        """
        try:
            return os.pread(self._descriptor.fd, length, position)
        except OSError as error:
            raise CorruptError(
                f"dump, {error.strerror}", device=self.path, paddr=position
            ) from None

    def _not_there(self, vaddr: int) -> CorruptError:
        return CorruptError(
            f"tree block at {vaddr}",
            expected="to be in the dump",
            found="it is not",
            hint=self.notes[0]
            if self.notes
            else "if the dump is not cut off, btrfs-image -w finds more in a damaged filesystem",
        )

    def _read_magic(self) -> int:
        """Return the magic number, which says what version the dump is of.

        Raises:
            CorruptError: There is none.
        """
        magic = int.from_bytes(self._pread(8, 0), "little")
        if magic not in _MAX_PIECE_SIZES:
            raise CorruptError(
                "dump", expected="the magic number of one", found=magic, device=self.path, paddr=0
            )
        return magic

    def _read_superblock(self) -> Superblock:
        """Return the superblock.

        Raises:
            CorruptError: There is no valid one.
        """
        paddr = SUPER_MIRRORS[0]
        errors = []
        try:
            for _, _, data, _ in self.read_copies(paddr, SUPER_INFO_SIZE):
                try:
                    if not isinstance(data, bytes):
                        raise data
                    superblock = parse_superblock(data, self.path, paddr)
                except CorruptError as error:
                    errors.append(error)
                else:
                    if superblock is not None:
                        return superblock
        except CorruptError:
            pass
        found = "; ".join([*map(str, errors[:1]), *self.notes]) or "none"
        raise CorruptError("dump", expected="a superblock", found=found, device=self.path)

    def _read_clusters(self) -> None:
        """Find all pieces, and note how far the dump is good if it is not to its end."""
        position = 0
        try:
            while position < self._size:
                position = self._read_cluster(position)
        except CorruptError as error:
            why = CorruptError(error.what, expected=error.expected, found=error.found)
            self.notes.append(f"the dump is good up to byte {error.paddr} of {self._size} ({why})")

    def _read_cluster(self, position: int) -> int:
        """Find the pieces of a cluster; return where the next one begins.

        Raises:
            CorruptError: Something of the cluster is not as it must be, or cut off; its place is
                where that begins.
        """
        block = self._pread(_CLUSTER_ALIGNMENT, position)
        nritems, compressed = self._check_cluster(block, position)
        ends_within: CorruptError | None = None
        position += _CLUSTER_ALIGNMENT
        start = _CLUSTER_HEADER.size
        items = block[start : start + nritems * _CLUSTER_ITEM.size]
        for vaddr, size in _CLUSTER_ITEM.iter_unpack(items):
            if size:
                self._pieces.add(_Piece(vaddr, position, size, compressed))
            if position + size > self._size and ends_within is None:
                ends_within = CorruptError(
                    f"metadata at {vaddr}",
                    expected=f"{size} bytes",
                    found=f"{max(0, self._size - position)} bytes",
                    paddr=min(position, self._size),
                )
            position += size
        if ends_within is not None:
            raise ends_within
        end = position + -position % _CLUSTER_ALIGNMENT
        if end > self._size:
            # Every cluster is filled up to this alignment, the last one too.
            raise CorruptError(
                "cluster of the dump",
                expected=f"to end at {end}",
                found=f"the end of the dump at {self._size}",
                paddr=self._size,
            )
        return end

    def _check_cluster(self, block: bytes, position: int) -> tuple[int, bool]:
        """Return the number of pieces of a cluster, and whether they are compressed.

        Raises:
            CorruptError: It is cut off, or a field is not as it must be.
        """
        if len(block) < _CLUSTER_ALIGNMENT:
            raise CorruptError(
                "cluster of the dump",
                expected=f"{_CLUSTER_ALIGNMENT} bytes",
                found=f"{len(block)} bytes",
                paddr=position,
            )
        magic, bytenr, nritems, compress = _CLUSTER_HEADER.unpack_from(block)
        for what, is_right, expected, found in (
            ("magic", magic == self._magic, self._magic, magic),
            ("bytenr", bytenr == position, position, bytenr),
            ("nritems", nritems <= _MAX_ITEMS, f"at most {_MAX_ITEMS}", nritems),
            ("compress", compress in (_COMPRESS_NONE, _COMPRESS_ZLIB), "0 or 1", compress),
        ):
            if not is_right:
                raise CorruptError(
                    f"cluster of the dump, {what}", expected=expected, found=found, paddr=position
                )
        return nritems, compress == _COMPRESS_ZLIB


class _Pieces:
    """All pieces of a dump, by numbers in the order of their addresses.

    They are kept in arrays, as a file can have far more of them than there is room for objects.
    """

    def __init__(self) -> None:
        self._vaddrs = array("Q")
        self._positions = array("Q")
        self._stored_sizes = array("I")
        self._compressed = array("B")

    def __len__(self) -> int:
        return len(self._vaddrs)

    def __getitem__(self, number: int) -> _Piece:
        return _Piece(
            self._vaddrs[number],
            self._positions[number],
            self._stored_sizes[number],
            bool(self._compressed[number]),
        )

    def add(self, piece: _Piece) -> None:
        """Add a piece. When all are there, they have to be sorted."""
        self._vaddrs.append(piece.vaddr)
        self._positions.append(piece.position)
        self._stored_sizes.append(piece.stored_size)
        self._compressed.append(piece.compressed)

    def sort(self) -> None:
        """Put the pieces into the order of their addresses."""
        order = sorted(range(len(self)), key=self._vaddrs.__getitem__)
        self._vaddrs, self._positions, self._stored_sizes, self._compressed = (
            array(values.typecode, map(values.__getitem__, order))
            for values in (self._vaddrs, self._positions, self._stored_sizes, self._compressed)
        )

    def before(self, vaddr: int) -> Iterator[int]:
        """Yield the pieces that an address could be in, the nearest first."""
        nearest = bisect_right(self._vaddrs, vaddr) - 1
        yield from range(nearest, max(-1, nearest - _MAX_CANDIDATES), -1)


class _Checkpoint(NamedTuple):
    """Where the decompression of a piece can go on.

    Attributes:
        number: The piece.
        window: The window that comes next.
        decompressor: What comes before it went through this.
        consumed: How many stored bytes that were.
    """

    number: int
    window: int
    decompressor: zlib._Decompress
    consumed: int


class _Inflater:
    """Reads compressed pieces at any place.

    Args:
        pieces: The pieces.
        pread: Reads so many bytes at a position of the file.
        limit: Bytes of metadata that a piece has at most; what is behind them is never read.

    Attributes:
        faults: What is wrong with pieces that cannot be decompressed to their ends.
    """

    def __init__(self, pieces: _Pieces, pread: Callable[[int, int], bytes], limit: int) -> None:
        self.faults: dict[int, str] = {}
        self._pieces = pieces
        self._pread = pread
        self._limit = limit
        # Bytes of metadata in each piece, as far as they are known yet.
        self._sizes = array("Q", [limit]) * len(pieces)
        self._windows: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._cached_bytes = 0
        self._checkpoints: dict[tuple[int, int], _Checkpoint] = {}
        self._spacing = 1
        self._last: _Checkpoint | None = None

    def read(self, number: int, offset: int, length: int) -> bytes:
        """Return bytes of a piece, fewer where it ends or cannot be decompressed any further."""
        data = b""
        while len(data) < length:
            window, start = divmod(offset + len(data), _WINDOW_SIZE)
            part = self._window(number, window)[start : start + length - len(data)]
            if not part:
                break
            data += part
        return data

    def _window(self, number: int, window: int) -> bytes:
        """Return a window of a piece."""
        key = (number, window)
        if key in self._windows:
            self._windows.move_to_end(key)
            return self._windows[key]
        data = b""
        point: _Checkpoint | None = None
        if window * _WINDOW_SIZE < self._sizes[number]:
            point = self._nearest(number, window)
        while point is not None and point.window <= window:
            is_last = point.window == window
            data, point = self._inflate(point)
            self._keep(point)
            if is_last:
                self._cache(key, data)
                return data
        return b""

    def _cache(self, key: tuple[int, int], data: bytes) -> None:
        self._windows[key] = data
        self._cached_bytes += len(data) + _CACHE_ENTRY_BYTES
        while self._cached_bytes > _CACHED_BYTES:
            _, oldest = self._windows.popitem(last=False)
            self._cached_bytes -= len(oldest) + _CACHE_ENTRY_BYTES

    def _nearest(self, number: int, window: int) -> _Checkpoint:
        """Return from where it is the shortest way to a window."""
        nearest = _Checkpoint(number, 0, zlib.decompressobj(), 0)
        for multiple in range(window - window % self._spacing, 0, -self._spacing):
            if saved := self._checkpoints.get((number, multiple)):
                nearest = saved._replace(decompressor=saved.decompressor.copy())
                break
        last = self._last
        if last and last.number == number and nearest.window <= last.window <= window:
            self._last = None
            return last
        return nearest

    def _keep(self, point: _Checkpoint | None) -> None:
        """Remember where a decompression can go on, every other such place if there are many."""
        self._last = point
        if point is None or point.window % self._spacing:
            return
        key = (point.number, point.window)
        if key not in self._checkpoints:
            copied = point._replace(decompressor=point.decompressor.copy())
            self._checkpoints[key] = copied
        if len(self._checkpoints) > _MAX_CHECKPOINTS:
            self._spacing *= 2
            self._checkpoints = {
                key: saved
                for key, saved in self._checkpoints.items()
                if saved.window % self._spacing == 0
            }

    def _inflate(self, point: _Checkpoint) -> tuple[bytes, _Checkpoint | None]:
        """Return the window at a checkpoint, and the next checkpoint; None at the end."""
        number, window, decompressor, consumed = point
        left = min(_WINDOW_SIZE, self._limit - window * _WINDOW_SIZE)
        parts = []
        fault = None
        while left and not decompressor.eof and fault is None:
            part, consumed, fault = self._step(point, consumed, left)
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        if fault is not None:
            self.faults[number] = fault
        end = window * _WINDOW_SIZE + len(data)
        if decompressor.eof or fault is not None or end == self._limit:
            self._sizes[number] = end
            return data, None
        return data, _Checkpoint(number, window + 1, decompressor, consumed)

    def _step(
        self, point: _Checkpoint, consumed: int, length: int
    ) -> tuple[bytes, int, str | None]:
        """Go on a little.

        Args:
            point: Where the window begins; its decompressor has come further since.
            consumed: How many stored bytes that took.
            length: Bytes that are wanted.

        Returns:
            Some of the bytes that are wanted, how many stored bytes were taken by then, and what
            is wrong with them if it cannot go on.
        """
        piece, decompressor = self._pieces[point.number], point.decompressor
        stored = decompressor.unconsumed_tail
        try:
            if not stored:
                size = min(_INPUT_SIZE, piece.stored_size - consumed)
                stored = self._pread(size, piece.position + consumed)
                consumed += len(stored)
            part = decompressor.decompress(stored, length)
        except (zlib.error, CorruptError) as error:
            return b"", consumed, str(error)
        if stored or part or decompressor.eof:
            return part, consumed, None
        return b"", consumed, f"{consumed} bytes, which are only its beginning"
