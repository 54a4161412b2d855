"""The tables that the programs show on a terminal, in whatever width it has."""

from __future__ import annotations

import io
import re

import pytest

from btrfs_atlas import tables

HEADINGS = ("devid", "path", "unusable ever", "used part")
NUMBERS = ("1", "22", "1023.99GiB", "1.00TiB")
PATH = "/dev/disk/by-id/ata-ST8000DM004-2CX188_WCT0ABCD"


def drawn(width: int) -> list[str]:
    """Return the lines of a table on a terminal of this width."""
    from rich.console import Console

    table = tables.table(
        "Devices",
        HEADINGS,
        [
            (NUMBERS[0], PATH, NUMBERS[2], tables.bar(1, 2)),
            (NUMBERS[1], "two\x1b[2J\nlines", NUMBERS[3], tables.bar(0, 0)),
        ],
        right=("devid", "unusable ever"),
    )
    output = io.StringIO()
    Console(file=output, width=width).print(table)
    return output.getvalue().splitlines()


@pytest.mark.parametrize("width", range(22, 130))
def test_nothing_is_cut(width: int) -> None:
    lines = drawn(width)
    told = "\n".join(lines)
    assert max(map(len, lines)) <= width
    assert set(NUMBERS) <= set(told.split())
    assert re.search(r"\b50%", told)
    assert "…" not in told
    # Names are broken into lines, with all of their characters.
    characters = iter(re.sub(r"\s", "", told))
    assert all(char in characters for char in PATH)
    assert "\x1b" not in told


def test_columns_stand_side_by_side_where_they_can() -> None:
    whole = [line.split() for line in drawn(99)]
    assert [NUMBERS[0], PATH, NUMBERS[2], "█████", "50%"] in whole
    broken = drawn(60)
    assert any(line.split()[:1] == ["1"] and NUMBERS[2] in line for line in broken)
    stacked = [line.split() for line in drawn(40)]
    assert ["unusable", "ever", NUMBERS[2]] in stacked
    assert ["devid", "22"] in stacked


def test_no_rows() -> None:
    from rich.console import Console

    output = io.StringIO()
    Console(file=output, width=30).print(tables.table("Devices of it", ("devid", "path"), []))
    title, *lines = output.getvalue().splitlines()
    assert title == "Devices of it"
    assert ["devid", "path"] in [line.split() for line in lines]
