"""CONTRIBUTING.md is true: its how-tos work in a copy of the repository, its targets exist.

A how-to is applied as it is written: a block of Python goes to the place that is named right before
it, and the commands are run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import documents
from tests.support.documents import ROOT

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
HOW_TOS = [
    heading
    for heading in re.findall(r"^## (.*)$", CONTRIBUTING.read_text(), re.MULTILINE)
    if heading.startswith("Add ")
]


def sections() -> dict[str, str]:
    """Return the text below each heading."""
    parts = re.split(r"^## (.*)\n", CONTRIBUTING.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def apply(text: str, folder: Path) -> None:
    """Write the blocks of Python of a how-to into the files of a copy of the repository."""
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        code = block[1]
        paragraph = text[: block.start()].rstrip().rpartition("\n\n")[2].replace("\n", " ")
        if found := re.search(r"[Aa]dd to `(\w+)` in `([^`]+)`:$", paragraph):
            insert(folder / found[2], found[1], code)
        elif found := re.search(r"[Aa]dd at the end of `([^`]+)`:$", paragraph):
            path = folder / found[1]
            path.write_text(path.read_text() + code)
        else:
            found = re.search(r"`([^`]+)`:$", paragraph)
            assert found, paragraph
            assert not (folder / found[1]).exists()
            (folder / found[1]).write_text(code)


def insert(path: Path, name: str, code: str) -> None:
    """Insert lines at the beginning of the table of this name."""
    before, start, after = path.read_text().partition(f"\n{name} = {{\n")
    assert start
    path.write_text(before + start + code + after)


def test_there_are_how_tos() -> None:
    assert len(HOW_TOS) == 3


@pytest.mark.parametrize("how_to", HOW_TOS)
def test_how_to(how_to: str, tmp_path: Path) -> None:
    text = sections()[how_to]
    copy = documents.copy_repository(tmp_path / "btrfs-atlas")
    apply(text, copy)
    commands = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert commands
    for command in [*commands, ".venv/bin/ruff check"]:
        run(command, copy)


def run(command: str, folder: Path) -> None:
    """Run a command of the document in a copy of the repository, which has no environment."""
    programs = Path(sys.executable).parent
    argv = [word.replace(".venv/bin", os.fspath(programs)) for word in shlex.split(command)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.fspath(folder / "src"),
        "PYTEST_ADDOPTS": "-p no:cacheprovider",
        "RUFF_NO_CACHE": "true",
    }
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_commands_exist() -> None:
    """Every target of make and every file that a command of the document names exists."""
    targets = re.findall(r"^([\w$()./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    known = {target.replace("$(VENV)", ".venv") for target in targets}
    text = CONTRIBUTING.read_text()
    code = [
        *re.findall(r"`([^`\n]+)`", text),
        *re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE),
    ]
    named = re.findall(r"^(?:sudo )?make ([\w./-]+)", "\n".join(code), re.MULTILINE)
    assert len(named) >= 6
    assert set(named) <= known
    written = set(re.findall(r"`((?:src|tests)/[\w/.]+)`:$", text, re.MULTILINE))
    for path in re.findall(r"\b((?:src|tests|docs|bench|scripts)/[\w/.*-]*\w)", text):
        assert path in written or any(ROOT.glob(path)), path
