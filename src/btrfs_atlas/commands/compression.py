"""btrfs-atlas compression: what compression saves, in the table of compsize."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from btrfs_atlas.owned import add_paths, add_scan_arguments, chosen_entries, opened_for_scan

if TYPE_CHECKING:
    from btrfs.ownership import Ownership
    from btrfs.ownership.compression import Amounts, Compression
    from btrfs.ownership.directories import Entry

DESCRIPTION = """\
Show what compression saves in a whole btrfs filesystem, or in some of its directories and files:
bytes on disk, uncompressed and referenced, by type of compression. The table and its figures are
those of compsize."""

_EPILOG = """\
DISK USAGE is what the extents take on disk, each once and before redundancy. UNCOMPRESSED is what
they would take if they were not compressed. REFERENCED is what the files have of them, each file
and each name of a file for itself, without holes: more than UNCOMPRESSED where files share extents,
less where parts of extents are not in use any more."""

_UNITS = "BKMGTPE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.epilog = _EPILOG
    add_scan_arguments(parser)
    add_paths(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("-b", "--bytes", action="store_true", help="show sizes in bytes")
    form.add_argument("--json", action="store_true", help="write an object with exact numbers")


def run(args: argparse.Namespace) -> int:
    """Show the table; return 1 if something had to be left out."""
    with opened_for_scan(args) as (fs, owned):
        chosen = chosen_entries(fs, owned, args)
        found = owned.compression(chosen)
        if args.json:
            _print_json(owned, chosen, found)
        else:
            print("\n".join(_lines(found, in_bytes=args.bytes)))
        return int(not owned.is_complete)


def _lines(found: Compression, *, in_bytes: bool) -> Iterator[str]:
    """Yield the lines that compsize prints."""
    files = "1 file" if found.files == 1 else f"{found.files} files"
    yield (
        f"Processed {files}, {found.extents} regular extents ({found.references} refs),"
        f" {found.inline} inline."
    )
    if not found.total.on_disk:
        return
    yield _line("Type", "Perc", ("Disk Usage", "Uncompressed", "Referenced"))
    rows = {"TOTAL": found.total, **found.by_type, "prealloc": found.preallocated}
    for name, amounts in rows.items():
        if amounts.on_disk:
            sizes = map(str if in_bytes else _size_str, amounts)
            yield _line(name, _percent(amounts), sizes)


def _line(name: str, percent: str, sizes: Iterable[str]) -> str:
    columns = " ".join(f"{size:<12}" for size in sizes)
    return f"{name:<10} {percent:>4}     {columns}".rstrip()


def _percent(amounts: Amounts) -> str:
    """Return how much of the uncompressed bytes are on disk, rounded down."""
    return f"{100 * amounts.on_disk // amounts.uncompressed}%" if amounts.uncompressed else "-"


def _size_str(size: int) -> str:
    """Return a size in few digits, rounded down as compsize does."""
    unit = 0
    while size >> 10 * (unit + 1):
        unit += 1
    whole = size >> 10 * unit
    number = str(whole)
    if unit and whole < 10:
        number = f"{whole}.{(10 * size >> 10 * unit) % 10}"
    return f"{number}{_UNITS[unit]}".rjust(5)


def _print_json(owned: Ownership, chosen: list[Entry], found: Compression) -> None:
    import json

    from btrfs.ownership.compression import Amounts
    from btrfs.query.records import record

    made = {
        "generation": owned.generation,
        "is_complete": owned.is_complete,
        "paths": [record(entry.path) for entry in chosen],
        "files": found.files,
        "extents": found.extents,
        "references": found.references,
        "inline": found.inline,
        "total": found.total._asdict(),
        "types": {
            name: {
                **amounts._asdict(),
                "inline": found.in_leaves.get(name, Amounts())._asdict(),
            }
            for name, amounts in found.by_type.items()
        },
        "preallocated": found.preallocated._asdict(),
    }
    print(json.dumps(made, indent=2))
