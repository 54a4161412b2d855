"""The one page about a filesystem: its sections, each of them in a module of its own.

A section reads something with the library, and gives it as lines for people and as plain data for
JSON. :mod:`btrfs_atlas.overview.sections` says what a section is, and reads them one after another.
To add one, write its module, and put it into SECTIONS of :mod:`btrfs_atlas.commands.overview`.
"""
