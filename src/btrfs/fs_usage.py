"""What is allocated and used, by the names of python-btrfs.

All is defined in :mod:`btrfs.space.usage`.
"""

from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA as BLOCK_GROUP_DATA,
    BLOCK_GROUP_METADATA as BLOCK_GROUP_METADATA,
    BLOCK_GROUP_PROFILE_MASK as BLOCK_GROUP_PROFILE_MASK,
    BLOCK_GROUP_SYSTEM as BLOCK_GROUP_SYSTEM,
    BLOCK_GROUP_TYPE_MASK as BLOCK_GROUP_TYPE_MASK,
)
from btrfs.space.usage import *
