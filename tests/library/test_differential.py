"""Whatever python-btrfs answers is asked of both libraries on the same live filesystems.

The same code (`tests.library.probe`) runs where `import btrfs` means python-btrfs, and here,
where it means ours. What comes out is taken apart down to numbers and texts: all public attributes
of objects and of the objects in them, str(), and what pretty_print and str_print write. Ours must
say all of it, and may say more. Where we differ on purpose, `DELIBERATE` says why; anything else is
an error of ours.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem
from btrfs.ondisk import constants
from tests import support
from tests.lab import block_groups, populate
from tests.library import probe, questions
from tests.library.reading import trees


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the two libraries say otherwise.

    Attributes:
        question: What was asked.
        where: In which part of the answer: `Class.attribute`, or the question.
        theirs: What python-btrfs says.
        ours: What we say.
    """

    question: str
    where: str
    theirs: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.question}\n  {self.where}\n  {self.theirs!r:.300}\n  {self.ours!r:.300}"


MISSING = "<missing>"


def differences(question: str, theirs: Any, ours: Any, where: str = "") -> Iterator[Difference]:
    """Yield where two answers differ."""
    where = where or question
    if is_printed(theirs) and is_printed(ours):
        yield from printed_differences(question, theirs, ours, where)
    elif is_object(theirs) and is_object(ours):
        yield from object_differences(question, theirs, ours)
    elif is_error(theirs) and is_error(ours):
        yield from error_differences(question, theirs, ours, where)
    elif isinstance(theirs, dict) and isinstance(ours, dict) and set(theirs) == set(ours):
        for name, value in theirs.items():
            yield from differences(question, value, ours[name], where)
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for their_element, our_element in zip(theirs, ours, strict=True):
            yield from differences(question, their_element, our_element, where)
    elif theirs != ours:
        yield Difference(question, where, theirs, ours)


def error_differences(question: str, theirs: Any, ours: Any, where: str) -> Iterator[Difference]:
    """Yield where two exceptions differ, but for the class of ours being derived from theirs."""
    details = [(answer["errno"], answer["state"]) for answer in (theirs, ours)]
    if theirs["raises"] not in ours["kinds"] or details[0] != details[1]:
        yield Difference(question, where, theirs, ours)
    elif theirs["message"] != ours["message"]:
        yield Difference(question, f"{where} message", theirs["message"], ours["message"])


def object_differences(question: str, theirs: Any, ours: Any) -> Iterator[Difference]:
    """Yield where two objects differ. Ours may have more attributes."""
    name = theirs["class"]
    if name != ours["class"]:
        yield Difference(question, f"{name} class", name, ours["class"])
        if name in NO_CLASSES:
            return
    yield from differences(question, theirs["str"], ours["str"], f"str({name})")
    for attribute, value in theirs["attributes"].items():
        mine = ours["attributes"].get(attribute, MISSING)
        yield from differences(question, value, mine, f"{name}.{attribute}")
    elements = theirs.get("elements", []), ours.get("elements", [])
    yield from differences(question, *elements, f"{name} elements")


NO_CLASSES = ("NotImplementedItem", "UnknownItem")
"""What python-btrfs makes of items that it has no class for."""


def printed_differences(question: str, theirs: Any, ours: Any, where: str) -> Iterator[Difference]:
    """Yield where two values, or what is printed of them, differ."""
    yield from differences(question, theirs["value"], ours["value"], where)
    names = [it["value"]["class"] if is_object(it["value"]) else "" for it in (theirs, ours)]
    if names[0] in NO_CLASSES and names[0] != names[1]:
        return
    for way in ("pretty", "printed"):
        mine = ours[way]
        if isinstance(mine, str) and names[0]:
            mine = mine.replace(f".{names[1]} ", f".{names[0]} ", 1)
        yield from differences(question, theirs[way], mine, f"{way}({names[0] or where})")


def is_printed(answer: Any) -> bool:
    return isinstance(answer, dict) and "pretty" in answer


def is_object(answer: Any) -> bool:
    return isinstance(answer, dict) and "class" in answer


def is_error(answer: Any) -> bool:
    return isinstance(answer, dict) and "raises" in answer


@dataclass(frozen=True, slots=True)
class Deliberate:
    """Why we say some things otherwise.

    Attributes:
        why: The reason.
        explains: Whether it is the reason of a difference.
    """

    why: str
    explains: Callable[[Difference], bool]


def in_newer_words(difference: Difference) -> bool:
    """Tell whether it is only names that are younger than python-btrfs 15."""
    return bool(in_older_words(difference.ours) == difference.theirs)


def in_older_words(ours: Any) -> str:
    """Return what we print with numbers in the place of newer names."""
    words = str(ours)
    for name, number in NEWER_NAMES.items():
        words = re.sub(rf"\b{name}\b", number, words)
    return words


def without_names_of_generations(difference: Difference) -> bool:
    """Tell whether it is only that python-btrfs takes generations of root items for trees."""
    theirs, ours = str(difference.theirs), in_older_words(difference.ours)
    named = re.compile(r"(?<=ROOT_ITEM )[A-Z_]+(?=\))")
    numbers = {name: str(number) for number, name in constants.OBJECTID_NAMES.items()}
    return named.search(theirs) is not None and ours == named.sub(
        lambda match: numbers.get(match[0], match[0]), theirs
    )


NEWER_NAMES = {
    "RAID_STRIPE_TREE": "12",
    "REMAP_TREE": "13",
    "RAID_STRIPE": "230",
    "EXTENT_OWNER_REF": "172",
    "raid1c34": "unknown(0x800)",
    "VERITY_DESC_ITEM": "36",
    "VERITY_MERKLE_ITEM": "37",
}


def fails(answer: Any, message: str = "", kind: str = "") -> bool:
    """Tell whether an answer is an exception, with this in its message."""
    return is_error(answer) and message in answer["message"] and answer["raises"].startswith(kind)


def asks(difference: Difference, function: str) -> bool:
    return difference.question.startswith(f"every({function},")


DELIBERATE = (
    Deliberate(
        "Trees, types of keys and features that came after python-btrfs 15 have names.",
        in_newer_words,
    ),
    Deliberate(
        "We have classes for all items that the kernel writes.",
        lambda it: it.where in ("NotImplementedItem class", "UnknownItem class"),
    ),
    Deliberate(
        "Lists of extended attributes are of the class that python-btrfs has for them but does "
        "not use.",
        lambda it: (it.where, it.ours) == ("DirItemList class", "XAttrItemList"),
    ),
    Deliberate(
        "Every object of ours has a text.",
        lambda it: re.fullmatch(r"<btrfs\.\S+ object at 0x\w+>\n?", str(it.theirs)) is not None,
    ),
    Deliberate(
        "INODE_EXTREF items can be read.",
        lambda it: fails(it.theirs, "object of type 'InodeExtref' has no len()", "TypeError"),
    ),
    Deliberate(
        "Estimates come from a simulation of the kernel's allocator; test_fs_usage compares them "
        "with what can really be written, and what is printed of the counters.",
        lambda it: (
            re.match(
                r"(FsUsage|DevUsage)\.(estimated_|unalloca?table_|allocatable|free_|default_)",
                it.where,
            )
            is not None
            or it.where in ("pretty(FsUsage)", "pretty(DevUsage)")
        ),
    ),
    Deliberate(
        "A key that lies in a struct is a DiskKey, which is a Key.",
        lambda it: (it.where, it.theirs, it.ours) == ("TreeBlockInfo.key", "Key", "DiskKey"),
    ),
    Deliberate(
        "Before it is filled in, nothing is unused.",
        lambda it: (
            "fs_usage.VirtualBlockGroupTypeUsage(" in it.question
            and (it.theirs is None or fails(it.theirs, "'NoneType'"))
        ),
    ),
    Deliberate(
        "A target profile that is asked for is the target profile.",
        lambda it: (
            "fs_usage.FsUsage(fs," in it.question and it.where.startswith("FsUsage.target_profile_")
        ),
    ),
    Deliberate(
        "Before the ioctl, nothing is deduplicated, and that can be printed.",
        lambda it: (
            it.question == "ioctl.FileDedupeRangeInfo(3, 4096)"
            and (it.theirs is None or fails(it.theirs, "'NoneType'"))
        ),
    ),
    Deliberate(
        "Named tuples can be printed as well.",
        lambda it: fails(it.theirs, "has no attribute '__dict__'"),
    ),
    Deliberate(
        "A buffer that is too small for an item is replaced by a larger one.",
        lambda it: "ioctl.search_v2" in it.question and fails(it.theirs, "[Errno 75]"),
    ),
    Deliberate(
        "No items at all can be asked for.",
        lambda it: "nr_items=0" in it.question and fails(it.theirs, "out of range"),
    ),
    Deliberate(
        "Sizes below zero get a unit too.",
        lambda it: asks(it, "utils.pretty_size") and str(it.theirs).startswith("-"),
    ),
    Deliberate(
        "'1K', '1KiB', '1Mi' and '12B' are sizes, and the message tells what is none.",
        lambda it: (
            asks(it, "utils.parse_pretty_size")
            and (fails(it.theirs) or "pretty size" in str(it.theirs))
        ),
    ),
    Deliberate(
        "Negative numbers of trees are those that the kernel knows them by.",
        lambda it: (
            asks(it, "utils.parse_tree_name")
            and isinstance(it.theirs, int)
            and bool(it.ours == it.theirs + (1 << 64))
        ),
    ),
    Deliberate(
        "Numbers of trees may be hexadecimal.",
        lambda it: asks(it, "utils.parse_tree_name") and fails(it.theirs, "name 0x"),
    ),
    Deliberate(
        "Keys with numbers of quota groups and negative numbers are parsed.",
        lambda it: (
            asks(it, "utils.parse_key_string")
            and (fails(it.theirs, kind="TypeError") or fails(it.theirs, "Unparsable key offset -"))
        ),
    ),
    Deliberate(
        "An empty text is as little a key as any other, not an IndexError.",
        lambda it: (
            asks(it, "utils.parse_key_string")
            and fails(it.theirs, kind="IndexError")
            and fails(it.ours, kind="ValueError")
        ),
    ),
    Deliberate(
        "More than one profile is an error.",
        lambda it: (
            asks(it, "volumes.block_group_profile_ncopies")
            and fails(it.ours, "has more than one profile")
        ),
    ),
    Deliberate(
        "What is no item is refused with one kind of error that says where it is, or said as far "
        "as that is possible.",
        lambda it: (
            it.question == NO_REAL_ITEMS
            and (fails(it.theirs) or fails(it.ours, kind="CorruptError") or "message" in it.where)
        ),
    ),
    Deliberate(
        "The offset of a root item is a generation, and no tree, but for a tree that is moved.",
        without_names_of_generations,
    ),
    Deliberate(
        "Times before 1970 are below zero.",
        lambda it: it.where == "TimeSpec.sec" and it.ours == it.theirs - (1 << 64),
    ),
)
"""All that is different on purpose."""

NO_REAL_ITEMS = "no real items"


# The filesystems.


@contextlib.contextmanager
def all_kinds(folder: Path) -> Iterator[Path]:
    """One device with contents of all kinds, quotas, and a balance that has been paused."""
    with support.filesystem(folder, size="2G", data="single", metadata="dup", label="atlas") as fs:
        support.populate(fs.mountpoint)
        # What is left of these is still enough for the free space tree to use bitmaps.
        for number in range(801, 2000, 2):
            (fs.mountpoint / "fragments" / str(number)).unlink()
        support.send_and_receive(fs.mountpoint)
        support.enable_quota(fs.mountpoint)
        support.enable_verity(fs.mountpoint / "verity")
        assert support.pause_balance(fs.mountpoint)
        clean_up(fs.mountpoint)
        yield fs.mountpoint


@contextlib.contextmanager
def raid10(folder: Path) -> Iterator[Path]:
    """Four devices, and a deleted subvolume, which stays while somebody has a file open in it."""
    with support.filesystem(
        folder, devices=4, data="raid10", metadata="raid10", csum="xxhash"
    ) as fs:
        write_a_little(fs.mountpoint)
        clean_up(fs.mountpoint)
        deleted = fs.mountpoint / "readonly"
        with (deleted / "files" / "file1").open("rb"):
            fs.btrfs("subvolume", "delete", deleted)
            committed(fs.mountpoint)
            with FileSystem(fs.mountpoint) as opened:
                assert opened.orphan_subvol_ids()
            yield fs.mountpoint


@contextlib.contextmanager
def degraded(folder: Path) -> Iterator[Path]:
    """Three devices, the last of which is missing."""
    with support.filesystem(folder, devices=3, data="raid1", metadata="raid1c3") as fs:
        write_a_little(fs.mountpoint)
        clean_up(fs.mountpoint)
        fs.unmount()
        missing = fs.devices.pop()
        fs.images.pop()
        fs.btrfs("device", "scan", "--forget", missing)
        support.run("losetup", "--detach", missing)
        fs.mount("degraded")
        yield fs.mountpoint


@contextlib.contextmanager
def mixed_and_old(folder: Path) -> Iterator[Path]:
    """Mixed block groups, and none of the features that came later."""
    features = ("^skinny-metadata", "^no-holes", "^free-space-tree")
    with support.filesystem(folder, mixed=True, features=features) as fs:
        write_a_little(fs.mountpoint)
        clean_up(fs.mountpoint)
        yield fs.mountpoint


@contextlib.contextmanager
def block_group_tree(folder: Path) -> Iterator[Path]:
    support.require_root()
    image = support.stored_image("block-group-tree.img", folder)
    with support.mounted_images([image], folder / "mnt") as fs:
        yield fs.mountpoint


def write_a_little(root: Path) -> None:
    choose = random.Random(1)
    populate.write_files(root / "files", choose, 60)
    populate.overwrite_file(root / "overwritten", choose, 2 << 20)
    populate.clone(root)
    populate.make_subvolumes(root, choose)


def clean_up(path: Path) -> None:
    """Let the kernel finish the deletion of subvolumes."""
    # A commit wakes the thread that does it, which otherwise sleeps for long.
    committed(path)
    support.run("btrfs", "subvolume", "sync", path)


# A filesystem with simple quotas would be one more, but python-btrfs does not come to an end with
# the references in its extent items.
FILESYSTEMS = {
    "all kinds": all_kinds,
    "raid10": raid10,
    "degraded": degraded,
    "mixed and old": mixed_and_old,
    "block group tree": block_group_tree,
}


# Asking.

Answers = dict[str, Any]


def ask_filesystem(path: Path) -> tuple[Answers, Answers]:
    """Ask both about a filesystem; nothing must change it in the meantime."""
    for _ in range(3):
        before = committed(path)
        with FileSystem(path) as fs:
            numbers = " ".join(map(str, trees(fs)))
        answers = ask_both(
            probe.about_filesystem, path, questions.METHODS, questions.IOCTLS, numbers
        )
        if committed(path) == before:
            return answers
    raise AssertionError("the kernel does not come to rest")


def committed(path: Path) -> int:
    """Commit what there is to commit, and return the generation."""
    with FileSystem(path) as fs:
        fs.sync()
        return fs.fs_info().generation


def ask_both(function: Callable[..., Answers], *args: Any) -> tuple[Answers, Answers]:
    words = [str(word) for word in args]
    return support.oracle.ask(function, *words), support.oracle.ask_us(function, *words)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of asking both about one subject.

    Attributes:
        differences: All that they say otherwise.
        classes: Classes of the items that both say something about.
    """

    differences: list[Difference]
    classes: set[str]


def compared(answers: tuple[Answers, Answers]) -> Comparison:
    theirs, ours = answers
    assert list(theirs) == list(ours)
    found = [
        difference
        for question in theirs
        for difference in differences(question, theirs[question], ours[question])
    ]
    items = [item for question in theirs if question.startswith(ITEMS) for item in theirs[question]]
    return Comparison(found, {said["value"]["class"] for _, said in items if is_printed(said)})


ITEMS = "items of tree "


def compare(subject: str, folder: Path) -> Comparison:
    """Ask both about one subject."""
    if subject in FILESYSTEMS:
        with FILESYSTEMS[subject](folder) as path:
            return compared(ask_filesystem(path))
    if subject == NO_REAL_ITEMS:
        return compared(ask_both(probe.about_no_real_items, " ".join(map(str, key_types()))))
    return compared(ask_both(probe.about_functions, questions.FUNCTIONS, questions.OBJECTS))


def key_types() -> list[int]:
    """Return all types of key that have names, and some that mean nothing."""
    return sorted({*constants.KEY_TYPE_NAMES, 9, 99, 255})


SUBJECTS = [*FILESYSTEMS, NO_REAL_ITEMS, "functions"]


Ask = Callable[[str], Comparison]


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Asks about a subject, once."""

    @functools.cache
    def ask_once(subject: str) -> Comparison:
        return compare(subject, tmp_path_factory.mktemp(subject.replace(" ", "-")))

    return ask_once


@pytest.mark.parametrize("subject", SUBJECTS)
def test_same_as_python_btrfs(subject: str, ask: Ask) -> None:
    unexplained = [
        str(difference)
        for difference in ask(subject).differences
        if not any(reason.explains(difference) for reason in DELIBERATE)
    ]
    assert not unexplained, "\n".join([f"{len(unexplained)} differences", *unexplained[:20]])


def test_nearly_every_class_of_items_is_compared(ask: Ask) -> None:
    classes = ask("all kinds").classes | ask("mixed and old").classes
    assert len(classes - set(NO_CLASSES)) >= 17


def test_every_deliberate_difference_is_one(ask: Ask) -> None:
    found = [difference for subject in SUBJECTS for difference in ask(subject).differences]
    unused = [
        reason.why
        for reason in DELIBERATE
        if not any(reason.explains(difference) for difference in found)
    ]
    assert not unused


# Balances.


def assert_same_balance(path: Path, lines: str) -> Answers:
    """Ask both about a balance, and return what they say."""
    theirs, ours = ask_both(probe.about_balance, path, lines)
    assert not [str(difference) for difference in compared((theirs, ours)).differences]
    return theirs


def test_balance_that_runs_and_is_paused(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", data="single", metadata="dup") as fs:
        path = fs.mountpoint
        none = assert_same_balance(path, questions.NOT_BALANCING)
        assert {answer["errno"] for answer in none.values()} == {errno.ENOTCONN}
        block_groups.scatter(path / "scattered", 10_000)
        with balance(path) as process:
            running = assert_same_balance(path, questions.BALANCING + questions.STARTING)
            assert process.poll() is None
            fs.btrfs("balance", "pause", path)
        assert list(running.values())[:2] == [1, "RUNNING"]
        paused = assert_same_balance(path, questions.BALANCING + questions.STARTING)
        assert list(paused.values())[:2] == [0, "none"]
        fs.btrfs("balance", "cancel", path)


@contextlib.contextmanager
def balance(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Balance all data in another process; go on as soon as that is under way."""
    command = ["btrfs", "balance", "start", "-d", str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and "is running" not in balance_status(path):
            time.sleep(0.001)
        yield process


def balance_status(path: Path) -> str:
    # Its exit code is 1 while a balance is running.
    command = ["btrfs", "balance", "status", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
