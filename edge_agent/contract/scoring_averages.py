"""Residuals and levels become the averages that a machine is judged by, and slowly move what they are held against.

Bias and offset, how far levels and forecasts have slowly drifted, learn once in `BIAS_TICKS` ticks.
"""

from itertools import pairwise

import numpy as np

from edge_agent.contract.ewma import Smoother, deviation, smoothing
from edge_agent.contract.mahalanobis import BOUND
from edge_agent.contract.range_guard import GUARD_SPAN, range_excess, range_margin
from edge_agent.contract.scoring_model import NOVELTY_SPAN, ScoringModel
from edge_agent.contract.scoring_state import Averages, ScoringState
from edge_agent.contract.shape_novelty import WINDOW
from edge_agent.contract.types import Bool, Float32, Float64, Int64

FADING = 0.97
"""What is left each sample of the excess of a silent sensor: no alarm may last for ever."""
BIAS_SPANS = 10
"""The bias follows levels ten times slower than the longest span looks at them: a fault outruns it."""
BIAS_TICKS = 60
"""The bias stands still for so many ticks of the grid, and then learns of all of them: what is looked at in between
does not depend on itself, so that many ticks are one computation."""
BIAS_BOUND = 3.0
"""Standard deviations that a slow drift of normal operation may take away; what drifts farther is news."""
BIAS_GATE = 2.0
"""A sensor whose smoothed level is farther away than this is not learnt from: nothing is learnt inside an alarm."""
OFFSET_GATE = 3.0
"""Deviations of the longest average of a residual, the usual limit of an EWMA chart, up to which its forecast is soon
corrected. Forecasts of a machine whose sensors wander are a little off for good, which is what long averages of
residuals see best: without a correction its normal operation hides ten times larger faults (docs/decisions/0014)."""
OFFSET_PACE = 0.1
"""Of the usual pace beyond that: a fault of hours is hardly learnt, and an asset that begins far off soon is not."""
BASELINE_SPAN = 15
"""The longest span that an accepted baseline is taken from."""
FARTHEST = 1.0 - 1e-6
"""Of the bound of a contribution: where it is reached, how far the level really lies is not known."""


class ScoreAverages:
    """Samples in, averages out; holds no state of assets itself.

    Args:
        model: what was learnt from normal data.
    """

    def __init__(self, model: ScoringModel) -> None:
        self.model = model
        # Sensors wander apart from each other: one that is forecast from itself alone is followed by its forecast.
        learns = np.array([[1.0], [np.count_nonzero(model.judged) > 1]])
        self._bias_gain = _bias_gain(max(model.spans)) * learns
        self._offset_gate = OFFSET_GATE * float(deviation([max(model.spans)])[0])
        self._margin = range_margin(model.low, model.high)
        self._all_judged = bool(model.judged.all())
        self._low, self._high = model.low.astype(np.float32), model.high.astype(np.float32)
        self._averages = Smoother((*model.spans, NOVELTY_SPAN))
        self._guard_average = Smoother([GUARD_SPAN])
        self._squares = Smoother(model.variance.spans)
        self._residual_rate = (1.0 / (BOUND * model.residual_scale)).astype(np.float32)
        self._residual_shift = model.residual_centre * self._residual_rate
        self._level_rate = (1.0 / (BOUND * model.level_scale)).astype(np.float32)
        self._level_shift = model.level_centre * self._level_rate

    def standardised_residual(self, residual: Float32 | Float64, offset: Float64) -> Float64:
        """Return `bounded` residuals (B, L, F) in standard deviations, less offsets (B, 1, F)."""
        return _standardised(residual, self._residual_rate, self._residual_shift + offset / BOUND)

    def standardised_level(self, level: Float32 | Float64, bias: Float64) -> Float64:
        """Return `bounded` levels (B, L, F) in standard deviations, less biases (B, 1, F)."""
        return _standardised(level, self._level_rate, self._level_shift + bias / BOUND)

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
        found = self._room(state, level, present)
        for first, end in self._stretches(state, stretch):
            self._learn(state, stretch[:, first])
            part = slice(first, end)
            seen = None if present is None else present[:, part]
            self._follow_stretch(state, residual[:, part], level[:, part], seen, taught, found, part)
        last = slice(tick.shape[1] - 1, None, tick.shape[1])
        state.window[...], state.heard[...] = found.window[last], found.heard[last]
        return found

    def _room(self, state: ScoringState, level: Float32 | Float64, present: Bool | None) -> Averages:
        """Return room for the averages of all samples (B, L, F), with the windows and counts of readings in it."""
        count, ticks, width = level.shape
        spans, rows = len(self.model.spans) + 1, count * ticks
        heard = state.heard[:, None] + np.arange(1, ticks + 1)
        np.minimum(heard, WINDOW, out=heard)
        return Averages(
            np.empty((rows, spans, width)),
            np.empty((rows, spans, width)),
            np.empty((rows, 1, width)),
            np.empty((rows, 1, width)),
            self._windows(state.window, level, present),
            heard.reshape(-1),
            np.empty((rows, len(self.model.variance.spans), width)),
        )

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
        found: Averages,
        part: slice,
    ) -> None:
        """Take the samples of a `part` of the columns, in which nothing is learnt, and fill in what is `found`."""
        if present is not None:
            # What stands in a missing cell may be no number, which not even a weight of zero takes away.
            residual, level = np.where(present, residual, 0.0), np.where(present, level, 0.0)
        u = self.standardised_residual(residual, state.offset)
        v = self.standardised_level(level, state.bias)
        if not self._all_judged:
            u *= self.model.judged
            v *= self.model.judged
        count = len(level)
        smoothed = self._averages.follow(state.level, v, present, _columns(found.level, count, part))
        missed = self._averages.follow(state.residual, u, present, _columns(found.residual, count, part))
        self._remember_lessons(state, u, v, missed, smoothed, present, taught)
        excess = _columns(found.excess, count, part)
        excess[...] = self._excess(state, level, present)
        _columns(found.bias, count, part)[...] = state.bias[:, None]
        np.multiply(u, u, out=u)
        square = self._squares.follow(state.square, u, present, _columns(found.square, count, part))
        state.level[...], state.residual[...] = smoothed[:, -1], missed[:, -1]
        state.excess[...], state.square[...] = excess[:, -1], square[:, -1]

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


def _columns(rows: Float64, assets: int, part: slice) -> Float64:
    """Return a part of the columns (B, L, …) of what lies asset by asset, (B x L, …)."""
    return rows.reshape(assets, -1, *rows.shape[1:])[:, part]


def _unbounded(average: Float64) -> Float64:
    """Return the deviation of which `bounded` made this average."""
    return np.asarray(BOUND * np.arctanh(np.clip(average / BOUND, -FARTHEST, FARTHEST)))
