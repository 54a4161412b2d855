"""Type checkers know every attribute: a misspelt one is an error, in our code and in scripts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = Path(__file__).parents[1] / "typed" / "names.py"
EXPECTED_ERROR = "  # type: ignore[attr-defined]"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return the file of names as a script of a user, without the comments that expect errors."""
    path = tmp_path / "script.py"
    path.write_text(NAMES.read_text().replace(EXPECTED_ERROR, ""))
    return path


def misspelt_lines() -> list[int]:
    """Return the numbers of the lines with a misspelt name."""
    lines = NAMES.read_text().splitlines()
    return [number for number, line in enumerate(lines, 1) if line.endswith(EXPECTED_ERROR)]


def checked_by(*command: str | Path) -> str:
    """Return what a type checker, a module of Python, writes about a file."""
    program: list[str | Path] = [sys.executable, "-m", *command]
    cwd = Path(command[-1]).parent
    done = subprocess.run(
        program, cwd=cwd, capture_output=True, text=True, timeout=250, check=False
    )
    return done.stdout + done.stderr


def test_mypy_reports_each_misspelt_name(script: Path) -> None:
    output = checked_by("mypy", "--strict", "--no-pretty", script)
    errors = re.findall(r"script\.py:(\d+): error: .*\[(.*)\]$", output, re.MULTILINE)
    assert [int(line) for line, _ in errors] == misspelt_lines(), output
    assert {kind for _, kind in errors} == {"attr-defined"}


def test_pyright_reports_each_misspelt_name(script: Path) -> None:
    output = checked_by("basedpyright", "--outputjson", "--pythonpath", sys.executable, script)
    found = json.loads(output)["generalDiagnostics"]
    errors = [entry for entry in found if entry["severity"] == "error"]
    lines = [entry["range"]["start"]["line"] + 1 for entry in errors]
    assert lines == misspelt_lines(), output
    assert {entry["rule"] for entry in errors} == {"reportAttributeAccessIssue"}
