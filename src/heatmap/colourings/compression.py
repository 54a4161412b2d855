"""Compression: how the data in an extent is compressed."""

from __future__ import annotations

import numpy as np

from heatmap.colouring import Colouring, Export
from heatmap.colours import ExtentColours
from heatmap.extents.compression import COMPRESSIONS
from heatmap.extents.table import COMPRESSION

COLOURING = Colouring(
    name="compression",
    title="compression",
    description="how data is compressed; reads the items of files, too, which takes longer",
    rank=60,
    extents=ExtentColours(
        columns=(COMPRESSION,),
        own_values=lambda extents, _context: extents[COMPRESSION],
        own_colours=lambda _context: np.asarray(COMPRESSIONS.colours),
        own_names=lambda _context: COMPRESSIONS.names,
        note="of data, by the files that use it",
    ),
    export=Export.ON_DEMAND,
)
