"""The program btrfs-usage-report: its text beside that of the original, its warning, its tables."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import btrfs
from btrfs.space import advice
from tests import support
from tests.lab import block_groups
from tests.support import programs
from tests.support.programs import SAMPLE

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "usage")
ORIGINAL = "/usr/bin/btrfs-usage-report"
"""With its whole path: the program of the same name in our own environment is not meant."""

GIB = 1 << 30

ESTIMATES = (
    # What can still be allocated and written comes from a better simulation.
    r"^\| (Allocatable bytes remaining: )\S+$",
    r"^\| (Data  +)\d\S+ *$",
    r"^\| (MetaData  +)\d\S+ *$",
    # So does what cannot be; python-btrfs does not count the first MiB of each device, which is
    # reserved.
    r"^\| (Reclaimable \(by using balance\): )\S+$",
    r"^\| (Not reclaimable \(because of different disk sizes\): )\S+$",
)
"""The lines that differ from those of the original, and why."""


def run(*words: str | Path) -> tuple[int, str, str]:
    return programs.run_program(*PROGRAM, *words)


def without_estimates(told: str) -> str:
    for pattern in ESTIMATES:
        told, count = re.subn(pattern, r"| \1", told, flags=re.MULTILINE)
        assert count == 1, pattern
    head, mark, tail = told.partition("given current target profiles:")
    assert mark
    return head + mark + re.sub(r"^(\| \d+) .*$", r"\1", tail, flags=re.MULTILINE)


@contextlib.contextmanager
def filesystem(folder: Path, data: str, metadata: str, devices: int) -> Iterator[Any]:
    with support.filesystem(
        folder, devices=devices, size="1G", data=data, metadata=metadata
    ) as made:
        support.populate(made.mountpoint)
        made.sync()
        yield made


@pytest.mark.parametrize(
    ("data", "metadata", "devices"),
    [("single", "dup", 1), ("raid5", "raid1c3", 3), ("raid10", "raid1", 4)],
)
def test_says_what_the_original_says(
    tmp_path: Path, data: str, metadata: str, devices: int
) -> None:
    support.require_programs(ORIGINAL)
    with filesystem(tmp_path, data, metadata, devices) as made:
        code, theirs, _ = programs.run_program(ORIGINAL, made.mountpoint)
        assert code == 0
        code, ours, told = run(made.mountpoint)
        assert (code, told) == (0, "")
        assert without_estimates(ours) == without_estimates(theirs)
        # With two profiles of data, and a device that is empty.
        made.btrfs("device", "add", "-f", made.add_image("2G"), made.mountpoint)
        made.btrfs("balance", "start", "-dconvert=raid1,limit=1", made.mountpoint)
        _, theirs, _ = programs.run_program(ORIGINAL, made.mountpoint)
        _, ours, _ = run(made.mountpoint)
        assert without_estimates(ours) == without_estimates(theirs)
        made.unmount()
        code, unmounted, told = run(*made.images)
        assert (code, told) == (0, "")

    def without_names(told: str) -> list[str]:
        return [
            re.sub(r"( \S+iB) /\S+$", r"\1", line)
            for line in told.splitlines()
            if not line.startswith("Btrfs usage report for ")
        ]

    assert without_names(unmounted) == without_names(ours)


def test_mixed_block_groups(tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, size="768M", data="single", metadata="single", mixed=True
    ) as made:
        (made.mountpoint / "file").write_bytes(bytes(1 << 20))
        made.sync()
        code, told, warned = run(made.mountpoint)
        with btrfs.FileSystem(made.mountpoint) as fs:
            usage = fs.usage()
    assert (code, warned) == (0, "")
    lines = [line.rstrip() for line in told.splitlines()]
    assert "Mixed groups: True" in lines
    assert "| Mixed        single" in lines
    assert f"| Mixed        {usage.free_mixed_str}" in lines
    assert any(line.startswith("| DATA|METADATA ") for line in lines)


def test_json_has_everything() -> None:
    code, told, _ = run("--json", SAMPLE)
    assert code == 0
    plain = json.loads(told)
    with btrfs.FileSystem(SAMPLE) as fs:
        usage = fs.usage()
    assert plain["label"] == "btrfs-atlas sample"
    assert plain["mixed_groups"] is False
    assert plain["warnings"] == []
    assert plain["usage"]["free_data"] == usage.free_data
    assert plain["usage"]["raw_space_usage"]["36"]["flags_str"] == "METADATA|DUP"
    device = plain["usage"]["dev_usage"]["1"]
    assert device["unallocated"] == usage.dev_usage[1].unallocated
    assert "path" in device


def test_tables_on_a_terminal() -> None:
    code, told = programs.run_in_terminal(*PROGRAM, str(SAMPLE))
    assert code == 0
    with btrfs.FileSystem(SAMPLE) as fs:
        usage = fs.usage()
    assert f"{usage.free_data_str} can still be written" in told
    for word in ("Block groups", "METADATA|DUP", "Devices", usage.allocated_str):
        assert word in told
    assert "Warning" not in told
    assert "\x1b[" in told


@pytest.mark.parametrize("columns", [25, 40, 70, 200])
def test_tables_on_a_terminal_of_any_width(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    code, told = programs.run_in_terminal(*PROGRAM, str(SAMPLE))
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)
    assert max(map(len, plain.splitlines())) <= columns
    with btrfs.FileSystem(SAMPLE) as fs:
        usage = fs.usage()
    spaces = usage.virtual_space_usage.values()
    wanted = [size for space in spaces for size in (space.total_str, space.used_str)]
    devices = usage.dev_usage.values()
    wanted += [size for device in devices for size in (device.total_str, device.unallocated_str)]
    assert set(wanted) <= set(plain.split())


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--bogus",), "unrecognized arguments: --bogus"),
        (("--source", "mounted", "--bogus=1"), "unrecognized arguments: --bogus=1"),
        (("-x",), "unrecognized arguments: -x"),
        (("--jso",), "the following arguments are required: TARGET"),
        (("--source=mounted",), "the following arguments are required: TARGET"),
        (("",), "the name of the TARGET is empty"),
        ((SAMPLE, ""), "the name of the TARGET is empty"),
    ],
)
def test_bad_options(words: tuple[str | Path, ...], complaint: str) -> None:
    code, told, complained = run(*words)
    assert (code, told) == (1, "")
    assert complaint in programs.assert_one_line(complained)


def test_bad_targets(tmp_path: Path) -> None:
    (tmp_path / "nothing.img").write_bytes(bytes(4096))
    for target in (tmp_path / "missing", Path("/proc"), tmp_path / "nothing.img"):
        code, told, complaint = run(target, "--source=unmounted" if target.is_file() else "--json")
        assert (code, told) == (1, "")
        programs.assert_one_line(complaint)


# The warning.


@pytest.fixture(scope="module")
def starved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem of which data took everything, and has a quarter of it now."""
    folder = tmp_path_factory.mktemp("starved")
    with support.filesystem(folder, size="1G", data="single", metadata="dup") as made:
        for number in range(block_groups.fill_completely(made.mountpoint)):
            if number % 4:
                (made.mountpoint / f"piece{number}").unlink()
        made.sync()
        yield made


def shortage(made: support.LoopFilesystem) -> advice.MetadataShortage | None:
    made.sync()
    with btrfs.FileSystem(made.mountpoint) as fs:
        return advice.metadata_shortage(fs)


def fill_metadata(
    made: support.LoopFilesystem,
    is_wanted: Callable[[advice.MetadataShortage], bool] = lambda _: True,
) -> advice.MetadataShortage:
    """Write small files, which are stored in metadata, until there is such a warning."""
    for number in range(30_000):
        (made.mountpoint / f"small{number}").write_bytes(b"x" * 2000)
        if number % 1000 == 999 and (found := shortage(made)) and is_wanted(found):
            return found
    raise AssertionError("metadata is full, and there was no warning")


def test_metadata_with_nowhere_to_grow(starved: support.LoopFilesystem) -> None:
    assert shortage(starved) is None, "there is enough in the block groups that there are"
    found = fill_metadata(starved)
    assert found.growth == 0
    assert 0 < found.free < 16 << 20
    assert found.balance
    assert found.growth_after > 50 << 20

    code, told, warned = run(starved.mountpoint)
    assert code == 0
    assert told.startswith("Btrfs usage report")
    assert told.endswith("hitting the 'hard' limit.\n")
    assert warned.startswith("Warning: metadata is about to have nowhere to grow. ")
    vaddrs = [int(vaddr) for vaddr in re.findall(r"^  vaddr (\d+) ", warned, re.MULTILINE)]
    assert vaddrs == [group.vaddr for group in found.balance]
    with btrfs.FileSystem(starved.mountpoint) as fs:
        data = [group for group in fs.block_groups() if group.flags & btrfs.BLOCK_GROUP_DATA]
    least = min(data, key=lambda group: group.used / group.length)
    assert vaddrs[0] == least.vaddr

    (warning,) = json.loads(run("--json", starved.mountpoint)[1])["warnings"]
    assert [group["vaddr"] for group in warning["balance"]] == vaddrs
    _, on_terminal = programs.run_in_terminal(*PROGRAM, os.fspath(starved.mountpoint))
    assert "Warning: metadata is about to have nowhere to grow" in on_terminal

    # What it says to do helps.
    name, *words = shlex.split(warned.splitlines()[-1].removeprefix("Do so with: "))
    assert name == "btrfs-balance-least-used"
    done = subprocess.run([*PROGRAM[:-1], "balance", *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shortage(starved) is None
    assert run(starved.mountpoint)[2] == ""


def test_no_balance_helps_where_data_is_full(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="400M", data="single", metadata="dup") as made:
        block_groups.fill_completely(made.mountpoint, piece=1 << 20)
        assert shortage(made) is None, "a full filesystem is not one that will break"
        # Without any space for data, the kernel lets no file be written, however small.
        for number in range(0, 300, 20):
            (made.mountpoint / f"piece{number}").unlink()
        found = fill_metadata(made, lambda found: not found.balance)
        assert found.growth_after == found.growth
        _, _, warned = run(made.mountpoint)
        assert "No balance helps" in warned
        assert "btrfs-balance-least-used" not in warned


@pytest.mark.parametrize(
    ("data", "metadata", "devices", "size"),
    [
        ("single", "dup", 1, "140M"),
        ("single", "single", 1, "300M"),
        ("raid1", "raid1", 2, "256M"),
        ("raid10", "raid10", 4, "300M"),
        ("single", "dup", 1, "60G"),
    ],
)
def test_no_false_alarm(tmp_path: Path, data: str, metadata: str, devices: int, size: str) -> None:
    with support.filesystem(
        tmp_path, devices=devices, size=size, data=data, metadata=metadata
    ) as made:
        assert shortage(made) is None, "new"
        if not size.endswith("G"):
            block_groups.fill_completely(made.mountpoint)
            assert shortage(made) is None, "full of data"
