"""Free space as ranges, however the free space tree stores it."""

from collections.abc import Iterator

from btrfs.ondisk.struct import Struct, u64

__all__ = ["FreeSpaceExtent"]


class FreeSpaceExtent(Struct, line="free space extent vaddr {vaddr} length {length}"):
    """A free range of the virtual address space. It unpacks and compares like a tuple.

    Attributes:
        vaddr: Virtual address that it begins at.
        length: Bytes.
    """

    _public_module = "btrfs.free_space_tree"

    vaddr: u64
    length: u64

    def __init__(self, vaddr: int, length: int) -> None:
        self.vaddr = vaddr
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter((self.vaddr, self.length))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FreeSpaceExtent):
            return tuple(self) == tuple(other)
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"FreeSpaceExtent(vaddr={self.vaddr}, length={self.length})"
