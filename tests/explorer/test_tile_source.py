"""What tiles are drawn from: what is kept, what is dropped, and what is read anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from btrfs.ctree import BlockGroupItem, FileSystem
from btrfs_atlas.explorer import tile_source
from btrfs_atlas.explorer.model.extent_cache import ExtentCache
from btrfs_atlas.explorer.tile_source import COLUMNS, TileSource
from heatmap.extents import table
from heatmap.extents.table import COMPRESSION, Extents, TooManyExtentsError
from heatmap.extents.trees import Trees

LATER = 30.0
"""Seconds that a test waits at most."""


@dataclass
class Sized:
    """An object of so many bytes."""

    nbytes: int


@pytest.fixture(scope="module")
def sample() -> Iterator[Path]:
    data = resources.files("btrfs_atlas") / "data" / "sample.btrfs-image"
    with resources.as_file(data) as path:
        yield path


@pytest.fixture(scope="module")
def groups(sample: Path) -> dict[int, BlockGroupItem]:
    with FileSystem(sample) as fs:
        return {group.vaddr: group for group in fs.block_groups()}


Source = Callable[..., TileSource]


@pytest.fixture
def source(sample: Path, groups: dict[int, BlockGroupItem]) -> Iterator[Source]:
    """Makes sources of tiles of the sample."""
    made = []

    def make(
        memory: int = 1 << 24, open_filesystem: Callable[[], FileSystem] | None = None
    ) -> TileSource:
        opener = open_filesystem or (lambda: FileSystem(sample))
        made.append(TileSource(opener, Trees([]), memory, 1 << 30, lambda: None))
        made[-1].show(groups, {}, ())
        return made[-1]

    yield make
    for one in made:
        one.close()


def read(source: TileSource, group: int, *more: table.Column) -> Extents | None:
    return source.wait_for_extents(group, (*COLUMNS, *more), time.monotonic() + LATER)


def test_the_oldest_goes_first() -> None:
    cache = ExtentCache(100)
    for group in range(3):
        cache.put((group, "thing"), Sized(40))
    assert [cache.get((group, "thing")) is not None for group in range(3)] == [False, True, True]
    # The first of them is used, so the other one goes.
    cache.get((1, "thing"))
    cache.put((3, "thing"), Sized(40))
    assert [cache.get((group, "thing")) is not None for group in range(4)] == [
        *(False, True, False, True)
    ]
    assert cache.nbytes == 80
    cache.put((3, "thing"), Sized(10))
    assert cache.nbytes == 50
    cache.drop_if(lambda key: key[0] == 1)
    assert (cache.get((1, "thing")), cache.nbytes) == (None, 10)


def test_what_changed_while_it_was_read_is_read_again(
    source: Source, groups: dict[int, BlockGroupItem], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = source()
    group = next(iter(groups))
    reads = []

    def change_once(*args: Any) -> Extents:
        reads.append(args)
        if len(reads) == 1:
            one.show(groups, {}, [group])
        return table.read_extents(*args)

    monkeypatch.setattr(tile_source, "read_extents", change_once)
    assert read(one, group) is not None
    assert len(reads) == 2


def test_what_changed_is_forgotten(source: Source, groups: dict[int, BlockGroupItem]) -> None:
    one = source()
    first, second, *_ = groups
    assert read(one, first) is not None
    assert read(one, second) is not None
    one.show(groups, {}, [first])
    assert one.extents(first) is None
    assert one.extents(second) is not None


def test_a_table_is_read_again_if_it_lacks_a_column(
    source: Source, groups: dict[int, BlockGroupItem]
) -> None:
    one = source()
    group = next(iter(groups))
    extents = read(one, group)
    assert extents is not None
    assert not extents.has([COMPRESSION])
    more = read(one, group, COMPRESSION)
    assert more is not None
    assert more.has([*COLUMNS, COMPRESSION])
    assert read(one, group) is more


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), MemoryError(), ValueError("a fault")])
def test_what_cannot_be_read_does_not_end_all_reading(
    source: Source,
    sample: Path,
    groups: dict[int, BlockGroupItem],
    error: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    errors = [error]

    def open_sometimes() -> FileSystem:
        if errors:
            raise errors.pop()
        return FileSystem(sample)

    one = source(open_filesystem=open_sometimes)
    first, second, *_ = groups
    assert read(one, first) is None
    assert one.failure(first) is not None
    assert read(one, second) is not None
    assert bool(caplog.records) == (not isinstance(error, OSError))


def test_a_table_too_large_for_the_memory_is_an_error(
    source: Source, sample: Path, groups: dict[int, BlockGroupItem]
) -> None:
    with FileSystem(sample) as fs:
        tables = {
            vaddr: table.read_extents(fs, vaddr, group.length, COLUMNS, Trees([])).nbytes
            for vaddr, group in groups.items()
        }
    fullest = max(tables, key=lambda vaddr: tables[vaddr])
    limit = 2 * tables[fullest] - 2  # of which one block group may take half
    one = source(limit)
    for vaddr in groups:
        read(one, vaddr)
    assert isinstance(one.failure(fullest), TooManyExtentsError)
    small = min(tables, key=lambda vaddr: tables[vaddr])
    assert one.failure(small) is None
    assert one.cache.nbytes <= limit
    # After a change it is tried again.
    one.show(groups, {}, [fullest])
    assert one.failure(fullest) is None
