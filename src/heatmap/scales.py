"""Palettes for numbers: steps of a scale, and colours for any number of things.

Both are for everybody's eyes. The lightness of a scale rises evenly, so that more is always
lighter; colours of things differ also for those who do not tell red from green. What lies between
given colours is found in OKLab (Ottosson 2020), where equal distances look equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["categorical", "labels", "sequential", "steps_of"]

Colours = NDArray[np.uint8]
Floats = NDArray[np.float64]
Steps = NDArray[np.uint8] | NDArray[np.uint16]


def sequential(steps: int = 64) -> Colours:
    """Return the colours of a scale, from dark blue to light yellow: cividis.

    It is the one of Nuñez, Anderton and Renslow (2018), by a few of its colours as matplotlib has
    published them (CC0).

    Args:
        steps: How many, at least 1.

    Returns:
        Array (steps, 3), red, green, blue, lowest first.
    """
    position = np.linspace(0, max(_CIVIDIS), steps)
    anchors = _oklab(_linear(_triples(_CIVIDIS.values())))
    between = [np.interp(position, list(_CIVIDIS), column) for column in anchors.T]
    return _colours(np.stack(between, axis=1))


def categorical(count: int) -> Colours:
    """Return colours for things that have no order, each of which is seen on black and on white.

    The first eight have the hues of Okabe and Ito (2008). Each further one is as far as can be from
    all before it. A thing keeps its colour however many there are; after 256 they begin again.

    Args:
        count: How many.

    Returns:
        Array (count, 3), red, green, blue.
    """
    known = _triples(_FIRST) if count <= len(_FIRST) else _all_categorical()
    return known[np.arange(count) % len(known)]


def steps_of(values: NDArray[np.integer], lowest: int, highest: int, steps: int) -> Steps:
    """Return which step of a scale each value is on, counted from 0.

    Steps are equally long, but for rounding. What is beyond an end of the scale is on the step at
    that end. A scale is at least one long.

    Args:
        values: Whole numbers below 2^63.
        lowest: Where the scale begins.
        highest: Its end, which is on the last step; also below 2^63.
        steps: How many, 1 to 65536.
    """
    highest = max(highest, lowest + 1)
    shift, span = _units(lowest, highest, steps)
    last = min(highest, np.iinfo(np.int64).max)
    inside = np.clip(values.astype(np.int64, copy=False), lowest, last)
    # Only without a sign there is room for the distance of any two.
    above = inside.astype(np.uint64) - np.uint64(lowest % (1 << 64)) >> np.uint64(shift)
    step: NDArray[np.uint64] = np.minimum(
        above * np.uint64(steps) // np.uint64(span), np.uint64(steps - 1)
    )
    return step.astype(np.uint8) if steps <= 1 << 8 else step.astype(np.uint16)


def labels(lowest: int, highest: int, steps: int) -> list[str]:
    """Return which values are on each step of a scale, as `steps_of` counts: '6 to 7', '8'.

    Args:
        lowest: Where the scale begins.
        highest: Its end.
        steps: How many, 1 to 65536.
    """
    highest = max(highest, lowest + 1)
    shift, span = _units(lowest, highest, steps)
    starts = [lowest + (-(-span * step // steps) << shift) for step in range(steps)]
    return [_label(start, stop - 1) for start, stop in pairwise([*starts, highest + 1])]


def _units(lowest: int, highest: int, steps: int) -> tuple[int, int]:
    """Return the bits to leave out of distances so that 64 are enough, and the longest distance."""
    span = highest - lowest
    shift = max(0, (span * steps).bit_length() - 64)
    return shift, span >> shift


def _label(first: int, last: int) -> str:
    if first < last:
        return f"{first} to {last}"
    # There are more steps than numbers, and this one has none.
    return f"{first}" if first == last else f"between {last} and {first}"


@cache
def _all_categorical() -> Colours:
    """Return the first colours, then always the one that is farthest from all before it."""
    colours = np.concatenate([_triples(_FIRST), _candidates()])
    seen = _as_seen(colours)
    chosen = list(range(len(_FIRST)))
    nearest = np.full(len(colours), np.inf)
    for index in chosen:
        np.minimum(nearest, _distances(seen, index), out=nearest)
    while len(chosen) < _CATEGORIES:
        chosen.append(int(np.argmax(nearest)))
        np.minimum(nearest, _distances(seen, chosen[-1]), out=nearest)
    return colours[chosen]


def _distances(seen: Floats, index: int) -> Floats:
    """Return how far each colour is from one of them, for whom they differ least."""
    apart: Floats = np.sqrt(((seen - seen[:, index, None]) ** 2).sum(axis=2)).min(axis=0)
    return apart


def _as_seen(colours: Colours) -> Floats:
    """Return colours in OKLab as those with each kind of eyes see them: (kinds, colours, 3)."""
    linear = _linear(colours)
    return np.stack([_oklab(np.clip(linear @ eyes.T, 0, 1)) for eyes in _EYES])


def _candidates() -> Colours:
    """Return colours of all hues that are neither too light for white nor too dark for black."""
    lightness, chroma, hue = (
        part.ravel()
        for part in np.meshgrid(
            np.arange(0.40, 0.73, 0.03), np.arange(0.05, 0.30, 0.04), np.arange(0, 2, 1 / 18)
        )
    )
    angle = hue * np.pi
    oklab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=1)
    linear = _from_oklab(oklab)
    luminance = linear @ _LUMINANCE
    exists = ((linear >= 0) & (linear <= 1)).all(axis=1)
    visible = (luminance > _DARKEST) & (luminance < _LIGHTEST)
    return _colours(oklab[exists & visible])


def _oklab(linear: Floats) -> Floats:
    """Return linear sRGB, 0 to 1, in OKLab."""
    oklab: Floats = np.cbrt(linear @ _TO_CONES.T) @ _TO_OKLAB.T
    return oklab


def _from_oklab(oklab: Floats) -> Floats:
    linear: Floats = (oklab @ np.linalg.inv(_TO_OKLAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    return linear


def _linear(colours: Colours) -> Floats:
    """Return colours in linear sRGB (IEC 61966-2-1), 0 to 1."""
    value = colours / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _colours(oklab: Floats) -> Colours:
    """Return the colours that are nearest to those in OKLab."""
    linear = np.clip(_from_oklab(oklab), 0, 1)
    value = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(value * 255).astype(np.uint8)


def _triples(colours: Iterable[int]) -> Colours:
    """Return colours that are given as numbers 0xRRGGBB."""
    return np.array([list(colour.to_bytes(3, "big")) for colour in colours], dtype=np.uint8)


# Some of its 256 colours; between them it is nearly straight.
_CIVIDIS = {
    0: 0x00224E,
    21: 0x003170,
    38: 0x243C6E,
    64: 0x434E6C,
    155: 0x969077,
    251: 0xFDE334,
    255: 0xFEE838,
}

# Blue, yellow, ..., with lightness and strength such that they are as far apart as can be for all
# eyes, within the contrast asked for below.
_FIRST = (0x1069DA, 0xA2941D, 0xBB0A71, 0x2BA287, 0x993C23, 0x4499DD, 0x7C52A3, 0x936E11)
_CATEGORIES = 256

# A contrast of 3 to 1 with black and with white, which WCAG 2.1 asks for of graphics (1.4.11).
_DARKEST = 3 * 0.05 - 0.05
_LIGHTEST = 1.05 / 3 - 0.05
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

# What is left of linear sRGB: for most people, without red cones, without green cones
# (Machado, Oliveira and Fernandes 2009).
_EYES = (
    np.eye(3),
    np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
)
