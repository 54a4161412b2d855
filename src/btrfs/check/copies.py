"""All copies of all tree blocks: those that reading a filesystem does not look at, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from btrfs.check.report import Checked, Progress
from btrfs.errors import BtrfsError, CorruptError, MissingDeviceError
from btrfs.ondisk.text import counted
from btrfs.source.disk.node import Pointer, parse_block

if TYPE_CHECKING:
    from btrfs.check.tree_walk import BlockTable
    from btrfs.source.disk.source import DiskSource
    from btrfs.source.disk.store import Copy

__all__ = ["check_copies"]

_BLOCKS_PER_STEP = 1000


def check_copies(
    source: DiskSource, blocks: Sequence[BlockTable], checked: Checked, progress: Progress
) -> None:
    """Read all copies of tree blocks, with what parity makes of them, and compare.

    Args:
        source: The source of the filesystem.
        blocks: The blocks.
        checked: Where the findings go.
        progress: Is called with how many blocks are done, and how many there are.
    """
    if not source.devices:
        checked.skipped = "a dump has no more than one copy of each block"
        return
    count = sum(len(some.vaddr) for some in blocks)
    copies = missing = 0
    # What was met when trees were read is reported there.
    known = {(damage.device, damage.paddr) for damage in source.log.damage}
    for number, pointer in enumerate(_pointers(blocks)):
        found = _copies(source, pointer)
        copies += sum(not copy.rebuilt for copy in found)
        missing += sum(isinstance(copy.data, MissingDeviceError) for copy in found)
        if any(copy.data != found[0].data for copy in found[1:]):
            _compare(source, pointer, found, known, checked)
        if number % _BLOCKS_PER_STEP == 0:
            progress(number, count)
    checked.counts = {"blocks": count, "copies": copies - missing, "missing": missing}
    checked.summary = f"{counted(copies - missing, 'place')} of {counted(count, 'block')}"
    if missing:
        checked.skipped = f"not checked: {counted(missing, 'place')} on missing devices"
    elif not count:
        checked.skipped = "no tree block can be read"


def _pointers(blocks: Sequence[BlockTable]) -> Iterator[Pointer]:
    for some in blocks:
        rows = (some.vaddr.tolist(), some.generation.tolist(), some.level.tolist())
        yield from (Pointer(*row) for row in zip(*rows, strict=True))


def _copies(source: DiskSource, pointer: Pointer) -> list[Copy]:
    nodesize = source.trees.block_format.nodesize
    try:
        return list(source.trees.store.read_copies(pointer.vaddr, nodesize))
    except CorruptError:
        # It lies in no chunk, as the check of trees has reported.
        return []


def _compare(
    source: DiskSource,
    pointer: Pointer,
    copies: list[Copy],
    known: set[tuple[str | None, int | None]],
    checked: Checked,
) -> None:
    """Report which copies of a block are not good."""
    wrong = [(copy, _violation(source, pointer, copy)) for copy in copies]
    recovered = any(error is None for _, error in wrong)
    stored_well = all(error is None for copy, error in wrong if not copy.rebuilt)
    for copy, error in wrong:
        place = f"tree block at {pointer.vaddr} ({copy.device} at {copy.paddr})"
        if copy.rebuilt:
            if stored_well and error is not None:
                checked.add(
                    "parity-differs",
                    place,
                    recovered=True,
                    vaddr=pointer.vaddr,
                    device=copy.device,
                    paddr=copy.paddr,
                )
                return
        elif isinstance(error, CorruptError) and (copy.device, copy.paddr) not in known:
            checked.add(
                "copy-damaged",
                str(error.on(copy.device, copy.paddr)),
                recovered=recovered,
                vaddr=pointer.vaddr,
                device=copy.device,
                paddr=copy.paddr,
            )


def _violation(source: DiskSource, pointer: Pointer, copy: Copy) -> BtrfsError | None:
    """Return what is wrong with a copy of a block; None if nothing is."""
    if isinstance(copy.data, BtrfsError):
        return copy.data
    try:
        parse_block(copy.data, source.trees.block_format, pointer)
    except CorruptError as error:
        return error
    return None
