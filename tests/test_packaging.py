"""What `pip install` puts on a machine."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the package is installed into, as a user would get it."""
    target = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--target", target, ROOT], check=True)
    return target


@pytest.mark.parametrize("package", ["btrfs", "heatmap", "btrfs_atlas"])
def test_packages_are_typed(installed: Path, package: str) -> None:
    assert (installed / package / "__init__.py").exists()
    assert (installed / package / "py.typed").exists()


def test_every_module_is_installed(installed: Path) -> None:
    ours = {path.relative_to(ROOT / "src") for path in (ROOT / "src").rglob("*.py")}
    assert not {path for path in ours if not (installed / path).exists()}


def test_sample_comes_with_the_package(installed: Path) -> None:
    sample = installed / "btrfs_atlas" / "data" / "sample.btrfs-image"
    assert 100_000 < sample.stat().st_size <= 1_000_000


def test_programs_are_installed(installed: Path) -> None:
    (distribution,) = metadata.distributions(name="btrfs-atlas", path=[str(installed)])
    assert {entry.name for entry in distribution.entry_points} >= {"btrfs-atlas", "btrfs-heatmap"}
    for entry in distribution.entry_points:
        assert (installed / "bin" / entry.name).exists()


def test_license_is_known(installed: Path) -> None:
    (distribution,) = metadata.distributions(name="btrfs-atlas", path=[str(installed)])
    assert distribution.metadata["License-Expression"] == "MIT"


def test_importing_the_library_is_quick_and_takes_no_numpy() -> None:
    python("import btrfs, sys; assert not {'numpy', 'PIL', 'rich'} & set(sys.modules)")
    times = side_by_side(
        lambda: python("import btrfs"),
        lambda: python("import argparse"),
    )
    assert times[0] <= 2 * times[1]


def python(code: str) -> None:
    """Run a line of Python in a process of its own."""
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))


def side_by_side(*works: Callable[[], None], rounds: int = 15) -> list[float]:
    """Return the median seconds of each work; in every round, each is done once."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, seconds, strict=True):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
    return [statistics.median(times) for times in seconds]
