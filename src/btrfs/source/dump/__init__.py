"""Dumps made by btrfs-image, as a store of tree blocks.

:mod:`metadump` reads the file, :mod:`entries` is the table of what is in it, and :mod:`inflater`
reads the entries that are compressed.
"""
