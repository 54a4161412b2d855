"""Duplicates: on filesystems that the kernel wrote, compared with what it frees."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from btrfs import FileSystem, ioctl
from btrfs.ondisk.constants import BLOCK_GROUP_DATA, CSUM_TREE_OBJECTID
from btrfs.ownership import duplicate_files, duplicates
from btrfs.ownership.duplicates import Duplicates
from tests import support
from tests.lab.loopfs import LoopFilesystem
from tests.library.test_unmounted import wipe_root
from tests.support.programs import SAMPLE

KIB = 1 << 10
MIB = 1 << 20
DEDUPE_STEP = 16 * MIB
"""The kernel takes no more at a time."""

CHOOSE = random.Random(5)


def content(size: int) -> bytes:
    return CHOOSE.randbytes(size)


def write(path: Path, *parts: bytes) -> None:
    """Write a file, each part into extents of its own."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            file.flush()
            os.fsync(file.fileno())


def dedupe(kept: Path, copy: Path) -> None:
    """Let a file share the extents of another, as deduplicators do."""
    size = copy.stat().st_size
    with kept.open("rb") as source, copy.open("r+b") as target:
        for start in range(0, size, DEDUPE_STEP):
            info = ioctl.FileDedupeRangeInfo(target.fileno(), start)
            ioctl.fideduperange(source.fileno(), start, min(DEDUPE_STEP, size - start), [info])
            assert info.status == ioctl.FILE_DEDUPE_RANGE_SAME


def found_by_all(made: LoopFilesystem) -> Duplicates:
    """Return what is found on a mounted filesystem, and check that it is the same unmounted."""
    made.sync()
    with FileSystem(made.mountpoint) as fs:
        found = duplicates.find(fs)
    made.unmount()
    with FileSystem(made.images[0]) as fs:
        assert plain(duplicates.find(fs)) == plain(found)
    made.mount()
    return found


def plain(found: Duplicates) -> list[object]:
    """Return what was found in a form that can be compared."""
    groups = found.groups
    columns = (groups.length, groups.copies, groups.frees, groups.begin, groups.vaddr)
    return [
        *(column.tolist() for column in (*columns, found.spare.vaddr)),
        *(found.whole_extents, found.parts_of_extents, found.unlisted),
        *(found.compared, found.without_checksums, found.too_short),
    ]


def used(made: LoopFilesystem) -> int:
    """Return the bytes of data that the filesystem says are used."""
    made.sync()
    with FileSystem(made.mountpoint) as fs:
        return sum(space.used_bytes for space in fs.space_info() if space.flags & BLOCK_GROUP_DATA)


@contextmanager
def filesystem(folder: Path, **options: Any) -> Iterator[LoopFilesystem]:
    with support.filesystem(folder, size="1G", **options) as made:
        yield made


@pytest.mark.parametrize("csum", support.CSUMS)
def test_copies_of_every_kind(tmp_path: Path, csum: str) -> None:
    """What deduplication is said to free is what it frees, byte for byte."""
    with filesystem(tmp_path, csum=csum) as made:
        top = made.mountpoint
        big, middle, small = content(9 * MIB + 100), content(300 * KIB), content(20 * KIB)
        write(top / "big", big)
        write(top / "middle", middle)
        write(top / "small", small)
        write(top / "alone", content(MIB))
        write(top / "big2", big[: 3 * MIB], big[3 * MIB : 5 * MIB], big[5 * MIB :])
        write(top / "middle2", middle)
        write(top / "between", content(8 * KIB))
        write(top / "small2", small)
        support.run("cp", "--reflink=always", top / "alone", top / "reflink")
        found = found_by_all(made)
        expected = 9 * MIB + 4 * KIB + 300 * KIB + (0 if csum == "crc32c" else 20 * KIB)
        assert (found.whole_extents, found.parts_of_extents) == (expected, 0)
        assert found.is_estimate == (csum == "crc32c")
        assert found.is_complete
        with FileSystem(made.mountpoint) as fs:
            equal = duplicate_files.equal_files(fs, found)
        paths = [[file.path.decode() for file in files] for files in equal]
        assert (
            paths
            == [["big", "big2"], ["middle", "middle2"], ["small", "small2"]][
                : 2 if found.is_estimate else 3
            ]
        )
        before = used(made)
        assert found.compared + found.without_checksums + found.too_short == before
        for files in paths:
            for copy in files[1:]:
                dedupe(top / files[0], top / copy)
        assert before - used(made) == found.whole_extents
        assert found_by_all(made).total == 0


def test_parts_of_extents(tmp_path: Path) -> None:
    """A run in the middle of an extent that is needed frees nothing; the short extent can go."""
    with filesystem(tmp_path) as made:
        top = made.mountpoint
        common, short = content(256 * KIB), content(128 * KIB)
        write(top / "one", content(MIB) + common + content(MIB))
        write(top / "two", content(512 * KIB) + common + content(MIB))
        write(top / "short", short)
        write(top / "long", content(MIB) + short + content(MIB))
        write(top / "below", content(MIB) + common[: 60 * KIB] + content(MIB))
        found = found_by_all(made)
        assert (found.whole_extents, found.parts_of_extents) == (128 * KIB, 256 * KIB)
        assert found.unlisted == 0
        groups = found.groups
        assert groups.gain.tolist() == [256 * KIB, 128 * KIB]
        assert groups.frees.tolist() == [0, 128 * KIB]
        with FileSystem(top) as fs:
            names = duplicate_files.FileNames(fs)
            shown = [
                {name.path for vaddr in groups.vaddrs(index) if (name := names.at(vaddr))}
                for index in range(2)
            ]
            assert shown == [{b"one", b"two"}, {b"short", b"long"}]
            assert duplicate_files.equal_files(fs, found) == []
        before = used(made)
        with (top / "long").open("rb") as kept, (top / "short").open("r+b") as copy:
            info = ioctl.FileDedupeRangeInfo(copy.fileno(), 0)
            ioctl.fideduperange(kept.fileno(), MIB, 128 * KIB, [info])
        assert before - used(made) == found.whole_extents


def test_compression(tmp_path: Path) -> None:
    """Compressed extents are short, but lie one after another."""
    with filesystem(tmp_path, mount_options="compress-force=zstd") as made:
        top = made.mountpoint
        text = "".join(f"{CHOOSE.getrandbits(64)} " for _ in range(200_000)).encode()
        write(top / "text", text)
        write(top / "between", content(MIB))
        write(top / "text2", text)
        found = found_by_all(made)
        with FileSystem(top) as fs:
            equal = duplicate_files.equal_files(fs, found)
        assert [[file.path for file in files] for files in equal] == [[b"text", b"text2"]]
        before = used(made)
        dedupe(top / "text", top / "text2")
        assert before - used(made) == found.whole_extents > MIB


def test_what_has_no_checksums(tmp_path: Path) -> None:
    with filesystem(tmp_path) as made:
        top = made.mountpoint
        data = content(MIB)
        (top / "nocow").touch()
        support.run("chattr", "+C", top / "nocow")
        (top / "nocow").write_bytes(data)
        write(top / "data", data)
        with (top / "allocated").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 2 * MIB)
            os.pwrite(file.fileno(), data[: 512 * KIB], MIB)
        found = found_by_all(made)
        assert found.without_checksums == MIB + 1536 * KIB
        assert found.compared == MIB + 512 * KIB
        # What was written into the allocated extent is compared, but the extent is needed.
        assert (found.whole_extents, found.parts_of_extents) == (0, 512 * KIB)
        assert found.groups.length.tolist() == [512 * KIB]
        with FileSystem(top) as fs:
            assert duplicate_files.equal_files(fs, found) == []


def test_zeros_are_counted_but_not_listed(tmp_path: Path) -> None:
    with filesystem(tmp_path) as made:
        top = made.mountpoint
        write(top / "zeros", bytes(8 * MIB))
        file = content(MIB) + bytes(MIB) + content(MIB)
        write(top / "file", file)
        write(top / "file2", file)
        found = found_by_all(made)
        assert found.groups.length.tolist() == [3 * MIB]
        assert found.total == 3 * MIB + 9 * MIB - 4 * KIB
        assert found.unlisted == 9 * MIB - 4 * KIB
        assert found.whole_extents == 3 * MIB + 8 * MIB


def test_all_copies_of_a_group_can_be_free(tmp_path: Path) -> None:
    """A gain is never more than all copies but one, whatever else holds the same."""
    with filesystem(tmp_path) as made:
        top = made.mountpoint
        data = content(256 * KIB)
        write(top / "one", data)
        write(top / "between", content(64 * KIB))
        write(top / "two", data)
        for name, half in (("first", data[: 128 * KIB]), ("second", data[128 * KIB :])):
            write(top / name, content(MIB) + half + content(MIB))
        found = found_by_all(made)
        assert found.whole_extents == 512 * KIB
        assert found.groups.copies.tolist() == [2, 2, 2]
        assert found.groups.frees.tolist() == found.groups.gain.tolist()
        assert found.groups.gain.tolist() == [256 * KIB, 128 * KIB, 128 * KIB]


def test_small_files_beside_each_other(tmp_path: Path) -> None:
    """With crc32c, small files count where what lies beside them is the same."""
    with filesystem(tmp_path) as made:
        top = made.mountpoint
        files = [content(12 * KIB) for _ in range(20)]
        for folder in ("one", "two"):
            (top / folder).mkdir()
            for number, file in enumerate(files):
                write(top / folder / str(number), file)
            write(top / f"after-{folder}", content(12 * KIB))
        write(top / "alone", files[0])
        found = found_by_all(made)
        assert found.groups.length.tolist() == [20 * 12 * KIB]
        with FileSystem(top) as fs:
            equal = duplicate_files.equal_files(fs, found)
        assert sorted([file.path.decode() for file in files] for files in equal) == sorted(
            [f"one/{number}", f"two/{number}"] for number in range(20)
        )


def test_files_in_subvolumes(tmp_path: Path) -> None:
    """Paths begin at the top level, and what snapshots share is no duplicate."""
    with filesystem(tmp_path) as made:
        top = made.mountpoint
        support.run("btrfs", "subvolume", "create", top / "sub")
        data = content(MIB)
        write(top / "sub" / "file", data)
        write(top / "file", data)
        support.run("btrfs", "subvolume", "snapshot", top / "sub", top / "snapshot")
        found = found_by_all(made)
        with FileSystem(top) as fs:
            (files,) = duplicate_files.equal_files(fs, found)
            assert [file.path for file in files] == [b"file", b"sub/file"]
            assert {file.size for file in files} == {MIB}
            names = duplicate_files.FileNames(fs)
            assert sorted(names.at(vaddr) or () for vaddr in found.groups.vaddrs(0)) == [
                (b"file", 0),
                (b"sub/file", 1),
            ]


def test_deleted_subvolumes_have_no_names(tmp_path: Path) -> None:
    """A subvolume that is deleted, but not removed yet, still uses what a snapshot shares."""
    with filesystem(tmp_path) as made:
        top = made.mountpoint
        support.run("btrfs", "subvolume", "create", top / "deleted")
        data, gone = content(MIB), content(128 * KIB)
        for name, file in (("one", data), ("two", data)):
            write(top / "deleted" / name, file)
        support.run("btrfs", "subvolume", "snapshot", top / "deleted", top / "snapshot")
        for name in ("three", "four"):
            write(top / "deleted" / name, gone)
        support.run("btrfs", "subvolume", "delete", "--commit-after", top / "deleted")
        (copy,) = made.copy_images(tmp_path / "copies")
    with FileSystem(copy) as fs:
        found = duplicates.find(fs)
        assert found.groups.gain.tolist() == [MIB, 128 * KIB]
        (files,) = duplicate_files.equal_files(fs, found)
        assert [file.path for file in files] == [b"snapshot/one", b"snapshot/two"]
        names = duplicate_files.FileNames(fs)
        shown = [names.at(vaddr) for index in range(2) for vaddr in found.groups.vaddrs(index)]
        assert shown == [(b"snapshot/one", 1), (b"snapshot/two", 1), (None, 0), (None, 0)]


def test_damage_makes_the_numbers_too_low(image: Path) -> None:
    with FileSystem(image) as fs:
        before = duplicates.find(fs)
    assert before.is_complete
    wipe_root(image, CSUM_TREE_OBJECTID)
    with FileSystem(image, on_error="skip") as fs:
        found = duplicates.find(fs)
    assert not found.is_complete
    assert found.compared < before.compared
    assert found.without_checksums > before.without_checksums


def test_progress_and_cancellation() -> None:
    with FileSystem(SAMPLE) as fs:
        steps: list[tuple[int, int]] = []
        duplicates.find(fs, lambda done, total: steps.append((done, total)))
        done = [step for step, _ in steps]
        assert done == sorted(done)
        assert done[-1] == steps[-1][1]

        def cancel(_done: int, _total: int) -> None:
            raise InterruptedError

        with pytest.raises(InterruptedError):
            duplicates.find(fs, cancel)


def test_nothing_to_compare() -> None:
    empty = np.empty(0, np.int64)
    checksums = duplicates.Checksums(np.empty(0, np.uint32), empty, empty, 4096)
    assert checksums.index(np.array([5])).tolist() == [0]
    assert checksums.of_range(4096, 4096) is None
