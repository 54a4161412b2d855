"""The section about devices: how full they are, which are missing, and what errors they had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from btrfs_atlas.overview.sections import Names, Section, TimeLimit
from btrfs_atlas.tables import printable

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.space.overview import DeviceState

_ERRORS = {
    "write_errs": "failed writes",
    "read_errs": "failed reads",
    "flush_errs": "failed flushes",
    "corruption_errs": "wrong checksums or contents",
    "generation_errs": "blocks of a wrong generation",
}


def _read(fs: FileSystem, _limit: TimeLimit) -> list[DeviceState]:
    from btrfs.space import overview

    return overview.devices(fs)


def _lines(devices: list[DeviceState], names: Names) -> Iterator[str]:
    from btrfs.utils import pretty_size

    yield f" {'devid':>5} {'size':>10} {'allocated':>10} {'unallocated':>11}  path"
    for device in devices:
        path = "missing" if device.missing else printable(device.path or "in a dump")
        yield (
            f" {device.devid:>5} {pretty_size(device.size):>10}"
            f" {pretty_size(device.allocated):>10} {pretty_size(device.unallocated):>11}  {path}"
        )
    yield ""
    yield from _missing([device for device in devices if device.missing], names)
    yield from _counted([device for device in devices if device.errors], names)
    unknown = [str(device.devid) for device in devices if device.errors is None]
    if unknown:
        yield f"What errors devices had is not known of devid {', '.join(unknown)}."
    elif not any(device.errors for device in devices):
        yield "No errors have been counted."
    yield "A picture of what lies where:"
    yield f"$ btrfs-atlas heatmap --show {names.target}"


def _missing(devices: list[DeviceState], names: Names) -> Iterator[str]:
    for device in devices:
        yield (
            f"! Device {device.devid} is missing. What can still be written is less than the"
            " estimate above, which counts its space, too. To replace it by a new one:"
        )
        yield f"$ btrfs replace start -B {device.devid} /dev/NEW {names.mountpoint}"


def _counted(devices: list[DeviceState], names: Names) -> Iterator[str]:
    for device in devices:
        counters = ", ".join(
            f"{count:,} {_ERRORS[name]}" for name, count in (device.errors or {}).items()
        )
        yield f"! Device {device.devid} has counted errors: {counters}."
    if devices:
        yield "To read everything, and repair what has a good copy; then to reset the counters:"
        yield f"$ btrfs scrub start -B {names.mountpoint}"
        yield f"$ btrfs device stats --reset {names.mountpoint}"


def _plain(devices: list[DeviceState]) -> list[dict[str, Any]]:
    return [{**asdict(device), "unallocated": device.unallocated} for device in devices]


SECTION = Section("devices", "Devices", _read, _lines, _plain)
