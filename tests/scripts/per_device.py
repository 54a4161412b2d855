"""A picture for each device."""

import btrfs
import heatmap

fs = btrfs.FileSystem("/mnt/raid0")
for device in fs.devices():
    heatmap.walk_dev_extents(fs, [device], verbose=1).write_png("device_%s.png" % device.devid)
