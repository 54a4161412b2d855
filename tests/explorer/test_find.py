"""Find, on real filesystems: what it leads to is what the kernel or the trees say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import btrfs
from btrfs import ioctl
from btrfs.ondisk import constants
from btrfs.ondisk.items.file_extent import FileExtentItem
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import printable
from btrfs_atlas.explorer.atlas import Atlas
from btrfs_atlas.explorer.search import file_extents, step_reader
from btrfs_atlas.explorer.search.find import FindError, Found, find
from tests import support
from tests.lab.populate import ODD_NAMES
from tests.library.reading import damaged
from tests.support.programs import SAMPLE

FILES = (
    "overwritten",
    "clone",
    "pages",
    "allocated",
    "compressed/zlib",
    "compressed/zstd",
    "volume/files/file14",
    "volume/nested/file",
    "writable/more/file7",
)

Ranges = list[tuple[int, int]]


@pytest.fixture(scope="module", params=["mounted", "unmounted"])
def atlas(request: pytest.FixtureRequest, mounted: support.LoopFilesystem) -> Iterator[Atlas]:
    target = str(mounted.mountpoint) if request.param == "mounted" else mounted.devices[0]
    with Atlas([target], source=request.param) as opened:
        yield opened


def found_for(atlas: Atlas, query: str) -> Found:
    return find(atlas, query, "physical", "hilbert")


def ranges(found: Found) -> Ranges:
    vaddr, length = found.ranges
    return list(zip(vaddr.tolist(), length.tolist(), strict=True))


def mapped(path: Path) -> list[ioctl.FiemapExtent]:
    """Return the pieces of a file that are not inline, as the kernel says."""
    with path.open("rb") as file:
        return [piece for piece in ioctl.fiemap(file.fileno()) if piece.vaddr]


def expected_extents(fs: btrfs.FileSystem, tree: int, inum: int | None = None) -> Ranges:
    """Return the extents of a subvolume, or of an inode in it, item by item."""
    first = Key(inum or 0, 0, 0)
    last = Key(-1 if inum is None else inum, 255, constants.ULLONG_MAX)
    return sorted(
        {
            (item.disk_bytenr, item.disk_num_bytes)
            for item in fs.search(tree, first, last)
            if isinstance(item, FileExtentItem)
            and item.type != constants.FILE_EXTENT_INLINE
            and item.disk_bytenr
        }
    )


@pytest.mark.parametrize("path", FILES)
def test_extents_are_those_that_the_kernel_maps(
    atlas: Atlas, mounted: support.LoopFilesystem, path: str
) -> None:
    pieces = mapped(mounted.mountpoint / path)
    found = found_for(atlas, f"/{path}")
    assert found.kind == "file"
    assert found.title == f"/{path}"
    extents = ranges(found)
    assert pieces
    starts = np.array([start for start, _ in extents])
    for piece in pieces:
        start, length = extents[int(np.searchsorted(starts, piece.vaddr, "right")) - 1]
        assert start <= piece.vaddr < start + length
    for start, length in extents:
        assert any(
            piece.vaddr < start + length and start < piece.vaddr + piece.length for piece in pieces
        )
    place = btrfs.ownership.paths.lookup(atlas.fs, path)
    assert extents == expected_extents(atlas.fs, *place)
    assert found.extents == len(extents)
    assert found.bytes == sum(length for _, length in extents)


def test_record(atlas: Atlas) -> None:
    record = found_for(atlas, "overwritten").record()
    assert list(record) == [
        *("query", "kind", "title", "words", "extents", "bytes", "average", "pieces"),
        *("truncated", "strip", "view"),
    ]
    assert record["average"] == record["bytes"] // record["extents"]
    assert len(record["strip"]) == 256
    assert set(record["view"]) == {"z", "row", "column"}
    assert json.loads(json.dumps(record)) == record


def test_words_about_files(atlas: Atlas) -> None:
    words = found_for(atlas, "overwritten").description
    assert words[0] == "A file, 8.04MiB."
    assert any("parts of it lie in" in word for word in words)
    assert "40.00KiB of it are holes." in words
    assert (
        "4.24MiB of it are allocated, but not written." in found_for(atlas, "allocated").description
    )
    small = found_for(atlas, "files/file2")
    assert "Its content, 100 bytes, lies inside a tree leaf." in small.description
    assert (small.extents, small.pieces, small.view, sum(small.strip)) == (0, 0, None, 0)
    linked = found_for(atlas, "names/linked").description
    assert linked[0] == f"A file, 20 bytes, {1 + len(list(names(atlas)))} names."


def names(atlas: Atlas) -> Iterator[bytes]:
    """Yield the names of the file of many names but for one."""
    place = btrfs.ownership.paths.lookup(atlas.fs, "names/linked")
    for path in btrfs.ownership.paths.Paths(atlas.fs).of_inode(*place):
        if path != b"names/linked":
            yield path


def test_directories_are_told_from_subvolumes(atlas: Atlas) -> None:
    folder = found_for(atlas, "files")
    assert folder.extents == 0
    assert "it has no extents" in folder.description[0]
    assert "Say 'subvolume 5'" in folder.description[-1]
    tree = btrfs.ownership.paths.lookup(atlas.fs, "volume").tree
    assert f"Say 'subvolume {tree}'" in found_for(atlas, "volume").description[-1]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names(atlas: Atlas, name: bytes) -> None:
    path = b"names/" + name
    inum = btrfs.ownership.paths.lookup(atlas.fs, path).inum
    for query in {printable(path), os.fsdecode(path)}:
        found = found_for(atlas, query)
        assert found.title == "/" + printable(path)
        assert any(word.startswith(f"Inode {inum} in subvolume 5") for word in found.description)
        for text in (found.title, *found.description):
            assert text.isprintable()
        json.dumps(found.record(), ensure_ascii=False).encode()


def test_paths_from_the_mount_point(mounted: support.LoopFilesystem) -> None:
    top = mounted.mountpoint
    with Atlas([str(top)]) as atlas:
        expected = ranges(found_for(atlas, "/volume/nested/file"))
        assert ranges(found_for(atlas, f"{top}/volume/nested/file")) == expected
        assert found_for(atlas, str(top)).title == "/"
        with pytest.raises(FindError, match="no such path"):
            found_for(atlas, f"{top}x/volume/nested/file")


def test_paths_from_a_subvolume_or_folder(mounted: support.LoopFilesystem) -> None:
    top = mounted.mountpoint
    with Atlas([str(top / "volume")]) as atlas:
        found = found_for(atlas, f"{top}/volume/nested/file")
        assert ranges(found)
        # From the subvolume that was opened, as there is no such path from the top level.
        again = found_for(atlas, "nested/file")
        assert (again.title, ranges(again)) == ("/volume/nested/file", ranges(found))
    with Atlas([str(top / "compressed")]) as atlas:
        assert found_for(atlas, f"{top}/compressed/zlib").title == "/compressed/zlib"


def test_no_path_of_the_system_is_read(mounted: support.LoopFilesystem, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"x" * 100_000)
    with Atlas([str(mounted.mountpoint)]) as atlas:
        for query in (f"{tmp_path}/outside", f"{mounted.mountpoint}/../../../etc/passwd"):
            with pytest.raises(FindError, match="no such path"):
                found_for(atlas, query)


def test_inodes(atlas: Atlas) -> None:
    tree, inum = btrfs.ownership.paths.lookup(atlas.fs, "volume/nested/file")
    expected = expected_extents(atlas.fs, tree, inum)
    for query in (f"inode {inum} in {tree}", f"INODE {hex(inum)}  in volume/nested"):
        found = found_for(atlas, query)
        assert (found.kind, ranges(found)) == ("inode", expected)
        assert f"Inode {inum} in subvolume {tree}: /volume/nested/file" in found.description
    anywhere = found_for(atlas, f"inode {inum}")
    assert anywhere.title == f"inode {inum} in subvolume 5"
    assert "say 'inode" in anywhere.description[-1]
    only = btrfs.ownership.paths.lookup(atlas.fs, "writable/more/file7")
    with pytest.raises(FindError, match=f"no inode 999999 in subvolume {only.tree}"):
        found_for(atlas, f"inode 999999 in {only.tree}")
    with pytest.raises(FindError, match="no inode 999999 in any subvolume"):
        found_for(atlas, "inode 999999")


def test_virtual_addresses(atlas: Atlas) -> None:
    """The extent is found from any byte in it, and what is free is told."""
    group = next(g for g in atlas.groups.values() if g.flags & constants.BLOCK_GROUP_METADATA)
    known = [(e.vaddr, getattr(e, "length", atlas.fs.nodesize)) for e in atlas.fs.extents()]
    data = [extent for extent in known if not group.vaddr <= extent[0] < group.vaddr + group.length]
    blocks = [extent for extent in known if extent not in data]
    for vaddr, length in (*data[:20], *data[-20:], *blocks[:5]):
        for query in (f"vaddr {vaddr}", hex(vaddr + length // 2), str(vaddr + length - 1)):
            found = found_for(atlas, query)
            assert (found.kind, ranges(found)) == ("vaddr", [(vaddr, length)])
            assert (found.extents, found.bytes) == (1, length)
    assert found_for(atlas, str(blocks[0][0])).description[0].startswith("A tree block, 16.00KiB")
    gaps = [
        (start + length, after - start - length)
        for (start, length), (after, _) in pairwise(data)
        if start + length < after
    ]
    vaddr, length = max(gaps[:-1], key=lambda gap: gap[1])
    found = found_for(atlas, str(vaddr + length // 2))
    assert found.title.startswith("free space")
    assert (found.extents, found.bytes, found.view is None) == (0, 0, False)


def test_block_groups(atlas: Atlas) -> None:
    for vaddr, group in atlas.groups.items():
        found = found_for(atlas, f"group {vaddr}")
        assert (found.kind, ranges(found)) == ("group", [(vaddr, group.length)])
        assert found.bytes == group.used
        items = list(atlas.fs.extents(vaddr, vaddr + group.length - 1))
        assert found.extents == len(items)
    vaddr = min(atlas.groups)
    with pytest.raises(FindError) as caught:
        found_for(atlas, f"group {vaddr + 4096}")
    assert caught.value.hint == f"the block group that holds this address is 'group {vaddr}'"


def test_subvolumes(atlas: Atlas) -> None:
    for subvolume in btrfs.ownership.subvolumes.of_filesystem(atlas.fs):
        expected = expected_extents(atlas.fs, subvolume.id)
        found = found_for(atlas, f"subvolume {subvolume.id}")
        assert (found.kind, ranges(found)) == ("subvolume", expected)
        if subvolume.path is not None:
            by_path = found_for(atlas, f"subvolume {printable(subvolume.path)}")
            assert ranges(by_path) == expected
            assert f"Its path is /{printable(subvolume.path)}" in by_path.description
    top = found_for(atlas, "subvolume 5")
    assert ranges(top) == expected_extents(atlas.fs, 5)
    assert "parts of its files lie in" in " ".join(top.description)
    assert ranges(found_for(atlas, "subvolume /")) == ranges(top)
    snapshot = " ".join(found_for(atlas, "subvolume readonly").description)
    assert "Made as a snapshot in generation" in snapshot
    assert "read-only" in snapshot


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "nothing to find"),
        (" ", "nothing to find"),
        ("x" * 9000, "at most 8,192 characters"),
        ("nowhere/at all", "no such path"),
        ("a\0b", "no such path"),
        ("\ud800", "no text"),
        ("subvolume files", "/files is no subvolume"),
        ("subvolume 999999", "no subvolume 999999"),
        ("subvolume 4", "no subvolume 4"),
        ("inode 257 in 999999", "no subvolume 999999"),
        ("inode 99999999999999999999", "does not fit into 64 bits"),
        ("vaddr 5", "no block group holds vaddr 5"),
        ("vaddr 0xffffffffffffffff", "no block group holds"),
        ("group 5", "no block group begins at vaddr 5"),
        ("group x", "group x: no such path"),
        ("group\x07\n\u202e", "no such path"),
        ("a\x07\nb", "no such path"),
        ("<script>\n'\"", "no such path"),
    ],
)
def test_what_is_not_there(atlas: Atlas, query: str, message: str) -> None:
    with pytest.raises(FindError, match=message) as caught:
        found_for(atlas, query)
    assert str(caught.value).isprintable()
    assert (caught.value.hint or "").isprintable()


def test_unknown_line_and_curve(atlas: Atlas) -> None:
    with pytest.raises(ValueError, match="no space 'sideways'"):
        find(atlas, "/", "sideways", "hilbert")
    with pytest.raises(ValueError, match="unknown curve"):
        find(atlas, "/", "physical", "circle")


def test_too_many_extents(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found_for(atlas, "subvolume 5")
    monkeypatch.setattr(file_extents, "MAX_EXTENTS", 100)
    found = found_for(atlas, "subvolume 5")
    assert found.truncated
    assert found.extents == 100
    assert set(ranges(found)) <= set(ranges(whole))
    assert "There may be more" in " ".join(found.description)
    assert not whole.truncated


def test_too_long(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_reader, "MAX_SECONDS", -1.0)
    found = found_for(atlas, "subvolume 5")
    assert found.truncated
    assert found.extents == 0


@pytest.mark.parametrize(
    ("profile", "devices", "copies"),
    [("single", 1, 1), ("raid0", 3, 1), ("raid1", 3, 2), ("raid5", 3, 1), ("raid10", 4, 2)],
)
def test_where_it_lies(tmp_path: Path, profile: str, devices: int, copies: int) -> None:
    """All copies are on the line, and the view is where the file begins."""
    with support.filesystem(
        tmp_path, devices=devices, size="512M", data=profile, metadata="single"
    ) as fs:
        for name, size in (("first", 3 << 20), ("second", 5 << 20)):
            (fs.mountpoint / name).write_bytes(os.urandom(size))
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            found = found_for(atlas, "second")
            assert found.bytes == 5 << 20
            on_line = sum(found.strip) * atlas.lines["physical"].total_bytes / 256
            assert on_line == pytest.approx(copies * found.bytes)
            told = f"With its copies, it takes {copies * 5}.00MiB on the devices."
            assert (told in found.description) == (copies > 1)
            beginning = mapped(fs.mountpoint / "second")[0].vaddr
            for space in atlas.lines:
                for curve in ("hilbert", "snake", "linear"):
                    assert_view(atlas, find(atlas, "second", space, curve), space, curve, beginning)


def assert_view(atlas: Atlas, found: Found, space: str, curve: str, beginning: int) -> None:
    """The view is in the extent that the file begins with, and that is more than a few pixels."""
    assert found.view is not None
    zoom, row, column = found.view
    line = atlas.lines[space]
    address, length = line.pixel(curve, zoom, row, column)
    vaddr = line.locate(address).vaddr
    extent = dict(ranges(found))[beginning]
    assert vaddr is not None
    assert beginning <= vaddr < beginning + extent
    assert zoom == line.max_zoom or length * 100 < extent


def test_pieces_are_contiguous_runs(tmp_path: Path) -> None:
    """A file written page by page between the pages of another lies in as many pieces."""
    with support.filesystem(tmp_path, size="512M", data="single", metadata="single") as fs:
        paths = [fs.mountpoint / "odd", fs.mountpoint / "even"]
        for page in range(20):
            with paths[page % 2].open("ab") as file:
                file.write(os.urandom(4096))
                os.fsync(file.fileno())
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            odd, even = (found_for(atlas, path.name) for path in paths)
            both = found_for(atlas, "subvolume 5")
    assert odd.extents == even.extents == 10
    runs = len(joined(ranges(odd)))
    assert odd.pieces == runs
    assert runs > 5
    assert both.extents == 20
    assert both.pieces == len(joined(ranges(both)))


def joined(extents: Ranges) -> Ranges:
    """Return extents with those made one that touch each other, one by one."""
    runs: Ranges = []
    for start, length in extents:
        if runs and sum(runs[-1]) == start:
            runs[-1] = runs[-1][0], runs[-1][1] + length
        else:
            runs.append((start, length))
    return runs


def test_strip(atlas: Atlas) -> None:
    """Each part says how much of it is found, as if every byte were counted."""
    found = find(atlas, "subvolume 5", "virtual", "hilbert")
    line = atlas.lines["virtual"]
    places = list(zip(*(column.tolist() for column in line.ranges_of(*found.ranges)), strict=True))
    for part in (0, 1, 17, 128, 200, 255, *np.flatnonzero(found.strip).tolist()):
        first, behind = (line.total_bytes * edge // 256 for edge in (part, part + 1))
        covered = sum(
            max(0, min(behind, start + length) - max(first, start)) for start, length in places
        )
        assert found.strip[part] == pytest.approx(covered / (behind - first))


def test_extents_that_cannot_be(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of extents that overlap or reach out of their block group, as only damage makes them."""
    group = list(atlas.groups.values())[-1]
    begin, end = group.vaddr, group.vaddr + group.length
    vaddr = np.array([0, begin, begin + 4096, end - 4096, 1 << 61])
    length = np.array([4096, 1 << 61, 4096, 1 << 61, 4096])
    monkeypatch.setattr(
        file_extents.FileExtentSummary, "extents", property(lambda _: (vaddr, length))
    )
    found = found_for(atlas, "overwritten")
    assert ranges(found) == [(begin, 4096), (begin + 4096, 4096), (end - 4096, 4096)]
    assert found.bytes == 3 * 4096


def test_damaged_tree(original: Path, tmp_path: Path) -> None:
    """What cannot be read is told, and what can be is found all the same."""
    with Atlas([str(original)]) as atlas:
        whole = found_for(atlas, "subvolume 5")
    tree = constants.FS_TREE_OBJECTID
    with Atlas([str(damaged(original, tmp_path, tree))]) as atlas:
        found = found_for(atlas, "subvolume 5")
        assert set(ranges(found)) <= set(ranges(whole))
        assert found.description[-1].startswith("Some of it could not be read: ")
        assert found.description[-1].isprintable()


def test_dump_of_metadata() -> None:
    with Atlas([str(SAMPLE)]) as atlas:
        found = [found_for(atlas, f"subvolume {name}") for name in ("home", "snapshots/home-1")]
        for space in atlas.lines:
            assert find(atlas, "subvolume home", space, "hilbert").extents == found[0].extents
    assert all(each.extents > 0 for each in found)
    assert set(ranges(found[0])) & set(ranges(found[1]))
