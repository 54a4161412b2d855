"""Layers and scenes: what a picture shows.

A scene is an address line and which block groups lie where on it. A layer is that in colours, made
into intervals for the raster: each block group as a whole, or the extents in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from heatmap.colours import ActiveColouring, ExtentColouring
from heatmap.intervals import Intervals
from heatmap.layers.block_groups import BY_TYPE, LineEntry, intervals_of_groups
from heatmap.palette import Palette

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from heatmap.layers.lines import AddressLine

__all__ = ["Layer", "Scene", "coloured"]


class Scene(NamedTuple):
    """An address line and which block groups lie where on it, in no colours yet.

    Attributes:
        title: What is shown, as a heading.
        scope: The same, as it is printed after `scope`.
        total_bytes: Length of the address line.
        granularity: Bytes of a pixel that is small enough to see each block group.
        rest: What a legend calls the parts of the line that belong to no block group.
        entries: Yields what belongs to which block group, ascending. Its argument is the
            verbosity: with 1 and more the entries come with descriptions, with 2 and more these
            have more detail.
        line: Returns the line with its parts, which takes reading the chunks.
    """

    title: str
    scope: str
    total_bytes: int
    granularity: int
    rest: str
    entries: Callable[[int], Iterator[Sequence[LineEntry]]]
    line: Callable[[], AddressLine]


class Layer(NamedTuple):
    """An address line and what lies on it.

    Attributes:
        title: What is shown, as a heading.
        scope: The same, as it is printed after `scope`.
        total_bytes: Length of the address line.
        granularity: Bytes of a good pixel: a smaller one shows nothing more.
        palette: The colours of the values.
        rest: What a legend calls the parts of the line where nothing lies.
        batches: Makes the intervals. Its argument is the verbosity: with 1 and more they come with
            descriptions, with 2 and more these have more detail.
        allocated: Bytes of the line that belong to block groups, where that is known and what lies
            on the line is extents: the rest of these is free.
        largest_first: A legend puts what takes most bytes first.
        note: A sentence for legends about what the colours mean.
    """

    title: str
    scope: str
    total_bytes: int
    granularity: int
    palette: Palette
    rest: str
    batches: Callable[[int], Iterator[Intervals]]
    allocated: int | None = None
    largest_first: bool = False
    note: str = ""


def coloured(fs: FileSystem, scene: Scene, active: ActiveColouring | None = None) -> Layer:
    """Return a scene as a layer.

    Args:
        fs: The filesystem.
        scene: What is shown.
        active: In which colours; without any, block groups are coloured by type.
    """
    if isinstance(active, ExtentColouring):
        return _by_extents(fs, scene, active)
    colours = BY_TYPE if active is None else active.colours
    return Layer(
        _title(scene, active),
        scene.scope,
        scene.total_bytes,
        scene.granularity,
        colours.palette,
        scene.rest,
        lambda verbose: (
            intervals_of_groups(entries, colours) for entries in scene.entries(verbose)
        ),
        note="" if active is None else colours.note,
    )


def _by_extents(fs: FileSystem, scene: Scene, colouring: ExtentColouring) -> Layer:
    # A picture of block groups starts faster without.
    from heatmap.layers.by_extents import intervals_of_extents

    line = scene.line()

    def batches(verbose: int) -> Iterator[Intervals]:
        entries = (entry for found in scene.entries(verbose) for entry in found)
        return intervals_of_extents(fs, line, entries, colouring, verbose)

    return Layer(
        _title(scene, colouring),
        scene.scope,
        scene.total_bytes,
        # As fine as a picture of extents can be.
        min(scene.granularity, fs.sectorsize),
        colouring.named_palette,
        scene.rest,
        batches,
        allocated=sum(part.length for part in line.parts),
        largest_first=colouring.colours.largest_first,
        note=colouring.colours.note,
    )


def _title(scene: Scene, active: ActiveColouring | None) -> str:
    return scene.title if active is None else f"{scene.title}, by {active.title}"
