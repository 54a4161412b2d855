"""The command btrfs-atlas duplicates: what it prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs.ondisk.constants import CSUM_TREE_OBJECTID
from btrfs_atlas import cli
from tests import support
from tests.library.test_duplicates import KIB, MIB, content, write
from tests.library.test_unmounted import wipe_root
from tests.support import programs
from tests.support.programs import SAMPLE

ODD = b"odd\x1b[31m\xff"


def run(capsysbinary: pytest.CaptureFixture[bytes], *words: str | Path) -> tuple[Any, bytes, str]:
    """Run the command; return its exit status, and what is on both outputs."""
    status = programs.run_here(cli.main, "duplicates", *words)
    printed = capsysbinary.readouterr()
    return status, printed.out, printed.err.decode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """A filesystem with copies of two files, one of them in three places."""
    with support.filesystem(tmp_path_factory.mktemp("duplicates"), size="1G") as fs:
        top = fs.mountpoint
        large, small = content(2 * MIB), content(256 * KIB)
        write(top / "large", large)
        support.run("btrfs", "subvolume", "create", top / "sub")
        (top / "sub" / "inner").mkdir()
        write(top / "sub" / "inner" / "copy", large)
        write(top / "sub" / "inner" / "again", large)
        write(top / "small", small)
        write(Path(str(top) + "/" + ODD.decode(errors="surrogateescape")), small)
        fs.sync()
        yield fs


def test_table(capsysbinary: pytest.CaptureFixture[bytes], made: support.LoopFilesystem) -> None:
    status, out, err = run(capsysbinary, made.mountpoint)
    assert (status, err) == (0, "")
    lines = out.decode().splitlines()
    assert "".join(lines[0].split()) == "".join(f"Duplicates in {made.mountpoint}".split())[:80]
    start = next(number for number, line in enumerate(lines) if line.split()[:1] == ["2.00MiB"])
    assert [line.split() for line in lines[start : start + 5]] == [
        ["2.00MiB", "3", "4.00MiB", "4.00MiB", "large"],
        ["sub/inner/copy"],
        ["sub/inner/again"],
        ["256.00KiB", "2", "256.00KiB", "256.00KiB", "small"],
        [r"odd\x1b[31m\xff"],
    ]
    assert lines[-4:] == [
        "Stored more than once: 4.25MiB of 6.50MiB compared.",
        "    4.25MiB in extents that deduplication frees",
        "    0.00B in parts of extents that stay",
        "This is an estimate: crc32c has only 4 bytes for a sector.",
    ]
    assert all(len(line) <= 80 for line in lines)


def test_limits(capsysbinary: pytest.CaptureFixture[bytes], made: support.LoopFilesystem) -> None:
    _, out, _ = run(capsysbinary, "--limit", "1", made.mountpoint)
    assert b"small" not in out
    assert b"\n1 more group not shown.\n" in out
    _, out, _ = run(capsysbinary, "--min", "1MiB", made.mountpoint)
    assert b"small" not in out
    _, out, _ = run(capsysbinary, "--limit", "0", made.mountpoint)
    assert b"Duplicates in" not in out


def test_json(capsysbinary: pytest.CaptureFixture[bytes], made: support.LoopFilesystem) -> None:
    status, out, err = run(capsysbinary, "--json", made.mountpoint)
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert answer["total"] == answer["whole_extents"] == 4 * MIB + 256 * KIB
    assert answer["compared"] == 6 * MIB + 512 * KIB
    assert answer["is_estimate"]
    first, second = answer["groups"]
    assert (first["length"], first["copies"], first["gain"]) == (2 * MIB, 3, 4 * MIB)
    assert {place["path"] for place in first["places"]} == {
        "large",
        "sub/inner/copy",
        "sub/inner/again",
    }
    assert {"hex": ODD.hex()} in [place["path"] for place in second["places"]]


def test_equal_files_below_the_target(
    capsysbinary: pytest.CaptureFixture[bytes], made: support.LoopFilesystem
) -> None:
    top = bytes(made.mountpoint)
    status, out, err = run(capsysbinary, "--fdupes", made.mountpoint)
    assert (status, err) == (0, "")
    copies = [b"large", b"sub/inner/again", b"sub/inner/copy"]
    names = [*copies, b"", ODD, b"small", b"", b""]
    assert out.split(b"\n") == [top + b"/" + name if name else name for name in names]
    assert all(Path(line.decode(errors="surrogateescape")).exists() for line in out.split(b"\n"))
    status, out, err = run(capsysbinary, "--fdupes", made.mountpoint / "sub" / "inner")
    assert status == 0
    assert out == b"%s/sub/inner/again\n%s/sub/inner/copy\n\n" % (top, top)
    assert err.startswith("Note: left out 3 files outside of ")


def test_equal_files_of_what_is_not_mounted(
    capsysbinary: pytest.CaptureFixture[bytes], made: support.LoopFilesystem
) -> None:
    made.sync()
    status, out, _ = run(capsysbinary, "--fdupes", "--source", "unmounted", made.images[0])
    assert status == 0
    assert out == b"large\nsub/inner/again\nsub/inner/copy\n\n%s\nsmall\n\n" % ODD


def test_the_sample(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    status, out, err = run(capsysbinary, SAMPLE)
    assert (status, err) == (0, "")
    assert b"Not compared: 9.04GiB without checksums, 4.00KiB in runs below 16 sectors.\n" in out


def test_damage(capsysbinary: pytest.CaptureFixture[bytes], image: Path) -> None:
    wipe_root(image, CSUM_TREE_OBJECTID)
    status, out, err = run(capsysbinary, image)
    assert status == 1
    assert out.splitlines()[-1] == (
        b"Some checksums or extents could not be read, so all numbers may be too low."
    )
    assert err.startswith("Warning: ")
    status, out, _ = run(capsysbinary, "--json", image)
    assert status == 1
    assert json.loads(out)["is_complete"] is False


@pytest.mark.parametrize(
    "words", [["/dev/null"], ["--min", "many", SAMPLE], ["--limit", "-1", "x"]]
)
def test_refused(capsysbinary: pytest.CaptureFixture[bytes], words: list[str | Path]) -> None:
    status, out, err = run(capsysbinary, *words)
    assert (status, out) == (1, b"")
    programs.assert_one_line(err)
