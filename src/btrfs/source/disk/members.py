"""The members of a filesystem that are at hand: those that were named, and those that were found.

They may be given twice, out of date, cut off, or be members no more. Notes in the log say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

from btrfs.errors import BtrfsError, CorruptError, NotBtrfsError
from btrfs.ondisk.constants import SUPER_MIRRORS
from btrfs.ondisk.items.chunk import Chunk
from btrfs.source.damage import DamageLog
from btrfs.source.disk.devices import Device, find_members, open_device
from btrfs.source.disk.superblock import Superblock

if TYPE_CHECKING:
    from btrfs.ondisk.items.device import DevItem

__all__ = ["Members", "newest_superblock", "note_state", "own_devices"]

AnyDevice = TypeVar("AnyDevice", bound=Device)


class Members:
    """The devices of a filesystem that are at hand.

    Args:
        log: Gets a note about what is wrong with them.

    Attributes:
        devices: The devices by their numbers, those of its seeds among them.
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
        fsid, known = self.newest().fsid, set(self.devices)
        for device in find_members(lambda it: it.fsid == fsid, near):
            if device.devid in known or _is_stranger(device, uuids or {}):
                device.close()
            else:
                self._add(device, named=False)

    def find_seeds(self, near: list[str], items: Iterable[DevItem]) -> bool:
        """Look for devices of seeds that were not named; return whether there were any.

        Args:
            near: Paths of members that are known.
            items: The device items of the filesystem.
        """
        fsid = self.newest().header_fsid
        missing = {
            (item.devid, item.uuid, item.fsid)
            for item in items
            if item.fsid != fsid and item.devid not in self.devices
        }
        if not missing:
            return False
        before = len(self.devices)
        for device in find_members(lambda it: it.is_seed and _identity(it) in missing, near):
            self._add(device, named=False)
        return len(self.devices) > before

    def newest(self) -> Superblock:
        """Return the superblock of the highest generation, that of no seed if there is another."""
        return newest_superblock(self.devices)

    def require_related(self, items: list[DevItem], chunks: list[Chunk]) -> None:
        """Check that the filesystem has grown on the seeds that were named.

        Its device items say so. Where these are damaged, its chunks do, which have UUIDs of
        devices, too; and where both are, it is taken for granted.

        Raises:
            BtrfsError: It has not grown on one of them.
        """
        fsids = {item.devid: item.fsid for item in items}
        uuids = {stripe.devid: stripe.uuid for chunk in chunks for stripe in chunk.stripes}
        uuids.update((item.devid, item.uuid) for item in items)
        own = own_devices(self.devices)
        is_whole = all(device.devid in fsids for device in own)
        for devid, device in self.devices.items():
            _, uuid, fsid = _identity(device.superblock)
            if device in own or (uuids.get(devid), fsids.get(devid, fsid)) == (uuid, fsid):
                continue
            if is_whole or devid in uuids:
                raise _different(own[0], device)
            self._log.note(
                f"{device.path} is taken for a seed: the device items that would say so are lost"
            )

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
            if not _may_belong_together(other, device):
                device.close()
                raise _different(other, device)
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
    seeds = {item.devid: item for item in items if item.fsid != superblock.header_fsid}
    for devid, device in sorted(devices.items()):
        generation = device.superblock.generation
        if devid in seeds:
            if generation != seeds[devid].generation:
                log.note(
                    f"device {devid} ({device.path}) of a seed has been changed: it is of"
                    f" generation {generation} instead of {seeds[devid].generation}"
                )
        elif generation < superblock.generation and device.superblock.fsid == superblock.fsid:
            log.note(
                f"device {devid} ({device.path}) is out of date: of generation"
                f" {generation} instead of {superblock.generation}"
            )
        if device.missing_bytes:
            log.note(
                f"device {devid} ({device.path}) is cut off: {device.size} of"
                f" {device.superblock.dev_item.total_bytes} bytes are there"
            )
    for devid, item in sorted(seeds.items()):
        if devid not in devices:
            log.note(f"device {devid} is of a seed filesystem, {item.fsid}")
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
    """Return the superblock of the highest generation.

    That of a seed is not meant if there are others. A filesystem that has grown on a seed goes on
    counting from its generation, so that this holds also if it has become a seed itself.
    """
    newest: dict[UUID, Superblock] = {}
    for device in devices.values():
        found = device.superblock
        other = newest.setdefault(found.fsid, found)
        if found.generation > other.generation:
            newest[found.fsid] = found
    return max(newest.values(), key=lambda it: (not it.is_seed, it.generation))


def own_devices(devices: Mapping[int, AnyDevice]) -> list[AnyDevice]:
    """Return the devices of a filesystem that are not those of seeds of it."""
    fsid = newest_superblock(devices).fsid
    return [device for device in devices.values() if device.superblock.fsid == fsid]


def _may_belong_together(one: Device, other: Device) -> bool:
    """Return whether two devices are of one filesystem, or may be of one and a seed of it."""
    if one.superblock.fsid == other.superblock.fsid:
        return True
    is_any_seed = one.superblock.is_seed or other.superblock.is_seed
    return is_any_seed and one.devid != other.devid


def _different(one: Device, other: Device) -> BtrfsError:
    return BtrfsError(
        f"{one.path} and {other.path} belong to different filesystems",
        hint=f"their UUIDs are {one.superblock.fsid} and {other.superblock.fsid}",
    )


def _identity(superblock: Superblock) -> tuple[int, UUID, UUID]:
    """Return what distinguishes a device: its number and UUID, and that of its filesystem."""
    return superblock.dev_item.devid, superblock.dev_item.uuid, superblock.header_fsid


def _is_stranger(device: Device, uuids: Mapping[int, UUID]) -> bool:
    """Return whether the number of a device is that of another one, given the UUIDs of members."""
    uuid = device.superblock.dev_item.uuid
    return uuids.get(device.devid, uuid) != uuid
