"""The filesystems that tests ask for."""

from __future__ import annotations

import contextlib
import lzma
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from tests.lab.loopfs import LoopFilesystem, loop_filesystem
from tests.support.require import require_root

DATA = Path(__file__).parents[1] / "data"

CSUMS = ("crc32c", "xxhash", "sha256", "blake2")
NODESIZES = (4096, 8192, 16384, 32768, 65536)


class Options(TypedDict, total=False):
    """The keywords of `loop_filesystem()`, which says what they mean."""

    devices: int
    size: str | int
    data: str
    metadata: str
    csum: str
    nodesize: int
    sectorsize: int
    mixed: bool
    label: str
    features: tuple[str, ...]
    mount: bool
    mount_options: str


@dataclass(frozen=True, slots=True)
class Layout:
    """A profile, with as many devices as show what is special about it."""

    name: str
    devices: int
    data: str
    metadata: str
    mixed: bool = False

    @property
    def options(self) -> Options:
        """The keywords for `filesystem()`."""
        return {
            "devices": self.devices,
            "data": self.data,
            "metadata": self.metadata,
            "mixed": self.mixed,
        }


LAYOUTS = (
    Layout("single", 1, "single", "single"),
    Layout("dup", 1, "dup", "dup"),
    Layout("raid0", 3, "raid0", "raid0"),
    Layout("raid1", 3, "raid1", "raid1"),
    Layout("raid1c3", 3, "raid1c3", "raid1c3"),
    Layout("raid1c4", 4, "raid1c4", "raid1c4"),
    Layout("raid10", 4, "raid10", "raid10"),
    Layout("raid5", 3, "raid5", "raid5"),
    Layout("raid6", 4, "raid6", "raid6"),
    Layout("mixed", 1, "single", "single", mixed=True),
    Layout("mixed-dup", 1, "dup", "dup", mixed=True),
)
"""Every profile of the kernel."""


@contextlib.contextmanager
def filesystem(folder: Path, **options: Unpack[Options]) -> Iterator[LoopFilesystem]:
    """Make a btrfs for a test, as `loop_filesystem()` does; skip the test without root."""
    require_root()
    with loop_filesystem(folder, **options) as made:
        yield made


def stored_image(name: str, folder: Path) -> Path:
    """Unpack a file of tests/data (named without .xz) into a folder; return where it is."""
    target = folder / name
    packed = DATA / f"{name}.xz"
    if not packed.exists():
        return Path(shutil.copy(DATA / name, target))
    with lzma.open(packed) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            # Most of an image is zeros: seek over them, so that the file takes no space.
            if block.count(0) == len(block):
                file.seek(len(block), 1)
            else:
                file.write(block)
        file.truncate()
    return target
