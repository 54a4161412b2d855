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

SCRIPTS = Path(__file__).with_name("scripts")
"""As people write them, with their own paths."""

# Patterns of what each prints, line by line, and of the names of its pictures.
GRID = r"grid order \d+ size {size} height \d+ width \d+ total_bytes \d+ bytes_per_pixel \d+\.\d+"
DEV_EXTENTS = (
    r"(dev_extent devid \d+ paddr \d+ length \d+ pend \d+ type [A-Z0-9|]+ used_pct \d+\.\d\d\n?)+"
)
FSID = r"[0-9a-f-]{36}"
PRINTED = {
    "full_filesystem": (
        [r"scope device 1 2", GRID.format(size=8), r"pngfile full-fs\.png"],
        [r"full-fs\.png"],
    ),
    "four_newest": (
        [
            r"scope block_group \d+ \d+ \d+ \d+",
            GRID.format(size="10"),
            rf"pngfile .*/fsid_{FSID}_startat_\d+_at_\d+\.png",
        ],
        [rf"fsid_{FSID}_startat_\d+_at_\d+\.png"],
    ),
    "per_device": (
        [
            *(r"scope device 1", GRID.format(size=10), DEV_EXTENTS, r"pngfile device_1\.png"),
            *(r"scope device 2", GRID.format(size=10), DEV_EXTENTS, r"pngfile device_2\.png"),
        ],
        [r"device_1\.png", r"device_2\.png"],
    ),
    "all_block_groups": (
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


@pytest.mark.parametrize("name", PRINTED)
@pytest.mark.parametrize("mounted", [True, False], ids=["mounted", "image"])
def test_script(raid0: support.LoopFilesystem, tmp_path: Path, name: str, mounted: bool) -> None:
    lines, pictures = PRINTED[name]
    script = (SCRIPTS / f"{name}.py").read_text()
    target = os.fspath(raid0.mountpoint if mounted else raid0.images[0])
    for path in ('"/mnt/raid0"', '"/"'):
        script = script.replace(path, repr(target))
    script = script.replace('"/output/directory/"', repr(os.fspath(tmp_path)))
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


def test_every_script_is_tried() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(PRINTED)
