"""The command export-html: one file, in which the map is, and which needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, expect

from btrfs.ondisk import constants
from btrfs.ondisk.text import printable
from btrfs_atlas import cli
from btrfs_atlas.explorer.atlas import Atlas
from btrfs_atlas.explorer.model.lines import TILE_ORDER
from btrfs_atlas.explorer.search import details
from btrfs_atlas.explorer.web import export
from btrfs_atlas.explorer.web.page import STATIC, join_modules
from heatmap import curves
from heatmap.colouring import Export
from heatmap.colourings import colourings
from heatmap.colourings.type import EXTENTS_BELOW
from heatmap.palette import UNREADABLE
from tests import support
from tests.lab.loopfs import make_sparse
from tests.library.reading import damaged
from tests.support import javascript, programs
from tests.support.browser import chromium, require_browser, visit
from tests.support.html import Contents, Elements, assert_policy, contents_of

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "export-html")

LABEL = b"</script><b>&amp;\xff\xfe\"'<!--"

DEVICES = 4

LAYOUTS = [
    ("single", "dup"),
    ("raid0", "raid1"),
    ("raid10", "raid1c3"),
    ("raid5", "raid10"),
    ("raid6", "raid1c4"),
]

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small filesystem, whose label is no text and looks like markup."""
    return mkfs(tmp_path_factory.mktemp("image"), 1, "1G", "--label", os.fsdecode(LABEL))[0]


@pytest.fixture(scope="module")
def file(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The map of this filesystem."""
    made = tmp_path_factory.mktemp("file") / "map.html"
    assert export_here(disk, "-o", made) == 0
    return made


@pytest.fixture(scope="module")
def atlas(disk: Path) -> Iterator[Atlas]:
    with Atlas([str(disk)]) as opened:
        yield opened


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_browser()
    with chromium() as opened:
        yield opened


def mkfs(folder: Path, devices: int, size: str, *options: str) -> list[Path]:
    """Make a filesystem in image files."""
    support.require_mkfs()
    images = [folder / f"disk{number}.img" for number in range(devices)]
    for image in images:
        make_sparse(image, size)
    support.run("mkfs.btrfs", "--quiet", "--nodiscard", *options, *images)
    return images


def export_here(*words: str | Path) -> int | str | None:
    return programs.run_here(cli.main, "export-html", *words)


def pixels(png: bytes) -> Pixels:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGBA"))


def picture(contents: Contents, name: str, zoom: int, row: int, column: int) -> Pixels | None:
    """Return a picture of a file; None where it has none."""
    number = contents["places"][name][zoom][(row << zoom) + column]
    return None if number is None else pixels(base64.b64decode(contents["pictures"][number]))


# The file.


def test_the_file_refers_to_nothing_else(file: Path) -> None:
    elements = Elements(file.read_text(encoding="utf-8"))
    for _, attributes, _ in elements.found:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
    for sheet in elements.texts("style"):
        assert not re.search(r"url\(|@import", sheet)
    assert not re.search(r"^import\b|\bimport\(", "".join(elements.texts("script")), re.MULTILINE)


def test_the_policy_allows_what_is_there_and_nothing_else(file: Path) -> None:
    html = file.read_text(encoding="utf-8")
    (policy,) = [
        attributes["content"] or ""
        for tag, attributes, _ in Elements(html).found
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert_policy(policy, html, {"img-src": "data:"})


def test_a_label_is_no_markup(file: Path) -> None:
    html = file.read_text(encoding="utf-8")
    assert contents_of(html)["filesystem"]["label"] == printable(LABEL)
    assert [name for name, _, _ in Elements(html).found].count("script") == 2
    assert b"<b>" not in file.read_bytes()


def test_the_licence_of_what_others_wrote_is_in_the_file(file: Path) -> None:
    licence = (STATIC / "vendor" / "leaflet" / "LICENSE").read_text(encoding="utf-8")
    assert licence in file.read_text(encoding="utf-8")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules in place of those of the page, with its licence."""
    monkeypatch.setattr("btrfs_atlas.explorer.web.page.STATIC", tmp_path)
    licence = tmp_path / "vendor" / "leaflet" / "LICENSE"
    licence.parent.mkdir(parents=True)
    licence.write_text("A licence.\n")
    return tmp_path


def test_modules_of_several_folders_become_one(modules: Path) -> None:
    (modules / "data").mkdir()
    (modules / "main.js").write_text(
        'import { twice as double } from "./data/twice.js";\nconsole.log(double(21));\n'
    )
    (modules / "data" / "twice.js").write_text(
        'import * as all from "../two.js";\nexport const twice = (number) => all.TWO * number;\n'
    )
    (modules / "two.js").write_text("const two = 2;\nexport { two as TWO };\n")
    support.require_programs("node")
    done = subprocess.run(
        ["node", "--eval", join_modules("main.js")], capture_output=True, check=True
    )
    assert done.stdout == b"42\n"


def test_comments_do_not_become_part_of_the_page(modules: Path) -> None:
    (modules / "main.js").write_text(
        "/* @preserve whose it is */\n"
        "// About the module.\n"
        "\n"
        "/** About the address. @param {string} ** */\n"
        'const address = "http://localhost/*"; /* kept */ // kept\n'
        "  /*\n   * removed *\n   */\n"
        'console.log(address, "*/");\n'
    )
    text = join_modules("main.js")
    for kept in ("whose it is", '"http://localhost/*"; /* kept */ // kept\n', '(address, "*/");'):
        assert kept in text
    for removed in ("About", "removed"):
        assert removed not in text


def test_a_module_that_is_not_understood(modules: Path) -> None:
    (modules / "odd.js").write_text('import odd from "elsewhere";\n')
    with pytest.raises(ValueError, match=r"odd\.js: not understood: import odd"):
        join_modules("odd.js")


# What is in it.


def exported(export: Export) -> list[str]:
    """Return the names of the colourings that are exported under a condition."""
    return [one.name for one in colourings() if one.export == export]


def test_pictures_are_those_of_the_map(file: Path, atlas: Atlas) -> None:
    contents = contents_of(file.read_text(encoding="utf-8"))
    colours = [colour["name"] for colour in contents["filesystem"]["colours"]]
    assert sorted(colours) == sorted([*exported(Export.ALWAYS), *exported(Export.IF_SMALL)])
    for space, line in atlas.lines.items():
        assert contents["filesystem"]["spaces"][space]["max_zoom"] == min(3, line.max_zoom)
        for zoom in range(min(3, line.max_zoom) + 1):
            for row, column in np.ndindex(1 << zoom, 1 << zoom):
                place = zoom, row, column
                borders = pixels(atlas.borders((space, "hilbert", *place)))
                found = picture(contents, f"{space}/hilbert/borders", *place)
                assert not borders.any() if found is None else np.array_equal(found, borders)
                for colour in colours:
                    drawn = atlas.tile((space, "hilbert", *place), colour)
                    end = time.monotonic() + 30
                    while not drawn.complete:
                        assert time.monotonic() < end
                        time.sleep(0.05)
                        drawn = atlas.tile((space, "hilbert", *place), colour)
                    found = picture(contents, f"{space}/hilbert/{colour}", *place)
                    assert found is not None
                    assert np.array_equal(found, pixels(drawn.png))


def test_equal_pictures_are_stored_once(file: Path) -> None:
    contents = contents_of(file.read_text(encoding="utf-8"))
    assert len(set(contents["pictures"])) == len(contents["pictures"])
    used = [number for map_ in contents["places"].values() for zoom in map_ for number in zoom]
    assert set(used) - {None} == set(range(len(contents["pictures"])))
    assert len(used) > len(contents["pictures"])


def test_a_curve_and_colours(disk: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    words = ["--curve", "snake", "--colour", "compression", "--colour", "fill"]
    assert export_here(disk, *words, "-o", "-") == 0
    told = capfdbinary.readouterr()
    assert told.err == b""
    contents = contents_of(told.out.decode())
    assert contents["filesystem"]["curves"] == ["snake"]
    names = ["fill", "compression"]
    assert [colour["name"] for colour in contents["filesystem"]["colours"]] == names
    assert {name.split("/")[1] for name in contents["places"]} == {"snake"}
    assert {name.split("/")[1] for name in contents["legends"]} == set(names)


def test_all_colourings_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["export-html", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    names = ", ".join(sorted(one.name for one in colourings()))
    assert f"one of {names};" in told


def test_an_unknown_colouring_is_refused(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_here(disk, "--colour", "smell", "-o", "map.html") == 1
    told = capsys.readouterr().err
    assert told.startswith("Error: unknown colour 'smell'. Hint: there are type, fill")
    assert told.count("\n") == 1


def test_what_is_too_large_is_left_out(
    disk: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(export, "MAX_PICTURE_BYTES", 1)
    assert export_here(disk, "-o", tmp_path / "map.html") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "Left out" in told.err
    assert "age, owner, sharing" in told.err
    contents = contents_of((tmp_path / "map.html").read_text(encoding="utf-8"))
    colours = [colour["name"] for colour in contents["filesystem"]["colours"]]
    assert sorted(colours) == sorted(exported(Export.ALWAYS))
    assert {name.split("/")[2] for name in contents["places"]} == {
        *exported(Export.ALWAYS),
        "borders",
    }
    used = [number for map_ in contents["places"].values() for zoom in map_ for number in zoom]
    assert set(used) - {None} == set(range(len(contents["pictures"])))


def test_progress(atlas: Atlas) -> None:
    told: list[tuple[int, int]] = []
    export.export(atlas, colours=["profile", "age"], progress=lambda *done: told.append(done))
    assert told == sorted(told)
    assert {total for _, total in told} == {told[-1][0]}


# What the page finds out by itself.


@pytest.mark.parametrize("curve", curves.CURVES)
def test_curves_of_the_page(curve: str) -> None:
    pixels = [(4, row, column) for row, column in np.ndindex(16, 16)]
    chance = random.Random(4)
    for order in (13, 20, 31):
        side = 1 << order
        pixels += [(order, chance.randrange(side), chance.randrange(side)) for _ in range(50)]
    found = javascript.run_module("curve-positions.js", [curve, pixels])
    expected = [
        curves.positions_at(curve, order, np.array(row), np.array(column)).item()
        for order, row, column in pixels
    ]
    assert [int(position) for position in found] == expected


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout[0])
def test_the_page_tells_what_the_server_tells(layout: tuple[str, str], tmp_path: Path) -> None:
    data, metadata = layout
    images = mkfs(tmp_path, DEVICES, "40G", "--data", data, "--metadata", metadata)
    with Atlas([str(image) for image in images]) as atlas:
        contents = export.contents(atlas, "hilbert", ["profile"], lambda _done, _total: None)
        pixels = list(some_pixels(atlas))
        expected = [details.at(atlas, *pixel) for pixel in pixels]
    found = javascript.run_module("embedded-answers.js", [contents, pixels])
    for told, known in zip(found, expected, strict=True):
        assert told["extent"] is None
        if known["bytes"] <= EXTENTS_BELOW and known["state"] not in ("parity", "unallocated"):
            # Here the server tells about extents.
            known |= {"extent": None, "state": told["state"]}
        assert told == known
    states = {known["state"] for known in expected}
    assert {"extent", "free", "unallocated"} <= states
    assert ("parity" in states) == (data in ("raid5", "raid6"))


def some_pixels(atlas: Atlas) -> Iterator[tuple[str, str, int, int, int]]:
    """Yield pixels at the borders and inside of block groups, and others by chance."""
    chance = random.Random(3)
    for space, line in atlas.lines.items():
        for zoom in range(min(3, line.max_zoom) + 1):
            for part in line.parts:
                inside = [chance.randrange(part.length) for _ in range(10)]
                for offset in (0, *inside, part.length - 1):
                    yield space, "hilbert", zoom, *line.at("hilbert", zoom, part.start + offset)
            side = 1 << (TILE_ORDER + zoom)
            for _ in range(20):
                yield space, "hilbert", zoom, chance.randrange(side), chance.randrange(side)


def test_opened_from_disk(file: Path, atlas: Atlas, browser: Browser) -> None:
    row, column = atlas.lines["physical"].at("hilbert", 1, 60 << 20)
    url = f"{file.as_uri()}#physical/hilbert/type/1/{row}/{column}"
    told = details.at(atlas, "physical", "hilbert", 1, row, column)
    with visit(browser) as visited:
        page = visited.page
        page.goto(url)
        page.wait_for_selector("html[data-tiles=complete]")
        tiles = page.locator(".leaflet-tile-pane img")
        assert tiles.count() > 0
        assert tiles.evaluate_all("all => all.every((image) => image.naturalWidth === 256)")
        expect(page.locator("#label")).to_have_text(printable(LABEL))
        box = page.get_by_test_id("map").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tooltip = page.get_by_test_id("tooltip")
        expect(tooltip).to_contain_text(told["group"]["type"])
        expect(tooltip).to_contain_text(told["group"]["profile"])
        page.get_by_test_id("colour").select_option("fill")
        page.get_by_test_id("space").select_option("virtual")
        page.wait_for_selector("html[data-tiles=complete]")
        expect(page.get_by_test_id("legend")).to_contain_text(re.compile("full", re.IGNORECASE))
        expect(page.get_by_test_id("find")).to_be_hidden()
        page.get_by_test_id("map").press("Enter")
        expect(page.get_by_test_id("panel")).to_contain_text("Block group")
        assert visited.problems == []
        assert {request.partition("#")[0] for request in visited.requests} - {
            request for request in visited.requests if request.startswith("data:")
        } == {file.as_uri()}


# The command.


def test_the_same_on_standard_output(file: Path, disk: Path) -> None:
    done = subprocess.run([*PROGRAM, disk, "-o", "-"], capture_output=True, check=True)
    assert done.stdout == file.read_bytes()
    assert done.stderr == b""


def test_no_page_for_a_terminal(disk: Path) -> None:
    code, told = programs.run_in_terminal(*PROGRAM, disk, "-o", "-")
    assert code == 1
    assert "a terminal cannot show an HTML file" in told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["-o", ""], "the name of the output is empty"),
        (["-o", "missing/map.html"], "missing: No such file or directory"),
        (["-o", "."], "Is a directory"),
        (["-o", "/dev/full"], "No space left on device"),
        ([], "required: -o"),
        (["-o", "x.html", "--curve", "spiral"], "invalid choice: 'spiral'"),
        (["-o", "x.html", "--colour", "heat"], "unknown colour 'heat'"),
    ],
)
def test_bad_words(
    words: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    disk: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert export_here(disk, "--colour", "fill", *words) == 1
    assert complaint in programs.assert_one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_bad_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export_here(tmp_path / "missing", "-o", tmp_path / "map.html") == 1
    assert "missing" in programs.assert_one_line(capsys.readouterr().err)
    assert export_here("", "-o", tmp_path / "map.html") == 1
    assert "TARGET" in programs.assert_one_line(capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_replaced_as_a_whole_or_not_at_all(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "map.html"
    old.write_text("old")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted)
        assert export_here(disk, "--colour", "fill", "-o", old) == 130
    assert old.read_text() == "old"
    assert export_here(disk, "--colour", "fill", "-o", old) == 0
    assert contents_of(old.read_text(encoding="utf-8"))
    assert list(tmp_path.iterdir()) == [old]


def test_what_cannot_be_read_is_told(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "map.html"
    assert export_here(image, "--colour", "type", "-o", made) == 0
    assert capsys.readouterr().err == ""
    lost = damaged(image, tmp_path, constants.EXTENT_TREE_OBJECTID)
    assert export_here(lost, "--colour", "type", "-o", made) == 0
    assert capsys.readouterr().err == "Warning: what could not be read is hatched\n"
    contents = contents_of(made.read_text(encoding="utf-8"))
    names = [entry["name"] for entry in contents["legends"]["physical/type"][0]["entries"]]
    assert UNREADABLE in names


def test_help_says_what_is_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert export_here("--help") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "no names of files" in told
    assert "label" in told
    assert "subvolumes" in told


def test_no_names_of_files_are_in_it(tmp_path: Path) -> None:
    support.require_root()
    with support.filesystem(tmp_path, size="1G") as made:
        support.run("btrfs", "subvolume", "create", made.mountpoint / "seen")
        (made.mountpoint / "seen" / "never-shown").write_bytes(os.urandom(1 << 20))
        made.sync()
        assert export_here(made.mountpoint, "-o", tmp_path / "map.html", "--colour", "owner") == 0
    html = (tmp_path / "map.html").read_text(encoding="utf-8")
    assert "/seen" in json.dumps(contents_of(html)["legends"])
    assert "never-shown" not in html
