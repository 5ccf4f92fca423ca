"""Laws of the threshold: 1.0 is the alarm, whatever the machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.contract.tail import WEEK_SECONDS, Tail, cluster_peaks
from edge_agent.contract.threshold import (
    CLEAR_RATIO,
    MOST_CLEAR_RATIO,
    Threshold,
    calibrate_threshold,
    held_values,
)
from edge_agent.contract.types import Float64

INTERVAL = 60.0


def _normal(count: int, seed: int = 0) -> Float64:
    return np.abs(np.random.default_rng(seed).normal(size=count))


def _calibrated(count: int, budget: float) -> Threshold:
    return calibrate_threshold(_normal(count), INTERVAL, budget, separation=1)


@pytest.fixture(params=["tail", "margin"])
def threshold(request: pytest.FixtureRequest) -> Threshold:
    """Return a threshold on each basis."""
    made = _calibrated(30_000 if request.param == "tail" else 300, budget=1.0)
    assert made.basis == request.param
    return made


def test_the_score_is_one_at_the_threshold(threshold: Threshold) -> None:
    """The threshold value has the score 1, values below score less and values above more."""
    below, at, above = threshold.score(threshold.value * np.array([0.99, 1.0, 1.01]))
    assert at == pytest.approx(1.0)
    assert below < 1.0 < above


def test_scores_rise_with_the_statistic_and_stay_finite(threshold: Threshold) -> None:
    """A larger statistic never scores less, no score is negative, and none is infinite."""
    scores = threshold.score(np.r_[np.linspace(0.0, 50.0, 2000), 1e6])
    assert (np.diff(scores) >= 0.0).all()
    assert np.isfinite(scores).all()
    assert scores.min() >= 0.0


def test_no_statistic_has_no_score(threshold: Threshold) -> None:
    """Warming up stays not-a-number."""
    assert np.isnan(threshold.score(np.array([np.nan, 1.0]))).tolist() == [True, False]


def test_one_more_is_ten_times_rarer() -> None:
    """On the tail, a score of 2 is a tenth of the alarm budget and 3 a hundredth."""
    threshold = _calibrated(30_000, budget=1.0)
    assert threshold.tail is not None
    values = np.array([threshold.tail.value_at(rate) for rate in (0.1, 0.01)])
    np.testing.assert_allclose(threshold.score(values), [2.0, 3.0], atol=1e-6)


def test_a_larger_budget_lowers_the_threshold() -> None:
    """Whoever accepts more alarms gets a lower threshold."""
    values = [_calibrated(60_000, budget).value for budget in (0.5, 1.0, 5.0, 50.0)]
    assert values == sorted(values, reverse=True)


def test_later_normal_data_keeps_the_budget() -> None:
    """On ten times as much normal data that was never seen, alarms are about as many as the budget allows."""
    budget = 20.0
    threshold = _calibrated(20_000, budget)
    later = _normal(200_000, seed=5)
    weeks = len(later) * INTERVAL / WEEK_SECONDS
    assert threshold.basis == "tail"
    assert 0.5 * budget <= len(cluster_peaks(later, threshold.value, 1)) / weeks <= 2.0 * budget


def test_a_budget_beyond_the_history_claims_no_rarity() -> None:
    """A block shorter than one budgeted alarm gives a margin, above everything that it showed."""
    threshold = _calibrated(9_000, budget=1.0)
    assert threshold.supported_alarms_per_week == pytest.approx(WEEK_SECONDS / (9_000 * INTERVAL))
    assert threshold.basis == "margin"
    assert threshold.tail is None
    assert threshold.value >= 1.25 * _normal(9_000).max()


def test_a_block_that_lost_a_few_rows_keeps_its_claim() -> None:
    """One as long as the budget's period has a tail with a tenth of its rows gone, at nearly the same threshold."""
    week = round(WEEK_SECONDS / INTERVAL)
    whole, fewer = _calibrated(week, budget=1.0), _calibrated(round(0.92 * week), budget=1.0)
    assert (whole.basis, fewer.basis) == ("tail", "tail")
    assert fewer.value == pytest.approx(whole.value, rel=0.05)
    assert _calibrated(round(0.88 * week), budget=1.0).basis == "margin"


def test_the_threshold_is_that_of_the_asked_rate() -> None:
    """On the tail the threshold value is exceeded as often as the budget allows."""
    threshold = _calibrated(60_000, budget=10.0)
    assert threshold.tail is not None
    assert threshold.tail.rate(np.array([threshold.value]))[0] == pytest.approx(10.0)


@pytest.mark.parametrize("rows", [50, 500])
def test_without_a_tail_blocks_set_the_margin(rows: int) -> None:
    """Over what is usual of late, the margin follows from the blocks of a budget's time: rarer budgets stand higher."""

    def value(budget: float, statistic: Float64) -> float:
        found = calibrate_threshold(statistic, INTERVAL, budget, separation=1, block_rows=rows)
        assert found.basis == "margin"
        return found.value

    short = _normal(100)
    values = [value(budget, short) for budget in (0.01, 0.1, 1.0, 10.0)]
    assert values == sorted(values, reverse=True)
    assert min(values) >= 1.0
    assert value(1.0, short) == value(1.0, 9.0 * short)
    assert value(0.01, short) == pytest.approx(1.1220 * value(0.1, short), rel=1e-4)


@given(value=st.floats(1.0, 1e3), relative=st.booleans())
def test_an_alarm_clears_below_its_threshold_and_at_what_is_usual(value: float, relative: bool) -> None:
    """A dead band lies below the threshold; without a tail a ratio to what is usual clears at no less than that."""
    margin = Threshold("margin", value, 1.0, 10.0)
    clear = margin.clear_value(relative)
    assert CLEAR_RATIO * value <= clear <= value
    assert clear == (max(CLEAR_RATIO * value, 1.0) if relative else CLEAR_RATIO * value)
    tail = Tail(0.5, 1.0, 0.1, 0.1, (0.1, 0.5), (9.0, 1.0))
    assert Threshold("tail", value, 1.0, 0.1, tail).clear_value(relative) == CLEAR_RATIO * value


@given(value=st.floats(1.0, 1e3), usual=st.floats(0.0, 2.0), relative=st.booleans())
def test_an_alarm_waits_for_no_less_than_is_usual(value: float, usual: float, relative: bool) -> None:
    """It clears below what normal operation stays below, and still below its threshold however near the two are."""
    tail = Tail(0.5, 1.0, 0.1, 0.1, (0.1, 0.5), (9.0, 1.0))
    clear = Threshold("tail", value, 1.0, 0.1, tail, usual * value).clear_value(relative)
    assert clear == pytest.approx(value * min(max(CLEAR_RATIO, usual), MOST_CLEAR_RATIO))


@pytest.mark.parametrize("sensors", [1, 10, 100])
def test_normal_operation_ends_an_alarm_however_little_it_varies(sensors: int) -> None:
    """A mean over many sensors stands near its threshold always; three times in four ten samples are quiet even so."""
    rng = np.random.default_rng(2)
    found = [np.sqrt(np.mean(rng.normal(size=(20_000, sensors)) ** 2, axis=1)) for _ in range(2)]
    limit = calibrate_threshold(found[0], INTERVAL, 1.0, separation=1, closing=10)
    quiet = held_values(found[1], 1, 10) < limit.clear_value(relative=False)
    assert quiet.mean() > 0.7
    assert limit.clear_value(relative=False) < limit.value
