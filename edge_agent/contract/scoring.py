"""Residuals and levels become statistics, one fused statistic, a score, and each sensor's share of it.

Sources: residual and level vectors as Mahalanobis distances over several EWMA spans, the novelty of the state
[level, residual], and that of the shape of the last readings. Each is divided by its own 0.99 quantile on normal
history that nothing was fitted on. They make up three aspects, each held against what is usual of late (`trailing`):
the deviation, which `fusion` fuses of residual, level and novelty; the shape; and the range guard.
"""

from dataclasses import dataclass, field, fields, replace

import numpy as np

from edge_agent.contract.ewma import deviation, follow, smoothing
from edge_agent.contract.fusion import LEAST_RATIO, Fusion
from edge_agent.contract.mahalanobis import BOUND, Mahalanobis, bounded, shrunk_correlation
from edge_agent.contract.novelty import find_centres, nearest_centre_distance
from edge_agent.contract.range_guard import GUARD_SPAN, range_excess, range_margin
from edge_agent.contract.shape_novelty import WINDOW, ShapeModel, fit_shapes, shape_statistic
from edge_agent.contract.types import Bool, Float32, Float64, Int64
from edge_agent.contract.variance import SPANS as VARIANCE_SPANS
from edge_agent.contract.variance import VarianceModel, fit_variance, follow_squares, variance_statistic

SPANS = (1, 5, 15, 60)
NOVELTY_SPAN = 5
FADING = 0.97
"""What is left each sample of the excess of a silent sensor: no alarm may last for ever."""
BIAS_SPANS = 10
"""The bias follows levels ten times slower than the longest span looks at them: a fault outruns it."""
BIAS_BOUND = 3.0
"""Standard deviations that a slow drift of normal operation may take away; what drifts farther is news."""
SUDDEN_SPAN = 5
ASPECTS = 3
"""Deviation, shape, range."""
NOTHING_USUAL: Float64 = np.array([1.0, 1.0, 0.0])
"""What is usual where nothing adapts: the 0.99 quantiles, and no excursion beyond the range."""
LEAST_DEVIATION = 0.3
"""Of the 0.99 quantile: what is usual of late is never smaller, however quiet the machine became."""
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
        variance: of the residuals.
        normalisers: (2S + 4,) 0.99 quantiles; ones before calibration.
        shapes: of normal operation.
        recent: (R, 3) block maxima of the aspects at the end of the history, see `trailing`.
        fusion: how the statistics become one.
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
    variance: VarianceModel
    normalisers: Float64
    shapes: ShapeModel = field(default_factory=ShapeModel.none)
    recent: Float32 = field(default_factory=lambda: NOTHING_USUAL[None].astype(np.float32))
    fusion: Fusion = field(default_factory=Fusion)

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the source of each statistic, in the order of `Scorer.statistics`."""
        spans = len(self.spans)
        return (*("residual",) * spans, *("level",) * spans, *("variance",) * 2, "novelty", "shape")

    @property
    def least(self) -> Float64:
        """Return (3,) how small what is usual of late may become, of each aspect."""
        return np.array([LEAST_DEVIATION, self.shapes.least, 0.0])

    def normalised(self, normalisers: Float64) -> "ScoringModel":
        """Return the model with each statistic's own 0.99 quantile."""
        return replace(self, normalisers=normalisers)


def fit_scoring(
    residual: Float64,
    level: Float64,
    judged: Bool,
    low: Float64,
    high: Float64,
    spans: tuple[int, ...],
    fusion: Fusion | None = None,
    run: Int64 | None = None,
    adapts: bool = False,
) -> ScoringModel:
    """Learn from residuals and levels (n, F) of normal data, NaN where a cell does not count.

    `run` (n,) is the same number for rows that follow each other without a break; None is no break at all. `adapts`
    says whether what is usual follows recent rows, see `fit_shapes`.
    """
    run = np.zeros(len(level), np.int64) if run is None else run
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
        VarianceModel.unknown(width),
        np.ones(2 * len(spans) + 4),
        fusion=fusion or Fusion(),
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
        variance=fit_variance(
            np.where(present, u, 0.0), present, tuple(min(span, max(spans)) for span in VARIANCE_SPANS)
        ),
        centres=find_centres(states[min(4 * NOVELTY_SPAN, len(states) - 1) :]),
        shapes=fit_shapes(level, run, judged, adapts) if model.fusion.weight("shape") else ShapeModel.none(),
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
        window: (A, W, M) the last readings of the sensors whose shape is judged, scaled units, the newest last.
        heard: (A,) samples in `window`, at most W.
        square: (A, 2, F) mean squares of the residuals.
        offset: (A, 1, F) residuals that were accepted as normal, standard deviations.
    """

    residual: Float64
    level: Float64
    excess: Float64
    bias: Float64
    window: Float32
    heard: Int64
    square: Float64
    offset: Float64

    @staticmethod
    def zero(assets: int, model: ScoringModel) -> "ScoringState":
        """Return the state of assets that have seen nothing."""
        sensors = len(model.judged)
        shape = (assets, len(model.spans) + 1, sensors)
        single = (assets, 1, sensors)
        window = np.zeros((assets, WINDOW, len(model.shapes.sensors)), np.float32)
        return ScoringState(
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(single),
            np.zeros(single),
            window,
            np.zeros(assets, np.int64),
            np.ones((assets, 2, sensors)),
            np.zeros(single),
        )

    def forget(self, rows: Int64, model: ScoringModel) -> None:
        """Let the averages of some rows begin anew; what is known of their baseline stays."""
        baseline = self.bias[rows], self.offset[rows]
        self.put(rows, ScoringState.zero(len(rows), model))
        self.bias[rows], self.offset[rows] = baseline

    def take(self, rows: Int64) -> "ScoringState":
        """Return a copy of some rows."""
        return ScoringState(*(getattr(self, item.name)[rows] for item in fields(self)))

    def put(self, rows: Int64, values: "ScoringState") -> None:
        """Write rows back."""
        for item in fields(self):
            getattr(self, item.name)[rows] = getattr(values, item.name)

    @staticmethod
    def concatenate(parts: "list[ScoringState]") -> "ScoringState":
        """Return the rows of all parts, in order."""
        names = [item.name for item in fields(ScoringState)]
        return ScoringState(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


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
        self._aspect_weights = model.fusion.aspect_weights

    def follow(self, state: ScoringState, residual: Float64, level: Float64, present: Bool) -> ScoringState:
        """Return the averages after one more sample of each asset; arrays are (B, F) in scaled units."""
        model = self.model
        judged = present & model.judged
        u = bounded((residual - model.residual_centre) / model.residual_scale - state.offset[:, 0])
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
            self._next_window(state.window, level, present),
            np.minimum(state.heard + 1, WINDOW),
            follow_squares(state.square, u, judged, model.variance.spans),
            state.offset,
        )

    def _next_window(self, window: Float32, level: Float64, present: Bool) -> Float32:
        """Return the windows one sample later; a missing reading repeats the one before it."""
        sensors = self.model.shapes.sensors
        if not len(sensors):
            return window
        newest = np.where(present[:, sensors], level[:, sensors], window[:, -1]).astype(np.float32)
        return np.concatenate([window[:, 1:], newest[:, None]], axis=1)

    def accept(self, state: ScoringState) -> ScoringState:
        """Return the averages with the present smoothed level and residual as the baseline, however far they lie.

        The bias, which `follow` takes from every level, becomes the level over a span of about 15 samples: longer
        ones remember the time before, shorter ones take noise for the level. The forecaster does not know the new
        level and may err in the same way for good: so for the residuals, too. The averages start from zero.
        """
        chosen = max(place for place, span in enumerate(self.model.spans) if span <= BASELINE_SPAN)
        fresh = ScoringState.zero(len(state.bias), self.model)
        fresh.bias = np.asarray(state.bias + _unbounded(state.level[:, chosen, None]))
        fresh.offset = np.asarray(state.offset + _unbounded(state.residual[:, chosen, None]))
        return fresh

    def statistics(self, state: ScoringState, present: Bool) -> Float64:
        """Return (n, 2S + 4): residual distance a span, level distance a span, variance, novelty of state, of shape.

        The last is NaN where no window can be judged: there is no sensor for it, or it is not full yet.
        """
        judged = present & self.model.judged
        residual = self._residual.distance(state.residual[:, :-1] / self._deviation, judged)
        level = self._level.distance(state.level[:, :-1] / self._deviation, judged)
        vector = np.concatenate([state.level[:, -1], state.residual[:, -1]], axis=1)
        novelty = nearest_centre_distance(
            vector, self.model.centres, np.concatenate([judged, judged], axis=1)
        )
        variance = variance_statistic(self.model.variance, state.square, judged)
        shape = self._shape(state, judged)
        return np.concatenate([residual, level, variance, novelty[:, None], shape[:, None]], axis=1)

    def _shape(self, state: ScoringState, judged: Bool) -> Float64:
        shapes = self.model.shapes
        found = np.full(len(judged), np.nan)
        full = state.heard >= WINDOW
        if len(shapes.sensors) and full.any():
            found[full] = shape_statistic(shapes, state.window[full], judged[np.ix_(full, shapes.sensors)])
        return found

    def aspects(self, statistics: Float64, guard: Float64) -> Float64:
        """Return (n, 3) deviation, shape and range; the shape is NaN where it cannot be judged.

        Args:
            statistics: (n, 2S + 4).
            guard: (n,) from `guard`.
        """
        ratios = statistics / self.model.normalisers
        deviation = self.model.fusion.fuse(ratios[:, :-1], self.model.sources[:-1])
        return np.stack([deviation, ratios[:, -1], guard], axis=1)

    def sudden(self, statistics: Float64) -> Float64:
        """Return (n,) the log-mean of the residual distances of the shortest spans over their 0.99 quantiles."""
        short = [place for place, span in enumerate(self.model.spans) if span <= SUDDEN_SPAN]
        ratios = statistics[:, short] / self.model.normalisers[short]
        return np.asarray(np.exp(np.log(np.maximum(ratios, LEAST_RATIO)).mean(axis=1)))

    def fuse(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return the fused statistic (n,) of deviation and shape, and of either alone where the other is unknown.

        Args:
            aspects: (n, 3).
            normaliser: (n, 3) or (3,) what is usual of late.
        """
        ratio = np.maximum(aspects[:, :2] / normaliser[..., :2], LEAST_RATIO)
        weight = np.where(np.isnan(ratio), 0.0, self._aspect_weights)
        log = np.log(np.where(weight > 0.0, ratio, 1.0))
        return np.asarray(np.exp((log * weight).sum(axis=1) / np.maximum(weight.sum(axis=1), 1e-12)))

    def news(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return (n,) how many margins farther beyond the range than of late; 1 is news."""
        return np.asarray(np.maximum(aspects[:, 2] - normaliser[..., 2], 0.0))

    def guard(self, state: ScoringState, guarded: Bool) -> Float64:
        """Return (n,) the largest smoothed range excess of the `guarded` (F,) sensors.

        1 is one margin outside of what was seen. Without the guard all are 0.
        """
        guarded = guarded & self.model.fusion.range_guard
        return np.asarray(np.where(guarded, state.excess[:, 0], 0.0).max(axis=1))

    def shares(self, state: ScoringState, present: Bool) -> Float64:
        """Return (n, F) how much each sensor contributes; rows sum to 1."""
        judged = present & self.model.judged
        total = np.zeros(present.shape)
        for weight, space, average in (
            (self.model.fusion.weight("residual"), self._residual, state.residual),
            (self.model.fusion.weight("level"), self._level, state.level),
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


def _unbounded(average: Float64) -> Float64:
    """Return the deviation of which `bounded` made this average."""
    return np.asarray(BOUND * np.arctanh(np.clip(average / BOUND, -FARTHEST, FARTHEST)))
