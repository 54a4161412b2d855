"""btrfs-atlas duplicates: what is stored more than once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from btrfs_atlas.arguments import add_targets, count, size
from btrfs_atlas.progress import ProgressBar
from btrfs_atlas.targets import add_source_arguments, one_line, opened, source_options

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ownership.duplicate_files import FileNames, Name
    from btrfs.ownership.duplicates import Duplicates

DESCRIPTION = """\
Show what a btrfs filesystem stores more than once, and how much deduplication would give back. The
checksums tell; no data is read. What files share already, by reflinks or snapshots, is stored
once."""

_EPILOG = """\
EACH is the size of one copy, and GAIN that of all copies but one. FREES is the part of it in
extents of which nothing would be needed any more; the rest comes back only when other files that
keep its extents are deleted or rewritten. A copy can go on through several files one after another:
the one that it begins in is named. --fdupes writes the paths of whole files that are equal, groups
apart by an empty line, as fdupes does: duperemove --fdupes reads that."""

_LIMIT = 20
_NAMES_IN_TABLE = 4
_NAMES_IN_JSON = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.epilog = _EPILOG
    add_targets(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write an object with exact numbers")
    form.add_argument(
        "--fdupes",
        action="store_true",
        help="write lists of equal files for a deduplicator; of a mounted filesystem those below"
        " TARGET, else with paths from the top level",
    )
    parser.add_argument(
        "--min",
        metavar="SIZE",
        type=size,
        default=0,
        help="leave out copies that are smaller, such as 1MiB",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=count,
        help=f"show only the first N groups (default: {_LIMIT}, and all with --fdupes)",
    )
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Find and show duplicates; return 1 if something had to be left out."""
    from btrfs.ownership import duplicates

    with opened(args.targets, on_error="skip", **source_options(args)) as fs:
        with ProgressBar("Comparing checksums") as bar:
            found = duplicates.find(fs, bar)
        wanted = _wanted(found, args)
        if args.fdupes:
            _write_equal_files(fs, found, wanted)
        elif args.json:
            _write_json(fs, found, wanted)
        else:
            _print(fs, found, wanted, " ".join(args.targets))
        return 1 if fs.lost else 0


def _wanted(found: Duplicates, args: argparse.Namespace) -> list[int]:
    """Return the indexes of the groups to be shown."""
    limit = args.limit
    if limit is None:
        limit = len(found.groups) if args.fdupes else _LIMIT
    large: list[int] = (found.groups.length >= args.min).nonzero()[0][:limit].tolist()
    return large


# As text.


def _print(fs: FileSystem, found: Duplicates, wanted: Sequence[int], target: str) -> None:
    from btrfs.ownership.duplicate_files import FileNames
    from btrfs.utils import pretty_size
    from btrfs_atlas import tables

    groups, names = found.groups, FileNames(fs)
    numbers = ("each", "copies", "gain", "frees")
    rows = [
        (
            pretty_size(int(groups.length[index])),
            f"{groups.copies[index]:,}",
            pretty_size(int(groups.gain[index])),
            pretty_size(int(groups.frees[index])),
            "\n".join(_names(names, groups.vaddrs(index))),
        )
        for index in wanted
    ]
    if rows:
        title = f"Duplicates in {one_line(target)}"
        tables.show(tables.table(title, (*numbers, "begins in"), rows, right=numbers))
    print("\n".join(_totals(found, len(groups) - len(rows), _checksum_name(fs))))


def _names(names: FileNames, vaddrs: Sequence[int]) -> Iterator[str]:
    """Yield a line for each copy."""
    for vaddr in vaddrs[:_NAMES_IN_TABLE]:
        yield _line(names.at(vaddr))
    if len(vaddrs) > _NAMES_IN_TABLE:
        yield f"and {len(vaddrs) - _NAMES_IN_TABLE:,} more"


def _line(name: Name | None) -> str:
    from btrfs.ondisk.text import counted, printable

    if name is None:
        return "(no file)"
    path = "(a deleted file)" if name.path is None else printable(name.path)
    return f"{path} (+{counted(name.others, 'use')})" if name.others else path


def _totals(found: Duplicates, more: int, checksum: str) -> Iterator[str]:
    """Yield lines about all duplicates, what was compared, and what was not."""
    from btrfs.ondisk.text import counted
    from btrfs.utils import pretty_size

    if more:
        yield f"{counted(more, 'more group')} not shown."
    compared = pretty_size(found.compared)
    if found.total:
        yield f"Stored more than once: {pretty_size(found.total)} of {compared} compared."
        yield f"    {pretty_size(found.whole_extents)} in extents that deduplication frees"
        yield f"    {pretty_size(found.parts_of_extents)} in parts of extents that stay"
    else:
        yield f"Nothing is stored more than once in {compared} compared."
    if found.unlisted:
        yield f"    {pretty_size(found.unlisted)} of both is in no group: zeros, short pieces"
    missing = (
        f"{pretty_size(size)} {why}"
        for size, why in (
            (found.without_checksums, "without checksums"),
            (found.too_short, "in runs below 16 sectors"),
        )
        if size
    )
    if text := ", ".join(missing):
        yield f"Not compared: {text}."
    if found.is_estimate:
        yield f"This is an estimate: {checksum} has only 4 bytes for a sector."
    if not found.is_complete:
        yield "Some checksums or extents could not be read, so all numbers may be too low."


def _checksum_name(fs: FileSystem) -> str:
    from btrfs.ondisk.checksum import CHECKSUMS

    return CHECKSUMS[fs.fs_info().csum_type].name


# As JSON.


def _write_json(fs: FileSystem, found: Duplicates, wanted: Sequence[int]) -> None:
    import json

    from btrfs.ownership.duplicate_files import FileNames

    names = FileNames(fs)
    answer = {
        "generation": fs.fs_info().generation,
        "total": found.total,
        "whole_extents": found.whole_extents,
        "parts_of_extents": found.parts_of_extents,
        "unlisted": found.unlisted,
        "compared": found.compared,
        "without_checksums": found.without_checksums,
        "too_short": found.too_short,
        "is_estimate": found.is_estimate,
        "is_complete": found.is_complete,
        "groups": [_plain(found, index, names) for index in wanted],
        "groups_not_shown": len(found.groups) - len(wanted),
    }
    json.dump(answer, sys.stdout, indent=2)
    print()


def _plain(found: Duplicates, index: int, names: FileNames) -> dict[str, Any]:
    """Return a group as plain data."""
    groups = found.groups
    return {
        "length": int(groups.length[index]),
        "copies": int(groups.copies[index]),
        "gain": int(groups.gain[index]),
        "frees": int(groups.frees[index]),
        "places": [
            {"vaddr": vaddr, **_plain_name(names.at(vaddr))}
            for vaddr in groups.vaddrs(index)[:_NAMES_IN_JSON]
        ],
    }


def _plain_name(name: Name | None) -> dict[str, Any]:
    from btrfs.query.records import record

    if name is None:
        return {"path": None, "others": 0}
    return {"path": None if name.path is None else record(name.path), "others": name.others}


# As fdupes.


def _write_equal_files(fs: FileSystem, found: Duplicates, wanted: Sequence[int]) -> None:
    """Write the paths of equal files, a line each, with an empty line after each list."""
    from btrfs.ownership.duplicate_files import equal_files

    with ProgressBar("Looking up files") as bar:
        lists = equal_files(fs, found, wanted, bar)
    top, inner = _folder(fs)
    left_out = 0
    for files in lists:
        paths = [
            top + file.path.removeprefix(inner)
            for file in files
            if file.path.startswith(inner) and b"\n" not in file.path
        ]
        left_out += len(files) - len(paths)
        if len(paths) > 1:
            sys.stdout.buffer.write(b"\n".join((*paths, b"", b"")))
    sys.stdout.buffer.flush()
    if left_out:
        from btrfs.ondisk.text import counted

        what = counted(left_out, "file")
        print(f"Note: left out {what} outside of {fs.path}, or odd in name", file=sys.stderr)


def _folder(fs: FileSystem) -> tuple[bytes, bytes]:
    """Return how paths of files begin for the user, and how the same begin at the top level."""
    from btrfs import ioctl
    from btrfs.ownership.duplicate_files import FileNames
    from btrfs.ownership.paths import Place

    if not fs.mounted:
        return b"", b""
    folder = Place(ioctl.ino_lookup(fs.fd).treeid, os.fstat(fs.fd).st_ino)
    inner = FileNames(fs).path(folder) or b""
    return os.path.join(os.fsencode(fs.path), b""), inner + b"/" if inner else b""
