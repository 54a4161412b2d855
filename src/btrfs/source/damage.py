"""What could not be read as it should, and what became of it.

An unmounted filesystem remembers three things while it is read: bytes that did not pass a check
(:class:`Damage`, most of them harmless, as another copy served), keys of items that are left out
(:class:`LostKeys`), and notes, such as that a device is missing. A :class:`DamageLog` holds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from contextlib import contextmanager
from typing import Any, NamedTuple

from btrfs.errors import BtrfsError, CorruptError
from btrfs.ondisk.key import Key
from btrfs.ondisk.text import counted

__all__ = ["Damage", "DamageLog", "LostKeys"]

_MAX_ENTRIES = 100_000
"""A disk full of damage must not fill the memory too."""


class Damage(NamedTuple):
    """Bytes on a device that did not pass a check.

    Attributes:
        what: What was looked at, for instance ``tree block at 30408704, checksum``.
        expected: What should have been there, as text; None if it could not be read at all.
        found: What was there instead, as text; None if it could not be read at all.
        device: Path of the device or file.
        paddr: Address on it in bytes.
        vaddr: Virtual address of the block, None for what has none, like a superblock.
        recovered: Whether another copy, or a reconstruction from parity, served.
    """

    what: str
    expected: str | None
    found: str | None
    device: str | None
    paddr: int | None
    vaddr: int | None
    recovered: bool

    def __str__(self) -> str:
        error = CorruptError(
            self.what,
            expected=self.expected,
            found=self.found,
            device=self.device,
            paddr=self.paddr,
        )
        return f"{error}; {'another copy served' if self.recovered else 'lost'}"


class LostKeys(NamedTuple):
    """A range of keys of a tree that could not be read, both ends included.

    Attributes:
        tree: Number of the tree.
        min_key: The lowest key that may have been there.
        max_key: The highest key.
        reason: What went wrong, one line.
    """

    tree: int
    min_key: Key
    max_key: Key
    reason: str

    def overlaps(self, tree: int, first: Key, last: Key) -> bool:
        """Return whether an item of a tree may be lost whose key lies between two keys."""
        return self.tree == tree and self.min_key <= last and self.max_key >= first

    def __str__(self) -> str:
        is_all = self.min_key == Key(0, 0, 0) and self.max_key == Key(-1, -1, -1)
        where = "all of it" if is_all else f"keys {self.min_key} to {self.max_key}"
        return f"tree {self.tree}, {where}: {self.reason}"


class DamageLog:
    """What a filesystem remembers of its damage: each place once, however often it is read.

    Attributes:
        damage: Bytes that did not pass a check, in the order in which they were met.
        lost: Ranges of keys that were left out.
        notes: Other remarks on the state of the filesystem, one line each.
    """

    def __init__(self) -> None:
        self.damage: list[Damage] = []
        self.lost: list[LostKeys] = []
        self.notes: list[str] = []
        # The index in its list of each entry, by what distinguishes it.
        self._known: dict[object, int] = {}

    def add(self, error: BtrfsError, vaddr: int | None, *, recovered: bool) -> None:
        """Remember bytes that did not pass a check.

        A missing device is one note, and not an entry for each block on it.
        """
        if not isinstance(error, CorruptError):
            return
        found = Damage(
            error.what,
            None if error.expected is None else str(error.expected),
            None if error.expected is None else str(error.found),
            error.device,
            error.paddr,
            vaddr,
            recovered,
        )
        self._add(found)

    def absorb(self, other: DamageLog) -> None:
        """Remember the damaged bytes that another log knows."""
        for damage in other.damage:
            self._add(damage)

    def merge(self, other: DamageLog) -> None:
        """Remember all that another log knows."""
        self.absorb(other)
        for lost in other.lost:
            self.add_lost(lost)
        for text in other.notes:
            self.note(text)

    def add_lost(self, lost: LostKeys) -> None:
        """Remember keys that were left out."""
        if self._is_new(lost[:3], self.lost):
            self.lost.append(lost)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Forget at the end what was met meanwhile: for look-ups that only help to name things."""
        lists: list[list[Any]] = [self.damage, self.lost, self.notes]
        counts = [len(entries) for entries in lists]
        known = len(self._known)
        try:
            yield
        finally:
            for entries, count in zip(lists, counts, strict=True):
                del entries[count:]
            while len(self._known) > known:
                self._known.popitem()

    def note(self, text: str) -> None:
        """Remember a remark that is not about certain bytes."""
        if text not in self.notes:
            self.notes.append(text)

    def _add(self, damage: Damage) -> None:
        place = (damage.device, damage.paddr, damage.vaddr)
        if place == (None, None, None):
            place = (damage.what, None, None)
        if self._is_new(place, self.damage):
            self.damage.append(damage)
        elif place in self._known and not damage.recovered:
            # Another copy was good once, and is not any more.
            self.damage[self._known[place]] = damage

    def _is_new(self, place: object, entries: Sized) -> bool:
        """Return whether a place is not known yet and its list of entries is not full; note it."""
        if place in self._known:
            return False
        if len(entries) == _MAX_ENTRIES:
            self.note(f"there is more damage than the {_MAX_ENTRIES:,} places that are listed")
            return False
        self._known[place] = len(entries)
        return True

    def summary(self) -> str | None:
        """Return all of it in one line without a full stop; None if the log is empty."""
        parts = list(self.notes)
        recovered = sum(damage.recovered for damage in self.damage)
        bad = len(self.damage) - recovered
        if recovered:
            parts.append(f"{counted(recovered, 'damaged place')} recovered from redundancy")
        if bad:
            parts.append(f"{counted(bad, 'damaged place')} could not be recovered")
        if self.lost:
            trees = sorted({lost.tree for lost in self.lost})
            parts.append(
                f"{counted(len(self.lost), 'range')} of keys left out, of tree"
                f"{'s' if len(trees) > 1 else ''} {', '.join(map(str, trees))}"
            )
        return "; ".join(parts) or None
