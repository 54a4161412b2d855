"""Memory for extents and their summaries: what was not used for the longest time goes first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

CacheKey = tuple[Hashable, ...]
"""What an entry is kept under; the virtual address of its block group comes first."""


class ExtentCache:
    """Keeps objects, each with its bytes in `nbytes`, up to so many bytes in all.

    Args:
        limit: Bytes.

    Attributes:
        limit: The same.
        nbytes: Bytes that are kept now.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._kept: OrderedDict[CacheKey, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: CacheKey) -> Any:
        """Return what is kept under a key; None if nothing is."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: CacheKey, entry: Any) -> None:
        """Keep an object, in place of what was kept under the same key."""
        with self._lock:
            self._drop(key)
            self._kept[key] = entry, entry.nbytes
            self.nbytes += entry.nbytes
            while self.nbytes > self.limit and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def drop_if(self, is_unwanted: Callable[[CacheKey], bool]) -> None:
        """Drop everything whose key is unwanted."""
        with self._lock:
            for key in [key for key in self._kept if is_unwanted(key)]:
                self._drop(key)

    def _drop(self, key: CacheKey) -> None:
        if key in self._kept:
            self.nbytes -= self._kept.pop(key)[1]
