"""Which chunks and devices a filesystem has, even if the chunk tree is damaged.

The superblock has the chunks that this tree itself lies in, and its backups lead to the tree as it
was at earlier commits.
"""

from __future__ import annotations

import copy
import struct
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.items.chunk import Chunk, Stripe
from btrfs.ondisk.key import DiskKey, Key
from btrfs.ondisk.profiles import check_chunk
from btrfs.ondisk.text import counted
from btrfs.source import lookup
from btrfs.source.base import OnError, ReadOptions
from btrfs.source.damage import DamageLog, LostKeys
from btrfs.source.disk.chunk_map import ChunkMap
from btrfs.source.disk.devices import Device
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.store import BlockStore
from btrfs.source.disk.superblock import Superblock, is_usable
from btrfs.source.disk.volume import Volume

if TYPE_CHECKING:
    from btrfs.ondisk.items.device import DevItem

__all__ = ["parsed_system_chunks", "recover_chunks", "recover_devices", "seeds_of"]


def recover_chunks(
    superblock: Superblock, devices: Mapping[int, Device], log: DamageLog, on_error: OnError
) -> tuple[Superblock, list[Chunk]]:
    """Return all chunks that can be read, and a superblock that leads to the best chunk tree.

    The superblock has the chunks that the chunk tree itself lies in. Where that tree is damaged,
    what it was at one of the last commits helps: chunks seldom change. It is also read in place of
    the current one if nothing of that is left, unless on_error is 'raise'.

    Raises:
        CorruptError: Not one chunk can be read.
    """
    system = _Disjoint()
    for chunk in _system_chunks(superblock, log):
        system.add(chunk)
    volume = Volume(devices, ChunkMap(system.chunks))
    current, is_whole = _chunks_of_tree(superblock, volume, log)
    known = _Disjoint()
    for chunk in current:
        if not known.add(chunk):
            overlapping = CorruptError(
                f"chunk at {chunk.vaddr}", expected="no other chunk there", found="another one"
            )
            log.add(overlapping, chunk.vaddr, recovered=False)
    if is_whole:
        return superblock, known.chunks
    for chunk in system.chunks:
        known.add(chunk)
    best = superblock
    for before in _superblocks_with_older_chunk_trees(superblock):
        found, is_whole = _chunks_of_tree(before, volume, DamageLog())
        for chunk in found:
            known.add(chunk)
        is_wanted = on_error == "skip" and not current
        if is_whole and is_wanted and best is superblock:
            best = before
    chunks = counted(len(known.chunks), "chunk")
    if best is superblock:
        log.note(
            f"the chunk tree cannot be read as a whole: {chunks} known from what is left of it, the"
            " superblock and its backups"
        )
    else:
        reason = f"read as it was at generation {best.chunk_root_generation}: {chunks}"
        log.note(f"the chunk tree cannot be read, and is {reason}")
        log.add_lost(LostKeys(constants.CHUNK_TREE_OBJECTID, Key(0, 0, 0), Key(-1, -1, -1), reason))
    return best, known.chunks


def _superblocks_with_older_chunk_trees(superblock: Superblock) -> Iterator[Superblock]:
    """Yield superblocks that lead to the chunk tree as it was at earlier commits, newest first."""
    roots = {
        (backup.chunk_root_gen, backup.chunk_root, backup.chunk_root_level)
        for backup in superblock.backups
        if is_usable(backup) and backup.chunk_root != superblock.chunk_root
    }
    for generation, address, level in sorted(roots, reverse=True):
        before = copy.copy(superblock)
        before.chunk_root = address
        before.chunk_root_generation = generation
        before.chunk_root_level = level
        yield before


class _Disjoint:
    """Chunks of which no two overlap, in the order of their addresses."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def add(self, chunk: Chunk) -> bool:
        """Add a chunk, unless its place is taken; return whether it was not."""
        index = bisect_left(self.chunks, chunk.vaddr, key=lambda other: other.vaddr)
        before, after = self.chunks[max(0, index - 1) : index], self.chunks[index : index + 1]
        if any(other.vaddr + other.length > chunk.vaddr for other in before):
            return False
        if any(other.vaddr < chunk.vaddr + chunk.length for other in after):
            return False
        self.chunks.insert(index, chunk)
        return True


def _chunks_of_tree(
    superblock: Superblock, volume: Volume, log: DamageLog
) -> tuple[list[Chunk], bool]:
    """Return the chunks that can be read from the chunk tree, and whether these are all."""
    source = _salvaging(superblock, volume)
    chunks = list(lookup.chunks(source, 0, ULLONG_MAX))
    log.absorb(source.log)
    return chunks, not source.log.lost


def recover_devices(superblock: Superblock, volume: Volume, log: DamageLog) -> list[DevItem]:
    """Return the device items that can be read from the chunk tree."""
    source = _salvaging(superblock, volume)
    items = source.device_items()
    log.absorb(source.log)
    return items


def seeds_of(superblock: Superblock, store: BlockStore) -> frozenset[UUID]:
    """Return the UUIDs in the headers of blocks that belong to seeds of a filesystem.

    Its device items name them. The kernel writes the chunk tree anew when a filesystem begins to
    grow on a seed, so that no such UUID is needed to read them. Where they are damaged, devices of
    seeds that are at hand help.
    """
    given = {device.superblock.header_fsid for device in store.devices.values()}
    source = _skipping(superblock, store, given - {superblock.header_fsid})
    named = {item.fsid for item in source.device_items()}
    return frozenset(given | named) - {superblock.header_fsid}


def _salvaging(superblock: Superblock, store: BlockStore) -> DiskSource:
    """Return a source that leaves out what it cannot read."""
    return _skipping(superblock, store, seeds_of(superblock, store))


def _skipping(superblock: Superblock, store: BlockStore, seeds: Collection[UUID]) -> DiskSource:
    return DiskSource("", superblock, store, DamageLog(), ReadOptions(on_error="skip"), seeds)


def _system_chunks(superblock: Superblock, log: DamageLog) -> Iterator[Chunk]:
    """Yield the chunks in the superblock's array: keys and chunk items in turn.

    Raises:
        CorruptError: There is none.
    """
    found = 0
    try:
        for chunk in parsed_system_chunks(superblock):
            yield chunk
            found += 1
    except CorruptError as error:
        if not found:
            raise
        log.add(error, None, recovered=False)
    if not found:
        raise CorruptError("sys_chunk_array", expected="at least one chunk", found="none")


def parsed_system_chunks(superblock: Superblock) -> Iterator[Chunk]:
    """Yield the chunks in the superblock's array.

    Raises:
        CorruptError: Something in the array is no chunk. Those before it have been yielded.
    """
    data = superblock.sys_chunk_array[: superblock.sys_chunk_array_size]
    pos = 0
    while pos < len(data):
        try:
            key = DiskKey(data, pos)
        except struct.error:
            raise CorruptError(
                "sys_chunk_array", expected="a key", found=f"{len(data) - pos} bytes"
            ) from None
        pos += DiskKey.struct_size
        if key.type != constants.CHUNK_ITEM_KEY:
            raise CorruptError("sys_chunk_array", expected="a chunk", found=key)
        header = SearchHeader(
            superblock.chunk_root_generation, key.objectid, key.offset, key.type, len(data) - pos
        )
        chunk = Chunk(header, data[pos:])
        check_chunk(chunk)
        yield chunk
        pos += Chunk.struct_size + len(chunk.stripes) * Stripe.struct_size
