"""The explorer as a user meets it: in chromium, on real filesystems, served by the command.

Every visit ends with a look at the console and at where requests went: whatever a test is about,
the page may not complain, and may not ask anybody but its server.

Where BTRFS_ATLAS_SCREENSHOTS names a folder, the two pictures of the README are written there.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, Route, expect

import btrfs
from btrfs import ioctl
from btrfs.ondisk.text import printable
from btrfs_atlas import cli
from heatmap import curves
from tests import support
from tests.support import programs
from tests.support.browser import (
    Server,
    Visit,
    chromium,
    require_browser,
    served,
    visit,
)
from tests.support.javascript import function_for_page
from tests.support.programs import SAMPLE

LABEL = '<i>atlas</i> & "co"'

KNOWN = "folder/known file"
"""A file of one extent of 8 MiB."""

KNOWN_SIZE = 8 << 20

ODD_NAMES = (
    b"<script>document.title='bad'<script>",
    b"<img src=x onerror=\"document.title='bad'\">",
    b"quotes ' and \" and &amp;",
    b"two\nlines",
    b"\xff\xfe not utf-8",
    "right-to-left \u202e and \U0001f9ed".encode(),
)

TILE_ORDER = 8

SECTOR = 4096

_READ_TILES = function_for_page("read-tiles.js")
_HIDE_ALL_BUT_FOUND = function_for_page("hide-all-but-found.js")

_MARGIN = 8
"""Around the whole map, in pixels."""

_PATIENCE = 20_000
"""Milliseconds to wait for what should come at once, on a machine that is busy."""


Tiles = dict[tuple[int, int], NDArray[np.uint8]]
"""Pixels of tiles, (rows, columns, 3), by row and column of the first of them in the picture."""


class Spot(NamedTuple):
    """A pixel of the map."""

    zoom: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Explored:
    """A filesystem that is served.

    Attributes:
        fs: The filesystem, mounted.
        server: Of its explorer.
    """

    fs: support.LoopFilesystem
    server: Server

    def ask(self, path: str) -> Any:
        """Return what the server answers, from JSON."""
        return ask(self.server, path)

    def spot(self, vaddr: int) -> Spot:
        """Return where on the physical map a virtual address is, at the deepest zoom."""
        with btrfs.FileSystem(self.fs.mountpoint) as opened:
            (device,) = opened.devices()
            (paddr,) = (
                chunk.stripes[0].offset + vaddr - chunk.vaddr
                for chunk in opened.chunks()
                if chunk.vaddr <= vaddr < chunk.vaddr + chunk.length
            )
        zoom = self.ask("/filesystem")["spaces"]["physical"]["max_zoom"]
        order = TILE_ORDER + zoom
        position = (paddr << 2 * order) // device.total_bytes
        rows, columns = curves.pixels_at("hilbert", order, np.array([position]))
        return Spot(zoom, int(rows[0]), int(columns[0]))


class Screen:
    """The page, in the words of its parts."""

    def __init__(self, visited: Visit, server: Server) -> None:
        self.visit = visited
        self.page: Page = visited.page
        self.server = server
        self.page.set_default_timeout(_PATIENCE)

    def open(self, fragment: str = "") -> None:
        """Open the page at a view, and wait for its tiles."""
        self.page.goto(self.server.url + fragment)
        self.wait()

    def wait(self) -> None:
        """Wait until all visible tiles are there."""
        self.visit.wait_for_tiles()

    def part(self, name: str) -> Locator:
        """Return a part of the page by its data-testid."""
        return self.page.get_by_test_id(name)

    def fragment(self) -> str:
        """Return the fragment of the page's address."""
        return unquote(self.page.url.partition("#")[2])

    def centre(self) -> Spot:
        """Return what pixel the address in the bar says is in the middle."""
        words = self.fragment().partition("&")[0].split("/")
        return Spot(*(int(word) for word in words[3:6]))

    def is_at(self, zoom: int) -> bool:
        """Return whether the address in the bar tells this zoom."""
        return self.centre().zoom == zoom

    def middle(self) -> tuple[float, float]:
        """Return where in the window the middle of the map is."""
        box = self.part("map").bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def choose(self, name: str, value: str) -> None:
        """Choose something in one of the lists at the top, and wait for what is shown then."""
        with self.page.expect_response(lambda answer: "/legend/" in answer.url):
            self.part(name).select_option(value)
        self.wait()

    def make_whole(self, zoom: int) -> None:
        """Make the window so high that the whole map fills it at a zoom."""
        height = self.part("map").bounding_box()
        assert height is not None
        assert self.page.viewport_size is not None
        around = self.page.viewport_size["height"] - height["height"]
        side = (256 << zoom) + 2 * _MARGIN
        self.page.set_viewport_size({"width": 1280, "height": round(side + around)})
        self.wait_for_rest()

    def shown_tiles(self) -> Tiles:
        """Return the tiles on the screen.

        Where they are in the picture follows from where they stand in the window: what is in its
        middle is in the address.
        """
        centre, (x, y) = self.centre(), self.middle()
        found = self.page.evaluate(_READ_TILES)
        return {
            (round(tile["y"] - y) + centre.row, round(tile["x"] - x) + centre.column): pixels(
                base64.b64decode(tile["png"])
            )
            for tile in found
        }

    def lit(self) -> NDArray[np.uint8]:
        """Return the marks on what was found, in the middle of the window, (rows, columns, 4)."""
        x, y = self.middle()
        clip: FloatRect = {"x": x - 10, "y": y - 10, "width": 20, "height": 20}
        self.page.evaluate(_HIDE_ALL_BUT_FOUND, True)
        png = self.page.screenshot(clip=clip)
        self.page.evaluate(_HIDE_ALL_BUT_FOUND, False)
        return pixels(png)

    def background(self) -> float:
        """Return how bright the window is behind everything, 0 to 255."""
        colour = self.page.evaluate("getComputedStyle(document.body).backgroundColor")
        red, green, blue = re.findall(r"[\d.]+", colour)[:3]
        return sum(map(float, (red, green, blue))) / 3

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something that this process sees is so."""
        end = time.monotonic() + _PATIENCE / 1000
        while not is_so():
            assert time.monotonic() < end
            self.page.wait_for_timeout(50)

    def wait_for_rest(self) -> None:
        """Wait until the map has stopped moving, and everything is there."""
        before = None
        # The address follows a moment after the map.
        while (now := self.fragment()) != before:
            before = now
            self.page.wait_for_timeout(200)
        self.wait()

    def find(self, query: str) -> None:
        """Look for something, and wait for what the page says."""
        self.part("find").fill(query)
        with self.page.expect_response(lambda answer: "/find?" in answer.url):
            self.part("find").press("Enter")
        expect(self.part("find-results")).to_be_visible()
        self.wait_for_rest()

    def pick_middle(self) -> None:
        """Open the panel on what is in the middle of the map."""
        self.part("map").focus()
        with self.page.expect_response(lambda answer: "/details/" in answer.url):
            self.page.keyboard.press("Enter")
        expect(self.part("panel")).to_be_in_viewport()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, for all tests of this module."""
    require_browser()
    expect.set_options(timeout=_PATIENCE)
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explored]:
    """A filesystem with contents of all kinds, names among them that nobody should trust."""
    require_browser()
    folder = tmp_path_factory.mktemp("explored")
    with support.filesystem(folder, size="128G", data="single", metadata="dup", label=LABEL) as fs:
        support.populate(fs.mountpoint)
        write(fs.mountpoint / KNOWN, KNOWN_SIZE)
        for name in ODD_NAMES:
            write(Path(os.fsdecode(os.fsencode(fs.mountpoint / "odd") + b"/" + name)), 1 << 20)
        fs.sync()
        with served(fs.mountpoint) as server:
            yield Explored(fs, server)
            assert "Traceback" not in server.complaints()


@pytest.fixture
def screen(browser: Browser, explored: Explored) -> Iterator[Screen]:
    """A page of its own for a test, which must leave no complaint behind; nothing moves in it."""
    with visit(browser, still=True) as visited:
        yield Screen(visited, explored.server)
        assert_clean(visited, explored.server)


@pytest.fixture
def moving(browser: Browser, explored: Explored) -> Iterator[Screen]:
    """The same, but views glide from one to the next."""
    with visit(browser) as visited:
        yield Screen(visited, explored.server)
        assert_clean(visited, explored.server)


def assert_clean(visited: Visit, server: Server) -> None:
    """Check that a page has not complained, and has asked nobody but its server."""
    assert visited.problems == []
    assert visited.requests, "requests are seen at all"
    assert visited.strangers(server.url) == []


def ask(server: Server, path: str) -> Any:
    """Return what a server answers, from JSON."""
    with urllib.request.urlopen(server.url.rstrip("/") + path) as answer:
        return json.load(answer)


def drawn_by_heatmap(target: Path, order: int, folder: Path) -> NDArray[np.uint8]:
    """Return the picture that btrfs-heatmap draws of a filesystem."""
    picture = folder / "picture.png"
    words = ("--order", str(order), "--size", str(order), "-q", "-o", picture, target)
    assert programs.run_here(cli.heatmap, *words) == 0
    return pixels(picture.read_bytes())


def write(path: Path, size: int) -> None:
    """Write a file of random bytes, which the kernel gives as few extents as it can."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        file.write(os.urandom(size))


def extents_of(path: Path) -> list[ioctl.FiemapExtent]:
    """Return where the kernel says that the data of a file lies."""
    with path.open("rb") as file:
        return list(ioctl.fiemap(file.fileno()))


def differ(one: Tiles, other: Tiles) -> bool:
    """Return whether the same place looks different."""
    return any((one[place] != other[place]).any() for place in one.keys() & other.keys())


def pixels(png: bytes) -> NDArray[np.uint8]:
    """Return a picture as an array (rows, columns, 3)."""
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))


# The map.


def test_until_there_are_tiles_a_sketch_is_to_be_seen(screen: Screen) -> None:
    held: list[Route] = []
    is_held = True

    def hold(route: Route) -> None:
        if is_held:
            held.append(route)
        else:
            route.continue_()

    screen.page.route("**/tile/**", hold)
    screen.page.goto(screen.server.url)
    screen.page.wait_for_selector("html[data-tiles=sketched]", state="attached")
    sketch = screen.page.locator(".leaflet-sketch-pane img")
    box = sketch.bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(box["height"])
    assert (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2) == pytest.approx(
        screen.middle(), abs=1
    )
    is_held = False
    for route in held:
        route.continue_()
    screen.wait()
    expect(sketch).to_have_count(0)


def test_a_link_has_a_sketch_too(screen: Screen) -> None:
    screen.page.route("**/tile/**", lambda _: None)
    screen.page.goto(f"{screen.server.url}#physical/hilbert/type/2/300/300")
    screen.page.wait_for_selector("html[data-tiles=sketched]", state="attached")
    expect(screen.page.locator(".leaflet-sketch-pane img")).to_have_count(1)


def test_a_sketch_is_not_shown_in_place_of_something_else(screen: Screen) -> None:
    screen.page.route("**/tile/**", lambda _: None)
    screen.page.goto(f"{screen.server.url}#virtual/hilbert/type")
    expect(screen.part("legend")).to_contain_text("Type")
    expect(screen.page.locator(".leaflet-sketch-pane img")).to_have_count(0)


def test_tiles_are_the_picture(screen: Screen, explored: Explored, tmp_path: Path) -> None:
    zoom = 1
    screen.open()
    screen.make_whole(zoom)
    picture = drawn_by_heatmap(explored.fs.mountpoint, TILE_ORDER + zoom, tmp_path)
    assert picture.any()
    tiles = screen.shown_tiles()
    assert sorted(tiles) == [(0, 0), (0, 256), (256, 0), (256, 256)]
    for (row, column), shown in tiles.items():
        np.testing.assert_array_equal(shown, picture[row : row + 256, column : column + 256])


def test_a_fragment_leads_to_an_extent(screen: Screen, explored: Explored) -> None:
    (extent,) = extents_of(explored.fs.mountpoint / KNOWN)
    vaddr = extent.vaddr + extent.length // 2
    spot = explored.spot(vaddr)
    screen.open(f"#physical/hilbert/type/{spot.zoom}/{spot.row}/{spot.column}")
    screen.page.mouse.move(*screen.middle())

    tooltip = screen.part("tooltip")
    expect(tooltip).to_be_visible()
    expect(tooltip).to_contain_text(f"Extent8.00MiB at {extent.vaddr}")
    expect(tooltip).to_contain_text("Data, single, ")
    expect(tooltip).to_contain_text(f"Device1 {explored.fs.devices[0]}")
    virtual = re.search(r"Virtual(\d+)", tooltip.text_content() or "")
    assert virtual is not None
    # A pixel has less than a sector, and begins somewhere in it.
    assert abs(int(virtual[1]) - vaddr) < SECTOR

    screen.page.mouse.click(*screen.middle())
    panel = screen.part("panel")
    expect(panel.get_by_role("heading", name="Data extent")).to_be_visible()
    expect(panel).to_contain_text(KNOWN)
    expect(panel).to_contain_text(f"Virtual address{extent.vaddr}Length8.00MiB")
    assert re.search(r"p=[\d,]+", screen.fragment())

    screen.page.keyboard.press("Escape")
    expect(panel).not_to_be_in_viewport()
    assert "p=" not in screen.fragment()


def test_a_file_in_the_panel_leads_to_all_of_it(screen: Screen, explored: Explored) -> None:
    path = explored.fs.mountpoint / KNOWN
    (extent,) = extents_of(path)
    spot = explored.spot(extent.vaddr + extent.length // 2)
    screen.open(f"#physical/hilbert/type/{spot.zoom}/{spot.row}/{spot.column}")
    screen.page.mouse.click(*screen.middle())
    screen.part("panel").get_by_role("button", name="known file").click()
    results = screen.part("find-results")
    expect(results).to_contain_text("Size on disk8.00MiB")
    assert f"q=inode+{path.stat().st_ino}+in+5" in screen.fragment().replace(" ", "+")


def test_colours_spaces_and_the_way_back(screen: Screen) -> None:
    screen.open()
    assert screen.fragment().startswith("physical/hilbert/type/")
    titles = set()
    for colour in ("fill", "age", "owner", "sharing", "compression", "profile"):
        screen.choose("colour", colour)
        assert screen.fragment().startswith(f"physical/hilbert/{colour}/")
        titles.add(screen.part("legend").text_content())
    assert len(titles) == 6, "each has a legend of its own"
    expect(screen.part("legend")).to_contain_text("single")
    expect(screen.part("legend")).to_contain_text("DUP")

    physical = screen.shown_tiles()
    screen.choose("space", "virtual")
    screen.choose("curve", "linear")
    assert screen.fragment().startswith("virtual/linear/profile/")
    virtual = screen.shown_tiles()
    assert any(
        (virtual[place] != tile).any() for place, tile in physical.items() if place in virtual
    )

    screen.page.go_back()
    expect(screen.part("curve")).to_have_value("hilbert")
    screen.page.go_back()
    expect(screen.part("space")).to_have_value("physical")
    screen.wait()
    for place, tile in screen.shown_tiles().items():
        np.testing.assert_array_equal(tile, physical[place])
    screen.page.go_forward()
    expect(screen.part("space")).to_have_value("virtual")
    expect(screen.part("curve")).to_have_value("hilbert")


def test_link_shows_the_same_again(screen: Screen, browser: Browser) -> None:
    screen.open()
    screen.choose("space", "virtual")
    screen.choose("colour", "age")
    screen.find(KNOWN)
    screen.page.mouse.click(*screen.middle())
    expect(screen.part("panel")).to_contain_text(KNOWN)
    with visit(browser, still=True) as another:
        same = Screen(another, screen.server)
        same.open(screen.page.url.removeprefix(screen.server.url))
        for name in ("find-results", "panel", "legend"):
            expect(same.part(name)).to_have_text(screen.part(name).text_content() or "")
        assert same.fragment() == screen.fragment()
        assert_clean(another, screen.server)


# Find.


def test_found_path_lights_up_and_comes_into_view(moving: Screen, explored: Explored) -> None:
    (extent,) = extents_of(explored.fs.mountpoint / KNOWN)
    moving.open()
    before = moving.centre()
    moving.page.keyboard.press("/")
    expect(moving.part("find")).to_be_focused()
    moving.find(KNOWN)
    results = moving.part("find-results")
    expect(results.get_by_role("heading")).to_have_text(f"/{KNOWN}")
    expect(results).to_contain_text("Extents1")
    expect(results).to_contain_text("Contiguous pieces1")
    expect(results.get_by_role("img")).to_be_visible()
    moving.wait_for_rest()
    assert moving.centre().zoom > before.zoom
    assert "/marks/found/" in " ".join(moving.visit.requests)

    # What lights up in the middle of the view is the extent.
    moving.page.mouse.move(*moving.middle())
    expect(moving.part("tooltip")).to_contain_text(f"at {extent.vaddr}")
    assert moving.lit().any()

    moving.page.keyboard.press("Escape")
    moving.page.keyboard.press("Escape")
    expect(results).to_be_hidden()
    assert "q=" not in moving.fragment()


def test_nothing_found_is_said(screen: Screen) -> None:
    screen.open()
    screen.find("no/such/file")
    expect(screen.part("find-results")).to_contain_text("no/such/file")
    # The browser itself tells of an answer 404 on its console; the page has not failed.
    assert all("404" in problem for problem in screen.visit.problems)
    screen.visit.problems.clear()


def test_odd_names_are_text(screen: Screen, explored: Explored) -> None:
    screen.open()
    for name in ODD_NAMES:
        shown = printable(name)
        screen.find(f"odd/{shown}")
        heading = screen.part("find-results").get_by_role("heading")
        expect(heading).to_have_text(f"/odd/{shown}")
        screen.pick_middle()
        owner = screen.part("panel").get_by_role("button").filter(has_text=shown)
        expect(owner).to_be_visible()
    assert screen.page.title() == explored.ask("/filesystem")["label"] == LABEL
    # The page itself has its contents and its program.
    assert screen.page.locator("i, script").count() == 2


# The keyboard, and other windows.


def test_keyboard(screen: Screen) -> None:
    screen.open()
    page = screen.page
    for key, steps in (("+", 1), ("+", 1), ("-", -1)):
        zoom = screen.centre().zoom + steps
        page.keyboard.press(key)
        screen.wait_until(partial(screen.is_at, zoom))
    for key, rows, columns in (
        ("ArrowRight", 0, 1),
        ("ArrowDown", 1, 0),
        ("ArrowLeft", 0, -1),
        ("ArrowUp", -1, 0),
    ):
        screen.wait_for_rest()
        before = screen.centre()
        page.keyboard.press(key)
        screen.wait_until(lambda: screen.centre() != before)  # noqa: B023 - at once
        screen.wait_for_rest()
        after = screen.centre()
        moved = np.sign(after.row - before.row), np.sign(after.column - before.column)
        assert moved == (rows, columns)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("zoom", [3, 8])
def test_the_whole_map_fits_from_any_zoom(moving: Screen, zoom: int) -> None:
    moving.open(f"#physical/hilbert/type/{zoom}/300/300")
    moving.part("map").focus()
    moving.page.keyboard.press("0")
    moving.wait_for_rest()
    tile = moving.page.locator(".leaflet-tile-pane img").first.bounding_box()
    window = moving.part("map").bounding_box()
    assert tile is not None
    assert window is not None
    assert 4 * tile["width"] + 2 * _MARGIN == pytest.approx(window["height"], abs=0.1)


def test_controls_have_names(screen: Screen) -> None:
    screen.open()
    for name in ("space", "curve", "colour", "find", "theme"):
        expect(screen.part(name)).to_have_accessible_name(re.compile(r"\w{3}"))
    buttons = screen.page.get_by_role("button").all()
    assert buttons
    for button in buttons:
        expect(button).to_have_accessible_name(re.compile(r"\w{3}"))


def test_themes(browser: Browser, explored: Explored) -> None:
    shades = {}
    for dark in (False, True):
        with visit(browser, dark=dark, still=True) as visited:
            themed = Screen(visited, explored.server)
            themed.open()
            shades[dark] = themed.background()
            assert_clean(visited, explored.server)
    assert shades[True] < shades[False]


def test_chosen_theme_is_remembered(screen: Screen) -> None:
    screen.open()
    before = screen.background()
    screen.part("theme").click()
    chosen = screen.background()
    assert chosen != before
    screen.page.reload()
    screen.wait()
    assert screen.background() == chosen


def test_phone(browser: Browser, explored: Explored) -> None:
    with visit(browser, width=390, height=844, still=True) as visited:
        phone = Screen(visited, explored.server)
        phone.open()
        phone.find(KNOWN)
        visited.page.mouse.click(*phone.middle())
        panel = phone.part("panel")
        expect(panel).to_contain_text(KNOWN)
        box = panel.bounding_box()
        assert box is not None
        assert box["width"] <= 390
        assert visited.page.evaluate("document.documentElement.scrollWidth") <= 390
        assert_clean(visited, explored.server)


# What changes.


def test_change_is_seen(moving: Screen, explored: Explored) -> None:
    moving.open("#physical/hilbert/age/0/128/128")
    moving.wait_until(lambda: "/events" in " ".join(moving.visit.requests))
    old = explored.ask("/filesystem")["generation"]
    before = moving.shown_tiles()
    path = explored.fs.mountpoint / "written while somebody looks"
    write(path, 64 << 20)
    explored.fs.sync()
    moving.page.wait_for_selector(".flashing", state="attached")
    (asked, *_) = (url for url in moving.visit.requests if "/marks/changed/" in url)
    told = dict(field.split("=") for field in asked.partition("?")[2].split("&"))
    assert int(told["since"]) <= int(old) < int(told["g"])
    moving.wait_until(lambda: differ(before, moving.shown_tiles()))
    new = explored.ask("/filesystem")["generation"]
    assert int(new) > int(old)
    # It flashes once, and is quiet then.
    expect(moving.page.locator(".flashing")).to_have_count(0)
    moving.find(path.name)
    expect(moving.part("find-results")).to_contain_text("Size on disk64.00MiB")
    # What was found is looked for again after each change.
    lit = moving.page.locator(".leaflet-found-pane img")
    expect(lit).not_to_have_count(0)
    path.unlink()
    explored.fs.sync()
    expect(moving.part("find-results")).to_contain_text("there is no")
    expect(lit).to_have_count(0)
    # The browser itself tells of the answer 404.
    assert all("404" in problem for problem in moving.visit.problems)
    assert len(moving.visit.problems) == 1
    moving.visit.problems.clear()


def test_a_server_that_was_started_anew(browser: Browser, explored: Explored) -> None:
    with served(explored.fs.mountpoint) as first, visit(browser) as visited:
        screen = Screen(visited, first)
        screen.open()
        screen.wait_until(lambda: "/events" in " ".join(visited.requests))
        os.kill(first.pid, signal.SIGKILL)
        expect(screen.part("notice")).to_contain_text("is lost")
        port = urlsplit(first.url).port
        with served("--port", str(port), explored.fs.mountpoint) as second:
            assert second.url != first.url
            expect(screen.part("notice")).to_contain_text("started anew")


# The pictures of the README.


def test_pictures_for_the_readme(browser: Browser, tmp_path: Path) -> None:
    folder = Path(os.environ.get("BTRFS_ATLAS_SCREENSHOTS", tmp_path))
    width, height = 1400, 1080
    with (
        served(SAMPLE) as server,
        visit(browser, width=width, height=height, dark=True, still=True) as visited,
    ):
        screen = Screen(visited, server)
        screen.open()
        screen.choose("colour", "age")
        legend = screen.part("legend")
        expect(legend.get_by_role("listitem").first).to_be_attached()
        expect(legend).not_to_contain_text("Reading")
        visited.page.screenshot(path=folder / "explorer-map.png")

        row, column = marked(server, 3, "machines/disk")
        screen.open(f"#physical/hilbert/type/3/400/300&q=machines/disk&p={row},{column}")
        expect(screen.part("panel")).to_contain_text("machines")
        expect(screen.part("find-results")).to_contain_text("Contiguous pieces")
        expect(legend).not_to_contain_text("Reading")
        screen.wait_for_rest()
        visited.page.screenshot(path=folder / "explorer-file.png")
        assert_clean(visited, server)
    for name in ("explorer-map.png", "explorer-file.png"):
        picture = pixels((folder / name).read_bytes())
        assert picture.shape == (height, width, 3)
        assert np.unique(picture @ np.array([1, 1 << 8, 1 << 16])).size > 50, "it shows something"


def marked(server: Server, zoom: int, query: str) -> tuple[int, int]:
    """Return a pixel of the first tile, near its middle, that is marked with all around it."""
    path = f"/marks/found/physical/hilbert/{zoom}/0/0.png?q={query}"
    with urllib.request.urlopen(server.url.rstrip("/") + path) as answer:
        marks = np.asarray(Image.open(BytesIO(answer.read())).convert("RGBA"))[..., 3] > 0
    inner = sliding_window_view(marks, (3, 3)).all(axis=(2, 3))
    rows, columns = np.nonzero(inner)
    nearest = np.argmin(np.hypot(rows - 128, columns - 128))
    return int(rows[nearest]) + 1, int(columns[nearest]) + 1
