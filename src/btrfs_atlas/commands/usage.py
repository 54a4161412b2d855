"""btrfs-atlas usage: how much of a filesystem is allocated and used, and how much is left."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from btrfs_atlas.arguments import add_targets
from btrfs_atlas.balance_command import balance_options
from btrfs_atlas.targets import add_source_arguments, opened, source_options

if TYPE_CHECKING:
    from rich.console import RenderableType

    from btrfs.ctree import FileSystem
    from btrfs.space.advice import MetadataShortage
    from btrfs.space.usage import FsUsage

DESCRIPTION = """\
Report how much of a btrfs filesystem is allocated and used, how much more can be written, and what
cannot be allocated because of the sizes of the devices. On a terminal as tables, else as text that
scripts know. Where metadata is about to have nowhere to grow, a warning says what to do."""

_COLUMN = 12
_FLAGS = 16
_DEVID = 8
_HEADINGS_OF_FLAGS = ("flags", "allocated", "used", "parity *)")
_PARITY_NOTE = (
    "",
    "*) Parity is a reserved part of the allocated bytes, limiting the",
    "   amount that can be used for data or metadata.",
)
_UNALLOCATABLE_NOTE = (
    "",
    "  *) Because allocations in the filesystem are unbalanced.",
    " **) Because of having different sizes of devices attached.",
    "***) Amount of 'soft' unallocatable space that can be reclaimed,",
    "     before hitting the 'hard' limit.",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    add_targets(parser)
    parser.add_argument(
        "--json", action="store_true", help="write an object with all counters, exact to the byte"
    )
    add_source_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Report."""
    from btrfs.space.advice import metadata_shortage

    with opened(args.targets, **source_options(args)) as fs:
        usage = fs.usage()
        shortage = metadata_shortage(fs, usage)
        warnings = [_warning(fs, shortage)] if shortage else []
        if args.json:
            _print_json(fs, usage, warnings)
        elif sys.stdout.isatty():
            _print_tables(fs, usage, " ".join(args.targets), warnings)
        else:
            print("\n".join(_text(fs, usage, " ".join(args.targets))))
            sys.stdout.flush()
            for warning in warnings:
                print(f"Warning: {warning['message']}", file=sys.stderr)


# The warning.


def _warning(fs: FileSystem, shortage: MetadataShortage) -> dict[str, Any]:
    """Return a shortage as plain data, with all that there is to say in words."""
    command = _balance_command(fs, shortage)
    return {
        "kind": "metadata has nowhere to grow",
        "message": "\n".join(_shortage_in_words(shortage, command)),
        "metadata_free": shortage.free,
        "metadata_growth": shortage.growth,
        "metadata_growth_after_balance": shortage.growth_after,
        "blocked_data": shortage.blocked_data,
        "balance": [
            {
                "vaddr": group.vaddr,
                "length": group.length,
                "used": group.used,
                "used_pct": group.used_pct,
            }
            for group in shortage.balance
        ],
        "command": command,
    }


def _balance_command(fs: FileSystem, shortage: MetadataShortage) -> list[str]:
    """Return the words of the command that moves the block groups; none if there is nothing."""
    if not shortage.balance:
        return []
    where = fs.path if fs.mounted else "MOUNTPOINT"
    return ["btrfs-balance-least-used", *balance_options(shortage), where]


def _shortage_in_words(shortage: MetadataShortage, command: Sequence[str]) -> Iterator[str]:
    import shlex

    from btrfs.utils import pretty_size, space_profile_description

    profile = space_profile_description(shortage.target_profile)
    others = (
        f"the unallocated space gives only {pretty_size(shortage.growth)} more of them"
        if shortage.growth
        else "there is no unallocated space for more of them"
    )
    yield (
        f"metadata is about to have nowhere to grow. {pretty_size(shortage.free)} are left in its"
        f" block groups, and {others} ({profile})."
    )
    if shortage.blocked_data:
        yield (
            f"{pretty_size(shortage.blocked_data)} of free space for data cannot be used for lack"
            " of metadata."
        )
    yield (
        "When there is no space for metadata at all, the filesystem becomes read-only, and then not"
        " even a deletion is possible."
    )
    if not shortage.balance:
        yield (
            "No balance helps, as there is too little place for what is in the data block groups."
            " Delete files or snapshots while that still works, or add a device: btrfs device add."
        )
        return
    yield (
        "To move what is in the least used data block groups to others lets metadata grow by"
        f" {pretty_size(shortage.growth_after)}:"
    )
    for group in shortage.balance:
        yield f"  vaddr {group.vaddr} length {group.length_str} used_pct {group.used_pct}"
    yield f"Do so with: {shlex.join(command)}"


# As JSON.


def _print_json(fs: FileSystem, usage: FsUsage, warnings: list[dict[str, Any]]) -> None:
    import json

    from btrfs.query.records import record

    plain = record(usage)
    for devid, device in plain["dev_usage"].items():
        device["path"] = fs.dev_info(int(devid)).path
    described = {
        "fsid": str(fs.fsid),
        "label": fs.label,
        "mixed_groups": fs.mixed_groups(),
        "usage": plain,
        "warnings": warnings,
    }
    print(json.dumps(described, indent=2))


# As text, the same that btrfs-usage-report has always written.


def _text(fs: FileSystem, usage: FsUsage, name: str) -> Iterator[str]:
    yield f"Btrfs usage report for {name}"
    yield f"Filesystem ID: {fs.fsid}"
    yield f"Mixed groups: {fs.mixed_groups()}"
    for heading, lines in _sections(fs, usage):
        yield ""
        yield heading
        yield from (f"|{line}" for line in lines)


def _sections(fs: FileSystem, usage: FsUsage) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the heading of each section, and its lines without the bar in front."""
    yield "Total physical space usage:", _physical(usage)
    yield "Target profiles:", _words("profile", _target_profiles(usage))
    yield "Estimated virtual space left for use:", _words("free", _free(usage))
    yield "Virtual space usage by block group type:", _by_type(usage)
    yield "Allocated raw disk bytes by chunk type.", _by_flags(usage)
    yield "Allocated bytes per device:", _devices(fs, usage)
    yield "Allocated bytes per device, split up by chunk type.", _devices_by_flags(usage)
    yield "Unallocatable raw disk space:", _unallocatable(usage)
    yield (
        "Unallocatable bytes per device, given current target profiles:",
        _unallocatable_by_device(usage),
    )


def _physical(usage: FsUsage) -> Iterator[str]:
    yield " "
    yield f" Total filesystem size: {usage.total_str}"
    yield f" Allocated bytes: {usage.allocated_str}"
    yield f" Allocatable bytes remaining: {usage.allocatable_left_str}"


def _target_profiles(usage: FsUsage) -> list[tuple[str, str]]:
    return [
        (type_.capitalize(), getattr(usage, f"target_profile_{type_}_str"))
        for type_ in ("system", "metadata", "data", "mixed")
        if hasattr(usage, f"target_profile_{type_}")
    ]


def _free(usage: FsUsage) -> list[tuple[str, str]]:
    return [
        (word, getattr(usage, f"{name}_str"))
        for word, name in (
            ("Data", "free_data"),
            ("MetaData", "free_metadata"),
            ("Mixed", "free_mixed"),
        )
        if hasattr(usage, name)
    ]


def _words(heading: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a table of words, one for each type."""
    yield ""
    underlined = [("type", heading), ("----", "-" * len(heading))]
    for type_, word in (*underlined, *rows):
        yield f" {type_:<{_COLUMN}} {word:<{_COLUMN}}"


def _numbers(width: int, *rows: Sequence[str], last: int = _COLUMN) -> Iterator[str]:
    """Yield a table whose first column holds words, of this width, and the others numbers."""
    for first, *others in rows:
        *middle, end = others
        numbers = [f"{number:>{_COLUMN}}" for number in middle]
        yield " ".join((f" {first:<{width}}", *numbers, f"{end:>{last}}"))


def _under(*headings: str) -> tuple[str, ...]:
    """Return a line under each heading, as long as its word."""
    return tuple("-" * len(heading) for heading in headings)


def _by_type(usage: FsUsage) -> Iterator[str]:
    headings = ("type", "total", "used")
    rows = (
        (_type_str(type_), by_type.total_str, by_type.used_str)
        for type_, by_type in usage.virtual_block_group_type_usage.items()
    )
    yield ""
    yield from _numbers(_COLUMN, headings, _under(*headings), *rows)


def _type_str(type_: int) -> str:
    from btrfs.ondisk.constants import BLOCK_GROUP_DATA, BLOCK_GROUP_METADATA
    from btrfs.utils import block_group_flags_str

    if type_ == BLOCK_GROUP_DATA | BLOCK_GROUP_METADATA:
        return "Mixed"
    return block_group_flags_str(type_).capitalize()


def _by_flags(usage: FsUsage) -> Iterator[str]:
    rows = (
        (space.flags_str, space.allocated_str, space.used_str, space.parity_str)
        for space in usage.raw_space_usage.values()
    )
    yield ""
    yield from _numbers(_FLAGS, _HEADINGS_OF_FLAGS, _under(*_HEADINGS_OF_FLAGS), *rows)
    yield from _note(_PARITY_NOTE)


def _note(lines: Sequence[str]) -> Iterator[str]:
    return (f" {line}" if line else "" for line in lines)


def _devices(fs: FileSystem, usage: FsUsage) -> Iterator[str]:
    headings = ("devid", "total size", "allocated")
    rows = [
        (str(device.devid), device.total_str, device.allocated_str)
        for device in usage.dev_usage.values()
    ]
    paths = [fs.dev_info(devid).path for devid in usage.dev_usage]
    yield ""
    numbers = _numbers(_DEVID, headings, _under(*headings), *rows)
    for line, path in zip(numbers, ("path", "----", *paths), strict=True):
        yield f"{line} {path}"


def _devices_by_flags(usage: FsUsage) -> Iterator[str]:
    headings = ("flags", "allocated", "parity *)")
    yield ""
    for device in usage.dev_usage.values():
        rows = (
            (space.flags_str, space.allocated_str, space.parity_str)
            for space in device.dev_space_usage.values()
        )
        yield f" Device ID: {device.devid}"
        for line in _numbers(_FLAGS, headings, _under(*headings), *rows):
            yield f" |{line}"
        yield ""
    yield from _note(_PARITY_NOTE[1:])


def _unallocatable(usage: FsUsage) -> Iterator[str]:
    yield ""
    yield f" Reclaimable (by using balance): {usage.unallocatable_reclaimable_str}"
    yield f" Not reclaimable (because of different disk sizes): {usage.unallocatable_hard_str}"


def _unallocatable_by_device(usage: FsUsage) -> Iterator[str]:
    headings = ("devid", "soft *)", "hard **)", "reclaimable ***)")
    rows = (
        (
            str(device.devid),
            device.unallocatable_soft_str,
            device.unallocatable_hard_str,
            device.unallocatable_reclaimable_str,
        )
        for device in usage.dev_usage.values()
    )
    yield ""
    yield from _numbers(_DEVID, headings, _under(*headings), *rows, last=len(headings[-1]))
    yield from _note(_UNALLOCATABLE_NOTE)


# As tables.


def _print_tables(
    fs: FileSystem, usage: FsUsage, name: str, warnings: list[dict[str, Any]]
) -> None:
    from btrfs_atlas import tables

    heading = " ".join(word for word in ("btrfs", fs.label, str(fs.fsid), "on", name) if word)
    tables.show(
        tables.plain(heading, "bold"),
        _summary(usage),
        _table_of_block_groups(usage),
        _table_of_devices(fs, usage),
        *(tables.plain(f"Warning: {warning['message']}", "bold red") for warning in warnings),
    )


def _summary(usage: FsUsage) -> RenderableType:
    from btrfs_atlas import tables

    mixed = hasattr(usage, "free_mixed")
    free = usage.free_mixed_str if mixed else usage.free_data_str
    lines = [
        f"{free} can still be written, as one large file.",
        (
            f"Of {usage.total_str} on devices, {usage.allocated_str} are allocated, and"
            f" {usage.allocatable_left_str} more can be."
        ),
    ]
    if _is_worth_a_word(usage, usage.unallocatable_reclaimable):
        lines.append(
            f"{usage.unallocatable_reclaimable_str} on devices cannot be allocated now, but could"
            " be after a balance."
        )
    if _is_worth_a_word(usage, usage.unallocatable_hard):
        lines.append(
            f"{usage.unallocatable_hard_str} on devices cannot be allocated at all, because of"
            " their sizes."
        )
    return tables.plain("\n".join(lines))


def _is_worth_a_word(usage: FsUsage, unallocatable: int) -> bool:
    """Return whether it is more than the odd bytes that every device has."""
    return unallocatable > usage.total // 1000


def _table_of_block_groups(usage: FsUsage) -> RenderableType:
    from btrfs.utils import pretty_size
    from btrfs_atlas import tables

    rows = []
    for flags, space in usage.virtual_space_usage.items():
        raw = usage.raw_space_usage[flags]
        rows.append(
            (
                space.flags_str,
                space.total_str,
                space.used_str,
                pretty_size(space.total - space.used),
                raw.allocated_str,
                tables.bar(space.used, space.total),
            )
        )
    return tables.table(
        "Block groups",
        ("type and profile", "size", "used", "free", "on devices", "used part"),
        rows,
        right=("size", "used", "free", "on devices"),
    )


def _table_of_devices(fs: FileSystem, usage: FsUsage) -> RenderableType:
    from btrfs_atlas import tables

    numbers = {
        "size": "total_str",
        "allocated": "allocated_str",
        "unallocated": "unallocated_str",
    }
    if _is_worth_a_word(usage, usage.unallocatable_soft):
        numbers["unusable now"] = "unallocatable_soft_str"
        numbers["unusable ever"] = "unallocatable_hard_str"
    rows = [
        (
            str(device.devid),
            fs.dev_info(device.devid).path,
            *(getattr(device, attribute) for attribute in numbers.values()),
            tables.bar(device.allocated, device.total, full_is_bad=False),
        )
        for device in usage.dev_usage.values()
    ]
    return tables.table(
        "Devices",
        ("devid", "path", *numbers, "allocated part"),
        rows,
        right=("devid", *numbers),
    )
