"""A small filesystem with a bit of everything, to put lies into."""

from __future__ import annotations

import os
from pathlib import Path

from tests.lab.commands import run

__all__ = ["fill"]


def fill(root: Path) -> None:
    """Write files of all kinds below the top of a mounted filesystem.

    Inode numbers follow the order in which files are made: the lies name paths, not numbers.
    """
    work = root / "work"
    run("btrfs", "subvolume", "create", work)
    (work / "folder" / "inner").mkdir(parents=True)
    (work / "small").write_bytes(b"inline")
    (work / "large").write_bytes(os.urandom(3 << 20))
    (work / "linked").write_bytes(b"two names")
    os.link(work / "linked", work / "folder" / "other name")
    (work / "link").symlink_to("folder/inner")
    os.mkfifo(work / "pipe")
    plain = work / "no sums"
    plain.touch()
    run("chattr", "+C", plain)
    plain.write_bytes(os.urandom(256 << 10))
    with (work / "sparse").open("wb") as file:
        file.write(os.urandom(8192))
        file.seek(1 << 20)
        file.write(os.urandom(8192))
    run("fallocate", "--length", "1M", work / "reserved")
    os.setxattr(work / "small", "user.colour", b"green")
    packed = work / "packed"
    packed.mkdir()
    run("btrfs", "property", "set", packed, "compression", "zstd")
    (packed / "zeros").write_bytes(bytes(1 << 20))
    for number in range(300):
        (work / "folder" / f"file number {number}").write_bytes(b"%d" % number * 300)
    run("btrfs", "filesystem", "sync", root)
    run("btrfs", "subvolume", "snapshot", "-r", work, root / "snapshot")
    (work / "folder" / "file number 7").write_bytes(b"changed")
    with (work / "large").open("r+b") as file:
        file.seek(1 << 20)
        file.write(os.urandom(64 << 10))
    run("cp", "--reflink=always", work / "large", work / "copy")
    run("btrfs", "filesystem", "sync", root)
