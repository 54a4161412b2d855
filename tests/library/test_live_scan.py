"""Scans of a mounted filesystem: its last commit, also while it is written to."""

from __future__ import annotations

import contextlib
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from btrfs import FileSystem
from btrfs.ondisk.constants import (
    FS_TREE_OBJECTID,
    ROOT_ITEM_KEY,
    ROOT_TREE_OBJECTID,
    TREE_RELOC_OBJECTID,
)
from btrfs.ownership import Ownership, scan
from btrfs.ownership.owners import Kind
from tests import support
from tests.lab.commands import CommandError
from tests.lab.lies import ItemKey, Liar
from tests.lab.sharing import share_space


def numbers(owned: Ownership) -> dict[int, tuple[int, int, int, int]]:
    """Return what is compared of each subvolume."""
    return {
        one.id: (*one.referenced, *one.exclusive)
        for one in owned.subvolumes()
        if not one.is_deleted
    }


@pytest.fixture(scope="module")
def fs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    folder = tmp_path_factory.mktemp("live")
    with support.filesystem(
        folder, devices=2, size="6G", metadata="raid1", data="single", nodesize=4096
    ) as made:
        share_space(made.mountpoint)
        yield made


def test_as_unmounted(fs: support.LoopFilesystem, tmp_path: Path) -> None:
    with FileSystem(fs.mountpoint, source="devices") as live:
        found = scan(live)
    with FileSystem(fs.copy_images(tmp_path)) as copy:
        expected = scan(copy)
    assert found.generation == expected.generation
    assert numbers(found) == numbers(expected)
    assert found.unexplained == 0


class Writers:
    """Three that write, delete and overwrite, one that makes snapshots, and a balance."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stop = threading.Event()
        jobs = [self._write, self._write, self._write, self._snapshot, self._balance]
        self._threads = [
            threading.Thread(target=job, args=(number,)) for number, job in enumerate(jobs)
        ]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _write(self, number: int) -> None:
        choose = random.Random(number)
        folder = self._root / "home" / f"written{number}"
        folder.mkdir(exist_ok=True)
        while not self._stop.is_set():
            file = folder / str(choose.randrange(300))
            if choose.random() < 0.2:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(choose.randbytes(choose.randrange(1, 40_000)))

    def _snapshot(self, number: int) -> None:
        count = 0
        while not self._stop.wait(0.3):
            name = self._root / f"made{number}-{count}"
            support.run("btrfs", "subvolume", "snapshot", self._root / "home", name)
            if count > 3:
                old = self._root / f"made{number}-{count - 3}"
                support.run("btrfs", "subvolume", "delete", old)
            count += 1

    def _balance(self, _number: int) -> None:
        while not self._stop.wait(0.1):
            with contextlib.suppress(CommandError):
                support.run("btrfs", "balance", "start", "-musage=90", "-dusage=90", self._root)


@contextlib.contextmanager
def frozen(root: Path) -> Iterator[None]:
    """Stop all writing, with everything committed."""
    subprocess.run(["fsfreeze", "--freeze", root], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", root], check=True)


def test_while_it_is_written_to(fs: support.LoopFilesystem) -> None:
    """The bytes in block groups are those of the same commit, so nothing may be unexplained."""
    with Writers(fs.mountpoint):
        for _ in range(8):
            with FileSystem(fs.mountpoint, source="devices") as live:
                before = live.fs_info().generation
                owned = scan(live)
                assert owned.generation >= before
                assert owned.unexplained == 0
                assert owned.is_complete
                assert live.damage_summary() is None


def test_numbers_of_the_commit_that_is_named(fs: support.LoopFilesystem, tmp_path: Path) -> None:
    with Writers(fs.mountpoint):
        time.sleep(1)
        with frozen(fs.mountpoint):
            with FileSystem(fs.mountpoint, source="devices") as live:
                last = scan(live)
            images = fs.copy_images(tmp_path)
    with FileSystem(images) as copy:
        expected = scan(copy)
    assert last.generation == expected.generation
    assert numbers(last) == numbers(expected)
    assert last.unexplained == expected.unexplained == 0


def test_trees_of_a_balance_own_only_what_nothing_else_does(tmp_path: Path) -> None:
    """While a balance merges, its tree still has blocks that are of the subvolume already."""
    with support.filesystem(tmp_path) as fs:
        for number in range(200):
            (fs.mountpoint / f"file{number}").write_bytes(b"x" * 1500)
    with FileSystem(fs.images) as image:
        expected = numbers(scan(image, names=False))
    liar = Liar(fs.images)
    (root,) = liar.keys(ROOT_TREE_OBJECTID, ROOT_ITEM_KEY, FS_TREE_OBJECTID)
    moved = ItemKey(TREE_RELOC_OBJECTID, ROOT_ITEM_KEY, FS_TREE_OBJECTID)
    liar.insert(ROOT_TREE_OBJECTID, moved, liar.body(ROOT_TREE_OBJECTID, root))
    with FileSystem(fs.images) as image:
        owned = scan(image, names=False)
    assert [owner.kind for owner in owned.tables.owners].count(Kind.RELOCATION) == 1
    assert numbers(owned) == expected


def test_goes_on_with_what_it_knows(tmp_path: Path) -> None:
    """When blocks are overwritten in the middle of a scan, it reads only those that are new."""
    calls: list[tuple[int, int]] = []
    with support.filesystem(tmp_path, nodesize=4096, metadata="dup") as fs:
        files = [fs.mountpoint / f"file{number}" for number in range(800)]
        for file in files:
            # Inline, so there are many leaves.
            file.write_bytes(b"x" * 2000)
        fs.sync()

        def change(done: int, total: int) -> None:
            calls.append((done, total))
            if len(calls) == 30:
                for file in files[::16]:
                    file.write_bytes(b"y" * 2000)
                fs.sync()
                # What was in blocks that are free now reads as zeros.
                support.run("fstrim", fs.mountpoint)

        with (
            mock.patch("btrfs.ownership.graph._BATCH_BYTES", 8 * 4096),
            FileSystem(fs.mountpoint, source="devices") as live,
        ):
            begun = live.fs_info().generation
            owned = scan(live, progress=change)
            assert live.damage_summary() is None
        with FileSystem(fs.copy_images(tmp_path / "copy")) as copy:
            expected = scan(copy)
    assert begun < owned.generation == expected.generation
    assert numbers(owned) == numbers(expected)
    assert owned.unexplained == 0
    (again,) = (index for index in range(1, len(calls)) if calls[index][0] < calls[index - 1][0])
    known, total = calls[again]
    assert total // 5 < known < calls[again - 1][0]
