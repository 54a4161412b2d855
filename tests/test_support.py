"""The filesystems of the tests: what they hold, and that nothing of them is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import support
from tests.lab.populate import ODD_NAMES
from tests.support import key_types

KINDS = {
    "inode": {1, 12, 13, 24, 84, 96},
    "file extent and checksum": {108, 128},
    "root": {132, 144, 156},
    "extent": {168, 169, 178, 192},
    "free space": {198, 199, 200},
    "device and chunk": {204, 216, 228, 249},
    "quota": {240, 242, 244, 246},
    "uuid": {251, 252},
}


def test_contents_have_every_kind_of_item(mounted: support.LoopFilesystem) -> None:
    found = set(support.oracle.ask(key_types.of_filesystem, mounted.mountpoint))
    absent = {name: types - found for name, types in KINDS.items() if types - found}
    assert not absent


def test_contents_have_odd_names(mounted: support.LoopFilesystem) -> None:
    folder = mounted.mountpoint / "names"
    names = {path.name.encode(errors="surrogateescape") for path in folder.iterdir()}
    assert names >= set(ODD_NAMES)


def test_nothing_stays_behind_when_a_test_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fail_with_a_filesystem(tmp_path)
    attached = support.run("losetup", "--list", "--noheadings", "--output", "BACK-FILE")
    assert str(tmp_path) not in attached
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    assert len(list(tmp_path.glob("*.img"))) == 2


def test_what_a_program_complains_about_is_text(tmp_path: Path) -> None:
    with pytest.raises(support.CommandError, match="exit code") as failed:
        support.run("cat", tmp_path / "missing\udcff")
    assert str(failed.value).encode()


def fail_with_a_filesystem(folder: Path) -> None:
    """Do what a failing test does."""
    with support.filesystem(folder, devices=2, data="raid1") as fs:
        assert str(folder) in Path("/proc/mounts").read_text()
        assert len(fs.devices) == 2
        raise ZeroDivisionError


def test_crash_copy_keeps_an_orphan(tmp_path: Path) -> None:
    with support.filesystem(tmp_path) as fs:
        with support.orphan(fs.mountpoint / "file"):
            (copy,) = fs.copy_images(tmp_path / "crashed")
        fs.unmount()
    dumps = [
        support.run("btrfs", "inspect-internal", "dump-tree", "-t", "5", image)
        for image in (copy, fs.images[0])
    ]
    assert ["ORPHAN_ITEM" in dump for dump in dumps] == [True, False]


def test_balance_can_be_paused(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="2G", data="single", metadata="single") as fs:
        assert support.pause_balance(fs.mountpoint)
        fs.unmount()
        dump = support.run("btrfs", "inspect-internal", "dump-tree", "-t", "root", fs.devices[0])
        assert "BALANCE TEMPORARY_ITEM" in dump


def test_replaced_device_is_left_out(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid1", metadata="raid1") as fs:
        (fs.mountpoint / "file").write_text("content")
        fs.replace(1, "1G")
        fs.unmount()
        fs.mount()
        assert [image.name for image in fs.images] == ["disk3.img", "disk2.img"]
        assert (fs.mountpoint / "file").read_text() == "content"


@pytest.mark.parametrize("name", ["block-group-tree.img", "raid-stripe-tree.img"])
def test_stored_images_unpack_to_sparse_files(tmp_path: Path, name: str) -> None:
    image = support.stored_image(name, tmp_path)
    assert image.stat().st_size == 256 << 20
    assert image.stat().st_blocks * 512 < 64 << 20
