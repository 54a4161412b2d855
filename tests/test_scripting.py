"""Scripts written for btrfs-heatmap's functions run as they are, but for the paths in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support

FULL_FILESYSTEM = """
#!/usr/bin/python
import btrfs
import heatmap
fs = btrfs.FileSystem('/')
heatmap.walk_dev_extents(fs, size=8).write_png('full-fs.png')
"""

FOUR_NEWEST = """
#!/usr/bin/python
import btrfs
import heatmap
fs = btrfs.FileSystem('/')
four_newest_bg = [fs.block_group(chunk.vaddr, chunk.length)
                  for chunk in fs.chunks()
                  if chunk.type & btrfs.BLOCK_GROUP_DATA][-4:]
grid = heatmap.walk_extents(fs, four_newest_bg)
parts = ['fsid', fs.fsid, 'startat', four_newest_bg[0].vaddr]
png_filename = heatmap.generate_png_file_name('/output/directory/', parts=parts)
grid.write_png(png_filename)
"""

PER_DEVICE = """
#!/usr/bin/python
import btrfs
import heatmap
fs = btrfs.FileSystem('/mnt/raid0')
for device in fs.devices():
    heatmap.walk_dev_extents(fs, [device], verbose=1).write_png('device_%s.png' % device.devid)
"""

ALL_BLOCK_GROUPS = """
#!/usr/bin/python

import btrfs
import heatmap

fs = btrfs.FileSystem('/')
bgs = [fs.block_group(chunk.vaddr, chunk.length)
       for chunk in fs.chunks()]
grid = heatmap.walk_extents(fs, bgs, size=9)
parts = ['fsid', fs.fsid, 'all_bg']
png_filename = heatmap.generate_png_file_name(parts=parts)
grid.write_png(png_filename)
"""

# Patterns of what each prints, line by line, and of the names of its pictures.
GRID = r"grid order \d+ size {size} height \d+ width \d+ total_bytes \d+ bytes_per_pixel \d+\.\d+"
DEV_EXTENTS = (
    r"(dev_extent devid \d+ paddr \d+ length \d+ pend \d+ type [A-Z0-9|]+ used_pct \d+\.\d\d\n?)+"
)
FSID = r"[0-9a-f-]{36}"
SCRIPTS = {
    "full filesystem": (
        FULL_FILESYSTEM,
        [r"scope device 1 2", GRID.format(size=8), r"pngfile full-fs\.png"],
        [r"full-fs\.png"],
    ),
    "four newest": (
        FOUR_NEWEST,
        [
            r"scope block_group \d+ \d+ \d+ \d+",
            GRID.format(size="10"),
            rf"pngfile .*/fsid_{FSID}_startat_\d+_at_\d+\.png",
        ],
        [rf"fsid_{FSID}_startat_\d+_at_\d+\.png"],
    ),
    "per device": (
        PER_DEVICE,
        [
            *(r"scope device 1", GRID.format(size=10), DEV_EXTENTS, r"pngfile device_1\.png"),
            *(r"scope device 2", GRID.format(size=10), DEV_EXTENTS, r"pngfile device_2\.png"),
        ],
        [r"device_1\.png", r"device_2\.png"],
    ),
    "all block groups": (
        ALL_BLOCK_GROUPS,
        [
            r"scope block_group( \d+)+",
            GRID.format(size=9),
            rf"pngfile fsid_{FSID}_all_bg_at_\d+\.png",
        ],
        [rf"fsid_{FSID}_all_bg_at_\d+\.png"],
    ),
}


@pytest.fixture(scope="module")
def raid0(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(
        tmp_path_factory.mktemp("raid0"), devices=2, size="2G", data="raid0", metadata="raid0"
    ) as fs:
        for number in range(3):
            file = fs.mountpoint / str(number)
            with file.open("wb") as opened:
                os.posix_fallocate(opened.fileno(), 0, 500 << 20)
        fs.sync()
        yield fs


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "image"])
def test_script(raid0: support.LoopFilesystem, tmp_path: Path, name: str, mounted: bool) -> None:
    script, lines, pictures = SCRIPTS[name]
    target = os.fspath(raid0.mountpoint if mounted else raid0.images[0])
    for path in ("'/mnt/raid0'", "'/'"):
        script = script.replace(path, repr(target))
    script = script.replace("'/output/directory/'", repr(os.fspath(tmp_path)))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    pattern = "".join(rf"(?:{line}\n?)" for line in lines)
    assert re.fullmatch(pattern, done.stdout), done.stdout
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == len(pictures)
    for file_name, pattern in zip(written, pictures, strict=True):
        assert re.fullmatch(pattern, file_name)
        assert (tmp_path / file_name).read_bytes().startswith(b"\x89PNG")
