r"""Find: from a query to ranges of the map.

:mod:`.parse` says what can be asked for, :mod:`.queries` answers from the trees of the filesystem,
:mod:`.descriptions` puts the answer into sentences. No path of the running system is ever opened.
A path begins at the top of the filesystem or of the subvolume that is mounted, or with the folder
that the filesystem is mounted on. Names can be given as they are printed, with ``\n`` and ``\xff``
for bytes that are no text.

A search ends after so many seconds or extents, and says so. It holds the lock of the atlas for one
step at a time, so that the map can be drawn meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError
from btrfs_atlas.explorer.model.lines import PHYSICAL, TILE_ORDER
from btrfs_atlas.explorer.search.descriptions import (
    copies_description,
    description,
    shown,
    title,
)
from btrfs_atlas.explorer.search.errors import FindError
from btrfs_atlas.explorer.search.parse import parse
from btrfs_atlas.explorer.search.queries import answer
from btrfs_atlas.explorer.search.results import QueryResult
from btrfs_atlas.explorer.search.step_reader import StepReader
from heatmap import curves
from heatmap.colourings.type import EXTENTS_BELOW

if TYPE_CHECKING:
    from btrfs_atlas.explorer.atlas import Atlas
    from btrfs_atlas.explorer.model.lines import Line

__all__ = ["FindError", "Found", "find"]

Addresses = NDArray[np.int64]

_STRIP = 256
"""Parts of the line that the strip tells about."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found.

    Attributes:
        query: The query.
        kind: 'file', 'inode', 'vaddr', 'group' or 'subvolume'.
        title: What it is, in a few words.
        description: Sentences about it.
        ranges: What lights up: virtual addresses, ascending, each once, and lengths; int64, bytes.
        runs: Where they and their copies lie on the line: start and length in bytes, ascending.
        extents: How many extents it has.
        bytes: Bytes of virtual address space that they take.
        pieces: In how many contiguous runs of virtual addresses they lie.
        truncated: Whether there may be more, which was not looked for.
        strip: How much of each 1/256 of the line is found, 0 to 1.
        view: Where the first of it is seen well: zoom, row and column of a pixel; None if nowhere.
    """

    query: str
    kind: str
    title: str
    description: list[str]
    ranges: tuple[Addresses, Addresses]
    runs: tuple[Addresses, Addresses]
    extents: int
    bytes: int
    pieces: int
    truncated: bool
    strip: list[float]
    view: tuple[int, int, int] | None

    def record(self) -> dict[str, Any]:
        """Return it as plain data, to be written as JSON."""
        return {
            "query": self.query.encode(errors="backslashreplace").decode(),
            "kind": self.kind,
            "title": self.title,
            "words": self.description,
            "extents": self.extents,
            "bytes": self.bytes,
            "average": self.bytes // self.extents if self.extents else 0,
            "pieces": self.pieces,
            "truncated": self.truncated,
            "strip": self.strip,
            "view": dict(zip(("z", "row", "column"), self.view, strict=True))
            if self.view
            else None,
        }


def find(atlas: Atlas, query: str, space: str, curve: str) -> Found:
    """Return what a query leads to.

    Args:
        atlas: The map.
        query: The query, see :mod:`.parse`.
        space: Name of the address line that strip and view are about.
        curve: One of heatmap.curves.CURVES.

    Raises:
        FindError: There is no such thing, or the query cannot be understood.
        ValueError: There is no such line or curve.
    """
    curves.check_curve(curve, TILE_ORDER)
    if space not in atlas.lines:
        raise ValueError(f"no space {space!r} (there are {', '.join(atlas.lines)})")
    try:
        result = answer(StepReader(atlas), parse(query))
    except BtrfsError as error:
        hint = _unreadable(atlas) or error.hint
        raise FindError(shown(str(error)), hint=hint and shown(hint)) from error
    except OSError as error:
        raise FindError(f"it could not be read: {error.strerror or error}") from error
    return _on_line(result, query, atlas.lines[space], curve)


def _unreadable(atlas: Atlas) -> str | None:
    """Return why something may be there, though it was not found."""
    with atlas.lock:
        lost = atlas.fs.lost[:1]
    return f"not all of the filesystem could be read: {lost[0].reason}" if lost else None


def _on_line(result: QueryResult, query: str, line: Line, curve: str) -> Found:
    """Return what was found, as it lies on a line."""
    start, length = _runs(line, *result.ranges)
    on_line = int(length.sum())
    sentences = [shown(sentence) for sentence in description(result.facts)]
    if line.name == PHYSICAL and result.extents and on_line > int(result.ranges[1].sum()):
        sentences.append(copies_description(on_line))
    return Found(
        query=query,
        kind=result.kind,
        title=title(result.facts),
        description=sentences,
        ranges=result.ranges,
        runs=(start, length),
        extents=result.extents,
        bytes=result.bytes,
        pieces=_joined(*result.ranges)[0].size,
        truncated=result.truncated,
        strip=_strip(start, length, line.total_bytes),
        view=_view(result, start, length, line, curve),
    )


def _runs(line: Line, vaddr: Addresses, length: Addresses) -> tuple[Addresses, Addresses]:
    """Return where the contiguous runs on a line begin that ranges make, and their lengths."""
    starts, lengths = [_NONE], [_NONE]
    # RAID5 and RAID6 cut extents into elements of 64 KiB: join them before they are too many.
    some = (np.cumsum(length) - 1) // _BYTES_AT_ONCE
    for chosen in np.split(np.arange(vaddr.size), np.flatnonzero(np.diff(some)) + 1):
        start, size = _joined(*line.ranges_of(vaddr[chosen], length[chosen]))
        starts.append(start)
        lengths.append(size)
    start, size = np.concatenate(starts), np.concatenate(lengths)
    order = np.argsort(start, kind="stable")
    return _joined(start[order], size[order])


_BYTES_AT_ONCE = 1 << 36


def _joined(start: Addresses, length: Addresses) -> tuple[Addresses, Addresses]:
    """Return ascending ranges; those that adjoin are made one."""
    if not start.size:
        return start, length
    end = np.maximum.accumulate(start + length)
    is_first = np.concatenate(([True], start[1:] > end[:-1]))
    first = np.flatnonzero(is_first)
    return start[first], end[np.append(first[1:], start.size) - 1] - start[first]


def _strip(start: Addresses, length: Addresses, total_bytes: int) -> list[float]:
    """Return how much of each of the parts of a line runs cover."""
    bounds = np.array([total_bytes * part // _STRIP for part in range(_STRIP + 1)], dtype=np.int64)
    before = np.concatenate(([0], np.cumsum(length)))
    index = np.searchsorted(start, bounds, side="right")
    # Of the run that begins before a bound, what is beyond the bound does not count.
    last = np.maximum(index - 1, 0)
    beyond = (start[last] + length[last] - bounds).clip(0) if start.size else np.zeros_like(bounds)
    covered = before[index] - np.where(index > 0, beyond, 0)
    part: NDArray[np.float64] = np.diff(covered) / np.maximum(1, np.diff(bounds))
    shares: list[float] = part.tolist()
    return shares


def _view(
    result: QueryResult, start: Addresses, length: Addresses, line: Line, curve: str
) -> tuple[int, int, int] | None:
    """Return the pixel to move to, and at which zoom; see Found."""
    if not start.size:
        return None
    begin, end = int(start[0]), int(start[-1] + length[-1])
    vaddr, size = result.ranges
    index = int(np.searchsorted(vaddr, result.first or 0))
    if result.first is not None and index < vaddr.size:
        chosen = slice(index, index + 1)
        first_start, first_length = _runs(line, vaddr[chosen], size[chosen])
        if first_start.size:
            begin, end = int(first_start[0]), int(first_start[0] + first_length[0])
    # On the Hilbert curve, a range of so many pixels fills about a quarter of the side of a tile.
    zoom = _first_zoom_of_extents(line) if result.first is not None else 0
    while zoom < line.max_zoom and (end - begin) << 2 * (TILE_ORDER + zoom) < _SEEN * (
        line.total_bytes
    ):
        zoom += 1
    row, column = line.at(curve, zoom, (begin + end) // 2)
    return zoom, row, column


def _first_zoom_of_extents(line: Line) -> int:
    """Return the first zoom at which a pixel is small enough for extents to be told apart."""
    zoom = 0
    while zoom < line.max_zoom and line.total_bytes > EXTENTS_BELOW << 2 * line.order(zoom):
        zoom += 1
    return zoom


_SEEN = 64 * 64


_NONE = np.zeros(0, dtype=np.int64)
