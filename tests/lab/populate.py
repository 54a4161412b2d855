"""Write to a mounted btrfs so that nearly every kind of item comes up in its trees.

`populate()` writes the same mix every time, in about a second; what not every filesystem can have,
such as quotas, has a function of its own. All of it is done by the kernel, through its ordinary
calls.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import socket
import stat
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.lab.commands import CommandError, run

PAGE = 4096

FICLONE = 0x40049409
FICLONERANGE = 0x4020940D
FS_IOC_ENABLE_VERITY = 0x40806685

HARD_LINKS = 450
"""So many names of 200 bytes that they overflow an INODE_REF item of the largest nodesize."""

ODD_NAMES = (
    b"\xff\xfe not utf-8",
    b"two\nlines",
    b"quote ' and \" and \\",
    "Überraschung ☃ \U0001f9ed".encode(),
    b" ",
    b"n" * 255,
    b"db1f575d",
    b"9802be03",
)
"""The last two have the same crc32c: both get into one DIR_ITEM, or into one XATTR_ITEM."""


def populate(root: Path, seed: int = 1) -> None:
    """Fill a mounted filesystem with files, subvolumes and snapshots of all kinds."""
    choose = random.Random(seed)
    write_files(root / "files", choose)
    overwrite_file(root / "overwritten", choose)
    allocate(root / "allocated")
    compress(root / "compressed", choose)
    write_names(root / "names")
    clone(root)
    make_subvolumes(root, choose)
    fragment_free_space(root / "fragments")
    run("btrfs", "filesystem", "sync", root)


def write_files(folder: Path, choose: random.Random, count: int = 300) -> None:
    """Write files that are empty, inline, or have extents, and delete a third of them."""
    folder.mkdir()
    sizes = (0, 1, 100, 1500, 2048, 3000, 5 * PAGE, 90_000)
    for number in range(count):
        name = folder / f"file{number}"
        name.write_bytes(choose.randbytes(sizes[number % len(sizes)]))
        os.chown(name, 1000 + number % 3, 100)
        name.chmod(0o600 + number % 8)
        if number % 3 == 0:
            os.utime(name, ns=(number, -number * 10**9))
    for number in range(0, count, 3):
        (folder / f"file{number}").unlink()


def overwrite_file(path: Path, choose: random.Random, size: int = 8 << 20) -> None:
    """Write a file, then parts of it again in later transactions; leave a hole and a tail."""
    with path.open("wb") as file:
        file.write(choose.randbytes(size))
        for _ in range(2):
            os.fsync(file.fileno())
            run("btrfs", "filesystem", "sync", path.parent)
            for page in choose.sample(range(size // PAGE), 150):
                os.pwrite(file.fileno(), choose.randbytes(PAGE), page * PAGE)
        os.pwrite(file.fileno(), b"tail", size + 10 * PAGE)


def allocate(path: Path, size: int = 4 << 20) -> None:
    """Allocate a file without writing, then write into the middle of what was allocated."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
        for index in range(64):
            os.posix_fallocate(file.fileno(), 2 * size + index * 2 * PAGE, PAGE)
        os.pwrite(file.fileno(), b"x" * 3 * PAGE, size // 2)


def compress(folder: Path, choose: random.Random) -> None:
    """Write a file with each compression, large enough for several extents, and an inline one."""
    folder.mkdir()
    text = b" ".join(choose.choice((b"block", b"group", b"chunk", b"tree")) for _ in range(60_000))
    for method in ("zlib", "lzo", "zstd"):
        for name, content in ((method, text), (f"{method}-inline", text[:1800])):
            path = folder / name
            path.touch()
            os.setxattr(path, "btrfs.compression", method.encode())
            path.write_bytes(content)


def write_names(folder: Path) -> None:
    """Make odd names, hard links, extended attributes, symbolic links and special files."""
    folder.mkdir()
    here = os.fsencode(folder)
    for name in ODD_NAMES:
        with open(os.path.join(here, name), "wb") as file:
            file.write(name)
    linked = folder / "linked"
    linked.write_text("a file of many names")
    with contextlib.suppress(OSError):  # without the feature extref, there is an end to it
        for number in range(HARD_LINKS):
            os.link(linked, folder / f"link{number:0196}")
    for name in (*ODD_NAMES[-2:], b"empty", b"large"):
        value = {b"empty": b"", b"large": b"v" * 3000}.get(name, name * 3)
        os.setxattr(linked, b"user." + name, value)
    (folder / "symlink").symlink_to("linked")
    (folder / "dangling").symlink_to("t" * 2000)
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(folder / "socket"))


def clone(root: Path) -> None:
    """Share extents: a whole file, single pages often, and pages within one file."""
    with (root / "overwritten").open("rb") as source, (root / "clone").open("wb") as target:
        fcntl.ioctl(target, FICLONE, source.fileno())
    with (root / "overwritten").open("rb") as source, (root / "pages").open("wb") as target:
        for index in range(40):
            request = struct.pack("=qQQQ", source.fileno(), 0, PAGE, index * 2 * PAGE)
            fcntl.ioctl(target, FICLONERANGE, request)


def make_subvolumes(root: Path, choose: random.Random) -> None:
    """Make subvolumes, one inside another, snapshots of them, and delete one again."""
    volume = root / "volume"
    run("btrfs", "subvolume", "create", volume)
    write_files(volume / "files", choose, 60)
    run("btrfs", "subvolume", "create", volume / "nested")
    (volume / "nested" / "file").write_bytes(choose.randbytes(3 * PAGE))
    run("btrfs", "subvolume", "snapshot", "-r", volume, root / "readonly")
    run("btrfs", "subvolume", "snapshot", volume, root / "writable")
    write_files(root / "writable" / "more", choose, 60)
    run("btrfs", "subvolume", "snapshot", volume, root / "deleted")
    run("btrfs", "subvolume", "delete", root / "deleted")


def fragment_free_space(folder: Path, files: int = 2000) -> None:
    """Free every second page of a range: the free space tree describes such places by bitmaps."""
    folder.mkdir()
    for number in range(files):
        with (folder / str(number)).open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, PAGE)
    run("btrfs", "filesystem", "sync", folder)
    for number in range(0, files, 2):
        (folder / str(number)).unlink()


def enable_quota(root: Path) -> None:
    """Switch quotas on, with a group of groups, a relation and two limits, and count."""
    run("btrfs", "quota", "enable", root)
    run("btrfs", "qgroup", "create", "1/0", root)
    run("btrfs", "qgroup", "assign", "--no-rescan", "0/5", "1/0", root)
    run("btrfs", "qgroup", "limit", "512M", "1/0", root)
    run("btrfs", "qgroup", "limit", "-e", "256M", "0/5", root)
    run("btrfs", "quota", "rescan", "-w", root)


def send_and_receive(root: Path) -> None:
    """Receive a copy of the read-only snapshot: the UUID tree then knows whom it came from."""
    folder = root / "received"
    folder.mkdir()
    with subprocess.Popen(
        ["btrfs", "send", "--quiet", root / "readonly"], stdout=subprocess.PIPE
    ) as sender:
        subprocess.run(["btrfs", "receive", "--quiet", folder], stdin=sender.stdout, check=True)
    if sender.returncode != 0:
        raise CommandError(f"btrfs send failed: exit code {sender.returncode}")


def enable_verity(path: Path) -> bool:
    """Write a file and let the kernel protect it with fs-verity; False if it cannot."""
    path.write_bytes(b"v" * 20 * PAGE)
    request = struct.pack("=IIIIQIIQ11Q", 1, 1, PAGE, 0, 0, 0, 0, 0, *([0] * 11))
    with path.open("rb") as file:
        try:
            fcntl.ioctl(file, FS_IOC_ENABLE_VERITY, request)
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
                return False
            raise
    return True


@contextlib.contextmanager
def orphan(path: Path) -> Iterator[None]:
    """Hold a deleted file open: while the block runs, its tree has an orphan item."""
    with path.open("wb") as file:
        file.write(b"o" * 5 * PAGE)
        path.unlink()
        run("btrfs", "filesystem", "sync", path.parent)
        yield


def pause_balance(root: Path, tries: int = 20) -> bool:
    """Start a balance and pause it: the root tree keeps a balance item. False if it was too quick.

    The next mount goes on with it, unless the mount option is skip_balance.
    """
    for number in range(tries):
        fill = root / f"balance{number}"
        allocate(fill, 64 << 20)
        balance = ["btrfs", "balance", "start", "--full-balance", os.fspath(root)]
        with subprocess.Popen(
            balance, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                with contextlib.suppress(CommandError):
                    run("btrfs", "balance", "pause", root)
                    return True
                time.sleep(0.001)
    return False
