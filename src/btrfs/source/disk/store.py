"""Where tree blocks come from, and which of their copies to believe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from btrfs.errors import CorruptError
from btrfs.source.disk.node import BlockFormat, Leaf, Node, Pointer, parse_block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BlockStore", "Copy", "read_block"]


class Copy(NamedTuple):
    """A copy of a tree block.

    Attributes:
        device: Path of the device or file that it is on.
        paddr: Where on it, in bytes.
        data: The block; if it cannot be read, why.
    """

    device: str
    paddr: int
    data: bytes | CorruptError


class BlockStore(Protocol):
    """Where tree blocks are kept: on devices, or in a dump."""

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield all copies of a block.

        Raises:
            CorruptError: There is no place for such an address.
        """

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
    errors = []
    for device, paddr, data in store.read_copies(pointer.vaddr, block_format.nodesize):
        if isinstance(data, CorruptError):
            errors.append(data)
            continue
        try:
            return data, parse_block(data, block_format, pointer)
        except CorruptError as error:
            errors.append(error.on(device, paddr))
    raise errors[0]
