"""Subvolumes, label and quotas through the kernel's interface, on a real filesystem."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from btrfs import FileSystem, ioctl
from btrfs.ctree import QUOTA_TREE_OBJECTID, TimeSpec
from btrfs.ondisk.items.quota import QgroupLimit
from btrfs.utils import pretty_lines
from tests import support


@pytest.fixture(scope="module")
def mountpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with support.filesystem(tmp_path_factory.mktemp("subvolumes"), size="512M") as fs:
        yield fs.mountpoint


@pytest.fixture
def opened() -> Iterator[Callable[[Path], int]]:
    """Opens folders; the descriptors are closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def open_folder(path: Path) -> int:
            descriptor = os.open(path, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            return descriptor

        yield open_folder


def test_life_of_a_subvolume(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    top = opened(mountpoint)
    ioctl.create_subvolume(top, "volume")
    volume = opened(mountpoint / "volume")
    (mountpoint / "volume" / "file").write_bytes(b"content")
    ioctl.sync(top)
    info = ioctl.get_subvol_info(volume)
    assert (info.name, info.parent_id, info.dirid, info.flags) == (b"volume", 5, 256, 0)
    assert info.received_uuid == info.parent_uuid == uuid.UUID(int=0)
    assert info.treeid == ioctl.ino_lookup(volume).treeid
    assert str(info) == (
        f"subvol id {info.treeid} parent_id 5 dirid 256 generation {info.generation} flags none"
        " name utf-8 'volume'"
    )
    assert "flags: none" in pretty_lines(info)

    ioctl.create_snapshot(top, b"\xff snapshot", volume, read_only=True)
    path = Path(os.fsdecode(os.fsencode(mountpoint) + b"/\xff snapshot"))
    assert (path / "file").read_bytes() == b"content"
    snapshot = opened(path)
    taken = ioctl.get_subvol_info(snapshot)
    assert taken.parent_uuid == info.uuid
    assert taken.flags_str == "RDONLY"
    assert abs(taken.otime.timestamp - path.stat().st_ctime) < 600
    with pytest.raises(OSError, match="Read-only"):
        (path / "other").touch()
    assert ioctl.get_subvol_flags(snapshot) == ioctl.SUBVOL_RDONLY
    ioctl.set_subvol_flags(snapshot, 0)
    assert ioctl.get_subvol_flags(snapshot) == 0
    (path / "other").touch()

    ioctl.delete_subvolume(top, b"\xff snapshot")
    assert not path.exists()
    ioctl.delete_subvolume_by_id(top, info.treeid)
    assert list(mountpoint.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        ioctl.get_subvol_info(volume)
    with pytest.raises(FileNotFoundError):
        ioctl.delete_subvolume(top, "volume")


def test_many_subvolumes_in_one(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    """More than the kernel tells in one call."""
    ioctl.create_subvolume(opened(mountpoint), "crowd")
    crowd = opened(mountpoint / "crowd")
    for number in range(300):
        ioctl.create_subvolume(crowd, f"v{number}")
    refs = list(ioctl.get_subvol_rootref(crowd))
    assert len(refs) == 300
    assert {ref.dirid for ref in refs} == {256}
    trees = [ref.treeid for ref in refs]
    assert trees == sorted(set(trees))
    assert list(ioctl.get_subvol_rootref(crowd, trees[290])) == refs[290:]
    assert ioctl.ino_lookup_user(crowd, 256, trees[7]).name_bytes == b"v7"


def test_names_that_the_kernel_would_cut_off(
    mountpoint: Path, opened: Callable[[Path], int]
) -> None:
    top = opened(mountpoint)
    for name in ("x" * 4040, "a\0b"):
        with pytest.raises(ValueError, match=r"a name (of 4040 bytes is too long|cannot have)"):
            ioctl.create_subvolume(top, name)
    with pytest.raises(ValueError, match="a name of 256 bytes is too long: 255 at most"):
        ioctl.set_label(top, "ö" * 128)
    with pytest.raises(OSError, match="File name too long"):
        ioctl.create_subvolume(top, "x" * 256)


INFO = "import os, sys; from btrfs import ioctl; fd = os.open(sys.argv[1], os.O_RDONLY); print({})"


def test_without_privilege(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    ioctl.create_subvolume(opened(mountpoint), "mine")
    folder = mountpoint / "mine"
    info = ioctl.get_subvol_info(opened(folder))
    for expression, expected in (
        ("ioctl.get_subvol_info(fd)", str(info)),
        ("list(ioctl.get_subvol_rootref(fd))", "[]"),
        ("ioctl.get_subvol_flags(fd)", "0"),
        ("ioctl.create_subvolume(fd, 'inner')", "None"),
    ):
        python = (sys.executable, "-c", INFO.format(expression))
        assert support.run(*support.UNPRIVILEGED, *python, folder) == f"{expected}\n"
    assert (folder / "inner").is_dir()


def test_default_subvolume(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    top = opened(mountpoint)
    ioctl.create_subvolume(top, "default")
    treeid = ioctl.ino_lookup(opened(mountpoint / "default")).treeid
    for number in (treeid, 5):
        ioctl.set_default_subvol(top, number)
        assert support.run("btrfs", "subvolume", "get-default", mountpoint).startswith(
            f"ID {number} "
        )
    with pytest.raises(FileNotFoundError):
        ioctl.set_default_subvol(top, 9999)


RECEIVED = """
import btrfs, os, uuid
fd = os.open(args[0], os.O_RDONLY)
time = btrfs.ctree.TimeSpec.from_values(1234567890, 987654321)
rtransid, rtime = btrfs.ioctl.set_received_subvol(fd, uuid.UUID(args[1]), 77, time)
answer = [rtransid, rtime.sec]
"""


def test_received_subvolume(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    ioctl.create_subvolume(opened(mountpoint), "received")
    fd = opened(mountpoint / "received")
    sent = uuid.uuid4()
    stime = TimeSpec.from_values(1234567890, 987654321)
    rtransid, rtime = ioctl.set_received_subvol(fd, sent, 77, stime)
    info = ioctl.get_subvol_info(fd)
    assert (info.received_uuid, info.stransid, info.rtransid) == (sent, 77, rtransid)
    assert str(info.stime) == str(stime)
    assert str(info.rtime) == str(rtime)
    theirs = support.oracle.ask(RECEIVED, mountpoint / "received", str(sent))
    again = ioctl.get_subvol_info(fd)
    assert theirs == [again.rtransid, again.rtime.sec]
    assert str(again.stime) == str(stime)


def test_label(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    top = opened(mountpoint)
    for label in ("übergroß", "x" * 255, os.fsdecode(b"\xff"), ""):
        ioctl.set_label(top, label)
        assert ioctl.get_label(top) == label
        with FileSystem(mountpoint) as fs:
            assert fs.label == label


def test_quota(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    top = opened(mountpoint)
    with pytest.raises(OSError, match="not connected"):
        ioctl.quota_rescan(top)
    ioctl.quota_enable(top)
    ioctl.quota_rescan_wait(top)
    ioctl.quota_rescan(top)
    ioctl.quota_rescan_wait(top)
    assert ioctl.quota_rescan_status(top) == (False, 0)
    assert "0/5" in support.run("btrfs", "qgroup", "show", mountpoint)
    ioctl.quota_disable(top)
    ioctl.quota_enable(top, simple=True)
    assert (Path("/sys/fs/btrfs") / fsid(mountpoint) / "qgroups/mode").read_text() == "squota\n"
    ioctl.quota_disable(top)
    with pytest.raises(support.CommandError):
        support.run("btrfs", "qgroup", "show", mountpoint)


def test_quota_groups(mountpoint: Path, opened: Callable[[Path], int]) -> None:
    top = opened(mountpoint)
    group, other = 1 << 48 | 7, 2 << 48 | 1
    with pytest.raises(OSError, match="not connected"):
        ioctl.qgroup_create(top, group)
    ioctl.quota_enable(top)
    ioctl.quota_rescan_wait(top)
    ioctl.create_subvolume(top, "limited")
    limited = opened(mountpoint / "limited")
    member = ioctl.ino_lookup(limited).treeid
    for number in (group, other):
        ioctl.qgroup_create(top, number)
    with pytest.raises(FileExistsError):
        ioctl.qgroup_create(top, group)
    assert ioctl.qgroup_assign(top, member, group) is False
    ioctl.qgroup_assign(top, group, other)
    with pytest.raises(FileExistsError):
        ioctl.qgroup_assign(top, member, group)
    with pytest.raises(OSError, match="Invalid argument"):
        ioctl.qgroup_assign(top, other, group)
    with pytest.raises(OSError, match="busy"):
        ioctl.qgroup_destroy(top, group)
    ioctl.qgroup_limit(top, group, max_rfer=1 << 30)
    ioctl.qgroup_limit(limited, max_rfer=1 << 20, max_excl=2 << 20)
    assert qgroup_limits(mountpoint) == {group: (1 << 30, 0), member: (1 << 20, 2 << 20)}
    with pytest.raises(OSError, match="Disk quota exceeded"):
        (mountpoint / "limited" / "file").write_bytes(os.urandom(4 << 20))
    ioctl.qgroup_limit(top, member)
    (mountpoint / "limited" / "file").write_bytes(os.urandom(4 << 20))
    ioctl.qgroup_limit(top, group)
    assert qgroup_limits(mountpoint) == {}
    ioctl.qgroup_remove(top, group, other)
    # What is shared, the kernel cannot subtract without counting.
    ioctl.create_snapshot(top, "sharing", limited)
    ioctl.sync(top)
    assert ioctl.qgroup_remove(top, member, group) is True
    with pytest.raises(FileNotFoundError):
        ioctl.qgroup_remove(top, member, group)
    for number in (group, other):
        ioctl.qgroup_destroy(top, number)
    with pytest.raises(FileNotFoundError):
        ioctl.qgroup_destroy(top, group)
    ioctl.quota_disable(top)


def qgroup_limits(mountpoint: Path) -> dict[int, tuple[int, int]]:
    """Return the limits of each quota group that has any."""
    with FileSystem(mountpoint) as fs:
        fs.sync()
        return {
            item.qgroupid: (item.max_rfer, item.max_excl)
            for item in fs.search(QUOTA_TREE_OBJECTID)
            if isinstance(item, QgroupLimit) and item.flags
        }


def fsid(mountpoint: Path) -> str:
    with FileSystem(mountpoint) as fs:
        return str(fs.fsid)
