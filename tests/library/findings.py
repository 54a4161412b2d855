"""What a check finds in images: all of it, or one line of its report."""

from __future__ import annotations

from pathlib import Path

from btrfs import FileSystem, check
from btrfs.check import KINDS, Checked, Finding

__all__ = ["findings", "line_of", "messages"]


def findings(images: Path | list[Path]) -> list[Finding]:
    """Return all that a check finds."""
    with FileSystem(images, source="unmounted", on_error="skip") as fs:
        found = [finding for checked in check.check(fs) for finding in checked.findings]
    assert {finding.kind for finding in found} <= KINDS.keys()
    return found


def line_of(images: Path | list[Path], name: str) -> Checked:
    """Return what one of the checks found."""
    with FileSystem(images, source="unmounted", on_error="skip") as fs:
        return next(one for one in check.check(fs) if one.name == name)


def messages(found: Checked) -> list[str]:
    """Return kind and text of each finding."""
    return [f"{finding.kind}: {finding}" for finding in found.findings]
