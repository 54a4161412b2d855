"""Colours of block groups and of extents: from a fact to a value, and from a value to a colour.

Extents have three values that all colourings share, before those of their own:
:data:`UNREADABLE_VALUE`, :data:`UNREAD_VALUE` and :data:`PARITY_VALUE`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heatmap.palette import UNREADABLE, UNREADABLE_COLOUR, Palette, palette

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem
    from heatmap.extents.table import Column, Extents
    from heatmap.extents.trees import Trees

__all__ = [
    "PARITY_VALUE",
    "UNREADABLE_VALUE",
    "UNREAD_VALUE",
    "ActiveColouring",
    "ColourContext",
    "ExtentColouring",
    "ExtentColours",
    "GroupColouring",
    "GroupColours",
]

UNREADABLE_VALUE, UNREAD_VALUE, PARITY_VALUE, _FIRST_OWN_VALUE = range(4)
"""Values of extents in every colouring; those of the colouring itself follow."""

_COMMON = palette({UNREADABLE: UNREADABLE_COLOUR, "not read yet": 0x4A4E57, "parity": 0x8C7A5B})
_MAX_VALUE = (1 << 16) - 1


class ColourContext(NamedTuple):
    """What the colours of extents depend on besides the extents.

    Attributes:
        generation: The newest generation that has a colour of its own.
        trees: The trees that own extents, by their indexes.
        tree_name: Returns what a legend calls a tree, given its number.
    """

    generation: int
    trees: Trees
    tree_name: Callable[[int], str]


class GroupColours(NamedTuple):
    """Colours of block groups.

    Attributes:
        palette: The colours, with what could not be read among them, which is hatched.
        value: Returns the index into them for a block group.
        is_scale: The colours are the steps of a scale, the lowest first.
        shows_used: A block group is the brighter, the fuller it is.
        note: A sentence for legends about what the colours mean.
    """

    palette: Palette
    value: Callable[[BlockGroupItem], int]
    is_scale: bool = False
    shows_used: bool = False
    note: str = ""

    @property
    def unreadable_value(self) -> int:
        """The index of what could not be read."""
        return self.palette.names.index(UNREADABLE)


class ExtentColours(NamedTuple):
    """Colours of extents.

    The colours of a picture are those that all colourings share, and then those of this one; see
    :meth:`palette` and :meth:`values`.

    Attributes:
        columns: What has to be known of extents.
        own_values: Returns for each extent the index of its colour, an array of whole numbers.
        own_colours: Returns the colours, an array (values, 3) of red, green and blue, uint8.
        own_names: Returns what a legend calls them. Names may take long, colours may not.
        is_scale: The colours are the steps of a scale, the lowest first.
        largest_first: A legend puts what takes most bytes first.
        by_generation: Values depend on the newest generation.
        unread: How a block group is shown until its extents have been read, if not in one colour.
        note: A sentence for legends about what the colours mean.
    """

    columns: Sequence[Column]
    own_values: Callable[[Extents, ColourContext], NDArray[np.integer]]
    own_colours: Callable[[ColourContext], NDArray[np.uint8]]
    own_names: Callable[[ColourContext], Sequence[str]]
    is_scale: bool = False
    largest_first: bool = False
    by_generation: bool = False
    unread: GroupColours | None = None
    note: str = ""

    def values(self, extents: Extents, context: ColourContext) -> NDArray[np.uint16]:
        """Return for each extent the index of its colour in the palette."""
        own = self.own_values(extents, context).astype(np.int64)
        value = np.minimum(own + _FIRST_OWN_VALUE, _MAX_VALUE).astype(np.uint16)
        value[extents.is_unreadable] = UNREADABLE_VALUE
        return value

    def palette(self, context: ColourContext, *, named: bool = False) -> Palette:
        """Return the colours.

        Args:
            context: What they depend on.
            named: Look up what a legend calls them, which may take long. Without it, only the
                colours that all colourings share have names.
        """
        own = self.own_colours(context)
        # Trees that were met meanwhile have a name, but no colour yet.
        names = list(self.own_names(context))[: len(own)] if named else [""] * len(own)
        colours = np.concatenate([_COMMON.colours, own])
        return Palette((*_COMMON.names, *names), colours, UNREADABLE_VALUE)


class GroupColouring(NamedTuple):
    """A colouring in a picture that shows block groups.

    Attributes:
        name: Name of the colouring.
        title: What a heading calls it.
        colours: Its colours.
    """

    name: str
    title: str
    colours: GroupColours


class ExtentColouring(NamedTuple):
    """A colouring in a picture that shows extents.

    Attributes:
        name: Name of the colouring.
        title: What a heading calls it.
        colours: Its colours.
        context: What they depend on.
    """

    name: str
    title: str
    colours: ExtentColours
    context: ColourContext

    @property
    def palette(self) -> Palette:
        """The colours without names."""
        return self.colours.palette(self.context)

    @property
    def named_palette(self) -> Palette:
        """The colours with what a legend calls them, which may take long."""
        return self.colours.palette(self.context, named=True)

    def values(self, extents: Extents) -> NDArray[np.uint16]:
        """Return for each extent the index of its colour in the palette."""
        return self.colours.values(extents, self.context)


ActiveColouring: TypeAlias = GroupColouring | ExtentColouring
"""A colouring as it is at one size of pixels."""
