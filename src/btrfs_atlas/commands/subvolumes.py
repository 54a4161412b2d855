"""btrfs-atlas subvolumes: what each subvolume uses, and what deleting some frees."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from btrfs_atlas.arguments import size
from btrfs_atlas.owned import add_scan_arguments, opened_for_scan, subvolume_ids

if TYPE_CHECKING:
    from btrfs.ownership import Ownership
    from btrfs.ownership.engine import Plan, SubvolumeSpace
    from btrfs.ownership.sizes import Space

DESCRIPTION = """\
Show how much each subvolume of a btrfs filesystem uses, by itself and together with others, to the
byte and without quotas; and what deleting some of them would free."""

_EPILOG = """\
REFERENCED is all that a subvolume refers to, EXCLUSIVE what nothing else refers to, data and
metadata together; as quota groups count it. Deleting one subvolume frees what is exclusive to it.
Deleting several frees more than the sum, as they share with each other: --if-deleted tells how
much. Sizes are before redundancy: with two copies, twice as much becomes free on the devices."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.epilog = _EPILOG
    add_scan_arguments(parser)
    parser.add_argument("--json", action="store_true", help="write an object with exact numbers")
    wanted = parser.add_mutually_exclusive_group()
    wanted.add_argument(
        "--if-deleted",
        metavar="A,B,...",
        type=lambda text: [part for part in text.split(",") if part],
        help="tell what deleting these together would free: ids, paths on a mounted filesystem, or"
        " paths from the top level, in which * and ? stand for characters as in a shell",
    )
    wanted.add_argument(
        "--to-free",
        metavar="SIZE",
        type=size,
        help="tell which read-only snapshots to delete to free that much, such as 100GiB",
    )
    parser.add_argument(
        "--order",
        choices=("oldest", "fewest"),
        default="oldest",
        help="with --to-free: the oldest first (the default), or what frees most first, so that it"
        " takes few",
    )


def run(args: argparse.Namespace) -> int:
    """Show subvolumes; return 1 if something had to be left out."""
    with opened_for_scan(args, names=False) as (fs, owned):
        deleted = None if args.if_deleted is None else subvolume_ids(fs, owned, args.if_deleted)
        plan = owned.plan(args.to_free, order=args.order) if args.to_free is not None else None
        if args.json:
            _print_json(owned, deleted, plan)
        elif deleted is not None:
            print("\n".join(_freed(owned, deleted)))
        elif plan is not None:
            print("\n".join(_planned(owned, plan, args.to_free)))
        else:
            _print(owned)
        return int(not owned.is_complete)


# As text.


def _print(owned: Ownership) -> None:
    from btrfs_atlas import tables

    subvolumes = sorted(owned.subvolumes(), key=lambda one: -one.exclusive.total)
    numbers = ("id", "referenced", "exclusive")
    rows = [
        (
            str(one.id),
            _size_str(one.referenced.total),
            _size_str(one.exclusive.total),
            _made(one),
            _flags(one),
            _path(one),
        )
        for one in subvolumes
    ]
    columns = (*numbers, "made", "flags", "path")
    tables.show(tables.table("Subvolumes", columns, rows, right=numbers))
    print("\n".join(_totals(owned, subvolumes)))


def _made(one: SubvolumeSpace) -> str:
    return one.otime.iso8601[:10] if one.otime.sec else "-"


def _flags(one: SubvolumeSpace) -> str:
    """Return letters, which are explained below the table."""
    letters = {
        "r": one.read_only,
        "s": one.parent_uuid.int != 0,
        "d": one.is_deleted,
        "i": not one.is_complete,
    }
    return "".join(letter for letter, is_set in letters.items() if is_set) or "-"


def _path(one: SubvolumeSpace) -> str:
    from btrfs.ondisk.text import printable

    if one.is_deleted:
        return "(deleted)"
    return printable(one.path) if one.path else "(top level)"


def _totals(owned: Ownership, subvolumes: list[SubvolumeSpace]) -> Iterator[str]:
    """Yield lines about all subvolumes together."""
    flags = "flags: r read-only, s snapshot, d deleted and being cleaned up"
    incomplete = any(not one.is_complete for one in subvolumes)
    yield f"{flags}, i incomplete" if incomplete else flags
    snapshots = [one.id for one in subvolumes if one.is_read_only_snapshot]
    if snapshots:
        yield f"only in read-only snapshots: {_parts(owned.only_in(snapshots))}"
    everything = owned.only_in([one.id for one in subvolumes])
    yield f"in all subvolumes: {_parts(everything)}"
    yield f"used, with what the filesystem itself takes: {_size_str(owned.used)}"
    if owned.unexplained:
        yield f"of this, in nothing that was read: {_size_str(owned.unexplained)}"


def _freed(owned: Ownership, deleted: list[int]) -> Iterator[str]:
    """Yield lines about what deleting some subvolumes frees."""
    names = {one.id: _path(one) for one in owned.subvolumes()}
    yield from _listed(names, deleted)
    yield f"frees {_parts(owned.freed_by(deleted))}"


def _planned(owned: Ownership, plan: Plan, wanted: int) -> Iterator[str]:
    """Yield lines about which subvolumes to delete."""
    names = {one.id: _path(one) for one in owned.subvolumes()}
    if plan.ids:
        yield from _listed(names, plan.ids)
    yield f"frees {_parts(plan.frees)}"
    if not plan.is_enough:
        yield f"that is less than {_size_str(wanted)}, and all that read-only snapshots can give"


def _listed(names: dict[int, str], ids: Iterable[int]) -> Iterator[str]:
    for tree in ids:
        yield f"delete {tree:>6}  {names[tree]}"


def _parts(space: Space) -> str:
    data, metadata = _size_str(space.data), _size_str(space.metadata)
    return f"{_size_str(space.total)} ({data} data, {metadata} metadata)"


def _size_str(size: int) -> str:
    from btrfs.ondisk.text import pretty_size

    return pretty_size(size)


# As JSON.


def _print_json(owned: Ownership, deleted: list[int] | None, plan: Plan | None) -> None:
    import json

    subvolumes = owned.subvolumes()
    snapshots = [one.id for one in subvolumes if one.is_read_only_snapshot]
    found: dict[str, Any] = {
        "generation": owned.generation,
        "is_complete": owned.is_complete,
        "used": owned.used,
        "unexplained": owned.unexplained,
        "only_in_read_only_snapshots": owned.only_in(snapshots).total,
        "subvolumes": [_plain(one) for one in subvolumes],
    }
    if deleted is not None:
        found["if_deleted"] = {"ids": deleted, **_plain_freed(owned.freed_by(deleted))}
    if plan is not None:
        found["to_free"] = {
            "ids": plan.ids,
            **_plain_freed(plan.frees),
            "is_enough": plan.is_enough,
        }
    print(json.dumps(found, indent=2))


def _plain_freed(space: Space) -> dict[str, int]:
    return {"frees": space.total, "data": space.data, "metadata": space.metadata}


def _plain(one: SubvolumeSpace) -> dict[str, Any]:
    from btrfs.query.records import record

    return {
        "id": one.id,
        "path": record(one.path),
        "parent_id": one.parent_id,
        "is_deleted": one.is_deleted,
        "is_complete": one.is_complete,
        "read_only": one.read_only,
        "uuid": str(one.uuid),
        "parent_uuid": str(one.parent_uuid) if one.parent_uuid.int else None,
        "received_uuid": str(one.received_uuid) if one.received_uuid.int else None,
        "made": record(one.otime),
        "referenced": one.referenced.total,
        "exclusive": one.exclusive.total,
        "data_referenced": one.referenced.data,
        "metadata_referenced": one.referenced.metadata,
        "data_exclusive": one.exclusive.data,
        "metadata_exclusive": one.exclusive.metadata,
        "with_snapshots": one.with_snapshots.total,
        "compressed": one.compressed,
        "uncompressed": one.uncompressed,
    }
