"""Colours: a palette maps the values of a layer to colours, and names them for a legend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLACK = (0, 0, 0)
"""Where there is nothing."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours, and the names of what they stand for. A value is an index into both.

    Attributes:
        names: what a legend calls each value.
        colours: array (values, 3), uint8, red, green, blue.
    """

    names: tuple[str, ...]
    colours: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names)


class LegendEntry(NamedTuple):
    """A line of a legend: a colour, what it stands for, and how much there is of it.

    Attributes:
        name: what the colour stands for.
        colour: red, green, blue.
        length: bytes of the address line that have this colour.
        used: bytes of these that are in use.
    """

    name: str
    colour: tuple[int, int, int]
    length: int
    used: int


def palette(colours: dict[str, int]) -> Palette:
    """Return the palette of these names and colours, each colour a number 0xRRGGBB."""
    triples = [list(colour.to_bytes(3, "big")) for colour in colours.values()]
    return Palette(tuple(colours), np.array(triples, dtype=np.uint8))


def legend_entries(
    shown: Palette,
    lengths: NDArray[np.float64],
    used: NDArray[np.float64],
    total_bytes: int,
    rest: str,
) -> list[LegendEntry]:
    """Return the entries of a legend: the colours that occur, and black.

    Args:
        shown: the palette of the picture.
        lengths: bytes of each value of the palette.
        used: bytes in use of each value of the palette.
        total_bytes: bytes of the whole address line.
        rest: what black stands for.
    """
    entries = [
        LegendEntry(name, _triple(colour), round(length), round(in_use))
        for name, colour, length, in_use in zip(
            shown.names, shown.colours, lengths.tolist(), used.tolist(), strict=True
        )
        if length > 0
    ]
    black = max(0, total_bytes - sum(entry.length for entry in entries))
    return [*entries, LegendEntry(rest, BLACK, black, 0)]


def _triple(colour: NDArray[np.uint8]) -> tuple[int, int, int]:
    red, green, blue = colour.tolist()
    return red, green, blue
