"""Who uses an extent: read from an unmounted filesystem, and told by the kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem, ioctl
from btrfs.ctree import ExtentItem, Key, MetaDataItem
from btrfs.errors import CorruptError, ItemNotFoundError
from btrfs.ondisk.constants import (
    CHUNK_TREE_OBJECTID,
    CSUM_TREE_OBJECTID,
    EXTENT_FLAG_DATA,
    EXTENT_TREE_OBJECTID,
    FS_TREE_OBJECTID,
    ROOT_TREE_OBJECTID,
)
from btrfs.ownership import backref_walk, extent_refs
from btrfs.ownership.backrefs import FileRef, Owners, owners
from btrfs.ownership.paths import lookup
from btrfs.source.disk.node import Node, Pointer
from tests import support
from tests.lab.populate import FICLONERANGE
from tests.library.reading import leaves, trees
from tests.library.test_checking import change_item
from tests.library.test_unmounted import places, wipe
from tests.support.removal import make_subvolume

PAGE = 4096
ALL = 20_000


def clone(source: Path, target: Path, start: int, length: int, to: int) -> None:
    """Share a range of a file with another place, of the same file or of another."""
    with source.open("rb") as shared, target.open("r+b" if target.exists() else "wb") as file:
        fcntl.ioctl(file, FICLONERANGE, struct.pack("=qQQQ", shared.fileno(), start, length, to))


def overwrite(path: Path, content: bytes, at: int) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), content, at)


def make_files(folder: Path) -> None:
    """Write files that share extents, parts of extents, and single pages of them, many times."""
    choose = random.Random(1)
    whole = folder / "whole"
    whole.write_bytes(choose.randbytes(1 << 20))
    os.link(whole, folder / "link")
    for number in range(150):
        (folder / f"file{number}").write_bytes(choose.randbytes(2 * PAGE))
    os.setxattr(folder, "btrfs.compression", b"zstd")
    (folder / "compressed").write_bytes(b"text " * 100_000)
    os.setxattr(folder, "btrfs.compression", b"none")
    with (folder / "allocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
    os.sync()
    overwrite(whole, choose.randbytes(3 * PAGE), 40 * PAGE)
    overwrite(folder / "allocated", choose.randbytes(PAGE), 10 * PAGE)
    clone(whole, folder / "tail", 100 * PAGE, 20 * PAGE, 0)
    clone(whole, whole, 60 * PAGE, 10 * PAGE, 1 << 20)
    clone(folder / "compressed", folder / "part", 5 * PAGE, 20 * PAGE, 0)
    for index in range(300):
        clone(whole, folder / "pages", 0, PAGE, index * 2 * PAGE)
    # All of that extent would begin before the file, which has more than a leaf of file extents.
    clone(folder / "file5", folder / "pages", PAGE, PAGE, 0)
    for number in range(150):
        clone(whole, folder / f"file{number}", 2 * PAGE, PAGE, 2 * PAGE)


def make_snapshots(root: Path) -> None:
    """Make snapshots of a subvolume, change some of them, and delete the subvolume itself."""
    support.run("btrfs", "subvolume", "create", root / "origin")
    make_files(root / "origin")
    for number in range(30):
        support.run("btrfs", "subvolume", "snapshot", root / "origin", root / f"s{number}")
    for number in (1, 2, 3):
        for name in ("file7", "file77", "whole"):
            overwrite(root / f"s{number}" / name, bytes([number]) * PAGE, PAGE)
        (root / f"s{number}" / f"file{number}").unlink()
        clone(root / "s0" / "whole", root / f"s{number}" / "more", 0, 30 * PAGE, 0)
    support.run("btrfs", "subvolume", "snapshot", root / "s1", root / "second")
    overwrite(root / "origin" / "file100", b"o" * PAGE, 0)
    support.run("btrfs", "filesystem", "sync", root)
    support.run("btrfs", "subvolume", "delete", root / "origin", root / "s2")
    support.run("btrfs", "subvolume", "sync", root)


def make_deep(root: Path) -> None:
    """Make a subvolume with so many leaves that there is a level between them and the root.

    It has changed since snapshots were made of it, so these share blocks that it has no more.
    """
    deep = root / "deep"
    make_subvolume(deep, leaves=200)
    make_files(deep)
    for name in ("again", "once more"):
        support.run("btrfs", "subvolume", "snapshot", deep, root / name)
        os.setxattr(deep / "50", b"user.filling", name.encode())
        support.run("btrfs", "filesystem", "sync", root)


def make_changed_twice(root: Path) -> None:
    """Make a subvolume whose inner nodes all change after each of two snapshots."""
    changed = root / "changed"
    make_subvolume(changed, leaves=200)
    for name in ("first of it", "second of it"):
        support.run("btrfs", "subvolume", "snapshot", changed, root / name)
        for number in range(0, 200, 25):
            os.setxattr(changed / str(number), b"user.filling", name.encode())
        support.run("btrfs", "filesystem", "sync", root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(
        tmp_path_factory.mktemp("backrefs"), size="512M", nodesize=PAGE, mount_options="commit=1"
    ) as fs:
        make_deep(fs.mountpoint)
        make_snapshots(fs.mountpoint)
        make_changed_twice(fs.mountpoint)
        fs.sync()
        yield fs


@pytest.fixture
def mounted(made: support.LoopFilesystem) -> Iterator[FileSystem]:
    with FileSystem(made.mountpoint) as fs:
        yield fs


@pytest.fixture
def unmounted(made: support.LoopFilesystem) -> Iterator[FileSystem]:
    with FileSystem(made.devices[0], source="unmounted") as fs:
        yield fs


def data_extents(fs: FileSystem) -> list[ExtentItem]:
    return [
        extent
        for extent in fs.extents(load_data_refs=True)
        if isinstance(extent, ExtentItem) and extent.flags & EXTENT_FLAG_DATA
    ]


def tree_blocks(fs: FileSystem) -> list[int]:
    return [
        extent.vaddr
        for extent in fs.extents()
        if isinstance(extent, MetaDataItem) or not extent.flags & EXTENT_FLAG_DATA
    ]


def by_kernel(fs: FileSystem, vaddr: int, *, ignore_offset: bool = False) -> list[FileRef]:
    uses, missing = ioctl.logical_ino_v2(fs.fd, vaddr, 1 << 19, ignore_offset)
    assert missing == 0
    return sorted(FileRef(use.root, use.inum, use.offset) for use in uses)


def assert_same_files(mounted: FileSystem, unmounted: FileSystem) -> int:
    """Compare all data extents, at both ends and in the middle; return how many there are."""
    extents = data_extents(unmounted)
    for extent in extents:
        last = extent.length - 1
        for vaddr in (extent.vaddr, extent.vaddr + last // 2, extent.vaddr + last):
            files = by_kernel(mounted, vaddr)
            expected = Owners(files, 0, [], True)
            assert owners(unmounted, vaddr, ALL) == expected
            assert owners(mounted, vaddr, ALL) == expected
        files = by_kernel(mounted, extent.vaddr, ignore_offset=True)
        expected = Owners(files, 0, [], True)
        assert owners(unmounted, extent.vaddr, ALL, ignore_offset=True) == expected
    return len(extents)


def reached(fs: FileSystem) -> dict[int, set[int]]:
    """Return which blocks there are, and in which trees, by reading all trees."""
    source = fs.block_source()
    found: dict[int, set[int]] = defaultdict(set)

    def go(tree: int, pointer: Pointer) -> None:
        found[pointer.vaddr].add(tree)
        if pointer.level:
            node = source.trees.read(pointer)
            assert isinstance(node, Node)
            for child in node.children:
                go(tree, child)

    for tree in trees(fs):
        go(tree, source.root(tree))
    return found


def test_files_as_the_kernel_names_them(mounted: FileSystem, unmounted: FileSystem) -> None:
    extents = data_extents(unmounted)
    # All ways to refer to data occur, inside the items and outside.
    assert any(extent.shared_data_refs for extent in extents)
    assert max(len(extent.shared_data_refs) for extent in extents) > 1
    assert max(len(extent.extent_data_refs) for extent in extents) > 150
    assert any(ref.offset >= 1 << 63 for extent in extents for ref in extent.extent_data_refs)
    assert assert_same_files(mounted, unmounted) > 300


def test_files_of_old_features_after_a_balance(tmp_path: Path) -> None:
    """Old features, quotas, and blocks that a balance has moved."""
    features = ("^skinny-metadata", "^free-space-tree", "^no-holes")
    with support.filesystem(
        tmp_path, size="512M", nodesize=PAGE, features=features, mount_options="commit=1"
    ) as fs:
        make_snapshots(fs.mountpoint)
        support.enable_quota(fs.mountpoint)
        fs.btrfs("balance", "start", "--full-balance", fs.mountpoint)
        fs.sync()
        with (
            FileSystem(fs.mountpoint) as mounted,
            FileSystem(fs.devices[0], source="unmounted") as unmounted,
        ):
            assert_same_files(mounted, unmounted)
            expected = reached(unmounted)
            blocks = tree_blocks(unmounted)
            assert {vaddr: set(owners(unmounted, vaddr).trees) for vaddr in blocks} == expected


def test_subvolume_that_is_deleted_but_in_use(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="256M", nodesize=PAGE) as fs:
        subvolume = fs.mountpoint / "subvolume"
        fs.btrfs("subvolume", "create", subvolume)
        make_files(subvolume)
        with (subvolume / "whole").open("rb"):
            fs.btrfs("subvolume", "delete", subvolume)
            fs.sync()
            with (
                FileSystem(fs.mountpoint) as mounted,
                FileSystem(fs.devices[0], source="unmounted") as unmounted,
            ):
                (tree,) = mounted.orphan_subvol_ids()
                assert_same_files(mounted, unmounted)
                found = [owners(unmounted, extent.vaddr) for extent in data_extents(unmounted)]
    assert {file.tree for owner in found for file in owner.files} == {tree}


def test_trees_of_blocks(unmounted: FileSystem) -> None:
    expected = reached(unmounted)
    found = {vaddr: owners(unmounted, vaddr) for vaddr in tree_blocks(unmounted)}
    assert {vaddr: set(owner.trees) for vaddr, owner in found.items()} == expected
    assert all(owner == Owners([], 0, sorted(owner.trees), True) for owner in found.values())
    assert max(map(len, expected.values())) > 25
    several = [
        extent
        for extent in unmounted.extents(load_metadata_refs=True)
        if isinstance(extent, MetaDataItem) and len(extent.shared_block_refs) > 1
    ]
    assert several


def test_trees_of_blocks_of_a_mounted_filesystem(
    mounted: FileSystem, unmounted: FileSystem
) -> None:
    """It cannot name all, but what it names is right, and it says where it may not be all."""
    expected = reached(unmounted)
    some_were_left_out = False
    for vaddr in tree_blocks(mounted):
        owner = owners(mounted, vaddr)
        assert set(owner.trees) <= expected[vaddr]
        assert owner.trees
        if set(owner.trees) != expected[vaddr]:
            assert not owner.complete
            some_were_left_out = True
    assert some_were_left_out
    source = unmounted.block_source()
    for tree in (ROOT_TREE_OBJECTID, CHUNK_TREE_OBJECTID, EXTENT_TREE_OBJECTID):
        assert owners(mounted, source.root(tree).vaddr) == Owners([], 0, [tree], True)


@pytest.fixture(params=["mounted", "unmounted"])
def fs(request: pytest.FixtureRequest) -> FileSystem:
    opened: FileSystem = request.getfixturevalue(request.param)
    return opened


def most_shared(fs: FileSystem) -> ExtentItem:
    return max(data_extents(fs), key=lambda extent: extent.refs)


def test_limit(fs: FileSystem) -> None:
    vaddr = most_shared(fs).vaddr
    everything = owners(fs, vaddr, ALL)
    assert len(everything.files) > 5000
    for limit in (0, 1, 7, 100, len(everything.files)):
        some = owners(fs, vaddr, limit)
        assert len(some.files) == limit
        assert some.more == len(everything.files) - limit
        assert set(some.files) <= set(everything.files)
        assert some.files == sorted(some.files)
    assert len(owners(fs, vaddr).files) == 100
    with pytest.raises(ValueError, match="limit is -1"):
        owners(fs, vaddr, -1)


def test_first_files_are_returned(unmounted: FileSystem) -> None:
    vaddr = most_shared(unmounted).vaddr
    assert owners(unmounted, vaddr, 200).files == owners(unmounted, vaddr, ALL).files[:200]


def test_no_extent(fs: FileSystem) -> None:
    group = next(fs.block_groups())
    ends = {extent.vaddr + extent.length for extent in data_extents(fs)}
    free = next(end for end in sorted(ends) if end not in {e.vaddr for e in data_extents(fs)})
    for vaddr in (-1, 0, 12345, free, group.vaddr + (1 << 40), (1 << 64) - 1, 1 << 64, 1 << 80):
        with pytest.raises(ItemNotFoundError, match=f"No extent at vaddr {vaddr}"):
            owners(fs, vaddr)


def test_byte_that_nobody_uses(fs: FileSystem) -> None:
    """It was overwritten in all files, but the extent is kept for what is around it."""
    unused = {
        vaddr: owners(fs, vaddr, ignore_offset=True)
        for extent in data_extents(fs)
        for vaddr in range(extent.vaddr, extent.vaddr + extent.length, 8 * PAGE)
        if not owners(fs, vaddr).files
    }
    assert unused
    assert all(owner.files for owner in unused.values())


def test_large_extents_are_found(tmp_path: Path) -> None:
    """Somewhere in the middle, far from where they begin."""
    with support.filesystem(tmp_path, size="2G", data="single") as fs:
        with (fs.mountpoint / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 512 << 20)
        fs.sync()
        with FileSystem(fs.devices[0], source="unmounted") as unmounted:
            extents = data_extents(unmounted)
            assert max(extent.length for extent in extents) >= 128 << 20
            for extent in extents:
                (file_ref,) = owners(unmounted, extent.vaddr).files
                middle = file_ref._replace(offset=file_ref.offset + extent.length - 5)
                assert owners(unmounted, extent.vaddr + extent.length - 5).files == [middle]


# Old kernels, and those that refuse.


def test_kernel_without_the_second_version(
    mounted: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    vaddr = data_extents(mounted)[0].vaddr
    expected = owners(mounted, vaddr)

    def unknown(*_: Any) -> None:
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))

    monkeypatch.setattr(ioctl, "logical_ino_v2", unknown)
    assert owners(mounted, vaddr) == expected
    assert expected.complete
    assert not owners(mounted, vaddr, ignore_offset=True).complete


def test_extent_that_goes_away_meanwhile(
    mounted: FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> Any:
        def logical_ino(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        return logical_ino

    vaddr = data_extents(mounted)[0].vaddr
    monkeypatch.setattr(ioctl, "logical_ino_v2", refuse(errno.ENOENT))
    with pytest.raises(ItemNotFoundError):
        owners(mounted, vaddr)
    monkeypatch.setattr(ioctl, "logical_ino_v2", refuse(errno.EPERM))
    with pytest.raises(PermissionError):
        owners(mounted, vaddr)


# Too much to look at.


def test_effort_has_an_end(unmounted: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    vaddr = most_shared(unmounted).vaddr
    everything = owners(unmounted, vaddr, ALL)
    for lookups in (0, 1, 10, 100):
        monkeypatch.setattr(backref_walk, "_MAX_LOOKUPS", lookups)
        some = owners(unmounted, vaddr, ALL)
        assert not some.complete
        assert set(some.files) < set(everything.files)
    assert some.files
    monkeypatch.undo()
    monkeypatch.setattr(extent_refs, "_MAX_REFERENCES", 20)
    some = owners(unmounted, vaddr, ALL)
    assert not some.complete
    assert set(some.files) < set(everything.files)


# Damage.


@pytest.fixture
def damaged(made: support.LoopFilesystem, tmp_path: Path) -> Path:
    (image,) = made.copy_images(tmp_path)
    return image


def destroy(image: Path, vaddr: int) -> None:
    """Destroy all copies of a tree block."""
    with FileSystem(image, source="unmounted") as fs:
        at, nodesize = places(fs, vaddr), fs.nodesize
    wipe(image, at, nodesize)


def test_leaf_that_cannot_be_read(damaged: Path) -> None:
    """What other leaves have is found, and what the references say without it."""
    with FileSystem(damaged, source="unmounted") as fs:
        extent = most_shared(fs)
        everything = owners(fs, extent.vaddr, ALL, ignore_offset=True)
        (leaf, *_) = [ref.parent for ref in extent.shared_data_refs]
        trees_of_leaf = owners(fs, leaf).trees
    destroy(damaged, leaf)
    with FileSystem(damaged, source="unmounted") as fs:
        for vaddr in (extent.vaddr, leaf):
            with pytest.raises(CorruptError, match=f"tree block at {leaf}"):
                owners(fs, vaddr)
    with FileSystem(damaged, source="unmounted", on_error="skip") as fs:
        some = owners(fs, extent.vaddr, ALL, ignore_offset=True)
        assert set(some.files) < set(everything.files)
        assert not some.complete
        assert some.files
        assert {damage.vaddr for damage in fs.damage} == {leaf}
        owner = owners(fs, leaf)
        assert set(owner.trees) <= set(trees_of_leaf)
        assert not owner.complete or owner.trees == trees_of_leaf


def test_root_that_cannot_be_read(damaged: Path) -> None:
    with FileSystem(damaged, source="unmounted") as fs:
        place = lookup(fs, "deep/file3")
        (vaddr,) = [
            extent.vaddr
            for extent in data_extents(fs)
            if [ref.objectid for ref in extent.extent_data_refs if ref.root == place.tree]
            == [place.inum]
            and extent.length == 2 * PAGE
        ]
        snapshots = [lookup(fs, name).tree for name in ("again", "once more")]
        assert owners(fs, vaddr).files == [
            FileRef(tree, place.inum, 0) for tree in (place.tree, *snapshots)
        ]
        root = fs.block_source().root(place.tree).vaddr
    destroy(damaged, root)
    with (
        FileSystem(damaged, source="unmounted") as fs,
        pytest.raises(CorruptError, match=f"tree block at {root}"),
    ):
        owners(fs, vaddr)
    with FileSystem(damaged, source="unmounted", on_error="skip") as fs:
        assert owners(fs, vaddr) == Owners([], 0, [], False)
        assert [lost.tree for lost in fs.lost] == [place.tree]


def test_extent_tree_that_cannot_be_read(damaged: Path) -> None:
    with FileSystem(damaged, source="unmounted") as fs:
        extent = most_shared(fs)
        root = fs.block_source().root(EXTENT_TREE_OBJECTID).vaddr
    destroy(damaged, root)
    with FileSystem(damaged, source="unmounted") as fs, pytest.raises(CorruptError):
        owners(fs, extent.vaddr)
    with (
        FileSystem(damaged, source="unmounted", on_error="skip") as fs,
        pytest.raises(ItemNotFoundError),
    ):
        owners(fs, extent.vaddr)


def test_wrong_references(image: Path) -> None:
    """They lead nowhere, or in a circle."""
    with FileSystem(image) as fs:
        (block, *_) = [
            extent
            for extent in fs.extents(load_metadata_refs=True)
            if isinstance(extent, MetaDataItem)
            and [ref.root for ref in extent.tree_block_refs] == [CSUM_TREE_OBJECTID]
        ]
    for edit, expected in (
        (lambda b, _, at: struct.pack_into("<BQ", b, at + 24, 182, block.vaddr), []),
        (lambda b, _, at: struct.pack_into("<BQ", b, at + 24, 182, 4096), []),
        (lambda b, _, at: struct.pack_into("<BQ", b, at + 24, 176, 4711), []),
        (lambda b, _, at: struct.pack_into("<BQ", b, at + 24, 176, 4), [4]),
    ):
        change_item(image, EXTENT_TREE_OBJECTID, block.key, edit)
        with FileSystem(image, on_error="skip") as fs:
            assert owners(fs, block.vaddr).trees == expected


def test_level_that_there_is_not(image: Path) -> None:
    with FileSystem(image) as fs:
        (block, *_) = [extent for extent in fs.extents() if isinstance(extent, MetaDataItem)]
        leaf = leaves(fs, FS_TREE_OBJECTID)[0]
    assert leaf.level == 0

    def raise_level(data: bytearray, record: int, _: int) -> None:
        struct.pack_into("<Q", data, record + 9, 1 << 40)

    change_item(image, EXTENT_TREE_OBJECTID, block.key, raise_level)
    with FileSystem(image, on_error="skip") as fs:
        assert owners(fs, block.vaddr) == Owners([], 0, [], False)
        assert Key(block.vaddr, 169, 1 << 40) in [item.key for item in fs.extents()]
