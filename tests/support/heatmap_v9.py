"""Debian's btrfs-heatmap 9, as a black box whose pictures ours are compared with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.lab.commands import Argument, CommandError
from tests.support.require import require_programs

PROGRAM = "/usr/bin/btrfs-heatmap"
"""With its whole path: the program of the same name in our own environment is not meant."""


def draw(target: Argument, *options: Argument, output: Path) -> str:
    """Draw the mounted filesystem at target into a PNG file, and return what was printed."""
    require_programs(PROGRAM)
    # It runs on the system's own Python, which must not find our packages.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    argv: list[Argument] = [PROGRAM, *options, "-o", output, target]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"{PROGRAM}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
