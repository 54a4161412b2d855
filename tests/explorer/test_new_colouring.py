"""A colouring that is added is everywhere: in pictures, on the map, in legends and details."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from btrfs_atlas import cli
from btrfs_atlas.explorer.atlas import Atlas
from btrfs_atlas.explorer.search import details
from btrfs_atlas.explorer.web import export, overview
from heatmap import colourings
from heatmap.colouring import Colouring
from heatmap.colours import ExtentColours
from heatmap.extents.table import Column
from tests.support.html import contents_of
from tests.support.programs import SAMPLE

SMALL, LARGE = (0x10, 0x20, 0xF0), (0xF0, 0x20, 0x10)
LIMIT = 64 << 10

# How many sizes an extent could be halved to: a fact that no other colouring needs.
HALVINGS = Column(
    "halvings",
    "uint8",
    lambda fs, items, _trees: np.log2(
        np.where(items.type == 169, np.uint64(fs.nodesize), items.offset)
    ).astype(np.uint8),
)

SIZE_CLASS = Colouring(
    name="size-class",
    title="size class",
    description="small and large extents",
    rank=15,
    extents=ExtentColours(
        columns=(HALVINGS,),
        own_values=lambda extents, _context: extents[HALVINGS] // (LIMIT.bit_length() - 1),
        own_colours=lambda _context: np.array([SMALL, LARGE], np.uint8),
        own_names=lambda _context: ("small", "large"),
        note="by length",
    ),
)


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a colouring that brings a column of its own."""
    monkeypatch.setattr(colourings, "_registered", {})
    colourings.register(SIZE_CLASS)


@pytest.fixture
def atlas() -> Iterator[Atlas]:
    with Atlas([str(SAMPLE)]) as atlas:
        yield atlas


def bytes_of(atlas: Atlas) -> tuple[int, int]:
    """Return the bytes of small and of large extents."""
    sizes = [0, 0]
    for extent in atlas.fs.extents():
        length = getattr(extent, "length", atlas.fs.nodesize)
        sizes[length >= LIMIT] += length
    return sizes[0], sizes[1]


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "picture.png"
    words = ["--colour", "size-class", "--order", "9", "--size", "9", "-o", str(picture)]
    assert cli.heatmap([*words, str(SAMPLE)]) == 0
    with Image.open(picture) as image:
        pixels = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}
    assert {SMALL, LARGE} <= pixels
    assert cli.heatmap([*words, "--show", "--legend", str(SAMPLE)]) == 0
    told = capsys.readouterr().out
    assert "by size class" in told
    assert "small" in told


def test_menu(atlas: Atlas) -> None:
    menu = overview.filesystem(atlas)["colours"]
    assert menu[1] == {
        "name": "size-class",
        "title": "size class",
        "description": "small and large extents",
    }


def test_tiles_and_legend(atlas: Atlas) -> None:
    line = atlas.lines["virtual"]
    row, column = (at >> 8 for at in line.at("hilbert", line.max_zoom, 0))
    later = time.monotonic() + 30
    tile = atlas.tile(("virtual", "hilbert", line.max_zoom, row, column), "size-class", later)
    assert tile.complete
    with Image.open(io.BytesIO(tile.png)) as image:
        pixels = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()}
    assert pixels & {SMALL, LARGE}
    for _ in export._reading(atlas, "virtual", "size-class", 0):
        legend = overview.legend(atlas, "virtual", "size-class", 0)
        if legend["read"] == 1:
            break
    assert (legend["title"], legend["note"]) == ("size class", "by length")
    shown = {entry["name"]: entry["bytes"] for entry in legend["entries"]}
    assert (shown["small"], shown["large"]) == bytes_of(atlas)


def test_details(atlas: Atlas) -> None:
    line = atlas.lines["virtual"]
    group = next(group for group in atlas.groups.values() if group.used)
    extents = atlas.extents(group.vaddr)
    assert extents is not None
    (part,) = line.parts_of(group.vaddr)
    start = part.start + int(extents.vaddr[0]) - group.vaddr
    row, column = line.at("hilbert", line.max_zoom, start)
    found = details.details(atlas, "virtual", "hilbert", line.max_zoom, row, column)
    name = "large" if extents.length[0] >= LIMIT else "small"
    assert {"title": "size class", "name": name} in found["extent"]["colours"]


def test_export(tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    assert cli.main(["export-html", "--colour", "size-class", "-o", str(page), str(SAMPLE)]) == 0
    contents = contents_of(page.read_text(encoding="utf-8"))
    assert [colour["name"] for colour in contents["filesystem"]["colours"]] == ["size-class"]
    assert {name.split("/")[1] for name in contents["legends"]} == {"size-class"}
