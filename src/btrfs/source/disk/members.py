"""The members of a filesystem that are at hand: those that were named, and those that were found.

They may be given twice, out of date, cut off, or be members no more. Notes in the log say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import UUID

from btrfs.errors import BtrfsError, CorruptError, NotBtrfsError
from btrfs.ondisk.constants import SUPER_MIRRORS
from btrfs.ondisk.items.chunk import Chunk
from btrfs.source.damage import DamageLog
from btrfs.source.disk.devices import Device, find_members, open_device
from btrfs.source.disk.superblock import Superblock

if TYPE_CHECKING:
    from btrfs.ondisk.items.device import DevItem

__all__ = ["Members", "newest_superblock", "note_state"]


class Members:
    """The devices of a filesystem that are at hand.

    Args:
        log: Gets a note about what is wrong with them.

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
        return newest_superblock(self.devices)

    def drop_strangers(self, uuids: Mapping[int, UUID]) -> bool:
        """Leave out devices whose numbers have been given to others; return whether there were any.

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
        """Note which devices are missing, out of date or cut off."""
        for _, device in sorted(self.devices.items()):
            if self._superblock is None and device.superblock.bytenr != SUPER_MIRRORS[0]:
                self._log.note(
                    f"{device.path} is read by the copy of its superblock at"
                    f" {device.superblock.bytenr}"
                )
        note_state(self.devices, self.newest(), items, chunks, self._log)

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


def note_state(
    devices: Mapping[int, Device],
    superblock: Superblock,
    items: list[DevItem],
    chunks: list[Chunk],
    log: DamageLog,
) -> None:
    """Note which devices of a filesystem are missing, out of date or cut off.

    Args:
        devices: Those that are at hand, by their numbers.
        superblock: That of the filesystem as it is read.
        items: All that belong to it.
        chunks: Its chunks.
        log: Gets the notes.
    """
    for devid, device in sorted(devices.items()):
        if device.superblock.generation < superblock.generation:
            log.note(
                f"device {devid} ({device.path}) is out of date: of generation"
                f" {device.superblock.generation} instead of {superblock.generation}"
            )
        if device.missing_bytes:
            log.note(
                f"device {devid} ({device.path}) is cut off: {device.size} of"
                f" {device.superblock.dev_item.total_bytes} bytes are there"
            )
    for item in items:
        if item.fsid != superblock.header_fsid:
            log.note(f"device {item.devid} is of a seed filesystem, {item.fsid}, which is not read")
    needed = {item.devid for item in items}
    needed.update(stripe.devid for chunk in chunks for stripe in chunk.stripes)
    missing = sorted(needed - devices.keys())
    if missing:
        names = f"{', '.join(map(str, missing[:-1]))} and {missing[-1]}"
        log.note(
            f"device {missing[0]} is missing"
            if len(missing) == 1
            else f"devices {names} are missing"
        )


def newest_superblock(devices: Mapping[int, Device]) -> Superblock:
    """Return the superblock of the highest generation."""
    superblocks = [device.superblock for device in devices.values()]
    return max(superblocks, key=lambda superblock: superblock.generation)


def _is_stranger(device: Device, uuids: Mapping[int, UUID]) -> bool:
    """Return whether the number of a device is that of another one, given the UUIDs of members."""
    uuid = device.superblock.dev_item.uuid
    return uuids.get(device.devid, uuid) != uuid
