"""Subvolumes: what describes them, making, deleting and marking them.

Where it says *fd of a directory*, this is where a name is looked up. Some of these need no
privilege: a user who may write to a directory may make subvolumes in it, and may ask about each
subvolume that he can reach.
"""

import errno
import fcntl
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, NamedTuple

from btrfs.ioctl.numbers import READ, WRITE, ioc
from btrfs.ioctl.volume_args import VOL_ARGS_SIZE, vol_args, vol_args_v2
from btrfs.ondisk.constants import ROOT_FLAG_NAMES
from btrfs.ondisk.fields import Bytes, Stored, hidden, u32, u64, uuid16
from btrfs.ondisk.items.inode import TimeSpec
from btrfs.ondisk.printing import as_flags, printed
from btrfs.ondisk.struct import Struct
from btrfs.ondisk.text import embedded_text_for_str

if TYPE_CHECKING:
    from uuid import UUID

__all__ = [
    "IOC_DEFAULT_SUBVOL",
    "IOC_GET_SUBVOL_INFO",
    "IOC_GET_SUBVOL_ROOTREF",
    "IOC_SET_RECEIVED_SUBVOL",
    "IOC_SNAP_CREATE_V2",
    "IOC_SNAP_DESTROY",
    "IOC_SNAP_DESTROY_V2",
    "IOC_SUBVOL_CREATE_V2",
    "IOC_SUBVOL_GETFLAGS",
    "IOC_SUBVOL_SETFLAGS",
    "SUBVOL_RDONLY",
    "SUBVOL_SPEC_BY_ID",
    "SubvolInfo",
    "SubvolRootref",
    "create_snapshot",
    "create_subvolume",
    "delete_subvolume",
    "delete_subvolume_by_id",
    "get_subvol_flags",
    "get_subvol_info",
    "get_subvol_rootref",
    "set_default_subvol",
    "set_received_subvol",
    "set_subvol_flags",
]

SUBVOL_RDONLY = 1 << 1
SUBVOL_SPEC_BY_ID = 1 << 4


class IoctlTimeSpec(TimeSpec):
    """A point in time, filled up to 16 bytes as the compiler does (struct btrfs_ioctl_timespec)."""

    padding: u32 = hidden()


class SubvolInfo(
    Struct,
    line=(
        "subvol id {treeid} parent_id {parent_id} dirid {dirid} generation {generation} "
        "flags {flags_str} name {name_str}"
    ),
    module="btrfs.ioctl",
):
    """A subvolume (struct btrfs_ioctl_get_subvol_info_args).

    Attributes:
        treeid: Its number.
        name: Its name in the directory that holds it; empty for the top level.
        parent_id: Number of the subvolume that it is in; 0 for the top level.
        dirid: Inode number of the directory that holds it; 0 for the top level.
        generation: When it was last changed.
        flags: ROOT_SUBVOL_RDONLY, if it is read-only.
        uuid: Its UUID.
        parent_uuid: That of the subvolume which it is a snapshot of; zero if it is none.
        received_uuid: That of the subvolume which it was received from; zero if it was not.
        ctransid: Generation of the last change of an inode in it.
        otransid: Generation that it was made in.
        stransid: Generation that it was sent in, of the filesystem that it came from.
        rtransid: Generation that it was received in.
        ctime: Time of the last change of an inode in it.
        otime: Time that it was made.
        stime: Time that it was sent.
        rtime: Time that it was received.
    """

    treeid: u64
    name_bytes: Annotated[bytes, Stored("256s", "V256")] = hidden()
    parent_id: u64
    dirid: u64
    generation: u64
    flags: u64
    flags_str = as_flags(ROOT_FLAG_NAMES)
    uuid: uuid16
    parent_uuid: uuid16
    received_uuid: uuid16
    ctransid: u64
    otransid: u64
    stransid: u64
    rtransid: u64
    ctime: IoctlTimeSpec
    otime: IoctlTimeSpec
    stime: IoctlTimeSpec
    rtime: IoctlTimeSpec
    reserved: Annotated[bytes, Stored("64s", "V64")] = hidden()
    name: bytes
    name_str = printed(embedded_text_for_str)

    def __init__(self, buf: Bytes) -> None:
        super().__init__(buf)
        self.name = self.name_bytes.split(b"\0", 1)[0]


class SubvolRootref(NamedTuple):
    """A subvolume inside another (struct btrfs_ioctl_get_subvol_rootref_args).

    Attributes:
        treeid: Number of the inner one.
        dirid: Inode number of the directory that holds it.
    """

    treeid: int
    dirid: int


_ROOTREFS_PER_CALL = 255
_ROOTREF = struct.Struct("<QQ")
_ROOTREF_ARGS = struct.Struct(f"<Q{_ROOTREFS_PER_CALL * _ROOTREF.size}sB7x")
# struct btrfs_ioctl_received_subvol_args: uuid, stransid, rtransid, stime, rtime, flags. The
# times are not filled up: this is how 32 bit programs see it, which all kernels understand.
_RECEIVED_SUBVOL_ARGS = struct.Struct("<16sQQQIQIQ128x")

IOC_SNAP_DESTROY = ioc(WRITE, 15, VOL_ARGS_SIZE)
IOC_DEFAULT_SUBVOL = ioc(WRITE, 19, 8)
IOC_SNAP_CREATE_V2 = ioc(WRITE, 23, VOL_ARGS_SIZE)
IOC_SUBVOL_CREATE_V2 = ioc(WRITE, 24, VOL_ARGS_SIZE)
IOC_SUBVOL_GETFLAGS = ioc(READ, 25, 8)
IOC_SUBVOL_SETFLAGS = ioc(WRITE, 26, 8)
IOC_SET_RECEIVED_SUBVOL = ioc(READ | WRITE, 37, _RECEIVED_SUBVOL_ARGS.size)
IOC_GET_SUBVOL_INFO = ioc(READ, 60, SubvolInfo.struct_size)
IOC_GET_SUBVOL_ROOTREF = ioc(READ | WRITE, 61, _ROOTREF_ARGS.size)
IOC_SNAP_DESTROY_V2 = ioc(WRITE, 63, VOL_ARGS_SIZE)


def get_subvol_info(fd: int) -> SubvolInfo:
    """Return what describes the subvolume that fd is in. Needs no privilege.

    Raises:
        OSError: ENOENT if it has been deleted.
    """
    args = bytearray(SubvolInfo.struct_size)
    fcntl.ioctl(fd, IOC_GET_SUBVOL_INFO, args)
    return SubvolInfo(args)


def get_subvol_rootref(fd: int, min_treeid: int = 0) -> Iterator[SubvolRootref]:
    """Yield the subvolumes that are directly in the one that fd is in. Needs no privilege.

    Args:
        fd: File descriptor.
        min_treeid: Lowest number of a subvolume to begin with.
    """
    more = True
    while more:
        args = bytearray(_ROOTREF_ARGS.size)
        struct.pack_into("<Q", args, 0, min_treeid)
        try:
            fcntl.ioctl(fd, IOC_GET_SUBVOL_ROOTREF, args)
            more = False
        except OSError as error:
            # The buffer is full, and min_treeid says where to go on.
            if error.errno != errno.EOVERFLOW:
                raise
        min_treeid, refs, count = _ROOTREF_ARGS.unpack(args)
        for index in range(count):
            yield SubvolRootref(*_ROOTREF.unpack_from(refs, index * _ROOTREF.size))


def create_subvolume(fd: int, name: str | bytes) -> None:
    """Make an empty subvolume. Needs no privilege but to write to the directory.

    Args:
        fd: File descriptor of the directory to make it in.
        name: Its name there.

    Raises:
        OSError: EEXIST if there is something of that name.
        ValueError: The name is too long or has a NUL in it.
    """
    fcntl.ioctl(fd, IOC_SUBVOL_CREATE_V2, vol_args_v2(name))


def create_snapshot(fd: int, name: str | bytes, source_fd: int, read_only: bool = False) -> None:
    """Make a snapshot of a subvolume. Needs no privilege but to own the source.

    Args:
        fd: File descriptor of the directory to make it in.
        name: Its name there.
        source_fd: File descriptor of the subvolume.
        read_only: Make one that cannot be written to.

    Raises:
        OSError: EEXIST if there is something of that name, EINVAL if the source is no subvolume.
        ValueError: The name is too long or has a NUL in it.
    """
    flags = SUBVOL_RDONLY if read_only else 0
    fcntl.ioctl(fd, IOC_SNAP_CREATE_V2, vol_args_v2(name, fd=source_fd, flags=flags))


def delete_subvolume(fd: int, name: str | bytes) -> None:
    """Delete a subvolume. Its extents are freed in the background afterwards.

    Needs CAP_SYS_ADMIN, or the mount option user_subvol_rm_allowed, or an empty subvolume.

    Args:
        fd: File descriptor of the directory that it is in.
        name: Its name there.

    Raises:
        OSError: ENOENT if there is nothing of that name, EINVAL if it is no subvolume, ENOTEMPTY
            if another subvolume is in it, EPERM if it is the default one.
        ValueError: The name is too long or has a NUL in it.
    """
    fcntl.ioctl(fd, IOC_SNAP_DESTROY, vol_args(name))


def delete_subvolume_by_id(fd: int, treeid: int) -> None:
    """Delete a subvolume, wherever it is. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor of a directory in the filesystem.
        treeid: Number of the subvolume.

    Raises:
        OSError: ENOENT if there is no such subvolume; else as :func:`delete_subvolume`.
    """
    args = vol_args_v2(number=treeid, flags=SUBVOL_SPEC_BY_ID)
    fcntl.ioctl(fd, IOC_SNAP_DESTROY_V2, args)


def get_subvol_flags(fd: int) -> int:
    """Return the flags of a subvolume: SUBVOL_RDONLY or 0. Needs no privilege.

    Raises:
        OSError: EINVAL if fd is not the top of a subvolume.
    """
    args = bytearray(8)
    fcntl.ioctl(fd, IOC_SUBVOL_GETFLAGS, args)
    return int.from_bytes(args, "little")


def set_subvol_flags(fd: int, flags: int) -> None:
    """Set the flags of a subvolume. Needs to own it.

    A read-only subvolume that was received should stay so: made writable, it keeps the UUID that
    incremental receiving trusts.

    Args:
        fd: File descriptor of the top of the subvolume.
        flags: SUBVOL_RDONLY, or 0 to make it writable.

    Raises:
        OSError: EINVAL if fd is not the top of a subvolume, EPERM while it is being sent.
    """
    fcntl.ioctl(fd, IOC_SUBVOL_SETFLAGS, struct.pack("<Q", flags))


def set_default_subvol(fd: int, treeid: int) -> None:
    """Choose the subvolume that is mounted if none is named. Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        treeid: Number of the subvolume; 0 for the top level.

    Raises:
        OSError: ENOENT if there is no such subvolume.
    """
    fcntl.ioctl(fd, IOC_DEFAULT_SUBVOL, struct.pack("<Q", treeid))


def set_received_subvol(
    fd: int, received_uuid: "UUID", stransid: int, stime: TimeSpec
) -> tuple[int, TimeSpec]:
    """Say of a subvolume that it was received. Needs to own it.

    Args:
        fd: File descriptor of the top of the subvolume, which must be writable.
        received_uuid: UUID of the subvolume that was sent.
        stransid: Generation of that one when it was sent.
        stime: Time of the sending.

    Returns:
        Generation and time of the receiving, which is now.

    Raises:
        OSError: EROFS if it is read-only, EINVAL if fd is not the top of a subvolume.
    """
    args = bytearray(
        _RECEIVED_SUBVOL_ARGS.pack(
            received_uuid.bytes, stransid, 0, stime.sec % (1 << 64), stime.nsec, 0, 0, 0
        )
    )
    fcntl.ioctl(fd, IOC_SET_RECEIVED_SUBVOL, args)
    _, _, rtransid, _, _, sec, nsec, _ = _RECEIVED_SUBVOL_ARGS.unpack(args)
    return rtransid, TimeSpec.from_values(sec, nsec)
