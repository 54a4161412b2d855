"""Quota groups with lies in them are found, and the kernel's own numbers are never called wrong."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from btrfs import FileSystem, ioctl
from btrfs.check import KINDS
from btrfs.ondisk.constants import (
    FS_TREE_OBJECTID,
    QGROUP_INFO_KEY,
    QGROUP_LEVEL_SHIFT,
    QGROUP_LIMIT_KEY,
    QGROUP_RELATION_KEY,
    QGROUP_STATUS_FLAG_INCONSISTENT,
    QGROUP_STATUS_FLAG_RESCAN,
    QGROUP_STATUS_KEY,
    QUOTA_TREE_OBJECTID,
)
from tests import support
from tests.lab.damage import Anatomy, copy_image, noise
from tests.lab.lies import ItemKey, Liar
from tests.lab.sharing import change, share_space
from tests.library.findings import line_of, messages

QUOTAS = QUOTA_TREE_OBJECTID
TOP = FS_TREE_OBJECTID
GROUP, UPPER = 1 << QGROUP_LEVEL_SHIFT, 2 << QGROUP_LEVEL_SHIFT
"""Ids of the groups 1/0 and 2/0."""

FLAGS_AT, RFER_AT, EXCL_AT = 16, 8, 24
"""Where fields are in the status, and in the numbers of a group."""


def make(root: Path, *, simple: bool) -> None:
    """Enable quotas, make groups of groups and subvolumes, and delete some of these again."""
    run = support.run
    run("btrfs", "subvolume", "create", root / "before")
    (root / "before" / "file").write_bytes(os.urandom(300_000))
    run("btrfs", "filesystem", "sync", root)
    with FileSystem(root) as fs:
        ioctl.quota_enable(fs.fd, simple)
    share_space(root, files=100)
    for group in ("1/0", "2/0"):
        run("btrfs", "qgroup", "create", group, root)
    run("btrfs", "qgroup", "assign", "--no-rescan", "0/5", "1/0", root)
    run("btrfs", "qgroup", "assign", "--no-rescan", "0/257", "1/0", root)
    run("btrfs", "qgroup", "assign", "--no-rescan", "1/0", "2/0", root)
    run("btrfs", "qgroup", "limit", "1G", "1/0", root)
    if not simple:
        run("btrfs", "quota", "rescan", "-w", root)
    change(root / "home", random.Random(1))
    run("btrfs", "subvolume", "snapshot", root / "before", root / "after")
    (root / "after" / "new").write_bytes(os.urandom(100_000))
    run("btrfs", "subvolume", "delete", "-c", root / "before", root / "snapshot0")
    run("btrfs", "subvolume", "sync", root)
    run("btrfs", "balance", "start", "--full-balance", root)
    change(root / "home", random.Random(2))
    run("btrfs", "filesystem", "sync", root)


@pytest.fixture(scope="module", params=[False, True], ids=["full", "simple"])
def sound(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path_factory.mktemp("quotas")
    with support.filesystem(folder, size="1G", nodesize=4096, mount_options="commit=1") as fs:
        make(fs.mountpoint, simple=request.param)
        (image,) = fs.copy_images(folder / "copy")
    return image


@pytest.fixture
def image(sound: Path, tmp_path: Path) -> Path:
    copy_image(sound, tmp_path / "copy.img")
    return tmp_path / "copy.img"


checked = partial(line_of, name="quotas")


def is_simple(image: Path) -> bool:
    return "simple" in checked(image).summary


def test_nothing_is_wrong(sound: Path) -> None:
    found = checked(sound)
    assert messages(found) == []
    assert found.skipped is None
    assert found.counts["groups"] > 8


def test_not_enabled(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="256M") as fs:
        fs.unmount()
        assert checked(fs.images).summary == "not enabled"


@pytest.mark.parametrize("simple", [False, True])
def test_deleted_subvolume_that_is_not_removed(tmp_path: Path, simple: bool) -> None:
    with support.filesystem(tmp_path, size="1G", nodesize=4096) as fs:
        with FileSystem(fs.mountpoint) as opened:
            ioctl.quota_enable(opened.fd, simple)
        share_space(fs.mountpoint, files=50)
        fs.sync()
        folder = fs.mountpoint / "snapshot1"
        file = next(path for path in folder.rglob("*") if path.is_file())
        with file.open("rb"):
            support.run("btrfs", "subvolume", "delete", folder)
            change(fs.mountpoint / "home", random.Random(1))
            fs.sync()
            images = fs.copy_images(tmp_path / "copy")
        found = checked(images)
        assert messages(found) == []
        assert found.skipped is None


# Lies.


def info(group: int) -> ItemKey:
    return ItemKey(0, QGROUP_INFO_KEY, group)


def limit(group: int) -> ItemKey:
    return ItemKey(0, QGROUP_LIMIT_KEY, group)


def relation(one: int, other: int) -> ItemKey:
    return ItemKey(one, QGROUP_RELATION_KEY, other)


def insert_group(liar: Liar, group: int) -> None:
    """Insert a group that counts something."""
    liar.insert(QUOTAS, info(group), struct.pack("<5Q", 9, 4096, 4096, 4096, 4096))
    liar.insert(QUOTAS, limit(group), bytes(40))


def relate_equals(liar: Liar) -> None:
    """Let the group of a subvolume be a member of that of another one."""
    for pair in ((TOP, 257), (257, TOP)):
        liar.insert(QUOTAS, relation(*pair), b"")


class Case(NamedTuple):
    """A lie, what it makes, and whether `btrfs check` of btrfs-progs 6.2 reports an error.

    It compares numbers of full quotas, and knows no simple ones.
    """

    lie: Callable[[Liar], object]
    kinds: set[str]
    progs: bool = False


CASES = {
    "referenced": Case(
        lambda liar: liar.add(QUOTAS, info(TOP), "<Q", RFER_AT, 4096), {"quota-number"}, True
    ),
    "exclusive": Case(
        lambda liar: liar.add(QUOTAS, info(TOP), "<Q", EXCL_AT, -4096), {"quota-number"}, True
    ),
    "group of groups": Case(
        lambda liar: liar.add(QUOTAS, info(UPPER), "<Q", RFER_AT, 4096), {"quota-number"}, True
    ),
    "referenced, compressed": Case(
        lambda liar: liar.add(QUOTAS, info(TOP), "<Q", RFER_AT + 8, 4096), {"quota-number"}, False
    ),
    "no group": Case(
        lambda liar: liar.remove(QUOTAS, info(257), limit(257)),
        {"quota-group-missing", "quota-relation", "quota-number"},
        True,
    ),
    "no limit": Case(lambda liar: liar.remove(QUOTAS, limit(GROUP)), {"quota-group-half"}),
    "no numbers": Case(
        lambda liar: liar.insert(QUOTAS, limit(GROUP + 7), bytes(40)), {"quota-group-half"}
    ),
    "one direction": Case(
        lambda liar: liar.remove(QUOTAS, relation(UPPER, GROUP)), {"quota-relation"}
    ),
    "same level": Case(relate_equals, {"quota-relation"}, True),
}


@pytest.mark.parametrize("name", CASES)
def test_lie(image: Path, name: str) -> None:
    case = CASES[name]
    case.lie(Liar([image]))
    found = checked(image)
    kinds = case.kinds
    if is_simple(image) and "compressed" in name:
        kinds = set()
    assert set(found.totals) == kinds, messages(found)
    assert found.found == 0
    progs = subprocess.run(["btrfs", "check", image], capture_output=True, text=True, check=False)
    if not is_simple(image):
        assert (progs.returncode != 0) == case.progs, progs.stdout + progs.stderr


def test_group_of_no_subvolume(image: Path) -> None:
    """Simple quotas keep one as long as something is left of its subvolume."""
    insert_group(Liar([image]), 4711)
    expected = {"quota-number"} if is_simple(image) else {"quota-group-alone"}
    assert set(checked(image).totals) == expected


def test_all_kinds_are_met() -> None:
    met = set().union(*(case.kinds for case in CASES.values())) | {"quota-group-alone"}
    assert met == {kind for kind in KINDS if kind.startswith("quota-")}
    assert all(KINDS[kind].is_remark for kind in met)


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        (QGROUP_STATUS_FLAG_INCONSISTENT, "marked them as inconsistent"),
        (QGROUP_STATUS_FLAG_RESCAN, "counting anew"),
    ],
)
def test_numbers_that_the_kernel_does_not_rely_on(image: Path, flag: int, why: str) -> None:
    liar = Liar([image])
    liar.add(QUOTAS, info(TOP), "<Q", RFER_AT, 4096)
    liar.add(QUOTAS, ItemKey(0, QGROUP_STATUS_KEY, 0), "<Q", FLAGS_AT, flag)
    found = checked(image)
    assert messages(found) == []
    assert why in (found.skipped or "")


def test_numbers_of_an_earlier_commit(image: Path) -> None:
    liar = Liar([image])
    liar.add(QUOTAS, info(TOP), "<Q", RFER_AT, 4096)
    liar.add(QUOTAS, ItemKey(0, QGROUP_STATUS_KEY, 0), "<Q", 8, -1)
    assert bool(messages(checked(image))) == is_simple(image)


@pytest.mark.parametrize("tree", [TOP, QUOTAS])
def test_nothing_follows_from_what_cannot_be_read(image: Path, tree: int) -> None:
    anatomy = Anatomy([image])
    with image.open("r+b") as file:
        for place in anatomy.copies(anatomy.leaves(tree)[0]):
            os.pwrite(file.fileno(), noise(64), place.paddr + 2000)
    found = checked(image)
    assert messages(found) == []
    assert tree == QUOTAS or found.skipped == "not everything can be read"
