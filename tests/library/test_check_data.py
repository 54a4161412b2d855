"""Which files are named for damaged data: those that read it, and those that only keep it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from btrfs import FileSystem, check
from btrfs.check import Finding
from btrfs.ctree import FileExtentItem
from btrfs.ownership.paths import lookup
from btrfs.source.disk.volume import Volume
from tests import support

MIB = 1 << 20
SECTOR = 4096
HOLE = 512 << 10


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that uses an extent but for its middle, and a copy that has all of it."""
    with support.filesystem(tmp_path_factory.mktemp("data"), size="512M") as fs:
        root = fs.mountpoint
        (root / "file").write_bytes(os.urandom(MIB))
        fs.sync()
        (root / "alone").write_bytes(os.urandom(MIB))
        fs.sync()
        support.run("cp", "--reflink=always", root / "file", root / "copy")
        for name in ("file", "alone"):
            with (root / name).open("r+b") as file:
                file.seek(HOLE)
                file.write(os.urandom(4 * SECTOR))
        fs.sync()
        return fs.images[0]


@pytest.fixture
def image(original: Path, tmp_path: Path) -> Path:
    support.run("cp", "--sparse=always", original, tmp_path / "disk.img")
    return tmp_path / "disk.img"


def damage(image: Path, name: str, offset: int) -> None:
    """Overwrite a sector of the extent that a file begins with."""
    with FileSystem(image) as fs:
        place = lookup(fs, name)
        extent = next(
            item
            for item in fs.search(place.tree)
            if isinstance(item, FileExtentItem) and item.key.objectid == place.inum
        )
        volume = fs.block_source().trees.store
        assert isinstance(volume, Volume)
        (pieces,) = volume.chunk_map.copies(extent.disk_bytenr + offset, SECTOR)
    with image.open("r+b") as file:
        file.seek(pieces[0].paddr)
        file.write(os.urandom(SECTOR))


def finding_of(image: Path) -> Finding:
    with FileSystem(image, source="unmounted", on_error="skip") as fs:
        (found,) = [one for checked in check.check(fs, data=True) for one in checked.findings]
    return found


@pytest.mark.parametrize(
    ("name", "offset", "words", "path"),
    [
        ("file", 0, "in /file and /copy", "/file"),
        (
            "file",
            HOLE,
            "in /copy; /file keeps the extent that it is in, but its own content is whole",
            "/copy",
        ),
        (
            "alone",
            HOLE + SECTOR,
            "/alone keeps the extent that it is in, but its own content is whole",
            None,
        ),
        ("alone", MIB - SECTOR, "in /alone", "/alone"),
    ],
)
def test_names_of_files(image: Path, name: str, offset: int, words: str, path: str | None) -> None:
    damage(image, name, offset)
    found = finding_of(image)
    assert found.message.endswith(f"; {words}")
    assert found.path == path
