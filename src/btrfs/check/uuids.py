"""UUIDs of subvolumes: the UUID tree must find each of them, and nothing else.

The UUID tree leads from a UUID to the subvolumes that have it (UUID_KEY_SUBVOL), and to those that
were received from the one that has it (UUID_KEY_RECEIVED_SUBVOL): btrfs receive looks for them.
Only if the superblock names the current generation as that of the UUID tree do kernels keep it up;
else they make it right at the next mount (fs/btrfs/uuid-tree.c).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING
from uuid import UUID

from btrfs.errors import TreeNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.items.uuid_tree import UuidReceivedSubvolItem, UuidSubvolItem

if TYPE_CHECKING:
    from btrfs.check.report import Checked
    from btrfs.check.roots import Subvolumes
    from btrfs.filesystem import FileSystem
    from btrfs.source.disk.source import DiskSource

__all__ = ["check_uuids"]

_TREE = constants.UUID_TREE_OBJECTID
_NAMES = {
    constants.UUID_KEY_SUBVOL: "uuid",
    constants.UUID_KEY_RECEIVED_SUBVOL: "received_uuid",
}
"""What the root item of a subvolume calls the UUID, by the type of the key in the UUID tree."""

_Entry = tuple[int, UUID, int]
"""Type of the key, UUID, and number of the subvolume."""


def check_uuids(fs: FileSystem, source: DiskSource, found: Subvolumes, checked: Checked) -> None:
    """Compare the UUID tree with the root items of subvolumes.

    Args:
        fs: The filesystem.
        source: Its source.
        found: What the root tree says about subvolumes.
        checked: Where the findings go.
    """
    superblock = source.superblock
    is_kept_up = superblock.uuid_tree_generation == superblock.generation
    if source.is_earlier_state or not is_kept_up or not found.is_complete:
        return
    try:
        stored = _stored(fs)
    except TreeNotFoundError:
        return
    if not any(lost.tree == _TREE for lost in source.log.lost):
        expected = _expected(found)
        for entry in sorted(expected - stored):
            _add("uuid-missing", entry, checked)
        # One that is deleted is not looked for any more, and does no harm.
        deleted = {tree for tree, item in found.items.items() if not item.refs}
        for entry in sorted(stored - expected):
            if entry[2] not in deleted:
                _add("uuid-alone", entry, checked)
    _check_unique(found, checked)


def _stored(fs: FileSystem) -> set[_Entry]:
    """Return what the UUID tree says."""
    return {
        (item.key.type, item.uuid, tree)
        for item in fs.search(_TREE)
        if isinstance(item, UuidSubvolItem | UuidReceivedSubvolItem)
        for tree in item.subvol_ids
    }


def _expected(found: Subvolumes) -> set[_Entry]:
    """Return what it should say."""
    return {
        (key_type, getattr(item, name), tree)
        for tree, item in found.items.items()
        if item.refs and item.generation_v2 == item.generation
        for key_type, name in _NAMES.items()
        if getattr(item, name).int
    }


def _check_unique(found: Subvolumes, checked: Checked) -> None:
    """Check that no two subvolumes have the same UUID."""
    trees: dict[UUID, list[int]] = defaultdict(list)
    for key_type, uuid, tree in _expected(found):
        if key_type == constants.UUID_KEY_SUBVOL:
            trees[uuid].append(tree)
    for uuid, same in trees.items():
        if len(same) > 1:
            listed = " and ".join(map(str, sorted(same)))
            checked.add(
                "uuid-repeated", f"subvolumes {listed}: {uuid}", tree=constants.ROOT_TREE_OBJECTID
            )


def _add(kind: str, entry: _Entry, checked: Checked) -> None:
    key_type, uuid, tree = entry
    checked.add(kind, f"subvolume {tree}, {_NAMES[key_type]} {uuid}", tree=_TREE)
