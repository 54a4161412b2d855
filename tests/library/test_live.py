"""A mounted filesystem read from its devices: as the kernel says, also while it changes."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from btrfs import FileSystem, check
from btrfs.errors import BtrfsError, CorruptError, NotBtrfsError, StaleError, TreeNotFoundError
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.constants import (
    CHUNK_TREE_OBJECTID,
    EXTENT_TREE_OBJECTID,
    FS_TREE_OBJECTID,
    SUPER_MIRRORS,
)
from btrfs.ondisk.items.base import ItemData
from btrfs.ondisk.key import Key
from btrfs.ownership import backrefs
from btrfs.source.disk.node import Pointer
from btrfs.source.disk.tree import TreeReader
from btrfs.source.live.devices import LiveDevice
from btrfs.source.live.source import LiveSource
from btrfs_atlas import cli
from btrfs_atlas.explorer.atlas import Atlas
from tests import support
from tests.library.reading import (
    all_batches,
    all_items,
    answers,
    leaves,
    read_in_bulk,
    searched,
    trees,
)
from tests.support import programs

FIRST, LAST = Key(0, 0, 0), Key(-1, -1, -1)
SECONDS_OF_WRITING = 4
NOBODY = 65534

Search = Callable[[int], Iterator[ItemData | ItemBatch]]


def live(fs: support.LoopFilesystem, **options: Any) -> FileSystem:
    return FileSystem(fs.mountpoint, source="devices", **options)


def source_of(fs: FileSystem) -> LiveSource:
    source = fs.block_source()
    assert isinstance(source, LiveSource)
    return source


@pytest.fixture
def small(tmp_path: Path) -> Iterator[support.LoopFilesystem]:
    """A filesystem of small blocks, so that its trees have some levels."""
    with support.filesystem(tmp_path, nodesize=4096, metadata="dup") as fs:
        write_files(fs.mountpoint / "files", 500)
        fs.sync()
        yield fs


def write_files(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"file{number}").write_bytes(os.urandom(3000))


def rewrite_metadata(fs: support.LoopFilesystem) -> None:
    """Have all tree blocks written to other places, and what was in their old ones discarded."""
    fs.btrfs("balance", "start", "-m", "-s", "-f", fs.mountpoint)
    fs.sync()
    support.run("fstrim", fs.mountpoint)


# The same as others say.


def assert_same_as_others(fs: support.LoopFilesystem) -> None:
    fs.sync()
    assert_same_mounted(fs)
    fs.unmount()
    with FileSystem(fs.images) as unmounted:
        items = all_items(unmounted)
    fs.mount("ro")
    assert assert_same_mounted(fs) == items


def assert_same_mounted(fs: support.LoopFilesystem) -> object:
    with live(fs) as devices, FileSystem(fs.mountpoint) as kernel:
        assert devices.mounted
        items = all_items(devices)
        assert all_batches(devices) == items
        assert all_items(kernel) == items
        # The kernel tells the number of the running transaction.
        said = answers(devices) | {"fs_info": None}
        assert said == answers(kernel) | {"fs_info": None}
        assert devices.damage_summary() is None
    return items


@pytest.mark.parametrize("layout", support.LAYOUTS, ids=lambda layout: layout.name)
def test_profile(tmp_path: Path, layout: support.Layout) -> None:
    with support.filesystem(tmp_path, **layout.options) as fs:
        support.populate(fs.mountpoint)
        assert_same_as_others(fs)


@pytest.mark.parametrize("csum", support.CSUMS)
def test_checksum(tmp_path: Path, csum: str) -> None:
    with support.filesystem(tmp_path, csum=csum, nodesize=65536) as fs:
        support.populate(fs.mountpoint)
        assert_same_as_others(fs)


@pytest.mark.parametrize("profile", ["raid1", "raid5", "raid6", "raid10"])
def test_missing_device(tmp_path: Path, profile: str) -> None:
    with support.filesystem(tmp_path, devices=4, data=profile, metadata=profile) as fs:
        support.populate(fs.mountpoint)
        fs.detach()
        del fs.images[1]
        fs.mount("degraded")
        write_files(fs.mountpoint / "more", 100)
        with live(fs) as devices, FileSystem(fs.mountpoint) as kernel:
            devices.sync()
            items = all_items(kernel)
            assert all_items(devices) == items
            assert all_batches(devices) == items
            assert devices.notes == ["device 2 is missing"]
            assert devices.damage == []
            assert devices.dev_info(2).path == ""


def test_what_can_be_named(small: support.LoopFilesystem) -> None:
    file = small.mountpoint / "files" / "file1"
    for target in (small.mountpoint, file, small.devices[0]):
        with FileSystem(target, source="devices") as fs:
            assert fs.mounted
            assert os.fstat(fs.fd).st_dev == os.stat(file).st_dev
    with pytest.raises(NotBtrfsError, match="is not on a btrfs"):
        FileSystem("/proc", source="devices")
    with pytest.raises(BtrfsError, match="only its current state is shown"):
        live(small, backup_root=0)


def test_tree_of_the_path(small: support.LoopFilesystem) -> None:
    subvolume = small.mountpoint / "subvolume"
    small.btrfs("subvolume", "create", subvolume)
    small.sync()
    with FileSystem(subvolume, source="devices") as fs:
        (root,) = fs.subvolumes()
        assert searched(fs, 0) == searched(fs, root.objectid)
        found = [str(item) for item in fs.search_root(root)]
        assert found == [str(item) for item in fs.search(root.objectid)]


def test_owners_of_blocks(small: support.LoopFilesystem) -> None:
    """The kernel shows no blocks, and cannot tell all trees that share one."""
    small.btrfs("subvolume", "snapshot", small.mountpoint, small.mountpoint / "snapshot")
    small.sync()
    with live(small) as fs:
        (snapshot,) = fs.subvolumes()
        leaf = leaves(fs, FS_TREE_OBJECTID)[3]
        found = backrefs.owners(fs, leaf.vaddr)
    assert found.trees == [FS_TREE_OBJECTID, snapshot.objectid]
    assert found.complete


def test_no_log_trees(small: support.LoopFilesystem) -> None:
    """They are of the running transaction, and no sign of a crash."""
    with (small.mountpoint / "synced").open("wb") as file:
        file.write(b"synced")
        file.flush()
        os.fsync(file.fileno())
    with FileSystem(small.devices, source="unmounted") as fs:
        assert any("not cleanly unmounted" in note for note in fs.notes)
    with live(small) as fs:
        assert list(fs.log_trees()) == []
        assert fs.notes == []


def test_check_refuses(small: support.LoopFilesystem) -> None:
    with live(small, on_error="skip") as fs, pytest.raises(BtrfsError, match="is mounted"):
        check.check(fs)


def test_programs(small: support.LoopFilesystem, capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for source in ("devices", "mounted"):
        words = ("--source", source, "dump", "-t", "extent", small.mountpoint)
        assert programs.run_here(cli.search, *words) == 0
        printed.append(capsys.readouterr())
    assert printed[0] == printed[1]
    assert printed[0].out


def test_explorer_follows_commits(small: support.LoopFilesystem) -> None:
    with Atlas([str(small.mountpoint)], source="devices") as atlas:
        assert atlas.refresh() is None
        write_files(small.mountpoint / "more", 10)
        small.sync()
        changes = atlas.refresh()
        assert changes is not None
        assert changes.groups


def test_closed(small: support.LoopFilesystem) -> None:
    fs = live(small)
    source = source_of(fs)
    root, begun = source.root(FS_TREE_OBJECTID), fs.batches(FS_TREE_OBJECTID)
    fs.close()
    fs.close()
    for ask in (
        lambda: next(begun),
        source.is_stale,
        source.refresh,
        lambda: source.read_block(root._replace(vaddr=1 << 20)),
        lambda: list(source.search(FS_TREE_OBJECTID, FIRST, LAST)),
    ):
        with pytest.raises(BtrfsError):
            ask()


# New commits.


def test_refresh(small: support.LoopFilesystem) -> None:
    with live(small) as fs:
        before = fs.fs_info().generation
        items = all_items(fs)
        assert not fs.source.is_stale()
        assert not fs.refresh()
        (small.mountpoint / "new").write_bytes(b"new")
        small.sync()
        assert fs.source.is_stale()
        assert fs.fs_info().generation == before
        assert fs.refresh()
        assert fs.fs_info().generation == source_of(fs).superblock.generation > before
        assert not fs.source.is_stale()
        assert not fs.refresh()
        with FileSystem(small.mountpoint) as kernel:
            assert all_items(fs) == all_items(kernel) != items


def test_sync_shows_what_it_commits(small: support.LoopFilesystem) -> None:
    with live(small) as fs:
        subvolume = small.mountpoint / "subvolume"
        small.btrfs("subvolume", "create", subvolume)
        fs.sync()
        assert len(list(fs.subvolumes())) == 1


def test_what_is_not_mounted_has_no_newer_commit(image: Path) -> None:
    with FileSystem(image) as fs:
        assert not fs.source.is_stale()
        assert not fs.refresh()


def test_stale_page_cache(small: support.LoopFilesystem) -> None:
    """What was read from a device through the cache stays there, whatever is on the device."""
    with open(small.devices[0], "rb") as device:
        with FileSystem(small.devices, source="unmounted") as cached:
            items = all_items(cached)
        device.seek(SUPER_MIRRORS[0])
        superblock = device.read(4096)
        (small.mountpoint / "new").write_bytes(b"new")
        small.sync()
        with live(small) as fs, FileSystem(small.mountpoint) as kernel:
            assert all_items(fs) == all_items(kernel) != items
            device.seek(SUPER_MIRRORS[0])
            if device.read(4096) == superblock:
                generation = int.from_bytes(superblock[0x48:0x50], "little")
                assert fs.fs_info().generation > generation


def test_blocks_that_are_gone(small: support.LoopFilesystem) -> None:
    """They are called stale, by trees of before and not of now, and not damaged."""
    with live(small, on_error="skip") as fs:
        source = source_of(fs)
        before = source.trees
        old = leaves(fs, FS_TREE_OBJECTID)[20:]
        rewrite_metadata(small)
        assert source.is_stale()
        assert_gone(before, old)
        assert fs.refresh()
        assert before is not source.trees
        assert before.store.is_stale()
        assert not source.trees.store.is_stale()
        assert_gone(before, old)
        assert fs.damage_summary() is None


def assert_gone(reader: TreeReader, pointers: list[Pointer]) -> None:
    for pointer in pointers:
        with pytest.raises(StaleError, match="was overwritten") as raised:
            reader.read(pointer)
        assert raised.value.hint


@pytest.mark.parametrize("in_bulk", [False, True], ids=["search", "batches"])
def test_search_goes_on_from_the_new_commit(small: support.LoopFilesystem, in_bulk: bool) -> None:
    with live(small) as fs, mock.patch("btrfs.source.disk.bulk.BATCH_BYTES", 8 * fs.nodesize):
        before = set(keys(fs, FS_TREE_OBJECTID))
        search: Search = fs.batches if in_bulk else fs.search
        found = search(FS_TREE_OBJECTID)
        seen = keys_of(next(found))
        generation = fs.fs_info().generation
        write_files(small.mountpoint / "more", 20)
        rewrite_metadata(small)
        for part in found:
            seen += keys_of(part)
        assert fs.fs_info().generation > generation
        assert fs.damage_summary() is None
        assert seen == sorted(set(seen))
        now = set(keys(fs, FS_TREE_OBJECTID))
        assert before <= set(seen) <= before | now
        # New files are at the end.
        assert max(now) == seen[-1] > max(before)


def keys(fs: FileSystem, tree: int) -> list[int]:
    return [item.key.key for item in fs.search(tree)]


def keys_of(found: ItemData | ItemBatch) -> list[int]:
    if isinstance(found, ItemData):
        return [found.key.key]
    return [found.key(index).key for index in range(len(found))]


def test_a_second_copy_that_is_mounted(small: support.LoopFilesystem, tmp_path: Path) -> None:
    """The kernel (since 6.7) gives it an fsid of its own, which its superblock does not have."""
    images = small.copy_images(tmp_path / "copy")
    with (
        support.mounted_images(images, tmp_path / "second") as other,
        live(small) as one,
        live(other) as second,
    ):
        assert all_items(second) == all_items(one)


def test_tree_that_is_deleted_meanwhile(small: support.LoopFilesystem) -> None:
    snapshot = small.mountpoint / "snapshot"
    small.btrfs("subvolume", "snapshot", small.mountpoint, snapshot)
    small.sync()
    with live(small) as fs:
        (root,) = fs.subvolumes()
        found = fs.search(root.objectid)
        next(found)
        small.btrfs("subvolume", "delete", "--commit-after", snapshot)
        small.btrfs("subvolume", "sync", small.mountpoint)
        rewrite_metadata(small)
        with pytest.raises(TreeNotFoundError):
            list(found)
        assert fs.damage_summary() is None


def test_end_although_it_is_always_stale(small: support.LoopFilesystem) -> None:
    with live(small) as fs:
        error = StaleError("gone")
        with (
            mock.patch("btrfs.source.disk.tree.TreeReader.items", side_effect=error),
            pytest.raises(StaleError, match="faster than it can be read"),
        ):
            list(fs.search(CHUNK_TREE_OBJECTID))


def test_devices_and_chunks_change(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid1", metadata="raid1") as fs:
        support.populate(fs.mountpoint)
        with live(fs) as devices:

            def assert_seen(paths: list[str]) -> None:
                devices.sync()
                assert [devices.dev_info(dev.devid).path for dev in devices.devices()] == paths
                assert [device.path for device in source_of(devices).devices.values()] == paths
                with FileSystem(fs.mountpoint) as kernel:
                    assert all_items(devices) == all_items(kernel)
                assert devices.damage_summary() is None

            added = fs.add_image("1G")
            fs.btrfs("device", "add", added, fs.mountpoint)
            fs.btrfs("balance", "start", "--full-balance", fs.mountpoint)
            assert_seen(fs.devices)
            fs.replace(1, "1G")
            assert_seen(fs.devices)
            fs.btrfs("device", "remove", added, fs.mountpoint)
            assert_seen(fs.devices[:2])


# While it is written to.


@contextlib.contextmanager
def writing(fs: support.LoopFilesystem) -> Iterator[None]:
    """Let three writers, snapshots and a balance run, with many commits a second."""

    def snapshot(number: int) -> None:
        fs.btrfs("subvolume", "snapshot", fs.mountpoint, fs.mountpoint / f"snapshot{number}")
        if number >= 3:
            fs.btrfs("subvolume", "delete", fs.mountpoint / f"snapshot{number - 3}")
        time.sleep(0.1)

    def commit(_number: int) -> None:
        fs.sync()
        time.sleep(0.01)

    def balance(_number: int) -> None:
        words = ["btrfs", "balance", "start", "-d", "-m", "-s", "-f", str(fs.mountpoint)]
        # It fails where a snapshot is deleted at the wrong moment.
        subprocess.run(words, check=False, capture_output=True)

    writers = [writer(fs.mountpoint / f"writer{seed}", random.Random(seed)) for seed in range(3)]
    stop = threading.Event()
    with ThreadPoolExecutor() as pool:
        running = [
            pool.submit(repeat, step, stop) for step in (*writers, snapshot, commit, balance)
        ]
        try:
            yield
        finally:
            stop.set()
        for done in running:
            done.result()


def repeat(step: Callable[[int], None], stop: threading.Event) -> None:
    for number in count():
        if stop.is_set():
            return
        step(number)


def writer(folder: Path, choose: random.Random) -> Callable[[int], None]:
    """Return what writes or deletes a file at each call."""
    folder.mkdir()

    def write(_number: int) -> None:
        path = folder / str(choose.randrange(1000))
        if choose.random() < 0.3:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(os.urandom(choose.choice([100, 3000, 20000])))

    return write


@pytest.mark.parametrize(
    "options",
    [
        {"nodesize": 4096, "metadata": "dup"},
        {"devices": 2, "data": "raid1", "metadata": "raid1"},
        {"devices": 3, "data": "raid5", "metadata": "raid5"},
    ],
    ids=lambda options: options["metadata"],
)
def test_while_it_is_written_to(tmp_path: Path, options: support.Options) -> None:
    # Where there is little room, a balance ends in an error that makes the filesystem read-only.
    options["size"] = "4G"
    with support.filesystem(tmp_path, **options) as fs:
        support.populate(fs.mountpoint)
        with writing(fs), live(fs) as devices:
            generation = devices.fs_info().generation
            end = time.monotonic() + SECONDS_OF_WRITING
            while time.monotonic() < end:
                for tree in trees(devices):
                    with contextlib.suppress(TreeNotFoundError):
                        assert_ascending(searched(devices, tree))
                        assert_ascending(read_in_bulk(devices, tree))
                assert list(devices.chunks())
                assert list(devices.block_groups())
                assert devices.space_info()
                for _extent in devices.extents(load_data_refs=True):
                    pass
                devices.refresh()
                assert devices.damage_summary() is None
            assert devices.fs_info().generation > generation + 10
        fs.unmount()
        fs.mount("ro")
        assert assert_same_mounted(fs)


def assert_ascending(items: list[tuple[tuple[int, ...], bytes]]) -> None:
    found = [(objectid, kind, offset) for (_, objectid, offset, kind, _), _ in items]
    assert found == sorted(set(found))


# What is wrong.


def test_damaged_copy(small: support.LoopFilesystem) -> None:
    """It is told, and the other copy serves; if both are damaged, that is an error."""
    with live(small) as fs:
        leaf = leaves(fs, FS_TREE_OBJECTID)[5]
        items = all_items(fs)
        copies = [copy.paddr for copy in source_of(fs).trees.store.read_copies(leaf.vaddr, 4096)]
    assert len(copies) == 2
    damage(small, copies[0])
    for read in (all_items, all_batches):
        with live(small) as fs:
            assert read(fs) == items
            (found,) = fs.damage
            assert (found.vaddr, found.paddr, found.recovered) == (leaf.vaddr, copies[0], True)
            assert found.device == small.devices[0]
    damage(small, copies[1])
    for search in (searched, read_in_bulk):
        with live(small) as fs, pytest.raises(CorruptError, match=f"block at {leaf.vaddr}"):
            search(fs, FS_TREE_OBJECTID)
        with live(small, on_error="skip") as fs:
            assert len(search(fs, FS_TREE_OBJECTID)) < len(items[FS_TREE_OBJECTID])
            assert [lost.tree for lost in fs.lost] == [FS_TREE_OBJECTID]


def damage(fs: support.LoopFilesystem, paddr: int) -> None:
    """Overwrite a block on the device itself, past all caches."""
    with open(fs.images[0], "r+b") as image:
        image.seek(paddr + 200)
        image.write(bytes(range(100)))
        image.flush()
        os.fsync(image.fileno())


def test_damaged_superblock(small: support.LoopFilesystem) -> None:
    damage(small, SUPER_MIRRORS[0] + 1000)
    with live(small) as fs:
        assert [found.paddr for found in fs.damage] == [SUPER_MIRRORS[0]]
        assert not fs.source.is_stale()
        small.btrfs("subvolume", "create", small.mountpoint / "subvolume")
        small.sync()
        assert fs.refresh()


def test_device_that_cannot_be_read_past_the_cache(small: support.LoopFilesystem) -> None:
    opened = os.open

    def refuse(path: str, flags: int, *others: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags, *others)

    with live(small) as fs:
        all_items(fs)
    with mock.patch("os.open", refuse):
        fs = live(small)
    with fs:
        write_files(small.mountpoint / "more", 100)
        fs.sync()
        with FileSystem(small.mountpoint) as kernel:
            assert all_batches(fs) == all_items(kernel)


def test_no_rights() -> None:
    support.require_root()
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        with support.filesystem(folder) as fs:
            read, write = os.pipe()
            child = os.fork()
            if not child:
                os.setgroups([])
                os.setuid(NOBODY)
                try:
                    live(fs)
                except BtrfsError as error:
                    os.write(write, f"{error}\n{error.hint}".encode())
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            text, hint = os.read(read, 4096).decode().split("\n")
            os.close(read)
            os.close(write)
            assert fs.devices[0] in text
            assert "root" in hint
    finally:
        shutil.rmtree(folder)


# Reading.


def test_any_address_and_length(small: support.LoopFilesystem) -> None:
    """What is not aligned is rounded, and cut to what was asked for."""
    small.unmount()
    with live_device(small) as device:
        content = small.images[0].read_bytes()
        for paddr, length in (
            (65536, 4096),
            (65599, 8),
            (4095, 2),
            (0, 1),
            (1 << 20, 100_000),
            (device.size - 10, 10),
        ):
            assert device.read(paddr, length) == content[paddr : paddr + length]
        assert device.read_up_to(device.size - 10, 50) == content[-10:]
        assert device.read_up_to(device.size, 5) == b""
        with pytest.raises(CorruptError, match="its end at"):
            device.read(device.size - 10, 50)


@contextlib.contextmanager
def live_device(fs: support.LoopFilesystem) -> Iterator[LiveDevice]:
    device = LiveDevice(fs.devices[0])
    try:
        yield device
    finally:
        device.close()


def test_many_blocks_in_any_order(small: support.LoopFilesystem) -> None:
    with live(small) as fs:
        store = source_of(fs).trees.store
        found = [leaf.vaddr for tree in trees(fs) for leaf in leaves(fs, tree)]
        random.Random(1).shuffle(found)
        unknown = 1 << 50
        vaddrs = np.array([*found, unknown, found[0], found[0]], np.int64)
        buffer, good = store.read_many(vaddrs, fs.nodesize)
        blocks = buffer.reshape(-1, fs.nodesize)
        for vaddr, block, is_good in zip(vaddrs.tolist(), blocks, good.tolist(), strict=True):
            assert is_good == (vaddr != unknown)
            if is_good:
                copy = next(iter(store.read_copies(vaddr, fs.nodesize)))
                assert block.tobytes() == copy.data
        buffer, good = store.read_many(np.array([], np.int64), fs.nodesize)
        assert not len(buffer)
        assert not len(good)


def test_fork(small: support.LoopFilesystem) -> None:
    """Threads that read are not there in a process that is forked off."""
    with live(small) as fs:
        found = len(read_in_bulk(fs, EXTENT_TREE_OBJECTID))
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                os._exit(len(read_in_bulk(fs, EXTENT_TREE_OBJECTID)) != found)
            os._exit(2)
        _, status = os.waitpid(child, 0)
        assert status == 0
