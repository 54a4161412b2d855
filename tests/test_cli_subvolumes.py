"""The command btrfs-atlas subvolumes: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem
from btrfs.ownership import scan
from btrfs_atlas import cli
from tests import support
from tests.lab.sharing import share_space
from tests.library.test_unmounted import wipe_root
from tests.support import programs

ODD = b"odd\x1b[31m\xff"


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[Any, str, str]:
    """Run the command; return its exit status, and what is on both outputs."""
    status = programs.run_here(cli.main, "subvolumes", *words)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(tmp_path_factory.mktemp("subvolumes"), size="1G") as fs:
        share_space(fs.mountpoint)
        odd = os.fsencode(fs.mountpoint) + b"/" + ODD
        support.run("btrfs", "subvolume", "create", os.fsdecode(odd))
        fs.sync()
        yield fs


def test_table(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    status, out, err = run(capsys, made.mountpoint)
    assert (status, err) == (0, "")
    assert "(top level)" in out
    assert r"odd\x1b[31m\xff" in out
    assert "only in read-only snapshots: " in out
    with FileSystem(made.mountpoint, source="devices") as fs:
        by_size = sorted(scan(fs).subvolumes(), key=lambda one: -one.exclusive.total)
    rows = [line.split() for line in out.splitlines() if line.split()[:1] and "iB " in line]
    assert [row[0] for row in rows if row[0].isdecimal()] == [str(one.id) for one in by_size]
    assert max(map(len, out.splitlines())) <= 80


def test_json(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    status, out, _ = run(capsys, made.mountpoint, "--json", "--if-deleted", "snapshot*,home/nested")
    assert status == 0
    found = json.loads(out)
    with FileSystem(made.mountpoint, source="devices") as fs:
        owned = scan(fs)
    subvolumes = owned.subvolumes()
    assert [one["id"] for one in found["subvolumes"]] == [one.id for one in subvolumes]
    for plain, one in zip(found["subvolumes"], subvolumes, strict=True):
        assert plain["referenced"] == one.referenced.total
        assert plain["exclusive"] == plain["data_exclusive"] + plain["metadata_exclusive"]
        assert plain["exclusive"] == one.exclusive.total
    assert {"hex": ODD.hex()} in [one["path"] for one in found["subvolumes"]]
    ids = {one.path: one.id for one in subvolumes}
    names = [b"snapshot0", b"snapshot1", b"snapshot2", b"snapshot3"]
    expected = sorted(ids[name] for name in [*names, b"snapshot of a snapshot", b"home/nested"])
    freed = owned.freed_by(expected)
    assert found["if_deleted"] == {
        "ids": expected,
        "frees": freed.total,
        "data": freed.data,
        "metadata": freed.metadata,
    }
    assert found["unexplained"] == 0
    assert found["is_complete"]


def test_if_deleted(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    on_mount = made.mountpoint / "snapshot2"
    status, out, _ = run(capsys, made.mountpoint, "--if-deleted", f"/snapshot1,{on_mount}")
    assert status == 0
    deleted, other, frees = out.splitlines()
    assert deleted.endswith("snapshot1")
    assert other.endswith("snapshot2")
    assert frees.startswith("frees ")


def test_to_free(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    status, out, _ = run(capsys, made.mountpoint, "--to-free", "1MiB")
    assert status == 0
    assert out.splitlines()[0].endswith("snapshot0")
    for order in ("oldest", "fewest"):
        status, out, _ = run(capsys, made.mountpoint, "--to-free", "1TiB", "--order", order)
        assert status == 0
        assert len([line for line in out.splitlines() if line.startswith("delete ")]) == 4
        assert "that is less than 1.00TiB" in out
    status, out, _ = run(capsys, made.mountpoint, "--to-free", "1kiB", "--json")
    assert json.loads(out)["to_free"]["is_enough"]


def test_fresh(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    before = json.loads(run(capsys, made.mountpoint, "--json")[1])["generation"]
    (made.mountpoint / "new").write_bytes(b"x" * 10_000)
    after = json.loads(run(capsys, made.mountpoint, "--json", "--fresh")[1])["generation"]
    assert after > before


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--if-deleted", "4711"], "no subvolume of .* is '4711'"),
        (["--if-deleted", "snap*,nothing"], "no subvolume of .* is 'nothing'"),
        (["--to-free", "much"], "--to-free: 'much' is no size"),
        (["--to-free", "1G", "--if-deleted", "5"], "not allowed with argument"),
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
    programs.assert_one_line(err)
    assert re.search(complaint, err)


def test_damaged(
    capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem, tmp_path: Path
) -> None:
    (image,) = made.copy_images(tmp_path)
    wipe_root(image, 256)
    status, out, err = run(capsys, image)
    assert status == 1
    assert "(top level)" in out
    (row,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["256"])
    assert row[4] == "i"
    assert "i incomplete" in out
    assert "what is referenced may be more" in err
