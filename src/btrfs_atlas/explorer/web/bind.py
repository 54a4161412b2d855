"""From a host and a port to a socket that listens."""

from __future__ import annotations

import socket

from btrfs.errors import BtrfsError

_BACKLOG = 128


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; clients that connect wait until the server runs.

    Args:
        host: A name or an address.
        port: 0 for any that is free.

    Raises:
        BtrfsError: That is not possible.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # Not to wait for what is left of connections to a server that has ended.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "this is no name of a host"
        raise BtrfsError(
            f"cannot listen on {host} port {port}: {reason}",
            hint="choose another --port, or none for any that is free; --host is a name or address"
            " of this machine",
        ) from None
    return listener
