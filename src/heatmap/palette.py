"""Colours: a palette maps the values of a layer to colours, and names them for a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BLACK = (0, 0, 0)
"""Where there is nothing."""

UNREADABLE = "could not be read"
UNREADABLE_COLOUR = 0xFF9900
"""The colour of what could not be read, in every palette of filesystems; it is hatched."""


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours, and the names of what they stand for. A value is an index into both.

    Attributes:
        names: What a legend calls each value.
        colours: Array (values, 3), uint8, red, green, blue.
        hatched: The value that is shown by lines of its colour, if there is one.
    """

    names: tuple[str, ...]
    colours: NDArray[np.uint8]
    hatched: int | None = None

    @property
    def painted(self) -> NDArray[np.float64]:
        """The colours that pixels are filled with: of what is hatched, there is none."""
        colours = self.colours.astype(np.float64)
        if self.hatched is not None:
            colours[self.hatched] = 0
        return colours

    @property
    def line_colour(self) -> NDArray[np.uint8]:
        """The colour of the lines of what is hatched; black if nothing is."""
        if self.hatched is None:
            return np.array(BLACK, dtype=np.uint8)
        line_colour: NDArray[np.uint8] = self.colours[self.hatched]
        return line_colour

    def __len__(self) -> int:
        return len(self.names)


class LegendEntry(NamedTuple):
    """A line of a legend: a colour, what it stands for, and how much there is of it.

    Attributes:
        name: What the colour stands for.
        colour: Red, green, blue.
        length: Bytes of the address line that have this colour.
        used: Bytes of these that are in use.
        hatched: Whether it is shown by lines of the colour.
    """

    name: str
    colour: tuple[int, int, int]
    length: int
    used: int
    hatched: bool = False


def palette(colours: dict[str, int], hatched: str | None = None) -> Palette:
    """Return the palette of these names and colours, each colour a number 0xRRGGBB.

    Args:
        colours: The colours by their names.
        hatched: The name of the one that is shown by lines.
    """
    triples = [list(colour.to_bytes(3, "big")) for colour in colours.values()]
    names = tuple(colours)
    value = None if hatched is None else names.index(hatched)
    return Palette(names, np.array(triples, dtype=np.uint8), value)


def with_unreadable(names: Sequence[str], colours: NDArray[np.uint8]) -> Palette:
    """Return a palette of these names and colours, followed by what could not be read."""
    last = palette({UNREADABLE: UNREADABLE_COLOUR})
    return Palette((*names, *last.names), np.concatenate([colours, last.colours]), len(names))


def followed(first: Palette, second: Palette) -> Palette:
    """Return a palette with the values of one, followed by those of another.

    What is hatched is that of the first; what the second has of it is shown like any colour.
    """
    colours = np.concatenate([first.colours, second.colours])
    return Palette((*first.names, *second.names), colours, first.hatched)


def legend_entries(
    shown: Palette,
    lengths: NDArray[np.float64],
    used: NDArray[np.float64],
    total_bytes: int,
    rest: str,
) -> list[LegendEntry]:
    """Return the entries of a legend: the colours that occur, and black.

    Args:
        shown: The palette of the picture.
        lengths: Bytes of each value of the palette.
        used: Bytes in use of each value of the palette.
        total_bytes: Bytes of the whole address line.
        rest: What black stands for.
    """
    entries = [
        LegendEntry(name, _triple(colour), round(length), round(in_use), value == shown.hatched)
        for value, (name, colour, length, in_use) in enumerate(
            zip(shown.names, shown.colours, lengths.tolist(), used.tolist(), strict=True)
        )
        if length > 0
    ]
    black = max(0, total_bytes - sum(entry.length for entry in entries))
    return [*entries, LegendEntry(rest, BLACK, black, 0)]


def _triple(colour: NDArray[np.uint8]) -> tuple[int, int, int]:
    red, green, blue = colour.tolist()
    return red, green, blue
