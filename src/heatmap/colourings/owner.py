"""Owner: the tree that an extent belongs to, each subvolume in a colour of its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from heatmap.colouring import Colouring
from heatmap.colours import ColourContext, ExtentColours
from heatmap.extents.references import SEVERAL, UNKNOWN
from heatmap.extents.table import OWNER
from heatmap.extents.types import EXTENTS
from heatmap.scales import categorical

_GREY, _WHITE = np.array([0x80] * 3, np.uint8), np.array([0xFF] * 3, np.uint8)
_BY_NAME = dict(zip(EXTENTS.names, EXTENTS.colours, strict=True))

# Trees that are no subvolumes have the colours of their types.
_TREE_COLOURS = {
    SEVERAL: _WHITE,
    UNKNOWN: _GREY,
    constants.ROOT_TREE_OBJECTID: _BY_NAME["root tree"],
    constants.EXTENT_TREE_OBJECTID: _BY_NAME["extent tree"],
    constants.CHUNK_TREE_OBJECTID: _BY_NAME["chunk tree"],
    constants.DEV_TREE_OBJECTID: _BY_NAME["device tree"],
    constants.CSUM_TREE_OBJECTID: _BY_NAME["checksum tree"],
    constants.QUOTA_TREE_OBJECTID: _BY_NAME["quota tree"],
    constants.UUID_TREE_OBJECTID: _BY_NAME["UUID tree"],
    constants.FREE_SPACE_TREE_OBJECTID: _BY_NAME["free space tree"],
    constants.DATA_RELOC_TREE_OBJECTID: _BY_NAME["data relocation tree"],
}


def _colours(context: ColourContext) -> NDArray[np.uint8]:
    """Return the colours of the trees, by their indexes."""
    numbers = list(context.trees.numbers)
    colours = categorical(len(numbers))
    for index, number in enumerate(numbers):
        if number in _TREE_COLOURS:
            colours[index] = _TREE_COLOURS[number]
    return colours


def _names(context: ColourContext) -> list[str]:
    # As many as there are colours: other threads may add trees meanwhile.
    return [context.tree_name(number) for number in list(context.trees.numbers)]


COLOURING = Colouring(
    name="owner",
    title="owner",
    description="the subvolume or tree that an extent belongs to",
    rank=40,
    extents=ExtentColours(
        columns=(OWNER,),
        own_values=lambda extents, _context: extents[OWNER],
        own_colours=_colours,
        own_names=_names,
        largest_first=True,
        note="as the references of an extent tell; where subvolumes share tree blocks, the one that"
        " they were written for",
    ),
    in_details=False,
)
