"""btrfs.space.operations: what the kernel is doing, while it does it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from btrfs import FileSystem, ioctl
from btrfs.space import operations
from btrfs.space.operations import Kind, Operation, State
from tests import support
from tests.lab import block_groups
from tests.support import spoil

MIB = 1 << 20
PATIENCE_SECONDS = 30


@pytest.fixture
def made(tmp_path: Path) -> Iterator[support.LoopFilesystem]:
    """A filesystem on two devices, one with small extents that take seconds to be moved."""
    with support.filesystem(tmp_path, devices=2, data="single", metadata="single") as made:
        block_groups.scatter(made.mountpoint / "scattered")
        (made.mountpoint / "plain").write_bytes(os.urandom(64 * MIB))
        made.sync()
        yield made


@contextmanager
def running(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that lets the kernel do something; wait for its end after the block."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield process


def looks(made: support.LoopFilesystem, process: subprocess.Popen[bytes]) -> list[Operation]:
    """Return what is seen again and again until a program has ended, each thing once."""
    seen: dict[Operation, None] = {}
    with FileSystem(made.mountpoint) as fs:
        while process.poll() is None:
            seen.update(dict.fromkeys(operations.under_way(fs)))
            time.sleep(0.005)
        assert operations.under_way(fs) == []
    return list(seen)


def test_nothing(made: support.LoopFilesystem) -> None:
    with FileSystem(made.mountpoint) as fs:
        assert operations.under_way(fs) == []
    made.unmount()
    with FileSystem(made.images[0]) as fs:
        assert operations.under_way(fs) == []


def test_balance(made: support.LoopFilesystem) -> None:
    with running("btrfs", "balance", "start", "--full-balance", made.mountpoint) as process:
        seen = looks(made, process)
    assert seen
    assert {(one.kind, one.state) for one in seen} == {(Kind.BALANCE, State.RUNNING)}
    done = [one.done for one in seen if one.done is not None]
    assert done == sorted(done)
    assert 0 < done[-1] <= 1


def test_paused_balance(made: support.LoopFilesystem) -> None:
    assert support.pause_balance(made.mountpoint)
    with FileSystem(made.mountpoint) as fs:
        (found,) = operations.under_way(fs)
    assert (found.kind, found.state) == (Kind.BALANCE, State.PAUSED)
    made.unmount()
    with FileSystem(made.images[0]) as fs:
        assert operations.under_way(fs) == [Operation(Kind.BALANCE, State.SUSPENDED)]


def test_removal(made: support.LoopFilesystem) -> None:
    with FileSystem(made.mountpoint) as fs:
        allocated = fs.dev_info(1).bytes_used
    with running("btrfs", "device", "remove", "1", made.mountpoint) as process:
        seen = looks(made, process)
    assert {(one.kind, one.devid, one.done) for one in seen} == {(Kind.REMOVE, 1, None)}
    left = [one.bytes_left for one in seen if one.bytes_left is not None]
    assert len(left) > 1
    assert left[0] <= allocated
    assert left == sorted(left, reverse=True)


def test_resize(made: support.LoopFilesystem) -> None:
    size = 300 * MIB
    # All of it on one device is more than that.
    made.btrfs("device", "remove", "1", made.mountpoint)
    with FileSystem(made.mountpoint) as fs:
        beyond = [one for one in fs.dev_extents() if one.paddr + one.length > size]
    made.btrfs("device", "add", "-f", made.devices[0], made.mountpoint)
    with running("btrfs", "filesystem", "resize", f"2:{size}", made.mountpoint) as process:
        seen = looks(made, process)
    assert {(one.kind, one.devid) for one in seen} == {(Kind.RESIZE, 2)}
    left = [one.bytes_left for one in seen if one.bytes_left is not None]
    assert 0 < left[0] <= sum(one.length for one in beyond)
    assert left == sorted(left, reverse=True)


def test_replacement(made: support.LoopFilesystem) -> None:
    spare = made.add_image("1G")
    with FileSystem(made.mountpoint) as fs:
        # The one with more on it takes longer.
        devid = max(fs.devices(), key=lambda device: device.bytes_used).devid
    command = ("btrfs", "replace", "start", "-B", str(devid), spare, made.mountpoint)
    with running(*command) as process:
        seen = looks(made, process)
    assert {one.kind for one in seen} == {Kind.REPLACE}, "its scrub is no operation of its own"
    assert {one.devid for one in seen} <= {devid, None}
    assert all(one.done is not None and 0 <= one.done <= 1 for one in seen)


def test_scrub(made: support.LoopFilesystem) -> None:
    with FileSystem(made.mountpoint) as fs:
        devid = max(fs.devices(), key=lambda device: device.bytes_used).devid
        # The kernel has a limit for scrubbing, so that it lasts long enough to be watched.
        Path(f"/sys/fs/btrfs/{fs.fsid}/devinfo/{devid}/scrub_speed_max").write_text(str(32 * MIB))
        with ThreadPoolExecutor() as pool:
            scrub = pool.submit(ioctl.scrub, fs.fd, devid)
            found = until(lambda: operations.under_way(fs), lambda one: bool(one.done))
            assert (found.kind, found.state, found.devid) == (Kind.SCRUB, State.RUNNING, devid)
            assert found.done is not None
            assert found.done < 1
            later = until(lambda: operations.under_way(fs), lambda one: one.done != found.done)
            assert later.done is not None
            assert found.done < later.done <= 1
            ioctl.scrub_cancel(fs.fd)
            with pytest.raises(OSError, match="canceled"):
                scrub.result()
        assert operations.under_way(fs) == []


def until(look: Callable[[], list[Operation]], enough: Callable[[Operation], bool]) -> Operation:
    """Look until there is one operation, and it is far enough."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        for one in look():
            if enough(one):
                return one
        time.sleep(0.01)
    raise AssertionError("it never came")


def test_missing_device_is_no_removal(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid1", metadata="raid1") as made:
        made.unmount()
        spoil.lose_last_device(made, tmp_path / "away")
        made.mount("degraded")
        with FileSystem(made.mountpoint) as fs:
            assert fs.dev_info(2).path == ""
            assert operations.under_way(fs) == []
