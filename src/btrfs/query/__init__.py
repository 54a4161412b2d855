"""Choosing and ordering items, and writing them as JSON."""
