"""Palettes for numbers: even, and good for all eyes; and steps that are what their labels say."""

from __future__ import annotations

import re
from itertools import combinations

import numpy as np
import pytest
from hypothesis import example, given, strategies as st
from numpy.typing import NDArray

from heatmap import scales

Floats = NDArray[np.float64]

# What is left of linear sRGB; the last two by Viénot, Brettel and Mollon (1999).
EYES = {
    "normal": np.eye(3),
    "no red cones": np.array(
        [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]
    ),
    "no green cones": np.array(
        [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]
    ),
}


def as_seen(colours: NDArray[np.uint8], eyes: str) -> Floats:
    """Return what is seen of colours, in linear sRGB, 0 to 1."""
    value = colours / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen: Floats = np.clip(linear @ EYES[eyes].T, 0, 1)
    return seen


def luminance(linear: Floats) -> Floats:
    light: Floats = linear @ np.array([0.2126, 0.7152, 0.0722])
    return light


def lab(linear: Floats) -> Floats:
    """Return colours in CIE L*a*b* (D65)."""
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    ratio = linear @ to_xyz.T / to_xyz.sum(axis=1)
    x, y, z = np.where(ratio > 216 / 24389, np.cbrt(ratio), ratio * 841 / 108 + 4 / 29).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("steps", [5, 16, 64])
def test_a_scale_gets_lighter_evenly(eyes: str, steps: int) -> None:
    colours = scales.sequential(steps)
    assert colours.shape == (steps, 3)
    assert colours.dtype == np.uint8
    lightness = lab(as_seen(colours, eyes))[:, 0]
    rise = np.diff(lightness)
    even = (lightness[-1] - lightness[0]) / (steps - 1)
    assert rise.sum() > 70
    # Colours have whole numbers: of so many steps some must come out longer than others.
    assert rise.min() > 0.6 * even
    assert rise.max() < 1.4 * even


def test_the_scale_is_cividis() -> None:
    published = {0: 0x00224E, 32: 0x1A386F, 64: 0x434E6C, 128: 0x7D7C78, 255: 0xFEE838}
    colours = scales.sequential(256).astype(np.int64)
    for index, colour in published.items():
        assert np.abs(colours[index] - list(colour.to_bytes(3, "big"))).max() <= 5


def test_a_scale_of_one_step() -> None:
    assert scales.sequential(1).shape == (1, 3)


def test_categories_are_seen_on_black_and_on_white() -> None:
    colours = scales.categorical(256)
    assert colours.dtype == np.uint8
    light = luminance(as_seen(colours, "normal"))
    assert ((light + 0.05) / 0.05).min() > 2.95
    assert (1.05 / (light + 0.05)).min() > 2.95


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize(("count", "apart"), [(8, 9), (16, 6), (24, 4)])
def test_categories_are_apart(eyes: str, count: int, apart: float) -> None:
    seen = lab(as_seen(scales.categorical(count), eyes))
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) > apart


def test_a_category_keeps_its_colour() -> None:
    many = scales.categorical(700)
    for count in (0, 1, 8, 9, 100, 256, 257):
        assert scales.categorical(count).shape == (count, 3)
        assert (scales.categorical(count) == many[:count]).all()
    assert len(np.unique(many[:256], axis=0)) == 256
    assert (many[256:512] == many[:256]).all()


def test_steps() -> None:
    values = np.array([-(1 << 63), -1, 0, 9, 10, 55, 99, 100, 101, (1 << 63) - 1])
    steps = scales.steps_of(values, 0, 100, 10)
    assert steps.dtype == np.uint8
    assert steps.tolist() == [0, 0, 0, 0, 1, 5, 9, 9, 9, 9]
    assert scales.steps_of(np.array([0, 7], np.uint8), 0, 1000, 1000).dtype == np.uint16
    assert scales.steps_of(np.array([], np.int64), 0, 10, 64).tolist() == []


def test_a_scale_of_one_number() -> None:
    assert scales.steps_of(np.array([6, 7, 8]), 7, 7, 4).tolist() == [0, 0, 3]
    assert scales.labels(7, 7, 2) == ["7", "8"]


def test_labels() -> None:
    assert scales.labels(0, 100, 4) == ["0 to 24", "25 to 49", "50 to 74", "75 to 100"]
    assert scales.labels(5, 7, 4) == ["5", "between 5 and 6", "6", "7"]


numbers = st.one_of(st.integers(-300, 300), st.integers(-(1 << 63), (1 << 63) - 1))


@given(numbers, numbers, st.integers(1, 300), st.lists(numbers, min_size=1))
@example((1 << 63) - 1, (1 << 63) - 1, 64, [0])
@example(-(1 << 63), (1 << 63) - 1, 1 << 16, [0])
def test_steps_are_what_labels_say(one: int, two: int, steps: int, values: list[int]) -> None:
    lowest, highest = sorted((one, two))
    names = scales.labels(lowest, highest, steps)
    assert len(names) == steps
    shown = [*values, lowest, highest]
    found = scales.steps_of(np.array(shown, np.int64), lowest, highest, steps).tolist()
    for value, step in zip(shown, found, strict=True):
        first, last = ends(names[step])
        # A scale is at least one long.
        assert first <= min(max(value, lowest), max(highest, lowest + 1)) <= last


def ends(name: str) -> tuple[int, int]:
    """Return the first and the last number on a step by its label, which has to have some."""
    match = re.fullmatch(r"(-?\d+)(?: to (-?\d+))?", name)
    assert match is not None, name
    return int(match[1]), int(match[2] or match[1])
