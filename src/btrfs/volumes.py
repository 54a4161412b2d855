"""Profiles and the sizes that follow from them, by the names of python-btrfs.

All is defined in :mod:`btrfs.ondisk.profiles`.
"""

from btrfs.ondisk.block_group_flags import *
from btrfs.ondisk.profiles import *
