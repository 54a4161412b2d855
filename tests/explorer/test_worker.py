"""The worker: which request comes first, which is repeated, and how long others wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from btrfs_atlas.explorer.model.worker import Worker

LATER = 30.0
"""Seconds that a test waits at most."""


class Desk:
    """Handles requests, once it may go on, and remembers their order."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.handled: list[str] = []
        self.to_repeat = 0

    def handle(self, request: str) -> bool:
        """Handle a request; return whether it is done."""
        self.begun.set()
        assert self.go_on.wait(LATER)
        self.handled.append(request)
        if self.to_repeat:
            self.to_repeat -= 1
            return False
        return True


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def worker(desk: Desk) -> Iterator[Worker[str]]:
    worker: Worker[str] = Worker(desk.handle, lambda: None)
    yield worker
    desk.go_on.set()
    worker.close()


def test_the_latest_urgent_request_comes_first(desk: Desk, worker: Worker[str]) -> None:
    worker.want(["first"])
    assert desk.begun.wait(LATER)
    worker.want(["second"])
    worker.want(["not urgent"], urgent=False)
    worker.want(["third"])
    worker.want(["not urgent", "second"])
    assert (worker.backlog, worker.urgent) == (4, 4)
    desk.go_on.set()
    worker.want(["first", "not urgent"], time.monotonic() + LATER, urgent=False)
    worker.want(["third", "second"], time.monotonic() + LATER)
    assert desk.handled[0] == "first"
    assert desk.handled.index("second") < desk.handled.index("third")
    assert (worker.backlog, worker.urgent) == (0, 0)


def test_requests_that_are_not_urgent_come_last(desk: Desk, worker: Worker[str]) -> None:
    worker.want(["first"])
    assert desk.begun.wait(LATER)
    worker.want(["later"], urgent=False)
    worker.want(["sooner"])
    desk.go_on.set()
    worker.want(["later"], time.monotonic() + LATER, urgent=False)
    assert desk.handled == ["first", "sooner", "later"]


def test_a_request_is_repeated_until_it_is_done(desk: Desk, worker: Worker[str]) -> None:
    desk.go_on.set()
    desk.to_repeat = 2
    worker.want(["it"], time.monotonic() + LATER)
    assert desk.handled == ["it"] * 3


def test_waiting_ends_at_the_deadline(desk: Desk, worker: Worker[str]) -> None:
    begin = time.monotonic()
    worker.want(["it"], begin + 0.2)
    assert 0.15 < time.monotonic() - begin < LATER / 2
    assert desk.handled == []


def test_waiting_ends_when_the_worker_is_closed(desk: Desk) -> None:
    worker: Worker[str] = Worker(desk.handle, lambda: None)
    worker.want(["one", "two"])
    assert desk.begun.wait(LATER)
    waiting = threading.Thread(target=worker.want, args=(["two"], time.monotonic() + LATER))
    waiting.start()
    desk.go_on.set()
    worker.close()
    waiting.join(LATER)
    assert not waiting.is_alive()


def test_listeners_hear_of_the_last_request() -> None:
    heard: list[int] = []
    busy: Worker[int] = Worker(lambda _: True, lambda: heard.append(busy.backlog))
    busy.want(range(100), time.monotonic() + LATER)
    busy.close()
    assert heard[-1] == 0
    assert len(heard) < 100
