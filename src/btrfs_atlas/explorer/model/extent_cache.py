"""Extents in memory: read block group by block group as they are needed, the oldest dropped first.

A thread of its own reads, so that those who draw never wait longer than they want to. What was
asked for last is read first: it is what somebody looks at now.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from btrfs.errors import BtrfsError
from heatmap.extents import compression, reading as extents_of, references, types
from heatmap.palette import UNREADABLE

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, FileSystem
    from btrfs.ondisk.columns import ItemBatch

_logger = logging.getLogger(__name__)

Key = tuple[Hashable, ...]
"""Under what something is kept; the virtual address of its block group comes first."""

BYTES_PER_EXTENT = 34
"""Memory that the columns of `Extents` take."""

UNREADABLE_TYPE = types.EXTENTS.names.index(UNREADABLE)


@dataclass(frozen=True, slots=True)
class Extents:
    """The extents of a block group, sorted; arrays, an entry per extent. None overlap.

    What could not be read is among them, as extents of the type UNREADABLE_TYPE.

    Attributes:
        vaddr: virtual address, int64.
        length: bytes, int64.
        generation: in which it was made, int64.
        refs: how many references there are to it, uint32; 2^32-1 stands for more.
        owner: which tree it belongs to, an index into `Trees.numbers`, int32.
        type: index into `heatmap.extents.types.EXTENTS`, uint8.
        compression: index into `heatmap.extents.compression.COMPRESSIONS`, uint8; None if not asked for.
    """

    vaddr: NDArray[np.int64]
    length: NDArray[np.int64]
    generation: NDArray[np.int64]
    refs: NDArray[np.uint32]
    owner: NDArray[np.int32]
    type: NDArray[np.uint8]
    compression: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return self.vaddr.size

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return len(self) * BYTES_PER_EXTENT

    def __getitem__(self, part: slice | NDArray[np.intp]) -> Extents:
        return Extents(
            self.vaddr[part],
            self.length[part],
            self.generation[part],
            self.refs[part],
            self.owner[part],
            self.type[part],
            None if self.compression is None else self.compression[part],
        )

    def at(self, vaddr: int) -> int | None:
        """Return the index of the extent that holds a virtual address; None if there is none."""
        index = int(np.searchsorted(self.vaddr, vaddr, "right")) - 1
        if index >= 0 and vaddr < self.vaddr[index] + self.length[index]:
            return index
        return None


class Trees:
    """Numbers of trees as small indexes, in the order in which they were met.

    Attributes:
        numbers: the trees, or `references.SEVERAL` or `references.UNKNOWN`.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = list(numbers)
        self._index = {number: index for index, number in enumerate(self.numbers)}

    def indexes(self, numbers: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Return the indexes of these trees; new ones are added."""
        distinct, inverse = np.unique(numbers, return_inverse=True)
        for number in distinct.tolist():
            if number not in self._index:
                self._index[number] = len(self.numbers)
                self.numbers.append(number)
        known = np.array([self._index[number] for number in distinct.tolist()], dtype=np.int32)
        return known[inverse]


class TooManyExtentsError(BtrfsError):
    """The extents of a block group do not fit into the memory that may be used."""


def read_extents(
    fs: FileSystem, group: BlockGroupItem, trees: Trees, limit: int, *, compressed: bool = False
) -> Extents:
    """Read the extents of a block group.

    Args:
        fs: the filesystem.
        group: the block group.
        trees: numbers the trees that own extents.
        limit: bytes of memory that they may take.
        compressed: find out how they are compressed, too, for which files have to be read.

    Raises:
        TooManyExtentsError: They do not fit into that.
        BtrfsError, OSError: They cannot be read.
    """
    parts: list[Extents] = []
    for items, lost in extents_of.read(fs, group.vaddr, group.length):
        if items is not None:
            parts.append(_extents(fs, items, group, trees, compressed=compressed))
        if lost:
            parts.append(_unreadable(lost, compressed=compressed))
        if sum(map(len, parts)) * BYTES_PER_EXTENT > limit:
            raise TooManyExtentsError(
                f"the extents of block group {group.vaddr} take more than {limit} bytes",
                hint="allow more with --memory",
            )
    return _disjoint(parts, compressed=compressed)


def extents_key(group: int) -> tuple[int, str]:
    """Return under what the extents of a block group are kept."""
    return group, "extents"


class Job(NamedTuple):
    """Something to be made and kept.

    Attributes:
        group: virtual address of a block group.
        key: under what to keep it.
        make: makes it from the extents of that block group; its `nbytes` says how large it is.
        compressed: whether that needs to know how extents are compressed.
    """

    group: int
    key: Key
    make: Callable[[Extents], Any]
    compressed: bool = False


class Memory:
    """Keeps things up to a number of bytes; what was not used for the longest time goes first.

    Args:
        limit: how many bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._kept: OrderedDict[Key, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Any:
        """Return what is kept under a key; None if there is nothing."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key][0]

    def put(self, key: Key, thing: Any) -> None:
        """Keep something, in place of what was kept under the same key."""
        with self._lock:
            self._drop(key)
            self._kept[key] = thing, thing.nbytes
            self.nbytes += thing.nbytes
            while self.nbytes > self.limit and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def drop_if(self, is_unwanted: Callable[[Key], bool]) -> None:
        """Drop everything whose key is unwanted."""
        with self._lock:
            for key in [key for key in self._kept if is_unwanted(key)]:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        if key in self._kept:
            self.nbytes -= self._kept.pop(key)[1]


class Store:
    """What is known of the extents of block groups, and the thread that reads them.

    Args:
        open_filesystem: opens the filesystem for the thread.
        trees: numbers the trees that own extents.
        limit: bytes of memory to use.
        loaded: called, by that thread, whenever something has been read, at most a few times a
            second.
    """

    def __init__(
        self,
        open_filesystem: Callable[[], FileSystem],
        trees: Trees,
        limit: int,
        loaded: Callable[[], None],
    ) -> None:
        self.memory = Memory(limit)
        self._open = open_filesystem
        self._trees = trees
        self._loaded = loaded
        self._groups: dict[int, BlockGroupItem] = {}
        self._jobs: OrderedDict[Key, Job] = OrderedDict()
        self._urgent: set[Key] = set()  # of these jobs
        self._failed: dict[int, BtrfsError | OSError] = {}
        self._condition = threading.Condition()
        self._is_closed = False
        self._changes = 0
        self._thread = threading.Thread(target=self._run, name="extents", daemon=True)
        self._thread.start()

    def show(self, groups: dict[int, BlockGroupItem], changed: Iterable[int]) -> None:
        """Take the block groups that there are now; drop what was kept of those that changed."""
        gone = frozenset(changed)
        with self._condition:
            self._groups = dict(groups)
            self._changes += 1
            for vaddr in gone:
                self._failed.pop(vaddr, None)
            self.memory.drop_if(lambda key: key[0] in gone)

    def extents(self, group: int, *, compressed: bool = False) -> Extents | None:
        """Return the extents of a block group if they are in memory."""
        found: Extents | None = self.memory.get(extents_key(group))
        return None if found is None or (compressed and found.compression is None) else found

    def failure(self, group: int) -> BtrfsError | OSError | None:
        """Return why the extents of a block group cannot be read, if they cannot."""
        return self._failed.get(group)

    @property
    def backlog(self) -> int:
        """How many jobs are not done yet."""
        return len(self._jobs)

    @property
    def urgent(self) -> int:
        """How many of these are urgent."""
        return len(self._urgent)

    def want(self, jobs: Iterable[Job], deadline: float = 0.0, *, urgent: bool = True) -> None:
        """Have jobs done, and wait for that, but not beyond a deadline of `time.monotonic()`.

        Urgent jobs come before all that were wanted earlier, others behind.
        """
        with self._condition:
            keys = set()
            for job in jobs:
                if job.group in self._failed:
                    continue
                if job.key not in self._jobs:
                    self._jobs[job.key] = job
                    self._jobs.move_to_end(job.key, last=urgent)
                elif urgent:
                    self._jobs.move_to_end(job.key)
                keys.add(job.key)
            if urgent:
                self._urgent |= keys
            self._condition.notify_all()
            while keys & self._jobs.keys() and not self._is_closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    return

    def close(self) -> None:
        """Stop reading."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        fs: FileSystem | None = None
        told = 0.0
        try:
            while (job := self._next()) is not None:
                try:
                    fs = fs or self._open()
                    is_done = self._do(fs, job)
                except (BtrfsError, OSError) as error:
                    is_done = self._fail(job, error)
                except Exception as error:
                    _logger.exception("a fault while block group %d was read", job.group)
                    is_done = self._fail(job, BtrfsError(f"block group {job.group}: {error!r}"))
                with self._condition:
                    if is_done and self._jobs.get(job.key) is job:
                        del self._jobs[job.key]
                        self._urgent.discard(job.key)
                    self._condition.notify_all()
                    is_last = not self._jobs
                if is_last or time.monotonic() - told > _TELL_SECONDS:
                    told = time.monotonic()
                    self._loaded()
        finally:
            if fs is not None:
                fs.close()

    def _next(self) -> Job | None:
        """Return the job that was wanted last, once there is one; None at the end."""
        with self._condition:
            while not self._jobs and not self._is_closed:
                self._condition.wait()
            return None if self._is_closed else next(reversed(self._jobs.values()))

    def _do(self, fs: FileSystem, job: Job) -> bool:
        """Do a job; return whether it is done, and not to be done again."""
        if job.group in self._failed:
            return True
        changes = self._changes
        if (group := self._groups.get(job.group)) is None:
            raise BtrfsError(f"the block group at {job.group} could not be read")
        extents = self.extents(job.group, compressed=job.compressed)
        if extents is None:
            extents = read_extents(
                fs, group, self._trees, self.memory.limit // 2, compressed=job.compressed
            )
        made = job.make(extents)
        with self._condition:
            # What changed meanwhile may have been read before.
            if changes != self._changes:
                return False
            self.memory.put(extents_key(job.group), extents)
            self.memory.put(job.key, made)
        return True

    def _fail(self, job: Job, error: BtrfsError | OSError) -> bool:
        """Remember why the extents of a block group cannot be read; the others may be."""
        self._failed[job.group] = error
        return True


def _extents(
    fs: FileSystem, items: ItemBatch, group: BlockGroupItem, trees: Trees, *, compressed: bool
) -> Extents:
    offset, length = extents_of.within(fs, items, group.vaddr, group.length)
    return Extents(
        vaddr=offset + group.vaddr,
        length=length,
        generation=references.generations(items),
        refs=np.minimum(references.reference_counts(items), _MAX_REFS).astype(np.uint32),
        owner=trees.indexes(references.owning_trees(fs, items)),
        type=types.extent_values(fs, items),
        compression=compression.compressions(fs, items) if compressed else None,
    )


def _unreadable(lost: list[tuple[int, int]], *, compressed: bool) -> Extents:
    first, behind = np.array(lost, dtype=np.int64).T
    count = first.size
    return Extents(
        vaddr=first,
        length=behind - first,
        generation=np.zeros(count, np.int64),
        refs=np.zeros(count, np.uint32),
        owner=np.zeros(count, np.int32),
        type=np.full(count, UNREADABLE_TYPE, np.uint8),
        compression=np.zeros(count, np.uint8) if compressed else None,
    )


def _disjoint(parts: list[Extents], *, compressed: bool) -> Extents:
    """Return extents as one, sorted; where two of them overlap, the first one counts."""
    columns = {
        name: np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])
        for name, dtype in _COLUMNS.items()
        if compressed or name != "compression"
    }
    vaddr, length = columns["vaddr"], columns["length"]
    order = np.argsort(vaddr, kind="stable")
    vaddr, stop = vaddr[order], (vaddr + length)[order]
    covered = np.maximum.accumulate(stop)
    columns["vaddr"] = np.maximum(vaddr, np.concatenate([vaddr[:1], covered[:-1]]))
    columns["length"] = stop - columns["vaddr"]
    kept = np.flatnonzero(columns["length"] > 0)
    others = {name: columns[name][order][kept] for name in columns if name not in _PLACE}
    return Extents(columns["vaddr"][kept], columns["length"][kept], **others)


_COLUMNS = {
    "vaddr": np.int64,
    "length": np.int64,
    "generation": np.int64,
    "refs": np.uint32,
    "owner": np.int32,
    "type": np.uint8,
    "compression": np.uint8,
}

_PLACE = ("vaddr", "length")

_MAX_REFS = (1 << 32) - 1

_TELL_SECONDS = 0.5
