"""How much each subvolume uses, by itself and with others, from what a scan has read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.items.inode import TimeSpec
from btrfs.ondisk.items.root import RootItem
from btrfs.ownership.containment import Containment
from btrfs.ownership.owners import Kind, Owner
from btrfs.ownership.root_sets import mask_of
from btrfs.ownership.scanning import Scan
from btrfs.ownership.sizes import Space

__all__ = ["SubvolumeSpace", "is_read_only_copy", "subvolume_spaces"]

_NO_UUID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class SubvolumeSpace:
    """What a subvolume uses.

    Attributes:
        id: Its number, that of its tree.
        path: Where it is, from the top level, without a leading slash; None if it is deleted.
        parent_id: Number of the subvolume that it is in; 0 for the top level, or if it is deleted.
        is_deleted: Whether it is deleted, but not yet cleaned up.
        read_only: Whether it can only be read.
        uuid: Its UUID; zero if Linux before 3.6 made it.
        parent_uuid: UUID of the subvolume that it is a snapshot of; zero if it is none.
        received_uuid: UUID of the subvolume that it was received from; zero if it was not.
        otime: Time that it was made.
        referenced: Bytes of all that it refers to.
        exclusive: Bytes that no other subvolume refers to.
        with_snapshots: Bytes that only it, its snapshots, their snapshots and so on refer to.
        compressed: Bytes of data that is compressed.
        uncompressed: Bytes of the same data when it is decompressed.
        is_complete: Whether all of it could be read; if not, what it refers to may be more.
    """

    id: int
    path: bytes | None
    parent_id: int
    is_deleted: bool
    read_only: bool
    uuid: UUID
    parent_uuid: UUID
    received_uuid: UUID
    otime: TimeSpec
    referenced: Space
    exclusive: Space
    with_snapshots: Space
    compressed: int
    uncompressed: int
    is_complete: bool

    @property
    def is_read_only_snapshot(self) -> bool:
        """Whether it is a copy that nothing writes to: a read-only snapshot, or received."""
        copied = self.parent_uuid != _NO_UUID or self.received_uuid != _NO_UUID
        return self.read_only and copied


def subvolume_spaces(
    scanned: Scan, contained: Containment, *, physical: bool = False
) -> list[SubvolumeSpace]:
    """Return what each subvolume uses, those included that are being deleted.

    Args:
        scanned: What was read.
        contained: How the subvolumes are inside each other.
        physical: Count the bytes on devices, with redundancy.
    """
    referenced, compressed = _referenced(scanned, physical=physical)
    exclusive = _exclusive(scanned, physical=physical)
    families = _families(scanned.owners)
    found = []
    for bit, owner in enumerate(scanned.owners):
        item = owner.item
        if item is None or bit not in families:
            continue
        alone = Space(*exclusive.get(bit, (0, 0)))
        within = scanned.sets.within(mask_of(families[bit])) if len(families[bit]) > 1 else None
        found.append(
            SubvolumeSpace(
                id=owner.tree,
                path=contained.paths.get(owner.tree),
                parent_id=contained.parents.get(owner.tree, 0),
                is_deleted=owner.kind is Kind.DELETED,
                read_only=bool(item.flags & constants.ROOT_SUBVOL_RDONLY),
                uuid=item.uuid,
                parent_uuid=item.parent_uuid,
                received_uuid=item.received_uuid,
                otime=item.otime,
                referenced=Space(*referenced[bit].tolist()),
                exclusive=alone,
                with_snapshots=alone
                if within is None
                else scanned.sizes.of(within, physical=physical),
                compressed=int(compressed[bit, 0]),
                uncompressed=int(compressed[bit, 1]),
                is_complete=not scanned.incomplete >> bit & 1,
            )
        )
    return found


def is_read_only_copy(item: RootItem) -> bool:
    """Return whether a subvolume is a copy that nothing writes to: a snapshot, or received."""
    copied = item.parent_uuid != _NO_UUID or item.received_uuid != _NO_UUID
    return bool(item.flags & constants.ROOT_SUBVOL_RDONLY) and copied


def _referenced(scanned: Scan, *, physical: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what each owner refers to.

    Returns:
        Bytes of data and of metadata; and bytes of compressed data, on disk and decompressed.
    """
    sets, extents = scanned.sets, scanned.extents
    chosen = extents.compression != constants.COMPRESS_NONE
    ids = extents.set_id[chosen].astype(np.intp)
    columns = (extents.num_bytes, extents.ram_bytes)
    by_set = [
        *_by_set(scanned, physical=physical),
        *(np.bincount(ids, column[chosen], len(sets)) for column in columns),
    ]
    values = np.stack(by_set, axis=1)
    sums = np.zeros((len(scanned.owners), len(by_set)))
    for some, members in sets.members(len(scanned.owners)):
        sums += members.T.astype(np.float64) @ values[some]
    rounded = np.rint(sums).astype(np.int64)
    return rounded[:, :2], rounded[:, 2:]


def _exclusive(scanned: Scan, *, physical: bool) -> dict[int, tuple[int, int]]:
    """Return the bytes of data and of metadata that only one owner refers to, by its bit."""
    data, metadata = (column.tolist() for column in _by_set(scanned, physical=physical))
    return {
        mask.bit_length() - 1: (round(data[number]), round(metadata[number]))
        for number, mask in enumerate(scanned.sets.masks)
        if mask.bit_count() == 1
    }


def _by_set(scanned: Scan, *, physical: bool) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the bytes of data and of metadata of each set."""
    sizes = scanned.sizes
    weights = sizes.factors if physical else np.ones(len(sizes.factors))
    return sizes.data @ weights, sizes.metadata @ weights


def _families(owners: Sequence[Owner]) -> dict[int, set[int]]:
    """Return for each subvolume it, its snapshots, their snapshots and so on, all as bits."""
    snapshots: dict[UUID, list[int]] = {}
    uuids: dict[int, UUID] = {}
    for bit, owner in enumerate(owners):
        if owner.kind in (Kind.SUBVOLUME, Kind.DELETED) and owner.item is not None:
            uuids[bit] = owner.item.uuid
            snapshots.setdefault(owner.item.parent_uuid, []).append(bit)
    # Without a UUID, snapshots of it are not known.
    snapshots.pop(_NO_UUID, None)
    families = {}
    for bit in uuids:
        family, left = {bit}, [bit]
        while left:
            new = set(snapshots.get(uuids[left.pop()], ())) - family
            family |= new
            left += new
        families[bit] = family
    return families
