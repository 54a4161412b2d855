"""Nothing is found in filesystems that are sound: each layout and feature, with rich contents.

Whatever the kernel and its programs write is sound, unless something broke it. Our check must find
nothing in it, and `btrfs check` has to agree; where it complains about what the kernel made, the
test says why.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from btrfs import ioctl
from btrfs.filesystem import FileSystem
from tests import support
from tests.lab import lineage, shapes
from tests.lab.block_groups import fill_completely
from tests.lab.populate import write_files
from tests.lab.sharing import overwrite
from tests.support import clean, removal

LAYOUTS: dict[str, support.Options] = {
    "single": {"nodesize": 4096, "features": ("^no-holes", "^skinny-metadata")},
    "dup": {"nodesize": 65536, "csum": "xxhash", "features": ("quota",)},
    "raid0": {"nodesize": 8192, "csum": "sha256", "features": ("^free-space-tree",)},
    "raid1": {"csum": "blake2", "features": ("^extref", "^no-holes")},
    "raid1c3": {"nodesize": 32768},
    "raid1c4": {"nodesize": 4096, "csum": "xxhash"},
    "raid10": {"nodesize": 32768, "csum": "sha256", "features": ("^no-holes",)},
    "raid5": {"nodesize": 4096, "features": ("quota",)},
    "raid6": {"csum": "blake2", "features": ("^skinny-metadata",)},
    "mixed": {"nodesize": 4096, "features": ("^free-space-tree", "^no-holes", "^extref")},
    "mixed-dup": {"nodesize": 4096, "csum": "xxhash"},
}
"""What the filesystem of each layout has beside its profile, so that all features occur."""


QUICK = {"dup", "raid1c3", "raid6", "mixed"}
"""Layouts that `make test` tries, too."""


def fill(root: Path, seed: int = 1) -> None:
    """Write contents of all kinds to a mounted filesystem."""
    support.populate(root, seed)
    shapes.write_shapes(root, seed)
    lineage.make_history(root, seed)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(layout, marks=[] if layout.name in QUICK else [pytest.mark.lab])
        for layout in support.LAYOUTS
    ],
    ids=lambda layout: layout.name,
)
def test_layouts(tmp_path: Path, layout: support.Layout) -> None:
    options: support.Options = {"size": "1G"}
    options.update(layout.options)
    options.update(LAYOUTS[layout.name])
    with support.filesystem(tmp_path, **options) as fs:
        fill(fs.mountpoint)
    clean.assert_clean(fs.images)


@pytest.mark.lab
@pytest.mark.parametrize("nodesize", support.NODESIZES)
@pytest.mark.parametrize("csum", support.CSUMS)
def test_nodesizes_and_checksums(tmp_path: Path, nodesize: int, csum: str) -> None:
    """With contents of another seed each, and every feature on and off."""
    old = ("^no-holes", "^skinny-metadata", "^extref", "^free-space-tree")
    for number, features in enumerate(((), *((name,) for name in old), old)):
        folder = tmp_path / str(number)
        with support.filesystem(
            folder, size="1G", nodesize=nodesize, csum=csum, features=features
        ) as fs:
            fill(fs.mountpoint, nodesize + number)
        clean.assert_clean(fs.images)


@pytest.mark.parametrize(
    "options",
    [
        "compress-force=zlib",
        pytest.param("max_inline=0", marks=pytest.mark.lab),
        pytest.param("autodefrag", marks=pytest.mark.lab),
    ],
)
def test_mount_options(tmp_path: Path, options: str) -> None:
    with support.filesystem(tmp_path, size="1G", mount_options=options) as fs:
        fill(fs.mountpoint)
    clean.assert_clean(fs.images)


@pytest.mark.parametrize("option", ["nodatasum", "nodatacow"])
def test_without_checksums(tmp_path: Path, option: str) -> None:
    """Files with and without checksums, in the same directories."""
    with support.filesystem(tmp_path, size="1G") as fs:
        root, choose = fs.mountpoint, random.Random(1)
        fill(root)
        fs.remount(option)
        write_files(root / "more", choose)
        for write in (shapes.write_holes, shapes.allocate_beyond, shapes.share_ranges):
            write(root / write.__name__, choose)
        for path in (root / "overwritten", root / "history" / "home" / "large"):
            overwrite(path, 12_345, choose.randbytes(50_000))
        lineage.snapshot(root, root / "snapshot")
        for path in (root / "snapshot" / "more").iterdir():
            overwrite(path, 1000, choose.randbytes(5000))
    clean.assert_clean(fs.images)


def test_in_use(tmp_path: Path) -> None:
    """As a crash leaves it: deleted files that were open, a swap file, log trees."""
    with support.filesystem(tmp_path / "a", size="1G") as fs:
        root = fs.mountpoint
        fill(root)
        with (
            shapes.orphans(root / "orphans", random.Random(1)),
            shapes.swap_file(root / "swap"),
        ):
            crashed = fs.copy_images(tmp_path / "b")
    clean.assert_clean(crashed)
    clean.assert_clean(fs.images)
    with support.mounted_images(crashed, tmp_path / "mnt"):
        pass
    clean.assert_clean(crashed)


def test_deleted_files(tmp_path: Path) -> None:
    """All that was written is deleted, and the filesystem is nearly empty again."""
    with support.filesystem(tmp_path, size="1G", nodesize=4096) as fs:
        root = fs.mountpoint
        fill(root)
        shapes.clear_flags(root / "shapes" / "flags")
        fs.btrfs("subvolume", "set-default", "5", root)
        for snapshot in root.rglob("readonly*"):
            support.run("btrfs", "property", "set", "-f", snapshot, "ro", "false")
        for path in root.iterdir():
            support.run("rm", "-rf", path)
        fs.sync()
        (root / "new").write_bytes(b"new" * 100_000)
    clean.assert_clean(fs.images)


def test_half_removed_subvolume(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path / "a", size="2G", metadata="single", nodesize=removal.NODESIZE
    ) as fs:
        removed = removal.interrupt(fs, tmp_path / "b")
    clean.assert_clean(removed.images)


def test_many_snapshots(tmp_path: Path) -> None:
    """Of one subvolume that changes, every second is deleted: blocks have many owners."""
    with support.filesystem(tmp_path, size="1G", nodesize=4096) as fs:
        lineage.make_history(fs.mountpoint)
        home, choose = fs.mountpoint / "history" / "home", random.Random(1)
        for number in range(40):
            lineage.snapshot(home, fs.mountpoint / f"snapshot{number}")
            overwrite(home / "large", choose.randrange(300) * 4096, choose.randbytes(9000))
            (home / "names" / f"one more {number}").touch()
        older = [fs.mountpoint / f"snapshot{number}" for number in range(0, 40, 2)]
        support.run("btrfs", "subvolume", "delete", *older)
        for _ in range(5):
            fs.sync()  # each wakes the kernel's thread that removes them
    clean.assert_clean(fs.images)


def test_features_switched_on_later(tmp_path: Path) -> None:
    """What is written before has the older form, and what is written afterwards the newer one."""
    features = ("^extref", "^skinny-metadata", "^no-holes")
    with support.filesystem(tmp_path, size="1G", nodesize=4096, features=features) as fs:
        support.populate(fs.mountpoint)
        shapes.write_shapes(fs.mountpoint)
        fs.unmount()
        fs.tune("-r", "-x", "-n")
        fs.mount()
        lineage.make_history(fs.mountpoint)
        for path in (fs.mountpoint / "shapes" / "holes").iterdir():
            overwrite(path, 45_678, b"again")
    clean.assert_clean(fs.images)


def test_full(tmp_path: Path) -> None:
    """Data has taken all space: there are block groups without a free range."""
    with support.filesystem(tmp_path, size="200M", metadata="single", nodesize=4096) as fs:
        assert fill_completely(fs.mountpoint, 1 << 20) > 100
    clean.assert_clean(fs.images)


def test_empty(tmp_path: Path) -> None:
    """As mkfs.btrfs leaves it, and after the first mount."""
    for layout in support.LAYOUTS:
        options: support.Options = {"mount": False}
        options.update(layout.options)
        with support.filesystem(tmp_path / layout.name, **options) as fs:
            pass
        clean.assert_clean(fs.images)
        with support.mounted_images(fs.images, tmp_path / "mnt"):
            pass
        clean.assert_clean(fs.images)


def test_simple_quotas(tmp_path: Path) -> None:
    """They were on before something was written, or in the middle of it."""
    for name, first in (("first", True), ("later", False)):
        with support.filesystem(tmp_path / name, size="1G") as fs:
            root = fs.mountpoint
            if not first:
                support.populate(root)
            with FileSystem(root) as opened:
                ioctl.quota_enable(opened.fd, simple=True)
            shapes.write_shapes(root)
            lineage.make_history(root)
        clean.assert_clean(fs.images, quirks=clean.UNKNOWN_FEATURE)


@pytest.mark.parametrize(
    "name", ["block-group-tree.img", "simple-quota.img", "raid-stripe-tree.img"]
)
def test_stored_images(tmp_path: Path, name: str) -> None:
    image = support.stored_image(name, tmp_path)
    clean.assert_clean([image], quirks=clean.UNKNOWN_FEATURE)


@pytest.mark.parametrize("name", ["block-group-tree.img", "simple-quota.img"])
def test_stored_images_in_use(tmp_path: Path, name: str) -> None:
    """Made by newer programs, and filled by this kernel."""
    support.require_root()
    image = support.stored_image(name, tmp_path)
    with support.mounted_images([image], tmp_path / "mnt") as fs:
        shapes.write_shapes(fs.mountpoint)
        lineage.make_history(fs.mountpoint)
    clean.assert_clean([image], quirks=clean.UNKNOWN_FEATURE)
