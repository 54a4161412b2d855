"""The program btrfs-space-calculator: beside the original, and beside real filesystems."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from btrfs_atlas import cli
from tests import support
from tests.library.test_fs_usage import Case, allocate, filesystem
from tests.support import programs

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "calculate")
ORIGINAL = "/usr/bin/btrfs-space-calculator"
"""With its whole path: the program of the same name in our own environment is not meant."""

MIB = 1 << 20
GIB = 1 << 30


def calculated(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """Return what the program calculates, as plain data."""
    assert cli.calculate([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def numbers(told: str) -> list[float]:
    """Return the sizes in a text, in bytes."""
    from btrfs.utils import pretty_size_units

    return [
        float(number) * 1024 ** (pretty_size_units.index(unit) if unit else 0)
        for number, unit in re.findall(r"([\d.]+)([KMGTPE]?)i?B\b", told)
    ]


def without_numbers(told: str) -> str:
    return re.sub(r"[\d.]+[KMGTPE]?i?B\b", "SIZE", told)


@pytest.mark.parametrize(
    "words",
    [
        "-m raid1 -d raid1 1T 2T 3T",
        "-m raid1 -d raid5 -r 100 500G 1T 2TiB 2TiB",
        "--metadata dup --data single --ratio 1000 4TB",
        "-M -m dup -d dup 1TiB",
        "-m raid10 -d raid10 1T 1T 1T 1T 8T",
        "-m raid1 -d raid6 1T 1T 2T 2T 2T",
        "-m raid0 -d raid0 100G 100G",
        "--mixed -m raid1 -d raid1 100G 300G",
    ],
)
def test_says_what_the_original_says(words: str) -> None:
    support.require_programs(ORIGINAL)
    code, theirs, _ = programs.run_program(ORIGINAL, *words.split())
    assert code == 0
    code, ours, told = programs.run_program(*PROGRAM, *words.split())
    assert (code, told) == (0, "")
    assert without_numbers(ours) == without_numbers(theirs)
    given, _, ours = ours.partition("Estimated")
    assert theirs.startswith(given)
    theirs = theirs.removeprefix(given)
    # On large devices both are close, but for the first MiB and the odd chunk.
    *_, largest = sorted(numbers(given))
    for mine, other in zip(numbers(ours), numbers(theirs), strict=True):
        assert mine == pytest.approx(other, abs=largest / 100, rel=0.02)


@pytest.mark.parametrize(
    "case",
    [
        Case("single", "dup", (GIB,)),
        Case("raid1", "raid1", (300 * MIB, 400 * MIB, 600 * MIB)),
        Case("raid5", "raid1", (300 * MIB,) * 4),
        Case("raid0", "raid1", (512 * MIB, 2 * GIB)),
        Case("raid10", "raid10"),
        Case("dup", "dup", (3 * GIB,)),
        Case("single", "dup", (60 * GIB, 15 * GIB)),
        Case("raid1", "raid1", (512 * MIB, 700 * MIB, GIB), mixed=True),
    ],
    ids=str,
)
def test_as_much_can_be_written_as_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: Case
) -> None:
    """Small filesystems, too, whose first block groups are those of mkfs.btrfs."""
    with filesystem(tmp_path, case) as made:
        real = allocate(made.mountpoint / "large", 1 << 60)
    mixed = ["--mixed"] if case.mixed else []
    plan = calculated(
        capsys, *mixed, "-d", case.data, "-m", case.metadata, "-r", "900", *map(str, case.sizes)
    )
    assert 0.99 * real <= plan["writable"] <= 1.01 * real


def test_what_a_device_has_that_the_others_cannot_match(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = calculated(capsys, "-m", "raid1", "-d", "raid1", "1TiB", "1TiB", "5TiB")
    unusable = [device["unallocatable"] for device in plan["devices"]]
    assert unusable[2] == pytest.approx(3 << 40, rel=0.001)
    assert max(unusable[:2]) < 4 * MIB
    assert plan["unallocatable"] == sum(unusable)
    assert plan["total"] == 7 << 40
    assert plan["virtual_data"] + plan["virtual_metadata"] == pytest.approx(2 << 40, rel=0.001)


def test_a_hundred_devices_in_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = []
    # A machine that is busy with other things may be slow for a moment.
    for _ in range(3):
        begin = time.thread_time()
        plan = calculated(capsys, "-m", "raid1c3", "-d", "raid6", *["20TB"] * 100)
        seconds.append(time.thread_time() - begin)
    assert min(seconds) < 1
    assert plan["unallocatable"] < 100 * GIB


def test_sizes_with_decimals(capsys: pytest.CaptureFixture[str]) -> None:
    plan = calculated(capsys, "-m", "raid1", "-d", "raid1", "1.5T", "0.25TiB", "2.001GB")
    assert [device["total"] for device in plan["devices"]] == [15 * 10**11, 1 << 38, 2001 * 10**6]
    (device,) = calculated(capsys, "-m", "single", "-d", "single", "1.0000000000000001E")["devices"]
    assert device["total"] == 10**18 + 100


@pytest.mark.parametrize(
    "options",
    [
        "-m single -d single",
        "-m dup -d single",
        "-m single -d dup",
        "-m raid1 -d single",
        "-m raid1 -d raid0",
        "--mixed -m single -d single",
        "--mixed -m raid1 -d raid1",
    ],
)
def test_the_smallest_devices_are_those_of_mkfs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str
) -> None:
    support.require_mkfs()
    words = options.split()
    devices = [tmp_path / "one", tmp_path / "two"]
    for device in devices:
        device.touch()
        os.truncate(device, MIB)
    code, told, complaint = programs.run_program("mkfs.btrfs", *words, *devices)
    found = re.search(r"minimum size for each btrfs device is (\d+)", told + complaint)
    assert code != 0
    assert found
    least = int(found[1])
    assert calculated(capsys, *words, str(least), str(least))["writable"] > 0
    assert programs.run_here(cli.calculate, *words, str(least), str(least - 1)) == 1
    assert "device 2 of" in programs.assert_one_line(capsys.readouterr().err)


def test_tables_on_a_terminal() -> None:
    code, told = programs.run_in_terminal(
        *PROGRAM, "-m", "raid1", "-d", "raid1", "1TiB", "1TiB", "5TiB"
    )
    assert code == 0
    assert "of data can be written (data RAID1, metadata RAID1" in told
    assert "3.00TiB" in told
    assert "unusable" in told
    assert "\x1b[" in told
    _, mixed = programs.run_in_terminal(*PROGRAM, "-M", "-m", "dup", "-d", "dup", "10GiB")
    assert "data and metadata DUP, mixed" in mixed


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("-m raid1 -d raid6 1T 1T", "RAID6 needs 3 devices or more, but there are 2"),
        ("-m raid1c4 -d single 1T 1T 1T", "RAID1C4 needs 4 devices or more, but there are 3"),
        ("-m raid2 -d single 1T", "unknown profile raid2"),
        ("-m single -d single big", "invalid device size big"),
        ("-m single -d single 0", "invalid device size 0"),
        ("-m single -d single 1.T", "invalid device size 1.T"),
        ("-m single -d single 1.5", "invalid device size 1.5. Hint: sizes are numbers with a unit"),
        ("-m single -d single 16EiB", "size 16EiB is too large. Hint: a device of a btrfs has"),
        ("-m single -d single 99999999E", "device size 99999999E is too large"),
        ("-m single -d single 1M", "device 1 of 976.56KiB is too small"),
        ("-M -m single -d single 15MiB", "too small. Hint: mkfs.btrfs wants 16.00MiB"),
        ("-m raid1 -d raid1 1T 1M", "device 2 of 976.56KiB is too small"),
        ("-M -m single -d dup 1T", "profile single for metadata and dup for data"),
        ("-m single -d single -r 0 1T", "0 is not above 0"),
        ("-m single -d single -r half 1T", "'half' is not a whole number"),
        ("-m single -d single", "SIZE"),
        ("-d single 1T", "-m/--metadata"),
    ],
)
def test_bad_options(words: str, complaint: str) -> None:
    code, told, complained = programs.run_program(*PROGRAM, *words.split())
    assert (code, told) == (1, "")
    assert complaint in programs.assert_one_line(complained)
