"""The README is true: its commands run, and its scripts print what stands below them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "src" / "btrfs_atlas" / "data" / "sample.btrfs-image"
NOT_IN_A_CLONE = (".git", ".venv", "node_modules", "build", "demo", ".*_cache", "__pycache__")


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the blocks of a language, each with the block without a language that follows it."""
    text = (ROOT / "README.md").read_text()
    found = re.findall(
        rf"^```{language}\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", text, re.MULTILINE | re.DOTALL
    )
    assert found
    return found


def commands() -> list[list[str]]:
    """Return the words of all commands in the README of which no output is shown."""
    lines = [line for block, output in blocks("sh") if not output for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize(("script", "output"), blocks("python"))
def test_script(tmp_path: Path, script: str, output: str) -> None:
    shutil.copy(SAMPLE, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    if output:
        assert done.stdout == output


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository as a new user has it."""
    folder = tmp_path_factory.mktemp("clone") / "btrfs-atlas"
    return Path(shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_IN_A_CLONE)))


@pytest.fixture(scope="module")
def raid1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    folder = tmp_path_factory.mktemp("raid1")
    with support.filesystem(folder, devices=2, data="raid1", metadata="raid1") as fs:
        support.populate(fs.mountpoint)
        fs.sync()
        yield fs


def test_commands_of_a_new_user(clone: Path, raid1: support.LoopFilesystem) -> None:
    """From a clone to the first picture, by the commands and nothing else."""
    steps = [words for words in commands() if ".venv" in " ".join(words)]
    assert len(steps) == 6
    places = {"/": os.fspath(raid1.mountpoint)}
    for words in steps:
        argv = [places.get(word, word) for word in words if word not in ("sudo", "--open")]
        if "serve" in words:
            assert b"<title>btrfs-atlas</title>" in first_page(argv, clone)
            continue
        done = subprocess.run(argv, cwd=clone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        if "--show" in words:
            assert "\N{UPPER HALF BLOCK}" in done.stdout
    assert not list(clone.glob("*.png"))


def first_page(argv: list[str], folder: Path) -> bytes:
    """Return what a server shows first, and end it as a user would."""
    with subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            with urllib.request.urlopen(server.stdout.readline().strip()) as answer:
                page: bytes = answer.read()
        finally:
            server.send_signal(signal.SIGINT)
        assert server.wait() == 130
    return page


def run(command: str, folder: Path) -> str:
    """Run a command of the README in a folder; return its standard output."""
    programs = os.fspath(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": os.pathsep.join((programs, os.environ["PATH"]))}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


@pytest.mark.parametrize(
    ("command", "output"), [(block, output) for block, output in blocks("sh") if output]
)
def test_output_of_command(tmp_path: Path, command: str, output: str) -> None:
    shutil.copy(SAMPLE, tmp_path)
    assert run(command, tmp_path) == output


def test_commands(tmp_path: Path, raid1: support.LoopFilesystem) -> None:
    """The other commands, with a filesystem of the test in place of the ones they name."""
    shutil.copy(SAMPLE, tmp_path)
    (raid1.mountpoint / "hello").touch()
    places = {
        "/mnt/data": os.fspath(raid1.mountpoint),
        "/mnt/data/hello": os.fspath(raid1.mountpoint / "hello"),
        "/dev/sdb": raid1.devices[1],
        "disk1.img": os.fspath(raid1.images[0]),
        "disk2.img": os.fspath(raid1.images[1]),
    }
    for words in commands():
        if ".venv" in " ".join(words):
            continue
        told = run(shlex.join(places.get(word, word) for word in words), tmp_path)
        if words[0] == "btrfs-heatmap":
            name = told.splitlines()[-1].removeprefix("pngfile ")
            assert (tmp_path / name).stat().st_size > 500


def test_pictures_are_there() -> None:
    names = re.findall(r"!\[[^]]*\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(names) == 5
    assert all((ROOT / name).is_file() for name in names)
