"""The map: tiles equal pictures, memory has its limit, changes are seen."""

from __future__ import annotations

import io
import itertools
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import heatmap
from btrfs.ctree import FileSystem
from btrfs.ondisk import constants
from btrfs_atlas.explorer import tile_source
from btrfs_atlas.explorer.atlas import Atlas
from btrfs_atlas.explorer.legends import Legend
from btrfs_atlas.explorer.model import worker
from btrfs_atlas.explorer.render import coverage, tiles
from heatmap import curves
from heatmap.colourings import colourings
from heatmap.extents import references
from heatmap.extents.table import GENERATION, OWNER, REFERENCES, Extents, read_extents
from heatmap.layers.block_groups import BLOCK_GROUPS
from tests import support
from tests.lab.populate import fragment_free_space
from tests.library.reading import damaged

SPACES = ("physical", "virtual")


@contextmanager
def sample_atlas() -> Iterator[Atlas]:
    """Open the filesystem that comes with the package."""
    data = resources.files("btrfs_atlas") / "data" / "sample.btrfs-image"
    with resources.as_file(data) as path, Atlas([str(path)]) as atlas:
        yield atlas


@pytest.fixture(scope="module")
def sample() -> Iterator[Atlas]:
    """The same, for all tests of this module."""
    with sample_atlas() as atlas:
        yield atlas


@pytest.fixture(scope="module")
def live(mounted: support.LoopFilesystem) -> Iterator[Atlas]:
    """A mounted filesystem with contents of all kinds."""
    with Atlas([str(mounted.mountpoint)]) as atlas:
        yield atlas


def opened(png: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a PNG: red, green, blue, and the opacity where there is any."""
    image = Image.open(io.BytesIO(png))
    return np.array(image if image.mode == "RGB" else image.convert("RGBA"))


def finished_tile(
    atlas: Atlas, space: str, curve: str, colour: str, zoom: int, row: int, column: int
) -> NDArray[np.uint8]:
    """Return a tile once everything that lies there has been read."""
    deadline = time.monotonic() + 60
    while True:
        tile = atlas.tile((space, curve, zoom, row, column), colour)
        if tile.complete:
            return opened(tile.png)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finished_legend(atlas: Atlas, space: str, colour: str) -> Legend:
    """Return the legend of the first zoom once everything has been read."""
    deadline = time.monotonic() + 60
    while (legend := atlas.legend(space, colour, 0)).read < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return legend


def whole(atlas: Atlas, space: str, curve: str, colour: str, zoom: int) -> NDArray[np.uint8]:
    """Return all tiles of a zoom as one picture."""
    rows = [
        np.concatenate(
            [
                finished_tile(atlas, space, curve, colour, zoom, row, column)
                for column in range(1 << zoom)
            ],
            axis=1,
        )
        for row in range(1 << zoom)
    ]
    return np.concatenate(rows)


@pytest.mark.parametrize("curve", curves.CURVES)
def test_first_zoom_is_the_picture_of_btrfs_heatmap(sample: Atlas, curve: str) -> None:
    picture = heatmap.walk_dev_extents(sample.fs, order=8, verbose=-1, curve=curve)
    assert (whole(sample, "physical", curve, "type", 0) == picture.pixels).all()


def test_until_extents_are_read_their_block_groups_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker.Worker, "_next", lambda _: None)  # its thread reads nothing
    with sample_atlas() as atlas:
        picture = heatmap.walk_dev_extents(atlas.fs, order=9, verbose=-1).pixels
        for row, column in np.ndindex(2, 2):
            tile = atlas.tile(("physical", "hilbert", 1, row, column), "type", deadline=0.0)
            assert not tile.complete
            here = (slice(256 * at, 256 * at + 256) for at in (row, column))
            assert (opened(tile.png) == picture[tuple(here)]).all()


@pytest.mark.parametrize("zoom", [0, 1])
def test_sketch_is_the_picture_of_btrfs_heatmap(sample: Atlas, zoom: int) -> None:
    picture = heatmap.walk_dev_extents(sample.fs, order=8 + zoom, verbose=-1, curve="snake")
    assert (opened(sample.sketch("physical", "snake", zoom)) == picture.pixels).all()


def test_what_cannot_be_read_is_hatched_before_extents_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker.Worker, "_next", lambda _: None)
    with sample_atlas() as atlas:
        entries = list(atlas._snapshot.entries["physical"])
        entries[3] = entries[3]._replace(group=None)
        snapshot = atlas._snapshot._replace(entries={"physical": entries})
        monkeypatch.setattr(atlas, "_snapshot", snapshot)
        sketch = opened(atlas.sketch("physical", "hilbert", 1))
        for row, column in np.ndindex(2, 2):
            tile = atlas.tile(("physical", "hilbert", 1, row, column), "type", deadline=0.0)
            here = tuple(slice(256 * at, 256 * at + 256) for at in (row, column))
            assert (opened(tile.png) == sketch[here]).all()
    orange = (sketch == (0xFF, 0x99, 0x00)).all(axis=2)
    assert orange.any()


@pytest.mark.parametrize("is_ahead", [False, True])
def test_a_tile_waits_for_what_is_soon_there(
    monkeypatch: pytest.MonkeyPatch, is_ahead: bool
) -> None:
    """Also while, before anybody asked for it, much else is to be read."""
    read = read_extents

    def slowly(*args: Any, **options: Any) -> Extents:
        time.sleep(0.05)
        return read(*args, **options)

    monkeypatch.setattr(tile_source, "read_extents", slowly)
    with sample_atlas() as atlas:
        if is_ahead:
            atlas.read_ahead("physical", "age", 0)
        line = atlas.lines["virtual"]
        row, column = (at >> 8 for at in line.at("hilbert", line.max_zoom, line.total_bytes // 2))
        place = "virtual", "hilbert", line.max_zoom, row, column
        assert atlas.tile(place, "type", time.monotonic() + 30).complete


def test_nobody_waits_while_much_is_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.Worker, "_next", lambda _: None)
    with sample_atlas() as atlas:
        begin = time.monotonic()
        tile = atlas.tile(("physical", "hilbert", 1, 0, 0), "type", begin + 30)
        assert not tile.complete
        assert time.monotonic() - begin < 15


@pytest.mark.parametrize("wide_hull", [0, 4])
@pytest.mark.parametrize(("curve", "zoom"), [("hilbert", 1), ("snake", 1), ("linear", 1)])
def test_tiles_are_the_picture_of_all_extents(
    live: Atlas, monkeypatch: pytest.MonkeyPatch, curve: str, zoom: int, wide_hull: int
) -> None:
    # 0: each row of a tile is a range of its own.
    monkeypatch.setattr(tiles, "_WIDE_HULL", wide_hull)
    groups = list(live.fs.block_groups())
    picture = heatmap.walk_extents(live.fs, groups, order=8 + zoom, verbose=-1, curve=curve)
    assert (whole(live, "virtual", curve, "type", zoom) == picture.pixels).all()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("colour", [one.name for one in colourings()])
def test_each_colouring_shows_all_that_is_in_use(live: Atlas, space: str, colour: str) -> None:
    shown = finished_tile(live, space, "hilbert", colour, 0, 0, 0).any(axis=2)
    type_ = finished_tile(live, space, "hilbert", "type", 0, 0, 0).any(axis=2)
    # Block groups are shown as a whole, also where they are empty.
    assert (shown & type_).sum() > 0.98 * type_.sum()
    legend = finished_legend(live, space, colour)
    assert sum(entry.length for entry in legend.entries) == pytest.approx(
        live.lines[space].total_bytes
    )
    assert all(entry.name for entry in legend.entries)


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Atlas]:
    """A filesystem with so many extents, with gaps between them, that several are in a pixel."""
    folder = tmp_path_factory.mktemp("scattered")
    with support.filesystem(folder, size="8G", data="single", metadata="dup") as fs:
        fragment_free_space(fs.mountpoint / "pages", 16_000)
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            yield atlas


@pytest.mark.parametrize("colour", ["type", "age", "owner", "sharing"])
def test_less_detail_shows_the_same_amounts(
    scattered: Atlas, monkeypatch: pytest.MonkeyPatch, colour: str
) -> None:
    """A picture made from levels is as bright as one made from the extents."""
    exact = whole(scattered, "virtual", "hilbert", colour, 0).astype(np.int64)
    monkeypatch.setattr(coverage, "EXACT_EXTENTS", 0)
    rough = whole(scattered, "virtual", "hilbert", colour, 0).astype(np.int64)
    assert (exact != rough).any()
    # Where a cell lies across the border of two pixels, they may differ, but not more of them.
    of_exact, of_rough = (
        picture.reshape(16, 16, 16, 16, 3).mean(axis=(1, 3)) for picture in (exact, rough)
    )
    assert np.abs(of_exact - of_rough).max() < 4


def test_parity_is_shown(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, devices=3, size="1G", data="raid5", metadata="raid1") as fs:
        (fs.mountpoint / "file").write_bytes(os.urandom(8 << 20))
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            whole(atlas, "physical", "hilbert", "type", 1)
            entries = {e.name: e.length for e in finished_legend(atlas, "physical", "type").entries}
            line = atlas.lines["physical"]
            seen = whole(atlas, "physical", "hilbert", "owner", line.max_zoom)
    parity = np.array([0x8C, 0x7A, 0x5B], np.uint8)
    rows = -(-(8 << 20) // (128 << 10))
    assert entries["parity"] == pytest.approx(rows * 65536, abs=2 * 65536)
    pixels = (seen == parity).all(axis=2).sum()
    assert pixels * line.total_bytes / seen[..., 0].size == pytest.approx(rows * 65536, rel=0.1)
    assert entries["data"] >= 8 << 20


def test_owners_and_their_names(live: Atlas) -> None:
    whole(live, "virtual", "hilbert", "owner", 0)
    legend = finished_legend(live, "virtual", "owner")
    entries = {entry.name: entry.length for entry in legend.entries}
    (volume,) = (name for name in entries if name.startswith("/volume ("))
    assert entries[volume] > 0
    names = [name for name in entries if name not in ("free", "not allocated")]
    assert names == sorted(names, key=lambda name: -entries[name])
    assert entries["several subvolumes"] > 0
    by_tree: dict[int, int] = {}
    for vaddr in live.groups:
        extents = live.extents(vaddr)
        assert extents is not None
        for owner, length in zip(extents[OWNER].tolist(), extents.length.tolist(), strict=True):
            tree = live.trees.numbers[owner]
            by_tree[tree] = by_tree.get(tree, 0) + length
    assert by_tree[references.SEVERAL] == entries["several subvolumes"]
    assert by_tree[constants.CSUM_TREE_OBJECTID] == entries["checksum tree"]


def test_extents_are_those_of_the_filesystem(sample: Atlas) -> None:
    for vaddr, group in sample.groups.items():
        extents = sample.extents(vaddr)
        assert extents is not None
        objects = list(sample.fs.extents(vaddr, vaddr + group.length - 1))
        assert extents.vaddr.tolist() == [extent.vaddr for extent in objects]
        assert extents.length.tolist() == [
            getattr(extent, "length", sample.fs.nodesize) for extent in objects
        ]
        assert extents[REFERENCES].tolist() == [extent.refs for extent in objects]
        assert extents[GENERATION].tolist() == [extent.generation for extent in objects]
        if len(extents):
            middle = int(extents.vaddr[0] + extents.length[0] - 1)
            assert extents.at(middle) == 0
            assert extents.at(int(extents.vaddr[0]) - 1) is None


def test_what_does_not_fit_into_memory_is_not_read() -> None:
    data = resources.files("btrfs_atlas") / "data" / "sample.btrfs-image"
    with resources.as_file(data) as path, Atlas([str(path)], memory=200_000) as atlas:
        loaded = [atlas.extents(vaddr) for vaddr in atlas.groups]
        kept = sum(one is not None for one in map(atlas.loaded_extents, atlas.groups))
        assert 0 < kept < len(atlas.groups)
        assert any(one is None for one in loaded)
        # All of it is drawn nevertheless, without detail where there is no room.
        for space in SPACES:
            assert whole(atlas, space, "hilbert", "age", 1).any()


def test_a_tile_for_which_memory_is_too_small_is_complete(
    scattered: Atlas, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a page would ask for it again and again."""
    finished_tile(scattered, "virtual", "hilbert", "age", 0, 0, 0)
    monkeypatch.setattr(scattered._source.cache, "limit", 1000)
    scattered._source.cache.drop_if(lambda _: True)
    tile = scattered.tile(("virtual", "hilbert", 0, 0, 0), "age")
    assert tile.complete
    assert opened(tile.png).any()


def test_what_is_empty_is_not_called_unread(tmp_path: Path) -> None:
    unread = np.array([0x4A, 0x4E, 0x57], np.uint8)
    with support.filesystem(tmp_path, size="128G", data="single", metadata="dup") as fs:
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            assert any(not group.used for group in atlas.groups.values())
            for space in SPACES:
                assert not (whole(atlas, space, "hilbert", "age", 0) == unread).all(axis=2).any()


def test_several_ask_at_once(live: Atlas) -> None:
    places = [
        (space, colour, row, column)
        for space, colour in itertools.product(SPACES, ("type", "age", "owner"))
        for row, column in itertools.product(range(2), range(2))
    ]

    def ask(place: tuple[str, str, int, int]) -> bool:
        space, colour, row, column = place
        return finished_tile(live, space, "hilbert", colour, 1, row, column).shape == (256, 256, 3)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, places * 3))


def test_a_change_is_seen(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", data="single", metadata="dup") as fs:
        (fs.mountpoint / "old").write_bytes(os.urandom(1 << 20))
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            before = whole(atlas, "virtual", "hilbert", "type", 0)
            assert atlas.refresh() is None
            (fs.mountpoint / "new").write_bytes(os.urandom(64 << 20))
            fs.sync()
            with FileSystem(fs.mountpoint) as now:
                data = {group.vaddr for group in now.block_groups() if group.flags & 1}
            changes = atlas.refresh()
            assert changes is not None
            assert data & set(changes.groups)
            assert changes.generation == atlas.generation
            assert atlas.refresh() is None
            after = whole(atlas, "virtual", "hilbert", "type", 0)
            grown = (after.any(axis=2).sum() - before.any(axis=2).sum()) / (256 * 256)
            assert grown * atlas.lines["virtual"].total_bytes == pytest.approx(64 << 20, rel=0.05)
            marks = opened(atlas.changed(("virtual", "hilbert", 0, 0, 0), changes.groups))
            assert marks[..., 3].any()


def test_levels_of_a_large_line_follow_changes(tmp_path: Path) -> None:
    """What is remembered of whole lines is not what was there before."""
    with support.filesystem(tmp_path, size="200G", data="single", metadata="dup") as fs:
        for name in ("one", "two"):
            with (fs.mountpoint / name).open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, 3 << 30)
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            before = whole(atlas, "physical", "hilbert", "sharing", 0)
            (fs.mountpoint / "two").unlink()
            fs.sync()
            assert atlas.refresh() is not None
            after = whole(atlas, "physical", "hilbert", "sharing", 0)
            legend = finished_legend(atlas, "physical", "sharing")
            with Atlas([str(fs.mountpoint)]) as fresh:
                assert (whole(fresh, "physical", "hilbert", "sharing", 0) == after).all()
                anew = finished_legend(fresh, "physical", "sharing")
    assert (before != after).any()
    assert legend.entries == anew.entries


def test_ages_reach_up_to_now(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", data="single", metadata="dup") as fs:
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            for number in range(5):
                (fs.mountpoint / f"file{number}").write_bytes(os.urandom(1 << 20))
                fs.sync()
                atlas.refresh()
            extents = [atlas.extents(vaddr) for vaddr in atlas.groups]
            made = {
                generation
                for found in extents
                if found is not None
                for generation in found[GENERATION].tolist()
            }
            legend = finished_legend(atlas, "virtual", "age")
    shown = [entry for entry in legend.entries if entry.name != "free"]
    assert len(shown) == len(made) > 5


def test_overwriting_in_place_is_seen(tmp_path: Path) -> None:
    """Also what neither grows nor shrinks a block group is a change of it."""
    with support.filesystem(tmp_path, size="1G", data="single", metadata="dup") as fs:
        file = fs.mountpoint / "file"
        file.write_bytes(os.urandom(4 << 20))
        fs.sync()
        with Atlas([str(fs.mountpoint)]) as atlas:
            file.write_bytes(os.urandom(4 << 20))
            fs.sync()
            changes = atlas.refresh()
            assert changes is not None
            types = {atlas.groups[vaddr].flags & 7 for vaddr in changes.groups}
            assert constants.BLOCK_GROUP_DATA in types


def test_found_ranges_are_marked_however_short(sample: Atlas) -> None:
    line = sample.lines["physical"]
    group = next(iter(sample.groups))
    starts, lengths = line.ranges_of(np.array([group]), np.array([4096]))
    marks = opened(sample.found(("physical", "hilbert", 0, 0, 0), starts, lengths))
    for start in starts.tolist():
        row, column = line.at("hilbert", 0, start)
        assert tuple(marks[row, column]) == (0xFF, 0xE0, 0x00, 0xFF)
    assert 0 < (marks[..., 3] > 0).sum() < 100 * starts.size


def test_borders_lie_between_devices(tmp_path: Path) -> None:
    with (
        support.filesystem(tmp_path, devices=3, size="1G", data="raid0", metadata="raid1") as fs,
        Atlas([str(fs.mountpoint)]) as atlas,
    ):
        borders = opened(atlas.borders(("physical", "hilbert", 0, 0, 0)))
        line = atlas.lines["physical"]
        orange = (borders == (0xFF, 0x9E, 0x1B, 0xFF)).all(axis=2)
        device = np.array(
            [
                [
                    line.locate(line.pixel("hilbert", 0, row, column)[0]).devid or 0
                    for column in range(0, 256, 3)
                ]
                for row in range(0, 256, 3)
            ]
        )
    assert {1, 2, 3} == set(device.ravel().tolist())
    rows, columns = np.nonzero(orange)
    assert rows.size > 100
    # Each border pixel is near to more than one device.
    for row, column in list(zip(rows.tolist(), columns.tolist(), strict=True))[::7]:
        near = device[
            max(0, row // 3 - 1) : row // 3 + 2, max(0, column // 3 - 1) : column // 3 + 2
        ]
        assert len(set(near.ravel().tolist())) > 1


@pytest.mark.parametrize("tree", ["EXTENT", "BLOCK_GROUP", "DEV"])
def test_what_is_lost_is_hatched(original: Path, tmp_path: Path, tree: str) -> None:
    """Tiles are complete at some time, whatever is missing, and do not call it free."""
    number = getattr(constants, f"{tree}_TREE_OBJECTID")
    image = damaged(original, tmp_path, number)
    with Atlas([str(image)]) as atlas:
        for space, colour in itertools.product(SPACES, ("type", "owner")):
            picture = whole(atlas, space, "hilbert", colour, 0)
            lost = (picture == BLOCK_GROUPS.line_colour).all(axis=2)
            # Where the device tree is lost, the chunks tell the same.
            assert lost.any() == (tree in ("EXTENT", "BLOCK_GROUP")), (space, colour)


@pytest.mark.parametrize(
    "place",
    [
        ("nowhere", "hilbert", "type", 0, 0, 0),
        ("physical", "spiral", "type", 0, 0, 0),
        ("physical", "hilbert", "smell", 0, 0, 0),
        ("physical", "hilbert", "type", -1, 0, 0),
        ("physical", "hilbert", "type", 1 << 80, 0, 0),
        ("physical", "hilbert", "type", 0, 1, 0),
        ("physical", "hilbert", "type", 1, 0, -1),
        ("physical", "hilbert", "type", 1, 1 << 80, 0),
    ],
)
def test_what_is_not_there_is_refused(
    sample: Atlas, place: tuple[str, str, str, int, int, int]
) -> None:
    space, curve, colour, zoom, row, column = place
    with pytest.raises(ValueError, match=r"unknown|out of range|no tile"):
        sample.tile((space, curve, zoom, row, column), colour)


def test_everybody_is_told_when_something_was_read() -> None:
    data = resources.files("btrfs_atlas") / "data" / "sample.btrfs-image"
    with resources.as_file(data) as path, Atlas([str(path)]) as atlas:
        told = threading.Event()
        atlas.on_loaded(told.set)
        atlas.extents(next(iter(atlas.groups)))
        assert told.wait(10)
