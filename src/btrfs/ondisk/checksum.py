"""The four types of checksum that a filesystem can be made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    # google_crc32c takes bytes or an array, but no memoryview.
    Checked = bytes | NDArray[np.uint8]

__all__ = ["CHECKSUMS", "ChecksumType"]


class ChecksumType(NamedTuple):
    """A type of checksum.

    Attributes:
        name: As mkfs.btrfs calls it.
        size: Bytes that are stored.
        digest: Function that returns the bytes to be stored for some bytes.
    """

    name: str
    size: int
    digest: Callable[[Checked], bytes]


def _crc32c(data: Checked) -> bytes:
    import google_crc32c

    return int(google_crc32c.value(data)).to_bytes(4, "little")


def _xxhash64(data: Any) -> bytes:
    import xxhash

    return xxhash.xxh64_intdigest(data).to_bytes(8, "little")


def _sha256(data: Any) -> bytes:
    import hashlib

    return hashlib.sha256(data).digest()


def _blake2b(data: Any) -> bytes:
    import hashlib

    return hashlib.blake2b(data, digest_size=32).digest()


# By csum_type of the superblock.
CHECKSUMS = {
    0: ChecksumType("crc32c", 4, _crc32c),
    1: ChecksumType("xxhash", 8, _xxhash64),
    2: ChecksumType("sha256", 32, _sha256),
    3: ChecksumType("blake2", 32, _blake2b),
}
