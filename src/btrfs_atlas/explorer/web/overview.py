"""What a page has to know before it can show a map: the filesystem as a whole, and the legends.

It is returned as plain data, to be written as JSON, in which numbers that can exceed 2^53 are text.
"""

from __future__ import annotations

import base64
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from btrfs.ondisk.text import counted, pretty_size, printable
from btrfs_atlas.explorer.model.lines import PHYSICAL
from heatmap import curves
from heatmap.colourings import colouring, colourings

if TYPE_CHECKING:
    from btrfs_atlas.explorer.atlas import Atlas
    from btrfs_atlas.explorer.legends import Legend
    from btrfs_atlas.explorer.model.lines import Device, Line

Record = dict[str, Any]

_LABEL_ORDER = 6
"""Labels stand in the middle of one of 2^6 by 2^6 squares."""


def filesystem(atlas: Atlas) -> Record:
    """Return the facts about the filesystem and about the maps of it.

    Sizes are bytes of the devices: with two copies of it, a byte counts twice.
    """
    # First: a page is told of what is newer than that.
    generation = atlas.generation
    physical = atlas.lines[PHYSICAL]
    size = sum(device.length for device in physical.devices)
    on_device: Counter[int | None] = Counter()
    for part in physical.parts:
        on_device[part.devid] += part.length
    used = _used(atlas)
    with atlas.lock:
        fs = atlas.fs
        damage = fs.damage_summary()
        devices = [_device(atlas, device, on_device) for device in physical.devices]
        known = {
            "label": _text(fs.label),
            "fsid": str(fs.fsid),
            "mounted": fs.mounted,
            "path": _text(fs.path),
            "sectorsize": fs.sectorsize,
            "nodesize": fs.nodesize,
            "notes": [_text(note) for note in fs.notes],
            "damage": None if damage is None else _text(damage),
        }
    return {
        **known,
        "generation": str(generation),
        "summary": f"{pretty_size(size)} on {counted(len(devices), 'device')},"
        f" {pretty_size(on_device.total())} allocated, {pretty_size(used)} used",
        "size": size,
        "allocated": on_device.total(),
        "used": used,
        "devices": devices,
        "spaces": {
            name: {"total": str(line.total_bytes), "max_zoom": line.max_zoom}
            for name, line in atlas.lines.items()
        },
        "labels": {
            name: {curve: _labels(line, devices, curve) for curve in curves.CURVES}
            for name, line in atlas.lines.items()
        },
        "curves": list(curves.CURVES),
        "colours": [
            {"name": one.name, "title": one.title, "description": one.description}
            for one in colourings()
        ],
    }


def sketch(atlas: Atlas, zoom: int) -> Record:
    """Return a picture of the whole map, to be seen until there are tiles, and of what it is."""
    space, curve, colour = next(iter(atlas.lines)), curves.CURVES[0], colourings()[0].name
    png = atlas.sketch(space, curve, min(zoom, atlas.lines[space].max_zoom))
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return {"space": space, "curve": curve, "colour": colour, "url": url}


def legend(atlas: Atlas, space: str, colour: str, zoom: int) -> Record:
    """Return what the colours mean on tiles of a zoom, and how many bytes have which one.

    Raises:
        ValueError: There is no such space, zoom or colouring.
    """
    found: Legend = atlas.legend(space, colour, zoom)
    return {
        "title": colouring(colour).title,
        "note": found.note,
        "scale": found.is_scale,
        "read": found.read,
        "entries": [
            {
                "name": entry.name,
                "colour": "#" + bytes(entry.colour).hex(),
                "bytes": entry.length,
                "used": entry.used,
                "hatched": entry.hatched,
            }
            for entry in found.entries
        ],
    }


def _used(atlas: Atlas) -> int:
    """Return how many bytes of the devices are in use, as far as the block groups tell."""
    line = atlas.lines[PHYSICAL]
    return sum(
        group.used * sum(part.length for part in line.parts_of(vaddr)) // group.length
        for vaddr, group in atlas.groups.items()
        if group.length
    )


def _device(atlas: Atlas, device: Device, allocated: Counter[int | None]) -> Record:
    return {
        "devid": device.devid,
        "path": atlas.device_paths[device.devid] or None,
        "size": device.length,
        "allocated": allocated[device.devid],
        "start": str(device.start),
    }


def _labels(line: Line, devices: list[Record], curve: str) -> list[Record]:
    """Return the names of the devices of a line, and where in the picture to write them.

    Places are fractions of the picture, from the top and from the left.
    """
    rows, columns = curves.pixels_at(curve, _LABEL_ORDER, np.arange(4**_LABEL_ORDER))
    labels = []
    for device, known in zip(line.devices, devices, strict=False):
        first, last = (
            (address << 2 * _LABEL_ORDER) // line.total_bytes
            for address in (device.start, device.start + device.length - 1)
        )
        row, column = rows[first : last + 1], columns[first : last + 1]
        # What a device takes need not be round: the middle of it can be outside.
        from_middle = np.hypot(row - row.mean(), column - column.mean())
        nearest = int(from_middle.argmin())
        labels.append(
            {
                "text": _device_text(known),
                "row": (int(row[nearest]) + 0.5) / (1 << _LABEL_ORDER),
                "column": (int(column[nearest]) + 0.5) / (1 << _LABEL_ORDER),
            }
        )
    return labels


def _device_text(known: Record) -> str:
    """Return what to call a device on the map."""
    path, devid = known["path"], known["devid"]
    return f"device {devid}{', missing' if path else ''}" if path in (None, "missing") else path


def _text(text: str) -> str:
    """Return text from the filesystem or about it as a person can read it."""
    return printable(text.encode(errors="surrogateescape"))
