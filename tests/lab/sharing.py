"""Subvolumes that share extents in every way: snapshots, clones, hard links, parts of extents."""

from __future__ import annotations

import fcntl
import os
import random
import struct
from pathlib import Path

from tests.lab.commands import run
from tests.lab.populate import FICLONE, FICLONERANGE, PAGE, allocate, compress, write_files

FS_IOC_SETFLAGS = 0x40086602
FS_NOCOW_FL = 0x00800000


def share_space(root: Path, seed: int = 1, files: int = 400) -> None:
    """Fill a mounted filesystem with subvolumes that share what they hold.

    There are snapshots of snapshots that have changed since, clones within a subvolume and between
    two, hard links across folders, extents of which only a part is used, compressed, allocated and
    inline files, one that is overwritten in place, and a subvolume inside another.
    """
    choose = random.Random(seed)
    home = root / "home"
    run("btrfs", "subvolume", "create", home)
    write_files(home / "files", choose, files)
    compress(home / "compressed", choose)
    allocate(home / "allocated", 1 << 20)
    write_in_place(home / "in place", choose)
    (home / "large").write_bytes(choose.randbytes(200 * PAGE))
    run("btrfs", "subvolume", "create", home / "nested")
    (home / "nested" / "own").write_bytes(choose.randbytes(3 * PAGE))
    link_across(home)
    sync(root)
    for number in range(4):
        run("btrfs", "subvolume", "snapshot", "-r", home, root / f"snapshot{number}")
        change(home, choose)
        sync(root)
    run("btrfs", "subvolume", "snapshot", root / "snapshot1", root / "writable")
    change(root / "writable", choose)
    run("btrfs", "subvolume", "snapshot", root / "writable", root / "snapshot of a snapshot")
    change(root / "writable", choose)
    clone_range(home / "large", home / "part of large", 20 * PAGE, 30 * PAGE)
    clone_range(home / "large", root / "in the top level", 10 * PAGE, 5 * PAGE)
    clone_range(root / "writable" / "large", home / "nested" / "clone", 0, 100 * PAGE)
    clone_whole(home / "compressed" / "zstd", root / "writable" / "compressed clone")
    clone_range(home / "compressed" / "zlib", home / "part of compressed", 2 * PAGE, 4 * PAGE)
    for name in ("large", "compressed/lzo"):
        with (home / name).open("r+b") as file:
            file.truncate(9 * PAGE)
    leave_unreachable(root, choose)
    sync(root)


def leave_unreachable(root: Path, choose: random.Random) -> None:
    """Write files, and again so much of them that only their ends are still in use."""
    text = b"".join(b"line %d\n" % choose.randrange(10**6) for _ in range(20_000))
    for name, content in (("ends", choose.randbytes(50 * PAGE)), ("compressed ends", text)):
        (root / name).touch()
        if name != "ends":
            os.setxattr(root / name, "btrfs.compression", b"zstd")
        (root / name).write_bytes(content)
        sync(root)
        overwrite(root / name, 5 * PAGE, choose.randbytes(20 * PAGE))


def write_in_place(path: Path, choose: random.Random) -> None:
    """Write a file without copy on write, and some of it again."""
    with path.open("wb") as file:
        fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("=L", FS_NOCOW_FL))
        file.write(choose.randbytes(40 * PAGE))
        os.fsync(file.fileno())
        os.pwrite(file.fileno(), choose.randbytes(2 * PAGE), 7 * PAGE)


def link_across(folder: Path) -> None:
    """Make hard links in two more folders to files with extents."""
    for name in ("links", "more links"):
        (folder / name).mkdir()
    with_extents = [file for file in (folder / "files").iterdir() if file.stat().st_size > PAGE]
    for file in with_extents[:20]:
        os.link(file, folder / "links" / file.name)
    for file in with_extents[:5]:
        os.link(file, folder / "more links" / file.name)


def change(folder: Path, choose: random.Random) -> None:
    """Overwrite parts of files in a subvolume, delete some, and write a new one."""
    for place in choose.sample(range(200), 8):
        overwrite(folder / "large", place * PAGE, choose.randbytes(PAGE))
    overwrite(folder / "in place", choose.randrange(40) * PAGE, choose.randbytes(PAGE))
    overwrite(folder / "compressed" / "zstd", choose.randrange(60) * PAGE, b"new " * 1024)
    names = sorted(os.listdir(folder / "files"))
    for name in choose.sample(names, 5):
        (folder / "files" / name).unlink()
    (folder / f"new{choose.randrange(10**9)}").write_bytes(choose.randbytes(6 * PAGE))


def overwrite(path: Path, position: int, content: bytes) -> None:
    """Write over a part of a file."""
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), content, position)


def clone_whole(source: Path, target: Path) -> None:
    """Make a file that shares all extents of another."""
    with source.open("rb") as opened, target.open("wb") as made:
        fcntl.ioctl(made, FICLONE, opened.fileno())


def clone_range(source: Path, target: Path, position: int, length: int) -> None:
    """Make a file that shares a part of another."""
    with source.open("rb") as opened, target.open("wb") as made:
        request = struct.pack("=qQQQ", opened.fileno(), position, length, 0)
        fcntl.ioctl(made, FICLONERANGE, request)


def sync(root: Path) -> None:
    """Commit the running transaction."""
    run("btrfs", "filesystem", "sync", root)
