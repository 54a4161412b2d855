"""Details: what a pixel of the map shows.

`at()` tells it from memory alone, as quickly as the mouse moves. `details()` tells more: it reads
the extents of the block group, and finds the files that own the extent. What they return is plain
data, to be written as JSON, in which numbers that can exceed 2^53 are text: addresses, generations,
and the numbers of inodes and trees.

What cannot be known, on a damaged filesystem for instance, is said in a note.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs import utils
from btrfs.errors import BtrfsError, ItemNotFoundError
from btrfs.ondisk.text import printable
from btrfs.ownership import backrefs
from btrfs.ownership.paths import Paths
from btrfs_atlas.explorer.model.lines import PHYSICAL, Location
from heatmap.colourings.type import EXTENTS_BELOW
from heatmap.extents.table import GENERATION, OWNER, REFERENCES, TYPE
from heatmap.extents.types import EXTENTS

if TYPE_CHECKING:
    from btrfs.ownership.backrefs import FileRef
    from btrfs_atlas.explorer.atlas import Atlas
    from btrfs_atlas.explorer.model.lines import Line
    from heatmap.extents.table import Extents

__all__ = ["at", "details"]

Record = dict[str, Any]

MAX_FILES = 100
"""So many files that own an extent are named; of the others, only how many they are is told."""


def at(atlas: Atlas, space: str, curve: str, zoom: int, row: int, column: int) -> Record:
    """Return what a pixel shows, as far as that is in memory.

    Args:
        atlas: The map.
        space: Name of the address line.
        curve: One of heatmap.curves.CURVES.
        zoom: From 0 to the largest of the line.
        row: Counted in pixels from the top.
        column: Counted in pixels from the left.

    Returns:
        `address` on the line of the sector that it is about, how many `bytes` it stands for,
        `device`, `vaddr`, `group`, `extent` (None where a pixel is too large for extents to be
        drawn) and `state`: 'unallocated', 'parity', 'free', 'extent', 'unread' or 'lost'.

    Raises:
        ValueError: There is no such pixel.
    """
    spot = _spot(atlas, space, _Pixel(curve, zoom, row, column), atlas.loaded_extents)
    return _record(atlas, spot)


def details(atlas: Atlas, space: str, curve: str, zoom: int, row: int, column: int) -> Record:
    """Return all that is known about a pixel; reads what is needed for it.

    Args:
        atlas: The map.
        space: Name of the address line.
        curve: One of heatmap.curves.CURVES.
        zoom: From 0 to the largest of the line.
        row: Counted in pixels from the top.
        column: Counted in pixels from the left.

    Returns:
        What `at()` does; of the group also its `stripes`, `extents`, `free` and `contents`; and
        `owners` of the extent: `files`, how many `more` there are, `trees`, and a `note`.

    Raises:
        ValueError: There is no such pixel.
    """
    spot = _spot(atlas, space, _Pixel(curve, zoom, row, column), atlas.extents)
    record = _record(atlas, spot)
    if record["group"] is not None:
        record["group"] |= _group_details(atlas, spot, record["group"]["length"])
    record["owners"] = _owners(atlas, spot)
    return record


def group_record(atlas: Atlas, vaddr: int | None) -> Record | None:
    """Return a block group as plain data, given its virtual address; None if it is not known."""
    group = None if vaddr is None else atlas.groups.get(vaddr)
    if group is None:
        return None
    return {
        "vaddr": str(group.vaddr),
        "length": group.length,
        "type": utils.space_type_description(group.flags),
        "profile": utils.space_profile_description(group.flags),
        "used": group.used,
        "used_percent": group.used_pct,
    }


class _Pixel(NamedTuple):
    """A pixel of a picture; the arguments of `Line.pixel()`."""

    curve: str
    zoom: int
    row: int
    column: int


class _Spot(NamedTuple):
    """What a pixel shows.

    Attributes:
        address: First byte of the sector that it is about, on the line.
        bytes: How many bytes it stands for.
        location: What that first byte is.
        state: See `at()`.
        extents: Those of its block group, if they are known.
        chosen: Which of them it shows; None if it shows none, or more than can be told.
    """

    address: int
    bytes: int
    location: Location
    state: str
    extents: Extents | None = None
    chosen: int | None = None


def _spot(
    atlas: Atlas, space: str, pixel: _Pixel, extents_of: Callable[[int], Extents | None]
) -> _Spot:
    """Return what a pixel shows.

    Args:
        atlas: The map.
        space: Name of the address line.
        pixel: Which pixel.
        extents_of: Returns the extents of a block group.
    """
    line = atlas.lines.get(space)
    if line is None:
        raise ValueError(f"no space {space!r} (there are {', '.join(atlas.lines)})")
    first, length = line.pixel(*pixel)
    address = _sector(first, length, atlas.fs.sectorsize)
    location = line.locate(address)
    if location.group is None:
        return _Spot(address, length, location, "unallocated")
    group = atlas.groups.get(location.group)
    if group is None or (space == PHYSICAL and location.group not in atlas.chunks):
        return _Spot(address, length, location, "lost")
    if location.vaddr is None:
        return _Spot(address, length, location, "parity")
    if length > EXTENTS_BELOW:
        return _Spot(address, length, location, "extent" if group.used else "free")
    extents = extents_of(location.group)
    if extents is None:
        state = "lost" if atlas.is_unreadable(location.group) else "unread"
        return _Spot(address, length, location, state)
    index = _extent_in(line, extents, address, first + length)
    state = "free" if index is None else "extent"
    return _Spot(address, length, location, state, extents, index)


def _sector(first: int, length: int, sectorsize: int) -> int:
    """Return which sector of a line a pixel is about, by its first byte.

    That is the first one that begins in the pixel. A pixel smaller than a sector is about the one
    that it shows most of.

    Args:
        first: First byte of the line that the pixel stands for.
        length: How many bytes it stands for.
        sectorsize: Bytes of a sector.
    """
    if length < sectorsize:
        return (first + length // 2) // sectorsize * sectorsize
    return -(-first // sectorsize) * sectorsize


def _extent_in(line: Line, extents: Extents, start: int, end: int) -> int | None:
    """Return the index of the first extent on a range of a line; None if there is none.

    Args:
        line: The line.
        extents: Those of the block group that the range begins in; what follows it does not count.
        start: First byte of the range.
        end: Where it ends.
    """
    part = line.parts_between(start, start + 1)[0]
    end = min(end, part.start + part.length)
    while start < end:
        stop = line.contiguous_end(part, start, end)
        vaddr = line.locate(start).vaddr
        index = None if vaddr is None else _extent_between(extents, vaddr, vaddr + stop - start)
        if index is not None:
            return index
        start = stop
    return None


def _extent_between(extents: Extents, start: int, end: int) -> int | None:
    """Return the index of the first extent that overlaps a range of virtual addresses."""
    index = extents.at(start)
    if index is None:
        after = int(np.searchsorted(extents.vaddr, start))
        if after < len(extents) and extents.vaddr[after] < end:
            index = after
    return index


def _record(atlas: Atlas, spot: _Spot) -> Record:
    """Return what a pixel shows as plain data."""
    location = spot.location
    return {
        "address": str(spot.address),
        "bytes": spot.bytes,
        "device": _device(atlas, location.devid, location.paddr),
        "vaddr": None if location.vaddr is None else str(location.vaddr),
        "group": group_record(atlas, location.group),
        "extent": _extent(atlas, spot),
        "state": spot.state,
    }


def _device(atlas: Atlas, devid: int | None, paddr: int | None) -> Record | None:
    """Return a place on a device as plain data."""
    if devid is None:
        return None
    return {"devid": devid, "path": atlas.device_paths.get(devid, ""), "paddr": str(paddr)}


def _extent(atlas: Atlas, spot: _Spot) -> Record | None:
    """Return the extent that a pixel shows as plain data."""
    extents, index = spot.extents, spot.chosen
    if extents is None or index is None:
        return None
    return {
        "vaddr": str(extents.vaddr[index]),
        "length": int(extents.length[index]),
        "generation": str(extents[GENERATION][index]),
        "refs": int(extents[REFERENCES][index]),
        "kind": EXTENTS.names[extents[TYPE][index]],
        "colours": [
            {"title": title, "name": name} for title, name in atlas.colours_of(extents, index)
        ],
        "owner": atlas.tree_name(atlas.trees.numbers[extents[OWNER][index]]),
    }


# The block group.


def _group_details(atlas: Atlas, spot: _Spot, length: int) -> Record:
    """Return what the block group at a pixel, of so many bytes, is made of, and what is in it."""
    vaddr = spot.location.group
    assert vaddr is not None
    extents = spot.extents
    if extents is None and spot.state != "unread":
        extents = atlas.extents(vaddr)
    chunk = atlas.chunks.get(vaddr)
    stripes = [] if chunk is None else chunk.stripes
    record: Record = {
        "stripes": [_device(atlas, stripe.devid, stripe.offset) for stripe in stripes],
        "extents": None,
        "free": None,
        "contents": [],
    }
    if extents is not None:
        record["extents"] = _sizes(extents.length)
        record["free"] = _free(vaddr, vaddr + length, extents)
        record["contents"] = _contents(extents)
    return record


def _sizes(length: NDArray[np.int64]) -> Record:
    """Return how many extents there are, and how large."""
    count, total = length.size, int(length.sum())
    return {
        "count": count,
        "bytes": total,
        "largest": int(length.max()) if count else 0,
        "smallest": int(length.min()) if count else 0,
        "average": total // count if count else 0,
    }


def _free(vaddr: int, end: int, extents: Extents) -> Record:
    """Return what lies between the extents of a block group.

    That is where copies of the superblock lie, too.
    """
    begins = np.concatenate(([vaddr], extents.vaddr + extents.length))
    gaps = np.concatenate((extents.vaddr, [end])) - begins
    gaps = gaps[gaps > 0]
    return {
        "count": gaps.size,
        "bytes": int(gaps.sum()),
        "largest": int(gaps.max()) if gaps.size else 0,
    }


def _contents(extents: Extents) -> list[Record]:
    """Return what kinds of extents there are in a block group, the most bytes first."""
    names, types = EXTENTS.names, extents[TYPE]
    count = np.bincount(types, minlength=len(names))
    # As whole numbers, which weights of bincount() are not.
    size = np.zeros(count.size, np.int64)
    np.add.at(size, types, extents.length)
    return [
        {"name": names[value], "bytes": int(size[value]), "count": int(count[value])}
        for value in np.argsort(-size, kind="stable").tolist()
        if count[value]
    ]


# Who owns the extent.


def _owners(atlas: Atlas, spot: _Spot) -> Record | None:
    """Return the files or trees that an extent belongs to; None if there is no extent."""
    if spot.extents is None or spot.chosen is None:
        return None
    if spot.extents.is_unreadable[spot.chosen]:
        return _owners_record(note="what is here could not be read")
    vaddr = int(spot.extents.vaddr[spot.chosen])
    try:
        with atlas.lock:
            found = backrefs.owners(atlas.fs, vaddr, MAX_FILES, ignore_offset=True)
            names = _Names(atlas)
            files = [names.file(ref) for ref in found.files]
            trees = [{"tree": str(tree), "name": atlas.tree_name(tree)} for tree in found.trees]
    except ItemNotFoundError:
        return _owners_record(note="this extent is gone by now, or its item cannot be read")
    except (BtrfsError, OSError) as error:
        return _owners_record(note=_reason(error))
    notes = names.notes if found.complete else ["there may be others", *names.notes]
    return _owners_record(files, found.more, trees, "; ".join(notes) or None)


def _owners_record(
    files: list[Record] | None = None,
    more: int = 0,
    trees: list[Record] | None = None,
    note: str | None = None,
) -> Record:
    return {"files": files or [], "more": more, "trees": trees or [], "note": note}


def _reason(error: BtrfsError | OSError) -> str:
    """Return in words why something is not known."""
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, BtrfsError):
        text = error.strerror or text
    return printable(text.encode(errors="backslashreplace"))


class _Names:
    """Finds the names of files and trees.

    Args:
        atlas: The map; its lock is held.

    Attributes:
        notes: Why some are not known, each reason once.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.notes: list[str] = []
        self._paths = Paths(atlas.fs)
        self._subvolumes: dict[int, str] = {}
        self._inodes: dict[tuple[int, int], str] = {}

    def file(self, ref: FileRef) -> Record:
        """Return a place in a file as plain data, with the first path of the file."""
        inode = (ref.tree, ref.inum)
        if inode not in self._inodes:
            self._inodes[inode] = self._known(lambda: next(self._paths.of_inode(*inode), None))
        return {
            "subvolume": str(ref.tree),
            "subvolume_path": self.subvolume(ref.tree),
            "inode": str(ref.inum),
            "path": self._inodes[inode],
            "offset": str(ref.offset),
        }

    def subvolume(self, tree: int) -> str:
        """Return the path of a subvolume."""
        if tree not in self._subvolumes:
            self._subvolumes[tree] = self._known(lambda: self._paths.of_subvolume(tree))
        return self._subvolumes[tree]

    def _known(self, look_up: Callable[[], bytes | None]) -> str:
        try:
            path = look_up()
        except (BtrfsError, OSError) as error:
            reason = _reason(error)
            if reason not in self.notes:
                self.notes.append(reason)
            return _NAMELESS
        return _NAMELESS if path is None else printable(path)


_NAMELESS = "(no path)"
"""In place of a path, if a file or subvolume is deleted or its path cannot be read."""
