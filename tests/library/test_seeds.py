"""Seeds, on which others grow: a sprout has a UUID of its own, its old blocks that of the seed."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from btrfs import BtrfsError, FileSystem
from btrfs.ondisk.constants import (
    CHUNK_TREE_OBJECTID,
    CSUM_SIZE,
    KEY_MAX,
    SUPER_FLAG_SEEDING,
    SUPER_INFO_SIZE,
    SUPER_MIRRORS,
)
from btrfs.source.disk import bulk
from btrfs.source.disk.source import DiskSource
from btrfs.source.disk.superblock import Superblock
from btrfs_atlas import cli
from tests import support
from tests.lab.loopfs import LoopFilesystem, attached
from tests.library.reading import all_batches, all_items, answers, searched
from tests.support import clean, programs

SIZE = "512M"
STACK = ("base", "middle", "top")
FLAGS_AT = 56
"""Where the flags are in a superblock."""


class Stack(NamedTuple):
    """A sprout of a sprout of a seed.

    Attributes:
        folders: A folder with the images of each, by its name: base has two, the others one.
        fsids: The UUID of each.
    """

    folders: dict[str, Path]
    fsids: dict[str, str]

    def images(self, *names: str) -> list[Path]:
        """Return the images of some of them."""
        return [image for name in names for image in sorted(self.folders[name].glob("*.img"))]


def write(folder: Path, name: str, count: int = 150) -> None:
    """Write files, so that some leaves are of one filesystem and some of another."""
    folder.joinpath(name).mkdir()
    for number in range(count):
        folder.joinpath(name, str(number)).write_bytes(name.encode() * number * 9)


def mark_as_seed(images: Sequence[Path]) -> None:
    """Do what `btrfstune -S 1` does, which fails on a sprout of more than one profile."""
    for image, paddr in itertools.product(images, SUPER_MIRRORS[:2]):
        with image.open("r+b") as file:
            file.seek(paddr)
            data = bytearray(file.read(SUPER_INFO_SIZE))
            superblock = Superblock(bytes(data))
            struct.pack_into("<Q", data, FLAGS_AT, superblock.flags | SUPER_FLAG_SEEDING)
            digest = superblock.checksum.digest(bytes(data[CSUM_SIZE:]))
            data[: len(digest)] = digest
            file.seek(paddr)
            file.write(data)


def sprouted(fs: LoopFilesystem, name: str) -> None:
    """Make a filesystem that is mounted a seed, and mount a new one that grows on it."""
    fs.detach()
    mark_as_seed(fs.images[: 1 if len(fs.images) > 2 else None])
    fs.attach()
    for device in fs.devices:
        support.run("btrfs", "device", "scan", device)
    fs.mount()
    fs.btrfs("device", "add", fs.add_image(SIZE), fs.mountpoint)
    fs.remount("rw")
    # The next seed is tuned by the device that is its own.
    fs.images.insert(0, fs.images.pop())
    fs.devices.insert(0, fs.devices.pop())
    write(fs.mountpoint, name)


@contextmanager
def sprout(folder: Path) -> Iterator[LoopFilesystem]:
    """Mount a sprout on a seed of one device. Its own device is the first."""
    with support.filesystem(folder, size=SIZE, nodesize=4096) as fs:
        write(fs.mountpoint, "seed")
        sprouted(fs, "sprout")
        yield fs


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Make it: the images of each filesystem are in a folder of their own."""
    support.require_root()
    folder = tmp_path_factory.mktemp("stack")
    folders = {name: folder / name for name in STACK}
    with support.filesystem(
        folder, size=SIZE, devices=2, nodesize=4096, data="raid1", metadata="raid1"
    ) as fs:
        write(fs.mountpoint, "base")
        sprouted(fs, "middle")
        sprouted(fs, "top")
        images = dict(zip(STACK, (fs.images[2:], fs.images[1:2], fs.images[:1]), strict=True))
    fsids = {}
    for name in STACK:
        folders[name].mkdir()
        for image in images[name]:
            image.rename(folders[name] / image.name)
        with FileSystem(sorted(folders[name].iterdir()), on_error="skip") as opened:
            fsids[name] = str(opened.fsid)
    return Stack(folders, fsids)


def link(images: Sequence[Path], folder: Path) -> None:
    """Let images be found in another folder, too."""
    for image in images:
        (folder / image.name).hardlink_to(image)


def test_any_order(stack: Stack) -> None:
    images = stack.images(*STACK)
    read = []
    for order in itertools.permutations(images):
        with FileSystem(order) as fs:
            assert str(fs.fsid) == stack.fsids["top"]
            assert (fs.notes, fs.damage) == ([], [])
            assert {item.devid: Path(fs.dev_info(item.devid).path) for item in fs.devices()} == {
                number: Path(image)
                for number, image in enumerate(sorted(images, key=lambda it: it.name), 1)
            }
            read.append(len(all_items(fs)))
    assert len(set(read)) == 1


def test_as_the_kernel_shows_it(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    images = stack.images("top", "middle", "base")
    with FileSystem(images) as fs:
        items, said = all_items(fs), answers(fs)
        assert all_batches(fs) == items
    with support.mounted_images(images, stack.folders["top"] / "mnt", "ro") as made:
        with FileSystem(made.mountpoint) as mounted:
            assert all_items(mounted) == items
            # The kernel counts the devices of seeds only until the next mount.
            assert answers(mounted) | {"fs_info": said["fs_info"]} == said
        # No superblock of a seed is waited for as if a commit were to write it.
        monkeypatch.setattr("btrfs.source.live.commit._SECONDS_BETWEEN", "none")
        with FileSystem(made.mountpoint, source="devices") as live:
            assert live.notes == []
            assert all_items(live) == items
            assert all_batches(live) == items
        # Whichever devices are given.
        for device in made.devices:
            with FileSystem(device) as mounted:
                assert mounted.mounted
                assert str(mounted.fsid) == stack.fsids["top"]


def test_each_alone_is_itself(stack: Stack) -> None:
    with FileSystem(stack.images("base")[1]) as fs:
        assert str(fs.fsid) == stack.fsids["base"]
        assert {item.fsid for item in fs.devices()} == {fs.fsid}
        assert fs.notes == []
    with FileSystem(stack.images("base", "middle")) as fs:
        assert str(fs.fsid) == stack.fsids["middle"]
        assert fs.notes == []
        assert len({item.fsid for item in fs.devices()}) == 2


def test_found_beside(stack: Stack, tmp_path: Path) -> None:
    link(stack.images(*STACK), tmp_path)
    with FileSystem(stack.images(*STACK)) as fs:
        items = all_items(fs)
    for given in (["top"], ["top", "middle"]):
        with FileSystem([tmp_path / image.name for image in stack.images(*given)]) as fs:
            assert fs.notes == []
            assert all_items(fs) == items


def test_missing(stack: Stack, tmp_path: Path) -> None:
    with FileSystem(stack.images("top"), on_error="skip") as fs:
        assert fs.notes == [
            f"device {number} is of a seed filesystem, {stack.fsids[name]}"
            for number, name in ((1, "base"), (2, "base"), (3, "middle"))
        ] + ["devices 1, 2 and 3 are missing"]
        some = all_items(fs)
        assert fs.lost
        assert all("is missing" in lost.reason for lost in fs.lost)
    # One of two that have the same is enough.
    link(stack.images("top", "middle") + stack.images("base")[1:], tmp_path)
    with FileSystem(tmp_path / "disk4.img") as fs:
        assert "device 1 is missing" in fs.notes
        most = all_items(fs)
    with FileSystem(stack.images(*STACK)) as fs:
        assert all_items(fs) == most
    assert 0 < sum(map(len, some.values())) < sum(map(len, most.values()))


def test_blocks_of_both_uuids(stack: Stack) -> None:
    """What is compared above has blocks of all three filesystems in one tree."""
    with FileSystem(stack.images(*STACK)) as fs:
        generations = {header[0] for header, _ in searched(fs, 5)}
    ends = []
    for name in ("base", "middle"):
        with FileSystem(stack.images(name), on_error="skip") as fs:
            ends.append(fs.fs_info().generation)
    assert min(generations) <= ends[0] < ends[1] < max(generations)
    assert any(ends[0] < generation <= ends[1] for generation in generations)


def test_large_chunk_tree(tmp_path: Path) -> None:
    """The kernel writes it anew as a whole: no seed and no UUID of one is needed to read it."""
    with support.filesystem(tmp_path, size="120G", nodesize=4096, data="single") as fs:
        with (fs.mountpoint / "large").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 100 << 30)
        sprouted(fs, "sprout")
        fs.unmount()
        grown, seed = fs.images
        with FileSystem(grown) as found, FileSystem([seed, grown]) as given:
            assert found.notes == given.notes == []
            items = all_items(given)
            assert all_items(found) == items
            fsids = [header[:16] for header in headers_of_chunk_tree(given)]
            assert len(fsids) > 2
            assert set(fsids) == {given.fsid.bytes}
        fs.mount("ro")
        with FileSystem(fs.mountpoint) as mounted:
            assert all_items(mounted) == items
        with FileSystem(fs.mountpoint, source="devices") as live:
            assert all_items(live) == items


def _never(_min_key: int, _max_key: int, error: BtrfsError) -> None:
    raise error


def headers_of_chunk_tree(fs: FileSystem) -> Iterator[bytes]:
    """Yield what comes after the checksum in the header of each leaf of the chunk tree."""
    assert isinstance(fs.source, DiskSource)
    source = fs.source
    root = source.root(CHUNK_TREE_OBJECTID)
    for pointer in source.blocks(root, 0, 0, KEY_MAX, _never):
        copy = next(source.trees.store.read_copies(pointer.vaddr, source.superblock.nodesize))
        assert isinstance(copy.data, bytes)
        yield copy.data[CSUM_SIZE:]


def test_bulk_reading(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """No block of a seed is suspicious, so that it would be read again by itself."""

    def read_again(*_: object) -> None:
        raise AssertionError

    with FileSystem(stack.images(*STACK)) as fs:
        items = all_items(fs)
        monkeypatch.setattr(bulk, "read_block", read_again)
        assert all_batches(fs) == items


def test_foreign(stack: Stack, tmp_path: Path) -> None:
    """A sprout is refused with other sprouts, and with seeds that it has not grown on."""
    with sprout(tmp_path / "a") as fs:
        pass
    grown, seed = fs.images
    others = stack.images("top", "middle")
    for strange in (
        [grown, *stack.images("top")],
        [*stack.images("top"), grown],
        [grown, seed, *stack.images("middle")],
        [*stack.images("middle"), seed],
        [seed, *stack.images("base")],
        [*others, seed, *stack.images("base")],
    ):
        with pytest.raises(BtrfsError, match="belong to different filesystems") as caught:
            FileSystem(strange)
        assert caught.value.hint is not None
        assert "their UUIDs are" in caught.value.hint


@pytest.mark.parametrize("change", ["balanced", "removed", "written"])
def test_afterwards(tmp_path: Path, change: str) -> None:
    """What was on the seed has moved in part or as a whole."""
    with sprout(tmp_path) as fs:
        if change == "balanced":
            fs.btrfs("balance", "start", "-m", fs.mountpoint)
        elif change == "removed":
            fs.btrfs("device", "remove", fs.devices[1], fs.mountpoint)
        shutil.rmtree(fs.mountpoint / "seed")
        write(fs.mountpoint, "again")
        fs.sync()
        with FileSystem(fs.mountpoint) as mounted:
            items = all_items(mounted)
        with FileSystem(fs.mountpoint, source="devices") as live:
            assert all_items(live) == items
            write(fs.mountpoint, "more", 20)
            fs.sync()
            live.refresh()
            changed = all_items(live)
            assert changed != items
        fs.unmount()
        grown, seed = fs.images
    given = [grown] if change == "removed" else [grown, seed]
    with FileSystem(given) as opened:
        assert opened.notes == []
        assert all_items(opened) == changed
    assert clean.findings(given) == []
    if change == "removed":
        with pytest.raises(BtrfsError, match="different filesystems"):
            FileSystem([*given, seed])


def test_other_uuids(tmp_path: Path) -> None:
    """The UUID of the sprout was changed, in its superblock alone."""
    with sprout(tmp_path) as fs:
        fs.unmount()
        fs.tune("-m")
        images = fs.images
    with FileSystem(images[::-1]) as opened:
        assert opened.fs_info().metadata_uuid != opened.fsid
        assert opened.notes == []
        assert all_batches(opened) == all_items(opened)
    assert clean.findings(images) == []


def test_changed_seed(tmp_path: Path) -> None:
    """The kernel does not mount a sprout of a seed that was written to meanwhile."""
    with sprout(tmp_path) as fs:
        images = fs.images
    seed = LoopFilesystem(images[1:], tmp_path / "seed")
    with attached(seed):
        seed.tune("-S", "0")
        seed.mount()
        write(seed.mountpoint, "later", 5)
        seed.unmount()
    # It could be any other filesystem.
    with pytest.raises(BtrfsError, match="different filesystems"):
        FileSystem(images)
    with attached(seed):
        seed.tune("-S", "1")
    with FileSystem(images, on_error="skip") as opened:
        (note,) = opened.notes
        assert re.fullmatch(
            rf"device 1 \({images[1]}\) of a seed has been changed: it is of generation \d+"
            r" instead of \d+",
            note,
        )
    assert any("device-item" in finding for finding in clean.findings(images, data=False))


def test_chunk_tree_lost(stack: Stack, tmp_path: Path) -> None:
    """Where nothing says to what a filesystem has grown on, its seeds are read all the same."""
    images = []
    for image in stack.images(*STACK):
        support.run("cp", "--sparse=always", image, tmp_path)
        images.append(tmp_path / image.name)
    with FileSystem(images) as fs:
        assert isinstance(fs.source, DiskSource)
        superblock, store = fs.source.superblock, fs.source.trees.store
        roots = {superblock.chunk_root, *(backup.chunk_root for backup in superblock.backups)}
        copies = [copy for root in roots for copy in store.read_copies(root, superblock.nodesize)]
    for copy in copies:
        with Path(copy.device).open("r+b") as file:
            file.seek(copy.paddr)
            file.write(bytes(superblock.nodesize))
    with FileSystem(images, on_error="skip") as fs:
        assert str(fs.fsid) == stack.fsids["top"]
        assert fs.notes[:3] == [
            f"{image} is taken for a seed: the device items that would say so are lost"
            for image in images[:3]
        ]
        assert not any("missing" in note for note in fs.notes)


def test_dump(tmp_path: Path) -> None:
    with sprout(tmp_path) as fs:
        fs.unmount()
        dump = fs.dump(tmp_path / "dump")
        images = fs.images
    with FileSystem(images) as opened:
        items = headers(opened)
    with FileSystem(dump) as opened:
        assert opened.notes == []
        assert headers(opened) == items


def headers(fs: FileSystem) -> dict[int, list[tuple[int, ...]]]:
    """Return the keys and sizes of all items; what is in small files, a dump does not have."""
    return {tree: [header for header, _ in items] for tree, items in all_items(fs).items()}


def test_check(stack: Stack) -> None:
    for names in (STACK[:1], STACK[:2], STACK):
        assert clean.findings(stack.images(*names)) == []
    top, *others = stack.images(*reversed(STACK))
    assert clean.complaints([top, *others]) == []


def test_check_superblock_of_seed(stack: Stack, tmp_path: Path) -> None:
    """Its copies are compared with one another."""
    images = []
    for image in stack.images(*STACK):
        support.run("cp", "--sparse=always", image, tmp_path)
        images.append(tmp_path / image.name)
    with images[0].open("r+b") as file:
        file.seek(SUPER_MIRRORS[1])
        file.write(bytes(SUPER_INFO_SIZE))
    (finding,) = clean.findings(images)
    assert "superblock-invalid" in finding
    assert str(images[0]) in finding


@pytest.mark.parametrize("name", ["usage", "overview", "du", "subvolumes", "compression"])
def test_programs(
    stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    link(stack.images(*STACK), tmp_path)
    for image in ("disk4.img", "disk3.img", "disk1.img"):
        assert programs.run_here(cli.main, name, tmp_path / image) in (0, None)
        printed = capsys.readouterr()
        assert printed.out
        assert "missing" not in printed.out + printed.err


def test_space(stack: Stack) -> None:
    """New chunks go to the devices that are not of seeds, of a profile that these allow."""
    with FileSystem(stack.images(*STACK)) as fs:
        usage = fs.usage()
    left = usage.dev_usage[4].unallocated
    assert left - (2 << 20) <= usage.allocatable_left <= left


def test_heatmap(stack: Stack, tmp_path: Path) -> None:
    """Members of one filesystem make one picture; sprout and seeds are that, too."""
    strange = stack.images(*STACK)
    assert programs.run_here(cli.heatmap, "-q", "-o", tmp_path / "a.png", *strange) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
