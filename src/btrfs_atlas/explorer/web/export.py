"""A map in a file: the tiles of the first zooms, and what is known about block groups.

What a pixel shows is found out by the page itself, as it is about nothing smaller than a block
group: see static/data/address-line.js. Equal tiles are stored once, and all of them as small as
PNG can.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from btrfs.errors import BtrfsError
from btrfs.ondisk.profiles import profile_of
from btrfs_atlas.explorer.search import details
from btrfs_atlas.explorer.web import overview
from btrfs_atlas.explorer.web.page import build_page, with_policy
from heatmap.colouring import Cost, Export
from heatmap.colourings import colourings

if TYPE_CHECKING:
    from PIL import Image

    from btrfs.ctree import Chunk
    from btrfs_atlas.explorer.atlas import Atlas
    from btrfs_atlas.explorer.model.lines import Line
    from btrfs_atlas.explorer.render.tiles import Tile

Record = dict[str, Any]
Progress = Callable[[int, int], None]

_MAIN = "export-main.js"
"""The module that starts the page."""

MAX_PICTURE_BYTES = 9 << 20
"""With colourings that a file has only if it stays small: the pictures may take so much, and the
whole file about a megabyte more."""

MAX_ZOOM = 3
"""The deepest zoom in a file; there the map is 2048 pixels wide."""

_READING = 64
"""What it counts as to read all extents, in tiles, where progress is told."""

_PATIENCE_SECONDS = 300.0
"""How long to wait for a tile while no more block groups have been read."""

_LOOK_SECONDS = 0.02
"""How often to look whether more has been read."""

_REDRAW_SECONDS = 0.3
"""How long to wait before a tile that was not complete is drawn again."""

_PNG_COLOURS = 256
"""A PNG file with no more colours can have a palette, and is smaller then."""

_PictureNumbers = list[list[int | None]]
"""The numbers of pictures for each zoom, row by row; None where there is none."""


class Exported(NamedTuple):
    """A map in a file.

    Attributes:
        html: The page.
        left_out: The colourings that would have made it too large.
        damage: What is damaged of the filesystem, in words; None if nothing is.
    """

    html: str
    left_out: list[str]
    damage: str | None


def export(
    atlas: Atlas,
    curve: str = "hilbert",
    colours: Sequence[str] | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Exported:
    """Return a map as a page that needs nothing else.

    Args:
        atlas: The map.
        curve: One of heatmap.curves.CURVES.
        colours: Names of the colourings. None: those that say so in their `export`, as far as
            there is room for them.
        progress: Called with how much is done, and how much there is to do.

    Raises:
        BtrfsError: Reading the extents takes too long.
    """
    found = contents(atlas, curve, colours, progress)
    shown = {colour["name"] for colour in found["filesystem"]["colours"]}
    wanted = _default_colours() if colours is None else colours
    left_out = [colour for colour in wanted if colour not in shown]
    page = build_page(_MAIN, found, {"img-src": "data:"})
    return Exported(with_policy(page), left_out, _damage(found))


def contents(atlas: Atlas, curve: str, colours: Sequence[str] | None, progress: Progress) -> Record:
    """Return what data/embedded-source.js has to know; for the arguments see `export()`.

    `filesystem` and `legends` are those of the server; `groups` are what it tells about them where
    one points at them. `pictures` are PNG files, base64; `places` says for each map (space, curve,
    colouring or borders) and zoom, row by row, which of them lies where. `parts` and `chunks` say
    where block groups lie on the lines, and on the devices.
    """
    drawing = _Drawing(atlas, curve, progress)
    drawing.add_borders()
    if colours is None:
        drawing.add(_default_colours())
    else:
        drawing.add(dict.fromkeys(colours))
    return {
        "filesystem": _filesystem(atlas, curve, drawing.colours),
        "groups": [details.group_record(atlas, vaddr) for vaddr in atlas.groups],
        "chunks": [_chunk(chunk) for chunk in atlas.chunks.values()],
        "parts": {name: _parts(line) for name, line in atlas.lines.items()},
        "legends": {
            f"{space}/{colour}": [_legend(atlas, space, colour, zoom) for zoom in _zooms(line)]
            for space, line in atlas.lines.items()
            for colour in drawing.colours
        },
        "pictures": drawing.pictures.encoded,
        "places": drawing.places,
    }


class Pictures:
    """Pictures, each of which is kept once.

    Attributes:
        encoded: PNG files, base64.
        nbytes: How long they are, together.
    """

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.nbytes = 0
        self._numbers: dict[bytes, int] = {}

    def add(self, png: bytes) -> int | None:
        """Return the number of a picture, which may be a new one; None if nothing is on it."""
        if png not in self._numbers:
            smallest = _smallest(png)
            if smallest is None:
                return None
            self._numbers[png] = len(self.encoded)
            self.encoded.append(base64.b64encode(smallest).decode())
            self.nbytes += len(self.encoded[-1])
        return self._numbers[png]

    def keep_first(self, count: int) -> None:
        """Drop all but so many pictures, those that were added first."""
        del self.encoded[count:]
        self.nbytes = sum(map(len, self.encoded))
        self._numbers = {png: number for png, number in self._numbers.items() if number < count}


class _Drawing:
    """The pictures of a map, as they are drawn.

    Attributes:
        colours: The colourings that are drawn.
        pictures: All pictures.
        places: Which of them lie where; see `contents()`.
    """

    def __init__(self, atlas: Atlas, curve: str, progress: Progress) -> None:
        self.colours: list[str] = []
        self.pictures = Pictures()
        self.places: dict[str, _PictureNumbers] = {}
        self._atlas = atlas
        self._curve = curve
        self._progress = progress
        self._done = 0
        self._total = 0

    def add_borders(self) -> None:
        """Draw the borders of devices and block groups."""
        for space, line in self._atlas.lines.items():
            places: _PictureNumbers = [[] for _ in _zooms(line)]
            for zoom, row, column in _squares(line):
                png = self._atlas.borders((space, self._curve, zoom, row, column))
                places[zoom].append(self.pictures.add(png))
            self.places[f"{space}/{self._curve}/borders"] = places

    def add(self, limits: dict[str, int | None]) -> None:
        """Draw colourings.

        Args:
            limits: The colourings, each with the bytes that the pictures may take in all. One that
                is over its limit is left out.
        """
        steps = sum(_READING + len(_squares(line)) for line in self._atlas.lines.values())
        self._total = len(limits) * steps
        for index, (colour, limit) in enumerate(limits.items()):
            before = len(self.pictures.encoded)
            places = self._maps(colour, limit)
            if places is None:
                self.pictures.keep_first(before)
            else:
                self.places |= places
                self.colours.append(colour)
            self._tell((index + 1) * steps)

    def _maps(self, colour: str, limit: int | None) -> dict[str, _PictureNumbers] | None:
        """Draw the maps of a colouring; return None if they are too large."""
        maps: dict[str, _PictureNumbers] = {}
        for space, line in self._atlas.lines.items():
            places: _PictureNumbers = [[] for _ in _zooms(line)]
            maps[f"{space}/{self._curve}/{colour}"] = places
            begun = self._done
            for number, (zoom, row, column) in enumerate(_squares(line)):
                tile = self._tile(space, colour, (zoom, row, column), begun)
                places[zoom].append(self.pictures.add(tile.png))
                if limit is not None and self.pictures.nbytes > limit:
                    return None
                self._tell(begun + _READING + number + 1)
        return maps

    def _tile(self, space: str, colour: str, square: tuple[int, int, int], begun: int) -> Tile:
        """Return a tile, once all that lies on it has been read."""
        place = space, self._curve, *square
        tile = self._atlas.tile(place, colour)
        for read in _reading(self._atlas, space, colour, square[0]):
            if tile.complete:
                break
            self._tell(begun + int(_READING * read))
            time.sleep(_REDRAW_SECONDS)
            tile = self._atlas.tile(place, colour)
        return tile

    def _tell(self, done: int) -> None:
        """Tell that so much is done."""
        self._done = max(done, self._done)
        self._progress(self._done, self._total)


def _default_colours() -> dict[str, int | None]:
    """Return the colourings that a file has if none are asked for, each with the limit in bytes."""
    limits = {Export.ALWAYS: None, Export.IF_SMALL: MAX_PICTURE_BYTES}
    # First those without a limit, which count, too.
    return {
        one.name: limit
        for export, limit in limits.items()
        for one in colourings()
        if one.export == export
    }


def _zooms(line: Line) -> range:
    """Return the zooms of a line that are in a file."""
    return range(min(MAX_ZOOM, line.max_zoom) + 1)


def _squares(line: Line) -> list[tuple[int, int, int]]:
    """Return the tiles of a line that are in a file: zoom, row, column."""
    return [
        (zoom, row, column)
        for zoom in _zooms(line)
        for row in range(1 << zoom)
        for column in range(1 << zoom)
    ]


def _smallest(png: bytes) -> bytes | None:
    """Return the same pixels in a smaller file; None if all of them are transparent."""
    from PIL import Image

    image: Image.Image = Image.open(io.BytesIO(png))
    if image.mode == "RGB":
        image = _with_palette(image)
    elif image.convert("RGBA").getchannel("A").getbbox() is None:
        return None
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _with_palette(opaque: Image.Image) -> Image.Image:
    """Return a picture with a palette, or as it is if it has too many colours for one."""
    from PIL import Image

    if opaque.getcolors(_PNG_COLOURS) is None:
        return opaque
    pixels = np.asarray(opaque.convert("RGBX")).view("<u4")[..., 0] & 0xFFFFFF
    colours = np.unique(pixels)
    made = Image.fromarray(np.searchsorted(colours, pixels).astype(np.uint8))
    made.putpalette(b"".join(colour.to_bytes(3, "little") for colour in colours.tolist()))
    return made


# What the page knows without a server.


def _filesystem(atlas: Atlas, curve: str, colours: Sequence[str]) -> Record:
    """Return what the server tells, with no more to choose from than there is in the file."""
    known = overview.filesystem(atlas)
    return known | {
        "curves": [curve],
        "colours": [colour for colour in known["colours"] if colour["name"] in colours],
        "spaces": {
            name: space | {"max_zoom": _zooms(atlas.lines[name])[-1]}
            for name, space in known["spaces"].items()
        },
        "labels": {name: {curve: labels[curve]} for name, labels in known["labels"].items()},
    }


def _legend(atlas: Atlas, space: str, colour: str, zoom: int) -> Record:
    """Return a legend, once all that it counts has been read."""
    for read in _reading(atlas, space, colour, zoom):
        if read == 1:
            break
        time.sleep(_LOOK_SECONDS)
    return overview.legend(atlas, space, colour, zoom)


def _reading(atlas: Atlas, space: str, colour: str, zoom: int) -> Iterator[float]:
    """Yield the part of the block groups that has been read so far, again and again.

    Raises:
        BtrfsError: It has not become more for a long time.
    """
    most, since = -1.0, time.monotonic()
    while time.monotonic() - since < _PATIENCE_SECONDS:
        read = atlas.legend(space, colour, zoom).read
        if read > most:
            most, since = read, time.monotonic()
        yield read
    cheap = [one.name for one in colourings() if one.cost is Cost.BLOCK_GROUPS]
    raise BtrfsError(
        "reading the extents takes too long",
        hint=f"leave them out: --colour {' --colour '.join(cheap)}",
    )


def _damage(found: Record) -> str | None:
    """Return what of a filesystem could not be read, in words."""
    damage: str | None = found["filesystem"]["damage"]
    # Extents are read by the worker, on a filesystem of its own: only its hatching tells.
    if damage is None and any(
        entry["hatched"] and entry["bytes"]
        for legends in found["legends"].values()
        for legend in legends
        for entry in legend["entries"]
    ):
        return "what could not be read is hatched"
    return damage


def _chunk(chunk: Chunk) -> Record:
    """Return how a chunk lies on its devices; see btrfs.ondisk.geometry."""
    profile = profile_of(chunk.type)
    return {
        "vaddr": str(chunk.vaddr),
        "length": str(chunk.length),
        "isStriped": profile.striped,
        "parity": profile.nparity,
        "subStripes": profile.sub_stripes,
        "stripes": [(stripe.devid, str(stripe.offset)) for stripe in chunk.stripes],
    }


def _parts(line: Line) -> list[tuple[str, str, str, int | None]]:
    """Return of each part of a line: virtual address of its block group, start, length, stripe."""
    return [
        (str(part.vaddr), str(part.start), str(part.length), part.stripe) for part in line.parts
    ]
