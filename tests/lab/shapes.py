"""Files and directories in every shape that the kernel can give them, beyond those of `populate()`.

Holes, allocations beyond the end, ends that were cut off, compressed extents of which parts are
used, shared ranges, attributes, access control lists, flags, names that were exchanged, files
without a name. All of it is done by the kernel, through its ordinary calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from btrfs.ioctl import FileDedupeRangeInfo, fideduperange
from tests.lab.commands import run
from tests.lab.populate import FICLONERANGE, ODD_NAMES, PAGE, enable_verity
from tests.lab.sharing import (
    FS_IOC_SETFLAGS,
    clone_range,
    clone_whole,
    overwrite,
    sync,
    write_in_place,
)

FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2
FALLOC_ZERO_RANGE = 16
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
AT_FDCWD = -100

FLAGS = {
    "sync": 0x08,
    "immutable": 0x10,
    "append": 0x20,
    "nodump": 0x40,
    "noatime": 0x80,
    "compressed": 0x04,
    "not compressed": 0x400,
    "dirsync": 0x10000,
}
"""Flags of FS_IOC_SETFLAGS that btrfs keeps in inodes; `dirsync` is for directories."""

_TEXT = b"a line that compresses well\n"
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def write_shapes(root: Path, seed: int = 1) -> None:
    """Fill a mounted filesystem with files and directories of all shapes."""
    choose = random.Random(seed)
    folder = root / "shapes"
    folder.mkdir()
    write_holes(folder / "holes", choose)
    allocate_beyond(folder / "allocated", choose)
    cut_off(folder / "cut off", choose)
    grow_inline(folder / "inline", choose)
    write_bookends(folder / "bookends")
    share_ranges(folder / "shared", choose)
    write_directories(folder / "directories")
    write_attributes(folder / "attributes", choose)
    write_access_lists(folder / "access")
    set_flags(folder / "flags")
    exchange_names(folder / "exchanged")
    name_nameless(folder / "named")
    write_in_place(folder / "in place", choose)
    allocate_in_place(folder / "allocated in place", choose)
    enable_verity(folder / "verity")  # if the kernel knows it
    sync(root)


def write_holes(folder: Path, choose: random.Random) -> None:
    """Write files with holes: left out, punched, at the begin, the end, or all of the file."""
    folder.mkdir()
    (folder / "only").touch()
    os.truncate(folder / "only", 1 << 40)
    (folder / "odd").touch()
    os.truncate(folder / "odd", 12345)
    for name, ranges in {
        "first": [(0, 3 * PAGE)],
        "last": [(37 * PAGE, 3 * PAGE)],
        "odd bounds": [(100, 5000), (50_001, 3), (60_000, 33_333)],
        "all": [(0, 40 * PAGE)],
        "many": [(page * PAGE, PAGE) for page in range(1, 40, 3)],
    }.items():
        (folder / name).write_bytes(choose.randbytes(40 * PAGE))
        run("btrfs", "filesystem", "sync", folder)
        for start, length in ranges:
            fallocate(folder / name, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, start, length)
    with (folder / "far").open("wb") as file:
        for place in (0, 1 << 30, 1 << 45):
            os.pwrite(file.fileno(), choose.randbytes(PAGE + 1), place)
    with (folder / "leaves").open("wb") as file:
        for number in range(700):
            os.pwrite(file.fileno(), b"one of many extents", number * 3 * PAGE)


def allocate_beyond(folder: Path, choose: random.Random) -> None:
    """Allocate without writing, beyond the end of files too, and write into parts of it."""
    folder.mkdir()
    for name in ("empty", "small", "large", "written", "grown", "cut", "zeroed", "inline"):
        (folder / name).touch()
    fallocate(folder / "empty", FALLOC_KEEP_SIZE, 0, 1 << 20)
    (folder / "inline").write_bytes(b"small")
    for name in ("small", "large", "written", "grown", "cut"):
        (folder / name).write_bytes(choose.randbytes(5 * PAGE + 7))
        fallocate(folder / name, FALLOC_KEEP_SIZE, 3 * PAGE, 60 * PAGE)
    fallocate(folder / "large", FALLOC_KEEP_SIZE, 1 << 22, 1 << 22)
    fallocate(folder / "inline", FALLOC_KEEP_SIZE, 1 << 16, 1 << 16)
    sync(folder)
    for page in (8, 9, 20, 41):
        overwrite(folder / "written", page * PAGE, choose.randbytes(PAGE))
    os.truncate(folder / "grown", 30 * PAGE + 5)
    os.truncate(folder / "cut", 2 * PAGE + 5)
    (folder / "zeroed").write_bytes(choose.randbytes(30 * PAGE))
    fallocate(folder / "zeroed", FALLOC_ZERO_RANGE, 1000, 50_000)
    fallocate(folder / "zeroed", FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, 29 * PAGE, 9 * PAGE)


def cut_off(folder: Path, choose: random.Random) -> None:
    """Cut files off in the middle of an extent, of a page, or of compressed data; extend some."""
    folder.mkdir()
    for length in (0, 1, 2000, PAGE, PAGE + 1, 77_777, 140_000):
        for kind in ("plain", "zstd", "lzo", "zlib"):
            path = folder / f"{kind} {length}"
            path.touch()
            if kind != "plain":
                os.setxattr(path, "btrfs.compression", kind.encode())
            content = choose.randbytes(40 * PAGE) if kind == "plain" else _TEXT * 6000
            path.write_bytes(content)
    sync(folder)
    for path in folder.iterdir():
        length = int(path.name.split()[1])
        os.truncate(path, length)
        if length % 2:
            os.truncate(path, length + 50_000)


def grow_inline(folder: Path, choose: random.Random) -> None:
    """Make inline files, plain and compressed ones, that grow, shrink, and get extents."""
    folder.mkdir()
    for number, compression in enumerate((None, "zlib", "lzo", "zstd") * 6):
        path = folder / f"file{number}"
        path.touch()
        if compression:
            os.setxattr(path, "btrfs.compression", compression.encode())
        path.write_bytes((_TEXT * 60)[: choose.randrange(1, 1600)])
    sync(folder)
    for number in range(24):
        path = folder / f"file{number}"
        if number % 6 == 1:
            with path.open("ab") as file:
                file.write(b"more" * choose.randrange(1, 3000))
        elif number % 6 == 2:
            os.truncate(path, path.stat().st_size // 2)
        elif number % 6 == 3:
            os.truncate(path, 3 * PAGE + 1)
        elif number % 6 == 4:
            clone_whole(path, folder / f"clone{number}")


def write_bookends(folder: Path) -> None:
    """Use only the begin, the end or the middle of extents, compressed or not."""
    folder.mkdir()
    for kind in ("none", "zlib", "lzo", "zstd"):
        path = folder / kind
        path.touch()
        if kind != "none":
            os.setxattr(path, "btrfs.compression", kind.encode())
        path.write_bytes(_TEXT * 20_000)
        sync(folder)
        for page in (0, 10, 11, 31, 32, 50, 90):
            overwrite(path, page * PAGE, (b"%d again " % page) * 500)
        overwrite(path, 200_001, b"within a page")
        sync(folder)
        fallocate(path, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, 60 * PAGE, 3 * PAGE)
        for number, (start, pages) in enumerate(((0, 2), (5, 40), (33, 7), (70, 1))):
            clone_range(path, folder / f"{kind}{number}", start * PAGE, pages * PAGE)


def share_ranges(folder: Path, choose: random.Random) -> None:
    """Share ranges within a file and between files, by cloning and by removing duplicates."""
    folder.mkdir()
    source = folder / "source"
    source.write_bytes(choose.randbytes(64 * PAGE))
    sync(folder)
    with source.open("r+b") as file:
        for start, length, target in ((0, 8, 70), (0, 8, 8), (3, 1, 40), (60, 4, 100)):
            request = struct.pack(
                "=qQQQ", file.fileno(), start * PAGE, length * PAGE, target * PAGE
            )
            fcntl.ioctl(file, FICLONERANGE, request)
    content = source.read_bytes()
    # So many references to an extent get items of their own.
    for number in range(300):
        clone_range(source, folder / f"page{number}", number % 2 * PAGE, PAGE)
    for number in range(3):
        (folder / f"copy{number}").write_bytes(content)
    sync(folder)
    with source.open("rb") as file, contextlib.ExitStack() as stack:
        copies = [stack.enter_context((folder / f"copy{n}").open("r+b")) for n in range(3)]
        ranges = [FileDedupeRangeInfo(copy.fileno(), 4 * PAGE) for copy in copies]
        fideduperange(file.fileno(), 4 * PAGE, 20 * PAGE, ranges)
        if not all(each.bytes_deduped for each in ranges):
            raise AssertionError("nothing was found to be the same")


def write_directories(folder: Path, depth: int = 60, names: int = 1500) -> None:
    """Make a deep path, a directory of many long names, and rename and move some of them."""
    folder.mkdir()
    deepest = folder.joinpath(*(["deep"] * depth))
    deepest.mkdir(parents=True)
    (deepest / "file").write_text("at the bottom")
    many = folder / "many"
    many.mkdir()
    for number in range(names):
        (many / f"{number} {'name' * (number % 50)}").touch()
    for path in sorted(many.iterdir())[::5]:
        path.rename(path.with_name(f"renamed {path.name[:200]}"))
    (folder / "emptied").mkdir()
    for path in sorted(many.iterdir())[::7]:
        path.rename(folder / "emptied" / path.name)
    for path in (folder / "emptied").iterdir():
        path.unlink()
    for index, name in enumerate(ODD_NAMES[-2:]):
        (folder / os.fsdecode(name)).mkdir()
        os.link(deepest / "file", folder / f"link{index}")
    (folder / "moved").mkdir()
    (folder / "deep" / "deep" / "deep").rename(folder / "moved" / "deep")


def write_attributes(folder: Path, choose: random.Random) -> None:
    """Give files many and large extended attributes, change them, and remove some."""
    folder.mkdir()
    for number in range(12):
        path = folder / f"file{number}"
        path.touch()
        for index in range(number * 4):
            os.setxattr(path, f"user.{index}", choose.randbytes(choose.randrange(120)))
        for name in ODD_NAMES[-2:]:
            os.setxattr(path, b"user." + name, name * number)
            os.setxattr(path, b"trusted." + name, name)
        for index in range(0, number * 4, 3):
            os.setxattr(path, f"user.{index}", b"changed" * index)
        for index in range(0, number * 4, 5):
            os.removexattr(path, f"user.{index}")
    os.removexattr(folder / "file1", b"user." + ODD_NAMES[-1])
    os.setxattr(folder, "user.of a directory", b"too")
    os.setxattr(folder / "file2", "security.capability", struct.pack("<5I", 0x02000001, 1, 0, 0, 0))
    (folder / "link").symlink_to("file1")
    os.setxattr(folder / "link", "trusted.of a link", b"too", follow_symlinks=False)


def write_access_lists(folder: Path) -> None:
    """Give a directory a default access control list, which its children inherit."""
    folder.mkdir()
    os.setxattr(folder, "system.posix_acl_default", access_list(range(1000, 1005)))
    os.setxattr(folder, "system.posix_acl_access", access_list(range(2000, 2040)))
    (folder / "child").mkdir()
    (folder / "child" / "file").touch()
    (folder / "file").write_text("inherits")


def access_list(users: range) -> bytes:
    """Return an access control list for these users, as the kernel takes it as an attribute."""
    entries = [(0x01, 7, -1), *((0x02, 5, user) for user in users), (0x04, 5, -1), (0x10, 7, -1)]
    packed = [struct.pack("<HHi", *entry) for entry in (*entries, (0x20, 0, -1))]
    return struct.pack("<I", 2) + b"".join(packed)


def set_flags(folder: Path) -> None:
    """Give files and directories the flags of chattr; what is immutable can be deleted no more."""
    folder.mkdir()
    for name, flag in FLAGS.items():
        path = folder / name
        if name == "dirsync":
            path.mkdir()
        else:
            path.write_bytes(_TEXT * 1000)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("=L", flag))
        finally:
            os.close(descriptor)


def exchange_names(folder: Path) -> None:
    """Exchange the names of two files, of a file and a directory; leave a whiteout behind."""
    folder.mkdir()
    for name in "abcdef":
        (folder / name).write_text(name)
    (folder / "directory").mkdir()
    (folder / "directory" / "g").write_text("g")
    rename(folder / "a", folder / "b", RENAME_EXCHANGE)
    rename(folder / "c", folder / "directory" / "g", RENAME_EXCHANGE)
    rename(folder / "d", folder / "directory", RENAME_EXCHANGE)
    rename(folder / "e", folder / "moved", RENAME_WHITEOUT)
    rename(folder / "moved", folder / "f", RENAME_WHITEOUT)


def name_nameless(folder: Path) -> None:
    """Make files without a name, and name them afterwards."""
    folder.mkdir()
    for number in range(5):
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR)
        os.write(descriptor, b"late" * 10**number)
        # Python follows the link in /proc only where it is given a directory, too.
        nameless = f"/proc/self/fd/{descriptor}"
        os.link(nameless, folder / f"file{number}", src_dir_fd=descriptor)
        os.close(descriptor)


def allocate_in_place(path: Path, choose: random.Random) -> None:
    """Allocate a file without copy on write, and write some of it twice."""
    with path.open("wb") as file:
        fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("=L", 0x00800000))
        os.posix_fallocate(file.fileno(), 0, 50 * PAGE)
        for page in (3, 4, 20, 4):
            os.pwrite(file.fileno(), choose.randbytes(PAGE), page * PAGE)


def clear_flags(folder: Path) -> None:
    """Take the flags from what `set_flags()` made."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, FS_IOC_SETFLAGS, struct.pack("=L", 0))
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def orphans(folder: Path, choose: random.Random) -> Iterator[None]:
    """Hold files without a name open: deleted ones, never named ones, some of them cut off."""
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        for number in range(8):
            path = folder / f"file{number}"
            path.write_bytes(choose.randbytes(number * 3000))
            file = stack.enter_context(path.open("r+b"))
            path.unlink()
            if number % 2:
                file.truncate(number * 1000)
            descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR)
            stack.callback(os.close, descriptor)
            os.write(descriptor, choose.randbytes(number * 2000))
        sync(folder)
        yield


@contextlib.contextmanager
def swap_file(path: Path, size: int = 4 << 20) -> Iterator[None]:
    """Make a swap file, and use it while the block runs."""
    with path.open("wb") as file:
        fcntl.ioctl(file, FS_IOC_SETFLAGS, struct.pack("=L", 0x00800000))
        os.posix_fallocate(file.fileno(), 0, size)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    run("mkswap", "--quiet", path)
    run("swapon", "--priority", "0", path)
    try:
        yield
    finally:
        run("swapoff", path)


def fallocate(path: Path, mode: int, start: int, length: int) -> None:
    """Allocate or free a range of a file; the mode is that of the call of this name."""
    with path.open("r+b") as file:
        if _LIBC.fallocate(file.fileno(), mode, start, length) != 0:
            raise OSError(ctypes.get_errno(), f"fallocate({mode})", os.fspath(path))


def rename(old: Path, new: Path, flags: int) -> None:
    """Rename as renameat2(2) does with these flags."""
    paths = os.fsencode(old), os.fsencode(new)
    if _LIBC.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], flags) != 0:
        raise OSError(ctypes.get_errno(), f"renameat2({flags})", os.fspath(old))
