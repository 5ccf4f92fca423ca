"""Laws of the frozen sensor's check: only runs beyond what chance and the history explain are long."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.contract.frozen import LEAST_LIMIT, NEVER, Holds, follow_hold, hold_limits, longest_holds
from edge_agent.contract.types import Float32

NAN = np.float32(np.nan)


def _column(values: list[float]) -> Float32:
    return np.array(values, np.float32)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.just(NAN), st.integers(0, 2).map(float)), min_size=1, max_size=40))
def test_the_hold_is_the_length_of_the_run_of_readings(values: list[float]) -> None:
    """After each sample the hold is how many readings in a row equal the last one, missing cells left out."""
    hold, previous = np.zeros((1, 1), np.int32), np.full((1, 1), NAN)
    for end, value in enumerate(values, start=1):
        cell = np.full((1, 1), value, np.float32)
        present = np.isfinite(cell)
        hold = follow_hold(hold, previous, cell, present)
        previous = np.where(present, cell, previous)
        readings = [one for one in values[:end] if np.isfinite(one)]
        run = 0
        while run < len(readings) and readings[-1 - run] == readings[-1]:
            run += 1
        assert hold[0, 0] == run


def test_limits_double_what_was_seen_and_never_judge_the_unknown() -> None:
    """The limit is twice the longest run, at least 20, and out of reach where no run is known."""
    assert hold_limits([0, 3, 50]).tolist() == [NEVER, LEAST_LIMIT, 100]


def test_the_longest_hold_of_noise_is_found_and_its_ends_are_left_out() -> None:
    """Runs at the lowest and highest value are rest, not habit; the longest of the others counts, over all assets."""
    rng = np.random.default_rng(0)
    noise = np.round(rng.normal(50.0, 3.0, 2000), 2)
    noise[100:106] = 50.0
    noise[500:700] = 0.0
    assert longest_holds([_column(noise.tolist()), _column([50.0, 50.0, 51.0])]) == Holds(6)


@pytest.mark.parametrize(
    "values",
    [
        np.full(500, 3.0),
        np.repeat([0.0, 1.0, 0.0], 200),
        np.repeat(np.arange(40.0), 50),
        np.r_[np.random.default_rng(0).normal(size=1000), np.full(300, 0.123), np.arange(3.0)],
        np.full(50, np.nan),
        np.empty(0),
    ],
    ids=["constant", "binary", "quantised and slow", "parked for long", "missing", "empty"],
)
def test_a_sensor_that_holds_by_nature_has_no_longest_hold(values: Float32) -> None:
    """Constant, binary, slow quantised and parked sensors give 0, which switches the check off."""
    assert longest_holds([values.astype(np.float32)]) == Holds()


@pytest.mark.parametrize(("sign", "name"), [(1.0, "low"), (-1.0, "high")])
def test_an_end_that_noise_is_cut_off_at_has_a_hold_of_its_own(sign: float, name: str) -> None:
    """What comes to an end of its range often, and stays by chance alone, is known there; what parks there is not."""
    rng = np.random.default_rng(1)
    stops = np.arange(20_000) % 200 < 60
    noise = np.maximum(rng.normal(np.where(stops, 0.0, 50.0), 0.02).round(2), 0.0)
    cut = longest_holds([(sign * noise).astype(np.float32)])
    assert 1 < getattr(cut, name) <= 2 * LEAST_LIMIT
    parked = longest_holds([(sign * np.where(stops, 0.0, noise)).astype(np.float32)])
    assert parked.inside and not getattr(parked, name)
