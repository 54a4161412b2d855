"""Pools of threads for work that takes long, so that the server can go on answering.

There are a few pools, one for each kind of work, with as many threads as may do it at once. What
waits in a pool is limited, and is dropped as soon as the client has disconnected: a map that is
moved quickly asks for many tiles that are out of sight before their turn comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from starlette.types import Receive

_T = TypeVar("_T")


class BusyError(Exception):
    """The queue of a pool is full."""


class ClientDisconnectedError(Exception):
    """The client has closed the connection."""


class WorkerPool:
    """A few threads with a queue of work before them.

    The threads end with the program, whatever they are doing: Ctrl-C waits for nothing.

    Args:
        threads: How many.
        limit: How much work may wait and be done at the same time.
    """

    def __init__(self, threads: int, limit: int) -> None:
        self._limit = limit
        self._present = 0
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        for _ in range(threads):
            Thread(target=self._work, daemon=True).start()

    async def run(self, work: Callable[[], _T], receive: Receive | None = None) -> _T:
        """Return what a function returns, called in a thread of this pool.

        Args:
            work: The function.
            receive: Tells when the client has disconnected.

        Raises:
            BusyError: The queue is full.
            ClientDisconnectedError: The client has disconnected.
        """
        if self._present >= self._limit:
            raise BusyError
        self._present += 1
        future: Future[_T] = Future()
        answer = asyncio.wrap_future(future)
        leaving = asyncio.ensure_future(disconnected(receive))
        either: list[asyncio.Future[Any]] = [answer, leaving]
        self._queue.put((future, work))
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise ClientDisconnectedError
            return answer.result()
        finally:
            self._present -= 1
            future.cancel()
            # Work that has begun goes on, but its result is dropped.
            answer.cancel()
            leaving.cancel()

    def _work(self) -> None:
        while True:
            future, work = self._queue.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # noqa: BLE001
                # It is raised where it is waited for.
                future.set_exception(error)
            # Nothing is kept alive while the thread waits.
            del future, work


async def disconnected(receive: Receive | None) -> None:
    """Return when the client has disconnected; never without ``receive``."""
    if receive is None:
        await asyncio.get_running_loop().create_future()
        return
    while (await receive())["type"] != "http.disconnect":
        pass
