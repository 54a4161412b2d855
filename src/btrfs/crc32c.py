"""CRC-32C and the hashes of names, by the names of python-btrfs.

All is defined in :mod:`btrfs.ondisk.hashes`.
"""

from btrfs.ondisk.hashes import *
