"""Choosing and ordering items, and writing them as JSON."""

from btrfs._lazy import lazy_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from btrfs.query import (
        records as records,
        selection as selection,
    )
else:
    __getattr__, __dir__ = lazy_names(__name__, __path__)
