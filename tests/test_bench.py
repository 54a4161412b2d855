"""The arithmetic of the benchmarks; what they measure, they show when they run."""

from __future__ import annotations

import pytest

from bench.__main__ import table
from bench.contests import Contest, Result, Row, run_contest
from bench.peers import Contender, Measurement

SPEED_UP = Row("ours", "theirs", "ours", "theirs", 6)
COST = Row("ours", "theirs", "ours", "theirs", 1.1, is_cost=True, unit="peak")


@pytest.mark.parametrize(
    ("row", "ours", "theirs", "ratio", "is_met"),
    [
        (SPEED_UP, 1.0, 6.0, 6.0, True),
        (SPEED_UP, 2.0, 6.0, 3.0, False),
        (COST, 110.0, 100.0, 1.1, True),
        (COST, 120.0, 100.0, 1.2, False),
    ],
)
def test_ratio(row: Row, ours: float, theirs: float, ratio: float, is_met: bool) -> None:
    result = Result(row, ours, theirs)
    assert result.ratio == pytest.approx(ratio)
    assert result.is_met is is_met


def test_medians_leave_out_the_first_round() -> None:
    contest = Contest(
        "example",
        {"ours": contender(9.0, 1.0, 2.0, 3.0), "theirs": contender(9.0, 8.0, 4.0, 6.0)},
        (SPEED_UP,),
        agree=(("ours", "theirs"),),
    )
    (result,) = run_contest(contest, 3, lambda _: None)
    assert (result.ours, result.theirs) == (2.0, 6.0)


def test_contenders_that_disagree_are_not_compared() -> None:
    contest = Contest(
        "example",
        {"ours": contender(1.0, 1.0), "theirs": contender(1.0, 1.0, count=2)},
        (SPEED_UP,),
        agree=(("ours", "theirs"),),
    )
    with pytest.raises(RuntimeError, match="ours counted 1, theirs 2"):
        list(run_contest(contest, 1, lambda _: None))


def test_table_tells_what_was_missed() -> None:
    lines = list(table([Result(SPEED_UP, 1.0, 9.0), Result(COST, 2 << 20, 1 << 20)]))
    assert lines[2:] == [
        "| ours | theirs | 6 times faster | 9.00 | 1.000 s | 9.000 s |",
        "| ours | theirs | at most 1.1 times | 2.00 (missed) | 2.0 MiB | 1.0 MiB |",
    ]


def contender(*seconds: float, count: int = 1) -> Contender:
    """Return a contender that takes these times, one after another."""
    times = iter(seconds)
    return lambda: Measurement(next(times), count, 0)
