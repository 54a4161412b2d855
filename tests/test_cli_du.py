"""The command btrfs-atlas du: trees, files, exports for ncdu, and how it ends."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem
from btrfs.ownership import scan
from btrfs.ownership.containment import Representation
from btrfs.ownership.directories import Entry
from btrfs_atlas import cli
from tests import support
from tests.lab.populate import PAGE
from tests.lab.sharing import overwrite, share_space
from tests.library.test_unmounted import wipe_root
from tests.support import programs

ODD = b'odd"\\\x1b[31m\xff\n'


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[Any, str, str]:
    """Run the command; return its exit status, and what is on both outputs."""
    status = programs.run_here(cli.main, "du", *words)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image that was copied while files were open: a deleted one, one of a deleted subvolume.

    It has the old cache of free space, whose files the filesystem itself holds.
    """
    folder = tmp_path_factory.mktemp("du")
    with support.filesystem(
        folder, size="1G", features=("^free-space-tree",), mount_options="space_cache=v1"
    ) as fs:
        share_space(fs.mountpoint)
        directory = os.fsencode(fs.mountpoint) + b"/" + ODD
        os.mkdir(directory)
        Path(os.fsdecode(directory + b"/\xfe")).write_bytes(bytes(PAGE))
        os.symlink("nowhere", directory + b"/link")
        gone = fs.mountpoint / "gone"
        support.run("btrfs", "subvolume", "create", gone)
        (gone / "file").write_bytes(os.urandom(30 * PAGE))
        with (fs.mountpoint / "deleted").open("wb") as file, (gone / "file").open("rb"):
            file.write(os.urandom(70 * PAGE))
            file.flush()
            os.unlink(file.name)
            # The kernel does not clean it up as long as a file in it is open.
            support.run("btrfs", "subvolume", "delete", gone)
            fs.sync()
            return fs.copy_images(folder / "copy")[0]


def entries(entry: Entry) -> Iterator[Entry]:
    yield entry
    for child in entry.children():
        yield from entries(child)


def flat(branch: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield branch
    for child in branch["children"]:
        yield from flat(child)


def name_of(path: Any) -> bytes:
    return bytes.fromhex(path["hex"]) if isinstance(path, dict) else path.encode()


# Trees.


def test_json(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    status, out, err = run(capsys, image, "--json", "--depth", "99")
    assert (status, err) == (0, "")
    found = json.loads(out)
    with FileSystem(image) as fs:
        owned = scan(fs)
        assert found["generation"] == owned.generation
        assert found["is_complete"]
        branches = {name_of(branch["path"]): branch for branch in flat(found)}
        expected = {entry.path: entry for entry in entries(owned.entry())}
        assert branches.keys() == expected.keys()
        for path, branch in branches.items():
            for name in ("represented", "exclusive", "referenced", "unreachable"):
                assert branch[name] == getattr(expected[path], name)
        data = sum(group.used for group in fs.block_groups() if group.flags & 1)
    assert found["deleted_but_open"] == 70 * PAGE
    inside = sum(child["represented"] for child in found["children"])
    assert inside + found["deleted_but_open"] == found["represented"]
    assert found["deleted_subvolumes"] == 30 * PAGE
    assert found["internal"] > 0
    beside = found["deleted_subvolumes"] + found["internal"]
    assert found["represented"] + beside == data
    assert found["unexplained"] == 0


def test_text(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    status, out, err = run(capsys, image, "--min", "0", "--limit", "1000")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["represented", "exclusive", "referenced", "path"]
    assert lines[1].endswith("  /")
    assert r'    odd"\\x1b[31m\xff\n/' in out
    assert r"      \xfe" in out
    assert "  280.00KiB                              (deleted, but open)" in out
    assert "of this in files that are deleted, but open: 280.00KiB" in out
    assert "beside it in deleted subvolumes, not cleaned up: 120.00KiB" in out
    assert "beside it in the filesystem's own files: " in out
    assert "smaller" not in out


def test_limit_and_least(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    _, out, _ = run(capsys, image, "--limit", "4")
    assert len([line for line in out.splitlines() if line.count("B  ") == 3]) == 4
    _, out, _ = run(capsys, image, "--min", "250KiB", "--depth", "1")
    assert "(9 smaller)" in out
    _, out, _ = run(capsys, image, "--json", "--min", "250KiB", "--depth", "1")
    found = json.loads(out)
    assert found["left_out"] == 9
    assert all(child["represented"] >= 250 << 10 for child in found["children"])


@pytest.mark.parametrize("sort", ["exclusive", "referenced", "unreachable", "fragments"])
def test_sort(capsys: pytest.CaptureFixture[str], image: Path, sort: str) -> None:
    status, out, _ = run(capsys, image, "--sort", sort, "--depth", "1", "--min", "0")
    assert status == 0
    column = {"exclusive": "exclusive", "referenced": "referenced", "fragments": "breaks"}
    assert column.get(sort, sort) in out.splitlines()[0]
    _, out, _ = run(capsys, image, "--sort", sort, "--depth", "1", "--json")
    name = "breaks" if sort == "fragments" else sort
    values = [child[name] for child in json.loads(out)["children"]]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0


def test_prefer_and_ignore(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    rule = Representation(prefer=("/snapshot1", "/home/*"), ignore=("/writable",))
    words = ("--prefer", "/snapshot1", "--prefer", "/home/*", "--ignore", "/writable")
    _, out, _ = run(capsys, image, "snapshot1", "/home/", *words, "--depth", "0", "--json")
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(out)
    second, _ = decoder.raw_decode(out[end:].lstrip())
    with FileSystem(image) as fs:
        owned = scan(fs)
        for found, path in ((first, "snapshot1"), (second, "home")):
            assert found["represented"] == owned.entry(path, rule).represented
            assert found["represented"] != owned.entry(path).represented


def test_paths(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    status, out, _ = run(capsys, image, "home/compressed", "/ends")
    assert status == 0
    first, second = out.split("\n\n")
    assert first.splitlines()[1].endswith("  home/compressed/")
    assert second.splitlines()[1].endswith("  ends")
    assert "deleted" not in out


# Files.


def test_files(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    for sort in ("represented", "exclusive", "referenced", "unreachable", "fragments"):
        words = ("--files", "--json", "--sort", sort, "--limit", "7")
        status, out, _ = run(capsys, image, *words)
        assert status == 0
        found = json.loads(out)["files"]
        name = "breaks" if sort == "fragments" else sort
        values = [file[name] for file in found]
        assert values == sorted(values, reverse=True)
        assert len(values) == (2 if sort == "unreachable" else 7)
        with FileSystem(image) as fs:
            owned = scan(fs)
            for file in found:
                assert file["path"] is None or file["size"] > 0
                if file["path"] is not None and sort != "fragments":
                    assert owned.entry(name_of(file["path"])).referenced == file["referenced"]


def test_files_as_text(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    _, out, _ = run(capsys, image, "--files", "--limit", "5")
    assert "  280.00KiB    280.00KiB    280.00KiB  (deleted, but open)\n" in out
    _, out, _ = run(capsys, image, "--files", "--sort", "unreachable")
    assert "        MOUNTPOINT/ends \\\n        'MOUNTPOINT/compressed ends' \\\n" in out
    _, out, _ = run(capsys, image, "--files", "--sort", "fragments", "--limit", "1")
    assert out.splitlines()[0].split() == ["breaks", "pieces", "average", "path"]
    _, out, _ = run(capsys, image, "home", "--files", "--sort", "unreachable")
    assert "There are none." in out


def test_copies_give_back_what_is_reclaimable(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with support.filesystem(tmp_path) as fs:
        mount = fs.mountpoint
        for name in ("middle of it", "cut", "hole", "shared", "odd\x1b'"):
            (mount / name).write_bytes(os.urandom(200 * PAGE))
        (mount / "compressed").touch()
        os.setxattr(mount / "compressed", "btrfs.compression", b"zstd")
        (mount / "compressed").write_bytes(b"".join(b"line %d\n" % n for n in range(50_000)))
        fs.sync()
        for name in ("middle of it", "shared", "odd\x1b'"):
            overwrite(mount / name, 5 * PAGE, os.urandom(20 * PAGE))
        overwrite(mount / "compressed", 5 * PAGE, b"x" * 20 * PAGE)
        os.truncate(mount / "cut", 9 * PAGE)
        support.run("fallocate", "--punch-hole", "--length", str(150 * PAGE), mount / "hole")
        support.run("cp", "--reflink=always", mount / "shared", mount / "clone")
        status, out, _ = run(capsys, mount, "--fresh", "--files", "--sort", "unreachable", "--json")
        assert status == 0
        before = json.loads(out)["files"]
        reclaimable = sum(file["reclaimable"] for file in before)
        assert reclaimable > 1 << 20
        _, out, _ = run(capsys, mount, "--files", "--sort", "unreachable")
        assert "in extents that snapshots, reflinks or" in out
        command = "\n".join(line for line in out.splitlines() if line.startswith("    "))
        command = command[command.index("for file") :]
        assert command.count(os.fspath(mount)) == 5
        used = data_used(mount)
        support.run("bash", "-c", command)
        fs.sync()
        # What is compressed may be compressed better in one go.
        assert 0 <= used - data_used(mount) - reclaimable < 2 * PAGE
        _, out, _ = run(capsys, mount, "--files", "--sort", "unreachable", "--json")
        after = json.loads(out)["files"]
        assert [file["path"] for file in after] in (["shared"], ["clone"])


def data_used(root: Path) -> int:
    with FileSystem(root) as fs:
        return sum(space.used_bytes for space in fs.space_info() if space.flags & 1)


# For ncdu.


def size_in(items: list[Any]) -> int:
    """Return the bytes in a directory of an export, links once."""
    seen: dict[tuple[int, int], int] = {}
    total = 0
    left = [(items, 0)]
    while left:
        (info, *inside), device = left.pop()
        device = info.get("dev", device)
        for item in inside:
            if isinstance(item, list):
                left.append((item, device))
            elif item.get("hlnkc"):
                seen[device, item["ino"]] = item.get("dsize", 0)
            else:
                total += item.get("dsize", 0)
    return total + sum(seen.values())


def test_ncdu(capsys: pytest.CaptureFixture[str], image: Path, tmp_path: Path) -> None:
    support.require_programs("ncdu")
    export, again = tmp_path / "export", tmp_path / "again"
    status, out, err = run(capsys, image, "--ncdu", export)
    assert (status, out, err) == (0, "", "")
    support.run("ncdu", "-0", "-f", export, "-o", again)
    major, _, about, root = json.loads(export.read_bytes().decode(errors="surrogateescape"))
    assert (major, about["progname"]) == (1, "btrfs-atlas")
    *_, reread = json.loads(again.read_bytes().decode(errors="surrogateescape"))
    with FileSystem(image) as fs:
        owned = scan(fs)
        elsewhere = owned.directories().places.elsewhere()
        whole = owned.entry().represented + elsewhere.deleted + elsewhere.internal
        assert size_in(root) == size_in(reread) == whole
        names = {os.fsencode(name) for name in names_in(reread)}
        special = {b"(deleted, but open)", b"(deleted subvolumes)", b"(the filesystem itself)"}
        shown = {
            entry.name
            for entry in entries(owned.entry())
            if owned.directories().places.totals(entry.tree).represented
        }
        hidden = {one.path or b"" for one in owned.subvolumes()}
        assert shown | special <= names | {b""}
        assert names - special - {os.fsencode(root[0]["name"])} <= shown | hidden


def names_in(items: list[Any]) -> Iterator[str]:
    for item in items:
        if isinstance(item, list):
            yield from names_in(item)
        else:
            yield item["name"]


def test_ncdu_to_standard_output(image: Path) -> None:
    program = Path(cli.__file__).parents[2] / ".venv/bin/btrfs-atlas"
    status, out, err = programs.run_program(program, "du", image, "home/compressed", "--ncdu", "-")
    assert (status, err) == (0, "")
    assert len(json.loads(out)[3]) > 2


def test_ncdu_is_of_one_directory(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    for paths in (("home", "snapshot1"), ("ends",)):
        status, _, err = run(capsys, image, *paths, "--ncdu", "-")
        assert status == 1
        programs.assert_one_line(err)


# Mounted filesystems.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    with support.filesystem(tmp_path_factory.mktemp("mounted"), size="1G") as fs:
        share_space(fs.mountpoint)
        yield fs


def first_path(out: str) -> str:
    return out.splitlines()[1].split("  ")[-1]


def test_mounted(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    root = made.mountpoint
    for words, path in (
        ((root,), "/"),
        ((made.devices[0],), "/"),
        ((root / "home",), "home/"),
        ((root / "home/compressed",), "home/compressed/"),
        ((root / "ends",), "ends"),
        ((root, "home/nested"), "home/nested/"),
        ((root, root / "home/nested"), "home/nested/"),
        ((root, root / "home/compressed/lzo"), "home/compressed/lzo"),
    ):
        status, out, err = run(capsys, *words)
        assert (status, err) == (0, "")
        assert first_path(out) == path


def test_mounted_subvolume(
    capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem, tmp_path: Path
) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    support.run("mount", "-o", "subvol=home", made.devices[0], folder)
    try:
        _, out, _ = run(capsys, folder)
        assert first_path(out) == "/"
        _, out, _ = run(capsys, folder, folder / "nested")
        assert first_path(out) == "home/nested/"
        _, out, _ = run(capsys, folder, "--files", "--sort", "unreachable")
        assert "MOUNTPOINT/ends" in out
    finally:
        support.run("umount", folder)


def test_what_is_new(capsys: pytest.CaptureFixture[str], made: support.LoopFilesystem) -> None:
    new = made.mountpoint / "new file"
    new.write_bytes(bytes(PAGE))
    status, _, err = run(capsys, made.mountpoint, new)
    assert status == 1
    assert "--fresh" in programs.assert_one_line(err)
    status, out, _ = run(capsys, made.mountpoint, new, "--fresh")
    assert (status, first_path(out)) == (0, "new file")


# What goes wrong.


def test_no_such_path(
    capsys: pytest.CaptureFixture[str], image: Path, made: support.LoopFilesystem
) -> None:
    for target in (image, made.mountpoint):
        for path in ("nothing\x1b", "/proc", "home/nothing", "/usr/bin"):
            status, out, err = run(capsys, target, path)
            assert (status, out) == (1, "")
            assert "no such path" in programs.assert_one_line(err)


def test_damaged(capsys: pytest.CaptureFixture[str], image: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.img"
    support.run("cp", "--sparse=always", image, copy)
    with FileSystem(copy) as fs:
        (home,) = (one for one in scan(fs, names=False).subvolumes() if one.path == b"home")
    wipe_root(copy, home.id)
    status, out, err = run(capsys, copy)
    assert status == 1
    assert "used, with metadata, by nothing that was read" in out
    assert "what is referenced may be more" in err
    status, out, _ = run(capsys, copy, "--json")
    assert (status, json.loads(out)["is_complete"]) == (1, False)
    export = tmp_path / "export"
    assert run(capsys, copy, "--ncdu", export)[0] == 1
    assert b'"read_error":true' in export.read_bytes()


def test_wrong_arguments(capsys: pytest.CaptureFixture[str], image: Path) -> None:
    for words in (("--limit", "-1"), ("--min", "much"), ("--sort", "name"), ("--depth", "")):
        status, _, err = run(capsys, image, *words)
        assert status == 1
        programs.assert_one_line(err)
