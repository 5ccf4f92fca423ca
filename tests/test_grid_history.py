"""Laws of putting a whole history on the grid."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.contract.grid_history import grid_history, tick_of
from edge_agent.contract.types import Float32, Float64

CELLS = st.one_of(st.just(float("nan")), st.floats(-1e6, 1e6, width=32))
TIMES = st.lists(st.integers(0, 200), min_size=0, max_size=40)


def _one_by_one(times: Float64, values: Float32, interval: float, phase: float) -> dict[int, list[float]]:
    """Return what a reader without arrays would do: last reading by time and arrival, per cell."""
    cells: dict[int, list[float]] = {}
    for row in sorted(range(len(times)), key=lambda row: (times[row], row)):
        tick = int(np.floor((times[row] - phase) / interval + 0.5))
        for column, value in enumerate(values[row]):
            if not np.isnan(value):
                cells.setdefault(tick, [float("nan")] * values.shape[1])[column] = float(value)
    return dict(sorted(cells.items()))


@settings(max_examples=150, deadline=None)
@given(
    times=TIMES, data=st.data(), interval=st.sampled_from([0.5, 1.0, 7.0]), phase=st.sampled_from([0.0, 0.25])
)
def test_equals_one_by_one(times: list[int], data: st.DataObject, interval: float, phase: float) -> None:
    """The vectorised grid gives what a loop over sorted readings gives, cell by cell."""
    clock = np.asarray(times, np.float64) / 4
    values = data.draw(arrays(np.float32, (len(times), 3), elements=CELLS))
    ticks, gridded, duplicates = grid_history(clock, values, interval, phase)
    expected = _one_by_one(clock, values, interval, phase)
    assert ticks.tolist() == list(expected)
    np.testing.assert_array_equal(gridded, np.asarray(list(expected.values()), np.float32).reshape(-1, 3))
    assert duplicates == len(clock) - len(np.unique(tick_of(clock, interval, phase)))


@settings(max_examples=50, deadline=None)
@given(times=TIMES)
def test_on_its_own_grid_nothing_moves(times: list[int]) -> None:
    """A history already on the grid is given back unchanged, however often it is gridded."""
    clock = np.unique(np.asarray(times, np.float64))
    values = np.arange(len(clock) * 2, dtype=np.float32).reshape(-1, 2)
    ticks, gridded, duplicates = grid_history(clock, values, 1.0, 0.0)
    np.testing.assert_array_equal(ticks, clock.astype(np.int64))
    np.testing.assert_array_equal(gridded, values)
    assert duplicates == 0


def test_a_missing_value_never_wins() -> None:
    """A later row with a missing cell leaves the earlier reading of that cell standing."""
    values = np.asarray([[1, 2], [np.nan, 3]], np.float32)
    ticks, gridded, duplicates = grid_history(np.asarray([10.0, 10.2]), values, 1.0, 0.0)
    assert (ticks.tolist(), gridded.tolist(), duplicates) == ([10], [[1, 3]], 1)


def test_a_tick_without_a_reading_is_not_emitted() -> None:
    """Gaps and rows that are all missing give no tick."""
    values = np.asarray([[1], [np.nan], [3]], np.float32)
    ticks, _, _ = grid_history(np.asarray([0.0, 1.0, 9.0]), values, 1.0, 0.0)
    assert ticks.tolist() == [0, 9]


def test_a_time_that_is_no_number_is_left_out() -> None:
    """Rows at NaN or infinite times do not reach the grid."""
    values = np.asarray([[1], [2], [3]], np.float32)
    ticks, gridded, _ = grid_history(np.asarray([np.nan, 5.0, np.inf]), values, 1.0, 0.0)
    assert (ticks.tolist(), gridded.tolist()) == ([5], [[2]])


def test_the_middle_belongs_to_the_later_tick() -> None:
    """A time exactly between two ticks goes to the later one, below the epoch as above it."""
    assert tick_of(np.asarray([0.5, 1.5, -0.5, -1.5]), 1.0, 0.0).tolist() == [1, 2, 0, -1]
