"""Filesystems that were ext4 before: `btrfs-convert` makes a btrfs of them in place."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

from tests.lab.commands import run
from tests.lab.loopfs import make_sparse
from tests.lab.populate import PAGE, allocate, write_files

PROGRAMS = ("btrfs-convert", "mke2fs")


def make_ext4(image: Path, mountpoint: Path, size: str = "1G", seed: int = 1) -> None:
    """Make an ext4 filesystem with files of many kinds, some in pieces."""
    make_sparse(image, size)
    run("mke2fs", "-q", "-t", "ext4", "-b", str(PAGE), image)
    with mounted_ext4(image, mountpoint) as root:
        choose = random.Random(seed)
        for number in range(4):
            write_files(root / f"files{number}", choose)
        allocate(root / "allocated")
        scatter(root, choose)
        write_attributes(root / "attributes")
        write_links(root / "links")


@contextlib.contextmanager
def mounted_ext4(image: Path, mountpoint: Path) -> Iterator[Path]:
    """Mount an ext4 filesystem from its image; unmount it at the end."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "ext4", "-o", "loop", image, mountpoint)
    try:
        yield mountpoint
    finally:
        run("umount", mountpoint)


def scatter(root: Path, choose: random.Random) -> None:
    """Write two files by turns, so that both are in pieces, and one with holes."""
    with (root / "one").open("wb") as one, (root / "other").open("wb") as other:
        for number in range(60):
            for file in (one, other):
                file.write(choose.randbytes(3 * PAGE))
                file.flush()
                os.fsync(file.fileno())
            os.ftruncate(other.fileno(), (number + 1) * 5 * PAGE)
            other.seek(0, os.SEEK_END)


def write_attributes(folder: Path) -> None:
    """Give files extended attributes."""
    folder.mkdir()
    for number in range(20):
        path = folder / f"file{number}"
        path.write_bytes(b"content" * number)
        os.setxattr(path, f"user.name{number}", b"value" * number)


def write_links(folder: Path) -> None:
    """Make hard links, symbolic links, special files and a deep directory."""
    folder.mkdir()
    (folder / "linked").write_text("a file of many names")
    for number in range(50):
        os.link(folder / "linked", folder / f"link{number}")
    (folder / "short").symlink_to("linked")
    (folder / "long").symlink_to("t" * 300)
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "device", 0o60600, os.makedev(7, 7))
    folder.joinpath(*(["deep"] * 30)).mkdir(parents=True)


def convert(image: Path, *options: str) -> None:
    """Make a btrfs of an ext4 image. The subvolume ext2_saved keeps what it was."""
    run("btrfs-convert", *options, image)
