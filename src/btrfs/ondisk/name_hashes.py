"""Hashes of many names at once, with numpy: the same as :mod:`btrfs.ondisk.hashes` for one.

A CRC is linear: what a byte adds to it depends only on the byte and on how many follow. Eight bytes
of all names are looked up at a time, in four tables of two bytes each. A name is cut into words of
eight bytes from its end, so that only its first word can be short; zeros before a name change
nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.columns import take

__all__ = ["extref_hashes", "name_hashes"]

# The kernel starts its hashes of names from ~1.
_NAME_HASH_SEED = 0xFFFFFFFE
# The polynomial of CRC-32C, its lowest power in the highest bit.
_POLYNOMIAL = 0x82F63B78

_WORD = 8
_PAIRS = _WORD // 2
_BITS = 8


def name_hashes(
    buffer: NDArray[np.uint8], begin: NDArray[np.int64], length: NDArray[Any]
) -> NDArray[np.uint32]:
    """Return the hashes that DIR_ITEM and XATTR_ITEM of names are stored under.

    Args:
        buffer: Bytes that hold the names.
        begin: Where in it each begins.
        length: Bytes in each.
    """
    return _hashes(buffer, begin, length, np.full(len(begin), _NAME_HASH_SEED, np.uint64))


def extref_hashes(
    parent: NDArray[np.uint64],
    buffer: NDArray[np.uint8],
    begin: NDArray[np.int64],
    length: NDArray[Any],
) -> NDArray[np.uint32]:
    """Return the hashes that the INODE_EXTREF of names are stored under.

    Args:
        parent: Inode number of the directory of each.
        buffer: Bytes that hold the names.
        begin: Where in it each begins.
        length: Bytes in each.
    """
    return _hashes(buffer, begin, length, parent & np.uint64(0xFFFFFFFF))


def _hashes(
    buffer: NDArray[np.uint8],
    begin: NDArray[np.int64],
    length: NDArray[Any],
    seed: NDArray[np.uint64],
) -> NDArray[np.uint32]:
    length = length.astype(np.int64)
    words = (length + (_WORD - 1)) // _WORD
    # Those with most words come first: the names that have an Nth word from the end are then a
    # slice.
    order = np.argsort(-words, kind="stable")
    words, seed = words[order], seed[order]
    end = (begin + length)[order]
    if len(end) and (end - words * _WORD).min() < 0:
        buffer, end = np.concatenate([np.zeros(_WORD, np.uint8), buffer]), end + _WORD
    # How many names have at least so many words.
    counts = len(words) - np.searchsorted(words[::-1], np.arange(words.max(initial=0) + 1), "left")
    state = seed.copy()
    started = 0
    for number in range(len(counts) - 1, 0, -1):
        active = int(counts[number])
        word = take(buffer, "<u8", end[:active] - number * _WORD)
        word[:started] ^= state[:started]
        rest = np.zeros(active, np.uint64)
        word[started:], rest[started:] = _first_words(
            word[started:], seed[started:active], length[order[started:active]]
        )
        state[:active] = _looked_up(word) ^ rest
        started = active
    found = np.empty(len(order), np.uint32)
    found[order] = state
    return found


def _first_words(
    word: NDArray[np.uint64], seed: NDArray[np.uint64], length: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first words of names with the seed in them, and what of it is left.

    Args:
        word: Words whose last bytes are the first of the names.
        seed: Seed of each.
        length: Length of each name.
    """
    # From 1 to 8 of its bytes belong to the name, the last ones: these are the upper bits.
    used = ((length - 1) % _WORD + 1).astype(np.uint64) * np.uint64(_BITS)
    before = np.uint64(_WORD * _BITS) - used
    # A seed of four bytes is longer than some names. A shift by 64 bits is never needed but for
    # the rest of a whole word, of which nothing is left.
    rest = np.where(used < _WORD * _BITS, seed >> np.minimum(used, np.uint64(63)), np.uint64(0))
    return (word >> before ^ seed) << before, rest


def _looked_up(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the CRC of each word."""
    # As columns of the type that numpy looks up by, it takes the least time.
    pairs = word.astype("<u8", copy=False).view("<u2").reshape(-1, _PAIRS).T.astype(np.intp)
    tables = _tables()
    found = tables[0].take(pairs[0])
    for number in range(1, _PAIRS):
        found ^= tables[number].take(pairs[number])
    return np.asarray(found, np.uint64)


@cache
def _tables() -> NDArray[np.uint32]:
    """Return for the Nth two bytes of a word what they make of the CRC, by their value."""
    crc = np.arange(1 << _BITS, dtype=np.uint32)
    for _ in range(_BITS):
        crc = np.where(crc & 1, crc >> 1 ^ np.uint32(_POLYNOMIAL), crc >> 1)
    by_byte = [crc]
    for _ in range(_WORD - 1):
        last = by_byte[-1]
        by_byte.append(crc[last & 0xFF] ^ last >> np.uint32(_BITS))
    by_byte.reverse()
    value = np.arange(1 << 2 * _BITS)
    low, high = value & 0xFF, value >> _BITS
    return np.array(
        [by_byte[at][low] ^ by_byte[at + 1][high] for at in range(0, _WORD, 2)], np.uint32
    )
