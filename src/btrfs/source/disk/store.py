"""Where tree blocks come from, and which of their copies to believe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from btrfs.errors import BtrfsError, CorruptError, MissingDeviceError, StaleError
from btrfs.source.damage import DamageLog
from btrfs.source.disk.node import BlockFormat, Leaf, Node, Pointer, parse_block

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from btrfs.source.disk.devices import Device

__all__ = ["UNREADABLE", "BlockStore", "Copy", "UnreadableHandler", "read_block"]

UNREADABLE = (CorruptError, MissingDeviceError)
"""What is raised where none of the copies of a block is good."""

UnreadableHandler = Callable[[int, int, BtrfsError], None]
"""Is called for a block that cannot be read, with the lowest and the highest key below it as
numbers, and the error. It raises the error, or returns: then the items of the block are left out.
"""


class Copy(NamedTuple):
    """A copy of a range of the virtual address space.

    Attributes:
        device: Path of the device or file that it is on.
        paddr: Where on it, in bytes.
        data: The bytes; if they cannot be read, why: CorruptError or MissingDeviceError.
        rebuilt: Whether they were worked out from the parity of RAID5 or RAID6, one of the ways
            that there may be. The place is the one where they should be.
    """

    device: str
    paddr: int
    data: bytes | BtrfsError
    rebuilt: bool = False


class BlockStore(Protocol):
    """Where tree blocks are kept: on devices, or in a dump.

    Attributes:
        devices: The devices by their numbers, as many of them as there are; none for a dump.
    """

    @property
    def devices(self) -> Mapping[int, Device]: ...

    def read_copies(self, vaddr: int, length: int) -> Iterator[Copy]:
        """Yield all copies of a block, then what it must have been by each parity.

        Raises:
            CorruptError: There is no place for such an address.
        """

    def read_many(
        self, vaddrs: NDArray[np.int64], length: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read one copy of each of many blocks.

        Returns:
            A buffer with the blocks one after another, and which of them were read.
        """

    def is_stale(self) -> bool:
        """Return whether blocks may have been overwritten, as there is a newer commit."""

    def close(self) -> None:
        """Close all files."""


def read_block(
    store: BlockStore, block_format: BlockFormat, pointer: Pointer, log: DamageLog
) -> tuple[bytes, Leaf | Node]:
    """Return a block that has passed all checks, from whichever copy: its bytes, and parsed.

    Args:
        store: Where the block is.
        block_format: What all blocks have in common.
        pointer: What is known of this one.
        log: Remembers the copies that do not pass.

    Raises:
        CorruptError: No copy passes. This is what is wrong with the first.
        MissingDeviceError: All copies are on devices that are missing.
        StaleError: No copy passes, and there is a newer commit, so that may be no damage.
    """
    errors: list[BtrfsError] = []
    found: tuple[bytes, Leaf | Node] | None = None
    try:
        for copy in store.read_copies(pointer.vaddr, block_format.nodesize):
            if isinstance(copy.data, BtrfsError):
                errors.append(copy.data)
                continue
            try:
                found = copy.data, parse_block(copy.data, block_format, pointer)
                break
            except CorruptError as error:
                # A reconstruction is wrong if one of the stripes that it is made from is wrong.
                if not copy.rebuilt:
                    errors.append(error.on(copy.device, copy.paddr))
    except CorruptError as error:
        errors.append(error)
    corrupt = [bad for bad in errors if isinstance(bad, CorruptError)]
    if (corrupt or found is None) and store.is_stale():
        if found is None:
            raise StaleError(
                f"tree block at {pointer.vaddr} was overwritten while the filesystem was read",
                hint="refresh the source, and begin again",
            )
        return found
    for bad in corrupt:
        log.add(bad, pointer.vaddr, recovered=found is not None)
    if found is None:
        raise next(iter(corrupt or errors))
    return found
