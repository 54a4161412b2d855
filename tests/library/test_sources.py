"""Mounted and unmounted, a filesystem holds the same: key by key and byte by byte."""

from __future__ import annotations

from pathlib import Path

import pytest

import btrfs
from btrfs import FileSystem
from tests import support
from tests.library.reading import Items, all_batches, all_items, answers, free_space, searched


def assert_same_mounted(fs: support.LoopFilesystem) -> None:
    """Compare what is read from the images with what the kernel says of a read-only mount."""
    fs.unmount()
    with FileSystem(fs.images) as unmounted:
        assert not unmounted.mounted
        items = all_items(unmounted)
        batches = all_batches(unmounted)
        said = answers(unmounted)
    assert batches == items
    fs.mount("ro")
    with FileSystem(fs.mountpoint) as mounted:
        assert mounted.mounted
        assert all_items(mounted) == items
        assert all_batches(mounted) == items
        assert answers(mounted) == said


@pytest.mark.parametrize("csum", support.CSUMS)
@pytest.mark.parametrize("layout", support.LAYOUTS, ids=lambda layout: layout.name)
def test_profile_and_checksum(tmp_path: Path, layout: support.Layout, csum: str) -> None:
    options = layout.options | {"csum": csum}
    with support.filesystem(tmp_path, **options) as fs:
        support.populate(fs.mountpoint)
        assert_same_mounted(fs)


@pytest.mark.parametrize("nodesize", support.NODESIZES)
def test_nodesize(tmp_path: Path, nodesize: int) -> None:
    with support.filesystem(tmp_path, nodesize=nodesize) as fs:
        support.populate(fs.mountpoint)
        assert_same_mounted(fs)


@pytest.mark.parametrize(
    "features",
    [
        ("^skinny-metadata",),
        ("^no-holes",),
        ("^extref",),
        ("free-space-tree",),
        ("^free-space-tree",),
    ],
    ids="".join,
)
def test_feature(tmp_path: Path, features: tuple[str, ...]) -> None:
    with support.filesystem(tmp_path, features=features) as fs:
        support.populate(fs.mountpoint)
        assert_same_mounted(fs)


@pytest.mark.parametrize("option", ["-m", "-M0f3c2d51-6d0a-4f0e-9f5c-0b6d2f4e8a17"])
def test_metadata_uuid(tmp_path: Path, option: str) -> None:
    with support.filesystem(tmp_path) as fs:
        support.populate(fs.mountpoint)
        fs.unmount()
        fs.tune(option)
        with FileSystem(fs.images) as unmounted:
            assert unmounted.fs_info().metadata_uuid != unmounted.fsid
        assert_same_mounted(fs)


def test_free_space_bitmaps(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, features=("free-space-tree",)) as fs:
        support.populate(fs.mountpoint)
        fs.unmount()
        with FileSystem(fs.images) as unmounted:
            ranges = free_space(unmounted)
            flags = [str(item) for item in unmounted.search(10) if "flags bitmaps" in str(item)]
        assert flags
        fs.mount("ro")
        with FileSystem(fs.mountpoint) as mounted:
            assert free_space(mounted) == ranges
            ours = {(start, start + length) for start, length in ranges}
        assert_gaps_between_extents(fs.images, ours)


def assert_gaps_between_extents(images: list[Path], ranges: set[tuple[int, int]]) -> None:
    """What is free is what no extent uses, block group by block group."""
    with FileSystem(images) as fs:
        gaps = set()
        # mkfs.btrfs leaves the entries of its first block groups behind when it removes these.
        ranges = {
            (start, end)
            for start, end in ranges
            if any(0 <= start - group.vaddr < group.length for group in fs.block_groups())
        }
        for block_group in fs.block_groups():
            end = block_group.vaddr + block_group.length
            free_from = block_group.vaddr
            for extent in fs.extents(block_group.vaddr, end - 1):
                if extent.vaddr > free_from:
                    gaps.add((free_from, extent.vaddr))
                free_from = extent.vaddr + getattr(extent, "length", fs.nodesize)
            if free_from < end:
                gaps.add((free_from, end))
    assert _joined(ranges) == _joined(gaps)


def _joined(ranges: set[tuple[int, int]]) -> list[list[int]]:
    """Join ranges that touch: a bitmap ends where the next begins."""
    joined: list[list[int]] = []
    for start, end in sorted(ranges):
        if joined and joined[-1][1] == start:
            joined[-1][1] = end
        else:
            joined.append([start, end])
    return joined


@pytest.mark.parametrize("compression", [0, 9])
def test_dump(tmp_path: Path, compression: int) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid0", metadata="raid1") as fs:
        support.populate(fs.mountpoint)
        fs.unmount()
        dump = fs.dump(tmp_path / "dump", compression)
        with FileSystem(fs.images) as images, FileSystem(dump) as dumped:
            assert_same_dumped(images, dumped)
            assert answers(dumped) == answers(images)


def test_default_subvolume(tmp_path: Path) -> None:
    """Tree 0 is the subvolume that the path is in: unmounted, the one that a mount would show."""
    with support.filesystem(tmp_path) as fs:
        support.populate(fs.mountpoint)
        with FileSystem(fs.mountpoint) as mounted:
            newest = list(mounted.subvolumes())[-1].objectid
        fs.btrfs("subvolume", "set-default", str(newest), fs.mountpoint)
        fs.unmount()
        with FileSystem(fs.images) as unmounted:
            items = searched(unmounted, 0)
            assert items == searched(unmounted, newest)
        fs.mount("ro")
        with FileSystem(fs.mountpoint) as mounted:
            assert searched(mounted, 0) == items


def assert_same_dumped(fs: FileSystem, dumped: FileSystem) -> None:
    """btrfs-image overwrites the content of inline extents with zeros, and nothing else."""
    items, dumped_items = all_items(fs), all_items(dumped)
    assert without_inline_content(dumped_items) == without_inline_content(items)
    assert all_batches(dumped) == dumped_items


def without_inline_content(items: dict[int, Items]) -> dict[int, Items]:
    """Cut the bodies of file extent items off after the struct that inline ones begin with."""
    return {
        tree: [
            (header, body[:21] if header[3] == btrfs.ctree.EXTENT_DATA_KEY else body)
            for header, body in found
        ]
        for tree, found in items.items()
    }


@pytest.mark.parametrize("name", ["block-group-tree.img", "simple-quota.img"])
def test_stored_image(tmp_path: Path, name: str) -> None:
    support.require_root()
    image = support.stored_image(name, tmp_path)
    with support.mounted_images([image], tmp_path / "mnt", "ro") as fs:
        assert_same_mounted(fs)


@pytest.mark.parametrize("name", ["block-group-tree", "simple-quota"])
def test_stored_dump(tmp_path: Path, name: str) -> None:
    image = support.stored_image(f"{name}.img", tmp_path)
    dump = support.stored_image(f"{name}.btrfs-image", tmp_path)
    with FileSystem(image) as fs, FileSystem(dump) as dumped:
        assert_same_dumped(fs, dumped)


def test_raid_stripe_tree(tmp_path: Path) -> None:
    """The kernels of most machines do not mount it, but it is read."""
    image = support.stored_image("raid-stripe-tree.img", tmp_path)
    with FileSystem(image) as fs:
        items = all_items(fs)
        assert btrfs.ctree.RAID_STRIPE_TREE_OBJECTID in items
        assert all_batches(fs) == items
        used = sum(block_group.used for block_group in fs.block_groups())
        assert used == sum(getattr(item, "length", fs.nodesize) for item in fs.extents())


def test_unfinished_balance_and_orphans(tmp_path: Path) -> None:
    """What a crash leaves is read too, and without the log tree that a mount would replay."""
    with support.filesystem(tmp_path / "fs", size="2G") as fs:
        support.populate(fs.mountpoint)
        assert support.pause_balance(fs.mountpoint)
        with support.orphan(fs.mountpoint / "deleted"):
            fs.sync()
            images = fs.copy_images(tmp_path / "copy")
        fs.detach()
        with FileSystem(images) as copy:
            items = all_items(copy)
            assert all_batches(copy) == items
            balance = copy.search(1, btrfs.ctree.Key(btrfs.ctree.BALANCE_OBJECTID, 0, 0))
            assert isinstance(next(balance), btrfs.ctree.BalanceItem)
        with (
            support.mounted_images(
                images, tmp_path / "mnt", "ro,skip_balance,rescue=nologreplay"
            ) as mounted,
            FileSystem(mounted.mountpoint) as kernel,
        ):
            assert all_items(kernel) == items
