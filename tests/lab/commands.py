"""Run the programs that tests need, and say well what went wrong."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

Argument = str | os.PathLike[str]


class CommandError(RuntimeError):
    """A program ended with an exit code other than 0."""


def run(*command: Argument, cwd: Argument | None = None) -> str:
    """Run a program to its end and return its standard output.

    Raises:
        CommandError: It failed; the message holds the command and what it printed.
    """
    argv = [os.fspath(word) for word in command]
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        message = f"{' '.join(argv)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        # Names of files are bytes of any kind; a message is text.
        raise CommandError(message.encode(errors="backslashreplace").decode())
    return done.stdout


def missing(programs: Sequence[str]) -> list[str]:
    """Return those of the programs that this machine does not have."""
    return [program for program in programs if shutil.which(program) is None]


def install(requirement: str, target: Path) -> None:
    """Install a Python package and what it needs into a folder of its own, with pip.

    Nothing is done if the folder is there.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Tests run side by side, and several may want the same.
    with target.with_name(f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return
        # Under another name first: a folder of the right name is a whole one.
        unfinished = target.with_name(f"{target.name}.unfinished")
        run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--upgrade", "--target", unfinished, requirement),
        )
        unfinished.rename(target)
