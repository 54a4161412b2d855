"""Devices that come, go, grow, are replaced and scrubbed, through the kernel's interface."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from btrfs import FileSystem, ioctl
from btrfs.errors import BtrfsError
from tests import support

DEVICE_SIZE = 512 << 20


@pytest.fixture(scope="module")
def raid1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    folder = tmp_path_factory.mktemp("devices")
    with support.filesystem(
        folder, devices=2, size=DEVICE_SIZE, data="raid1", metadata="raid1"
    ) as (fs):
        (fs.mountpoint / "file").write_bytes(os.urandom(64 << 20))
        fs.sync()
        yield fs


@pytest.fixture
def fd(raid1: support.LoopFilesystem) -> Iterator[int]:
    descriptor = os.open(raid1.mountpoint, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[str]:
    """A device that belongs to no filesystem."""
    image = tmp_path / "spare.img"
    image.touch()
    os.truncate(image, DEVICE_SIZE)
    with support.attached_images([image]) as (device,):
        yield device


def sizes(mountpoint: Path) -> dict[int, int]:
    with FileSystem(mountpoint) as fs:
        return {device.devid: device.total_bytes for device in fs.devices()}


def test_resize(raid1: support.LoopFilesystem, fd: int) -> None:
    ioctl.resize(fd, 2, 400 << 20)
    assert sizes(raid1.mountpoint) == {1: DEVICE_SIZE, 2: 400 << 20}
    ioctl.resize(fd, 2)
    assert sizes(raid1.mountpoint) == {1: DEVICE_SIZE, 2: DEVICE_SIZE}
    with pytest.raises(OSError, match="too large"):
        ioctl.resize(fd, 2, 1 << 40)
    with pytest.raises(OSError, match="No such device"):
        ioctl.resize(fd, 9)
    with pytest.raises(ValueError, match="is negative"):
        ioctl.resize(fd, 2, -(64 << 20))
    assert sizes(raid1.mountpoint) == {1: DEVICE_SIZE, 2: DEVICE_SIZE}


def test_add_and_remove(raid1: support.LoopFilesystem, fd: int, spare: str) -> None:
    for by_path in (True, False):
        ioctl.add_device(fd, spare)
        devid = max(sizes(raid1.mountpoint))
        assert ioctl.dev_info(fd, devid).path == spare
        with pytest.raises(BtrfsError, match="there is no missing device"):
            ioctl.remove_device(fd, "missing")
        ioctl.remove_device(fd, spare if by_path else devid)
        assert len(sizes(raid1.mountpoint)) == 2
    with pytest.raises(BtrfsError, match="RAID1 needs at least 2 devices"):
        ioctl.remove_device(fd, 1)
    with pytest.raises(ValueError, match="is too long: 4039 at most"):
        ioctl.remove_device(fd, "x" * 5000)


def test_replace(fd: int, spare: str) -> None:
    assert ioctl.dev_replace_status(fd).replace_state_str == "never started"
    with pytest.raises(BtrfsError, match="no replacement is running"):
        ioctl.dev_replace_cancel(fd)
    first = ioctl.dev_info(fd, 1).path
    ioctl.dev_replace_start(fd, 1, spare)
    status = ioctl.dev_replace_status(fd)
    assert str(status) == ("replace state finished progress 1000 write_errors 0 read_errors 0")
    assert time.time() - 60 < status.time_started <= status.time_stopped <= time.time()
    assert ioctl.dev_info(fd, 1).path == spare
    ioctl.dev_replace_start(fd, spare, first, avoid_source=True)
    assert ioctl.dev_info(fd, 1).path == first


def test_scan_and_forget(raid1: support.LoopFilesystem, tmp_path: Path, spare: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        ioctl.scan_device(spare)
    with pytest.raises(OSError, match="busy"):
        ioctl.forget_device(raid1.devices[0])
    other = tmp_path / "other.img"
    other.touch()
    os.truncate(other, DEVICE_SIZE)
    with support.attached_images([other]) as (device,):
        support.run("mkfs.btrfs", "-q", "-f", "-m", "raid1", "-d", "raid1", device, spare)
        for path in (device, spare):
            ioctl.scan_device(path)
            ioctl.forget_device(path)
        assert not ioctl.devices_ready(device)
        ioctl.scan_device(spare)
        assert ioctl.devices_ready(device)
        for path in (device, spare):
            ioctl.forget_device(path)
        assert not ioctl.devices_ready(device)


def test_scrub_finds_and_repairs(raid1: support.LoopFilesystem, fd: int) -> None:
    good = ioctl.scrub(fd, 2)
    assert good.data_bytes_scrubbed >= 64 << 20
    assert good.csum_errors == 0
    with (raid1.mountpoint / "file").open("rb") as file:
        vaddr = next(ioctl.fiemap(file.fileno())).vaddr
    with FileSystem(raid1.mountpoint) as fs:
        chunk = next(c for c in fs.chunks() if c.vaddr <= vaddr < c.vaddr + c.length)
        stripe = next(stripe for stripe in chunk.stripes if stripe.devid == 2)
    with open(ioctl.dev_info(fd, 2).path, "r+b", buffering=0) as device:
        device.seek(stripe.offset + vaddr - chunk.vaddr)
        device.write(bytes(8192))
        os.fsync(device)
    # Read-only, the kernel counts what it could correct, and leaves it as it is.
    assert ioctl.scrub(fd, 2, read_only=True).csum_errors == 2
    mended = ioctl.scrub(fd, 2)
    assert (mended.csum_errors, mended.corrected_errors, mended.uncorrectable_errors) == (2, 2, 0)
    assert ioctl.scrub(fd, 2).csum_errors == 0


def test_scrub_is_watched_and_cancelled(raid1: support.LoopFilesystem, fd: int) -> None:
    for ask in (lambda: ioctl.scrub_progress(fd, 1), lambda: ioctl.scrub_cancel(fd)):
        with pytest.raises(OSError, match="not connected"):
            ask()
    # The kernel has a limit for scrubbing, so that it lasts long enough to be watched.
    with FileSystem(raid1.mountpoint) as fs:
        limit = Path(f"/sys/fs/btrfs/{fs.fsid}/devinfo/1/scrub_speed_max")
    limit.write_text(str(8 << 20))
    with ThreadPoolExecutor() as pool:
        running = pool.submit(ioctl.scrub, fd, 1)
        progress = until(lambda: ioctl.scrub_progress(fd, 1), lambda p: p.data_bytes_scrubbed > 0)
        assert progress.data_bytes_scrubbed < 64 << 20
        assert progress.last_physical > 0
        with pytest.raises(OSError, match="in progress"):
            ioctl.scrub(fd, 1)
        ioctl.scrub_cancel(fd)
        with pytest.raises(OSError, match="canceled"):
            running.result()
    limit.write_text("0")


def until(
    ask: Callable[[], ioctl.ScrubProgress], enough: Callable[[ioctl.ScrubProgress], bool]
) -> ioctl.ScrubProgress:
    """Ask until there is an answer, and it is enough."""
    for _ in range(1000):
        time.sleep(0.01)
        try:
            answer = ask()
        except OSError:
            continue
        if enough(answer):
            return answer
    raise AssertionError("it never came")
