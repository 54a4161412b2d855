"""The filesystems that are measured, made once and kept.

`extents-300k` is what years of use leave: many small files, deletions, a large file overwritten at
random. `extents-3m` has ten times as many extents, of small fallocate calls with holes between
them, so that none of its data is ever written. `snapshots-20` has 300,000 files, some of which
change from each of twenty snapshots to the next; in `snapshots-20-near` these are all files of some
folders, and `snapshots-1` has a single snapshot. `snapshots-1000-small` has a fifteenth of these
files, and 1,000 snapshots. `references-20m` has files that share all their extents, with 20 million
references to these. All lie in sparse image files; `ensure()` builds one that is missing, in a
minute or more, and leaves nothing mounted.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

from tests.lab.commands import run
from tests.lab.loopfs import LoopFilesystem, loop_filesystem
from tests.lab.sharing import clone_whole

WORKERS = os.cpu_count() or 1
PAGE = 4096


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one of the filesystems is made."""

    name: str
    size: str
    write: Callable[[Path], None]


def ensure(recipe: Recipe, cache: Path, report: Callable[[str], None]) -> Path:
    """Return the image of a recipe, building it first if it is not in the cache."""
    image = cache / f"{recipe.name}.img"
    if image.exists():
        return image
    report(f"building {image} ...")
    begin = time.monotonic()
    workshop = cache / f"{recipe.name}.building"
    with loop_filesystem(
        workshop,
        size=recipe.size,
        metadata="single",
        data="single",
        label=recipe.name,
        mount_options="noatime,nobarrier,commit=300",
    ) as filesystem:
        recipe.write(filesystem.mountpoint)
        settle(filesystem)
    filesystem.images[0].rename(image)
    filesystem.mountpoint.rmdir()
    workshop.rmdir()
    report(f"built {image} in {time.monotonic() - begin:.0f} s")
    return image


def settle(filesystem: LoopFilesystem) -> None:
    """Commit, and let the cleaner finish, so that two runs read the same."""
    filesystem.sync()
    filesystem.unmount()


def write_used(root: Path) -> None:
    """Write small files, delete a third of them, and overwrite a large file at random."""
    share(write_small_files, root)
    overwrite_at_random(root / "database", size=1 << 30, writes=190_000)


def write_small_files(root: Path, worker: int, files: int = 190_000 // WORKERS) -> None:
    """Write files of one to four pages, in folders of 500, and delete a third of them."""
    choose = random.Random(worker)
    content = choose.randbytes(4 * PAGE)
    names = []
    for number in range(files):
        if number % 500 == 0:
            place = root / f"worker{worker}" / str(number)
            place.mkdir(parents=True)
        name = os.fspath(place / f"file{number}")
        write_file(name, content[: choose.randint(PAGE, 4 * PAGE)])
        names.append(name)
    os.sync()
    for name in choose.sample(names, files // 3):
        os.unlink(name)


def write_file(name: str, content: bytes) -> None:
    """Write a small file, by the fewest system calls."""
    descriptor = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(descriptor, content)
    os.close(descriptor)


def overwrite_at_random(path: Path, size: int, writes: int) -> None:
    """Write a large file in one go, then single pages all over it."""
    choose = random.Random(0)
    content = choose.randbytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(size // len(content)):
            file.write(content)
        os.fsync(file.fileno())
        for page in choose.sample(range(size // PAGE), writes):
            os.pwrite(file.fileno(), content[:PAGE], page * PAGE)
        os.fsync(file.fileno())


def write_prealloc(root: Path, extents: int = 3_050_000) -> None:
    """Allocate single pages with holes of a page between them."""
    share(partial(allocate_pages, extents=extents // (100 * WORKERS)), root)


def allocate_pages(root: Path, worker: int, extents: int, files: int = 100) -> None:
    """Allocate every second page of many files, so many of each, without writing any."""
    for number in range(files):
        descriptor = os.open(root / f"worker{worker}-{number}", os.O_CREAT | os.O_WRONLY, 0o644)
        for index in range(extents):
            os.posix_fallocate(descriptor, index * 2 * PAGE, PAGE)
        os.close(descriptor)


def write_block_groups(root: Path, terabytes: int = 8) -> None:
    """Allocate large files, so that there is a block group for each of their gigabytes."""
    for number in range(terabytes):
        descriptor = os.open(root / f"large{number}", os.O_CREAT | os.O_WRONLY, 0o644)
        os.posix_fallocate(descriptor, 0, 1000 << 30)
        os.close(descriptor)


def write_snapshots(
    root: Path,
    snapshots: int = 20,
    files: int = 300_000,
    changes: int = 3000,
    *,
    near: bool = False,
) -> None:
    """Write files, and make snapshots, changing some files before each but the first.

    Args:
        root: The filesystem.
        snapshots: How many.
        files: How many.
        changes: How many change before each snapshot but the first.
        near: Whether all files of some folders change, instead of files anywhere.
    """
    origin = root / "origin"
    run("btrfs", "subvolume", "create", origin)
    share(partial(write_tree, files=files // WORKERS), origin)
    folders = [[os.fspath(file) for file in folder.iterdir()] for folder in origin.glob("*/*")]
    names = list(chain(*folders))
    choose = random.Random(1)
    for number in range(snapshots):
        if number:
            chosen = chain(*choose.sample(folders, changes // 500)) if near else None
            rewrite(chosen or choose.sample(names, changes), choose.randbytes(PAGE))
        run("btrfs", "subvolume", "snapshot", "-r", origin, root / f"snapshot{number}")


def write_tree(root: Path, worker: int, files: int) -> None:
    """Write files of one to four pages, in folders of 500."""
    choose = random.Random(worker)
    content = choose.randbytes(4 * PAGE)
    for number in range(files):
        if number % 500 == 0:
            place = root / f"worker{worker}" / str(number)
            place.mkdir(parents=True)
        write_file(os.fspath(place / f"file{number}"), content[: choose.randint(PAGE, 4 * PAGE)])


def rewrite(files: Iterable[str], content: bytes) -> None:
    """Overwrite the first page of some files."""
    for file in files:
        descriptor = os.open(file, os.O_WRONLY)
        os.write(descriptor, content)
        os.close(descriptor)


def write_references(root: Path, clones: int = 5) -> None:
    """Allocate 3.4 million pages, and clone all files, for 20 million references."""
    share(partial(allocate_pages, extents=3_400_000 // (100 * WORKERS)), root)
    os.sync()
    share(partial(clone_files, clones=clones), root)


def clone_files(root: Path, worker: int, clones: int) -> None:
    """Make files that share all extents of those of a worker."""
    for source in sorted(root.glob(f"worker{worker}-*")):
        for number in range(clones):
            clone_whole(source, root / f"clone{number} of {source.name}")


def share(work: Callable[[Path, int], None], root: Path) -> None:
    """Call work(root, worker) in one process per core."""
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(work, [root] * WORKERS, range(WORKERS)))


REFERENCES = Recipe("references-20m", "48G", write_references)
SNAPSHOTS = Recipe("snapshots-20", "16G", write_snapshots)
SNAPSHOTS_NEAR = Recipe("snapshots-20-near", "16G", partial(write_snapshots, near=True))
SNAPSHOT = Recipe("snapshots-1", "16G", partial(write_snapshots, snapshots=1))
FEW = partial(write_snapshots, files=20_000, changes=200)
FEW_OF_20 = Recipe("snapshots-20-small", "16G", partial(FEW, snapshots=20))
FEW_OF_1000 = Recipe("snapshots-1000-small", "16G", partial(FEW, snapshots=1000))
USED = Recipe("extents-300k", "16G", write_used)
PREALLOC = Recipe("extents-3m", "24G", write_prealloc)
BLOCK_GROUPS = Recipe("block-groups-8000", "9T", write_block_groups)
PREALLOC_OF_20M = Recipe("extents-20m", "120G", partial(write_prealloc, extents=20_000_000))
