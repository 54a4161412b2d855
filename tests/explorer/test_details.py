"""What there is to know about a place on the map, on real filesystems."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import btrfs
from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.text import printable
from btrfs.ownership import backrefs
from btrfs.ownership.paths import lookup
from btrfs_atlas.explorer.atlas import Atlas
from btrfs_atlas.explorer.search import details as module
from btrfs_atlas.explorer.search.details import at, details
from btrfs_atlas.explorer.search.find import find
from heatmap.colourings.type import EXTENTS_BELOW
from tests import support
from tests.library.reading import damaged
from tests.support.programs import SAMPLE

ODD_NAMES = (
    b"\xff\xfe not utf-8",
    b"two\nlines",
    b"quote ' and \" and \\",
    b"<script>alert(1)<script>",
    "turned \u202e around".encode(),
)


@pytest.fixture(scope="module", params=["mounted", "unmounted"])
def atlas(request: pytest.FixtureRequest, mounted: support.LoopFilesystem) -> Iterator[Atlas]:
    target = str(mounted.mountpoint) if request.param == "mounted" else mounted.devices[0]
    with Atlas([target], source=request.param) as opened:
        yield opened


def pixel_of(atlas: Atlas, query: str, space: str, curve: str) -> tuple[int, int, int]:
    view = find(atlas, query, space, curve).view
    assert view is not None
    return view


def finest(atlas: Atlas, space: str, address: int) -> tuple[int, int, int]:
    """Return the smallest pixel in the middle of the sector of a line that holds a byte."""
    line, sectorsize = atlas.lines[space], atlas.fs.sectorsize
    middle = address - address % sectorsize + sectorsize // 2
    return line.max_zoom, *line.at("hilbert", line.max_zoom, middle)


def place_of(atlas: Atlas, space: str, vaddr: int) -> int:
    """Return where the first copy of a byte lies on a line, by the parts of the line."""
    group = max(start for start in atlas.groups if start <= vaddr)
    return atlas.lines[space].parts_of(group)[0].start + vaddr - group


@pytest.mark.parametrize("space", ["physical", "virtual"])
@pytest.mark.parametrize("curve", ["hilbert", "snake", "linear"])
@pytest.mark.parametrize("path", ["overwritten", "volume/nested/file", "compressed/zstd"])
def test_a_known_file(atlas: Atlas, space: str, curve: str, path: str) -> None:
    pixel = pixel_of(atlas, path, space, curve)
    known = details(atlas, space, curve, *pixel)
    extents = dict(zip(*(c.tolist() for c in find(atlas, path, space, curve).ranges), strict=True))
    extent = known["extent"]
    assert known["state"] == "extent"
    assert extents[int(extent["vaddr"])] == extent["length"]
    assert extent["kind"] == "data"
    item = next(atlas.fs.extents(int(extent["vaddr"])))
    assert int(extent["generation"]) == item.generation
    assert extent["refs"] == item.refs
    place = lookup(atlas.fs, path)
    files = known["owners"]["files"]
    inside = [file for file in files if (int(file["subvolume"]), int(file["inode"])) == place]
    assert inside
    for file in inside:
        assert "/".join(filter(None, (file["subvolume_path"], file["path"]))) == path
    assert known["owners"]["note"] is None
    # What is read by now is known at a glance.
    assert at(atlas, space, curve, *pixel) | {"group": known["group"]} == {
        name: value for name, value in known.items() if name != "owners"
    }
    assert json.loads(json.dumps(known)) == known


def test_before_anything_is_read(mounted: support.LoopFilesystem) -> None:
    with Atlas([str(mounted.mountpoint)]) as atlas:
        pixel = pixel_of(atlas, "overwritten", "physical", "hilbert")
        glance = at(atlas, "physical", "hilbert", *pixel)
        assert (glance["state"], glance["extent"]) == ("unread", None)
        assert glance["group"] is not None
        details(atlas, "physical", "hilbert", *pixel)
        assert at(atlas, "physical", "hilbert", *pixel)["state"] == "extent"


def test_device_and_address(atlas: Atlas, mounted: support.LoopFilesystem) -> None:
    """What is said of the first copy is where its bytes are."""
    content = (mounted.mountpoint / "volume/nested/file").read_bytes()
    for space in ("physical", "virtual"):
        found = details(
            atlas, space, "hilbert", *pixel_of(atlas, "volume/nested/file", space, "hilbert")
        )
        device = found["device"]
        assert (device["devid"], device["path"]) == (1, mounted.devices[0])
        begins = int(device["paddr"]) - (int(found["vaddr"]) - int(found["extent"]["vaddr"]))
        with open(device["path"], "rb") as disk:
            disk.seek(begins)
            assert disk.read(len(content)) == content


def test_block_groups(atlas: Atlas) -> None:
    for vaddr, group in atlas.groups.items():
        for space in atlas.lines:
            shown = details(
                atlas, space, "hilbert", *finest(atlas, space, place_of(atlas, space, vaddr))
            )
            known = shown["group"]
            assert known["vaddr"] == str(vaddr)
            assert (known["length"], known["used"]) == (group.length, group.used)
            assert known["used_percent"] == group.used_pct
            check_contents(atlas, known)
    described = {(known["type"], known["profile"]) for known in groups_of(atlas)}
    assert described == {("Data", "single"), ("Metadata", "DUP"), ("System", "DUP")}


def groups_of(atlas: Atlas) -> Iterator[dict[str, Any]]:
    for vaddr in atlas.groups:
        address = place_of(atlas, "virtual", vaddr)
        yield details(atlas, "virtual", "hilbert", *finest(atlas, "virtual", address))["group"]


def check_contents(atlas: Atlas, known: dict[str, Any]) -> None:
    """Compare the numbers of a block group with its extents, one by one."""
    vaddr, length = int(known["vaddr"]), known["length"]
    sizes, kinds = [], Counter[bool]()
    free, before = [], vaddr
    for item in atlas.fs.extents(vaddr, vaddr + length - 1):
        size = getattr(item, "length", atlas.fs.nodesize)
        sizes.append(size)
        kinds[bool(item.flags & constants.EXTENT_FLAG_DATA)] += 1
        free.append(item.vaddr - before)
        before = item.vaddr + size
    free = [gap for gap in (*free, vaddr + length - before) if gap]
    assert known["extents"] == {
        "count": len(sizes),
        "bytes": sum(sizes),
        "largest": max(sizes, default=0),
        "smallest": min(sizes, default=0),
        "average": sum(sizes) // len(sizes) if sizes else 0,
    }
    assert known["extents"]["bytes"] == known["used"]
    assert known["free"] == {
        "count": len(free),
        "bytes": length - sum(sizes),
        "largest": max(free, default=0),
    }
    contents = known["contents"]
    assert sum(entry["bytes"] for entry in contents) == sum(sizes)
    assert sum(entry["count"] for entry in contents if entry["name"] == "data") == kinds[True]
    assert sum(entry["count"] for entry in contents if entry["name"] != "data") == kinds[False]
    assert [entry["bytes"] for entry in contents] == sorted(
        (entry["bytes"] for entry in contents), reverse=True
    )
    stripes = [(stripe["devid"], int(stripe["paddr"])) for stripe in known["stripes"]]
    assert stripes == [(stripe.devid, stripe.offset) for stripe in atlas.chunks[vaddr].stripes]


def test_states(atlas: Atlas) -> None:
    """At every address of a sample, what is said is what the extents say."""
    for space, line in atlas.lines.items():
        seen = Counter[str]()
        for address in range(0, line.total_bytes, line.total_bytes // 499):
            shown = details(atlas, space, "hilbert", *finest(atlas, space, address))
            seen[shown["state"]] += 1
            if shown["state"] == "unallocated":
                assert (shown["group"], shown["vaddr"], shown["owners"]) == (None, None, None)
                continue
            extents = atlas.extents(int(shown["group"]["vaddr"]))
            assert extents is not None
            inside = extents.at(int(shown["vaddr"]))
            if inside is not None:
                assert shown["extent"]["vaddr"] == str(extents.vaddr[inside])
            assert (shown["state"] == "free") == (shown["extent"] is None)
        assert seen["free"] > 10
        assert (seen["unallocated"] > 10) == (space == "physical")
        assert seen["unread"] == seen["parity"] == 0


def test_where_a_pixel_is_large(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where block groups are drawn, no extent is told, but whether there are any."""
    place = finest(atlas, "physical", place_of(atlas, "physical", min(atlas.groups)))
    pixel = pixel_of(atlas, "overwritten", "physical", "hilbert")
    monkeypatch.setattr(module, "EXTENTS_BELOW", 16)
    for ask in (at, details):
        shown = ask(atlas, "physical", "hilbert", *pixel)
        assert (shown["state"], shown["extent"]) == ("extent", None)
        first = ask(atlas, "physical", "hilbert", *place)
        assert first["state"] == ("extent" if first["group"]["used"] else "free")
    assert shown["owners"] is None
    assert shown["group"]["extents"]["count"] > 0


def test_tree_blocks(atlas: Atlas) -> None:
    """Of a tree block, the trees are told that it is part of."""
    seen = set()
    for item in atlas.fs.extents():
        if item.flags & constants.EXTENT_FLAG_DATA:
            continue
        shown = details(
            atlas,
            "virtual",
            "hilbert",
            *finest(atlas, "virtual", place_of(atlas, "virtual", item.vaddr)),
        )
        assert shown["extent"]["vaddr"] == str(item.vaddr)
        owners = shown["owners"]
        assert owners["files"] == []
        expected = backrefs.owners(atlas.fs, item.vaddr)
        assert [int(tree["tree"]) for tree in owners["trees"]] == expected.trees
        assert (owners["note"] is None) == expected.complete
        seen |= {tree["name"] for tree in owners["trees"]}
    trees = (constants.ROOT_TREE_OBJECTID, constants.EXTENT_TREE_OBJECTID, 256)
    assert {atlas.tree_name(tree) for tree in trees} <= seen


def test_limit_of_files(atlas: Atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page that is shared most is used 40 times in one file alone."""
    pixel = pixel_of(atlas, "pages", "physical", "hilbert")
    whole = details(atlas, "physical", "hilbert", *pixel)["owners"]
    monkeypatch.setattr(module, "MAX_FILES", 5)
    some = details(atlas, "physical", "hilbert", *pixel)["owners"]
    assert some["files"] == whole["files"][:5]
    assert some["more"] == len(whole["files"]) - 5
    assert len(whole["files"]) > 40


@pytest.mark.parametrize("source", ["mounted", "unmounted"])
def test_odd_names(tmp_path: Path, source: str) -> None:
    with support.filesystem(tmp_path, size="512M", data="single", metadata="single") as fs:
        for name in ODD_NAMES:
            path = os.path.join(os.fsencode(fs.mountpoint), name)
            with open(path, "wb") as file:
                file.write(os.urandom(100_000))
        support.run("btrfs", "subvolume", "snapshot", fs.mountpoint, fs.mountpoint / "a 'snap'\n")
        fs.sync()
        target = str(fs.mountpoint) if source == "mounted" else fs.devices[0]
        with Atlas([target], source=source) as atlas:
            for name in ODD_NAMES:
                pixel = pixel_of(atlas, printable(name), "virtual", "hilbert")
                shown = details(atlas, "virtual", "hilbert", *pixel)
                files = shown["owners"]["files"]
                assert [file["path"] for file in files] == [printable(name)] * 2
                assert [file["subvolume_path"] for file in files] == ["", r"a 'snap'\n"]
                assert all(text.isprintable() for text in texts(shown))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts(list(value.values()))
    elif isinstance(value, list):
        for element in value:
            yield from texts(element)


@pytest.mark.parametrize(
    ("profile", "devices"), [("raid0", 3), ("raid1", 2), ("raid5", 3), ("raid6", 4)]
)
def test_several_devices(tmp_path: Path, profile: str, devices: int) -> None:
    """Each stripe is where its bytes are, and parity is told from data."""
    with support.filesystem(
        tmp_path, devices=devices, size="512M", data=profile, metadata="raid1"
    ) as fs:
        content = os.urandom(3 << 20)
        (fs.mountpoint / "file").write_bytes(content)
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            start = int(find(atlas, "file", "physical", "hilbert").ranges[0][0])
            group = max(vaddr for vaddr in atlas.groups if vaddr <= start)
            line = atlas.lines["physical"]
            parts = line.parts_of(group)
            place = line.ranges_of(np.array([start]), np.array([len(content)]))[0][0]
            begin = next(place - p.start for p in parts if 0 <= place - p.start < p.length)
            states = Counter[str]()
            for part in parts:
                for offset in range(int(begin), int(begin) + (1 << 20), 32 << 10):
                    pixel = finest(atlas, "physical", part.start + offset)
                    shown = details(atlas, "physical", "hilbert", *pixel)
                    states[shown["state"]] += 1
                    if shown["state"] == "extent":
                        check_bytes(fs, shown, content, start)
    assert states["extent"] > 10
    assert (states["parity"] > 10) == (profile in ("raid5", "raid6"))


def test_pixels_larger_than_a_stripe(tmp_path: Path) -> None:
    """A pixel is about the first of its sectors that is not free, whichever stripe that is in."""
    zoom, stripe = 2, 64 << 10
    with support.filesystem(tmp_path, devices=2, size="64G", data="raid0", metadata="raid1") as fs:
        files = [fs.mountpoint / str(number) for number in range(40)]
        for file in files:
            file.write_bytes(os.urandom(stripe))
        fs.sync()
        # One stripe of four is used: those that follow it on its device are free.
        for number, file in enumerate(files):
            if number % 4 != 2:
                file.unlink()
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            line = atlas.lines["physical"]
            ranges = find(atlas, "subvolume 5", "physical", "hilbert").ranges
            group = max(vaddr for vaddr in atlas.groups if vaddr <= ranges[0][0])
            first_used = int(line.ranges_of(*ranges)[0][0])
            details(atlas, "physical", "hilbert", *finest(atlas, "physical", first_used))
            offset = min(
                first_used - p.start for p in line.parts_of(group) if p.start <= first_used
            )
            states = Counter[str]()
            for part in line.parts_of(group):
                for row in range(12):
                    address = part.start + offset + row * stripe
                    pixel = zoom, *line.at("hilbert", zoom, address)
                    first, length = line.pixel("hilbert", *pixel)
                    assert stripe < length <= EXTENTS_BELOW
                    shown = at(atlas, "physical", "hilbert", *pixel)
                    states[shown["state"]] += 1
                    assert shown["extent"] == first_extent(atlas, first, first + length)
    assert min(states["extent"], states["free"]) >= 5


def first_extent(atlas: Atlas, first: int, behind: int) -> Any:
    """Return the first extent that one of the sectors of a range of devices shows."""
    for sector in range(-(-first // 4096) * 4096, behind, 4096):
        shown = at(atlas, "physical", "hilbert", *finest(atlas, "physical", sector))
        if shown["extent"] is not None:
            return shown["extent"]
    return None


def test_extents_that_are_used_in_part(tmp_path: Path) -> None:
    """Whoever uses any byte of an extent owns it."""
    with support.filesystem(tmp_path, size="512M", data="single", metadata="single") as fs:
        path = fs.mountpoint / "file"
        path.write_bytes(os.urandom(64 << 10))
        fs.sync()
        with path.open("r+b") as file:
            file.write(os.urandom(4096))
        fs.sync()
        for target, source in ((str(fs.mountpoint), "mounted"), (fs.devices[0], "unmounted")):
            with Atlas([target], source=source) as atlas:
                extents = find(atlas, "file", "virtual", "hilbert").ranges
                assert sorted(extents[1].tolist()) == [4096, 64 << 10]
                for vaddr in extents[0].tolist():
                    pixel = finest(atlas, "virtual", place_of(atlas, "virtual", vaddr))
                    owners = details(atlas, "virtual", "hilbert", *pixel)["owners"]
                    assert [file["path"] for file in owners["files"]] == ["file"]


def check_bytes(
    fs: support.LoopFilesystem, shown: dict[str, Any], content: bytes, start: int
) -> None:
    """Compare the bytes on the device with those of a file that is one extent."""
    device, offset = shown["device"], int(shown["vaddr"]) - start
    if not 0 <= offset < len(content):
        return
    assert device["path"] == fs.devices[device["devid"] - 1]
    with open(device["path"], "rb") as disk:
        disk.seek(int(device["paddr"]))
        assert disk.read(512) == content[offset : offset + 512]


def test_no_such_place(atlas: Atlas) -> None:
    for ask in (at, details):
        for words, place in (
            ("space", ("sideways", "hilbert", 0, 0, 0)),
            ("curve", ("physical", "circle", 0, 0, 0)),
            ("zoom", ("physical", "hilbert", 99, 0, 0)),
            ("zoom", ("physical", "hilbert", -1, 0, 0)),
            ("pixel", ("physical", "hilbert", 0, 256, 0)),
            ("pixel", ("physical", "hilbert", 0, 0, -1)),
            ("pixel", ("physical", "hilbert", 0, 1 << 70, 0)),
        ):
            with pytest.raises(ValueError, match=words):
                ask(atlas, *place)


@pytest.mark.parametrize(
    "error",
    [CorruptError("leaf at 5\n\x1b[1m", expected=1, found=2), OSError(5, "Input/output error")],
)
def test_errors_become_notes(
    atlas: Atlas, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    pixel = pixel_of(atlas, "overwritten", "physical", "hilbert")

    def fail(*_: object, **__: object) -> backrefs.Owners:
        raise error

    monkeypatch.setattr(backrefs, "owners", fail)
    owners = details(atlas, "physical", "hilbert", *pixel)["owners"]
    assert (owners["files"], owners["trees"], owners["more"]) == ([], [], 0)
    assert owners["note"]
    assert owners["note"].isprintable()


def test_damaged_trees(original: Path, tmp_path: Path) -> None:
    """Wherever somebody clicks on a damaged filesystem, there is an answer."""
    for tree in (constants.FS_TREE_OBJECTID, constants.EXTENT_TREE_OBJECTID):
        notes = set()
        states = Counter[str]()
        with Atlas([str(damaged(original, tmp_path, tree))]) as atlas:
            for vaddr, group in atlas.groups.items():
                begin = place_of(atlas, "virtual", vaddr)
                for address in range(begin, begin + group.length, group.length // 61):
                    pixel = finest(atlas, "virtual", address)
                    shown = details(atlas, "virtual", "hilbert", *pixel)
                    states[shown["state"]] += 1
                    if shown["owners"] is not None:
                        notes.add(shown["owners"]["note"])
        assert states["extent"] > 0
        assert notes - {None}, tree


def test_dump_of_metadata() -> None:
    with Atlas([str(SAMPLE)]) as atlas:
        pixel = pixel_of(atlas, "subvolume home", "virtual", "hilbert")
        shown = details(atlas, "virtual", "hilbert", *pixel)
        assert shown["group"]["extents"]["count"] > 0
        fs = atlas.fs
        trees = {subvolume.id for subvolume in btrfs.ownership.subvolumes.of_filesystem(fs)}
        vaddr = int(find(atlas, "subvolume home", "virtual", "hilbert").ranges[0][0])
        place = finest(atlas, "virtual", place_of(atlas, "virtual", vaddr))
        files = details(atlas, "virtual", "hilbert", *place)["owners"]["files"]
        assert files
        assert {int(file["subvolume"]) for file in files} <= trees
