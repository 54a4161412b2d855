"""From an address to the files that use it, and from an inode to its path.

Structs of bytes that the kernel fills with results begin with a btrfs_data_container: how much was
left over of the buffer, or missing.
"""

import fcntl
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from btrfs.ioctl.numbers import READ, WRITE, ioc
from btrfs.ondisk.constants import FIRST_FREE_OBJECTID

__all__ = [
    "INO_LOOKUP_PATH_MAX",
    "INO_LOOKUP_USER_PATH_MAX",
    "IOC_INO_LOOKUP",
    "IOC_INO_LOOKUP_USER",
    "IOC_INO_PATHS",
    "IOC_LOGICAL_INO",
    "IOC_LOGICAL_INO_V2",
    "LOGICAL_INO_ARGS_IGNORE_OFFSET",
    "VOL_NAME_MAX",
    "InoLookupResult",
    "InoLookupUserResult",
    "Inode",
    "ino_lookup",
    "ino_lookup_user",
    "ino_paths",
    "logical_ino",
    "logical_ino_v2",
    "logical_to_ino",
    "logical_to_ino_v2",
]

INO_LOOKUP_PATH_MAX = 4080
INO_LOOKUP_USER_PATH_MAX = 3824
VOL_NAME_MAX = 255
LOGICAL_INO_ARGS_IGNORE_OFFSET = 1 << 0

# struct btrfs_ioctl_logical_ino_args and btrfs_ioctl_ino_path_args: what to look up, size of the
# buffer, flags (v2), address of the buffer.
_CONTAINER_ARGS = struct.Struct("<QQ24xQQ")
# struct btrfs_data_container: bytes_left, bytes_missing, elem_cnt, elem_missed.
_CONTAINER = struct.Struct("<IIII")
_INODE = struct.Struct("<QQQ")
_POINTER = struct.Struct("<Q")
_INO_LOOKUP_ARGS = struct.Struct(f"<QQ{INO_LOOKUP_PATH_MAX}s")
_INO_LOOKUP_USER_ARGS = struct.Struct(f"<QQ{VOL_NAME_MAX + 1}s{INO_LOOKUP_USER_PATH_MAX}s")

_V1_BUFSIZE_MAX = 64 << 10
_V2_BUFSIZE_MAX = 16 << 20
_INO_PATHS_BUFSIZE = 4096

IOC_INO_LOOKUP = ioc(READ | WRITE, 18, _INO_LOOKUP_ARGS.size)
IOC_INO_PATHS = ioc(READ | WRITE, 35, 56)
IOC_LOGICAL_INO = ioc(READ | WRITE, 36, 56)
IOC_LOGICAL_INO_V2 = ioc(READ | WRITE, 59, 56)
IOC_INO_LOOKUP_USER = ioc(READ | WRITE, 62, _INO_LOOKUP_USER_ARGS.size)


class Inode(NamedTuple):
    """A place in a file that uses an extent.

    Attributes:
        inum: Inode number.
        offset: Where in the file, in bytes.
        root: Number of the subvolume.
    """

    inum: int
    offset: int
    root: int


class InoLookupResult(NamedTuple):
    """What ino_lookup() found.

    Attributes:
        treeid: Number of the subvolume.
        name_bytes: Path of the inode from the top of the subvolume, with a slash at its end; empty
            for the top itself.
    """

    treeid: int
    name_bytes: bytes


class InoLookupUserResult(NamedTuple):
    """What ino_lookup_user() found.

    Attributes:
        name_bytes: Name of the subvolume.
        path_bytes: Path of the directory that it is in, from the one that was asked, with a
            slash at its end; empty if they are the same.
    """

    name_bytes: bytes
    path_bytes: bytes


def logical_ino(fd: int, vaddr: int, bufsize: int = 4096) -> tuple[list[Inode], int]:
    """Return which files use the data at an address, by the first version of the ioctl.

    Only those whose extent item covers the very byte are found. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        vaddr: Virtual address.
        bufsize: Bytes of buffer for the result, at most 64 KiB; 16 and 24 for each use.

    Returns:
        The uses, and how many bytes the buffer was too small.

    Raises:
        OSError: ENOENT if there is no extent of data at the address.
    """
    return _logical_ino(fd, IOC_LOGICAL_INO, vaddr, min(bufsize, _V1_BUFSIZE_MAX), 0)


def logical_ino_v2(
    fd: int, vaddr: int, bufsize: int = 4096, ignore_offset: bool = False
) -> tuple[list[Inode], int]:
    """Return which files use the data at an address. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        vaddr: Virtual address.
        bufsize: Bytes of buffer for the result, at most 16 MiB; 16 and 24 for each use.
        ignore_offset: Return the uses of all of the extent that the address is in, not only
            of this byte.

    Returns:
        The uses, and how many bytes the buffer was too small.

    Raises:
        OSError: ENOENT if there is no extent of data at the address.
    """
    flags = LOGICAL_INO_ARGS_IGNORE_OFFSET if ignore_offset else 0
    return _logical_ino(fd, IOC_LOGICAL_INO_V2, vaddr, min(bufsize, _V2_BUFSIZE_MAX), flags)


def logical_to_ino(*args: Any, **kwargs: Any) -> tuple[list[Inode], int]:
    """Call :func:`logical_ino`, of which this is the old name."""
    return logical_ino(*args, **kwargs)


def logical_to_ino_v2(*args: Any, **kwargs: Any) -> tuple[list[Inode], int]:
    """Call :func:`logical_ino_v2`, of which this is the old name."""
    return logical_ino_v2(*args, **kwargs)


def _logical_ino(
    fd: int, request: int, vaddr: int, bufsize: int, flags: int
) -> tuple[list[Inode], int]:
    buffer, bytes_missing, count, _ = _fill_container(fd, request, vaddr, bufsize, flags)
    # The kernel counts the numbers, and there are three for each use.
    end = _CONTAINER.size + count // 3 * _INODE.size
    uses = _INODE.iter_unpack(memoryview(buffer)[_CONTAINER.size : end])
    return [Inode(*use) for use in uses], bytes_missing


def ino_paths(fd: int, inum: int) -> tuple[list[bytes], int]:
    """Return the paths of an inode, one per hard link, from the top of the subvolume of fd.

    Needs CAP_DAC_READ_SEARCH. :meth:`btrfs.ownership.paths.Paths.of_inode` has no limit.

    Returns:
        The paths, and how many more there are: the kernel takes only 4096 bytes of buffer.

    Raises:
        OSError: ENOENT if there is no such inode in the subvolume, or it has no name any more.
    """
    buffer, _, count, missed = _fill_container(fd, IOC_INO_PATHS, inum, _INO_PATHS_BUFSIZE, 0)
    return list(_paths(buffer, count)), missed


def _paths(buffer: bytearray, count: int) -> Iterator[bytes]:
    """Yield the paths in a buffer: offsets come first, and count from where they begin."""
    for index in range(count):
        (offset,) = _POINTER.unpack_from(buffer, _CONTAINER.size + index * _POINTER.size)
        begin = _CONTAINER.size + offset
        yield bytes(buffer[begin : buffer.index(0, begin)])


def _fill_container(
    fd: int, request: int, wanted: int, bufsize: int, flags: int
) -> tuple[bytearray, int, int, int]:
    """Let the kernel fill a buffer; return it, and of its head all but the first number."""
    # Slow to import, and needed for nothing else.
    import ctypes

    buffer = bytearray(max(bufsize, _CONTAINER.size))
    pinned = (ctypes.c_char * len(buffer)).from_buffer(buffer)
    args = bytearray(_CONTAINER_ARGS.size)
    _CONTAINER_ARGS.pack_into(args, 0, wanted, len(buffer), flags, ctypes.addressof(pinned))
    fcntl.ioctl(fd, request, args)
    _, bytes_missing, count, missed = _CONTAINER.unpack_from(buffer)
    return buffer, bytes_missing, count, missed


def ino_lookup(fd: int, treeid: int = 0, objectid: int = FIRST_FREE_OBJECTID) -> InoLookupResult:
    """Return the path of an inode, or of which subvolume a file descriptor is.

    Needs CAP_SYS_ADMIN, except with the defaults, which answer the second question.

    Args:
        fd: File descriptor.
        treeid: Number of the subvolume; 0 for that of fd.
        objectid: Inode number.

    Raises:
        OSError: ENOENT if there is no such subvolume or inode; ENAMETOOLONG if the path has no
            room in 4080 bytes.
    """
    args = bytearray(_INO_LOOKUP_ARGS.size)
    _INO_LOOKUP_ARGS.pack_into(args, 0, treeid, objectid, b"")
    fcntl.ioctl(fd, IOC_INO_LOOKUP, args)
    treeid, _, name = _INO_LOOKUP_ARGS.unpack(args)
    return InoLookupResult(treeid, name.split(b"\0", 1)[0])


def ino_lookup_user(fd: int, dirid: int, treeid: int) -> InoLookupUserResult:
    """Return name and path of a subvolume below a directory.

    Needs no privilege but to search the directories on the way.

    Args:
        fd: File descriptor of the directory, in the subvolume that holds the one in question.
        dirid: Inode number of the directory that holds the subvolume.
        treeid: Number of the subvolume.

    Raises:
        OSError: EACCES if it is not below fd, or must not be seen; ENOENT if it is not there.
    """
    args = bytearray(_INO_LOOKUP_USER_ARGS.size)
    _INO_LOOKUP_USER_ARGS.pack_into(args, 0, dirid, treeid, b"", b"")
    fcntl.ioctl(fd, IOC_INO_LOOKUP_USER, args)
    _, _, name, path = _INO_LOOKUP_USER_ARGS.unpack(args)
    return InoLookupUserResult(name.split(b"\0", 1)[0], path.split(b"\0", 1)[0])
