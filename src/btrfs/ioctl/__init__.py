"""The kernel's interface to a mounted filesystem, one function per ioctl.

Functions take a file descriptor of anything in the filesystem and raise :class:`OSError` where the
kernel does. Structs are those of include/uapi/linux/btrfs.h. Everything is defined in a module per
subject, and offered here.
"""

from btrfs.ioctl.balance import *
from btrfs.ioctl.device import *
from btrfs.ioctl.file_range import *
from btrfs.ioctl.filesystem import *
from btrfs.ioctl.numbers import *
from btrfs.ioctl.quota import *
from btrfs.ioctl.resolve import *
from btrfs.ioctl.scrub import *
from btrfs.ioctl.subvolume import *
from btrfs.ioctl.tree_search import *
from btrfs.ioctl.volume_args import *
from btrfs.ondisk.constants import *
from btrfs.ondisk.items.base import SearchHeader as SearchHeader
