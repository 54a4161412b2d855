"""Everything that this library raises on its own account.

Errors of the kernel stay :class:`OSError`; a look-up that finds nothing raises
:class:`ItemNotFoundError`, an :class:`IndexError`. All else derives from :class:`BtrfsError`,
whose text is a single line, and whose ``hint`` says what a user could do about it.
"""

from __future__ import annotations

import errno

__all__ = [
    "BtrfsError",
    "CorruptError",
    "ItemNotFoundError",
    "MissingDeviceError",
    "NotBtrfsError",
    "NotMountedError",
    "PathNotFoundError",
    "StaleError",
    "TreeNotFoundError",
    "UnsupportedFeatureError",
]


class BtrfsError(Exception):
    """Base class of the errors of this library.

    Attributes:
        hint: What to try next, one line without a full stop at its end, or None.
    """

    hint: str | None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class NotBtrfsError(BtrfsError):
    """What was opened holds no btrfs filesystem."""


class CorruptError(BtrfsError):
    """Bytes that do not pass a check.

    Attributes:
        what: What was looked at, for instance ``tree block at 30408704``.
        expected: What should have been there.
        found: What was there instead.
        device: Name of the device or file, where it is known.
        paddr: Address on that device in bytes, where it is known.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: object = None,
        found: object = None,
        device: str | None = None,
        paddr: int | None = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.expected = expected
        self.found = found
        self.device = device
        self.paddr = paddr
        place = "" if device is None else device
        if paddr is not None:
            place += f" at {paddr}"
        place = place and f" ({place})"
        verdict = "" if expected is None else f": expected {expected}, found {found}"
        super().__init__(f"{what}{place}{verdict}", hint=hint)

    def on(self, device: str, paddr: int) -> CorruptError:
        """Return the same error with the place where the bytes lie."""
        return CorruptError(
            self.what,
            expected=self.expected,
            found=self.found,
            device=device,
            paddr=paddr,
            hint=self.hint,
        )


class MissingDeviceError(BtrfsError):
    """A device that is needed was neither given nor found."""


class StaleError(BtrfsError):
    """A block of a mounted filesystem is gone: newer commits have overwritten it.

    It is no damage. What was to be read may be found again from the last commit, which
    :meth:`btrfs.source.blocks.BlockSource.refresh` makes a source show.
    """


class UnsupportedFeatureError(BtrfsError):
    """The filesystem uses a feature that changes the format in a way unknown here."""


class NotMountedError(BtrfsError, AttributeError):
    """Only the kernel that has the filesystem mounted could do this.

    It is an :class:`AttributeError` too, so that ``hasattr(fs, "fd")`` answers.
    """


class _NotFoundError(BtrfsError, FileNotFoundError):
    """Something is not there, for which the kernel's answer would be ENOENT."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno.ENOENT

    def __str__(self) -> str:
        return str(self.args[0])


class TreeNotFoundError(_NotFoundError):
    """There is no such tree."""


class PathNotFoundError(_NotFoundError):
    """There is no such path in a filesystem."""


class ItemNotFoundError(IndexError):
    """A look-up of exactly one object found none."""
