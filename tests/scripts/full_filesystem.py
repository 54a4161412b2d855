"""A whole filesystem."""

import btrfs
import heatmap

fs = btrfs.FileSystem("/")
heatmap.walk_dev_extents(fs, size=8).write_png("full-fs.png")
