"""Work on what is read, in threads, while more is read."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["worked_ahead"]

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

_THREADS = os.cpu_count() or 1
_ITEMS_AHEAD = 2 * _THREADS


def worked_ahead(items: Iterator[_Item], work: Callable[[_Item], _Made]) -> Iterator[_Made]:
    """Yield what a function makes of some items, in their order.

    One thread takes items from the iterator, others work on them: some items are ahead of the one
    that is wanted next. What iterator or function raise is raised when its turn comes.

    Args:
        items: The items.
        work: The function. It is called in several threads.
    """
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(_THREADS) as workers:

        def read() -> Future[_Made] | None:
            for item in items:
                return workers.submit(work, item)
            return None

        ahead = deque(reader.submit(read) for _ in range(_ITEMS_AHEAD))
        while (made := ahead.popleft().result()) is not None:
            ahead.append(reader.submit(read))
            yield made.result()
