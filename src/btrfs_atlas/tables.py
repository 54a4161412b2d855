"""Tables for a person at a terminal.

    tables.show(
        tables.table("Devices", ("devid", "size"), [("1", "2.00GiB")], right=("size",)),
    )

What a cell holds is printed as it is, no matter what characters a name has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_BAR_WIDTH = 10
_NEARLY_FULL = 0.9


def show(*parts: RenderableType, stderr: bool = False) -> None:
    """Print tables and texts, an empty line between them."""
    # rich takes as long to import as most commands take to run.
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False)
    for number, part in enumerate(parts):
        if number:
            console.print()
        console.print(part)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[RenderableType]],
    *,
    right: Iterable[str] = (),
) -> Table:
    """Return a table.

    Args:
        title: What stands above it.
        columns: Their headings.
        rows: The cells.
        right: Headings of the columns that hold numbers, which stand at the right.
    """
    from rich import box
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    cells = [[plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    for number, column in enumerate(columns):
        if column in right:
            # A number that is cut off would be another number.
            width = max((len(str(row[number])) for row in cells), default=0)
            made.add_column(column, justify="right", min_width=width)
        else:
            made.add_column(column, overflow="fold")
    for row in cells:
        made.add_row(*row)
    return made


def plain(text: str, style: str = "") -> Text:
    """Return text that is printed as it is: no markup, and nothing that steers a terminal."""
    from rich.text import Text

    printable = "".join(
        char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text
    )
    return Text(printable, style)


def bar(part: int, whole: int, *, full_is_bad: bool = True) -> RenderableType:
    """Return a bar that shows a part of a whole, and the per cent that it is.

    Args:
        part: Bytes.
        whole: Bytes; of nothing, there is no bar.
        full_is_bad: Make it red when it is nearly full.
    """
    from rich.bar import Bar
    from rich.table import Table

    if not whole:
        return ""
    share = min(part / whole, 1.0)
    is_bad = full_is_bad and share > _NEARLY_FULL
    row = Table.grid(padding=(0, 1))
    row.add_row(
        Bar(
            1.0, 0.0, share, width=_BAR_WIDTH, color="red" if is_bad else "green", bgcolor="grey30"
        ),
        f"{round(share * 100):3}%",
    )
    return row
