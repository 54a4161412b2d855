"""From pixels to a file: in the format that its suffix says."""

from __future__ import annotations

import os
import sys
from os import PathLike
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from heatmap.errors import HeatmapError
from heatmap.output import STDOUT as STDOUT, check_place, replaced
from heatmap.raster import Packed

if TYPE_CHECKING:
    from PIL.Image import Image

PNG = "PNG"

FORMATS = {
    ".png": PNG,
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".ppm": "PPM",
    ".tga": "TGA",
}
"""The formats that a picture can be written in, by the suffix of the file's name."""

_MAX_SIDE = {"WEBP": 16383, "JPEG": 65500}
"""Pixels of height and width that a format takes, where one of our pictures can be larger."""


def format_of(name: str | PathLike[str]) -> str:
    """Return the format for a file of this name: by its suffix, and PNG where there is none.

    Raises:
        HeatmapError: No picture is written in such a file.
    """
    suffix = os.path.splitext(name)[1].lower()
    if not suffix or os.fspath(name) == STDOUT:
        return PNG
    try:
        return FORMATS[suffix]
    except KeyError:
        raise HeatmapError(
            f"cannot write a picture as {suffix!r}: {name}",
            hint=f"use one of {', '.join(FORMATS)}",
        ) from None


def check_output(name: str | PathLike[str]) -> None:
    """Find out before the work whether a picture can be written to a file or into a folder.

    Raises:
        HeatmapError: The suffix stands for no format.
        OSError: There is no folder for the file, or it must not be written to.
    """
    if os.fspath(name) == STDOUT:
        return
    if not os.path.isdir(name):
        format_of(name)
    check_place(name)


def image(packed: Packed, side: int) -> Image:
    """Return pixels as an image of this height and width, each repeated as often as needed."""
    from PIL import Image

    pixels = np.ascontiguousarray(packed)
    height, width = pixels.shape
    made = Image.frombytes("RGB", (width, height), pixels, "raw", "RGBX")
    if side == width:
        return made
    return made.resize((side, side), Image.Resampling.NEAREST)


def write_image(made: Image, name: str | PathLike[str], format_: str | None = None) -> None:
    """Write an image to a file, or to standard output if the name is STDOUT.

    A file appears under its name when it is complete; one that is there already is replaced then.

    Args:
        made: The image.
        name: Of the file.
        format_: One of the values of FORMATS. Left out, the suffix tells.

    Raises:
        HeatmapError: The suffix stands for no format, or for one that takes no picture so large.
        OSError: The file cannot be written.
    """
    chosen = format_of(name) if format_ is None else format_
    side = max(made.size)
    if side > _MAX_SIDE.get(chosen, side):
        raise HeatmapError(
            f"a picture of {side} pixels is too large for this format: {name}",
            hint="write a .png file",
        )
    if os.fspath(name) == STDOUT:
        _encode(made, sys.stdout.buffer, chosen)
        sys.stdout.buffer.flush()
        return
    with replaced(name) as file:
        _encode(made, file, chosen)


def _encode(made: Image, file: IO[bytes], format_: str) -> None:
    # Told a format, Pillow imports all common ones first; left to the file's name, only that one.
    named = FORMATS.get(os.path.splitext(str(file.name))[1]) == format_
    made.save(file, None if named else format_, **_OPTIONS.get(format_, {}))


_OPTIONS: dict[str, dict[str, Any]] = {
    PNG: {"compress_level": 2},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_deflate"},
    "JPEG": {"quality": 95, "subsampling": 0},
}
