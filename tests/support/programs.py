"""Our programs, run as a user would: in this process where that is quicker, or in one of their own.

The programs of the same names that are installed on the machine are run in the same way, to compare
with.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from btrfs_atlas import cli

SAMPLE = Path(cli.__file__).parent / "data" / "sample.btrfs-image"
"""The filesystem that comes with the package."""

Main = Callable[[Sequence[str]], int]
"""One of the functions of btrfs_atlas.cli."""


def run_here(main: Main, *words: str | Path) -> int | str | None:
    """Run a program in this process; return its exit code."""
    try:
        return main([str(word) for word in words])
    except SystemExit as ended:
        return ended.code


def run_program(*argv: str | Path) -> tuple[int, str, str]:
    """Run a program to its end; return its exit code and both its outputs."""
    # One that is installed runs on the system's own Python, which must not find our packages.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout, done.stderr


def run_in_terminal(*argv: str | Path) -> tuple[int, str]:
    """Run a program whose output is a terminal; return its exit code and its output."""
    master, slave = pty.openpty()
    with subprocess.Popen(argv, stdout=slave, stderr=slave, stdin=slave) as running:
        os.close(slave)
        output = b""
        while running.poll() is None or select.select([master], [], [], 0)[0]:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    output += os.read(master, 65536)
                except OSError:  # the other end is closed
                    break
    os.close(master)
    return running.returncode, output.decode()


def assert_one_line(complaint: str) -> str:
    """Check that a program complains in one line with a hint, as all do; return the line."""
    assert re.fullmatch(r"Error: [^\n]+ Hint: [^\n]+\n", complaint)
    return complaint
