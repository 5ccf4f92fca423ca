"""Laws of absence: what is away for longer than it ever was, and than losses and restarts explain, is stale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_agent.contract.stale import follow_absence, longest_absence, silence_limit, stale_limits
from edge_agent.contract.types import Bool


@pytest.mark.parametrize(("interval", "ticks"), [(0.1, 600), (1.0, 60), (6.0, 10), (60.0, 10), (3600.0, 10)])
def test_the_limit_is_the_longer_of_ticks_and_seconds(interval: float, ticks: int) -> None:
    """A fast sensor may miss a minute, a slow one ten readings."""
    assert silence_limit(interval) == ticks


def test_a_sensor_slower_than_the_grid_has_twice_its_own_absence() -> None:
    """The longest absence in the history widens the limit of its sensor and of no other."""
    assert stale_limits([0, 100, 29], 60).tolist() == [60, 200, 60]


@given(arrays(np.bool_, st.integers(1, 30)))
def test_streaming_counts_what_the_history_holds(present: Bool) -> None:
    """The largest count of samples in a row without a reading is the longest absence of the whole history."""
    absent, largest = np.zeros((1, 1), np.int32), 0
    for here in present:
        absent = follow_absence(absent, np.array([[here]]))
        largest = max(largest, int(absent[0, 0]))
    column = np.where(present, 1.0, np.nan).astype(np.float32)
    assert longest_absence([column, np.ones(3, np.float32)]) == largest
