"""Layers: what lies on an address line, in colours.

All that is particular to a kind of picture is in its layer: another kind of picture is another
module here. There are :mod:`.devices`, :mod:`.chunks` and :mod:`.extents` of block groups.
:mod:`.lines` has the address lines, :mod:`.block_groups` and :mod:`.by_extents` put block groups
and extents on them. Nothing is imported here: each picture needs a few of them.
"""
