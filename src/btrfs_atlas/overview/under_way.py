"""The section about what the kernel is doing: balance, scrub, changes of devices, removal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from btrfs_atlas.overview.sections import Names, Section, TimeLimit

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ownership.orphans import Orphan
    from btrfs.space.operations import Operation


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What the kernel is doing.

    Attributes:
        operations: Those on the filesystem as a whole.
        deleted: Subvolumes that are deleted, but not yet removed.
        complete: Whether all that tells of it could be read.
    """

    operations: list[Operation]
    deleted: list[Orphan]
    complete: bool


def _read(fs: FileSystem, _limit: TimeLimit) -> UnderWay:
    from btrfs.ondisk.constants import DEV_TREE_OBJECTID, ROOT_TREE_OBJECTID
    from btrfs.ownership import orphans
    from btrfs.space import operations

    found, deleted = operations.under_way(fs), orphans.of_filesystem(fs)
    trees = (ROOT_TREE_OBJECTID, DEV_TREE_OBJECTID)
    return UnderWay(found, deleted, not any(lost.tree in trees for lost in fs.lost))


def _lines(under_way: UnderWay, names: Names) -> Iterator[str]:
    for operation in under_way.operations:
        yield from _of_operation(operation, names)
    if under_way.deleted:
        yield _deleted_in_words(under_way.deleted)
        yield f"$ btrfs-atlas orphans {names.mountpoint}"
    if not under_way.complete:
        yield "! Not all that tells of it could be read."
    elif not under_way.operations and not under_way.deleted:
        yield "Nothing: no balance, no scrub, no change of devices, no removal of subvolumes."


def _of_operation(operation: Operation, names: Names) -> Iterator[str]:
    from btrfs.space.operations import Kind, State

    sentence = _in_words(operation)
    if operation.state is State.PAUSED:
        yield f"{sentence} To go on with it, or to end it:"
        yield f"$ btrfs balance resume {names.mountpoint}"
        yield f"$ btrfs balance cancel {names.mountpoint}"
        return
    if operation.kind is Kind.REMOVE:
        sentence += " What can still be written, above, counts its space, too."
    command = {
        Kind.BALANCE: f"btrfs balance status {names.mountpoint}",
        Kind.REPLACE: f"btrfs replace status {names.mountpoint}",
        Kind.REMOVE: f"btrfs-atlas usage {names.mountpoint}",
        Kind.RESIZE: f"btrfs-atlas usage {names.mountpoint}",
        Kind.SCRUB: f"btrfs scrub status {names.mountpoint}",
    }[operation.kind]
    yield f"{sentence} To follow it:"
    yield f"$ {command}"


def _in_words(operation: Operation) -> str:
    from btrfs.space.operations import Kind, State
    from btrfs.utils import pretty_size

    device = "a device" if operation.devid is None else f"device {operation.devid}"
    what = {
        Kind.BALANCE: "A balance",
        Kind.REPLACE: f"The replacement of {device}",
        Kind.REMOVE: f"The removal of {device}",
        Kind.RESIZE: f"The shrinking of {device}",
        Kind.SCRUB: f"A scrub of {device}",
    }[operation.kind]
    state = {
        State.RUNNING: "is running",
        State.PAUSED: "is paused",
        State.SUSPENDED: "is interrupted, and goes on when it is mounted",
    }[operation.state]
    parts = [f"{what} {state}"]
    if operation.done is not None:
        parts.append(f"{100 * operation.done:.0f}% done")
    if operation.bytes_left is not None:
        parts.append(f"{pretty_size(operation.bytes_left)} still to be moved")
    if operation.errors:
        parts.append(f"{operation.errors:,} errors that could not be mended")
    return f"{', '.join(parts)}."


def _deleted_in_words(deleted: list[Orphan]) -> str:
    from btrfs.ondisk.text import counted

    parts = [f"{counted(len(deleted), 'deleted subvolume')} not yet removed"]
    parts += [
        f"{orphan.id} is {100 * orphan.done:.0f}% removed"
        for orphan in deleted
        if orphan.begun and orphan.done is not None
    ]
    return f"{', '.join(parts)}. Their space comes back meanwhile; to follow it:"


def _plain(under_way: UnderWay) -> dict[str, Any]:
    return {
        "operations": [
            {
                "kind": operation.kind.value,
                "state": operation.state.value,
                "devid": operation.devid,
                "done": operation.done,
                "bytes_left": operation.bytes_left,
                "errors": operation.errors,
            }
            for operation in under_way.operations
        ],
        "deleted_subvolumes": [
            {"id": orphan.id, "bytes_used": orphan.bytes_used, "done": orphan.done}
            for orphan in under_way.deleted
        ],
        "complete": under_way.complete,
    }


SECTION = Section("under_way", "Under way", _read, _lines, _plain)
