"""The command btrfs-atlas check: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem
from btrfs.ondisk.constants import (
    CSUM_TREE_OBJECTID,
    FEATURE_INCOMPAT_EXTENT_TREE_V2,
    FS_TREE_OBJECTID,
    SUPER_MIRRORS,
)
from btrfs_atlas import cli
from tests import support
from tests.library import test_checking
from tests.library.test_damage import put
from tests.support import programs
from tests.support.programs import SAMPLE

NAMES = [
    *("superblocks", "trees", "files", "extents", "free space", "checksums", "chunks"),
    *("subvolumes", "log trees", "quotas"),
]


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[Any, str, str]:
    """Run the command; return its exit status, and what is on both outputs."""
    status = programs.run_here(cli.main, "check", *words)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run the command, which can check nothing; return what it says."""
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    return programs.assert_one_line(err)


def damage_names(image: Path, count: int) -> None:
    """Damage names of inodes, in both copies of their leaf."""
    found = test_checking.keys(image, FS_TREE_OBJECTID, "INODE_REF")
    for key in found[3 : 3 + count]:
        test_checking.change_item(image, FS_TREE_OBJECTID, key, test_checking.body("<H", 8, 5000))


def test_clean(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    before = image.stat()
    status, out, err = run(capsys, image)
    assert (status, err) == (0, "")
    first, *lines, verdict, left_out = out.splitlines()
    assert first.startswith(f"{image}: btrfs ")
    assert first.endswith(", generation 14")
    assert [line[:13].strip() for line in lines] == NAMES
    assert all(line[13:].startswith("ok  ") for line in lines)
    assert verdict == "No damage in what was checked."
    assert left_out == ("Not checked: second copies of tree blocks (--all-copies); data (--data).")
    status, out, err = run(capsys, image, "--data", "--all-copies")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == "Clean: everything was checked, and nothing is wrong."
    assert "\ndata         ok               2.01MiB with checksums\n" in out
    after = image.stat()
    assert (after.st_mtime_ns, after.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_what_is_in_each_tree(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    status, out, _ = run(capsys, image, "-v")
    assert status == 0
    assert any(line.split() == ["csum", "tree", "1", "24"] for line in out.splitlines())


def test_dump(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, SAMPLE, "--data", "--all-copies")
    assert (status, err) == (0, "")
    assert "\ndata         not checked      a dump has no data\n" in out


def test_damaged(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    damage_names(image, 8)
    status, out, _ = run(capsys, image)
    assert status == 1
    lines = out.splitlines()
    begin = lines.index("    items that cannot be what they should be: 8")
    assert lines[begin - 1].startswith("trees        8 findings       ")
    assert all(f" in tree {FS_TREE_OBJECTID}: " in line for line in lines[begin + 1 : begin + 6])
    assert lines[begin + 6] == "        and 3 more; --verbose shows more"
    assert lines[begin + 7].startswith("files        16 findings      ")
    assert lines[-3] == "Damaged: 24 findings. All metadata can be read."
    assert lines[-2].startswith("Not checked: second copies of tree blocks (--all-copies); ")
    assert lines[-1].startswith("Hint: make a backup")
    status, out, _ = run(capsys, image, "--verbose")
    assert status == 1
    assert out.count(f" in tree {FS_TREE_OBJECTID}: ") == 8
    assert "more" not in out


def test_damage_that_another_copy_makes_good(
    capsys: pytest.CaptureFixture[str], image: Path
) -> None:
    place = test_checking.leaf_of(image, CSUM_TREE_OBJECTID, 0)
    test_checking.scribble(image, place.paddrs[0] + 200)
    status, out, _ = run(capsys, image)
    assert status == 1
    verdict, _, hint = out.splitlines()[-3:]
    assert [verdict, hint] == [
        "Damaged: 1 finding, 1 of them made good by another copy. All metadata can be read.",
        "Hint: btrfs scrub, once it is mounted, repairs what another copy makes good",
    ]


def test_json(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    status, out, err = run(capsys, image, "--json", "--data")
    assert (status, err) == (0, "")
    answer = json.loads(out)
    assert (answer["verdict"], answer["findings"], answer["notes"]) == (
        "no damage found",
        0,
        [],
    )
    assert answer["not_checked"] == ["second copies of tree blocks (--all-copies)"]
    assert [checked["name"] for checked in answer["checks"]] == [*NAMES, "data"]
    assert answer["checks"][1]["counts"]["items"] == 2430
    damage_names(image, 2)
    status, out, _ = run(capsys, image, "--json")
    answer = json.loads(out)
    assert (status, answer["verdict"], answer["findings"]) == (1, "damaged", 6)
    assert answer["checks"][1]["totals"] == {"item-damaged": 2}
    finding = answer["checks"][1]["findings"][0]
    assert (finding["kind"], finding["tree"], finding["recovered"]) == (
        "item-damaged",
        FS_TREE_OBJECTID,
        False,
    )


def test_unclean_unmount_is_no_damage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with support.filesystem(tmp_path / "a", size="256M") as made:
        with (made.mountpoint / "file").open("wb") as file:
            file.write(b"synced")
            file.flush()
            os.fsync(file.fileno())
        (image,) = made.copy_images(tmp_path)
    status, out, _ = run(capsys, image)
    assert status == 0
    assert "\nNote: not cleanly unmounted: " in out


def test_mounted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What changes is not checked, unless its devices are to be read all the same."""
    with support.filesystem(tmp_path, devices=2, size="256M", metadata="raid1") as made:
        (made.mountpoint / "file").write_bytes(bytes(1 << 20))
        made.sync()
        for target in (made.mountpoint, Path(made.devices[0])):
            err = refused(capsys, target)
            assert "is mounted, and what is being written to cannot be checked" in err
            assert "btrfs scrub" in err
        status, out, _ = run(capsys, "--source", "unmounted", *made.devices)
        assert (status, out.splitlines()[-2][:9]) == (0, "No damage")
        (made.mountpoint / "another").write_bytes(bytes(1 << 20))
        made.remount("ro")
        for target in (made.mountpoint, Path(made.devices[1])):
            status, out, err = run(capsys, target, "--data")
            assert (status, err) == (0, "")
            assert "\nsuperblocks  ok               2 devices, 4 valid copies\n" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: TARGET"),
        (("/nonexistent",), "/nonexistent: No such file or directory"),
        (("/proc",), "is not on a btrfs filesystem"),
        ((SAMPLE, "--super", "7"), "argument --super: invalid choice"),
        ((SAMPLE, "--unheard-of"), "unrecognized arguments: --unheard-of"),
        ((SAMPLE, SAMPLE), "is a dump made by btrfs-image"),
    ],
)
def test_nothing_that_can_be_checked(
    capsys: pytest.CaptureFixture[str], words: tuple[str | Path, ...], message: str
) -> None:
    assert message in refused(capsys, *words)


def test_no_superblock_is_left(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    for paddr in SUPER_MIRRORS[:2]:
        test_checking.scribble(image, paddr + 300)
    assert "superblock, checksum" in refused(capsys, image)


def test_unknown_features(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    with FileSystem(image) as fs:
        flags = fs.features().incompat_flags | FEATURE_INCOMPAT_EXTENT_TREE_V2
    test_checking.change_superblocks(image, put("<Q", 0xBC, flags))
    assert "extent_tree_v2" in refused(capsys, image)
    status, out, _ = run(capsys, image, "--unknown-features")
    assert status == 0
    assert "\nNote: features that are not known here, extent_tree_v2, may make" in out


def statuses(out: str) -> dict[str, str]:
    """Return the status of each check, in the words of the output."""
    lines = [line for line in out.splitlines() if line[:13].strip() in [*NAMES, "copies", "data"]]
    return {line[:13].strip(): line[13:30].strip() for line in lines}


def test_missing_device(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is on it was not checked, and nobody says so."""
    with support.filesystem(
        tmp_path, devices=2, size="256M", data="raid1", metadata="raid1"
    ) as made:
        (made.mountpoint / "file").write_bytes(bytes(100_000))
    status, out, _ = run(capsys, "--all-copies", *made.images)
    assert (status, statuses(out)["copies"]) == (0, "ok")
    whole = int(re.findall(r"copies .* (\d+) places", out)[0])
    made.images[1].unlink()
    status, out, err = run(capsys, "--all-copies", "--data", made.images[0])
    assert (status, err) == (1, "")
    assert statuses(out) == {
        "superblocks": "1 finding",
        "trees": "ok",
        "copies": "partly checked",
        "files": "ok",
        "extents": "ok",
        "free space": "ok",
        "checksums": "ok",
        "chunks": "ok",
        "subvolumes": "ok",
        "log trees": "ok",
        "quotas": "ok",
        "data": "ok",
    }
    assert f" {whole // 2} places of " in out
    missing = f"{whole // 2} places on missing devices"
    assert f"not checked: {missing}" in out
    (copies,) = (
        checked
        for checked in json.loads(run(capsys, "--all-copies", "--json", made.images[0])[1])[
            "checks"
        ]
        if checked["name"] == "copies"
    )
    counts = copies["counts"]
    assert (counts["copies"], counts["missing"]) == (whole // 2, whole // 2)
    assert out.splitlines()[-3:] == [
        "Damaged: 1 finding. All metadata can be read.",
        f"Not checked: a part of second copies of tree blocks ({missing}).",
        "Hint: connect the missing device, or mount -o degraded and replace it",
    ]


def test_nothing_left(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    with image.open("r+b") as file:
        file.truncate(1 << 20)
    status, out, _ = run(capsys, "--all-copies", "--data", image)
    assert status == 1
    found = statuses(out)
    assert found.pop("superblocks").endswith(" findings")
    assert found.pop("trees").endswith(" findings")
    assert set(found.values()) == {"not checked"}


def test_earlier_state(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    """It is checked by itself: superblock and chunk tree are later ones."""
    status, out, err = run(capsys, "--backup-root", "0", image)
    assert (status, err) == (0, "")
    assert statuses(out)["chunks"] == "not checked"
    assert "Note: read from backup root 0, of generation " in out


def test_image_that_is_mounted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="256M") as made:
        made.sync()
        for target in (made.images[0], made.devices[0], made.mountpoint):
            assert "is mounted, and what is being written to" in refused(capsys, target)
        status, out, _ = run(capsys, "--source", "unmounted", made.images[0])
        assert status == 0
        assert f"Note: {made.images[0]} is mounted at {made.mountpoint} and may be" in out
        made.remount("ro")
        for target in (made.images[0], made.devices[0], made.mountpoint):
            status, out, _ = run(capsys, target)
            assert status == 0
            assert "may be changing" not in out
