"""`python -m tests.fuzz.worker RUN`: take cases, one after the other, in a process with limits.

Numbers of cases come in, a line each; what came of a case goes out, as a line of JSON. The process
may be killed by the process that started it, if it does not answer in time.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tests.fuzz.cases import Case, Stage, case_of
from tests.fuzz.exercise import Findings, exercise

SECONDS = 60
MEMORY = 1 << 30
"""Limits for each damaged image. They are meant for 16 MiB; of most seeds less is in use.

Stacks and heaps of the threads that a scan reads with count, too, whether they are used or not.
"""


class SlowError(BaseException):
    """It takes too long. No exception that the library could take for one of its own."""


def _too_slow(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SlowError(f"took more than {SECONDS} seconds")


def main() -> int:
    """Take the cases that standard input names."""
    run = int(sys.argv[1])
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    with tempfile.TemporaryDirectory(prefix="btrfs-atlas-fuzz-", dir=folder()) as made:
        stage = Stage(Path(made))
        limit()
        for line in sys.stdin:
            answer = take(case_of(run, int(line)), stage)
            print(json.dumps(answer | {"number": int(line)}), file=answers, flush=True)
    return 0


def folder() -> str | None:
    """Return where images are made: in memory, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def limit() -> None:
    """Set the limits of this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    limit_time()
    # A number that has become another one is a wrong answer.
    warnings.simplefilter("error", RuntimeWarning)


def limit_time() -> None:
    """Let a signal end a case that takes too long."""
    signal.signal(signal.SIGALRM, _too_slow)


def take(case: Case, stage: Stage) -> dict[str, Any]:
    """Take a case; return what came of it, as plain data."""
    started = time.monotonic()
    findings = Findings()
    fault = None
    with stage.damaged(case) as paths:
        files = _open_files()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            exercise(paths, case.options, case.steps, case.choices, findings)
        except (Exception, SlowError) as error:  # noqa: BLE001 (what it is for)
            fault = describe(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if fault is None and _open_files() > files:
            fault = {"error": "files were left open", "where": "", "traceback": ""}
    return {
        "seed": case.seed,
        "kinds": sorted({change.kind for change in case.changes}),
        "opened": findings.opened,
        "raised": dict(findings.raised),
        "seconds": time.monotonic() - started,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "fault": fault,
    }


def describe(error: BaseException) -> dict[str, str]:
    """Return what was raised, where, and by which calls."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/src/" in frame.filename] or frames
    last = ours[-1]
    return {
        "error": f"{type(error).__name__}: {error}"[:300],
        "where": f"{last.filename.rpartition('/src/')[2]}:{last.lineno} {last.name}",
        "traceback": "".join(traceback.format_exception(error)[-12:]),
    }


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


if __name__ == "__main__":
    sys.exit(main())
