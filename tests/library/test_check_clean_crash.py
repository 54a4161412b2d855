"""Nothing is found in what a crash leaves, whenever it comes, and whatever of the writes it loses.

A commit flushes the devices twice: before the superblocks are written, so that all is there that
they lead to, and after. Between the two, some superblocks are of this commit, and others of the one
before.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from btrfs import FileSystem, ioctl
from btrfs.ondisk.constants import SUPER_MAGIC, SUPER_MAGIC_OFFSET, SUPER_MIRRORS
from tests import support
from tests.lab import busy, lineage, recorder, shapes
from tests.support import clean

RECOVER = 7
"""After each crash of so many, the filesystem is mounted."""

Work = Callable[[support.LoopFilesystem], object]

OLDER_SUPERBLOCK = (
    r"superblocks: superblock-behind: .*: (generation|log_root) is \d+ instead of \d+",
    r"superblocks: device-behind: .* is of generation \d+ instead of \d+",
)
"""What a crash between two superblocks leaves. It is true; the next commit writes all anew.

Superblocks of one generation differ if the crash came when a log tree was committed for an fsync.
"""


@dataclass(frozen=True)
class Case:
    """What is recorded.

    Attributes:
        work: What is done while writes are recorded.
        options: Of the filesystem.
        mount_options: While writes are recorded.
        quirks: What `btrfs check` prints about such a filesystem.
        quotas: Whether quotas are on before.
        recovers: Whether the kernel mounts it after a crash.
    """

    work: Work
    options: support.Options = field(default_factory=support.Options)
    mount_options: str = ""
    quirks: tuple[str, ...] = ()
    quotas: bool = False
    recovers: bool = True


def write(seconds: float) -> Work:
    """Return the work of several threads that write for some seconds."""
    return lambda fs: busy.write_busily(fs.mountpoint, seconds)


def write_all(fs: support.LoopFilesystem) -> None:
    """Write contents of all kinds."""
    shapes.write_shapes(fs.mountpoint)
    lineage.make_history(fs.mountpoint)


def write_while(*words: str) -> Work:
    """Return the work of threads that write, while a command of `btrfs` runs."""

    def work(fs: support.LoopFilesystem) -> None:
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(busy.write_busily, fs.mountpoint, 2)
            fs.btrfs(*words, fs.mountpoint)
            written.result()

    return work


def count_quotas(fs: support.LoopFilesystem) -> None:
    """Switch quotas on, let all be counted, write, and let it be counted again.

    Nothing is written in the meantime: if something is, numbers of the kernel are wrong by some
    blocks now and then, in the commits after it.
    """
    fs.btrfs("quota", "enable", fs.mountpoint)
    fs.btrfs("quota", "rescan", "-w", fs.mountpoint)
    busy.write_busily(fs.mountpoint, 2)
    fs.sync()
    fs.btrfs("quota", "rescan", "-w", fs.mountpoint)


def simple_quotas(fs: support.LoopFilesystem) -> None:
    """Switch simple quotas on, and write."""
    with FileSystem(fs.mountpoint) as opened:
        ioctl.quota_enable(opened.fd, simple=True)
    busy.write_busily(fs.mountpoint, 2)


def remove_device(fs: support.LoopFilesystem) -> None:
    """Remove the last device, and replace the one before by it, while threads write."""
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(busy.write_busily, fs.mountpoint, 3)
        fs.btrfs("device", "remove", fs.devices[-1], fs.mountpoint)
        # On two devices the kernel finds no room for it now and then, while others write.
        with contextlib.suppress(support.CommandError):
            fs.btrfs("replace", "start", "-f", "-B", *fs.devices[-2:], fs.mountpoint)
        written.result()


def record(folder: Path, case: Case) -> recorder.Recording:
    """Make a filesystem with contents, let it do some work, and record what that writes."""
    options: support.Options = {"size": "1G"}
    options.update(case.options)
    with support.filesystem(folder / "made", **options) as fs:
        support.populate(fs.mountpoint)
        if case.quotas:
            support.enable_quota(fs.mountpoint)
    before = fs.copy_images(folder / "before")
    # The recorder knows no discard.
    words = ",".join(word for word in ("nodiscard", case.mount_options) if word)
    with (
        recorder.recorded(fs.images, folder) as shown,
        support.mounted_images(shown, folder / "mnt", words) as fs,
    ):
        case.work(fs)
    return recorder.read_log(folder, before)


def crashes(recording: recorder.Recording, count: int, seed: int = 1) -> Iterator[str]:
    """Let the images be as after a crash, at some of the flushes and before; yield which."""
    choose = random.Random(seed)
    parts = range(len(recording.parts))
    chosen = set(choose.sample(parts, min(count, len(parts))))
    for number in parts:
        if number in chosen:
            with recording.crashed(choose):
                yield f"before flush {number}"
        recording.step()
        if number in chosen:
            yield f"at flush {number}"


def assert_clean_after_crashes(folder: Path, case: Case, count: int) -> None:
    """See that nothing is found after crashes, and after some of them nothing by the kernel."""
    recording = record(folder, case)
    assert len(recording.parts) > 20
    for number, crash in enumerate(crashes(recording, count)):
        print(crash)  # the last one is that of the failure
        images = members(recording.images)
        clean.assert_clean(images, quirks=case.quirks, known=OLDER_SUPERBLOCK)
        # A replace that was interrupted needs its target, which is no member yet.
        whole = len(images) == len(recording.images)
        if case.recovers and whole and number % RECOVER == 0:
            recover(images, folder / "recovered", case)


def recover(images: list[Path], folder: Path, case: Case) -> None:
    """Mount copies of images: log trees are replayed, and what was interrupted goes on."""
    folder.mkdir(exist_ok=True)
    copies = [folder / image.name for image in images]
    for image, copy in zip(images, copies, strict=True):
        support.run("cp", "--sparse=always", image, copy)
    with support.mounted_images(copies, folder / "mnt", "skip_balance") as fs:
        (fs.mountpoint / "recovered").write_text("after the crash")
    clean.assert_clean(copies, quirks=case.quirks)


def members(images: list[Path]) -> list[Path]:
    """Return the images that belong to the filesystem: some devices are removed or not yet in."""
    if len(images) == 1:
        return images
    magic_at = SUPER_MIRRORS[0] + SUPER_MAGIC_OFFSET
    valid = [image for image in images if read_at(image, magic_at, 8) == SUPER_MAGIC]
    with FileSystem(valid) as fs:
        devids = [device.devid for device in fs.devices()]
    # Until it is wiped, a device that was replaced has the superblock of its last commit.
    newest = {devid_of(image): image for image in sorted(valid, key=generation_of)}
    return [newest[devid] for devid in devids]


def generation_of(image: Path) -> int:
    """Return the generation of the superblock (generation of struct btrfs_super_block)."""
    return int.from_bytes(read_at(image, SUPER_MIRRORS[0] + 0x48, 8), "little")


def devid_of(image: Path) -> int:
    """Return the number of the device (dev_item.devid of struct btrfs_super_block)."""
    return int.from_bytes(read_at(image, SUPER_MIRRORS[0] + 0xC9, 8), "little")


def read_at(image: Path, position: int, length: int) -> bytes:
    """Return some bytes of an image."""
    with image.open("rb") as file:
        return os.pread(file.fileno(), length, position)


@pytest.mark.parametrize("nodesize", [4096, 16384])
def test_crashes(tmp_path: Path, nodesize: int) -> None:
    assert_clean_after_crashes(tmp_path, Case(write(1), {"nodesize": nodesize}), 7)


def test_crashes_of_several_devices(tmp_path: Path) -> None:
    options: support.Options = {"devices": 3, "data": "raid1", "metadata": "raid1"}
    assert_clean_after_crashes(tmp_path, Case(write(1), options), 7)


COUNTING = clean.QUOTAS_ARE_COUNTED + clean.QUOTAS_TO_BE_COUNTED
OLD = ("^free-space-tree", "^no-holes", "^skinny-metadata", "^extref")

CASES = {
    "many threads": Case(write(8), {"nodesize": 4096}),
    "contents": Case(write_all),
    "balance": Case(write_while("balance", "start", "--full-balance"), {"nodesize": 4096}),
    "balance to other profiles": Case(
        write_while("balance", "start", "-f", "-dconvert=dup", "-mconvert=single")
    ),
    "resize": Case(write_while("filesystem", "resize", "1:700M")),
    "defragment": Case(write_while("filesystem", "defragment", "-r", "-czstd")),
    "quotas": Case(write(3), quotas=True),
    "quotas are counted": Case(count_quotas, quirks=COUNTING),
    "simple quotas": Case(simple_quotas, quirks=clean.UNKNOWN_FEATURE),
    "device removed and replaced": Case(
        remove_device, {"devices": 3, "data": "raid1", "metadata": "raid1"}
    ),
    "space cache": Case(write(3), {"features": OLD[:1]}, quirks=clean.SPACE_CACHE),
    "old": Case(write(3), {"features": OLD, "nodesize": 4096}, quirks=clean.SPACE_CACHE),
    # Linux 6.18 fails to replay log trees there that have more than one level.
    "mixed": Case(
        write(3), {"mixed": True, "data": "single", "metadata": "single"}, recovers=False
    ),
    "single": Case(write(3), {"metadata": "single", "nodesize": 65536, "csum": "sha256"}),
    "nodatacow": Case(write(3), mount_options="nodatacow"),
    "compressed": Case(write(3), mount_options="compress-force=lzo,commit=1"),
    "without log trees": Case(write(3), mount_options="notreelog,flushoncommit"),
    "raid1": Case(write(3), {"devices": 2, "data": "raid1", "metadata": "raid1"}),
    "raid10": Case(write(3), {"devices": 4, "data": "raid10", "metadata": "raid1c3"}),
    "raid0": Case(write(3), {"devices": 3, "data": "raid0", "metadata": "raid0"}),
}


@pytest.mark.lab
@pytest.mark.parametrize("name", CASES)
def test_many_crashes(tmp_path: Path, name: str) -> None:
    assert_clean_after_crashes(tmp_path, CASES[name], 40)
