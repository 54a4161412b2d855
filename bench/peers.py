"""The programs that ours is measured against, each in a folder and a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.commands import Argument, CommandError, install, missing

ROOT = Path(__file__).parents[1]
PACKAGES = {"python-btrfs": "btrfs==15", "dissect.btrfs": "dissect.btrfs"}
SYSTEM_PYTHON = "/usr/bin/python3"


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one process did.

    Attributes:
        seconds: What it took.
        count: Of what it read; contenders at the same task must agree on it.
        peak: Bytes of memory, at most.
    """

    seconds: float
    count: int
    peak: int


Contender = Callable[[], Measurement]


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter in which `import btrfs` means one library or another.

    Attributes:
        executable: Its program.
        path: The folder of the library; None for ours.
        module: The module of its probes.
    """

    executable: str
    path: Path | None = None
    module: str = "bench.probe"

    def probe(self, name: str, *args: Argument) -> Contender:
        """Return a contender that runs a probe in a process of this Python."""
        argv = [self.executable, "-m", self.module, name, *(os.fspath(word) for word in args)]
        return lambda: Measurement(**json.loads(run_alone(argv, self.path)))


OURS = Python(sys.executable)
DEBIAN = Python(SYSTEM_PYTHON)


def peer(name: str, cache: Path) -> Python:
    """Return a Python for a package of PACKAGES, installed into the cache if it is not there."""
    target = cache / "peers" / name
    if not target.exists():
        install(PACKAGES[name], target)
    return Python(sys.executable, target)


def program(*argv: Argument) -> Contender:
    """Return a contender that runs a program, from its start to its end."""

    def measure() -> Measurement:
        words = [os.fspath(word) for word in argv]
        with tempfile.TemporaryFile("w+") as said:
            begin = time.perf_counter()
            process = subprocess.Popen(
                words, cwd=ROOT, env=environment_of(None), stdout=subprocess.DEVNULL, stderr=said
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - begin
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                said.seek(0)
                raise CommandError(
                    f"{' '.join(words)}: exit code {process.returncode}\n{said.read()}"
                )
        return Measurement(seconds, 0, usage.ru_maxrss << 10)

    return measure


def environment_of(path: Path | None) -> dict[str, str]:
    """Return the environment of a process, with only this folder in PYTHONPATH."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    if path is not None:
        environment["PYTHONPATH"] = os.fspath(path)
    return environment


def run_alone(argv: list[str], path: Path | None) -> str:
    """Run a process from the top of the checkout, with only this folder in PYTHONPATH."""
    done = subprocess.run(
        argv, cwd=ROOT, env=environment_of(path), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise CommandError(f"{' '.join(argv)}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def require(*programs: str) -> None:
    """Raise an error that names the programs which are missing."""
    absent = missing(programs)
    if absent:
        raise CommandError(f"not installed: {', '.join(absent)} (make debian-packages)")
