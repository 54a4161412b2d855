"""Pictures and words of real filesystems, held against those of btrfs-heatmap 9."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import btrfs
import heatmap
from btrfs_atlas import cli
from heatmap import curves
from tests import support
from tests.support.fixtures import Options

FILESYSTEMS: dict[str, Options] = {
    "single": {"size": "2G", "data": "single", "metadata": "dup"},
    "several": {"size": "1500M", "devices": 3, "data": "raid1", "metadata": "raid1"},
    "striped": {"size": "1G", "devices": 3, "data": "raid5", "metadata": "raid1"},
    "mixed": {"size": "1G", "mixed": True, "data": "single", "metadata": "single"},
    "not-skinny": {"size": "1G", "features": ("^skinny-metadata",)},
}

# The scripting interface of the original, run on the Python that it is installed for.
SCRIPT = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader("heatmap", "/usr/bin/btrfs-heatmap")
heatmap = importlib.util.module_from_spec(importlib.util.spec_from_loader("heatmap", loader))
loader.exec_module(heatmap)
import btrfs
# Its words about extents need a name that its version of python-btrfs has not.
btrfs.ctree.key_type_str = btrfs.ctree._key_type_str
fs = btrfs.FileSystem(sys.argv[1])
groups = [fs.block_group(chunk.vaddr, chunk.length) for chunk in fs.chunks()]
grid = heatmap.walk_extents(fs, groups[::int(sys.argv[2])], **eval(sys.argv[3]))
grid.write_png(sys.argv[4])
"""


@pytest.fixture(scope="module", params=FILESYSTEMS)
def filesystem(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A mounted filesystem with contents of all kinds."""
    options = FILESYSTEMS[request.param]
    with support.filesystem(tmp_path_factory.mktemp(request.param), **options) as made:
        support.populate(made.mountpoint)
        made.sync()
        yield made.mountpoint


def assert_alike(ours: Path, theirs: Path) -> None:
    """No pixel is off by more than 1 in any channel, and 99.9 % are identical."""
    one, other = _pixels(ours), _pixels(theirs)
    assert one.shape == other.shape
    off = abs(one.astype(int) - other).max(axis=2)
    assert off.max() <= 1
    assert (off == 0).mean() >= 0.999


def assert_same_words(ours: str, theirs: str) -> None:
    """The words are the same, but that the usual curve is not named, and for the files' names."""
    theirs = theirs.replace("grid curve hilbert ", "grid ")
    assert _nameless(ours) == _nameless(theirs)


def _pixels(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def _nameless(words: str) -> list[str]:
    lines = words.splitlines()
    return ["pngfile" if line.startswith("pngfile ") else line for line in lines]


@pytest.mark.parametrize("sort", ["physical", "virtual"])
@pytest.mark.parametrize(
    "options",
    [
        "",
        "-v --curve linear",
        "-vv --size 3",
        "-vvv --curve snake",
        "-vvv --order 4 --size 7",
        "-q --order 11 --curve snake",
    ],
)
def test_whole_filesystem(
    filesystem: Path, sort: str, options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*options.split(), "--sort", sort]
    ours, theirs = tmp_path / "ours.png", tmp_path / "theirs.png"
    assert cli.heatmap([*words, "-o", str(ours), str(filesystem)]) == 0
    told = support.heatmap_v9.draw(filesystem, *words, output=theirs)
    assert_same_words(capsys.readouterr().out, told)
    assert_alike(ours, theirs)


def test_each_block_group(
    filesystem: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = tmp_path / "ours.png", tmp_path / "theirs.png"
    types = set()
    with btrfs.FileSystem(filesystem) as fs:
        groups = list(fs.block_groups())
    for number, group in enumerate(groups):
        types.add(group.flags & btrfs.BLOCK_GROUP_TYPE_MASK)
        curve = curves.CURVES[number % 3]
        words = ["--blockgroup", str(group.vaddr), "--curve", curve]
        assert cli.heatmap([*words, "-o", str(ours), str(filesystem)]) == 0
        told = support.heatmap_v9.draw(filesystem, *words, output=theirs)
        assert_same_words(capsys.readouterr().out, told)
        assert_alike(ours, theirs)
    assert len(types) >= 2


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (1, {}),
        (2, {"order": 11, "curve": "snake"}),
        (1, {"order": 9, "curve": "linear", "verbose": 1}),
        (-1, {"order": 6, "size": 8, "verbose": 2}),
        (-1, {"size": 7, "verbose": 3, "curve": "snake"}),
        (2, {"verbose": -1, "default_granularity": 1 << 16}),
    ],
)
def test_extents_of_block_groups(
    filesystem: Path,
    step: int,
    options: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    support.require_programs(support.heatmap_v9.PROGRAM, "/usr/bin/python3")
    ours, theirs = tmp_path / "ours.png", tmp_path / "theirs.png"
    done = subprocess.run(
        ["/usr/bin/python3", "-c", SCRIPT, filesystem, str(step), repr(options), theirs],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with btrfs.FileSystem(filesystem) as fs:
        groups = [fs.block_group(chunk.vaddr, chunk.length) for chunk in fs.chunks()]
        heatmap.walk_extents(fs, groups[::step], **options).write_png(ours)
    assert_same_words(capsys.readouterr().out, done.stdout)
    assert_alike(ours, theirs)
