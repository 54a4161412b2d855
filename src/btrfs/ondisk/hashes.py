"""CRC-32C, and the hashes of names that directories and hard links are looked up by."""

from __future__ import annotations

from btrfs.ondisk.fields import Bytes

__all__ = ["crc32c", "crc32c_data", "extref_hash", "name_hash"]

_INVERT = 0xFFFFFFFF
# The kernel starts its hashes of names from ~1.
_NAME_HASH_SEED = 0xFFFFFFFE


def crc32c(crc: int, data: Bytes) -> int:
    """Return the CRC of data, continued from ``crc``, without inversions, as the kernel hashes."""
    import google_crc32c

    return int(google_crc32c.extend(crc ^ _INVERT, bytes(data))) ^ _INVERT


def crc32c_data(data: Bytes) -> int:
    """Return the ordinary CRC-32C checksum of data, the one that btrfs stores."""
    import google_crc32c

    return int(google_crc32c.value(bytes(data)))


def name_hash(name: str | bytes) -> int:
    """Return the hash of a name that its DIR_ITEM or XATTR_ITEM is stored under.

    >>> name_hash('default')
    2378154706
    """
    return crc32c(_NAME_HASH_SEED, _encoded(name))


def extref_hash(parent_objectid: int, name: str | bytes) -> int:
    """Return the hash that the INODE_EXTREF of a name is stored under.

    >>> extref_hash(256, 'abc')
    1166869690

    Args:
        parent_objectid: Inode number of the directory.
        name: Name in it.
    """
    return crc32c(parent_objectid, _encoded(name))


def _encoded(name: str | bytes) -> bytes:
    return name.encode() if isinstance(name, str) else name
