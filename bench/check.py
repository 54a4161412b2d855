"""`python -m bench.check`: how quick the check is, beside `btrfs check`, on sound filesystems."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.__main__ import table
from bench.command import report, run
from bench.contests import Contest, Result, Row, contest_options, run_contest
from bench.filesystems import BLOCK_GROUPS, PREALLOC_OF_20M, SNAPSHOTS, USED, Recipe, ensure
from bench.peers import OURS, program, require
from tests.lab.loopfs import PROGRAMS

ATLAS = Path(OURS.executable).with_name("btrfs-atlas")


@dataclass(frozen=True, slots=True)
class Target:
    """A filesystem, and what is demanded of the check of it.

    Attributes:
        recipe: How it is made.
        words: What is in it.
        speed: How many times as fast as `btrfs check` it is to be; None if it may be slower.
        memory: How much memory it may take, as a part of what `btrfs check` takes.
    """

    recipe: Recipe
    words: str
    speed: float | None
    memory: float


IMAGES = {
    "used": Target(USED, "300,000 extents, 120,000 files", 4, 1),
    "snapshots": Target(SNAPSHOTS, "300,000 files, 20 snapshots", 4, 0.5),
    "extents-20m": Target(PREALLOC_OF_20M, "20,000,000 extents", 4, 0.1),
    # There is next to nothing to read in it: what counts is that it takes about a second.
    "block-groups": Target(BLOCK_GROUPS, "8,000 block groups, 8 TiB", None, 4),
}
"""By name of the contest."""

_SLOWEST = 4
"""So many times as slow it may be where nothing is to be read."""


def main() -> int:
    """Measure, and print the results as a Markdown table."""
    options = contest_options("bench.check", __doc__, IMAGES)
    return run(lambda: lines(options))


def lines(options: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of the report."""
    require(*PROGRAMS)
    options.cache.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for name in options.contest:
        image = ensure(IMAGES[name].recipe, options.cache, report)
        results += run_contest(contest(name, image), options.rounds, report)
    yield from table(results)


def contest(name: str, image: Path) -> Contest:
    """Return the check of an image beside `btrfs check`, whole and quick."""
    target = IMAGES[name]
    ours, quick = f"`btrfs-atlas check`, {target.words}", f"`--quick`, {target.words}"
    theirs = "`btrfs check`"
    return Contest(
        name,
        {
            ours: program(ATLAS, "check", image),
            quick: program(ATLAS, "check", "--quick", image),
            theirs: program("btrfs", "check", "--readonly", image),
        },
        (
            *(_time(row, theirs, target) for row in (ours, quick)),
            Row(
                f"peak memory, {target.words}",
                theirs,
                ours,
                theirs,
                target.memory,
                is_cost=True,
                unit="peak",
            ),
        ),
    )


def _time(ours: str, theirs: str, target: Target) -> Row:
    if target.speed is None:
        return Row(ours, theirs, ours, theirs, _SLOWEST, is_cost=True)
    return Row(ours, theirs, ours, theirs, target.speed)


if __name__ == "__main__":
    sys.exit(main())
