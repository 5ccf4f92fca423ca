"""Residuals and levels become statistics, one fused statistic, a score, and each sensor's share of it.

Sources: residual and level vectors as Mahalanobis distances over several EWMA spans, the novelty of the state
[level, residual], and that of the shape of the last readings. Each is divided by its own 0.99 quantile on normal
history that nothing was fitted on. They make up four aspects, each held against what is usual of late (`trailing`):
the deviation, which `fusion` fuses of residual, level and novelty; the shape; the range guard; and the contradiction.
"""

import numpy as np

from edge_agent.contract.contradiction import Contradiction
from edge_agent.contract.ewma import deviation
from edge_agent.contract.fusion import LEAST_RATIO
from edge_agent.contract.mahalanobis import Mahalanobis
from edge_agent.contract.novelty import NearestCentre
from edge_agent.contract.scoring_averages import ScoreAverages
from edge_agent.contract.scoring_model import ASPECTS, NOVELTY_SPAN, ScoringModel
from edge_agent.contract.scoring_state import Averages
from edge_agent.contract.shape_novelty import WINDOW, shape_statistic
from edge_agent.contract.types import Bool, Float32, Float64, Places
from edge_agent.contract.variance import variance_statistic

SUDDEN_SPAN = 5
ANCHOR = 0.01
"""Of what the others' levels say of a dead sensor, each sample: soon enough for what runs away, and slow beside the
residuals, which say far more of each other than levels do (docs/decisions/0020)."""


class Scorer:
    """Averages in, statistics out, and one that fuses them; holds no state of assets itself.

    Args:
        model: what was learnt from normal data.
    """

    def __init__(self, model: ScoringModel) -> None:
        self.model = model
        self.averages = ScoreAverages(model)
        """What the scores are computed from."""
        self._deviation = deviation(model.spans)[None, :, None]
        self._per_deviation = 1.0 / deviation(model.spans)
        self._residual = Mahalanobis(model.residual_correlation, model.judged)
        self._level = Mahalanobis(model.level_correlation, model.judged)
        self._contradiction = (
            Contradiction(model.contradiction, self._residual, NOVELTY_SPAN) if model.contradiction else None
        )
        self._aspect_weights = model.fusion.aspect_weights
        self._novelty = NearestCentre(model.centres, np.r_[model.judged, model.judged])
        self._per_normaliser = 1.0 / model.normalisers
        self._column_weights = model.fusion.column_weights(model.sources[:-1])
        short = np.array([span <= SUDDEN_SPAN for span in model.spans])
        self._sudden_weights = np.r_[short / short.sum(), np.zeros(len(model.sources) - 1 - len(short))]

    def statistics(self, state: Averages, present: Bool | None) -> Float64:
        """Return (n, 2S + 5): residual and level distance a span, contradiction, variance, novelty of state, of shape.

        The last is NaN where no window can be judged: there is no sensor for it, or it is not full yet.

        Args:
            state: n rows.
            present: (n, F) which cells count; None is all.
        """
        model, spans = self.model, len(self.model.spans)
        found = np.empty((len(state.heard), 2 * spans + 5))
        for at, space, average in ((0, self._residual, state.residual), (spans, self._level, state.level)):
            # All averages, though the last is not needed: to leave it out would be a copy.
            distance = space.distance(average, present)[:, :-1]
            np.multiply(distance, self._per_deviation, out=found[:, at : at + spans])
        one = self._contradiction
        found[:, 2 * spans] = 0.0 if one is None else one.largest(state.residual[:, -1], present)
        vector = np.concatenate([state.level[:, -1], state.residual[:, -1]], axis=1)
        if present is None or (present | ~model.judged).all():
            judged = model.judged
            found[:, -2] = self._novelty.distance(vector)
        else:
            judged = present & model.judged
            found[:, -2] = self._novelty.distance(vector, np.concatenate([judged, judged], axis=1))
        found[:, -4:-2] = variance_statistic(model.variance, state.square, judged)
        found[:, -1] = self._shape(state, present)
        return found

    def _shape(self, state: Averages, present: Bool | None) -> Float64:
        shapes = self.model.shapes
        found = np.full(len(state.heard), np.nan)
        if len(shapes.sensors):
            full = state.heard >= WINDOW
            some: Places = slice(None) if np.count_nonzero(full) == len(full) else np.flatnonzero(full)
            seen = None if present is None else present[some][:, shapes.sensors]
            found[some] = shape_statistic(shapes, state.window[some], seen)
        return found

    def aspects(self, statistics: Float64, guard: Float64) -> Float64:
        """Return the aspects (n, 4) alone, see `weigh`."""
        return self.weigh(statistics, guard)[0]

    def weigh(self, statistics: Float64, guard: Float64 | float) -> tuple[Float64, Float64]:
        """Return aspects (n, 4), and (n,) how sudden the change is.

        Aspects are deviation, shape, range and contradiction; the shape is NaN where it cannot be judged. Suddenness is
        the mean of the logarithms of the residual distances of the shortest spans over their 0.99 quantiles.

        Args:
            statistics: (n, 2S + 5).
            guard: (n,) from `guard`.
        """
        ratios = statistics * self._per_normaliser
        logs = np.maximum(ratios[:, :-1], LEAST_RATIO)
        np.log(logs, out=logs)
        aspects = np.empty((len(ratios), ASPECTS))
        aspects[:, 0] = self.model.fusion.fuse_logs(logs, self._column_weights)
        aspects[:, 1], aspects[:, 2] = ratios[:, -1], guard
        aspects[:, 3] = ratios[:, 2 * len(self.model.spans)]
        return aspects, logs @ self._sudden_weights

    def fuse(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return the fused statistic (n,) of deviation and shape, and of either alone where the other is unknown.

        Args:
            aspects: (n, 4).
            normaliser: (n, 4) or (4,) what is usual of late.
        """
        if not len(self.model.shapes.sensors):
            return np.maximum(aspects[:, 0] / normaliser[..., 0], LEAST_RATIO)
        ratio = np.maximum(aspects[:, :2] / normaliser[..., :2], LEAST_RATIO)
        weight = np.where(np.isnan(ratio), 0.0, self._aspect_weights)
        log = np.log(np.where(weight > 0.0, ratio, 1.0))
        return np.asarray(np.exp((log * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)))

    def news(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return (n,) how many margins farther beyond the range than of late; 1 is news."""
        return np.asarray(np.maximum(aspects[:, 2] - normaliser[..., 2], 0.0))

    def judged(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return (n,) the fused statistic, or what the contradiction is worth beside it where that is more.

        Args:
            aspects: (n, 4).
            normaliser: (n, 4) or (4,) what is usual of late.
        """
        fused = self.fuse(aspects, normaliser)
        if self._contradiction is None:
            return fused
        ratio = aspects[:, 3] / normaliser[..., 3]
        ratio *= self.model.contradiction.balance
        return np.maximum(fused, ratio, out=ratio)

    def guard(self, state: Averages, guarded: Bool) -> Float64:
        """Return (n,) the largest smoothed range excess of the `guarded` (F,) sensors.

        1 is one margin outside of what was seen. Without the guard all are 0.
        """
        excess = state.excess[:, 0]
        if not (self.model.fusion.range_guard and np.count_nonzero(excess)):
            return np.zeros(len(excess))
        return np.asarray(np.where(guarded, excess, 0.0).max(axis=1))

    def shares(self, state: Averages, present: Bool | None) -> Float64:
        """Return (n, F) how much each sensor contributes, of those that are `present` (n, F); rows sum to 1."""
        total = np.zeros((len(state.heard), len(self.model.judged)))
        for weight, space, average in (
            (self.model.fusion.weight("residual"), self._residual, state.residual),
            (self.model.fusion.weight("level"), self._level, state.level),
        ):
            parts = np.maximum(space.contributions(average[:, :-1] / self._deviation, present), 0.0)
            total += weight * (parts / np.maximum(parts.sum(axis=2, keepdims=True), 1e-12)).mean(axis=1)
        excess = state.excess[:, 0]
        total += np.where(excess.max(axis=1, keepdims=True) >= 1.0, 4.0 * excess / _excess_sum(excess), 0.0)
        if self._contradiction is not None:
            ratio = np.square(self._contradiction.ratios(state.residual[:, -1], present))
            total += np.where(ratio.max(axis=1, keepdims=True) >= 1.0, 4.0 * ratio / _excess_sum(ratio), 0.0)
        return np.asarray(total / np.maximum(total.sum(axis=1, keepdims=True), 1e-12))

    def whitened(self, state: Averages, place: int) -> tuple[Float64, Float64]:
        """Return levels and residuals (n, F) over the span at `place`, with what normally moves together taken out.

        Levels of machines move slowly and are in their own standard deviations; residuals are nearly white, and are in
        those of their averages.
        """
        spread = self._deviation[0, place, 0]
        level = np.where(self.model.judged, state.level[:, place], 0.0)
        residual = np.where(self.model.judged, state.residual[:, place] / spread, 0.0)
        return np.asarray(level @ self._level.whitening), np.asarray(residual @ self._residual.whitening)

    def unheard(
        self, bias: Float64, offset: Float64, level: Float32, pending: Float32, present: Bool
    ) -> Float64:
        """Return (B, F) what sensors of which nothing is heard most likely read, scaled units, within the range seen.

        The forecast, moved by what the others' residuals say of its own: the update of a Kalman filter, whose gain is
        that of the residuals' correlation (Kalman 1960). A forecast that is never held against a reading wanders off
        in the end: each sample it is drawn a little towards what the others' levels say.

        Args:
            bias: (B, 1, F) of the assets.
            offset: (B, 1, F) of the assets.
            level: (B, F) scaled units; what stands in a missing cell is not used.
            pending: (B, F) what was forecast of it, scaled units.
            present: (B, F) which cells count.
        """
        model = self.model
        missed = np.where(present, level - pending, 0.0)[:, None]
        known = np.where(present, level, 0.0)[:, None]
        u = self.averages.standardised_residual(missed, offset)
        v = self.averages.standardised_level(known, bias)
        surprise = (self._residual.expected(u, present) + offset)[:, 0] * model.residual_scale
        told = (self._level.expected(v, present) + bias)[:, 0] * model.level_scale + model.level_centre
        expected = pending + surprise + model.residual_centre
        return np.clip(expected + ANCHOR * (told - expected), model.low, model.high)

    def expected_level(self, state: Averages) -> Float64:
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
    """Return (n, 1) the sum of what sensors exceed, never zero."""
    return np.asarray(np.maximum(excess.sum(axis=1, keepdims=True), 1e-12))
