"""What is allocated and used, by the names of python-btrfs.

All is defined in :mod:`btrfs.space.usage`.
"""

from btrfs.ondisk.block_group_flags import *
from btrfs.space.usage import *
