"""What the benchmark of the explorer makes of what it has measured."""

from __future__ import annotations

from bench.explorer import AT_ONCE, Figure, deepest, percentiles, slowest_zoom, table
from bench.explorer_probe import Tile


def test_table_tells_what_was_missed() -> None:
    figures = [
        Figure("the URL", 0.25),
        Figure("a page", 1.5, limit=1),
        Figure("a tile", 0.0123, limit=0.015),
        Figure("an extent", 43.52, limit=64, is_bytes=True),
    ]
    assert list(table(figures))[2:] == [
        "| the URL |  | 0.25 s |",
        "| a page | at most 1 s | 1.50 s (missed) |",
        "| a tile | at most 15 ms | 12.3 ms |",
        "| an extent | at most 64 bytes | 43.5 bytes |",
    ]


def test_slowest_tiles_count_from_the_99th_percentile_on() -> None:
    quick = [0.001] * 990
    few, many = (percentiles("tiles", quick + [1.0] * slow) for slow in (5, 20))
    assert [figure.is_met for figure in few] == [True, True]
    assert [figure.is_met for figure in many] == [True, False]


def test_tiles_at_once_are_different_ones() -> None:
    shown = {"spaces": {"physical": {"max_zoom": 4}, "virtual": {"max_zoom": 3}}}
    wanted: list[Tile] = [("physical", 4, 0, column) for column in range(AT_ONCE + 1)]
    others: list[Tile] = [("physical", 3, 0, 0), ("virtual", 2, 0, 0), *wanted]
    assert deepest(shown, [*others, *wanted]) == wanted[:AT_ONCE]


def test_slowest_zoom_is_that_of_the_largest_median() -> None:
    tiles: list[Tile] = [("physical", 0, 0, 0)] * 3 + [("virtual", 2, 0, 0)] * 3
    figure = slowest_zoom(tiles, [0.001, 0.001, 9.0, 0.002, 0.003, 0.004])
    assert figure.what.endswith("(virtual, 2)")
    assert figure.reached == 0.003
