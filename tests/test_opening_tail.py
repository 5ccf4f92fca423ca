"""Laws of the tail of what opens an alarm: the budget is one of alarms, not of single rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.threshold import calibrate_threshold, held_values
from edge_agent.contract.types import Float64
from trainer.benchmark.cases import runs_of
from trainer.benchmark.floor_alarms import follow_rows

INTERVAL = 60.0
WEEKS = 20


def _flickering(rows: int, seed: int) -> Float64:
    """Return a statistic that is partly slow and partly new at each row."""
    rng = np.random.default_rng(seed)
    slow = np.convolve(rng.normal(size=rows + 29), np.ones(30) / np.sqrt(30.0), "valid")
    return np.exp(0.3 * slow + 0.3 * rng.normal(size=rows))


@given(
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(0, 5),
    st.floats(0.0, 10.0),
)
def test_a_row_exceeds_where_enough_of_its_window_do(
    values: list[float], count: int, more: int, level: float
) -> None:
    """A held value is above a level exactly where m of the last n values are."""
    statistic, window = np.array(values), count + more
    held = held_values(statistic, count, window)
    for row in range(window - 1, len(values)):
        assert (held[row] > level) == ((statistic[row - window + 1 : row + 1] > level).sum() >= count)


def test_single_rows_are_themselves() -> None:
    """One of one changes nothing."""
    statistic = _flickering(100, 0)
    np.testing.assert_array_equal(held_values(statistic, 1, 1), statistic)


def test_alarms_come_as_often_as_the_tail_says() -> None:
    """Alarms that open on three of five keep the rate of their tail; by that of single rows they are few."""
    rows = round(WEEKS * WEEK_SECONDS / INTERVAL)
    normal, later = _flickering(rows, 1), _flickering(rows, 2)
    budget = 10.0

    def opened(opening: tuple[int, int]) -> int:
        found = calibrate_threshold(normal, INTERVAL, budget, 60, opening=opening)
        score = later / found.value
        return len(runs_of(follow_rows(score, score < 0.8)))

    expected = WEEKS * budget
    assert opened((3, 5)) == pytest.approx(expected, rel=0.5)
    assert opened((1, 1)) < 0.3 * expected
