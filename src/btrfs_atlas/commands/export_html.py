"""btrfs-atlas export-html: a map of a filesystem to walk through, in one file."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from typing import TYPE_CHECKING

from btrfs_atlas.colours import colour_names
from btrfs_atlas.targets import (
    add_source_arguments,
    named,
    one_line,
    require_names,
    source_options,
)

if TYPE_CHECKING:
    from btrfs_atlas.explorer.web.export import Exported

DESCRIPTION = """\
Write a map of a btrfs filesystem into a single HTML file, which any browser opens from disk: all
devices, and all block groups by virtual address, down to 2048 by 2048 pixels, and for each of them
the block group that it belongs to. A TARGET is a folder on a mounted filesystem, a block device, or
an image file, be it a copy of a device or a dump made by btrfs-image; several TARGETs are members
of one filesystem. The file can be shared: it holds no names of files or folders inside the
filesystem, but its label, its UUID, the paths of its devices or images and where it is mounted, the
addresses, sizes and usage of its block groups, and in the legend of the owners the paths of its
subvolumes. What lies inside of block groups, and the names of files, are shown by btrfs-atlas
serve."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="what to show")
    parser.add_argument(
        "-o", "--output", required=True, help="file to write, or - for standard output"
    )
    parser.add_argument(
        "--curve",
        choices=("hilbert", "linear", "snake"),
        default="hilbert",
        help="how the addresses run through the picture (default: hilbert)",
    )
    parser.add_argument(
        "--colour",
        "--color",
        dest="colours",
        metavar="NAME",
        action="append",
        help=f"what the colours mean, one of {', '.join(colour_names())}; can be given several"
        " times (default: type, fill and profile, and age, owner and sharing as long as the file"
        " stays below 10 MB)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="tell nothing")
    add_source_arguments(parser.add_argument_group("how to read it"))


def run(args: argparse.Namespace) -> None:
    """Write the file."""
    _check(args)
    exported = _export(args)
    _write(exported.html, args.output)
    if exported.damage is not None:
        print(f"Warning: {one_line(exported.damage)}", file=sys.stderr)
    if exported.left_out and not args.quiet:
        print(
            f"Left out, as the file would have exceeded 10 MB: {', '.join(exported.left_out)}."
            " --colour takes in what it names",
            file=sys.stderr,
        )


def _check(args: argparse.Namespace) -> None:
    """Find out before the work whether the file can be written."""
    from heatmap import HeatmapError, colourings, output

    require_names(args.targets)
    for name in args.colours or ():
        colourings.colouring(name)
    if args.output == "":
        raise HeatmapError("the name of the output is empty", hint="give -o a file")
    if args.output == output.STDOUT:
        if sys.stdout.isatty():
            raise HeatmapError("a terminal cannot show an HTML file", hint="redirect the output")
        return
    if os.path.isdir(args.output):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), args.output)
    output.check_place(args.output)


def _export(args: argparse.Namespace) -> Exported:
    """Return the map."""
    from btrfs_atlas.explorer.atlas import Atlas
    from btrfs_atlas.explorer.web.export import export
    from btrfs_atlas.progress import ProgressBar

    with (
        named(args.targets),
        Atlas(args.targets, **source_options(args)) as atlas,
        ProgressBar("drawing", wanted=not args.quiet) as progress,
    ):
        return export(atlas, args.curve, args.colours, progress)


def _write(html: str, name: str) -> None:
    """Write a page to a file, which appears when it is complete, or to standard output."""
    from heatmap import HeatmapError, output

    if name == output.STDOUT:
        sys.stdout.buffer.write(html.encode())
        sys.stdout.buffer.flush()
        return
    try:
        with output.replaced(name) as file:
            file.write(html.encode())
    except OSError as error:
        raise HeatmapError(
            f"{name}: {error.strerror or error}", hint="write the file to another place with -o"
        ) from error
