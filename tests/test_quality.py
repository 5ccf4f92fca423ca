"""Laws of the gate."""

import numpy as np
import pytest

from edge_agent.contract.types import Rows
from edge_agent.quality import TOO_LARGE, QualityGate

NAN, INF = float("nan"), float("inf")
NOW = 1_000.0


def _rows(values: list[list[float]], times: list[float] | None = None) -> Rows:
    time = np.array(times if times is not None else [NOW] * len(values), np.float64)
    return Rows(np.arange(len(values)), time, np.array(values, np.float32))


def test_good_rows_pass_untouched() -> None:
    """Rows without fault are given on as they are, and nothing is counted."""
    gate, rows = QualityGate(), _rows([[1.0, NAN], [2.0, 3.0]])
    assert gate.check(rows, NOW) is rows
    assert not gate.rejected


def test_an_impossible_reading_is_masked_and_the_rest_of_its_row_goes_on() -> None:
    """Infinite and absurdly large readings are masked and counted by reason, and the caller's array stays as it was."""
    gate, rows = QualityGate(), _rows([[INF, 1.0], [2.0, -INF], [2 * TOO_LARGE, 5.0], [TOO_LARGE, 6.0]])
    before = rows.values.copy()
    checked = gate.check(rows, NOW)
    np.testing.assert_array_equal(
        checked.values, np.array([[NAN, 1], [2, NAN], [NAN, 5], [TOO_LARGE, 6]], np.float32)
    )
    np.testing.assert_array_equal(rows.values, before)
    assert gate.rejected == {"infinite": 2, "too_large": 1}


def test_a_row_with_nothing_left_is_dropped() -> None:
    """Rows whose every reading is absent or impossible do not go on."""
    checked = QualityGate().check(_rows([[INF, NAN], [NAN, NAN], [1.0, NAN]]), NOW)
    assert checked.asset.tolist() == [2]


def test_readings_from_the_future_are_counted_and_dropped() -> None:
    """A stamp further ahead than allowed is refused reading by reading, one at the limit is not."""
    gate = QualityGate(max_future_seconds=60.0)
    checked = gate.check(_rows([[1.0, 2.0], [3.0, NAN], [4.0, NAN]], [NOW + 61, NOW + 60, NOW - 1e9]), NOW)
    assert checked.asset.tolist() == [1, 2]
    assert gate.rejected == {"future": 2}


def test_in_replay_no_time_is_in_the_future() -> None:
    """With an infinite clock every finite time passes."""
    rows = _rows([[1.0]], [4e9])
    assert QualityGate().check(rows, INF) is rows


@pytest.mark.parametrize("time", [NAN, INF, -INF])
@pytest.mark.parametrize("now", [NOW, INF])
def test_a_time_that_is_no_number_never_passes(time: float, now: float) -> None:
    """Rows without a finite time are dropped and counted, by a live clock and in replay."""
    gate = QualityGate()
    assert len(gate.check(_rows([[1.0]], [time]), now)) == 0
    assert sum(gate.rejected.values()) == 1


def test_no_rows_are_no_fault() -> None:
    """An empty batch passes."""
    assert len(QualityGate().check(Rows.empty(3), NOW)) == 0
