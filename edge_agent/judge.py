"""The judge: averages → statistics → what is usual of late → score → alarms, onsets, drift and budget.

What does not depend on the sample before is weighed for a whole tile. What does is judged tick by tick, all assets of a
tile at once; ticks at which nothing happens are passed by together (`uneventful`).
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TypeVar

import numpy as np

from edge_agent.blame import Blame
from edge_agent.contract.alarms import (
    HELD_BACK,
    OFF,
    AlarmRules,
    Permit,
    Transitions,
    follow_alarms,
    forget_alarms,
    stop_alarms,
)
from edge_agent.contract.budget_controller import BudgetController, BudgetState
from edge_agent.contract.bundle import Bundle
from edge_agent.contract.drift import DriftWatch
from edge_agent.contract.minimum_deviation import MinimumDeviation
from edge_agent.contract.onset import follow_onsets
from edge_agent.contract.scoring import Scorer
from edge_agent.contract.signature import changed, directions
from edge_agent.contract.threshold import ONSET_RATIO
from edge_agent.contract.trailing import follow_blocks
from edge_agent.contract.types import (
    AlarmEvent,
    Bool,
    DriftEvent,
    Float64,
    Int64,
    Outcomes,
    Places,
    Samples,
)
from edge_agent.detector_state import DetectorState, Followed, ScoredTile, Stopped
from edge_agent.tiles import places_of
from edge_agent.uneventful import Uneventful, follow_drift
from edge_agent.weighing import Weighed, Weigher

AHEAD = 64
"""Ticks that are looked at together after one at which something happened; then twice as many each time."""

Event = TypeVar("Event")


@dataclass
class Verdict:
    """What is said of the n samples of one call: NaN and False until their turn.

    Attributes:
        statistic, score, alarm, factor, drift, onset: see `Outcomes`.
        events, advice: each with the position of its sample.
    """

    statistic: Float64
    score: Float64
    factor: Float64
    drift: Float64
    alarm: Bool
    onset: Bool
    events: list[tuple[int, AlarmEvent]] = field(default_factory=list)
    advice: list[tuple[int, DriftEvent]] = field(default_factory=list)

    @staticmethod
    def open(alarm: Bool) -> "Verdict":
        """Return that nothing is known of samples but whether their asset was in `alarm` (n,)."""
        statistic, score, factor, drift = np.full((4, len(alarm)), np.nan)
        return Verdict(statistic, score, factor, drift, alarm, np.zeros(len(alarm), np.bool_))


class Judge:
    """Turns the averages of samples into scores, alarms and advice; holds no state of assets itself.

    Args:
        bundle: the model.
        scorer: of the bundle's scoring model.
        alarm_rules: when alarms open, close and become critical.
        adaptive: whether the threshold follows the realised alarm rate, see `budget_controller.py`.

    Attributes:
        held_back: how many excursions did not become an alarm at once, by the rule that held them back.
    """

    def __init__(self, bundle: Bundle, scorer: Scorer, alarm_rules: AlarmRules, adaptive: bool) -> None:
        manifest = bundle.manifest
        self.held_back: Counter[str] = Counter(dict.fromkeys(HELD_BACK, 0))
        self._bundle = bundle
        self._scorer = scorer
        self._alarm_rules = alarm_rules
        self._blame = Blame(bundle, scorer)
        self._scaling, self._axis = manifest.scaling, manifest.axis
        self._deviation = (
            MinimumDeviation(manifest.sensor_names, alarm_rules.sensors) if alarm_rules.sensors else None
        )
        budget, interval = manifest.threshold.alarms_per_week, manifest.sampling_interval_seconds
        self._controller = BudgetController(budget, interval) if adaptive else None
        self._drift = None if manifest.drift is None else DriftWatch(manifest.drift, bundle.scoring)
        self._interval = interval
        self._weigher = Weigher(bundle, scorer)
        self._clear = manifest.threshold.clear_value(self._weigher.adapts)
        self._onset = ONSET_RATIO * manifest.threshold.value
        self._uneventful = Uneventful(
            bundle, scorer, self._weigher, alarm_rules, self._controller, self._drift
        )

    def judge(self, state: DetectorState, tile: ScoredTile, verdict: Verdict) -> None:
        """Turn the averages of a tile into scores, and follow its alarms.

        Args:
            state: changed in place.
            tile: whose averages are those of its samples.
            verdict: filled in.
        """
        asset = np.arange(len(state.last_tick))[tile.rows]
        weighed = self._weigher.weigh(tile, asset)
        if tile.tick.shape[1] == 1:
            self._judge_tick(state, weighed, slice(None), 0, verdict)
        else:
            self._judge_ticks(state, weighed, np.arange(len(asset)), verdict)

    def stop(self, state: DetectorState, stopped: Stopped, verdict: Verdict) -> None:
        """End the alarms of assets that went off; a machine that is off names no sensors."""
        ended = stop_alarms(state.alarms, stopped.asset)
        which = np.flatnonzero(np.isin(stopped.asset, ended))
        times = self._axis.time_of(stopped.tick[which])
        for at, time in zip(which.tolist(), times.tolist(), strict=True):
            event = self._blame.event(state.alarms, "end", int(stopped.asset[at]), time, np.nan, ())
            verdict.events.append((int(stopped.position[at]), replace(event, end_reason=OFF)))

    def outcomes(self, samples: Samples, followed: Followed, verdict: Verdict) -> Outcomes:
        """Return what is said of samples (n) when all of them are judged; events come in the order of the samples."""
        off = followed.off
        if self._bundle.manifest.off_condition is not None:
            verdict.alarm[off] = False
        _carry(verdict.alarm, samples.asset, np.isfinite(verdict.score) | off)
        return Outcomes(
            samples.asset, samples.tick, self._axis.time_of(samples.tick), verdict.score, verdict.statistic,
            verdict.alarm, followed.forecast, _in_order(verdict.events), _in_order(followed.quality),
            off=None if self._bundle.manifest.off_condition is None else off,
            advice=_in_order(verdict.advice),
            factor=None if self._controller is None else verdict.factor,
            drift=None if self._drift is None else verdict.drift,
            onset=verdict.onset,
        )  # fmt: skip

    def forgive(self, state: BudgetState, assets: Int64) -> None:
        """Take back what the last alarm of assets (B,), a true fault, did to their thresholds."""
        if self._controller is not None:
            self._controller.forgive(state, assets)

    def _judge_ticks(self, state: DetectorState, weighed: Weighed, places: Int64, verdict: Verdict) -> None:
        """Judge all ticks of some assets of a tile; those to which nothing happens do not wait for the others."""
        at, ahead, count = 0, weighed.time.shape[1], weighed.time.shape[1]
        while at < count:
            columns = slice(at, min(at + ahead, count))
            stretch = self._uneventful.look_ahead(state, weighed, places, columns)
            width = columns.stop - at
            calm = stretch.clear == width
            if at == 0 and width == count and calm.any() and not calm.all():
                self._judge_ticks(state, weighed, places[calm], verdict)
                places = places[~calm]
                continue
            clear = int(stretch.clear.min())
            if clear:
                self._uneventful.pass_by(state, weighed, stretch, clear)
                part = slice(0, clear)
                position = weighed.tile.position[places, at : at + clear]
                verdict.statistic[position] = stretch.statistic[:, part]
                verdict.score[position] = stretch.score[:, part]
                verdict.factor[position] = stretch.factor[:, part]
                verdict.alarm[position] = state.alarms.active[weighed.asset[places]][:, None]
                if self._drift is not None:
                    verdict.drift[position] = state.drift.drift(weighed.asset[places])[:, None]
                at += clear
            if clear == width:
                ahead *= 2
                continue
            self._judge_tick(state, weighed, places, at, verdict)
            at, ahead = at + 1, AHEAD

    def _judge_tick(
        self, state: DetectorState, weighed: Weighed, places: Places, column: int, verdict: Verdict
    ) -> None:
        """Judge one sample of each of some assets of a tile."""
        tile, asset = weighed.tile, weighed.asset[places]
        rows = tile.rows if isinstance(places, slice) else places_of(asset)
        at = tile.position[places, column]
        time, aspects = weighed.time[places, column], weighed.aspects[places, column]
        factor = (
            np.ones(len(asset)) if self._controller is None else self._controller.factor(state.budget, rows)
        )
        statistic = self._weigher.statistic(aspects, state.trailing.normaliser[rows])
        score = self._weigher.score(statistic, factor)
        verdict.factor[at], verdict.statistic[at], verdict.score[at] = factor, statistic, score
        heeded = score, statistic
        held = None if tile.held is None else tile.held[places]
        if held is not None and held.any():
            self._end_for_maintenance(state, held, weighed, _numbers(places, asset), column, score, verdict)
            heeded = np.where(held, 0.0, score), np.where(held, 0.0, statistic)
        permit = self._permit(weighed, places, column)
        happened = self._follow_alarms(state, rows, time, *heeded, factor, permit)
        onset = follow_onsets(state.onsets, rows, weighed.sudden[places, column], happened.started)
        active = state.alarms.active[rows]
        if np.count_nonzero(active):
            which = _numbers(places, asset)
            happened = self._tell_of_changes(state, happened, weighed, which, column, score, onset)
        verdict.onset[at], verdict.alarm[at] = onset, active
        if self._weigher.adapts:
            self._learn_usual(state, asset, aspects, held)
        if self._drift is not None:
            self._follow_drift(state, weighed, _numbers(places, asset), column, verdict)
            verdict.drift[at] = state.drift.drift(rows)
        if happened.any():
            which = _numbers(places, asset)
            found = self._blame.events(state.alarms, happened, weighed, which, column, score, onset)
            verdict.events += [(int(at[place]), event) for place, event in found]

    def _learn_usual(self, state: DetectorState, asset: Int64, aspects: Float64, held: Bool | None) -> None:
        """Take samples into what is usual of late; none in maintenance, in an alarm only if the operator wants that."""
        manifest = self._bundle.manifest
        learn = (manifest.adaptation == "automatic") | ~state.alarms.active[asset]
        if held is not None:
            learn &= ~held
        known = np.nan_to_num(aspects, nan=0.0)[:, None]
        follow_blocks(
            state.trailing, asset, known, learn[:, None], manifest.block_rows, self._bundle.scoring.least
        )

    def _end_for_maintenance(
        self, state: DetectorState, held: Bool, weighed: Weighed, places: Int64, column: int, score: Float64,
        verdict: Verdict,
    ) -> None:  # fmt: skip
        """End the alarms that are open in maintenance; the events say why."""
        asset = weighed.asset[places]
        ended = held & state.alarms.active[asset]
        if not ended.any():
            return
        none = np.zeros(len(held), np.bool_)
        happened = Transitions(none, none, ended, none, none, none)
        found = self._blame.events(state.alarms, happened, weighed, places, column, score, none)
        forget_alarms(state.alarms, asset[ended])
        position = weighed.tile.position[places, column]
        verdict.events += [
            (int(position[at]), replace(event, end_reason="maintenance")) for at, event in found
        ]

    def _follow_alarms(
        self, state: DetectorState, rows: Places, time: Float64, score: Float64, statistic: Float64, factor: Float64,
        permit: Permit | None,
    ) -> Transitions:  # fmt: skip
        quiet, calm = statistic < self._clear * factor, statistic < self._onset * factor
        happened = follow_alarms(
            state.alarms, rows, time, score, quiet, self._alarm_rules, self._interval, calm, permit
        )
        if self._controller is not None:
            active = state.alarms.active[rows]
            alarmed = np.count_nonzero(active)
            resting = quiet & ~active if alarmed else quiet
            self._controller.follow(state.budget, rows, time, happened.started, resting)
            if alarmed:
                ratio = statistic / self._bundle.manifest.threshold.value
                self._controller.let_pass(state.budget, rows, active, ratio)
        for reason, which in zip(HELD_BACK, (happened.cooled, happened.slight), strict=True):
            self.held_back[reason] += int(np.count_nonzero(which))
        return happened

    def _permit(self, weighed: Weighed, places: Places, column: int) -> Permit | None:
        """Return what says whether sensors deviate enough for an alarm; None where no sensor has a rule."""
        deviation, tile = self._deviation, weighed.tile
        if deviation is None:
            return None

        def permit(at: Int64) -> Bool:
            rows = weighed.flat(np.arange(len(weighed.asset))[places][at], column)
            averages = tile.averages.take(rows)
            present = None if tile.present is None else tile.present[rows]
            actual = self._scaling.invert(tile.scaled[rows])
            expected = self._blame.expected(averages, tile.pending[rows])
            return deviation.enough(self._scorer.shares(averages, present), actual, expected)

        return permit

    def _follow_drift(
        self, state: DetectorState, weighed: Weighed, places: Int64, column: int, verdict: Verdict
    ) -> None:
        """Follow the drift of the assets that are not in alarm."""
        assert self._drift is not None
        asset = weighed.asset[places]
        free = places[~state.alarms.active[asset]]
        if not len(free):
            return
        advised = follow_drift(self._drift, state, weighed, free, slice(column, column + 1))
        for one in advised.tolist():
            position = weighed.tile.position[np.flatnonzero(weighed.asset == one)[0], column]
            verdict.advice.append((int(position), self._blame.advice(state.drift, one)))

    def _tell_of_changes(
        self, state: DetectorState, happened: Transitions, weighed: Weighed, places: Int64, column: int,
        score: Float64, onset: Bool,
    ) -> Transitions:  # fmt: skip
        """Add an update for each open alarm that became much stronger, turned away, or has an onset of its own."""
        asset = weighed.asset[places]
        active = np.flatnonzero(state.alarms.active[asset])
        toward = directions(self._scorer, weighed.tile.averages.take(weighed.flat(places[active], column)))
        told = (happened.started | happened.updated)[active]
        news = changed(state.reported, asset[active], toward, score[active], told)
        updated = happened.updated.copy()
        updated[active[(news | onset[active]) & ~told]] = True
        return replace(happened, updated=updated)


def _numbers(places: Places, asset: Int64) -> Int64:
    """Return places (B,) of the assets (B,) as numbers."""
    return np.arange(len(asset)) if isinstance(places, slice) else places


def _in_order(events: list[tuple[int, Event]]) -> list[Event]:
    """Return events in the order of the positions that come with them."""
    return [event for _, event in sorted(events, key=itemgetter(0))]


def _carry(alarm: Bool, asset: Int64, known: Bool) -> None:
    """Give samples without a score the alarm (n,) of the sample of their asset before them, if that is of this call."""
    if known.all():
        return
    order = np.argsort(asset, kind="stable")
    place = np.arange(len(order))
    last = np.maximum.accumulate(np.where(known[order], place, -1))
    first = np.searchsorted(asset[order], asset[order])
    alarm[order] = alarm[order[np.where(last >= first, last, place)]]
