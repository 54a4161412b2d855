"""Layers: what a filesystem says, put on an address line, however damaged it is."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import example, given, strategies as st

from btrfs.ctree import FileSystem
from btrfs.ondisk import constants
from btrfs.ondisk.columns import ItemBatch
from btrfs.ondisk.key import Key
from btrfs.source.damage import LostKeys
from heatmap.extents import types
from heatmap.intervals import Intervals
from heatmap.layers import block_groups
from heatmap.layers.devices import devices as layer_of_devices
from heatmap.layers.extents import extents as extent_layer

DATA = constants.EXTENT_FLAG_DATA
TREE_BLOCK = constants.EXTENT_FLAG_TREE_BLOCK
EXTENT_ITEM = constants.EXTENT_ITEM_KEY
METADATA_ITEM = constants.METADATA_ITEM_KEY
TREE_BLOCK_REF = constants.TREE_BLOCK_REF_KEY
SHARED_BLOCK_REF = constants.SHARED_BLOCK_REF_KEY

NODESIZE = 16384
GROUP = 1 << 30

Item = tuple[int, int, int, bytes]


def extent_item(flags: int, refs: int = 1, inline: bytes = b"") -> bytes:
    return struct.pack("<QQQ", refs, 7, flags) + inline


def inline_ref(kind: int, number: int) -> bytes:
    return struct.pack("<BQ", kind, number)


class FakeFileSystem:
    """As much of a filesystem as the layers ask for, made from items of an extent tree."""

    nodesize = NODESIZE
    sectorsize = 4096
    lost: Sequence[LostKeys] = ()

    def __init__(self, items: list[Item], **more: Any) -> None:
        self.items = sorted(items)
        self.__dict__.update(more)

    def batches(self, tree: int, min_key: Key, max_key: Key) -> Iterator[ItemBatch]:
        """Yield the items between two keys, a few at a time."""
        assert tree == constants.EXTENT_TREE_OBJECTID
        found = [item for item in self.items if min_key <= Key(*item[:3]) <= max_key]
        for first in range(0, len(found), 3):
            yield batch_of(found[first : first + 3])


def batch_of(items: list[Item]) -> ItemBatch:
    bodies = [body for *_, body in items]
    sizes = np.array([len(body) for body in bodies], dtype=np.uint32)
    return ItemBatch(
        buffer=np.frombuffer(b"".join(bodies), dtype=np.uint8),
        objectid=np.array([item[0] for item in items], dtype=np.uint64),
        type=np.array([item[1] for item in items], dtype=np.uint8),
        offset=np.array([item[2] for item in items], dtype=np.uint64),
        transid=np.ones(len(items), dtype=np.uint64),
        body=np.cumsum(sizes, dtype=np.int64) - sizes,
        size=sizes,
    )


def block_group(vaddr: int, length: int = GROUP, used: int = 0, flags: int = 1) -> Any:
    return SimpleNamespace(vaddr=vaddr, length=length, used=used, flags=flags)


def shown(items: list[Item], *groups: Any, verbose: int = 0) -> list[Intervals]:
    fs = cast("FileSystem", FakeFileSystem(items))
    return list(extent_layer(fs, list(groups)).batches(verbose))


def names(items: list[Item]) -> list[str]:
    """Return what each extent is shown as."""
    return [
        types.EXTENTS.names[value]
        for batch in shown(items, block_group(0))
        for value in batch.value
    ]


def skinny(root: int) -> list[Item]:
    body = extent_item(TREE_BLOCK, inline=inline_ref(TREE_BLOCK_REF, root))
    return [(NODESIZE, METADATA_ITEM, 0, body)]


@pytest.mark.parametrize(
    ("root", "name"),
    [
        (1, "root tree"),
        (2, "extent tree"),
        (3, "chunk tree"),
        (4, "device tree"),
        (5, "subvolumes"),
        (7, "checksum tree"),
        (8, "quota tree"),
        (9, "UUID tree"),
        (10, "free space tree"),
        (11, "other trees"),
        (255, "other trees"),
        (256, "subvolumes"),
        (1 << 40, "subvolumes"),
        (constants.DATA_RELOC_TREE_OBJECTID, "data relocation tree"),
        (constants.LAST_FREE_OBJECTID, "subvolumes"),
        (constants.TREE_RELOC_OBJECTID, "other trees"),
        (constants.ULLONG_MAX, "other trees"),
    ],
)
def test_owners(root: int, name: str) -> None:
    assert names(skinny(root)) == [name]
    level_and_key = bytes(18)
    old = level_and_key + inline_ref(TREE_BLOCK_REF, root)
    assert names([(0, EXTENT_ITEM, NODESIZE, extent_item(TREE_BLOCK, inline=old))]) == [name]


def test_shared_blocks_belong_to_subvolumes() -> None:
    shared = extent_item(TREE_BLOCK | 256, inline=inline_ref(SHARED_BLOCK_REF, 2))
    several = extent_item(TREE_BLOCK, refs=2, inline=inline_ref(TREE_BLOCK_REF, 2))
    bodies = [shared, several]
    items = [(i * NODESIZE, METADATA_ITEM, 0, body) for i, body in enumerate(bodies)]
    assert names(items) == ["subvolumes", "subvolumes"]


def test_references_in_items_of_their_own() -> None:
    bare = extent_item(TREE_BLOCK)
    items = [(i * NODESIZE, METADATA_ITEM, 0, bare) for i in range(4)]
    items += [
        (0, TREE_BLOCK_REF, 2, b""),
        (NODESIZE, SHARED_BLOCK_REF, 1 << 20, b""),
        (2 * NODESIZE, TREE_BLOCK_REF, 300, b""),
    ]
    assert names(items) == ["extent tree", "subvolumes", "subvolumes", "other trees"]


def test_data_is_data() -> None:
    ref = struct.pack("<BQQQI", constants.EXTENT_DATA_REF_KEY, 5, 257, 0, 1)
    items = [(0, EXTENT_ITEM, 8192, extent_item(DATA, inline=ref))]
    assert names(items) == ["data"]


@pytest.mark.parametrize("size", range(42))
def test_items_cut_short(size: int) -> None:
    whole = skinny(1)[0][3]
    assert len(names([(0, METADATA_ITEM, 0, whole[:size])])) == 1
    assert len(names([(0, EXTENT_ITEM, NODESIZE, (whole + bytes(18))[:size])])) == 1


@example(items=[(constants.ULLONG_MAX - GROUP, EXTENT_ITEM, 0, b"")])
@given(
    st.lists(
        st.tuples(
            st.integers(0, constants.ULLONG_MAX),
            st.sampled_from([EXTENT_ITEM, METADATA_ITEM, TREE_BLOCK_REF]),
            st.integers(0, constants.ULLONG_MAX),
            st.binary(max_size=60),
        ),
        max_size=8,
    )
)
def test_whatever_is_on_disk_stays_inside_its_block_groups(items: list[Item]) -> None:
    groups = [block_group(0), block_group(GROUP), block_group(constants.ULLONG_MAX - GROUP)]
    for batch in shown(items, *groups):
        assert (batch.start >= 0).all()
        assert (batch.length >= 0).all()
        assert (batch.start + batch.length <= 3 * GROUP).all()
        assert (batch.value < len(types.EXTENTS)).all()


def test_block_groups_in_the_order_given() -> None:
    items = [(vaddr, EXTENT_ITEM, 4096, extent_item(DATA)) for vaddr in (0, GROUP, 5 * GROUP)]
    groups = [block_group(5 * GROUP), block_group(0), block_group(GROUP)]
    starts = [int(start) for batch in shown(items, *groups) for start in batch.start]
    assert starts == [0, GROUP, 2 * GROUP]


def test_words_of_extents() -> None:
    items = [
        (GROUP + 4096, EXTENT_ITEM, 8192, extent_item(DATA)),
        (GROUP + 65536, METADATA_ITEM, 0, skinny(1)[0][3]),
    ]
    empty, first = block_group(0), block_group(GROUP)
    told = [text for batch in shown(items, empty, first, verbose=1) for text in batch.descriptions]
    assert told == [
        str(empty),
        str(first),
        f"extent vaddr {GROUP + 4096} first_byte {GROUP + 4096} type EXTENT_ITEM length 8192",
        f"extent vaddr {GROUP + 65536} first_byte {GROUP + 65536} type METADATA_ITEM length 16384",
    ]


def device_layer(*dev_extents: tuple[int, int, int], verbose: int = 0) -> list[Intervals]:
    """Return what is shown of devices 1 and 2, a GiB each, with these (devid, paddr, length)."""
    groups = [block_group(0, GROUP, used=GROUP // 4, flags=constants.BLOCK_GROUP_SYSTEM)]

    def found(min_devid: int, max_devid: int) -> Iterator[Any]:
        for devid, paddr, length in dev_extents:
            if min_devid <= devid <= max_devid:
                yield SimpleNamespace(
                    devid=devid, paddr=paddr, length=length, vaddr=0 if paddr % 2 == 0 else 77
                )

    fs = FakeFileSystem([], dev_extents=found, block_groups=lambda: iter(groups))
    devices = [SimpleNamespace(devid=devid, total_bytes=GROUP) for devid in (2, 1)]
    layer = layer_of_devices(cast("FileSystem", fs), cast("Any", devices))
    assert layer.scope == "device 2 1"
    assert layer.total_bytes == 2 * GROUP
    return list(layer.batches(verbose))


def test_devices_in_the_order_given() -> None:
    second, first = device_layer((1, 4096, 8192), (2, 1 << 20, 4096))
    assert (second.start.tolist(), second.length.tolist()) == ([1 << 20], [4096])
    assert (first.start.tolist(), first.length.tolist()) == ([GROUP + 4096], [8192])
    assert first.used is not None
    assert first.used.tolist() == [0.25]
    assert block_groups.BLOCK_GROUPS.names[first.value[0]] == "system"


def test_device_extents_without_block_group_are_left_out() -> None:
    assert [len(batch) for batch in device_layer((1, 4097, 8192))] == [0, 0]


def test_device_extents_stay_on_their_device() -> None:
    second, _ = device_layer((2, GROUP - 4096, 1 << 62), (2, 1 << 63, 4096))
    assert (second.start.tolist(), second.length.tolist()) == ([GROUP - 4096], [4096])


def test_words_of_device_extents() -> None:
    _, first = device_layer((1, 4096, 8192), verbose=1)
    assert list(first.descriptions) == [
        "dev_extent devid 1 paddr 4096 length 8192 pend 12287 type SYSTEM used_pct 25.00"
    ]
