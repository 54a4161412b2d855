"""Type: data, metadata and system; of extents, data or the tree that a block belongs to."""

from __future__ import annotations

import numpy as np

from heatmap.colouring import Colouring, Export
from heatmap.colours import ExtentColours
from heatmap.extents.table import TYPE
from heatmap.extents.types import EXTENTS
from heatmap.layers.block_groups import BY_TYPE

EXTENTS_BELOW = 256 << 10
"""Bytes per pixel up to which extents are shown; a larger pixel shows block groups."""

COLOURING = Colouring(
    name="type",
    title="type",
    description="data, metadata or system; in detail, the tree that a block belongs to",
    rank=10,
    groups=BY_TYPE,
    extents=ExtentColours(
        columns=(TYPE,),
        own_values=lambda extents, _context: extents[TYPE],
        own_colours=lambda _context: np.asarray(EXTENTS.colours),
        own_names=lambda _context: EXTENTS.names,
        unread=BY_TYPE,
        note="extents, by what they hold",
    ),
    extents_below=EXTENTS_BELOW,
    export=Export.ALWAYS,
    in_details=False,
)
