"""Write to a filesystem from several sides at once, so that a crash meets it in the middle."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.lab.commands import run
from tests.lab.lineage import snapshot
from tests.lab.populate import PAGE, write_files
from tests.lab.shapes import (
    FALLOC_KEEP_SIZE,
    FALLOC_PUNCH_HOLE,
    RENAME_EXCHANGE,
    fallocate,
    rename,
    write_attributes,
    write_bookends,
)
from tests.lab.sharing import clone_range, overwrite, write_in_place

Step = Callable[[Path, random.Random, int], None]
"""Does something in a directory of its own; it is called again and again, with a number."""


def write_busily(root: Path, seconds: float, seed: int = 1) -> None:
    """Let several threads write for some seconds, each in a subvolume or directory of its own."""
    end = time.monotonic() + seconds
    # A step of every kind is done at least once, however slow the machine is.
    started = threading.Barrier(len(STEPS))

    def repeat(number: int) -> None:
        choose = random.Random(seed * 100 + number)
        folder = root / f"busy{number}"
        run("btrfs", "subvolume", "create", folder)
        started.wait()
        count = 0
        while count == 0 or time.monotonic() < end:
            STEPS[number](folder, choose, count)
            count += 1

    with ThreadPoolExecutor(len(STEPS)) as pool:
        list(pool.map(repeat, range(len(STEPS))))


def synced_files(folder: Path, choose: random.Random, number: int) -> None:
    """Write files, link, rename and delete them, and sync each alone: this fills log trees."""
    for index in range(5):
        path = folder / f"file{(number * 5 + index) % 40}"
        with path.open("ab") as file:
            file.write(choose.randbytes(choose.randrange(3 * PAGE)))
            file.flush()
            os.fsync(file.fileno())
    names = sorted(folder.iterdir())
    one, other = choose.choice(names), choose.choice(names)
    os.link(one, folder / f"link{number}")
    rename(one, other, RENAME_EXCHANGE)
    if len(names) > 30:
        other.unlink()
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def overwritten_files(folder: Path, choose: random.Random, number: int) -> None:
    """Write into files at random, cut them, punch holes, and share parts of them."""
    if number == 0:
        for name in ("a", "b"):
            (folder / name).write_bytes(choose.randbytes(100 * PAGE))
        write_in_place(folder / "c", choose)
        fallocate(folder / "b", FALLOC_KEEP_SIZE, 90 * PAGE, 60 * PAGE)
    for _ in range(10):
        path = folder / choose.choice("abc")
        overwrite(path, choose.randrange(120 * PAGE), choose.randbytes(choose.randrange(5 * PAGE)))
    start = choose.randrange(80) * PAGE
    fallocate(folder / "a", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, start, 3 * PAGE)
    (folder / f"clone{number % 5}").unlink(missing_ok=True)
    clone_range(folder / "b", folder / f"clone{number % 5}", choose.randrange(40) * PAGE, 4 * PAGE)
    os.truncate(folder / "a", choose.randrange(60, 120) * PAGE + choose.randrange(PAGE))
    if number % 4 == 0:
        with (folder / choose.choice("abc")).open("rb") as file:
            os.fsync(file.fileno())


def snapshots(folder: Path, choose: random.Random, number: int) -> None:
    """Make snapshots of a subvolume that changes, and delete the older ones."""
    home = folder / "home"
    if number == 0:
        run("btrfs", "subvolume", "create", home)
        write_files(home / "files", choose, 60)
    snapshot(home, folder / f"snapshot{number}")
    for path in choose.sample(sorted((home / "files").iterdir()), 10):
        path.write_bytes(choose.randbytes(choose.randrange(4 * PAGE)))
    if number >= 3:
        run("btrfs", "subvolume", "delete", folder / f"snapshot{number - 3}")


def directories(folder: Path, choose: random.Random, number: int) -> None:
    """Make directories with many files, attributes and compressed extents, and delete them."""
    place = folder / f"tree{number}"
    place.mkdir()
    write_files(place / "files", choose, 100)
    write_attributes(place / "attributes", choose)
    with contextlib.suppress(OSError):  # with the mount option nodatacow, nothing is compressed
        write_bookends(place / "bookends")
    if number:
        run("rm", "-rf", folder / f"tree{number - 1}")


STEPS: tuple[Step, ...] = (synced_files, overwritten_files, snapshots, directories)
"""What the threads do; the last two commit often."""
