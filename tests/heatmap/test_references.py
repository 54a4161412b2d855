"""What items of extents tell: as the objects tell it, and whatever bytes there are."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, strategies as st

from btrfs.ctree import FileSystem
from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.items.extent import ExtentItem, MetaDataItem
from btrfs.ondisk.key import Key
from heatmap.extents import references
from heatmap.extents.references import SEVERAL, UNKNOWN
from tests import support
from tests.heatmap.test_layers import FakeFileSystem, Item, batch_of, extent_item, inline_ref

EXTENT_ITEM, METADATA_ITEM = constants.EXTENT_ITEM_KEY, constants.METADATA_ITEM_KEY
DATA, TREE_BLOCK = constants.EXTENT_FLAG_DATA, constants.EXTENT_FLAG_TREE_BLOCK
EXTENT_TREE = constants.EXTENT_TREE_OBJECTID
PAGE = 4096

Extent = ExtentItem | MetaDataItem


def data_ref(root: int) -> bytes:
    return struct.pack("<BQQQI", constants.EXTENT_DATA_REF_KEY, root, 257, 0, 1)


def shared_data_ref(parent: int) -> bytes:
    return struct.pack("<BQI", constants.SHARED_DATA_REF_KEY, parent, 1)


def block_ref(root: int) -> bytes:
    return inline_ref(constants.TREE_BLOCK_REF_KEY, root)


def shared_block_ref(parent: int) -> bytes:
    return inline_ref(constants.SHARED_BLOCK_REF_KEY, parent)


def owner_ref(root: int) -> bytes:
    return inline_ref(constants.EXTENT_OWNER_REF_KEY, root)


def data(*inline: bytes) -> bytes:
    return extent_item(DATA, inline=b"".join(inline))


def block(vaddr: int, *inline: bytes) -> Item:
    return vaddr, METADATA_ITEM, 0, extent_item(TREE_BLOCK, inline=b"".join(inline))


def owners(bodies: list[bytes], *others: Item) -> list[int]:
    """Return whose extents with these bodies are; the others are in the extent tree besides."""
    items: list[Item] = [
        (index * PAGE, EXTENT_ITEM, PAGE, body) for index, body in enumerate(bodies)
    ]
    fs = cast("FileSystem", FakeFileSystem([*items, *others]))
    owner: list[int] = references.owning_trees(fs, batch_of(items)).tolist()
    return owner


def extent_batches(fs: FileSystem) -> Iterator[ItemBatch]:
    for batch in fs.batches(EXTENT_TREE):
        extents = batch.select(np.isin(batch.type, (EXTENT_ITEM, METADATA_ITEM)))
        if len(extents):
            yield extents


def owners_by_objects(fs: FileSystem) -> dict[int, int]:
    """Return the owners of all extents as their objects and those of their parents tell."""
    found = fs.extents(load_data_refs=True, load_metadata_refs=True)
    extents = {extent.vaddr: extent for extent in found}

    @cache
    def trees(vaddr: int) -> frozenset[int]:
        own, parents = refs(extents[vaddr])
        return own.union(*(trees(parent) for parent in parents))

    return {
        vaddr: next(iter(found)) if len(found) == 1 else SEVERAL
        for vaddr, found in ((vaddr, trees(vaddr)) for vaddr in extents)
    }


def refs(extent: Extent) -> tuple[frozenset[int], list[int]]:
    """Return the trees and the parents that refer to an extent."""
    lists: dict[str, list[Any]] = defaultdict(list)
    for name in ("extent_data_refs", "tree_block_refs", "shared_data_refs", "shared_block_refs"):
        lists[name] = getattr(extent, name, [])
    trees = frozenset(ref.root for ref in lists["extent_data_refs"] + lists["tree_block_refs"])
    return trees, [ref.parent for ref in lists["shared_data_refs"] + lists["shared_block_refs"]]


def check(fs: FileSystem) -> set[int]:
    """Compare all extents of a filesystem with their objects; return the owners there are."""
    expected = owners_by_objects(fs)
    objects = {extent.vaddr: extent for extent in fs.extents()}
    seen = set()
    for batch in extent_batches(fs):
        vaddrs = batch.objectid.tolist()
        assert references.generations(batch).tolist() == [objects[v].generation for v in vaddrs]
        assert references.reference_counts(batch).tolist() == [objects[v].refs for v in vaddrs]
        owner = references.owning_trees(fs, batch).tolist()
        assert owner == [expected[vaddr] for vaddr in vaddrs]
        seen.update(owner)
    assert len(expected) > 20
    return seen


def test_a_mounted_filesystem(mounted: support.LoopFilesystem) -> None:
    with FileSystem(mounted.mountpoint) as fs:
        seen = check(fs)
    assert {SEVERAL, 2, 5, 256} < seen
    assert UNKNOWN not in seen


@pytest.mark.parametrize(
    "name", ["block-group-tree.img", "block-group-tree.btrfs-image", "raid-stripe-tree.img"]
)
def test_stored_images(name: str, tmp_path: Path) -> None:
    with FileSystem(support.stored_image(name, tmp_path), unknown_features=True) as fs:
        assert UNKNOWN not in check(fs)


def test_simple_quotas(tmp_path: Path) -> None:
    with FileSystem(support.stored_image("simple-quota.img", tmp_path)) as fs:
        check(fs)
        noted = [
            extent for extent in fs.extents(load_data_refs=True) if hasattr(extent, "owner_refs")
        ]
    assert noted


def test_after_a_balance_parents_tell(tmp_path: Path) -> None:
    with support.filesystem(tmp_path, size="1G", data="single", metadata="single") as made:
        root = made.mountpoint
        support.run("btrfs", "subvolume", "create", root / "one")
        for number in range(400):
            (root / "one" / str(number)).write_bytes(b"1" * 3 * PAGE)
        made.sync()
        balance(made)
        support.run("btrfs", "subvolume", "snapshot", root / "one", root / "two")
        for number in range(10):
            (root / "one" / str(number)).write_bytes(b"2" * 3 * PAGE)
        made.sync()
        with FileSystem(root) as fs:
            before = check(fs)
            by_parent = sum(
                bool(refs(extent)[1]) and not refs(extent)[0]
                for extent in fs.extents(load_data_refs=True)
            )
        assert by_parent > 100
        assert {256, 257, SEVERAL} < before
        support.run("btrfs", "subvolume", "delete", "--commit-after", root / "two")
        support.run("btrfs", "subvolume", "sync", root)
        balance(made)
        made.unmount()
        with FileSystem(made.images[0]) as fs:
            after = check(fs)
    assert 256 in after
    assert SEVERAL not in after


def balance(made: support.LoopFilesystem) -> None:
    support.run("btrfs", "balance", "start", "--full-balance", made.mountpoint)
    made.sync()


@pytest.mark.parametrize(
    ("body", "owner"),
    [
        (data(data_ref(300)), 300),
        (data(data_ref(300), data_ref(300), data_ref(300)), 300),
        (data(data_ref(300), data_ref(300), data_ref(301)), SEVERAL),
        (data(data_ref(301), data_ref(300), data_ref(301)), SEVERAL),
        (data(owner_ref(256), data_ref(300)), 300),
        (data(owner_ref(256)), 256),
        (data(owner_ref(256), shared_data_ref(1 << 30)), 256),
        (data(data_ref(300), shared_data_ref(1 << 30)), SEVERAL),
        (data(shared_data_ref(1 << 30)), UNKNOWN),
        (data(), UNKNOWN),
        (data(data_ref(300))[:-1], UNKNOWN),
        (data(data_ref(300), data_ref(301)[:-1]), 300),
        (data(data_ref(300), bytes(40)), 300),
        (data(bytes(1)), UNKNOWN),
        (data()[:-1], UNKNOWN),
        (b"", UNKNOWN),
        (extent_item(TREE_BLOCK, inline=bytes(18) + block_ref(7)), 7),
        (extent_item(TREE_BLOCK, inline=bytes(18) + block_ref(256) + block_ref(257)), SEVERAL),
        (extent_item(TREE_BLOCK, inline=bytes(18)), UNKNOWN),
        (extent_item(TREE_BLOCK, inline=bytes(3)), UNKNOWN),
        (data(data_ref(constants.ULLONG_MAX)), SEVERAL),
    ],
)
def test_one_item(body: bytes, owner: int) -> None:
    assert owners([body]) == [owner]
    # Others in the same batch change nothing.
    assert owners([data(data_ref(9)), body, data(data_ref(5), data_ref(6))]) == [9, owner, SEVERAL]


def test_skinny_items() -> None:
    items = [block(0, block_ref(2)), block(16384, block_ref(256), block_ref(256))]
    fs = cast("FileSystem", FakeFileSystem(items))
    assert references.owning_trees(fs, batch_of(items)).tolist() == [2, 256]


def test_parents_and_their_parents() -> None:
    near, far = 1 << 30, 1 << 40
    blocks = [
        block(near, block_ref(256)),
        block(near + 16384, block_ref(256), block_ref(257)),
        block(far, shared_block_ref(near)),
        block(far + 16384, shared_block_ref(near), shared_block_ref(near + 32768)),
        block(near + 32768, block_ref(258)),
        # The root of a tree that a balance is making.
        block(near + 49152, shared_block_ref(near + 49152)),
    ]
    bodies = {
        data(shared_data_ref(near)): 256,
        data(shared_data_ref(near), shared_data_ref(far)): 256,
        data(data_ref(256), shared_data_ref(far)): 256,
        data(data_ref(257), shared_data_ref(far)): SEVERAL,
        data(shared_data_ref(near + 16384)): SEVERAL,
        data(shared_data_ref(far + 16384)): SEVERAL,
        data(shared_data_ref(near + 32768), shared_data_ref(far - 16384)): SEVERAL,
        data(shared_data_ref(near + 49152)): constants.TREE_RELOC_OBJECTID,
        data(owner_ref(9), shared_data_ref(near)): 256,
    }
    assert owners(list(bodies), *blocks) == list(bodies.values())


def test_parents_in_a_circle() -> None:
    one, two = 1 << 30, 1 << 31
    circle = [block(one, shared_block_ref(two)), block(two, shared_block_ref(one))]
    bodies = [data(shared_data_ref(one)), data(shared_data_ref(constants.ULLONG_MAX))]
    assert owners(bodies, *circle) == [UNKNOWN, UNKNOWN]


def test_references_that_are_items_of_their_own() -> None:
    def own(index: int, kind: int, offset: int, body: bytes = b"") -> Item:
        return index * PAGE, kind, offset, body

    by_file = constants.EXTENT_DATA_REF_KEY
    others = [
        own(0, by_file, 7, data_ref(300)[1:]),
        own(0, by_file, 8, data_ref(300)[1:]),
        own(1, by_file, 7, data_ref(300)[1:]),
        own(1, by_file, 8, data_ref(301)[1:]),
        own(2, by_file, 7, bytes(7)),
        own(3, constants.SHARED_DATA_REF_KEY, 1 << 30, bytes(4)),
        own(4, constants.TREE_BLOCK_REF_KEY, 7),
        own(5, by_file, 7, data_ref(300)[1:]),
        own(6, by_file, 7, data_ref(300)[1:]),
        block(1 << 30, block_ref(256)),
    ]
    bodies = [data()] * 5 + [data(owner_ref(256)), data(data_ref(301))]
    # The last one has references in its item too, and these are what counts.
    assert owners(bodies, *others) == [300, SEVERAL, UNKNOWN, 256, 7, 300, 301]


class CountingFileSystem(FakeFileSystem):
    """Counts how often it was asked."""

    asked = 0

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        """Count, then yield the items."""
        self.asked += 1
        return super().batches(tree, min_key, max_key)


@pytest.mark.parametrize("parents", [False, True])
def test_looking_up_has_an_end(parents: bool) -> None:
    bodies = [
        data(shared_data_ref((index + 1) << 28)) if parents else data() for index in range(2000)
    ]
    items: list[Item] = [
        (index * PAGE, EXTENT_ITEM, PAGE, body) for index, body in enumerate(bodies)
    ]
    fs = CountingFileSystem([])
    owner = references.owning_trees(cast("FileSystem", fs), batch_of(items))
    assert owner.tolist() == [UNKNOWN] * len(items)
    assert fs.asked == 1000


def test_parents_side_by_side_are_read_at_one_go() -> None:
    first = 1 << 30
    blocks = [block(first + index * 16384, block_ref(300 + index)) for index in range(100)]
    bodies = [data(shared_data_ref(vaddr)) for vaddr, *_ in blocks]
    items: list[Item] = [
        (index * PAGE, EXTENT_ITEM, PAGE, body) for index, body in enumerate(bodies)
    ]
    fs = CountingFileSystem(blocks)
    owner = references.owning_trees(cast("FileSystem", fs), batch_of(items))
    assert owner.tolist() == list(range(300, 400))
    assert fs.asked == 1


def test_numbers() -> None:
    largest = (1 << 63) - 1
    stored = [(1, 7), (largest, largest), (largest + 1, constants.ULLONG_MAX)]
    bodies = [struct.pack("<QQQ", refs, generation, DATA) for refs, generation in stored]
    bodies += [bodies[0][:-1], b""]
    batch = batch_of([(index, EXTENT_ITEM, PAGE, body) for index, body in enumerate(bodies)])
    assert references.reference_counts(batch).tolist() == [1, largest, largest, 0, 0]
    assert references.generations(batch).tolist() == [7, largest, largest, 0, 0]


number = st.one_of(st.integers(0, 20).map(lambda index: index * PAGE), st.integers(0, 2**64 - 1))
inline = st.one_of(
    *(number.map(make) for make in (data_ref, shared_data_ref, block_ref, shared_block_ref)),
    number.map(owner_ref),
    st.binary(max_size=12),
)
body = st.builds(
    lambda start, refs, cut: (start + b"".join(refs))[: -cut or None],
    st.sampled_from([extent_item(DATA), extent_item(TREE_BLOCK)]),
    st.lists(inline, max_size=6),
    st.integers(0, 30),
)


@given(st.lists(st.one_of(body, st.binary(max_size=60)), min_size=1, max_size=12))
def test_any_bytes(bodies: list[bytes]) -> None:
    together = owners(bodies)
    assert len(together) == len(bodies)
    # Each alone, the others in the tree, comes to the same.
    items: list[Item] = [(i * PAGE, EXTENT_ITEM, PAGE, one) for i, one in enumerate(bodies)]
    fs = cast("FileSystem", FakeFileSystem(items))
    alone = [references.owning_trees(fs, batch_of([item]))[0] for item in items]
    assert together == alone
