"""Layers: what lies on an address line, in colours.

All that is particular to a kind of picture is in its layer: another kind of picture is another
module here. :mod:`heatmap.layers.lines` has the address lines, :mod:`heatmap.layers.block_groups`
and :mod:`heatmap.layers.by_extents` put block groups and extents on them.
"""

from heatmap.layers.base import Layer
from heatmap.layers.chunks import chunks
from heatmap.layers.devices import DEVICE_GRANULARITY, devices
from heatmap.layers.extents import extents

__all__ = ["DEVICE_GRANULARITY", "Layer", "chunks", "devices", "extents"]
