"""Residuals and levels become statistics, one fused statistic, a score, and each sensor's share of it.

Sources: residual and level vectors as Mahalanobis distances over several EWMA spans, the novelty of the state
[level, residual], and that of the shape of the last readings. Each is divided by its own 0.99 quantile on normal
history that nothing was fitted on. They make up three aspects, each held against what is usual of late (`trailing`):
the deviation, which `fusion` fuses of residual, level and novelty; the shape; and the range guard.
"""

from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np

from edge_agent.contract.ewma import Smoother, deviation, smoothing
from edge_agent.contract.fusion import LEAST_RATIO, Fusion
from edge_agent.contract.grid import UNSET
from edge_agent.contract.mahalanobis import BOUND, Mahalanobis, bounded, shrunk_correlation
from edge_agent.contract.novelty import NearestCentre, find_centres
from edge_agent.contract.range_guard import GUARD_SPAN, range_excess, range_margin
from edge_agent.contract.shape_novelty import WINDOW, ShapeModel, fit_shapes, shape_statistic
from edge_agent.contract.types import Bool, Float32, Float64, Int64, Places
from edge_agent.contract.variance import SPANS as VARIANCE_SPANS
from edge_agent.contract.variance import VarianceModel, fit_variance, variance_statistic

SPANS = (1, 5, 15, 60)
NOVELTY_SPAN = 5
FADING = 0.97
"""What is left each sample of the excess of a silent sensor: no alarm may last for ever."""
BIAS_SPANS = 10
"""The bias follows levels ten times slower than the longest span looks at them: a fault outruns it."""
BIAS_TICKS = 60
"""The bias stands still for so many ticks of the grid, and then learns of all of them: what is looked at in between
does not depend on itself, so that many ticks are one computation."""
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
OFFSET_GATE = 3.0
"""Deviations of the longest average of a residual, the usual limit of an EWMA chart, up to which its forecast is soon
corrected. Forecasts of a machine whose sensors wander are a little off for good, which is what long averages of
residuals see best: without a correction its normal operation hides ten times larger faults (docs/decisions/0014)."""
OFFSET_PACE = 0.1
"""Of the usual pace beyond that: a fault of hours is hardly learnt, and an asset that begins far off soon is not."""
ANCHOR = 0.01
"""Of what the others' levels say of a dead sensor, each sample: soon enough for what runs away, and slow beside the
residuals, which say far more of each other than levels do (docs/decisions/0020)."""
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
    moved, known = np.where(np.c_[present, present], np.c_[v, u], 0.0), np.c_[present, present]
    states = Smoother([NOVELTY_SPAN]).follow(np.zeros((1, 1, 2 * width)), moved[None], known[None])[0, :, 0]
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
class Averages:
    """What n samples are judged by: the averages with each of them in it, one row per sample.

    Attributes:
        residual, level: (n, S + 1, F); the last span is the novelty's.
        excess: (n, 1, F) smoothed range excess.
        bias: (n, 1, F) how far the levels have slowly drifted from those of training, standard deviations.
        window: (n, W, M) the last readings of the sensors whose shape is judged, scaled units, the newest last.
        heard: (n,) samples in `window`, at most W.
        square: (n, 2, F) mean squares of the residuals.
    """

    residual: Float64
    level: Float64
    excess: Float64
    bias: Float64
    window: Float32
    heard: Int64
    square: Float64

    def take(self, rows: Places) -> Self:
        """Return some rows; those of a slice are no copy."""
        return type(self)(*(getattr(self, item.name)[rows] for item in fields(self)))


@dataclass
class ScoringState(Averages):
    """Averages of all assets, one row per asset.

    Attributes:
        offset: (A, 1, F) how far the forecasts have slowly come off, or were accepted to be, standard deviations.
        lesson: (A, 2, F) sums of the levels that the bias, and of the residuals that the offset is still to learn of.
        stretch: (A,) which `BIAS_TICKS` ticks of the grid they are of, `UNSET` before the first.
    """

    offset: Float64
    lesson: Float64
    stretch: Int64

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
            np.zeros((assets, 2, sensors)),
            np.full(assets, UNSET),
        )

    def forget(self, rows: Int64, model: ScoringModel) -> None:
        """Let the averages of some rows begin anew; what is known of their baseline stays."""
        fresh, kept = ScoringState.zero(len(rows), model), self.take(rows)
        for name in ("bias", "offset", "lesson", "stretch"):
            setattr(fresh, name, getattr(kept, name))
        self.put(rows, fresh)

    def put(self, rows: Places, values: "ScoringState") -> None:
        """Write rows back."""
        for item in fields(self):
            getattr(self, item.name)[rows] = getattr(values, item.name)


class Scorer:
    """Residuals and levels in, fused statistic out; holds no state of assets itself.

    Args:
        model: what was learnt from normal data.
    """

    def __init__(self, model: ScoringModel) -> None:
        self.model = model
        self._deviation = deviation(model.spans)[None, :, None]
        self._per_deviation = 1.0 / deviation(model.spans)
        # Sensors wander apart from each other: one that is forecast from itself alone is followed by its forecast.
        learns = np.array([[1.0], [np.count_nonzero(model.judged) > 1]])
        self._bias_gain = _bias_gain(max(model.spans)) * learns
        self._offset_gate = OFFSET_GATE * float(deviation([max(model.spans)])[0])
        self._margin = range_margin(model.low, model.high)
        self._residual = Mahalanobis(model.residual_correlation, model.judged)
        self._level = Mahalanobis(model.level_correlation, model.judged)
        self._aspect_weights = model.fusion.aspect_weights
        self._all_judged = bool(model.judged.all())
        self._novelty = NearestCentre(model.centres, np.r_[model.judged, model.judged])
        self._low, self._high = model.low.astype(np.float32), model.high.astype(np.float32)
        self._averages = Smoother((*model.spans, NOVELTY_SPAN))
        self._guard_average = Smoother([GUARD_SPAN])
        self._squares = Smoother(model.variance.spans)
        self._residual_rate = (1.0 / (BOUND * model.residual_scale)).astype(np.float32)
        self._residual_shift = model.residual_centre * self._residual_rate
        self._level_rate = (1.0 / (BOUND * model.level_scale)).astype(np.float32)
        self._level_shift = model.level_centre * self._level_rate
        self._per_normaliser = 1.0 / model.normalisers
        self._column_weights = model.fusion.column_weights(model.sources[:-1])
        short = np.array([span <= SUDDEN_SPAN for span in model.spans])
        self._sudden_weights = np.r_[short / short.sum(), np.zeros(len(model.sources) - 1 - len(short))]

    def follow(
        self,
        state: ScoringState,
        residual: Float32 | Float64,
        level: Float32 | Float64,
        present: Bool | None,
        tick: Int64,
        taught: Bool | None = None,
    ) -> Averages:
        """Take L more samples of each of B assets, and return the averages of all, B x L rows asset by asset.

        Args:
            state: of the assets, B rows, changed in place.
            residual: (B, L, F) scaled units.
            level: (B, L, F) scaled units.
            present: (B, L, F) which cells count; None is all.
            tick: (B, L).
            taught: (B,) whose levels teach the bias, and whose residuals the offset; None is all.
        """
        stretch = tick // BIAS_TICKS
        parts = []
        for first, end in self._stretches(state, stretch):
            self._learn(state, stretch[:, first])
            part = slice(first, end)
            seen = None if present is None else present[:, part]
            parts.append(self._follow_stretch(state, residual[:, part], level[:, part], seen, taught))
        return _side_by_side(parts, len(tick))

    def _stretches(self, state: ScoringState, stretch: Int64) -> list[tuple[int, int]]:
        """Return first and end of the parts of L columns (B, L) in which no asset learns but before the first."""
        ticks = stretch.shape[1]
        if ticks == 1:
            return [(0, 1)]
        cuts = np.flatnonzero((stretch[:, 1:] != stretch[:, :-1]).any(axis=0)) + 1
        return list(pairwise((0, *cuts.tolist(), ticks)))

    def learnt(self, stretch: Int64, tick: Int64) -> Bool:
        """Return (B, L) with which samples bias and offset learn: the first of each stretch.

        Args:
            stretch: (B,) of the samples before.
            tick: (B, L).
        """
        stretches = np.concatenate([stretch[:, None], tick // BIAS_TICKS], axis=1)
        return np.asarray(stretches[:, 1:] != stretches[:, :-1])

    def _learn(self, state: ScoringState, stretch: Int64) -> None:
        """Let bias and offset of assets (B,) learn of the stretch that is over."""
        over = stretch != state.stretch
        if not np.count_nonzero(over):
            return
        lesson = self._bias_gain * state.lesson[over]
        state.bias[over] = _moved(state.bias[over], lesson[:, :1])
        state.offset[over] = _moved(state.offset[over], lesson[:, 1:])
        state.lesson[over] = 0.0
        state.stretch[over] = stretch[over]

    def _follow_stretch(
        self,
        state: ScoringState,
        residual: Float32 | Float64,
        level: Float32 | Float64,
        present: Bool | None,
        taught: Bool | None,
    ) -> Averages:
        model = self.model
        if present is not None:
            # What stands in a missing cell may be no number, which not even a weight of zero takes away.
            residual, level = np.where(present, residual, 0.0), np.where(present, level, 0.0)
        u = _standardised(residual, self._residual_rate, self._residual_shift + state.offset / BOUND)
        v = _standardised(level, self._level_rate, self._level_shift + state.bias / BOUND)
        if not self._all_judged:
            u *= model.judged
            v *= model.judged
        averages, squares = self._averages, self._squares
        before = state.window
        ticks = level.shape[1]
        smoothed = averages.follow(state.level, v, present)
        missed = averages.follow(state.residual, u, present)
        self._remember_lessons(state, u, v, missed, smoothed, present, taught)
        heard = state.heard[:, None] + np.arange(1, ticks + 1)
        np.minimum(heard, WINDOW, out=heard)
        found = Averages(
            _rows(missed),
            _rows(smoothed),
            _rows(self._excess(state, level, present)),
            state.bias.copy() if ticks == 1 else np.repeat(state.bias, ticks, axis=0),
            self._windows(before, level, present),
            heard.reshape(-1),
            _rows(squares.follow(state.square, u * u, present)),
        )
        last = slice(ticks - 1, None, ticks)
        for name in ("residual", "level", "excess", "window", "heard", "square"):
            array = getattr(found, name)
            getattr(state, name)[...] = array if ticks == 1 else array[last]
        return found

    def _remember_lessons(
        self,
        state: ScoringState,
        u: Float64,
        v: Float64,
        missed: Float64,
        smoothed: Float64,
        present: Bool | None,
        taught: Bool | None,
    ) -> None:
        """Add up what bias and offset are to learn of levels `v` and residuals `u` (B, L, F) with these averages."""
        longest = len(self.model.spans) - 1
        calm: Bool = np.abs(smoothed[:, :, longest]) < BIAS_GATE
        if present is not None:
            calm &= present
        if taught is not None:
            calm &= taught[:, None, None]
        away = np.abs(missed[:, :, longest])
        pace = np.where(away < self._offset_gate, 1.0, OFFSET_PACE)
        pace *= calm & (away < BIAS_GATE)
        for place, lesson in enumerate((v * calm, u * pace)):
            state.lesson[:, place] += lesson[:, 0] if lesson.shape[1] == 1 else lesson.sum(axis=1)

    def _excess(self, state: ScoringState, level: Float32 | Float64, present: Bool | None) -> Float64:
        """Return (B, L, 1, F) the smoothed range excess; that of a silent sensor fades."""
        model = self.model
        if np.count_nonzero(np.abs(state.bias) > BIAS_BOUND):
            # A baseline that was accepted lies beyond the bound of slow drift, and shifts the range that was seen too.
            accepted = state.bias - np.clip(state.bias, -BIAS_BOUND, BIAS_BOUND)
            level = level - accepted * model.level_scale
        left = (level < self._low) | (level > self._high)
        if not (np.count_nonzero(left) or np.count_nonzero(state.excess)):
            return np.zeros((*level.shape[:2], 1, level.shape[2]))
        outside = range_excess(level, model.low, model.high, self._margin)
        if present is None or present.all():
            return self._guard_average.follow(state.excess, outside)
        found, excess = np.empty((*level.shape[:2], 1, level.shape[2])), state.excess
        for at in range(level.shape[1]):
            one = slice(at, at + 1)
            seen = present[:, one]
            excess = np.where(
                seen, self._guard_average.follow(excess, outside[:, one])[:, 0], FADING * excess
            )
            found[:, at] = excess
        return found

    def _windows(self, window: Float32, level: Float32 | Float64, present: Bool | None) -> Float32:
        """Return the windows (B x L, W, M) with each sample in them; a missing reading repeats the one before it."""
        sensors = self.model.shapes.sensors
        count, ticks, _ = level.shape
        if not len(sensors):
            return np.empty((count * ticks, WINDOW, 0), np.float32)
        readings = np.concatenate([window, level[:, :, sensors].astype(np.float32)], axis=1)
        if present is not None:
            seen = np.ones(readings.shape, np.bool_)
            seen[:, WINDOW:] = present[:, :, sensors]
            place = np.where(seen, np.arange(readings.shape[1])[:, None], 0)
            readings = np.take_along_axis(readings, np.maximum.accumulate(place, axis=1), axis=1)
        if ticks == 1:
            return readings[:, 1:]
        every = np.lib.stride_tricks.sliding_window_view(readings[:, 1:], WINDOW, axis=1)
        return every.transpose(0, 1, 3, 2).reshape(count * ticks, WINDOW, len(sensors))

    def accept(self, state: ScoringState) -> ScoringState:
        """Return the averages with the present smoothed level and residual as the baseline, however far they lie.

        The bias, which `follow` takes from every level, becomes the level over a span of about 15 samples: longer
        ones remember the time before, shorter ones take noise for the level. The forecaster does not know the new
        level and may err in the same way for good: so for the residuals, too. The averages start from zero.
        """
        chosen = max(place for place, span in enumerate(self.model.spans) if span <= BASELINE_SPAN)
        fresh = ScoringState.zero(len(state.bias), self.model)
        fresh.stretch = state.stretch
        fresh.bias = np.asarray(state.bias + _unbounded(state.level[:, chosen, None]))
        fresh.offset = np.asarray(state.offset + _unbounded(state.residual[:, chosen, None]))
        return fresh

    def statistics(self, state: Averages, present: Bool | None) -> Float64:
        """Return (n, 2S + 4): residual distance a span, level distance a span, variance, novelty of state, of shape.

        The last is NaN where no window can be judged: there is no sensor for it, or it is not full yet.

        Args:
            state: n rows.
            present: (n, F) which cells count; None is all.
        """
        model, spans = self.model, len(self.model.spans)
        found = np.empty((len(state.heard), 2 * spans + 4))
        for at, space, average in ((0, self._residual, state.residual), (spans, self._level, state.level)):
            # All averages, though the last is not needed: to leave it out would be a copy.
            distance = space.distance(average, present)[:, :-1]
            np.multiply(distance, self._per_deviation, out=found[:, at : at + spans])
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
        """Return the aspects (n, 3) alone, see `weigh`."""
        return self.weigh(statistics, guard)[0]

    def weigh(self, statistics: Float64, guard: Float64 | float) -> tuple[Float64, Float64]:
        """Return aspects (n, 3), and (n,) how sudden the change is.

        Aspects are deviation, shape and range; the shape is NaN where it cannot be judged. Suddenness is the mean of
        the logarithms of the residual distances of the shortest spans over their 0.99 quantiles.

        Args:
            statistics: (n, 2S + 4).
            guard: (n,) from `guard`.
        """
        ratios = statistics * self._per_normaliser
        logs = np.maximum(ratios[:, :-1], LEAST_RATIO)
        np.log(logs, out=logs)
        aspects = np.empty((len(ratios), ASPECTS))
        aspects[:, 0] = self.model.fusion.fuse_logs(logs, self._column_weights)
        aspects[:, 1], aspects[:, 2] = ratios[:, -1], guard
        return aspects, logs @ self._sudden_weights

    def fuse(self, aspects: Float64, normaliser: Float64) -> Float64:
        """Return the fused statistic (n,) of deviation and shape, and of either alone where the other is unknown.

        Args:
            aspects: (n, 3).
            normaliser: (n, 3) or (3,) what is usual of late.
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
        u = _standardised(missed, self._residual_rate, self._residual_shift + offset / BOUND)
        v = _standardised(known, self._level_rate, self._level_shift + bias / BOUND)
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


def _standardised(values: Float32 | Float64, rate: Float32, shift: Float64) -> Float64:
    """Return `bounded` of values (B, L, F) in standard deviations from their centre, both given over the bound.

    In single precision, as the values come: its hyperbolic tangent is five times as quick.
    """
    found = np.multiply(values, rate, dtype=np.float32, casting="same_kind")
    np.subtract(found, shift, out=found, casting="same_kind")
    np.tanh(found, out=found)
    return np.multiply(found, BOUND, dtype=np.float64)


def _moved(before: Float64, lesson: Float64) -> Float64:
    """Return a bias or offset with what it has learnt, within its bounds, or no farther beyond them than before."""
    return np.clip(before + lesson, np.minimum(before, -BIAS_BOUND), np.maximum(before, BIAS_BOUND))


def _bias_gain(span: int) -> float:
    """Return what the bias takes of each level of a stretch: of a constant as much as it would sample by sample."""
    a = float(smoothing([BIAS_SPANS * span])[0])
    return float((1.0 - (1.0 - a) ** BIAS_TICKS) / BIAS_TICKS)


def _rows(ticks: Float64) -> Float64:
    """Return averages (B, L, S, F) as B x L rows."""
    return ticks.reshape(-1, *ticks.shape[2:])


def _side_by_side(parts: list[Averages], assets: int) -> Averages:
    """Return the averages of parts of the columns of B assets, in each asset's order."""
    if len(parts) == 1:
        return parts[0]

    def joined(name: str) -> Any:
        arrays = [getattr(part, name) for part in parts]
        wide = [array.reshape(assets, len(array) // assets, *array.shape[1:]) for array in arrays]
        whole = np.concatenate(wide, axis=1)
        return whole.reshape(assets * whole.shape[1], *whole.shape[2:])

    return Averages(*(joined(item.name) for item in fields(Averages)))


def _excess_sum(excess: Float64) -> Float64:
    """Return (n, 1) the sum of excesses, never zero."""
    return np.asarray(np.maximum(excess.sum(axis=1, keepdims=True), 1e-12))


def _unbounded(average: Float64) -> Float64:
    """Return the deviation of which `bounded` made this average."""
    return np.asarray(BOUND * np.arctanh(np.clip(average / BOUND, -FARTHEST, FARTHEST)))
