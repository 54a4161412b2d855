"""The picture as a whole: its geometry, its words, and its legend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import heatmap
from heatmap import grid, palette
from heatmap.intervals import Intervals, heading
from heatmap.layers.base import Layer
from heatmap.legend import entry_text
from heatmap.walk import draw

GIB = 1 << 30

COLOURS = palette.palette({"white": 0xFFFFFF, "red": 0xFF0000, "blue": 0x0000FF})


def layer(*batches: Intervals, total_bytes: int = 4096) -> Layer:
    return Layer("a test", "test", total_bytes, 1, COLOURS, "nothing", lambda _: iter(batches))


def interval(start: int, length: int, value: int = 0, used: float | None = None) -> Intervals:
    return Intervals(
        np.array([start]),
        np.array([length]),
        np.array([value]),
        None if used is None else np.array([used]),
        descriptions=[f"here at {start}"],
    )


@pytest.mark.parametrize(
    ("total_bytes", "granularity", "order", "size", "expected"),
    [
        (20 * GIB, 32 << 20, None, None, (5, 10)),
        (20 * GIB, 32 << 20, None, 8, (5, 8)),
        (20 * GIB, 32 << 20, None, 3, (3, 3)),
        (20 * GIB, 32 << 20, 7, None, (7, 10)),
        (20 * GIB, 32 << 20, 12, None, (12, 12)),
        (20 * GIB, 32 << 20, 12, 13, (12, 13)),
        (20 * GIB, 32 << 20, 0, None, (0, 10)),
        (GIB, 4096, None, None, (9, 10)),
        (4 * GIB, 4096, None, None, (10, 10)),
        (4000 * GIB, 4096, None, None, (10, 10)),
        (1, 4096, None, None, (0, 10)),
        (1 << 60, 1, None, 14, (10, 14)),
    ],
)
def test_geometry(
    total_bytes: int,
    granularity: int,
    order: int | None,
    size: int | None,
    expected: tuple[int, int],
) -> None:
    assert grid.choose_geometry(total_bytes, granularity, order, size) == expected


@pytest.mark.parametrize(
    ("total_bytes", "order", "size", "complaint"),
    [
        (GIB, 9, 8, r"size \(8\) cannot be smaller than order \(9\)"),
        (GIB, 15, None, "order 15 out of range"),
        (GIB, -1, None, "order -1 out of range"),
        (GIB, None, 15, "size 15 out of range"),
        (0, None, None, "cannot draw 0 bytes"),
        (1 << 63, None, None, "cannot draw"),
    ],
)
def test_no_such_geometry(
    total_bytes: int, order: int | None, size: int | None, complaint: str
) -> None:
    with pytest.raises(heatmap.HeatmapError, match=complaint) as caught:
        grid.choose_geometry(total_bytes, 4096, order, size)
    assert caught.value.hint


@pytest.mark.parametrize("min_brightness", [-0.01, 1.01, float("nan")])
def test_min_brightness_out_of_range(min_brightness: float) -> None:
    with pytest.raises(ValueError, match="min_brightness out of range"):
        draw(layer(), min_brightness=min_brightness)


def test_unknown_curve() -> None:
    with pytest.raises(heatmap.HeatmapError, match="unknown curve 'spiral'"):
        draw(layer(), curve="spiral")


def test_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    batches = [heading("a heading"), interval(1024, 2048, used=0.5), interval(3072, 1)]
    draw(layer(*batches), (1, 1), verbose=3, curve="linear").write_png(target)
    assert capsys.readouterr().out.splitlines() == [
        "scope test",
        "grid curve linear order 1 size 1 height 2 width 2 total_bytes 4096 bytes_per_pixel 1024.0",
        "a heading",
        "here at 1024",
        "    first_pixel 1 100.00% last_pixel 2 100.00%",
        "        pixel y 0 x1 linear 1 rgb #8c8c8c",
        "here at 3072",
        "        pixel y 1 x0 linear 2 rgb #8c8c8c",
        "    in_pixel 3 0.10%",
        f"pngfile {target}",
        "        pixel y 1 x1 linear 3 rgb #000000",
    ]


def test_more_words_at_higher_verbosity(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    told = []
    for verbose in range(-2, 6):
        drawn = draw(layer(interval(0, 3000)), (1, 1), verbose=verbose)
        drawn.write_png(tmp_path / "picture.png")
        told.append(len(capsys.readouterr().out.splitlines()))
    assert told == [0, 0, 3, 4, 5, 9, 9, 9]


def test_the_curve_is_named_unless_it_is_the_usual_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw(layer(), (1, 1))
    draw(layer(), (1, 1), curve="snake")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("grid order 1 ")
    assert lines[3].startswith("grid curve snake order 1 ")


def test_pixels_and_image(tmp_path: Path) -> None:
    drawn = draw(layer(interval(0, 1024, value=1)), (1, 3), curve="linear")
    assert drawn.pixels.tolist() == [[[255, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]
    drawn.write_png(tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (8, 8))
        written = np.asarray(image)
    assert np.array_equal(written, drawn.pixels.repeat(4, axis=0).repeat(4, axis=1))


def test_filling_goes_on_until_the_pixels_are_looked_at() -> None:
    drawn = draw(layer(interval(0, 1024)), (1, 1))
    drawn.fill(interval(2048, 1024))
    assert drawn.pixels.any(axis=2).sum() == 2
    with pytest.raises(ValueError, match="finished"):
        drawn.fill(interval(3072, 1024))


def test_progress() -> None:
    seen = []
    draw(
        layer(interval(0, 1024), heading("nothing"), interval(2048, 1024)),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1024, 4096), (3072, 4096)]


def test_legend_entries() -> None:
    drawn = draw(layer(interval(0, 100, 2, used=0.25), interval(200, 300, 2, used=1.0)))
    blue, rest = drawn.entries()
    assert blue == palette.LegendEntry("blue", (0, 0, 255), 400, 325)
    assert rest == palette.LegendEntry("nothing", (0, 0, 0), 3696, 0)
    assert entry_text(blue) == "blue  400.00B, 81% used"
    assert entry_text(rest) == "nothing  3.61KiB"


def test_used_parts_that_round_to_nothing() -> None:
    assert entry_text(palette.LegendEntry("x", (0, 0, 0), 1 << 30, 1)).endswith(", <1% used")
    assert entry_text(palette.LegendEntry("x", (0, 0, 0), 1 << 30, 0)) == "x  1.00GiB"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (["foo", "bar"], "foo_bar_at_1482095269.png"),
        (["fsid", 12], "fsid_12_at_1482095269.png"),
        (None, "1482095269.png"),
    ],
)
def test_file_names(
    parts: list[object] | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heatmap.walk.time.time", lambda: 1482095269.7)
    assert heatmap.generate_png_file_name(parts=parts) == name
    assert heatmap.generate_png_file_name(tmp_path, parts) == str(tmp_path / name)
    assert heatmap.generate_png_file_name(f"{tmp_path}/", parts) == str(tmp_path / name)
    assert heatmap.generate_png_file_name("some/file.png", parts) == "some/file.png"
