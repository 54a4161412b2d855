"""The JavaScript of the explorer, run by node, and functions that a page runs for a test."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.require import require_programs

FOLDER = Path(__file__).parents[1] / "javascript"


def run_module(name: str, argument: object) -> Any:
    """Run a module of tests/javascript with an argument, and return what it prints.

    Both are written as JSON. The test is skipped where node is missing.
    """
    require_programs("node")
    done = subprocess.run(
        ["node", FOLDER / name],
        input=json.dumps(argument),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def function_for_page(name: str) -> str:
    """Return the function that a module of tests/javascript/in-page exports, as an expression."""
    text = (FOLDER / "in-page" / name).read_text(encoding="utf-8")
    _, found, function = text.partition("export default ")
    assert found, f"{name} has no default export"
    return function.rstrip().removesuffix(";")
