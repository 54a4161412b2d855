"""Who may ask, and what: everything that is checked before a request is looked at.

The program may run as root, and it shows names of files. Any user of the machine can connect to its
port, and any page in the user's browser can send it requests. So

- every path begins with a token that only the URL contains that was printed; it is the right to
  ask, and without it all paths look the same;
- Host must be one of the names that the server is known by, and Origin, where a browser sends one,
  that host: a page of another site whose name was made to lead here (DNS rebinding) has another;
- there is only GET and HEAD, for nothing here changes anything;
- a path consists of plain letters, digits, dots and slashes, and is short. Whatever is odd
  (escapes, backslashes, null bytes) is refused, so no other module has to think of it.

Every answer, also a refusal, says that no other site may frame, load or read it, and that the page
may run no script but those that come from here.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_PATH = 256
"""Characters of a path, token included."""
MAX_QUERY = 1 << 14
"""Characters of a query string: a path of 4096 bytes has three times as many when escaped."""

HEADERS = {
    "content-security-policy": "; ".join(
        (
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), display-capture=(), geolocation=(), microphone=(),"
    " payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What every answer has in its head; besides, ``cache-control: no-store`` unless it says more."""

_METHODS = ("GET", "HEAD")
_ORDINARY_PATH = re.compile(rb"/[A-Za-z0-9._/-]*")

_Headers = list[tuple[bytes, bytes]]
_ALWAYS: _Headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

_logger = logging.getLogger(__name__)


def new_token() -> str:
    """Return a token that cannot be guessed: 192 random bits as text for a URL."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names that a server is known by.

    Attributes:
        host: What it was told to listen on, a name or an address without brackets.
        port: The port that it listens on.
    """

    host: str
    port: int

    @property
    def url(self) -> str:
        """The URL of the server, without a slash at its end."""
        host = socket.gethostname() if self._is_any else self.host
        return f"http://{_bracketed(host)}:{self.port}"

    def know(self, authority: str) -> bool:
        """Return whether a Host header means this server."""
        host, colon, port = _split(authority.lower())
        if port != str(self.port) and (colon or self.port != 80):
            return False
        if host in {"127.0.0.1", "localhost", "[::1]", _bracketed(self.host).lower()}:
            return True
        # Listening everywhere, it has more addresses than can be told. A rebound name is a name.
        return self._is_any and (_is_address(host) or host == socket.gethostname().lower())

    @property
    def _is_any(self) -> bool:
        return self.host in {"0.0.0.0", "::", ""}


class Guard:
    """ASGI middleware: lets through what passes all checks, without the token in its path.

    Args:
        app: What is guarded.
        token: The first segment of every path.
        hosts: The names that the server is known by.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Hosts) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            raise ValueError(f"no answer to {scope['type']}")
        answer = _Answer(send, is_head=scope["method"] == "HEAD")
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        refusal = self._refusal(scope, raw_path)
        if refusal is not None:
            await answer.refuse(refusal)
            return
        path = raw_path[len(self._token) + 1 :]
        inside = {**scope, "path": path.decode(), "raw_path": path, "root_path": ""}
        try:
            await self._app(inside, receive, answer.send)
        except Exception:
            # The fault is logged on the server; the client is told no more than that.
            _logger.exception("a fault while answering a request")
            if answer.started:
                raise
            await answer.refuse(_FAULT)

    def _refusal(self, scope: Scope, raw_path: bytes) -> _Refusal | None:
        """Return why a request is refused, if it is."""
        headers: _Headers = scope["headers"]
        if not self._from_here(headers):
            return _FOREIGN
        if not self._has_token(raw_path):
            return _UNKNOWN
        if scope["method"] not in _METHODS:
            return _READ_ONLY
        if len(raw_path) > MAX_PATH or len(scope["query_string"]) > MAX_QUERY:
            return _TOO_LONG
        if not _ORDINARY_PATH.fullmatch(raw_path):
            return _UNKNOWN
        return None

    def _from_here(self, headers: _Headers) -> bool:
        """Return whether a browser that sent this did so for a page of this server, or a user."""
        hosts, origins = (
            [value.decode("latin-1") for name, value in headers if name == wanted]
            for wanted in (b"host", b"origin")
        )
        if len(hosts) != 1 or not self._hosts.know(hosts[0]):
            return False
        return origins in ([], [f"http://{hosts[0]}"])

    def _has_token(self, raw_path: bytes) -> bool:
        given, slash, _ = raw_path.removeprefix(b"/").partition(b"/")
        # In a time that tells nothing about how much of it is right.
        is_right = hmac.compare_digest(given, self._token)
        return is_right and bool(slash)


def with_headers(headers: Sequence[tuple[bytes, bytes]]) -> _Headers:
    """Return the headers of an answer with those that every answer has."""
    given = {name.lower() for name, _ in headers}
    kept = [] if b"cache-control" in given else [(b"cache-control", b"no-store")]
    return [*headers, *kept, *((name, value) for name, value in _ALWAYS if name not in given)]


class _Refusal(NamedTuple):
    status: int
    error: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_FOREIGN = _Refusal(403, "this server answers only to its own pages")
_UNKNOWN = _Refusal(404, "there is no such thing")
_READ_ONLY = _Refusal(
    405, "there is only GET and HEAD", ((b"allow", ", ".join(_METHODS).encode()),)
)
_TOO_LONG = _Refusal(414, "this request is too long")
_FAULT = _Refusal(500, "something went wrong in the server; its terminal tells more")


class _Answer:
    """Sends an answer, with the headers that every answer has; to HEAD only its head."""

    def __init__(self, send: Send, *, is_head: bool) -> None:
        self.started = False
        self._send = send
        self._is_head = is_head

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message = {**message, "headers": with_headers(message.get("headers", []))}
        elif self._is_head:
            message = {**message, "body": b""}
        await self._send(message)

    async def refuse(self, refusal: _Refusal) -> None:
        body = json.dumps({"error": refusal.error, "hint": None}).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            *refusal.headers,
        ]
        start = {"type": "http.response.start", "status": refusal.status, "headers": headers}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})


def _bracketed(host: str) -> str:
    """Return a host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def _split(authority: str) -> tuple[str, str, str]:
    """Return the host of an authority, in brackets if it has them, the colon, and the port."""
    host, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        return authority, "", ""
    return host, colon, port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
