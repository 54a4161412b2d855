"""Subvolumes with their paths: what ``btrfs subvolume list`` shows.

    with btrfs.FileSystem('/') as fs:
        for subvolume in btrfs.ownership.subvolumes.of_filesystem(fs):
            print(subvolume.id, subvolume.path, subvolume.otime)

:func:`of_filesystem` reads the trees: all subvolumes, mounted or not, for root or with read access
to the devices. :func:`below` asks the kernel for those below a folder, with no privilege.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from btrfs import ioctl
from btrfs.errors import ItemNotFoundError, NotBtrfsError
from btrfs.ondisk import constants
from btrfs.ondisk.hashes import name_hash
from btrfs.ondisk.items.directory import DirItemList
from btrfs.ondisk.items.inode import TimeSpec
from btrfs.ondisk.items.root import RootItem
from btrfs.ondisk.key import Key
from btrfs.ondisk.printing import Printable, printed
from btrfs.ondisk.text import embedded_text_for_str
from btrfs.ownership.paths import Paths

if TYPE_CHECKING:
    from btrfs.filesystem import FileSystem

__all__ = ["Subvolume", "below", "default", "of_filesystem"]


def _path_str(path: bytes | None) -> str:
    return "none" if path is None else embedded_text_for_str(path)


@dataclass(frozen=True)
class Subvolume(
    Printable,
    line=(
        "subvolume {id} parent {parent_id} generation {generation} read_only {read_only} "
        "path {path_str}"
    ),
    module="btrfs.ownership.subvolumes",
):
    """A subvolume.

    Attributes:
        id: Its number, that of its tree.
        parent_id: Number of the subvolume that it is in; 0 if it is deleted.
        dirid: Inode number of the directory that it is in; 0 if it is deleted.
        path: Where it is, without a leading slash, from the top level or from the folder that was
            asked; None if it is deleted and not yet cleaned up.
        uuid: Its UUID; zero if Linux before 3.6 made it.
        parent_uuid: UUID of the subvolume that it is a snapshot of; zero if it is none.
        received_uuid: UUID of the subvolume that it was received from; zero if it was not.
        generation: Generation of the last change.
        ctransid: Generation of the last change of an inode in it.
        otransid: Generation that it was made in.
        stransid: Generation that it was sent in, of the filesystem that it was received from.
        rtransid: Generation that it was received in.
        read_only: Whether it can only be read.
        ctime: Time of the last change of an inode in it.
        otime: Time that it was made.
        stime: Time that it was sent, where it was received from.
        rtime: Time that it was received.
    """

    id: int
    parent_id: int
    dirid: int
    path: bytes | None
    path_str = printed(_path_str)
    uuid: UUID
    parent_uuid: UUID
    received_uuid: UUID
    generation: int
    ctransid: int
    otransid: int
    stransid: int
    rtransid: int
    read_only: bool
    ctime: TimeSpec
    otime: TimeSpec
    stime: TimeSpec
    rtime: TimeSpec


def of_filesystem(fs: "FileSystem") -> Iterator[Subvolume]:
    """Yield all subvolumes but the top level, those included that are being deleted.

    Args:
        fs: The filesystem, mounted or not.

    Yields:
        Subvolumes in the order of their numbers.

    Raises:
        CorruptError: Something on the way is damaged.
    """
    paths = Paths(fs)
    for root in fs.subvolumes():
        backref = paths.backref(root.objectid)
        yield Subvolume(
            id=root.objectid,
            parent_id=backref.parent_tree if backref else 0,
            dirid=backref.dirid if backref else 0,
            path=paths.of_subvolume(root.objectid),
            read_only=bool(root.flags & constants.ROOT_SUBVOL_RDONLY),
            **_same(root),
        )


def below(folder: str | bytes | os.PathLike[str]) -> Iterator[Subvolume]:
    """Yield the subvolumes below a folder that its user may see. Needs no privilege.

    Args:
        folder: A folder on a mounted btrfs.

    Yields:
        Subvolumes, each before those that are in it; their paths begin at the folder.

    Raises:
        NotBtrfsError: It is not on a btrfs.
        OSError: It cannot be opened.
    """
    with ExitStack() as stack:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        _require_btrfs(fd, os.fsdecode(folder))
        yield from _below(fd, b"")


def _require_btrfs(fd: int, name: str) -> None:
    """Check that an open folder is on a btrfs.

    Raises:
        NotBtrfsError: It is not.
    """
    try:
        ioctl.fs_info(fd)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP):
            raise
        raise NotBtrfsError(
            f"{name} is not on a btrfs filesystem", hint="give a folder on one that is mounted"
        ) from None


def _below(fd: int, path: bytes) -> Iterator[Subvolume]:
    """Yield the subvolumes below an open directory, whose path this is."""
    fsid = ioctl.fs_info(fd).fsid
    for ref in ioctl.get_subvol_rootref(fd):
        try:
            name, inner_path = ioctl.ino_lookup_user(fd, ref.dirid, ref.treeid)
            inner_fd = os.open(
                inner_path + name,
                os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                dir_fd=fd,
            )
        except (PermissionError, FileNotFoundError, NotADirectoryError):
            # Not below this directory, not to be seen by this user, or just deleted or replaced.
            continue
        try:
            # Something else may be mounted there.
            if _is_subvolume(inner_fd, fsid, ref.treeid):
                whole = path + inner_path + name
                yield _from_info(ioctl.get_subvol_info(inner_fd), whole)
                yield from _below(inner_fd, whole + b"/")
        finally:
            os.close(inner_fd)


def _is_subvolume(fd: int, fsid: UUID, treeid: int) -> bool:
    """Return whether an open directory is in this subvolume of this filesystem."""
    try:
        return ioctl.fs_info(fd).fsid == fsid and ioctl.ino_lookup(fd).treeid == treeid
    except OSError as error:
        if error.errno == errno.ENOTTY:
            return False
        raise


def _from_info(info: ioctl.SubvolInfo, path: bytes) -> Subvolume:
    return Subvolume(
        id=info.treeid,
        parent_id=info.parent_id,
        dirid=info.dirid,
        path=path,
        read_only=bool(info.flags & constants.ROOT_SUBVOL_RDONLY),
        **_same(info),
    )


_SAME = (
    *("uuid", "parent_uuid", "received_uuid", "generation"),
    *("ctransid", "otransid", "stransid", "rtransid"),
    *("ctime", "otime", "stime", "rtime"),
)


def _same(described: RootItem | ioctl.SubvolInfo) -> dict[str, Any]:
    """Return the attributes that a root item and the kernel's answer have by the same names."""
    return {name: getattr(described, name) for name in _SAME}


def default(fs: "FileSystem") -> int:
    """Return the number of the subvolume that is mounted if none is named; 5 for the top level.

    Raises:
        ItemNotFoundError: The entry that says so is missing, as only damage could make it.
    """
    key = Key(constants.ROOT_TREE_DIR_OBJECTID, constants.DIR_ITEM_KEY, name_hash("default"))
    for entries in fs.search(constants.ROOT_TREE_OBJECTID, key, key):
        if isinstance(entries, DirItemList):
            for entry in entries:
                if entry.name == b"default":
                    return entry.location.objectid
    raise ItemNotFoundError("No default subvolume in the root tree")
