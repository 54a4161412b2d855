"""btrfs-atlas heatmap: draw what is allocated where, and how full it is."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from btrfs_atlas.colours import colour_names
from btrfs_atlas.targets import (
    add_source_arguments,
    block_group,
    filesystems,
    opened,
    source_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from btrfs.ctree import FileSystem
    from heatmap import Grid
    from heatmap.legend import Legend

DESCRIPTION = """\
Draw a picture of a btrfs filesystem: which parts of its devices are allocated to data (white),
metadata (blue) and system (red), and how full they are (the brighter, the fuller). With
--blockgroup, draw the extents inside a block group. A TARGET is a folder on a mounted filesystem, a
block device, or an image file, be it a copy of a device or a dump made by btrfs-image. Several
TARGETs that are members of one filesystem are drawn as one picture; others get a picture each.
What cannot be read is hatched."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", help="what to draw")

    what = parser.add_argument_group("what to draw")
    what.add_argument(
        "--sort",
        choices=("physical", "virtual"),
        default="physical",
        help="order by the devices' addresses (physical, the default), or by the virtual addresses"
        " of the chunks (virtual)",
    )
    what.add_argument(
        "--blockgroup",
        metavar="VADDR",
        type=_address,
        help="draw the extents of the block group at this virtual address, instead of the whole"
        " filesystem",
    )
    what.add_argument(
        "--colour",
        "--color",
        metavar="NAME",
        help=f"what the colours mean: {', '.join(colour_names())} (default: block groups by type,"
        " the brighter, the fuller; with --blockgroup, extents by type)",
    )
    add_source_arguments(what)

    how = parser.add_argument_group("how to draw it")
    how.add_argument(
        "--order",
        type=int,
        help="draw 2^ORDER by 2^ORDER pixels, 1 to 14 (default: as many as show all, up to 10)",
    )
    how.add_argument(
        "--size",
        type=int,
        help="write an image of 2^SIZE by 2^SIZE, each pixel repeated (default: 10, or the order"
        " where that is larger)",
    )
    how.add_argument(
        "--curve",
        choices=("hilbert", "linear", "snake"),
        default="hilbert",
        help="how the addresses run through the picture: hilbert (the default) keeps together what"
        " is close together; linear goes row by row; snake too, back and forth",
    )
    how.add_argument(
        "--legend",
        action="store_true",
        help="add a strip that says what the colours mean, how much there is of each, and of what"
        " filesystem this is a picture",
    )

    where = parser.add_argument_group("where to put it")
    where.add_argument(
        "-o",
        "--output",
        help="file to write, in the format that its suffix says (.png, .webp, .tif, .bmp, .gif,"
        " .jpg, .ppm, .tga), or folder to write a .png file into, or - for standard output"
        " (default: a .png file with an automatic name in the current folder)",
    )
    where.add_argument(
        "--show",
        action="store_true",
        help="show the picture in the terminal; write a file only if there is -o",
    )

    words = parser.add_argument_group("what to tell")
    words.add_argument(
        "-v", "--verbose", action="count", default=0, help="tell more (-v, -vv, -vvv)"
    )
    words.add_argument("-q", "--quiet", action="count", default=0, help="tell nothing")


def run(args: argparse.Namespace) -> None:
    """Draw and write the pictures."""
    from heatmap import HeatmapError

    _check(args)
    found = filesystems(args.targets) if len(args.targets) > 1 else [args.targets]
    if len(found) > 1 and args.output is not None and not os.path.isdir(args.output):
        raise HeatmapError(
            f"{len(found)} filesystems do not fit into one file: {args.output}",
            hint="give a folder to -o, or one TARGET at a time",
        )
    for targets in found:
        _draw_filesystem(targets, args)


def _check(args: argparse.Namespace) -> None:
    """Find out before the work whether the picture that is wanted can be made and written."""
    from heatmap import HeatmapError, grid, picture

    if args.order is not None and not 1 <= args.order <= grid.MAX_ORDER:
        raise HeatmapError(
            f"order {args.order} out of range", hint=f"--order takes 1 to {grid.MAX_ORDER}"
        )
    grid.check_geometry(args.order, args.size)
    if args.colour is not None:
        from heatmap.colourings import colouring

        colouring(args.colour)
    if args.show:
        _check_terminal()
    if args.output == "":
        raise HeatmapError("the name of the output is empty", hint="give -o a file or a folder")
    if args.output == picture.STDOUT:
        if args.show:
            raise HeatmapError(
                "standard output cannot take a file and a drawing at the same time",
                hint="leave out -o -, or --show",
            )
        if sys.stdout.isatty():
            raise HeatmapError(
                "a terminal cannot show a PNG file", hint="use --show, or redirect the output"
            )
    if args.output is not None:
        picture.check_output(args.output)


def _check_terminal() -> None:
    from heatmap import HeatmapError, terminal

    encoding = sys.stdout.encoding or "ascii"
    try:
        terminal.HALF_BLOCK.encode(encoding)
    except UnicodeEncodeError:
        raise HeatmapError(
            f"this output cannot show a picture: its encoding is {encoding}",
            hint="use a terminal with UTF-8, and a locale like C.UTF-8",
        ) from None


def _draw_filesystem(targets: Sequence[str], args: argparse.Namespace) -> None:
    from heatmap import HeatmapError, generate_png_file_name, picture

    grid, parts, described = _draw(targets, args)
    if args.show:
        import shutil

        from heatmap import terminal

        columns = shutil.get_terminal_size().columns
        print(*terminal.picture_lines(grid.pixels, columns), sep="\n")
        if described is not None:
            print(*terminal.legend_lines(described), sep="\n")
        if args.output is None:
            return
    image = grid.image()
    if described is not None:
        from heatmap import legend

        image = legend.add_legend(image, described)
    name = generate_png_file_name(args.output, parts)
    try:
        picture.write_image(image, name)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise HeatmapError(
            f"{name}: {error.strerror or error}", hint="write the picture to another place with -o"
        ) from error
    grid.written(name)


def _draw(
    targets: Sequence[str], args: argparse.Namespace
) -> tuple[Grid, list[object], Legend | None]:
    """Return a filesystem's picture, the parts of a name for it, and its legend if it is wanted."""
    from btrfs_atlas.progress import ProgressBar

    with (
        opened(targets, on_error="skip", **source_options(args)) as fs,
        ProgressBar("drawing", wanted=args.verbose == args.quiet == 0) as progress,
    ):
        grid, parts = _walk(fs, args, progress)
        return grid, parts, _legend(fs, grid) if args.legend else None


def _walk(
    fs: FileSystem, args: argparse.Namespace, progress: Callable[[int, int], None]
) -> tuple[Grid, list[object]]:
    """Return the picture, and the parts of a name for it."""
    import heatmap

    parts: list[object] = ["fsid", fs.fsid]
    if args.curve != "hilbert":
        parts.append(args.curve)
    if args.colour is not None:
        parts.append(args.colour)
    options: dict[str, Any] = {
        "order": args.order,
        "size": args.size,
        # Where the picture goes to standard output, nothing else may.
        "verbose": -1 if args.output == "-" else args.verbose - args.quiet,
        "curve": args.curve,
        "progress": progress,
        "colour": args.colour,
    }
    if args.blockgroup is not None:
        group = block_group(fs, args.blockgroup)
        return heatmap.walk_extents(fs, [group], **options), [*parts, "blockgroup", group.vaddr]
    if args.sort == "virtual":
        return heatmap.walk_chunks(fs, **options), [*parts, "chunks"]
    return heatmap.walk_dev_extents(fs, **options), parts


def _legend(fs: FileSystem, grid: Grid) -> Legend:
    from heatmap.legend import legend_of

    return legend_of(fs, grid)


def _address(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not an address: {text!r}") from None
