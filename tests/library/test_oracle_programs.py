"""The programs that python-btrfs comes with run with this library in place of their own.

They are run as they are. btrfs-orphan-cleaner-progress is missing here: it waits for deletions.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import support

MIB = 1 << 20


def sizes(text: str) -> list[float]:
    """Return the sizes in a text, in bytes."""
    from btrfs.utils import pretty_size_units

    return [
        float(number) * 1024 ** (pretty_size_units.index(unit) if unit else 0)
        for number, unit in re.findall(r"([\d.]+)([KMGTPE]?)i?B\b", text)
    ]


def without_sizes(text: str) -> str:
    """Replace sizes, and the blanks and lines that columns of them are as wide as."""
    text = re.sub(r"[\d.]+[KMGTPE]?i?B\b", "SIZE", text)
    return re.sub(r" +|-{3,}", " ", text)


def with_both(program: str, *args: str | Path) -> tuple[str, str]:
    """Return what a program prints with this library, and with its own."""
    outputs = []
    for ours in (True, False):
        done = support.oracle.run_program(program, *args, with_our_library=ours)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout)
    return outputs[0], outputs[1]


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
def test_space_calculator(words: str) -> None:
    """It hands a made-up filesystem to FsUsage, which has no more than FsUsage needs."""
    ours, theirs = with_both("btrfs-space-calculator", *words.split())
    assert without_sizes(ours) == without_sizes(theirs)
    largest = max(sizes(ours.partition("Estimated")[0]))
    for mine, other in zip(sizes(ours), sizes(theirs), strict=True):
        assert mine == pytest.approx(other, abs=largest / 100, rel=0.02)


@pytest.mark.parametrize("words", ["-m raid2 -d dup 1T", "-m dup -d dup big"])
def test_space_calculator_refuses_what_it_refuses(words: str) -> None:
    ours, theirs = (
        support.oracle.run_program("btrfs-space-calculator", *words.split(), with_our_library=it)
        for it in (True, False)
    )
    assert ours.returncode == theirs.returncode != 0
    assert ours.stderr == theirs.stderr


def test_usage_report(mounted: support.LoopFilesystem) -> None:
    ours, theirs = with_both("btrfs-usage-report", mounted.mountpoint)
    assert without_sizes(ours) == without_sizes(theirs)
    same = [line for line in ours.splitlines() if line in theirs.splitlines()]
    assert len(same) > 0.7 * len(theirs.splitlines())


@pytest.mark.parametrize(
    "preset",
    [
        ("chunks",),
        ("block_groups",),
        ("dev_extents",),
        ("devices",),
        ("orphans",),
        ("file",),
        ("inode", "--tree", "5", "--inum", "256"),
        ("block_group_free_space", "--vaddr", "VADDR"),
        ("block_group_contents", "--vaddr", "VADDR"),
    ],
    ids=lambda preset: preset[0],
)
def test_search_metadata(mounted: support.LoopFilesystem, preset: tuple[str, ...]) -> None:
    from btrfs import FileSystem

    with FileSystem(mounted.mountpoint) as fs:
        vaddr = str(next(fs.block_groups()).vaddr)
    words = [vaddr if word == "VADDR" else word for word in preset]
    ours, theirs = with_both("btrfs-search-metadata", *words, mounted.mountpoint)
    assert ours == theirs


def test_balance_least_used(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", data="single", metadata="dup") as made:
        done = support.oracle.run_program(
            "btrfs-balance-least-used", "-u", "50", made.mountpoint, with_our_library=True
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
