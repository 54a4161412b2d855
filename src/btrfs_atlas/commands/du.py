"""btrfs-atlas du: which directories and files take the space."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from btrfs_atlas.arguments import count, size
from btrfs_atlas.owned import (
    add_paths,
    add_scan_arguments,
    chosen_entries,
    entries,
    opened_for_scan,
)

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem
    from btrfs.ownership import Ownership
    from btrfs.ownership.directories import Entry, Sort
    from btrfs.ownership.largest import Branch, FileSpace

DESCRIPTION = """\
Show which directories and files of a btrfs filesystem take the space. Snapshots and reflinks share
it, so there are three sizes, of data on disk before redundancy."""

_EPILOG = """\
REPRESENTED counts each extent in one place only, so that the sizes in a directory add up: in a
subvolume that can be written to before one that is read-only, then in the newest, then where the
path is shortest. EXCLUSIVE is what nothing else uses: deleting it frees that. REFERENCED is all
that is used there. UNREACHABLE is what is kept on disk, but was overwritten or cut off in all
files: an extent stays whole as long as any part of it is used. Metadata, which has small files in
it, does not count."""

_SORTS: dict[str, Sort] = {
    "represented": "represented",
    "exclusive": "exclusive",
    "referenced": "referenced",
    "unreachable": "unreachable",
    "fragments": "breaks",
}
_SIZES = ("represented", "exclusive", "referenced")
_DEPTH = 2
_LINES = 30
_FILES = 20
_LEAST_SHARE = 100
"""What has less than this part of the whole is left out of a tree, if not asked for."""

_UNNAMED = "(deleted, but open)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.epilog = _EPILOG
    add_scan_arguments(parser)
    add_paths(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write an object with exact numbers")
    form.add_argument(
        "--ncdu", metavar="FILE", help="write an export to this file that ncdu -f opens; - for here"
    )
    parser.add_argument("--files", action="store_true", help="list files, not a tree")
    parser.add_argument(
        "--sort",
        choices=tuple(_SORTS),
        default="represented",
        help="what to go by (default: represented)",
    )
    parser.add_argument(
        "--depth",
        metavar="N",
        type=count,
        default=_DEPTH,
        help=f"how many levels of directories to show (default: {_DEPTH})",
    )
    parser.add_argument(
        "--min",
        metavar="SIZE",
        type=size,
        help="sum up what has less (default: 1 %% of the whole, and nothing with --json)",
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=count,
        help=f"show the N largest (default: {_LINES} lines of a tree, all with --json, or"
        f" {_FILES} files)",
    )
    parser.add_argument(
        "--prefer",
        metavar="PATTERN",
        action="append",
        default=[],
        help="represent extents below such paths, like /home/*, rather than elsewhere; can be given"
        " several times",
    )
    parser.add_argument(
        "--ignore",
        metavar="PATTERN",
        action="append",
        default=[],
        help="represent extents below such paths only if nothing else uses them",
    )


def run(args: argparse.Namespace) -> int:
    """Show what takes the space; return 1 if something had to be left out."""
    with opened_for_scan(args) as (fs, owned):
        from btrfs.ownership.containment import Representation

        rule = Representation(tuple(args.prefer), tuple(args.ignore))
        chosen = chosen_entries(fs, owned, args, rule)
        if args.ncdu is not None:
            _write_ncdu(fs, chosen, args.ncdu)
        elif args.files:
            files = _largest_files(chosen, args)
            if args.json:
                _print_json_of_files(owned, files)
            else:
                print("\n".join(_lines_of_files(fs, owned, files, args)))
        elif args.json:
            for entry in chosen:
                _print_json(owned, entry, args)
        else:
            _print_trees(owned, chosen, args)
        return int(not owned.is_complete)


# A tree.


def _print_trees(owned: Ownership, chosen: Sequence[Entry], args: argparse.Namespace) -> None:
    sort = _SORTS[args.sort]
    for number, entry in enumerate(chosen):
        if number:
            print()
        branch = _branch(entry, args)
        columns = _SIZES if sort in _SIZES else (sort, *_SIZES)
        print(_line(columns, "path"))
        for line in _lines(branch, columns, 0):
            print(line)
        if entry == entry.directories.top:
            for line in _beside(owned, entry):
                print(line)


def _branch(entry: Entry, args: argparse.Namespace) -> Branch:
    from btrfs.ownership.largest import largest_entries

    sort = _SORTS[args.sort]
    least, limit = args.min, args.limit
    if not args.json:
        least = getattr(entry, sort) // _LEAST_SHARE if least is None else least
        limit = _LINES if limit is None else limit
    return largest_entries(entry, sort, depth=args.depth, least=least or 0, limit=limit)


def _lines(branch: Branch, columns: Sequence[str], level: int) -> Iterator[str]:
    """Yield the lines of a directory, and of what is shown of that which is in it."""
    entry = branch.entry
    yield _line(
        [_cell(entry, column) for column in columns], _indented(level, _label(entry, level))
    )
    for child in branch.children:
        yield from _lines(child, columns, level + 1)
    if branch.left_out:
        rest = _summary(columns, branch.represented_in_left_out)
        yield _line(rest, _indented(level + 1, f"({branch.left_out:,} smaller)"))
    if branch.is_open and entry.unnamed:
        yield _line(_summary(columns, entry.unnamed), _indented(level + 1, _UNNAMED))


def _cell(entry: Entry, column: str) -> str:
    value = getattr(entry, column)
    return f"{value:,}" if column == "breaks" else _size_str(value)


def _summary(columns: Sequence[str], represented: int) -> list[str]:
    return [_size_str(represented) if column == "represented" else "" for column in columns]


def _line(cells: Sequence[str], text: str) -> str:
    return "  ".join([*(f"{cell:>11}" for cell in cells), text])


def _indented(level: int, text: str) -> str:
    return "  " * level + text


def _label(entry: Entry, level: int) -> str:
    """Return the name of an entry, of the first one the path."""
    from btrfs.ondisk.text import printable

    name = printable(entry.name if level else entry.path)
    return f"{name}/" if entry.is_directory else name


def _beside(owned: Ownership, top: Entry) -> Iterator[str]:
    """Yield lines about data that is in no directory."""
    elsewhere = top.directories.places.elsewhere()
    if unnamed := top.directories.unnamed():
        yield f"of this in files that are deleted, but open: {_size_str(unnamed)}"
    if elsewhere.deleted:
        yield f"beside it in deleted subvolumes, not cleaned up: {_size_str(elsewhere.deleted)}"
    if elsewhere.internal:
        yield f"beside it in the filesystem's own files: {_size_str(elsewhere.internal)}"
    if owned.unexplained:
        yield f"used, with metadata, by nothing that was read: {_size_str(owned.unexplained)}"


def _size_str(size: int) -> str:
    from btrfs.ondisk.text import pretty_size

    return pretty_size(size)


# Files.


def _largest_files(chosen: Sequence[Entry], args: argparse.Namespace) -> list[FileSpace]:
    from btrfs.ownership.largest import largest_files

    sort = _SORTS[args.sort]
    limit = _FILES if args.limit is None else args.limit
    found = {
        (file.tree, file.inum): file
        for entry in chosen
        for file in largest_files(entry, sort, limit)
        if getattr(file, sort) >= (args.min or 0)
    }
    return sorted(found.values(), key=lambda file: -int(getattr(file, sort)))[:limit]


def _lines_of_files(
    fs: FileSystem, owned: Ownership, files: list[FileSpace], args: argparse.Namespace
) -> Iterator[str]:
    columns = {
        "unreachable": ("unreachable", "reclaimable", "referenced"),
        "fragments": ("breaks", "pieces", "average"),
    }.get(args.sort, _SIZES)
    yield _line(columns, "path")
    for file in files:
        yield _line([_file_cell(file, column) for column in columns], _file_label(file))
    if not files:
        yield "There are none."
    if args.sort == "unreachable":
        yield from _how_to_reclaim(fs, owned, files)


def _file_cell(file: FileSpace, column: str) -> str:
    if column in ("breaks", "pieces"):
        return f"{getattr(file, column):,}"
    return _size_str(file.average_piece if column == "average" else getattr(file, column))


def _file_label(file: FileSpace) -> str:
    from btrfs.ondisk.text import printable

    return _UNNAMED if file.path is None else printable(file.path)


def _how_to_reclaim(fs: FileSystem, owned: Ownership, files: list[FileSpace]) -> Iterator[str]:
    """Yield the commands that give back unreachable bytes, and what they do not give back.

    btrfs filesystem defragment leaves long pieces alone, so that it gives back nothing, or even
    leaves more unreachable than before.
    """
    possible = [file for file in files if file.reclaimable and file.path and not file.read_only]
    if possible:
        yield ""
        yield "To copy files gives back what is reclaimable, if nothing writes to them meanwhile:"
        yield "    for file in \\"
        mount, inside = _mount(fs, owned)
        for file in possible:
            path = file.path or b""
            is_below = path.startswith(inside)
            real = (mount if is_below else b"MOUNTPOINT/") + path.removeprefix(inside)
            yield f"        {_shell_word(real)} \\"
        # The attributes come first: whether a file is compressed is one of them.
        yield '    ; do cp -a --attributes-only "$file" "$file.new" &&'
        yield '        cp -a --reflink=never "$file" "$file.new" && mv "$file.new" "$file"; done'
    if any(file.unreachable > file.reclaimable for file in files):
        yield ""
        yield "What is unreachable, but not reclaimable, is in extents that snapshots, reflinks or"
        yield "other files share: it stays until they are deleted or written anew, too."


def _mount(fs: FileSystem, owned: Ownership) -> tuple[bytes, bytes]:
    """Return how paths begin where it is mounted, and how the same begin at the top level."""
    if not fs.mounted:
        return b"MOUNTPOINT/", b""
    inside = entries(fs, owned, [fs.path])[0].path
    return os.path.join(os.fsencode(fs.path), b""), inside + b"/" if inside else b""


def _shell_word(path: bytes) -> str:
    """Return a path as a word of a shell; with escapes that bash knows, if it cannot be shown."""
    from btrfs.ondisk.text import printable

    text = printable(path)
    if text.encode() == path:
        return shlex.quote(text)
    return "$'" + "".join(_shell_char(byte) for byte in path) + "'"


def _shell_char(byte: int) -> str:
    is_plain = 0x20 <= byte < 0x7F and byte not in b"\\'"
    return chr(byte) if is_plain else f"\\x{byte:02x}"


# As JSON.


def _print_json(owned: Ownership, entry: Entry, args: argparse.Namespace) -> None:
    import json

    found: dict[str, Any] = {
        "generation": owned.generation,
        "is_complete": owned.is_complete,
        **_plain(_branch(entry, args), args),
    }
    if entry == entry.directories.top:
        elsewhere = entry.directories.places.elsewhere()
        found["deleted_but_open"] = entry.directories.unnamed()
        found["deleted_subvolumes"] = elsewhere.deleted
        found["internal"] = elsewhere.internal
        found["unexplained"] = owned.unexplained
    print(json.dumps(found, indent=2))


def _plain(branch: Branch, args: argparse.Namespace) -> dict[str, Any]:
    from btrfs.query.records import record

    entry = branch.entry
    found: dict[str, Any] = {
        "path": record(entry.path),
        "represented": entry.represented,
        "exclusive": entry.exclusive,
        "referenced": entry.referenced,
        "unreachable": entry.unreachable,
    }
    if args.sort == "fragments":
        found["breaks"] = entry.breaks
    found["left_out"] = branch.left_out
    found["children"] = [_plain(child, args) for child in branch.children]
    return found


def _print_json_of_files(owned: Ownership, files: list[FileSpace]) -> None:
    import json

    from btrfs.query.records import record

    found = {
        "generation": owned.generation,
        "is_complete": owned.is_complete,
        "files": [record(asdict(file)) for file in files],
    }
    print(json.dumps(found, indent=2))


# For ncdu.


def _write_ncdu(fs: FileSystem, chosen: Sequence[Entry], name: str) -> None:
    from importlib.metadata import version

    from btrfs.errors import BtrfsError
    from btrfs_atlas.ncdu import export

    if len(chosen) != 1 or not chosen[0].is_directory:
        raise BtrfsError("an export for ncdu is of one directory", hint="name one PATH, or none")
    (top,) = chosen
    root = b"/".join(filter(None, (os.fsencode(fs.path), top.path)))
    parts = export(
        top,
        version=version("btrfs-atlas"),
        root=root,
        lost=[lost.tree for lost in fs.lost],
    )
    with nullcontext(sys.stdout.buffer) if name == "-" else open(name, "wb") as file:
        file.writelines(parts)
