"""What FileSystem opens, and what it says where it cannot."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import btrfs
from btrfs import FileSystem
from btrfs.ctree import Key
from btrfs.errors import (
    BtrfsError,
    ItemNotFoundError,
    NotBtrfsError,
    NotMountedError,
    TreeNotFoundError,
    UnsupportedFeatureError,
)
from btrfs.source.descriptor import Descriptor
from tests import support


def test_folder_and_file_mean_the_filesystem_that_they_lie_on(
    mounted: support.LoopFilesystem,
) -> None:
    paths = list(mounted.mountpoint.rglob("*"))
    file = next(path for path in paths if stat.S_ISREG(path.lstat().st_mode))
    pipe = next(path for path in paths if stat.S_ISFIFO(path.lstat().st_mode))
    for target in (mounted.mountpoint, os.fspath(mounted.mountpoint), file, pipe):
        with FileSystem(target) as fs:
            assert fs.mounted
            assert fs.label == "atlas"
            assert fs.top_level().objectid == btrfs.ctree.FS_TREE_OBJECTID
            assert os.fstat(fs.fd)


def test_image_that_lies_on_a_btrfs_means_what_is_in_it(tmp_path: Path) -> None:
    image = support.stored_image("block-group-tree.img", tmp_path)
    with FileSystem(image) as fs:
        fsid = fs.fsid
    with support.filesystem(tmp_path / "outer") as outer:
        inner = shutil.copy(image, outer.mountpoint)
        with FileSystem(inner) as fs:
            assert not fs.mounted
            assert fs.fsid == fsid
        with FileSystem(inner, source="mounted") as fs:
            assert fs.mounted
            assert fs.fsid != fsid


def test_block_device_is_read_through_its_mount_point(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, metadata="raid1") as made:
        for target in (made.devices[1], made.devices):
            with FileSystem(target) as fs:
                assert fs.mounted
                assert fs.path == os.fspath(made.mountpoint)
        with FileSystem(made.devices[1], source="mounted") as fs:
            assert fs.mounted
        with FileSystem(made.devices[0], source="unmounted") as fs:
            assert not fs.mounted
            assert {fs.dev_info(devid).path for devid in (1, 2)} == set(made.devices)
        made.unmount()
        with FileSystem(made.devices[1]) as fs:
            assert not fs.mounted


def test_copy_of_a_mounted_device_is_not_mounted(tmp_path: Path) -> None:
    """It is the device that counts: the UUID in a copy's superblock is the same."""
    with support.filesystem(tmp_path / "fs") as made:
        made.sync()
        copies = made.copy_images(tmp_path / "copy")
        with support.attached_images(copies) as devices, FileSystem(devices[0]) as fs:
            assert not fs.mounted
            assert fs.dev_info(1).path == devices[0]


def test_members_are_found_in_any_order_and_beside_the_image(tmp_path: Path) -> None:
    with support.filesystem(tmp_path / "fs", devices=3, data="raid0", metadata="raid1") as made:
        support.populate(made.mountpoint)
        made.detach()
        first, second, third = made.images
        for targets in ([third, first, second], [second], second, [first, first, third]):
            with FileSystem(targets) as fs:
                assert sorted(device.devid for device in fs.devices()) == [1, 2, 3]
                assert fs.dev_info(3).path == os.fspath(third)
                assert list(fs.extents())
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        third.rename(elsewhere / third.name)
        with FileSystem(first) as fs:
            assert fs.notes == ["device 3 is missing"]
            assert fs.dev_info(3).path == ""
        with FileSystem([first, elsewhere / third.name]) as fs:
            assert list(fs.extents())


def test_copies_that_are_out_of_date_are_left_aside(tmp_path: Path) -> None:
    with support.filesystem(tmp_path / "fs", devices=2, data="raid0", metadata="raid1") as made:
        made.sync()
        first, second = made.images
        backup = first.with_name("a-backup.img")
        support.run("cp", "--sparse=always", second, backup)
        support.populate(made.mountpoint)
        made.detach()
        for targets in (first, [backup, first, second], [second, backup, first]):
            with FileSystem(targets) as fs:
                assert fs.dev_info(2).path == os.fspath(second)
                assert list(fs.extents())


def test_closing_twice_closes_nothing_else(mounted: support.LoopFilesystem) -> None:
    sample = support.DATA / "block-group-tree.btrfs-image"
    for target in (mounted.mountpoint, mounted.images[0], sample):
        with FileSystem(target) as fs:
            fs.close()
            with sample.open("rb") as other:
                fs.close()
                assert other.read(8)


CLOSED_BY_SCRIPT = """
import os, sys
import btrfs
fs = btrfs.FileSystem(sys.argv[1])
number = fs.fd
os.close(fs.fd)
other = os.open(sys.argv[2], os.O_RDONLY)
assert other == number, (other, number)
if sys.argv[3] == "del":
    del fs
else:
    fs.close()
    fs.close()
os.fstat(other)
print(os.read(other, 8) if os.path.isfile(sys.argv[2]) else os.listdir(other))
"""


@pytest.mark.parametrize("how", ["del", "close"])
@pytest.mark.parametrize("other", ["file", "the same folder"])
def test_number_that_a_script_closed_is_left_alone(
    mounted: support.LoopFilesystem, how: str, other: str
) -> None:
    """Another file has the number by then, be it one of the same device and inode."""
    path = mounted.mountpoint if other == "the same folder" else Path(__file__)
    done = subprocess.run(
        (sys.executable, "-c", CLOSED_BY_SCRIPT, mounted.mountpoint, path, how),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_number_that_a_script_did_not_close_is_closed(mounted: support.LoopFilesystem) -> None:
    """Else the filesystem could not be unmounted."""
    before = os.listdir("/proc/self/fd")
    with FileSystem(mounted.mountpoint) as fs:
        assert fs.fd == fs.fd
        number = fs.fd
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    dropped = FileSystem(mounted.mountpoint)
    assert os.fstat(dropped.fd)
    del dropped
    assert os.listdir("/proc/self/fd") == before


def test_reading_goes_on_after_a_script_closed_the_number(
    mounted: support.LoopFilesystem,
) -> None:
    with FileSystem(mounted.mountpoint) as fs:
        os.close(fs.fd)
        assert fs.top_level().objectid == btrfs.ctree.FS_TREE_OBJECTID


def test_file_that_took_over_the_own_number_stays_open(tmp_path: Path) -> None:
    """As after os.closerange(), which daemons call."""
    file = tmp_path / "file"
    file.write_text("content")
    descriptor = Descriptor(os.open(tmp_path, os.O_RDONLY))
    number = descriptor.fd
    os.close(number)
    with file.open() as other:
        assert other.fileno() == number
        descriptor.close()
        assert other.read() == "content"
    Descriptor(os.open(tmp_path, os.O_RDONLY)).close()


def test_repr_says_what_it_is(mounted: support.LoopFilesystem) -> None:
    with FileSystem(mounted.mountpoint) as fs:
        said = f"<btrfs.FileSystem '{mounted.mountpoint}' fsid {fs.fsid} mounted>"
        assert repr(fs) == said
    assert repr(fs) == said.replace("mounted>", "closed>")
    sample = support.DATA / "block-group-tree.btrfs-image"
    with FileSystem(sample) as fs:
        assert repr(fs) == f"<btrfs.FileSystem '{sample}' fsid {fs.fsid} not mounted>"


def test_closed_it_answers_nothing_but_what_was_wrong() -> None:
    with FileSystem(support.DATA / "block-group-tree.btrfs-image") as fs:
        found = fs.search(btrfs.ctree.ROOT_TREE_OBJECTID)
        next(found)
    assert (fs.damage, fs.lost, fs.notes, fs.damage_summary()) == ([], [], [], None)
    for call in (fs.top_level, fs.fs_info, fs.usage, lambda: fs.label, lambda: fs.fd):
        with pytest.raises(BtrfsError, match="the filesystem is closed"):
            call()


READS_UNMOUNTED = """
import sys
import btrfs
with btrfs.FileSystem(sys.argv[1], source="unmounted") as fs:
    opened = len([name for name in sys.modules if name.startswith("btrfs")])
    list(fs.search(btrfs.ctree.ROOT_TREE_OBJECTID))
    list(fs.batches(btrfs.ctree.EXTENT_TREE_OBJECTID))
    list(fs.block_groups())
    fs.usage(), fs.fs_info(), fs.dev_info(1), fs.dev_stats(1), fs.space_info(), fs.features()
    repr(fs), fs.label, fs.damage_summary()
print(opened, *[name for name in sys.modules if name.startswith("btrfs.ioctl")])
"""


@pytest.mark.parametrize("name", ["block-group-tree.img", "block-group-tree.btrfs-image"])
def test_unmounted_no_ioctl_is_imported(tmp_path: Path, name: str) -> None:
    """Nor many other modules, to open it."""
    target = support.stored_image(name, tmp_path)
    opened, *ioctls = support.run(sys.executable, "-c", READS_UNMOUNTED, target).split()
    assert ioctls == []
    assert int(opened) < 55


def test_different_filesystems_are_told_apart(tmp_path: Path) -> None:
    images = [
        support.stored_image(name, tmp_path)
        for name in ("block-group-tree.img", "simple-quota.img", "block-group-tree.btrfs-image")
    ]
    with pytest.raises(BtrfsError, match="belong to different filesystems"):
        FileSystem(images[:2])
    with pytest.raises(BtrfsError, match="is a dump made by btrfs-image"):
        FileSystem(images[1:])


def test_only_a_running_kernel_can(tmp_path: Path) -> None:
    image = support.stored_image("block-group-tree.img", tmp_path)
    with FileSystem(image) as fs:
        assert not hasattr(fs, "fd")
        for call in (fs.sync, lambda: fs.dev_stats(1, reset=True), lambda: fs.fd):
            with pytest.raises(NotMountedError) as caught:
                call()
            assert caught.value.hint
        assert fs.dev_stats(1).counters == dict.fromkeys(fs.dev_stats(1).counters, 0)


def test_what_is_not_there(tmp_path: Path) -> None:
    image = support.stored_image("block-group-tree.img", tmp_path)
    with FileSystem(image) as fs:
        with pytest.raises(TreeNotFoundError, match="no tree 99") as caught:
            list(fs.search(99))
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(ItemNotFoundError, match="No block group at vaddr 5"):
            fs.block_group(5)
        with pytest.raises(OSError, match="No such device") as device:
            fs.dev_info(7)
        assert device.value.errno == errno.ENODEV
        with pytest.raises(ValueError, match="FileExtentItem items are in several trees"):
            next(fs.columns(btrfs.ctree.FileExtentItem))
        with pytest.raises(ValueError, match="UnknownItem stands for no type of key"):
            next(fs.columns(btrfs.ctree.UnknownItem))


def test_what_is_not_there_mounted(mounted: support.LoopFilesystem) -> None:
    with FileSystem(mounted.mountpoint) as fs:
        with pytest.raises(FileNotFoundError):
            list(fs.search(99))
        with pytest.raises(ItemNotFoundError):
            fs.block_group(5)
        with pytest.raises(OSError, match="No such device"):
            fs.dev_info(7)


def test_counters_are_reset(tmp_path: Path) -> None:
    with support.filesystem(tmp_path) as made, FileSystem(made.mountpoint) as fs:
        fs.sync()
        assert fs.dev_stats(1, reset=True).write_errs == 0


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\0" * (1 << 20)])
def test_what_is_no_btrfs(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    for target in (file, tmp_path):
        with pytest.raises(NotBtrfsError) as caught:
            FileSystem(target)
        assert caught.value.hint
    with pytest.raises(NotBtrfsError, match="holds no btrfs"):
        FileSystem(file, source="unmounted")


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileSystem(tmp_path / "nothing")
    with pytest.raises(ValueError, match="nothing to open"):
        FileSystem([])
    with pytest.raises(ValueError, match="must be 'auto'"):
        FileSystem(tmp_path, source="both")  # type: ignore[arg-type]


def test_unknown_features_are_refused_by_name(tmp_path: Path) -> None:
    image = support.stored_image("extent-tree-v2.img", tmp_path)
    with pytest.raises(UnsupportedFeatureError, match="extent_tree_v2") as caught:
        FileSystem(image)
    assert caught.value.hint


def test_ranges_of_addresses(mounted: support.LoopFilesystem) -> None:
    with FileSystem(mounted.mountpoint) as fs:
        chunks = list(fs.chunks())
        middle = chunks[1].vaddr
        assert [chunk.vaddr for chunk in fs.chunks(min_vaddr=middle, max_vaddr=middle)] == [middle]
        assert [chunk.vaddr for chunk in fs.chunks(nr_items=1)] == [chunks[0].vaddr]
        assert [group.vaddr for group in fs.block_groups(middle)] == [
            chunk.vaddr for chunk in chunks[1:]
        ]
        assert len(list(fs.block_groups(nr_items=2))) == 2
        extents = [extent.vaddr for extent in fs.extents()]
        assert [extent.vaddr for extent in fs.extents(extents[3], extents[5])] == extents[3:6]
        ids = [root.objectid for root in fs.subvolumes()]
        assert [root.objectid for root in fs.subvolumes(ids[1], ids[-1])] == ids[1:]
        key = Key(ids[0], btrfs.ctree.ROOT_ITEM_KEY, 0)
        assert next(fs.search(btrfs.ctree.ROOT_TREE_OBJECTID, key)).key.objectid == ids[0]


def test_separate_references_join_the_inline_ones(mounted: support.LoopFilesystem) -> None:
    with FileSystem(mounted.mountpoint) as fs:
        shared = 0
        for extent in fs.extents(load_data_refs=True, load_metadata_refs=True):
            refs = getattr(extent, "extent_data_refs", []) + getattr(extent, "shared_data_refs", [])
            if refs:
                assert sum(ref.count for ref in refs) == extent.refs
                shared = max(shared, len(refs))
        assert shared > 10
        assert not hasattr(next(fs.extents()), "extent_data_refs")
