"""What is measured of the explorer without its server, in a process of its own.

`python -m bench.explorer_probe TARGET COUNT` loads the extents of all block groups, draws COUNT
tiles at random, and prints a `Drawn` as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from btrfs_atlas.explorer.atlas import Atlas
from heatmap.curves import CURVES, HILBERT

COLOUR = "type"

TILE = 256
"""Pixels that a tile is wide and high."""

Tile = tuple[str, int, int, int]
"""Space, zoom, row and column."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of it.

    Attributes:
        extents: That were loaded.
        resident: Bytes by which the memory of the process grew by that.
        columns: Bytes of the columns that hold them.
        tiles: That were drawn, on each curve.
        seconds: For each of them, by curve.
    """

    extents: int
    resident: int
    columns: int
    tiles: list[Tile]
    seconds: dict[str, list[float]]


def main() -> None:
    """Measure, and print what was measured."""
    target, count = sys.argv[1], int(sys.argv[2])
    atlas = Atlas([target])
    try:
        before = resident()
        loaded = list(load(atlas))
        gc.collect()
        after = resident()
        tiles = list(tiles_at_random(atlas, count))
        drawn = Drawn(
            sum(number for number, _ in loaded),
            after - before,
            sum(size for _, size in loaded),
            tiles,
            {curve: [draw(atlas, curve, tile) for tile in tiles] for curve in CURVES},
        )
    finally:
        atlas.close()
    json.dump(asdict(drawn), sys.stdout)


def load(atlas: Atlas) -> Iterator[tuple[int, int]]:
    """Load the extents of every block group; yield their number, and the bytes of their columns."""
    for vaddr in sorted(atlas.groups):
        extents = atlas.extents(vaddr)
        if extents is None:
            raise RuntimeError(f"the extents of block group {vaddr} do not fit into memory")
        yield len(extents), extents.nbytes


def tiles_at_random(atlas: Atlas, count: int) -> Iterator[Tile]:
    """Yield tiles with something allocated in them on Hilbert's curve, of each zoom and space."""
    choose = random.Random(0)
    while count:
        line = choose.choice(list(atlas.lines.values()))
        zoom = choose.randint(0, line.max_zoom)
        address = choose.randrange(line.total_bytes)
        if line.locate(address).group is None:
            continue
        row, column = line.at(HILBERT, zoom, address)
        yield line.name, zoom, row // TILE, column // TILE
        count -= 1


def draw(atlas: Atlas, curve: str, tile: Tile) -> float:
    """Draw a tile, the second time; return the seconds that it took.

    The first tile of a block group makes levels of less detail from its extents.
    """
    space, zoom, row, column = tile
    place = space, curve, zoom, row, column
    while not atlas.tile(place, COLOUR).complete:
        time.sleep(0.1)
    begin = time.perf_counter()
    atlas.tile(place, COLOUR)
    return time.perf_counter() - begin


def resident() -> int:
    """Return how many bytes of this process are in memory now (proc_pid_statm(5))."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
