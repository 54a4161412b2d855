"""A thread that works on requests, so that drawing threads wait no longer than they want to."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

Request = TypeVar("Request", bound=Hashable)

_NOTIFY_SECONDS = 0.5


class Worker(Generic[Request]):
    """Works on requests one after another; the latest urgent one comes first: it is on screen now.

    Args:
        handle: Works on a request, in the thread of the worker; must not raise. It returns whether
            the request is done; otherwise it is repeated.
        handled: Called by that thread when requests were done, at most a few times a second, and
            always after the last one.
    """

    def __init__(self, handle: Callable[[Request], bool], handled: Callable[[], None]) -> None:
        self._handle = handle
        self._handled = handled
        self._waiting: OrderedDict[Request, None] = OrderedDict()  # the next one at the end
        self._urgent: set[Request] = set()  # of these
        self._condition = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="extents", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """How many requests are not done yet."""
        return len(self._waiting)

    @property
    def urgent(self) -> int:
        """How many of these are urgent."""
        return len(self._urgent)

    def want(
        self, requests: Iterable[Request], deadline: float = 0.0, *, urgent: bool = True
    ) -> None:
        """Add requests, and wait until they are done, but not beyond a deadline.

        Args:
            requests: The requests; those that wait already are not repeated.
            deadline: As `time.monotonic()` tells it.
            urgent: They come before all that wait already, otherwise after them.
        """
        wanted = dict.fromkeys(requests)
        with self._condition:
            for request in wanted:
                if request not in self._waiting:
                    self._waiting[request] = None
                    self._waiting.move_to_end(request, last=urgent)
                elif urgent:
                    self._waiting.move_to_end(request)
            if urgent:
                self._urgent.update(wanted)
            self._condition.notify_all()
            while wanted.keys() & self._waiting.keys() and not self._is_closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._condition.wait(left):
                    return

    def close(self) -> None:
        """End the thread, after the request that it works on."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        notified = 0.0
        while (request := self._next()) is not None:
            is_done = self._handle(request)
            with self._condition:
                if is_done:
                    self._waiting.pop(request, None)
                    self._urgent.discard(request)
                self._condition.notify_all()
                is_last = not self._waiting
            if is_last or time.monotonic() - notified > _NOTIFY_SECONDS:
                notified = time.monotonic()
                self._handled()

    def _next(self) -> Request | None:
        """Return the request to be worked on, once there is one; None when closed."""
        with self._condition:
            while not self._waiting and not self._is_closed:
                self._condition.wait()
            return None if self._is_closed else next(reversed(self._waiting))
