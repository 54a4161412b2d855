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
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from btrfs.errors import BtrfsError, PathNotFoundError
from btrfs.ondisk.text import printable
from btrfs.ownership.arrow import arrow_tables
from btrfs.ownership.compression import Compression, compression_of
from btrfs.ownership.containment import Containment, Representation, containment
from btrfs.ownership.deletion_plan import Order, Plan, plan
from btrfs.ownership.directories import Directories, Entry, Sort
from btrfs.ownership.graph import Progress
from btrfs.ownership.largest import FileSpace, largest_files
from btrfs.ownership.owners import Kind, Owner
from btrfs.ownership.places import Places
from btrfs.ownership.root_sets import mask_of
from btrfs.ownership.scanning import Scan, scan_trees
from btrfs.ownership.sizes import Space
from btrfs.ownership.subvolume_space import SubvolumeSpace, is_read_only_copy, subvolume_spaces

if TYPE_CHECKING:
    import pyarrow as pa

    from btrfs.filesystem import FileSystem

__all__ = ["Ownership", "Plan", "SubvolumeSpace", "scan"]

_BY_AGE_AND_LENGTH = Representation()


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
    contained = containment(fs, scanned.owners)
    return Ownership(fs.path, scanned, contained, is_complete=not fs.lost)


class Ownership:
    """The answers of a scan.

    Args:
        path: What was opened.
        scanned: What was read of it.
        contained: How the subvolumes are inside each other.
        is_complete: See below.

    Attributes:
        tables: What was read: columns of all extents, references and blocks.
        contained: How the subvolumes are inside each other.
        generation: Generation of the commit that it shows.
        is_complete: Whether everything could be read. If not, what is referenced may be more; and
            what seems exclusive, or free when it is deleted, may be less, as what could not be read
            may refer to it, too.
    """

    def __init__(
        self, path: str, scanned: Scan, contained: Containment, *, is_complete: bool
    ) -> None:
        self._path = path
        self.contained = contained
        self.tables = scanned
        self.generation = scanned.generation
        self.is_complete = is_complete
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
        return subvolume_spaces(self.tables, self.contained, physical=physical)

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
        order: Order = "oldest",
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
            candidates = [
                owner.tree
                for owner in self.tables.owners
                if owner.kind is Kind.SUBVOLUME and owner.item and is_read_only_copy(owner.item)
            ]
        self._mask_of_ids(candidates)
        bits = [self._bits[tree] for tree in candidates]
        return plan(self.tables, wanted, bits, self._deleted, order)

    # Directories and files.

    def directories(self, rule: Representation | None = None) -> Directories:
        """Return the directories of all subvolumes.

        Args:
            rule: In which place an extent is shown that is used in several, if not as by default.

        Raises:
            BtrfsError: The scan did not read names.
        """
        if not self.tables.has_names:
            raise BtrfsError("the names of files were not read", hint="scan with names=True")
        rule = rule or _BY_AGE_AND_LENGTH
        if rule not in self._directories:
            places = Places(self.tables, self.contained, rule)
            self._directories[rule] = Directories(places)
        return self._directories[rule]

    def entry(self, path: str | bytes = b"", rule: Representation | None = None) -> Entry:
        """Return the directory, file or subvolume of a path from the top level.

        Args:
            path: The path.
            rule: In which place an extent is shown that is used in several, if not as by default.

        Raises:
            PathNotFoundError: There is none.
        """
        found = self.directories(rule).entry(os.fsencode(path))
        if found is None:
            raise PathNotFoundError(
                f"{printable(os.fsencode(path))}: no such path in the filesystem",
                hint="paths begin at the top level, which may not be what is mounted",
            )
        return found

    def files(
        self,
        sort: Sort = "represented",
        limit: int = 20,
        *,
        path: str | bytes = b"",
        rule: Representation | None = None,
    ) -> list[FileSpace]:
        """Return the files that are largest, or worst, the first first.

        Args:
            sort: What is compared. Files that have nothing of it are left out.
            limit: So many files at most.
            path: The directory that they are in, at any depth.
            rule: In which place an extent is shown that is used in several, if not as by default.

        Raises:
            PathNotFoundError: There is no such path.
        """
        return largest_files(self.entry(path, rule), sort, limit)

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
