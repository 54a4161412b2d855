"""Opening a filesystem that is not mounted: from files to a source.

As much is read as can be. So members may be missing, out of date or cut off, and chunks that are
lost from the chunk tree are taken from the superblock and from backups of that tree. What is wrong
is remembered in the log of the source; it is an error only if nothing can be read at all.
"""

from __future__ import annotations

from collections.abc import Iterable

from btrfs.errors import BtrfsError, NotBtrfsError
from btrfs.source.base import ReadOptions
from btrfs.source.damage import DamageLog
from btrfs.source.disk.chunk_map import ChunkMap
from btrfs.source.disk.chunk_recovery import recover_chunks, recover_devices, seeds_of
from btrfs.source.disk.devices import Device, has_superblock
from btrfs.source.disk.members import Members, own_devices
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.superblock import (
    Superblock,
    require_supported,
    unsupported_features,
    with_backup_root,
)
from btrfs.source.disk.volume import Volume
from btrfs.source.dump.metadump import Metadump, is_metadump
from btrfs.source.mounts import writable_mount_of

__all__ = ["chosen_state", "holds_btrfs", "open_unmounted"]

_READ_DIRECTLY = ReadOptions()

_MAX_ROUNDS = 4
"""So many times are members checked for devices that belong to the filesystem no more."""


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
        for note in dump.notes:
            log.note(note)
        superblock = chosen_state(dump.superblock, options, log)
        return DiskSource(path, superblock, dump, log, options, seeds_of(superblock, dump))
    except BaseException:
        dump.close()
        raise


def _open_devices(paths: list[str], options: ReadOptions) -> DiskSource:
    log = DamageLog()
    members = Members(log)
    try:
        for path in paths:
            members.open(path, options.superblock)
        members.require_some()
        if len(members.devices) < members.newest().num_devices:
            members.find(paths)
        for _ in range(_MAX_ROUNDS):
            found = DamageLog()
            superblock = chosen_state(members.newest(), options, found)
            superblock, chunks = recover_chunks(
                superblock, members.devices, found, options.on_error
            )
            volume = Volume(members.devices, ChunkMap(chunks))
            items = recover_devices(superblock, volume, found)
            members.require_related(items, chunks)
            uuids = {item.devid: item.uuid for item in items}
            if members.drop_strangers(uuids):
                # The devices in their place may be of a higher generation.
                members.find(paths, uuids)
            elif not members.find_seeds(paths, items):
                break
        log.merge(found)
        members.compare(items, chunks)
        _note_mounts(own_devices(members.devices), log)
        seeds = seeds_of(superblock, volume)
        return DiskSource(paths[0], superblock, volume, log, options, seeds)
    except BaseException:
        members.close()
        raise


def _note_mounts(devices: Iterable[Device], log: DamageLog) -> None:
    """Note which devices are being written to."""
    for device in sorted(devices, key=lambda it: it.devid):
        mount = writable_mount_of(device.path)
        if mount is not None:
            log.note(f"{device.path} is mounted at {mount} and may be changing")


def chosen_state(superblock: Superblock, options: ReadOptions, log: DamageLog) -> Superblock:
    """Return the superblock that leads to what is to be read.

    Raises:
        UnsupportedFeatureError: The format is not supported, and unknown_features is not set.
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
