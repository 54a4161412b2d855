"""The ioctls of balance: what is asked of the kernel, and what its answers become."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import btrfs
from btrfs import ctree, ioctl
from btrfs.ioctl import BalanceArgs, BalanceError, BalanceProgress
from tests import support

ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"profiles": 48},
    {"profiles": 1 << 48 | 16},
    {"profiles": 17},
    {"profiles": 0},
    {"usage_min": 5},
    {"usage_max": 0},
    {"usage_min": 0, "usage_max": 50},
    {"devid": 1},
    {"pstart": 1},
    {"pend": 7},
    {"devid": 0, "pstart": 1},
    {"devid": 1, "pstart": 1, "pend": 2},
    {"vstart": 0},
    {"vend": 10},
    {"target": 16},
    {"target": 1 << 48, "soft": True},
    {"target": 0},
    {"soft": True},
    {"limit_min": 1},
    {"limit_max": 2},
    {"limit_min": 0, "limit_max": 2},
    {"stripes_min": 3},
    {"stripes_max": 9},
    dict(zip(("profiles", "usage_min", "usage_max", "devid"), range(1, 5), strict=True)),
]
ALL = tuple(range(1, 14))
"""The thirteen numbers of BalanceArgs, all given and all different."""

DESCRIBE = """
import contextlib, io, json
from btrfs import utils
from btrfs.ioctl import BalanceArgs, BalanceError, BalanceProgress

NAMES = ("flags profiles usage_min usage_max devid pstart pend vstart vend target soft limit_min "
         "limit_max stripes_min stripes_max flags_str profiles_str target_str state expected "
         "considered completed state_str").split()

def describe(thing):
    attributes = {name: getattr(thing, name) for name in NAMES if hasattr(thing, name)}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        utils.pretty_print(thing)
        utils.str_print(thing)
    return [repr(thing), str(thing), repr(eval(repr(thing))), printed.getvalue(), attributes]

things = [BalanceArgs(**keywords) for keywords in json.loads(args[0])]
things += [BalanceArgs(*range(1, 14), True)]
things += [BalanceProgress(state, 2, 3, 4) for state in range(10)]
answer = [describe(thing) for thing in things]
"""

ASK_THE_KERNEL = """
import errno, fcntl, json, os, struct

asked = []
reply = {"error": 0, "state": 0}

def kernel(fd, request, argument=0, mutate=True):
    asked.append([fd, request, argument if isinstance(argument, int) else bytes(argument).hex()])
    if isinstance(argument, bytearray):
        struct.pack_into("<Q", argument, 8, reply["state"])
        struct.pack_into("<QQQ", argument, 424, 11, 22, 33)
    if reply["error"]:
        raise OSError(reply["error"], os.strerror(reply["error"]))
    return 0

ordinary = fcntl.ioctl
fcntl.ioctl = kernel
from btrfs import ioctl
from btrfs.ioctl import BalanceArgs

calls = {
    "nothing": lambda: ioctl.balance_v2(7),
    "force": lambda: ioctl.balance_v2(7, BalanceArgs(), force=True),
    "types": lambda: ioctl.balance_v2(7, BalanceArgs(limit_max=3), BalanceArgs(vend=4),
                                      BalanceArgs(*range(1, 14), True)),
    "meta": lambda: ioctl.balance_v2(7, meta_args=BalanceArgs(usage_min=3)),
    "resume": lambda: ioctl.balance_v2(7, BalanceArgs(), force=True, resume=True),
    "progress": lambda: ioctl.balance_progress(7),
    "pause": lambda: ioctl.balance_ctl(7, ioctl.BALANCE_CTL_PAUSE),
    "cancel": lambda: ioctl.balance_ctl(7, ioctl.BALANCE_CTL_CANCEL),
}
answer = []
try:
    for error, state in json.loads(args[0]):
        reply.update(error=error, state=state)
        for name, call in calls.items():
            asked.clear()
            try:
                result = repr(call())
            except ioctl.BalanceError as failed:
                result = [failed.state, failed.msg, str(failed), failed.errno, failed.args]
            answer.append([name, error, state, result, list(asked)])
finally:
    fcntl.ioctl = ordinary
"""


def dumps(value: object) -> str:
    import json

    return json.dumps(value)


def test_objects_are_like_python_btrfs() -> None:
    ours = support.oracle.ask_us(DESCRIBE, dumps(ARGUMENTS))
    for mine, theirs in zip(ours, support.oracle.ask(DESCRIBE, dumps(ARGUMENTS)), strict=True):
        assert mine == theirs


ERRORS = [
    (0, 0),
    (0, ioctl.BALANCE_STATE_RUNNING),
    *((number, 0) for number in (errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.ETXTBSY)),
    *((number, 0) for number in (errno.EROFS, errno.ENOTTY, errno.ENOTCONN, errno.EINPROGRESS)),
    *((errno.ECANCELED, state) for state in (2, 3, 4, 5, 6)),
    (errno.EIO, ioctl.BALANCE_STATE_RUNNING),
]


def test_calls_are_like_python_btrfs() -> None:
    """The same bytes go to the kernel, and the same errors come of what it answers."""
    ours = support.oracle.ask_us(ASK_THE_KERNEL, dumps(ERRORS))
    for mine, theirs in zip(ours, support.oracle.ask(ASK_THE_KERNEL, dumps(ERRORS)), strict=True):
        assert mine == theirs


def test_kernels_that_say_it_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where python-btrfs raises UnboundLocalError, or takes a refusal for a success."""

    def cancelled(*_: object) -> int:
        raise OSError(errno.ECANCELED, "cancelled")

    monkeypatch.setattr(fcntl, "ioctl", cancelled)
    with pytest.raises(BalanceError, match="ECANCELED, state none") as raised:
        ioctl.balance_v2(7, BalanceArgs())
    assert raised.value.errno == errno.ECANCELED
    with pytest.raises(BalanceError, match="command 9"):
        ioctl.balance_ctl(7, 9)

    monkeypatch.setattr(fcntl, "ioctl", lambda *_: 8)
    with pytest.raises(BalanceError, match="Already in progress") as raised:
        ioctl.balance_v2(7, BalanceArgs())
    assert raised.value.errno == errno.EINPROGRESS


def test_an_error_that_the_kernel_did_not_cause() -> None:
    error = BalanceError(3, "why", hint="what to do")
    assert (error.errno, error.state, error.args, str(error)) == (None, 3, (3, "why"), "why")
    assert isinstance(error, btrfs.BtrfsError)
    assert error.hint == "what to do"


@pytest.mark.parametrize(
    "arguments", [{"vend": 1 << 64}, {"usage_max": -1}, {"limit_max": 1 << 32}]
)
def test_numbers_that_do_not_fit(arguments: dict[str, Any]) -> None:
    with pytest.raises(struct.error):
        ioctl.balance_v2(-1, BalanceArgs(**arguments))


# On a real filesystem.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem with some data, of which nothing is asked but to be balanced."""
    folder = tmp_path_factory.mktemp("balance")
    with support.filesystem(folder, size="2G", data="single", metadata="dup") as fs:
        (fs.mountpoint / "data").write_bytes(os.urandom(48 << 20))
        fs.sync()
        yield fs


@pytest.fixture
def fd(made: support.LoopFilesystem) -> Iterator[int]:
    opened = os.open(made.mountpoint, os.O_RDONLY)
    yield opened
    os.close(opened)


def data_groups(fd: int) -> list[ctree.BlockGroupItem]:
    with btrfs.FileSystem(f"/proc/self/fd/{fd}") as fs:
        fs.sync()
        return [group for group in fs.block_groups() if group.flags & btrfs.BLOCK_GROUP_DATA]


def test_balance_moves_what_it_is_told_to(fd: int) -> None:
    before = data_groups(fd)
    chosen = max(before, key=lambda group: group.used)
    done = ioctl.balance_v2(fd, BalanceArgs(vstart=chosen.vaddr, vend=chosen.vaddr + 1))
    assert (done.state, done.expected, done.completed) == (0, 1, 1)
    assert done.considered >= len(before)
    after = data_groups(fd)
    assert chosen.vaddr not in {group.vaddr for group in after}
    assert sum(group.used for group in after) == sum(group.used for group in before)


def test_what_the_kernel_refuses(fd: int) -> None:
    nothing = BalanceArgs(usage_max=0)
    with pytest.raises(BalanceError, match="EINVAL"):
        ioctl.balance_v2(fd, meta_args=BalanceArgs(target=btrfs.BLOCK_GROUP_RAID10), force=True)
    with pytest.raises(BalanceError, match="Not in progress") as raised:
        ioctl.balance_v2(fd, resume=True)
    assert raised.value.errno == errno.ENOTCONN
    with pytest.raises(BalanceError, match=r"No balance found \(ENOTCONN\)"):
        ioctl.balance_progress(fd)
    with pytest.raises(BalanceError, match="Balance cancel failed: Not in progress"):
        ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_CANCEL)
    assert isinstance(ioctl.balance_v2(fd, nothing, nothing, nothing), BalanceProgress)


BALANCE = """
import os, sys
from btrfs import ioctl

fd = os.open(sys.argv[1], os.O_RDONLY)
try:
    ioctl.balance_v2(fd, ioctl.BalanceArgs(), ioctl.BalanceArgs(), ioctl.BalanceArgs())
except ioctl.BalanceError as error:
    print(error, error.state, error.errno)
else:
    print("too quick")
"""


@contextlib.contextmanager
def running(path: Path, fd: int) -> Iterator[subprocess.Popen[str]]:
    """Balance everything in another process; go on as soon as that is under way."""
    with subprocess.Popen(
        [sys.executable, "-c", BALANCE, path], stdout=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None:
            with contextlib.suppress(BalanceError):
                ioctl.balance_progress(fd)
                break
            time.sleep(0.001)
        yield process


def test_pause_and_cancel(made: support.LoopFilesystem, fd: int) -> None:
    with running(made.mountpoint, fd) as process:
        assert ioctl.balance_progress(fd).state == ioctl.BALANCE_STATE_RUNNING
        with pytest.raises(BalanceError, match="start failed: Already in progress"):
            ioctl.balance_v2(fd, BalanceArgs())
        ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_PAUSE)
        told, _ = process.communicate()
    assert told == f"Balance paused by user 2 {errno.ECANCELED}\n"
    assert ioctl.balance_progress(fd).state == 0
    ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_CANCEL)
    with running(made.mountpoint, fd) as process:
        ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_CANCEL)
        told, _ = process.communicate()
    assert told == f"Balance canceled by user 4 {errno.ECANCELED}\n"
    with pytest.raises(BalanceError, match="No balance found"):
        ioctl.balance_progress(fd)


def test_a_paused_balance_goes_on(made: support.LoopFilesystem, fd: int) -> None:
    with running(made.mountpoint, fd) as process:
        ioctl.balance_ctl(fd, ioctl.BALANCE_CTL_PAUSE)
        process.communicate()
    assert ioctl.balance_v2(fd, resume=True).state == 0
    with pytest.raises(BalanceError, match="No balance found"):
        ioctl.balance_progress(fd)
