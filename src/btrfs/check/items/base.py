"""What the rules of all families work on: many items of one type of key, and a list of problems."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch, take
from btrfs.ondisk.key import Key
from btrfs.ondisk.struct import Struct

if TYPE_CHECKING:
    from btrfs.source.disk.superblock import Superblock

__all__ = ["ItemFormat", "Items", "Mask", "Problem", "is_subvolume_number", "is_wrong_inum"]

Mask = NDArray[np.bool_]


class Problem(NamedTuple):
    """An item that is not as it must be.

    Attributes:
        kind: A key of :data:`btrfs.check.KINDS`.
        leaf: Number of its leaf.
        key: Its key.
        why: What is wrong.
        expected: What should be there, None if ``why`` says it.
        found: What is there instead, or None.
    """

    kind: str
    leaf: int
    key: Key
    why: str
    expected: int | str | None = None
    found: int | str | None = None


class ItemFormat(NamedTuple):
    """What a superblock says about items.

    Attributes:
        sectorsize: Bytes of a sector.
        nodesize: Bytes of a tree block.
        csum_size: Bytes of a checksum.
        generation: Generation of the last commit.
        incompat_flags: Features without which the filesystem cannot be read.
    """

    sectorsize: int
    nodesize: int
    csum_size: int
    generation: int
    incompat_flags: int

    @classmethod
    def of(cls, superblock: Superblock) -> ItemFormat:
        """Return what a superblock says."""
        return cls(
            superblock.sectorsize,
            superblock.nodesize,
            superblock.checksum.size,
            superblock.generation,
            superblock.incompat_flags,
        )


@dataclass(frozen=True, slots=True)
class Items:
    """Items of one type of key, from many leaves of trees of one kind.

    Attributes:
        batch: The items.
        leaf: Number of the leaf of each.
        fs: What the superblock says.
        tree: The tree that stands for its kind of trees.
        generation: The newest generation that anything can be of.
        problems: Gets what is wrong.
    """

    batch: ItemBatch
    leaf: NDArray[Any]
    fs: ItemFormat
    tree: int
    generation: int
    problems: list[Problem]

    def __len__(self) -> int:
        return len(self.batch)

    @property
    def objectid(self) -> NDArray[np.uint64]:
        """First parts of the keys."""
        return self.batch.objectid

    @property
    def offset(self) -> NDArray[np.uint64]:
        """Third parts of the keys."""
        return self.batch.offset

    def select(self, chosen: NDArray[Any] | slice) -> Items:
        """Return the items that a mask, an array of indexes or a slice chooses."""
        if isinstance(chosen, np.ndarray) and chosen.dtype == np.bool_ and chosen.all():
            return self
        return replace(self, batch=self.batch.select(chosen), leaf=self.leaf[chosen])

    def field(self, struct: type[Struct], name: str) -> NDArray[Any]:
        """Return a field of the struct that each body begins with; none may be too short."""
        dtype, at = _place(struct, name)
        return take(self.batch.buffer, dtype, self.batch.body + at)

    def fields(self, dtype: np.dtype[Any], *names: str) -> list[NDArray[Any]]:
        """Return many fields of the struct that each body begins with; none may be too short."""
        structs = take(self.batch.buffer, dtype, self.batch.body)
        return [np.ascontiguousarray(structs[name]) for name in names]

    def wrong(
        self,
        mask: Mask,
        why: str,
        *,
        kind: str = "item-damaged",
        expected: Any = None,
        found: Any = None,
        rows: NDArray[np.intp] | None = None,
    ) -> None:
        """Note a problem for each element of a mask that is set.

        Args:
            mask: An element per item, or per row of a table that is made of the items.
            why: What is wrong.
            kind: A key of KINDS.
            expected: What should be there: one value, or one per element.
            found: What is there, likewise.
            rows: Index of the item of each row; None if each item is a row.
        """
        if not mask.any():
            return
        for row in np.flatnonzero(mask).tolist():
            index = row if rows is None else int(rows[row])
            self.problems.append(
                Problem(
                    kind,
                    int(self.leaf[index]),
                    self.batch.key(index),
                    why,
                    _value(expected, row),
                    _value(found, row),
                )
            )

    def sized(self, *sizes: int) -> Items:
        """Note items whose bodies are not of one of these sizes, and return the others."""
        right = np.logical_or.reduce([self.batch.size == size for size in sizes])
        expected = " or ".join(map(str, sizes))
        self.wrong(~right, "its size is wrong", expected=expected, found=self.batch.size)
        return self.select(right)

    def at_least(self, size: int) -> Items:
        """Note items whose bodies are shorter, and return the others."""
        right = self.batch.size >= size
        self.wrong(~right, "it is too short", expected=f"{size} or more", found=self.batch.size)
        return self.select(right)

    def not_future(self, generation: NDArray[Any], name: str, **keywords: Any) -> None:
        """Note items of a generation that has not been yet."""
        self.wrong(
            generation > np.uint64(self.generation),
            f"its {name} has not been yet",
            expected=f"{self.generation} or less",
            found=generation,
            **keywords,
        )

    def aligned(self, values: NDArray[Any], name: str) -> None:
        """Note items with a value that is not a multiple of the size of a sector."""
        self.wrong(
            self.odd(values),
            f"its {name} is not a multiple of {self.fs.sectorsize}",
            found=values,
        )

    def odd(self, values: NDArray[Any]) -> Mask:
        """Return where a value is not a multiple of the size of a sector."""
        return np.asarray(values & np.uint64(self.fs.sectorsize - 1) != 0)

    def equal(self, values: NDArray[Any], expected: int, name: str) -> None:
        """Note items with another value than they must have."""
        self.wrong(values != expected, f"its {name} is wrong", expected=expected, found=values)

    def known_bits(self, values: NDArray[Any], known: int, name: str) -> None:
        """Note items with bits that have no meaning."""
        rest = values & ~values.dtype.type(known)
        self.wrong(rest != 0, f"its {name} has bits that are not known", found=_hex(values, rest))


@cache
def _place(struct: type[Struct], name: str) -> tuple[np.dtype[Any], int]:
    """Return type and place in the struct of a field, or of one of a struct inside."""
    dtype, at = struct.dtype, 0
    for part in name.split("."):
        assert dtype.fields is not None
        dtype, inside, *_ = dtype.fields[part]
        at += inside
    return dtype, at


def is_subvolume_number(tree: NDArray[np.uint64]) -> Mask:
    """Return which numbers are those of subvolumes."""
    return np.asarray(
        (tree == constants.FS_TREE_OBJECTID)
        | (
            (tree >= constants.FIRST_FREE_OBJECTID)
            & (tree <= np.uint64(constants.LAST_FREE_OBJECTID))
        )
    )


def is_wrong_inum(inum: NDArray[np.uint64]) -> Mask:
    """Return which numbers cannot be those of inodes.

    The root tree has a directory of its own, and old kernels kept free inode numbers in a file of
    each subvolume.
    """
    wrong = inum - np.uint64(constants.FIRST_FREE_OBJECTID) > np.uint64(
        constants.LAST_FREE_OBJECTID - constants.FIRST_FREE_OBJECTID
    )
    if wrong.any():
        wrong &= inum != constants.ROOT_TREE_DIR_OBJECTID
        wrong &= inum != np.uint64(constants.FREE_INO_OBJECTID)
    return np.asarray(wrong)


def _value(values: NDArray[Any] | int | str | None, row: int) -> int | str | None:
    if not isinstance(values, np.ndarray):
        return values
    value: int | str = values[row].item()
    return value


def _hex(values: NDArray[Any], rest: NDArray[Any]) -> NDArray[Any]:
    """Return values as hexadecimal text; only those with a rest are looked at."""
    text = np.empty(len(values), object)
    chosen = np.flatnonzero(rest)
    text[chosen] = [_Text(f"0x{value:x}") for value in values[chosen].tolist()]
    return text


class _Text(str):
    """Text that can be an element of an array of objects, and has item() as numbers do."""

    __slots__ = ()

    def item(self) -> str:
        """Return the text."""
        return str(self)
