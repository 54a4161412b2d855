"""The balance that a shortage of metadata asks for, as options of a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btrfs.space.advice import MetadataShortage


def balance_options(shortage: MetadataShortage) -> list[str]:
    """Return the options of btrfs-balance-least-used that move the block groups of a shortage."""
    most = max(group.used_pct for group in shortage.balance)
    return ["--usage", str(most), "--limit", str(len(shortage.balance))]
