"""What the fuzzer found, and what was found by asking what else could grow without bounds."""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from btrfs import FileSystem
from btrfs.ctree import Chunk, InodeRefList, RootBackref, SearchHeader, classify
from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from btrfs.ownership.paths import Paths
from btrfs.space import allocator
from btrfs.space.devices import DeviceSpace
from btrfs.space.filling import fill
from btrfs.volumes import check_chunk
from tests.fuzz import images
from tests.fuzz.cases import Case, Stage
from tests.fuzz.images import HEADER_SIZE, ITEM, ITEM_SIZE, Block, Item
from tests.fuzz.mutate import Change


@contextlib.contextmanager
def damaged(folder: Path, changes: list[Change], seed: str = "single") -> Iterator[FileSystem]:
    """Open a good image after these changes, what cannot be read being left out."""
    case = Case(seed, changes, {}, [], 0)
    with (
        Stage(folder).damaged(case) as paths,
        FileSystem(paths, source="unmounted", on_error="skip") as fs,
    ):
        yield fs


def items_of(key_type: int, seed: str = "single") -> Iterator[tuple[Block, int, Item]]:
    """Yield all items of a type in a good image: block, index and item."""
    for block in images.parse(seed).blocks.values():
        if block.level == 0:
            for index, item in enumerate(block.items()):
                if item.key[1] == key_type:
                    yield block, index, item


def patch(block: Block, at: int, number: int, size: int = 8) -> Change:
    """Return the change of a number in a block."""
    return Change("test", "block", block.vaddr, at, number.to_bytes(size, "little").hex())


def test_usage_without_devices(tmp_path: Path) -> None:
    changes = [
        patch(block, HEADER_SIZE + index * ITEM_SIZE + 8, constants.DEV_ITEM_KEY + 1, 1)
        for block, index, _ in items_of(constants.DEV_ITEM_KEY)
    ]
    with pytest.raises(CorruptError, match="devices"), damaged(tmp_path, changes) as fs:
        fs.usage()


def test_usage_with_a_block_group_of_two_profiles(tmp_path: Path) -> None:
    block, _, item = next(items_of(constants.BLOCK_GROUP_ITEM_KEY))
    with damaged(tmp_path, [patch(block, item.start + 16, 0x1FF)]) as fs:
        assert 0x1FF in {space.flags for space in fs.space_info()}
        with pytest.raises(CorruptError, match="at most one profile"):
            fs.usage()


def test_usage_with_a_chunk_of_two_types(tmp_path: Path) -> None:
    """Of data and system at once: it is refused, or left out and reported."""
    *_, (block, _, item) = items_of(constants.CHUNK_ITEM_KEY)
    with damaged(tmp_path, [patch(block, item.start + 24, 3)]) as fs:
        try:
            fs.usage()
        except CorruptError:
            return
        assert fs.damage_summary() is not None


def test_usage_with_a_device_of_an_exbibyte(tmp_path: Path) -> None:
    block, _, item = next(items_of(constants.DEV_ITEM_KEY))
    with damaged(tmp_path, [patch(block, item.start + 8, 1 << 60)]) as fs:
        assert fs.usage().total == 1 << 60


def test_making_chunks_one_by_one_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What devices of impossible sizes would hold is only estimated."""
    monkeypatch.setattr(allocator, "_MOST_EFFORT", 100_000)
    devices = [
        DeviceSpace(1, 100 << 30, 100 << 30, [60 << 30, 40 << 30]),
        DeviceSpace(2, 1 << 60, (1 << 60) - (1 << 50), [1 << 59, (1 << 59) - (1 << 50)]),
    ]
    data, metadata = constants.BLOCK_GROUP_DATA, constants.BLOCK_GROUP_METADATA
    dup = constants.BLOCK_GROUP_DUP
    filling = fill(devices, data | dup, metadata)
    total = sum(device.unallocated for device in devices)
    assert total * 0.45 < filling.data <= total * 0.5
    assert sum(device.unallocated for device in filling.devices) < 1 << 30
    mixed = fill(devices, data | metadata | dup, metadata)
    assert total * 0.45 < mixed.data <= total * 0.5


def test_directories_deep_inside_one_another() -> None:
    """The kernel lets directories lie as deep inside one another as one likes."""
    depth = 4000
    name = b"directory"
    body = (2).to_bytes(8, "little") + len(name).to_bytes(2, "little") + name

    class Deep:
        """Each inode is in the one before it, each subvolume in the deepest directory."""

        def search(self, tree: int, first: Key, _last: Key) -> Iterator[Any]:
            """Yield the name of an inode, or where a subvolume is."""
            inum = first.objectid
            if tree == constants.ROOT_TREE_OBJECTID:
                parent = inum - 1 if inum > 256 else constants.FS_TREE_OBJECTID
                where = SearchHeader(1, inum, parent, constants.ROOT_BACKREF_KEY, 0)
                yield classify(where, (256 + 100).to_bytes(8, "little") + body)
            else:
                header = SearchHeader(1, inum, inum - 1, constants.INODE_REF_KEY, len(body))
                yield InodeRefList(header, body)

    paths = Paths(cast("FileSystem", Deep()))
    tracemalloc.start()
    try:
        (path,) = paths.of_inode(5, 256 + depth)
        subvolume = paths.of_subvolume(256 + 100)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    assert path == b"/".join([name] * depth)
    # Each is 100 directories below the top of the one before, under a name of its own.
    assert subvolume == b"/".join([name] * 101 * 101)
    assert isinstance(paths.backref(256), RootBackref)


def test_bodies_that_lie_on_one_another(tmp_path: Path) -> None:
    """A thousand items with the same body of 40 KB would be a leaf of 40 MB."""
    nodesize, count, seed = 65536, 1000, "nodesize-65536"
    block = next(b for b in images.parse(seed).blocks.values() if b.tree == 5)
    room = nodesize - HEADER_SIZE - count * ITEM_SIZE
    names = ((5).to_bytes(8, "little") + b"\1\0x") * (room // 11)
    start = nodesize - HEADER_SIZE - len(names)
    records = b"".join(
        ITEM.pack(256 + number, constants.INODE_REF_KEY, 256, start, len(names))
        for number in range(count)
    )
    changes = [
        Change("test", "block", block.vaddr, 96, count.to_bytes(4, "little").hex() + "00"),
        Change("test", "block", block.vaddr, HEADER_SIZE, records.hex()),
        Change("test", "block", block.vaddr, HEADER_SIZE + start, names.hex()),
    ]
    with damaged(tmp_path, changes, seed) as fs:
        assert not list(fs.search(5))
        assert not list(fs.batches(5))
        assert {damage.vaddr for damage in fs.damage} == {block.vaddr}


def test_a_chunk_with_all_its_stripes_on_one_device() -> None:
    """Rebuilding a block from two thousand stripes that are there takes seconds for each block."""
    stripe = (1).to_bytes(8, "little") + (1 << 20).to_bytes(8, "little") + bytes(16)
    count = 1900
    body = b"".join(
        number.to_bytes(size, "little")
        for number, size in (
            *((1 << 30, 8), (2, 8), (65536, 8)),
            (constants.BLOCK_GROUP_METADATA | constants.BLOCK_GROUP_RAID6, 8),
            *((65536, 4), (65536, 4), (4096, 4), (count, 2), (1, 2)),
        )
    )
    body += stripe * count
    key = constants.FIRST_CHUNK_TREE_OBJECTID, 1 << 30, constants.CHUNK_ITEM_KEY
    chunk = Chunk(SearchHeader(1, *key, len(body)), body)
    with pytest.raises(CorruptError, match="device"):
        check_chunk(chunk)
