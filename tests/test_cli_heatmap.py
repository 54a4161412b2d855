"""The program btrfs-heatmap: what it draws, and what it says when it cannot."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import btrfs
import heatmap
from btrfs_atlas import cli
from heatmap import curves, grid, picture
from tests import support
from tests.lab.loopfs import is_root
from tests.support import programs
from tests.support.programs import SAMPLE

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "heatmap")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder that is empty, to see what files are written."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def assert_fails(capsys: pytest.CaptureFixture[str], folder: Path, *words: str | Path) -> str:
    """Run the program, which must fail as it should; return what it says."""
    before = sorted(folder.iterdir())
    code = draw(*words)
    told = capsys.readouterr()
    assert code == 1
    assert sorted(folder.iterdir()) == before, "no file is written"
    return programs.assert_one_line(told.err)


def draw(*words: str | Path) -> int | str | None:
    """Run the program in this process; return its exit code."""
    return programs.run_here(cli.heatmap, *words)


def image_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_sample(in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(SAMPLE) == 0
    scope, grid_line, file_line = capsys.readouterr().out.splitlines()
    assert scope == "scope device 1"
    assert grid_line.startswith("grid order ")
    (written,) = in_an_empty_folder.iterdir()
    assert file_line == f"pngfile {written.name}"
    assert re.fullmatch(r"fsid_[0-9a-f-]{36}_at_\d+\.png", written.name)
    assert image_of(written).shape == (1024, 1024, 3)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--sort", "virtual"], r"fsid_[0-9a-f-]{36}_chunks_at_\d+\.png"),
        (["--curve", "snake"], r"fsid_[0-9a-f-]{36}_snake_at_\d+\.png"),
        (
            ["--curve", "linear", "--sort", "virtual"],
            r"fsid_[0-9a-f-]{36}_linear_chunks_at_\d+\.png",
        ),
    ],
)
def test_file_names(in_an_empty_folder: Path, words: list[str], name: str) -> None:
    target = in_an_empty_folder / "folder"
    target.mkdir()
    assert draw(*words, "-q", "-o", target, SAMPLE) == 0
    assert [bool(re.fullmatch(name, path.name)) for path in target.iterdir()] == [True]


def test_block_group(in_an_empty_folder: Path) -> None:
    with btrfs.FileSystem(SAMPLE) as fs:
        group = next(iter(fs.block_groups()))
        expected = heatmap.walk_extents(fs, [group], verbose=-1, size=8).pixels
    assert draw("--blockgroup", str(group.vaddr), "--size", "8", SAMPLE) == 0
    (written,) = in_an_empty_folder.iterdir()
    assert re.fullmatch(rf"fsid_[0-9a-f-]+_blockgroup_{group.vaddr}_at_\d+\.png", written.name)
    pixels = image_of(written)
    assert np.array_equal(pixels[:: 256 // len(expected), :: 256 // len(expected)], expected)


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert draw("-q", "-o", "x.png", SAMPLE) == 0
    told = capsys.readouterr()
    assert told.out == told.err == ""


@pytest.mark.parametrize("suffix", picture.FORMATS)
def test_output_by_suffix(suffix: str, in_an_empty_folder: Path) -> None:
    assert draw("-o", f"x{suffix}", "--size", "6", "--legend", SAMPLE) == 0
    with Image.open(in_an_empty_folder / f"x{suffix}") as image:
        assert image.format == picture.FORMATS[suffix]


def test_standard_output_has_the_image_and_nothing_else(tmp_path: Path) -> None:
    done = subprocess.run([*PROGRAM, "-vvv", "-o", "-", SAMPLE], capture_output=True, check=True)
    assert draw("-q", "-o", tmp_path / "x.png", SAMPLE) == 0
    (tmp_path / "stdout.png").write_bytes(done.stdout)
    assert np.array_equal(image_of(tmp_path / "stdout.png"), image_of(tmp_path / "x.png"))
    assert done.stderr == b""


def test_legend_is_below_the_picture(in_an_empty_folder: Path) -> None:
    assert draw("-q", "-o", "bare.png", SAMPLE) == 0
    assert draw("-q", "-o", "legend.png", "--legend", SAMPLE) == 0
    bare = image_of(in_an_empty_folder / "bare.png")
    with_legend = image_of(in_an_empty_folder / "legend.png")
    assert len(with_legend) > len(bare)
    assert np.array_equal(with_legend[: len(bare)], bare)


def test_show(
    in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert draw("--show", "--legend", SAMPLE) == 0
    lines = capsys.readouterr().out.splitlines()
    drawn = [line for line in lines if "▀" in line]
    assert {line.count("▀") for line in drawn} <= {32, 40}
    assert len(drawn) in (16, 20)
    assert any("metadata" in line for line in lines)
    assert not list(in_an_empty_folder.iterdir())
    assert draw("--show", "-o", "x.png", SAMPLE) == 0
    assert (in_an_empty_folder / "x.png").is_file()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--order", "0"], "order 0 out of range. Hint: --order takes 1 to 14"),
        (["--order", "40"], "order 40 out of range"),
        (["--order", "-1"], "order -1 out of range"),
        (["--order", "abc"], "invalid int value: 'abc'"),
        (["--size", "15"], "size 15 out of range"),
        (["--order", "9", "--size", "8"], r"size \(8\) cannot be smaller than order \(9\)"),
        (["--curve", "spiral"], "invalid choice: 'spiral'"),
        (["--sort", "random"], "invalid choice: 'random'"),
        (["--blockgroup", "1"], "no block group at vaddr 1"),
        (["--blockgroup", "-1"], "no block group at vaddr -1"),
        (["--blockgroup", str(1 << 70)], "no block group at vaddr"),
        (["--blockgroup", "first"], "not an address: 'first'"),
        (["-o", "x.docx"], "cannot write a picture as '.docx'"),
        (["-o", "missing/x.png"], "No such file or directory"),
        (["-o", "-", "--show"], "standard output"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_bad_options(
    words: list[str],
    complaint: str,
    in_an_empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert re.search(complaint, assert_fails(capsys, in_an_empty_folder, *words, SAMPLE))


def test_an_address_inside_a_block_group(
    in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with btrfs.FileSystem(SAMPLE) as fs:
        vaddr = next(iter(fs.block_groups())).vaddr
    told = assert_fails(capsys, in_an_empty_folder, "--blockgroup", str(vaddr + 4096), SAMPLE)
    assert f"begins at {vaddr}" in told


def test_bad_targets(in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "missing: No such file" in assert_fails(capsys, in_an_empty_folder, "missing")
    assert "TARGET" in assert_fails(capsys, in_an_empty_folder)
    no_btrfs = assert_fails(capsys, in_an_empty_folder, "--source", "mounted", "/proc")
    assert "/proc" in no_btrfs


def test_a_file_that_is_no_btrfs(
    in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (in_an_empty_folder / "zeros").write_bytes(bytes(1 << 20))
    assert "zeros" in assert_fails(capsys, in_an_empty_folder, "--source", "unmounted", "zeros")


def test_a_folder_that_is_no_btrfs(
    in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "btrfs" in assert_fails(capsys, in_an_empty_folder, "/proc")


@pytest.mark.parametrize("damage", ["truncated", "overwritten"])
def test_a_damaged_image(
    damage: str, tmp_path: Path, in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = support.stored_image("block-group-tree.img", tmp_path)
    with image.open("r+b") as file:
        if damage == "truncated":
            file.truncate(5 << 20)
        else:
            # All but the superblocks at 64 KiB and 64 MiB.
            for first, stop in ((1 << 20, 60 << 20), (65 << 20, image.stat().st_size)):
                file.seek(first)
                file.write(b"x" * (stop - first))
    assert_fails(capsys, in_an_empty_folder, image)


def test_a_feature_that_is_not_supported(
    tmp_path: Path, in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = support.stored_image("extent-tree-v2.img", tmp_path)
    assert "extent_tree_v2" in assert_fails(capsys, in_an_empty_folder, image)


def test_a_missing_device(
    tmp_path: Path, in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The picture is the same, and what the devices hold is known from the one that is left."""
    with support.filesystem(
        tmp_path, devices=2, size="300M", data="raid1", metadata="raid1"
    ) as made:
        support.populate(made.mountpoint)
    whole, degraded = tmp_path / "whole.png", tmp_path / "degraded.png"
    assert draw("-q", "-o", whole, *made.images) == 0
    assert capsys.readouterr().err == ""
    made.images[1].unlink()
    assert draw("-q", "-o", degraded, made.images[0]) == 0
    assert capsys.readouterr().err == "Warning: device 2 is missing\n"
    assert degraded.read_bytes() == whole.read_bytes()
    assert list(in_an_empty_folder.iterdir()) == []


def test_an_output_that_cannot_be_written(in_an_empty_folder: Path) -> None:
    support.require_root()
    old = in_an_empty_folder / "old.png"
    old.write_bytes(b"old")
    in_an_empty_folder.chmod(0o555)
    done = subprocess.run(
        [*support.UNPRIVILEGED, *PROGRAM, "-o", old, SAMPLE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Permission denied" in programs.assert_one_line(done.stderr)
    assert old.read_bytes() == b"old"
    assert list(in_an_empty_folder.iterdir()) == [old]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("/dev/full", "No space left"),
        pytest.param(
            *("/proc/o.png", "/proc/o.png"),
            marks=pytest.mark.skipif(
                not is_root(), reason="needs root, who alone may try to write to /proc"
            ),
        ),
        ("", "empty"),
    ],
)
def test_an_output_that_takes_nothing(
    output: str, message: str, in_an_empty_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = assert_fails(capsys, in_an_empty_folder, "-q", "-o", output, SAMPLE)
    assert message in line
    assert "-o" in line


def test_names_that_are_no_text(in_an_empty_folder: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "-o", b"\xff.png", SAMPLE],
        cwd=in_an_empty_folder,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"pngfile \\udcff.png\n")
    assert os.listdir(os.fsencode(in_an_empty_folder)) == [b"\xff.png"]


def test_show_needs_characters(in_an_empty_folder: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "--show", SAMPLE],
        cwd=in_an_empty_folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.returncode == 1
    assert "its encoding is" in programs.assert_one_line(done.stderr)


def test_a_label_does_not_reach_the_terminal_as_it_is(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, label="a\x1b[31mb") as made:
        made.detach()
        done = subprocess.run(
            [*PROGRAM, "--show", "--legend", "-q", made.images[0]],
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"},
        )
    assert done.returncode == 0
    assert "a\N{REPLACEMENT CHARACTER}[31mb: device 1".encode() in done.stdout


def test_an_ordinary_user_on_a_mounted_filesystem(
    mounted: support.LoopFilesystem, in_an_empty_folder: Path
) -> None:
    done = subprocess.run(
        [*support.UNPRIVILEGED, *PROGRAM, mounted.mountpoint],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "root rights" in programs.assert_one_line(done.stderr)
    assert str(mounted.mountpoint) in done.stderr
    assert not list(in_an_empty_folder.iterdir())


def test_several_targets(in_an_empty_folder: Path, tmp_path: Path) -> None:
    with support.filesystem(
        tmp_path, devices=2, size="300M", data="raid1", metadata="raid1"
    ) as made:
        made.unmount()
        assert draw("-q", *made.images) == 0
        assert len(list(in_an_empty_folder.iterdir())) == 1, "members of one filesystem"
        target = in_an_empty_folder / "folder"
        target.mkdir()
        assert (
            programs.run_here(
                cli.heatmap, "-q", "-o", target, made.images[0], SAMPLE, made.images[1]
            )
            == 0
        )
        assert len(list(target.iterdir())) == 2
        assert draw("-q", "-o", "x.png", made.images[0], SAMPLE) == 1
        assert not (in_an_empty_folder / "x.png").exists()


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert draw("--version") == 0
    assert re.fullmatch(r"btrfs-heatmap \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert draw("--help") == 0
    told = capsys.readouterr().out
    assert f"1 to {grid.MAX_ORDER}" in told
    for curve in curves.CURVES:
        assert curve in told
    for suffix in {".jpeg", ".tiff"} ^ picture.FORMATS.keys():
        assert suffix in told


def test_the_alias_is_the_subcommand(in_an_empty_folder: Path) -> None:
    assert cli.main(["heatmap", "-q", "-o", "x.png", str(SAMPLE)]) == 0
    assert cli.heatmap(["-q", "-o", "y.png", str(SAMPLE)]) == 0
    one, other = (in_an_empty_folder / name for name in ("x.png", "y.png"))
    assert one.read_bytes() == other.read_bytes()


def test_a_closed_pipe_is_quiet() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [*PROGRAM, "-vvv", "-o", "x.png", SAMPLE],
        stdout=write_end,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write_end)
    assert done.returncode == 141
    assert done.stderr == b""


def test_interrupted(in_an_empty_folder: Path) -> None:
    # A pipe that nobody reads holds the program up before it writes.
    pipe = in_an_empty_folder / "pipe.png"
    os.mkfifo(pipe)
    with subprocess.Popen(
        [*PROGRAM, "-o", pipe, SAMPLE],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as running:
        assert running.stdout is not None
        while not running.stdout.readline().startswith(b"grid "):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, told = running.communicate()
    assert running.returncode == 130
    assert told == b""
    assert list(in_an_empty_folder.iterdir()) == [pipe]


def test_a_terminal_gets_no_image() -> None:
    code, told = programs.run_in_terminal(*PROGRAM, "-o", "-", str(SAMPLE))
    assert code == 1
    assert "a terminal cannot show" in told


def test_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = (
        "import sys, time; from btrfs_atlas import progress\n"
        "progress._PATIENCE_SECONDS = 0\n"
        "with progress.ProgressBar('drawing') as bar:\n"
        "    for done in range(0, 101, 20):\n"
        "        bar(done, 100)\n"
        "        time.sleep(0.05)\n"
    )
    monkeypatch.setenv("TERM", "xterm")
    code, told = programs.run_in_terminal(sys.executable, "-c", slow)
    assert code == 0
    assert "drawing" in told
    done = subprocess.run([sys.executable, "-c", slow], capture_output=True, check=True)
    assert done.stderr == b"", "nobody watches"
