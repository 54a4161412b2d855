"""The few numbers about owners that a person with a full disk wants first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from btrfs.ondisk import constants
from btrfs.ownership.containment import Representation
from btrfs.ownership.places import Places
from btrfs.ownership.sizes import Space

if TYPE_CHECKING:
    from btrfs.ownership.engine import Ownership

__all__ = ["Share", "Summary", "summary"]

_LARGEST = 5

_TRIED = 50


@dataclass(frozen=True, slots=True)
class Share:
    """Bytes that a subvolume stands for.

    Attributes:
        id: Number of the subvolume.
        path: Its path from the top level; None if it is deleted.
        space: Bytes.
    """

    id: int
    path: bytes | None
    space: Space


@dataclass(frozen=True, slots=True)
class Summary:
    """Who owns the space, in a few numbers. Bytes are on disk, before redundancy.

    Attributes:
        generation: Generation of the commit that it shows.
        is_complete: Whether everything could be read; see Ownership.
        subvolumes: How many subvolumes there are, with the top level.
        largest: The subvolumes that use most, where what several share counts for one of them: a
            writable one, and of these the newest.
        snapshots: How many of them are read-only snapshots, or were received.
        only_in_snapshots: Bytes that nothing but these refers to.
        best_deletion: Of these the one that frees most if it alone is deleted; None if none does.
        unreachable: Bytes of data that no file reaches, in extents that are in use in part.
        compressed: Bytes of data that is compressed.
        uncompressed: Bytes of the same data when it is decompressed.
    """

    generation: int
    is_complete: bool
    subvolumes: int
    largest: list[Share]
    snapshots: int
    only_in_snapshots: Space
    best_deletion: Share | None
    unreachable: int
    compressed: int
    uncompressed: int


def summary(owned: Ownership) -> Summary:
    """Return who owns the space, in a few numbers."""
    subvolumes = owned.subvolumes()
    paths = {one.id: one.path for one in subvolumes}
    snapshots = [one.id for one in subvolumes if one.is_read_only_snapshot]
    # What others share with deleted subvolumes is freed, too, but to try all would take long.
    by_size = sorted(subvolumes, key=lambda one: one.exclusive.total, reverse=True)
    tried = [one.id for one in by_size if one.is_read_only_snapshot][:_TRIED]
    frees = [Share(tree, paths[tree], owned.freed_by([tree])) for tree in tried]
    best = max(frees, key=lambda share: share.space.total, default=None)
    extents = owned.tables.extents
    compressed = extents.compression != constants.COMPRESS_NONE
    return Summary(
        generation=owned.generation,
        is_complete=owned.is_complete,
        subvolumes=sum(not one.is_deleted for one in subvolumes),
        largest=_largest(owned, paths),
        snapshots=len(snapshots),
        only_in_snapshots=owned.only_in(snapshots),
        best_deletion=best if best is not None and best.space.total else None,
        unreachable=int(extents.unreachable.sum(dtype=np.int64)),
        compressed=int(extents.num_bytes[compressed].sum(dtype=np.int64)),
        uncompressed=int(extents.ram_bytes[compressed].sum(dtype=np.int64)),
    )


def _largest(owned: Ownership, paths: dict[int, bytes | None]) -> list[Share]:
    """Return the subvolumes that stand for most bytes."""
    tables = owned.tables
    shown_in = Places(tables, owned.contained, Representation()).shown_in
    shares = [Share(tree, path, tables.sizes.of(shown_in == tree)) for tree, path in paths.items()]
    shares.sort(key=lambda share: share.space.total, reverse=True)
    return [share for share in shares[:_LARGEST] if share.space.total]
