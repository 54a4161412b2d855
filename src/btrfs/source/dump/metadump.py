"""A dump made by btrfs-image: the tree blocks of a filesystem and its superblock, nothing else.

The file is a row of clusters. Each begins with an index block that lists the entries after it: one
tree block or several adjacent ones by their virtual address, perhaps compressed
(struct meta_cluster in btrfs-progs' image/metadump.h). Addresses are virtual, so that no device and
no map of chunks is needed to read it.

A cluster is found from the one before it. So where one of them is damaged, or where the file is cut
off, the dump ends, and what comes before that place is used.

An entry can be as large as 256 MiB. Of one that is not compressed, only what is wanted is read; for
those that are, there is :mod:`btrfs.source.dump.inflater`.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from btrfs.errors import CorruptError
from btrfs.ondisk.constants import SUPER_INFO_SIZE, SUPER_MIRRORS
from btrfs.source.descriptor import Descriptor
from btrfs.source.disk.store import Copy
from btrfs.source.disk.superblock import Superblock, parse_superblock
from btrfs.source.dump.entries import DumpEntries, DumpEntry
from btrfs.source.dump.inflater import Inflater

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btrfs.source.disk.devices import Device

__all__ = ["Metadump", "is_metadump"]

_MAX_ENTRY_SIZES = {0xBD5C25E27295668B: 256 << 10, 0x31765F506D55445F: 256 << 20}
"""By the magic number of each version, how many bytes of metadata it puts into one entry at most
(max_pending_size in btrfs-progs)."""

_CLUSTER_ALIGNMENT = 1024
_CLUSTER_HEADER = struct.Struct("<QQIB")
_CLUSTER_ITEM = struct.Struct("<QI")
_MAX_ITEMS = (_CLUSTER_ALIGNMENT - _CLUSTER_HEADER.size) // _CLUSTER_ITEM.size
_COMPRESS_NONE, _COMPRESS_ZLIB = 0, 1

# A tree block of 64 KiB has no more parts than this, as each is a sector at least.
_MAX_PARTS = 16


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
    return len(start) == 8 and int.from_bytes(start, "little") in _MAX_ENTRY_SIZES


class Metadump:
    """A dump as a store of tree blocks. See :class:`btrfs.source.disk.store.BlockStore`.

    Attributes:
        path: The file.
        superblock: The superblock in it.
        notes: How far the dump is good, if it is not good as a whole.

    Raises:
        CorruptError: There is no valid superblock in the good part of it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.notes: list[str] = []
        self._descriptor = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        try:
            self._size = os.fstat(self._descriptor.fd).st_size
            self._magic = self._read_magic()
            self._limit = _MAX_ENTRY_SIZES[self._magic]
            self._entries = DumpEntries()
            self._read_clusters()
            self._entries.sort()
            self._inflater = Inflater(self._entries, self._pread, self._limit)
            self.superblock = self._read_superblock()
        except BaseException:
            self.close()
            raise

    @property
    def devices(self) -> Mapping[int, Device]:
        """None: a dump has the metadata of all devices, but not where on them it lay."""
        return {}

    def is_stale(self) -> bool:
        """Return False: a dump does not change."""
        return False

    def close(self) -> None:
        """Close the file."""
        self._descriptor.close()

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield the block; a sound dump has only one copy of each.

        Raises:
            CorruptError: The dump does not have it.
        """
        missing = True
        for number in self._entries.before(vaddr):
            entry = self._entries[number]
            offset = vaddr - entry.vaddr
            paddr = entry.position if entry.compressed else entry.position + offset
            data: bytes | CorruptError
            try:
                data = self._read_entry(number, offset, length)
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
        """Return metadata of which the first bytes are known, with the rest from other entries.

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
        """Return the bytes of some metadata that one entry has; none if no entry has the first.

        Raises:
            CorruptError: An entry has them, but they cannot be read.
        """
        for number in self._entries.before(vaddr):
            part = self._read_entry(number, vaddr - self._entries[number].vaddr, length)
            if part:
                return part
        return b""

    def _read_entry(self, number: int, offset: int, length: int) -> bytes:
        """Return bytes of an entry; fewer than wanted if it ends before, none if it has none there.

        Raises:
            CorruptError: It has them, but they cannot be read.
        """
        entry = self._entries[number]
        most = self._limit if entry.compressed else entry.stored_size
        wanted = min(length, most - offset)
        if wanted <= 0:
            return b""
        if entry.compressed:
            data = self._inflater.read(number, offset, wanted)
            fault = self._inflater.faults.get(number)
            if len(data) < wanted and fault is not None:
                raise CorruptError(
                    f"dump, metadata at {entry.vaddr}",
                    expected="compressed metadata",
                    found=fault,
                    device=self.path,
                    paddr=entry.position,
                )
            return data
        data = self._pread(wanted, entry.position + offset)
        if len(data) < wanted:
            raise CorruptError(
                f"dump, metadata at {entry.vaddr}",
                expected=f"{entry.stored_size} bytes",
                found=f"the end of the dump at {self._size}",
                device=self.path,
                paddr=entry.position,
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
        if magic not in _MAX_ENTRY_SIZES:
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
        """Find all entries, and note how far the dump is good if it is not to its end."""
        position = 0
        try:
            while position < self._size:
                position = self._read_cluster(position)
        except CorruptError as error:
            why = CorruptError(error.what, expected=error.expected, found=error.found)
            self.notes.append(f"the dump is good up to byte {error.paddr} of {self._size} ({why})")

    def _read_cluster(self, position: int) -> int:
        """Find the entries of a cluster; return where the next one begins.

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
                self._entries.add(DumpEntry(vaddr, position, size, compressed))
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
        """Return the number of entries of a cluster, and whether they are compressed.

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
