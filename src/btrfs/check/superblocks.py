"""Superblocks: all copies on all devices, and what the device items say about the devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from btrfs.check.report import Checked
from btrfs.errors import CorruptError
from btrfs.ondisk.constants import SUPER_INFO_SIZE, SUPER_MIRRORS
from btrfs.ondisk.struct import fields
from btrfs.ondisk.text import counted
from btrfs.source.disk.members import newest_superblock
from btrfs.source.disk.superblock import Superblock, parse_superblock

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.items.device import DevItem
    from btrfs.source.disk.devices import Device
    from btrfs.source.disk.source import DiskSource

__all__ = ["check_superblocks"]

_OWN = {"csum", "bytenr", "dev_item"}
"""What each copy, or each device, has of its own."""

_OF_THE_FIRST_COPY = {"log_root", "log_root_transid", "log_root_level"}
"""A sync of a file writes the first copy on each device only (write_all_supers in disk-io.c)."""

_FIXED = {"fsid", "metadata_uuid", "nodesize", "sectorsize", "stripesize", "csum_type"}
"""What no commit changes."""

_OF_DEVICE_ITEMS = ("devid", "total_bytes", "bytes_used", "uuid")

_OF_SEEDS = ("devid", "total_bytes", "uuid")
"""What the superblock of a seed goes on having in common with the device item."""


def check_superblocks(fs: FileSystem, source: DiskSource, checked: Checked) -> None:
    """Compare all copies of the superblock, and with them the device items.

    Args:
        fs: The filesystem.
        source: Its source.
        checked: Where the findings go.
    """
    devices = source.devices
    newest = _newest(source)
    items = {item.devid: item for item in fs.devices()}
    valid = 0
    for device in devices.values():
        # What else differs on a device that is out of date follows from that.
        is_seed = _is_of_seed(device, newest)
        is_stale = not is_seed and _check_generation(device, newest, checked)
        expected = device.superblock if is_stale or is_seed else newest
        for paddr, copy in _copies(device, checked):
            valid += 1
            _compare(copy, expected, device.path, paddr, checked)
    if newest.stripesize != newest.sectorsize:
        checked.add(
            "superblock-field",
            "stripesize",
            expected=newest.sectorsize,
            found=newest.stripesize,
        )
    _compare_sums(newest, items.values(), checked)
    if devices:
        _compare_devices(source, items, newest, checked)
        checked.summary = f"{counted(len(devices), 'device')}, {_counted_copies(valid)}"
    else:
        checked.summary = "the one that a dump has"
    checked.counts = {"devices": len(devices), "copies": valid}


def _counted_copies(valid: int) -> str:
    return "1 valid copy" if valid == 1 else f"{valid} valid copies"


def _newest(source: DiskSource) -> Superblock:
    """Return the newest superblock, as it is on its device."""
    return newest_superblock(source.devices) if source.devices else source.superblock


def _is_of_seed(device: Device, newest: Superblock) -> bool:
    """Return whether a device is one of a seed, which stays as it was before others grew on it."""
    return device.superblock.fsid != newest.fsid


def _copies(device: Device, checked: Checked) -> Iterator[tuple[int, Superblock]]:
    """Yield address and content of the valid copies that a device has."""
    end = device.superblock.dev_item.total_bytes
    for paddr in SUPER_MIRRORS:
        # The kernel leaves out a copy that would end where the device does.
        if paddr + SUPER_INFO_SIZE >= end:
            return
        try:
            data = device.read_up_to(paddr, SUPER_INFO_SIZE)
            copy = parse_superblock(data, device.path, paddr)
            what = "there is none"
        except CorruptError as error:
            copy, what = None, str(error)
        except OSError as error:
            copy, what = None, str(error.strerror)
        if copy is not None:
            yield paddr, copy
        else:
            checked.add(
                "superblock-invalid",
                f"{device.path} at {paddr}: {what}",
                recovered=True,
                device=device.path,
                paddr=paddr,
            )


def _check_generation(device: Device, newest: Superblock, checked: Checked) -> bool:
    """Check that a device is of the last generation; return whether it is older."""
    found, expected = device.superblock.generation, newest.generation
    if found == expected:
        return False
    # What a commit refers to is on all devices before the first superblock is written.
    is_behind = abs(found - expected) == 1
    checked.add(
        "device-behind" if is_behind else "device-stale",
        f"{device.path} is of generation {found} instead of {expected}",
        recovered=not is_behind,
        device=device.path,
    )
    return True


def _compare(
    copy: Superblock, expected: Superblock, path: str, paddr: int, checked: Checked
) -> None:
    """Report how a copy of the superblock differs from what it should be."""
    both_first = copy.bytenr == expected.bytenr == SUPER_MIRRORS[0]
    ignored = _OWN if both_first else _OWN | _OF_THE_FIRST_COPY
    names = [field.name for field in fields(Superblock) if field.name not in ignored]
    different = [name for name in names if getattr(copy, name) != getattr(expected, name)]
    if different:
        is_behind = _is_behind(copy, expected, set(different))
        checked.add(
            "superblock-behind" if is_behind else "superblock-differs",
            f"{path} at {paddr}: {_differences(copy, expected, different)}",
            recovered=not is_behind,
            device=path,
            paddr=paddr,
        )


def _is_behind(copy: Superblock, expected: Superblock, different: set[str]) -> bool:
    """Return whether a crash while superblocks were written explains how two copies differ.

    They are of two commits that follow each other; or of the same one, and only one of them has the
    log trees that a sync of a file wrote.
    """
    if different <= _OF_THE_FIRST_COPY:
        return True
    return abs(copy.generation - expected.generation) == 1 and not different & _FIXED


def _differences(copy: Any, other: Any, names: Iterable[str]) -> str:
    """Return a text that says how two structs differ."""
    differences = []
    for name in names:
        found, expected = getattr(copy, name), getattr(other, name)
        is_long = isinstance(found, bytes)
        differences.append(name if is_long else f"{name} is {found} instead of {expected}")
    return ", ".join(differences)


def _compare_sums(newest: Superblock, items: Iterable[DevItem], checked: Checked) -> None:
    """Compare the superblock with the device items of all devices, if these can be read."""
    items = list(items)
    if not items:
        return
    for name, expected in (
        ("num_devices", len(items)),
        ("total_bytes", sum(item.total_bytes for item in items)),
    ):
        found = getattr(newest, name)
        if found != expected:
            checked.add("device-sums", f"{name} is {found}, but the devices make {expected}")


def _compare_devices(
    source: DiskSource, items: dict[int, DevItem], newest: Superblock, checked: Checked
) -> None:
    """Compare each device with its item."""
    for devid in sorted(items.keys() - source.devices.keys()):
        checked.add("device-missing", f"device {devid}, of UUID {items[devid].uuid}")
    for devid, device in sorted(source.devices.items()):
        if device.missing_bytes:
            checked.add(
                "device-cut-off",
                f"{device.path} ends at {device.size} instead of"
                f" {device.superblock.dev_item.total_bytes}",
                device=device.path,
                paddr=device.size,
            )
        own = device.superblock.dev_item
        item = items.get(devid)
        is_seed = _is_of_seed(device, newest)
        if item is None or (not is_seed and device.superblock.generation < newest.generation):
            continue
        if is_seed and item.generation != device.superblock.generation:
            checked.add(
                "device-item",
                f"device {devid} ({device.path}) of a seed, in the superblock: generation is"
                f" {device.superblock.generation} instead of {item.generation}",
                device=device.path,
            )
        names = _OF_SEEDS if is_seed else _OF_DEVICE_ITEMS
        different = [name for name in names if getattr(own, name) != getattr(item, name)]
        if different:
            checked.add(
                "device-item",
                f"device {devid} ({device.path}), in the superblock:"
                f" {_differences(own, item, different)}",
                device=device.path,
            )
