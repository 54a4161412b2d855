"""Tables for a person at a terminal.

    tables.show(
        tables.table("Devices", ("devid", "size"), [("1", "2.00GiB")], right=("size",)),
    )

What a cell holds is printed as it is, no matter what characters a name has. Numbers and bars are
never cut: on a narrow terminal headings are broken into lines, then names, and where that is not
enough, the columns come below each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table
    from rich.text import Text

_BAR_WIDTH = 10
_BAR_CELL_WIDTH = _BAR_WIDTH + len(" 100%")
_NEARLY_FULL = 0.9

_LEAST_NAME_WIDTH = 10
"""A name is broken into lines that are no shorter than this."""


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
) -> RenderableType:
    """Return a table.

    Args:
        title: What stands above it.
        columns: Their headings.
        rows: The cells.
        right: Headings of the columns that hold numbers, which stand at the right.
    """
    cells = [[plain(cell) if isinstance(cell, str) else cell for cell in row] for row in rows]
    numbers = set(right)
    made = [
        _Column(heading, [row[index] for row in cells], heading in numbers)
        for index, heading in enumerate(columns)
    ]
    return _Table(title, made)


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a table.

    Attributes:
        heading: What stands above it.
        cells: What it holds.
        is_right: Whether these are numbers.
    """

    heading: str
    cells: list[RenderableType]
    is_right: bool

    @property
    def wanted(self) -> int:
        """Width in which nothing is broken into lines."""
        return max(self._width_of_cells(), len(self.heading))

    @property
    def least(self) -> int:
        """Width that it has at least."""
        if self._is_breakable():
            return min(self.wanted, _LEAST_NAME_WIDTH)
        return max(self._width_of_cells(), max(map(len, self.heading.split()), default=0))

    def _is_breakable(self) -> bool:
        from rich.text import Text

        return not self.is_right and all(isinstance(cell, Text) for cell in self.cells)

    def _width_of_cells(self) -> int:
        from rich.text import Text

        widths = (
            cell.cell_len if isinstance(cell, Text) else _BAR_CELL_WIDTH for cell in self.cells
        )
        return max(widths, default=0)


class _Table:
    """A table that fits into whatever width there is."""

    def __init__(self, title: str, columns: list[_Column]) -> None:
        self._title = title
        self._columns = columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it in the width of a console; called by rich."""
        yield plain(self._title, "bold")
        widths = _widths(self._columns, options.max_width)
        if widths is None:
            yield from self._stacked()
        else:
            yield self._side_by_side(widths)

    def _side_by_side(self, widths: list[int]) -> Table:
        from rich import box
        from rich.table import Table

        made = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for column, width in zip(self._columns, widths, strict=True):
            made.add_column(
                column.heading,
                justify="right" if column.is_right else "left",
                width=width,
                overflow="fold",
            )
        for row in zip(*(column.cells for column in self._columns), strict=True):
            made.add_row(*row)
        return made

    def _stacked(self) -> RenderResult:
        """Draw each row as lines of headings and cells."""
        from rich.table import Table

        for row in zip(*(column.cells for column in self._columns), strict=True):
            lines = Table.grid(padding=(0, 2, 0, 0))
            lines.add_column(overflow="fold")
            lines.add_column(overflow="fold")
            for column, cell in zip(self._columns, row, strict=True):
                lines.add_row(plain(column.heading), cell)
            yield plain("")
            yield lines


def _widths(columns: Sequence[_Column], available: int) -> list[int] | None:
    """Return how wide to make each column of a table; None if it does not fit.

    Args:
        columns: The columns.
        available: Width of the whole table at most.
    """
    # Between two columns there are a line, which is not drawn, and two spaces.
    left = available - (3 * len(columns) - 1)
    widths = [column.least for column in columns]
    left -= sum(widths)
    if left < 0:
        return None
    for index, column in enumerate(columns):
        more = min(left, column.wanted - widths[index])
        widths[index] += more
        left -= more
    return widths


def plain(text: str, style: str = "") -> Text:
    """Return text that is printed as it is: no markup, and nothing that steers a terminal."""
    from rich.text import Text

    return Text("\n".join(map(printable, text.split("\n"))), style)


def printable(text: str) -> str:
    """Return text in one line, with escapes in place of what would steer a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


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
