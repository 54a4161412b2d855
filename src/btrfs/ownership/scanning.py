"""One scan over all trees, from which all questions about who owns what are answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError, CorruptError, StaleError
from btrfs.ownership.extents import DataExtents, References, data_extents, reference_table
from btrfs.ownership.graph import AskedLeaves, Graph, Progress, TreeBlocks
from btrfs.ownership.names import InodeRows, LinkRows, NameCollector, NameParts, name_parts
from btrfs.ownership.owners import Kind, Owner, owners
from btrfs.ownership.references import InlineRows, ReferenceRows, reference_rows
from btrfs.ownership.root_sets import RootSets, SetIds, first_bit, mask_of
from btrfs.ownership.sizes import ChunkClasses, SizesBySet, sum_by
from btrfs.ownership.tables import TableBuilder

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ondisk.key import Key
    from btrfs.source.disk.bulk import Leaves
    from btrfs.source.disk.source import DiskSource

__all__ = ["Scan", "scan_trees"]

_MOST_TRIES = 100
"""So often does a scan go on from a newer commit. Each time there is less left to read."""

_SHARE_OF_FREE_MEMORY = 4

_INLINE_DTYPES = ("<u4", "<u4", "u1", "<u8", "<u4")


@dataclass(frozen=True, slots=True)
class Scan:
    """What one scan has read, as tables.

    Attributes:
        generation: Generation of the commit that it shows.
        owners: The trees; a set of roots has bit N for the Nth of them.
        sets: The sets of roots.
        leaf_sets: Set of each leaf by its number, uint32.
        blocks: All tree blocks.
        extents: All extents of data that files use.
        references: The pieces of files in these.
        inline: The pieces of files that lie in leaves.
        links: The names of inodes in subvolumes, if they were read.
        inodes: The inodes in subvolumes, if names were read.
        names: The bytes of all names, uint8.
        has_names: Whether names were read.
        sizes: Bytes by set of roots.
        used: Bytes that the block groups say are used.
        incomplete: Bit mask of the trees of which not everything could be read.
    """

    generation: int
    owners: list[Owner]
    sets: RootSets
    leaf_sets: SetIds
    blocks: TreeBlocks
    extents: DataExtents
    references: References
    inline: InlineRows
    links: LinkRows
    inodes: InodeRows
    names: NDArray[np.uint8]
    sizes: SizesBySet
    used: int
    incomplete: int
    has_names: bool


def scan_trees(
    fs: FileSystem,
    *,
    names: bool = True,
    memory: int | None = None,
    progress: Progress | None = None,
) -> Scan:
    """Read all trees of a filesystem whose blocks are shown.

    Args:
        fs: The filesystem; a mounted one is opened with source='devices'.
        names: Read the names of files, too, for questions about directories and files.
        memory: Bytes of memory that it may take, roughly; a quarter of what is free if not given.
        progress: Is called with leaves read and leaves to read. If it raises, the scan ends.

    Raises:
        BtrfsError: The filesystem shows no blocks.
        StaleError: It is committed faster than it can be read.
        CorruptError: A block has no copy that passes all checks, and errors are to be raised.
    """
    source = fs.block_source()
    budget = _free_memory() // _SHARE_OF_FREE_MEMORY if memory is None else memory
    collector = _Collector(source, budget, with_names=names)
    sets = RootSets()
    graph = Graph(source, sets, collector)
    for _ in range(_MOST_TRIES):
        generation = source.superblock.generation
        try:
            found = owners(fs)
            groups = list(fs.block_groups())
            chunks = ChunkClasses(fs.chunks())
            # Look-ups go on from a newer commit by themselves.
            if source.superblock.generation == generation:
                blocks, leaf_sets = graph.walk(found, progress or _no_progress)
                break
        except StaleError:
            source.refresh()
    else:
        raise StaleError(
            f"{fs.path} is committed faster than it can be read",
            hint="stop what writes to it for a moment",
        )
    renumbered = sets.replaced(_without_weak(found))
    leaf_sets = renumbered[leaf_sets]
    blocks = TreeBlocks(blocks.vaddr, renumbered[blocks.set_id])
    extents, references = data_extents(collector.references, leaf_sets, sets, budget)
    return Scan(
        generation,
        found,
        sets,
        leaf_sets,
        blocks,
        extents,
        references,
        InlineRows(*collector.inline.finish()),
        *collector.names.finish(),
        _sizes(fs.nodesize, blocks, extents, sets, chunks),
        sum(group.used for group in groups),
        graph.incomplete | collector.report(found, sets, leaf_sets),
        names,
    )


def _no_progress(done: int, total: int) -> None:
    """Show nothing."""


class _FileItems(NamedTuple):
    """What the items of some leaves say of files.

    Attributes:
        rows: Pieces in extents.
        inline: Pieces in leaves.
        names: Names and inodes, if they are wanted.
        bad: Items that cannot be right, and are left out: the numbers of their leaves, their keys,
            and how many bytes they have.
    """

    rows: ReferenceRows
    inline: InlineRows
    names: NameParts | None
    bad: list[tuple[int, Key, int]]


class _Collector:
    """Takes from leaves what they say of files. See LeafConsumer.

    Args:
        source: The source of the leaves.
        memory: Bytes of memory that all of it may take.
        with_names: Whether to take the names of files, too.
    """

    def __init__(self, source: DiskSource, memory: int, *, with_names: bool) -> None:
        self._source = source
        self._with_names = with_names
        self.references = reference_table(memory // 4)
        self.inline = TableBuilder(_INLINE_DTYPES, memory // 8)
        self.names = NameCollector(memory // 4)
        self._bad: list[tuple[int, Key, int]] = []

    def decode(self, leaves: Leaves, asked: AskedLeaves) -> _FileItems:
        batch, leaf = leaves.batch, asked.numbers[leaves.block]
        rows, inline, bad = reference_rows(batch, leaf)
        names = name_parts(batch, leaf) if self._with_names else None
        indexes = bad.tolist() + (names.bad.tolist() if names is not None else [])
        items = [(int(leaf[index]), batch.key(index), int(batch.size[index])) for index in indexes]
        return _FileItems(rows, inline, names, items)

    def collect(self, decoded: _FileItems) -> None:
        self.references.append(decoded.rows)
        self.inline.append(decoded.inline)
        if decoded.names is not None:
            self.names.add(decoded.names)
        self._bad += decoded.bad

    def report(self, owners: list[Owner], sets: RootSets, leaf_sets: SetIds) -> int:
        """Note the items that cannot be right, or raise an error.

        Args:
            owners: The trees.
            sets: The sets of roots.
            leaf_sets: Set of each leaf.

        Returns:
            Bit mask of the roots that lead to any of them.

        Raises:
            CorruptError: There are such items, and errors are to be raised.
        """
        incomplete = 0
        for leaf, key, size in self._bad:
            mask = sets.masks[leaf_sets[leaf]]
            if mask:
                tree = owners[first_bit(mask)].tree
                error = CorruptError(
                    f"item {key} of tree {tree}",
                    expected="one that is whole",
                    found=f"{size} bytes",
                )
                self._source.skip_or_raise(tree, key.key, key.key, error)
                incomplete |= mask
        return incomplete


def _without_weak(found: list[Owner]) -> Any:
    """Return what takes trees of relocation out of sets that have other roots."""
    weak = mask_of(bit for bit, owner in enumerate(found) if owner.kind is Kind.RELOCATION)
    return lambda mask: mask & ~weak or mask


def _sizes(
    nodesize: int,
    blocks: TreeBlocks,
    extents: DataExtents,
    sets: RootSets,
    chunks: ChunkClasses,
) -> SizesBySet:
    shape = (len(sets), len(chunks.factors))
    data = sum_by(extents.set_id, extents.num_bytes, chunks.of(extents.vaddr), shape)
    of_blocks = np.full(len(blocks.vaddr), nodesize)
    metadata = sum_by(blocks.set_id, of_blocks, chunks.of(blocks.vaddr), shape)
    return SizesBySet(data, metadata, chunks.factors)


def _free_memory() -> int:
    """Return how many bytes of memory are free or can be freed at once."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            name, kib, *_ = line.split()
            if name == "MemAvailable:":
                return int(kib) << 10
    raise BtrfsError("/proc/meminfo does not say how much memory is free", hint="set memory")
