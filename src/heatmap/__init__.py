"""Pictures of btrfs filesystems: where what is allocated, and how full it is.

    import btrfs
    import heatmap

    with btrfs.FileSystem("/") as fs:
        heatmap.walk_dev_extents(fs).write_png("full-fs.png")

A layer turns a filesystem into intervals on an address line (layers, extents, intervals). The line
runs through a square along a curve (curves), and a raster colours the pixels of the square (raster,
palette). The grid is the picture as a whole (grid), which is written to a file or shown in the
terminal (picture, terminal), with a legend (legend); what is printed meanwhile comes from
narration.
"""

from heatmap.errors import HeatmapError
from heatmap.grid import Grid
from heatmap.walk import (
    generate_png_file_name,
    walk_chunks,
    walk_dev_extents,
    walk_extents,
)

__all__ = [
    "Grid",
    "HeatmapError",
    "generate_png_file_name",
    "walk_chunks",
    "walk_dev_extents",
    "walk_extents",
]
