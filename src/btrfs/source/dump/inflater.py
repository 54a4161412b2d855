"""Compressed entries of a dump, read at any place.

They are read by windows. States of the decompressor are kept, and reading goes on from the nearest
one. So neither do whole entries fill the memory, nor does reading begin at their beginning each
time.
"""

from __future__ import annotations

import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from btrfs.errors import CorruptError
from btrfs.source.dump.entries import DumpEntries

__all__ = ["Inflater"]

_WINDOW_SIZE = 1 << 20
_CACHED_BYTES = 16 << 20
_CACHE_ENTRY_BYTES = 256
# The state of a decompressor takes up to 50 KiB.
_MAX_CHECKPOINTS = 256
# What zlib was given last is lost if there is an error in it, so it is given little.
_INPUT_SIZE = 4096


class _Checkpoint(NamedTuple):
    """Where the decompression of an entry can go on.

    Attributes:
        number: The entry.
        window: The window that comes next.
        decompressor: What comes before it went through this.
        consumed: How many stored bytes that were.
    """

    number: int
    window: int
    decompressor: zlib._Decompress
    consumed: int


class Inflater:
    """Reads compressed entries at any place.

    Args:
        entries: The entries.
        pread: Reads so many bytes at a position of the file.
        limit: Bytes of metadata that an entry has at most; what comes after them is never read.

    Attributes:
        faults: What is wrong with entries that cannot be decompressed to their ends.
    """

    def __init__(
        self, entries: DumpEntries, pread: Callable[[int, int], bytes], limit: int
    ) -> None:
        self.faults: dict[int, str] = {}
        self._entries = entries
        self._pread = pread
        self._limit = limit
        # Bytes of metadata in each entry, as far as they are known yet.
        self._sizes = array("Q", [limit]) * len(entries)
        self._windows: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._cached_bytes = 0
        self._checkpoints: dict[tuple[int, int], _Checkpoint] = {}
        self._spacing = 1
        self._last: _Checkpoint | None = None

    def read(self, number: int, offset: int, length: int) -> bytes:
        """Return bytes of an entry, fewer where it ends or cannot be decompressed any further."""
        data = b""
        while len(data) < length:
            window, start = divmod(offset + len(data), _WINDOW_SIZE)
            part = self._window(number, window)[start : start + length - len(data)]
            if not part:
                break
            data += part
        return data

    def _window(self, number: int, window: int) -> bytes:
        """Return a window of an entry."""
        key = (number, window)
        if key in self._windows:
            self._windows.move_to_end(key)
            return self._windows[key]
        data = b""
        point: _Checkpoint | None = None
        if window * _WINDOW_SIZE < self._sizes[number]:
            point = self._nearest(number, window)
        while point is not None and point.window <= window:
            is_last = point.window == window
            data, point = self._inflate(point)
            self._keep(point)
            if is_last:
                self._cache(key, data)
                return data
        return b""

    def _cache(self, key: tuple[int, int], data: bytes) -> None:
        self._windows[key] = data
        self._cached_bytes += len(data) + _CACHE_ENTRY_BYTES
        while self._cached_bytes > _CACHED_BYTES:
            _, oldest = self._windows.popitem(last=False)
            self._cached_bytes -= len(oldest) + _CACHE_ENTRY_BYTES

    def _nearest(self, number: int, window: int) -> _Checkpoint:
        """Return the checkpoint from which the way to a window is the shortest."""
        nearest = _Checkpoint(number, 0, zlib.decompressobj(), 0)
        for multiple in range(window - window % self._spacing, 0, -self._spacing):
            if saved := self._checkpoints.get((number, multiple)):
                nearest = saved._replace(decompressor=saved.decompressor.copy())
                break
        last = self._last
        if last and last.number == number and nearest.window <= last.window <= window:
            self._last = None
            return last
        return nearest

    def _keep(self, point: _Checkpoint | None) -> None:
        """Remember where a decompression can go on, every other such place if there are many."""
        self._last = point
        if point is None or point.window % self._spacing:
            return
        key = (point.number, point.window)
        if key not in self._checkpoints:
            copied = point._replace(decompressor=point.decompressor.copy())
            self._checkpoints[key] = copied
        if len(self._checkpoints) > _MAX_CHECKPOINTS:
            self._spacing *= 2
            self._checkpoints = {
                key: saved
                for key, saved in self._checkpoints.items()
                if saved.window % self._spacing == 0
            }

    def _inflate(self, point: _Checkpoint) -> tuple[bytes, _Checkpoint | None]:
        """Return the window at a checkpoint, and the next checkpoint; None at the end."""
        number, window, decompressor, consumed = point
        left = min(_WINDOW_SIZE, self._limit - window * _WINDOW_SIZE)
        parts = []
        fault = None
        while left and not decompressor.eof and fault is None:
            part, consumed, fault = self._step(point, consumed, left)
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        if fault is not None:
            self.faults[number] = fault
        end = window * _WINDOW_SIZE + len(data)
        if decompressor.eof or fault is not None or end == self._limit:
            self._sizes[number] = end
            return data, None
        return data, _Checkpoint(number, window + 1, decompressor, consumed)

    def _step(
        self, point: _Checkpoint, consumed: int, length: int
    ) -> tuple[bytes, int, str | None]:
        """Decompress a part of a window.

        Args:
            point: Where the window begins; its decompressor has come further since.
            consumed: How many stored bytes that took.
            length: Bytes that are wanted.

        Returns:
            Some of the bytes that are wanted, how many stored bytes were taken by then, and what
            is wrong with them if it cannot go on.
        """
        entry, decompressor = self._entries[point.number], point.decompressor
        stored = decompressor.unconsumed_tail
        try:
            if not stored:
                size = min(_INPUT_SIZE, entry.stored_size - consumed)
                stored = self._pread(size, entry.position + consumed)
                consumed += len(stored)
            part = decompressor.decompress(stored, length)
        except (zlib.error, CorruptError) as error:
            return b"", consumed, str(error)
        if stored or part or decompressor.eof:
            return part, consumed, None
        return b"", consumed, f"{consumed} bytes, which are only its beginning"
