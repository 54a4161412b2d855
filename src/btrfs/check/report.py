"""What a check found: findings, each of a kind, and what was looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["KINDS", "Checked", "Finding", "Progress", "no_progress"]

Progress = Callable[[int, int], None]
"""Is called with how much is done, and how much there is to do: bytes, or tree blocks."""


def no_progress(_done: int, _total: int) -> None:
    """Do nothing: the default where progress is not shown."""


_MAX_KEPT = 1000
"""Findings of one kind that are kept of each check. All are counted."""

KINDS = {
    # superblocks
    "superblock-invalid": "copies of the superblock that cannot be used",
    "superblock-differs": "copies of the superblock that are not like the newest one",
    "device-missing": "devices that are missing",
    "device-stale": "devices that are out of date",
    "device-cut-off": "devices that are smaller than they should be",
    "device-item": "devices whose superblock and device item do not agree",
    "device-sums": "numbers of the superblock that do not agree with the devices",
    # trees
    "block-damaged": "tree blocks, or copies of them, that do not pass the checks",
    "keys-lost": "items that cannot be read from any copy",
    "block-owner": "tree blocks that say that they belong to another tree",
    "item-damaged": "items that cannot be what they should be",
    "tree-missing": "trees that there must be, but are not",
    "key-type": "items in a tree that such items do not belong in",
    # copies
    "copy-damaged": "copies of tree blocks that do not pass the checks",
    "parity-differs": "tree blocks that do not agree with the parity of their row",
    # chunks
    "chunk-alone": "chunks without a block group",
    "block-group-alone": "block groups without a chunk",
    "block-group-differs": "block groups that are not like their chunk",
    "stripe-alone": "stripes of chunks without a device extent",
    "device-extent-alone": "device extents that belong to no chunk",
    "device-extent-differs": "device extents that are not like the stripe of their chunk",
    "device-extent-overlaps": "device extents that overlap the one before",
    "device-extent-outside": "device extents that are not all on their device",
    "device-used": "devices whose allocated bytes are not the sum of their extents",
    # extents
    "extent-outside": "extents that do not lie in one block group",
    "extent-overlaps": "extents that overlap the one before",
    "extent-type": "extents in a block group for something else",
    "extent-references": "extents whose number of references is wrong",
    "reference-alone": "references to an extent that does not exist",
    "block-without-extent": "tree blocks in use that are no extents: they could be overwritten",
    "extent-without-block": "extents for tree blocks that are in no tree",
    "block-differs": "extents that are not like their tree block",
    "block-group-used": "block groups whose used bytes are not the sum of their extents",
    "bytes-used": "used bytes of the superblock that are not the sum of the block groups",
    "checksums-overlap": "checksums of data for which there are others already",
    # free space
    "free-space-differs": "block groups whose free space is not what extents leave free",
    "free-space-count": "block groups with a wrong number of free ranges",
    "free-space-alone": "free space outside of all block groups",
    # data
    "data-damaged": "data that does not agree with its checksum",
    "data-unreadable": "data that cannot be read",
}
"""All kinds of findings: name, and the heading of a list of such findings."""


class Finding(NamedTuple):
    """Something that is not as it must be.

    Attributes:
        kind: What kind of thing, a key of :data:`KINDS`.
        message: The place, and what is wrong, in one line.
        recovered: Whether all can be read all the same, from another copy.
        tree: Number of the tree that it is in, None if it is in none.
        vaddr: Virtual address in bytes, None if it has none.
        device: Path of the device or file, None if it is on no certain one.
        paddr: Address on the device in bytes, None if it has none.
    """

    kind: str
    message: str
    recovered: bool = False
    tree: int | None = None
    vaddr: int | None = None
    device: str | None = None
    paddr: int | None = None


@dataclass(slots=True)
class Checked:
    """What one check looked at and found.

    Attributes:
        name: The check: superblocks, trees, copies, chunks, extents, free space or data.
        summary: What was looked at, as a short text.
        counts: The same in numbers.
        details: More numbers, one row for each tree.
        totals: How many findings there are, by kind.
        recovered: Of how many of them another copy makes up for.
        findings: The findings; of each kind some hundreds at most.
        skipped: Why it was not done, or not all of it; else None.
        seconds: How long it took.
    """

    name: str
    summary: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    details: list[dict[str, Any]] = field(default_factory=list)
    totals: Counter[str] = field(default_factory=Counter)
    recovered: int = 0
    findings: list[Finding] = field(default_factory=list)
    skipped: str | None = None
    seconds: float = 0.0

    def add(
        self, kind: str, message: str, *, recovered: bool = False, **place: int | str | None
    ) -> None:
        """Add a finding.

        Args:
            kind: What kind of thing, a key of :data:`KINDS`.
            message: The place, and what is wrong.
            recovered: Whether all can be read all the same.
            place: Attributes of the finding: tree, vaddr, device, paddr.
        """
        self.totals[kind] += 1
        self.recovered += recovered
        if self.totals[kind] <= _MAX_KEPT:
            found: dict[str, Any] = dict(place)
            self.findings.append(Finding(kind, message, recovered, **found))

    @property
    def found(self) -> int:
        """How many findings there are in all."""
        return self.totals.total()
