"""Laws of the rows that the metrics of sequences judge."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sequences import breaks, flags, rows, series
from trainer.scored_rows import asset_breaks, f_score, overlaps, ranges_of, scored_rows

NAN = float("nan")


def test_ranges_end_where_another_asset_begins() -> None:
    """A run of true rows is one range, from its first row to one past its last, within one asset."""
    text = "##.#|#..|###"
    assert ranges_of(flags(text), breaks(text)).tolist() == [[0, 2], [3, 4], [4, 5], [7, 10]]
    assert ranges_of(flags(""), asset_breaks(None, 0)).shape == (0, 2)


def test_rows_without_a_score_are_closed_up() -> None:
    """A fault that unscored rows interrupt stays one, two that they part stay two, and one without a score is gone."""
    #        fault  . # # # . # # . #
    score = [NAN, 1.0, NAN, 2.0, NAN, 3.0, 4.0, 0.0, NAN]
    kept = rows(".###.##.#", ".........", score)
    assert kept.score.tolist() == [1.0, 2.0, 3.0, 4.0, 0.0]
    assert kept.faults.tolist() == [[0, 2], [2, 4]]
    assert kept.faulty.tolist() == [True, True, True, True, False]
    assert (len(kept), kept.bounds.tolist()) == (5, [0, 5])


def test_an_asset_without_a_score_keeps_its_place() -> None:
    """The bounds name every asset, also one of which no row is left."""
    kept = rows("#.|##|.#", "#.|##|.#", [1.0, 0.0, NAN, NAN, 0.0, 1.0])
    assert kept.bounds.tolist() == [0, 2, 2, 4]
    assert kept.alarms.tolist() == kept.faults.tolist() == [[0, 1], [3, 4]]


@settings(deadline=None)
@given(series())
def test_overlaps_are_those_counted_one_by_one(case: tuple[str, str]) -> None:
    """A range overlaps those with which it shares a row, neither more nor fewer."""
    judged = rows(*case)
    counted = [
        sum(max(first, start) < min(last, end) for start, end in judged.alarms.tolist())
        for first, last in judged.faults.tolist()
    ]
    assert overlaps(judged.faults, judged.alarms).tolist() == counted


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.5, NAN]), st.booleans(), st.booleans())), st.integers(0, 5))
def test_unscored_rows_in_front_change_nothing(
    table: list[tuple[float, bool, bool]], warming_up: int
) -> None:
    """Warming up longer leaves the very same rows to judge."""
    longer = [(NAN, True, True)] * warming_up + [(NAN, False, False)] + table
    found = []
    for case in (longer, table):
        score, alarm, faulty = (np.array([row[column] for row in case]) for column in range(3))
        found.append(
            scored_rows(
                score.astype(np.float64), alarm.astype(bool), faulty.astype(bool), np.empty(0, np.int64)
            )
        )
    for name in ("score", "alarm", "faulty", "alarms", "faults", "bounds"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))


def test_f_score_weighs_recall_by_beta() -> None:
    """F is the weighted harmonic mean: under β = 1 precision counts for more, over it recall does."""
    assert f_score(0.5, 1.0) == pytest.approx(2 / 3)
    assert f_score(0.5, 1.0, beta=0.5) == pytest.approx(1.25 * 0.5 / 1.125)
    assert f_score(0.5, 1.0, beta=2.0) == pytest.approx(5 * 0.5 / 3.0)
    assert f_score(None, 0.0) == 0.0
    assert f_score(0.5, None) is None
