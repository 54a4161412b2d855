"""btrfs-atlas TARGET: the state of a filesystem on one page, and what to do about it."""

from __future__ import annotations

import argparse
import shlex
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from btrfs_atlas.arguments import add_targets, seconds
from btrfs_atlas.overview import devices, owners, space, under_way
from btrfs_atlas.overview.sections import Names, Outcome, Section, read
from btrfs_atlas.tables import printable
from btrfs_atlas.targets import add_source_arguments, opened, source_options

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem

DESCRIPTION = """\
Show on one page how full a btrfs filesystem is, how much more can be written, what stands in the
way of that, the state of its devices, and what the kernel is doing to it; each with the command
that tells more or does something about it. The name of this subcommand may be left out."""

SECTIONS: tuple[Section[Any], ...] = (
    space.SECTION,
    devices.SECTION,
    under_way.SECTION,
    owners.SECTION,
)
"""The sections of the page, from top to bottom."""

_WIDTH = 80
_SECONDS = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    add_targets(parser)
    parser.add_argument("--json", action="store_true", help="write the page as one object")
    parser.add_argument(
        "--seconds",
        type=seconds,
        default=_SECONDS,
        help="leave out sections that are not ready after so many seconds (default: 10)",
    )
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print the page; return 1 if part of what belongs on it could not be read."""
    with opened(args.targets, on_error="skip", **source_options(args)) as fs:
        outcomes: list[Outcome] = []
        for outcome in read(SECTIONS, fs, args.seconds):
            if not args.json:
                # Each as soon as it is there, but nothing of it if the first must not be read.
                heading = [] if outcomes else list(_heading(fs, args.targets))
                lines = _lines(outcome, _names(fs, args.targets))
                print("\n".join([*heading, *lines]), flush=True)
            outcomes.append(outcome)
        if args.json:
            _print_json(fs, outcomes)
        return int(bool(fs.lost) or any(outcome.problem for outcome in outcomes))


def _print_json(fs: FileSystem, outcomes: list[Outcome]) -> None:
    import json

    page = {
        "fsid": str(fs.fsid),
        "label": fs.label,
        "generation": fs.fs_info().generation,
        "mounted": fs.mounted,
        "path": fs.path,
        **{
            outcome.section.name: None
            if outcome.value is None
            else outcome.section.plain(outcome.value)
            for outcome in outcomes
        },
        "left_out": [outcome.section.name for outcome in outcomes if outcome.is_left_out],
        "unreadable": {
            outcome.section.name: outcome.problem for outcome in outcomes if outcome.problem
        },
        "damage": fs.damage_summary(),
    }
    print(json.dumps(page, indent=2))


def _heading(fs: FileSystem, targets: list[str]) -> Iterator[str]:
    yield f"btrfs {fs.fsid}{'  ' if fs.label else ''}{printable(fs.label)}"
    state = "mounted" if fs.mounted else "not mounted"
    yield f"{' '.join(map(printable, targets))}, {state}, generation {fs.fs_info().generation}"


def _names(fs: FileSystem, targets: list[str]) -> Names:
    mountpoint = shlex.quote(printable(fs.path)) if fs.mounted else "MOUNTPOINT"
    return Names(" ".join(shlex.quote(printable(target)) for target in targets), mountpoint)


def _lines(outcome: Outcome, names: Names) -> Iterator[str]:
    yield from ("", outcome.section.title, "")
    if outcome.is_left_out:
        lines = iter(["Left out, as it would take longer. To wait for it, give more --seconds."])
    elif outcome.problem:
        lines = iter([f"! It could not be read: {printable(outcome.problem)}."])
    else:
        lines = outcome.section.lines(outcome.value, names)
    for line in lines:
        yield from _fitted(line)


def _fitted(line: str) -> Iterator[str]:
    """Yield a line of a section indented, and broken where it does not fit into the page."""
    if line.startswith("$ "):
        # To be copied, so it stays in one piece.
        yield f"      {line[2:]}"
    elif line.startswith(" "):
        yield f" {line}".rstrip()
    else:
        indent = "    " if line.startswith("! ") else "  "
        yield from textwrap.wrap(
            line,
            _WIDTH,
            initial_indent="  ",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
