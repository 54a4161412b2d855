"""The steps of docs/full-disk.md on a real filesystem: what each promises comes true."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from btrfs import FileSystem
from tests import support
from tests.lab.populate import PAGE
from tests.support import programs

PROGRAM = (sys.executable, "-m", "btrfs_atlas")
MIB = 1 << 20


def atlas(*words: str | Path) -> str:
    """Run a subcommand, and return what it prints."""
    code, told, complained = programs.run_program(*PROGRAM, *words)
    assert (code, complained) == (0, "")
    return told


def as_json(*words: str | Path) -> Any:
    return json.loads(atlas(*words, "--json"))


def used(mount: Path) -> int:
    """Return the bytes of data in use, with everything committed."""
    support.run("btrfs", "filesystem", "sync", mount)
    with FileSystem(mount) as fs:
        return sum(space.used_bytes for space in fs.space_info() if space.flags & 1)


def fill(mount: Path) -> None:
    """Make a home with snapshots and a disk image that changes, and downloads until it is full."""
    choose = random.Random(1)
    home = mount / "home"
    support.run("btrfs", "subvolume", "create", home)
    (home / "film").write_bytes(os.urandom(40 * MIB))
    disk = home / "disk.img"
    disk.write_bytes(os.urandom(100 * MIB))
    for day in range(3):
        support.run("btrfs", "subvolume", "snapshot", "-r", home, mount / f"home-{day}")
        with disk.open("r+b") as file:
            for page in choose.sample(range(100 * MIB // PAGE), 2000):
                os.pwrite(file.fileno(), choose.randbytes(PAGE), page * PAGE)
        (home / "film").unlink(missing_ok=True)
        support.run("btrfs", "filesystem", "sync", mount)
    (home / "downloads").mkdir()
    try:
        for number in range(1000):
            (home / "downloads" / str(number)).write_bytes(os.urandom(20 * MIB))
    except OSError:
        pass
    support.run("btrfs", "filesystem", "sync", mount)


def test_all_steps(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", mount_options="commit=1") as fs:
        mount = fs.mountpoint
        fill(mount)
        assert re.search(r"! (No|Only \S+ of) data can still be written", atlas(mount))

        plan = as_json("subvolumes", "--to-free", "30MiB", mount)["to_free"]
        assert plan["is_enough"]
        before = used(mount)
        paths = {one["id"]: one["path"] for one in as_json("subvolumes", mount)["subvolumes"]}
        for tree in plan["ids"]:
            support.run("btrfs", "subvolume", "delete", mount / paths[tree])
        assert atlas("orphans", mount).endswith("0 orphans left to clean\n")
        assert before - used(mount) == plan["data"] >= 30 * MIB
        left = [one for one in as_json("subvolumes", mount)["subvolumes"] if one["read_only"]]
        assert left

        before = used(mount)
        (home,) = (one for one in as_json("du", mount)["children"] if one["path"] == "home")
        (downloads,) = (one for one in home["children"] if one["path"] == "home/downloads")
        support.run("rm", "-r", mount / "home" / "downloads")
        assert before - used(mount) == downloads["exclusive"] > 100 * MIB

        (disk,) = as_json("du", "--files", "--sort", "unreachable", mount)["files"]
        assert disk["reclaimable"] < disk["unreachable"]
        for one in left:
            support.run("btrfs", "subvolume", "delete", mount / one["path"])
        atlas("orphans", mount)
        before = used(mount)
        (disk,) = as_json("du", "--files", "--sort", "unreachable", mount)["files"]
        assert disk["reclaimable"] == disk["unreachable"] > MIB
        told = atlas("du", "--files", "--sort", "unreachable", mount)
        subprocess.run(["bash", "-c", told[told.index("for file in") :]], check=True)
        assert before - used(mount) == disk["reclaimable"]
        assert "There are none." in atlas("du", "--files", "--sort", "unreachable", mount)
        assert "Nothing stands in the way of writing" in atlas(mount)
