"""The two arguments that most ioctls on subvolumes and devices take: a name, or a number."""

import os
import struct

__all__ = ["DEVICE_PATH_NAME_MAX", "PATH_NAME_MAX", "SUBVOL_NAME_MAX"]

DEVICE_PATH_NAME_MAX = 1024
PATH_NAME_MAX = 4087
SUBVOL_NAME_MAX = 4039

# struct btrfs_ioctl_vol_args: fd, name.
_VOL_ARGS = struct.Struct(f"<q{PATH_NAME_MAX + 1}s")
# struct btrfs_ioctl_vol_args_v2: fd, transid, flags, 32 bytes for quota groups, name or number.
_VOL_ARGS_V2 = struct.Struct(f"<qQQ32x{SUBVOL_NAME_MAX + 1}s")
VOL_ARGS_SIZE = 4096


def vol_args(name: str | bytes | os.PathLike[str]) -> bytearray:
    """Return a struct btrfs_ioctl_vol_args with a name or path.

    Raises:
        ValueError: The name is too long, or has a NUL in it.
    """
    return bytearray(_VOL_ARGS.pack(0, name_field(name, PATH_NAME_MAX)))


def vol_args_v2(
    name: str | bytes | os.PathLike[str] | None = None,
    *,
    number: int = 0,
    fd: int = 0,
    flags: int = 0,
) -> bytearray:
    """Return a struct btrfs_ioctl_vol_args_v2 with a name, or with a number in its place.

    Raises:
        ValueError: The name is too long, or has a NUL in it.
    """
    field = struct.pack("<Q", number) if name is None else name_field(name, SUBVOL_NAME_MAX)
    return bytearray(_VOL_ARGS_V2.pack(fd, 0, flags, field))


def name_field(name: str | bytes | os.PathLike[str], longest: int) -> bytes:
    """Return a name as bytes for a field of a struct, checked: the kernel would cut it off.

    Raises:
        ValueError: The name is longer than ``longest`` bytes, or has a NUL in it.
    """
    field = os.fsencode(name)
    if len(field) > longest:
        raise ValueError(f"a name of {len(field)} bytes is too long: {longest} at most")
    if b"\0" in field:
        raise ValueError(f"a name cannot have a NUL in it: {field!r}")
    return field
