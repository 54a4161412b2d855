"""Exports that ncdu opens: its JSON format, major version 1, minor version 2.

A directory is a list: first an object about itself, then what is in it. It is written as the names
come, in preorder, so that millions of files take no more memory than their arrays do.

Names are bytes. They are written as they are, as ncdu itself does, so a name that is no UTF-8 makes
the file one that other programs may not take as JSON.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from btrfs.ownership.directories import Directories, Entry
    from btrfs.ownership.subvolume_files import SubvolumeFiles

__all__ = ["export"]

_NODES_AT_A_TIME = 1 << 16

_ESCAPED = re.compile(rb'[\x00-\x1f"\\\x7f]')


def export(top: Entry, *, version: str, root: bytes, lost: Iterable[int] = ()) -> Iterator[bytes]:
    """Yield the parts of an export.

    Disk usage is what is represented in a file, so that each extent counts once. A subvolume in
    which nothing is represented is named, but its files are not.

    Args:
        top: Where it begins: a directory.
        version: Of this program.
        root: What to call the top.
        lost: Numbers of the subvolumes of which something could not be read.
    """
    head = b'{"progname":"btrfs-atlas","progver":"%s","timestamp":%d}'
    yield b"[1,2," + head % (version.encode(), int(time.time()))
    writer = _Writer(top.directories, set(lost))
    yield from writer.directory(top, root)
    yield b"]\n"


class _Writer:
    """Writes directories.

    Args:
        directories: Those of all subvolumes.
        lost: Numbers of the subvolumes of which something could not be read.
    """

    def __init__(self, directories: Directories, lost: set[int]) -> None:
        self._directories = directories
        self._lost = lost

    def directory(self, entry: Entry, name: bytes) -> Iterator[bytes]:
        """Yield a directory or subvolume, with all that is below it."""
        error = b',"read_error":true' if entry.tree in self._lost else b""
        # Inode numbers are of a subvolume, so each is a device of its own.
        yield b',\n[{"name":"%s","dev":%d%s}' % (_escaped(name), entry.tree, error)
        files = self._directories.subvolume(entry.tree)
        if entry.unnamed:
            yield _special(b"(deleted, but open)", entry.unnamed)
        if entry == self._directories.top:
            elsewhere = self._directories.places.elsewhere()
            yield _special(b"(deleted subvolumes)", elsewhere.deleted)
            yield _special(b"(the filesystem itself)", elsewhere.internal)
        yield from self._below(files, entry.node)
        yield b"]"

    def _below(self, files: SubvolumeFiles, top: int) -> Iterator[bytes]:
        """Yield what is below a node."""
        names, end = files.names, int(files.names.end[top])
        open_ends: list[int] = []
        for begin in range(top + 1, end, _NODES_AT_A_TIME):
            parts: list[bytes] = []
            nodes = range(begin, min(begin + _NODES_AT_A_TIME, end))
            for node, name, item in zip(
                nodes, names.names(nodes.start, nodes.stop), _items(files, nodes), strict=True
            ):
                while open_ends and open_ends[-1] <= node:
                    open_ends.pop()
                    parts.append(b"]")
                if node in names.mounts:
                    yield b"".join(parts)
                    parts.clear()
                    yield from self._subvolume(names.mounts[node].tree, name)
                    continue
                is_directory, attributes = item
                parts.append(b',\n[{"name":"' if is_directory else b',\n{"name":"')
                parts.append(_escaped(name))
                parts.append(attributes)
                if is_directory:
                    open_ends.append(int(names.end[node]))
            yield b"".join(parts)
        yield b"]" * len(open_ends)

    def _subvolume(self, tree: int, name: bytes) -> Iterator[bytes]:
        if self._directories.places.totals(tree).represented:
            yield from self.directory(self._directories.subvolume_top(tree), name)
        else:
            yield b',\n{"name":"%s","excluded":"otherfs"}' % _escaped(name)


def _items(files: SubvolumeFiles, nodes: range) -> Iterator[tuple[bool, bytes]]:
    """Yield for each node whether it is a directory, and the rest of its object."""
    names, inodes = files.names, files.inodes
    inum = names.inum[nodes.start : nodes.stop]
    index = names.index_of(inum)
    columns = (
        inum,
        files.files.represented[index],
        inodes.size[index],
        inodes.mode[index],
        inodes.nlink[index],
    )
    for ino, disk, size, mode, nlink in zip(*(each.tolist() for each in columns), strict=True):
        if stat.S_ISDIR(mode):
            yield True, b'","ino":%d}' % ino
            continue
        links = b',"hlnkc":true,"nlink":%d' % nlink if nlink > 1 else b""
        kind = b"" if stat.S_ISREG(mode) else b',"notreg":true'
        yield False, b'","asize":%d,"dsize":%d,"ino":%d%s%s}' % (size, disk, ino, links, kind)


def _special(name: bytes, size: int) -> bytes:
    """Return what has no place in any directory, as a file."""
    return b',\n{"name":"%s","dsize":%d}' % (name, size) if size else b""


def _escaped(name: bytes) -> bytes:
    """Return a name as it stands in a string of JSON."""
    return _ESCAPED.sub(lambda found: b"\\u%04x" % found[0][0], name)
