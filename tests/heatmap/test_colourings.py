"""Colourings: every extent has its colour on every kind of line, and legends count every byte."""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import heatmap
from btrfs.ctree import ExtentItem, FileSystem, MetaDataItem
from btrfs.source.disk.chunk_map import ChunkMap
from btrfs_atlas.colours import colour_names
from heatmap import colourings as registry
from heatmap.colouring import Colouring, Cost
from heatmap.colourings import colour_context, colouring, colourings
from heatmap.colours import ExtentColouring, ExtentColours, GroupColouring
from heatmap.extents.table import OWNER, read_extents
from heatmap.extents.trees import tree_name
from heatmap.layers.base import Layer
from heatmap.layers.block_groups import used_part
from heatmap.layers.chunks import chunks as chunk_layer
from heatmap.layers.devices import devices as device_layer
from heatmap.layers.extents import extents as extent_layer
from tests import support
from tests.lab.populate import populate

SECTOR = 4096

LAYOUTS = [
    {"devices": 1, "data": "single", "metadata": "dup"},
    {"devices": 2, "data": "raid1", "metadata": "raid1"},
    {"devices": 3, "data": "raid0", "metadata": "raid1c3"},
    {"devices": 4, "data": "raid10", "metadata": "raid10"},
    {"devices": 3, "data": "raid5", "metadata": "raid5"},
    {"devices": 4, "data": "raid6", "metadata": "raid6"},
]

NAMES = [one.name for one in colourings()]
OF_EXTENTS = [one.name for one in colourings() if one.extents is not None]
OF_GROUPS = [one.name for one in colourings() if one.groups is not None]


@pytest.fixture(scope="module", params=LAYOUTS, ids=lambda layout: layout["data"])
def fs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FileSystem]:
    """A filesystem with contents of all kinds, unmounted."""
    folder = tmp_path_factory.mktemp("coloured")
    with support.filesystem(folder, size="1G", **request.param) as made:
        populate(made.mountpoint)
        made.sync()
        images = made.images
        made.unmount()
        with FileSystem(images) as fs:
            yield fs


def sectors(layer: Layer) -> dict[int, int]:
    """Return the value of each sector of a line, by the address of the sector."""
    found: dict[int, int] = {}
    for intervals in layer.batches(0):
        for start, length, value in zip(
            intervals.start.tolist(), intervals.length.tolist(), intervals.value, strict=True
        ):
            for sector in range(start, start + length, SECTOR):
                assert sector not in found
                found[sector] = int(value)
    return found


def active(fs: FileSystem, name: str) -> ExtentColouring:
    found = colouring(name).active(SECTOR, colour_context(fs))
    assert isinstance(found, ExtentColouring)
    return found


def extents(fs: FileSystem) -> Iterator[tuple[int, int, ExtentItem | MetaDataItem]]:
    """Yield address and length of each extent, and its item."""
    for extent in fs.extents():
        length = extent.length if isinstance(extent, ExtentItem) else fs.nodesize
        yield extent.vaddr, length, extent


def expected_names(fs: FileSystem, name: str) -> dict[int, str]:
    """Return what the legend calls each extent, by its address, found one by one."""
    context = colour_context(fs)
    names = {}
    if name in ("owner", "type", "compression"):
        one = active(fs, name)
        for group in fs.block_groups():
            table = read_extents(fs, group.vaddr, group.length, one.colours.columns, context.trees)
            for row, vaddr in enumerate(table.vaddr.tolist()):
                if name == "owner":
                    number = context.trees.numbers[int(table[OWNER][row])]
                    names[vaddr] = tree_name(fs, number)
                else:
                    column = table[one.colours.columns[0]]
                    names[vaddr] = list(one.colours.own_names(context))[int(column[row])]
        return names
    for vaddr, _, extent in extents(fs):
        if name == "age":
            names[vaddr] = next(
                label
                for label in active(fs, "age").colours.own_names(context)
                if includes(label, extent.generation)
            )
        else:
            assert name == "sharing"
            names[vaddr] = next(label for label, most in SHARING.items() if extent.refs <= most)
    return names


SHARING = {
    "1": 1,
    "2": 2,
    "3 or 4": 4,
    "5 to 8": 8,
    "9 to 16": 16,
    "17 to 64": 64,
    "65 to 256": 256,
    "more than 256": 1 << 64,
}


def includes(label: str, number: int) -> bool:
    """Return whether a label of a scale, '7' or '8 to 9', includes a number."""
    if label.startswith("between"):
        return False
    first, _, last = label.partition(" to ")
    return int(first) <= number <= int(last or first)


def on_devices(fs: FileSystem, vaddr: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yield device, address on it and length of everything that holds a range, one by one."""
    chunk_map = ChunkMap(fs.chunks())
    for at in range(vaddr, vaddr + length, SECTOR):
        for copy in chunk_map.copies(at, SECTOR):
            for piece in copy:
                yield piece.devid, piece.paddr, piece.length


def parity(fs: FileSystem, vaddr: int, length: int) -> Iterator[tuple[int, int]]:
    """Yield device and address of the sectors of parity of the rows that a range lies in."""
    chunk_map = ChunkMap(fs.chunks())
    for at in range(vaddr, vaddr + length, SECTOR):
        for row in chunk_map.rows(at, SECTOR):
            for piece in (row.p, row.q):
                if piece is not None:
                    begin = piece.paddr // 65536 * 65536
                    yield from ((piece.devid, begin + i * SECTOR) for i in range(16))


@pytest.mark.parametrize("name", OF_EXTENTS)
def test_every_sector_of_devices_has_the_colour_of_its_extent(fs: FileSystem, name: str) -> None:
    starts, start = {}, 0
    devices = list(fs.devices())
    for device in devices:
        starts[device.devid] = start
        start += device.total_bytes
    one = active(fs, name)
    names = expected_names(fs, name)
    expected: dict[int, str] = {}
    for vaddr, length, _ in extents(fs):
        for devid, paddr in parity(fs, vaddr, length):
            expected[starts[devid] + paddr] = "parity"
    for vaddr, length, _ in extents(fs):
        for devid, paddr, size in on_devices(fs, vaddr, length):
            assert size == SECTOR
            expected[starts[devid] + paddr] = names[vaddr]
    found = sectors(device_layer(fs, devices, active=one))
    palette = one.named_palette.names
    assert {at: palette[value] for at, value in found.items()} == expected


@pytest.mark.parametrize("name", OF_EXTENTS)
def test_every_sector_of_block_groups_has_the_colour_of_its_extent(
    fs: FileSystem, name: str
) -> None:
    groups = list(fs.block_groups())
    starts, start = {}, 0
    for group in groups:
        starts[group.vaddr] = start
        start += group.length
    one = active(fs, name)
    names = expected_names(fs, name)
    expected = {}
    for vaddr, length, _ in extents(fs):
        first = max(at for at in starts if at <= vaddr)
        for at in range(vaddr, vaddr + length, SECTOR):
            expected[starts[first] + at - first] = names[vaddr]
    found = sectors(extent_layer(fs, groups, active=one))
    palette = one.named_palette.names
    assert {at: palette[value] for at, value in found.items()} == expected


@pytest.mark.parametrize("name", OF_EXTENTS)
def test_chunks_show_the_same_amounts_as_devices(fs: FileSystem, name: str) -> None:
    one = active(fs, name)
    devices = list(fs.devices())
    on_line = Counter(sectors(device_layer(fs, devices, active=one)).values())
    packed = Counter(sectors(chunk_layer(fs, devices, active=one)).values())
    assert on_line == packed
    assert on_line


@pytest.mark.parametrize("walk", [heatmap.walk_dev_extents, heatmap.walk_chunks])
@pytest.mark.parametrize("name", NAMES)
def test_legends_count_every_byte(
    fs: FileSystem, name: str, walk: Callable[..., heatmap.Grid]
) -> None:
    grid = walk(fs, order=6, verbose=-1, colour=name)
    entries = grid.entries()
    assert sum(entry.length for entry in entries) == grid.total_bytes
    assert all(entry.name for entry in entries)
    if isinstance(colouring(name).at(grid.bytes_per_pixel), ExtentColours):
        *_, free, unallocated = entries
        assert (free.name, unallocated.name) == ("free", "not allocated")
        allocated = sum(extent.length for extent in fs.dev_extents())
        assert grid.total_bytes - unallocated.length == allocated


@pytest.mark.parametrize("name", OF_GROUPS)
def test_block_groups_have_their_colour(fs: FileSystem, name: str) -> None:
    one = colouring(name).groups
    assert one is not None
    grouped = GroupColouring(name, name, one)
    devices = list(fs.devices())
    layer = device_layer(fs, devices, active=grouped)
    shown: Counter[int] = Counter()
    for intervals in layer.batches(0):
        for length, value in zip(intervals.length.tolist(), intervals.value, strict=True):
            shown[int(value)] += length
    expected: Counter[int] = Counter()
    groups = {group.vaddr: group for group in fs.block_groups()}
    for extent in fs.dev_extents():
        expected[one.value(groups[extent.vaddr])] += extent.length
    assert shown == expected


def test_fill_is_a_scale_of_what_is_used(fs: FileSystem) -> None:
    fill = colouring("fill").groups
    assert fill is not None
    for group in fs.block_groups():
        name = fill.palette.names[fill.value(group)]
        low, high = (int(word) for word in name.removesuffix(" %").split(" to "))
        assert low <= 100 * used_part(group) <= high


def test_a_picture_of_extents_shows_single_sectors_if_no_order_is_given(fs: FileSystem) -> None:
    grid = heatmap.walk_dev_extents(fs, verbose=-1, colour="age")
    assert grid.bytes_per_pixel <= SECTOR or grid.order == 10
    assert heatmap.walk_dev_extents(fs, verbose=-1, colour="fill").order < 6


def test_descriptions_name_the_colour(fs: FileSystem, capsys: pytest.CaptureFixture[str]) -> None:
    heatmap.walk_dev_extents(fs, order=4, verbose=1, colour="type")
    told = capsys.readouterr().out
    assert "dev_extent devid 1" in told
    heatmap.walk_dev_extents(fs, order=4, verbose=1, colour="sharing")
    told = capsys.readouterr().out
    assert "dev_extent devid 1" in told
    assert " sharing 1" in told


# The registry.


def test_a_module_is_named_as_its_colouring_is() -> None:
    modules = sorted(module.name for module in pkgutil.iter_modules(registry.__path__))
    assert modules == sorted(NAMES) == colour_names()


def test_costs_follow_from_the_columns() -> None:
    costs = {one.name: one.cost for one in colourings()}
    assert costs["fill"] == costs["profile"] == Cost.BLOCK_GROUPS
    assert costs["age"] == costs["type"] == Cost.EXTENTS
    assert costs["compression"] == Cost.FILES


def test_a_colouring_without_colours_is_refused() -> None:
    with pytest.raises(ValueError, match="neither block groups nor extents"):
        Colouring("nothing", "nothing", "shows nothing", 1)


def test_an_unknown_colouring_is_refused(fs: FileSystem) -> None:
    with pytest.raises(heatmap.HeatmapError, match="unknown colour 'smell'") as error:
        heatmap.walk_chunks(fs, verbose=-1, colour="smell")
    assert error.value.hint is not None
    assert error.value.hint.startswith("there are type, fill")


def test_memory_is_bounded_with_many_parts(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extents that were dropped are read once more, and the picture is the same."""
    whole = heatmap.walk_dev_extents(fs, order=7, verbose=-1, colour="sharing").pixels
    monkeypatch.setattr("heatmap.layers.by_extents._KEPT_BYTES", 0)
    assert np.array_equal(
        whole, heatmap.walk_dev_extents(fs, order=7, verbose=-1, colour="sharing").pixels
    )
