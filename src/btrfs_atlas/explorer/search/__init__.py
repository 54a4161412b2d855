"""Searches on the map and details of its pixels."""
