"""The files of duplicates: who uses a copy, and which whole files are equal.

    with btrfs.FileSystem('/') as fs:
        found = btrfs.ownership.duplicates.find(fs)
        for files in btrfs.ownership.duplicate_files.equal_files(fs, found):
            print([file.path for file in files])

Duplicates are found without looking at files, as there are many more of these. Here, files are
looked up for the groups that are shown: a few look-ups for each extent.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from btrfs.errors import BtrfsError
from btrfs.ondisk import constants
from btrfs.ondisk.constants import ULLONG_MAX
from btrfs.ondisk.items.file_extent import FileExtentItem
from btrfs.ondisk.items.inode import InodeItem
from btrfs.ondisk.key import Key
from btrfs.ownership.backrefs import Owners, owners
from btrfs.ownership.duplicates import WINDOW, Checksums, Duplicates, Progress
from btrfs.ownership.paths import Paths, Place

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["EqualFile", "FileNames", "Name", "equal_files"]

_USERS = 8
"""So many users of an extent are looked at: some may be deleted, but not removed yet."""


class Name(NamedTuple):
    """A file that uses some data.

    Attributes:
        path: Its path from the top level, without a leading slash; None if it is deleted, or in a
            subvolume that is.
        others: How many other places use the same data: reflinks, snapshots.
    """

    path: bytes | None
    others: int


class EqualFile(NamedTuple):
    """A file that has the same content as others.

    Attributes:
        tree: Number of its subvolume.
        inum: Inode number.
        path: Its path from the top level, without a leading slash.
        size: Bytes.
    """

    tree: int
    inum: int
    path: bytes
    size: int


class FileNames:
    """Finds the names of files by what they use.

    Args:
        fs: The filesystem, which must stay open.
    """

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._paths = Paths(fs)

    def at(self, vaddr: int) -> Name | None:
        """Return the first file that uses the data at an address.

        If no file uses that byte any more, a file is returned that keeps the extent.

        Args:
            vaddr: Virtual address.

        Returns:
            None if there is no such file, or what leads to it cannot be read.
        """
        for ignore_offset in (False, True):
            users = self._users(vaddr, ignore_offset=ignore_offset)
            for user in users.files:
                path = self.path(Place(user.tree, user.inum))
                if path is not None:
                    return Name(path, len(users.files) + users.more - 1)
            if users.files:
                return Name(None, len(users.files) + users.more - 1)
        return None

    def user_of(self, extent: int) -> Place | None:
        """Return the first file with a path that uses the extent at an address; None if none."""
        for user in self._users(extent, ignore_offset=True).files:
            place = Place(user.tree, user.inum)
            if self.path(place) is not None:
                return place
        return None

    def _users(self, vaddr: int, *, ignore_offset: bool) -> Owners:
        try:
            return owners(self._fs, vaddr, _USERS, ignore_offset=ignore_offset)
        except BtrfsError:
            return Owners([], 0, [], complete=False)

    def path(self, place: Place) -> bytes | None:
        """Return the path of an inode from the top level; None if it has none."""
        try:
            top = self._paths.of_subvolume(place.tree)
            inner = next(self._paths.of_inode(*place), None)
        except (BtrfsError, FileNotFoundError):
            return None
        return None if top is None or inner is None else b"/".join(filter(None, (top, inner)))


def equal_files(
    fs: FileSystem,
    found: Duplicates,
    groups: Sequence[int] | None = None,
    progress: Progress = lambda _done, _total: None,
) -> list[list[EqualFile]]:
    """Return files that have the same content all the way, but do not share all of it.

    Files that share all of their extents, such as those in snapshots, are one: the first is named.
    With crc32c, files of less than 16 sectors only count where what lies beside them on disk is
    equal, too. Files with data that has no checksums are left out, and so are copies that are
    compressed in another way.

    Args:
        fs: The filesystem.
        found: Its duplicates.
        groups: Indexes of the groups in which to look for files; of all if not given.
        progress: Is called with how many groups are done, and how many there are.

    Returns:
        Lists of two files at least, those first of which the copies take most space.

    Raises:
        CorruptError: A tree block or an item is damaged, unless that is to be skipped.
    """
    names = FileNames(fs)
    least = WINDOW * fs.sectorsize
    seen: set[Place] = set()
    by_content: dict[tuple[bytes, object], list[EqualFile]] = defaultdict(list)
    wanted = range(len(found.groups)) if groups is None else groups
    for done, index in enumerate(wanted):
        progress(done, len(wanted))
        for place, offset in _users(names, found, index):
            if place in seen:
                continue
            seen.add(place)
            content = _content(fs, found.checksums, place)
            if content is None:
                continue
            # The same place in a run of equal sectors, which is long enough.
            beside: object = None
            if found.is_estimate and content.size < least:
                if content.pieces > 1:
                    continue
                beside = (index, offset)
            path = names.path(place)
            if path is not None:
                file = EqualFile(*place, path, content.size)
                by_content[content.digest, beside].append(file)
    equal = [sorted(files, key=_path) for files in by_content.values() if len(files) > 1]
    return sorted(equal, key=lambda files: (-files[0].size * (len(files) - 1), files[0].path))


def _path(file: EqualFile) -> bytes:
    return file.path


def _users(names: FileNames, found: Duplicates, index: int) -> Iterator[tuple[Place, int]]:
    """Yield a file for each extent of the copies of a group, and where in the copy that begins."""
    for vaddr in found.groups.vaddrs(index):
        extents = found.extents.within(vaddr, int(found.groups.length[index]))
        for extent in extents.vaddr.tolist():
            place = names.user_of(extent)
            if place is not None:
                yield place, extent - vaddr


class _Content(NamedTuple):
    """What is in a file.

    Attributes:
        size: Bytes.
        pieces: In how many file extents it lies.
        digest: Equal for files with the same content.
    """

    size: int
    pieces: int
    digest: bytes


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None:
        """Add some bytes."""


def _content(fs: FileSystem, checksums: Checksums, place: Place) -> _Content | None:
    """Return what is in a file; None if that is not known from checksums alone."""
    size: int | None = None
    digest = hashlib.sha256()
    end = pieces = 0
    first = Key(place.inum, constants.INODE_ITEM_KEY, 0)
    last = Key(place.inum, constants.EXTENT_DATA_KEY, ULLONG_MAX)
    for item in fs.search(place.tree, first, last):
        if isinstance(item, InodeItem):
            size = item.size
            digest.update(b"size %d" % size)
        elif isinstance(item, FileExtentItem) and not _is_hole(item):
            if not _add_piece(digest, checksums, item, follows=item.logical_offset == end):
                return None
            end = item.logical_offset + _length(item)
            pieces += 1
    return None if size is None else _Content(size, pieces, digest.digest())


def _is_hole(item: FileExtentItem) -> bool:
    """Return whether a piece of a file is read as zeros."""
    if item.type == constants.FILE_EXTENT_INLINE:
        return False
    return item.type == constants.FILE_EXTENT_PREALLOC or item.disk_bytenr == 0


def _length(item: FileExtentItem) -> int:
    return item.ram_bytes if item.type == constants.FILE_EXTENT_INLINE else item.num_bytes


def _add_piece(digest: _Hash, checksums: Checksums, item: FileExtentItem, *, follows: bool) -> bool:
    """Add a piece of a file to the digest of its content.

    Where pieces follow one another, it makes no difference where one ends and the next begins.

    Returns:
        Whether its checksums are known.
    """
    if item.type == constants.FILE_EXTENT_INLINE:
        digest.update(b"inline %d %d" % (item.compression, item.ram_bytes) + item.inline_data)
        return True
    if item.compression:
        # What this piece reads as depends on all of the extent, and on where in it the piece is.
        how = (item.compression, item.logical_offset, item.num_bytes, item.offset, item.ram_bytes)
        digest.update(b"compressed %d %d %d %d %d" % how)
    elif not follows:
        digest.update(b"at %d" % item.logical_offset)
    if item.compression:
        vaddr, length = item.disk_bytenr, item.disk_num_bytes
    else:
        vaddr, length = item.disk_bytenr + item.offset, item.num_bytes
    values = checksums.of_range(vaddr, length)
    if values is None:
        return False
    digest.update(values.tobytes())
    return True
