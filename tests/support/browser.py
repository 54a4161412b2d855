"""A real browser, Debian's chromium, driven by Playwright, and the explorer's server for it.

    with served(fs.mountpoint) as server, chromium() as browser, visit(browser) as visit:
        visit.page.goto(server.url)
        ...
        assert not visit.problems
        assert visit.strangers(server.url) == []

The context managers know nothing about pytest, and the benchmark uses them too; a test calls
`require_browser()` first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.lab.commands import Argument, CommandError
from tests.support.require import require_programs

CHROMIUM = "/usr/bin/chromium"

ARGUMENTS = (
    "--no-sandbox",  # root has none
    "--disable-gpu",
    # Nothing that the browser does for itself may look as if the page did it.
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

PROGRAM = Path(sys.executable).with_name("btrfs-atlas")

WIDTH, HEIGHT = 1280, 800
"""Pixels of a window, unless a visit asks for others."""

_START_SECONDS = 30.0
"""Time for the server to print its URL, on a machine that is busy with other tests."""

_ABORTED = "net::ERR_ABORTED"
"""What becomes of a request that the page itself gave up, for a tile out of sight."""


@dataclass  # without slots: Playwright keeps something in the object whose methods it calls
class Visit:
    """A page in a window of its own, and what went on there.

    Attributes:
        page: The page, for Playwright's calls.
        problems: Errors on the console, uncaught exceptions, and requests without an answer.
        requests: URL of every request, whatever became of it.
    """

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def wait_for_tiles(self) -> None:
        """Wait until everything on the map that can be seen is there."""
        # Not wait_for_function(): the page's content security policy forbids what that does.
        self.page.wait_for_selector("html[data-tiles=complete]", state="attached")

    def strangers(self, url: str) -> list[str]:
        """Return the requests that went anywhere but to the server of this URL.

        What the page has made itself (data:, blob:) goes nowhere.
        """
        home = urlsplit(url)
        return [
            request
            for request in self.requests
            if (to := urlsplit(request)).scheme not in {"data", "blob"}
            and (to.scheme, to.netloc) != (home.scheme, home.netloc)
        ]

    def _listen(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("requestfailed", self._on_failure)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text} ({message.location.get('url')})")

    def _on_failure(self, request: Request) -> None:
        if request.failure != _ABORTED:
            self.problems.append(f"no answer: {request.url}: {request.failure}")


@dataclass(frozen=True, slots=True)
class Server:
    """A running `btrfs-atlas serve`.

    Attributes:
        url: Of the page, as it was printed.
        pid: Of the process.
        errors: Its standard error.
    """

    url: str
    pid: int
    errors: IO[bytes]

    def complaints(self) -> str:
        """Return what it has written to standard error so far."""
        # The server writes where this file stands: do not move.
        size = os.fstat(self.errors.fileno()).st_size
        return os.pread(self.errors.fileno(), size, 0).decode(errors="replace")


def require_browser() -> None:
    """Skip the running test where chromium is missing, or fail it where CI=true."""
    require_programs(CHROMIUM)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run chromium without a window on the screen, and end it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visit(
    browser: Browser,
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    dark: bool = False,
    still: bool = False,
) -> Iterator[Visit]:
    """Open an empty page in a context of its own, which shares nothing with other visits.

    Args:
        browser: From :func:`chromium`.
        width: Of the window, in pixels.
        height: Of the window.
        dark: Whether the user prefers a dark theme.
        still: Whether the user prefers that nothing moves by itself.
    """
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce" if still else "no-preference",
    )
    try:
        opened = Visit(context.new_page())
        opened._listen()
        yield opened
    finally:
        context.close()


@contextlib.contextmanager
def served(*words: Argument) -> Iterator[Server]:
    """Run `btrfs-atlas serve` with these arguments until the end of the block.

    Raises:
        CommandError: it printed no URL; the message holds what it said instead.
    """
    argv = [PROGRAM, "serve", *words]
    with (
        tempfile.TemporaryFile() as errors,
        # Without a buffer, select tells of every byte that is there.
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, bufsize=0) as process,
    ):
        server = Server("", process.pid, errors)
        try:
            url = _first_line(process)
            if url is None:
                raise CommandError(f"btrfs-atlas serve: no URL\n{server.complaints()}")
            yield dataclasses.replace(server, url=url)
        finally:
            process.kill()


def _first_line(process: subprocess.Popen[bytes]) -> str | None:
    """Return the first line of a process's output; None if it ends or takes long without one."""
    assert process.stdout is not None
    line = b""
    end = time.monotonic() + _START_SECONDS
    while not line.endswith(b"\n"):
        if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
            return None
        byte = process.stdout.read(1)
        if not byte:
            return None
        line += byte
    return line.decode().strip()
