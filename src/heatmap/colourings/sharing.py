"""Sharing: how many references there are to an extent."""

from __future__ import annotations

import numpy as np

from heatmap.colouring import Colouring
from heatmap.colours import ExtentColours
from heatmap.extents.table import REFERENCES
from heatmap.scales import sequential

_NAMES = ("1", "2", "3 or 4", "5 to 8", "9 to 16", "17 to 64", "65 to 256", "more than 256")
_UP_TO = np.array([1, 2, 4, 8, 16, 64, 256])

COLOURING = Colouring(
    name="sharing",
    title="sharing",
    description="how many references there are to an extent",
    rank=50,
    extents=ExtentColours(
        columns=(REFERENCES,),
        own_values=lambda extents, _context: np.searchsorted(_UP_TO, extents[REFERENCES]),
        own_colours=lambda _context: sequential(len(_NAMES)),
        own_names=lambda _context: _NAMES,
        is_scale=True,
        note="references to an extent; a tree block that is shared counts once",
    ),
    in_details=False,
)
