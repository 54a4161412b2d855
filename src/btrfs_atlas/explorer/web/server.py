"""The server: pages, tiles and answers over HTTP.

Requests that come here have passed the guard. What they ask for is checked against what exists
before any work begins, and the work is done in pools of a few threads each: tiles, searches that
read the filesystem (find, details), and what is answered from memory. A pool that is full says so.

Addresses, all below the token:

    /                                           the page, with what it has to know first
    /filesystem                                 that again, as it is now
    /tile/SPACE/CURVE/COLOUR/Z/ROW/COLUMN.png   a square of the map
    /marks/KIND/SPACE/CURVE/Z/ROW/COLUMN.png    what is laid over it: borders, changed, found (?q=)
    /legend/SPACE/COLOUR                        what the colours mean (?z=)
    /at/SPACE/CURVE/Z/ROW/COLUMN                what a pixel shows, in a moment
    /details/SPACE/CURVE/Z/ROW/COLUMN           all about it
    /find                                       where something lies (?q=, space=, curve=)
    /events                                     server-sent events (?g=)

Z is the zoom; ROW and COLUMN count tiles, or pixels where it is about a pixel. ?g= is the
generation that the page shows; of what has changed, ?since= is the one that it showed before.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.responses import Response
from starlette.routing import Route, Router

from btrfs.errors import BtrfsError
from btrfs_atlas.explorer.atlas import TILE_SECONDS
from btrfs_atlas.explorer.model.lines import PHYSICAL, TILE_ORDER
from btrfs_atlas.explorer.web import overview
from btrfs_atlas.explorer.web.guard import Guard, Hosts
from btrfs_atlas.explorer.web.live import LOADED, Listener, Live
from btrfs_atlas.explorer.web.page import Page, build_page
from btrfs_atlas.explorer.web.worker_pool import (
    BusyError,
    ClientDisconnectedError,
    WorkerPool,
    disconnected,
)
from heatmap import curves
from heatmap.colourings import colourings

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from btrfs_atlas.explorer.atlas import Atlas
    from btrfs_atlas.explorer.search.find import Found

_T = TypeVar("_T")

PIXELS = 1 << TILE_ORDER
"""Pixels of a tile, in a row or column."""

_MAIN = "main.js"
"""The module that starts the page."""

_MAY_LOAD = {"img-src": "'self' data: blob:", "connect-src": "'self'"}

_SKETCH_ZOOM = 1
"""Of the picture that comes with the page."""

_FIRST_ZOOM = 2
"""At which the whole map fills a window on most screens."""

_KEEP = "private, max-age=86400, immutable"
"""Of pictures: what an address with a generation shows stays the same."""

_NATURAL = "[0-9]{1,20}"
"""A number in a query, of as many digits as 2^64 has."""
_MAX_FIELDS = 8
"""Of a query."""
_MAX_QUESTION = 8192

_FOUND_KEPT = 2
"""The answers to so many questions are kept, for the tiles on which they are marked."""


def application(atlas: Atlas, token: str, hosts: Hosts) -> ASGIApp:
    """Return the server's application.

    Args:
        atlas: The map that it serves.
        token: The first segment of every path.
        hosts: The names that the server is known by.
    """
    served = _Served(atlas)
    pixel = "{space}/{curve}/{z:natural}/{row:natural}/{column:natural}"
    tile = "{z:natural}/{row:natural}/{column:natural}.png"
    routes = {
        "/": served.page,
        "/filesystem": served.filesystem,
        f"/tile/{{space}}/{{curve}}/{{colour}}/{tile}": served.tile,
        f"/marks/{{kind}}/{{space}}/{{curve}}/{tile}": served.marks,
        "/legend/{space}/{colour}": served.legend,
        f"/at/{pixel}": served.at,
        f"/details/{pixel}": served.details,
        "/find": served.find,
        "/events": served.events,
    }
    router = Router(
        [Route(path, endpoint) for path, endpoint in routes.items()],
        redirect_slashes=False,
        default=_no_route,
    )
    handlers: dict[Any, Any] = {
        HTTPException: _refused,
        BusyError: _busy,
        ClientDisconnectedError: _left,
    }
    return Guard(ExceptionMiddleware(router, handlers), token, hosts)


class _MapPosition(NamedTuple):
    """A tile or a pixel."""

    space: str
    curve: str
    zoom: int
    row: int
    column: int


class _Served:
    """Answers requests about one filesystem."""

    def __init__(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._live = Live(atlas)
        self._drawing = WorkerPool(threads=2, limit=256)
        self._reading = WorkerPool(threads=1, limit=16)
        self._telling = WorkerPool(threads=2, limit=64)
        self._found: OrderedDict[tuple[int, str, str, str], Found] = OrderedDict()

    async def page(self, request: Request) -> Response:
        """Answer with the page."""
        page = await self._telling.run(self._page, request.receive)
        policy = f"{page.policy}; frame-ancestors 'none'"
        headers = {"content-security-policy": policy}
        return Response(page.html, headers=headers, media_type="text/html")

    async def filesystem(self, request: Request) -> Response:
        """Answer with the facts about the filesystem as a whole."""
        work = partial(overview.filesystem, self._atlas)
        return _json(await self._telling.run(work, request.receive))

    async def tile(self, request: Request) -> Response:
        """Answer with a tile."""
        position = self._position(request, 1)
        colour = _one_of(_colours(), request.path_params["colour"])
        generation = self._atlas.generation
        # A tile that waits longer than this is drawn from what is known then.
        deadline = time.monotonic() + TILE_SECONDS
        work = partial(self._atlas.tile, position, colour, deadline)
        tile = await self._drawing.run(work, request.receive)
        may_be_kept = tile.complete and self._still_shows(generation, request)
        return _png(tile.png, may_be_kept, {"x-complete": str(int(tile.complete))})

    async def marks(self, request: Request) -> Response:
        """Answer with a picture that is laid over a tile."""
        position = self._position(request, 1)
        kind = request.path_params["kind"]
        generation = self._atlas.generation
        if kind == "borders":
            work = partial(self._atlas.borders, position)
        elif kind == "changed":
            shown = _natural(request, "g", generation)
            since = _natural(request, "since", shown - 1)
            groups = self._live.changed_groups(since, shown)
            work = partial(self._atlas.changed, position, groups)
        elif kind == "found":
            found = await self._find(request, position.space, position.curve)
            work = partial(self._atlas.found, position, *found.runs)
        else:
            raise _unknown("marks")
        png = await self._drawing.run(work, request.receive)
        return _png(png, self._still_shows(generation, request))

    async def legend(self, request: Request) -> Response:
        """Answer what colours mean."""
        space = _one_of(self._atlas.lines, request.path_params["space"])
        colour = _one_of(_colours(), request.path_params["colour"])
        zoom = _natural(request, "z", 0)
        if zoom > self._atlas.lines[space].max_zoom:
            raise _unknown("zoom")
        work = partial(overview.legend, self._atlas, space, colour, zoom)
        return _json(await self._telling.run(work, request.receive))

    async def at(self, request: Request) -> Response:
        """Answer what a pixel shows."""
        work = partial(self._at, self._position(request, PIXELS))
        return _json(await self._telling.run(work, request.receive))

    async def details(self, request: Request) -> Response:
        """Answer all that there is to know about a pixel."""
        work = partial(self._details, self._position(request, PIXELS))
        return _json(await self._reading.run(work, request.receive))

    async def find(self, request: Request) -> Response:
        """Answer where something lies."""
        query = _query(request)
        space = _one_of(self._atlas.lines, query.get("space", ""))
        curve = _one_of(curves.CURVES, query.get("curve", ""))
        return _json((await self._find(request, space, curve)).record())

    async def events(self, request: Request) -> Response:
        """Tell about changes until the page is closed."""
        since = _natural(request, "g", None)
        if request.method == "HEAD":
            return Response(media_type=_Stream.media_type)
        return _Stream(self._live, since)

    async def _find(self, request: Request, space: str, curve: str) -> Found:
        """Return what is found, now or a moment ago."""
        question = _query(request).get("q", "")
        if not 0 < len(question) <= _MAX_QUESTION:
            raise HTTPException(400, "there is nothing to find" if not question else "too long")
        key = self._atlas.generation, space, curve, question
        found = self._found.get(key)
        if found is not None:
            return found
        try:
            return await self._reading.run(partial(self._find_once, key), request.receive)
        except BtrfsError as error:
            # The message is meant for the user.
            raise _Refusal(404, str(error), error.hint) from None

    def _position(self, request: Request, scale: int) -> _MapPosition:
        """Return the position that a path names.

        Args:
            request: The request.
            scale: Rows and columns of a tile: 1 to count tiles, PIXELS to count pixels.
        """
        params = request.path_params
        space = _one_of(self._atlas.lines, params["space"])
        curve = _one_of(curves.CURVES, params["curve"])
        zoom, row, column = params["z"], params["row"], params["column"]
        if zoom > self._atlas.lines[space].max_zoom or max(row, column) >= scale << zoom:
            raise _unknown("position")
        return _MapPosition(space, curve, zoom, row, column)

    def _still_shows(self, generation: int, request: Request) -> bool:
        """Return whether a picture is of the generation that its address tells."""
        asked = _natural(request, "g", None)
        return asked == generation == self._atlas.generation

    # What is done by other threads. Modules that the first picture does not need are imported here.

    def _page(self) -> Page:
        contents = {
            "filesystem": overview.filesystem(self._atlas),
            "sketch": overview.sketch(self._atlas, _SKETCH_ZOOM),
        }
        page = build_page(_MAIN, contents, _MAY_LOAD)
        # The browser has enough to do until it asks for tiles.
        line = self._atlas.lines[PHYSICAL]
        self._atlas.read_ahead(line.name, _colours()[0], min(_FIRST_ZOOM, line.max_zoom))
        return page

    def _at(self, position: _MapPosition) -> dict[str, Any]:
        from btrfs_atlas.explorer.search.details import at

        return at(self._atlas, *position)

    def _details(self, position: _MapPosition) -> dict[str, Any]:
        from btrfs_atlas.explorer.search.details import details

        return details(self._atlas, *position)

    def _find_once(self, key: tuple[int, str, str, str]) -> Found:
        """Find something, unless it was found while this waited; there is one thread for this."""
        from btrfs_atlas.explorer.search.find import find

        found = self._found.get(key)
        if found is None:
            _, space, curve, question = key
            found = find(self._atlas, question, space, curve)
            self._found[key] = found
            if len(self._found) > _FOUND_KEPT:
                self._found.popitem(last=False)
        return found


class _Natural(Convertor[int]):
    """A number in a path: a few digits and nothing else."""

    regex = "[0-9]{1,10}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("natural", _Natural())


class _Refusal(HTTPException):
    """An answer that says no, with a hint."""

    def __init__(self, status: int, error: str, hint: str | None) -> None:
        super().__init__(status, error)
        self.hint = hint


class _Stream(Response):
    """Events, as they come, until the client disconnects."""

    media_type = "text/event-stream"

    def __init__(self, live: Live, since: int | None) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._live = live
        self._since = since

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        # If there are too many listeners, that is said before anything is sent.
        with self._live.listener(self._since) as listener:
            sending = asyncio.ensure_future(self._send(listener, send))
            leaving = asyncio.ensure_future(disconnected(receive))
            try:
                await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sending.cancel()
                leaving.cancel()

    async def _send(self, listener: Listener, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        # At once: of what was read before it was connected, the page was not told.
        event = LOADED
        while True:
            await send({"type": "http.response.body", "body": event, "more_body": True})
            event = await listener.next()


# What was asked for.


def _query(request: Request) -> dict[str, str]:
    """Return the query; bytes that are no text are kept, as they can be part of a name."""
    text = request.scope["query_string"].decode("latin-1")
    try:
        return dict(parse_qsl(text, errors="surrogateescape", max_num_fields=_MAX_FIELDS))
    except ValueError:
        raise HTTPException(400, "this query is too long") from None


def _natural(request: Request, name: str, default: _T) -> int | _T:
    """Return a number of the query."""
    text = _query(request).get(name)
    if text is None:
        return default
    if not re.fullmatch(_NATURAL, text):
        raise HTTPException(400, f"{name} is no number")
    return int(text)


def _colours() -> list[str]:
    """Return the names of the colourings."""
    return [one.name for one in colourings()]


def _one_of(known: Iterable[str], name: str) -> str:
    """Return a name if it is known."""
    if name not in known:
        raise _Refusal(404, "there is no such thing", f"there are {', '.join(known)}")
    return name


# Answers.


def _json(record: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # All in ASCII: it can hold names with bytes that no encoding of text has.
    body = json.dumps(record, separators=(",", ":"), allow_nan=False)
    return Response(body, status, headers, "application/json")


def _png(png: bytes, may_be_kept: bool, headers: dict[str, str] | None = None) -> Response:
    kept = {"cache-control": _KEEP} if may_be_kept else {}
    return Response(png, headers={**(headers or {}), **kept}, media_type="image/png")


def _unknown(what: str) -> HTTPException:
    return HTTPException(404, f"there is no such {what}")


async def _no_route(*_: object) -> None:
    raise _unknown("thing")


async def _refused(_: Request, error: HTTPException) -> Response:
    return _json({"error": error.detail, "hint": getattr(error, "hint", None)}, error.status_code)


async def _busy(*_: object) -> Response:
    record = {"error": "the server is busy", "hint": "try again in a moment"}
    return _json(record, 503, {"retry-after": "1"})


async def _left(*_: object) -> Response:
    """Return an answer for a client that has disconnected, which is never sent."""
    return Response(status_code=503)
