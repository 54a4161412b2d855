"""compsize, run as it is, to compare with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tests.support import programs
from tests.support.require import require_programs


class Table(NamedTuple):
    """What compsize says.

    Attributes:
        files: How many files it looked at.
        extents: How many extents they use.
        references: How many pieces they have in these.
        inline: How many pieces are inline.
        rows: Bytes on disk, uncompressed and referenced, by what is in the first column.
    """

    files: int
    extents: int
    references: int
    inline: int
    rows: dict[str, tuple[int, ...]]


NOTHING = Table(0, 0, 0, 0, {})


def printed(*words: str | Path) -> str:
    """Return what compsize prints; nothing if there are no files that have any content."""
    require_programs("compsize")
    status, out, err = programs.run_program("compsize", *words)
    assert status == 0 or err.startswith(("No files.", "All empty")), err
    return out


def table(*paths: str | Path) -> Table:
    """Return what compsize says of some paths: nothing if all files are empty."""
    return parsed(printed("--bytes", "--", *paths))


def parsed(text: str) -> Table:
    """Return what a table of compsize in bytes says."""
    if not text:
        return NOTHING
    counts, *lines = text.splitlines()
    rows = [line.split() for line in lines[1:]]
    files, extents, references, inline = map(int, re.findall(r"\d+", counts))
    sizes = {name: tuple(map(int, columns)) for name, _, *columns in rows}
    return Table(files, extents, references, inline, sizes)
