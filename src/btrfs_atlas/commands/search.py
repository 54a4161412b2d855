"""btrfs-atlas search: show items of metadata."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from btrfs_atlas.targets import add_source_arguments, block_group, opened, source_options

if TYPE_CHECKING:
    from btrfs.ctree import BlockGroupItem, Chunk, FileSystem, Key

DESCRIPTION = """\
Show what is stored in the metadata trees of a btrfs filesystem. A TARGET is a folder on a mounted
filesystem, a block device, or an image file, be it a copy of a device or a dump made by
btrfs-image; several that are members of one filesystem can be given together."""

_EPILOG = """\
Expressions for --filter compare attributes, as --format long shows them, with numbers (also with a
unit: 1GiB), with words in capitals (flags and types), or with quoted text (names). The operators
are == != < <= > >= in, not in; and, or, not and parentheses combine. A point leads into a struct,
or each of a list of structs. Block groups have the attributes of their chunk, too. Examples:

  block groups that use no stripe on device 4, emptiest first:
    search block_groups --filter '4 not in stripes.devid' --sort used_pct /mnt
  large fragments of free space:
    search block_group_free_space --filter 'length >= 16MiB' --sort length:desc /mnt
  directory entries that lead to subvolumes:
    search dump -t 5 --filter 'location.type == 132' --json /mnt

--json writes an object per line: numbers are exact, names that are no UTF-8 are {"hex": "..."}.
"""

_Form = Callable[[Any], Iterable[str]]
"""Returns the lines that an object is shown by."""

_SUBVOLUME_OF_TARGET = 0
"""Number of the tree that a target on a mounted filesystem is in, whichever that is."""

_FLUSH_SECONDS = 0.1
"""Lines do not wait for longer than this for others to be written together with."""

_ESCAPES = {
    number: ascii(chr(number))[1:-1]
    for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}
"""What stands for characters that would end a line, or steer a terminal."""


class _Kind(NamedTuple):
    """What can be searched for.

    Attributes:
        summary: What that is.
        find: Finds it in a filesystem.
        add_arguments: Declares what it takes besides.
        classes: Where the classes of what is found are in btrfs; none if it can be anything.
    """

    summary: str
    find: Callable[[FileSystem, argparse.Namespace], Iterable[Any]]
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    classes: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what this command takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    _add_output_arguments(parser, defaults=True)
    subparsers = parser.add_subparsers(
        dest="kind", metavar="KIND", required=True, title="what to search for"
    )
    for name, kind in _KINDS.items():
        subparser = subparsers.add_parser(name, help=kind.summary)
        # The options for the output may stand before or after what to search for.
        _add_output_arguments(subparser, defaults=False)
        kind.add_arguments(subparser)
        if name == "file":
            _add_file_arguments(subparser)
        else:
            subparser.add_argument("targets", metavar="TARGET", nargs="+", help="where to search")


def _add_output_arguments(parser: argparse.ArgumentParser, *, defaults: bool) -> None:
    def default(value: Any) -> Any:
        return value if defaults else argparse.SUPPRESS

    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--format",
        choices=_FORMATS,
        default=default("short"),
        help="show of each item its key, a line (short, the default), all attributes (long), or a"
        " JSON object",
    )
    form.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        default=argparse.SUPPRESS,
        help="the same as --format json: a JSON object per line",
    )
    parser.add_argument(
        "--filter",
        metavar="EXPRESSION",
        default=default(None),
        help="show only what this holds for, such as 'used_pct < 20 and RAID1 in flags'",
    )
    parser.add_argument(
        "--sort",
        metavar="ATTRIBUTES",
        default=default(None),
        help="order by these attributes, separated by commas; :desc after one puts the greatest"
        " first (nothing is shown before all is found)",
    )
    parser.add_argument(
        "--limit", metavar="N", type=_count, default=default(None), help="show at most N"
    )
    add_source_arguments(parser, suppress_defaults=not defaults)


def _add_file_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--in",
        dest="targets",
        metavar="TARGET",
        action="append",
        default=[],
        help="look the PATH up inside this filesystem, from its top level; give it once for each"
        " member that shall be used",
    )
    parser.add_argument(
        "path",
        metavar="PATH",
        help="the file or directory; on a mounted filesystem if without --in",
    )


def _add_inode_arguments(parser: argparse.ArgumentParser) -> None:
    _add_tree_argument(parser)
    parser.add_argument("--inum", type=_number, required=True, help="inode number, e.g. 257")


def _add_tree_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-t", "--tree", type=_tree, required=True, help="name or number of the tree: extent, 257"
    )


def _add_dump_arguments(parser: argparse.ArgumentParser) -> None:
    _add_tree_argument(parser)
    parser.add_argument("--min-key", type=_key, help="first key, e.g. '(257 DIR_ITEM 0)'")
    parser.add_argument("--max-key", type=_key, help="last key, e.g. '(257 DIR_ITEM -1)'")


def _add_vaddr_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vaddr", type=_number, required=True, help="virtual address of the block group"
    )


def _add_optional_vaddr_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vaddr", type=_number, help="virtual address of the block group (default: all)"
    )


def run(args: argparse.Namespace) -> int:
    """Search and print; return 1 if something had to be left out."""
    kind = _KINDS[args.kind]
    if not args.targets:
        _locate_file(args)
    with opened(args.targets, on_error="skip", **source_options(args)) as fs:
        try:
            found = _selected(fs, args, kind)
            _print(chain.from_iterable(map(_FORMATS[args.format](), found)))
        except FileNotFoundError as error:
            raise _no_such_tree(fs, args) or error from None
        return 1 if fs.lost else 0


def _selected(fs: FileSystem, args: argparse.Namespace, kind: _Kind) -> Iterator[Any]:
    """Search, and return what is wanted of what is found, in the order that is wanted."""
    if args.filter is None and args.sort is None:
        return islice(kind.find(fs, args), args.limit)

    import btrfs
    from btrfs.query.selection import Filter, Order

    classes = [attrgetter(name)(btrfs) for name in kind.classes] or None
    also = _chunks_of_block_groups(fs) if args.kind == "block_groups" else None
    # Both are read before anything is searched: a mistake in them is told at once.
    holds = Filter(args.filter, also, classes) if args.filter is not None else None
    order = Order(args.sort, also, classes) if args.sort is not None else None
    found = filter(holds, kind.find(fs, args)) if holds else kind.find(fs, args)
    return islice(order.sorted(found) if order else found, args.limit)


def _chunks_of_block_groups(fs: FileSystem) -> Callable[[BlockGroupItem], Chunk | None]:
    """Return what finds the chunk of a block group; all are read when it is first called."""
    chunks: dict[int, Chunk] = {}

    def chunk_of(group: BlockGroupItem) -> Chunk | None:
        if not chunks:
            chunks.update((chunk.vaddr, chunk) for chunk in fs.chunks())
        return chunks.get(group.vaddr)

    return chunk_of


# What can be searched for.


def _locate_file(args: argparse.Namespace) -> None:
    """Find the mounted subvolume that a file without --in is in, and its inode number.

    The file itself is not opened: it may be a device, or an image that holds another filesystem.
    """
    import os

    from btrfs.errors import BtrfsError

    if args.source == "unmounted":
        raise BtrfsError(
            "a file of an unmounted filesystem is not in a folder",
            hint="name the filesystem with --in TARGET, and the path inside it",
        )
    args.source = "mounted"
    args.inum = os.stat(args.path).st_ino
    found = os.path.realpath(args.path)
    args.targets = [found if os.path.isdir(found) else os.path.dirname(found)]
    args.tree = _SUBVOLUME_OF_TARGET


def _file_items(fs: FileSystem, args: argparse.Namespace) -> Iterator[Any]:
    from btrfs.ownership import paths

    if hasattr(args, "inum"):
        return _inode_items(fs, args.tree, args.inum)
    _require_inside(args.path)
    place = paths.lookup(fs, args.path)
    return _inode_items(fs, place.tree, place.inum)


def _require_inside(path: str) -> None:
    """Refuse a path that leads above the top level of the filesystem that it begins at.

    Raises:
        BtrfsError: It does.
    """
    from btrfs.errors import BtrfsError

    depth = 0
    for name in path.split("/"):
        if name not in ("", "."):
            depth += -1 if name == ".." else 1
        if depth < 0:
            raise BtrfsError(
                f"{path} leads out of the filesystem",
                hint="a PATH with --in begins at the top level of the filesystem",
            )


def _inode_items(fs: FileSystem, tree: int, inum: int) -> Iterator[Any]:
    from btrfs.ctree import Key
    from btrfs.errors import BtrfsError

    items = fs.search(tree, Key(inum, 0, 0), Key(inum, -1, -1))
    first = next(items, None)
    if first is None:
        raise BtrfsError(f"No inode {inum} found in tree {tree}", hint="ls -i shows inode numbers")
    yield first
    yield from items


def _items_between(fs: FileSystem, args: argparse.Namespace) -> Iterator[Any]:
    from btrfs.errors import BtrfsError

    first, last = args.min_key, args.max_key
    if first is not None and last is not None and first > last:
        raise BtrfsError(
            f"no key is between {first} and {last}",
            hint="--min-key takes the lower one, and --max-key the higher one",
        )
    return fs.search(args.tree, first, last)


def _orphan_items(fs: FileSystem, _: argparse.Namespace) -> Iterator[Any]:
    from btrfs import ctree

    objectid, key_type = ctree.ORPHAN_OBJECTID, ctree.ORPHAN_ITEM_KEY
    first, last = ctree.Key(objectid, key_type, 0), ctree.Key(objectid, key_type, -1)
    return fs.search(ctree.ROOT_TREE_OBJECTID, first, last)


def _log_items(fs: FileSystem, _: argparse.Namespace) -> Iterator[Any]:
    for root in fs.log_trees():
        yield root
        yield from fs.search_root(root)


def _block_group_items(fs: FileSystem, args: argparse.Namespace) -> Iterator[Any]:
    from btrfs import ctree

    group = block_group(fs, args.vaddr)
    first = ctree.Key(group.vaddr, 0, 0)
    last = ctree.Key(group.vaddr + group.length - 1, -1, -1)
    return fs.search(ctree.EXTENT_TREE_OBJECTID, first, last)


def _free_space(fs: FileSystem, args: argparse.Namespace) -> Iterator[Any]:
    if args.vaddr is None:
        return fs.free_space_extents()
    group = block_group(fs, args.vaddr)
    return fs.free_space_extents(group.vaddr, group.vaddr + group.length - 1)


_KINDS = {
    "chunks": _Kind("chunks", lambda fs, _: fs.chunks(), classes=("ctree.Chunk",)),
    "block_groups": _Kind(
        "block groups",
        lambda fs, _: fs.block_groups(),
        classes=("ctree.BlockGroupItem", "ctree.Chunk"),
    ),
    "dev_extents": _Kind(
        "device extents", lambda fs, _: fs.dev_extents(), classes=("ctree.DevExtent",)
    ),
    "devices": _Kind("devices", lambda fs, _: fs.devices(), classes=("ctree.DevItem",)),
    "orphans": _Kind(
        "deleted subvolumes that are not yet cleaned up",
        _orphan_items,
        classes=("ctree.OrphanItem",),
    ),
    "file": _Kind("all items of a file or directory", _file_items),
    "inode": _Kind(
        "all items of an inode",
        lambda fs, args: _inode_items(fs, args.tree, args.inum),
        _add_inode_arguments,
    ),
    "dump": _Kind("items of a tree between two keys", _items_between, _add_dump_arguments),
    "log_trees": _Kind(
        "items of the log trees: what was synced after the last commit of a filesystem that was"
        " not cleanly unmounted",
        _log_items,
    ),
    "block_group_contents": _Kind(
        "items of the extent tree inside a block group", _block_group_items, _add_vaddr_argument
    ),
    "block_group_free_space": _Kind(
        "free space in a block group, or in all",
        _free_space,
        _add_optional_vaddr_argument,
        classes=("free_space_tree.FreeSpaceExtent",),
    ),
}


# How it is printed.


def _keys() -> _Form:
    from btrfs.ctree import FREE_SPACE_EXTENT_KEY, ItemData
    from btrfs.ondisk.key import key_str

    def lines(obj: Any) -> Iterable[str]:
        if isinstance(obj, ItemData):
            header = obj.header
            return (key_str(header.objectid, header.type, header.offset),)
        # Free space may come from a bitmap, and then has no key of its own: this would be it.
        return (key_str(obj.vaddr, FREE_SPACE_EXTENT_KEY, obj.length),)

    return lines


def _short() -> _Form:
    from btrfs.utils import str_lines

    return str_lines


def _long() -> _Form:
    from btrfs.utils import pretty_lines

    return lambda obj: pretty_lines([obj])


def _json() -> _Form:
    import json

    from btrfs.query.records import record

    return lambda obj: (json.dumps(record(obj)),)


_FORMATS = {"keys": _keys, "short": _short, "long": _long, "json": _json}
"""The functions that return what makes lines of an object."""


def _print(lines: Iterable[str]) -> None:
    """Print lines as they come: many at once where they come fast, but none much later.

    Names of files can hold any characters. What is printed is a line for each of those given.
    """
    write, flush, clock = sys.stdout.write, sys.stdout.flush, time.monotonic
    flushed = 0.0
    for line in lines:
        write(f"{line if line.isprintable() else line.translate(_ESCAPES)}\n")
        now = clock()
        if now - flushed > _FLUSH_SECONDS:
            flush()
            flushed = now


# What is on the command line.


def _number(text: str) -> int:
    from btrfs.ondisk.key import parse_u64

    try:
        return parse_u64(text)
    except OverflowError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number: {text!r}") from None


def _count(text: str) -> int:
    number = _number(text)
    if number > sys.maxsize:
        raise argparse.ArgumentTypeError(f"not a count: {text!r}")
    return number


def _tree(text: str) -> int:
    from btrfs.utils import parse_tree_name

    try:
        return parse_tree_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _key(text: str) -> Key:
    from btrfs.utils import parse_key_string

    try:
        return parse_key_string(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _no_such_tree(fs: FileSystem, args: argparse.Namespace) -> Exception | None:
    """Return what to tell when a tree does not exist: which do."""
    from btrfs import ctree
    from btrfs.errors import BtrfsError

    tree = getattr(args, "tree", None)
    if tree is None:
        return None
    trees = {
        item.key.objectid
        for item in fs.search(ctree.ROOT_TREE_OBJECTID)
        if isinstance(item, ctree.RootItem)
    }
    trees |= {ctree.ROOT_TREE_OBJECTID, ctree.CHUNK_TREE_OBJECTID}
    if tree in trees:
        return None
    return BtrfsError(f"Tree {tree} does not exist", hint=f"there is {_enumerated(sorted(trees))}")


def _enumerated(trees: list[int]) -> str:
    """Return trees in words: by name, subvolumes by number, long rows of these as a range."""
    from btrfs.ondisk.key import key_objectid_str

    first, last = 256, (1 << 64) - 256
    named = [key_objectid_str(tree, 0) for tree in trees if not first <= tree <= last]
    subvolumes = [tree for tree in trees if first <= tree <= last]
    if len(subvolumes) > 10:
        named.append(f"{len(subvolumes)} subvolumes from {subvolumes[0]} to {subvolumes[-1]}")
    else:
        named += map(str, subvolumes)
    return ", ".join(named)
