"""`python -m bench`: build what is missing, measure, and print the table.

The images and the other programs stay in the cache folder: a second run measures at once.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench.command import report, run
from bench.contests import CONTESTS, Result, Row, Targets, run_contest
from bench.filesystems import PREALLOC, USED, ensure
from bench.peers import ROOT, SYSTEM_PYTHON, require
from bench.probe import HEATMAP_V9
from tests.lab.loopfs import PROGRAMS, loop_filesystem, mounted_images
from tests.lab.populate import populate


def main() -> int:
    """Measure, and print the results as a Markdown table."""
    options = parse()
    return run(lambda: table(results(options)))


def results(options: argparse.Namespace) -> list[Result]:
    """Return what the contests have come to."""
    require(*PROGRAMS, SYSTEM_PYTHON, HEATMAP_V9)
    options.cache.mkdir(parents=True, exist_ok=True)
    with targets(options.cache) as found:
        return [
            result
            for name in options.contest
            for result in run_contest(CONTESTS[name](found, options.cache), options.rounds, report)
        ]


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("contest", nargs="*", default=list(CONTESTS), help=", ".join(CONTESTS))
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often each is measured (%(default)s)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(os.environ.get("BTRFS_ATLAS_BENCH_CACHE", ROOT / "build" / "bench")),
        help="folder for images and other programs (%(default)s)",
    )
    options = parser.parse_args()
    unknown = set(options.contest) - set(CONTESTS)
    if unknown:
        parser.error(f"no such contest: {', '.join(sorted(unknown))}")
    return options


@contextlib.contextmanager
def targets(cache: Path) -> Iterator[Targets]:
    """Build what is missing, mount everything, and unmount it at the end."""
    used, prealloc = (ensure(recipe, cache, report) for recipe in (USED, PREALLOC))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=cache)))
        small = stack.enter_context(loop_filesystem(folder / "small"))
        populate(small.mountpoint)
        yield Targets(
            used,
            stack.enter_context(mounted_images([used], folder / "used", "ro")).mountpoint,
            prealloc,
            stack.enter_context(mounted_images([prealloc], folder / "prealloc", "ro")).mountpoint,
            small.mountpoint,
        )


def table(results: Iterable[Result]) -> Iterator[str]:
    """Yield the lines of a Markdown table of results."""
    yield "| what | against | demanded | reached | ours | theirs |"
    yield "|---|---|---|---|---|---|"
    for result in results:
        row = result.row
        words = (
            row.what,
            row.against,
            demand(row),
            f"{result.ratio:.2f}" + ("" if result.is_met else " (missed)"),
            figure(result.ours, row.unit),
            figure(result.theirs, row.unit),
        )
        yield f"| {' | '.join(words)} |"


def demand(row: Row) -> str:
    """Return in words what is demanded of the ratio."""
    if row.is_cost:
        return f"at most {row.limit:g} times"
    return "faster" if row.limit == 1 else f"{row.limit:g} times faster"


def figure(value: float, unit: str) -> str:
    """Return seconds or bytes as one reads them."""
    return f"{value:.3f} s" if unit == "seconds" else f"{value / 2**20:.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())
