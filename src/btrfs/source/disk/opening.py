"""Opening a filesystem that is not mounted: from files to a source.

Whatever can be read shall be. So members may be missing, out of date or cut off, and of the chunks
that the tree of chunks does not give any more, those count that the superblock and the backups of
that tree know. What was found to be wrong is remembered in the source's log; only where nothing
can be read at all is it an error.
"""

from __future__ import annotations

import copy
import struct
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from btrfs import constants
from btrfs.constants import SUPER_MIRRORS, ULLONG_MAX
from btrfs.damage import DamageLog, LostKeys
from btrfs.errors import BtrfsError, CorruptError, NotBtrfsError
from btrfs.items.base import SearchHeader
from btrfs.items.chunk import Chunk, Stripe
from btrfs.key import DiskKey, Key
from btrfs.source import lookup
from btrfs.source.base import OnError, ReadOptions
from btrfs.source.disk.chunk_map import ChunkMap
from btrfs.source.disk.devices import Device, find_members, has_superblock, open_device
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.superblock import (
    Superblock,
    is_usable,
    require_supported,
    unsupported_features,
    with_backup_root,
)
from btrfs.source.disk.volume import Volume
from btrfs.source.metadump import Metadump, is_metadump
from btrfs.source.mounts import writable_mount_of
from btrfs.text import counted
from btrfs.volumes import check_chunk

if TYPE_CHECKING:
    from btrfs.items.device import DevItem

__all__ = ["holds_btrfs", "open_unmounted"]

_READ_DIRECTLY = ReadOptions()

_MAX_ROUNDS = 4
"""So often are strangers looked for among the members."""


def holds_btrfs(path: str) -> bool:
    """Return whether a file has a superblock, or is a dump made by btrfs-image."""
    return is_metadump(path) or has_superblock(path)


def open_unmounted(paths: list[str], options: ReadOptions = _READ_DIRECTLY) -> DiskSource:
    """Open a filesystem that is not mounted.

    Args:
        paths: Its devices or images of them, some or all; or one dump made by btrfs-image.
        options: How to read it.

    Raises:
        NotBtrfsError: There is no btrfs in a file.
        CorruptError: There is, but nothing of it can be read.
        UnsupportedFeatureError: The format is not supported.
    """
    dumps = [path for path in paths if is_metadump(path)]
    if not dumps:
        return _open_devices(paths, options)
    if len(paths) > 1:
        raise BtrfsError(
            f"{dumps[0]} is a dump made by btrfs-image",
            hint="give a dump alone: it holds the metadata of all devices",
        )
    if options.superblock:
        raise NotBtrfsError(
            f"{dumps[0]} has no copy {options.superblock} of the superblock",
            hint="a dump made by btrfs-image has one superblock only",
        )
    return _open_dump(dumps[0], options)


def _open_dump(path: str, options: ReadOptions) -> DiskSource:
    dump = Metadump(path)
    try:
        log = DamageLog()
        for words in dump.notes:
            log.note(words)
        superblock = _chosen_state(dump.superblock, options, log)
        return DiskSource(
            path,
            superblock,
            dump,
            log=log,
            on_error=options.on_error,
            close=dump.close,
            is_earlier_state=options.backup_root is not None,
        )
    except BaseException:
        dump.close()
        raise


def _open_devices(paths: list[str], options: ReadOptions) -> DiskSource:
    log = DamageLog()
    members = _Members(log)
    try:
        for path in paths:
            members.open(path, options.superblock)
        members.require_some()
        if len(members.devices) < members.newest().num_devices:
            members.find(paths)
        for _ in range(_MAX_ROUNDS):
            superblock = _chosen_state(members.newest(), options, log)
            superblock, chunks = _chunks(superblock, members.devices, log, options.on_error)
            volume = Volume(members.devices, ChunkMap(chunks))
            items = _device_items(superblock, volume, log)
            uuids = {item.devid: item.uuid for item in items}
            if not members.drop_strangers(uuids):
                break
            # Who comes in their place may have been written to later.
            members.find(paths, uuids)
        members.compare(items, chunks)
        return DiskSource(
            paths[0],
            superblock,
            volume,
            log=log,
            on_error=options.on_error,
            close=members.close,
            devices=members.devices,
            is_earlier_state=options.backup_root is not None,
        )
    except BaseException:
        members.close()
        raise


def _chosen_state(superblock: Superblock, options: ReadOptions, log: DamageLog) -> Superblock:
    """Return the superblock that leads to what is to be read.

    Raises:
        UnsupportedFeatureError: The format is not supported, and it is not to be read all the same.
        BtrfsError: There is no such backup of the root tree.
    """
    if not options.unknown_features:
        require_supported(superblock)
    elif names := unsupported_features(superblock):
        log.note(f"features that are not known here, {names}, may make what is read wrong")
    if options.backup_root is not None:
        superblock = with_backup_root(superblock, options.backup_root)
        log.note(
            f"read from backup root {options.backup_root}, of generation {superblock.generation}"
        )
    if superblock.log_root:
        log.note(
            "not cleanly unmounted: read as of the last commit; what was synced after it is in the"
            " log trees"
        )
    return superblock


class _Members:
    """The devices of a filesystem that there are.

    Args:
        log: Is told what is wrong with them.

    Attributes:
        devices: The devices by their numbers.
    """

    def __init__(self, log: DamageLog) -> None:
        self.devices: dict[int, Device] = {}
        self._log = log
        self._errors: list[BtrfsError] = []
        self._superblock: int | None = None

    def close(self) -> None:
        """Close all files."""
        for device in self.devices.values():
            device.close()

    def open(self, path: str, superblock: int | None) -> None:
        """Open a device that was named, and add it.

        Raises:
            BtrfsError: It belongs to another filesystem than the others.
            OSError: It cannot be opened.
        """
        self._superblock = superblock
        try:
            device = open_device(path, superblock)
        except (NotBtrfsError, CorruptError) as error:
            self._errors.append(error)
        else:
            self._add(device, named=True)

    def require_some(self) -> None:
        """Check that at least one of those that were named could be opened.

        Raises:
            NotBtrfsError: None could: there is no superblock on the first of them.
            CorruptError: There is, but none that is valid.
        """
        if not self.devices:
            raise self._errors[0]
        for error in self._errors:
            self._log.note(f"left out: {error}")

    def find(self, near: list[str], uuids: Mapping[int, UUID] | None = None) -> None:
        """Look for members that were not named; see find_members().

        Args:
            near: Paths of members that are known.
            uuids: UUIDs that the devices must have, by their numbers, as far as known.
        """
        for device in find_members(self.newest().fsid, near, set(self.devices)):
            if _is_stranger(device, uuids or {}):
                device.close()
            else:
                self._add(device, named=False)

    def newest(self) -> Superblock:
        """Return the superblock of the highest generation."""
        superblocks = [device.superblock for device in self.devices.values()]
        return max(superblocks, key=lambda superblock: superblock.generation)

    def drop_strangers(self, uuids: Mapping[int, UUID]) -> bool:
        """Leave out devices whose numbers have been given to others; return whether there are.

        Raises:
            CorruptError: None is left.
        """
        strangers = [device for device in self.devices.values() if _is_stranger(device, uuids)]
        if strangers and len(strangers) == len(self.devices):
            device = strangers[0]
            raise CorruptError(
                f"device {device.devid}",
                expected=f"UUID {uuids[device.devid]}",
                found=device.superblock.dev_item.uuid,
                device=device.path,
                hint="it was a member once; give the one that has its place now",
            )
        for device in strangers:
            self._log.note(f"{device.path} is left out: another device has become {device.devid}")
            del self.devices[device.devid]
            device.close()
        return bool(strangers)

    def compare(self, items: list[DevItem], chunks: list[Chunk]) -> None:
        """Tell which devices are missing, out of date or cut off."""
        newest = self.newest()
        generation = newest.generation
        for devid, device in sorted(self.devices.items()):
            if self._superblock is None and device.superblock.bytenr != SUPER_MIRRORS[0]:
                self._log.note(
                    f"{device.path} is read by the copy of its superblock at"
                    f" {device.superblock.bytenr}"
                )
            if device.superblock.generation < generation:
                self._log.note(
                    f"device {devid} ({device.path}) is out of date: of generation"
                    f" {device.superblock.generation} instead of {generation}"
                )
            mount = writable_mount_of(device.path)
            if mount is not None:
                self._log.note(f"{device.path} is mounted at {mount} and may be changing")
            if device.missing_bytes:
                self._log.note(
                    f"device {devid} ({device.path}) is cut off: {device.size} of"
                    f" {device.superblock.dev_item.total_bytes} bytes are there"
                )
        for item in items:
            if item.fsid != newest.header_fsid:
                self._log.note(
                    f"device {item.devid} is of a seed filesystem, {item.fsid}, which is not read"
                )
        needed = {item.devid for item in items}
        needed.update(stripe.devid for chunk in chunks for stripe in chunk.stripes)
        missing = sorted(needed - self.devices.keys())
        if missing:
            names = f"{', '.join(map(str, missing[:-1]))} and {missing[-1]}"
            self._log.note(
                f"device {missing[0]} is missing"
                if len(missing) == 1
                else f"devices {names} are missing"
            )

    def _add(self, device: Device, *, named: bool) -> None:
        """Add a device. Of two of the same number, the one that was written to last stays."""
        for other in self.devices.values():
            if other.superblock.fsid != device.superblock.fsid:
                device.close()
                raise BtrfsError(
                    f"{other.path} and {device.path} belong to different filesystems",
                    hint=f"their UUIDs are {other.superblock.fsid} and {device.superblock.fsid}",
                )
        for damage in device.damaged:
            self._log.add(damage, None, recovered=True)
        other = self.devices.setdefault(device.devid, device)
        if other is device:
            return
        if device.superblock.generation > other.superblock.generation:
            self.devices[device.devid], device, other = device, other, device
        device.close()
        if named:
            is_older = device.superblock.generation < other.superblock.generation
            self._log.note(
                f"{device.path} is given twice"
                if device.path == other.path
                else f"{device.path} is left out: it is device {device.devid}, as {other.path} is,"
                f" and {'older' if is_older else 'no newer'}"
            )


def _is_stranger(device: Device, uuids: Mapping[int, UUID]) -> bool:
    """Return whether the number of a device is that of another one, given the UUIDs of members."""
    uuid = device.superblock.dev_item.uuid
    return uuids.get(device.devid, uuid) != uuid


def _chunks(
    superblock: Superblock, devices: dict[int, Device], log: DamageLog, on_error: OnError
) -> tuple[Superblock, list[Chunk]]:
    """Return all chunks that are known, and a superblock that leads to the best chunk tree.

    The superblock has the chunks that the chunk tree itself lies in. Where that tree is damaged,
    what it was at one of the last commits helps: chunks seldom change. It is also read in place of
    the current one if nothing of that is left, unless what cannot be read shall be an error.

    Raises:
        CorruptError: Not one chunk is known.
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
        log.lose(LostKeys(constants.CHUNK_TREE_OBJECTID, Key(0, 0, 0), Key(-1, -1, -1), reason))
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
        before, behind = self.chunks[max(0, index - 1) : index], self.chunks[index : index + 1]
        if any(other.vaddr + other.length > chunk.vaddr for other in before):
            return False
        if any(other.vaddr < chunk.vaddr + chunk.length for other in behind):
            return False
        self.chunks.insert(index, chunk)
        return True


def _chunks_of_tree(
    superblock: Superblock, volume: Volume, log: DamageLog
) -> tuple[list[Chunk], bool]:
    """Return what can be read of the chunk tree's chunks, and whether that is all."""
    source = _salvaging(superblock, volume)
    chunks = list(lookup.chunks(source, 0, ULLONG_MAX))
    log.absorb(source.log)
    return chunks, not source.log.lost


def _device_items(superblock: Superblock, volume: Volume, log: DamageLog) -> list[DevItem]:
    """Return what can be read of the chunk tree's devices."""
    source = _salvaging(superblock, volume)
    items = source.device_items()
    log.absorb(source.log)
    return items


def _salvaging(superblock: Superblock, volume: Volume) -> DiskSource:
    """Return a source that leaves out what it cannot read."""
    return DiskSource("", superblock, volume, log=DamageLog(), on_error="skip", close=lambda: None)


def _system_chunks(superblock: Superblock, log: DamageLog) -> Iterator[Chunk]:
    """Yield the chunks in the superblock's array: keys and chunk items in turn.

    Raises:
        CorruptError: There is none.
    """
    found = 0
    try:
        for chunk in _parsed_system_chunks(superblock):
            yield chunk
            found += 1
    except CorruptError as error:
        if not found:
            raise
        log.add(error, None, recovered=False)
    if not found:
        raise CorruptError("sys_chunk_array", expected="at least one chunk", found="none")


def _parsed_system_chunks(superblock: Superblock) -> Iterator[Chunk]:
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
