"""An unmounted filesystem, read from its devices or from images of them.

From the bottom up: :mod:`superblock` and :mod:`devices` find what can be read, :mod:`chunk_map` and
:mod:`volume` translate virtual addresses, :mod:`node` checks tree blocks, :mod:`store` tries their
copies, :mod:`tree` and :mod:`bulk` walk trees, and :mod:`source` answers questions from them.
:mod:`members` and :mod:`chunk_recovery` find the devices and chunks of a filesystem. All that is
above :mod:`store` reads dumps, too, which are in :mod:`btrfs.source.dump`.
"""
