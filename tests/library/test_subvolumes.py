"""Subvolumes with their paths, mounted and not, for root and for others, beside btrfs-progs."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem, ioctl
from btrfs.errors import NotBtrfsError
from btrfs.ownership import subvolumes
from btrfs.query.records import record
from btrfs.utils import pretty_lines
from tests import support


@pytest.fixture(scope="module")
def populated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(tmp_path_factory.mktemp("subvolumes"), size="1G") as fs:
        support.populate(fs.mountpoint)
        support.send_and_receive(fs.mountpoint)
        folder = fs.mountpoint / "plain" / "folder"
        folder.mkdir(parents=True)
        support.run("btrfs", "subvolume", "create", folder / "deep")
        fs.sync()
        support.run("btrfs", "subvolume", "sync", fs.mountpoint)
        yield fs


LINE = re.compile(
    r"ID (?P<id>\d+) gen (?P<generation>\d+) cgen (?P<otransid>\d+) parent (?P<parent>\d+)"
    r" top level \d+ parent_uuid (?P<parent_uuid>\S+)\s+received_uuid (?P<received_uuid>\S+)\s+"
    r"uuid (?P<uuid>\S+) path (?P<path>.*)"
)


def listed(populated: support.LoopFilesystem) -> list[dict[str, str]]:
    """Return what btrfs-progs tells of each subvolume."""
    told = support.run("btrfs", "subvolume", "list", "-pcuqR", populated.mountpoint)
    return [found.groupdict() for found in map(LINE.fullmatch, told.splitlines()) if found]


def as_listed(subvolume: subvolumes.Subvolume) -> dict[str, str]:
    return {
        "id": str(subvolume.id),
        "generation": str(subvolume.generation),
        "otransid": str(subvolume.otransid),
        "parent": str(subvolume.parent_id),
        "path": os.fsdecode(subvolume.path or b""),
        **{
            name: str(value) if (value := getattr(subvolume, name)).int else "-"
            for name in ("uuid", "parent_uuid", "received_uuid")
        },
    }


@pytest.mark.parametrize("source", ["mounted", "unmounted"])
def test_as_btrfs_progs_lists_them(populated: support.LoopFilesystem, source: Any) -> None:
    target = populated.mountpoint if source == "mounted" else populated.devices[0]
    with FileSystem(target, source=source) as fs:
        ours = list(subvolumes.of_filesystem(fs))
    theirs = listed(populated)
    assert len(theirs) == 6
    assert [as_listed(subvolume) for subvolume in ours] == theirs
    assert [os.fsdecode(s.path or b"") for s in ours if s.read_only] == [
        "readonly",
        "received/readonly",
    ]
    received = next(subvolume for subvolume in ours if subvolume.path == b"received/readonly")
    assert received.rtime.sec >= received.otime.sec > 0
    assert str(received) == (
        f"subvolume {received.id} parent 5 generation {received.generation} read_only True"
        " path utf-8 'received/readonly'"
    )
    assert f"uuid: {received.uuid}" in pretty_lines(received)
    assert record(received)["path"] == "received/readonly"


BELOW = """
import sys
from btrfs.ownership import subvolumes
for subvolume in subvolumes.below(sys.argv[1]):
    print(subvolume.id, subvolume.path.decode())
"""


def test_below_a_folder(populated: support.LoopFilesystem) -> None:
    """Without the privilege to search the trees."""
    command = (*support.UNPRIVILEGED, sys.executable, "-c", BELOW)
    everything = {f"{entry['id']} {entry['path']}" for entry in listed(populated)}
    assert set(support.run(*command, populated.mountpoint).splitlines()) == everything
    (deep,) = support.run(*command, populated.mountpoint / "plain").splitlines()
    assert deep.endswith(" folder/deep")
    (nested,) = support.run(*command, populated.mountpoint / "volume").splitlines()
    assert nested.endswith(" nested")
    assert support.run(*command, populated.mountpoint / "files") == ""


def test_below_what_is_no_btrfs(tmp_path: Path) -> None:
    with pytest.raises(NotBtrfsError, match=r"^/proc is not on a btrfs filesystem$") as caught:
        list(subvolumes.below("/proc"))
    assert caught.value.hint
    with pytest.raises(FileNotFoundError, match="nothing"):
        list(subvolumes.below(tmp_path / "nothing"))


def test_below_is_the_same_as_of_the_filesystem(populated: support.LoopFilesystem) -> None:
    with FileSystem(populated.mountpoint) as fs:
        by_trees = {s.id: list(pretty_lines(s)) for s in subvolumes.of_filesystem(fs)}
    by_kernel = {s.id: list(pretty_lines(s)) for s in subvolumes.below(populated.mountpoint)}
    # Structs of the kernel's interface are filled up, but show the same.
    assert by_kernel == by_trees


def test_below_leaves_out_what_is_mounted_over(
    populated: support.LoopFilesystem, tmp_path: Path
) -> None:
    """Another filesystem at the place of a subvolume, even a btrfs with the same numbers."""
    place = populated.mountpoint / "volume"
    shown = [s.path for s in subvolumes.below(populated.mountpoint)]
    assert {b"volume", b"volume/nested"} < set(shown)
    rest = [path for path in shown if path not in (b"volume", b"volume/nested")]
    support.run("mount", "-t", "tmpfs", "none", place)
    try:
        assert [s.path for s in subvolumes.below(populated.mountpoint)] == rest
    finally:
        support.run("umount", place)
    with support.filesystem(tmp_path, size="256M") as other:
        top = os.open(other.mountpoint, os.O_RDONLY)
        try:
            for number in range(10):
                ioctl.create_subvolume(top, str(number))
            treeids = {ref.treeid for ref in ioctl.get_subvol_rootref(top)}
        finally:
            os.close(top)
        with FileSystem(populated.mountpoint) as fs:
            treeid = next(s.id for s in subvolumes.of_filesystem(fs) if s.path == b"volume")
        assert treeid in treeids
        options = f"subvolid={treeid}"
        support.run("mount", "-o", options, other.devices[0], place)
        try:
            assert [s.path for s in subvolumes.below(populated.mountpoint)] == rest
        finally:
            support.run("umount", place)


def test_deleted_subvolume(populated: support.LoopFilesystem) -> None:
    """While something in it is still open, a subvolume that was deleted stays for a while."""
    top = os.open(populated.mountpoint, os.O_RDONLY)
    ioctl.create_subvolume(top, "doomed")
    fd = os.open(populated.mountpoint / "doomed", os.O_RDONLY)
    treeid = ioctl.ino_lookup(fd).treeid
    try:
        ioctl.delete_subvolume(top, "doomed")
        with FileSystem(populated.mountpoint) as fs:
            doomed = {s.id: s for s in subvolumes.of_filesystem(fs)}[treeid]
    finally:
        os.close(fd)
        os.close(top)
    assert (doomed.path, doomed.parent_id) == (None, 0)
    assert str(doomed).startswith(f"subvolume {treeid} parent 0 ")


def test_default(populated: support.LoopFilesystem) -> None:
    with FileSystem(populated.mountpoint) as fs:
        assert subvolumes.default(fs) == 5
        volume = next(s.id for s in subvolumes.of_filesystem(fs) if s.path == b"volume")
        ioctl.set_default_subvol(fs.fd, volume)
        fs.sync()
        assert subvolumes.default(fs) == volume
        ioctl.set_default_subvol(fs.fd, 0)
