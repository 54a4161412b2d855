"""Age: the transaction in which an extent was made."""

from __future__ import annotations

from heatmap.colouring import Colouring
from heatmap.colours import ExtentColours
from heatmap.extents.table import GENERATION
from heatmap.scales import labels, sequential, steps_of

_STEPS = 64

COLOURING = Colouring(
    name="age",
    title="age",
    description="the generation of an extent: the later it was made, the lighter",
    rank=30,
    extents=ExtentColours(
        columns=(GENERATION,),
        own_values=lambda extents, context: steps_of(
            extents[GENERATION], 0, context.generation, _STEPS
        ),
        own_colours=lambda _context: sequential(_STEPS),
        own_names=lambda context: labels(0, context.generation, _STEPS),
        is_scale=True,
        by_generation=True,
        note="by generation: the commit in which an extent was made",
    ),
    in_details=False,
)
