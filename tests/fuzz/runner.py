"""Many cases, in worker processes that are watched: they may take too long, too much, or die."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.worker import MEMORY, SECONDS

ROOT = Path(__file__).parents[2]
GRACE_SECONDS = 15
"""A worker ends a slow case by itself, unless it hangs in what is not Python."""

WORKERS = os.cpu_count() or 1


@dataclass(slots=True)
class Fault:
    """Something that must not happen.

    Attributes:
        number: Number of the case that first led to it.
        seed: Name of its seed.
        error: What was raised, or what else happened.
        where: File, line and function.
        traceback: The calls that led there.
        count: How many cases led to the same place.
    """

    number: int
    seed: str
    error: str
    where: str
    traceback: str
    count: int = 1


@dataclass(slots=True)
class Figures:
    """What came of a run.

    Attributes:
        images: How many damaged images there were.
        opened: How many of them could be opened.
        seeds: Images by seed.
        kinds: Images by kind of change.
        raised: How often each error was raised.
        slowest: Seconds of the slowest case, and its number.
        memory: Bytes of memory of the largest worker.
        seconds: Of all cases together.
        faults: By what happened, and where.
    """

    images: int = 0
    opened: int = 0
    seeds: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    raised: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, int] = (0.0, 0)
    memory: int = 0
    seconds: float = 0.0
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)

    def add(self, answer: dict[str, Any]) -> None:
        """Add what came of a case."""
        self.images += 1
        self.opened += answer["opened"]
        self.seeds[answer["seed"]] += 1
        self.kinds.update(answer["kinds"])
        self.raised.update(answer["raised"])
        self.slowest = max(self.slowest, (answer["seconds"], answer["number"]))
        self.memory = max(self.memory, answer["memory"])
        self.seconds += answer["seconds"]
        if answer["fault"] is not None:
            self._add_fault(Fault(answer["number"], answer["seed"], **answer["fault"]))

    def _add_fault(self, fault: Fault) -> None:
        place = (fault.error.partition(":")[0], fault.where)
        if place in self.faults:
            self.faults[place].count += 1
        else:
            self.faults[place] = fault


def run_cases(
    run: int,
    numbers: Iterable[int],
    workers: int = WORKERS,
    progress: Callable[[Figures], None] = lambda _: None,
) -> Figures:
    """Take cases.

    Args:
        run: Number of the run, that all choices follow from.
        numbers: Numbers of the cases.
        workers: How many processes take them.
        progress: Called after each case.
    """
    figures = Figures()
    lock = threading.Lock()
    left = iter(numbers)

    def work() -> None:
        with _Worker(run) as worker:
            while True:
                with lock:
                    number = next(left, None)
                if number is None:
                    return
                answer = worker.take(number)
                with lock:
                    figures.add(answer)
                    progress(figures)

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return figures


class _Worker:
    """A process that takes cases, and another one in its place when it has to be ended."""

    def __init__(self, run: int) -> None:
        self._run = run
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.communicate()

    def take(self, number: int) -> dict[str, Any]:
        """Return what came of a case."""
        process = self._process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has died, which is reported below
            print(number, file=process.stdin, flush=True)
        ready, _, _ = select.select([process.stdout], [], [], SECONDS + GRACE_SECONDS)
        line = process.stdout.readline() if ready else ""
        if not line:
            return self._ended(number, "hangs" if not ready else "died")
        answer: dict[str, Any] = json.loads(line)
        if answer["memory"] > MEMORY and answer["fault"] is None:
            answer["fault"] = _happened(f"took {answer['memory'] >> 20} MiB of memory")
            self._end()
        return answer

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(self._run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            # Threads of numpy would take memory each, and gain nothing here.
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        )

    def _end(self) -> int:
        """End the process, and return its exit code."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()
        code = self._process.returncode
        self._process = None
        return code

    def _ended(self, number: int, what: str) -> dict[str, Any]:
        from tests.fuzz.cases import case_of

        code = self._end()
        case = case_of(self._run, number)
        return {
            "number": number,
            "seed": case.seed,
            "kinds": sorted({change.kind for change in case.changes}),
            "opened": False,
            "raised": {},
            "seconds": float(SECONDS),
            "memory": 0,
            "fault": _happened(f"the process {what}, exit code {code}"),
        }


def _happened(what: str) -> dict[str, str]:
    return {"error": what, "where": "", "traceback": ""}


def lines(figures: Figures) -> Iterator[str]:
    """Yield the figures as a Markdown table each."""
    slowest, number = figures.slowest
    raised = ", ".join(f"{name} {count:,}" for name, count in figures.raised.most_common())
    yield from _table(
        ("what", "how much"),
        [
            ("damaged images", f"{figures.images:,}"),
            ("of them opened", f"{figures.opened:,}"),
            ("errors raised, as they should be", raised),
            ("slowest image", f"{slowest:.1f} s (number {number})"),
            ("all images, time of one processor", f"{figures.seconds:,.0f} s"),
            ("most memory of a process", f"{figures.memory / (1 << 20):.0f} MiB"),
            ("faults", str(len(figures.faults))),
        ],
    )
    yield ""
    yield from _table(("images by kind of change", ""), _counted(figures.kinds))
    yield ""
    yield from _table(("images by seed", ""), _counted(figures.seeds))


def _counted(counter: Counter[str]) -> list[tuple[str, str]]:
    return [(name, f"{count:,}") for name, count in sorted(counter.items())]


def _table(headings: tuple[str, str], rows: list[tuple[str, str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield "|---|---:|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
