"""`python -m tests.fuzz`: damage good images in many ways, and see whether anything crashes.

python -m tests.fuzz run [--images N] [--run NUMBER] [--write]    run, and print the figures
python -m tests.fuzz replay FILE    take one case again: a file that a run has left
python -m tests.fuzz show NUMBER [--run NUMBER]                   print the case of a number
python -m tests.fuzz seeds [NAME ...]                             make the seeds anew (root)
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import cases, runner, seeds, worker
from tests.fuzz.runner import ROOT, Figures

DOCUMENT = ROOT / "docs" / "fuzzing.md"
MARKS = ("<!-- figures: begin -->\n", "<!-- figures: end -->\n")
FAULTS = ROOT / "build" / "fuzz"
"""Where the cases are left that led to a fault."""

IMAGES = 20_000
REPORT_SECONDS = 10


def main() -> int:
    """Do what the command line says; return 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("run", help="take many cases")
    command.add_argument("--images", type=int, default=IMAGES, help="how many damaged images")
    command.add_argument("--first", type=int, default=0, help="number of the first one")
    command.add_argument("--run", type=int, default=1, help="number that all choices follow from")
    command.add_argument("--workers", type=int, default=runner.WORKERS, help="processes")
    command.add_argument("--write", action="store_true", help=f"write the figures into {DOCUMENT}")
    command.set_defaults(do=_run)
    command = commands.add_parser("replay", help="take one case again")
    command.add_argument("file", type=Path)
    command.set_defaults(do=_replay)
    command = commands.add_parser("show", help="print the case of a number, for replay")
    command.add_argument("number", type=int)
    command.add_argument("--run", type=int, default=1)
    command.set_defaults(do=_show)
    command = commands.add_parser("seeds", help="make seeds anew; then numbers mean other cases")
    command.add_argument("names", nargs="*")
    command.set_defaults(do=_make_seeds)
    options = parser.parse_args()
    status: int = options.do(options)
    return status


def _run(options: argparse.Namespace) -> int:
    started = time.monotonic()
    reported = started

    def progress(figures: Figures) -> None:
        nonlocal reported
        if time.monotonic() > reported + REPORT_SECONDS:
            reported = time.monotonic()
            faults = len(figures.faults)
            print(f"{figures.images:,} images, {faults} faults", file=sys.stderr, flush=True)

    numbers = range(options.first, options.first + options.images)
    figures = runner.run_cases(options.run, numbers, options.workers, progress)
    table = "".join(f"{line}\n" for line in runner.lines(figures))
    print(table)
    print(f"took {time.monotonic() - started:.0f} s with {options.workers} processes")
    for fault in figures.faults.values():
        print(f"\nFAULT in {fault.count} cases: {fault.error}\n  {fault.where}")
        print(f"  python -m tests.fuzz replay {_left(options.run, fault.number)}")
    if options.write:
        _insert(table)
    return 1 if figures.faults else 0


def _left(run: int, number: int) -> Path:
    """Leave a case in a file."""
    FAULTS.mkdir(parents=True, exist_ok=True)
    path = FAULTS / f"{run}-{number}.json"
    path.write_text(cases.case_of(run, number).as_text())
    return path.relative_to(ROOT)


def _insert(table: str) -> None:
    """Put the figures into the document in place of those that are there."""
    begin, end = (re.escape(mark) for mark in MARKS)
    text = re.sub(
        f"({begin}).*({end})",
        lambda found: f"{found[1]}\n{table}\n{found[2]}",
        DOCUMENT.read_text(),
        flags=re.DOTALL,
    )
    DOCUMENT.write_text(text)


def _replay(options: argparse.Namespace) -> int:
    case = cases.Case.from_text(options.file.read_text())
    worker.limit()
    with tempfile.TemporaryDirectory(dir=worker.folder()) as made:
        answer = worker.take(case, cases.Stage(Path(made)))
    for name, value in answer.items():
        print(f"{name}: {value}" if name != "fault" else "")
    if answer["fault"] is None:
        print("no fault")
        return 0
    print(answer["fault"]["traceback"] or answer["fault"]["error"])
    return 1


def _show(options: argparse.Namespace) -> int:
    print(cases.case_of(options.run, options.number).as_text())
    return 0


def _make_seeds(options: argparse.Namespace) -> int:
    seeds.make(options.names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
