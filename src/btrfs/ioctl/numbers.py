"""Numbers of ioctls: direction, size of the argument, magic and a running number.

See include/uapi/asm-generic/ioctl.h, and its like of the architectures that differ.
"""

import os

__all__ = ["BTRFS_IOCTL_MAGIC", "arch"]

arch = os.uname().machine
BTRFS_IOCTL_MAGIC = 0x94

_SIZE_SHIFT = 16
_DIRECTION_SHIFT = _SIZE_SHIFT + 14
NONE, READ, WRITE = 0, 2, 1
if arch.startswith("parisc"):
    READ, WRITE = WRITE, READ
elif arch.startswith(("ppc", "powerpc", "sparc", "mips", "alpha")):
    _DIRECTION_SHIFT = _SIZE_SHIFT + 13
    NONE, READ, WRITE = 1, 2, 4


def ioc(direction: int, number: int, size: int, magic: int = BTRFS_IOCTL_MAGIC) -> int:
    """Return the number of an ioctl, as the macro _IOC() of C does.

    Args:
        direction: NONE, or READ if the kernel writes to the argument, WRITE if it reads it.
        number: Running number of the ioctl.
        size: Bytes of the argument.
        magic: What the ioctl belongs to.
    """
    return (direction << _DIRECTION_SHIFT) | (size << _SIZE_SHIFT) | (magic << 8) | number
