"""FsUsage: its counters beside those of python-btrfs, its estimates beside what can be written.

Space is taken with fallocate here, which takes as much as writing does (that was measured, and is
tested on a small filesystem) but not as long. With BTRFS_ATLAS_FILL=write in the environment, all
of it is really written, which takes some minutes.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from btrfs import FileSystem, fs_usage
from btrfs.ctree import Chunk, DevItem
from btrfs.fs_usage import FsUsage
from btrfs.info import SpaceInfo
from btrfs.ondisk.constants import (
    BLOCK_GROUP_DATA as DATA,
    BLOCK_GROUP_METADATA as METADATA,
    BLOCK_GROUP_RAID1 as RAID1,
    BLOCK_GROUP_RAID10 as RAID10,
    SPACE_INFO_GLOBAL_RSV,
)
from btrfs.ondisk.printing import Printable
from btrfs.utils import pretty_lines
from tests import support
from tests.lab import loopfs

MIB = 1 << 20
GIB = 1 << 30
UNEQUAL = (1024 * MIB, 1536 * MIB, 2560 * MIB, 2560 * MIB)
SMALL_UNEQUAL = (300 * MIB, 400 * MIB, 600 * MIB, 600 * MIB)

ORACLE = """
import contextlib, io
import btrfs

def plain(value):
    if isinstance(value, dict):
        return {str(key): plain(inside) for key, inside in value.items()}
    return plain(vars(value)) if hasattr(value, "__dict__") else value

def words(value):
    return {name: getattr(value, name) for name in dir(value)
            if name.endswith("_str") and not name.startswith(("_", "unallo"))
            and hasattr(value, name)}

def printed(value):
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        btrfs.utils.pretty_print(value)
    return text.getvalue().splitlines()

with btrfs.FileSystem(args[0]) as fs:
    usage = fs.usage()
    parts = [part for table in ("raw_space_usage", "block_group_type_usage", "virtual_space_usage",
             "virtual_block_group_type_usage") for part in getattr(usage, table).values()]
    parts += [space for dev in usage.dev_usage.values() for space in dev.dev_space_usage.values()]
    answer = [plain(usage), words(usage), [[printed(part), words(part)] for part in parts]]
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A filesystem to fill."""

    data: str
    metadata: str
    sizes: tuple[int, ...] = UNEQUAL
    mixed: bool = False

    def __str__(self) -> str:
        mixed = "mixed-" if self.mixed else ""
        return f"{mixed}{self.data}-{self.metadata}-{len(self.sizes)}"


@contextlib.contextmanager
def filesystem(folder: Path, case: Case) -> Iterator[support.LoopFilesystem]:
    """Make and mount a btrfs on devices of different sizes."""
    support.require_root()
    folder.mkdir(parents=True, exist_ok=True)
    images = [folder / f"disk{number}.img" for number in range(1, len(case.sizes) + 1)]
    for image, size in zip(images, case.sizes, strict=True):
        loopfs.make_sparse(image, size)
    with loopfs.attached(support.LoopFilesystem(images, folder / "mnt")) as made:
        loopfs.mkfs(made.devices, data=case.data, metadata=case.metadata, mixed=case.mixed)
        made.mount()
        yield made


def plain(value: Any) -> Any:
    """Return the attributes of a result as JSON has them."""
    if isinstance(value, dict):
        return {str(key): plain(inside) for key, inside in value.items()}
    if isinstance(value, Printable):
        return {name: plain(inside) for name, inside in value.attributes().items()}
    return value


ESTIMATES = ("estimated_", "unallocatable_", "allocatable", "free_", "default_")


def without_estimates(value: Any) -> Any:
    """Leave out what is meant to differ, and what is private."""
    if not isinstance(value, dict):
        return value
    return {
        key: without_estimates(inside)
        for key, inside in value.items()
        if not key.startswith((*ESTIMATES, "_"))
    }


def allocate(path: Path, most: int) -> int:
    """Take space with fallocate, up to ``most`` bytes or all; return the bytes."""
    taken, step = 0, 64 * MIB
    with path.open("wb") as file:
        while taken < most and step >= MIB // 16:
            length = min(step, most - taken)
            try:
                os.posix_fallocate(file.fileno(), taken, length)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
            else:
                taken += length
    return taken


def write(path: Path, most: int) -> int:
    """Take space by writing, up to ``most`` bytes or all; return the bytes."""
    taken = 0
    portion = b"x" * MIB
    with path.open("wb", buffering=0) as file:
        try:
            while taken < most:
                taken += file.write(portion[: most - taken])
                if taken % (64 * MIB) == 0:
                    os.fsync(file.fileno())
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return taken


take_space: Callable[[Path, int], int] = (
    write if os.environ.get("BTRFS_ATLAS_FILL") == "write" else allocate
)


def free_for_data(made: support.LoopFilesystem) -> int:
    """Return what FsUsage says can be written."""
    with FileSystem(made.mountpoint) as fs:
        fs.sync()
        usage = fs.usage()
        return usage.free_mixed if fs.mixed_groups() else usage.free_data


def assert_estimate_is_right(
    made: support.LoopFilesystem, take: Callable[[Path, int], int] = take_space
) -> None:
    """Compare the estimate with what there turns out to be."""
    estimate = free_for_data(made)
    real = take(made.mountpoint / "last", 1 << 60)
    assert 0.99 * real <= estimate <= 1.01 * real


# The counters.

MIXED = Case("single", "single", (768 * MIB,), mixed=True)
COUNTED = [
    Case("single", "dup", (2 * GIB,)),
    Case("dup", "single", (2 * GIB,)),
    Case("raid1", "raid1"),
    Case("raid1c3", "raid1c4"),
    Case("raid10", "raid10"),
    Case("raid5", "raid6"),
    Case("raid6", "raid1c3"),
    Case("raid0", "raid5"),
    MIXED,
]


def assert_counters_are_equal(made: support.LoopFilesystem) -> None:
    attributes, words, parts = support.oracle.ask(ORACLE, os.fspath(made.mountpoint))
    with FileSystem(made.mountpoint) as fs:
        usage = fs.usage()
    assert without_estimates(plain(usage)) == without_estimates(attributes)
    for name, text in without_estimates(words).items():
        assert getattr(usage, name) == text
    ours: list[Printable] = [
        *usage.raw_space_usage.values(),
        *usage.block_group_type_usage.values(),
        *usage.virtual_space_usage.values(),
        *usage.virtual_block_group_type_usage.values(),
        *(space for dev in usage.dev_usage.values() for space in dev.dev_space_usage.values()),
    ]
    assert [list(pretty_lines(part)) for part in ours] == [printed for printed, _ in parts]
    for part, (_, part_words) in zip(ours, parts, strict=True):
        assert {name: getattr(part, name) for name in part_words} == part_words


@pytest.mark.parametrize("case", COUNTED, ids=str)
def test_counters_are_those_of_python_btrfs(tmp_path: Path, case: Case) -> None:
    with filesystem(tmp_path, case) as made:
        support.populate(made.mountpoint)
        allocate(made.mountpoint / "large", 300 * MIB)
        made.btrfs("filesystem", "sync", made.mountpoint)
        assert_counters_are_equal(made)


def test_counters_of_a_filesystem_between_two_profiles(tmp_path: Path) -> None:
    with filesystem(tmp_path, Case("single", "dup", (GIB,))) as made:
        allocate(made.mountpoint / "large", 300 * MIB)
        made.btrfs("device", "add", "-f", made.add_image("2G"), made.mountpoint)
        assert_counters_are_equal(made)
        made.btrfs("balance", "start", "-dconvert=raid1,limit=2", made.mountpoint)
        assert_counters_are_equal(made)
        with FileSystem(made.mountpoint) as fs:
            usage = fs.usage()
            assert {DATA, DATA | RAID1} <= usage.raw_space_usage.keys()
            assert usage.target_profile_data == DATA | RAID1
            assert usage.target_profile_data_str == "RAID1"


@pytest.mark.parametrize("case", [Case("raid5", "raid1"), MIXED], ids=str)
def test_unmounted_it_is_the_same(tmp_path: Path, case: Case) -> None:
    with filesystem(tmp_path, case) as made:
        allocate(made.mountpoint / "large", 300 * MIB)
        made.unmount()
        with FileSystem(made.images) as fs:
            unmounted = fs.usage()
        made.mount()
        with FileSystem(made.mountpoint) as fs:
            mounted = fs.usage()
    assert plain(unmounted) == plain(mounted)


# The estimates.

FILLED = [
    Case("single", "dup"),
    Case("raid0", "raid1"),
    Case("raid1", "raid1"),
    Case("raid1c3", "raid1c3"),
    Case("raid1c4", "raid1c4"),
    Case("raid10", "raid10"),
    Case("raid5", "raid1"),
    Case("raid6", "raid1c3"),
    Case("dup", "dup", (3 * GIB,)),
    Case("raid1", "raid1", (2 * GIB, 2 * GIB)),
    Case("raid10", "raid10", (GIB,) * 5),
    Case("single", "dup", (140 * MIB,)),
    Case("single", "dup", (60 * GIB, 15 * GIB)),
    Case("raid1", "raid1", (60 * GIB, 70 * GIB, 30 * GIB)),
    Case("single", "single", (GIB, 1536 * MIB), mixed=True),
    Case("dup", "dup", (GIB,), mixed=True),
    Case("raid1", "raid1", (512 * MIB, 700 * MIB, GIB), mixed=True),
]


@pytest.mark.parametrize("case", FILLED, ids=str)
def test_as_much_can_be_written_as_it_says(tmp_path: Path, case: Case) -> None:
    if take_space is write and max(case.sizes) > 10 * GIB:
        pytest.skip("too large to be written")
    with filesystem(tmp_path, case) as made:
        assert_estimate_is_right(made)


@pytest.mark.parametrize(
    "case",
    [Case("raid5", "raid1", SMALL_UNEQUAL), Case("single", "single", (GIB // 3,), mixed=True)],
    ids=str,
)
def test_as_much_can_really_be_written(tmp_path: Path, case: Case) -> None:
    with filesystem(tmp_path, case) as made:
        assert_estimate_is_right(made, write)


@pytest.mark.parametrize("case", [Case("raid1", "raid1"), Case("raid5", "raid1"), MIXED], ids=str)
def test_of_a_half_filled_filesystem_with_holes(tmp_path: Path, case: Case) -> None:
    with filesystem(tmp_path, case) as made:
        files = [made.mountpoint / f"file{number}" for number in range(16)]
        half = free_for_data(made) // 2
        for file in files:
            allocate(file, half // len(files))
        for file in files[::3]:
            file.unlink()
        assert_estimate_is_right(made)


@pytest.mark.parametrize(
    "case",
    [
        Case("single", "dup", (700 * MIB,)),
        Case("raid1", "raid1", (800 * MIB,) * 2),
        Case("raid10", "raid10", (600 * MIB,) * 4),
        Case("raid5", "raid1", (600 * MIB,) * 3),
    ],
    ids=str,
)
def test_of_a_filesystem_that_got_a_device_but_no_balance(tmp_path: Path, case: Case) -> None:
    with filesystem(tmp_path, case) as made:
        allocate(made.mountpoint / "first", free_for_data(made) * 3 // 4)
        made.btrfs("device", "add", "-f", made.add_image("1500M"), made.mountpoint)
        assert_estimate_is_right(made)


@pytest.mark.parametrize(
    ("data", "other"), [("raid5", "raid1"), ("single", "raid0"), ("single", "raid1")]
)
def test_of_a_filesystem_between_two_profiles(tmp_path: Path, data: str, other: str) -> None:
    """What the kernel goes on with is not always the profile that was converted to."""
    with filesystem(tmp_path, Case(data, "raid1", SMALL_UNEQUAL)) as made:
        for number in range(free_for_data(made) // 3 // (5 * MIB)):
            allocate(made.mountpoint / f"file{number}", 5 * MIB)
        made.btrfs("filesystem", "sync", made.mountpoint)
        made.btrfs("balance", "start", f"-dconvert={other},limit=2", made.mountpoint)
        assert_estimate_is_right(made)


def test_what_no_balance_can_help(tmp_path: Path) -> None:
    """Of two devices, RAID1 can use as much as the smaller one has."""
    with filesystem(tmp_path, Case("raid1", "raid1", (GIB, 3 * GIB))) as made:
        with FileSystem(made.mountpoint) as fs:
            usage = fs.usage()
        small, large = usage.dev_usage[1], usage.dev_usage[2]
        assert small.unallocatable_hard == small.unallocatable_soft == MIB
        assert large.unallocatable_hard == large.unallocatable_soft == 2 * GIB + MIB
        assert usage.unallocatable_hard == usage.unallocatable_soft == 2 * GIB + 2 * MIB
        assert usage.unalloctable_soft_str == usage.unallocatable_soft_str == "2.00GiB"
        assert usage.unallocatable_reclaimable == 0
        assert usage.allocatable == 2 * GIB - 2 * MIB
        assert usage.allocatable_left == usage.allocatable - usage.allocated
        assert usage.free_data == (
            usage.virtual_block_group_type_usage[DATA].unused
            + usage.estimated_allocatable_virtual_data
        )


def test_what_a_balance_can_help(tmp_path: Path) -> None:
    with filesystem(tmp_path, Case("raid1", "raid1", (GIB, GIB))) as made:
        allocate(made.mountpoint / "first", 1 << 60)
        made.btrfs("device", "add", "-f", made.add_image("1G"), made.mountpoint)
        with FileSystem(made.mountpoint) as fs:
            usage = fs.usage()
        assert usage.free_data < 2 * MIB
        assert usage.unallocatable_soft > GIB - MIB
        # Anew, there would be a little that none of the three can use.
        assert usage.dev_usage[3].unallocatable_reclaimable > 0.8 * GIB
        assert usage.unallocatable_reclaimable > 0.8 * GIB


def test_targets_and_ratio_can_be_chosen(tmp_path: Path) -> None:
    with filesystem(tmp_path, Case("single", "raid1")) as made:
        with FileSystem(made.mountpoint) as fs:
            asis = FsUsage(fs)
            mirrored = FsUsage(fs, target_profile_data=RAID1)
            with_type = FsUsage(fs, target_profile_data=DATA | RAID1)
            other = FsUsage(fs, target_profile_metadata=RAID10, data_metadata_ratio=4)
            with pytest.raises(ValueError, match="must be above 0"):
                FsUsage(fs, data_metadata_ratio=0)
        assert mirrored.target_profile_data == DATA | RAID1
        assert plain(mirrored) == plain(with_type)
        # The unused space of single block groups is no place for data that must be mirrored.
        assert mirrored.free_data == mirrored.estimated_allocatable_virtual_data
        assert mirrored.free_data < 0.51 * asis.free_data
        assert other.target_profile_metadata == METADATA | RAID10
        assert other.default_data_metadata_ratio == 4
        assert other.estimated_allocatable_virtual_metadata > 5 * MIB * 100
        assert other.free_data < asis.free_data


# Of what is no FileSystem.


class FourLookups:
    """What python-btrfs asks a filesystem for, and nothing else. Type checkers accept it."""

    def __init__(self, fs: FileSystem) -> None:
        self._mixed = fs.mixed_groups()
        self._spaces = fs.space_info()
        self._devices = list(fs.devices())
        self._chunks = list(fs.chunks())

    def mixed_groups(self) -> bool:
        """Return what the filesystem said."""
        return self._mixed

    def space_info(self) -> list[SpaceInfo]:
        """Return what the filesystem said."""
        return self._spaces

    def devices(self) -> Iterator[DevItem]:
        """Yield what the filesystem yielded."""
        return iter(self._devices)

    def chunks(self) -> Iterator[Chunk]:
        """Yield what the filesystem yielded."""
        return iter(self._chunks)


@pytest.mark.parametrize("case", [Case("raid1", "raid1"), MIXED], ids=str)
def test_any_object_with_the_four_lookups_will_do(tmp_path: Path, case: Case) -> None:
    with filesystem(tmp_path, case) as made:
        allocate(made.mountpoint / "large", 300 * MIB)
        with FileSystem(made.mountpoint) as fs:
            expected = FsUsage(fs)
            usage = FsUsage(FourLookups(fs), expected.default_data_metadata_ratio)
            planned = FsUsage(FourLookups(fs))
    assert without_estimates(plain(usage)) == without_estimates(plain(expected))
    for name in ("free_data", "free_mixed", "allocatable_left", "unallocatable_soft"):
        if hasattr(expected, name):
            assert getattr(usage, name) == pytest.approx(getattr(expected, name), rel=0.02)
    assert planned.default_data_metadata_ratio == 200


# The classes by themselves.


def test_parts_are_made_as_those_of_python_btrfs(tmp_path: Path) -> None:
    image = support.stored_image("block-group-tree.img", tmp_path)
    with FileSystem(image) as fs:
        device = next(fs.devices())
        space = next(space for space in fs.space_info() if space.flags != SPACE_INFO_GLOBAL_RSV)
        assert plain(fs_usage.DevUsage(device)) == {
            "devid": 1,
            "total": device.total_bytes,
            "allocated": device.bytes_used,
            "unallocated": device.total_bytes - device.bytes_used,
            "dev_space_usage": {},
        }
        assert fs_usage.RawSpaceUsage(space).parity == 0
        assert fs_usage.VirtualSpaceUsage(space).total == space.total_bytes
        usage = fs.usage()
    assert str(fs_usage.BlockGroupTypeUsage(DATA)) == (
        "block group type usage type DATA allocated 0.00B used 0.00B parity 0.00B"
    )
    assert str(fs_usage.DevSpaceUsage(1, DATA | RAID1)) == (
        "dev space usage flags DATA|RAID1 devid 1 allocated 0.00B parity 0.00B"
    )
    assert str(fs_usage.VirtualBlockGroupTypeUsage(METADATA).type) == "4"
    assert str(usage).startswith(f"fs usage total {usage.total_str} allocated ")
    assert repr(usage) == f"<FsUsage total={usage.total} allocated={usage.allocated}>"
    assert repr(usage.dev_usage[1]).startswith(f"<DevUsage devid=1 total={usage.total} ")
    assert usage.pretty_name() == "<btrfs.fs_usage.FsUsage>"


PRINTED = """
import contextlib, io
import btrfs
text = io.StringIO()
with btrfs.FileSystem(args[0]) as fs, contextlib.redirect_stdout(text):
    btrfs.utils.pretty_print(fs.usage())
answer = text.getvalue().splitlines()
"""


def test_printed_as_a_whole(mounted: support.LoopFilesystem) -> None:
    """The tables in it are walked; only the estimates, and the order of targets, differ."""
    theirs = support.oracle.ask(PRINTED, mounted.mountpoint)
    with FileSystem(mounted.mountpoint) as fs:
        ours = list(pretty_lines(fs.usage()))

    def counters(lines: list[str]) -> list[str]:
        differing = (*ESTIMATES, "target_profile_")
        return [line for line in lines if not line.lstrip().startswith(differing)]

    assert counters(ours) == counters(theirs)
    assert any(line.startswith("  1:") for line in ours)
