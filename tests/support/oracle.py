"""python-btrfs 15, as a black box whose answers ours are compared with.

It is installed with pip into a folder of its own, because its import name is ours, and only ever
runs in a process of its own. `ask()` hands it a piece of Python and gets back what that left in
`answer`.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab.commands import Argument, CommandError, install
from tests.support.require import unavailable

REQUIREMENT = "btrfs==15"
CACHE = Path(__file__).parents[2] / "build" / "python-btrfs-15"
OUR_LIBRARY = Path(__file__).parents[2] / "src"

FRAME = """\
import json, sys, uuid

def plain(value):
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"no JSON for {value!r}")

args = sys.argv[2:]
scope = {"args": args, "__name__": "__main__"}
exec(sys.argv[1], scope)
json.dump(scope["answer"], sys.stdout, default=plain)
"""


@functools.cache
def folder() -> Path:
    """Return the folder that python-btrfs is installed in, installing it the first time."""
    if not (CACHE / "btrfs").is_dir():
        try:
            install(REQUIREMENT, CACHE)
        except CommandError as error:
            unavailable(f"needs {REQUIREMENT}: {error}")
    return CACHE


def ask(code: str, *args: Argument) -> Any:
    """Run code where `import btrfs` means python-btrfs; return what it left in `answer`.

    Args:
        code: Python source; finds `args` defined, and must set `answer` to something that JSON can
            express (bytes become hex strings, UUIDs strings, tuples lists).
        args: texts for the code.
    """
    environment = {**os.environ, "PYTHONPATH": os.fspath(folder())}
    argv: Sequence[Argument] = (sys.executable, "-c", FRAME, code, *args)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CommandError(f"python-btrfs: exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def ask_us(code: str, *args: str) -> Any:
    """Run what ask() runs with our library, and take its answer through JSON as well."""
    scope: dict[str, Any] = {"args": args, "__name__": "__main__"}
    exec(code, scope)
    return json.loads(json.dumps(scope["answer"]))


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
