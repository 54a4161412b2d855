"""The section about space: how much is used, how much is left, and what stands in the way."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from btrfs_atlas.balance_command import balance_options
from btrfs_atlas.overview.sections import Names, Section, TimeLimit

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.space.advice import DataShortage, MetadataShortage
    from btrfs.space.overview import SpaceOfType, SpaceState

_WORTH_A_BALANCE = 100
"""What a balance gives is told if it is one part in so many of the filesystem."""


def _read(fs: FileSystem, _limit: TimeLimit) -> SpaceState:
    from btrfs.space import overview

    return overview.space(fs)


def _lines(state: SpaceState, names: Names) -> Iterator[str]:
    from btrfs.utils import pretty_size

    yield (
        f"{pretty_size(state.size)} on devices: {pretty_size(state.allocated)} in block groups,"
        f" {pretty_size(state.unallocated)} unallocated."
    )
    yield ""
    yield f" {'':8} {'used':>10} {'of':>10} {'full':>5}  {'can still be written':>20}  profile"
    yield from _rows(state)
    yield ""
    if not state.complete:
        yield (
            "! Not all of it could be read: these sizes are too low, and what can still be written"
            " is not known. To find the damage:"
        )
        yield f"$ btrfs-atlas check {names.target}"
        return
    warnings = list(_warnings(state, names))
    yield from warnings
    yield "All numbers:" if warnings else "Nothing stands in the way of writing. All numbers:"
    yield f"$ btrfs-atlas usage {names.target}"


def _rows(state: SpaceState) -> Iterator[str]:
    from btrfs.utils import pretty_size

    for name, space in (("data", state.data), ("metadata", state.metadata), ("both", state.mixed)):
        if space is None:
            continue
        sizes = (space.used, space.total) if space.total else (None, None)
        used, total, writable = (
            "?" if size is None else pretty_size(size) for size in (*sizes, space.writable)
        )
        yield (
            f" {name:8} {used:>10} {total:>10} {_percent(space):>5}  {writable:>20}"
            f"  {', '.join(space.profiles)}"
        )


def _percent(space: SpaceOfType) -> str:
    return f"{100 * space.used // space.total}%" if space.total else "?"


def _warnings(state: SpaceState, names: Names) -> Iterator[str]:
    if state.read_only:
        yield (
            "! Nothing can be written: it is mounted read-only. The log of the kernel tells whether"
            " an error has made it so:"
        )
        yield "$ dmesg | grep -i btrfs"
    if state.metadata_shortage and state.metadata:
        yield from _of_metadata(state.metadata_shortage, state.metadata, names)
    if state.data_shortage:
        yield from _of_data(state.data_shortage, state, names)


def _of_metadata(shortage: MetadataShortage, metadata: SpaceOfType, names: Names) -> Iterator[str]:
    from btrfs.utils import pretty_size

    allocated = "Nearly all" if shortage.growth else "All"
    yield (
        f"! {allocated} space is allocated, and metadata is {_percent(metadata)} full:"
        f" {pretty_size(shortage.free + shortage.growth)} are left for it. When nothing is left,"
        " each write fails with ENOSPC (no space left on device), even a deletion, and the"
        " filesystem may become read-only."
    )
    if shortage.blocked_data:
        yield (
            f"{pretty_size(shortage.blocked_data)} that are free for data cannot be used, as there"
            " is no space for their metadata."
        )
    if shortage.balance:
        yield (
            "To move what is in the least used block groups of data to others gives metadata"
            f" {pretty_size(shortage.growth_after)}:"
        )
        options = shlex.join(balance_options(shortage))
        yield f"$ btrfs-atlas balance {options} {names.mountpoint}"
    else:
        yield (
            "No balance helps. Delete files or snapshots while that still works, or add a device:"
        )
        yield f"$ btrfs device add /dev/NEW {names.mountpoint}"


def _of_data(shortage: DataShortage, state: SpaceState, names: Names) -> Iterator[str]:
    from btrfs.utils import pretty_size

    left = f"Only {pretty_size(shortage.free)} of" if shortage.free else "No"
    yield (
        f"! {left} data can still be written. Delete files, and the snapshots that have them, too;"
        " or add a device:"
    )
    yield f"$ btrfs device add /dev/NEW {names.mountpoint}"
    if shortage.reclaimable > state.size // _WORTH_A_BALANCE:
        yield (
            f"{pretty_size(shortage.reclaimable)} on devices cannot be allocated because the others"
            " are full. What a balance would change, without doing it:"
        )
        yield f"$ btrfs-atlas balance --dry-run --usage 100 {names.target}"


def _plain(state: SpaceState) -> dict[str, Any]:
    return {
        "size": state.size,
        "allocated": state.allocated,
        "unallocated": state.unallocated,
        "used": state.used,
        **{
            name: asdict(space) if space else None
            for name, space in (
                ("data", state.data),
                ("metadata", state.metadata),
                ("mixed", state.mixed),
            )
        },
        "complete": state.complete,
        "read_only": state.read_only,
        "metadata_shortage": _plain_shortage(state.metadata_shortage),
        "data_shortage": asdict(state.data_shortage) if state.data_shortage else None,
    }


def _plain_shortage(shortage: MetadataShortage | None) -> dict[str, Any] | None:
    if shortage is None:
        return None
    return {
        "free": shortage.free,
        "growth": shortage.growth,
        "blocked_data": shortage.blocked_data,
        "balance": [group.vaddr for group in shortage.balance],
        "growth_after": shortage.growth_after,
    }


SECTION = Section("space", "Space", _read, _lines, _plain)
