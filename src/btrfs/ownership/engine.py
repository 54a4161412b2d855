"""Who owns the space: one scan, and the answers that follow from it.

    with btrfs.FileSystem('/', source='devices') as fs:
        owned = btrfs.ownership.scan(fs)
        for subvolume in owned.subvolumes():
            print(subvolume.path, subvolume.referenced.total, subvolume.exclusive.total)
        print(owned.freed_by([257, 258]).total)

Sizes are bytes on disk, before redundancy unless ``physical`` is asked for. An extent counts as a
whole for each subvolume that refers to any part of it, as quota groups count it. What deleted
subvolumes hold that are not cleaned up yet is freed without anything being done, so it does not
count as freed by a deletion.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError, PathNotFoundError
from btrfs.ondisk import constants
from btrfs.ondisk.items.inode import TimeSpec
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.text import printable
from btrfs.ownership.arrow import arrow_tables
from btrfs.ownership.compression import Compression, compression_of
from btrfs.ownership.containment import Containment, Representation, containment
from btrfs.ownership.directories import Directories, Entry
from btrfs.ownership.graph import Progress
from btrfs.ownership.owners import Kind, Owner
from btrfs.ownership.places import Places
from btrfs.ownership.root_sets import mask_of
from btrfs.ownership.scanning import Scan, scan_trees
from btrfs.ownership.sizes import Space

if TYPE_CHECKING:
    import pyarrow as pa

    from btrfs.filesystem import FileSystem

__all__ = ["Ownership", "Plan", "SubvolumeSpace", "scan"]

_NO_UUID = UUID(int=0)

_BY_AGE_AND_LENGTH = Representation()


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

    @property
    def is_read_only_snapshot(self) -> bool:
        """Whether it is a copy that nothing writes to: a read-only snapshot, or received."""
        copied = self.parent_uuid != _NO_UUID or self.received_uuid != _NO_UUID
        return self.read_only and copied


@dataclass(frozen=True, slots=True)
class Plan:
    """Subvolumes to delete.

    Attributes:
        ids: Their numbers, in the order in which they were chosen.
        frees: What deleting all of them frees.
        is_enough: Whether that is as much as was asked for.
    """

    ids: list[int]
    frees: Space
    is_enough: bool


def scan(
    fs: FileSystem,
    *,
    names: bool = True,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Ownership:
    """Read all trees once, and return what answers who owns what.

    Args:
        fs: The filesystem; a mounted one is opened with source='devices'. It can be closed then.
        names: Read the names of files, too, for questions about directories and files.
        memory: Bytes of memory that it may take, roughly; a quarter of what is free if not given.
        progress: Is called with leaves read and leaves to read. If it raises, the scan ends.

    Raises:
        BtrfsError: The filesystem shows no blocks.
        StaleError: It is committed faster than it can be read.
        CorruptError: A block has no copy that passes all checks, and errors are to be raised.
    """
    scanned = scan_trees(fs, names=names, memory=memory, progress=progress)
    return Ownership(fs.path, scanned, containment(fs, scanned.owners))


class Ownership:
    """The answers of a scan.

    Args:
        path: What was opened.
        scanned: What was read of it.
        contained: How the subvolumes are inside each other.

    Attributes:
        tables: What was read: columns of all extents, references and blocks.
        contained: How the subvolumes are inside each other.
        generation: Generation of the commit that it shows.
        is_complete: Whether everything could be read; if not, all sizes may be too low.
    """

    def __init__(self, path: str, scanned: Scan, contained: Containment) -> None:
        self._path = path
        self.contained = contained
        self.tables = scanned
        self.generation = scanned.generation
        self.is_complete = not scanned.lost
        self._directories: dict[Representation, Directories] = {}
        self._deleted = self._mask(lambda owner: owner.kind is Kind.DELETED)

    def to_arrow(self) -> dict[str, pa.Table]:
        """Return what was read as Arrow tables; see :func:`btrfs.ownership.arrow.arrow_tables`.

        Raises:
            BtrfsError: pyarrow is not installed.
        """
        return arrow_tables(self.tables)

    @property
    def used(self) -> int:
        """Bytes that the block groups say are used."""
        return self.tables.used

    @property
    def unexplained(self) -> int:
        """Bytes of these that no tree refers to: 0 if all is well and everything could be read."""
        sizes = self.tables.sizes
        return self.used - sizes.of(np.ones(len(sizes.data), np.bool_)).total

    def subvolumes(self, *, physical: bool = False) -> list[SubvolumeSpace]:
        """Return what each subvolume uses, those included that are being deleted.

        Args:
            physical: Count the bytes on devices, with redundancy.
        """
        contained = self.contained
        referenced, exclusive = self._referenced(physical=physical)
        compressed, uncompressed = self._compressed
        found = []
        for bit, owner in enumerate(self.tables.owners):
            item = owner.item
            if item is None or owner.kind not in (Kind.SUBVOLUME, Kind.DELETED):
                continue
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
                    exclusive=Space(*exclusive[bit].tolist()),
                    with_snapshots=self.only_in(self._family(item), physical=physical),
                    compressed=int(compressed[bit]),
                    uncompressed=int(uncompressed[bit]),
                )
            )
        return found

    def matching(self, pattern: str) -> list[int]:
        """Return the numbers of the subvolumes that a number, a path or a pattern of paths means.

        Args:
            pattern: A number; or a path from the top level, in which ``*``, ``?`` and ``[]`` stand
                for characters as in a shell, but for ``/``.

        Raises:
            BtrfsError: There is none.
        """
        if pattern.isdecimal() and int(pattern) in self._bits:
            return [int(pattern)]
        wanted = [step for step in pattern.split("/") if step]
        found = [
            tree
            for tree, path in self.contained.paths.items()
            if _matches(path.split(b"/") if path else [], wanted)
        ]
        if not found:
            raise BtrfsError(
                f"no subvolume of {self._path} is {pattern!r}",
                hint="btrfs-atlas subvolumes lists them; paths begin at the top level",
            )
        return found

    def only_in(self, ids: Iterable[int], *, physical: bool = False) -> Space:
        """Return the bytes that no other subvolumes refer to than some.

        Args:
            ids: Numbers of the subvolumes.
            physical: Count the bytes on devices, with redundancy.

        Raises:
            BtrfsError: There is no such subvolume.
        """
        within = self.tables.sets.within(self._mask_of_ids(ids))
        return self.tables.sizes.of(within, physical=physical)

    def freed_by(self, ids: Iterable[int], *, physical: bool = False) -> Space:
        """Return the bytes that deleting some subvolumes frees, once they are cleaned up.

        Args:
            ids: Numbers of the subvolumes.
            physical: Count the bytes on devices, with redundancy.

        Raises:
            BtrfsError: There is no such subvolume.
        """
        sets, sizes = self.tables.sets, self.tables.sizes
        gone = sizes.of(sets.within(self._mask_of_ids(ids) | self._deleted), physical=physical)
        return gone.without(sizes.of(sets.within(self._deleted), physical=physical))

    def shared_sets(self) -> list[tuple[frozenset[int], Space]]:
        """Return what each different set of trees uses together, the largest first."""
        owners, sizes = self.tables.owners, self.tables.sizes
        data, metadata = sizes.data.sum(axis=1).tolist(), sizes.metadata.sum(axis=1).tolist()
        found = [
            (
                frozenset(owner.tree for bit, owner in enumerate(owners) if mask >> bit & 1),
                Space(data[number], metadata[number]),
            )
            for number, mask in enumerate(self.tables.sets.masks)
            if data[number] or metadata[number]
        ]
        return sorted(found, key=lambda pair: pair[1].total, reverse=True)

    def plan(
        self,
        wanted: int,
        *,
        order: Literal["oldest", "fewest"] = "oldest",
        candidates: Collection[int] | None = None,
    ) -> Plan:
        """Return which subvolumes to delete so that bytes become free.

        Args:
            wanted: Bytes that are to become free.
            order: 'oldest' deletes the oldest first; 'fewest' deletes the one that frees most
                first, and so few, though not always the fewest that would do.
            candidates: Numbers of subvolumes that may be deleted; if not given, all that are
                read-only snapshots or were received.

        Raises:
            BtrfsError: There is no such subvolume.
        """
        if candidates is None:
            candidates = [one.id for one in self.subvolumes() if one.is_read_only_snapshot]
        self._mask_of_ids(candidates)
        left = sorted(candidates, key=self._age)
        chosen: list[int] = []
        frees = Space(0, 0)
        while left and frees.total < wanted:
            best = self._most_freeing(chosen, left) if order == "fewest" else left[0]
            left.remove(best)
            chosen.append(best)
            frees = self.freed_by(chosen)
        return Plan(chosen, frees, frees.total >= wanted)

    # Directories and files.

    def directories(self, rule: Representation = _BY_AGE_AND_LENGTH) -> Directories:
        """Return the directories of all subvolumes.

        Args:
            rule: In which place an extent is shown that is used in several.

        Raises:
            BtrfsError: The scan did not read names.
        """
        if not self.tables.has_names:
            raise BtrfsError("the names of files were not read", hint="scan with names=True")
        if rule not in self._directories:
            places = Places(self.tables, self.contained, rule)
            self._directories[rule] = Directories(places)
        return self._directories[rule]

    def entry(self, path: str | bytes = b"") -> Entry:
        """Return the directory, file or subvolume of a path from the top level.

        Raises:
            PathNotFoundError: There is none.
        """
        found = self.directories().entry(os.fsencode(path))
        if found is None:
            raise PathNotFoundError(
                f"{printable(os.fsencode(path))}: no such path in the filesystem",
                hint="paths begin at the top level, which may not be what is mounted",
            )
        return found

    def freed_by_paths(self, paths: Iterable[str | bytes]) -> int:
        """Return the bytes of data that deleting some directories, files and subvolumes frees.

        Raises:
            PathNotFoundError: There is no such path.
        """
        return self.directories().freed_by([self.entry(path) for path in paths])

    def compression(self, paths: Iterable[str | bytes | Entry] | None = None) -> Compression:
        """Return how well files are compressed, as compsize tells it.

        Args:
            paths: Directories, files and subvolumes, with all that is below; what is below two of
                them counts twice, except on disk. If not given, all subvolumes.

        Raises:
            BtrfsError: The scan did not read names.
            PathNotFoundError: There is no such path.
        """
        chosen = [b""] if paths is None else paths
        entries = [path if isinstance(path, Entry) else self.entry(path) for path in chosen]
        return compression_of(self.tables, entries)

    def _most_freeing(self, chosen: list[int], left: list[int]) -> int:
        """Return which of the subvolumes that are left frees most beside those that are chosen.

        Where none frees anything alone, it is the one with the most that few others share.
        """
        gone = self._mask_of_ids(chosen) | self._deleted
        bits = {tree: 1 << self._bits[tree] for tree in left}
        totals = (self.tables.sizes.data + self.tables.sizes.metadata).sum(axis=1).tolist()
        alone = dict.fromkeys(bits.values(), 0)
        shares = dict.fromkeys(bits.values(), 0.0)
        possible = sum(bits.values())
        for mask, total in zip(self.tables.sets.masks, totals, strict=True):
            rest = mask & ~gone
            if not total or not rest or rest & ~possible:
                continue
            for bit in shares:
                if rest & bit:
                    shares[bit] += total / rest.bit_count()
            if rest in alone:
                alone[rest] += total
        return max(left, key=lambda tree: (alone[bits[tree]], shares[bits[tree]]))

    def _age(self, tree: int) -> tuple[int, int, int]:
        """Return what sorts subvolumes by their age, the oldest first."""
        item = self.tables.owners[self._bits[tree]].item
        assert item is not None
        return item.otime.sec, item.otime.nsec, tree

    def _referenced(self, *, physical: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return for each owner the bytes of data and of metadata, referenced and exclusive."""
        sizes, sets = self.tables.sizes, self.tables.sets
        weights = sizes.factors if physical else np.ones(len(sizes.factors))
        by_set = np.stack([sizes.data @ weights, sizes.metadata @ weights], axis=1)
        count = len(self.tables.owners)
        referenced = np.zeros((count, 2))
        exclusive = np.zeros((count, 2))
        for chosen, members in sets.members(count):
            referenced += members.T.astype(np.float64) @ by_set[chosen]
            alone = members & (members.sum(axis=1) == 1)[:, None]
            exclusive += alone.T.astype(np.float64) @ by_set[chosen]
        return np.rint(referenced).astype(np.int64), np.rint(exclusive).astype(np.int64)

    @cached_property
    def _compressed(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Bytes of compressed data of each owner, as on disk and decompressed."""
        extents, sets = self.tables.extents, self.tables.sets
        chosen = extents.compression != constants.COMPRESS_NONE
        ids = extents.set_id[chosen].astype(np.intp)
        by_set = np.stack(
            [
                np.bincount(ids, column[chosen], len(sets))
                for column in (extents.num_bytes, extents.ram_bytes)
            ],
            axis=1,
        )
        count = len(self.tables.owners)
        sums = np.zeros((count, 2))
        for some, members in sets.members(count):
            sums += members.T.astype(np.float64) @ by_set[some]
        return sums[:, 0].astype(np.int64), sums[:, 1].astype(np.int64)

    def _family(self, item: RootItem) -> list[int]:
        """Return the numbers of a subvolume, its snapshots, their snapshots and so on."""
        family, uuids = {item.objectid}, [item.uuid]
        while uuids:
            uuid = uuids.pop()
            if uuid == _NO_UUID:
                continue
            for tree, other in self._snapshots.get(uuid, ()):
                if tree not in family:
                    family.add(tree)
                    uuids.append(other)
        return sorted(family)

    @cached_property
    def _snapshots(self) -> dict[UUID, list[tuple[int, UUID]]]:
        """Number and UUID of the snapshots of each subvolume, by its UUID."""
        found: dict[UUID, list[tuple[int, UUID]]] = {}
        for owner in self.tables.owners:
            if owner.tree in self._bits and owner.item is not None:
                found.setdefault(owner.item.parent_uuid, []).append((owner.tree, owner.item.uuid))
        return found

    @cached_property
    def _bits(self) -> dict[int, int]:
        """The bit in sets of roots of each subvolume, by its number."""
        kinds = (Kind.SUBVOLUME, Kind.DELETED)
        return {
            owner.tree: bit for bit, owner in enumerate(self.tables.owners) if owner.kind in kinds
        }

    def _mask(self, condition: Callable[[Owner], bool]) -> int:
        return mask_of(bit for bit, owner in enumerate(self.tables.owners) if condition(owner))

    def _mask_of_ids(self, ids: Iterable[int]) -> int:
        """Return the bit mask of some subvolumes.

        Raises:
            BtrfsError: There is no such subvolume.
        """
        ids = list(ids)
        for tree in ids:
            if tree not in self._bits:
                raise BtrfsError(
                    f"there is no subvolume {tree} in {self._path}",
                    hint="btrfs-atlas subvolumes lists them",
                )
        return mask_of(self._bits[tree] for tree in ids)


def _matches(names: list[bytes], wanted: list[str]) -> bool:
    """Return whether the steps of a path match the steps of a pattern."""
    return len(names) == len(wanted) and all(
        fnmatchcase(os.fsdecode(name), step) for name, step in zip(names, wanted, strict=True)
    )
