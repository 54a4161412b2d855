"""What compression saves, beside compsize on the same directories and files."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem
from btrfs.ctree import FS_TREE_OBJECTID
from btrfs.errors import BtrfsError, PathNotFoundError
from btrfs.ownership import Ownership, compression, row_weights, scan
from btrfs.ownership.compression import Amounts, Compression
from btrfs.ownership.containment import containment
from tests import support
from tests.lab.populate import PAGE, compress
from tests.lab.sharing import clone_whole, overwrite, share_space
from tests.support import compsize

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "nodesize 4096": {"nodesize": 4096},
    "mixed": {"mixed": True, "size": "512M"},
    "old features": {"features": ["^free-space-tree", "^skinny-metadata", "^no-holes"]},
    "raid1": {"devices": 2, "data": "raid1", "metadata": "raid1"},
}


def as_table(found: Compression) -> compsize.Table:
    """Return what compsize would say: it shows no rows that are 0 on disk."""
    if not found.total.on_disk:
        return compsize.NOTHING
    rows = {"TOTAL": found.total, **found.by_type, "prealloc": found.preallocated}
    return compsize.Table(
        found.files,
        found.extents,
        found.references,
        found.inline,
        {name: tuple(amounts) for name, amounts in rows.items() if amounts.on_disk},
    )


def assert_same(owned: Ownership, root: Path, paths: Sequence[str]) -> None:
    """Compare some paths, one beside the other and together."""
    expected = compsize.table(*(root / path for path in paths))
    assert as_table(owned.compression(paths)) == expected, paths


def paths_below(root: Path) -> tuple[list[str], list[str]]:
    """Return the paths of all directories and of all else, those of subvolumes included."""
    directories, files = [""], []
    for folder, names, others in os.walk(root):
        here = Path(folder).relative_to(root)
        # A snapshot has an empty folder where a subvolume was.
        names[:] = [name for name in names if (Path(folder) / name).stat().st_ino != 2]
        directories += [os.fspath(here / name) for name in names]
        files += [os.fspath(here / name) for name in others]
    return directories, files


def make_links(root: Path, choose: random.Random) -> None:
    """Make subvolumes that use the same inode numbers for files of different numbers of names."""
    for number in range(4):
        folder = root / f"links{number}"
        support.run("btrfs", "subvolume", "create", folder)
        for index in range(12):
            path = folder / f"file{index}"
            path.write_bytes(choose.randbytes((300, 3 * PAGE)[index % 2]))
            for link in range((index + number) % 3):
                os.link(path, folder / f"link{index}-{link}")
            (folder / f"symlink{index}").symlink_to("target")
    support.run("btrfs", "subvolume", "snapshot", root / "links1", root / "links of links")
    os.link(root / "links of links" / "file1", root / "links of links" / "one more")
    (root / "links of links" / "link0-0").unlink()


@pytest.fixture(scope="module", params=KINDS)
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(tmp_path_factory.mktemp("compression"), **KINDS[request.param]) as fs:
        share_space(fs.mountpoint)
        support.populate(fs.mountpoint)
        make_links(fs.mountpoint, random.Random(1))
        (fs.mountpoint / "empty").touch()
        (fs.mountpoint / "no files").mkdir()
        fs.sync()
        yield fs


@pytest.fixture
def owned(made: support.LoopFilesystem) -> Iterator[Ownership]:
    with FileSystem(made.mountpoint, source="devices") as fs:
        yield scan(fs)


def test_all_directories(owned: Ownership, made: support.LoopFilesystem) -> None:
    directories, _ = paths_below(made.mountpoint)
    assert len(directories) > 40
    for path in directories:
        assert_same(owned, made.mountpoint, [path])
    assert owned.compression() == owned.compression([""])


def test_files(owned: Ownership, made: support.LoopFilesystem) -> None:
    _, files = paths_below(made.mountpoint)
    choose = random.Random(2)
    chosen = choose.sample(sorted(files), 40)
    for path in (*chosen, "home/compressed/zstd-inline", "home/allocated", "empty"):
        assert_same(owned, made.mountpoint, [path])
    assert_same(owned, made.mountpoint, chosen)


@pytest.mark.parametrize(
    "paths",
    [
        ["home", "home"],
        ["home/links", "home/more links", "home/files"],
        ["home/compressed/zstd", "writable/compressed clone", "home/compressed"],
        ["", "home/nested", "snapshot1", "snapshot2/files"],
        ["links1", "links of links", "links1/file1", "links1/link1-0"],
        ["links2/symlink1", "names"],
    ],
)
def test_several_paths(owned: Ownership, made: support.LoopFilesystem, paths: list[str]) -> None:
    assert_same(owned, made.mountpoint, paths)


def test_in_small_steps(
    owned: Ownership, made: support.LoopFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "_EXTENTS_AT_A_TIME", 7)
    monkeypatch.setattr(row_weights, "_PAIRS_AT_A_TIME", 3)
    for path in ("", "home", "links1"):
        assert_same(owned, made.mountpoint, [path])


def test_kinds_apart(owned: Ownership) -> None:
    found = owned.compression(["home/compressed", "home/allocated"])
    assert set(found.in_leaves) == {"zlib", "lzo", "zstd"}
    assert set(found.in_extents) >= {"zlib", "lzo", "zstd"}
    for name in found.in_leaves:
        # A file of 1,800 bytes each.
        assert found.in_leaves[name][1:] == (1800, 1800)
        assert found.by_type[name] == found.in_leaves[name].plus(found.in_extents[name])
    assert found.preallocated.on_disk > 0
    assert found.total == sum_of([*found.by_type.values(), found.preallocated])
    assert owned.compression(["no files"]) == Compression(0, 0, 0, 0, {}, Amounts(), {})
    assert owned.compression(["empty"]).files == 1


def sum_of(parts: list[Amounts]) -> Amounts:
    return Amounts(*(sum(column) for column in zip(*parts, strict=True)))


def test_no_such_path(owned: Ownership) -> None:
    with pytest.raises(PathNotFoundError, match="no such path"):
        owned.compression(["home", "nothing"])


def test_entries(owned: Ownership) -> None:
    assert owned.compression([owned.entry("home")]) == owned.compression([b"home"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(tmp_path_factory.mktemp("small")) as fs:
        yield fs


def test_deleted_files(small: support.LoopFilesystem) -> None:
    """A file that is deleted, but open, has no name that counts; nor has a deleted subvolume."""
    folder = small.mountpoint / "subvolume"
    support.run("btrfs", "subvolume", "create", folder)
    for name, size in (("kept", 5 * PAGE), ("deleted", 7 * PAGE), ("inline", 100)):
        (folder / name).write_bytes(b"x" * size)
    compress(folder / "compressed", random.Random(1))
    support.run("btrfs", "subvolume", "snapshot", folder, small.mountpoint / "snapshot")
    small.sync()
    with (folder / "deleted").open("rb"), (folder / "inline").open("rb"):
        (folder / "deleted").unlink()
        (folder / "inline").unlink()
        small.sync()
        with FileSystem(small.mountpoint, source="devices") as fs:
            owned = scan(fs)
            for path in ("subvolume", ""):
                assert_same(owned, small.mountpoint, [path])


def test_extents_written_in_parts(small: support.LoopFilesystem) -> None:
    """An extent that is reserved and partly written counts as its piece that is met first."""
    root = small.mountpoint / "parts"
    root.mkdir()
    choose = random.Random(1)
    for name, position in (("begin", 0), ("middle", 40 * PAGE)):
        with (root / name).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 1 << 20)
        small.sync()
        overwrite(root / name, position, choose.randbytes(10 * PAGE))
        small.sync()
    clone_whole(root / "begin", root / "clone")
    small.sync()
    # Of what both have, only the clone still has the begin.
    overwrite(root / "begin", 0, choose.randbytes(10 * PAGE))
    small.sync()
    with FileSystem(small.mountpoint, source="devices") as fs:
        owned = scan(fs)
    for paths in (["begin"], ["middle"], ["clone"], ["begin", "clone"], ["clone", "begin"], [""]):
        assert_same(owned, small.mountpoint, [f"parts/{path}" for path in paths])
    assert_same(owned, small.mountpoint, [""])


def test_lost_top_level(made: support.LoopFilesystem) -> None:
    """Where the root item of the top level is lost, what is in other subvolumes is still told."""
    with FileSystem(made.mountpoint, source="devices") as fs:
        scanned = scan(fs).tables
        top = next(owner for owner in scanned.owners if owner.tree == FS_TREE_OBJECTID)
        others = [replace(owner, tree=0) if owner is top else owner for owner in scanned.owners]
        owned = Ownership(
            fs.path,
            replace(scanned, owners=others),
            containment(fs, others),
            is_complete=False,
        )
        assert_same(owned, made.mountpoint, ["home"])
        names = ("home", "snapshot*", "writable", "links*")
        subvolumes = [path.name for name in names for path in made.mountpoint.glob(name)]
        assert 0 < owned.compression(subvolumes).files <= owned.compression().files
        with pytest.raises(PathNotFoundError):
            owned.compression(["overwritten"])


def test_without_names(small: support.LoopFilesystem) -> None:
    with (
        FileSystem(small.mountpoint, source="devices") as fs,
        pytest.raises(BtrfsError, match="names of files were not read"),
    ):
        scan(fs, names=False).compression()
