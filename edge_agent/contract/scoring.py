"""Residuals and levels become statistics, one fused statistic, a score, and each sensor's share of it.

Sources: residual and level vectors as Mahalanobis distances over several EWMA spans, and the novelty of the state
[level, residual]. Each is divided by its own 0.99 quantile on normal history that nothing was fitted on, and they are
fused by a weighted log-mean (2 : 1 : 1), not by a maximum: one noisy statistic cannot raise an alarm alone.
"""

from dataclasses import dataclass, replace

import numpy as np

from edge_agent.contract.ewma import deviation, follow, smoothing
from edge_agent.contract.mahalanobis import BOUND, Mahalanobis, bounded, shrunk_correlation
from edge_agent.contract.novelty import find_centres, nearest_centre_distance
from edge_agent.contract.range_guard import GUARD_SPAN, range_excess, range_margin
from edge_agent.contract.types import Bool, Float64, Int64

SPANS = (1, 5, 15, 60)
WEIGHTS = (2.0, 1.0, 1.0)
LEAST_RATIO = 0.05
"""A statistic near zero says nothing more than a small one: without a floor its logarithm would hide the others."""
NOVELTY_SPAN = 5
FADING = 0.97
"""What is left each sample of the excess of a silent sensor: no alarm may last for ever."""
BIAS_SPANS = 10
"""The bias follows levels ten times slower than the longest span looks at them: a fault outruns it."""
BIAS_BOUND = 3.0
"""Standard deviations that a slow drift of normal operation may take away; what drifts farther is news."""
BIAS_GATE = 2.0
"""A sensor whose smoothed level is farther away than this is not learnt from: nothing is learnt inside an alarm."""
BASELINE_SPAN = 15
"""The longest span that an accepted baseline is taken from."""
FARTHEST = 1.0 - 1e-6
"""Of the bound of a contribution: where it is reached, how far the level really lies is not known."""


@dataclass(frozen=True)
class ScoringModel:
    """What was learnt from normal residuals and levels, in scaled units.

    Attributes:
        spans: S EWMA spans in samples.
        residual_centre, residual_scale: (F,).
        residual_correlation: (F, F).
        level_centre, level_scale: (F,).
        level_correlation: (F, F).
        centres: (K, 2F) of [level, residual].
        low, high: (F,) range seen.
        judged: (F,) sensors that the distances use; constant ones are only range-guarded.
        normalisers: (2S + 1,) 0.99 quantiles; ones before calibration.
    """

    spans: tuple[int, ...]
    residual_centre: Float64
    residual_scale: Float64
    residual_correlation: Float64
    level_centre: Float64
    level_scale: Float64
    level_correlation: Float64
    centres: Float64
    low: Float64
    high: Float64
    judged: Bool
    normalisers: Float64

    def normalised(self, normalisers: Float64) -> "ScoringModel":
        """Return the model with each statistic's own 0.99 quantile."""
        return replace(self, normalisers=normalisers)


def fit_scoring(
    residual: Float64, level: Float64, judged: Bool, low: Float64, high: Float64, spans: tuple[int, ...]
) -> ScoringModel:
    """Learn from residuals and levels (n, F) of normal data, NaN where a cell does not count."""
    width = residual.shape[1]
    model = ScoringModel(
        spans,
        *_centre_and_scale(residual),
        np.eye(width),
        *_centre_and_scale(level),
        np.eye(width),
        np.zeros((1, 2 * width)),
        low,
        high,
        judged,
        np.ones(2 * len(spans) + 1),
    )
    u = bounded((residual - model.residual_centre) / model.residual_scale)
    v = bounded((level - model.level_centre) / model.level_scale)
    present = np.isfinite(u) & judged
    a = float(smoothing([NOVELTY_SPAN])[0])
    states = np.empty((len(u), 2 * width))
    state = np.zeros(2 * width)
    for row, (moved, known) in enumerate(zip(np.c_[v, u], np.c_[present, present], strict=True)):
        state = state + a * np.where(known, moved - state, 0.0)
        states[row] = state
    return replace(
        model,
        residual_correlation=shrunk_correlation(np.where(present, u, np.nan)),
        level_correlation=shrunk_correlation(np.where(present, v, np.nan)),
        centres=find_centres(states[min(4 * NOVELTY_SPAN, len(states) - 1) :]),
    )


def _centre_and_scale(rows: Float64) -> tuple[Float64, Float64]:
    """Return mean and standard deviation (F,), the latter never under 1e-3 scaled units."""
    known = np.isfinite(rows)
    count = np.maximum(known.sum(axis=0), 1)
    centre = np.where(known, rows, 0.0).sum(axis=0) / count
    spread = np.sqrt(np.where(known, (rows - centre) ** 2, 0.0).sum(axis=0) / count)
    return centre, np.maximum(spread, 1e-3)


@dataclass
class ScoringState:
    """Averages of all assets, one row per asset.

    Attributes:
        residual, level: (A, S + 1, F); the last span is the novelty's.
        excess: (A, 1, F) smoothed range excess.
        bias: (A, 1, F) how far the levels have slowly drifted from those of training, standard deviations.
    """

    residual: Float64
    level: Float64
    excess: Float64
    bias: Float64

    @staticmethod
    def zero(assets: int, spans: int, sensors: int) -> "ScoringState":
        """Return the state of assets that have seen nothing."""
        shape = (assets, spans + 1, sensors)
        single = (assets, 1, sensors)
        return ScoringState(np.zeros(shape), np.zeros(shape), np.zeros(single), np.zeros(single))

    def take(self, rows: Int64) -> "ScoringState":
        """Return a copy of some rows."""
        return ScoringState(self.residual[rows], self.level[rows], self.excess[rows], self.bias[rows])

    def put(self, rows: Int64, values: "ScoringState") -> None:
        """Write rows back."""
        self.residual[rows] = values.residual
        self.level[rows] = values.level
        self.excess[rows] = values.excess
        self.bias[rows] = values.bias


class Scorer:
    """Residuals and levels in, fused statistic out; holds no state of assets itself.

    Args:
        model: what was learnt from normal data.
    """

    def __init__(self, model: ScoringModel) -> None:
        self.model = model
        self._a = smoothing((*model.spans, NOVELTY_SPAN))
        self._deviation = deviation(model.spans)[None, :, None]
        self._guard_a = smoothing([GUARD_SPAN])
        self._bias_a = float(smoothing([BIAS_SPANS * max(model.spans)])[0])
        self._margin = range_margin(model.low, model.high)
        self._residual = Mahalanobis(model.residual_correlation)
        self._level = Mahalanobis(model.level_correlation)
        self._weights = _spread_weights(len(model.spans))

    def follow(self, state: ScoringState, residual: Float64, level: Float64, present: Bool) -> ScoringState:
        """Return the averages after one more sample of each asset; arrays are (B, F) in scaled units."""
        model = self.model
        judged = present & model.judged
        u = bounded((residual - model.residual_centre) / model.residual_scale)
        v = bounded((level - model.level_centre) / model.level_scale - state.bias[:, 0])
        # A baseline that was accepted lies beyond the bound of slow drift, and shifts the range that was seen too.
        accepted = state.bias[:, 0] - np.clip(state.bias[:, 0], -BIAS_BOUND, BIAS_BOUND)
        excess = range_excess(level - accepted * model.level_scale, model.low, model.high, self._margin)
        smoothed = follow(state.level, v, judged, self._a)
        calm = judged & (np.abs(smoothed[:, len(model.spans) - 1]) < BIAS_GATE)
        drifted = state.bias + self._bias_a * np.where(calm, v, 0.0)[:, None]
        return ScoringState(
            follow(state.residual, u, judged, self._a),
            smoothed,
            np.where(
                present[:, None], follow(state.excess, excess, present, self._guard_a), FADING * state.excess
            ),
            np.clip(drifted, np.minimum(state.bias, -BIAS_BOUND), np.maximum(state.bias, BIAS_BOUND)),
        )

    def accept(self, state: ScoringState) -> ScoringState:
        """Return the averages with the present smoothed level as the baseline, however far it lies.

        The bias, which `follow` takes from every level, becomes the level over a span of about 15 samples: longer
        ones remember the time before, shorter ones take noise for the level. The averages start from zero.
        """
        chosen = max(place for place, span in enumerate(self.model.spans) if span <= BASELINE_SPAN)
        smoothed = np.clip(state.level[:, chosen, None] / BOUND, -FARTHEST, FARTHEST)
        fresh = ScoringState.zero(len(state.bias), len(self.model.spans), state.bias.shape[2])
        fresh.bias = np.asarray(state.bias + BOUND * np.arctanh(smoothed))
        return fresh

    def statistics(self, state: ScoringState, present: Bool) -> Float64:
        """Return (n, 2S + 1): residual distance a span, level distance a span, novelty."""
        judged = present & self.model.judged
        residual = self._residual.distance(state.residual[:, :-1] / self._deviation, judged)
        level = self._level.distance(state.level[:, :-1] / self._deviation, judged)
        vector = np.concatenate([state.level[:, -1], state.residual[:, -1]], axis=1)
        novelty = nearest_centre_distance(
            vector, self.model.centres, np.concatenate([judged, judged], axis=1)
        )
        return np.concatenate([residual, level, novelty[:, None]], axis=1)

    def fuse(self, statistics: Float64) -> Float64:
        """Return the fused statistic (n,) of statistics (n, 2S + 1): their weighted log-mean over the normalisers."""
        ratio = np.maximum(statistics / self.model.normalisers, LEAST_RATIO)
        return np.asarray(np.exp(np.log(ratio) @ self._weights))

    def guard(self, state: ScoringState, guarded: Bool) -> Float64:
        """Return (n,) the largest smoothed range excess of the `guarded` (F,) sensors.

        1 is one margin outside of what was seen.
        """
        return np.asarray(np.where(guarded, state.excess[:, 0], 0.0).max(axis=1))

    def shares(self, state: ScoringState, present: Bool) -> Float64:
        """Return (n, F) how much each sensor contributes; rows sum to 1."""
        judged = present & self.model.judged
        total = np.zeros(present.shape)
        for weight, space, average in (
            (WEIGHTS[0], self._residual, state.residual),
            (WEIGHTS[1], self._level, state.level),
        ):
            parts = np.maximum(space.contributions(average[:, :-1] / self._deviation, judged), 0.0)
            total += weight * (parts / np.maximum(parts.sum(axis=2, keepdims=True), 1e-12)).mean(axis=1)
        excess = state.excess[:, 0]
        total += np.where(excess.max(axis=1, keepdims=True) >= 1.0, 4.0 * excess / _excess_sum(excess), 0.0)
        return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), 1e-12))

    def whitened(self, state: ScoringState, place: int) -> tuple[Float64, Float64]:
        """Return levels and residuals (n, F) over the span at `place`, with what normally moves together taken out.

        Levels of machines move slowly and are in their own standard deviations; residuals are nearly white, and are in
        those of their averages.
        """
        spread = self._deviation[0, place, 0]
        level = np.where(self.model.judged, state.level[:, place], 0.0)
        residual = np.where(self.model.judged, state.residual[:, place] / spread, 0.0)
        return np.asarray(level @ self._level.whitening), np.asarray(residual @ self._residual.whitening)

    def expected_level(self, state: ScoringState) -> Float64:
        """Return (n, F) what the other sensors' levels say each should read, scaled units.

        The conditional mean of a normal distribution: `E[x_i | others] = -sum_j P_ij x_j / P_ii`. A forecaster
        follows a lasting fault; the other sensors do not.
        """
        precision = self._level.precision
        z = state.level[:, -1]
        others = z @ precision - z * np.diag(precision)
        expected = state.bias[:, 0] - others / np.diag(precision)
        return np.asarray(expected * self.model.level_scale + self.model.level_centre)


def _excess_sum(excess: Float64) -> Float64:
    """Return (n, 1) the sum of excesses, never zero."""
    return np.asarray(np.maximum(excess.sum(axis=1, keepdims=True), 1e-12))


def _spread_weights(spans: int) -> Float64:
    """Return (2S + 1,) weights of the statistics: each source's weight over its spans, summing to 1."""
    parts = np.r_[np.full(spans, WEIGHTS[0] / spans), np.full(spans, WEIGHTS[1] / spans), WEIGHTS[2]]
    return np.asarray(parts / parts.sum())
