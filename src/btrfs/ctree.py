"""The public face of the library: numbers, keys, items, and FileSystem.

Everything here is defined elsewhere: numbers in :mod:`btrfs.ondisk.constants`, keys in
:mod:`btrfs.ondisk.key`, items in :mod:`btrfs.ondisk.items`, FileSystem in :mod:`btrfs.filesystem`.
"""

from btrfs.errors import ItemNotFoundError as ItemNotFoundError
from btrfs.filesystem import FileSystem as FileSystem
from btrfs.ondisk.constants import *
from btrfs.ondisk.items.balance import *
from btrfs.ondisk.items.base import *
from btrfs.ondisk.items.chunk import *
from btrfs.ondisk.items.csum import *
from btrfs.ondisk.items.device import *
from btrfs.ondisk.items.directory import *
from btrfs.ondisk.items.extent import *
from btrfs.ondisk.items.file_extent import *
from btrfs.ondisk.items.free_space import *
from btrfs.ondisk.items.inode import *
from btrfs.ondisk.items.quota import *
from btrfs.ondisk.items.root import *
from btrfs.ondisk.items.uuid_tree import *
from btrfs.ondisk.key import DiskKey as DiskKey, Key as Key
