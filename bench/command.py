"""What benchmarks have in common as programs: who may run them, and what they say meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from tests.lab.commands import CommandError
from tests.lab.loopfs import is_root


def run(measure: Callable[[], Iterable[str]]) -> int:
    """Measure, and print the lines that come of it.

    Returns:
        The exit status.
    """
    if not is_root():
        print("Error: needs root, to attach loop devices and to mount", file=sys.stderr)
        return 1
    try:
        lines = list(measure())
    except CommandError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    report("")
    print("\n".join(lines))
    return 0


def report(line: str) -> None:
    """Show what is going on, on standard error; on a terminal, in one line."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
    elif line:
        print(line, file=sys.stderr, flush=True)
