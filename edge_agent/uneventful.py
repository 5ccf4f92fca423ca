"""Stretches of samples in which nothing happens, judged at once instead of one after the other.

Nothing happens to an asset while no alarm of it opens, is told of or ends, no onset comes, no block of what is usual of
late is full, and no batch of drift ends. Up to the first sample at which one of that would be, all that the judge
keeps has a closed form: averages are a product with a matrix, counts a running sum. That sample itself is for
`Judge.judge_tick`, whose rules these are.
"""

from dataclasses import dataclass

import numpy as np

from edge_agent.contract.alarms import AlarmRules, Course, alarms_ahead
from edge_agent.contract.budget_controller import MOST, BudgetController
from edge_agent.contract.bundle import Bundle
from edge_agent.contract.drift import DriftWatch
from edge_agent.contract.onset import Contrasts, look_ahead
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.signature import directions, is_news
from edge_agent.contract.threshold import ONSET_RATIO
from edge_agent.contract.trailing import follow_blocks
from edge_agent.contract.types import Bool, Float64, Int64
from edge_agent.detector_state import DetectorState
from edge_agent.weighing import Weighed, Weigher


@dataclass(frozen=True, slots=True)
class Stretch:
    """Samples of some columns of a tile's assets, (B, L) each, if nothing happened to them.

    Attributes:
        places: (B,) of the assets in the tile.
        columns: of the tile.
        statistic, factor: see `Outcomes`.
        learn: which samples what is usual of late learns of.
        course, contrasts: of the alarms and onsets.
        clear: (B,) at how many of the first samples of each asset nothing happens.
    """

    places: Int64
    columns: slice
    statistic: Float64
    factor: Float64
    learn: Bool
    score: Float64
    course: Course
    contrasts: Contrasts
    clear: Int64


class Uneventful:
    """Looks how far nothing happens, and takes samples as far as that; holds no state of assets itself.

    Args:
        bundle: the model.
        scorer: of its scoring model.
        weigher: of its aspects.
        rules: of the alarms.
        controller: of the budget; None where nothing adapts the threshold.
        drift: None where the bundle does not know what is usual.
    """

    def __init__(
        self,
        bundle: Bundle,
        scorer: Scorer,
        weigher: Weigher,
        rules: AlarmRules,
        controller: BudgetController | None,
        drift: DriftWatch | None,
    ) -> None:
        self._manifest = bundle.manifest
        self._least = bundle.scoring.least
        self._scorer, self._weigher, self._rules = scorer, weigher, rules
        self._controller, self._drift = controller, drift
        self._clear = bundle.manifest.threshold.clear_value(weigher.adapts)

    def look_ahead(self, state: DetectorState, weighed: Weighed, places: Int64, columns: slice) -> Stretch:
        """Return what becomes of some assets' samples in some columns if nothing happens; the state stays as it is."""
        value, rows = self._manifest.threshold.value, weighed.asset[places]
        time = weighed.time[places, columns]
        aspects = weighed.aspects[places, columns]
        statistic = self._statistic(state, rows, aspects)
        held = None if weighed.tile.held is None else weighed.tile.held[places]
        heeded = statistic if held is None else np.where(held[:, None], 0.0, statistic)
        active = state.alarms.active[rows]
        factor = self._factors(state, rows, heeded, active)
        score = self._weigher.score(statistic, factor)
        course = alarms_ahead(
            state.alarms, rows, time, score if held is None else np.where(held[:, None], 0.0, score),
            heeded < self._clear * factor, heeded < ONSET_RATIO * value * factor, self._rules,
        )  # fmt: skip
        contrasts = look_ahead(state.onsets, rows, weighed.sudden[places, columns])
        happens = course.happens | contrasts.onset
        learn = np.zeros(time.shape, np.bool_)
        if self._weigher.adapts:
            learn[:] = ((self._manifest.adaptation == "automatic") | ~active)[:, None]
            learn &= True if held is None else ~held[:, None]
            counted = state.trailing.rows[rows][:, None] + np.cumsum(learn, axis=1)
            happens |= learn & (counted >= self._manifest.block_rows)
        if self._drift is not None:
            tick = weighed.tile.tick[places, columns]
            happens |= ~active[:, None] & self._drift.begins(state.drift, rows, tick)
        if active.any():
            some = np.flatnonzero(active)
            happens[some] |= self._told(
                state, weighed, places[some], columns, score[some], heeded[some] / value
            )
            if held is not None:
                happens[some] |= held[some, None]
        clear = np.where(happens.any(axis=1), happens.argmax(axis=1), happens.shape[1])
        return Stretch(places, columns, statistic, factor, learn, score, course, contrasts, clear)

    def pass_by(self, state: DetectorState, weighed: Weighed, stretch: Stretch, ticks: int) -> None:
        """Take the first ticks of a stretch, at which nothing happens to any of its assets."""
        places, rows = stretch.places, weighed.asset[stretch.places]
        part = slice(stretch.columns.start, stretch.columns.start + ticks)
        stretch.course.pass_by(state.alarms, rows, self._rules, ticks)
        stretch.contrasts.pass_by(state.onsets, rows, ticks)
        active = state.alarms.active[rows]
        if self._controller is not None:
            quiet = self._quiet(state, rows, stretch)[:, :ticks]
            self._controller.pass_by(state.budget, rows, quiet.sum(axis=1))
        learn = stretch.learn[:, :ticks]
        if learn.any():
            known = np.nan_to_num(weighed.aspects[places, part], nan=0.0)
            follow_blocks(state.trailing, rows, known, learn, self._manifest.block_rows, self._least)
        if self._drift is not None and not active.all():
            follow_drift(self._drift, state, weighed, places[~active], part)

    def _statistic(self, state: DetectorState, rows: Int64, aspects: Float64) -> Float64:
        """Return the statistics (B, L) of aspects (B, L, 4) over what is usual now."""
        shape = aspects.shape
        usual = np.broadcast_to(state.trailing.normaliser[rows][:, None], shape)
        return self._weigher.statistic(aspects.reshape(-1, shape[2]), usual.reshape(-1, shape[2])).reshape(
            shape[:2]
        )

    def _factors(self, state: DetectorState, rows: Int64, heeded: Float64, active: Bool) -> Float64:
        if self._controller is None:
            return np.ones(heeded.shape)

        def quiet(factor: Float64) -> Bool:
            return (heeded < self._clear * factor) & ~active[:, None]

        return self._controller.factors_ahead(state.budget, rows, heeded.shape[1], quiet)

    def _quiet(self, state: DetectorState, rows: Int64, stretch: Stretch) -> Bool:
        """Return (B, L) which samples are out of alarm and below the clearing value."""
        return (stretch.course.quiets > 0) & ~state.alarms.active[rows][:, None]

    def _told(
        self,
        state: DetectorState,
        weighed: Weighed,
        places: Int64,
        columns: slice,
        score: Float64,
        ratio: Float64,
    ) -> Bool:
        """Return (B, L) where the open alarms of assets would be told of, or be beyond the controller's reach."""
        rows, (first, end, _) = weighed.asset[places], columns.indices(weighed.time.shape[1])
        flat = (weighed.flat(places, first)[:, None] + np.arange(end - first)).reshape(-1)
        toward = directions(self._scorer, weighed.tile.averages.take(flat))
        news = is_news(state.reported, np.repeat(rows, end - first), toward, score.reshape(-1))
        told = news.reshape(score.shape)
        if self._controller is not None:
            told |= (ratio >= MOST) & (state.budget.gain[rows] > 0.0)[:, None]
        return told


def follow_drift(
    drift: DriftWatch, state: DetectorState, weighed: Weighed, places: Int64, columns: slice
) -> Int64:
    """Let drift follow some columns of assets that are not in alarm, and return of which to train anew is advised."""
    tile = weighed.tile
    shape = (*tile.tick.shape, -1)
    level = tile.scaled.reshape(shape)[places, columns].astype(np.float64)
    residual = level - tile.pending.reshape(shape)[places, columns]
    present = None if tile.present is None else tile.present.reshape(shape)[places, columns]
    return drift.follow(
        state.drift, weighed.asset[places], tile.tick[places, columns], weighed.time[places, columns],
        level, residual, present,
    )  # fmt: skip
