"""Tiles: from extents and a square of the map to pixels."""
