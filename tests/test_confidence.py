"""Laws of the interval of a threshold's rate: it holds the true rate, and narrows with more history."""

import numpy as np
import pytest

from edge_agent.contract.tail import WEEK_SECONDS
from edge_agent.contract.threshold import calibrate_threshold
from trainer.confidence import rate_interval, supported_budgets, weeks_text

INTERVAL = 60.0


def _normal(weeks: float, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return independent exponential numbers, of which each exceedance is a cluster."""
    return np.random.default_rng(seed).exponential(1.0, int(weeks * WEEK_SECONDS / INTERVAL))


def test_the_interval_holds_the_true_rate() -> None:
    """Of 40 histories at least 34 (95 % less the luck of 40) have the true rate at their threshold inside."""
    held = 0
    for seed in range(40):
        limits = calibrate_threshold(_normal(2.0, seed), INTERVAL, 1.0, separation=1)
        true = WEEK_SECONDS / INTERVAL * np.exp(-limits.value)
        found = rate_interval(limits)
        held += found.low <= true <= found.high
    assert held >= 34


def test_more_history_narrows_the_interval() -> None:
    """Twelve weeks leave less doubt than two, and the interval brackets the rate that the threshold stands for."""
    spans = []
    for weeks in (2.0, 12.0):
        found = rate_interval(calibrate_threshold(_normal(weeks, 1), INTERVAL, 1.0, separation=1))
        assert found.low < 1.0 < found.high
        assert found.weeks == pytest.approx(weeks, rel=1e-3)
        spans.append(found.high / found.low)
    assert spans[1] < spans[0]


def test_without_a_tail_nothing_was_seen() -> None:
    """A margin has no excursions: at most 3.69 alarms in the time that was seen, with none in it."""
    found = rate_interval(calibrate_threshold(_normal(0.1, 1), INTERVAL, 1.0, separation=1))
    assert (found.low, found.excursions) == (0.0, 0)
    assert found.high * found.weeks == pytest.approx(3.689, abs=1e-3)
    assert "none seen in 16.8 hours" in str(found)


@pytest.mark.parametrize(
    ("weeks", "text"),
    [(2.0, "2.0 weeks"), (0.5, "3.5 days"), (1 / 84, "2.0 hours"), (1 / 336, "30.0 minutes")],
)
def test_a_length_of_time_is_told_in_its_unit(weeks: float, text: str) -> None:
    """The largest unit of which there is at least one."""
    assert weeks_text(weeks) == text


@pytest.mark.parametrize(
    ("rows", "budget", "told"),
    [
        (60_000, 1.0, "supports budgets from 0.168 alarms a week on"),
        (9_500, 1.0, "supports budgets from 1 alarms a week on"),
        (2_000, 1.0, "too short for a claim of 1 a week; it could show 5.04 a week"),
        (500, 100.0, "too few separate excursions for a claim of rarity, 30 are needed"),
    ],
)
def test_it_is_said_which_budgets_a_history_supports(rows: int, budget: float, told: str) -> None:
    """A budget that was granted is among the supported ones; otherwise the true reason for the margin is told."""
    statistic = np.random.default_rng(1).gamma(4.0, 0.2, rows)
    assert told in supported_budgets(calibrate_threshold(statistic, 60.0, budget, 5))
