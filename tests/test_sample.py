"""The sample filesystem of the package, and the demonstration that draws it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

import btrfs
from tests import support

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "src" / "btrfs_atlas" / "data" / "sample.btrfs-image"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What the demonstration says it has drawn."""
    folder = tmp_path_factory.mktemp("demo")
    printed = support.run(sys.executable, ROOT / "scripts" / "demo.py", folder)
    return [Path(line) for line in printed.splitlines()]


@pytest.fixture(scope="module")
def pictures(drawn: list[Path]) -> list[Path]:
    """Its pictures; the map is the last thing."""
    return drawn[:-1]


def test_sample_has_a_history() -> None:
    with btrfs.FileSystem(SAMPLE) as fs:
        assert sum(device.total_bytes for device in fs.devices()) >= 20 << 30
        snapshots = [
            volume for volume in fs.subvolumes() if volume.flags & btrfs.ctree.ROOT_SUBVOL_RDONLY
        ]
        fill = [
            100 * block_group.used // block_group.length
            for block_group in fs.block_groups()
            if block_group.flags & btrfs.BLOCK_GROUP_DATA
        ]
    assert len(snapshots) >= 2
    assert len(fill) >= 10
    assert min(fill) < 25
    assert max(fill) == 100
    assert len({percent // 10 for percent in fill}) >= 5


def test_demonstration_draws_four_pictures(pictures: list[Path]) -> None:
    assert [path.name.split("-")[0] for path in pictures] == [
        "physical.png",
        "virtual.png",
        "data",
        "metadata",
    ]
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.size == (1024, 1024)
            assert picture.getcolors(maxcolors=1 << 16) is not None


def test_demonstration_writes_a_map(drawn: list[Path]) -> None:
    assert drawn[-1].name == "atlas.html"
    assert 1 << 20 < drawn[-1].stat().st_size < 3 << 20


def test_metadata_shows_several_trees(pictures: list[Path]) -> None:
    with Image.open(pictures[-1]) as picture:
        colors = picture.convert("RGB").getcolors(maxcolors=1 << 16)
    assert colors is not None
    assert len(colors) >= 5
