"""Draw a filesystem: the functions that scripts call."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from heatmap import curves
from heatmap.colours import ActiveColouring
from heatmap.errors import HeatmapError
from heatmap.grid import Grid, check_brightness, choose_geometry
from heatmap.layers.base import Layer
from heatmap.layers.devices import DEVICE_GRANULARITY, devices as device_layer

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, DevItem, FileSystem

Progress = Callable[[int, int], None]
"""Called while a picture is drawn: bytes of the address line so far, and all of them."""


def walk_dev_extents(  # noqa: PLR0913 (a name and a signature that scripts rely on)
    fs: FileSystem,
    devices: Sequence[DevItem] | None = None,
    order: int | None = None,
    size: int | None = None,
    default_granularity: int = DEVICE_GRANULARITY,
    verbose: int = 0,
    min_brightness: float | None = None,
    curve: str | None = None,
    *,
    progress: Progress | None = None,
    colour: str | None = None,
) -> Grid:
    """Draw what is allocated on devices, and how much of it is in use.

    Args:
        fs: The filesystem.
        devices: The devices to show, one after another, by default all of them.
        order: The picture has 2^order by 2^order pixels. Left out, it is as large as it needs to
            be to show `default_granularity`, up to 10.
        size: The picture is written as an image of 2^size by 2^size, each pixel repeated, by
            default 10, or the order where that is larger.
        default_granularity: Bytes that a pixel is to stand for, about, where no order is given.
        verbose: How much to print, -1 nothing at all, up to 3.
        min_brightness: How bright pixels are that are allocated, but not in use, 0 to 1, by
            default 0.1.
        curve: 'hilbert' (the default), 'snake' or 'linear'.
        progress: Called while drawing.
        colour: Name of a colouring, see `heatmap.colourings`. Left out, block groups are coloured
            by type. Where extents are coloured, a pixel stands for one sector if no order is given.

    Raises:
        HeatmapError: There is no such picture. It is a ValueError.
    """
    shown = _all_devices(fs) if devices is None else list(devices)
    total_bytes = sum(device.total_bytes for device in shown)
    active = _active(fs, colour, total_bytes, default_granularity, (order, size))
    layer = device_layer(fs, shown, default_granularity, active)
    return draw(
        layer,
        (order, size),
        verbose=verbose,
        min_brightness=min_brightness,
        curve=curve,
        progress=progress,
    )


def walk_chunks(  # noqa: PLR0913 (a name and a signature that scripts rely on)
    fs: FileSystem,
    devices: Sequence[DevItem] | None = None,
    order: int | None = None,
    size: int | None = None,
    default_granularity: int = DEVICE_GRANULARITY,
    verbose: int = 0,
    min_brightness: float | None = None,
    curve: str | None = None,
    *,
    progress: Progress | None = None,
    colour: str | None = None,
) -> Grid:
    """Draw the chunks in the order of their virtual addresses, each with all its copies.

    Args:
        fs: The filesystem.
        devices: The devices whose sizes make up the length of the line, by default all of them.
        order: As in `walk_dev_extents()`, as are the arguments that follow.
        size: The size of the image.
        default_granularity: Bytes that a pixel is to stand for, about.
        verbose: How much to print.
        min_brightness: How bright pixels are that are allocated, but not in use.
        curve: 'hilbert' (the default), 'snake' or 'linear'.
        progress: Called while drawing.
        colour: Name of a colouring.

    Raises:
        HeatmapError: There is no such picture. It is a ValueError.
    """
    sizes = _all_devices(fs) if devices is None else list(devices)
    total_bytes = sum(device.total_bytes for device in sizes)
    active = _active(fs, colour, total_bytes, default_granularity, (order, size))
    from heatmap.layers.chunks import chunks

    layer = chunks(fs, sizes, default_granularity, active)
    return draw(
        layer,
        (order, size),
        verbose=verbose,
        min_brightness=min_brightness,
        curve=curve,
        progress=progress,
    )


def walk_extents(  # noqa: PLR0913 (a name and a signature that scripts rely on)
    fs: FileSystem,
    block_groups: Iterable[BlockGroupItem],
    order: int | None = None,
    size: int | None = None,
    default_granularity: int | None = None,
    verbose: int = 0,
    curve: str | None = None,
    *,
    progress: Progress | None = None,
    colour: str | None = None,
) -> Grid:
    """Draw the extents in block groups.

    Args:
        fs: The filesystem.
        block_groups: The block groups to show, one after another.
        order: As in `walk_dev_extents()`, as are the arguments that follow.
        size: The size of the image.
        default_granularity: Bytes that a pixel is to stand for, about, by default the sectorsize.
        verbose: How much to print.
        curve: 'hilbert' (the default), 'snake' or 'linear'.
        progress: Called while drawing.
        colour: Name of a colouring. Left out, extents are coloured by type.

    Raises:
        HeatmapError: There is no such picture. It is a ValueError.
    """
    shown = list(block_groups)
    total_bytes = sum(group.length for group in shown)
    granularity = fs.sectorsize if default_granularity is None else default_granularity
    active = _active(fs, colour, total_bytes, granularity, (order, size))
    from heatmap.layers.extents import extents

    layer = extents(fs, shown, granularity, active)
    return draw(layer, (order, size), verbose=verbose, curve=curve, progress=progress)


def draw(
    layer: Layer,
    geometry: tuple[int | None, int | None] = (None, None),
    *,
    verbose: int = 0,
    min_brightness: float | None = None,
    curve: str | None = None,
    progress: Progress | None = None,
) -> Grid:
    """Draw a layer; the arguments are those of `walk_dev_extents()`, geometry is order and size."""
    chosen = choose_geometry(layer.total_bytes, layer.granularity, *geometry)
    check_brightness(min_brightness)
    if curve is not None and curve not in curves.CURVES:
        raise HeatmapError(f"unknown curve {curve!r}", hint=f"there are {', '.join(curves.CURVES)}")
    if verbose >= 0:
        print(f"scope {layer.scope}")
    grid = Grid(layer, chosen, curve=curve, min_brightness=min_brightness, verbose=verbose)
    for intervals in layer.batches(verbose):
        grid.fill(intervals)
        if progress is not None and len(intervals):
            progress(intervals.stop, layer.total_bytes)
    return grid


def _active(
    fs: FileSystem,
    colour: str | None,
    total_bytes: int,
    granularity: int,
    geometry: tuple[int | None, int | None],
) -> ActiveColouring | None:
    """Return the colouring of a picture; None if no colour is asked for.

    Raises:
        HeatmapError: There is no such colouring, or no such picture.
    """
    if colour is None:
        return None
    # A picture without a colouring starts faster without.
    from heatmap.colourings import colour_context, colouring

    chosen = colouring(colour)
    if chosen.groups is None:
        granularity = min(granularity, fs.sectorsize)
    order, _ = choose_geometry(total_bytes, granularity, *geometry)
    return chosen.active(total_bytes / 4**order, colour_context(fs))


def _all_devices(fs: FileSystem) -> list[DevItem]:
    devices = list(fs.devices())
    if not devices and fs.lost:
        raise HeatmapError(
            f"the devices are not known: {fs.lost[0].reason}",
            hint="give all devices or images of the filesystem, or restore the image",
        )
    return devices


def generate_png_file_name(
    output: str | os.PathLike[str] | None = None, parts: Iterable[object] | None = None
) -> str:
    """Return the name for a picture.

    Args:
        output: A file name, which is returned as it is, or a folder, in which the name will be,
            by default the current one.
        parts: What the name is made from, with the time of now, as in foo_bar_at_1482095269.png.
    """
    if output is not None and not os.path.isdir(output):
        return os.fspath(output)
    words = [] if parts is None else [*map(str, parts), "at"]
    name = "_".join([*words, str(int(time.time()))]) + ".png"
    return name if output is None else os.path.join(output, name)
