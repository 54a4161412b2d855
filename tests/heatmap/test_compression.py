"""How extents are compressed: as all file extent items say it, whatever bytes there are."""

from __future__ import annotations

import itertools
import random
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from btrfs import FileSystem, ioctl
from btrfs.ctree import ExtentItem, FileExtentItem, Key
from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ownership import backrefs
from heatmap.extents import compression
from heatmap.extents.compression import COMPRESSIONS, compressions
from tests import support
from tests.heatmap.test_layers import FakeFileSystem, Item, batch_of, extent_item
from tests.lab.populate import compress
from tests.library.reading import trees
from tests.library.test_backrefs import clone, destroy, make_files

EXTENT_ITEM, METADATA_ITEM = constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY
DATA, TREE_BLOCK = constants.EXTENT_FLAG_DATA, constants.EXTENT_FLAG_TREE_BLOCK
EXTENT_TREE = constants.EXTENT_TREE_OBJECTID
NONE, ZLIB, LZO, ZSTD, UNKNOWN, METADATA = range(6)
PAGE = 4096


def extents_of(fs: FileSystem) -> Iterator[ItemBatch]:
    for batch in fs.batches(EXTENT_TREE):
        yield batch.select((batch.type == EXTENT_ITEM) | (batch.type == METADATA_ITEM))


def found(fs: FileSystem) -> dict[int, int]:
    """Return how each extent is compressed, by its address."""
    values: dict[int, int] = {}
    for batch in extents_of(fs):
        value = compressions(fs, batch)
        assert value.dtype == np.uint8
        values |= dict(zip(batch.objectid.tolist(), value.tolist(), strict=True))
    return values


def expected(fs: FileSystem) -> dict[int, int]:
    """Return the same, by reading all files of all trees."""
    known = {
        item.disk_bytenr: item.compression
        for tree in trees(fs)
        for item in fs.search(tree)
        if isinstance(item, FileExtentItem) and item.type != constants.FILE_EXTENT_INLINE
    }
    return {
        extent.vaddr: known.get(extent.vaddr, UNKNOWN)
        if isinstance(extent, ExtentItem) and extent.flags & DATA
        else METADATA
        for extent in fs.extents()
    }


def bare(fs: FileSystem) -> list[ExtentItem]:
    """Return the extents of data whose items have no references in them, only beside them."""
    return [
        item
        for item in fs.search(EXTENT_TREE)
        if isinstance(item, ExtentItem)
        and item.flags & DATA
        and not (item.extent_data_refs or item.shared_data_refs)
    ]


def make_bare(root: Path) -> None:
    """Share an extent between many files, and delete those that its item names."""
    (root / "source").write_bytes(b"s" * 2 * PAGE)
    for number in range(60):
        clone(root / "source", root / f"sharing{number}", 0, PAGE, 0)
    support.run("btrfs", "filesystem", "sync", root)
    with FileSystem(root) as fs:
        extent = max(
            (extent for extent in fs.search(EXTENT_TREE) if isinstance(extent, ExtentItem)),
            key=lambda extent: len(getattr(extent, "extent_data_refs", ())),
        )
        named = {ref.objectid for ref in extent.extent_data_refs}
    for path in root.iterdir():
        if path.stat().st_ino in named:
            path.unlink()
    support.run("btrfs", "filesystem", "sync", root)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[support.LoopFilesystem]:
    """Files, and what is left of a subvolume of which there were snapshots."""
    with support.filesystem(
        tmp_path_factory.mktemp("compression"),
        size="512M",
        nodesize=PAGE,
        mount_options="commit=1",
    ) as fs:
        root = fs.mountpoint
        make_bare(root)
        make_files(root)
        compress(root / "methods", random.Random(1))
        fs.btrfs("subvolume", "create", root / "volume")
        make_files(root / "volume")
        compress(root / "volume" / "methods", random.Random(2))
        for name in ("a", "b"):
            fs.btrfs("subvolume", "snapshot", root / "volume", root / name)
        (root / "a" / "methods" / "more").write_bytes(b"more" * PAGE)
        fs.btrfs("subvolume", "delete", root / "volume")
        fs.btrfs("subvolume", "sync", root)
        fs.sync()
        yield fs


@pytest.fixture(params=["mounted", "unmounted"])
def fs(request: pytest.FixtureRequest, made: support.LoopFilesystem) -> Iterator[FileSystem]:
    target = made.mountpoint if request.param == "mounted" else made.devices[0]
    with FileSystem(target, source=request.param) as opened:
        yield opened


def test_every_extent(fs: FileSystem) -> None:
    extents = [item for item in fs.extents(load_data_refs=True) if isinstance(item, ExtentItem)]
    assert any(extent.shared_data_refs and not extent.extent_data_refs for extent in extents)
    assert bare(fs)
    values = found(fs)
    assert values == expected(fs)
    assert set(values.values()) == {NONE, ZLIB, LZO, ZSTD, METADATA}
    assert min(Counter(values.values()).values()) > 5


def test_one_extent_at_a_time(fs: FileSystem) -> None:
    values = expected(fs)
    for batch in extents_of(fs):
        for index in range(0, len(batch), 7):
            one = batch.select(slice(index, index + 1))
            assert compressions(fs, one).tolist() == [values[int(one.objectid[0])]]
        assert compressions(fs, batch.select(slice(0, 0))).tolist() == []


def test_after_a_balance(tmp_path: Path) -> None:
    """All references to data are of leaves, and simple quotas note who wrote it."""
    with support.filesystem(tmp_path, size="512M", features=("^skinny-metadata",)) as fs:
        with FileSystem(fs.mountpoint) as mounted:
            ioctl.quota_enable(mounted.fd, simple=True)
        make_files(fs.mountpoint)
        compress(fs.mountpoint / "methods", random.Random(1))
        fs.sync()
        with FileSystem(fs.devices[0], source="unmounted") as unmounted:
            noted = [
                extent
                for extent in unmounted.extents(load_data_refs=True)
                if isinstance(extent, ExtentItem) and getattr(extent, "owner_refs", None)
            ]
            assert len(noted) > 100
            assert found(unmounted) == expected(unmounted)
        fs.btrfs("balance", "start", "--full-balance", fs.mountpoint)
        fs.sync()
        with (
            FileSystem(fs.mountpoint) as mounted,
            FileSystem(fs.devices[0], source="unmounted") as unmounted,
        ):
            assert found(mounted) == found(unmounted) == expected(unmounted)


def test_lookups_have_an_end(fs: FileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_MOST_LOOKUPS", 1)
    values, right = found(fs), expected(fs)
    assert UNKNOWN in values.values()
    assert all(value in {UNKNOWN, right[vaddr]} for vaddr, value in values.items())


class Counting:
    """A filesystem that notes what is read of it."""

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs
        self.searches: list[tuple[int, Key, Key]] = []
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.fs, name)

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        """Yield what the filesystem does."""
        self.searches.append((tree, min_key, max_key))
        for batch in self.fs.batches(tree, min_key, max_key):
            self.read += len(batch)
            yield batch


def fragment(path: Path, pages: int) -> None:
    """Write a file of extents that are a page each."""
    with path.open("wb") as file:
        for page in range(pages):
            file.seek(2 * page * PAGE)
            file.write(b"f" * PAGE)


def test_little_is_read_that_is_not_asked_for(tmp_path: Path) -> None:
    names = ("first", "large", *(f"behind{number}" for number in range(60)))
    with support.filesystem(tmp_path, size="1G") as fs:
        for name in names:
            if name == "large":
                fragment(fs.mountpoint / name, 60_000)
            else:
                (fs.mountpoint / name).write_bytes(b"n" * PAGE)
        fs.sync()
        inums = [(fs.mountpoint / name).stat().st_ino for name in names]
        assert inums == list(range(inums[0], inums[0] + len(names)))
        with FileSystem(fs.devices[0], source="unmounted") as unmounted:
            # One after another, but with most of a large file between them.
            for chosen, searches, read in (
                (inums, 2, 30_000),
                ([inums[1], inums[40]], 2, 1000),
                ([inums[0]], 1, 10),
                ([inums[2], inums[10], inums[-1]], 2, 50),
            ):
                counting = Counting(unmounted)
                places = compression._FileRanges(
                    np.array(chosen, np.uint64), np.zeros(len(chosen), np.uint64), 128 << 10
                )
                begins = set()
                for items in compression._items_near(
                    cast("FileSystem", counting), constants.FS_TREE_OBJECTID, places
                ):
                    files = items.of_type(constants.EXTENT_DATA_KEY)
                    begins |= set(files.objectid[files.offset == 0].tolist())
                assert begins >= set(chosen)
                assert len(counting.searches) == searches
                assert counting.read < read


# Damage.


def test_files_that_cannot_be_read(made: support.LoopFilesystem, tmp_path: Path) -> None:
    """What nobody can tell is not known; the rest is."""
    (image,) = made.copy_images(tmp_path)
    with FileSystem(image, source="unmounted") as fs:
        before = expected(fs)
        shared = next(
            extent.shared_data_refs[0].parent
            for extent in fs.extents(load_data_refs=True)
            if isinstance(extent, ExtentItem) and extent.flags & DATA and extent.shared_data_refs
        )
        root = fs.block_source().root(constants.FS_TREE_OBJECTID).vaddr
    for vaddr in (shared, root):
        destroy(image, vaddr)
        with FileSystem(image, source="unmounted") as fs, pytest.raises(CorruptError):
            found(fs)
        with FileSystem(image, source="unmounted", on_error="skip") as fs:
            after = found(fs)
        assert set(after) == set(before)
        differing = {vaddr for vaddr in before if after[vaddr] != before[vaddr]}
        assert {after[vaddr] for vaddr in differing} == {UNKNOWN}


def test_subvolume_that_is_gone() -> None:
    extent = (1 << 20, EXTENT_ITEM, PAGE, extent_item(DATA, inline=data_ref(300, 257, 0)))
    assert values_of([extent], {}) == [UNKNOWN]


# Any bytes.


def data_ref(root: int, inum: int, offset: int) -> bytes:
    return struct.pack("<BQQQI", constants.EXTENT_DATA_REF_KEY, root, inum, offset, 1)


def file_extent(vaddr: int, method: int, kind: int = constants.FILE_EXTENT_REG) -> bytes:
    return struct.pack("<QQBBHBQQQQ", 7, PAGE, method, 0, 0, kind, vaddr, PAGE, 0, PAGE)


class FakeTrees(FakeFileSystem):
    """A filesystem that is not mounted, with an extent tree and others."""

    mounted = False

    def __init__(self, items: list[Item], others: dict[int, list[Item]], leaf: list[bytes]) -> None:
        super().__init__(items)
        self.others = others
        self.leaf = leaf

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        """Yield the items of a tree between two keys, a few at a time."""
        if tree == EXTENT_TREE:
            yield from super().batches(tree, min_key, max_key)
        elif tree not in self.others:
            raise FileNotFoundError
        else:
            yield from FakeFileSystem(self.others[tree]).batches(EXTENT_TREE, min_key, max_key)


def values_of(
    items: list[Item], others: dict[int, list[Item]], leaf: list[bytes] | None = None
) -> list[int]:
    """Return how the extents of a filesystem made of these items are compressed."""
    fake = FakeTrees(items, others, leaf or [])

    def leaf_items(_fs: object, _vaddr: int) -> Iterator[tuple[SearchHeader, memoryview]]:
        for body in fake.leaf:
            header = SearchHeader(1, 257, 0, constants.EXTENT_DATA_KEY, len(body))
            yield header, memoryview(body)

    with mock.patch.object(backrefs, "leaf_items", leaf_items):
        extents = [item for item in sorted(items) if item[1] in {EXTENT_ITEM, METADATA_ITEM}]
        return list(compressions(cast("FileSystem", fake), batch_of(extents)).tolist())


def test_reference_before_the_beginning_of_a_file() -> None:
    """Where the first part of an extent is not used, it would begin before the file."""
    first, second, third = 1 << 20, 2 << 20, 3 << 20
    items = [
        (first, EXTENT_ITEM, PAGE, extent_item(DATA, inline=data_ref(5, 257, (1 << 64) - PAGE))),
        (second, EXTENT_ITEM, PAGE, extent_item(DATA, inline=data_ref(5, 257, 1 << 40))),
        (third, EXTENT_ITEM, PAGE, extent_item(DATA, inline=data_ref(5, 300, 0))),
    ]
    files = [
        (257, constants.EXTENT_DATA_KEY, 0, file_extent(first, LZO)),
        (257, constants.EXTENT_DATA_KEY, 1 << 40, file_extent(second, 77)),
        (300, constants.EXTENT_DATA_KEY, 0, file_extent(third, ZSTD, constants.FILE_EXTENT_INLINE)),
        (300, constants.EXTENT_DATA_KEY, PAGE, file_extent(third, ZLIB, 2)),
    ]
    assert values_of(items, {5: files}) == [LZO, UNKNOWN, ZLIB]


def test_use_far_behind_the_beginning_of_an_extent() -> None:
    """What was before it in the file has been written over, in many pieces."""
    length, second = 64 * PAGE, 2 << 20
    items = [
        (1 << 20, EXTENT_ITEM, length, extent_item(DATA, inline=data_ref(5, 257, 0))),
        (second, EXTENT_ITEM, PAGE, extent_item(DATA, inline=data_ref(5, 258, 0))),
    ]
    files = [
        *(
            (257, constants.EXTENT_DATA_KEY, page * PAGE, file_extent((3 << 20) + page * PAGE, 0))
            for page in range(60)
        ),
        (257, constants.EXTENT_DATA_KEY, 60 * PAGE, file_extent(1 << 20, LZO)),
        (258, constants.EXTENT_DATA_KEY, 0, file_extent(second, ZSTD)),
    ]
    assert values_of(items, {5: files}) == [LZO, ZSTD]
    assert values_of(items[:1], {5: files}) == [LZO]


def test_data_that_claims_to_be_a_tree_block_too() -> None:
    inline = data_ref(5, 257, 0)
    items = [
        (1 << 20, EXTENT_ITEM, PAGE, extent_item(DATA | TREE_BLOCK, inline=inline)),
        (2 << 20, EXTENT_ITEM, PAGE, extent_item(0, inline=inline)),
    ]
    assert values_of(items, {5: []}) == [METADATA, UNKNOWN]


numbers = st.sampled_from([0, 1, 5, 256, PAGE, 1 << 20, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
kinds = st.sampled_from(
    [
        constants.EXTENT_DATA_REF_KEY,
        constants.SHARED_DATA_REF_KEY,
        constants.EXTENT_OWNER_REF_KEY,
        constants.TREE_BLOCK_REF_KEY,
        0,
    ]
)
references = st.builds(
    lambda kind, parts, cut: struct.pack("<BQQQI", kind, *parts, 1)[:cut],
    kinds,
    st.tuples(numbers, numbers, numbers),
    st.integers(0, 29),
) | st.just(b"")
bodies = st.builds(
    lambda flags, inline, cut: extent_item(flags, inline=inline)[:cut],
    st.sampled_from([DATA, TREE_BLOCK, DATA | TREE_BLOCK, 0]),
    st.builds(b"".join, st.lists(references, max_size=3)),
    st.sampled_from([0, 8, 23, 24, 100, 100]),
)
file_bodies = st.builds(
    lambda vaddr, method, kind, cut: file_extent(vaddr, method, kind)[:cut],
    numbers,
    st.integers(0, 255),
    st.integers(0, 3),
    st.sampled_from([0, 21, 52, 53, 53]),
)


@given(
    st.dictionaries(
        st.tuples(numbers, st.sampled_from([EXTENT_ITEM, METADATA_ITEM, 178, 184]), numbers),
        bodies,
        min_size=1,
        max_size=8,
    ),
    st.dictionaries(
        st.tuples(numbers, st.sampled_from([1, 108, 108, 200]), numbers), file_bodies, max_size=8
    ),
    st.lists(file_bodies, max_size=4),
)
def test_any_bytes(
    items: dict[tuple[int, int, int], bytes],
    files: dict[tuple[int, int, int], bytes],
    leaf: list[bytes],
) -> None:
    tree = [(*key, body) for key, body in files.items()]
    extents = [(*key, body) for key, body in items.items()]
    values = values_of(extents, {5: tree, 256: tree}, leaf)
    assert all(0 <= value < len(COMPRESSIONS) for value in values)


# Colours.


def test_colours_stay_apart() -> None:
    """From one another, whatever cones an eye lacks, and from black and white."""
    light = _linear(COMPRESSIONS.colours / 255)
    luminance = light @ (0.2126, 0.7152, 0.0722)
    assert ((luminance + 0.05) / 0.05 >= 3).all()
    assert (1.05 / (luminance + 0.05) >= 3).all()
    for sight in _SIGHT:
        lab = _lab(light @ np.array(sight).T)
        for one, other in itertools.combinations(lab, 2):
            assert np.linalg.norm(one - other) > 25


def _linear(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def _lab(light: NDArray[np.float64]) -> NDArray[np.float64]:
    to_xyz = np.array(
        [(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)]
    )
    xyz = np.clip(light, 0, 1) @ to_xyz.T / to_xyz.sum(axis=1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


# Linear light as seen by all eyes, and by those that lack red, green or blue cones (Machado,
# Oliveira and Fernandes 2009).
_SIGHT = (
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
)
