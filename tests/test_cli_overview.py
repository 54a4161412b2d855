"""The one page: btrfs-atlas TARGET, on real filesystems in all the states that people meet."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import btrfs
from btrfs.ondisk import constants
from btrfs.space import advice
from btrfs.space.operations import Kind, Operation, State
from btrfs_atlas import cli
from btrfs_atlas.commands import overview
from btrfs_atlas.overview import under_way
from btrfs_atlas.overview.sections import Names, Section, TimeLimit
from tests import support
from tests.lab import block_groups
from tests.lab.damage import Anatomy
from tests.lab.sharing import share_space
from tests.library.test_unmounted import wipe_root
from tests.support import programs, removal, spoil
from tests.support.programs import SAMPLE

PROGRAM = (sys.executable, "-m", "btrfs_atlas")
MIB = 1 << 20


def page(*words: str | Path) -> str:
    """Return the page about a filesystem that is read without trouble, checked for its width."""
    code, told, complained = programs.run_program(*PROGRAM, *words)
    assert (code, complained) == (0, "")
    return checked(told)


def checked(told: str) -> str:
    """Check that a page is readable in 80 columns; commands and paths stay in one piece."""
    for line in told.splitlines():
        assert len(line) <= 80 or line.startswith("      ") or "/" in line, line
    return told


def as_json(*words: str | Path) -> Any:
    code, told, _ = programs.run_program(*PROGRAM, "--json", *words)
    assert code == 0
    return json.loads(told)


def joined(told: str) -> str:
    """Return a page in one line, as it was before it was broken into lines."""
    return " ".join(told.split())


# A sound filesystem.


def test_the_sample() -> None:
    told = page(SAMPLE)
    with btrfs.FileSystem(SAMPLE) as fs:
        usage = fs.usage()
        assert str(fs.fsid) in told
        assert fs.label in told
    for words in (
        usage.total_str,
        usage.allocated_str,
        usage.free_data_str,
        "Nothing stands in the way of writing",
        "No errors have been counted",
        "Nothing: no balance",
    ):
        assert words in told
    assert "!" not in told
    assert all(len(line) <= 80 for line in told.splitlines() if "/" not in line)


def test_a_target_alone_is_the_page() -> None:
    assert page(SAMPLE) == page("overview", SAMPLE)
    assert as_json(SAMPLE) == json.loads(page("overview", SAMPLE, "--json"))
    # The value of an option before the target is no target.
    assert page("--seconds", "99", SAMPLE) == page(SAMPLE)


def test_a_name_of_a_subcommand_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "usage").symlink_to(SAMPLE)
    assert "Space\n" in page("./usage")
    code, _, complained = programs.run_program(*PROGRAM, "usage")
    assert code == 1
    assert "required: TARGET" in programs.assert_one_line(complained)


def test_json() -> None:
    told = as_json(SAMPLE)
    with btrfs.FileSystem(SAMPLE) as fs:
        usage = fs.usage()
        assert told["fsid"] == str(fs.fsid)
        assert told["generation"] == fs.fs_info().generation
    assert (told["label"], told["mounted"]) == ("btrfs-atlas sample", False)
    assert told["space"]["data"]["writable"] == usage.free_data
    assert told["space"]["unallocated"] == usage.total - usage.allocated
    assert told["space"]["mixed"] is None
    assert told["space"]["metadata_shortage"] is None
    (device,) = told["devices"]
    assert (device["path"], device["missing"], device["errors"]) == (None, False, {})
    assert told["under_way"] == {"operations": [], "deleted_subvolumes": [], "complete": True}
    assert (told["left_out"], told["unreadable"], told["damage"]) == ([], {}, None)


# Full in one way or another.


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem with much free space for data, and next to none for metadata."""
    folder = tmp_path_factory.mktemp("starved")
    with support.filesystem(folder, size="1G", data="single", metadata="dup") as made:
        for number in range(block_groups.fill_completely(made.mountpoint)):
            if number % 4:
                (made.mountpoint / f"piece{number}").unlink()
        # Small files are stored in metadata.
        for number in range(30_000):
            (made.mountpoint / f"small{number}").write_bytes(b"x" * 2000)
            if number % 1000 == 999 and is_starved(made):
                break
        yield made


def is_starved(made: support.LoopFilesystem) -> bool:
    made.sync()
    with btrfs.FileSystem(made.mountpoint) as fs:
        return advice.metadata_shortage(fs) is not None


def test_full_metadata_and_the_command_that_helps(starved: support.LoopFilesystem) -> None:
    told = page(starved.mountpoint)
    assert "! All space is allocated, and metadata is" in joined(told)
    assert "ENOSPC" in told
    shortage = as_json(starved.mountpoint)["space"]["metadata_shortage"]
    assert shortage["growth"] == 0
    assert shortage["balance"]
    (command,) = re.findall(r"^ +btrfs-atlas (balance .*)$", told, re.MULTILINE)
    done = subprocess.run([*PROGRAM, *shlex.split(command)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Nothing stands in the way of writing" in page(starved.mountpoint)


def test_read_only(starved: support.LoopFilesystem) -> None:
    starved.remount("ro")
    try:
        told = page(starved.mountpoint)
    finally:
        starved.remount("rw")
    assert "! Nothing can be written: it is mounted read-only" in joined(told)


def test_full_of_data(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid1", metadata="raid1") as made:
        block_groups.fill_completely(made.mountpoint)
        told = page(made.mountpoint)
        assert re.search(r"! (Only \S+ of|No) data can still be written", told)
        assert f"btrfs device add /dev/NEW {made.mountpoint}" in told
        assert "cannot be allocated" not in told
        # A third device gives nothing as long as the other two are full.
        made.btrfs("device", "add", "-f", made.add_image("1G"), made.mountpoint)
        told = page(made.mountpoint)
        assert "cannot be allocated because the others are full" in joined(told)
        assert as_json(made.mountpoint)["space"]["data_shortage"]["reclaimable"] > 700 * MIB


def test_mixed_block_groups(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, size="300M", data="single", metadata="single", mixed=True
    ) as made:
        assert re.search(r"^  both ", page(made.mountpoint), re.MULTILINE)


# Devices.


def test_missing_device_and_errors(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="raid1", metadata="raid1") as made:
        (made.mountpoint / "file").write_bytes(bytes(64 * MIB))
        made.sync()
        spoil.overwrite_data(made, 2)
        made.btrfs("scrub", "start", "-B", made.mountpoint)
        told = page(made.mountpoint)
        assert as_json(made.devices[1]) == as_json(made.mountpoint), "a device stands for it"
        assert "! Device 2 has counted errors: 2 wrong checksums or contents." in told
        assert f"btrfs scrub start -B {made.mountpoint}" in told
        made.unmount()
        told = page(*made.images)
        assert "! Device 2 has counted errors" in told
        assert "btrfs scrub start -B MOUNTPOINT" in told
        spoil.lose_last_device(made, tmp_path / "away")
        code, told, warned = programs.run_program(*PROGRAM, made.images[0])
        assert (code, warned) == (0, "Warning: device 2 is missing\n")
        assert "! Device 2 is missing." in checked(told)
        made.mount("degraded")
        told = page(made.mountpoint)
        assert re.search(r"^ +2 .* missing$", told, re.MULTILINE)
        assert f"btrfs replace start -B 2 /dev/NEW {made.mountpoint}" in told
        first, second = as_json(made.mountpoint)["devices"]
    assert (first["missing"], second["missing"], second["path"]) == (False, True, None)


# Under way.


def test_balance_that_is_paused(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", data="single", metadata="single") as made:
        block_groups.scatter(made.mountpoint / "scattered")
        assert support.pause_balance(made.mountpoint)
        told = page(made.mountpoint)
        assert "A balance is paused" in told
        assert f"btrfs balance cancel {made.mountpoint}" in told
        (found,) = as_json(made.mountpoint)["under_way"]["operations"]
        assert (found["kind"], found["state"]) == ("balance", "paused")
        made.unmount()
        assert "A balance is interrupted, and goes on when it is mounted" in page(made.images[0])


def test_removal_of_a_device(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=2, data="single", metadata="single") as made:
        block_groups.scatter(made.mountpoint / "scattered")
        command = ("btrfs", "device", "remove", "1", os.fspath(made.mountpoint))
        seen = []
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                assert programs.run_here(cli.main, made.mountpoint, "--json") == 0
                seen.append(page(made.mountpoint))
    assert any("The removal of device 1 is running" in told for told in seen)


def test_deleted_subvolumes(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path / "made", size="1G", nodesize=removal.NODESIZE, data="single", metadata="single"
    ) as made:
        interrupted = removal.interrupt(made, tmp_path / "copies")
    told = page(*interrupted.images)
    assert "2 deleted subvolumes not yet removed" in joined(told)
    assert re.search(rf"{interrupted.root.objectid} is \d+% removed", joined(told))
    deleted = as_json(*interrupted.images)["under_way"]["deleted_subvolumes"]
    assert len(deleted) == 2
    assert interrupted.root.objectid in [one["id"] for one in deleted]


@pytest.mark.parametrize(
    ("operation", "words", "command"),
    [
        (
            Operation(Kind.BALANCE, State.RUNNING, done=0.5),
            "A balance is running, 50% done.",
            "btrfs balance status /mnt",
        ),
        (
            Operation(Kind.SCRUB, State.RUNNING, 3, done=0.123, errors=1234),
            "A scrub of device 3 is running, 12% done, 1,234 errors that could not be mended.",
            "btrfs scrub status /mnt",
        ),
        (
            Operation(Kind.REPLACE, State.RUNNING, 3, done=0.0),
            "The replacement of device 3 is running, 0% done.",
            "btrfs replace status /mnt",
        ),
        (
            Operation(Kind.RESIZE, State.RUNNING, 3, bytes_left=MIB),
            "The shrinking of device 3 is running, 1.00MiB still to be moved.",
            "btrfs-atlas usage /mnt",
        ),
    ],
)
def test_operations_in_words(operation: Operation, words: str, command: str) -> None:
    found = under_way.UnderWay([operation], [], complete=True)
    lines = list(under_way.SECTION.lines(found, Names("/mnt", "/mnt")))
    assert lines == [f"{words} To follow it:", f"$ {command}"]


# Damage.


@pytest.mark.parametrize("kept", [100 << 10, 150 << 10])
def test_damage(tmp_path: Path, kept: int) -> None:
    cut = tmp_path / "cut.btrfs-image"
    cut.write_bytes(SAMPLE.read_bytes()[:kept])
    code, told, warned = programs.run_program(*PROGRAM, cut)
    assert warned.startswith("Warning: the dump is good up to byte")
    code_of_json, plain, _ = programs.run_program(*PROGRAM, "--json", cut)
    assert code == code_of_json
    found = json.loads(plain)
    assert found["damage"] in warned
    if found["space"]["complete"]:
        assert code == 0
        return
    assert code == 1
    assert "these sizes are too low" in joined(checked(told))
    assert f"btrfs-atlas check {cut}" in told
    assert found["space"]["data"]["writable"] is None
    assert found["space"]["size"] == 24 << 30


def test_damaged_image(tmp_path: Path) -> None:
    """One that has lost the tree with its block groups still has devices."""
    image = support.stored_image("simple-quota.img", tmp_path)
    anatomy = Anatomy([image])
    vaddr = anatomy.trees[constants.BLOCK_GROUP_TREE_OBJECTID].vaddr
    chunk = next(chunk for chunk in anatomy.chunks if 0 <= vaddr - chunk.vaddr < chunk.length)
    with image.open("r+b") as file:
        for place in chunk.copies(vaddr):
            file.seek(place.paddr)
            file.write(bytes(anatomy.nodesize))
    code, told, warned = programs.run_program(*PROGRAM, image)
    assert code == 1
    assert "these sizes are too low" in joined(checked(told))
    assert "No errors have been counted" in told
    assert "1 range of keys left out, of tree 11" in warned


# Sections.


# Owners.


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(tmp_path_factory.mktemp("owners"), size="1G") as made:
        share_space(made.mountpoint)
        yield made


def test_owners(shared: support.LoopFilesystem) -> None:
    found = as_json(shared.mountpoint)["owners"]
    with btrfs.FileSystem(shared.mountpoint, source="devices") as fs:
        owned = btrfs.ownership.scan(fs)
    subvolumes = {one.id: one for one in owned.subvolumes()}
    snapshots = [tree for tree, one in subvolumes.items() if one.is_read_only_snapshot]
    everything = owned.only_in(subvolumes)
    assert found["subvolumes"] == len(subvolumes) == 9
    assert found["read_only_snapshots"] == len(snapshots) == 4
    assert found["only_in_read_only_snapshots"]["total"] == owned.only_in(snapshots).total
    best = max(owned.freed_by([tree]).total for tree in snapshots)
    assert found["best_deletion"]["total"] == best
    sizes = [share["total"] for share in found["largest"]]
    assert sizes == sorted(sizes, reverse=True)
    assert everything.total // 2 < sum(sizes) <= everything.total
    assert found["largest"][0]["path"] == "snapshot of a snapshot"
    assert found["unreachable"] == owned.entry().unreachable > 0
    assert 0 < found["compressed"] < found["uncompressed"]


def test_owners_in_words(shared: support.LoopFilesystem) -> None:
    told = joined(page(shared.mountpoint))
    assert "are only held by 4 read-only snapshots" in told
    assert "lie in parts of extents that no file reaches" in told
    assert "Compression saves" in told
    assert "The largest of 9 subvolumes" in told


def test_owners_of_a_damaged_filesystem(
    shared: support.LoopFilesystem, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image,) = shared.copy_images(tmp_path)
    wipe_root(image, 256)
    assert programs.run_here(cli.main, image) == 1
    told = capsys.readouterr().out
    assert "! Not everything could be read: sizes may be too low" in told


# Sections.


def slow_section(read: Any) -> Section[str]:
    def lines(value: str, _names: Names) -> Iterator[str]:
        yield value

    return Section("slow", "Slow", read, lines, lambda value: value)


def test_what_takes_long_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(_fs: object, limit: TimeLimit) -> str:
        while True:
            limit.check()

    monkeypatch.setattr(overview, "SECTIONS", (*overview.SECTIONS, slow_section(read)))
    assert programs.run_here(cli.main, SAMPLE, "--seconds", "1") == 0
    told = capsys.readouterr().out
    assert "Nothing stands in the way" in told
    assert "Slow\n\n  Left out, as it would take longer." in told
    assert programs.run_here(cli.main, SAMPLE, "--seconds", "1", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["left_out"], found["slow"]) == (["slow"], None)


def test_a_section_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(_fs: object, _limit: TimeLimit) -> str:
        raise btrfs.BtrfsError("it is gone")

    monkeypatch.setattr(overview, "SECTIONS", (slow_section(read), *overview.SECTIONS))
    assert programs.run_here(cli.main, SAMPLE) == 1
    told = capsys.readouterr().out
    assert "! It could not be read: it is gone." in told
    assert "Nothing stands in the way" in told
    assert programs.run_here(cli.main, SAMPLE, "--json") == 1
    assert json.loads(capsys.readouterr().out)["unreadable"] == {"slow": "it is gone"}


def test_no_time_at_all() -> None:
    told = as_json(SAMPLE, "--seconds", "0")
    assert told["left_out"] == ["space", "devices", "under_way", "owners"]
    assert told["label"] == "btrfs-atlas sample"


# What is said instead of a page.


@pytest.mark.parametrize(
    ("words", "complaint", "hint"),
    [
        (("usgae",), "usgae is neither a subcommand nor a file or folder", "btrfs-atlas usage?"),
        (("export-htlm", "x"), "export-htlm is neither", "btrfs-atlas export-html?"),
        (("/no/such",), "/no/such is neither", "--help lists the subcommands"),
        (("overview", "/no/such"), "/no/such: No such file or directory", "check the spelling"),
        ((SAMPLE, "--seconds", "soon"), "not a number of seconds: 'soon'", "--help"),
        ((SAMPLE, "--seconds", "-1"), "not a number of seconds: '-1'", "--help"),
        (("/dev/null",), "/dev/null", "give a mount point"),
        (("",), "the name of the TARGET is empty", "give a mount point"),
    ],
)
def test_what_is_no_filesystem(words: tuple[str | Path, ...], complaint: str, hint: str) -> None:
    code, told, complained = programs.run_program(*PROGRAM, *words)
    assert (code, told) == (1, "")
    line = programs.assert_one_line(complained)
    assert complaint in line
    assert hint in line


def test_mounted_and_not_root(starved: support.LoopFilesystem) -> None:
    code, told, complained = programs.run_program(
        *support.UNPRIVILEGED, *PROGRAM, starved.mountpoint
    )
    assert (code, told) == (1, "")
    line = programs.assert_one_line(complained)
    assert f"{starved.mountpoint}: Operation not permitted" in line
    assert "root rights" in line
