"""Colourings: one way to look at a filesystem each, by age, by owner ...

A :class:`Colouring` colours block groups, whose facts are known as soon as a filesystem is open, or
extents, which have to be read, or both: extents where a pixel holds few bytes, block groups
elsewhere. It is declared once, in a file of :mod:`heatmap.colourings`, and knows all that pictures,
maps and their legends need.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from heatmap.colours import (
    ActiveColouring,
    ColourContext,
    ExtentColouring,
    ExtentColours,
    GroupColouring,
    GroupColours,
)

__all__ = ["Colouring", "Cost", "Export"]


class Cost(StrEnum):
    """What has to be read for a colouring."""

    BLOCK_GROUPS = "block groups"
    EXTENTS = "the extent tree"
    FILES = "the extent tree and the items of files"


class Export(StrEnum):
    """Whether a map that is exported to a file has a colouring that was not asked for by name."""

    ALWAYS = "always"
    IF_SMALL = "if small"
    ON_DEMAND = "on demand"


@dataclass(frozen=True, slots=True)
class Colouring:
    """One way to colour a filesystem. It has colours of block groups, or of extents, or both.

    Attributes:
        name: What programs call it: lower case, the name of its module.
        title: What a menu calls it.
        description: What it shows, as a help text says it.
        rank: Its place in menus; the lowest comes first.
        groups: Colours of block groups.
        extents: Colours of extents.
        extents_below: With both, extents are shown where a pixel stands for at most so many bytes.
        export: Whether exported maps have it.
        in_details: Details of an extent name its colour. Not needed where they have the number
            itself: the generation, the references ...
    """

    name: str
    title: str
    description: str
    rank: int
    groups: GroupColours | None = None
    extents: ExtentColours | None = None
    extents_below: float = field(default=math.inf, kw_only=True)
    export: Export = field(default=Export.IF_SMALL, kw_only=True)
    in_details: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if self.groups is None and self.extents is None:
            raise ValueError(f"colouring {self.name} colours neither block groups nor extents")

    @property
    def cost(self) -> Cost:
        """What has to be read for it."""
        if self.extents is None:
            return Cost.BLOCK_GROUPS
        reads_files = any(column.reads_files for column in self.extents.columns)
        return Cost.FILES if reads_files else Cost.EXTENTS

    def at(self, bytes_per_pixel: float) -> GroupColours | ExtentColours:
        """Return the colours for a picture in which a pixel stands for so many bytes."""
        if self.extents is not None and (
            self.groups is None or bytes_per_pixel <= self.extents_below
        ):
            return self.extents
        assert self.groups is not None
        return self.groups

    def active(self, bytes_per_pixel: float, context: ColourContext) -> ActiveColouring:
        """Return the colouring as it is where a pixel stands for so many bytes."""
        colours = self.at(bytes_per_pixel)
        if isinstance(colours, GroupColours):
            return GroupColouring(self.name, self.title, colours)
        return ExtentColouring(self.name, self.title, colours, context)
