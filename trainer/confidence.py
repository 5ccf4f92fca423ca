"""How sure a threshold is: an interval of the rate at which normal operation exceeds it.

With a tail the number of clusters is Poisson and their excesses are generalised Pareto; both are drawn anew from what
was fitted and fitted again (parametric bootstrap, Efron and Tibshirani 1993), and the rates at the value that the
budget asks for are ordered. Without one nothing exceeded the threshold, and the interval is that of a Poisson mean of
which none was seen (Garwood 1936). Both hold for operation like that of the calibration block.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.tail import LEAST_CLUSTERS, Tail, end_excess, fit_pareto, log_share
from edge_agent.contract.threshold import Threshold
from trainer.benchmark.poisson import CONFIDENCE, poisson_interval

DRAWS = 400
"""Enough for the 2.5 % ends: their own spread is then a tenth of the interval."""


@dataclass(frozen=True)
class RateInterval:
    """The alarms per week and asset that the calibration block is compatible with.

    Attributes:
        low, high: at the confidence of `trainer.benchmark.poisson.CONFIDENCE`.
        excursions: separate exceedances that speak for it: those of the start of the tail, or 0 without a tail.
        weeks: of the calibration block.
    """

    low: float
    high: float
    excursions: int
    weeks: float

    def record(self) -> dict[str, float | int]:
        """Return it under the keys of `--json`."""
        return {
            "rate_low": self.low,
            "rate_high": self.high,
            "rate_confidence": CONFIDENCE,
            "excursions": self.excursions,
            "calibration_weeks": self.weeks,
        }

    def __str__(self) -> str:
        """Return it as a person reads it."""
        seen = f"{self.excursions} excursions in" if self.excursions else "none seen in"
        return f"{self.low:.2g} to {self.high:.2g} alarms a week ({CONFIDENCE:.0%}): {seen} {weeks_text(self.weeks)}"


def weeks_text(weeks: float) -> str:
    """Return a length of time in the largest unit of which there is at least one."""
    for unit, size in (("weeks", 1.0), ("days", 1 / 7), ("hours", 1 / 168)):
        if weeks >= size:
            return f"{weeks / size:.1f} {unit}"
    return f"{weeks * 168 * 60:.1f} minutes"


def rate_interval(threshold: Threshold) -> RateInterval:
    """Return the interval of the rate at a threshold."""
    weeks = 1.0 / threshold.supported_alarms_per_week
    if threshold.tail is None:
        low, high = poisson_interval(0)
        return RateInterval(low / weeks, high / weeks, 0, weeks)
    excursions = round(threshold.tail.rate_at_start * weeks)
    low, high = _tail_interval(threshold.tail, threshold.value, excursions, weeks)
    return RateInterval(low, high, excursions, weeks)


def _tail_interval(tail: Tail, value: float, excursions: int, weeks: float) -> tuple[float, float]:
    rng = np.random.default_rng(excursions)
    rates = np.empty(DRAWS)
    for draw in range(DRAWS):
        count = max(int(rng.poisson(excursions)), LEAST_CLUSTERS // 2)
        shape, scale = fit_pareto(_draw(tail, count, rng))
        excess = np.array([max(value - tail.start, 0.0) / scale])
        rates[draw] = count / weeks * np.exp(log_share(excess, shape, end_excess(shape, count))[0])
    ends = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(rates, [ends, 1.0 - ends])
    return float(low), float(high)


def _draw(
    tail: Tail, count: int, rng: np.random.Generator
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return excesses (count,) of the fitted tail."""
    share = 1.0 - rng.random(count)
    if abs(tail.shape) < 1e-9:
        return np.asarray(-tail.scale * np.log(share))
    return np.asarray(tail.scale / tail.shape * (share**-tail.shape - 1.0))


def supported_budgets(threshold: Threshold) -> str:
    """Return which budgets the calibration's history supports, in words."""
    if threshold.basis == "tail":
        least = min(threshold.supported_alarms_per_week, threshold.alarms_per_week)
        return f"this history supports budgets from {least:.3g} alarms a week on"
    if threshold.supports(threshold.alarms_per_week):
        return (
            f"this history has too few separate excursions for a claim of rarity, {LEAST_CLUSTERS} are needed"
        )
    return (
        f"this history is too short for a claim of {threshold.alarms_per_week:g} a week; "
        f"it could show {threshold.supported_alarms_per_week:.3g} a week"
    )
