"""The public face of the library: numbers, keys, items, and FileSystem.

Everything here is defined elsewhere: numbers in :mod:`btrfs.constants`, keys in
:mod:`btrfs.key`, items in :mod:`btrfs.items`, FileSystem in :mod:`btrfs.filesystem`.
"""

from btrfs.constants import *
from btrfs.errors import ItemNotFoundError as ItemNotFoundError
from btrfs.filesystem import FileSystem as FileSystem
from btrfs.items.balance import *
from btrfs.items.base import *
from btrfs.items.chunk import *
from btrfs.items.csum import *
from btrfs.items.device import *
from btrfs.items.directory import *
from btrfs.items.extent import *
from btrfs.items.file_extent import *
from btrfs.items.free_space import *
from btrfs.items.inode import *
from btrfs.items.quota import *
from btrfs.items.root import *
from btrfs.items.uuid_tree import *
from btrfs.key import DiskKey as DiskKey, Key as Key
