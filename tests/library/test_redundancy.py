"""Damaged on purpose: what the redundancy still holds is read as it was before, and no less.

The kinds of damage, and how it is judged, are in bench.redundancy: it makes the tables of
docs/redundancy.md. The tests see that it finds the same again, that the tables promise what each
profile stands for, and that the kernel reads the same where it mounts such a filesystem.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bench import redundancy
from bench.redundancy import (
    ABSENT,
    ALL,
    BREEDS,
    DOCUMENT,
    FS_TREE,
    KINDS,
    LOST,
    READ,
    ROW_KINDS,
    Breed,
    Kind,
    Specimen,
)
from btrfs import FileSystem
from btrfs.crc32c import crc32c_data
from btrfs.errors import BtrfsError, CorruptError, MissingDeviceError, NotBtrfsError
from btrfs.ondisk.constants import CSUM_SIZE
from tests import support
from tests.lab.damage import (
    CHUNK_TREE,
    SUPERBLOCK_SIZE,
    SUPERBLOCKS,
    Anatomy,
    Harm,
    Place,
    copy_image,
    harmed,
    remains,
)
from tests.library.reading import all_batches, all_items, searched

WITH_PARITY = [breed for breed in BREEDS if breed.has_parity]

CELLS = redundancy.cells_of(DOCUMENT.read_text())

DEVICES_TO_SPARE = {"raid1": 1, "raid1c3": 2, "raid1c4": 3, "raid10": 1, "raid5": 1, "raid6": 2}
COPIES_TO_SPARE = DEVICES_TO_SPARE | {"dup": 1, "mixed-dup": 1}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    support.require_root()
    folder = tmp_path_factory.mktemp("redundancy")
    yield Laboratory(folder)
    # They are too large to be kept for some test runs, as pytest does.
    shutil.rmtree(folder)


class Laboratory:
    """The filesystems that are damaged; each is made when it is asked for first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.specimen = cache(self._make)

    def _make(self, breed: Breed) -> Specimen:
        return redundancy.make(breed, self.folder / breed.name)

    def of(self, name: str) -> Specimen:
        """Return the filesystem of a profile."""
        return self.specimen(next(breed for breed in BREEDS if breed.name == name))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("breed", BREEDS, ids=lambda breed: breed.name)
def test_what_is_left(laboratory: Laboratory, breed: Breed, kind: Kind) -> None:
    found = redundancy.outcome(laboratory.specimen(breed), kind, laboratory.folder)
    assert found == CELLS[kind.name, breed.name]


@pytest.mark.parametrize("kind", ROW_KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("breed", WITH_PARITY, ids=lambda breed: breed.name)
def test_row_with_parity(laboratory: Laboratory, breed: Breed, kind: Kind) -> None:
    found = redundancy.outcome(laboratory.specimen(breed), kind, laboratory.folder)
    assert found == CELLS[kind.name, breed.name]


# What the tables say.


def test_document_has_the_tables_that_a_run_writes() -> None:
    document = DOCUMENT.read_text()
    assert redundancy.with_tables(document, redundancy.tables(CELLS)) == document


def test_nothing_is_wrong_in_the_tables() -> None:
    words = {word for cell in CELLS.values() for word in cell.split(" or ")}
    assert words <= {*redundancy.OUTCOMES, READ, LOST, ABSENT}


@pytest.mark.parametrize("breed", BREEDS, ids=lambda breed: breed.name)
def test_what_the_profile_stands_for(breed: Breed) -> None:
    """The tables are the yardstick of the tests above: this is theirs."""
    devices = DEVICES_TO_SPARE.get(breed.layout.name, 0)
    copies = COPIES_TO_SPARE.get(breed.layout.name, 0)
    for kind in KINDS:
        cell = CELLS[kind.name, breed.name]
        if cell == ABSENT:
            continue
        if "one copy" in kind.name:
            assert (cell == ALL) == (copies > 0), kind.name
        elif "every copy" in kind.name:
            assert ALL not in cell, kind.name
        elif kind.name == "two devices missing":
            assert (cell == ALL) == (devices > 1)
        elif kind.name in ONE_DEVICE_IS_LOST:
            assert (cell == ALL) == (devices > 0), kind.name
        elif kind.name in NOTHING_IS_LOST:
            assert cell == ALL, kind.name


ONE_DEVICE_IS_LOST = (
    "all superblocks of a device",
    "a device zeroed",
    "a device scribbled over but for superblocks",
    "a device missing",
    "a device out of date",
)
NOTHING_IS_LOST = (
    "first superblock of a device",
    "first superblock of all devices",
    "a device given twice",
    "an older copy of a device besides",
    "devices in another order",
    "an image cut off behind all tree blocks",
)


@pytest.mark.parametrize("breed", WITH_PARITY, ids=lambda breed: breed.name)
def test_what_parity_stands_for(breed: Breed) -> None:
    for kind in ROW_KINDS:
        cell = CELLS[kind.name, breed.name]
        assert cell in {ABSENT, becomes_of_leaf(kind, breed)}, kind.name
        if breed.layout.name == "raid6":
            assert cell != ABSENT


def becomes_of_leaf(kind: Kind, breed: Breed) -> str:
    """Return what becomes of a leaf by the number of parts of its row that are gone."""
    parts = re.findall("the leaf|other data|P|Q", kind.name)
    bearable = len(parts) <= DEVICES_TO_SPARE[breed.layout.metadata]
    return READ if bearable or "the leaf" not in parts else LOST


@pytest.mark.parametrize(
    ("profile", "devices", "absent"),
    [
        ("raid5", 2, {"other data", "Q", "the leaf, P missing"}),
        ("raid6", 3, {"other data"}),
        ("raid6", 6, set()),
    ],
)
def test_other_numbers_of_devices(
    tmp_path: Path, profile: str, devices: int, absent: set[str]
) -> None:
    """With one stripe of data the parity is a copy; with four, the powers of g come to bear."""
    support.require_root()
    breed = Breed(support.Layout(f"{profile} on {devices}", devices, profile, profile))
    specimen = redundancy.make(breed, tmp_path)
    for kind in ROW_KINDS:
        found = redundancy.outcome(specimen, kind, tmp_path)
        cannot_be = any(part in kind.name for part in absent)
        assert found == (ABSENT if cannot_be else becomes_of_leaf(kind, breed)), kind.name
    (missing,) = (kind for kind in KINDS if kind.name == "a device missing")
    assert redundancy.outcome(specimen, missing, tmp_path) == ALL


def test_anatomy_is_what_the_library_reads(laboratory: Laboratory) -> None:
    """What is expected of damaged filesystems comes from a reader of its own."""
    for name in ("raid10", "raid6"):
        anatomy = laboratory.of(name).anatomy
        with FileSystem(list(anatomy.images.values())) as fs:
            assert all_items(fs) == anatomy.items
            assert fs.fs_info().generation == anatomy.generation
            assert not fs.damage
            assert not fs.notes
            assert fs.damage_summary() is None


def test_wrong_items_would_be_noticed(laboratory: Laboratory) -> None:
    """Items that no check can tell from the right ones: the comparison has to."""
    specimen = laboratory.of("single")
    (place,) = specimen.anatomy.copies(specimen.leaf)
    block = bytearray(specimen.anatomy.read(place))
    block[-1] ^= 1
    struct.pack_into("<I", block, 0, crc32c_data(block[CSUM_SIZE:]))
    harm = Harm(((place, bytes(block)),))
    with harmed(specimen.anatomy, harm, laboratory.folder / "harmed") as files:
        assert redundancy.everything(specimen, files).startswith(f"WRONG: tree {FS_TREE}: ")


# What is said about it.


@pytest.mark.parametrize(
    ("harm", "note"),
    [
        (Harm(missing=[2]), r"device 2 is missing"),
        (Harm(missing=[1, 3]), r"devices 1 and 3 are missing"),
        (Harm(zeroed=[2]), r"left out: .*disk2.img holds no btrfs filesystem"),
        (Harm(cut={2: 200 << 20}), r"device 2 \(.*disk2.img\) is cut off: 209715200 of 268435456"),
        (
            Harm(((Place(3, SUPERBLOCKS[0]), bytes(SUPERBLOCK_SIZE)),)),
            r".*disk3.img is read by the copy of its superblock at 67108864",
        ),
    ],
    ids=["missing", "two missing", "zeroed", "cut off", "superblock"],
)
def test_notes(laboratory: Laboratory, harm: Harm, note: str) -> None:
    folder = laboratory.folder / "harmed"
    with (
        harmed(laboratory.of("raid1c4").anatomy, harm, folder) as files,
        FileSystem(files) as fs,
    ):
        assert any(re.fullmatch(f"{note}.*", words) for words in fs.notes), fs.notes
        assert fs.damage_summary() is not None


def test_notes_of_older_images(laboratory: Laboratory) -> None:
    specimen = laboratory.of("raid1c4")
    harm = Harm(replaced={2: specimen.earlier[2]})
    folder = laboratory.folder / "harmed"
    with harmed(specimen.anatomy, harm, folder) as files, FileSystem(files) as fs:
        (note,) = fs.notes
        assert note.startswith(f"device 2 ({files[1]}) is out of date: of generation ")
        assert note.endswith(f" instead of {specimen.anatomy.generation}")


@pytest.mark.parametrize("which", ["older", "the same"])
def test_notes_of_a_device_given_twice(laboratory: Laboratory, which: str) -> None:
    specimen = laboratory.of("raid1c4")
    image = specimen.earlier[3] if which == "older" else specimen.anatomy.images[3]
    folder = laboratory.folder / "harmed"
    with harmed(specimen.anatomy, Harm(also=[image]), folder) as files:
        with FileSystem(files) as fs:
            (note,) = fs.notes
        assert note.startswith(f"{files[-1]} is left out: it is device 3")
        assert str(files[2]) in note
        assert ("older" in note) == (which == "older")
        with FileSystem([*files[:-1], files[0]]) as fs:
            assert f"{files[0]} is given twice" in fs.notes
            assert fs.damage_summary() is not None


def test_device_of_another_filesystem(laboratory: Laboratory) -> None:
    stranger = laboratory.of("raid1").anatomy.images[1]
    anatomy = laboratory.of("raid1c4").anatomy
    with harmed(anatomy, Harm(also=[stranger]), laboratory.folder / "harmed") as files:
        with pytest.raises(BtrfsError, match="belong to different filesystems"):
            FileSystem(files)
        with pytest.raises(BtrfsError, match="belong to different filesystems"):
            FileSystem(files[::-1], on_error="skip")


def test_chosen_superblock(laboratory: Laboratory) -> None:
    anatomy = laboratory.of("single").anatomy
    harm = Harm(((Place(1, SUPERBLOCKS[0]), bytes(SUPERBLOCK_SIZE)),))
    with harmed(anatomy, harm, laboratory.folder / "harmed") as files:
        with FileSystem(files, superblock=1) as fs:
            assert all_items(fs) == anatomy.items
        for absent in (0, 2):
            with pytest.raises(NotBtrfsError):
                FileSystem(files, superblock=absent)


def test_damage_to_a_superblock(laboratory: Laboratory) -> None:
    anatomy = laboratory.of("single").anatomy
    at = SUPERBLOCKS[0]
    harm = Harm(((Place(1, at + 0x200), b"scribble"),))
    with harmed(anatomy, harm, laboratory.folder / "harmed") as files, FileSystem(files) as fs:
        assert all_items(fs) == anatomy.items
        (damage,) = fs.damage
    assert damage[3:] == (str(files[0]), at, None, True)
    assert "checksum" in str(damage)


def test_keys_of_a_lost_leaf(laboratory: Laboratory) -> None:
    """All other items are there, in both ways of reading; without skip it is an error."""
    specimen = laboratory.of("raid1")
    leaf, places = specimen.leaf, specimen.anatomy.copies(specimen.leaf)
    harm = redundancy.scribble(specimen, *places)
    with harmed(specimen.anatomy, harm, laboratory.folder / "harmed") as files:
        with FileSystem(files, on_error="skip") as fs:
            read = all_items(fs)
            assert all_batches(fs) == read
            (lost,) = fs.lost
            wrong = {(damage.device, damage.paddr, damage.recovered) for damage in fs.damage}
            items = len(list(fs.search(FS_TREE)))
        with FileSystem(files) as fs, pytest.raises(CorruptError, match="checksum"):
            list(fs.search(FS_TREE))
    assert (lost.tree, lost.min_key.key, lost.max_key.key) == (FS_TREE, leaf.min_key, leaf.max_key)
    assert "checksum" in lost.reason
    assert wrong == {(str(files[devid - 1]), paddr, False) for devid, paddr in places}
    assert read[FS_TREE] == [
        item for item in specimen.anatomy.items[FS_TREE] if item not in leaf.items
    ]
    assert items == len(read[FS_TREE])


def test_only_copy_on_a_missing_device(laboratory: Laboratory) -> None:
    specimen = laboratory.of("raid0")
    (place,) = specimen.anatomy.copies(specimen.anatomy.trees[CHUNK_TREE])
    others = [image for devid, image in specimen.anatomy.images.items() if devid != place.devid]
    folder = laboratory.folder / "harmed"
    with (
        harmed(specimen.anatomy, Harm(missing=[place.devid]), folder) as files,
        FileSystem(files) as fs,
        pytest.raises(MissingDeviceError, match=f"device {place.devid}") as caught,
    ):
        list(fs.search(CHUNK_TREE))
    assert len(files) == len(others)
    assert caught.value.hint


@pytest.mark.parametrize("layout", ["single", "raid1", "raid6"])
def test_chunk_tree_of_an_earlier_commit(tmp_path: Path, layout: str) -> None:
    """The current one is lost, but a backup in the superblock leads to one with the same chunks."""
    (chosen,) = (one for one in support.LAYOUTS if one.name == layout)
    options = chosen.options | {"size": "288M", "nodesize": 4096, "mount": False}
    with support.filesystem(tmp_path / "sound", **options) as made:
        made.mount("nodiscard")
        redundancy.write(made, range(20), 0)
        made.unmount()
        made.mount("nodiscard")
        # It changes the item of the device, which is in the chunk tree.
        made.btrfs("filesystem", "resize", "1:272M", made.mountpoint)
    anatomy = Anatomy(made.images)
    root = anatomy.trees[CHUNK_TREE]
    writes = tuple((place, bytes(anatomy.nodesize)) for place in anatomy.places(root))
    with harmed(anatomy, Harm(writes), tmp_path / "harmed") as files:
        assert CHUNK_TREE in {tree for tree, _, _ in remains(anatomy, files).lost}
        with FileSystem(files, on_error="skip") as fs:
            items = all_items(fs)
            assert any("chunk tree cannot be read, and is read as" in note for note in fs.notes)
            assert CHUNK_TREE in {lost.tree for lost in fs.lost}
    del items[CHUNK_TREE]
    assert items == {tree: known for tree, known in anatomy.items.items() if tree != CHUNK_TREE}


def test_chunk_tree_without_one_of_its_leaves(tmp_path: Path) -> None:
    """So many devices that there are two: one lists devices, the other devices and all chunks."""
    with support.filesystem(
        tmp_path / "sound", devices=24, size="256M", data="raid0", metadata="raid1", nodesize=4096
    ) as made:
        # So many commits that the superblock's backups know no older chunk tree.
        for turn in range(5):
            redundancy.write(made, range(20), turn)
    anatomy = Anatomy(made.images)
    found = []
    for leaf in anatomy.leaves(CHUNK_TREE):
        writes = tuple((place, bytes(anatomy.nodesize)) for place in anatomy.places(leaf))
        with harmed(anatomy, Harm(writes), tmp_path / "harmed") as files:
            left = remains(anatomy, files)
            with FileSystem(files, on_error="skip") as fs:
                assert not list(redundancy.differences(fs, left))
                found.append(len(left.lost))
    assert found == [1, len(anatomy.trees)]


# What the kernel reads.


def degraded(specimen: Specimen) -> Iterator[Harm]:
    """Yield what the kernel can mount: one device missing, or one copy of a leaf scribbled over."""
    for devid in specimen.devids:
        yield Harm(missing=[devid])
    for place in specimen.anatomy.copies(specimen.leaf):
        yield redundancy.scribble(specimen, place)


def degraded_further(specimen: Specimen) -> Iterator[Harm]:
    """Yield what the kernel can mount if two devices may fail."""
    for place in specimen.anatomy.copies(specimen.leaf):
        devid = place.devid % len(specimen.devids) + 1
        yield Harm(redundancy.scribble(specimen, place).writes, missing=[devid])
    yield Harm(missing=specimen.devids[:2])
    yield Harm(missing=specimen.devids[1:3])


@pytest.mark.parametrize("name", ["raid1", "raid1c3", "raid10", "raid5", "raid6", "raid6 64K"])
def test_kernel_reads_the_same(laboratory: Laboratory, tmp_path: Path, name: str) -> None:
    specimen = laboratory.of(name)
    harms = list(degraded(specimen))
    if DEVICES_TO_SPARE[specimen.breed.layout.name] > 1:
        harms += degraded_further(specimen)
    for number, harm in enumerate(harms):
        with harmed(specimen.anatomy, harm, laboratory.folder / "harmed") as files:
            with FileSystem(files) as fs:
                ours = all_items(fs)
            copies = copied(files, tmp_path / str(number))
        assert ours == specimen.anatomy.items
        with (
            support.mounted_images(copies, tmp_path / "mnt", "degraded,ro") as mounted,
            FileSystem(mounted.mountpoint) as fs,
        ):
            assert all_items(fs) == ours
            assert all_batches(fs) == ours
            assert (fs.damage, fs.lost, fs.notes) == ([], [], [])
        shutil.rmtree(tmp_path / str(number))


def test_kernel_fails_where_we_do(laboratory: Laboratory, tmp_path: Path) -> None:
    specimen = laboratory.of("raid1")
    harm = redundancy.scribble(specimen, *specimen.anatomy.copies(specimen.leaf))
    with harmed(specimen.anatomy, harm, laboratory.folder / "harmed") as files:
        copies = copied(files, tmp_path / "copies")
    with (
        support.mounted_images(copies, tmp_path / "mnt", "ro") as mounted,
        FileSystem(mounted.mountpoint) as fs,
        pytest.raises(OSError, match="Input/output"),
    ):
        searched(fs, FS_TREE)


def copied(files: list[Path], folder: Path) -> list[Path]:
    """Copy images for the kernel, which shall not write to those that other tests need."""
    folder.mkdir()
    for file in files:
        copy_image(file, folder / file.name)
    return [folder / file.name for file in files]
