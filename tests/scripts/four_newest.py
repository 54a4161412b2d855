"""The extents in the four newest block groups of data, as one picture."""

import btrfs
import heatmap

fs = btrfs.FileSystem("/")
four_newest_bg = [
    fs.block_group(chunk.vaddr, chunk.length)
    for chunk in fs.chunks()
    if chunk.type & btrfs.BLOCK_GROUP_DATA
][-4:]
grid = heatmap.walk_extents(fs, four_newest_bg)
parts = ["fsid", fs.fsid, "startat", four_newest_bg[0].vaddr]
png_filename = heatmap.generate_png_file_name("/output/directory/", parts=parts)
grid.write_png(png_filename)
