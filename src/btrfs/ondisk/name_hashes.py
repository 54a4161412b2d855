"""Hashes of many names at once, with numpy: the same as :mod:`btrfs.ondisk.hashes` for one.

References of files to extents have a hash, too, of three numbers.

A CRC is linear: what a byte adds to it depends only on the byte and on how many follow. Eight bytes
of all names are looked up at a time, in four tables of two bytes each. A name is cut into words of
eight bytes from its end, so that only its first word can be short; zeros before a name change
nothing. The same words serve to search for bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from btrfs.ondisk.columns import take

__all__ = ["data_ref_hashes", "extref_hashes", "name_hashes", "names_with"]

# The kernel starts its hashes of names from ~1.
_NAME_HASH_SEED = 0xFFFFFFFE
# and those of references from ~0.
_REF_HASH_SEED = 0xFFFFFFFF
# How far the hash of the tree is shifted, so that it and the other one share a bit.
_REF_HASH_SHIFT = 31
# The polynomial of CRC-32C, its lowest power in the highest bit.
_POLYNOMIAL = 0x82F63B78

_WORD = 8
_PAIRS = _WORD // 2
_BITS = 8
_SEED_BITS = 32
# A word whose bytes are all 1.
_ONES = 0x0101010101010101


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


def data_ref_hashes(
    root: NDArray[np.uint64], objectid: NDArray[np.uint64], offset: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Return the hashes that EXTENT_DATA_REF are stored under, and inline ones are sorted by.

    Args:
        root: Number of the tree of each.
        objectid: Inode number of the file.
        offset: Where in the file the extent would begin.
    """
    seed = np.uint64(_REF_HASH_SEED)
    high, low = _looked_up(root ^ seed), _looked_up(objectid ^ seed)
    return np.asarray((high << np.uint64(_REF_HASH_SHIFT)) ^ _looked_up(offset ^ low))


def names_with(
    buffer: NDArray[np.uint8],
    begin: NDArray[np.int64],
    length: NDArray[Any],
    values: Sequence[int],
) -> NDArray[np.bool_]:
    """Return which names hold one of some bytes.

    Args:
        buffer: Bytes that hold the names.
        begin: Where in it each begins.
        length: Bytes in each.
        values: The bytes, below 255.
    """
    names = _Names(buffer, begin, length)
    found = np.zeros(len(begin), np.uint64)
    started = 0
    for word in names.words():
        # Bytes before the name are taken for others.
        before = np.uint64(_WORD * _BITS) - names.used_bits(started, len(word))
        word[started:] |= (np.uint64(1) << before) - np.uint64(1)
        for value in values:
            found[: len(word)] |= _zero_bytes(word ^ np.uint64(value * _ONES))
        started = len(word)
    holds = np.empty(len(begin), np.bool_)
    holds[names.order] = found != 0
    return holds


def _zero_bytes(word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return something else than 0 for each word that has a byte that is 0."""
    return np.asarray((word - np.uint64(_ONES)) & ~word & np.uint64(_ONES << _BITS - 1))


def _hashes(
    buffer: NDArray[np.uint8],
    begin: NDArray[np.int64],
    length: NDArray[Any],
    seed: NDArray[np.uint64],
) -> NDArray[np.uint32]:
    names = _Names(buffer, begin, length)
    seed = seed[names.order]
    state = seed.copy()
    started = 0
    for word in names.words():
        word[:started] ^= state[:started]
        used = names.used_bits(started, len(word))
        word[started:], rest = _first_words(word[started:], seed[started : len(word)], used)
        state[: len(word)] = _looked_up(word)
        state[started : len(word)] ^= rest
        started = len(word)
    found = np.empty(len(begin), np.uint32)
    found[names.order] = state
    return found


class _Names:
    """Names, cut into words from their ends.

    Those with most words come first: the names that have an Nth word from the end are then a
    slice.

    Args:
        buffer: Bytes that hold the names.
        begin: Where in it each begins.
        length: Bytes in each.

    Attributes:
        order: The index of each among the names that were given.
    """

    def __init__(
        self, buffer: NDArray[np.uint8], begin: NDArray[np.int64], length: NDArray[Any]
    ) -> None:
        length = length.astype(np.int64)
        words = length + (_WORD - 1) >> 3
        most = int(words.max(initial=0))
        # Few bytes per number let numpy sort by counting.
        self.order = np.argsort((most - words).astype(np.min_scalar_type(most)), kind="stable")
        self._length = length[self.order]
        self._end = begin[self.order] + self._length
        self._buffer = buffer
        if (begin < _WORD).any():
            # The first word of a name can begin before it.
            self._buffer = np.concatenate([np.zeros(_WORD, np.uint8), buffer])
            self._end += _WORD
        # How many names have at least so many words.
        self._counts = np.bincount(words, minlength=1)[::-1].cumsum()[::-1].tolist()

    def words(self) -> Iterator[NDArray[np.uint64]]:
        """Yield the words as numbers: first those that only the longest names have."""
        for number in range(len(self._counts) - 1, 0, -1):
            end = self._end[: self._counts[number]]
            yield take(self._buffer, "<u8", end - number * _WORD)

    def used_bits(self, start: int, end: int) -> NDArray[np.uint64]:
        """Return how many bits of the first words of some names belong to them, the upper ones."""
        used = ((self._length[start:end] - 1) & (_WORD - 1)) + 1
        return np.asarray(used.astype(np.uint64) * np.uint64(_BITS))


def _first_words(
    word: NDArray[np.uint64], seed: NDArray[np.uint64], used: NDArray[np.uint64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the first words of names with the seed in them, and what of it is left.

    Args:
        word: The words.
        seed: Seed of each.
        used: How many bits belong to the name.
    """
    before = np.uint64(_WORD * _BITS) - used
    # A seed of four bytes is longer than some names.
    rest = np.where(used < _SEED_BITS, seed >> np.minimum(used, np.uint64(_SEED_BITS)), 0)
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
