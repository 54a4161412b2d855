"""The program btrfs-atlas serve: how it begins and ends, and what it says when it cannot."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from btrfs_atlas import cli
from tests import support
from tests.support import programs
from tests.support.programs import SAMPLE

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "serve")

SOON = 3.0
"""Seconds: it takes 0.2, but not on a machine that is busy with other tests."""


@contextlib.contextmanager
def serving(
    *words: str | Path, env: dict[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the program; yield it and the URL that it prints, and end it."""
    with subprocess.Popen(
        [*PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> tuple[float, str, str]:
    """Press Ctrl-C; return after how many seconds it ended, and what it still said."""
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    return time.monotonic() - begin, out, err


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so, but not for ever."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def refuse(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run the program in this process, which must fail as it should; return what it says."""
    code = programs.run_here(cli.main, "serve", *words)
    told = capsys.readouterr()
    assert code == 1
    assert told.out == ""
    return programs.assert_one_line(told.err)


def test_it_prints_the_url_and_nothing_else() -> None:
    with serving(SAMPLE) as (process, url):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32,}/", url)
        with urlopen(url) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read()
        _, out, err = interrupt(process)
    assert process.returncode == 130
    assert out == ""
    assert err == "Press Ctrl-C to stop\n"


def test_ctrl_c_ends_it_while_pages_are_open() -> None:
    with serving(SAMPLE) as (process, url):
        parts = urlsplit(url)
        with contextlib.ExitStack() as stack:
            for path in ("events", "events", "tile/physical/hilbert/owner/9/99/99.png"):
                address = (parts.hostname, parts.port)
                connection = stack.enter_context(socket.create_connection(address))
                head = f"GET {parts.path}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
                connection.sendall(head.encode())
                assert select.select([connection], [], [], 10)[0]
            # One that is open and asks for nothing.
            stack.enter_context(socket.create_connection(address))
            seconds, out, err = interrupt(process)
    assert process.returncode == 130
    assert seconds < SOON
    assert out == ""
    assert err == "Press Ctrl-C to stop\n"


def test_ctrl_c_does_not_wait_for_a_search(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "sitecustomize.py").write_text(
        "import pathlib, time\n"
        "from btrfs_atlas.explorer.search import find\n"
        f"find.find = lambda *_: (pathlib.Path({os.fspath(begun)!r}).touch(), time.sleep(60))\n"
    )
    with serving(SAMPLE, env={"PYTHONPATH": os.fspath(tmp_path)}) as (process, url):
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port)) as connection:
            path = f"{parts.path}find?q=5&space=virtual&curve=hilbert"
            head = f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n"
            connection.sendall(head.encode())
            wait_for(begun.exists)
            seconds, _, err = interrupt(process)
    assert process.returncode == 130
    assert seconds < SOON
    assert err == "Press Ctrl-C to stop\n"


def test_ctrl_c_before_there_is_a_url() -> None:
    with subprocess.Popen(
        [*PROGRAM, SAMPLE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            # Python itself is up by now, while numpy is still to come.
            time.sleep(0.35)
            seconds, _, err = interrupt(process)
        finally:
            process.kill()
    assert process.returncode == 130
    assert seconds < SOON
    assert "Traceback" not in err


def test_a_port_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = refuse(capsys, SAMPLE, "--port", str(port))
        assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in told
    with serving(SAMPLE, "--port", str(port)) as (_, url):
        assert urlsplit(url).port == port


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_loopback_is_no_matter_for_a_warning(host: str) -> None:
    with serving(SAMPLE, "--host", host) as (process, url):
        assert urlsplit(url).hostname == host
        with urlopen(url + "filesystem") as answer:
            assert answer.status == 200
        assert interrupt(process)[2] == "Press Ctrl-C to stop\n"


def test_a_warning_if_others_can_reach_it() -> None:
    with serving(SAMPLE, "--host", "0.0.0.0") as (process, url):
        assert urlsplit(url).hostname == socket.gethostname().lower()
        with urlopen(f"http://127.0.0.1:{urlsplit(url).port}{urlsplit(url).path}") as answer:
            assert answer.status == 200
        warning, rest = interrupt(process)[2].splitlines()
    assert warning.startswith("Warning: this can be reached from other machines")
    assert rest == "Press Ctrl-C to stop"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([SAMPLE, "--host", "192.0.2.1"], "cannot listen on 192.0.2.1 port 0: Cannot assign"),
        ([SAMPLE, "--host", "no such host"], "cannot listen on no such host port 0"),
        ([SAMPLE, "--host", "a" * 80], "cannot listen on a"),
        ([SAMPLE, "--port", "65536"], "port 65536 out of range"),
        ([SAMPLE, "--port", "-1"], "port -1 out of range"),
        ([SAMPLE, "--port", "http"], "invalid int value: 'http'"),
        ([SAMPLE, "--memory", "much"], "'much' is no size"),
        ([SAMPLE, "--memory", "1k"], "1000 bytes are too little memory"),
        (["/nonexistent"], "/nonexistent: No such file or directory"),
        ([""], "the name of the TARGET is empty"),
        ([__file__, "--source", "unmounted"], "test_cli_serve.py"),
        ([], "the following arguments are required: TARGET"),
    ],
)
def test_complaints(
    capsys: pytest.CaptureFixture[str], words: list[str | Path], complaint: str
) -> None:
    assert complaint in refuse(capsys, *words)


def test_a_mounted_filesystem_needs_root(mounted: support.LoopFilesystem) -> None:
    done = subprocess.run(
        [*support.UNPRIVILEGED, *PROGRAM, mounted.mountpoint],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "root rights" in programs.assert_one_line(done.stderr)
    assert str(mounted.mountpoint) in done.stderr


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(
        "btrfs_atlas.commands.serve.find_spec", lambda name: None if name == package else name
    )
    told = refuse(capsys, SAMPLE)
    assert told.endswith("Hint: pip install 'btrfs-atlas[explorer]'\n")


def test_open(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n')
    browser.chmod(0o755)
    with serving(SAMPLE, "--open", env={"BROWSER": f"{browser} %s &"}) as (_, url):
        wait_for(lambda: seen.exists() and seen.read_text().endswith("\n"))
        assert seen.read_text().strip() == url
    with serving(SAMPLE, "--open", env={"BROWSER": "/nonexistent", "PATH": ""}) as (process, url):
        assert urlopen(url).status == 200
        assert process.stderr is not None
        assert process.stderr.readline() == "Press Ctrl-C to stop\n"
        assert process.stderr.readline() == "No browser could be opened: open the URL yourself\n"


def test_standard_output_is_closed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, SAMPLE], stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""
