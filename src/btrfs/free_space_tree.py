"""Free ranges, by the names of python-btrfs.

All is defined in :mod:`btrfs.ondisk.free_space`.
"""

from btrfs.ondisk.free_space import *
