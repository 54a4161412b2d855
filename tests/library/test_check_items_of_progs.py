"""What btrfs-progs write is sound, though the kernel would write some of it otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import support
from tests.library.findings import findings

OF_ITEMS = {"item-damaged", "key-type", "checksums-overlap"}


def write(folder: Path) -> None:
    """Write files of many sizes, links and an attribute."""
    folder.mkdir()
    for number, size in enumerate((0, 1, 100, 2000, 4095, 4096, 5000, 70_000)):
        (folder / f"file{number}").write_bytes(os.urandom(size))
    (folder / "folder").mkdir()
    os.link(folder / "file2", folder / "folder" / "hard")
    (folder / "symbolic").symlink_to("t" * 1000)
    os.mkfifo(folder / "fifo")
    os.setxattr(folder / "file2", "user.a/b", b"value")


def damaged_items(image: Path) -> list[str]:
    return [str(each) for each in findings(image) if each.kind in OF_ITEMS]


@pytest.fixture(autouse=True)
def root() -> None:
    support.require_root()


@pytest.mark.parametrize("nodesize", [4096, 16384, 65536])
def test_made_with_files_in_it(tmp_path: Path, nodesize: int) -> None:
    write(tmp_path / "files")
    image = tmp_path / "image"
    support.run("truncate", "-s", "256M", image)
    support.run("mkfs.btrfs", "-q", "-n", str(nodesize), "-r", tmp_path / "files", image)
    assert damaged_items(image) == []


@pytest.mark.parametrize("options", [(), ("--no-inline",), ("--no-datasum",)])
def test_converted(tmp_path: Path, options: tuple[str, ...]) -> None:
    support.require_programs("mkfs.ext4", "btrfs-convert")
    write(tmp_path / "files")
    image = tmp_path / "image"
    support.run("truncate", "-s", "512M", image)
    support.run("mkfs.ext4", "-q", "-d", tmp_path / "files", image)
    support.run("btrfs-convert", *options, image)
    assert damaged_items(image) == []
    # The kernel writes its own items between the others.
    folder = tmp_path / "mounted"
    folder.mkdir()
    support.run("mount", "-o", "loop", image, folder)
    try:
        (folder / "new").write_bytes(b"new")
        support.run("btrfs", "subvolume", "snapshot", folder, folder / "snapshot")
    finally:
        support.run("umount", folder)
    assert damaged_items(image) == []
