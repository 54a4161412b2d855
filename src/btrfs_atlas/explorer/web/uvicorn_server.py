"""Serving an application with uvicorn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import Server

from btrfs_atlas.explorer.web.guard import with_headers

if TYPE_CHECKING:
    from socket import socket

    from starlette.types import ASGIApp


def run(app: ASGIApp, listener: socket) -> None:
    """Serve an application until a signal ends it; of Ctrl-C, that is KeyboardInterrupt.

    Args:
        app: The application.
        listener: A socket that listens.
    """
    config = Config(
        app,
        loop="asyncio",
        http=_Protocol,
        ws="none",
        lifespan="off",
        # Only the guard logs, and faults alone: URLs contain the token.
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # A stream of events never comes to its end.
        timeout_graceful_shutdown=0,
    )
    Server(config).run(sockets=[listener])


class _Protocol(H11Protocol):
    """Answers what is no request of HTTP with the same headers as everything else."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be understood; why is nothing to be told."""
        del msg
        if self.conn.our_state is h11.IDLE:
            head = with_headers([(b"content-length", b"0"), (b"connection", b"close")])
            answer = h11.Response(status_code=400, headers=head, reason=b"Bad Request")
            self.transport.write(self.conn.send(answer) or b"")
        self.transport.close()
