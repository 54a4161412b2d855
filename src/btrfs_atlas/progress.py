"""A progress bar on standard error, for work that takes long, if that is a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import rich.progress

_PATIENCE_SECONDS = 1.0
"""Work that is done sooner needs no bar."""

_ESTIMATE_SECONDS = 3600.0
"""The time left is estimated from what was done in so many seconds."""


class ProgressBar:
    """A context manager to be called with how much is done, and how much there is to do."""

    def __init__(self, description: str, *, wanted: bool = True) -> None:
        self._description = description
        self._wanted = wanted and sys.stderr.isatty()
        self._begin = time.monotonic()
        self._bar: rich.progress.Progress | None = None

    def __call__(self, done: int, total: int) -> None:
        """Show that this much is done."""
        if not self._wanted or time.monotonic() - self._begin < _PATIENCE_SECONDS:
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.add_task(self._description, total=total)
            self._bar.start()
        for task in self._bar.task_ids:
            self._bar.update(task, completed=done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> rich.progress.Progress:
    # rich takes as long to import as a small picture takes to draw.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        # A step may take minutes, and the time left is known only from several of them.
        speed_estimate_period=_ESTIMATE_SECONDS,
    )
