"""What a section of the page is, and how the sections are read: one by one, as time allows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from btrfs.ctree import FileSystem

__all__ = ["Names", "Outcome", "Section", "TimeIsUpError", "TimeLimit", "read"]

T = TypeVar("T")


class TimeIsUpError(Exception):
    """A section takes longer than the user wants to wait."""


class TimeLimit:
    """When the page has to be ready.

    Args:
        seconds: From now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def is_up(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._end

    def check(self) -> None:
        """Let what takes long end here, if the time is over.

        Raises:
            TimeIsUpError: It is.
        """
        if self.is_up:
            raise TimeIsUpError


@dataclass(frozen=True, slots=True)
class Names:
    """What to name in the commands that a section offers.

    Attributes:
        target: The words that stand for the filesystem, quoted for a shell.
        mountpoint: Where it is mounted, quoted for a shell; if it is not, a word to be replaced.
    """

    target: str
    mountpoint: str


@dataclass(frozen=True, slots=True)
class Section(Generic[T]):
    """A section of the page.

    Attributes:
        name: What it is called in JSON.
        title: What stands above it.
        read: Reads the filesystem; calls TimeLimit.check() now and then if that may take long.
        lines: Gives what was read as lines. One that begins with '!' is a warning, one that begins
            with '$' is a command, one that begins with a blank is not to be broken.
        plain: Gives what was read as plain data.
    """

    name: str
    title: str
    read: Callable[[FileSystem, TimeLimit], T]
    lines: Callable[[T, Names], Iterator[str]]
    plain: Callable[[T], Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a section.

    Attributes:
        section: The section.
        value: What was read; None if it was left out or could not be read.
        problem: Why it could not be read, one line; None if it could.
    """

    section: Section[Any]
    value: Any = None
    problem: str | None = None

    @property
    def is_left_out(self) -> bool:
        """Whether there was no time for it."""
        return self.value is None and self.problem is None


def read(sections: Iterable[Section[Any]], fs: FileSystem, seconds: float) -> Iterator[Outcome]:
    """Read sections, and leave out those that are not there in time.

    Args:
        sections: The sections.
        fs: The filesystem, opened so that it skips what cannot be read.
        seconds: How long all of them may take. One that has begun is only interrupted where it
            checks the time.

    Raises:
        PermissionError: The user may not read this filesystem.
    """
    from btrfs.errors import BtrfsError

    limit = TimeLimit(seconds)
    for section in sections:
        if limit.is_up:
            yield Outcome(section)
            continue
        try:
            yield Outcome(section, section.read(fs, limit))
        except TimeIsUpError:
            yield Outcome(section)
        except PermissionError:
            raise
        except (BtrfsError, OSError) as error:
            yield Outcome(section, problem=getattr(error, "strerror", None) or str(error))
