"""The documents are true: commands run, scripts print what stands below them, links lead somewhere.

The commands of CONTRIBUTING.md are tried by test_contributing.py.
"""

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
from typing import NamedTuple

import pytest

from heatmap.colourings import colourings
from tests import support
from tests.support import documents
from tests.support.documents import README, ROOT
from tests.support.programs import SAMPLE

DOCUMENTS = [README, *sorted((ROOT / "docs").glob("*.md"))]
EVERY_DOCUMENT = [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]


class Example(NamedTuple):
    """A block of code in a document.

    Attributes:
        document: Where it stands.
        code: Its lines.
        output: The block without a language that follows it, or an empty string.
    """

    document: Path
    code: str
    output: str


def examples(language: str) -> list[Example]:
    """Return the blocks of a language in all documents."""
    return [
        Example(document, code, output)
        for document in DOCUMENTS
        for code, output in documents.blocks(document, language)
    ]


def named(example: Example) -> str:
    """Return what pytest calls the test of an example."""
    return f"{example.document.stem}: {example.code.strip().splitlines()[-1].strip()[:40]}"


SCRIPTS = examples("python")
COMMANDS = [example for example in examples("sh") if not example.output]
COMMANDS_WITH_OUTPUT = [example for example in examples("sh") if example.output]


def commands(found: list[Example]) -> list[list[str]]:
    """Return the words of each line of these examples."""
    lines = [line for example in found for line in example.code.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("script", SCRIPTS, ids=named)
def test_script(tmp_path: Path, script: Example) -> None:
    shutil.copy(SAMPLE, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script.code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    if script.output:
        assert done.stdout == script.output


@pytest.mark.parametrize("command", COMMANDS_WITH_OUTPUT, ids=named)
def test_command_with_output(tmp_path: Path, command: Example) -> None:
    shutil.copy(SAMPLE, tmp_path)
    assert run(command.code, tmp_path) == command.output


@pytest.fixture(scope="module")
def raid1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem in place of the ones that the documents name."""
    folder = tmp_path_factory.mktemp("raid1")
    with support.filesystem(folder, devices=2, data="raid1", metadata="raid1") as fs:
        support.populate(fs.mountpoint)
        (fs.mountpoint / "hello").touch()
        fs.sync()
        yield fs


def test_commands_of_a_new_user(
    tmp_path_factory: pytest.TempPathFactory, raid1: support.LoopFilesystem
) -> None:
    """From a clone to the first picture, by the commands of the README and nothing else."""
    clone = documents.copy_repository(tmp_path_factory.mktemp("clone") / "btrfs-atlas")
    steps = commands([example for example in COMMANDS if example.document == README])
    assert len(steps) == 7
    for words in steps:
        argv = in_place(words, {"/": raid1.mountpoint})
        if "serve" in argv:
            assert b"<title>btrfs-atlas</title>" in first_page(argv, clone)
            continue
        done = subprocess.run(argv, cwd=clone, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (words, done.stderr)
        if "--show" in argv:
            assert "\N{UPPER HALF BLOCK}" in done.stdout
    assert not list(clone.glob("*.png"))


def test_commands(tmp_path: Path, raid1: support.LoopFilesystem) -> None:
    """The other commands, in the order in which they stand."""
    shutil.copy(SAMPLE, tmp_path)
    places: dict[str, str | Path] = {
        "/mnt/data": raid1.mountpoint,
        "/mnt/data/hello": raid1.mountpoint / "hello",
        "/dev/sdb": raid1.devices[1],
        "disk1.img": raid1.images[0],
        "disk2.img": raid1.images[1],
    }
    steps = commands([example for example in COMMANDS if example.document != README])
    assert len(steps) >= 20
    for words in steps:
        argv = in_place(words, places)
        if "serve" in argv:
            argv[0] = os.fspath(Path(sys.executable).with_name(argv[0]))
            assert b"<title>btrfs-atlas</title>" in first_page(argv, tmp_path)
            continue
        printed = run(shlex.join(argv), tmp_path)
        if argv[0] == "btrfs-heatmap":
            name = printed.splitlines()[-1].removeprefix("pngfile ")
            assert (tmp_path / name).stat().st_size > 500


def in_place(words: list[str], places: dict[str, str | Path]) -> list[str]:
    """Return a command without sudo and without a browser, with places of the test."""
    kept = [word for word in words if word not in {"sudo", "--open"}]
    return [os.fspath(places.get(word, word)) for word in kept]


def first_page(argv: list[str], folder: Path) -> bytes:
    """Return the page of a server, and end the server as a user would."""
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
    """Run a command of a document in a folder; return its standard output."""
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


@pytest.mark.parametrize("document", EVERY_DOCUMENT, ids=lambda path: path.stem)
def test_links(document: Path) -> None:
    """Every relative link leads to a file, and to a heading where it names one."""
    for link in documents.links(document):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        if anchor:
            assert anchor in documents.anchors(target), link


@pytest.mark.parametrize("document", EVERY_DOCUMENT, ids=lambda path: path.stem)
def test_modules_exist(document: Path) -> None:
    """Every dotted name of our packages in a document can be imported, or is found in a module."""
    for name in documents.dotted_names(document):
        assert documents.resolves(name), name


def test_every_document_is_linked_from_the_readme() -> None:
    linked = {ROOT / link.partition("#")[0] for link in documents.links(README)}
    assert set(EVERY_DOCUMENT) - linked == {README}


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_every_program_is_in_the_readme_and_the_manual() -> None:
    manual = (ROOT / "docs" / "manual.md").read_text()
    printed = run("btrfs-atlas --help", ROOT)
    listed = re.findall(
        r"^    ([a-z][a-z-]+)(?: |$)", printed.partition("SUBCOMMAND\n")[2], re.MULTILINE
    )
    assert len(listed) >= 9
    for name in listed:
        assert f"| `{name}` |" in README.read_text()
        assert f"btrfs-atlas {name}" in manual


def test_the_manual_says_what_each_colouring_shows() -> None:
    manual = (ROOT / "docs" / "manual.md").read_text(encoding="utf-8")
    for one in colourings():
        assert f"| `{one.name}` | {one.description} |" in manual
