"""`python -m bench.free_space`: fill filesystems, and compare with what was said to fit.

Each filesystem of the table is made on loop devices and filled with one large file, with an fsync
every 64 MiB, until the kernel says that there is no space left. Before that, everybody is asked how
much that will be. The table goes into docs/free-space.md, between its two marks.

The images take as much space as the devices have, 8 GB at the most, one filesystem after the other.
In a folder in memory (`--folder /dev/shm`) it takes some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import btrfs
from bench.peers import OURS, ROOT, peer, run_alone
from tests.lab import loopfs
from tests.lab.commands import CommandError, run
from tests.lab.loopfs import LoopFilesystem, is_root

DOCUMENT = ROOT / "docs" / "free-space.md"
MARKS = ("<!-- table: begin -->\n", "<!-- table: end -->\n")
CACHE = Path(os.environ.get("BTRFS_ATLAS_BENCH_CACHE", ROOT / "build" / "bench"))

MIB = 1 << 20
GIB = 1 << 30
UNEQUAL = (GIB, 1536 * MIB, 2560 * MIB, 2560 * MIB)

_BLOCK = 512
"""Bytes that stat(2) counts in."""

Prepare = Callable[[LoopFilesystem], None]


@dataclass(frozen=True, slots=True)
class Case:
    """A filesystem to fill.

    Attributes:
        data: Profile of data.
        metadata: Profile of metadata.
        sizes: Bytes of each device.
        mixed: Whether data and metadata share their block groups.
        prepare: What happens to it before anybody is asked.
        remark: That in words.
    """

    data: str
    metadata: str
    sizes: tuple[int, ...] = UNEQUAL
    mixed: bool = False
    prepare: Prepare | None = None
    remark: str = "new"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was said, and what was then stored, in bytes; None where there was no answer."""

    written: int
    python_btrfs: int | None
    progs: int | None
    df: int | None
    ours: int


def half_filled(made: LoopFilesystem) -> None:
    """Fill half of it with files, and delete every third of them."""
    files = [made.mountpoint / f"file{number}" for number in range(16)]
    half = ours(made.mountpoint) // 2
    for file in files:
        write(file, half // len(files))
    for file in files[::3]:
        file.unlink()
    made.sync()


def with_device_added(made: LoopFilesystem) -> None:
    """Fill three quarters of it, then add a device, without a balance."""
    write(made.mountpoint / "first", ours(made.mountpoint) * 3 // 4)
    made.btrfs("device", "add", "-f", made.add_image("1500M"), made.mountpoint)
    made.sync()


def half_converted(made: LoopFilesystem) -> None:
    """Fill a third of it, and convert some of the data block groups to RAID1."""
    write(made.mountpoint / "first", ours(made.mountpoint) // 3)
    made.sync()
    made.btrfs("balance", "start", "-dconvert=raid1,limit=2", made.mountpoint)
    made.sync()


CASES = [
    Case("single", "dup"),
    Case("raid0", "raid1"),
    Case("raid1", "raid1"),
    Case("raid1c3", "raid1c3"),
    Case("raid1c4", "raid1c4"),
    Case("raid10", "raid10"),
    Case("raid5", "raid1"),
    Case("raid6", "raid1c3"),
    Case("dup", "dup", (3 * GIB,)),
    Case("raid1", "raid1", (2 * GIB, 2 * GIB)),
    Case("raid10", "raid10", (GIB,) * 5),
    Case("single", "dup", (140 * MIB,)),
    Case("single", "single", (GIB, 1536 * MIB), mixed=True),
    Case("raid1", "raid1", (512 * MIB, 700 * MIB, GIB), mixed=True),
    Case("raid1", "raid1", prepare=half_filled, remark="half filled, with holes"),
    Case("raid5", "raid1", prepare=half_filled, remark="half filled, with holes"),
    Case("single", "dup", (700 * MIB,), prepare=with_device_added, remark="1500 MiB added"),
    Case("raid1", "raid1", (800 * MIB,) * 2, prepare=with_device_added, remark="1500 MiB added"),
    Case("raid10", "raid10", (600 * MIB,) * 4, prepare=with_device_added, remark="1500 MiB added"),
    Case("single", "raid1", prepare=half_converted, remark="data partly converted to RAID1"),
    Case("raid5", "raid1", prepare=half_converted, remark="data partly converted to RAID1"),
]


def main() -> int:
    """Fill all filesystems, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.free_space", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the images are made for a while"
    )
    parser.add_argument(
        "--print", action="store_true", help="print the table, and keep the document"
    )
    options = parser.parse_args()
    if not is_root():
        print("Error: needs root, to attach loop devices and to mount", file=sys.stderr)
        return 1
    headings = ("data / metadata", "devices, GiB", "state", "written")
    asked = ("python-btrfs 15", "btrfs-progs", "df", "ours")
    lines = [f"| {' | '.join((*headings, *asked))} |", "|---" * len((*headings, *asked)) + "|"]
    for case in CASES:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            lines.append(row(case, fill(case, Path(folder))))
        print(lines[-1], file=sys.stderr, flush=True)
    table = "".join(f"{line}\n" for line in lines)
    if options.print:
        print(table, end="")
    else:
        insert(table)
    return 0


def insert(table: str) -> None:
    """Put the table into the document in place of the one that is there."""
    text = DOCUMENT.read_text()
    begin, end = (re.escape(mark) for mark in MARKS)
    made = re.sub(
        f"({begin}).*({end})",
        lambda found: f"{found[1]}\n{table}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )
    DOCUMENT.write_text(made)


# One filesystem.


@contextlib.contextmanager
def filesystem(case: Case, folder: Path) -> Iterator[LoopFilesystem]:
    """Make and mount it; unmount it and detach its devices at the end."""
    images = [folder / f"disk{number}.img" for number in range(1, len(case.sizes) + 1)]
    for image, size in zip(images, case.sizes, strict=True):
        loopfs.make_sparse(image, size)
    with loopfs.attached(LoopFilesystem(images, folder / "mnt")) as made:
        loopfs.mkfs(made.devices, data=case.data, metadata=case.metadata, mixed=case.mixed)
        made.mount()
        yield made


def fill(case: Case, folder: Path) -> Answer:
    """Ask everybody, then fill the filesystem."""
    with filesystem(case, folder) as made:
        if case.prepare:
            case.prepare(made)
        where = made.mountpoint
        said = (theirs(where), progs(where), df(where), ours(where))
        return Answer(write(where / "large", 1 << 62), *said)


def write(path: Path, most: int) -> int:
    """Write a file, with an fsync every 64 MiB, until there is no space.

    Returns:
        Bytes of it that are stored. What the kernel took at first it may refuse when it is to be
        stored, as it counts on free space of block groups that it then does not use.
    """
    portion = os.urandom(MIB)
    taken = 0
    with path.open("wb", buffering=0) as file:
        try:
            while taken < most:
                taken += file.write(portion[: most - taken])
                if taken % (64 * MIB) == 0:
                    os.fsync(file.fileno())
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_blocks * _BLOCK


# Who is asked.


def ours(mountpoint: Path) -> int:
    """Return what FsUsage says."""
    with btrfs.FileSystem(mountpoint) as fs:
        usage = fs.usage()
        return usage.free_mixed if fs.mixed_groups() else usage.free_data


_ASK_PYTHON_BTRFS = """
import json, sys
import btrfs
with btrfs.FileSystem(sys.argv[1]) as fs:
    usage = fs.usage()
    free = usage.free_mixed if hasattr(usage, 'free_mixed') else usage.free_data
print(json.dumps(free))
"""


def theirs(mountpoint: Path) -> int | None:
    """Return what the FsUsage of python-btrfs says."""
    python = peer("python-btrfs", CACHE)
    try:
        told = run_alone(
            [OURS.executable, "-c", _ASK_PYTHON_BTRFS, os.fspath(mountpoint)], python.path
        )
    except CommandError:
        return None
    return int(json.loads(told))


def progs(mountpoint: Path) -> int | None:
    """Return what btrfs filesystem usage says."""
    told = run("btrfs", "filesystem", "usage", "-b", mountpoint)
    found = re.search(r"Free \(estimated\):\s+(\d+)", told)
    return int(found[1]) if found else None


def df(mountpoint: Path) -> int:
    """Return what df says."""
    found = os.statvfs(mountpoint)
    return found.f_bavail * found.f_frsize


# The table.


def row(case: Case, answer: Answer) -> str:
    """Return a line of the table, with how far off each answer is."""

    def figure(said: int | None) -> str:
        if said is None:
            return "fails"
        return f"{said / MIB:.0f} ({(said / answer.written - 1) * 100:+.2f} %)"

    words = (
        f"{case.data} / {case.metadata}{', mixed' if case.mixed else ''}",
        " + ".join(f"{size / GIB:.2g}" for size in case.sizes),
        case.remark,
        f"{answer.written / MIB:.0f}",
        *(figure(said) for said in (answer.python_btrfs, answer.progs, answer.df, answer.ours)),
    )
    return f"| {' | '.join(words)} |"


if __name__ == "__main__":
    sys.exit(main())
