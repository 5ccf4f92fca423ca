"""Laws of spikes: one sample far out that returns at once, and nothing else."""

import numpy as np
import pytest

from edge_agent.contract.spike import NEVER, largest_step, leap_limits, spikes
from edge_agent.contract.types import Float32


def _count(values: list[float], limit: float) -> int:
    """Return the spikes among values, judged one after the other."""
    found, origin, previous = 0, np.float32(np.nan), np.float32(np.nan)
    limits = np.array([limit], np.float32)
    for value in np.array(values, np.float32):
        leap = np.array([[abs(value - previous) > limit]])
        spike = spikes(np.array([[origin]]), np.array([[value]]), leap, limits)
        found += int(spike.sum())
        origin = previous if leap[0, 0] and not spike[0, 0] else np.float32(np.nan)
        previous = value
    return found


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([1, 1, 9, 1, 1], 1),
        ([1, 1, -9, 1.5, 1], 1),
        ([1, 1, 9, 9, 9], 0),
        ([1, 1, 9, 9, 1], 0),
        ([1, 1, 9, 5, 1], 0),
        ([1, 9, 1, 9, 1], 2),
        ([1, 3, 1, 3, 1], 0),
        ([9, 1, 1], 0),
    ],
    ids=["up", "down", "step", "two samples", "slow return", "two spikes", "small", "at the start"],
)
def test_a_spike_is_one_sample_out_and_back(values: list[float], count: int) -> None:
    """Steps, plateaus of two samples and small movements are no spikes."""
    assert _count(values, 3.0) == count


def test_the_largest_step_overlooks_single_spikes_and_sees_steps() -> None:
    """A history with spikes in it gives the step of the same history without them; missing cells join their sides."""
    values = np.repeat([1.0, 3.0, 2.0], 10).astype(np.float32)
    assert largest_step([values]) == 2.0
    spiked = values.copy()
    spiked[[4, 17]] = 50.0
    assert largest_step([spiked]) == 2.0
    holed = values.copy()
    holed[::3] = np.nan
    assert largest_step([holed, np.zeros(2, np.float32)]) == 2.0


def test_without_a_known_step_nothing_leaps() -> None:
    """A pulse of one sample is no step, and a sensor without steps has a limit that nothing reaches."""
    pulse: Float32 = np.zeros(30, np.float32)
    pulse[10] = 1.0
    assert leap_limits([largest_step([pulse]), 2.0]).tolist() == [np.float32(NEVER), 4.0]
