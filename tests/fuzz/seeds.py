"""Good images for the fuzzer to change: each profile, checksum, feature and form of dump.

They are made by mkfs.btrfs and the kernel, as small as they can be, and stored: so the same number
always gives the same damaged image, on every machine and without root. `python -m tests.fuzz seeds`
makes them anew; then the numbers mean other images.

Of an image only the pages are kept that are not all zeros.
"""

from __future__ import annotations

import contextlib
import functools
import json
import lzma
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from tests.lab import populate
from tests.lab.commands import CommandError, run
from tests.lab.loopfs import LoopFilesystem, loop_filesystem
from tests.support.fixtures import DATA, LAYOUTS, Layout, Options

FOLDER = Path(__file__).parent / "images"
PAGE = 4096
SMALLEST_MIXED = 16 << 20
"""Bytes of the smallest filesystem that mkfs.btrfs makes."""

DUMP_MAGIC_V0 = (0xBD5C25E27295668B).to_bytes(8, "little")
DUMP_MAGIC_V1 = (0x31765F506D55445F).to_bytes(8, "little")
DUMP_CLUSTER_ALIGNMENT = 1024


class File(NamedTuple):
    """An image file.

    Attributes:
        size: Bytes of it.
        pages: Those of its pages that are not all zeros, by their number.
    """

    size: int
    pages: dict[int, bytes]

    def read(self, at: int, length: int) -> bytes:
        """Return some bytes; less at the end of the file."""
        length = max(0, min(length, self.size - at))
        first, end = at // PAGE, -(-(at + length) // PAGE)
        data = b"".join(self.pages.get(number, _ZEROS) for number in range(first, end))
        return data[at - first * PAGE :][:length]

    def write_to(self, path: Path) -> None:
        """Write the file, sparse."""
        with path.open("wb") as file:
            file.truncate(self.size)
            for number, page in self.pages.items():
                os.pwrite(file.fileno(), page[: self.size - number * PAGE], number * PAGE)


_ZEROS = bytes(PAGE)


class Seed(NamedTuple):
    """A good filesystem.

    Attributes:
        name: What it is called.
        files: Its images, in the order of the devices; one if it is a dump.
        dump: Whether it is a dump made by btrfs-image.
    """

    name: str
    files: list[File]
    dump: bool


STORED = tuple(
    f"{feature}.img" for feature in ("block-group-tree", "simple-quota", "raid-stripe-tree")
)
"""Images of tests/data, of features that an older mkfs.btrfs does not know."""


def names() -> list[str]:
    """Return the names of all seeds."""
    return sorted((*STORED, *(path.name.removesuffix(".xz") for path in FOLDER.glob("*.xz"))))


@functools.cache
def load(name: str) -> Seed:
    """Return a stored seed."""
    if name in STORED:
        with lzma.open(DATA / f"{name}.xz") as stored:
            return Seed(name, [_unpack(stored)], dump=False)
    data = lzma.decompress((FOLDER / f"{name}.xz").read_bytes())
    line, _, rest = data.partition(b"\n")
    files, at = [], 0
    described = json.loads(line)
    for file in described["files"]:
        pages = {}
        for number in file["pages"]:
            pages[number] = rest[at : at + PAGE]
            at += PAGE
        files.append(File(file["size"], pages))
    return Seed(name, files, described["dump"])


def store(name: str, paths: list[Path]) -> None:
    """Store the image files of a filesystem, or a dump, as a seed."""
    files = [scan(path) for path in paths]
    described = {
        "dump": files[0].read(0, 8) in (DUMP_MAGIC_V0, DUMP_MAGIC_V1),
        "files": [{"size": file.size, "pages": list(file.pages)} for file in files],
    }
    pages = b"".join(page for file in files for page in file.pages.values())
    data = json.dumps(described).encode() + b"\n" + pages
    FOLDER.mkdir(exist_ok=True)
    packed = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    (FOLDER / f"{name}.xz").write_bytes(packed)


def _unpack(stored: IO[bytes]) -> File:
    """Read a file from its beginning to its end, and keep the pages that are not all zeros."""
    pages = {}
    size = 0
    while block := stored.read(64 * PAGE):
        if block.count(0) != len(block):
            for at in range(0, len(block), PAGE):
                page = block[at : at + PAGE]
                if page.count(0) != len(page):
                    pages[(size + at) // PAGE] = page
        size += len(block)
    return File(size, pages)


def scan(path: Path) -> File:
    """Read the pages of a sparse file that are not all zeros."""
    pages = {}
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        at = 0
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # there is nothing more
                break
            at -= at % PAGE
            page = os.pread(file.fileno(), PAGE, at)
            if page.count(0) != len(page):
                pages[at // PAGE] = page.ljust(PAGE, b"\0")
            at += PAGE
    return File(size, pages)


# Making them.

NODESIZE = 4096
"""The smallest tree blocks there are: trees of little content have several levels."""

Prepare = Callable[[LoopFilesystem], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a seed is made.

    Attributes:
        options: For loop_filesystem().
        prepare: What happens to the mounted filesystem, after it was filled.
        finish: What happens to the unmounted one.
        crash: Take the images as a power cut would leave them, before it is unmounted.
        dumps: Dumps to make besides, by name: compression, and which magic number they get.
    """

    options: Options
    prepare: Prepare | None = None
    finish: Prepare | None = None
    crash: bool = False
    dumps: dict[str, tuple[int, bytes]] | None = None


def make(wanted: list[str]) -> None:
    """Make the seeds of these recipes anew, all of them if none is named. Needs root."""
    for name, recipe in RECIPES.items():
        if not wanted or name in wanted:
            with tempfile.TemporaryDirectory() as folder:
                _make(name, recipe, Path(folder))


def _make(name: str, recipe: Recipe, folder: Path) -> None:
    with loop_filesystem(folder, **recipe.options) as made:
        if made.mounted:
            fill(made.mountpoint)
            if recipe.prepare is not None:
                recipe.prepare(made)
        images = made.images
        if recipe.crash:
            images = made.copy_images(folder / "crashed")
        made.unmount()
        if recipe.finish is not None:
            recipe.finish(made)
        for dump, (compression, magic) in (recipe.dumps or {}).items():
            path = made.dump(folder / dump, compression)
            path.write_bytes(with_magic(path.read_bytes(), magic))
            store(dump, [path])
    store(name, images)


def with_magic(dump: bytes, magic: bytes) -> bytes:
    """Return a dump with another magic number in each of its clusters."""
    changed = bytearray(dump)
    for at in range(0, len(dump), DUMP_CLUSTER_ALIGNMENT):
        # A cluster says where it is, so nothing else is taken for one.
        if changed[at : at + 16] == DUMP_MAGIC_V0 + at.to_bytes(8, "little"):
            changed[at : at + 8] = magic
    return bytes(changed)


def fill(root: Path) -> None:
    """Write some of everything, as little as there can be of it."""
    files = root / "files"
    files.mkdir()
    for number in range(24):
        (files / f"file{number}").write_bytes(bytes([number]) * (0, 10, 700, 5000)[number % 4])
    for number in range(0, 24, 5):
        (files / f"file{number}").unlink()
    large = root / "large"
    large.write_bytes(b"large" * 40000)
    run("btrfs", "filesystem", "sync", root)
    with large.open("r+b") as file:
        for at in (8192, 20480, 65536):
            os.pwrite(file.fileno(), b"again" * 800, at)
        os.pwrite(file.fileno(), b"tail", 1 << 20)
        os.posix_fallocate(file.fileno(), 2 << 20, 16384)
    compressed = root / "compressed"
    compressed.touch()
    with contextlib.suppress(OSError):
        os.setxattr(compressed, "btrfs.compression", b"zlib")
    compressed.write_bytes(b"text to be compressed " * 2000)
    linked = root / "linked"
    linked.write_text("a file of several names")
    for number in range(60):
        with contextlib.suppress(OSError):  # without the feature extref, there is an end to it
            os.link(linked, root / f"{number:0120}")
    # Both names have the same crc32c, and so share a DIR_ITEM.
    for name in ("db1f575d", "9802be03"):
        (root / name).write_text(name)
        os.setxattr(linked, f"user.{name}", name.encode())
    (root / "symlink").symlink_to("linked")
    os.mkfifo(root / "fifo")
    volume = root / "volume"
    run("btrfs", "subvolume", "create", volume)
    (volume / "inside").write_bytes(b"i" * 5000)
    run("btrfs", "subvolume", "snapshot", "-r", volume, root / "snapshot")
    (volume / "later").write_bytes(b"l" * 5000)
    run("btrfs", "filesystem", "sync", root)


def fragment(made: LoopFilesystem) -> None:
    """Free every second page of a range: the free space tree describes that by a bitmap."""
    populate.fragment_free_space(made.mountpoint / "fragments", 500)


def leave_log_tree(made: LoopFilesystem) -> None:
    """Leave changes that only a log tree has, as an fsync without a commit does."""
    with (made.mountpoint / "synced").open("wb") as file:
        file.write(b"s" * 5000)
        os.fsync(file.fileno())
    os.rename(made.mountpoint / "fifo", made.mountpoint / "renamed")
    with (made.mountpoint / "renamed2").open("wb") as file:
        os.fsync(file.fileno())


def receive(made: LoopFilesystem) -> None:
    """Receive a copy of the snapshot, so that the tree of UUIDs knows where it came from."""
    (made.mountpoint / "snapshot").rename(made.mountpoint / "readonly")
    populate.send_and_receive(made.mountpoint)


def share(made: LoopFilesystem) -> None:
    """Refer to an extent more often than its item has room for, and protect a file by fs-verity."""
    root = made.mountpoint
    (root / "overwritten").write_bytes(b"o" * 40 * PAGE)
    populate.clone(root)
    populate.enable_verity(root / "verity")


def leave_balance(made: LoopFilesystem) -> None:
    """Leave a balance that is paused."""
    if not populate.pause_balance(made.mountpoint):
        raise CommandError("the balance was over each time before it could be paused")


def leave_orphan(made: LoopFilesystem) -> None:
    """Leave a deleted file that is still open, and a deleted subvolume that is not yet removed."""
    path = made.mountpoint / "orphan"
    with path.open("wb") as file:
        file.write(b"o" * 5000)
        path.unlink()
        run("btrfs", "subvolume", "snapshot", made.mountpoint / "volume", made.mountpoint / "gone")
        made.sync()
        run("btrfs", "subvolume", "delete", made.mountpoint / "gone")
        made.sync()


def sprout(made: LoopFilesystem) -> None:
    """Make it a seed of btrfs, and let a filesystem grow on it; its device becomes the first."""
    made.unmount()
    made.tune("-S", "1")
    made.mount()
    made.btrfs("device", "add", made.add_image(256 << 20), made.mountpoint)
    made.remount("rw")
    for number in range(24):
        (made.mountpoint / "files" / f"new{number}").write_bytes(b"n" * 300 * number)
    made.sync()
    made.images.reverse()
    made.devices.reverse()


def dumps(name: str) -> dict[str, tuple[int, bytes]]:
    """Return all forms of dump."""
    return {
        f"{name}-v{version}-c{compression}": (compression, magic)
        for version, magic in enumerate((DUMP_MAGIC_V0, DUMP_MAGIC_V1))
        for compression in (0, 9)
    }


def _options(layout: Layout) -> Options:
    size = SMALLEST_MIXED if layout.name == "mixed" else 256 << 20
    return {**layout.options, "size": size, "nodesize": NODESIZE}


_ONE: Options = {"size": 256 << 20, "nodesize": NODESIZE, "data": "single", "metadata": "single"}

RECIPES: dict[str, Recipe] = {
    **{layout.name: Recipe(_options(layout)) for layout in LAYOUTS},
    **{f"csum-{csum}": Recipe({**_ONE, "csum": csum}) for csum in ("xxhash", "sha256", "blake2")},
    **{
        f"nodesize-{nodesize}": Recipe({**_ONE, "nodesize": nodesize})
        for nodesize in (16384, 65536)
    },
    "old": Recipe(
        {**_ONE, "features": ("^no-holes", "^skinny-metadata", "^extref", "^free-space-tree")}
    ),
    "shared": Recipe(_ONE, prepare=share),
    "bitmaps": Recipe(_ONE, prepare=fragment),
    "quota": Recipe(_ONE, prepare=lambda made: populate.enable_quota(made.mountpoint)),
    "received": Recipe(_ONE, prepare=receive),
    "metadata-uuid": Recipe(_ONE, finish=lambda made: made.tune("-m")),
    "log-tree": Recipe(_ONE, prepare=leave_log_tree, crash=True),
    "balance": Recipe(_ONE, prepare=leave_balance, crash=True),
    "orphan": Recipe(_ONE, prepare=leave_orphan, crash=True),
    "sprout": Recipe(_ONE, prepare=sprout),
    "dumped": Recipe(_ONE, dumps=dumps("dump")),
}
