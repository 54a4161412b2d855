"""Extents in memory: what is kept, what is dropped, and what is read anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from btrfs.ctree import FileSystem
from btrfs_atlas.explorer.model.extent_cache import (
    BYTES_PER_EXTENT,
    Extents,
    Job,
    Memory,
    Store,
    TooManyExtentsError,
    Trees,
    extents_key,
)

LATER = 30.0
"""Seconds that a test waits at most."""


class Sized:
    """Something that takes so many bytes."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


@pytest.fixture(scope="module")
def sample() -> Iterator[Path]:
    data = resources.files("btrfs_atlas") / "data" / "sample.btrfs-image"
    with resources.as_file(data) as path:
        yield path


@pytest.fixture
def store(sample: Path) -> Iterator[Store]:
    with FileSystem(sample) as fs:
        groups = {group.vaddr: group for group in fs.block_groups()}
    store = Store(lambda: FileSystem(sample), Trees([]), 1 << 24, lambda: None)
    store.show(groups, ())
    yield store
    store.close()


def test_the_oldest_goes_first() -> None:
    memory = Memory(100)
    for group in range(3):
        memory.put((group, "thing"), Sized(40))
    assert [memory.get((group, "thing")) is not None for group in range(3)] == [False, True, True]
    # The first of them is used, so the other one goes.
    memory.get((1, "thing"))
    memory.put((3, "thing"), Sized(40))
    assert [memory.get((group, "thing")) is not None for group in range(4)] == [
        *(False, True, False, True)
    ]
    assert memory.nbytes == 80
    memory.put((3, "thing"), Sized(10))
    assert memory.nbytes == 50
    memory.drop_if(lambda key: key[0] == 1)
    assert (memory.get((1, "thing")), memory.nbytes) == (None, 10)


def test_what_changed_while_it_was_read_is_read_again(store: Store) -> None:
    group = next(iter(store._groups))
    made = []

    def make(extents: Extents) -> Sized:
        made.append(len(extents))
        if len(made) == 1:
            store.show(store._groups, [group])
        return Sized(len(made))

    store.want([Job(group, (group, "made"), make)], time.monotonic() + LATER)
    assert len(made) == 2
    assert store.memory.get((group, "made")).nbytes == 2


def test_what_was_wanted_last_is_made_first(store: Store) -> None:
    groups = list(store._groups)[:4]
    order: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def job(group: int) -> Job:
        def make(extents: Extents) -> Extents:
            begun.set()
            go_on.wait(LATER)
            order.append(group)
            return extents

        return Job(group, (group, "made"), make)

    store.want([job(groups[0])])
    assert begun.wait(LATER)
    store.want([job(groups[1])])
    store.want([job(groups[2])], urgent=False)
    go_on.set()
    store.want([job(groups[3])], time.monotonic() + LATER)
    store.want([job(group) for group in groups], time.monotonic() + LATER)
    assert order[0] == groups[0]
    assert order.index(groups[1]) < order.index(groups[2])


def test_nobody_waits_longer_than_he_wants(store: Store) -> None:
    group = next(iter(store._groups))
    go_on = threading.Event()

    def make(extents: Extents) -> Extents:
        go_on.wait(LATER)
        return extents

    begin = time.monotonic()
    store.want([Job(group, (group, "made"), make)], begin + 0.2)
    assert 0.15 < time.monotonic() - begin < LATER / 2
    assert store.memory.get((group, "made")) is None
    go_on.set()


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), MemoryError(), ValueError("a fault")])
def test_what_cannot_be_read_does_not_end_all_reading(
    sample: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    errors = [error]

    def open_sometimes() -> FileSystem:
        if errors:
            raise errors.pop()
        return FileSystem(sample)

    store = Store(open_sometimes, Trees([]), 1 << 24, lambda: None)
    with FileSystem(sample) as fs:
        store.show({group.vaddr: group for group in fs.block_groups()}, ())
    first, second, *_ = store._groups
    for group in (first, second):
        job = Job(group, extents_key(group), lambda extents: extents)
        store.want([job], time.monotonic() + LATER)
    assert store.failure(first) is not None
    assert store.extents(second) is not None
    assert bool(caplog.records) == (not isinstance(error, OSError))
    store.close()


def test_too_many_extents_are_told_and_not_kept(sample: Path) -> None:
    with FileSystem(sample) as fs:
        groups = {group.vaddr: group for group in fs.block_groups()}
        counts = {
            vaddr: sum(1 for _ in fs.extents(vaddr, vaddr + group.length - 1))
            for vaddr, group in groups.items()
        }
    fullest = max(counts, key=lambda vaddr: counts[vaddr])
    limit = BYTES_PER_EXTENT * counts[fullest]  # of which one block group may take half
    store = Store(lambda: FileSystem(sample), Trees([]), limit, lambda: None)
    store.show(groups, ())
    jobs = [Job(vaddr, extents_key(vaddr), lambda extents: extents) for vaddr in groups]
    store.want(jobs, time.monotonic() + LATER)
    assert isinstance(store.failure(fullest), TooManyExtentsError)
    small = min(counts, key=lambda vaddr: counts[vaddr])
    assert store.failure(small) is None
    assert store.memory.nbytes <= limit
    # After a change it is tried again.
    store.show(groups, [fullest])
    assert store.failure(fullest) is None
    store.close()
