"""The section about who owns the space: subvolumes, snapshots, what no file reaches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from btrfs_atlas.overview.sections import Names, Section, TimeLimit

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem
    from btrfs.ownership.sizes import Space
    from btrfs.ownership.summary import Share, Summary


def _read(fs: FileSystem, limit: TimeLimit) -> Summary:
    from btrfs import FileSystem
    from btrfs.ownership import scan
    from btrfs.ownership.summary import summary

    def check(_done: int, _total: int) -> None:
        limit.check()

    if not fs.mounted:
        return summary(scan(fs, names=False, progress=check))
    # The kernel shows no tree blocks.
    with FileSystem(fs.path, source="devices", on_error="skip") as devices:
        return summary(scan(devices, names=False, progress=check))


def _lines(found: Summary, names: Names) -> Iterator[str]:
    from btrfs.ondisk.text import counted, pretty_size

    if not found.is_complete:
        yield (
            "! Not everything could be read: sizes may be too low, and what deletions free may be"
            " less."
        )
    for share in found.largest:
        yield f"   {pretty_size(share.space.total):>10}  {_path(share)}"
    yield ""
    yield (
        f"The largest of {counted(found.subvolumes, 'subvolume')}; what several share counts for"
        " one. All of them, and the largest directories:"
    )
    yield f"$ btrfs-atlas subvolumes {names.target}"
    yield f"$ btrfs-atlas du {names.target}"
    if found.snapshots:
        yield from _of_snapshots(found, names)
    if found.unreachable:
        yield (
            f"{pretty_size(found.unreachable)} lie in parts of extents that no file reaches any"
            " more. The files that keep them:"
        )
        yield f"$ btrfs-atlas du --files --sort unreachable {names.target}"
    if found.uncompressed:
        saved = found.uncompressed - found.compressed
        yield (
            f"Compression saves {pretty_size(saved)}: {pretty_size(found.uncompressed)} are stored"
            f" in {pretty_size(found.compressed)}. All numbers:"
        )
    else:
        yield "Nothing is compressed. All numbers:"
    yield f"$ btrfs-atlas compression {names.target}"


def _of_snapshots(found: Summary, names: Names) -> Iterator[str]:
    from btrfs.ondisk.text import counted, pretty_size

    held = pretty_size(found.only_in_snapshots.total)
    yield f"{held} are only held by {counted(found.snapshots, 'read-only snapshot')}."
    best = found.best_deletion
    if best is not None:
        yield (
            f"Deleting {_path(best)} would free most, {pretty_size(best.space.total)}. What others"
            " would free, and which to delete to get as much as you want:"
        )
        yield f"$ btrfs-atlas subvolumes --if-deleted {best.id} {names.target}"
        half = max(1, found.only_in_snapshots.total >> 21)
        yield f"$ btrfs-atlas subvolumes --to-free {half}MiB {names.target}"


def _path(share: Share) -> str:
    from btrfs.ondisk.text import printable

    if share.path is None:
        return f"deleted subvolume {share.id}"
    return printable(share.path) or "the top level"


def _plain(found: Summary) -> dict[str, Any]:
    return {
        "generation": found.generation,
        "is_complete": found.is_complete,
        "subvolumes": found.subvolumes,
        "largest": [_plain_share(share) for share in found.largest],
        "read_only_snapshots": found.snapshots,
        "only_in_read_only_snapshots": _plain_space(found.only_in_snapshots),
        "best_deletion": _plain_share(found.best_deletion) if found.best_deletion else None,
        "unreachable": found.unreachable,
        "compressed": found.compressed,
        "uncompressed": found.uncompressed,
    }


def _plain_share(share: Share) -> dict[str, Any]:
    from btrfs.query.records import record

    return {"id": share.id, "path": record(share.path), **_plain_space(share.space)}


def _plain_space(space: Space) -> dict[str, int]:
    return {"total": space.total, "data": space.data, "metadata": space.metadata}


SECTION = Section("owners", "Owners", _read, _lines, _plain)
