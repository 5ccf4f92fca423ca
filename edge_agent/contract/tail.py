"""How rare a value of the fused statistic is: declustered exceedances with a generalised Pareto tail.

Rates are clusters of exceedances per week. Above the start of the tail they follow a generalised Pareto distribution,
fitted by Zhang and Stephens (2009, A New and Efficient Estimation Method for the Generalized Pareto Distribution);
below it they are empirical. A tail that bends down, of a shape below 0, does so as far as the data shows, to what was
exceeded once; beyond that it goes on as an exponential one, since its bound would claim that worse is impossible. Own
code because the device re-fits without SciPy; a test compares it with SciPy.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_agent.contract.types import Float64

WEEK_SECONDS = 7 * 86_400.0
LEAST_RATE = 1e-12
_LEAST_LOG_RATE = float(np.log(LEAST_RATE))
LEAST_CLUSTERS = 30
"""Fewer clusters than this support no claim of rarity."""
LEAST_SHAPE = -0.5
"""Where the estimate of the shape becomes unreliable (Grimshaw 1993)."""
_STRAIGHT = 1e-9


@dataclass(frozen=True)
class Tail:
    """Rates of exceedance.

    Attributes:
        start: where the generalised Pareto tail begins.
        rate_at_start: clusters per week above `start`.
        shape: at least `LEAST_SHAPE`.
        scale: positive.
        levels: ascending values at and below `start`.
        rates: clusters per week above each of `levels`, not ascending.
        end: where a tail of a shape below 0 goes on as an exponential one.
    """

    start: float
    rate_at_start: float
    shape: float
    scale: float
    levels: tuple[float, ...]
    rates: tuple[float, ...]
    end: float = 0.0

    def rate(self, value: Float64) -> Float64:
        """Return clusters per week above each value, never under 1e-12."""
        return np.asarray(np.exp(self.log_rate(value)))

    def log_rate(self, value: Float64) -> Float64:
        """Return the natural logarithm of `rate`."""
        levels, logs = self._below
        found = np.interp(value, levels, logs)
        above = value > self.start
        if above.any():
            found[above] = np.log(self.rate_at_start) + log_share(
                np.asarray((value[above] - self.start) / self.scale), self.shape, self._end_excess
            )
        return np.asarray(np.maximum(found, _LEAST_LOG_RATE))

    @cached_property
    def _below(self) -> tuple[Float64, Float64]:
        """Return `levels`, and the logarithms of `rates`."""
        return np.asarray(self.levels), np.log(np.maximum(np.asarray(self.rates), LEAST_RATE))

    def value_at(self, rate: float) -> float:
        """Return the value that is exceeded `rate` times a week; at least the start of the tail."""
        log_ratio = float(np.log(max(self.rate_at_start / rate, 1.0)))
        if abs(self.shape) < _STRAIGHT:
            return self.start + self.scale * log_ratio
        beyond = 0.0
        if self.shape < 0.0:
            bend = 1.0 + self.shape * self._end_excess
            at_end = float(np.log(bend)) / self.shape
            log_ratio, beyond = min(log_ratio, at_end), bend * max(log_ratio - at_end, 0.0)
        return self.start + self.scale * (float(np.expm1(self.shape * log_ratio)) / self.shape + beyond)

    @property
    def _end_excess(self) -> float:
        return (self.end - self.start) / self.scale


def log_share(excess: Float64, shape: float, end: float) -> Float64:
    """Return the logarithm of the share of a tail's clusters above each excess, given in scales.

    Args:
        excess: at least 0.
        shape: of the tail.
        end: the excess beyond which a tail of a shape below 0 is exponential.
    """
    if abs(shape) < _STRAIGHT:
        return -excess
    if shape > 0.0:
        return np.asarray(np.log1p(shape * excess) / -shape)
    bent = np.minimum(excess, end)
    return np.asarray(np.log1p(shape * bent) / -shape - (excess - bent) / (1.0 + shape * end))


def end_excess(shape: float, count: int) -> float:
    """Return the excess, in scales, above which one of a tail's `count` clusters is expected."""
    log = float(np.log(max(count, 1)))
    return log if abs(shape) < _STRAIGHT else float(np.expm1(shape * log)) / shape


def cluster_peaks(values: Float64, level: float, separation: int) -> Float64:
    """Return the maximum of each cluster of exceedances of `level`; `separation` quiet samples end a cluster."""
    above = np.flatnonzero(values > level)
    if not len(above):
        return np.empty(0)
    starts = np.flatnonzero(np.r_[True, np.diff(above) > separation])
    return np.asarray(np.maximum.reduceat(values[above], starts))


def fit_pareto(excess: Float64) -> tuple[float, float]:
    """Return (shape, scale) of the generalised Pareto distribution of positive excesses (n,)."""
    ordered = np.sort(excess)
    count = len(ordered)
    grid = 30 + int(np.sqrt(count))
    quartile = max(ordered[max(int(count / 4 + 0.5) - 1, 0)], 1e-12)
    steps = 1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    theta = steps / (3.0 * quartile) + 1.0 / ordered[-1]
    inner = np.log1p(-theta[:, None] * ordered[None, :]).mean(axis=1)
    likelihood = count * (np.log(-theta / inner) - inner - 1.0)
    with np.errstate(over="ignore"):  # infinitely less likely is a weight of zero
        weights = 1.0 / np.exp(likelihood[None, :] - likelihood[:, None]).sum(axis=1)
    best = float((theta * weights).sum())
    shape = float(np.log1p(-best * ordered).mean())
    if shape < LEAST_SHAPE:
        return LEAST_SHAPE, float(excess.mean()) * (1.0 - LEAST_SHAPE)
    if abs(shape) < _STRAIGHT:
        return 0.0, float(excess.mean())
    return shape, max(-shape / best, 1e-12)


def fit_tail(values: Float64, interval: float, separation: int) -> Tail | None:
    """Fit the tail of normal values (n,) sampled every `interval` seconds, or return None with too few clusters."""
    weeks = len(values) * interval / WEEK_SECONDS
    for quantile in (0.995, 0.99, 0.98, 0.95, 0.90):
        start = float(np.quantile(values, quantile))
        peaks = cluster_peaks(values, start, separation)
        if len(peaks) >= LEAST_CLUSTERS:
            break
    else:
        return None
    shape, scale = fit_pareto(peaks - start)
    levels = np.unique(np.quantile(values, np.linspace(0.0, quantile, 40)))
    counts = [len(cluster_peaks(values, level, separation)) for level in levels]
    # Clusters merge at low levels, which would make low values look rarer than higher ones.
    rates = np.maximum.accumulate(np.asarray(counts[::-1], np.float64))[::-1] / weeks
    end = start + scale * end_excess(shape, len(peaks))
    return Tail(
        start, len(peaks) / weeks, shape, scale, tuple(map(float, levels)), tuple(map(float, rates)), end
    )
