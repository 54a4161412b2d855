"""Nothing is found in sound filesystems whose devices, profiles, quotas or format were changed."""

from __future__ import annotations

import contextlib
import random
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from tests import support
from tests.lab import converted, lineage, shapes
from tests.lab.block_groups import scatter
from tests.lab.loopfs import LoopFilesystem, attached, detach_loop
from tests.lab.sharing import change
from tests.support import clean

Change = Callable[[LoopFilesystem], object]


def balance(*words: str) -> Change:
    """Return the change that a balance makes."""
    return lambda fs: fs.btrfs("balance", "start", *words, fs.mountpoint)


BALANCES = {
    "full": balance("--full-balance"),
    "of data": balance("-dusage=90"),
    "of metadata": balance("-m"),
    "to raid1": balance("-f", "-dconvert=raid1", "-mconvert=raid1", "-sconvert=raid1"),
    "to raid0": balance("-dconvert=raid0", "-mconvert=raid1c3"),
    "to raid5": balance("-dconvert=raid5", "-mconvert=raid6"),
    "to dup": balance("-f", "-dconvert=dup", "-mconvert=dup"),
    "half": balance("-dconvert=raid1,limit=1", "-mconvert=raid10,soft"),
}


def remove_last(fs: LoopFilesystem) -> None:
    """Remove the device that was added last; what it held moves to the others."""
    fs.btrfs("device", "remove", fs.devices[-1], fs.mountpoint)
    detach_loop(fs.devices.pop())
    fs.images.pop()


def remove_first(fs: LoopFilesystem) -> None:
    """Remove the device 1, so that the least number of a device is another one."""
    fs.btrfs("device", "remove", fs.devices[0], fs.mountpoint)
    detach_loop(fs.devices.pop(0))
    fs.images.pop(0)


def add(fs: LoopFilesystem) -> None:
    """Add a device."""
    fs.btrfs("device", "add", fs.add_image("1G"), fs.mountpoint)


DEVICES: dict[str, Change] = {
    "added": add,
    "removed": remove_last,
    "first removed": remove_first,
    "replaced": lambda fs: fs.replace(2, "1200M"),
    "smaller": lambda fs: fs.btrfs("filesystem", "resize", "2:700M", fs.mountpoint),
    "larger": lambda fs: fs.btrfs("filesystem", "resize", "2:max", fs.mountpoint),
}


def fill(root: Path, seed: int = 1) -> None:
    """Write contents of all kinds to a mounted filesystem."""
    support.populate(root, seed)
    shapes.write_shapes(root, seed)
    lineage.make_history(root, seed)


def some(names: Iterable[str], quick: Sequence[str]) -> list[object]:
    """Return all as parameters of a test; what is not quick is left to `make check-lab`."""
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.lab]) for name in names]


@pytest.mark.parametrize("name", some(BALANCES, ("full", "to raid1", "half")))
def test_balanced(tmp_path: Path, name: str) -> None:
    with support.filesystem(tmp_path, devices=4, size="1G", nodesize=4096) as fs:
        fill(fs.mountpoint)
        BALANCES[name](fs)
    clean.assert_clean(fs.images)


def test_paused_balance(tmp_path: Path) -> None:
    """As a crash leaves it, and when the next mount has gone on with it."""
    with support.filesystem(tmp_path / "a", size="2G", data="single") as fs:
        fill(fs.mountpoint)
        scatter(fs.mountpoint / "scattered", 5000)
        assert support.pause_balance(fs.mountpoint)
        fs.sync()
        crashed = fs.copy_images(tmp_path / "b")
    clean.assert_clean(crashed)
    clean.assert_clean(fs.images)
    with support.mounted_images(crashed, tmp_path / "mnt") as fs:
        for _ in range(200):
            if "No balance" in balance_status(fs.mountpoint):
                break
            time.sleep(0.05)
    clean.assert_clean(crashed)


def balance_status(root: Path) -> str:
    """Return what `btrfs balance status` prints; its exit code says the same."""
    words = ["btrfs", "balance", "status", str(root)]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def test_relocation_cut_off(tmp_path: Path) -> None:
    """As a crash leaves it while a block group is moved: trees of the relocation exist."""
    with support.filesystem(tmp_path / "a", size="2G", nodesize=4096, metadata="single") as fs:
        fill(fs.mountpoint)
        scatter(fs.mountpoint / "scattered", 20_000)
        copies: list[list[Path]] = []
        words = ["btrfs", "balance", "start", "--full-balance", str(fs.mountpoint)]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None and len(copies) < 4:
                fs.sync()
                copies.append(frozen_copy(fs, tmp_path / f"copy{len(copies)}"))
            with contextlib.suppress(support.CommandError):
                fs.btrfs("balance", "cancel", fs.mountpoint)
    clean.assert_clean(fs.images)
    for images in copies:
        clean.assert_clean(images)


def frozen_copy(fs: LoopFilesystem, folder: Path) -> list[Path]:
    """Copy the images while nothing is written to them."""
    support.run("fsfreeze", "--freeze", fs.mountpoint)
    try:
        return fs.copy_images(folder)
    finally:
        support.run("fsfreeze", "--unfreeze", fs.mountpoint)


@pytest.mark.parametrize("name", some(DEVICES, ("added", "removed")))
def test_devices(tmp_path: Path, name: str) -> None:
    with support.filesystem(tmp_path, devices=3, size="1G", data="single", metadata="raid1") as fs:
        fill(fs.mountpoint)
        DEVICES[name](fs)
        (fs.mountpoint / "afterwards").write_bytes(b"new" * 1_000_000)
        images = fs.images
    clean.assert_clean(images)


@pytest.mark.lab
def test_many_changes(tmp_path: Path) -> None:
    """Of the devices, one after the other, with writes and snapshots between them."""
    with support.filesystem(
        tmp_path, devices=3, size="1G", data="raid0", metadata="raid1", nodesize=8192
    ) as fs:
        fill(fs.mountpoint)
        changes: list[Change] = [add, DEVICES["replaced"], BALANCES["to raid1"], remove_first]
        for number, make in enumerate(changes):
            make(fs)
            change(fs.mountpoint / "history" / "home", random.Random(number))
            lineage.snapshot(fs.mountpoint / "history" / "home", fs.mountpoint / f"after{number}")
    clean.assert_clean(fs.images)


def test_device_lost(tmp_path: Path) -> None:
    """A device is lost, and its part is made anew on the others."""
    with support.filesystem(tmp_path, devices=3, size="1G", data="raid1", metadata="raid1") as fs:
        fill(fs.mountpoint)
        fs.detach()
        fs.images.pop()
        with attached(fs):
            fs.mount("degraded,subvolid=5")
            change(fs.mountpoint / "history" / "home", random.Random(5))
            fs.btrfs("device", "remove", "missing", fs.mountpoint)
    clean.assert_clean(fs.images)


def sprout(folder: Path) -> tuple[list[Path], list[Path]]:
    """Make a seed, and a filesystem that grows on it; return the images of both."""
    with support.filesystem(folder, size="1G") as fs:
        fill(fs.mountpoint)
        fs.unmount()
        fs.tune("-S", "1")
        fs.detach()
        with attached(fs):
            fs.mount("subvolid=5")
            fs.btrfs("device", "add", fs.add_image("1G"), fs.mountpoint)
            fs.remount("rw")
            change(fs.mountpoint / "history" / "home", random.Random(5))
            (fs.mountpoint / "new").write_bytes(b"new" * 1_000_000)
    return fs.images[:1], fs.images[1:]


def test_seed(tmp_path: Path) -> None:
    seed, grown = sprout(tmp_path)
    clean.assert_clean(seed)
    assert clean.complaints([*grown, *seed]) == []


def test_sprout(tmp_path: Path) -> None:
    seed, grown = sprout(tmp_path)
    assert clean.findings(grown) == []
    assert clean.findings([*seed, *grown]) == []


def test_seed_removed(tmp_path: Path) -> None:
    """Everything has moved from the seed to the sprout."""
    with support.filesystem(tmp_path, size="1G") as fs:
        fill(fs.mountpoint)
        fs.unmount()
        fs.tune("-S", "1")
        fs.detach()
        with attached(fs):
            fs.mount()
            fs.btrfs("device", "add", fs.add_image("2G"), fs.mountpoint)
            fs.remount("rw")
            fs.btrfs("device", "remove", fs.devices[0], fs.mountpoint)
    clean.assert_clean(fs.images[1:])


UUIDS = (
    "-m",
    "-M 01234567-89ab-cdef-0123-456789abcdef",
    "-u",
    "-U 01234567-89ab-cdef-0123-456789abcde0",
)


@pytest.mark.parametrize("word", some(UUIDS, ("-m",)))
def test_other_uuid(tmp_path: Path, word: str) -> None:
    """The UUID was changed, in the superblock alone or in all blocks."""
    with support.filesystem(tmp_path, size="512M") as fs:
        fill(fs.mountpoint)
        fs.unmount()
        fs.tune(*word.split())
        fs.detach()
        clean.assert_clean(fs.images)
        with attached(fs):
            fs.mount()
            (fs.mountpoint / "afterwards").write_bytes(b"new" * 100_000)
    clean.assert_clean(fs.images)


def test_quotas(tmp_path: Path) -> None:
    """Groups of groups and limits; while quotas are on, much changes.

    A snapshot that begins as a member of a group makes the kernel give up: it notes that all is to
    be counted anew, and the numbers are wrong until then.
    """
    with support.filesystem(tmp_path, size="1G", nodesize=4096) as fs:
        root = fs.mountpoint
        support.populate(root)
        support.enable_quota(root)
        for group in ("1/1", "2/0"):
            fs.btrfs("qgroup", "create", group, root)
        fs.btrfs("qgroup", "assign", "--no-rescan", "1/0", "2/0", root)
        shapes.write_shapes(root)
        lineage.make_history(root)
        lineage.snapshot(root / "history" / "home", root / "in a group", "-i", "1/1")
        change(root / "in a group", random.Random(7))
        fs.sync()
    clean.assert_clean(fs.images, quirks=clean.QUOTAS_TO_BE_COUNTED)
    with attached(fs):
        fs.mount("subvolid=5")
        fs.btrfs("quota", "rescan", "-w", fs.mountpoint)
        change(fs.mountpoint / "in a group", random.Random(8))
    clean.assert_clean(fs.images)


def test_quotas_switched_off(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G") as fs:
        support.enable_quota(fs.mountpoint)
        fill(fs.mountpoint)
        fs.btrfs("quota", "disable", fs.mountpoint)
        change(fs.mountpoint / "history" / "home", random.Random(7))
    clean.assert_clean(fs.images)


@pytest.mark.parametrize("options", ["space_cache=v1", "space_cache=v2", "clear_cache"])
def test_free_space_kept_in_another_way(tmp_path: Path, options: str) -> None:
    features = ("^free-space-tree",) if options != "space_cache=v1" else ()
    with support.filesystem(tmp_path, size="1G", features=features) as fs:
        fill(fs.mountpoint)
        fs.unmount()
        words = f"subvolid=5,{options}"
        fs.mount(f"clear_cache,{words}" if "v1" in options else words)
        change(fs.mountpoint / "history" / "home", random.Random(7))
    clean.assert_clean(fs.images)


def test_converted(tmp_path: Path) -> None:
    """From ext4: as the program leaves it, in use, and when nothing of ext4 is left."""
    support.require_root()
    support.require_programs(*converted.PROGRAMS)
    image = tmp_path / "disk1.img"
    converted.make_ext4(image, tmp_path / "ext4")
    converted.convert(image)
    clean.assert_clean([image])
    with support.mounted_images([image], tmp_path / "mnt") as fs:
        assert (fs.mountpoint / "ext2_saved" / "image").exists()
        fill(fs.mountpoint)
    clean.assert_clean([image])
    with support.mounted_images([image], tmp_path / "mnt", "subvolid=5") as fs:
        fs.btrfs("subvolume", "delete", fs.mountpoint / "ext2_saved")
        fs.btrfs("filesystem", "defragment", "-r", fs.mountpoint / "files1")
        fs.btrfs("balance", "start", "--full-balance", fs.mountpoint)
    clean.assert_clean([image])
