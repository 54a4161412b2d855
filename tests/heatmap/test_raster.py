"""The engine: what pixels of random intervals are, by another way of computing them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from heatmap import curves
from heatmap.intervals import Intervals
from heatmap.palette import palette
from heatmap.raster import Canvas, Raster, Span, draw_tile, overlapped_pixels, shade

COLOURS = palette({"white": 0xFFFFFF, "blue": 0x0000FF, "green": 0x6EA634, "pale": 0xAACCEB})

MIN_BRIGHTNESS = 0.1


@st.composite
def lines(draw: st.DrawFn, per_pixel: int | None = None) -> tuple[int, int, Intervals]:
    """Return the length of a line, an order, and intervals on the line."""
    order = draw(st.integers(0, 5))
    lengths = st.integers(4**order, 1 << 44) if per_pixel is None else st.just(per_pixel * 4**order)
    total = draw(lengths)
    borders = draw(st.lists(st.integers(0, total), max_size=60).map(sorted))
    pairs = list(zip(borders[::2], borders[1::2], strict=False))
    count = len(pairs)
    value = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    used = draw(st.none() | st.lists(st.floats(0, 1, width=16), min_size=count, max_size=count))
    return total, order, intervals(pairs, value, used)


def intervals(
    pairs: Iterable[tuple[int, int]], value: list[int], used: list[float] | None = None
) -> Intervals:
    borders = np.array(list(pairs), dtype=np.int64).reshape(-1, 2)
    return Intervals(
        borders[:, 0],
        borders[:, 1] - borders[:, 0],
        np.array(value, dtype=np.uint8),
        None if used is None else np.array(used, dtype=np.float64),
    )


def batches(whole: Intervals, size: int) -> Iterator[Intervals]:
    for first in range(0, len(whole), size):
        part = slice(first, first + size)
        used = None if whole.used is None else whole.used[part]
        yield Intervals(whole.start[part], whole.length[part], whole.value[part], used)


def draw(
    line: tuple[int, int], shown: Iterable[Intervals], curve: str = "linear"
) -> NDArray[np.uint8]:
    """Draw a whole picture."""
    total, order = line
    raster = Raster(Span(total, order), COLOURS, MIN_BRIGHTNESS)
    canvas = Canvas(curves.pieces(curve, order), 1 << order)
    for batch in shown:
        canvas.draw(raster.add(batch))
    canvas.draw(raster.finish())
    canvas.finish()
    return canvas.pixels


def expected(total: int, order: int, shown: Intervals) -> NDArray[np.uint8]:
    """Compute every pixel by the formula, each from all intervals, in the order of the line."""
    count = 4**order
    colour = np.zeros((count, 3))
    in_use = np.zeros(count)
    for i in range(len(shown)):
        begin, end = int(shown.start[i]), int(shown.start[i] + shown.length[i])
        used = 1.0 if shown.used is None else shown.used[i]
        for pixel in range(count):
            # In units of 1 / count bytes, everything is a whole number.
            covered = min(end * count, (pixel + 1) * total) - max(begin * count, pixel * total)
            if covered > 0:
                colour[pixel] += covered / total * COLOURS.colours[shown.value[i]]
                in_use[pixel] += covered / total * used
    brightness = MIN_BRIGHTNESS + (1 - MIN_BRIGHTNESS) * in_use
    return np.minimum(np.rint(colour * brightness[:, np.newaxis]), 255).astype(np.uint8)


@given(line=lines(per_pixel=4096))
def test_pixels_follow_the_formula(line: tuple[int, int, Intervals]) -> None:
    total, order, shown = line
    drawn = draw((total, order), [shown]).reshape(-1, 3).astype(int)
    assert abs(drawn - expected(total, order, shown)).max() <= 1


@given(line=lines(), size=st.integers(1, 9), curve=st.sampled_from(curves.CURVES))
def test_how_it_is_cut_into_batches_does_not_matter(
    line: tuple[int, int, Intervals], size: int, curve: str
) -> None:
    total, order, shown = line
    whole = draw((total, order), [shown], curve)
    assert np.array_equal(draw((total, order), batches(shown, size), curve), whole)


@given(line=lines(), data=st.data(), curve=st.sampled_from(curves.CURVES))
def test_tile_equals_part_of_the_whole(
    line: tuple[int, int, Intervals], data: st.DataObject, curve: str
) -> None:
    total, order, shown = line
    tile_order = data.draw(st.integers(0, order))
    last = (1 << (order - tile_order)) - 1
    row, column = data.draw(st.integers(0, last)), data.draw(st.integers(0, last))
    side = 1 << tile_order
    whole = draw((total, order), [shown], curve).astype(int)
    tile = draw_tile(batches(shown, 7), COLOURS, (total, order), curve, (tile_order, row, column))
    part = whole[row * side : (row + 1) * side, column * side : (column + 1) * side]
    # The tile counts from where it begins, so the last bit of a fraction may differ.
    assert abs(part - tile).max() <= 1


@given(line=lines(per_pixel=4096))
def test_coverage_adds_up_to_the_bytes(line: tuple[int, int, Intervals]) -> None:
    total, order, shown = line
    keep = shown.length > 0
    start, length = shown.start[keep], shown.length[keep]
    touch = overlapped_pixels(Span(total, order), start, length)
    between = np.maximum(touch.last - touch.first - 1, 0)
    pixels = touch.in_first + touch.in_last + between
    assert (pixels * 4096).round(6).tolist() == length.tolist()


def test_the_same_picture_along_every_curve() -> None:
    shown = intervals([(3, 900), (1000, 2048), (2048, 2050)], [0, 1, 2], [0.5, 1.0, 0.0])
    line = draw((4096, 5), [shown], "linear").reshape(-1, 3)
    for curve in curves.CURVES:
        assert np.array_equal(draw((4096, 5), [shown], curve), line[curves.positions(curve, 5)])


def test_where_intervals_overlap_the_first_one_counts() -> None:
    overlapping = intervals([(0, 512), (256, 768), (300, 400), (500, 600)], [0, 1, 2, 3])
    apart = intervals([(0, 512), (512, 768)], [0, 1])
    for size in (1, 2, 3, 4):
        drawn = draw((1024, 3), batches(overlapping, size))
        assert np.array_equal(drawn, draw((1024, 3), [apart]))


def test_a_pixel_is_filled_by_several_batches() -> None:
    whole = intervals([(i, i + 1) for i in range(0, 4096, 2)], [i % 4 for i in range(2048)])
    drawn = draw((4096, 1), [whole])
    assert np.array_equal(draw((4096, 1), batches(whole, 100)), drawn)
    assert drawn.any(axis=2).all()


def test_nothing_is_black() -> None:
    assert not draw((1 << 30, 3), []).any()
    assert not draw((1 << 30, 3), [intervals([], [])]).any()


def test_one_interval_over_many_pieces() -> None:
    drawn = draw((1 << 40, 10), [intervals([(0, 1 << 40)], [1])], "hilbert")
    assert (drawn == (0, 0, 255)).all()


def test_the_last_byte_decides_about_the_last_pixel() -> None:
    # 10 bytes on 4 pixels: pixel 1 begins in the middle of byte 2, which belongs to pixel 0 then.
    span = Span(10, 1)
    touch = overlapped_pixels(span, np.array([0]), np.array([3]))
    assert (touch.first[0], touch.last[0]) == (0, 0)
    touch = overlapped_pixels(span, np.array([0]), np.array([8]))
    assert (touch.first[0], touch.last[0]) == (0, 2)
    assert touch.in_last[0] == pytest.approx(0.2)


def test_addresses_deep_in_a_long_line() -> None:
    order = 24
    total = 4096 * 4**order
    first = 4**order - 4
    span = Span(total, order, first)
    addresses = np.array([first * 4096, first * 4096 + 1, total])
    assert span.pixels(addresses).tolist() == [0, 1 / 4096, 4]


def test_a_span_can_begin_inside_a_byte() -> None:
    # 10 bytes on 4 pixels: pixel 1 begins in the middle of byte 2.
    assert Span(10, 1, first=1).pixels(np.array([0, 5, 10])).tolist() == [-1, 1, 3]


def test_shade_rounds_half_to_even() -> None:
    colour = np.array([[0.5, 1.5, 2.5], [300.0, 255.4, -0.2]])
    packed = shade(colour, np.ones(2), 0.0)
    assert packed.view(np.uint8).reshape(2, 4)[:, :3].tolist() == [[0, 2, 2], [255, 255, 0]]


def test_min_brightness_shows_what_is_empty() -> None:
    colour = np.array([[255.0, 100.0, 0.0]])
    unused = np.zeros(1)
    assert shade(colour, unused, 0.1).view(np.uint8).tolist() == [26, 10, 0, 0]
    assert shade(colour, unused, 0.0).view(np.uint8).tolist() == [0, 0, 0, 0]
