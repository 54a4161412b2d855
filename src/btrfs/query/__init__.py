"""Choosing and ordering items, and writing them as JSON."""

from btrfs.lazy import lazy_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.query import (
        records as records,
        selection as selection,
    )

__getattr__, __dir__ = lazy_modules(__name__, __path__)
