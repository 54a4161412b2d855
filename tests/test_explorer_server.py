"""The explorer's server: whom it answers, what it answers, and what it is not to be brought to."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import pytest
from httpx import ASGITransport, AsyncClient
from PIL import Image

from btrfs.ondisk.text import printable
from btrfs_atlas.explorer.atlas import Atlas, Changes
from btrfs_atlas.explorer.render.tiles import Tile
from btrfs_atlas.explorer.web import guard, server
from btrfs_atlas.explorer.web.live import MAX_LISTENERS, Listener, Live
from btrfs_atlas.explorer.web.worker_pool import BusyError, ClientDisconnectedError, WorkerPool
from tests import support
from tests.support.browser import Server, served
from tests.support.html import assert_policy, contents_of
from tests.support.programs import SAMPLE

TILE = "tile/physical/hilbert/type/0/0/0.png"
NAMES = (
    b"<script>alert(1)<!--",
    b"<img src=x onerror=alert(1)>",
    b"quote ' and \" and \\",
    b"two\nlines",
    b"\xff\xfe no text",
    "<b>&amp; \u202e right to left ☃".encode(),
)


class Answer(NamedTuple):
    """What came back: the status, the headers with small letters, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def record(self) -> Any:
        """The body, which must be JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


@pytest.fixture(scope="module")
def sample() -> Iterator[Server]:
    """A server of the filesystem that comes with the package."""
    with served(SAMPLE) as running:
        yield running
        assert running.complaints() == "Press Ctrl-C to stop\n"


def ask(
    running: Server,
    path: str,
    headers: dict[str, str] | None = None,
    *,
    method: str = "GET",
    below: str | None = None,
) -> Answer:
    """Send a request as it is, however odd, and return the answer.

    Args:
        running: The server.
        path: What follows the token and a slash.
        headers: Instead of Host alone.
        method: Of the request.
        below: What the path begins with, instead of the token.
    """
    url = urlsplit(running.url)
    start = url.path if below is None else below
    told = {"Host": url.netloc} if headers is None else headers
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    request = f"{method} {start}{path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
    return send(running, request.encode("latin-1"), method)


def send(running: Server, request: bytes, method: str = "GET") -> Answer:
    """Send these bytes, and return the answer."""
    url = urlsplit(running.url)
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method=method)
        answer.begin()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, headers, answer.read())


def assert_safe(answer: Answer) -> None:
    """Check the headers that every answer must have; the page has a policy of its own."""
    headers = dict(answer.headers)
    policy = headers.pop("content-security-policy").split("; ")
    always = {name: text for name, text in guard.HEADERS.items() if name in headers}
    assert {name: headers[name] for name in always} == always
    assert len(always) == len(guard.HEADERS) - 1
    assert "cache-control" in headers
    assert "server" not in headers
    assert {"default-src 'none'", "frame-ancestors 'none'"} <= set(policy)
    is_page = headers.get("content-type", "").startswith("text/html")
    assert is_page or policy == guard.HEADERS["content-security-policy"].split("; ")


def opacities(image: Image.Image) -> tuple[int, int]:
    """Return the lowest and the highest opacity of a picture."""
    opacity = image.convert("RGBA").getchannel("A").tobytes()
    return min(opacity), max(opacity)


# Whom it answers.


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS"])
@pytest.mark.parametrize("path", ["", "filesystem", TILE, "nothing", "main.js", "a" * 400])
def test_without_the_token_all_paths_look_the_same(sample: Server, method: str, path: str) -> None:
    token = urlsplit(sample.url).path.strip("/")
    wrong = ["/", "//", f"/{token[:-1]}/", f"/{token}x/", f"/{token[:-1]}_/", f"/{token.lower()}/"]
    wrong += [f"//{token}/", f"/x/{token}/", f"/%{ord(token[0]):02x}{token[1:]}/", "/\\/", "/../"]
    expected = ask(sample, "", below="/nothing", method=method)
    assert expected.status == 404
    for below in wrong:
        answer = ask(sample, path, below=below, method=method)
        assert_safe(answer)
        assert answer._replace(headers={}) == expected._replace(headers={})
        assert answer.headers.keys() == expected.headers.keys()
    assert ask(sample, "", below=f"/{token}").status == 404


def test_tokens_differ_and_are_long() -> None:
    tokens = {guard.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:{port}.evil.com",
        "localhost.evil.com:{port}",
        "[::2]:{port}",
        "127.0.0.2:{port}",
        "",
        "127.0.0.1:{port}0",
        "127.0.0.1:{port},evil.com",
        "user@127.0.0.1:{port}",
        "127.0.0.1:0{port}",
    ],
)
def test_foreign_host(sample: Server, host: str) -> None:
    answer = ask(sample, "filesystem", {"Host": host.format(port=urlsplit(sample.url).port)})
    assert answer.status == 403
    assert_safe(answer)
    assert "label" not in answer.record


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost", "[::1]"])
def test_own_host(sample: Server, host: str) -> None:
    headers = {"Host": f"{host}:{urlsplit(sample.url).port}"}
    assert ask(sample, "filesystem", headers).status == 200
    headers["Origin"] = f"http://{headers['Host']}"
    assert ask(sample, "filesystem", headers).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "null",
        "",
        "https://{host}",
        "http://localhost:{port}",
        "http://{host}/",
        "http://127.0.0.1",
        "file://",
    ],
)
def test_foreign_origin(sample: Server, origin: str) -> None:
    host = urlsplit(sample.url).netloc
    given = origin.format(host=host, port=urlsplit(sample.url).port)
    for path in ("", "filesystem", TILE, "events"):
        answer = ask(sample, path, {"Host": host, "Origin": given})
        assert answer.status == 403
        assert_safe(answer)


def test_two_hosts_or_none(sample: Server) -> None:
    url = urlsplit(sample.url)
    for head in (f"Host: {url.netloc}\r\nHost: evil.com\r\n", ""):
        answer = send(sample, f"GET {url.path} HTTP/1.0\r\n{head}\r\n".encode())
        assert answer.status in {400, 403}
        assert_safe(answer)


@pytest.mark.parametrize(
    ("host", "port", "known", "unknown"),
    [
        ("127.0.0.1", 80, ["127.0.0.1", "127.0.0.1:80", "localhost"], ["evil.com", "127.0.0.1:81"]),
        ("disk.lan", 8000, ["disk.lan:8000", "DISK.lan:8000"], ["lan:8000", "10.0.0.1:8000"]),
        ("fe80::1", 8000, ["[fe80::1]:8000", "[::1]:8000"], ["fe80::1:8000", "[fe80::2]:8000"]),
        ("0.0.0.0", 8000, ["10.0.0.1:8000", "[fe80::1]:8000"], ["evil.com:8000", "10.0.0.1:80"]),
        ("::", 8000, ["10.0.0.1:8000", f"{socket.gethostname()}:8000"], ["10.0.0.1.evil.com:8000"]),
    ],
)
def test_names_of_a_server(host: str, port: int, known: list[str], unknown: list[str]) -> None:
    hosts = guard.Hosts(host, port)
    assert all(map(hosts.know, known))
    assert not any(map(hosts.know, unknown))
    assert hosts.know(urlsplit(hosts.url).netloc)


# What it answers to requests that are wrong.


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"])
def test_methods(sample: Server, method: str) -> None:
    for path in ("", "filesystem", TILE, "find?q=/", "events", "nothing"):
        answer = ask(sample, path, method=method)
        assert answer.status == 405
        assert answer.headers["allow"] == "GET, HEAD"
        assert_safe(answer)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "filesystem",
        TILE,
        "marks/borders/physical/hilbert/0/0/0.png",
        "legend/physical/type",
        "at/physical/hilbert/0/0/0",
        "details/virtual/snake/0/5/5",
        "find?q=subvolume+5&space=virtual&curve=linear",
        "nothing",
        "tile/a/b/c/0/0/0.png",
    ],
)
def test_head_is_get_without_the_body(sample: Server, path: str) -> None:
    got, head = (ask(sample, path, method=method) for method in ("GET", "HEAD"))
    assert got.body
    assert not head.body
    assert head.status == got.status
    told = [{**answer.headers, "date": ""} for answer in (got, head)]
    assert told[0] == told[1]
    assert int(got.headers["content-length"]) == len(got.body)
    for answer in (got, head):
        assert_safe(answer)


def test_pages_are_told_of_all_changes_that_they_missed() -> None:
    async def told() -> bytes:
        listener = Listener()
        listener.put_changed(8, {10})
        listener.put_changed(9, {20, 10})
        return await listener.next()

    assert b'{"generation": "9", "groups": ["10", "20"]}' in asyncio.run(told())


def test_head_of_the_events_ends(sample: Server) -> None:
    answer = ask(sample, "events", method="HEAD")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert_safe(answer)


@pytest.mark.parametrize(
    "path",
    [
        "../server.py",
        "..%2fserver.py",
        "%2e%2e/server.py",
        "..",
        "../",
        ".",
        "static/main.js",
        "main.js",
        "%00",
        "//etc/passwd",
        "\\..\\server.py",
        "//",
        "/",
        "filesystem/",
        "%66ilesystem",
        "filesystem%20",
        "FILESYSTEM",
        "é",
        "../../../../../../etc/passwd",
        "..%c0%afetc",
        "filesystem;x",
        "tile",
        "a" * 200,
        ":",
        "*",
    ],
)
def test_odd_paths(sample: Server, path: str) -> None:
    answer = ask(sample, path)
    assert answer.status in {400, 404}
    assert b"import" not in answer.body
    assert b"root:" not in answer.body
    assert_safe(answer)


def test_a_long_path_and_a_long_query(sample: Server) -> None:
    for path in ("a" * 300, "tile/" * 1000, f"find?q={'a' * 20000}"):
        answer = ask(sample, path)
        assert answer.status == 414
        assert_safe(answer)
    answer = ask(sample, "find?" + "&".join(f"a{number}=1" for number in range(100)))
    assert answer.status == 400
    answer = ask(sample, f"find?q={'a' * 9000}&space=physical&curve=hilbert")
    assert answer.status == 400
    assert_safe(ask(sample, "a" * 200_000))


@pytest.mark.parametrize(
    "request_line",
    [
        b"\x00",
        b"GET /\x00 HTTP/1.1",
        b"GET",
        b"GET /a b HTTP/1.1",
        b"GET / HTTP/9.9",
        b"\xff\xfe / x",
        b"GET \xc3\xa9 HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request(sample: Server, request_line: bytes) -> None:
    host = urlsplit(sample.url).netloc.encode()
    answer = send(sample, request_line + b"\r\nHost: " + host + b"\r\n\r\n")
    assert answer.status in {400, 404}
    assert_safe(answer)


HUGE = ["99", "9999999999", "9" * 40, "9" * 150, "-1", "-0", "+1", "1.0", "0x1", "1e3", "a", ""]


@pytest.mark.parametrize("number", [*HUGE, "%31", "1_0", "01234567890123"])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_numbers_in_paths(sample: Server, number: str, position: int) -> None:
    numbers = ["0", "0", "0"]
    numbers[position] = number
    place = "/".join(numbers)
    for path in (
        f"tile/physical/hilbert/type/{place}.png",
        f"marks/borders/virtual/linear/{place}.png",
        f"at/physical/snake/{place}",
        f"details/virtual/hilbert/{place}",
    ):
        # There are 256 rows and columns of pixels at zoom 0.
        inside = number == "99" and position and path.startswith(("at", "details"))
        answer = ask(sample, path)
        assert answer.status == (200 if inside else 404)
        assert_safe(answer)


@pytest.mark.parametrize("number", [*HUGE[2:-1], "9" * 21])
def test_numbers_in_queries(sample: Server, number: str) -> None:
    for path in (f"legend/physical/type?z={number}", f"events?g={number}", f"{TILE}?g={number}"):
        answer = ask(sample, path)
        assert answer.status == 400
        assert answer.record["error"].endswith("is no number")
        assert_safe(answer)


@pytest.mark.parametrize(
    "path",
    [
        "tile/x/hilbert/type/0/0/0.png",
        "tile/physical/x/type/0/0/0.png",
        "tile/virtual/snake/x/0/0/0.png",
        "tile/physical/hilbert/type/0/0/0",
        "tile/physical/hilbert/type/0/0/0.svg",
        "legend/x/type",
        "legend/physical/x",
        "legend/physical/type?z=99",
        "at/x/hilbert/0/0/0",
        "at/virtual/x/0/0/0",
        "marks/x/physical/hilbert/0/0/0.png",
        "find?q=5&space=x&curve=hilbert",
        "find?q=5",
        "find?q=5&space=virtual&curve=x",
        "details/physical/hilbert/0/256/0",
    ],
)
def test_what_there_is_not(sample: Server, path: str) -> None:
    answer = ask(sample, path)
    assert answer.status == 404
    assert answer.record.keys() == {"error", "hint"}
    assert_safe(answer)


@pytest.mark.parametrize("question", ["", "&", "=", "%00"])
def test_questions_that_are_none(sample: Server, question: str) -> None:
    answer = ask(sample, f"find?space=physical&curve=hilbert&q={question}")
    assert answer.status in {400, 404}
    assert answer.record["error"]
    assert ask(sample, f"marks/found/physical/hilbert/0/0/0.png?q={question}").status in {400, 404}


# What it answers to requests that are right.


def test_page(sample: Server) -> None:
    answer = ask(sample, "")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    html = answer.body.decode()
    told = ask(sample, "filesystem").record
    contents = contents_of(html)
    assert contents["filesystem"] == told
    sketch = contents["sketch"]
    assert (sketch["space"], sketch["curve"], sketch["colour"]) == ("physical", "hilbert", "type")
    with urlopen(sketch["url"]) as png, Image.open(png) as image:
        assert image.size == (512, 512)
    policy = answer.headers["content-security-policy"]
    may_load = {"img-src": "'self' data: blob:", "connect-src": "'self'"}
    assert_policy(policy.removesuffix("; frame-ancestors 'none'"), html, may_load)


def test_filesystem(sample: Server) -> None:
    told = ask(sample, "filesystem").record
    assert told["mounted"] is False
    assert told["size"] >= told["allocated"] >= told["used"] > 0
    assert int(told["generation"]) > 0
    assert sum(device["size"] for device in told["devices"]) == told["size"]
    assert int(told["spaces"]["physical"]["total"]) == told["size"]
    assert told["curves"] == ["hilbert", "linear", "snake"]
    assert {colour["name"] for colour in told["colours"]} >= {"type", "age", "owner"}
    for curve in told["curves"]:
        (label,) = told["labels"]["physical"][curve]
        assert 0 < label["row"] < 1
        assert 0 < label["column"] < 1
        assert told["labels"]["virtual"][curve] == []


def test_every_colour_has_a_legend_and_a_tile(sample: Server) -> None:
    told = ask(sample, "filesystem").record
    for space in told["spaces"]:
        for colour in (colour["name"] for colour in told["colours"]):
            legend = ask(sample, f"legend/{space}/{colour}?z=2").record
            assert legend["title"]
            assert 0 <= legend["read"] <= 1
            for entry in legend["entries"]:
                assert entry.keys() == {"name", "colour", "bytes", "used", "hatched"}
                assert len(entry["colour"]) == 7
            answer = ask(sample, f"tile/{space}/hilbert/{colour}/0/0/0.png")
            with Image.open(io.BytesIO(answer.body)) as image:
                assert image.size == (256, 256)


def test_what_may_be_kept(sample: Server) -> None:
    generation = ask(sample, "filesystem").record["generation"]
    kept = {
        path: ask(sample, path).headers["cache-control"] != "no-store"
        for path in (
            TILE,
            f"{TILE}?g={generation}",
            f"{TILE}?g={int(generation) + 1}",
            f"marks/borders/physical/hilbert/0/0/0.png?g={generation}",
            f"filesystem?g={generation}",
            f"at/physical/hilbert/0/0/0?g={generation}",
        )
    }
    assert list(kept.values()) == [False, True, False, True, False, False]
    answer = ask(sample, f"{TILE}?g={generation}")
    assert answer.headers["cache-control"].startswith("private, max-age=")
    assert answer.headers["x-complete"] == "1"


def test_an_incomplete_tile_is_not_kept() -> None:
    """It would be shown for a day otherwise."""
    line = SimpleNamespace(max_zoom=0)
    atlas = SimpleNamespace(
        lines={"physical": line},
        generation=7,
        fs=SimpleNamespace(mounted=False),
        on_loaded=lambda _: None,
        tile=lambda *_: Tile(b"", complete=False),
    )
    app = server.application(cast("Atlas", atlas), "token", guard.Hosts("127.0.0.1", 80))

    async def headers() -> dict[str, str]:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://127.0.0.1") as client:
            answer = await client.get("/token/tile/physical/hilbert/type/0/0/0.png?g=7")
            return dict(answer.headers)

    told = asyncio.run(headers())
    assert (told["x-complete"], told["cache-control"]) == ("0", "no-store")


def test_places_agree(sample: Server) -> None:
    found = ask(sample, "find?q=subvolume+256&space=virtual&curve=hilbert").record
    assert found["extents"] > 0
    assert len(found["strip"]) == 256
    view = found["view"]
    # Closer by, where extents are told apart: a pixel inside of that one.
    row, column = view["row"] << 2, view["column"] << 2
    place = f"virtual/hilbert/{view['z'] + 2}/{row}/{column}"
    details = ask(sample, f"details/{place}").record
    assert details["owners"]["files"]
    # Its extents are in memory now.
    shown = ask(sample, f"at/{place}").record
    assert shown == {name: details[name] if name != "group" else shown[name] for name in shown}
    assert shown["state"] == "extent"
    marks = ask(sample, "marks/found/virtual/hilbert/0/0/0.png?q=subvolume+256").body
    with Image.open(io.BytesIO(marks)) as image:
        assert opacities(image)[1] == 255


def test_many_tiles_at_once(sample: Server) -> None:
    paths = [f"tile/physical/hilbert/owner/3/{i // 8}/{i % 8}.png" for i in range(50)]
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda path: ask(sample, path), paths))
    assert {answer.status for answer in answers} == {200}
    assert all(answer.body.startswith(b"\x89PNG") for answer in answers)


def test_abandoned_requests_do_no_harm(sample: Server) -> None:
    url = urlsplit(sample.url)
    for i in range(100):
        with socket.create_connection((url.hostname, url.port)) as connection:
            path = f"{url.path}tile/virtual/hilbert/age/4/{i % 16}/{i // 16}.png"
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
    assert ask(sample, TILE).status == 200


# Names of all kinds.


@pytest.fixture(scope="module")
def odd(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[support.LoopFilesystem, Server]]:
    """A mounted filesystem with odd names and an odd label, and a server of it."""
    folder = tmp_path_factory.mktemp("odd")
    with support.filesystem(folder, size="512M", label="</title><b>&'\"") as fs:
        for name in NAMES:
            (fs.mountpoint / Path(name.decode(errors="surrogateescape"))).write_bytes(b"x" * 65536)
        fs.sync()
        with served(fs.mountpoint) as running:
            yield fs, running


@pytest.mark.parametrize("name", NAMES)
def test_names(odd: tuple[support.LoopFilesystem, Server], name: bytes) -> None:
    _, running = odd
    for written in (quote(name), quote(printable(name))):
        answer = ask(running, f"find?q=/{written}&space=physical&curve=hilbert")
        assert answer.status == 200, answer.body
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.body.isascii()
        found = answer.record
        assert found["bytes"] == 65536
        assert found["title"] == f"/{printable(name)}"
    view = found["view"]
    place = f"physical/hilbert/{view['z']}/{view['row']}/{view['column']}"
    (owner,) = ask(running, f"details/{place}").record["owners"]["files"]
    assert owner["path"].strip("/") == printable(name)
    missing = ask(running, f"find?q=/x{quote(name)}&space=physical&curve=hilbert")
    assert missing.status == 404
    assert missing.record["error"]
    assert missing.body.isascii()


def test_label(odd: tuple[support.LoopFilesystem, Server]) -> None:
    _, running = odd
    assert ask(running, "filesystem").record["label"] == "</title><b>&'\""


def test_changes_are_told(odd: tuple[support.LoopFilesystem, Server]) -> None:
    fs, running = odd
    before = ask(running, "filesystem").record["generation"]
    url = urlsplit(running.url)
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        head = f"GET {url.path}events?g={before} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n"
        connection.sendall(head.encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert answer.getheader("cache-control") == "no-store"
        # Of what was read before it listened.
        assert answer.readline() == b"event: loaded\n"
        (fs.mountpoint / "new").write_bytes(b"new" * 100_000)
        fs.sync()
        while (line := answer.readline()) != b"event: changed\n":
            assert line
        changed = json.loads(answer.readline().removeprefix(b"data: "))
    assert int(changed["generation"]) > int(before)
    assert changed["groups"]
    told = ask(running, "filesystem").record
    assert int(told["generation"]) >= int(changed["generation"])
    mark = f"marks/changed/virtual/hilbert/0/0/0.png?g={changed['generation']}"
    with Image.open(io.BytesIO(ask(running, mark).body)) as image:
        assert opacities(image)[1] > 0
    with Image.open(io.BytesIO(ask(running, mark.partition("=")[0] + "=1").body)) as image:
        assert opacities(image) == (0, 0)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (b"plain name", "plain name"),
        ("Überraschung ☃".encode(), "Überraschung ☃"),
        (b"a\xffb\xc3", r"a\xffb\xc3"),
        (b"\t\r\n\0\x1b[31m", r"\t\r\n\x00\x1b[31m"),
        ("\u202egnp.exe".encode(), r"\xe2\x80\xaegnp.exe"),
        (b"<script>'\"&\\", "<script>'\"&\\"),
        (b"", ""),
        (b"\xed\xa0\x80", r"\xed\xa0\x80"),
    ],
)
def test_printable(name: bytes, text: str) -> None:
    assert printable(name) == text
    assert printable(name).isprintable()


# Lanes and listeners.


def test_a_full_lane_refuses() -> None:
    async def scenario() -> None:
        pool, go_on = WorkerPool(threads=1, limit=3), threading.Event()
        waiting = [asyncio.ensure_future(pool.run(go_on.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await pool.run(go_on.wait)
        go_on.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert await pool.run(lambda: 7) == 7

    asyncio.run(scenario())


def test_who_leaves_a_lane_is_not_worked_for() -> None:
    async def scenario() -> None:
        pool, go_on, done = WorkerPool(threads=1, limit=3), threading.Event(), list[str]()

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        first = asyncio.ensure_future(pool.run(go_on.wait))
        await asyncio.sleep(0)
        with pytest.raises(ClientDisconnectedError):
            await pool.run(lambda: done.append("left"), receive)
        go_on.set()
        await first
        await pool.run(lambda: done.append("stayed"))
        assert done == ["stayed"]

    asyncio.run(scenario())


def test_a_lane_passes_on_what_goes_wrong() -> None:
    pool = WorkerPool(threads=1, limit=1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(pool.run(lambda: 1 // 0))


class FakeAtlas:
    """A map that changes when it is told to."""

    def __init__(self) -> None:
        self.fs = SimpleNamespace(mounted=True)
        self.generation = 7
        self.coming: list[Changes | OSError] = []
        self.refreshes = 0
        self.tell: Callable[[], None] = lambda: None

    def on_loaded(self, listener: Callable[[], None]) -> None:
        """Remember whom to tell."""
        self.tell = listener

    def refresh(self) -> Changes | None:
        """Return what comes next, if anything does."""
        self.refreshes += 1
        if not self.coming:
            return None
        change = self.coming.pop(0)
        if isinstance(change, OSError):
            raise change
        self.generation = change.generation
        return change


@pytest.fixture
def atlas(monkeypatch: pytest.MonkeyPatch) -> FakeAtlas:
    """A map that is looked at again as soon as possible."""
    monkeypatch.setattr("btrfs_atlas.explorer.web.live._POLL_SECONDS", 0.01)
    monkeypatch.setattr("btrfs_atlas.explorer.web.live._GATHER_SECONDS", 0.05)
    return FakeAtlas()


def live_of(atlas: Any) -> Live:
    return Live(atlas)


def test_every_listener_hears_of_changes(atlas: FakeAtlas) -> None:
    async def scenario() -> None:
        live = live_of(atlas)
        with live.listener(None) as first, live.listener(None) as second:
            atlas.coming = [Changes(8, [4096, 1024])]
            for listener in (first, second):
                event = await listener.next()
                assert json.loads(event.removeprefix(b"event: changed\ndata: ")) == {
                    "generation": "8",
                    "groups": ["1024", "4096"],
                }
        assert live.changed_groups(7, 8) == [1024, 4096]
        assert live.changed_groups(8, 9) == []

    asyncio.run(scenario())


def test_what_changed_in_several_generations_can_be_shown(atlas: FakeAtlas) -> None:
    async def scenario() -> None:
        live = live_of(atlas)
        atlas.coming = [Changes(8, [4096]), Changes(9, [1024, 4096]), Changes(10, [8192])]
        with live.listener(None) as listener:
            while atlas.generation < 10:
                await listener.next()
        assert live.changed_groups(7, 9) == [1024, 4096]
        assert live.changed_groups(8, 10) == [1024, 4096, 8192]
        assert live.changed_groups(10, 10) == []

    asyncio.run(scenario())


def test_a_slow_listener_hears_once(atlas: FakeAtlas) -> None:
    async def scenario() -> None:
        with live_of(atlas).listener(None) as listener:
            atlas.coming = [Changes(8, [1]), OSError(5, "for a moment"), Changes(9, [1, 2])]
            while atlas.coming:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            event = await listener.next()
            assert event == b'event: changed\ndata: {"generation": "9", "groups": ["1", "2"]}\n\n'

    asyncio.run(scenario())


def test_nobody_listens_nobody_looks(atlas: FakeAtlas) -> None:
    async def scenario() -> None:
        live = live_of(atlas)
        await asyncio.sleep(0.05)
        assert atlas.refreshes == 0
        with live.listener(None):
            await asyncio.sleep(0.05)
            assert atlas.refreshes > 0
        await asyncio.sleep(0.03)
        looked = atlas.refreshes
        await asyncio.sleep(0.05)
        assert atlas.refreshes == looked

    asyncio.run(scenario())


def test_who_comes_late_is_told_at_once(atlas: FakeAtlas) -> None:
    async def scenario() -> None:
        live = live_of(atlas)
        with live.listener(5) as late, live.listener(7) as current:
            event = await asyncio.wait_for(late.next(), 1)
            assert event == b'event: changed\ndata: {"generation": "7", "groups": []}\n\n'
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(current.next(), 0.1)

    asyncio.run(scenario())


def test_a_sign_of_life(atlas: FakeAtlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btrfs_atlas.explorer.web.live._KEEP_ALIVE_SECONDS", 0.05)

    async def scenario() -> None:
        with live_of(atlas).listener(None) as listener:
            assert await listener.next() == b": still here\n\n"

    asyncio.run(scenario())


def test_what_was_read_is_told_now_and_then(atlas: FakeAtlas) -> None:
    async def scenario() -> None:
        with live_of(atlas).listener(None) as listener:
            begin = time.monotonic()
            for _ in range(100):
                await asyncio.to_thread(atlas.tell)
            assert await listener.next() == b"event: loaded\ndata: {}\n\n"
            assert time.monotonic() - begin >= 0.05

    asyncio.run(scenario())
    # The loop has ended, but block groups may still be read.
    atlas.tell()


def test_too_many_listeners(sample: Server) -> None:
    url = urlsplit(sample.url)
    request = f"GET {url.path}events HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode()
    connections = []
    try:
        for _ in range(MAX_LISTENERS):
            connection = socket.create_connection((url.hostname, url.port), timeout=10)
            connections.append(connection)
            connection.sendall(request)
            assert connection.recv(64).startswith(b"HTTP/1.1 200")
        answer = ask(sample, "events")
        assert answer.status == 503
        assert answer.headers["retry-after"] == "1"
        assert_safe(answer)
        assert ask(sample, TILE).status == 200
    finally:
        for connection in connections:
            connection.close()
    end = time.monotonic() + 5
    while time.monotonic() < end:
        with socket.create_connection((url.hostname, url.port), timeout=10) as connection:
            connection.sendall(request)
            if connection.recv(64).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.05)
    pytest.fail("those who left still count")


# Faults.


def call(app: Any, path: str) -> tuple[int, bytes]:
    """Ask an application itself; return status and body."""
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1:80")],
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_a_fault_is_not_told_to_whoever_asks(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeAtlas):
        @property
        def lines(self) -> dict[str, object]:
            raise RuntimeError("a secret: /root/names")

    app = server.application(cast("Atlas", Broken()), "token", guard.Hosts("127.0.0.1", 80))
    status, body = call(app, "/token/filesystem")
    assert status == 500
    assert b"secret" not in body
    assert b"Traceback" not in body
    assert json.loads(body)["error"]
    assert "a secret" in caplog.text
