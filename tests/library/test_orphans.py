"""Deleted subvolumes: what is left of them, and what happens until nothing is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

import btrfs
from btrfs import FileSystem
from btrfs.errors import BtrfsError, NotMountedError
from btrfs.ownership import orphans
from btrfs.ownership.orphans import Dropping, Finished, Remaining
from btrfs.source.mounts import is_read_only
from tests import support
from tests.support import removal


class Stopped(NamedTuple):
    """An interrupted removal.

    Attributes:
        found: The subvolume, of which a part is removed.
        fs: The filesystem, mounted read-only first, so that nothing moves.
    """

    found: removal.Interrupted
    fs: support.LoopFilesystem


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    folder = tmp_path_factory.mktemp("orphans")
    with support.filesystem(
        folder, devices=2, size="2G", data="single", metadata="raid1", nodesize=removal.NODESIZE
    ) as original:
        found = removal.interrupt(original, folder / "copy")
    with support.mounted_images(found.images, folder / "copy" / "mnt", "ro") as fs:
        yield Stopped(found, fs)


def test_how_far_it_is(stopped: Stopped) -> None:
    root = stopped.found.root
    with FileSystem(stopped.fs.mountpoint) as fs:
        orphan, waiting = orphans.of_filesystem(fs)
    assert orphan.id == root.objectid
    assert orphan.begun
    assert (orphan.drop_progress, orphan.drop_level) == (root.drop_progress, root.drop_level)
    assert orphan.bytes_used == root.bytes_used
    assert orphan.done == pytest.approx(part_done(stopped.found), abs=0.01)
    assert not waiting.begun
    assert waiting.done == 0


def part_done(found: removal.Interrupted) -> float:
    """Return which part of the blocks is removed, knowing that each file has a leaf."""
    progress = found.root.drop_progress
    first = btrfs.ctree.FIRST_FREE_OBJECTID + 1
    left = found.leaves - (progress.objectid - first)
    return 1 - left / (found.root.bytes_used // removal.NODESIZE)


def test_unmounted(stopped: Stopped) -> None:
    with FileSystem(stopped.fs.mountpoint) as fs:
        mounted = orphans.of_filesystem(fs)
    with FileSystem(stopped.found.images) as fs:
        assert orphans.of_filesystem(fs) == mounted
        with pytest.raises(NotMountedError):
            next(orphans.watch(fs))


def test_damaged(stopped: Stopped, tmp_path: Path) -> None:
    """The tree cannot be read, but all else can."""
    root = stopped.found.root
    images = stopped.fs.copy_images(tmp_path)
    with FileSystem(images) as fs:
        orphan, waiting = orphans.of_filesystem(fs)
        (chunk,) = (
            chunk
            for chunk in fs.chunks()
            if chunk.vaddr <= root.bytenr < chunk.vaddr + chunk.length
        )
    for stripe in chunk.stripes:
        with images[stripe.devid - 1].open("r+b") as file:
            file.seek(stripe.offset + root.bytenr - chunk.vaddr)
            file.write(bytes(removal.NODESIZE))
    with FileSystem(images) as fs:
        assert orphans.of_filesystem(fs) == [orphan._replace(done=None), waiting]
    for image in images:
        image.unlink()


def test_read_only(stopped: Stopped) -> None:
    """It does not wait for what will not happen."""
    with FileSystem(stopped.fs.mountpoint) as fs:
        events = orphans.watch(fs)
        assert next(events) == Remaining(2)
        assert next(events) == Dropping(orphans.of_filesystem(fs)[0], 0)
        with pytest.raises(BtrfsError, match="is mounted read-only") as raised:
            next(events)
    assert "remount,rw" in str(raised.value.hint)


def test_until_nothing_is_left(stopped: Stopped) -> None:
    """From here on, nothing is."""
    tree = stopped.found.root.objectid
    with FileSystem(stopped.fs.mountpoint) as fs:
        events = orphans.watch(fs, interval=0.001, forever=True)
        assert next(events) == Remaining(2)
        begin = next(events)
        assert isinstance(begin, Dropping)
        stopped.fs.remount("rw")
        steps = [begin.orphan]
        while not (isinstance(event := next(events), Finished) and event.id == tree):
            # The other one may come before or after it.
            if isinstance(event, Dropping) and event.orphan.id == tree:
                steps.append(event.orphan)
        assert 0 < event.seconds < 60
        while next(events) != Remaining(0):
            pass
        assert list(orphans.watch(fs)) == [Remaining(0)]
        assert orphans.of_filesystem(fs) == []
    keys = [step.drop_progress for step in steps]
    assert keys == sorted(set(keys))
    # It is unknown where the removal went on in the moment between reading how far it is, and what
    # is left of the tree.
    known = [step.done for step in steps if step.done is not None]
    assert all(later > earlier - 0.01 for earlier, later in pairwise(known))


def test_forever(stopped: Stopped) -> None:
    stopped.fs.remount("rw")
    with FileSystem(stopped.fs.mountpoint) as fs:
        assert list(orphans.watch(fs, interval=0.001))[-1] == Remaining(0)
        events = orphans.watch(fs, interval=0.001, forever=True)
        assert next(events) == Remaining(0)
        path = stopped.fs.mountpoint / "more"
        removal.make_subvolume(path, 10)
        # As long as a file in it is open, the kernel does not begin to remove it.
        with (path / "0").open("rb"):
            stopped.fs.btrfs("subvolume", "delete", path)
            assert next(events) == Remaining(1)
        stopped.fs.sync()
        while next(events) != Remaining(0):
            pass


def test_is_read_only(stopped: Stopped, tmp_path: Path) -> None:
    """It is the filesystem that counts, not the mount."""
    fd = os.open(stopped.fs.mountpoint, os.O_RDONLY)
    try:
        assert not is_read_only(fd)
        stopped.fs.remount("ro")
        assert is_read_only(fd)
        stopped.fs.remount("rw")
        assert not is_read_only(fd)
    finally:
        os.close(fd)
    support.run("mount", "--bind", stopped.fs.mountpoint, tmp_path)
    try:
        support.run("mount", "-o", "remount,bind,ro", tmp_path)
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            assert os.fstatvfs(fd).f_flag & os.ST_RDONLY
            assert not is_read_only(fd)
        finally:
            os.close(fd)
    finally:
        support.run("umount", tmp_path)
