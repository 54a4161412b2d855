"""`python -m bench.explorer`: how quick the explorer is, and what memory it takes, in one run.

What a user waits for is measured from outside: the command is started, and chromium, which runs
already, opens the URL. Single tiles are measured twice, in a process without a server
(bench.explorer_probe) and as HTTP answers, which takes more. The filesystems are those of
`python -m bench`, mounted.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from playwright.sync_api import Playwright, sync_playwright

from bench.command import report, run
from bench.explorer_probe import COLOUR, Drawn, Tile
from bench.filesystems import PREALLOC, USED, Recipe, ensure
from bench.free_space import CACHE
from bench.peers import OURS, require, run_alone
from heatmap.curves import HILBERT
from tests.lab.loopfs import PROGRAMS, mounted_images
from tests.support.browser import ARGUMENTS, CHROMIUM, HEIGHT, WIDTH, served

TILES = 500
AT_ONCE = 50

FRAME = 87
"""Pixels of a window that are above the page."""

SETTLE_SECONDS = 3
"""Until a browser or a page that was just opened has nothing more to do."""

STAGES = """() => {
  const { timeOrigin } = performance;
  const when = (name) => timeOrigin + performance.getEntriesByName(name)[0]?.startTime;
  const [{ responseStart }] = performance.getEntriesByType("navigation");
  const complete = when("complete");
  const drawn = when("drawn") || complete;
  return { html: timeOrigin + responseStart, sketched: when("sketched") || drawn, drawn, complete };
}"""
"""When a page came so far, in milliseconds since 1970; the page itself notes all but the first."""

_BEGIN = "from the command, 300,000 extents, until"
WORDS = {
    "speed": ("to compare machines: ten million additions in Python", None),
    "url": (f"{_BEGIN} the URL is printed", None),
    "html": (f"{_BEGIN} the first HTML is there", None),
    "sketched": (f"{_BEGIN} the page is usable, with a map of 512 x 512 pixels", 1),
    "drawn": (f"{_BEGIN} all its tiles are there", None),
    "complete": (f"{_BEGIN} all extents are on them", None),
}
"""The stages, and what is demanded, in seconds."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        what: Was measured.
        reached: In seconds, or in bytes.
        limit: That is demanded; None if nothing is.
        is_bytes: Whether it is bytes.
    """

    what: str
    reached: float
    limit: float | None = None
    is_bytes: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it is as demanded."""
        return self.limit is None or self.reached <= self.limit


class Answer(NamedTuple):
    """What the server said.

    Attributes:
        seconds: From the question to the last byte.
        complete: Whether it is a tile of which nothing is missing.
        body: The bytes.
    """

    seconds: float
    complete: bool
    body: bytes


class Client:
    """A connection to a server that stays open, as a browser's does."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._folder = parts.path.rstrip("/")
        self._connection = http.client.HTTPConnection(parts.netloc)

    def get(self, path: str) -> Answer:
        """Ask for what is below the URL.

        Raises:
            RuntimeError: The server refused.
        """
        begin = time.perf_counter()
        self._connection.request("GET", self._folder + path)
        response = self._connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - begin
        if response.status != http.client.OK:
            raise RuntimeError(f"{path}: {response.status} {body.decode(errors='replace')}")
        return Answer(seconds, response.getheader("X-Complete") == "1", body)

    def filesystem(self) -> dict[str, Any]:
        """Return the server's description of the filesystem."""
        shown: dict[str, Any] = json.loads(self.get("/filesystem").body)
        return shown

    def tile(self, tile: Tile, generation: str) -> Answer:
        """Ask for a tile."""
        space, zoom, row, column = tile
        return self.get(
            f"/tile/{space}/{HILBERT}/{COLOUR}/{zoom}/{row}/{column}.png?g={generation}"
        )

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def main() -> int:
    """Measure, and print the figures as a Markdown table."""
    options = parse()
    return run(lambda: table(figures(options)))


def figures(options: argparse.Namespace) -> Iterator[Figure]:
    """Measure on both filesystems."""
    require(*PROGRAMS, CHROMIUM)
    options.cache.mkdir(parents=True, exist_ok=True)
    for recipe in (USED, PREALLOC):
        yield from on_filesystem(recipe, options.cache, options.rounds)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.explorer", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=5, help="how often the page is opened (%(default)s)"
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for images (%(default)s)")
    return parser.parse_args()


def on_filesystem(recipe: Recipe, cache: Path, rounds: int) -> Iterator[Figure]:
    """Mount one of the filesystems, and measure on it."""
    image = ensure(recipe, cache, report)
    with (
        tempfile.TemporaryDirectory(dir=cache) as folder,
        mounted_images([image], Path(folder) / "mounted", "ro") as mounted,
    ):
        measure = first_page if recipe is USED else with_all_loaded
        yield from measure(mounted.mountpoint, rounds)


def first_page(target: Path, rounds: int) -> Iterator[Figure]:
    """Measure how long it takes from the command to a page that can be used."""
    with unwatched() as browser, sync_playwright() as playwright:
        opened = []
        for number in range(rounds + 1):
            report(f"first page: round {number} of {rounds}")
            opened.append({"speed": additions(), **open_page(browser, playwright, target)})
    for stage, (words, limit) in WORDS.items():
        # One round more at first warms caches.
        seconds = statistics.median(stages[stage] for stages in opened[1:])
        yield Figure(words, seconds, limit)


@contextlib.contextmanager
def unwatched() -> Iterator[str]:
    """Run chromium without a window on the screen; yield the URL at which it takes orders.

    A browser that Playwright drives reports every request to it, and that takes longer than to
    answer them. So pages are opened by a single order, and are asked afterwards what came when.
    """
    # It may still write when it has been told to end.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        argv = [
            CHROMIUM,
            *ARGUMENTS,
            "--headless=new",
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            f"--window-size={WIDTH},{HEIGHT + FRAME}",
            "about:blank",
        ]
        with subprocess.Popen(
            argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            try:
                port = Path(profile) / "DevToolsActivePort"
                while not port.exists() and process.poll() is None:
                    time.sleep(0.1)
                time.sleep(SETTLE_SECONDS)
                yield f"http://127.0.0.1:{port.read_text().split()[0]}"
            finally:
                process.terminate()


def open_page(browser: str, playwright: Playwright, target: Path) -> dict[str, float]:
    """Return how many seconds it takes from starting the command to each of the stages."""
    begin = time.time()
    with served(target) as server:
        url = time.time() - begin
        tab = json.loads(order(browser, f"new?{server.url}"))
        time.sleep(SETTLE_SECONDS)
        connected = playwright.chromium.connect_over_cdp(browser)
        (page,) = (
            page
            for context in connected.contexts
            for page in context.pages
            if page.url.startswith(server.url)
        )
        page.wait_for_selector("html[data-tiles=complete]", state="attached")
        shown = page.evaluate(STAGES)
        connected.close()
        order(browser, f"close/{tab['id']}")
    return {"url": url, **{stage: when / 1000 - begin for stage, when in shown.items()}}


def additions() -> float:
    """Return how long ten million additions take: how quick this machine is now."""
    begin = time.perf_counter()
    total = 0
    for number in range(10_000_000):
        total += number
    return time.perf_counter() - begin


def order(browser: str, what: str) -> bytes:
    """Give an order to a browser; return what it answers."""
    request = urllib.request.Request(f"{browser}/json/{what}", method="PUT")
    with urllib.request.urlopen(request) as answer:
        body: bytes = answer.read()
    return body


def with_all_loaded(target: Path, rounds: int) -> Iterator[Figure]:
    """Measure tiles and memory with 3,000,000 extents."""
    del rounds  # There are many tiles.
    report("tiles in process")
    argv = [OURS.executable, "-m", "bench.explorer_probe", str(target), str(TILES)]
    drawn = Drawn(**json.loads(run_alone(argv, None)))
    tiles: list[Tile] = [(space, z, row, column) for space, z, row, column in drawn.tiles]
    for curve, seconds in drawn.seconds.items():
        yield from percentiles(f"a tile on {curve}, in process", seconds)
    yield slowest_zoom(tiles, drawn.seconds[HILBERT])
    with served(target) as server:
        client = Client(server.url)
        shown = client.filesystem()
        chosen = deepest(shown, tiles)
        report(f"{AT_ONCE} tiles at once, cold")
        cold = at_once(server.url, chosen, shown["generation"])
        report("tiles by HTTP")
        load(client, shown, tiles)
        seconds = [client.tile(tile, shown["generation"]).seconds for tile in tiles]
        yield from percentiles("a tile, by HTTP", seconds)
        yield Figure(f"{AT_ONCE} tiles at once by HTTP, nothing loaded yet", cold, limit=1.5)
        report(f"{AT_ONCE} tiles at once, warm")
        warm = at_once(server.url, chosen, shown["generation"])
        yield Figure(f"{AT_ONCE} tiles at once by HTTP, all loaded", warm, limit=1.5)
        client.close()
    yield Figure(
        f"memory per extent, of {drawn.extents:,}: growth of the process",
        drawn.resident / drawn.extents,
        limit=64,
        is_bytes=True,
    )
    yield Figure(
        "memory per extent: columns", drawn.columns / drawn.extents, limit=64, is_bytes=True
    )


def percentiles(what: str, seconds: list[float]) -> Iterator[Figure]:
    """Yield what is demanded of single tiles."""
    yield Figure(f"{what}: median of {len(seconds)}", statistics.median(seconds), limit=0.015)
    yield Figure(f"{what}: 99th percentile", statistics.quantiles(seconds, n=100)[98], limit=0.06)


def slowest_zoom(tiles: list[Tile], seconds: list[float]) -> Figure:
    """Return the median of the zoom whose tiles take longest."""
    of_zoom: dict[tuple[str, int], list[float]] = {}
    for (space, zoom, _, _), taken in zip(tiles, seconds, strict=True):
        of_zoom.setdefault((space, zoom), []).append(taken)
    medians = {place: statistics.median(all_of_it) for place, all_of_it in of_zoom.items()}
    slowest = max(medians, key=medians.__getitem__)
    what = f"a tile, in process: median of the slowest zoom ({slowest[0]}, {slowest[1]})"
    return Figure(what, medians[slowest])


def deepest(shown: dict[str, Any], tiles: Iterable[Tile]) -> list[Tile]:
    """Return different tiles of the deepest zoom, where every extent is drawn."""
    found = dict.fromkeys(tile for tile in tiles if tile[1] == shown["spaces"][tile[0]]["max_zoom"])
    if len(found) < AT_ONCE:
        raise RuntimeError(f"only {len(found)} tiles of the deepest zoom")
    return list(found)[:AT_ONCE]


def load(client: Client, shown: dict[str, Any], tiles: Iterable[Tile]) -> None:
    """Ask for tiles until all of them are complete."""
    waiting = set(tiles)
    while waiting:
        waiting = {tile for tile in waiting if not client.tile(tile, shown["generation"]).complete}
        time.sleep(0.1)


def at_once(url: str, tiles: list[Tile], generation: str) -> float:
    """Ask for tiles on as many connections; return the seconds until the last is there."""
    clients = [Client(url) for _ in tiles]
    with ThreadPoolExecutor(len(tiles)) as pool:
        begin = time.perf_counter()
        list(pool.map(lambda client, tile: client.tile(tile, generation), clients, tiles))
        seconds = time.perf_counter() - begin
    for client in clients:
        client.close()
    return seconds


def table(figures: Iterable[Figure]) -> Iterator[str]:
    """Yield the lines of a Markdown table of figures."""
    yield "| what | demanded | reached |"
    yield "|---|---|---|"
    for figure in figures:
        demanded = "" if figure.limit is None else f"at most {demand(figure)}"
        missed = "" if figure.is_met else " (missed)"
        yield f"| {figure.what} | {demanded} | {amount(figure)}{missed} |"


def demand(figure: Figure) -> str:
    """Return a limit in words, which is a round number."""
    assert figure.limit is not None
    if figure.is_bytes:
        return f"{figure.limit:g} bytes"
    return f"{figure.limit:g} s" if figure.limit >= 0.1 else f"{1000 * figure.limit:g} ms"


def amount(figure: Figure) -> str:
    """Return what was reached in words."""
    if figure.is_bytes:
        return f"{figure.reached:.1f} bytes"
    seconds = figure.reached
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"


if __name__ == "__main__":
    sys.exit(main())
