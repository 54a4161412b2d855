"""`python -m bench.check`: how quick the check is, beside `btrfs check`, on sound filesystems."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.__main__ import table
from bench.command import report, run
from bench.contests import Contest, Result, Row, run_contest
from bench.filesystems import BLOCK_GROUPS, PREALLOC_OF_20M, SNAPSHOTS, USED, Recipe, ensure
from bench.free_space import CACHE
from bench.peers import OURS, program, require
from tests.lab.loopfs import PROGRAMS

ATLAS = Path(OURS.executable).with_name("btrfs-atlas")

IMAGES: dict[str, tuple[Recipe, str, float]] = {
    "used": (USED, "300,000 extents, 120,000 files", 4),
    "snapshots": (SNAPSHOTS, "300,000 files, 20 snapshots", 4),
    "block-groups": (BLOCK_GROUPS, "8,000 block groups, 8 TiB", 1),
    "extents-20m": (PREALLOC_OF_20M, "20,000,000 extents", 4),
}
"""By name of the contest: what is checked, in words, and how many times as fast it is to be."""

_MEMORY_LIMIT = 0.5
"""Of the memory that `btrfs check` takes."""


def main() -> int:
    """Measure, and print the results as a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m bench.check", description=__doc__)
    parser.add_argument("contest", nargs="*", default=[*IMAGES], help=", ".join(IMAGES))
    parser.add_argument("--rounds", type=int, default=3, help="how often each (%(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for images (%(default)s)")
    options = parser.parse_args()
    unknown = set(options.contest) - set(IMAGES)
    if unknown:
        parser.error(f"no such contest: {', '.join(sorted(unknown))}")
    return run(lambda: lines(options))


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the report."""
    require(*PROGRAMS)
    options.cache.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for name in options.contest:
        image = ensure(IMAGES[name][0], options.cache, report)
        results += run_contest(contest(name, image), options.rounds, report)
    yield from table(results)


def contest(name: str, image: Path) -> Contest:
    """Return the check of an image beside `btrfs check`, and beside its quick form."""
    _, what, limit = IMAGES[name]
    ours, theirs, quick = f"`btrfs-atlas check`, {what}", "`btrfs check`", f"--quick, {what}"
    return Contest(
        name,
        {
            ours: program(ATLAS, "check", image),
            quick: program(ATLAS, "check", "--quick", image),
            theirs: program("btrfs", "check", "--readonly", image),
        },
        (
            Row(ours, theirs, ours, theirs, limit),
            Row(quick, theirs, quick, theirs, limit),
            Row(
                f"peak memory, {what}",
                theirs,
                ours,
                theirs,
                _MEMORY_LIMIT,
                is_cost=True,
                unit="peak",
            ),
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
