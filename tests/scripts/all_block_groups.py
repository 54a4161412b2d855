"""The extents in all block groups, as one picture."""

import btrfs
import heatmap

fs = btrfs.FileSystem("/")
bgs = [fs.block_group(chunk.vaddr, chunk.length) for chunk in fs.chunks()]
grid = heatmap.walk_extents(fs, bgs, size=9)
parts = ["fsid", fs.fsid, "all_bg"]
png_filename = heatmap.generate_png_file_name(parts=parts)
grid.write_png(png_filename)
