"""Items whose bodies are of any length and content: decoded, or refused with CorruptError."""

from __future__ import annotations

import contextlib
import random

import pytest

from btrfs.ctree import ExtentItem, ItemData, MetaDataItem, SearchHeader, classify
from btrfs.errors import CorruptError
from btrfs.ondisk import constants
from tests.fuzz.touch import batch_of, item_classes, touch_batch, touch_object

BOUNDARIES = (0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1)
"""Numbers of all sizes that a count, a length or an address is likely not to be ready for."""

LONGER = 60
"""Bodies of up to so many bytes more than the fixed part of their struct."""

LARGEST_BODY = 65536 - 101 - 25
"""Bytes of the body of the only item of a leaf of the largest nodesize."""

EVERY_CLASS = pytest.mark.parametrize("cls", item_classes(), ids=lambda cls: cls.__name__)


def read(cls: type[ItemData], body: bytes, choose: random.Random) -> None:
    """Read an item in every way, as an object and in columns."""
    parts = [choose.choice(BOUNDARIES) for _ in range(3)]
    header = SearchHeader(parts[0], parts[1], parts[2], cls.key_type, len(body))
    with contextlib.suppress(CorruptError):
        touch_object(cls(header, memoryview(body)))
    with contextlib.suppress(CorruptError):
        touch_object(classify(header, memoryview(body)))
    with contextlib.suppress(CorruptError):
        touch_batch(batch_of(header, body), [cls])


def with_boundaries(body: bytes, choose: random.Random, count: int) -> bytes:
    """Return a body with some numbers in it that are likely not to be expected."""
    changed = bytearray(body)
    for _ in range(count if body else 0):
        size = choose.choice((1, 2, 4, 8))
        at = choose.randrange(len(body))
        number = choose.choice(BOUNDARIES) & ((1 << (8 * size)) - 1)
        changed[at : at + size] = number.to_bytes(size, "little")[: len(body) - at]
    return bytes(changed)


@EVERY_CLASS
def test_bodies_of_every_length(cls: type[ItemData]) -> None:
    choose = random.Random(cls.__name__)
    for size in range(cls.struct_size + LONGER):
        # Of the small numbers some are lengths that fit.
        small = bytes(choose.choices((0, 1, 2, 5), (20, 2, 1, 1), k=size))
        for body in (bytes(size), b"\xff" * size, choose.randbytes(size), small):
            read(cls, body, choose)
        read(cls, with_boundaries(bytes(size), choose, 4), choose)


@EVERY_CLASS
def test_the_largest_bodies(cls: type[ItemData]) -> None:
    choose = random.Random(cls.__name__)
    for byte in (b"\0", b"\1", b"\xff"):
        read(cls, byte * LARGEST_BODY, choose)
    for size in (LARGEST_BODY - 1, LARGEST_BODY):
        read(cls, with_boundaries(choose.randbytes(size), choose, 1000), choose)


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 256, 258, (1 << 64) - 1])
def test_inline_references_of_all_kinds(flags: int) -> None:
    """Whole or cut off, known or not, in any order, fit for the extent or not."""
    choose = random.Random(flags)
    types = (172, 176, 178, 182, 184, 0, 255)
    for _ in range(200):
        body = choose.randbytes(16) + flags.to_bytes(8, "little")
        body += choose.randbytes(choose.choice((0, 18)))
        for _ in range(choose.randrange(6)):
            ref_type = choose.choice(types)
            size = {178: 28, 184: 12}.get(ref_type, 8)
            body += bytes([ref_type]) + choose.randbytes(size)
        body = body[: choose.choice((len(body), choose.randint(0, len(body))))]
        read(ExtentItem, body, choose)
        read(MetaDataItem, body, choose)


# What was found by the above and by the fuzzer.


def test_an_owner_of_a_tree_block_is_refused() -> None:
    """There is no place for it in the object; only extents of data have one."""
    fixed = bytes(16) + constants.EXTENT_FLAG_TREE_BLOCK.to_bytes(8, "little")
    owner = bytes([constants.EXTENT_OWNER_REF_KEY]) + (5).to_bytes(8, "little")
    header = SearchHeader(7, 1 << 20, 0, constants.METADATA_ITEM_KEY, len(fixed + owner))
    with pytest.raises(CorruptError, match="references fit for its flags"):
        MetaDataItem(header, fixed + owner)
    # Who does not want to know the references is not bothered by them.
    assert MetaDataItem(header, fixed + owner, load_refs=False).skinny_level == 0
