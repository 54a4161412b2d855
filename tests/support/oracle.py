"""python-btrfs 15, as a black box whose answers ours are compared with.

It is installed with pip into a folder of its own, because its import name is ours, and only ever
runs in a process of its own. `ask()` calls a function there and gets back its answer.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.lab.commands import Argument, CommandError, install
from tests.support.documents import ROOT
from tests.support.require import unavailable

REQUIREMENT = "btrfs==15"
CACHE = Path(os.environ.get("BTRFS_ATLAS_TEST_CACHE", ROOT / "build")) / "python-btrfs-15"
OUR_LIBRARY = ROOT / "src"

Question = Callable[..., Any] | str

PROCESS = Path(__file__).with_name("oracle_process.py")


@functools.cache
def folder() -> Path:
    """Return the folder that python-btrfs is installed in, installing it the first time."""
    if not (CACHE / "btrfs").is_dir():
        try:
            install(REQUIREMENT, CACHE)
        except CommandError as error:
            unavailable(f"needs {REQUIREMENT}: {error}")
    return CACHE


def ask(question: Question, *args: Argument) -> Any:
    """Ask python-btrfs: call a function where `import btrfs` means that; return its answer.

    Args:
        question: A function at the top of a module that imports nothing of this repository but
            btrfs. Or code that finds `args` defined, and sets `answer`. The answer is something
            that JSON can express (bytes become hex strings, UUIDs strings, tuples lists).
        args: Texts for the function.
    """
    if isinstance(question, str):
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write(question)
            file.flush()
            return _answer(file.name, "", args)
    return _answer(inspect.getfile(question), question.__name__, args)


def ask_us(question: Question, *args: str) -> Any:
    """Ask our library what ask() asks, and take its answer through JSON as well."""
    if isinstance(question, str):
        scope: dict[str, Any] = {"args": args, "__name__": "__main__"}
        exec(question, scope)
        answer = scope["answer"]
    else:
        answer = question(*args)
    return json.loads(json.dumps(answer))


def _answer(file: str, function: str, args: Sequence[Argument]) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.fspath(folder())}
    # With -P, the folder of the program itself is not in the path.
    argv: Sequence[Argument] = (sys.executable, "-P", PROCESS, file, function, *args)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"python-btrfs: exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def run_program(
    name: str, *args: Argument, with_our_library: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run one of the programs that python-btrfs comes with, to its end.

    Args:
        name: The program.
        args: What it is given.
        with_our_library: Let it import our library in place of its own.
    """
    library = OUR_LIBRARY if with_our_library else folder()
    environment = {**os.environ, "PYTHONPATH": os.fspath(library)}
    argv = (sys.executable, folder() / "bin" / name, *args)
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
