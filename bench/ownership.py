"""`python -m bench.ownership`: how quick scans for owners are, beside the kernel and others.

Quota groups are counted by the kernel on the mounted filesystem, which is changed by that: the
images are for this benchmark alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.__main__ import table
from bench.command import report, run
from bench.contests import Contest, Result, Row, contest_options, run_contest
from bench.filesystems import (
    FEW_OF_20,
    FEW_OF_1000,
    REFERENCES,
    SNAPSHOT,
    SNAPSHOTS,
    SNAPSHOTS_NEAR,
    ensure,
)
from bench.peers import OURS, Measurement, Python, program, require
from tests.lab.commands import run as run_command
from tests.lab.loopfs import PROGRAMS, mounted_images

MEMORY = 1 << 30
"""Bytes that a scan of very many references may take."""

probe = Python(OURS.executable, module="bench.ownership_probe").probe

ATLAS = Path(OURS.executable).with_name("btrfs-atlas")


def main() -> int:
    """Measure, and print the results as a Markdown table and some figures."""
    options = contest_options("bench.ownership", __doc__, CONTESTS)
    return run(lambda: lines(options))


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the report."""
    require(*PROGRAMS, "compsize")
    options.cache.mkdir(parents=True, exist_ok=True)
    images = {
        recipe.name: ensure(recipe, options.cache, report)
        for recipe in (SNAPSHOT, SNAPSHOTS, SNAPSHOTS_NEAR, FEW_OF_20, FEW_OF_1000, REFERENCES)
    }
    results: list[Result] = []
    with tempfile.TemporaryDirectory(dir=options.cache) as folder:
        targets = Targets(images, Path(folder) / "mnt", Path(folder))
        # A mounted filesystem has work to do by itself, which would count for what is not mounted.
        for name in options.contest:
            if name not in MOUNTED:
                results += run_contest(CONTESTS[name](targets), options.rounds, report)
        with mounted_images([images[SNAPSHOTS.name]], targets.mountpoint, "noatime"):
            for name in options.contest:
                if name in MOUNTED:
                    results += run_contest(CONTESTS[name](targets), options.rounds, report)
    yield from table(results)
    yield ""
    yield from figures(images)


@dataclass(frozen=True, slots=True)
class Targets:
    """What is measured on.

    Attributes:
        images: The images by the names of their recipes.
        mountpoint: Where that of SNAPSHOTS is mounted.
        folder: A folder for files.
    """

    images: dict[str, Path]
    mountpoint: Path
    folder: Path


def quota(targets: Targets) -> Contest:
    """What each of 21 subvolumes uses, beside a rescan of quota groups."""
    ours, kernel = "all 21 subvolumes, mounted", "`btrfs quota rescan -w`"
    return Contest(
        "quota",
        {
            ours: probe("scan", targets.mountpoint, "devices", "all"),
            kernel: lambda: rescan(targets.mountpoint),
        },
        (Row(ours, kernel, ours, kernel, 10),),
    )


def du(targets: Targets) -> Contest:
    """The same as a whole process, beside `du -s`."""
    ours, theirs = "`btrfs-atlas subvolumes`, whole process", "`btrfs filesystem du -s` of all"
    mountpoint = targets.mountpoint
    folders = [mountpoint / "origin", *(mountpoint / f"snapshot{n}" for n in range(20))]
    return Contest(
        "du",
        {
            ours: program(ATLAS, "subvolumes", mountpoint),
            theirs: program("btrfs", "filesystem", "du", "-s", *folders),
        },
        (Row(ours, theirs, ours, theirs, 20),),
    )


def rescan(mountpoint: Path) -> Measurement:
    """Let the kernel count quota groups, and switch them off again."""
    run_command("btrfs", "quota", "enable", mountpoint)
    # Enabling starts to count; only a count from the beginning is measured.
    run_command("btrfs", "quota", "rescan", "-w", mountpoint)
    begin = time.perf_counter()
    run_command("btrfs", "quota", "rescan", "-w", mountpoint)
    seconds = time.perf_counter() - begin
    run_command("btrfs", "quota", "disable", mountpoint)
    return Measurement(seconds, 0, 0)


def compression(targets: Targets) -> Contest:
    """The table of compression of the whole filesystem."""
    mountpoint = targets.mountpoint
    ours, theirs = "`btrfs-atlas compression` of all, whole process", "compsize"
    return Contest(
        "compression",
        {ours: program(ATLAS, "compression", mountpoint), theirs: program("compsize", mountpoint)},
        (Row(ours, theirs, ours, theirs, 20),),
    )


def blocks(targets: Targets) -> Contest:
    """A scan beside nothing but reading the blocks and their checksums."""
    image = targets.images[SNAPSHOTS.name]
    ours, theirs = "the scan, unmounted", "reading the same blocks and checking their checksums"
    addresses = targets.folder / "blocks.json"
    run_command(OURS.executable, "-m", "bench.ownership_probe", "write_blocks", image, addresses)
    return Contest(
        "blocks",
        {ours: probe("scan", image, "unmounted", "all"), theirs: probe("blocks", image, addresses)},
        (Row(ours, theirs, ours, theirs, 3, is_cost=True),),
    )


def snapshots(targets: Targets) -> Contest:
    """Twenty snapshots beside one of the same files."""
    images = targets.images
    ours, theirs = "20 snapshots, 1 % changed in each", "1 snapshot of the same files"
    return Contest(
        "snapshots",
        {
            ours: probe("scan", images[SNAPSHOTS_NEAR.name], "unmounted", "all"),
            theirs: probe("scan", images[SNAPSHOT.name], "unmounted", "all"),
        },
        (Row(ours, theirs, ours, theirs, 1.5, is_cost=True),),
    )


CONTESTS: dict[str, Callable[[Targets], Contest]] = {
    "quota": quota,
    "du": du,
    "compression": compression,
    "blocks": blocks,
    "snapshots": snapshots,
}


MOUNTED = ("quota", "du", "compression")


def figures(images: dict[str, Path]) -> Iterator[str]:
    """Yield figures that nothing is demanded of but the last."""
    for recipe in (FEW_OF_20, FEW_OF_1000):
        image = images[recipe.name]
        count = different_blocks(image)
        measured = probe("scan", image, "unmounted", "all")()
        yield (
            f"- {recipe.name}: {count:,} different blocks, {measured.seconds:.2f} s,"
            f" {1e6 * measured.seconds / count:.0f} microseconds per block"
        )
    measured = probe("scan", images[REFERENCES.name], "unmounted", str(MEMORY))()
    yield (
        f"- 20 million references, memory=1 GiB: {measured.seconds:.1f} s,"
        f" peak {measured.peak / 2**30:.2f} GiB (at most 1.3 GiB)"
    )


def different_blocks(image: Path) -> int:
    """Return how many tree blocks a filesystem has."""
    with tempfile.NamedTemporaryFile() as file:
        argv = (OURS.executable, "-m", "bench.ownership_probe", "write_blocks", image, file.name)
        return int(run_command(*argv))


if __name__ == "__main__":
    sys.exit(main())
