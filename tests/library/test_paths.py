"""Paths, both ways, mounted and not, beside what the kernel shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from btrfs import FileSystem
from btrfs.ctree import INODE_ITEM_KEY
from btrfs.errors import CorruptError, PathNotFoundError
from btrfs.ondisk.items.inode import InodeRefList
from btrfs.ownership.paths import Paths, Place, lookup
from tests import support

FS_TREE = 5


@pytest.fixture(scope="module")
def populated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(tmp_path_factory.mktemp("paths"), size="1G") as fs:
        support.populate(fs.mountpoint)
        fs.sync()
        yield fs


@pytest.fixture(params=["mounted", "unmounted"])
def fs(request: pytest.FixtureRequest, populated: support.LoopFilesystem) -> Iterator[FileSystem]:
    target = populated.mountpoint if request.param == "mounted" else populated.devices[0]
    with FileSystem(target, source=request.param) as opened:
        yield opened


def walk(top: Path) -> Iterator[tuple[bytes, int]]:
    """Yield path and inode number of all that the kernel shows, subvolumes included."""
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            yield os.path.relpath(path, os.fsencode(top)), os.lstat(path).st_ino


def test_every_path_is_found(fs: FileSystem, populated: support.LoopFilesystem) -> None:
    shown = dict(walk(populated.mountpoint))
    empty = {path for path, inum in shown.items() if inum == 2}
    assert empty == {b"readonly/nested", b"writable/nested"}
    places = {path: lookup(fs, b"/" + path) for path in shown if path not in empty}
    assert {path: place.inum for path, place in places.items()} == {
        path: inum for path, inum in shown.items() if path not in empty
    }
    assert len({place.tree for place in places.values()}) == 5
    for path in empty:
        with pytest.raises(PathNotFoundError, match="in place of subvolume"):
            lookup(fs, path)


def test_every_inode_has_its_paths(fs: FileSystem, populated: support.LoopFilesystem) -> None:
    paths = Paths(fs)
    found: dict[bytes, int] = {}
    for root in (fs.top_level(), *fs.subvolumes()):
        tree = root.key.objectid
        subvolume = paths.of_subvolume(tree)
        if subvolume is None:
            continue
        for item in fs.search(tree):
            if item.key.type == INODE_ITEM_KEY:
                for path in paths.of_inode(tree, item.key.objectid):
                    whole = b"/".join(part for part in (subvolume, path) if part)
                    found[whole] = item.key.objectid
    del found[b""]
    shown = {path: inum for path, inum in walk(populated.mountpoint) if inum != 2}
    assert found == shown


def test_what_is_not_there(fs: FileSystem) -> None:
    with pytest.raises(PathNotFoundError, match=r"files/x/y: no such path") as caught:
        lookup(fs, "/files/x/y")
    assert caught.value.hint == "there is no x in files; symbolic links are not followed"
    with pytest.raises(PathNotFoundError, match=r"nowhere: no such path") as caught:
        lookup(fs, "nowhere")
    assert caught.value.hint == "there is no nowhere at the top; symbolic links are not followed"
    with pytest.raises(FileNotFoundError, match="no such path"):
        lookup(fs, "files/file1/x")
    assert list(Paths(fs).of_inode(FS_TREE, 999_999)) == []
    assert Paths(fs).of_subvolume(999_999) is None


def test_dots_and_slashes(fs: FileSystem) -> None:
    place = lookup(fs, "files/file1")
    for path in ("//files//file1/", "./files/./file1", "../names/../files/file1"):
        assert lookup(fs, path) == place
    assert lookup(fs, "/") == lookup(fs, "") == Place(FS_TREE, 256)
    volume = lookup(fs, "volume")
    assert volume.inum == 256
    assert lookup(fs, "nested/file", volume.tree) == lookup(fs, "volume/nested/file")


def test_circles_end(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Directories that contain each other, as damage could make them."""
    place = lookup(fs, "files")
    inum = place.inum
    search = fs.search

    def circular(*args: object) -> Iterator[object]:
        for item in search(*args):  # type: ignore[arg-type]
            if isinstance(item, InodeRefList) and item.objectid == inum:
                item.parent_objectid = inum
            yield item

    file = lookup(fs, "files/file1")
    monkeypatch.setattr(fs, "search", circular)
    with pytest.raises(CorruptError, match="expected a path, found a circle"):
        list(Paths(fs).of_inode(*file))
