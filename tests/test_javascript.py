"""The explorer's JavaScript that needs no browser: its unit tests, and the types of its data."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs_atlas.explorer.atlas import Atlas
from btrfs_atlas.explorer.search.details import at, details
from btrfs_atlas.explorer.search.find import find
from btrfs_atlas.explorer.web import export, overview
from btrfs_atlas.explorer.web.page import STATIC
from heatmap.colourings import colourings
from tests import support
from tests.support.javascript import FOLDER
from tests.support.programs import SAMPLE

ROOT = Path(__file__).parents[1]
TESTS = sorted(FOLDER.glob("*.test.js"))
COMPILER = ROOT / "node_modules" / ".bin" / "tsc"

OPTIONS = ("--strict", "--noEmit", "--target", "ES2022", "--module", "NodeNext")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_of_javascript(path: Path) -> None:
    support.require_programs("node")
    done = subprocess.run(
        ["node", "--test", path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout
    assert "# pass 0" not in done.stdout


@pytest.fixture(scope="module")
def sample() -> Iterator[Atlas]:
    with Atlas([str(SAMPLE)]) as atlas:
        yield atlas


def test_types_are_those_of_the_data(sample: Atlas, tmp_path: Path) -> None:
    answers = list(answers_of(sample))
    assert complaints(answers, tmp_path) == ""


def test_types_do_not_allow_other_data(sample: Atlas, tmp_path: Path) -> None:
    filesystem = overview.filesystem(sample)
    for wrong in (
        filesystem | {"generation": 9},
        filesystem | {"unknown": 1},
        {name: value for name, value in filesystem.items() if name != "labels"},
    ):
        assert complaints([("Filesystem", wrong)], tmp_path).startswith("answers.mts(2,")


def complaints(answers: list[tuple[str, Any]], folder: Path) -> str:
    """Return what the compiler says about data that ought to have types of data/types.d.ts.

    Args:
        answers: Names of types, and data.
        folder: For a module in which each of them is a constant.
    """
    if not COMPILER.exists():
        support.unavailable("needs tsc, which scripts/lint-javascript installs")
    types = sorted({name for name, _ in answers})
    lines = [f'import type {{ {", ".join(types)} }} from "{STATIC}/data/types.js";']
    lines += [
        f"export const answer{number}: {name} = {json.dumps(data)};"
        for number, (name, data) in enumerate(answers)
    ]
    module = folder / "answers.mts"
    module.write_text("\n".join(lines))
    done = subprocess.run(
        [COMPILER, *OPTIONS, module], capture_output=True, text=True, check=False, cwd=folder
    )
    return done.stdout


def answers_of(atlas: Atlas) -> Iterator[tuple[str, Any]]:
    """Yield what the explorer writes as JSON, with the name of its type."""
    yield "Filesystem", overview.filesystem(atlas)
    yield (
        "ServedContents",
        {"filesystem": overview.filesystem(atlas), "sketch": overview.sketch(atlas, 0)},
    )
    for colour in (one.name for one in colourings()):
        yield "Legend", overview.legend(atlas, "physical", colour, 0)
    for query in ("machines/disk", f"group {next(iter(atlas.groups))}"):
        yield "FindResult", find(atlas, query, "physical", "hilbert").record()
    yield "ExportedContents", export.contents(atlas, "hilbert", ["profile"], lambda *_: None)
    for line in atlas.lines.values():
        zoom = line.max_zoom
        for address in range(0, line.total_bytes, line.total_bytes // 16):
            pixel = line.name, "hilbert", zoom, *line.at("hilbert", zoom, address)
            yield "PixelInfo", at(atlas, *pixel)
            yield "PixelDetails", details(atlas, *pixel)
