"""btrfs-atlas serve: a map of a filesystem to walk through, in a browser."""

from __future__ import annotations

import argparse
import gc
import ipaddress
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from btrfs.errors import BtrfsError
from btrfs_atlas.arguments import size
from btrfs_atlas.targets import add_source_arguments, named, require_names, source_options

if TYPE_CHECKING:
    from socket import socket

    from btrfs_atlas.explorer.atlas import Atlas

DESCRIPTION = """\
Show a map of a btrfs filesystem in a browser: what lies where, how old it is, and whose it is, from
all devices at once down to a single sector. It prints a URL, and serves the map there until Ctrl-C
is pressed. A TARGET is a folder on a mounted filesystem, a block device, or an image file, be it a
copy of a device or a dump made by btrfs-image; several TARGETs are members of one filesystem. The
map of a mounted filesystem follows its changes. Nothing is ever written. The URL contains a secret:
only users who have it can see the map, and with it the names of files, and by default only on this
machine."""

_DEFAULT_MEMORY = "1GiB"
_LEAST_MEMORY = 16 << 20
_MAX_PORT = (1 << 16) - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="what to show")
    parser.add_argument("--open", action="store_true", help="open the URL in a browser")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on (default: any that is free)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="name or address to listen on (default: 127.0.0.1, for this machine alone)",
    )
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        type=size,
        default=_DEFAULT_MEMORY,
        help="how much memory to use for extents (default: 1GiB); where there are more, those that"
        " were looked at last are kept",
    )
    add_source_arguments(parser.add_argument_group("how to read it"))


def run(args: argparse.Namespace) -> None:
    """Serve the map until it is interrupted."""
    _check(args)
    from btrfs_atlas.explorer.web import guard
    from btrfs_atlas.explorer.web.bind import bind

    with bind(args.host, args.port) as sock:
        atlas = _atlas(args)
        token = guard.new_token()
        hosts = guard.Hosts(args.host, sock.getsockname()[1])
        _tell(f"{hosts.url}/{token}/", args, sock)
        # The browser starts meanwhile: who connects waits until the server runs.
        from btrfs_atlas.explorer.web import uvicorn_server
        from btrfs_atlas.explorer.web.server import application

        app = application(atlas, token, hosts)
        # A server runs for long: here the collector of garbage has something to do.
        gc.freeze()
        gc.enable()
        # Nothing is closed at the end: threads may still be reading, and Ctrl-C does not wait.
        uvicorn_server.run(app, sock)


def _atlas(args: argparse.Namespace) -> Atlas:
    """Open the filesystem."""
    from btrfs_atlas.explorer.atlas import Atlas

    with named(args.targets):
        return Atlas(args.targets, memory=args.memory, **source_options(args))


def _check(args: argparse.Namespace) -> None:
    """Find out before the work whether there is what it takes."""
    if not all(find_spec(name) for name in ("starlette", "uvicorn")):
        raise BtrfsError(
            "the server needs the packages starlette and uvicorn",
            hint="pip install 'btrfs-atlas[explorer]'",
        )
    require_names(args.targets)
    if not 0 <= args.port <= _MAX_PORT:
        raise BtrfsError(f"port {args.port} out of range", hint=f"--port takes 0 to {_MAX_PORT}")
    if args.memory < _LEAST_MEMORY:
        raise BtrfsError(
            f"{args.memory} bytes are too little memory", hint="--memory takes 16MiB or more"
        )


def _tell(url: str, args: argparse.Namespace, sock: socket) -> None:
    """Say where the map is, and open it if that is wanted."""
    print(url, flush=True)
    if not ipaddress.ip_address(sock.getsockname()[0]).is_loopback:
        print(
            "Warning: this can be reached from other machines; the URL goes over the network as"
            " plain text, and all who learn it can read the names of files",
            file=sys.stderr,
        )
    print("Press Ctrl-C to stop", file=sys.stderr, flush=True)
    if args.open:
        _open(url)


def _open(url: str) -> None:
    import webbrowser
    from threading import Thread

    def show() -> None:
        if not webbrowser.open(url):
            print("No browser could be opened: open the URL yourself", file=sys.stderr)

    # The server must run meanwhile: some browsers are waited for.
    Thread(target=show, daemon=True).start()
