"""What is held against what, and by how much ours is to win.

A Contest is a set of contenders that are measured side by side: in every round each runs once, in
a process of its own, and the medians over all rounds count. Its rows say which two of the medians
make a ratio, and what is demanded of it.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.free_space import CACHE
from bench.peers import DEBIAN, OURS, Contender, Measurement, peer, program
from bench.probe import HEATMAP_V9, NODESIZE
from tests.lab.commands import run

BUFFER_SIZE = 512 << 10
"""Bytes of the buffer that btrfs.source.kernel reads batches with: the bare ioctl gets the same."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        what: Is measured.
        against: What.
        ours: Name of our contender.
        theirs: Name of the other one.
        limit: Of the ratio: the least speed-up, or the most cost.
        is_cost: Whether the ratio is ours/theirs and must not be above the limit; otherwise it is
            theirs/ours and must not be below.
        unit: 'seconds' or 'peak', the figure of a Measurement that is compared.
    """

    what: str
    against: str
    ours: str
    theirs: str
    limit: float
    is_cost: bool = False
    unit: str = "seconds"


@dataclass(frozen=True, slots=True)
class Contest:
    """Contenders, the rows that come from them, and who must have counted the same."""

    name: str
    contenders: Mapping[str, Contender]
    rows: tuple[Row, ...]
    agree: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """A row with the medians that were reached, in the row's unit."""

    row: Row
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """Ours to theirs for a cost, theirs to ours for a speed-up."""
        return self.ours / self.theirs if self.row.is_cost else self.theirs / self.ours

    @property
    def is_met(self) -> bool:
        """Whether the ratio is as demanded."""
        return self.ratio <= self.row.limit if self.row.is_cost else self.ratio >= self.row.limit


@dataclass(frozen=True, slots=True)
class Targets:
    """The filesystems, as images and where they are mounted."""

    used_image: Path
    used: Path
    prealloc_image: Path
    prealloc: Path
    small: Path


def contest_options(
    module: str, description: str | None, names: Iterable[str]
) -> argparse.Namespace:
    """Read the command line of a benchmark: which contests, how often, and where images are."""
    names = list(names)
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("contest", nargs="*", default=names, help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=3, help="how often each (%(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for images (%(default)s)")
    options = parser.parse_args()
    unknown = set(options.contest) - set(names)
    if unknown:
        parser.error(f"no such contest: {', '.join(sorted(unknown))}")
    return options


def run_contest(contest: Contest, rounds: int, report: Callable[[str], None]) -> Iterator[Result]:
    """Measure a contest and yield the result of each row; one more round at first warms caches."""
    figures: dict[str, list[Measurement]] = {name: [] for name in contest.contenders}
    for number in range(rounds + 1):
        for name, measure in contest.contenders.items():
            report(f"{contest.name}: round {number} of {rounds}: {name}")
            figures[name].append(measure())
    for one, other in contest.agree:
        counts = figures[one][0].count, figures[other][0].count
        if counts[0] != counts[1]:
            raise RuntimeError(f"{one} counted {counts[0]}, {other} {counts[1]}")
    for row in contest.rows:
        yield Result(
            row,
            median(figures[row.ours][1:], row.unit),
            median(figures[row.theirs][1:], row.unit),
        )


def median(measurements: Iterable[Measurement], unit: str) -> float:
    """Return the median of one figure of measurements."""
    return float(statistics.median(getattr(figures, unit) for figures in measurements))


def extents(targets: Targets, cache: Path) -> Contest:
    """The extent tree of a used filesystem: columns, objects, and what the kernel and disk need."""
    oracle = peer("python-btrfs", cache)
    blocks = tree_blocks(targets.used_image, targets.used, cache)
    theirs, objects = "python-btrfs 15 fs.extents()", "fs.extents() objects, mounted"
    mounted, unmounted = "extent columns, mounted", "extent columns, unmounted"
    ioctl, disk = "seconds inside the ioctl", "reading the same tree blocks"
    return Contest(
        "extents",
        {
            mounted: OURS.probe("columns", "mounted", targets.used),
            unmounted: OURS.probe("columns", "unmounted", targets.used_image),
            objects: OURS.probe("extents", targets.used),
            theirs: oracle.probe("extents", targets.used),
            ioctl: OURS.probe("search_ioctl", targets.used, str(BUFFER_SIZE)),
            disk: OURS.probe("read_blocks", targets.used_image, blocks),
        },
        (
            Row(mounted, theirs, mounted, theirs, 6),
            Row(mounted, ioctl, mounted, ioctl, 2.2, is_cost=True),
            Row(unmounted, theirs, unmounted, theirs, 12),
            Row(unmounted, disk, unmounted, disk, 3, is_cost=True),
            Row(objects, theirs, objects, theirs, 3),
        ),
        agree=((mounted, unmounted), (objects, theirs)),
    )


def trees(targets: Targets, cache: Path) -> Contest:
    """All items of all trees of a used filesystem, unmounted, as objects."""
    ours, theirs = "all trees' items, unmounted, as objects", "dissect.btrfs"
    return Contest(
        "trees",
        {
            ours: OURS.probe("items", targets.used_image),
            theirs: peer("dissect.btrfs", cache).probe("items_dissect", targets.used_image),
        },
        (Row(ours, theirs, ours, theirs, 1),),
        agree=((ours, theirs),),
    )


def pictures(order: int) -> Callable[[Targets, Path], Contest]:
    """Return the contest of the picture of all block groups' extents, at an order."""

    def contest(targets: Targets, cache: Path) -> Contest:
        ours = f"picture of all block groups' extents, order {order}"
        theirs = "btrfs-heatmap v9, same picture"
        word = str(order)
        return Contest(
            f"picture {order}",
            {
                ours: OURS.probe("picture", targets.used, word, cache / "ours.png"),
                theirs: DEBIAN.probe("picture_v9", targets.used, word, cache / "theirs.png"),
            },
            (Row(ours, theirs, ours, theirs, 8),),
            agree=((ours, theirs),),
        )

    return contest


def programs(targets: Targets, cache: Path) -> Contest:
    """The program on a small mounted filesystem, from its start to its end."""
    ours, theirs = "`btrfs-heatmap`, small mounted filesystem, whole process", "btrfs-heatmap v9"
    our_program = Path(OURS.executable).with_name("btrfs-heatmap")
    return Contest(
        "program",
        {
            ours: program(our_program, "-o", cache / "ours.png", targets.small),
            theirs: program(HEATMAP_V9, "-o", cache / "theirs.png", targets.small),
        },
        (Row(ours, theirs, ours, theirs, 2, is_cost=True),),
    )


def memory(targets: Targets, cache: Path) -> Contest:
    """The most memory that columns of ten times as many extents need."""
    del cache
    many, few = "3,000,000 extents", "300,000 extents"
    return Contest(
        "memory",
        {
            f"mounted, {few}": OURS.probe("columns", "mounted", targets.used),
            f"mounted, {many}": OURS.probe("columns", "mounted", targets.prealloc),
            f"unmounted, {few}": OURS.probe("columns", "unmounted", targets.used_image),
            f"unmounted, {many}": OURS.probe("columns", "unmounted", targets.prealloc_image),
        },
        tuple(
            Row(
                f"peak memory, extent columns over {many}, {source}",
                f"the same over {few}",
                f"{source}, {many}",
                f"{source}, {few}",
                1.1,
                is_cost=True,
                unit="peak",
            )
            for source in ("mounted", "unmounted")
        ),
    )


CONTESTS: dict[str, Callable[[Targets, Path], Contest]] = {
    "extents": extents,
    "trees": trees,
    "picture-10": pictures(10),
    "picture-12": pictures(12),
    "program": programs,
    "memory": memory,
}


def tree_blocks(image: Path, mountpoint: Path, cache: Path) -> Path:
    """Write the physical addresses of the extent tree's blocks into a file, and return that.

    The virtual ones come from `btrfs inspect-internal`, the mapping from the chunks, whose profile
    is single.
    """
    target = cache / f"{image.stem}.blocks.json"
    if target.exists():
        return target
    dump = run("btrfs", "inspect-internal", "dump-tree", "-t", "extent", image)
    vaddrs = [int(word) for word in re.findall(r"^(?:leaf|node) (\d+) ", dump, re.MULTILINE)]
    import btrfs

    with btrfs.FileSystem(mountpoint) as fs:
        assert fs.nodesize == NODESIZE
        chunks = [(chunk.vaddr, chunk.length, chunk.stripes[0].offset) for chunk in fs.chunks()]
    paddrs = [
        start + vaddr - begin
        for vaddr in vaddrs
        for begin, length, start in chunks
        if begin <= vaddr < begin + length
    ]
    target.write_text(json.dumps(paddrs))
    return target
