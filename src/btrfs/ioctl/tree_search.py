"""Searches: the items of a tree between two keys.

The kernel fills a buffer with items, each a header and a body, and is called again with the key
after the last one until there are none left.
"""

import errno
import fcntl
import struct
from collections.abc import Callable, Iterator

from btrfs.ioctl.numbers import READ, WRITE, ioc
from btrfs.ondisk.constants import ULLONG_MAX, ULONG_MAX
from btrfs.ondisk.items.base import SearchHeader
from btrfs.ondisk.key import Key

__all__ = [
    "IOC_TREE_SEARCH",
    "IOC_TREE_SEARCH_V2",
    "SEARCH_HEADER_SIZE",
    "SEARCH_V2_ARGS_SIZE",
    "needed_buf_size",
    "search",
    "search_v2",
    "search_v2_into",
]

IOC_TREE_SEARCH = ioc(READ | WRITE, 17, 4096)
IOC_TREE_SEARCH_V2 = ioc(READ | WRITE, 17, 112)

_SEARCH_KEY = struct.Struct("<QQQQQQQIIII32x")
_SEARCH_V1_SIZE = 4096
# In the order of SearchHeader.
_SEARCH_HEADER = struct.Struct("<QQQII")
SEARCH_HEADER_SIZE = _SEARCH_HEADER.size
SEARCH_V2_ARGS_SIZE = _SEARCH_KEY.size + 8


def search(
    fd: int,
    tree: int,
    min_key: Key | None = None,
    max_key: Key | None = None,
    min_transid: int = 0,
    max_transid: int = ULLONG_MAX,
    nr_items: int | None = None,
) -> Iterator[tuple[SearchHeader, memoryview]]:
    """Yield the items of a tree by the first version of the ioctl; see :func:`search_v2`.

    Raises:
        OSError: EOVERFLOW at an item of more than 3960 bytes, which its buffer has no room for.
    """

    def fill(min_key: Key, max_key: Key, nr_items: int) -> tuple[bytearray, int, int]:
        args = bytearray(_SEARCH_V1_SIZE)
        _pack_search_key(args, tree, min_key, max_key, min_transid, max_transid, nr_items)
        fcntl.ioctl(fd, IOC_TREE_SEARCH, args)
        return args, _SEARCH_KEY.size, _found(args)

    return _search(fill, min_key, max_key, nr_items)


def search_v2(
    fd: int,
    tree: int,
    min_key: Key | None = None,
    max_key: Key | None = None,
    min_transid: int = 0,
    max_transid: int = ULLONG_MAX,
    nr_items: int | None = None,
    buf_size: int = 16384,
) -> Iterator[tuple[SearchHeader, memoryview]]:
    """Yield the items of a tree whose keys lie between two keys.

    Needs CAP_SYS_ADMIN.

    Args:
        fd: File descriptor.
        tree: Number of the tree; 0 for the subvolume that fd is in.
        min_key: The lowest key.
        max_key: The highest key that may be returned.
        min_transid: Skip leaves of generations below this one.
        max_transid: Skip leaves of generations above this one.
        nr_items: Yield at most so many.
        buf_size: Bytes of the buffer that the kernel fills. A larger one is used for an item that
            does not fit.

    Yields:
        Header and body of each item in the order of their keys.

    Raises:
        OSError: EPERM without the privilege, ENOENT if there is no such tree.
    """

    def fill(min_key: Key, max_key: Key, nr_items: int) -> tuple[bytearray, int, int]:
        size = buf_size
        while True:
            args = bytearray(SEARCH_V2_ARGS_SIZE + size)
            try:
                count = search_v2_into(
                    fd, args, tree, min_key, max_key, min_transid, max_transid, nr_items
                )
                return args, SEARCH_V2_ARGS_SIZE, count
            except OSError as error:
                if error.errno != errno.EOVERFLOW:
                    raise
                size = needed_buf_size(args)

    return _search(fill, min_key, max_key, nr_items)


def search_v2_into(
    fd: int,
    args: bytearray | memoryview,
    tree: int,
    min_key: Key,
    max_key: Key,
    min_transid: int = 0,
    max_transid: int = ULLONG_MAX,
    nr_items: int = ULONG_MAX,
) -> int:
    """Call the kernel once to fill a buffer with items.

    Args:
        fd: File descriptor.
        args: The buffer: SEARCH_V2_ARGS_SIZE bytes for the arguments, then as many for items as it
            has. Each item is SEARCH_HEADER_SIZE bytes of header and then its body.
        tree: Number of the tree.
        min_key: Lowest key.
        max_key: Highest key.
        min_transid: Lowest generation of a leaf.
        max_transid: Highest generation of a leaf.
        nr_items: Most items to return.

    Returns:
        How many items there are in the buffer; 0 if there are no more.

    Raises:
        OSError: EOVERFLOW if there is no room for the first item; see :func:`needed_buf_size`.
    """
    _pack_search_key(args, tree, min_key, max_key, min_transid, max_transid, nr_items)
    struct.pack_into("<Q", args, _SEARCH_KEY.size, len(args) - SEARCH_V2_ARGS_SIZE)
    fcntl.ioctl(fd, IOC_TREE_SEARCH_V2, args)
    return _found(args)


def needed_buf_size(args: bytearray | memoryview) -> int:
    """Return the room that search_v2_into() would have needed when it raised EOVERFLOW."""
    (size,) = struct.unpack_from("<Q", args, _SEARCH_KEY.size)
    return int(size)


def _pack_search_key(
    args: bytearray | memoryview,
    tree: int,
    min_key: Key,
    max_key: Key,
    min_transid: int,
    max_transid: int,
    nr_items: int,
) -> None:
    _SEARCH_KEY.pack_into(
        args,
        0,
        tree,
        min_key.objectid,
        max_key.objectid,
        min_key.offset,
        max_key.offset,
        min_transid,
        max_transid,
        min_key.type,
        max_key.type,
        nr_items,
        0,
    )


def _found(args: bytearray | memoryview) -> int:
    """Return the number of items that the kernel put into a buffer."""
    return int(_SEARCH_KEY.unpack_from(args)[9])


def _search(
    fill: Callable[[Key, Key, int], tuple[bytearray, int, int]],
    min_key: Key | None,
    max_key: Key | None,
    nr_items: int | None,
) -> Iterator[tuple[SearchHeader, memoryview]]:
    """Yield items from buffer after buffer.

    ``fill`` gets a new buffer of items between two keys, and returns it with where the first item
    begins and how many there are.
    """
    next_key = min_key if min_key is not None else Key(0, 0, 0)
    last_key = max_key if max_key is not None else Key(-1, -1, -1)
    left = ULLONG_MAX if nr_items is None else nr_items
    new_tuple = tuple.__new__
    while left > 0 and next_key <= last_key:
        args, pos, count = fill(next_key, last_key, min(left, ULONG_MAX))
        if count == 0:
            return
        view = memoryview(args)
        unpack = _SEARCH_HEADER.unpack_from
        for _ in range(count):
            parts = unpack(args, pos)
            pos += SEARCH_HEADER_SIZE
            end = pos + parts[4]
            # There can be millions of items, and SearchHeader() takes three times as long.
            header = new_tuple(SearchHeader, parts)
            yield header, view[pos:end]
            pos = end
        left -= count
        found_key = Key(header.objectid, header.type, header.offset)
        if found_key >= last_key:
            return
        next_key = found_key + 1
