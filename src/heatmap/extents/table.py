"""The extents of a range of virtual addresses as a table: a row per extent, and a column per fact.

A :class:`Column` is a fact about extents, and how it is read from their items. Which columns a
table has is the choice of the reader; addresses and lengths it always has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError
from heatmap.extents import reading, references, types
from heatmap.extents.trees import Trees
from heatmap.palette import UNREADABLE
from heatmap.unreadable import Range

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ondisk.columns import ItemBatch

__all__ = [
    "COMPRESSION",
    "GENERATION",
    "OWNER",
    "REFERENCES",
    "TYPE",
    "Column",
    "Extents",
    "TooManyExtentsError",
    "read_extents",
]

UNREADABLE_TYPE = types.EXTENTS.names.index(UNREADABLE)


@dataclass(frozen=True, slots=True)
class Column:
    """A fact about extents.

    Attributes:
        name: What it is called.
        dtype: Name of the numpy type of its values.
        read: Returns the values for a batch of EXTENT_ITEMs and METADATA_ITEMs, in their order;
            the trees give those that own extents their indexes.
        reads_files: Whether the items of files have to be read for it, which takes far longer than
            reading the extent tree.
        unreadable: The value for what could not be read.
    """

    name: str
    dtype: str
    read: Callable[[FileSystem, ItemBatch, Trees], NDArray[np.integer]]
    reads_files: bool = False
    unreadable: int = 0


GENERATION = Column("generation", "int64", lambda _fs, items, _trees: references.generations(items))
"""The transaction in which an extent was made."""

REFERENCES = Column(
    "refs",
    "uint32",
    lambda _fs, items, _trees: np.minimum(references.reference_counts(items), _MAX_REFS),
)
"""How many references there are to an extent; 2^32-1 stands for that many and more."""

OWNER = Column(
    "owner",
    "int32",
    lambda fs, items, trees: trees.indexes(references.owning_trees(fs, items)),
)
"""The tree that an extent belongs to, an index into `Trees.numbers`."""

TYPE = Column(
    "type",
    "uint8",
    lambda fs, items, _trees: types.extent_values(fs, items),
    unreadable=UNREADABLE_TYPE,
)
"""What an extent holds, an index into `heatmap.extents.types.EXTENTS`."""

COMPRESSION = Column(
    "compression",
    "uint8",
    lambda fs, items, _trees: _compressions(fs, items),
    reads_files=True,
)
"""How an extent is compressed, an index into `heatmap.extents.compression.COMPRESSIONS`."""


def _compressions(fs: FileSystem, items: ItemBatch) -> NDArray[np.uint8]:
    # It stands on back references, which take long to import and are rarely needed.
    from heatmap.extents.compression import compressions

    return compressions(fs, items)


@dataclass(frozen=True, slots=True)
class Extents:
    """Extents in the order of their addresses, none overlapping; arrays, an entry per extent.

    What could not be read is among them: see `is_unreadable`.

    Attributes:
        vaddr: Virtual address, int64.
        length: Bytes, int64.
        is_unreadable: Whether it stands for a range in which extents could not be read, bool.
        columns: Further facts, by the names of their columns.
    """

    vaddr: NDArray[np.int64]
    length: NDArray[np.int64]
    is_unreadable: NDArray[np.bool_]
    columns: Mapping[str, NDArray[np.integer]]

    def __len__(self) -> int:
        return self.vaddr.size

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        arrays = (self.vaddr, self.length, self.is_unreadable, *self.columns.values())
        return sum(array.nbytes for array in arrays)

    def __getitem__(self, column: Column) -> NDArray[np.integer]:
        """Return a column.

        Raises:
            KeyError: The table was read without it.
        """
        return self.columns[column.name]

    def has(self, columns: Iterable[Column]) -> bool:
        """Return whether the table has all of these columns."""
        return all(column.name in self.columns for column in columns)

    def rows(self, chosen: slice | NDArray[np.intp] | NDArray[np.bool_]) -> Extents:
        """Return some of the rows, ascending."""
        return Extents(
            self.vaddr[chosen],
            self.length[chosen],
            self.is_unreadable[chosen],
            {name: column[chosen] for name, column in self.columns.items()},
        )

    def at(self, vaddr: int) -> int | None:
        """Return the index of the extent that holds a virtual address; None if none does."""
        index = int(np.searchsorted(self.vaddr, vaddr, "right")) - 1
        if index >= 0 and vaddr < self.vaddr[index] + self.length[index]:
            return index
        return None


class TooManyExtentsError(BtrfsError):
    """The extents of a range do not fit into the memory that may be used."""


def read_extents(
    fs: FileSystem,
    vaddr: int,
    length: int,
    columns: Sequence[Column],
    trees: Trees,
    limit: int | None = None,
) -> Extents:
    """Read the extents that begin in a range of virtual addresses.

    Nothing reaches out of the range, whatever is on disk. Where extents overlap on a damaged
    filesystem, the first one counts.

    Args:
        fs: The filesystem.
        vaddr: Virtual address at which the range begins.
        length: Bytes of the range.
        columns: What to read besides addresses and lengths.
        trees: Gives the trees that own extents their indexes.
        limit: Bytes of memory that the table may take, if there is a limit.

    Raises:
        TooManyExtentsError: They do not fit into that.
        BtrfsError, OSError: They cannot be read.
    """
    parts = [_unreadable([], columns)]
    size = 0
    for items, lost in reading.read(fs, vaddr, length):
        found = [_unreadable(lost, columns)]
        if items is not None:
            offset, inside = reading.within(fs, items, vaddr, length)
            facts = {
                column.name: column.read(fs, items, trees).astype(column.dtype, copy=False)
                for column in columns
            }
            known = np.zeros(len(items), bool)
            found.insert(0, Extents(offset + vaddr, inside, known, facts))
        parts += found
        size += sum(part.nbytes for part in found)
        if limit is not None and size > limit:
            raise TooManyExtentsError(
                f"the extents of block group {vaddr} take more than {limit} bytes",
                hint="allow more with --memory",
            )
    return _disjoint(parts)


def _unreadable(lost: Sequence[Range], columns: Sequence[Column]) -> Extents:
    """Return ranges in which extents could not be read, as rows of a table."""
    first, end = np.array(lost, dtype=np.int64).reshape(-1, 2).T
    return Extents(
        first,
        end - first,
        np.ones(first.size, bool),
        {column.name: np.full(first.size, column.unreadable, column.dtype) for column in columns},
    )


def _disjoint(parts: Sequence[Extents]) -> Extents:
    """Return tables as one, sorted; where two extents overlap, the first one counts."""
    vaddr = np.concatenate([part.vaddr for part in parts])
    end = vaddr + np.concatenate([part.length for part in parts])
    order = np.argsort(vaddr, kind="stable")
    vaddr, end = vaddr[order], end[order]
    covered = np.maximum.accumulate(end)
    vaddr = np.maximum(vaddr, np.concatenate([vaddr[:1], covered[:-1]]))
    kept = np.flatnonzero(end > vaddr)
    rows = order[kept]
    is_unreadable = np.concatenate([part.is_unreadable for part in parts])
    columns = {
        name: np.concatenate([part.columns[name] for part in parts])[rows]
        for name in parts[0].columns
    }
    return Extents(vaddr[kept], (end - vaddr)[kept], is_unreadable[rows], columns)


_MAX_REFS = (1 << 32) - 1
