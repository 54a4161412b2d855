"""Tables of columns that grow, in memory or in temporary files.

A scan meets millions of rows. A :class:`TableBuilder` takes them batch by batch. As long as they
fit into memory, its columns are arrays. Beyond that they are written to files without a name, which
vanish with the process, and the finished columns are arrays over these files: the kernel loads the
pages that are used, and takes them back when memory is short.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["TableBuilder", "in_threads"]

_Item = TypeVar("_Item")

_Columns = list[NDArray[Any]]


class TableBuilder:
    """Collects the rows of a table.

    Args:
        dtypes: Types of its columns.
        memory: Bytes that it may take in memory; what is beyond goes to files. None for no limit.
    """

    def __init__(self, dtypes: Sequence[DTypeLike], memory: int | None = None) -> None:
        self._dtypes = [np.dtype(dtype) for dtype in dtypes]
        self._memory = memory
        self._parts: list[list[NDArray[Any]]] = [[] for _ in dtypes]
        self._files: list[IO[bytes]] = []
        self._bytes = 0
        self.rows = 0

    def append(self, columns: Sequence[NDArray[Any]]) -> None:
        """Add rows, given as columns."""
        self.rows += len(columns[0])
        for parts, column in zip(self._parts, columns, strict=True):
            parts.append(column)
            self._bytes += column.nbytes
        if self._memory is not None and self._bytes > self._memory:
            self._write_out()

    def finish(self) -> list[NDArray[Any]]:
        """Return the columns. The builder is empty then."""
        if self._files:
            self._write_out()
        return in_threads(self._column, range(len(self._dtypes)))

    def chunks(self, rows: int, columns: Sequence[int] | None = None) -> Iterator[_Columns]:
        """Yield the rows some at a time, as columns. They stay in the builder.

        Of a table in files, only so many are in memory at a time.

        Args:
            rows: How many at a time.
            columns: The indexes of the columns that are wanted, if not all.
        """
        wanted = range(len(self._dtypes)) if columns is None else columns
        if not self._files:
            yield [np.concatenate(self._parts[index]) for index in wanted]
            return
        self._write_out()
        for begin in range(0, self.rows, rows):
            count = min(rows, self.rows - begin)
            yield [self._read(index, begin, count) for index in wanted]

    def close(self) -> None:
        """Give up what was collected."""
        for file in self._files:
            file.close()
        self._parts = [[] for _ in self._dtypes]
        self.rows = 0

    def _read(self, index: int, begin: int, count: int) -> NDArray[Any]:
        dtype = self._dtypes[index]
        data = os.pread(self._files[index].fileno(), count * dtype.itemsize, begin * dtype.itemsize)
        return np.frombuffer(data, dtype)

    def _column(self, index: int) -> NDArray[Any]:
        dtype = self._dtypes[index]
        parts, self._parts[index] = self._parts[index], []
        if not self.rows:
            return np.empty(0, dtype)
        if self._files:
            with self._files[index] as file:
                # The mapping goes on to be valid when the file is closed.
                return np.memmap(file, dtype, "r+", shape=(self.rows,))
        return np.concatenate(parts).astype(dtype, copy=False)

    def _write_out(self) -> None:
        """Move what is in memory to files."""
        if not self._files:
            # They stay open until the columns are finished.
            self._files = [_temporary_file() for _ in self._dtypes]
        for file, dtype, parts in zip(self._files, self._dtypes, self._parts, strict=True):
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype).data)
            file.flush()
            parts.clear()
        self._bytes = 0


def in_threads(function: Callable[[_Item], NDArray[Any]], items: Iterable[_Item]) -> _Columns:
    """Return what a function makes of some items; numpy copies several arrays at a time."""
    with ThreadPoolExecutor(os.cpu_count(), "btrfs-columns") as threads:
        return list(threads.map(function, items))


def _temporary_file() -> IO[bytes]:
    """Return a file without a name; where TMPDIR is, or else not in /tmp, which may be memory."""
    folder = None if "TMPDIR" in os.environ or not os.path.isdir(_LARGE) else _LARGE
    return tempfile.TemporaryFile(dir=folder)


_LARGE = "/var/tmp"
"""Where large temporary files belong (file-hierarchy(7))."""
