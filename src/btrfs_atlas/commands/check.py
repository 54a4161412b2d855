"""btrfs-atlas check: what is wrong with a filesystem that is not mounted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from btrfs_atlas.progress import ProgressBar
from btrfs_atlas.targets import add_source_arguments, one_line, opened_quietly, source_options

if TYPE_CHECKING:
    from btrfs.check import Checked
    from btrfs.ctree import FileSystem
    from btrfs.errors import BtrfsError

DESCRIPTION = """\
Check a btrfs filesystem that is not mounted, and tell what is wrong with it. Nothing is written.
All trees are put together: superblocks, blocks and items, files and directories, extents with what
refers to them, free space, checksums, chunks, subvolumes, log trees and quotas are checked, each by
itself and against the others; data and second copies if that is asked for."""

_EPILOG = """\
The last lines say whether anything is wrong, and what was not checked; "Clean" is only said where
everything was. The exit status is 0 if nothing is wrong in what was checked, 1 if there is damage,
also such that another copy makes good, and 2 if the filesystem cannot be read at all or is mounted
for writing."""

FAILED = 2
"""Exit status where nothing could be checked."""

_DAMAGED = 1
_FEW = 5
"""So many findings of a kind are shown."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.epilog = _EPILOG
    parser.add_argument(
        "targets",
        metavar="TARGET",
        nargs="+",
        help="a device of the filesystem or an image of it, or several that are members of it, or a"
        " dump made by btrfs-image, or a folder on the filesystem if it is mounted read-only",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="check blocks and items one by one, and space, but not how files, subvolumes and"
        " extents hang together",
    )
    parser.add_argument(
        "--all-copies",
        action="store_true",
        help="read all copies of tree blocks and what parity makes of them, not only the first good"
        " one; with --data, all copies of data too",
    )
    parser.add_argument("--data", action="store_true", help="compare all data with its checksums")
    parser.add_argument(
        "--json", action="store_true", help="write an object with all findings and numbers"
    )
    parser.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="show more findings, up to a thousand of each kind, and what is in each tree",
    )
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Check; return 0 if nothing is wrong, else 1."""
    options = {**source_options(args), "on_error": "skip"}
    with opened_quietly(args.targets, **options) as fs:
        if not fs.mounted:
            _require_unmounted(fs, args)
            return _check(fs, args)
        devices = _devices(fs)
    with opened_quietly(devices, **{**options, "source": "unmounted"}) as fs:
        return _check(fs, args)


def _require_unmounted(fs: FileSystem, args: argparse.Namespace) -> None:
    """Check that images are not mounted for writing, by way of loop devices.

    Raises:
        BtrfsError: One is, and the user did not insist.
    """
    from btrfs.source.mounts import writable_mount_of

    if args.source == "unmounted":
        return
    for device in fs.devices():
        path = fs.dev_info(device.devid).path
        if path and writable_mount_of(path) is not None:
            raise _is_mounted(path)


def _is_mounted(name: str) -> BtrfsError:
    from btrfs.errors import BtrfsError

    return BtrfsError(
        f"{name} is mounted, and what is being written to cannot be checked",
        hint="unmount it or mount it read-only; btrfs scrub checks one that is in use",
    )


def _devices(fs: FileSystem) -> list[str]:
    """Return the devices of a filesystem that is mounted read-only, so that they do not change.

    Raises:
        BtrfsError: It is mounted for writing.
    """
    from btrfs.source.mounts import forget_cached, is_read_only

    if not is_read_only(fs.fd):
        raise _is_mounted(fs.path)
    paths = [fs.dev_info(device.devid).path for device in fs.devices()]
    devices = [path for path in paths if path]
    for device in devices:
        forget_cached(device)
    return devices


def _check(fs: FileSystem, args: argparse.Namespace) -> int:
    checks = _watched(fs, args)
    found = _write_json(fs, checks) if args.json else _print(fs, checks, args)
    return _DAMAGED if found else 0


def _watched(fs: FileSystem, args: argparse.Namespace) -> Iterator[Checked]:
    """Yield what each check found; where one takes long, a bar shows how far it is."""
    from btrfs.check import check

    bars: list[ProgressBar] = []

    def show(done: int, total: int) -> None:
        bars[-1](done, total)

    checks = check(fs, quick=args.quick, all_copies=args.all_copies, data=args.data, progress=show)
    while True:
        with ProgressBar("Checking") as bar:
            bars.append(bar)
            checked = next(checks, None)
        if checked is None:
            return
        yield checked


# As text.


def _print(fs: FileSystem, checks: Iterable[Checked], args: argparse.Namespace) -> int:
    """Print what was found as soon as it is; return how many findings there are."""
    name = one_line(" ".join(args.targets))
    print(f"{name}: btrfs {fs.fsid}, generation {fs.fs_info().generation}")
    told = list(fs.notes)
    for note in told:
        print(f"Note: {one_line(note)}")
    done = []
    for checked in checks:
        done.append(checked)
        print("\n".join(_lines(checked, None if args.verbose else _FEW)), flush=True)
        if args.verbose and checked.details:
            _print_details(checked)
    for note in fs.notes[len(told) :]:
        print(f"Note: {one_line(note)}")
    print("\n".join(_verdict(fs, done)))
    for advice in _advice(done):
        print(f"Hint: {advice}")
    return sum(checked.found for checked in done)


def _lines(checked: Checked, most: int | None) -> Iterator[str]:
    """Yield a line about a check, and below it what was found, by kind."""
    from btrfs.check import KINDS

    what = "; ".join(filter(None, (checked.summary, checked.skipped)))
    yield f"{checked.name:<12} {_status(checked):<16} {what}"
    for kind, total in checked.totals.items():
        yield f"    {KINDS[kind].heading}: {total:,}"
        of_kind = [finding for finding in checked.findings if finding.kind == kind]
        shown = of_kind[:most]
        for finding in shown:
            yield f"        {one_line(str(finding))}"
        if len(shown) < total:
            hint = "" if most is None else "; --verbose shows more"
            yield f"        and {total - len(shown):,} more{hint}"


def _status(checked: Checked) -> str:
    from btrfs.ondisk.text import counted

    if checked.found:
        return counted(checked.found, "finding")
    if checked.remarks:
        return counted(checked.remarks, "remark")
    if checked.skipped is None:
        return "ok"
    return "partly checked" if any(checked.counts.values()) else "not checked"


_OPTIONS = {"copies": "--all-copies", "data": "--data"}
"""The options that ask for a check; the others are left out by --quick."""


def _verdict(fs: FileSystem, done: Sequence[Checked]) -> Iterator[str]:
    """Yield lines that say whether anything is wrong, and what has not been looked at."""
    from btrfs.ondisk.text import counted

    found = sum(checked.found for checked in done)
    left_out = _left_out(done)
    if found:
        recovered = sum(checked.recovered for checked in done)
        good = f", {recovered:,} of them made good by another copy" if recovered else ""
        readable = "" if fs.lost else " All metadata can be read."
        yield f"Damaged: {counted(found, 'finding')}{good}.{readable}"
    elif left_out:
        yield "No damage in what was checked."
    else:
        yield "Clean: everything was checked, and nothing is wrong."
    if left_out:
        yield f"Not checked: {'; '.join(left_out)}."


def _left_out(done: Sequence[Checked]) -> list[str]:
    """Return what was not checked, each with the reason or the option that asks for it."""
    from btrfs.check import CHECKS, not_checked

    partly = {checked.name for checked in done if _status(checked) == "partly checked"}
    lines = []
    for name, why in not_checked(done).items():
        what = f"a part of {CHECKS[name]}" if name in partly else CHECKS[name]
        reason = why.removeprefix("not checked").lstrip(": ") or _OPTIONS.get(
            name, "left out by --quick"
        )
        lines.append(f"{what} ({reason})")
    return lines


def _advice(checks: Iterable[Checked]) -> list[str]:
    """Return what helps against what was found."""
    from btrfs.check import KINDS

    found = [kind for checked in checks for kind in checked.totals]
    return list(dict.fromkeys(KINDS[kind].advice for kind in KINDS if kind in found))


def _print_details(checked: Checked) -> None:
    from btrfs_atlas import tables

    rows = [
        (str(row["name"]), f"{row['blocks']:,}", f"{row['items']:,}") for row in checked.details
    ]
    tables.show(tables.table("Trees", ("tree", "blocks", "items"), rows, right=("blocks", "items")))


# As JSON.


def _write_json(fs: FileSystem, checks: Iterable[Checked]) -> int:
    """Write an object with everything; return how many findings there are."""
    import json

    done = list(checks)
    found = sum(checked.found for checked in done)
    left_out = _left_out(done)
    answer = {
        "fsid": str(fs.fsid),
        "generation": fs.fs_info().generation,
        "verdict": "damaged" if found else "no damage found" if left_out else "clean",
        "not_checked": left_out,
        "notes": fs.notes,
        "findings": found,
        "remarks": sum(checked.remarks for checked in done),
        "checks": [_plain(checked) for checked in done],
    }
    json.dump(answer, sys.stdout, indent=2)
    print()
    return found


def _plain(checked: Checked) -> dict[str, Any]:
    """Return a check as plain data."""
    return {
        "name": checked.name,
        "summary": checked.summary,
        "skipped": checked.skipped,
        "seconds": round(checked.seconds, 3),
        "counts": checked.counts,
        "details": checked.details,
        "totals": dict(checked.totals),
        "recovered": checked.recovered,
        "findings": [finding._asdict() for finding in checked.findings],
    }
