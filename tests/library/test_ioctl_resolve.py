"""Looking up files by address, paths by inode, and ranges of files, beside python-btrfs."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem, ioctl
from btrfs.ctree import ExtentItem, FileExtentItem, Key
from btrfs.utils import pretty_lines
from tests import support

PAGE = 4096

# Extents with many users, few, and none in the last byte; buffers that are large enough, that are
# not, and that have no room at all.
LOGICAL_INO = """
import btrfs
answer = []
with btrfs.FileSystem(args[0]) as fs:
    for vaddr in map(int, args[1].split()):
        for bufsize in (16, 64, 100, 4096, 1 << 16, 1 << 20):
            answer.append([
                btrfs.ioctl.logical_ino(fs.fd, vaddr, bufsize),
                btrfs.ioctl.logical_ino_v2(fs.fd, vaddr, bufsize),
                btrfs.ioctl.logical_to_ino_v2(fs.fd, vaddr, bufsize=bufsize, ignore_offset=True),
            ])
"""

INO_LOOKUP = """
import btrfs
answer = []
with btrfs.FileSystem(args[0]) as fs:
    answer.append(btrfs.ioctl.ino_lookup(fs.fd))
    for inum in map(int, args[1].split()):
        try:
            answer.append(btrfs.ioctl.ino_lookup(fs.fd, 5, inum))
        except OSError as error:
            answer.append(error.errno)
"""


@pytest.fixture(scope="module")
def mountpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with support.filesystem(tmp_path_factory.mktemp("resolve"), size="1G") as fs:
        support.populate(fs.mountpoint)
        fs.sync()
        yield fs.mountpoint


@pytest.fixture
def opened() -> Iterator[Callable[..., int]]:
    """Opens paths as os.open() does; the descriptors are closed at the end of the test."""
    with contextlib.ExitStack() as stack:

        def open_path(path: Path, flags: int = os.O_RDONLY) -> int:
            descriptor = os.open(path, flags)
            stack.callback(os.close, descriptor)
            return descriptor

        yield open_path


@pytest.fixture
def fd(opened: Callable[..., int], mountpoint: Path) -> int:
    return opened(mountpoint)


def as_json(value: Any) -> Any:
    """Return what becomes of a value on its way from the oracle."""
    if isinstance(value, tuple | list):
        return [as_json(element) for element in value]
    return value.hex() if isinstance(value, bytes) else value


def test_logical_ino(mountpoint: Path, fd: int) -> None:
    with FileSystem(mountpoint) as fs:
        extents = [item for item in fs.extents() if isinstance(item, ExtentItem)]
    extents.sort(key=lambda extent: extent.refs)
    addresses = []
    for extent in (extents[0], extents[len(extents) // 2], *extents[-3:]):
        addresses += [extent.vaddr, extent.vaddr + extent.length - 1]
    answer = support.oracle.ask(LOGICAL_INO, mountpoint, " ".join(map(str, addresses)))
    ours = [
        [
            ioctl.logical_to_ino(fd, vaddr, bufsize),
            ioctl.logical_ino_v2(fd, vaddr, bufsize),
            ioctl.logical_to_ino_v2(fd, vaddr, bufsize=bufsize, ignore_offset=True),
        ]
        for vaddr in addresses
        for bufsize in (16, 64, 100, 4096, 1 << 16, 1 << 20)
    ]
    assert as_json(ours) == answer
    assert {missing > 0 for answers in ours for _, missing in answers} == {True, False}
    with pytest.raises(OSError, match="No such file") as caught:
        ioctl.logical_ino(fd, 12345)
    assert caught.value.errno == errno.ENOENT


def test_ino_lookup(mountpoint: Path, fd: int) -> None:
    names = ("files", "names/linked", "volume", "fragments", "overwritten")
    inums = [os.stat(mountpoint / name).st_ino for name in names] + [999_999]
    answer = support.oracle.ask(INO_LOOKUP, mountpoint, " ".join(map(str, inums)))
    ours: list[Any] = [ioctl.ino_lookup(fd)]
    for inum in inums:
        try:
            ours.append(ioctl.ino_lookup(fd, 5, inum))
        except OSError as error:
            ours.append(error.errno)
    assert as_json(ours) == answer
    assert ours[1].name_bytes == b"files/"


def test_ino_paths(mountpoint: Path, fd: int) -> None:
    inum = (mountpoint / "overwritten").stat().st_ino
    assert ioctl.ino_paths(fd, inum) == ([b"overwritten"], 0)
    linked = mountpoint / "names" / "linked"
    paths, missed = ioctl.ino_paths(fd, linked.stat().st_ino)
    assert missed > 0
    assert len(paths) + missed == linked.stat().st_nlink
    assert all(os.path.samefile(mountpoint / os.fsdecode(path), linked) for path in paths)
    with pytest.raises(FileNotFoundError):
        ioctl.ino_paths(fd, 999_999)


LOOKUP_USER = """
import os, sys
from btrfs import ioctl
print(ioctl.ino_lookup_user(os.open(sys.argv[1], os.O_RDONLY), *map(int, sys.argv[2:])))
"""


def test_ino_lookup_user(opened: Callable[..., int], mountpoint: Path) -> None:
    """Who may not search the trees may still ask for the names of subvolumes that he can see."""
    volume = mountpoint / "volume"
    command = [*support.UNPRIVILEGED, sys.executable, "-c", LOOKUP_USER]
    nested = str(tree_of(opened(volume / "nested")))
    told = support.run(*command, volume, "256", nested)
    assert told == "InoLookupUserResult(name_bytes=b'nested', path_bytes=b'')\n"
    with pytest.raises(support.CommandError, match="PermissionError"):
        support.run(*command, volume / "files", "256", nested)


def tree_of(descriptor: int) -> int:
    return ioctl.ino_lookup(descriptor).treeid


@pytest.fixture
def files(opened: Callable[..., int], mountpoint: Path) -> tuple[int, int]:
    """Two files with the same first 16 pages, and then one that differs."""
    content = os.urandom(16 * PAGE)
    descriptors = []
    for name in ("one", "two"):
        descriptor = opened(mountpoint / name, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.pwrite(descriptor, content + os.urandom(PAGE), 0)
        os.fsync(descriptor)
        descriptors.append(descriptor)
    return descriptors[0], descriptors[1]


DEDUPE = """
import btrfs, os, io, contextlib
source, dest = (os.open(args[0] + name, os.O_RDWR) for name in ("/one", "/two"))
infos = [btrfs.ioctl.FileDedupeRangeInfo(dest, offset) for offset in map(int, args[1].split())]
btrfs.ioctl.fideduperange(source, 0, 4 * 4096, infos)
answer = []
for info in infos:
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        btrfs.utils.pretty_print(info)
    answer.append([info.bytes_deduped, info.status, info.status_str,
                   str(info).split(None, 2)[2], text.getvalue().splitlines()[2:]])
"""


def test_fideduperange(files: tuple[int, int], mountpoint: Path) -> None:
    source, dest = files
    offsets = (0, PAGE, 123)
    theirs = support.oracle.ask(DEDUPE, mountpoint, " ".join(map(str, offsets)))
    # They have shared the first range. Shared extents can be shared again.
    infos = [ioctl.FileDedupeRangeInfo(dest, offset) for offset in offsets]
    assert str(infos[0]) == f"dest_fd {dest} dest_offset 0 bytes_deduped 0 status none"
    ioctl.fideduperange(source, 0, 4 * PAGE, infos)
    assert theirs == [
        [
            info.bytes_deduped,
            info.status,
            info.status_str,
            str(info).split(None, 2)[2],
            list(pretty_lines(info))[2:],
        ]
        for info in infos
    ]
    assert [info.status for info in infos] == [0, 1, -errno.EINVAL]
    shared = next(ioctl.fiemap(dest))
    assert (shared.logical, shared.length) == (0, 4 * PAGE)
    assert shared.flags_str == "SHARED"
    assert shared.vaddr == next(ioctl.fiemap(source)).vaddr


def test_defrag_range(opened: Callable[..., int], mountpoint: Path) -> None:
    descriptor = opened(mountpoint / "fragmented", os.O_RDWR | os.O_CREAT | os.O_SYNC)
    for page in range(0, 32, 2):
        os.pwrite(descriptor, bytes(PAGE), page * PAGE)
    for page in range(1, 32, 2):
        os.pwrite(descriptor, bytes(PAGE), page * PAGE)
    before = list(ioctl.fiemap(descriptor))
    ioctl.defrag_range(descriptor, flags=ioctl.DEFRAG_RANGE_START_IO)
    os.fsync(descriptor)
    (extent,) = ioctl.fiemap(descriptor)
    assert len(before) > 10
    assert (extent.length, extent.flags_str) == (32 * PAGE, "LAST")
    zlib = 1
    ioctl.defrag_range(descriptor, 0, 32 * PAGE, ioctl.DEFRAG_RANGE_COMPRESS, compress_type=zlib)
    os.fsync(descriptor)
    assert {extent.flags_str for extent in ioctl.fiemap(descriptor)} == {"LAST|ENCODED"}
    with pytest.raises(OSError, match="not supported"):
        ioctl.defrag_range(descriptor, flags=1 << 31)


def test_fiemap_is_the_file_extents(opened: Callable[..., int], mountpoint: Path) -> None:
    """Piece by piece, beside the items in the tree, asked for a few at a time."""
    path = mountpoint / "overwritten"
    descriptor = opened(path)
    pieces = list(ioctl.fiemap(descriptor, flags=ioctl.FIEMAP_FLAG_SYNC, count=7))
    with FileSystem(mountpoint) as fs:
        inum = path.stat().st_ino
        items = fs.search(5, Key(inum, "EXTENT_DATA", 0), Key(inum, "EXTENT_DATA", -1))
        extents = [item for item in items if isinstance(item, FileExtentItem) and item.disk_bytenr]
    covered = {(piece.logical, piece.vaddr) for piece in pieces}
    assert covered <= {
        (extent.logical_offset, extent.disk_bytenr + extent.offset) for extent in extents
    }
    assert sum(piece.length for piece in pieces) == sum(extent.num_bytes for extent in extents)
    assert pieces == sorted(pieces, key=lambda piece: piece.logical)
    assert pieces[-1].flags & 1
    a_part = list(ioctl.fiemap(descriptor, pieces[3].logical, pieces[3].length))
    assert [str(piece) for piece in a_part] == [str(pieces[3])]
    with pytest.raises(ValueError, match="count 0"):
        next(ioctl.fiemap(descriptor, count=0))
