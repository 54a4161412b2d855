"""An unmounted filesystem, read from its devices, from images of them, or from a dump.

From the bottom up: :mod:`superblock` and :mod:`devices` find what there is to read,
:mod:`chunk_map` and :mod:`volume` translate virtual addresses, :mod:`checksum` and :mod:`node`
check tree blocks, :mod:`store` tries their copies, :mod:`tree` and :mod:`bulk` walk trees, and
:mod:`source` answers questions from them.
"""
