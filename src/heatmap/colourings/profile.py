"""Profile: single, DUP or RAID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btrfs.ondisk import constants
from btrfs.ondisk.text import block_group_profile_str
from heatmap.colouring import Colouring, Export
from heatmap.colours import GroupColours
from heatmap.palette import with_unreadable
from heatmap.scales import categorical

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem

_PROFILES = [0, *(1 << bit for bit in range(64) if constants.BLOCK_GROUP_PROFILE_MASK >> bit & 1)]
_NAMES = [*(block_group_profile_str(flag) if flag else "single" for flag in _PROFILES), "other"]


def _index(group: BlockGroupItem) -> int:
    """Return the index of a block group's profile; damaged flags can have several profiles."""
    profile = group.flags & constants.BLOCK_GROUP_PROFILE_MASK
    return _PROFILES.index(profile) if profile in _PROFILES else len(_PROFILES)


COLOURING = Colouring(
    name="profile",
    title="profile",
    description="the profile of a block group: single, DUP, RAID1, ...",
    rank=70,
    groups=GroupColours(with_unreadable(_NAMES, categorical(len(_NAMES))), _index),
    export=Export.ALWAYS,
)
