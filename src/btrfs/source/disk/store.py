"""Where tree blocks come from, and which of their copies to believe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from btrfs.errors import CorruptError
from btrfs.source.disk.node import BlockFormat, Leaf, Node, Pointer, parse_block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BlockStore", "read_block"]


class BlockStore(Protocol):
    """Where tree blocks are kept: on devices, or in a dump."""

    def read_copies(self, vaddr: int, length: int) -> Iterator[bytes | CorruptError]:
        """Yield all copies of a block; for one that cannot be read, why."""

    def read_many(
        self, vaddrs: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read the first copy of each of many blocks.

        Returns:
            A buffer with the blocks one after another, and which of them were read.
        """


def read_block(
    store: BlockStore, block_format: BlockFormat, pointer: Pointer
) -> tuple[bytes, Leaf | Node]:
    """Return a block that has passed all checks, from whichever copy: its bytes, and parsed.

    Raises:
        CorruptError: There is no such copy. This is what is wrong with the first.
    """
    first_error = None
    for copy in store.read_copies(pointer.vaddr, block_format.nodesize):
        try:
            if isinstance(copy, CorruptError):
                raise copy
            return copy, parse_block(copy, block_format, pointer)
        except CorruptError as error:
            first_error = first_error or error
    raise first_error or CorruptError(
        f"tree block at {pointer.vaddr}", expected="a copy of it", found="none"
    )
