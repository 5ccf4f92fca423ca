"""Laws of starts and stops: which samples are near one, and when a calibration holds too few."""

import numpy as np
import pytest

from edge_agent.contract.types import Bool
from trainer.starts import starts_notice, turns_of


def _resting(count: int, *stops: tuple[int, int]) -> Bool:
    resting = np.zeros(count, np.bool_)
    for first, end in stops:
        resting[first:end] = True
    return resting


def test_samples_near_a_stop_are_of_its_start_or_its_stop() -> None:
    """Each stop has the samples before it, each start those after it, of its own asset; a start comes first."""
    resting = np.r_[_resting(20, (5, 8), (10, 12), (19, 20)), _resting(10, (0, 3))]
    found = turns_of(resting, np.repeat([0, 1], [20, 10]), 4)
    expected = np.zeros(30, np.int64)
    expected[1:5], expected[8:10], expected[12:16], expected[16:19], expected[23:27] = -1, 1, 2, -3, 3
    assert found.tolist() == expected.tolist()


def test_a_turn_is_of_the_asset_that_stopped() -> None:
    """An asset that stands still at its end says nothing of the next one, which runs, nor one of those before."""
    found = turns_of(np.r_[_resting(10, (8, 10)), _resting(10)], np.repeat([0, 1], 10), 4)
    assert not found[10:].any()
    found = turns_of(np.r_[_resting(10), _resting(10, (0, 2))], np.repeat([0, 1], 10), 4)
    assert not found[:10].any()


@pytest.mark.parametrize(("held", "seen"), [(0, None), (700, None), (800, 2), (1000, 0)])
def test_few_starts_in_the_calibration_are_told(held: int, seen: int | None) -> None:
    """Fewer than three starts in the rows that calibrate are told of, with those of the whole history."""
    stops = [(at, at + 5) for at in range(50, 1000, 100)]
    found = starts_notice([_resting(1000, *stops)], [held])
    if seen is None:
        assert found is None
    else:
        assert found is not None
        assert found.startswith(f"the calibration holds {seen} of the 10 starts")
