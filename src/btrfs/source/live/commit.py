"""The last commit of a mounted filesystem: its superblock, devices and chunks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import copy
from typing import NamedTuple
from uuid import UUID

from btrfs.errors import BtrfsError, CorruptError, NotBtrfsError
from btrfs.source.base import ReadOptions
from btrfs.source.damage import DamageLog
from btrfs.source.disk.chunk_map import ChunkMap
from btrfs.source.disk.chunk_recovery import recover_chunks, recover_devices, seeds_of
from btrfs.source.disk.members import newest_superblock, note_state, own_devices
from btrfs.source.disk.store import UNREADABLE
from btrfs.source.disk.superblock import Superblock
from btrfs.source.kernel import KernelSource
from btrfs.source.live.devices import LiveDevice
from btrfs.source.live.volume import LiveVolume
from btrfs.source.opening import chosen_state

__all__ = ["Commit", "last_commit"]

# So often is it tried again what did not succeed because the kernel was committing meanwhile.
_TRIES = 10
_SECONDS_BETWEEN = 0.01

# So long may a commit take that writes the superblock of a new device.
_SECONDS_FOR_COMMIT = 5.0


class Commit(NamedTuple):
    """A commit of a mounted filesystem.

    Attributes:
        superblock: Its superblock.
        volume: Its devices and chunks.
        seeds: UUIDs in the headers of blocks that belong to seed filesystems of it.
    """

    superblock: Superblock
    volume: LiveVolume
    seeds: frozenset[UUID]


def last_commit(
    kernel: KernelSource, options: ReadOptions, log: DamageLog, before: Commit | None = None
) -> Commit:
    """Return the last commit of a mounted filesystem.

    Args:
        kernel: Knows which devices it has.
        options: How to read it.
        log: Gets notes about its state instead of those that it has, and damage.
        before: An earlier commit. If it has the same chunks and devices, these are not read again.

    Raises:
        BtrfsError: It cannot be read; a device must not be opened.
        CorruptError: Not one chunk can be read.
        UnsupportedFeatureError: The format is not supported.
    """
    known = {} if before is None else before.volume.devices
    for tries_left in reversed(range(_TRIES)):
        found = DamageLog()
        devices = _devices(kernel, known, found)
        superblock = _without_log_trees(newest_superblock(devices))
        if before is not None and _has_same_chunks(before, superblock, devices):
            chunk_map = before.volume.chunk_map
            volume = LiveVolume(devices, chunk_map, superblock.generation)
            return Commit(superblock, volume, before.seeds)
        try:
            commit = _with_chunks(superblock, devices, options, found)
        except NotBtrfsError:
            # A device was removed meanwhile.
            if not tries_left:
                raise
            continue
        except UNREADABLE:
            if not tries_left or not _is_stale(superblock, devices):
                raise
            continue
        if not tries_left or found.summary() is None or not commit.volume.is_stale():
            break
    log.notes[:] = found.notes
    log.absorb(found)
    return commit


def _devices(
    kernel: KernelSource, known: Mapping[int, LiveDevice], log: DamageLog
) -> dict[int, LiveDevice]:
    """Return the devices that the kernel uses, with their superblocks read anew.

    Args:
        kernel: Knows their paths.
        known: Devices that are open.
        log: Gets a note about each that cannot be used.

    Raises:
        BtrfsError: None can be used, or one must not be opened.
    """
    end = time.monotonic() + _SECONDS_FOR_COMMIT
    while True:
        devices, failures = _opened(kernel, known)
        # A device that has replaced another has no superblock before the next commit.
        is_new = any(isinstance(error, BtrfsError) for error in failures.values())
        if not is_new or time.monotonic() > end:
            break
        time.sleep(_SECONDS_BETWEEN)
    for devid, error in failures.items():
        log.note(f"device {devid} is left out: {error}")
    if not devices:
        raise next(
            iter(failures.values()), BtrfsError(f"{kernel.path} has no device that can be read")
        )
    return devices


def _opened(
    kernel: KernelSource, known: Mapping[int, LiveDevice]
) -> tuple[dict[int, LiveDevice], dict[int, Exception]]:
    """Return the devices that the kernel uses, and why others cannot be used, by their numbers."""
    devices: dict[int, LiveDevice] = {}
    failures: dict[int, Exception] = {}
    fsid = kernel.fs_info().fsid
    for info in kernel.device_infos():
        # One that is to replace another has no number yet, and one that is missing has no path.
        if not info.devid or not info.path:
            continue
        try:
            device = known.get(info.devid)
            if device is None or device.path != info.path:
                device = LiveDevice(info.path)
            else:
                device.reread()
        except PermissionError:
            raise BtrfsError(
                f"{info.path} must not be opened, so {kernel.path} cannot be read from its devices",
                hint="it takes root rights; try it with sudo, or leave out --source devices",
            ) from None
        except (CorruptError, NotBtrfsError, OSError) as error:
            failures[info.devid] = error
        else:
            # Of two copies of a filesystem that are mounted, the kernel gives the second another
            # fsid than its superblock has. A device of a seed filesystem has that of the seed.
            has_its_fsid = info.fsid in (fsid, device.superblock.fsid)
            is_its_own = device.superblock.dev_item.uuid == info.uuid and has_its_fsid
            if device.superblock.fsid == fsid or is_its_own:
                devices[info.devid] = device
    return devices, failures


def _without_log_trees(superblock: Superblock) -> Superblock:
    """Return a superblock without the log trees, which are not of the last commit.

    They have what was synced after it, which the running kernel knows anyway.
    """
    changed = copy(superblock)
    changed.log_root = 0
    changed.log_root_level = 0
    return changed


def _has_same_chunks(
    before: Commit, superblock: Superblock, devices: Mapping[int, LiveDevice]
) -> bool:
    return before.volume.devices == devices and (
        before.superblock.chunk_root,
        before.superblock.chunk_root_generation,
    ) == (superblock.chunk_root, superblock.chunk_root_generation)


def _with_chunks(
    superblock: Superblock,
    devices: dict[int, LiveDevice],
    options: ReadOptions,
    log: DamageLog,
) -> Commit:
    """Read the chunk tree of a commit, and note what is wrong with devices and chunks."""
    for device in devices.values():
        for damage in device.damaged:
            log.add(damage, None, recovered=True)
    superblock = chosen_state(superblock, options, log)
    superblock, chunks = recover_chunks(superblock, devices, log, options.on_error)
    volume = LiveVolume(devices, ChunkMap(chunks), superblock.generation)
    items = recover_devices(superblock, volume, log)
    _await_superblocks(superblock, devices)
    note_state(devices, superblock, items, chunks, log)
    return Commit(superblock, volume, seeds_of(superblock, volume))


def _await_superblocks(superblock: Superblock, devices: Mapping[int, LiveDevice]) -> None:
    """Wait until a superblock is on all devices: the kernel may be about to write it there."""
    for _ in range(_TRIES):
        behind = [
            device
            for device in own_devices(devices)
            if device.superblock.generation < superblock.generation
        ]
        if not behind:
            return
        time.sleep(_SECONDS_BETWEEN)
        for device in behind:
            device.reread()


def _is_stale(superblock: Superblock, devices: Mapping[int, LiveDevice]) -> bool:
    return LiveVolume(devices, ChunkMap([]), superblock.generation).is_stale()
