"""`python -m bench.redundancy`: damage filesystems in every way, and see what can still be read.

For each profile a filesystem is made, whose trees are a few levels deep. Then harm is done to
copies of its images, one kind after the other, and every item of every tree is read: by search and
in bulk, leaving out what cannot be read, and again so that this is an error. What comes of it is
compared with how the filesystem was, and with what must be left by the arithmetic of the profile,
which `tests.lab.damage` does for itself. The tables go into docs/redundancy.md, between its two
marks, and `make test` compares what it finds with them.

It needs root, to make the filesystems, and takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from bench.peers import ROOT
from btrfs import FileSystem
from btrfs.errors import BtrfsError, CorruptError, MissingDeviceError
from btrfs.ondisk.constants import CSUM_SIZE
from btrfs.ondisk.hashes import crc32c_data
from tests.lab.damage import (
    CHUNK_TREE,
    ROOT_TREE,
    SUPERBLOCK_SIZE,
    SUPERBLOCKS,
    Anatomy,
    Block,
    Harm,
    Items,
    Place,
    Remains,
    harmed,
    noise,
    remains,
)
from tests.lab.loopfs import LoopFilesystem, is_root, loop_filesystem
from tests.library.reading import all_items, read_in_bulk, searched
from tests.support import LAYOUTS, Layout

DOCUMENT = ROOT / "docs" / "redundancy.md"
MARKS = ("<!-- tables: begin -->\n", "<!-- tables: end -->\n")

TITLE, ROW_TITLE = "damage", "scribbled over; missing"
"""What the first column of each table is about."""

FS_TREE = 5
PAGE = 4096
GENERATION = 80
"""Where the generation is in a tree block."""
MOUNT_OPTIONS = "nodiscard,nossd"
"""With a discard, what was there before the last commits would be gone. Without ssd, the kernel
uses places again that are between others."""
TURNS = 4
SUBVOLUMES = 6
FILES = 280
"""So many files with their content in the tree give it three levels, if a block has 4 KiB."""

ALL, REST, BEFORE, NONE, REFUSED, ABSENT = "all", "rest", "before", "none", "refused", "-"
"""What can become of a filesystem; docs/redundancy.md says what each of them means."""
READ, LOST = "read", "lost"
OUTCOMES = (ALL, REST, BEFORE, NONE, REFUSED)


@dataclass(frozen=True, slots=True)
class Breed:
    """A kind of filesystem: a profile, and how large its tree blocks are in bytes."""

    layout: Layout
    nodesize: int = PAGE

    @property
    def name(self) -> str:
        """How it is called in the tables."""
        size = "" if self.nodesize == PAGE else f" {self.nodesize >> 10}K"
        return f"{self.layout.name}{size}"

    @property
    def has_parity(self) -> bool:
        """Whether it is RAID5 or RAID6."""
        return self.layout.metadata in {"raid5", "raid6"}


BREEDS = (
    *map(Breed, LAYOUTS),
    # One block fills a stripe.
    *(Breed(layout, 65536) for layout in LAYOUTS if Breed(layout).has_parity),
)


@dataclass(frozen=True, slots=True)
class Specimen:
    """A filesystem to be damaged.

    Attributes:
        breed: What it is.
        anatomy: Where everything is in it.
        earlier: Its images some commits before.
        states: What was in its trees after the last few commits, by generation.
        leaf: A leaf of the tree of files.
        node: A node of that tree, not the root if there is another.
    """

    breed: Breed
    anatomy: Anatomy
    earlier: dict[int, Path]
    states: dict[int, dict[int, Items]]
    leaf: Block
    node: Block

    @property
    def devids(self) -> list[int]:
        """The numbers of its devices."""
        return list(self.anatomy.images)


def main() -> int:
    """Damage filesystems of all profiles, and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.redundancy", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the images are made for a while"
    )
    parser.add_argument(
        "--print", action="store_true", help="print the tables, and keep the document"
    )
    options = parser.parse_args()
    if not is_root():
        print("Error: needs root, to attach loop devices and to mount", file=sys.stderr)
        return 1
    cells: dict[tuple[str, str], str] = {}
    for breed in BREEDS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            specimen = make(breed, Path(folder))
            for kind in (*KINDS, *ROW_KINDS):
                cells[kind.name, breed.name] = outcome(specimen, kind, Path(folder))
        print(breed.name, file=sys.stderr, flush=True)
    text = tables(cells)
    if options.print:
        print(text, end="")
    else:
        DOCUMENT.write_text(with_tables(DOCUMENT.read_text(), text))
    return 0


# The filesystems.


def make(breed: Breed, folder: Path) -> Specimen:
    """Make a filesystem with some subvolumes, whose blocks have been written over a few times."""
    states = {}
    options = breed.layout.options | {"size": "256M", "nodesize": breed.nodesize, "mount": False}
    with loop_filesystem(folder / "sound", **options) as made:
        made.mount(MOUNT_OPTIONS)
        allocate(made)
        write_subvolumes(made)
        write(made, range(FILES), 0)
        if breed.layout.metadata == "raid1":
            # mkfs.btrfs leaves one of three devices empty: move some chunks onto it.
            made.btrfs("balance", "start", "-mlimit=1", made.mountpoint)
        earlier = made.copy_images(folder / "earlier")
        for turn in range(TURNS):
            # The kernel goes on after what it wrote last, and begins anew after a mount.
            made.unmount()
            made.mount(MOUNT_OPTIONS)
            write(made, range(turn % 5, FILES, 5), turn)
            with FileSystem(made.copy_images(folder / "state")) as fs:
                states[fs.fs_info().generation] = all_items(fs)
    shutil.rmtree(folder / "state")
    anatomy = Anatomy(made.images)
    before = dict(enumerate(earlier, start=1))
    leaves = anatomy.leaves(FS_TREE)
    root = anatomy.trees[FS_TREE]
    nodes = [child for child in root.children if child.level] or [root]
    leaf, node = leaves[len(leaves) // 2], nodes[len(nodes) // 2]
    return Specimen(breed, anatomy, before, states, leaf, node)


def allocate(made: LoopFilesystem) -> None:
    """Fill the small block group of data that mkfs.btrfs makes, so that none is added later on."""
    with (made.mountpoint / "allocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 7 << 20)
    made.sync()


def write_subvolumes(made: LoopFilesystem) -> None:
    """Make so many subvolumes that the root tree has more than one leaf."""
    for number in range(SUBVOLUMES):
        made.btrfs("subvolume", "create", made.mountpoint / f"volume{number}")


def write(made: LoopFilesystem, numbers: Iterable[int], turn: int) -> None:
    """Write files of which most are stored in the tree, and commit."""
    for number in numbers:
        size = 5 * PAGE if number % 20 == 0 else 1500
        (made.mountpoint / f"file{number:03}").write_bytes(noise(size, turn))
    made.sync()


# What is done to them.


Harms = Callable[[Specimen], Iterable[Harm]]
Judge = Callable[[Specimen, list[Path]], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of damage.

    Attributes:
        name: In a few words.
        harms: Gives all that is of this kind, for a filesystem; none if it cannot happen to it.
        judge: Tells what becomes of it.
    """

    name: str
    harms: Harms
    judge: Judge


def outcome(specimen: Specimen, kind: Kind, folder: Path) -> str:
    """Return what becomes of a filesystem, in all ways that one kind of damage can happen to it."""
    found = set()
    for harm in kind.harms(specimen):
        with harmed(specimen.anatomy, harm, folder / "harmed") as files:
            found.add(kind.judge(specimen, files))
    known = [word for word in OUTCOMES if word in found]
    return " or ".join([*known, *sorted(found - set(known))]) or ABSENT


def scribble(specimen: Specimen, *places: Place) -> Harm:
    """Write noise over places of a block."""
    nodesize = specimen.anatomy.nodesize
    return Harm(tuple((place, noise(nodesize, number)) for number, place in enumerate(places)))


def each_copy(choose: Callable[[Specimen], Block]) -> Harms:
    """Scribble over a single copy of a block, each in turn."""

    def harms(specimen: Specimen) -> Iterator[Harm]:
        for place in specimen.anatomy.copies(choose(specimen)):
            yield scribble(specimen, place)

    return harms


def every_copy(choose: Callable[[Specimen], Block]) -> Harms:
    """Scribble over all copies of a block; with parity, over as much of the row as is too much."""

    def harms(specimen: Specimen) -> Iterator[Harm]:
        anatomy, block = specimen.anatomy, choose(specimen)
        copies = anatomy.copies(block)
        others = [place for place in anatomy.row(block) if place not in copies]
        for more in combinations(others, anatomy.nparity(block)):
            yield scribble(specimen, *copies, *more)

    return harms


def root_and_parity(specimen: Specimen) -> Iterator[Harm]:
    """Scribble over the root of the root tree and its parity, but not over what is beside it."""
    root = specimen.anatomy.trees[ROOT_TREE]
    parity = specimen.anatomy.row(root)[-specimen.anatomy.nparity(root) :]
    yield scribble(specimen, *{*specimen.anatomy.copies(root), *parity})


def zeroed_copy(specimen: Specimen) -> Iterator[Harm]:
    """Zero a single copy of the leaf, each in turn."""
    for place in specimen.anatomy.copies(specimen.leaf):
        yield Harm(((place, bytes(specimen.anatomy.nodesize)),))


def older_copy(specimen: Specimen) -> Iterator[Harm]:
    """Make a single copy of the leaf, each in turn, one of the commit before: a write was lost."""
    block = bytearray(specimen.anatomy.read(specimen.anatomy.copies(specimen.leaf)[0]))
    struct.pack_into("<Q", block, GENERATION, specimen.leaf.generation - 1)
    block[-4:] = bytes(byte ^ 255 for byte in block[-4:])
    struct.pack_into("<I", block, 0, crc32c_data(block[CSUM_SIZE:]))
    for place in specimen.anatomy.copies(specimen.leaf):
        yield Harm(((place, bytes(block)),))


def without_superblocks(count: int) -> Harms:
    """Zero the first few superblocks of a device, of each in turn."""

    def harms(specimen: Specimen) -> Iterator[Harm]:
        for devid in specimen.devids:
            places = [Place(devid, paddr) for paddr in SUPERBLOCKS[:count]]
            yield Harm(tuple((place, bytes(SUPERBLOCK_SIZE)) for place in places))

    return harms


def every_first_superblock(specimen: Specimen) -> Iterator[Harm]:
    """Zero the first superblock of every device."""
    places = [Place(devid, SUPERBLOCKS[0]) for devid in specimen.devids]
    yield Harm(tuple((place, bytes(SUPERBLOCK_SIZE)) for place in places))


def missing(count: int) -> Harms:
    """Leave out so many devices, all choices of them."""

    def harms(specimen: Specimen) -> Iterator[Harm]:
        if len(specimen.devids) > count:
            for devids in combinations(specimen.devids, count):
                yield Harm(missing=devids)

    return harms


def zeroed(specimen: Specimen) -> Iterator[Harm]:
    """Zero a device from end to end, each in turn."""
    for devid in specimen.devids:
        yield Harm(zeroed=[devid])


def scribbled(specimen: Specimen) -> Iterator[Harm]:
    """Scribble over a device, each in turn."""
    for devid in specimen.devids:
        yield Harm(scribbled=[devid])


def out_of_date(specimen: Specimen) -> Iterator[Harm]:
    """Put an older image in the place of a device, of each in turn."""
    if len(specimen.devids) > 1:
        for devid, image in specimen.earlier.items():
            yield Harm(replaced={devid: image})


def older_besides(specimen: Specimen) -> Iterator[Harm]:
    """Give a device twice, once as it was before: each in turn, the older one first or last."""
    for devid, image in specimen.earlier.items():
        yield Harm(also=[image], reverse=devid % 2 == 1)


def given_twice(specimen: Specimen) -> Iterator[Harm]:
    """Give a device twice."""
    yield Harm(also=[specimen.anatomy.images[1]])


def in_another_order(specimen: Specimen) -> Iterator[Harm]:
    """Give the devices from the last to the first."""
    if len(specimen.devids) > 1:
        yield Harm(reverse=True)


def cut_off_behind(specimen: Specimen) -> Iterator[Harm]:
    """Cut off what follows all tree blocks of a device, of each in turn."""
    for devid in specimen.devids:
        yield Harm(cut={devid: ends(specimen, devid)[-1]})


def cut_off_within(specimen: Specimen) -> Iterator[Harm]:
    """Cut off half of a device's tree blocks."""
    for devid in specimen.devids:
        used = ends(specimen, devid)
        yield Harm(cut={devid: used[len(used) // 2]})


def ends(specimen: Specimen, devid: int) -> list[int]:
    """Return the ends of all tree blocks of a device, and of the parity of them."""
    anatomy = specimen.anatomy
    return sorted(
        place.paddr + anatomy.nodesize for place in anatomy.stored if place.devid == devid
    )


def in_row(*names: str, missing: Sequence[str] = ()) -> Harms:
    """Scribble over parts of the leaf's row, and leave out the devices of others.

    The parts are `leaf`, `P`, `Q` and `data`, which is another one than the leaf's.
    """

    def harms(specimen: Specimen) -> Iterator[Harm]:
        parts = row_of(specimen)
        if parts.keys() >= {*names, *missing} and len(missing) < len(specimen.devids):
            devids = [parts[name].devid for name in missing]
            yield replace(scribble(specimen, *(parts[name] for name in names)), missing=devids)

    return harms


def row_of(specimen: Specimen) -> dict[str, Place]:
    """Return the row that the leaf is in, by names; nothing if there is no parity."""
    row = specimen.anatomy.row(specimen.leaf)
    if not row:
        return {}
    nparity = specimen.anatomy.nparity(specimen.leaf)
    (leaf,) = specimen.anatomy.copies(specimen.leaf)
    others = [place for place in row[:-nparity] if place != leaf]
    # There is no other data if the row is as narrow as can be, and no Q with RAID5.
    parts = [("leaf", [leaf]), ("data", others), ("P", row[-nparity:]), ("Q", row[1 - nparity :])]
    return {name: places[0] for name, places in parts[: 2 + nparity] if places}


# What becomes of them.


def everything(specimen: Specimen, files: list[Path]) -> str:
    """Read every item of every tree, and say what came of it.

    Returns:
        One of the words above; if it is not what it must be, what is wrong.
    """
    left = remains(specimen.anatomy, files)
    try:
        with FileSystem(files, on_error="skip") as fs:
            wrong = next(differences(fs, left), None)
        with FileSystem(files) as fs:
            wrong = wrong or next(differences_if_raised(fs, left), None)
    except BtrfsError as error:
        return f"{REFUSED} ({type(error).__name__})" if left.files else REFUSED
    if wrong:
        return f"WRONG: {wrong}"
    if not left.lost:
        return ALL
    return REST if any(left.items.values()) else NONE


def differences(fs: FileSystem, left: Remains) -> Iterator[str]:
    """Yield what is not as it must be in a filesystem that leaves out what it cannot read."""
    for tree, items in left.items.items():
        for reader in (searched, read_in_bulk):
            if (found := reader(fs, tree)) != items:
                yield f"tree {tree}: {len(found)} items by {reader.__name__}, not {len(items)}"
    lost = {(keys.tree, keys.min_key.key, keys.max_key.key) for keys in fs.lost}
    if lost != left.lost:
        yield f"lost keys {sorted(lost ^ left.lost)}"
    found_damage = {
        (damage.device, damage.paddr, damage.vaddr, damage.recovered)
        for damage in fs.damage
        if damage.vaddr is not None and damage.device is not None
    }
    damage = {
        (str(left.files[devid]), paddr, vaddr, readable)
        for (devid, paddr), vaddr, readable in left.damage
    }
    if found_damage != damage:
        yield f"damage {sorted(found_damage ^ damage, key=str)}"
    summary = fs.damage_summary()
    if (summary is None) != (not (fs.damage or fs.lost or fs.notes)) or "\n" in (summary or ""):
        yield f"summary {summary}"


def differences_if_raised(fs: FileSystem, left: Remains) -> Iterator[str]:
    """Yield what is not as it must be in a filesystem that fails where it cannot read."""
    damaged = {tree for tree, _, _ in left.lost}
    for tree, items in left.items.items():
        # Of a tree that is whole, both ways have been compared already.
        for reader in (searched, read_in_bulk) if tree in damaged else (read_in_bulk,):
            try:
                found = reader(fs, tree)
            except (CorruptError, MissingDeviceError) as error:
                if tree not in damaged:
                    yield f"tree {tree}, {reader.__name__}: {error}"
            else:
                if tree in damaged:
                    yield f"tree {tree}, {reader.__name__}: no error"
                elif found != items:
                    yield f"tree {tree}: {len(found)} items by {reader.__name__}"


def only_the_leaf(specimen: Specimen, files: list[Path]) -> str:
    """Read everything, and say what became of the leaf: its neighbours may be in use or not."""
    word = everything(specimen, files)
    if word not in OUTCOMES:
        return word
    key = specimen.leaf.min_key
    lost = remains(specimen.anatomy, files).lost
    is_lost = any(tree == FS_TREE and least <= key <= most for tree, least, most in lost)
    return LOST if is_lost else READ


def by_backup(specimen: Specimen, files: list[Path]) -> str:
    """Read the backup of the root tree that the error offers, and compare it with what was then."""
    try:
        with FileSystem(files) as fs:
            all_items(fs)
        return "WRONG: no error"
    except BtrfsError as error:
        offered = re.match(r"--backup-root (\d) ", error.hint or "")
        if not offered:
            return f"WRONG: the hint is {error.hint}"
    before = max(known for known in specimen.states if known < specimen.anatomy.generation)
    with FileSystem(files, backup_root=int(offered[1])) as fs:
        if (generation := fs.fs_info().generation) != before:
            return f"WRONG: generation {generation}, not {before}"
        return BEFORE if all_items(fs) == specimen.states[before] else "WRONG: other items"


def _leaf(specimen: Specimen) -> Block:
    return specimen.leaf


def _node(specimen: Specimen) -> Block:
    return specimen.node


def _leaf_of_roots(specimen: Specimen) -> Block:
    return specimen.anatomy.leaves(ROOT_TREE)[-1]


def _root_of(tree: int) -> Callable[[Specimen], Block]:
    return lambda specimen: specimen.anatomy.trees[tree]


KINDS = (
    Kind("a leaf: one copy zeroed", zeroed_copy, everything),
    Kind("a leaf: one copy scribbled over", each_copy(_leaf), everything),
    Kind("a leaf: one copy an older block", older_copy, everything),
    Kind("a leaf: every copy scribbled over", every_copy(_leaf), everything),
    Kind("a node: one copy scribbled over", each_copy(_node), everything),
    Kind("a node: every copy scribbled over", every_copy(_node), everything),
    Kind("a leaf of the root tree: every copy", every_copy(_leaf_of_roots), everything),
    Kind("root of the root tree: one copy", each_copy(_root_of(ROOT_TREE)), everything),
    Kind("root of the root tree: every copy", every_copy(_root_of(ROOT_TREE)), everything),
    Kind("the same, with `--backup-root`", root_and_parity, by_backup),
    Kind("root of the chunk tree: one copy", each_copy(_root_of(CHUNK_TREE)), everything),
    Kind("root of the chunk tree: every copy", every_copy(_root_of(CHUNK_TREE)), everything),
    Kind("first superblock of a device", without_superblocks(1), everything),
    Kind("first superblock of all devices", every_first_superblock, everything),
    Kind("all superblocks of a device", without_superblocks(2), everything),
    Kind("a device zeroed", zeroed, everything),
    Kind("a device scribbled over but for superblocks", scribbled, everything),
    Kind("a device missing", missing(1), everything),
    Kind("two devices missing", missing(2), everything),
    Kind("a device out of date", out_of_date, everything),
    Kind("a device given twice", given_twice, everything),
    Kind("an older copy of a device besides", older_besides, everything),
    Kind("devices in another order", in_another_order, everything),
    Kind("an image cut off behind all tree blocks", cut_off_behind, everything),
    Kind("an image cut off in the middle of them", cut_off_within, everything),
)

ROW_KINDS = tuple(
    Kind(name, harms, only_the_leaf)
    for name, harms in (
        ("P", in_row("P")),
        ("Q", in_row("Q")),
        ("P, Q", in_row("P", "Q")),
        ("the leaf", in_row("leaf")),
        ("the leaf, P", in_row("leaf", "P")),
        ("the leaf, Q", in_row("leaf", "Q")),
        ("the leaf, other data", in_row("leaf", "data")),
        ("the leaf, other data, P", in_row("leaf", "data", "P")),
        ("the leaf, other data, Q", in_row("leaf", "data", "Q")),
        ("the leaf, P, Q", in_row("leaf", "P", "Q")),
        ("the leaf; P missing", in_row("leaf", missing=["P"])),
        ("the leaf; Q missing", in_row("leaf", missing=["Q"])),
        ("the leaf; other data missing", in_row("leaf", missing=["data"])),
        ("other data; the leaf missing", in_row("data", missing=["leaf"])),
        ("P; the leaf missing", in_row("P", missing=["leaf"])),
        ("Q; the leaf missing", in_row("Q", missing=["leaf"])),
        ("P, Q; the leaf missing", in_row("P", "Q", missing=["leaf"])),
        ("the leaf; other data, P missing", in_row("leaf", missing=["data", "P"])),
        ("the leaf; P, Q missing", in_row("leaf", missing=["P", "Q"])),
        ("the leaf, other data missing", in_row(missing=["leaf", "data"])),
        ("the leaf, P missing", in_row(missing=["leaf", "P"])),
        ("the leaf, Q missing", in_row(missing=["leaf", "Q"])),
    )
)
"""What happens to the row of stripes that a leaf is in."""


# The tables.


def tables(cells: dict[tuple[str, str], str]) -> str:
    """Return what became of all filesystems, by kind of damage and name of the breed."""
    names = [breed.name for breed in BREEDS]
    with_parity = [breed.name for breed in BREEDS if breed.has_parity]
    return "\n".join(
        [
            *table(TITLE, KINDS, names, cells),
            "",
            "And a leaf, after this happened to parts of the row of stripes that it is in:",
            "",
            *table(ROW_TITLE, ROW_KINDS, with_parity, cells),
            "",
        ]
    )


def table(
    title: str, kinds: Sequence[Kind], names: Sequence[str], cells: dict[tuple[str, str], str]
) -> Iterator[str]:
    """Yield the lines of one table."""
    yield f"| {' | '.join((title, *names))} |"
    yield "|---" * (len(names) + 1) + "|"
    for kind in kinds:
        yield f"| {' | '.join((kind.name, *(cells[kind.name, name] for name in names)))} |"


def cells_of(document: str) -> dict[tuple[str, str], str]:
    """Return what the tables of a document say, by kind of damage and name of the breed."""
    cells = {}
    names: list[str] = []
    for line in document.partition(MARKS[0])[2].partition(MARKS[1])[0].splitlines():
        first, *words = (word.strip() for word in line.strip("|").split("|"))
        if first in {TITLE, ROW_TITLE}:
            names = words
        elif words and not first.startswith("---"):
            cells.update({(first, name): word for name, word in zip(names, words, strict=True)})
    return cells


def with_tables(document: str, text: str) -> str:
    """Return a document with the tables in place of those that are there."""
    begin, end = (re.escape(mark) for mark in MARKS)
    return re.sub(
        f"({begin}).*({end})",
        lambda found: f"{found[1]}\n{text}\n{found[2]}",
        document,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    sys.exit(main())
