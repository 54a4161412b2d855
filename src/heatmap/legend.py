"""The legend: a strip below the picture that says what is seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from btrfs.utils import pretty_size
from heatmap import hatching
from heatmap.palette import LegendEntry

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

    from btrfs.ctree import FileSystem
    from heatmap.grid import Grid

_BACKGROUND = (24, 26, 31)
_BORDER = (74, 78, 87)
_TEXT = (226, 229, 234)
_FAINT = (154, 159, 169)

_MIN_WIDTH = 480
"""A strip less wide has no room for its text: a smaller picture is put in the middle of one."""

_FONT_PART = 60
"""The text is as many times smaller than the picture is wide, within _FONT_SIZES pixels."""
_FONT_SIZES = (13, 96)


class Legend(NamedTuple):
    """What a legend says.

    Attributes:
        title: What is shown.
        notes: Facts about the filesystem and the picture, as many to a line as fit.
        entries: The colours, and how much there is of each.
        min_brightness: How bright the emptiest parts are; None where brightness is no scale.
        remark: A sentence about what the colours mean; empty if there is none.
    """

    title: str
    notes: Sequence[str]
    entries: Sequence[LegendEntry]
    min_brightness: float | None = None
    remark: str = ""


def legend_of(fs: FileSystem, grid: Grid) -> Legend:
    """Return the legend of a finished picture of a filesystem."""
    entries = grid.entries()
    now = datetime.now(UTC).astimezone()
    return Legend(
        title=f"{_printable(fs.label) or 'btrfs'}: {grid.layer.title}",
        notes=[
            f"fsid {fs.fsid}",
            f"{pretty_size(grid.total_bytes)} in all",
            f"{pretty_size(round(grid.bytes_per_pixel))} per pixel",
            f"{grid.curve} curve",
            now.strftime("%Y-%m-%d %H:%M %Z"),
        ],
        entries=entries,
        min_brightness=grid.min_brightness if _partly_used(entries) else None,
        remark=grid.layer.note,
    )


def _printable(label: str) -> str:
    """Return a label without what would control a terminal, or is no text at all."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in label)


def add_legend(picture: Image, legend: Legend) -> Image:
    """Return the picture with a strip below it that holds the legend."""
    from PIL import Image

    width = max(picture.width, _MIN_WIDTH)
    strip = _strip(legend, width)
    whole = Image.new("RGB", (width, picture.height + strip.height), _BACKGROUND)
    whole.paste(picture, ((width - picture.width) // 2, 0))
    whole.paste(strip, (0, picture.height))
    return whole


class _Pen:
    """Writes lines of text and coloured swatches from the top of a strip downwards."""

    def __init__(self, draw: ImageDraw, width: int) -> None:
        from PIL import ImageFont

        low, high = _FONT_SIZES
        self.em = max(low, min(high, width // _FONT_PART))
        self.width = width
        self.y = self.em
        self._draw = draw
        self._fonts: dict[bool, Any] = {
            large: ImageFont.load_default(self.em * 1.35 if large else self.em)
            for large in (False, True)
        }

    @property
    def line_height(self) -> int:
        """Distance between two lines of text, in pixels."""
        return self.em * 17 // 10

    def length(self, text: str) -> int:
        """Return how wide a text is, in pixels."""
        return int(self._draw.textlength(text, font=self._fonts[False])) + 1

    def write(
        self, x: int, text: str, fill: tuple[int, int, int] = _TEXT, *, large: bool = False
    ) -> None:
        """Write a text on the line, shortened where it would leave the strip."""
        font = self._fonts[large]
        room = self.width - self.em - x
        if self._draw.textlength(text, font=font) > room:
            while text and self._draw.textlength(text + "...", font=font) > room:
                text = text[:-1]
            text += "..."
        # All text of a line stands on the same base, whatever its size.
        self._draw.text((x, self.y + self.em), text, fill=fill, font=font, anchor="ls")

    def swatch(self, x: int, width: int, entry: LegendEntry, min_brightness: float | None) -> None:
        """Draw a box of a colour, or of all its shades from the darkest to the brightest."""
        top, bottom = self.y + self.em // 12, self.y + self.em * 7 // 6
        colour = entry.colour
        if entry.hatched:
            self._hatch((x, top, x + width, bottom + 1), colour)
        for i in range(0 if entry.hatched else width):
            brightness = 1.0
            if min_brightness is not None:
                brightness = min_brightness + (1 - min_brightness) * i / (width - 1)
            red, green, blue = (round(channel * brightness) for channel in colour)
            self._draw.line([(x + i, top), (x + i, bottom)], fill=(red, green, blue))
        self._draw.rectangle([x - 1, top - 1, x + width, bottom + 1], outline=_BORDER)

    def _hatch(self, box: tuple[int, int, int, int], colour: tuple[int, int, int]) -> None:
        """Fill a box, left, top, right and bottom, with lines as those in the picture."""
        left, top, right, bottom = box
        lines = np.array(colour, np.uint8)
        between = tuple(hatching.tint(np.zeros(3, np.uint8), lines).tolist())
        for y in range(top, bottom):
            on_line = hatching.is_line(np.arange(left, right) + y)
            for x, is_on_line in zip(range(left, right), on_line.tolist(), strict=True):
                self._draw.point((x, y), fill=colour if is_on_line else between)


def _strip(legend: Legend, width: int) -> Image:
    from PIL import Image, ImageDraw

    # How high the strip is turns out when it is drawn: draw it without a picture first.
    blank = Image.new("RGB", (1, 1))
    height = _draw_strip(_Pen(ImageDraw.Draw(blank), width), legend)
    strip = Image.new("RGB", (width, height), _BACKGROUND)
    _draw_strip(_Pen(ImageDraw.Draw(strip), width), legend)
    return strip


def _draw_strip(pen: _Pen, legend: Legend) -> int:
    """Draw a legend; return how high it is, in pixels."""
    pen.write(pen.em, legend.title, large=True)
    pen.y += pen.line_height
    for line in _lines(pen, legend.notes):
        pen.write(pen.em, line, _FAINT)
        pen.y += pen.line_height
    pen.y += pen.em // 2

    swatch = pen.em * 3
    cell = max(pen.length(text) for text in map(entry_text, legend.entries))
    cell += swatch + pen.em * 5 // 2
    columns = max(1, min(4, (pen.width - pen.em) // cell))
    for i, entry in enumerate(legend.entries):
        column = i % columns
        if i and not column:
            pen.y += pen.line_height
        x = pen.em + column * (pen.width - pen.em) // columns
        pen.swatch(x, swatch, entry, legend.min_brightness)
        pen.write(x + swatch + pen.em * 2 // 3, entry_text(entry))
    pen.y += pen.line_height
    for line in legend_remarks(legend):
        pen.write(pen.em, line, _FAINT)
        pen.y += pen.line_height
    return pen.y + pen.em // 2


def legend_remarks(legend: Legend) -> list[str]:
    """Return the sentences below a legend."""
    brightness = "dark: allocated, but hardly used; bright: full"
    remarks = [legend.remark] if legend.remark else []
    return [*remarks, brightness] if legend.min_brightness is not None else remarks


def _lines(pen: _Pen, notes: Sequence[str]) -> Iterator[str]:
    """Yield the notes, as many to a line as fit."""
    line = ""
    for note in notes:
        longer = f"{line}   {note}" if line else note
        if line and pen.length(longer) > pen.width - 2 * pen.em:
            yield line
            longer = note
        line = longer
    if line:
        yield line


def _partly_used(entries: Sequence[LegendEntry]) -> bool:
    return any(0 < entry.used < entry.length for entry in entries)


def entry_text(entry: LegendEntry) -> str:
    """Return an entry in words."""
    text = f"{entry.name}  {pretty_size(entry.length)}"
    if 0 < entry.used < entry.length:
        percent = round(100 * entry.used / entry.length)
        text += f", {percent}% used" if percent else ", <1% used"
    return text
