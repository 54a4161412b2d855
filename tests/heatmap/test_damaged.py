"""Pictures of filesystems of which a part cannot be read: that part is hatched, and no other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

import heatmap
from btrfs import FileSystem
from btrfs.ctree import DevItem
from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from btrfs.source.damage import LostKeys
from heatmap import curves, hatching, legend, terminal, unreadable
from heatmap.errors import HeatmapError
from heatmap.layers import block_groups
from heatmap.layers.extents import extents as extent_layer
from heatmap.palette import UNREADABLE
from heatmap.raster import draw_tile
from tests import support
from tests.library.reading import damaged, leaves

EXTENT_TREE, DEV_TREE = constants.EXTENT_TREE_OBJECTID, constants.DEV_TREE_OBJECTID
CHUNK_TREE, BLOCK_GROUP_TREE = constants.CHUNK_TREE_OBJECTID, constants.BLOCK_GROUP_TREE_OBJECTID
ORDER = 5
DATA = 13631488
"""The block group of data."""

Pixels = NDArray[np.uint8]
LINE = block_groups.BLOCK_GROUPS.line_colour
BETWEEN = hatching.tint(np.zeros(3, np.uint8), LINE)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.stored_image("block-group-tree.img", tmp_path_factory.mktemp("image"))


def devices(fs: FileSystem, **options: Any) -> heatmap.Grid:
    return heatmap.walk_dev_extents(fs, order=ORDER, verbose=-1, **options)


def chunks(fs: FileSystem, **options: Any) -> heatmap.Grid:
    return heatmap.walk_chunks(fs, order=ORDER, verbose=-1, **options)


def extents(fs: FileSystem, **options: Any) -> heatmap.Grid:
    return heatmap.walk_extents(fs, [fs.block_group(DATA)], order=ORDER, verbose=-1, **options)


def is_hatched(pixels: Pixels) -> NDArray[np.bool_]:
    return np.asarray((pixels == LINE).all(axis=2) | (pixels == BETWEEN).all(axis=2))


@pytest.mark.parametrize("curve", ["hilbert", "linear", "snake"])
def test_the_part_that_is_lost_is_hatched(image: Path, tmp_path: Path, curve: str) -> None:
    with FileSystem(image) as fs:
        whole = extents(fs, curve=curve).pixels
        first, second = leaves(fs, EXTENT_TREE)
        assert second.min_key is not None
        begin = (Key(0, 0, 0) + second.min_key).objectid - DATA
    with FileSystem(damaged(image, tmp_path, EXTENT_TREE, 1), on_error="skip") as fs:
        grid = extents(fs, curve=curve)
    rows, columns = np.indices((1 << ORDER, 1 << ORDER))
    position = curve_positions(curve)
    lost = position >= -(-begin // grid.bytes_per_pixel)
    assert lost.any()
    # The pixel that it begins in shows a bit of both.
    border = position == begin // grid.bytes_per_pixel
    assert np.array_equal(is_hatched(grid.pixels)[~border], lost[~border])
    assert np.array_equal(grid.pixels[~lost & ~border], whole[~lost & ~border])
    assert not np.array_equal(grid.pixels[border], whole[border])
    on_line = (grid.pixels == LINE).all(axis=2)
    assert np.array_equal(on_line[lost], hatching.is_line(rows + columns)[lost])
    entry = next(entry for entry in grid.entries() if entry.name == UNREADABLE)
    assert entry.hatched
    assert entry.length == (8 << 20) - begin
    assert first.max_key < second.min_key


def curve_positions(curve: str) -> NDArray[np.int64]:
    """Return the position along the curve of each pixel."""
    rows, columns = curves.pixels_at(curve, ORDER, np.arange(4**ORDER))
    positions = np.empty((1 << ORDER, 1 << ORDER), np.int64)
    positions[rows, columns] = np.arange(4**ORDER)
    return positions


def test_the_beginning_of_the_extent_tree(image: Path, tmp_path: Path) -> None:
    """What follows the lost leaf is drawn as before."""
    with FileSystem(image) as fs:
        whole = extents(fs).pixels
        known = Key(0, 0, 0) + leaves(fs, EXTENT_TREE)[0].max_key + 1
    with FileSystem(damaged(image, tmp_path, EXTENT_TREE, 0), on_error="skip") as fs:
        grid = extents(fs)
    border = (known.objectid - DATA) // grid.bytes_per_pixel
    assert is_hatched(grid.pixels)[curve_positions("hilbert") < border].all()
    behind = curve_positions("hilbert") > border
    assert np.array_equal(grid.pixels[behind], whole[behind])


@pytest.mark.parametrize("draw", [devices, chunks])
def test_block_groups_that_are_lost(
    image: Path, tmp_path: Path, draw: Callable[..., heatmap.Grid]
) -> None:
    """How full they are is not known, but where they are is."""
    with FileSystem(image) as fs:
        whole = draw(fs)
    with FileSystem(damaged(image, tmp_path, BLOCK_GROUP_TREE), on_error="skip") as fs:
        grid = draw(fs)
    assert np.array_equal(is_hatched(grid.pixels), whole.pixels.any(axis=2))
    (unread, rest), (*others, same_rest) = grid.entries(), whole.entries()
    assert unread.name == UNREADABLE
    assert unread.length == sum(entry.length for entry in others)
    assert rest == same_rest


def test_what_is_lost_counts_once(image: Path) -> None:
    """However many leaves are lost side by side, and where what is known reaches into them."""
    with FileSystem(image) as fs:
        known = next(iter(fs.dev_extents()))
        damage = cast("Any", fs.source).log
        begin = Key(known.devid, constants.DEV_EXTENT_KEY, known.paddr) + 1
        middle = Key(known.devid, constants.DEV_EXTENT_KEY, 100 << 20)
        damage.add_lost(LostKeys(DEV_TREE, begin, middle - 1, "made up"))
        damage.add_lost(LostKeys(DEV_TREE, middle, Key(-1, -1, -1), "made up"))
        lose_a_chunk(fs)
        fs.dev_extents = lambda *_: iter([known])  # type: ignore[method-assign]
        grid = devices(fs)
    lengths = {entry.name: entry.length for entry in grid.entries()}
    assert lengths["data"] == known.length
    assert lengths[UNREADABLE] == grid.total_bytes - known.paddr - known.length
    assert sum(lengths.values()) == grid.total_bytes


def test_device_tree_that_is_lost(image: Path, tmp_path: Path) -> None:
    """The chunks tell the same."""
    with FileSystem(image) as fs:
        whole = devices(fs).pixels, chunks(fs).pixels
    with FileSystem(damaged(image, tmp_path, DEV_TREE), on_error="skip") as fs:
        assert np.array_equal(devices(fs).pixels, whole[0])
        assert fs.lost
        assert np.array_equal(chunks(fs).pixels, whole[1])


def test_device_tree_and_a_chunk_that_are_lost(image: Path, tmp_path: Path) -> None:
    with FileSystem(damaged(image, tmp_path, DEV_TREE), on_error="skip") as fs:
        lose_a_chunk(fs)
        assert is_hatched(devices(fs).pixels).all()


def lose_a_chunk(fs: FileSystem) -> None:
    key = next(fs.chunks()).key
    cast("Any", fs.source).log.add_lost(LostKeys(CHUNK_TREE, key, key, "made up"))


def test_chunk_tree_that_is_lost(image: Path, tmp_path: Path) -> None:
    """Nothing can be drawn without it, and that is what the error says."""
    with FileSystem(damaged(image, tmp_path, CHUNK_TREE), on_error="skip") as fs:
        for draw in (devices, chunks):
            with pytest.raises(HeatmapError, match="the devices are not known: tree block at"):
                draw(fs)


def test_chunk_that_is_lost(image: Path) -> None:
    """Its device extents tell how large it is."""
    with FileSystem(image) as fs:
        whole = chunks(fs).pixels
        all_chunks = list(fs.chunks())
        key = all_chunks[1].key
        damage = cast("Any", fs.source).log
        damage.add_lost(LostKeys(CHUNK_TREE, key, key, "made up"))
        fs.chunks = lambda *_: iter([all_chunks[0], *all_chunks[2:]])  # type: ignore[method-assign]
        assert np.array_equal(chunks(fs).pixels, whole)


def test_everything_can_be_read(image: Path) -> None:
    with FileSystem(image, on_error="skip") as fs:
        for draw in (devices, chunks, extents):
            grid = draw(fs)
            assert not is_hatched(grid.pixels).any()
            assert UNREADABLE not in [entry.name for entry in grid.entries()]


def test_lines_are_as_fine_as_the_image(image: Path, tmp_path: Path) -> None:
    with FileSystem(damaged(image, tmp_path, DEV_TREE), on_error="skip") as fs:
        lose_a_chunk(fs)
        shown = np.asarray(devices(fs, size=7).image())
    rows, columns = np.indices((128, 128))
    on_line = hatching.is_line(rows + columns)
    assert (shown[on_line] == LINE).all()
    assert (shown[~on_line] == BETWEEN).all()


def test_tiles_fit_together(image: Path, tmp_path: Path) -> None:
    with FileSystem(damaged(image, tmp_path, EXTENT_TREE, 1), on_error="skip") as fs:
        whole = extents(fs).pixels
        layer = extent_layer(fs, [fs.block_group(DATA)])
        for order in range(ORDER):
            count = 1 << (ORDER - order)
            tiles = [
                [
                    draw_tile(
                        layer.batches(0),
                        layer.palette,
                        (layer.total_bytes, ORDER),
                        "hilbert",
                        (order, row, column),
                    )
                    for column in range(count)
                ]
                for row in range(count)
            ]
            assert np.array_equal(np.block([[[tile] for tile in row] for row in tiles]), whole)


def test_hatching_band_by_band(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = np.arange(16 * 16, dtype=np.uint32).reshape(16, 16)
    packed[3:11, 5:] += np.uint32(hatching.HATCHED)
    at_once = hatching.hatched(packed, LINE, (1, 2))
    monkeypatch.setattr(hatching, "_BAND_PIXELS", 3 * 16)
    assert np.array_equal(hatching.hatched(packed, LINE, (1, 2)), at_once)
    assert not np.array_equal(at_once, packed)
    assert (at_once < hatching.HATCHED).all()


def test_single_pixels_are_seen() -> None:
    """Wherever they are, and whatever there is besides."""
    colours = np.array([[0, 0, 0], [255, 255, 255], [0, 0, 255], [255, 0, 51]], np.uint8)
    tinted = hatching.tint(colours, LINE)
    assert (np.abs(tinted.astype(int) - colours).max(axis=1) > 50).all()


def test_legend_and_words(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FileSystem(damaged(image, tmp_path, DEV_TREE), on_error="skip") as fs:
        lose_a_chunk(fs)
        grid = heatmap.walk_dev_extents(fs, order=ORDER, verbose=1)
        said = legend.legend_of(fs, grid)
    assert "devid 1 paddr 0 length 268435456 could not be read" in capsys.readouterr().out
    assert any("//// " in line.replace("\x1b[0m", " ") for line in terminal.legend_lines(said))
    strip = np.asarray(legend.add_legend(grid.image(), said))[1024:]
    assert (strip == LINE).all(axis=2).sum() > 100


# Where lost keys are on the line.

DEVICE = cast("DevItem", SimpleNamespace(devid=2, total_bytes=1000))


def key(devid: int, paddr: int, key_type: int = constants.DEV_EXTENT_KEY) -> Key:
    return Key(devid, key_type, paddr)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (Key(0, 0, 0), Key(-1, -1, -1), (0, 1000)),
        (key(2, 100), key(2, 299), (100, 300)),
        (key(2, 100), key(2, 100), (100, 300)),
        (key(1, 5), key(2, 299), (0, 300)),
        (key(2, 600), key(3, 7), (600, 1000)),
        (key(2, 600), key(2, 0, 205), (600, 1000)),
        (key(1, 5), key(1, 900), None),
        (key(3, 5), key(3, 900), None),
    ],
    ids=str,
)
def test_ranges_of_a_device(first: Key, last: Key, expected: tuple[int, int] | None) -> None:
    """What is lost reaches up to the next device extent that is known."""
    fs = SimpleNamespace(lost=[LostKeys(DEV_TREE, first, last, "")])
    found = unreadable.on_device(cast("FileSystem", fs), DEVICE, [0, 300, 500])
    assert found == ([] if expected is None else [expected])


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ((100, 168, 50), (199, 0, 0), (100, 199)),
        ((100, 168, 50), (100, 168, 50), (100, 101)),
        ((100, 178, 7), (300, 168, 9), (101, 301)),
        ((100, 178, 7), (100, 178, 9), None),
        ((1, 168, 5), (60, 168, 5), (50, 61)),
        ((390, 168, 5), (700, 168, 5), (390, 400)),
        ((1, 168, 5), (9, 168, 5), None),
    ],
    ids=str,
)
def test_where_lost_extents_begin(
    first: tuple[int, int, int], last: tuple[int, int, int], expected: tuple[int, int] | None
) -> None:
    fs = SimpleNamespace(lost=[LostKeys(EXTENT_TREE, Key(*first), Key(*last), "")])
    found = unreadable.extent_starts(cast("FileSystem", fs), (50, 400))
    assert found == ([] if expected is None else [expected])
