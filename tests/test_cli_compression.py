"""The command btrfs-atlas compression: the table of compsize, and how it ends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs_atlas import cli
from tests import support
from tests.lab.sharing import share_space
from tests.library.test_unmounted import wipe_root
from tests.support import compsize, programs

ODD = b"odd\x1b[31m\xff"


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[Any, str, str]:
    """Run the command; return its exit status, and what is on both outputs."""
    status = programs.run_here(cli.main, "compression", *words)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def without_padding(table: str) -> str:
    """Return a table without spaces at the ends of lines, which compsize prints."""
    return "".join(f"{line.rstrip()}\n" for line in table.splitlines())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    folder = tmp_path_factory.mktemp("compression")
    with support.filesystem(folder, devices=2, data="raid1", metadata="raid1") as fs:
        share_space(fs.mountpoint)
        (fs.mountpoint / "home" / "empty").touch()
        (fs.mountpoint / "home" / "symlink").symlink_to("large")
        sizes = (1, 999, 1000, 1023, 1024, 1500, 9 << 10, 1000 << 10, 10 << 20, 11 << 20)
        for size in sizes:
            (fs.mountpoint / f"of {size}").write_bytes(os.urandom(size))
        odd = os.fsencode(fs.mountpoint) + b"/" + ODD
        os.mkdir(odd)
        fs.sync()
        yield fs


@pytest.mark.parametrize("option", [[], ["-b"]])
def test_as_compsize_prints(
    capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem, option: list[str]
) -> None:
    chosen = sorted(path for path in made.mountpoint.iterdir() if os.fsencode(path.name) != ODD)
    assert len(chosen) > 15
    whole = without_padding(compsize.printed(*option, made.mountpoint))
    assert run(capsys, made.mountpoint, *option) == (0, whole, "")
    for path in chosen:
        expected = without_padding(compsize.printed(*option, path))
        assert run(capsys, made.mountpoint, path, *option) == (0, expected, "")
    expected = without_padding(compsize.printed(*option, *chosen))
    status, out, _ = run(capsys, made.mountpoint, *chosen, *option)
    assert (status, out) == (0, expected)
    assert max(map(len, out.splitlines())) <= 80


def test_paths(
    capsys: pytest.CaptureFixture[str],
    made: support.LoopFilesystem,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the top level, or on the mounted filesystem: from there, and through symbolic links."""
    expected = without_padding(compsize.printed(made.mountpoint / "home" / "nested"))
    monkeypatch.chdir(made.mountpoint / "home" / "nested")
    for path in ("/home/nested", "home/nested", ".", "../../home/nested/"):
        assert run(capsys, made.mountpoint, path)[:2] == (0, expected)
    # TARGET may be any folder on it.
    assert run(capsys, made.mountpoint / "home" / "nested")[:2] == (0, expected)
    assert run(capsys, made.mountpoint / "snapshot1", "home/nested")[:2] == (0, expected)
    out = run(capsys, made.mountpoint, "../symlink")[1]
    assert out == "Processed 0 files, 0 regular extents (0 refs), 0 inline.\n"
    out = run(capsys, made.mountpoint, "../empty")[1]
    assert out == "Processed 1 file, 0 regular extents (0 refs), 0 inline.\n"


def test_json(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    odd = os.fsdecode(os.fsencode(made.mountpoint) + b"/" + ODD)
    path = made.mountpoint / "home" / "compressed"
    status, out, _ = run(capsys, "--json", made.mountpoint, path, odd)
    found = json.loads(out)
    assert status == 0
    assert found["is_complete"]
    assert found["paths"] == ["home/compressed", {"hex": ODD.hex()}]
    table = compsize.table(path)
    assert [found[name] for name in ("files", "extents", "references", "inline")] == [*table[:4]]
    rows = {"TOTAL": found["total"], **found["types"]}
    columns = ("on_disk", "uncompressed", "referenced")
    assert {
        name: tuple(row[column] for column in columns) for name, row in rows.items()
    } == table.rows
    assert found["types"]["zlib"]["inline"]["uncompressed"] == 1800
    assert found["preallocated"]["on_disk"] == 0
    status, out, _ = run(capsys, made.mountpoint, "--json")
    assert json.loads(out)["paths"] == [""]


def test_unmounted_degraded_and_dumped(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with support.filesystem(tmp_path / "made", devices=2, metadata="raid1", data="raid1") as fs:
        share_space(fs.mountpoint, files=50)
        expected = without_padding(compsize.printed(fs.mountpoint / "home"))
        fs.unmount()
        assert run(capsys, fs.images[0], "home") == (0, expected, "")
        dump = fs.dump(tmp_path / "dump")
        assert run(capsys, dump, "home")[:2] == (0, expected)
    fs.images[1].unlink()
    status, out, err = run(capsys, fs.images[0], "home")
    assert (status, out) == (0, expected)
    assert err.startswith("Warning: ")
    assert "missing" in err


def test_fresh(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    new = made.mountpoint / "new"
    new.write_bytes(b"x" * 10_000)
    status, out, err = run(capsys, made.mountpoint, new)
    assert (status, out) == (1, "")
    assert "--fresh" in programs.assert_one_line(err)
    status, out, _ = run(capsys, "--fresh", made.mountpoint, new)
    assert out.startswith("Processed 1 file, 1 regular extents (1 refs), 0 inline.\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nothing"], "nothing: no such path"),
        (["home", "home/nothing\n"], r"home/nothing\\n: no such path"),
        (["/proc/version"], "/proc/version: no such path"),
        (["--source", "mounted"], "--source devices"),
        (["--json", "--bytes"], "not allowed with argument"),
    ],
)
def test_complaints(
    capsys: pytest.CaptureFixture[str],
    made: support.LoopFilesystem,
    words: list[str],
    complaint: str,
) -> None:
    status, out, err = run(capsys, made.mountpoint, *words)
    assert (status, out) == (1, "")
    assert re.search(complaint, programs.assert_one_line(err))


def test_damaged(
    capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem, tmp_path: Path
) -> None:
    for image in made.copy_images(tmp_path):
        wipe_root(image, 256)
    status, out, err = run(capsys, image, "--json")
    assert status == 1
    assert not json.loads(out)["is_complete"]
    assert "what is referenced may be more" in err
