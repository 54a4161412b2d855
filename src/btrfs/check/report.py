"""What a check found: findings, each of a kind, and what was looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from btrfs.check.kinds import KINDS

__all__ = ["CHECKS", "Checked", "Finding", "Progress", "no_progress", "not_checked"]

CHECKS = {
    "superblocks": "superblocks",
    "trees": "tree blocks and items",
    "files": "files and directories",
    "copies": "second copies of tree blocks",
    "extents": "extents",
    "free space": "free space",
    "checksums": "checksums",
    "chunks": "chunks and devices",
    "subvolumes": "subvolumes",
    "log trees": "log trees",
    "quotas": "quotas",
    "data": "data",
}
"""All checks in the order in which they are made: name, and what is checked."""

Progress = Callable[[int, int], None]
"""Is called with how much is done, and how much there is to do: bytes, or tree blocks."""


def no_progress(_done: int, _total: int) -> None:
    """Do nothing: the default where progress is not shown."""


_MAX_KEPT = 1000
"""Findings of one kind that are kept of each check. All are counted."""


class Finding(NamedTuple):
    """Something that is not as it must be.

    Attributes:
        kind: What kind of thing, a key of :data:`btrfs.check.KINDS`.
        message: The place, and what is wrong, in one line.
        recovered: Whether all can be read all the same, from another copy.
        tree: Number of the tree that it is in, None if it is in none.
        key: Key of the item, as text; None if it is of no certain item.
        path: Path of the file, from the top of the filesystem; None if it has none.
        expected: What should be there, None if the message says it.
        found: What is there instead.
        vaddr: Virtual address in bytes, None if it has none.
        device: Path of the device or file, None if it is on no certain one.
        paddr: Address on the device in bytes, None if it has none.
    """

    kind: str
    message: str
    recovered: bool = False
    tree: int | None = None
    key: str | None = None
    path: str | None = None
    expected: str | None = None
    found: str | None = None
    vaddr: int | None = None
    device: str | None = None
    paddr: int | None = None

    def __str__(self) -> str:
        parts = [self.message]
        if self.path is not None and self.path not in self.message:
            parts.append(f" ({self.path})")
        if self.found is not None:
            parts.append(f": {self.found}")
        if self.expected is not None:
            parts.append(f"{':' if self.found is None else ','} expected {self.expected}")
        return "".join(parts)


@dataclass(slots=True)
class Checked:
    """What one check looked at and found.

    Attributes:
        name: The check: superblocks, trees, extents, files and so on.
        summary: What was looked at, as a short text.
        counts: The same in numbers.
        details: More numbers, one row for each tree.
        totals: How many findings there are, by kind; remarks among them.
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
            kind: What kind of thing, a key of :data:`btrfs.check.KINDS`.
            message: The place, and what is wrong.
            recovered: Whether all can be read all the same.
            place: Other attributes of the finding: tree, key, path, expected, found, vaddr, device,
                paddr. Numbers that are expected and found become text.
        """
        self.totals[kind] += 1
        self.recovered += recovered
        if self.has_room(kind):
            found: dict[str, Any] = dict(place)
            for name in ("expected", "found"):
                if found.get(name) is not None:
                    found[name] = str(found[name])
            self.findings.append(Finding(kind, message, recovered, **found))

    def has_room(self, kind: str) -> bool:
        """Return whether the last finding of a kind is kept: of very many, the rest is counted."""
        return self.totals[kind] <= _MAX_KEPT

    @property
    def found(self) -> int:
        """How many findings there are in all, without remarks."""
        return sum(count for kind, count in self.totals.items() if not KINDS[kind].is_remark)

    @property
    def remarks(self) -> int:
        """How many remarks there are."""
        return self.totals.total() - self.found


def not_checked(done: Iterable[Checked]) -> dict[str, str]:
    """Return what was not checked, or not all of it.

    Args:
        done: The records of all checks that were made.

    Returns:
        Keys of :data:`CHECKS`, and for each why; empty where the check was not asked for.
    """
    skipped: dict[str, str | None] = dict.fromkeys(CHECKS, "")
    skipped.update((checked.name, checked.skipped) for checked in done)
    return {name: why for name, why in skipped.items() if why is not None}
