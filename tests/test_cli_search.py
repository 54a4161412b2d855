"""The program btrfs-search-metadata: what it shows, beside the original, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import btrfs
from btrfs_atlas import cli
from tests import support
from tests.support import programs
from tests.support.programs import SAMPLE

PROGRAM = (sys.executable, "-m", "btrfs_atlas", "search")

FORMATS = ("keys", "short", "long")


@pytest.fixture(scope="module")
def populated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    folder = tmp_path_factory.mktemp("search")
    with support.filesystem(folder, devices=2, size="1G", data="single", metadata="raid1") as fs:
        support.populate(fs.mountpoint)
        fs.sync()
        # The original fails at names beyond the first item: see test_where_the_original_fails.
        for link in (fs.mountpoint / "names").glob("link0*"):
            link.unlink()
        fs.sync()
        yield fs


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the program in this process; returns what it prints."""

    def run(*words: str | Path) -> str:
        assert cli.search([str(word) for word in words]) == 0
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return run


def refused(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """Run the program, which must fail as it should; return what it says."""
    assert programs.run_here(cli.search, *words) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return programs.assert_one_line(printed.err)


def searches(fs: support.LoopFilesystem) -> list[list[str]]:
    """Return the words of all kinds of searches."""
    top = os.fspath(fs.mountpoint)
    with btrfs.FileSystem(top) as opened:
        groups = [group.vaddr for group in opened.block_groups()]
    subvolume = os.path.join(top, "volume")
    return [
        *([kind, top] for kind in ("chunks", "block_groups", "dev_extents", "devices", "orphans")),
        *(["file", os.path.join(top, name)] for name in ("overwritten", "names", "volume/nested")),
        ["inode", "-t", "5", "--inum", "256", top],
        ["inode", "--tree", "fs", "--inum", "257", top],
        *(["dump", "-t", str(tree), top] for tree in (2, 3, 5, 10)),
        # Without the statistics, which the original does not decode.
        ["dump", "-t", "dev", "--min-key", "(1 0 0)", top],
        ["dump", "-t", "0", subvolume],
        ["dump", "-t", "EXTENT_TREE", "--min-key", f"({groups[1]} 0 0)", top],
        ["dump", "-t", "5", "--max-key", "257 DIR_ITEM -1", top],
        *(["block_group_contents", "--vaddr", str(vaddr), top] for vaddr in groups),
        *(["block_group_free_space", "--vaddr", str(vaddr), top] for vaddr in groups),
        ["block_group_free_space", top],
    ]


def as_original(printed: str) -> str:
    """Undo both differences.

    The original shows attributes as the list of names that they are, and a name with a line break
    in two lines.
    """
    printed = re.sub(r"XAttrItemList(?= \(\d+ XATTR_ITEM)", "DirItemList", printed)
    return printed.replace(r"utf-8 'two\nlines'", "utf-8 'two\nlines'")


def test_as_the_original(populated: support.LoopFilesystem, told: Callable[..., str]) -> None:
    seen: set[str] = set()
    for words in searches(populated):
        # All formats once for each kind of search, then one is enough.
        for form in FORMATS if words[0] not in seen else ("short",):
            if form == "keys" and words[0] == "block_group_free_space":
                continue  # The original prints nothing; see below.
            original = support.oracle.run_program("btrfs-search-metadata", "--format", form, *words)
            assert original.returncode == 0, (words, original.stderr)
            ours = as_original(told("--format", form, *words))
            assert ours == original.stdout, (form, words)
        seen.add(words[0])


def test_file_that_is_a_filesystem_itself(
    populated: support.LoopFilesystem,
    told: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An image, and the node of a device: it is about them, not about what they hold."""
    folder = populated.mountpoint / "images"
    folder.mkdir()
    shutil.copy(SAMPLE, folder / "image")
    os.mknod(folder / "node", stat.S_IFBLK | 0o600, os.stat(populated.devices[0]).st_rdev)
    (folder / "link").symlink_to("image")
    for name, inode in (("image", "image"), ("node", "node"), ("link", "image")):
        inum = os.stat(folder / inode).st_ino
        lines = told("file", "--format", "keys", folder / name).splitlines()
        assert lines[0] == f"({inum} INODE_ITEM 0)"
    assert "--in TARGET" in refused(capsys, "--source", "unmounted", "file", folder / "image")
    assert "is not on a btrfs" in refused(capsys, "file", SAMPLE)
    shutil.rmtree(folder)


def test_names_that_would_end_a_line(
    populated: support.LoopFilesystem, told: Callable[..., str]
) -> None:
    name = "two\nlines \x1b[31m\u2028\x85 ü\u200d"
    path = populated.mountpoint / name
    path.touch()
    os.setxattr(path, "user.text", b"three\r\nfour")
    populated.sync()
    inum = os.stat(path).st_ino
    for form in ("short", "long"):
        lines = told("--format", form, "file", path).split("\n")
        (line,) = (line for line in lines if "lines" in line)
        assert line.endswith("'two\\nlines \\x1b[31m\\u2028\\x85 ü\u200d'")
        (line,) = (line for line in lines if "three" in line)
        assert "three\\r\\nfour" in line
    assert told("--format", "json", "file", path).count("\n") == told(
        "--format", "keys", "inode", "-t", "5", "--inum", str(inum), populated.mountpoint
    ).count("\n")
    path.unlink()


def test_path_that_goes_up_and_down(told: Callable[..., str]) -> None:
    direct = told("file", "--in", SAMPLE, "home")
    assert told("file", "--in", SAMPLE, "/./home/../home/.") == direct
    assert told("file", "--in", SAMPLE, "home/..") == told("file", "--in", SAMPLE, "/")


def test_keys_of_free_space(populated: support.LoopFilesystem, told: Callable[..., str]) -> None:
    """What the original leaves out: the keys that the free space would be stored under."""
    short = told("block_group_free_space", populated.mountpoint).splitlines()
    keys = told("--format", "keys", "block_group_free_space", populated.mountpoint).splitlines()
    pairs = [(words[4], words[6]) for words in map(str.split, short)]
    assert keys == [f"({vaddr} FREE_SPACE_EXTENT {length})" for vaddr, length in pairs]


def test_where_the_original_fails(
    populated: support.LoopFilesystem, told: Callable[..., str]
) -> None:
    """A file of many hard links."""
    folder = populated.mountpoint / "links"
    folder.mkdir()
    (folder / "file").touch()
    for number in range(300):
        os.link(folder / "file", folder / f"{number:0200}")
    original = support.oracle.run_program("btrfs-search-metadata", "file", folder / "file")
    assert "TypeError" in original.stderr
    assert told("file", folder / "file").count("inode extref parent_objectid") > 100
    for link in folder.iterdir():
        link.unlink()


def test_unmounted_as_mounted(
    populated: support.LoopFilesystem,
    told: Callable[..., str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All that is searched by tree; by member, by all members in any order."""
    populated.sync()
    warning = f"{populated.devices[1]} is mounted at {populated.mountpoint} and may be changing\n"

    def read_unmounted(*words: str | Path) -> str:
        assert programs.run_here(cli.search, "--source", "unmounted", *words) == 0
        printed = capsys.readouterr()
        assert printed.err.endswith(warning)
        return printed.out

    for words in searches(populated):
        if words[0] == "file" or words[:3] == ["dump", "-t", "0"]:
            continue
        devices = populated.devices[::-1]
        assert read_unmounted(*words[:-1], *devices) == told(*words), words
    path = populated.mountpoint / "volume" / "nested" / "file"
    first, second = populated.devices
    inside = read_unmounted("file", "--in", first, "--in", second, "/volume/nested/file")
    assert inside == told("file", path)


def test_emptiest_block_groups_beside_a_device(
    populated: support.LoopFilesystem, told: Callable[..., str]
) -> None:
    with btrfs.FileSystem(populated.mountpoint) as fs:
        on_one = {
            chunk.vaddr
            for chunk in fs.chunks()
            if all(stripe.devid != 2 for stripe in chunk.stripes)
        }
        groups = sorted(
            (group.used_pct, group.vaddr) for group in fs.block_groups() if group.vaddr in on_one
        )
    assert len(groups) > 1
    lines = told(
        "block_groups",
        "--filter",
        "2 not in stripes.devid",
        "--sort",
        "used_pct,vaddr",
        populated.mountpoint,
    ).splitlines()
    assert [int(line.split()[3]) for line in lines] == [vaddr for _, vaddr in groups]
    lines = told(
        "block_groups",
        "--sort",
        "num_stripes:desc,vaddr",
        "--limit",
        "1",
        "--format",
        "keys",
        populated.mountpoint,
    ).splitlines()
    assert len(lines) == 1


def test_json_lines(told: Callable[..., str]) -> None:
    for tree in (1, 2, 5, 7):
        lines = told("--json", "dump", "-t", str(tree), SAMPLE).splitlines()
        with btrfs.FileSystem(SAMPLE) as fs:
            items = list(fs.search(tree))
        for line, item in zip(lines, items, strict=True):
            key = json.loads(line)["key"]
            assert (key["objectid"], key["type"], key["offset"]) == (
                item.key.objectid,
                item.key.type,
                item.key.offset,
            )
            assert key["str"] == str(item.key)
    (line,) = told("dump", "-t", "csum", "--limit", "1", "--json", SAMPLE).splitlines()
    assert json.loads(line)["key"]["objectid"] == (1 << 64) - 10
    extents = told("block_group_free_space", "--filter", "length >= 16MiB", "--json", SAMPLE)
    assert all(json.loads(line)["length"] >= 16 << 20 for line in extents.splitlines())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: KIND"),
        (("chunks",), "the following arguments are required: TARGET"),
        (("dump", SAMPLE), "-t/--tree"),
        (("dump", "-t", "foo", SAMPLE), "Unknown metadata tree name foo"),
        (
            ("dump", "-t", "99", SAMPLE),
            "Tree 99 does not exist. Hint: there is ROOT_TREE, EXTENT_T",
        ),
        (("dump", "-t", "99", "--sort", "size", SAMPLE), "Tree 99 does not exist"),
        (("inode", "-t", "99", "--inum", "1", SAMPLE), "Tree 99 does not exist. Hint: there is "),
        (("inode", "-t", "5", "--inum", "999", SAMPLE), "No inode 999 found in tree 5"),
        (("inode", "-t", "5", "--inum", "x", SAMPLE), "argument --inum: not a number: 'x'"),
        (("inode", "-t", str(1 << 64), "--inum", "1", SAMPLE), "does not fit into 64 bits"),
        (("inode", "-t", "5", "--inum", str(1 << 64), SAMPLE), "does not fit into 64 bits"),
        (("dump", "-t", "5", "--min-key", "1 2", SAMPLE), "--min-key: Key representation needs 3"),
        (("dump", "-t", "5", "--max-key", "(1 FOO 3)", SAMPLE), "--max-key: Unknown key type FOO"),
        (("dump", "-t", "5", "--max-key", f"(1 1 {1 << 64})", SAMPLE), "does not fit into 64 bits"),
        (("block_group_contents", "--vaddr", "5", SAMPLE), "no block group at vaddr 5"),
        (("block_group_free_space", "--vaddr", "13631489", SAMPLE), "begins at 13631488"),
        (
            ("dump", "-t", "5", "--min-key", "300 0 0", "--max-key", "299 EXTENT_DATA -1", SAMPLE),
            "no key is between (300 0 0) and (299 EXTENT_DATA -1). Hint: --min-key takes the lower",
        ),
        (("file", "--in", SAMPLE, "/home/x/y"), "there is no x in home"),
        (("file", "--in", SAMPLE, "../.."), "../.. leads out of the filesystem. Hint: "),
        (("file", "--in", SAMPLE, "/home/../.././home"), "leads out of the filesystem"),
        (("chunks", "--filter", "length >", SAMPLE), "expected an attribute or a value"),
        (("chunks", "--filter", "used_pct > 5", SAMPLE), "there is no attribute used_pct"),
        (("block_group_free_space", "--sort", "key", SAMPLE), "Hint: there is length, vaddr"),
        (("chunks", "--sort", "lenght", SAMPLE), "no attribute lenght. Hint: there is length"),
        (("dump", "-t", "5", "--filter", "x < 5", SAMPLE), "--format long shows"),
        (("chunks", "--limit", "-1", SAMPLE), "--limit"),
        (("chunks", "/proc/self/mounts"), "is not on a btrfs filesystem"),
        (("chunks", "/nonexistent"), "/nonexistent: No such file or directory"),
        (("file", "/nonexistent"), "/nonexistent: No such file or directory"),
    ],
)
def test_bad_input(
    capsys: pytest.CaptureFixture[str], words: tuple[str | Path, ...], message: str
) -> None:
    assert message in refused(capsys, *words)


def test_a_closed_pipe_ends_it(tmp_path: Path) -> None:
    """Of a search that has more to say than a pipe holds."""
    done = subprocess.run(
        f"{' '.join(PROGRAM)} dump -t 2 {SAMPLE} 2>{tmp_path}/errors | head -1; "
        "echo ${PIPESTATUS[0]}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    first, code = done.stdout.splitlines()
    assert first == "extent vaddr 13631488 length 90112 refs 2 gen 7 flags DATA"
    assert code == "141"
    assert (tmp_path / "errors").read_text() == ""


SLOW_LINES = """
import time
from btrfs_atlas.commands import search

def lines():
    yield "first"
    time.sleep(0.3)
    yield "second"
    time.sleep(60)
    yield "third"

search._print(lines())
"""


def test_lines_come_while_the_search_goes_on() -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW_LINES], stdout=subprocess.PIPE) as process:
        begin = time.monotonic()
        assert process.stdout is not None
        assert process.stdout.readline() == b"first\n"
        assert process.stdout.readline() == b"second\n"
        assert time.monotonic() - begin < 30
        process.kill()


def test_filter_by_address(told: Callable[..., str]) -> None:
    words = ["--filter", "vaddr == 13631488", "dump", "-t", "2", "--format", "keys"]
    assert told(*words, SAMPLE).splitlines() == [
        "(13631488 EXTENT_ITEM 90112)",
        "(13631488 BLOCK_GROUP_ITEM 8388608)",
    ]


def test_what_is_left_out(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The exit status tells that it is not all."""
    dump = tmp_path / "cut.btrfs-image"
    dump.write_bytes(SAMPLE.read_bytes()[: 200 << 10])
    assert programs.run_here(cli.search, "dump", "-t", "extent", dump) == 1
    printed = capsys.readouterr()
    assert printed.out.count("\n") > 1000
    assert printed.err.startswith("Warning: the dump is good up to byte ")
    assert printed.err.endswith(" ranges of keys left out, of tree 2\n")
