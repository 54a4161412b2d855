"""The program btrfs-balance-least-used: what it moves, what it says, and how it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import btrfs
from btrfs import ioctl
from btrfs.ioctl import BalanceError
from btrfs_atlas import cli
from tests import support
from tests.lab import block_groups
from tests.support import programs
from tests.support.programs import SAMPLE

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "balance")
ORIGINAL = "/usr/bin/btrfs-balance-least-used"
"""With its whole path: the program of the same name in our own environment is not meant."""

SUMMARY = re.compile(r"Moved (\d+) of (\d+) block groups; (?:.*; )?(\S+iB) unallocated \(([+-])")


@contextlib.contextmanager
def filled(
    folder: Path, *keep: int, size: str = block_groups.SIZE
) -> Iterator[support.LoopFilesystem]:
    """Make a filesystem with block groups of which so many pieces are left."""
    with support.filesystem(folder, size=size, data="single", metadata="dup") as made:
        block_groups.fill_block_groups(made.mountpoint, keep)
        yield made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem with next to nothing in it, and two devices."""
    folder = tmp_path_factory.mktemp("small")
    with support.filesystem(folder, devices=2, size="300M", data="single") as made:
        (made.mountpoint / "file").write_bytes(bytes(1 << 20))
        made.sync()
        yield made


def run(*words: str | Path) -> tuple[int, str, str]:
    return programs.run_program(*PROGRAM, *words)


def assert_no_balance(made: support.LoopFilesystem) -> None:
    with btrfs.FileSystem(made.mountpoint) as fs, pytest.raises(BalanceError) as raised:
        ioctl.balance_progress(fs.fd)
    assert raised.value.errno == errno.ENOTCONN


def unallocated(made: support.LoopFilesystem) -> int:
    with btrfs.FileSystem(made.mountpoint) as fs:
        return btrfs.balance.planning.unallocated(fs)


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ((12, 8, 4, 0), ()),
        ((28, 14, 12, 10), ("-u", "50")),
        ((1, 2, 3, 4), ("--usage", "30")),
    ],
)
def test_says_what_the_original_says(
    tmp_path: Path, keep: tuple[int, ...], words: tuple[str, ...]
) -> None:
    support.require_programs(ORIGINAL)
    with filled(tmp_path / "theirs", *keep) as made:
        code, theirs, _ = programs.run_program(ORIGINAL, *words, made.mountpoint)
        assert code == 0
    with filled(tmp_path / "ours", *keep) as made:
        code, ours, told = run(*words, made.mountpoint)
        assert code == 0
        assert_no_balance(made)
    assert without_durations(ours) == without_durations(theirs)
    assert SUMMARY.match(told)


def found(pattern: str, told: str) -> list[Any]:
    """Return what a pattern finds in the lines of a text."""
    return re.findall(pattern, told, re.MULTILINE)


def without_durations(told: str) -> str:
    return re.sub(r"duration \d+ sec", "duration", told)


def test_dry_run_tells_what_then_happens(tmp_path: Path) -> None:
    with filled(tmp_path, 20, 9, 7, 3) as made:
        options = ("--limit", "3")
        before = unallocated(made)
        code, planned, told = run("--dry-run", *options, made.mountpoint)
        assert (code, told) == (0, "")
        assert unallocated(made) == before, "nothing was moved"
        code, done, told = run(*options, made.mountpoint)
        assert code == 0
        gain = unallocated(made) - before
    moved = found(r"^Balance block group (vaddr \d+ used_pct \d+) \.\.\. d", done)
    assert found(r"^Would balance block group (.*)$", planned) == moved
    assert len(moved) == 3
    *_, last = planned.splitlines()
    assert last.startswith("Estimate: 3 of 5 block groups would move; ")
    assert last.endswith(f" unallocated (+{btrfs.utils.pretty_size(gain)})")
    assert told.startswith("Moved 3 of 5 block groups; ")
    assert told.endswith(f" unallocated (+{btrfs.utils.pretty_size(gain)})\n")


def test_dry_run_of_what_is_not_mounted() -> None:
    code, told, _ = run("--dry-run", "-u", "50", SAMPLE)
    assert code == 0
    assert told.count("Would balance block group") == 6
    assert told.endswith("6 of 6 block groups would move; 11.48GiB unallocated (+4.00GiB)\n")


def test_order_device_and_target(tmp_path: Path) -> None:
    with filled(tmp_path, 5, 9, 7, 3) as made:
        _, told, _ = run("--order", "vaddr", "--dry-run", "--devid", "1", made.mountpoint)
        vaddrs = [int(vaddr) for vaddr in found(r"^Would balance .* vaddr (\d+)", told)]
        assert vaddrs == sorted(vaddrs)
        assert len(vaddrs) > 2
        orders = {run("--order=random", "--dry-run", made.mountpoint)[1] for _ in range(3)}
        assert len(orders) > 1
        wanted = unallocated(made) + (150 << 20)
        code, _, told = run("--target-free", str(wanted), made.mountpoint)
        assert code == 0
        assert "not reached" not in told
        assert wanted <= unallocated(made) < wanted + (200 << 20)
        code, _, told = run("--target-free", "1536MiB", made.mountpoint)
        assert code == 0
        assert "; 1.50GiB not reached\n" in told


@pytest.mark.parametrize("option", ["--metadata", "--system"])
def test_metadata_goes_with_a_warning(small: support.LoopFilesystem, option: str) -> None:
    with btrfs.FileSystem(small.mountpoint) as fs:
        flag = getattr(btrfs, f"BLOCK_GROUP_{option[2:].upper()}")
        before = {group.vaddr for group in fs.block_groups() if group.flags & flag}
        code, told, warned = run(option, small.mountpoint)
        after = {group.vaddr for group in fs.block_groups() if group.flags & flag}
    assert code == 0
    assert before.isdisjoint(after)
    assert len(found("^Balance block group", told)) == len(before)
    assert warned.startswith("Warning: to balance ")
    assert "rarely wise" in warned


def test_a_swap_file_stays_where_it_is(tmp_path: Path) -> None:
    support.require_programs("mkswap", "swapon", "swapoff", "chattr")
    with filled(tmp_path, 12, 5) as made:
        swap = made.mountpoint / "swap"
        swap.touch(mode=0o600)
        support.run("chattr", "+C", swap)
        swap.write_bytes(bytes(16 << 20))
        support.run("mkswap", swap)
        made.sync()
        try:
            support.run("swapon", swap)
        except support.CommandError as error:
            support.unavailable(f"needs swap files: {error}")
        try:
            code, told, summary = run(made.mountpoint)
        finally:
            support.run("swapoff", swap)
        assert_no_balance(made)
        stuck = found(r"^Balance .* vaddr (\d+) .*\.\.\. did not move: (.*)$", told)
        assert len(stuck) == 1, "it is tried once"
        assert "swap file" in stuck[0][1]
        assert f"; 1 did not move (vaddr {stuck[0][0]}); " in summary
        assert told.count("Balance block group") > 1, "the others are moved"
        assert code == 1
        assert run(made.mountpoint)[0] == 0, "without it, it moves"


def test_no_space_for_what_is_in_it(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="600M", data="single", metadata="single") as made:
        for number in range(0, block_groups.fill_completely(made.mountpoint), 10):
            (made.mountpoint / f"piece{number}").unlink()
        made.sync()
        code, told, summary = run(made.mountpoint)
        assert_no_balance(made)
    reasons = found(r"did not move: (.*)$", told)
    assert reasons
    assert all("no space" in reason for reason in reasons)
    assert f"; {len(reasons)} did not move (vaddr " in summary
    assert code == 1


# Interrupted.


@pytest.mark.parametrize(
    "numbers",
    [[signal.SIGINT], [signal.SIGINT] * 4, [signal.SIGTERM], [signal.SIGHUP, signal.SIGINT]],
)
def test_interrupted(scattered: support.LoopFilesystem, numbers: list[signal.Signals]) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--order", "random", scattered.mountpoint],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        wait_until_it_moves(scattered, running)
        for number in numbers:
            running.send_signal(number)
        told, summary = running.communicate()
    assert_no_balance(scattered)
    assert running.returncode == 128 + numbers[0]
    assert told.endswith(" ...\n")
    assert re.match("Interrupted, no balance is running any more. Moved [0-9]+ of ", summary)
    assert summary.count("\n") == 1
    scattered.btrfs("scrub", "start", "-B", scattered.mountpoint)


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem with a block group that takes seconds to move."""
    with filled(tmp_path_factory.mktemp("scattered")) as made:
        block_groups.scatter(made.mountpoint / "scattered")
        yield made


def wait_until_it_moves(made: support.LoopFilesystem, running: subprocess.Popen[str]) -> None:
    """Wait until the balance has begun that moves the file of many extents."""
    with btrfs.FileSystem(made.mountpoint) as fs:
        while running.poll() is None:
            with contextlib.suppress(BalanceError, IndexError):
                if fs.block_group(ioctl.balance_status(fs.fd).data.vstart).used > 48 << 20:
                    return
    pytest.fail("it ended before it came to what takes long")


def test_killed(scattered: support.LoopFilesystem) -> None:
    """Not even then a balance is left, to go on with the next mount."""
    with subprocess.Popen(
        [*PROGRAM, scattered.mountpoint], stdout=subprocess.PIPE, text=True
    ) as running:
        wait_until_it_moves(scattered, running)
        running.kill()
        running.communicate()
    assert_no_balance(scattered)


def test_a_closed_pipe_ends_it(scattered: support.LoopFilesystem) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with subprocess.Popen([*PROGRAM, scattered.mountpoint], stdout=write_end) as running:
        os.close(write_end)
        assert running.wait() == 141
    assert_no_balance(scattered)


def test_a_terminal_shows_progress(
    scattered: support.LoopFilesystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    code, told = programs.run_in_terminal(*PROGRAM, str(scattered.mountpoint))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told)
    assert code == 0
    assert re.search(r"balancing .* \d+%", plain)
    assert re.search(
        r"Balance block group vaddr \d+ used_pct \d+ \.\.\. duration \d+ sec total \d+\r\n", plain
    )
    assert SUMMARY.search(plain)


# What it refuses.


def refused(*words: str | Path, program: tuple[str, ...] = PROGRAM) -> str:
    """Run the program, which must refuse; return what it says."""
    code, told, complaint = programs.run_program(*program, *words)
    assert (code, told) == (1, "")
    return programs.assert_one_line(complaint)


def test_refuses_options_out_of_range(small: support.LoopFilesystem) -> None:
    path = small.mountpoint
    assert "usage 101 out of range" in refused("--usage", "101", path)
    assert "usage -1 out of range" in refused("-u", "-1", path)
    assert "limit 0 out of range" in refused("--limit", "0", path)
    assert "'much' is no size" in refused("--target-free", "much", path)
    assert "invalid choice: 'best'" in refused("--order", "best", path)
    complaint = refused("--devid", "9", path)
    assert "has no device 9" in complaint
    assert "the numbers of its devices are 1, 2" in complaint


def test_refuses_a_device_that_is_not_there() -> None:
    """Before it says that it loads anything."""
    complaint = refused("--dry-run", "--devid", "9", SAMPLE)
    assert f"{SAMPLE} has no device 9. Hint: the numbers of its devices are 1" in complaint


def test_refuses_what_cannot_be_balanced(small: support.LoopFilesystem, tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "nothing")
    assert "is not mounted" in refused(SAMPLE)
    assert "not on a btrfs" in refused("/proc")
    root_needed = refused(small.mountpoint, program=(*support.UNPRIVILEGED, *PROGRAM))
    assert "root rights" in root_needed
    small.remount("ro")
    try:
        assert "is mounted read-only" in refused(small.mountpoint)
    finally:
        small.remount("rw")


def test_refuses_where_there_is_a_balance(small: support.LoopFilesystem) -> None:
    assert support.pause_balance(small.mountpoint)
    with btrfs.FileSystem(small.mountpoint) as fs:
        assert "a balance is paused already" in refused(small.mountpoint)
        assert run("--dry-run", small.mountpoint)[0] == 0, "that does no harm"
        assert ioctl.balance_progress(fs.fd).state == 0, "it is left alone"
        ioctl.balance_ctl(fs.fd, ioctl.BALANCE_CTL_CANCEL)


def test_refuses_where_a_balance_is_running(scattered: support.LoopFilesystem) -> None:
    script = (
        "import sys; from btrfs import ioctl; "
        "ioctl.balance_v2(int(sys.argv[1]), ioctl.BalanceArgs())"
    )
    fd = os.open(scattered.mountpoint, os.O_RDONLY)
    try:
        with subprocess.Popen([sys.executable, "-c", script, str(fd)], pass_fds=[fd]) as other:
            wait_for_any_balance(fd, other)
            assert "a balance is running already" in refused(scattered.mountpoint)
            assert other.wait() == 0, "it went on to its end"
    finally:
        os.close(fd)


def wait_for_any_balance(fd: int, other: subprocess.Popen[bytes]) -> None:
    while other.poll() is None:
        with contextlib.suppress(BalanceError):
            ioctl.balance_progress(fd)
            return


def test_nothing_to_do(tmp_path: Path) -> None:
    with filled(tmp_path, 9) as made:
        code, told, summary = run("-u", "1", made.mountpoint)
    assert (code, summary) == (0, "")
    assert re.fullmatch(
        "Loading block group objects with used_pct <= 1 ... found 0\n"
        r"Nothing to do, least used block group has used_pct \d+\n",
        told,
    )


def test_the_alias_is_the_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["balance", str(SAMPLE)]) == 1
    first = capsys.readouterr().err
    assert cli.balance([str(SAMPLE)]) == 1
    assert capsys.readouterr().err == first
