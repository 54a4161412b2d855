"""What is guided by coverage: functions of bytes, that raise if there is a fault."""

from __future__ import annotations

import contextlib

from btrfs.ctree import SearchHeader, classify
from btrfs.errors import CorruptError
from btrfs.ondisk.checksum import CHECKSUMS
from btrfs.source.disk.node import BlockFormat, Leaf, Pointer, parse_block
from tests.fuzz.images import CSUM_SIZE, HEADER, HEADER_SIZE, KEY, KEY_SIZE
from tests.fuzz.seeds import NODESIZE
from tests.fuzz.touch import batch_of, touch_batch, touch_object

_CRC32C = CHECKSUMS[0]
_MIN_KEY, _MAX_KEY = 0, (1 << 136) - 1


def try_item(data: bytes) -> None:
    """Read an item: its key is what the data begins with, the rest is its body."""
    if len(data) < KEY_SIZE:
        return
    objectid, key_type, offset = KEY.unpack_from(data)
    body = data[KEY_SIZE:]
    _read_item(SearchHeader(1, objectid, offset, key_type, len(body)), body)


def try_block(data: bytes) -> None:
    """Read a tree block whose checksum, UUID and address are right, and all items in it."""
    block = data[:NODESIZE].ljust(NODESIZE, b"\0")
    _, fsid, vaddr, *_, generation, _, _, level = HEADER.unpack(block[:HEADER_SIZE])
    digest = _CRC32C.digest(block[CSUM_SIZE:])
    block = digest.ljust(CSUM_SIZE, b"\0") + block[CSUM_SIZE:]
    pointer = Pointer(vaddr, generation, level)
    try:
        parsed = parse_block(block, BlockFormat(NODESIZE, _CRC32C, fsid), pointer)
    except CorruptError:
        return
    if isinstance(parsed, Leaf):
        for header, body in parsed.items(_MIN_KEY, _MAX_KEY):
            assert header.len == len(body)
            _read_item(header, bytes(body))
    else:
        assert all(child.level == level - 1 for child in parsed.children)


def _read_item(header: SearchHeader, body: bytes) -> None:
    with contextlib.suppress(CorruptError):
        touch_object(classify(header, memoryview(body)))
    with contextlib.suppress(CorruptError):
        touch_batch(batch_of(header, body))
