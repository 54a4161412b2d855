"""All that the library and the programs can be asked of a filesystem, in steps.

Each step asks what it is called, and runs into errors as it may: those of the library and of the
system end it, and are counted. Anything else that is raised is a fault.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import btrfs
from btrfs import check
from btrfs.ctree import RootItem
from btrfs.errors import BtrfsError, ItemNotFoundError
from btrfs.filesystem import FileSystem
from btrfs.ondisk import constants
from btrfs.ondisk.key import Key
from btrfs.ownership import backrefs, duplicate_files, duplicates, orphans, paths, subvolumes
from btrfs.query import selection
from btrfs.utils import pretty_lines
from btrfs_atlas import cli
from btrfs_atlas.explorer.atlas import Atlas
from btrfs_atlas.explorer.search import details
from btrfs_atlas.explorer.search.find import find
from heatmap import HeatmapError, curves, walk_chunks, walk_dev_extents, walk_extents
from heatmap.colourings import colourings
from heatmap.legend import legend_of
from tests.fuzz.touch import item_classes, touch_batch, touch_object

ALLOWED = (BtrfsError, OSError, ItemNotFoundError)

TREES = (*range(14), *range(256, 260), *((1 << 64) - number for number in (4, 5, 6, 7, 8, 9)))
"""Trees to look for besides those that the root tree names."""

MANY = 3000
"""So many items of a kind are enough: a damaged pointer can make one tree a part of many others."""

INODES = 12
"""Inodes whose paths are asked for."""

EXPRESSIONS = (
    *("used_pct < 50", "flags == DATA|DUP or RAID1 in flags", "length >= 8MiB and vaddr > 0x1000"),
    *("not type in flags", "'file' in name", "location == '(256 INODE_ITEM 0)'", "size > 100"),
    *("stripes.devid == 1", "refs != 1", "generation <= 10", "2 not in stripes.devid"),
    *("uuid == '00000000-0000-0000-0000-000000000000'", "mode > 0", "FILE in type"),
)
ORDERS = ("used_pct,length:desc", "vaddr:desc", "flags", "name", "key", "uuid", "stripes", "otime")

PICTURE_ORDER = 4


@dataclass(slots=True)
class Findings:
    """What came of it.

    Attributes:
        opened: Whether the filesystem could be opened.
        raised: How often which error was raised, by the name of its class.
    """

    opened: bool = False
    raised: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a step works with.

    Attributes:
        fs: The filesystem.
        choose: Makes all choices.
        paths: The files that it was opened from.
        options: How it was opened.
        findings: What came of it so far.
    """

    fs: FileSystem
    choose: random.Random
    paths: list[str]
    options: dict[str, Any]
    findings: Findings

    def tried(self, *others: type[Exception]) -> AbstractContextManager[None]:
        """Try a part of a step, after which the step goes on whether it failed or not.

        Args:
            others: What it may raise besides.
        """
        return _counted(self.findings, *others)


Step = Callable[[Asked], None]


def choose_options(choose: random.Random) -> dict[str, Any]:
    """Return keywords for FileSystem: most often none but what to do about errors."""
    options: dict[str, Any] = {
        "source": "unmounted",
        "on_error": choose.choice(("raise", "skip", "skip")),
    }
    if choose.random() < 0.1:
        options["superblock"] = choose.randrange(3)
    if choose.random() < 0.1:
        options["backup_root"] = choose.randrange(4)
    if choose.random() < 0.3:
        options["unknown_features"] = True
    return options


def choose_steps(choose: random.Random, count: int) -> list[str]:
    """Return the names of some steps."""
    return choose.sample(list(STEPS), min(count, len(STEPS)))


def exercise(
    files: list[str],
    options: dict[str, Any],
    steps: Iterable[str],
    choices: int,
    findings: Findings,
) -> None:
    """Open a filesystem and take some steps.

    Args:
        files: Its images, or a dump.
        options: Keywords for FileSystem.
        steps: Names of the steps.
        choices: Number that all choices follow from.
        findings: What came of it is added here.
    """
    with _counted(findings), FileSystem(files, **options) as fs:
        findings.opened = True
        for name in steps:
            asked = Asked(fs, random.Random(f"{choices} {name}"), files, options, findings)
            with _counted(findings):
                STEPS[name](asked)
        _read_damage(fs)


@contextlib.contextmanager
def _counted(findings: Findings, *others: type[Exception]) -> Iterator[None]:
    """Count what may be raised, and let it end the block."""
    try:
        yield
    except ALLOWED + others as error:
        findings.raised[type(error).__name__] += 1
        message = str(error)
    else:
        return
    assert "\n" not in message, "programs print an error as one line"


def _read_damage(fs: FileSystem) -> None:
    for thing in (*fs.damage, *fs.lost, *fs.notes):
        str(thing).encode(errors="surrogateescape")
    summary = fs.damage_summary()
    assert (summary is None) == (not fs.damage and not fs.lost and not fs.notes)


def _each(found: Iterable[Any]) -> None:
    """Read objects one by one, each in full."""
    for obj in itertools.islice(found, MANY):
        touch_object(obj)


def _some_trees(asked: Asked) -> list[int]:
    """Return the numbers of some trees, of which not all need exist."""
    named: list[int] = []
    with asked.tried():
        roots = itertools.islice(asked.fs.search(constants.ROOT_TREE_OBJECTID), MANY)
        named = [item.objectid for item in roots if isinstance(item, RootItem)]
    known = sorted({constants.ROOT_TREE_OBJECTID, constants.CHUNK_TREE_OBJECTID, *named})
    return [*asked.choose.sample(known, min(4, len(known))), asked.choose.choice(TREES)]


def _keys(choose: random.Random) -> tuple[Key | None, Key | None]:
    """Return two keys to search between; most often none."""
    if choose.random() < 0.7:
        return None, None
    parts = (0, 1, 5, 256, 257, 1 << 24, 1 << 40, (1 << 64) - 1)
    one, other = (
        Key(
            choose.choice(parts),
            choose.choice((0, 1, 84, 168, 192, 228, 255)),
            choose.choice(parts),
        )
        for _ in range(2)
    )
    return min(one, other), max(one, other)


# The steps.


def _search(asked: Asked) -> None:
    for tree in _some_trees(asked):
        with asked.tried():
            _each(asked.fs.search(tree, *_keys(asked.choose)))
    for item in itertools.islice(asked.fs.search(asked.choose.choice(TREES)), MANY):
        assert str(item)


def _batches(asked: Asked) -> None:
    for tree in _some_trees(asked):
        with asked.tried():
            for batch in itertools.islice(asked.fs.batches(tree, *_keys(asked.choose)), 100):
                touch_batch(batch)


def _columns(asked: Asked) -> None:
    fs = asked.fs
    for cls in item_classes():
        with asked.tried():
            tree = None if cls.home_tree or cls is btrfs.ctree.BlockGroupItem else 5
            for columns in itertools.islice(fs.columns(cls, tree=tree), 100):
                assert all(len(column) for column in columns.values())


def _look_ups(asked: Asked) -> None:
    fs = asked.fs
    for look_up in (
        fs.devices,
        fs.dev_extents,
        fs.chunks,
        fs.block_groups,
        fs.subvolumes,
        fs.extents,
        fs.free_space_extents,
    ):
        with asked.tried():
            _each(look_up())
    with asked.tried():
        _each(fs.extents(load_data_refs=True, load_metadata_refs=True))
    with asked.tried():
        touch_object(fs.top_level())
    fs.orphan_subvol_ids()
    for group in itertools.islice(fs.block_groups(), 20):
        touch_object(fs.block_group(group.vaddr, group.length))


def _infos(asked: Asked) -> None:
    fs = asked.fs
    touch_object(fs.fs_info())
    assert isinstance(fs.label, str)
    assert fs.mixed_groups() in (False, True)
    assert str(fs.features())
    for devid in (0, 1, 2, (1 << 64) - 1, *(device.devid for device in fs.devices())):
        with asked.tried():
            touch_object(fs.dev_info(devid))
            touch_object(fs.dev_stats(devid))
    for space in fs.space_info():
        touch_object(space)


def _usage(asked: Asked) -> None:
    usage = asked.fs.usage()
    assert str(usage)
    assert list(pretty_lines(usage))


def _subvolumes(asked: Asked) -> None:
    with asked.tried():
        subvolumes.default(asked.fs)
    _each(subvolumes.of_filesystem(asked.fs))


def _paths(asked: Asked) -> None:
    fs = asked.fs
    found = paths.Paths(fs)
    for tree in _some_trees(asked):
        with asked.tried():
            found.of_subvolume(tree)
        inums = {item.key.objectid for item in _tried(asked, fs.search(tree))}
        for inum in asked.choose.sample(sorted(inums), min(INODES, len(inums))):
            with asked.tried():
                list(itertools.islice(found.of_inode(tree, inum), 100))
    for path in ("files/file1", "volume/inside", "snapshot/../large", "symlink", b"\xff/x"):
        with asked.tried():
            paths.lookup(fs, path)


def _tried(asked: Asked, found: Iterable[Any]) -> Iterator[Any]:
    """Yield what is found up to the first error."""
    with asked.tried():
        yield from itertools.islice(found, MANY)


def _orphans(asked: Asked) -> None:
    for orphan in orphans.of_filesystem(asked.fs):
        assert str(orphan)


def _duplicates(asked: Asked) -> None:
    found = duplicates.find(asked.fs)
    assert 0 <= found.whole_extents <= found.total <= found.compared
    groups = range(len(found.groups))[:5]
    for files in duplicate_files.equal_files(asked.fs, found, groups):
        assert len(files) > 1
    names = duplicate_files.FileNames(asked.fs)
    for index in groups:
        for vaddr in found.groups.vaddrs(index)[:3]:
            names.at(vaddr)


def _selection(asked: Asked) -> None:
    fs = asked.fs
    chunks = {}
    with asked.tried():
        chunks = {chunk.vaddr: chunk for chunk in fs.chunks()}

    def also(obj: Any) -> Any:
        return chunks.get(getattr(obj, "vaddr", -1))

    objects = list(_tried(asked, fs.block_groups()))
    objects += list(_tried(asked, fs.search(asked.choose.choice((1, 2, 3, 4, 5)))))
    for expression in asked.choose.sample(EXPRESSIONS, 4):
        with asked.tried():
            wanted = selection.Filter(expression, also)
            list(filter(wanted, objects))
    for order in asked.choose.sample(ORDERS, 3):
        with asked.tried():
            selection.Order(order, also).sorted(objects)


def _pictures(asked: Asked) -> None:
    fs, choose = asked.fs, asked.choose
    options: dict[str, Any] = {
        "order": choose.choice((1, PICTURE_ORDER, None)),
        "size": choose.choice((None, PICTURE_ORDER)),
        "verbose": -1,
        "curve": choose.choice(("hilbert", "snake", "linear")),
    }
    # A picture of nothing, for instance, is none.
    with asked.tried(HeatmapError):
        assert legend_of(fs, walk_dev_extents(fs, **options)) is not None
    with asked.tried(HeatmapError):
        assert legend_of(fs, walk_chunks(fs, **options)) is not None
    with asked.tried(HeatmapError):
        assert legend_of(fs, walk_extents(fs, list(fs.block_groups())[:4], **options)) is not None


def _check(asked: Asked) -> None:
    """Check it, if it is read as a check needs it."""
    if asked.options["on_error"] != "skip":
        return
    all_copies, data = asked.choose.random() < 0.5, asked.choose.random() < 0.5
    for checked in check.check(asked.fs, all_copies=all_copies, data=data):
        assert checked.skipped or checked.summary
        for finding in checked.findings:
            assert "\n" not in finding.message


def _backrefs(asked: Asked) -> None:
    """Ask who uses an extent, or any address."""
    some = [extent.vaddr for extent in itertools.islice(asked.fs.extents(), 200)]
    anywhere = asked.choose.getrandbits(40)
    for vaddr in (*asked.choose.sample(some, min(10, len(some))), anywhere):
        with asked.tried():
            found = backrefs.owners(asked.fs, vaddr, 10)
            assert len(found.files) <= 10
            assert found.more >= 0


def _explorer(asked: Asked) -> None:
    """Walk on a map of it: whatever lies there, there is a picture, and something to say."""
    choose = asked.choose
    options = {name: value for name, value in asked.options.items() if name != "on_error"}
    with (
        contextlib.suppress(HeatmapError),
        Atlas(asked.paths, memory=choose.choice((1 << 20, 1 << 26)), **options) as atlas,
    ):
        for _ in range(6):
            space, curve = choose.choice(list(atlas.lines)), choose.choice(curves.CURVES)
            zoom = choose.randint(0, atlas.lines[space].max_zoom)
            colour = choose.choice(colourings()).name
            row, column = choose.randrange(1 << zoom), choose.randrange(1 << zoom)
            place = space, curve, zoom, row, column
            atlas.tile(place, colour)
            atlas.borders(place)
            assert atlas.legend(space, colour, zoom).entries
            pixel = choose.randrange(256 << zoom), choose.randrange(256 << zoom)
            json.dumps(details.at(atlas, space, curve, zoom, *pixel))
            json.dumps(details.details(atlas, space, curve, zoom, *pixel))
            question = choose.choice(("/", "inode 257", "subvolume 256", "group 30408704", "1 MiB"))
            with asked.tried():
                found = find(atlas, question, space, curve)
                json.dumps(found.record())
                atlas.found(place, *found.runs)


def _programs(asked: Asked) -> None:
    """Run a program: whatever it is, it ends with an exit code and nothing but text."""
    words = asked.choose.choice(
        (
            ["usage"],
            ["usage"],
            ["usage", "--json"],
            ["check", "-v", "--all-copies"],
            ["check", "-v", "--data"],
            ["check", "--json"],
            ["heatmap", "--order", "4", "--show", "-v"],
            ["heatmap", "--order", "4", "--show", "-q", "--sort", "virtual", "--legend"],
            ["compression"],
            ["compression", "--json"],
            ["du", "--min", "0", "--limit", "100"],
            ["du", "--json", "--sort", "fragments"],
            ["du", "--files", "--sort", "unreachable"],
            ["du", "--ncdu", "-"],
            *(["duplicates", *form] for form in ((), ("--json",), ("--fdupes",))),
            *(["search", *what] for what in _SEARCHES),
            *(["search", "--format", "long", *what] for what in _SEARCHES),
            *(["search", "--json", *what] for what in _SEARCHES),
        )
    )
    words += ["--source", "unmounted"]
    for name, option in (("superblock", "--super"), ("backup_root", "--backup-root")):
        if name in asked.options:
            words += [option, str(asked.options[name])]
    if asked.options.get("unknown_features"):
        words.append("--unknown-features")
    output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    complained = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(complained):
        try:
            status: Any = cli.main([*words, *asked.paths])
        except SystemExit as ended:
            status = ended.code
    assert status in (0, 1, 2), (words, complained.getvalue())


_SEARCHES = (
    *([kind] for kind in ("block_groups", "chunks", "devices", "dev_extents", "orphans")),
    *([kind] for kind in ("log_trees", "block_group_free_space")),
    *(["dump", "-t", tree] for tree in ("1", "2", "5", "fs", "0")),
    ["inode", "--inum", "257"],
    ["block_group_contents", "--vaddr", "30408704"],
)

STEPS: dict[str, Step] = {
    "search": _search,
    "batches": _batches,
    "columns": _columns,
    "look-ups": _look_ups,
    "infos": _infos,
    "usage": _usage,
    "subvolumes": _subvolumes,
    "paths": _paths,
    "orphans": _orphans,
    "duplicates": _duplicates,
    "selection": _selection,
    "pictures": _pictures,
    "check": _check,
    "backrefs": _backrefs,
    "explorer": _explorer,
    "programs": _programs,
}
