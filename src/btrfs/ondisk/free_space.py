"""Free space as ranges, however the free space tree stores it."""

from collections.abc import Iterator
from dataclasses import dataclass

from btrfs.ondisk.printing import Printable

__all__ = ["FreeSpaceExtent"]


@dataclass(slots=True, unsafe_hash=True)
class FreeSpaceExtent(Printable, module="btrfs.free_space_tree"):
    """A free range of the virtual address space. It unpacks and compares like a tuple.

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes.
    """

    vaddr: int
    length: int

    def __iter__(self) -> Iterator[int]:
        return iter((self.vaddr, self.length))
