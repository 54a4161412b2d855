"""The program btrfs-orphan-cleaner-progress: beside the original, and how it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from btrfs.ctree import RootItem
from btrfs_atlas import cli
from tests import support
from tests.lab.commands import Argument
from tests.support import programs, removal
from tests.support.programs import SAMPLE

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "orphans")

LINES = re.compile(
    r"\d+ orphans left to clean"
    r"|dropping root \d+ for at least \d+ sec drop_progress \(\d+ [A-Z_]+ \d+\)( done_pct \S+)?"
    r"|dropping root \d+ finished after at least \d+ sec"
)


class Stopped(NamedTuple):
    """An interrupted removal.

    Attributes:
        root: Root of the subvolume, of which a part is removed.
        fs: The filesystem, mounted read-only first, so that nothing moves.
    """

    root: RootItem
    fs: support.LoopFilesystem


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    folder = tmp_path_factory.mktemp("orphans")
    with support.filesystem(
        folder, size="2G", metadata="single", nodesize=removal.NODESIZE
    ) as original:
        found = removal.interrupt(original, folder / "copy")
    with support.mounted_images(found.images, folder / "copy" / "mnt", "ro") as fs:
        yield Stopped(found.root, fs)


def running_original(place: Path) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    folder = support.oracle.folder()
    program = folder / "bin" / "btrfs-orphan-cleaner-progress"
    return running(sys.executable, program, place, PYTHONPATH=os.fspath(folder))


@contextlib.contextmanager
def running(*argv: Argument, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program; if it has not ended at the end, kill it."""
    with subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def lines_up_to(program: subprocess.Popen[str], last: str, most: int = 100) -> list[str]:
    """Read what a program prints, up to the first line that has these words in it."""
    assert program.stdout is not None
    lines: list[str] = []
    while not lines or last not in lines[-1]:
        line = program.stdout.readline()
        assert line, lines
        lines.append(line.rstrip("\n"))
        assert len(lines) < most, lines
    return lines


def interrupted(program: subprocess.Popen[str]) -> tuple[int, str]:
    """Interrupt a program; return its exit code and what is on its standard error."""
    program.send_signal(signal.SIGINT)
    _, errors = program.communicate()
    return program.returncode, errors


def test_read_only(stopped: Stopped, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells how things stand, and does not wait for what will not happen."""
    out, err = refused(capsys, stopped.fs.mountpoint)
    left, dropping = out.splitlines()
    assert left == "2 orphans left to clean"
    begin = (
        f"dropping root {stopped.root.objectid} for at least 0 sec "
        f"drop_progress {stopped.root.drop_progress} done_pct "
    )
    assert dropping.startswith(begin)
    assert 0 < float(dropping.removeprefix(begin)) <= 100
    assert "mounted read-only" in err


def test_as_the_original(stopped: Stopped) -> None:
    """All follow the same removal from the middle to the end; afterwards there are no orphans."""
    place = stopped.fs.mountpoint
    dropping = f"dropping root {stopped.root.objectid} "
    with running_original(place) as original, running(*PROGRAM, "--wait", place) as waiting:
        both = (original, waiting)
        begins = [lines_up_to(program, dropping) for program in both]
        assert begins[0] == [re.sub(r" done_pct \d+\.\d$", "", line) for line in begins[1]]
        stopped.fs.remount("rw")
        stopped.fs.sync()
        with running(*PROGRAM, place) as ours:
            told, errors = ours.communicate(timeout=60)
        assert (ours.returncode, errors) == (0, "")
        ends = [lines_up_to(program, "0 orphans") for program in both]
        # If one that should not end did, it would have within this time.
        time.sleep(1)
        assert [program.poll() for program in both] == [None, None]
        assert interrupted(waiting) == (130, "")
        assert interrupted(original)[0] == 130
    for end in (*ends, told.splitlines()):
        # When they look is a matter of chance.
        assert all(LINES.fullmatch(line) for line in end)
        assert end[-1] == "0 orphans left to clean"
    for end in ends:
        assert len([line for line in end if line.startswith(f"{dropping}finished after")]) == 1


def test_nothing_is_left(stopped: Stopped) -> None:
    stopped.fs.remount("rw")
    subprocess.run([*PROGRAM, stopped.fs.mountpoint], check=True, timeout=60)
    done = subprocess.run(
        [*PROGRAM, stopped.fs.mountpoint], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "0 orphans left to clean\n", "")


def test_nobody_reads_it(stopped: Stopped) -> None:
    with running(*PROGRAM, "--wait", stopped.fs.mountpoint) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait() == 141


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[str, str]:
    """Run the program, which must fail as it should; return what it prints and what it says."""
    assert programs.run_here(cli.orphans, *words) == 1
    printed = capsys.readouterr()
    return printed.out, programs.assert_one_line(printed.err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: PATH"),
        ((SAMPLE,), "is not mounted, and only a mounted filesystem removes subvolumes. Hint: "),
        (("/proc",), "is not on a btrfs filesystem"),
        (("/nonexistent",), "/nonexistent: No such file or directory"),
        ((SAMPLE, "--interval", "often"), "--interval: not a number of seconds"),
        ((SAMPLE, "--interval", "0"), "--interval: not a number of seconds"),
        ((SAMPLE, "--interval", "nan"), "--interval: not a number of seconds"),
        ((SAMPLE, "--interval", "inf"), "--interval: not a number of seconds"),
    ],
)
def test_bad_input(
    capsys: pytest.CaptureFixture[str], words: tuple[str | Path, ...], message: str
) -> None:
    out, err = refused(capsys, *words)
    assert out == ""
    assert message in err
